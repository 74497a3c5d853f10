"""What people do: the names they give, the folders they work in, the terminals they have; nothing of theirs is lost."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

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
    assert name == "clip.step-2.safetensors"
    assert "after 2 of 4 steps" in done.stderr
    again = run(*done.stderr.splitlines()[-1].split()[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "clip.mp4" in names(tmp_path)


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


# --- names of files are no addresses ---


def test_nothing_is_fetched(tmp_path):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x"
        for suffix in (".mp4", ".webm", ".wav", ".gif", ".webp", ".png"):
            with pytest.raises(sdltx.InvalidRequestError, match="there is no file"):
                media.read_settings(address + suffix)
        with pytest.raises(sdltx.InvalidRequestError, match="there is no file"):
            sdltx.images.read(address + ".png")
        server.shutdown()
    assert not asked


@pytest.mark.parametrize("name", ["16:9.mp4", "s:1.wav", "http:x.mp4", "pipe:0.mp4", "file:x.webm", "data:x.mp4"])
def test_colons_in_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video = sdltx.Video(np.zeros((9, 32, 32, 3), np.uint8), np.zeros((2, 4800), np.float32), 48000, 24)
    sdltx.Video(video.frames, video.audio, 48000, 24, {"sdltx_version": "1"}).save(name)
    assert names(tmp_path) == [name]
    assert media.read_settings(name) == {"sdltx_version": "1"}


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".wav"])
def test_a_playlist_in_disguise(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(sdltx.InvalidRequestError, match="cannot read"):
        media.read_settings(path)


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "closed/x"])
@pytest.mark.parametrize("option", ["-i", "--last-image", "--lora", "-m", "--prompt-file", "--from", "--upscaler"])
def test_paths_that_cannot_be_looked_at(tmp_path, option, path):
    (tmp_path / "closed").mkdir(mode=0o000)
    words = [option, path, "-o", "x.gif"] + ([] if option in ("--prompt-file", "--from") else ["-p", "x"])
    done = run("generate", *words, "--steps", "1", "-W", "32", "-H", "32", "--num-frames", "9", cwd=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert len(errors(done)) == 1
    assert "Error:" not in errors(done)[0].split("]")[0]
    assert names(tmp_path) == ["closed"]


def test_names_that_are_no_text(tmp_path):
    strange = os.fsdecode(b"m\xff.safetensors")
    done = run("inspect", strange, cwd=tmp_path)
    assert done.returncode == 4
    assert "cannot open the file" in done.stdout
    assert "TypeError" not in done.stderr
    done = generate("-m", strange, "-o", "x.gif", cwd=tmp_path)
    assert done.returncode == 3
    assert "cannot open the file" in errors(done)[0]


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = generate("-o", tmp_path / "file" / "sub" / "clip.mp4")
    assert done.returncode == 2
    assert len(errors(done)) == 1


# --- terminals ---


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["recipes"], ["devices"], ["generate", "-p", "x", "--dry-run"], ["embed"]])
def test_a_reader_that_has_seen_enough(command, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(
        [sys.executable, "-m", "sdltx", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141)
    assert b"Pipe" not in said and b"Traceback" not in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")  # noqa: PTH110
def test_a_full_standard_output():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sdltx", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 6
    assert "cannot write: No space left" in done.stderr


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "cp1252"])
def test_what_a_terminal_cannot_spell(coding):
    done = run(
        "generate",
        "-p",
        "ein rötes 日本 😀",
        "--dry-run",
        env={**os.environ, "PYTHONIOENCODING": coding},
        encoding="latin-1",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_prompts_where_the_locale_is_not_utf8(tmp_path, locale):
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = tmp_path / "x.safetensors"
    words = ["-p", "ein rötes 日本", "-n", "schön", "--guidance-scale", "2", "--save-latents", path]
    done = run("generate", *words, *TINY_CLIP, env=environment)
    assert done.returncode == 0, done.stderr
    settings = sdltx.Latents.load(path).settings
    assert (settings["prompt"], settings["negative_prompt"]) == ("ein rötes 日本", "schön")


def test_a_negative_prompt_that_is_no_text():
    done = run("generate", "-p", "x", "-n", b"\xff".decode(errors="surrogateescape"), "--dry-run")
    assert done.returncode == 2
    assert "the negative prompt is not valid Unicode" in errors(done)[0]


def test_lines_of_windows(tmp_path):
    for name, text in (("lf", b"a red square\nmoves left\n"), ("crlf", b"\xef\xbb\xbfa red square\r\nmoves left\r\n")):
        (tmp_path / name).write_bytes(text)
    told = [run("generate", "--prompt-file", tmp_path / name, "--dry-run").stdout for name in ("lf", "crlf")]
    prompts = [next(line for line in text.splitlines() if line.startswith("prompt")) for text in told]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("number", ["0", "-1", "1000", "2147483648", "9" * 40, "x"])
def test_threads_that_there_cannot_be(number):
    done = run("generate", "-p", "x", "-t", number, "--dry-run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) <= 2
    if number.lstrip("-").isdigit():
        with pytest.raises(sdltx.InvalidRequestError, match="threads"):
            sdltx.load(threads=int(number))


def test_the_command_inside_of_a_program():
    """It leaves the signals as they were, and runs in threads too."""
    code = f"""
