"""The documentation: generated pages are fresh, every error has an entry, every line of "coming from" runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run
from PIL import Image

import sdltx
from sdltx import _demo, cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TINY = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1"]
SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1}


def program(name):
    """A file of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for path, text in program("write_reference").files().items():
        assert path.read_text() == text, f"run tools/write_reference.py: {path.name} is not fresh"


def test_links_lead_somewhere():
    """Also those of files outside the site, which mkdocs does not look at."""
    for page in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    assert all(page.name in menu for page in DOCS.glob("*.md"))


def test_servers_of_kubernetes_start_with_options_that_there_are():
    yaml = pytest.importorskip("yaml")  # which tests of GGUF files bring
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "many-machines.md").read_text(), flags=re.S)
    service, servers = yaml.safe_load_all(text)
    assert service["metadata"]["name"] == servers["spec"]["serviceName"]
    (container,) = servers["spec"]["template"]["spec"]["containers"]
    entry = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "integrations/container/Containerfile").read_text(), flags=re.M)
    words = [*json.loads(entry[0])[1:], *container["args"]]
    args, unknown = cli._parser().parse_known_args(words)
    assert (args.model, args.allow_host, unknown) == (["/models/ltx-2.3"], ["sdltx", "$(POD).sdltx"], [])


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def prefixes():
    """What stands in brackets at the start of errors in the source."""
    found = set()
    for folder, kinds in ((ROOT / "csrc", ("*.cpp", "*.h")), (ROOT / "python" / "sdltx", ("*.py",))):
        for kind in kinds:
            for file in folder.rglob(kind):
                found |= set(re.findall(r'"\[([a-z][a-z -]*)\] ', file.read_text()))
    return found - {"where", "multimodal"}  # a comment and a token


def test_every_error_has_an_entry():
    page = (DOCS / "troubleshooting.md").read_text()
    missing = sorted(word for word in prefixes() if f"`{word}`" not in page)
    assert not missing, f"docs/troubleshooting.md says nothing of {missing}"
    assert len(prefixes()) > 40


def rows(kind):
    """Of docs/coming-from.md the right sides of this kind."""
    cells = [
        line.split(" | ")[-1]
        for line in (DOCS / "coming-from.md").read_text().splitlines()
        if line[:3] == "| `" or line[:2] == "| "
    ]
    found = [code[1] for cell in cells if (code := re.search(r"`([^`]+)`", cell.rstrip(" |")))]
    return sorted({code for code in found if code.startswith("sdltx-cli") == (kind == "command")})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files that the lines name."""
    folder = tmp_path_factory.mktemp("coming")
    (folder / "models").symlink_to(_demo.FOLDER)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "picture.png")
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)
    sound = (0.1 * rng.standard_normal((2, 48_000))).astype(np.float32)
    with sdltx.load() as pipe:
        pipe.generate("a circle", **{**SMALL, "num_frames": 17}).save(folder / "film.mp4")
    sdltx.Video(frames, sound, 48_000, 24.0).save(folder / "voice.wav")
    (folder / "jobs.jsonl").write_text(json.dumps({"prompt": "a circle", "output": "one.mp4", **SMALL}))
    (folder / "clips").mkdir()
    return folder


@pytest.mark.by_day(5)
@pytest.mark.parametrize("line", rows("command"))
def test_commands_of_coming_from(place, line, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    _, *words = shlex.split(line)
    if words[0] == "generate" and "--help" not in words:
        given = {word.split("=")[0] for word in words}
        others = {"-W": {"--width"}, "-H": {"--height"}, "--num-frames": {"--video-frames", "--frames"}}
        others |= {"--steps": {"--num-inference-steps", "--sigmas"}}
        for flag, value in zip(TINY[::2], TINY[1::2], strict=True):
            if not given & {flag, *others[flag]} and not (flag == "--num-frames" and given & {"--retake", "--audio"}):
                words += [flag, value]
    if words[0] == "batch":  # whose lock is the process's
        assert run(*words).returncode == 0
        return
    try:
        status = cli.main(words)
    except SystemExit as end:  # --help
        status = end.code
    assert status == 0
    shutil.rmtree(place / "smaller", ignore_errors=True)


@pytest.mark.by_day(5)
@pytest.mark.parametrize("expression", rows("python"))
def test_python_of_coming_from(place, expression, monkeypatch):
    monkeypatch.chdir(place)
    with sdltx.load() as pipe:

        class Small:
            """The pipeline, with small clips where nothing is said of their size."""

            def __call__(self, *arguments, **options):
                return pipe(
                    *arguments, **{**SMALL, "progress": False, **options, "seed": None if "generator" in options else 1}
                )

            def __getattr__(self, name):
                return getattr(pipe, name)

        with Image.open("picture.png") as picture:
            names = {"sdltx": sdltx, "pipe": Small(), "prompt": "a red circle", "picture": picture.copy()}
        assert eval(expression, names) is not None or ".save(" in expression


@pytest.mark.by_day(1)
@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "python").glob("*.py")), ids=lambda path: path.stem)
def test_examples(example, tmp_path, place):
    more = [str(place / "picture.png")] if example.stem == "picture_to_clip" else []
    done = subprocess.run(
        [sys.executable, str(example), *more], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.mp4")) or list(tmp_path.glob("*.webm"))


@pytest.mark.by_day(0)
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Cell by cell, and what its last lines give can be shown."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "python" / "notebook.ipynb").read_text())["cells"]
    names = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        *lines, last = "".join(cell["source"]).rstrip().split("\n")
        exec("\n".join(lines), names)
        shown.append(eval(last, names))
    assert any(isinstance(value, sdltx.Video) for value in shown)
    assert any(isinstance(value, Image.Image) for value in shown)
