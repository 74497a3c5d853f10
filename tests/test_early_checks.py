"""What can be refused is refused before a model is opened, in one line; wrong types too."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from commands import errors, generate, names, run

import sdltx
from sdltx import _arguments, media, pipeline

# --- refused before a model is loaded ---


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--tile-size", "33"], "32"),
        (["--tile-frames", "5"], "8"),
        (["--tile-size", "64", "--tile-overlap", "64"], "overlap 64"),
        (["-s", "-2"], "use -1 or more"),
        (["--preset", "fast"], "distilled"),
        (["--fps", "1e99999999"], "rate"),
        (["-t", "abc"], "'abc' is not a number of threads"),
    ],
)
def test_refused_before_the_model_is_opened(tmp_path, arguments, word):
    done = run("generate", "-p", "x", "-m", "no-such-model", "-o", tmp_path / "a.mp4", *arguments, timeout=20)
    assert done.returncode == 2
    assert word in errors(done)[0]
    assert names(tmp_path) == []


def test_tiles_of_the_api_are_refused_before_the_prompt_is_encoded(demo):
    seen = []
    with pytest.raises(sdltx.InvalidRequestError, match="tile size 33"):
        demo.generate("x", tiling=sdltx.Tiling(33, 0, 0, 0), progress=lambda *event: seen.append(event))
    assert seen == []


def test_an_overlap_that_is_not_given_follows_a_small_tile(tmp_path):
    done = generate("-o", tmp_path / "a.png", "--tile-frames", "16", "--tile-size", "64")
    assert done.returncode == 0, done.stderr
    assert media.read_settings(tmp_path / "a_0001.png")["tiling"] == [64, 32, 16, 8]
    assert "small tiles change the picture" in done.stderr


@pytest.mark.parametrize("prompt", [b"\xff", b"x" * (1 << 20) + b"x"])
def test_prompts_that_cannot_be_are_refused_early(tmp_path, prompt):
    (tmp_path / "p.txt").write_bytes(prompt)
    done = run("generate", "--prompt-file", tmp_path / "p.txt", "-m", "no-such-model", "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert "prompt" in errors(done)[0]
    with pytest.raises(sdltx.InvalidRequestError, match="prompt"):
        pipeline.check(prompt="\udcff" if prompt == b"\xff" else prompt.decode())


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa red circle\r\n")
    done = run("generate", "--prompt-file", tmp_path / "p.txt", "--dry-run")
    assert "prompt  'a red circle'" in done.stdout


def test_a_prompt_in_utf8_where_the_locale_is_not():
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("generate", "-p", "grün", "--dry-run", env={**environment, "PYTHONIOENCODING": "utf-8"})
    assert "prompt  'grün'" in done.stdout, done.stderr


def test_a_closed_standard_input_is_no_prompt(tmp_path):
    done = run(
        *("generate", "-p", "-", "-o", tmp_path / "a.mp4"), stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(0)
    )
    assert done.returncode == 2
    assert "[prompt] standard input is closed" in errors(done)[0]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["generate", "a red ball"], "-p"), (["generate", "-p", "x", "-m", "a", "b"], "repeat it")],
)
def test_loose_arguments_are_explained(arguments, hint):
    done = run(*arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "sdltx-cli generate --help" in done.stderr


def test_verbosity_does_not_change_the_status(tmp_path):
    done = generate("--num-frames", "2", "-vv", "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")


# --- types ---


def test_numbers_of_numpy_are_numbers(demo, tmp_path):
    small = {
        "width": np.int64(64),
        "height": np.uint16(64),
        "num_frames": np.int32(9),
        "num_inference_steps": np.int8(1),
    }
    clip = demo.generate("x", **small, frame_rate=np.float32(12), sigmas=None, seed=np.int64(3))
    clip.save(tmp_path / "a.mp4")
    settings = media.read_settings(tmp_path / "a.mp4")
    assert (settings["seed"], settings["width"], settings["frame_rate"]) == (3, 64, 12.0)
    latents = demo.sample(demo.encode("x"), **small, frame_rate=Fraction(25, 2), seed=np.uint64(4))
    latents.save(tmp_path / "l.safetensors")
    assert sdltx.Latents.load(tmp_path / "l.safetensors").frame_rate == 12.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.generate(None), ["prompt", "text", "None"]),
        (lambda p: p.generate(5), ["prompt", "text", "int 5"]),
        (lambda p: p.generate([5]), ["prompt", "text", "int 5"]),
        (lambda p: p.encode(b"a"), ["prompt", "text", "bytes"]),
        (lambda p: p.generate("x", width=32.0), ["width", "whole number", "float 32.0"]),
        (lambda p: p.generate("x", seed=1.0), ["seed", "whole number", "float 1.0"]),
        (lambda p: p.generate("x", seed="1"), ["seed", "whole number", "str '1'"]),
        (lambda p: p.generate("x", frame_rate="12"), ["frame_rate", "a number", "str '12'"]),
        (lambda p: p.generate("x", frame_rate=np.ones(2)), ["frame_rate", "a number", "ndarray"]),
        (lambda p: p.generate("x", sigmas=1.0), ["sigmas", "list of numbers", "float 1.0"]),
        (lambda p: p.generate("x", sigmas="1,0"), ["sigmas", "list of numbers", "str"]),
        (lambda p: p.generate("x", sigmas=[1, None, 0]), ["sigmas", "a number", "None"]),
        (lambda p: p.generate("x", tiling=(64, None, 16, 8)), ["tile overlap", "whole number", "None"]),
        (lambda p: p.generate("x", tiling=64), ["tiling", "Tiling(size, overlap, frames, frame_overlap)", "int 64"]),
        (lambda p: p.generate("x", tiling=(64.5, 32, 16, 8)), ["tile size", "whole number", "float 64.5"]),
        (lambda p: p.generate("x", preset=1), ["preset", "distilled", "int 1"]),
        (lambda p: p.generate("x", noise=np.zeros(3)), ["noise", "Latents", "ndarray"]),
        (lambda p: p.decode(np.zeros((1, 2, 3, 4))), ["latents", "Latents", "ndarray"]),
        (lambda p: p.decode_audio(None), ["latents", "Latents", "None"]),
        (lambda p: p.sample("x"), ["context", "Context (made by encode())", "str 'x'"]),
        (lambda p: sdltx.load([1, 2]), ["path", "list"]),
        (lambda p: sdltx.load(b"x"), ["path", "bytes"]),
        (lambda p: sdltx.load(device=3), ["device", "int 3"]),
        (lambda p: sdltx.load(threads="2"), ["threads", "whole number", "str '2'"]),
        (lambda p: sdltx.load(precision=3), ["precision", "int 3"]),
        (lambda p: sdltx.Latents.load(3), ["path", "int 3"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, "x"), ["frame_rate", "a number", "str 'x'"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, -1), ["frame_rate", "-1"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, 1, [1]), ["settings", "dictionary", "list"]),
    ],
)
def test_a_wrong_type_is_one_line_that_names_it(demo, call, words):
    with pytest.raises(sdltx.InvalidRequestError) as caught:
        call(demo)
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_a_tuple_is_a_tiling(demo):
    latents = sdltx.Latents(np.zeros((32, 1, 2, 2), np.float32), None, 12)
    assert demo.decode(latents, tiling=(64, 32, 16, 8)).frames.shape == (1, 64, 64, 3)


def test_arguments_keep_what_is_right():
    assert _arguments.number("a", "b", Fraction(1, 4)) == 0.25
    assert _arguments.integer("a", "b", np.int8(1)) == 1
    assert _arguments.numbers("a", "b", np.array([1, 0.5])) == [1.0, 0.5]


def test_read_only_arrays_stay_so_through_copies():
    for value in (
        sdltx.Context(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)),
        sdltx.Latents(np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)),
        sdltx.Video(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 5), np.float32), 10),
    ):
        for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            for name in ("video", "audio", "frames"):
                if (array := getattr(twin, name, None)) is not None:
                    assert not array.flags.writeable


def test_damaged_settings_are_damage(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"video": np.zeros((8, 1, 1, 1), np.float32)}
    for text in ("[" * 100_000, '{"frame_rate": 1, "settings": [1]}', '{"frame_rate": [], "settings": {}}', "3"):
        save_file(arrays, tmp_path / "l.safetensors", {"sdltx.latents": text})
        with pytest.raises(sdltx.ModelFileError, match="damaged"):
            sdltx.Latents.load(tmp_path / "l.safetensors")
    for path, word in ((tmp_path, "no file"), (tmp_path / "none", "does not exist")):
        with pytest.raises(sdltx.ModelFileError, match=word):
            sdltx.Latents.load(path)


def test_media_is_there_without_an_import():
    code = "import sdltx; sdltx.media.read_settings"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