import signal, threading
from sdltx import cli
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
words = ["generate", "-p", "x", *{TINY_CLIP!r}, "--dry-run", "-q"]
assert cli.main(words) == cli.main(words) == 0
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
codes = []
thread = threading.Thread(target=lambda: codes.append(cli.main(words)))
thread.start()
thread.join()
assert codes == [0]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- values of Python ---


def test_integers_for_sound(tiny, tmp_path):
    rng = np.random.default_rng(0)
    sound = np.clip(rng.normal(0, 0.1, (2, 24000)), -1, 1).astype(np.float32)
    want = tiny.encode_audio(sound, 48000)
    for kind, scale in ((np.int16, 2**15), (np.int32, 2**31)):
        got = tiny.encode_audio((sound.astype(np.float64) * scale).astype(kind), 48000)
        assert np.sqrt(((got - want) ** 2).mean() / (want**2).mean()) < 1e-2
    sixteen = np.round(sound * 32767).astype(np.int16)
    frames = np.zeros((12, 32, 32, 3), np.uint8)
    sdltx.Video(frames, sixteen, 48000, 24).save(tmp_path / "x.wav")
    import av

    with av.open(str(tmp_path / "x.wav")) as container:
        read = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1).reshape(-1, 2).T
    assert np.abs(read[:, :24000].astype(int) - sixteen).max() <= 2
    for bad in (sixteen.astype(np.uint8), sixteen.astype(np.int64), sixteen[0]):
        with pytest.raises(sdltx.InvalidRequestError, match="float32, int16 or int32"):
            tiny.encode_audio(bad, 48000)
    sound[0, 5] = np.nan
    with pytest.raises(sdltx.InvalidRequestError, match="not finite"):
        tiny.encode_audio(sound, 48000)
    for rate in (0, -1, 2**40, 1_000_001):
        with pytest.raises(sdltx.InvalidRequestError, match="out of range"):
            tiny.encode_audio(sixteen, rate)


def test_floats_that_are_integers_are_told(tiny, caplog):
    tiny.encode_audio(np.full((2, 24000), 20_000, np.float32), 48000)
    assert "goes up to 20000 where 1 is the loudest" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": np.full((1, 2, 2, 3), 300, np.uint16)},
        {"frames": np.zeros((1, 2, 2, 3), np.int8)},
        {"audio": np.zeros((2, 5), np.float32)},
        {"audio": np.zeros((2, 5), np.float32), "sample_rate": 0},
        {"sample_rate": "x"},
        {"frame_rate": 0},
        {"frame_rate": "x"},
        {"frame_rate": float("nan")},
        {"metadata": 5},
    ],
)
def test_what_is_no_video(fields):
    with pytest.raises(sdltx.InvalidRequestError):
        sdltx.Video(**{"frames": np.zeros((1, 2, 2, 3), np.uint8), **fields})


def test_rates_that_are_fractions():
    from fractions import Fraction

    video = sdltx.Video(np.zeros((1, 2, 2, 3), np.uint8), frame_rate=Fraction(24000, 1001))
    assert "23.976 fps" in repr(video)


