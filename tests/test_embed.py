"""Programs in other languages: built with what `sdltx-cli embed` prints, they make the frames that Python makes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import wave
from pathlib import Path

import numpy as np
import pytest
from commands import errors, run

import sdltx

EXAMPLES = Path(__file__).parent.parent / "examples"
MODEL = sdltx._demo.demo_files()
PROMPT = "a red circle moves left"
TOOLS = {**os.environ, "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))}
STRICT = ["-pedantic", "-Wall", "-Wextra", "-Werror"]


def done(*command, **more):
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, env=TOOLS, check=False, **more
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def embed(*options):
    return shlex.split(run("embed", *options).stdout)


@pytest.fixture(scope="module")
def clips():
    """What Python makes: of the model's own seed-less options, with seed 1."""
    with sdltx.load() as pipe:
        return {prompt: pipe.generate(prompt, seed=1) for prompt in (PROMPT, "a blue square")}


def pictures(folder):
    frames = []
    for path in sorted(folder.glob("*.ppm")):
        kind, size, depth, pixels = path.read_bytes().split(b"\n", 3)
        assert (kind, depth) == (b"P6", b"255")
        width, height = map(int, size.split())
        frames.append(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
    return np.stack(frames)


def cc_line(tmp_path):
    done("cc", "-std=c99", *STRICT, EXAMPLES / "c/clip.c", "-o", tmp_path / "clip", *embed("--cflags", "--libs"))


def pkg_config(tmp_path):
    (folder,) = embed("--pkgconfigdir")
    command = ["pkgconf", f"--with-path={folder}", "--cflags", "--libs", "sdltx"]
    flags = shlex.split(done(*command))
    done("cc", "-std=c99", *STRICT, EXAMPLES / "c/clip.c", "-o", tmp_path / "clip", *flags)
    assert done(*command[:2], "--modversion", "sdltx").strip() == sdltx.__version__


def find_package(tmp_path):
    version = ".".join(sdltx.__version__.split(".")[:2])
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(x C)\n"
        f"find_package(sdltx {version} CONFIG REQUIRED)\n"
        f'add_executable(clip "{EXAMPLES}/c/clip.c")\ntarget_link_libraries(clip PRIVATE sdltx::sdltx)\n'
    )
    (folder,) = embed("--cmakedir")
    done("cmake", "-S", tmp_path, "-B", tmp_path, "-G", "Ninja", f"-Dsdltx_DIR={folder}")
    done("cmake", "--build", tmp_path)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("build", [cc_line, pkg_config, find_package])
def test_c(build, clips, tmp_path):
    build(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    done(tmp_path / "clip", out, PROMPT, *MODEL)
    np.testing.assert_array_equal(pictures(out), clips[PROMPT].frames)
    with wave.open(str(out / "sound.wav")) as sound:
        assert sound.getframerate() == clips[PROMPT].sample_rate
        values = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, sound.getnchannels()).T
    assert np.abs(values - 32767 * clips[PROMPT].audio).max() <= 0.51


def test_c_tells_errors(tmp_path):
    cc_line(tmp_path)
    for arguments, status, line in (
        ([], 2, "usage: "),
        ([tmp_path, "x", tmp_path / "missing"], 1, "error: "),
        ([tmp_path / "missing", "x", *MODEL], 5, "cannot write "),
    ):
        result = subprocess.run([tmp_path / "clip", *arguments], capture_output=True, text=True, timeout=300)
        assert result.returncode == status, result.stderr
        assert line in result.stderr


@pytest.mark.by_day(0)
def test_cpp(clips, tmp_path):
    flags = embed("--cflags", "--libs")
    done("c++", "-std=c++17", *STRICT, EXAMPLES / "cpp/prompts.cpp", "-o", tmp_path / "prompts", *flags)
    done(tmp_path / "prompts", tmp_path, *MODEL, input="\n".join(clips) + "\n")
    for number, clip in enumerate(clips.values(), 1):
        assert (tmp_path / f"clip_{number}.rgb").read_bytes() == clip.frames.tobytes()


def test_ctypes(tmp_path):
    """In an interpreter without site packages."""
    (library,) = embed("--libdir")
    command = [sys.executable, "-I", "-S", EXAMPLES / "ctypes/frames.py", f"{library}/libsdltx.so", tmp_path, PROMPT]
    done(*command, *MODEL)
    info = sdltx.load().info["defaults"]
    assert pictures(tmp_path).shape == (info["num_frames"], info["height"], info["width"], 3)
    result = subprocess.run([*command, tmp_path / "missing"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: [")


def test_embed_prints_all():
    told = run("embed")
    assert told.returncode == 0
    for name, path in (line.split(maxsplit=1) for line in told.stdout.splitlines()):
        if name.endswith("dir"):
            assert Path(path).is_dir()
    assert len(told.stdout.splitlines()) == 5
    assert errors(run("embed", "--ldflags"))
