"""The container of the server: what its file says, and that it runs as there, without an engine for containers.

.ci/container also runs the steps that install it, and builds it where there is an engine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTAINERFILE = ROOT / "integrations" / "container" / "Containerfile"
# In a name space of its own: nothing but /data can be written, and others may read what is needed of root's own folder.
ROOM = """
set -e
mount --make-rprivate /
mount --bind {data} /data
mount -t tmpfs none /mnt
for path in {private}; do mkdir -p "/mnt$path"; mount --bind "$path" "/mnt$path"; done
[ -z "{private}" ] || mount -t tmpfs -o mode=755 none /root
for path in {private}; do mkdir -p "$path"; mount --bind "/mnt$path" "$path"; done
mount -o remount,bind,ro /
cd /
! touch /written 2>/dev/null
exec setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all --no-new-privs -- env -i {env} {command}
"""


def instructions() -> list[tuple[str, str]]:
    """Of the last stage."""
    text = CONTAINERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [tuple(line.split(" ", 1)) for line in lines]
    last = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def test_the_file_is_what_it_promises():
    told = dict(instructions())
    user = int(told["USER"].split(":")[0])
    assert user > 0
    entry = json.loads(told["ENTRYPOINT"])
    assert entry[1:] == ["serve", "--host", "0.0.0.0", "--data", "/data"]
    assert json.loads(told["VOLUME"]) == ["/data"]
    assert ":latest" not in CONTAINERFILE.read_text()
    assert re.search(r"^ARG BUILD=\S+:\d", CONTAINERFILE.read_text(), re.MULTILINE)
    # All that is built from goes into the image, and nothing else does.
    kept = [line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    assert {"CMakeLists.txt", "pyproject.toml", "csrc", "cmake", "python"} <= set(kept)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs name spaces, which root has")
def test_it_runs_without_privileges_and_writes_to_its_data_alone(tmp_path):
    told = instructions()
    user = dict(told)["USER"].split(":")[0]
    env = dict(word.split("=", 1) for word in shlex.split(dict(told)["ENV"]))
    installed = Path(os.environ.get("SDLTX_CONTAINER_ROOT", sys.prefix))
    command = json.loads(dict(told)["ENTRYPOINT"])
    command[0] = str(installed / "bin" / "sdltx-cli")
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, int(user), int(user))
    place = Path("/data")
    made = not place.exists()
    place.mkdir(exist_ok=True)
    env |= {"SDLTX_SERVER_TOKEN": "secret", "PATH": f"{installed}/bin:/usr/bin:/bin"}
    needed = sorted({sys.base_prefix, str(installed), str(ROOT)})
    room = ROOM.format(
        private=" ".join(shlex.quote(path) for path in needed if path.startswith("/root/")),
        data=shlex.quote(str(data)),
        user=user,
        env=shlex.join(f"{name}={value}" for name, value in env.items()),
        command=shlex.join([*command, "--allow-host", "127.0.0.1", "--port", "0"]),
    )
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", room], stderr=subprocess.PIPE, text=True)
    try:
        lines, url = [], None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at http://0\.0\.0\.0:(\d+);", line):
                url = f"http://127.0.0.1:{found[1]}"
                break
        assert url, "".join(lines)
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}

        def ask(path: str, body: dict | None = None):
            content = None if body is None else json.dumps(body).encode()
            with urllib.request.urlopen(urllib.request.Request(url + path, content, headers), timeout=60) as answer:
                return json.load(answer)

        size = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}
        video = ask("/v1/videos", {"prompt": "a red circle", **size})
        for _ in range(300):
            if (video := ask(f"/v1/videos/{video['id']}"))["status"] in ("completed", "failed"):
                break
            time.sleep(0.1)
        assert video["status"] == "completed", video["error"]
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{user}\s+{user}", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        if made:
            place.rmdir()
    assert (data / "videos" / video["id"] / "video.mp4").stat().st_uid == int(user)
