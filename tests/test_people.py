"""What people do: the names they give, the folders they work in, the terminals they have; nothing of theirs is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import TINY_CLIP, errors, generate, names, run
from PIL import Image

import sdltx
from sdltx import media

LORA_CLIP = [arg for arg in TINY_CLIP if arg not in ("--steps", "1")] + ["--steps", "1"]


def picture(path, colour=(200, 10, 10)):
    Image.new("RGB", (64, 64), colour).save(path)
    return path


# --- options that can be read but once ---


def test_loras_from_iterators(tiny, tiny_dir):
    lora = tiny_dir / "tiny-lora.safetensors"
    clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1, "preset": "distilled"}
    want = tiny.generate("x", **clip, loras=[(lora, 0.5)])
    assert want.metadata["loras"] == [[str(lora), 0.5]]
    for make in (
        lambda: zip([lora], [0.5], strict=True),
        lambda: iter([(lora, 0.5)]),
        lambda: ((lora, 0.5) for _ in "x"),
    ):
        got = tiny.generate("x", **clip, loras=make())
        np.testing.assert_array_equal(got.frames, want.frames)
        assert got.metadata["loras"] == want.metadata["loras"]
    sigmas = {**clip, "num_inference_steps": None}
    np.testing.assert_array_equal(
        tiny.sample(tiny.encode("x"), **sigmas, sigmas=iter([1.0, 0.5, 0.0])).video,
        tiny.sample(tiny.encode("x"), **sigmas, sigmas=[1.0, 0.5, 0.0]).video,
    )


# --- files that are there ---


def test_a_sequence_does_not_replace_its_input(tmp_path):
    mine = picture(tmp_path / "frame_0001.png")
    before = mine.read_bytes()
    done = generate("-i", mine, "-o", tmp_path / "frame.png")
    assert done.returncode == 2
    assert "frame_0001.png is also an input" in errors(done)[0]
    assert mine.read_bytes() == before
    assert names(tmp_path) == ["frame_0001.png"]


def test_a_sequence_does_not_replace_strangers(tmp_path):
    theirs = picture(tmp_path / "holiday_0003.png")
    before = theirs.read_bytes()
    done = generate("-o", tmp_path / "holiday.png")
    assert done.returncode == 2
    assert "holiday_0003.png is there and not from sdltx" in errors(done)[0]
    assert theirs.read_bytes() == before
    assert names(tmp_path) == ["holiday_0003.png"]
    done = generate("-o", tmp_path / "holiday.png", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "wrote holiday_0001.png ... holiday_0009.png" in done.stderr
    assert theirs.read_bytes() != before
    # Its own are replaced without a word.
    assert generate("-o", tmp_path / "holiday.png").returncode == 0


@pytest.mark.parametrize("kind", ["folder", "protected", "strange"])
def test_a_sequence_is_written_whole_or_not_at_all(tmp_path, kind):
    blocked = tmp_path / "f_0005.png"
    if kind == "folder":
        blocked.mkdir()
    else:
        picture(blocked)
    if kind == "protected":
        blocked.chmod(0o444)
    with pytest.raises(sdltx.InvalidRequestError, match=r"f_0005\.png"):
        sdltx.Video(np.zeros((9, 32, 32, 3), np.uint8)).save(tmp_path / "f.png", overwrite=kind != "strange")
    assert names(tmp_path) == ["f_0005.png"]


def test_previews_of_pictures_do_not_replace_strangers(tmp_path):
    picture(tmp_path / "p_0001.png")
    done = generate("-o", tmp_path / "x.gif", "--preview", tmp_path / "p.png")
    assert done.returncode == 2
    assert "p_0001.png is there" in errors(done)[0]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("50%done.png", "50%done_0001.png"),
        ("100%daily.png", "100%daily_0001.png"),
        ("%5d.png", "%5d_0001.png"),
        ("a%d.png", "a1.png"),
        ("a_%03d.png", "a_001.png"),
        ("a%05dx.png", "a%05dx_0001.png"),
    ],
)
def test_what_is_a_counter(tmp_path, name, written):
    sdltx.Video(np.zeros((2, 32, 32, 3), np.uint8)).save(tmp_path / name)
    assert written in names(tmp_path)


def test_from_does_not_replace_the_picture_it_fills_in(tmp_path):
    mine = picture(tmp_path / "pic.png")
    before = mine.read_bytes()
    one = tmp_path / "one.png"
    done = run("generate", "-p", "x", "-W", 64, "-H", 64, "--num-frames", 1, "--steps", 1, "-i", mine, "-o", one)
    assert done.returncode == 0, done.stderr
    done = run("generate", "--from", one, "-o", mine)
    assert done.returncode == 2
    assert "pic.png is also an input" in errors(done)[0]
    assert mine.read_bytes() == before


# --- what was denoised is kept ---


def interrupted(tmp_path, phase, *options, seconds=0, error="KeyboardInterrupt"):
    """A run that is stopped, or fails, in this phase."""
    code = f"""
