"""Unpacks the wanted part of a pinned PyPI source distribution and prints the folder that holds it.

The archive comes from --archive, else from the user's cache, else from `pip download`, so that pip's own index, mirror,
proxy and certificate settings hold. Whatever its origin, it is used only if its SHA-256 is the pinned one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath


class FetchError(Exception):
    """One line that says what failed and what to do."""


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_path(name: str, version: str, sha256: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sdltx" / f"{name}-{version}-{sha256[:16]}.tar.gz"


def download(name: str, version: str, sha256: str, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", name, "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR") and not line.endswith("Exception:")]
        raise FetchError(f"pip could not download it ({[*errors, *reversed(lines), 'no output'][0]})")
    return archives[0]


def environment() -> dict[str, str]:
    """That of this process without what a pip that builds us tells its hooks: the one started here has its own hooks,
    and would look for their backends in our folder."""
    hooks = ("_PYPROJECT_HOOKS_", "PEP517_", "PIP_BUILD_TRACKER", "PIP_REQ_TRACKER")
    return {name: value for name, value in os.environ.items() if not name.startswith(hooks)}


def remember(archive: Path, cached: Path) -> None:
    """Copies `archive` into the cache; a cache that cannot be written only costs the next build a download."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as file:
            file.write(archive.read_bytes())
        Path(file.name).replace(cached)
    except OSError:
        pass


def obtain(name: str, version: str, sha256: str, given: str | None, folder: Path) -> Path:
    """The archive with the pinned hash."""
    if given:
        archive = Path(given)
        if not archive.is_file():
            raise FetchError(f"the archive {archive} does not exist")
        actual = sha256_of(archive)
        if actual != sha256:
            raise FetchError(f"the archive {archive} has SHA-256 {actual}, expected {sha256}")
        return archive
    cached = cache_path(name, version, sha256)
    if cached.is_file() and sha256_of(cached) == sha256:
        return cached
    archive = download(name, version, sha256, folder)
    if sha256_of(archive) != sha256:
        raise FetchError(f"the downloaded archive does not have SHA-256 {sha256}")
    remember(archive, cached)
    return archive


def unpack(archive: Path, members: list[str], folder: Path) -> None:
    """Writes the regular files at or below `members` (all if empty), without the archive's top folder."""
    wanted = [PurePosixPath(member) for member in members]
    found: set[PurePosixPath] = set()
    with tarfile.open(archive, "r:gz") as tar:
        for entry in tar:
            parts = PurePosixPath(entry.name).parts[1:]
            path = PurePosixPath(*parts)
            matches = [m for m in wanted if path == m or m in path.parents]
            if entry.isdir() or not parts or (wanted and not matches):
                continue
            if not entry.isfile() or ".." in parts or entry.name.startswith("/"):
                raise FetchError(f"the archive {archive} holds the unsafe member {entry.name}")
            found.update(matches)
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(entry)
            assert source is not None
            target.write_bytes(source.read())
    missing = [str(m) for m in wanted if m not in found]
    if missing:
        raise FetchError(f"the archive {archive} has no member {missing[0]}")


def fetch(name: str, version: str, sha256: str, destination: Path, members: list[str], given: str | None) -> Path:
    """The folder below `destination` with the unpacked members; it is made once and then reused."""
    key = hashlib.sha256("\n".join([sha256, *members]).encode()).hexdigest()[:12]
    root = destination / f"{name}-{version}-{key}"
    if root.is_dir():
        return root
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination) as scratch:
        archive = obtain(name, version, sha256, given, Path(scratch))
        tree = Path(scratch) / "tree"
        tree.mkdir()
        unpack(archive, members, tree)
        try:
            # A rename is atomic: an interrupted build never leaves half a tree under the final name.
            tree.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    return root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name")
    parser.add_argument("version")
    parser.add_argument("sha256")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--member", action="append", default=[], help="file or folder to unpack, below the top folder")
    parser.add_argument("--archive", help="a local copy of the archive, instead of the cache and pip")
    args = parser.parse_args()
    try:
        print(fetch(args.name, args.version, args.sha256.lower(), args.destination, args.member, args.archive))
    except (FetchError, OSError, tarfile.TarError, EOFError) as error:
        text = f"[fetch {args.name} {args.version}] {error}".replace("\n", " ")
        print(f"{text}; to build offline, give its .tar.gz from PyPI or an unpacked copy (see below)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