@pytest.mark.parametrize("progress", [5, "x", []])
def test_callbacks_that_cannot_be_called(tiny, progress):
    latents = tiny.sample(tiny.encode("x"), width=32, height=32, num_frames=1, num_inference_steps=1, seed=1)
    calls = [
        lambda: sdltx.load(progress=progress),
        lambda: tiny.encode("x", progress=progress),
        lambda: tiny.sample(tiny.encode("x"), progress=progress),
        lambda: tiny.sample(tiny.encode("x"), on_step=progress),
        lambda: tiny.generate("x", progress=progress),
        lambda: tiny.decode(latents, progress=progress),
        lambda: tiny.decode_audio(latents, progress=progress),
        lambda: tiny.encode_video(np.zeros((1, 32, 32, 3), np.uint8), progress=progress),
        lambda: tiny.upsample(latents, "x", progress=progress),
    ]
    for call in calls:
        with pytest.raises(sdltx.InvalidRequestError, match="expected a function"):
            call()


def test_pictures_can_be_compared():
    image = np.zeros((2, 2, 3), np.uint8)
    one, other = sdltx.Condition(image), sdltx.Condition(image)
    assert one == one and one != other
    assert len({one, other}) == 2


def test_blocks_that_no_model_has(tiny):
    with pytest.raises(sdltx.InvalidRequestError, match="no block has"):
        tiny.resolve(stg_blocks=[2**40])


def test_a_folder_without_a_slash(tiny_paths, tmp_path):
    """A Path has none at its end."""
    files = sdltx.convert(tiny_paths[0], output=tmp_path / "q8", type="q8_0")
    assert {file.parent for file in files} == {tmp_path / "q8"}
    with pytest.raises(sdltx.InvalidRequestError, match=r"none of \.gguf, \.safetensors"):
        sdltx.convert(tiny_paths[0], output=tmp_path / "x.bin", type="q8_0")


def test_modules_are_found():
    code = "import sdltx; print({'media', 'preview', 'sound'} <= set(dir(sdltx)), sdltx.preview.fit, sdltx.sound.write)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("True"), done.stderr


def test_after_closing(tiny_paths):
    pipe = sdltx.load(*tiny_paths)
    pipe.close()
    for call in (pipe.resolve, pipe.doubts, pipe.upscalers, pipe.estimate):
        with pytest.raises(sdltx.InvalidRequestError, match="it is closed"):
            call()
    assert "LTX-2.3" in repr(pipe)


@pytest.mark.parametrize("name", ["p.png", "p.mp4", "p.wav", "p.safetensors"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for words in (["-i", name, "-p", "x"], ["--from", name], ["--lora", name, "-p", "x"]):
        done = run("generate", *words, "-o", "a.gif", "--steps", "1", cwd=tmp_path, timeout=30)
        assert done.returncode in (2, 3), done.stderr
        assert len(errors(done)) == 1


def test_a_pipe_for_a_configuration(tiny_paths, tmp_path):
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "model.safetensors").symlink_to(f"{tiny_paths[1]}/model.safetensors")
    with pytest.raises(sdltx.ModelFileError, match="is not a regular file"):
        sdltx.load(tiny_paths[0], tmp_path)


@pytest.mark.parametrize("name", ["a\0b.png", "a\ud800b.png"])
def test_names_that_no_file_can_have(tiny, tmp_path, name):
    video = sdltx.Video(np.zeros((1, 32, 32, 3), np.uint8))
    for call in (
        lambda: sdltx.images.read(name),
        lambda: video.save(name),
        lambda: media.read_settings(name),
        lambda: tiny.check(loras=[name]),
        lambda: tiny.resolve(upscaler=name),
        lambda: sdltx.load(name),
    ):
        with pytest.raises(sdltx.InvalidRequestError, match="no name that a file can have"):
            call()
    for setting in (
        {"images": [{"path": name}]},
        {"loras": [[name, 1.0]]},
        {"upscalers": [name]},
        {"distilled_lora": name},
    ):
        latents = sdltx.Latents(
            np.zeros((4, 1, 1, 1), np.float32), settings={"sdltx_version": "9", "prompt": "x", **setting}
        )
        latents.save(tmp_path / "l.safetensors")
        done = run("generate", "--from", tmp_path / "l.safetensors", "--dry-run")
        assert done.returncode == 2, done.stderr
        assert len(errors(done)) == 1


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