import sys, sdltx
from sdltx import cli
from sdltx.cli import job, messages
job._WORTH_KEEPING = {seconds}
show = messages.Bars.show
def stop(self, now, done, total):
    show(self, now, done, total)
    if now == {phase!r} and done > total // 2:
        raise {error}("on purpose")
messages.Bars.show = stop
sys.exit(cli.main(["generate", "-p", "x", *{TINY_CLIP!r}, *{list(map(str, options))!r}]))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "sdltx.BackendError", "sdltx.OutOfMemoryError"])
@pytest.mark.parametrize(
    "outputs", [["--audio-out", "s.wav"], ["-o", "s.wav"], ["-o", "c.mp4"], ["-o", "c.mp4", "--audio-out", "s.wav"]]
)
def test_a_clip_survives_its_decoding_whatever_is_written(tmp_path, outputs, error):
    options = ["--tile-size", 128, "--device", "cpu", "--offload", "stage", "-t", 1]
    done = interrupted(tmp_path, "sound", *outputs, *options, error=error)
    assert done.returncode == {"K": 130, "B": 6, "O": 5}[error.removeprefix("sdltx.")[0]], done.stderr
    (kept,) = names(tmp_path)
    assert kept == f"{'c' if 'c.mp4' in outputs else 's'}.latents.safetensors"
    command = done.stderr.splitlines()[-1].split()
    assert command[:2] == ["sdltx-cli", "decode"]
    for word in (*(path for path in outputs if "." in path), "--device", "--offload", "stage"):
        assert word in command
    assert command[command.index("--tile-size") + 1] == ("64" if error.endswith("MemoryError") else "128")
    again = run(*command[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert set(outputs) & {"s.wav", "c.mp4"} <= set(names(tmp_path))


@pytest.mark.parametrize(("seconds", "kept"), [(0, True), (60, False)])
def test_what_took_long_to_denoise_is_kept(tmp_path, seconds, kept):
    options = ["--steps", 4, "-o", "clip.mp4"]
    done = interrupted(tmp_path, "denoise", *options, seconds=seconds)
    assert done.returncode == 130, done.stderr
    if not kept:
        assert names(tmp_path) == []
        return
    (name,) = names(tmp_path)
    assert name == "clip.step-2.latents.safetensors"
    assert "after 2 of 4 steps" in done.stderr
    again = run(*done.stderr.splitlines()[-1].split()[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "clip.mp4" in names(tmp_path)


@pytest.mark.by_day(0)
def test_numbers_of_rescued_clips_do_not_meet(tmp_path):
    for expected in ("c.latents.safetensors", "c.latents-2.safetensors", "c.latents-3.safetensors"):
        assert interrupted(tmp_path, "decode", "-o", "c.mp4").returncode == 130
        assert expected in names(tmp_path)


def test_a_clip_that_no_folder_takes_is_told_to_be_lost(tmp_path):
    code = f"""
import sys, sdltx
from sdltx import cli, values
from sdltx.cli import messages
def never(self, path):
    raise sdltx.BackendError("the disk is full")
show = messages.Bars.show
def stop(self, now, done, total):
    show(self, now, done, total)
    if now == "decode":
        raise KeyboardInterrupt
messages.Bars.show = stop
values.Latents.save = never
sys.exit(cli.main(["generate", "-p", "x", *{TINY_CLIP!r}, "-o", "c.mp4"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130
    assert "what was denoised is lost: no folder takes it" in done.stderr


def test_a_preview_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    """Its folder goes away after the first step."""
    folder = tmp_path / "previews"
    folder.mkdir()
    code = f"""
import shutil, sys
from sdltx import cli, preview
write = preview.Projection.write
def gone(self, path, *more, **options):
    write(self, path, *more, **options)
    shutil.rmtree({str(folder)!r})
preview.Projection.write = gone
options = ["-o", {str(tmp_path / "x.gif")!r}, "--preview", {str(folder / "p.webp")!r}, "--steps", "5"]
sys.exit(cli.main(["generate", "-p", "x", *{TINY_CLIP!r}, *options]))
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there are no more previews") == 1
    assert (tmp_path / "x.gif").stat().st_size


# --- clips that are made again ---


def test_sound_of_a_clip_without_is_refused_at_once(tmp_path):
    silent = tmp_path / "silent.mp4"
    assert generate("--no-audio", "-o", silent).returncode == 0
    for outputs in (["-o", tmp_path / "x.wav"], ["-o", tmp_path / "x.mp4", "--audio-out", tmp_path / "s.wav"]):
        done = run("generate", "--from", silent, *outputs, "-m", "/nowhere")  # before the model is opened
        assert done.returncode == 2
        assert f"{silent} was made without sound" in errors(done)[0]


def test_a_clip_made_in_another_folder(tmp_path, tiny_paths, tiny_dir):
    made, other, models = (tmp_path / name for name in ("made", "other", "models"))
    for folder in (made, other, models):
        folder.mkdir()
    picture(made / "first.png")
    shutil.copy(tiny_dir / "tiny-lora.safetensors", made / "style.safetensors")
    model = ["-m", tiny_paths[0], "-m", tiny_paths[1], "--preset", "distilled"]
    options = ["-i", "first.png", "--lora", "style.safetensors:0.5", "--no-audio", "-o", "clip.mp4"]
    done = generate(*model, *options, cwd=made)
    assert done.returncode == 0, done.stderr
    again = ["generate", "-m", tiny_paths[0], "-m", tiny_paths[1], "--from", "../made/clip.mp4", "-o", "again.mp4"]
    done = run(*again, cwd=other)
    assert done.returncode == 0, done.stderr
    assert (other / "again.mp4").read_bytes() != b""
    first, second = (media.read_settings(f) for f in (made / "clip.mp4", other / "again.mp4"))
    assert second["images"][0]["sha256"] == first["images"][0]["sha256"]
    # The picture is another one now, and the LoRA lies in a folder of -m.
    picture(made / "first.png", (10, 200, 10))
    (made / "style.safetensors").rename(models / "style.safetensors")
    done = run(*again, "-m", models, cwd=other)
    assert done.returncode == 0, done.stderr
    assert "first.png is not the picture that ../made/clip.mp4 was made with" in done.stderr


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampler": "of tomorrow"}, "this version has no sampler"),
        ({"guidance_method": "of tomorrow"}, "this version has no guidance_method"),
        ({"recipe": "of tomorrow"}, "this version has no recipe"),
        ({"initial": True}, "values that were given to Python (initial)"),
        ({"noise": True}, "values that were given to Python (noise)"),
        ({"loras": "x"}, "expected paths with strengths"),
        ({"loras": [[5, 1.0]]}, "expected paths with strengths"),
        ({"upscalers": [5]}, "expected paths"),
        ({"tiling": [1, 2]}, "expected four numbers"),
        ({"precision": "f8"}, "neither auto nor f32"),
        ({"images": [{"path": 5}]}, "a picture that it does not name"),
    ],
)
def test_settings_that_cannot_be_repeated(tmp_path, change, said):
    settings = {"sdltx_version": "9", "prompt": "x", "seed": 1, **change}
    latents = sdltx.Latents(np.zeros((4, 1, 1, 1), np.float32), settings=settings)
    latents.save(tmp_path / "l.safetensors")
    done = run("generate", "--from", tmp_path / "l.safetensors", "--dry-run")
    assert done.returncode == 2
    assert errors(done)[0].startswith("error: [from]")
    assert said in errors(done)[0]


def test_what_cannot_be_told_is_noted(tiny):
    clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "preset": "distilled"}
    context = tiny.encode("x")
    first = tiny.sample(context, **clip, seed=1)
    again = tiny.sample(context, **clip, noise=sdltx.Latents(first.video, first.audio))
    assert again.settings["noise"] is True
    assert again.seed is None  # nothing was drawn
    half = tiny.sample(context, **clip, noise=sdltx.Latents(first.video))
    assert half.seed is not None  # of the sound
    several = tiny.sample(context, **clip, sampler="res_2s", noise=sdltx.Latents(first.video, first.audio))
    assert several.seed is not None  # of what it adds on its way
    sigmas = {**clip, "num_inference_steps": None, "sigmas": [0.5, 0.0]}
    assert tiny.sample(context, **sigmas, seed=1, initial=first).settings["initial"] is True


@pytest.mark.parametrize("kind", ["full", "plain", "none"])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ".png", ".wav"])
def test_how_much_a_clip_tells(tmp_path, kind, suffix):
    here = tmp_path / "my folder"
    here.mkdir()
    settings = {
        "sdltx_version": "1",
        "prompt": "x",
        "images": [{"path": str(here / "a.png"), "frame": 0}],
        "loras": [[str(here / "b.safetensors"), 0.5]],
        "loras_stage2": [[str(here / "c.safetensors"), 0.5]],
        "upscalers": [str(here / "d.safetensors")],
        "distilled_lora": str(here / "e.safetensors"),
    }
    path = here / f"x{suffix}"
    sound = np.zeros((2, 4800), np.float32)
    sdltx.Video(np.zeros((2, 32, 32, 3), np.uint8), sound, 48000, 24, settings).save(path, metadata=kind)
    if kind == "none":
        with pytest.raises(sdltx.InvalidRequestError, match="holds no settings"):
            media.read_settings(path)
        return
    told = media.read_settings(path)
    assert told["prompt"] == "x"
    assert ("my folder" in json.dumps(told)) is (kind == "full")
    assert told["loras"][0][1] == 0.5
    with pytest.raises(sdltx.InvalidRequestError, match="metadata 'all' is unknown"):
        sdltx.Video(np.zeros((1, 32, 32, 3), np.uint8)).save(path, metadata="all")


def test_clips_of_the_command_line_without_folders(tmp_path):
    mine = picture(tmp_path / "a.png")
    for kind in ("plain", "none"):
        done = generate("-i", mine, "--no-audio", "--metadata", kind, "-o", tmp_path / "x.mp4")
        assert done.returncode == 0, done.stderr
        assert str(tmp_path).encode() not in (tmp_path / "x.mp4").read_bytes()
    assert b"a red circle" not in (tmp_path / "x.mp4").read_bytes()


# --- what a command prints, and what lies in a folder ---


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["-o", "./-x.mp4"], []),
        (["-o", "n.mp4", "--metadata", "none"], ["--metadata", "none"]),
        (["-o", "s.png", "--overwrite"], ["--overwrite"]),
        (["-o", "w.wav", "--wav-format", "f32"], ["--wav-format", "f32"]),
        (["-o", os.fsdecode(b"b\xff c.mp4")], []),
    ],
)
def test_the_printed_command_does_the_rest(tmp_path, words, kept):
    """It is given to a shell as it stands."""
    picture(tmp_path / "s_0003.png")
    done = interrupted(tmp_path, "sound" if "w.wav" in words else "decode", *words)
    assert done.returncode == 130, done.stderr
    command = done.stderr.splitlines()[-1].strip()
    assert all(word in command for word in kept)
    again = subprocess.run(
        ["bash", "-c", command.replace("sdltx-cli", f"{sys.executable} -m sdltx", 1)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert again.returncode == 0, (command, again.stderr)


def test_previews_and_clips_of_the_same_names(tmp_path):
    done = generate("-o", tmp_path / "a.png", "--preview", tmp_path / "a_%04d.png")
    assert done.returncode == 2
    assert "both write" in errors(done)[0]


def test_an_index_and_a_folder_with_a_part_missing(tiny_paths, tmp_path, caplog):
    from test_model_parts import CHECKPOINT, shard

    files = shard(tmp_path / "c", tiny_paths[0], CHECKPOINT["released"], 3)
    with sdltx.load(tmp_path / "c" / "model.safetensors.index.json", tiny_paths[1]) as pipe:
        pipe.require("transformer", "vocoder")
    (tmp_path / "c" / "model.safetensors.index.json").unlink()
    files[1].unlink()
    with pytest.raises(sdltx.ModelMismatchError):
        sdltx.load(tmp_path / "c", tiny_paths[1])
    assert caplog.text.count("is one of 3 parts, of which these are not there: 2") == 1
