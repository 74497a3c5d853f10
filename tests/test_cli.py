"""The command line as a user meets it: a process with arguments, an exit status and files."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time

import av
import commands
import numpy as np
import pytest

import sdltx
from sdltx import media

SMALL = ["-W", "64", "-H", "32", "--num-frames", "9", "--fps", "24", "--steps", "2"]


@pytest.fixture(scope="module")
def model(tiny_dir):
    return ["-m", tiny_dir / "tiny-ltx-2.3.safetensors", "-m", tiny_dir / "gemma", "-t", "1"]


def cli(*arguments, **options):
    return commands.run(*arguments, timeout=300, **options)


def ok(*arguments, **options):
    done = cli(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def refused(code, *arguments, **options):
    """Runs a command that must fail with one line and ``code``; returns the line."""
    done = cli(*arguments, **options)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("note: ", "seed "))]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    return errors[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_help():
    for arguments in ([], ["generate"], ["decode"]):
        assert ok(*arguments, "--help").stderr == ""
    text = ok("generate", "--help").stdout
    for flags in (
        *("-m FILE, --model FILE", "-p TEXT, --prompt TEXT", "--prompt-file FILE", "-o FILE, --output FILE"),
        *("-W PX, --width PX", "-H PX, --height PX", "--num-frames N, --video-frames N"),
        *("--frame-rate FPS, --fps FPS", "--steps N, --num-inference-steps N", "--sigmas S,S,...", "-s N, --seed N"),
        *("-t N, --threads N", "--device NAME", "--precision {auto,f32}", "-v, --verbose", "-q, --quiet"),
        *("--from CLIP", "--save-latents FILE", "--tile-size PX", "exit status:"),
    ):
        assert flags in text
    assert max(map(len, text.splitlines())) <= 100


def test_version():
    assert ok("--version").stdout.startswith(f"sdltx {sdltx.__version__} (ggml ")


def test_help_is_light():
    code = (
        "import sys; from sdltx import cli\n"
        "try: cli.main(['generate', '--help'])\n"
        "except SystemExit: print([m for m in ('numpy', 'av', 'PIL', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_generate(model, tmp_path):
    done = ok("generate", *model, *SMALL, "-p", "a red ball bounces", "-s", 7, "-o", "clip.mp4", cwd=tmp_path)
    assert done.stdout == ""
    assert "seed 7" in done.stderr.splitlines()
    assert "wrote clip.mp4" in done.stderr.splitlines()
    assert names(tmp_path) == ["clip.mp4"]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (64, 32, 24)
        assert sum(1 for _ in container.decode(stream)) == 9
    settings = media.read_settings(tmp_path / "clip.mp4")
    assert settings["prompt"] == "a red ball bounces"
    assert (settings["width"], settings["height"], settings["num_frames"]) == (64, 32, 9)
    assert (settings["frame_rate"], settings["num_inference_steps"], settings["seed"]) == (24, 2, 7)


@pytest.mark.by_day(2)
@pytest.mark.parametrize("suffix", [".webm", ".gif", ".webp", ".png"])
def test_other_formats(model, suffix, tmp_path):
    ok("generate", *model, *SMALL, "-p", "a red ball", "-o", tmp_path / f"clip{suffix}")
    assert media.read_settings(tmp_path / f"clip{suffix}")["prompt"] == "a red ball"
    assert len(names(tmp_path)) == (9 if suffix == ".png" else 1)


def test_random_seed_is_said_and_kept(model, tmp_path):
    done = ok("generate", *model, *SMALL, "-p", "a red ball", "-o", tmp_path / "clip.mp4")
    (seed,) = re.findall(r"^seed (\d+)$", done.stderr, re.MULTILINE)
    assert media.read_settings(tmp_path / "clip.mp4")["seed"] == int(seed)


def test_from_repeats_a_clip(model, tmp_path):
    first, again, other = (tmp_path / f"{name}.mp4" for name in ("first", "again", "other"))
    ok("generate", *model, *SMALL, "-p", "a red ball", "-o", first)
    ok("generate", *model, "--from", first, "-o", again)
    assert first.read_bytes() == again.read_bytes()
    ok("generate", *model, "--from", first, "-o", other, "--sigmas", "1,0.5,0.2,0", "-H", 64, "-p", "a blue ball")
    settings = media.read_settings(other)
    expected = {**media.read_settings(first), "height": 64, "prompt": "a blue ball", "sigmas": [1.0, 0.5, 0.2, 0.0]}
    assert settings == {**expected, "num_inference_steps": None, "schedule": "given"}


@pytest.mark.by_day(0)
def test_from_repeats_the_precision(model, tmp_path):
    first, again, other = (tmp_path / f"{name}.mp4" for name in ("first", "again", "other"))
    ok("generate", *model, *SMALL, "-p", "a red ball", "--precision", "f32", "-o", first)
    ok("generate", *model, "--from", first, "-o", again)
    assert first.read_bytes() == again.read_bytes()
    ok("generate", *model, "--from", first, "--precision", "auto", "-o", other)
    assert media.read_settings(other) == {**media.read_settings(first), "precision": "auto"}


def test_from_tells_that_the_model_is_another(model, tiny_dir, tmp_path):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    ok("generate", *model, *SMALL, "-p", "a red ball", "-o", first)
    assert "was made with" not in ok("generate", *model, "--from", first, "-o", again).stderr
    (tmp_path / "other.safetensors").symlink_to((tiny_dir / "tiny-ltx-2.3.safetensors").resolve())
    other = ["-m", tmp_path / "other.safetensors", "-m", tiny_dir / "gemma", "-t", "1"]
    note = "was made with gemma, tiny-ltx-2.3.safetensors, this run uses gemma, other.safetensors"
    assert note in ok("generate", *other, "--from", first, "-o", again).stderr


@pytest.mark.by_day(0)
def test_from_bad_clips(model, tmp_path):
    clip = tmp_path / "clip.mp4"
    line = refused(2, "generate", *model, "--from", clip, "-o", tmp_path / "new.mp4")
    assert "there is no file" in line
    for settings in (
        {"width": "64; rm -rf"},
        {"width": True},
        {"seed": 1.5},
        {"sigmas": "1,0"},
        {"sigmas": [1, "0"]},
        {"prompt": ["x"]},
        {"precision": "f64"},
    ):
        with media.VideoWriter(clip, 24, metadata={"sdltx_version": "0", "prompt": "x", **settings}) as writer:
            writer.write_frames(np.zeros((1, 32, 32, 3), np.uint8))
        line = refused(2, "generate", *model, "--from", clip, "-o", tmp_path / "new.mp4")
        assert next(iter(settings)) in line
    assert names(tmp_path) == ["clip.mp4"]


def test_latents_and_decode(model, tmp_path):
    clip, latents, decoded = tmp_path / "clip.mp4", tmp_path / "clip.safetensors", tmp_path / "decoded.mp4"
    ok("generate", *model, *SMALL, "-p", "a red ball", "-o", clip, "--save-latents", latents)
    ok("decode", latents, *model, "-o", decoded)
    assert clip.read_bytes() == decoded.read_bytes()
    ok("generate", *model, *SMALL, "-p", "a red ball", "--save-latents", tmp_path / "alone.safetensors")
    assert names(tmp_path) == ["alone.safetensors", "clip.mp4", "clip.safetensors", "decoded.mp4"]


def test_same_seed_same_latents_with_any_threads(model, tmp_path):
    saved = [tmp_path / f"{name}.safetensors" for name in ("one", "two", "again")]
    for path, threads in zip(saved, (1, 2, 2), strict=True):
        ok("generate", *model, *SMALL, "-p", "a red ball", "-s", 3, "-t", threads, "--save-latents", path)
    assert saved[0].read_bytes() == saved[1].read_bytes() == saved[2].read_bytes()


def test_tiles(model, tmp_path):
    ok(
        *("generate", *model, "-p", "a red ball", "-s", 3, "-W", 128, "-H", 128, "--num-frames", 25, "--steps", 1),
        *("--tile-size", 64, "--tile-overlap", 32, "--tile-frames", 16, "--tile-frame-overlap", 8),
        *("-o", tmp_path / "clip.png"),
    )
    assert len(names(tmp_path)) == 25
    line = refused(
        *(2, "generate", *model, *SMALL, "-p", "a red ball", "--tile-size", 33, "-o", tmp_path / "clip.mp4"),
    )
    assert "tile" in line


def test_prompt_sources(model, tmp_path):
    text = "ein roter Ball \N{SOCCER BALL}"
    (tmp_path / "prompt.txt").write_text(f"{text}\n", encoding="utf-8")
    clip = tmp_path / "clip.png"
    ok("generate", *model, *SMALL, "--prompt-file", tmp_path / "prompt.txt", "-o", clip)
    assert media.read_settings(clip)["prompt"] == text
    ok("generate", *model, *SMALL, "-p", "-", "-o", clip, input=f"{text} 2", encoding="utf-8")
    assert media.read_settings(clip)["prompt"] == f"{text} 2"
    (tmp_path / "prompt.txt").write_bytes(b"\xff\xfe")
    refused(2, "generate", *model, *SMALL, "--prompt-file", tmp_path / "prompt.txt", "-o", clip)
    refused(2, "generate", *model, *SMALL, "--prompt-file", tmp_path / "none.txt", "-o", clip)
    refused(2, "generate", *model, *SMALL, "-p", "\udcff", "-o", clip)


@pytest.mark.by_day(2)
@pytest.mark.parametrize("prompt", ["   ", "", "a red ball " * 1000], ids=["spaces", "empty", "11,000 characters"])
def test_unusual_prompts_work(model, prompt, tmp_path):
    ok("generate", *model, *SMALL, "-p", prompt, "-o", tmp_path / "clip.mp4")
    assert media.read_settings(tmp_path / "clip.mp4")["prompt"] == prompt


def test_messages(model, tmp_path):
    common = ["generate", *model, *SMALL, "-p", "a red ball", "-o", tmp_path / "clip.mp4"]
    quiet = ok(*common, "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert "%" not in ok(*common).stderr
    verbose = ok(*common, "-v").stderr
    bars = re.findall(r"(load|encode|denoise|decode|write) +100% \|", verbose)
    assert list(dict.fromkeys(bars)) == ["load", "encode", "denoise", "decode", "write"]


@pytest.mark.by_day(10)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-W", "500", "-H", "500"], ["480", "512"]),
        (["--num-frames", "120"], ["113", "121"]),
        (["--steps", "0"], ["step"]),
        (["--steps", "many"], ["--steps"]),
        (["--steps", "4", "--sigmas", "1,0"], ["--sigmas"]),
        (["--sigmas", "1,x"], ["1,x"]),
        (["--fps", "0"], ["rate"]),
        (["--fps", "1/0"], ["1/0"]),
        (["-s", "-2"], ["seed"]),
        (["-t", "0"], ["threads"]),
        (["-t", "99999999999999999999"], ["threads"]),
        (["-W", "99999999999999999999"], ["width"]),
        (["-s", "99999999999999999999"], ["seed"]),
        (["--steps", "99999999999999999999"], ["step"]),
        ([*SMALL, "--tile-frames", "99999999999999999999"], ["tile frames"]),
        (["--precision", "f7"], ["f7"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
)
def test_bad_arguments(model, arguments, words, tmp_path):
    line = refused(2, "generate", *model, "-p", "x", "-o", tmp_path / "clip.mp4", *arguments)
    assert all(word in line for word in words)
    assert names(tmp_path) == []


def test_missing_arguments(model, tmp_path):
    assert "no prompt" in refused(2, "generate", *model, "-o", tmp_path / "clip.mp4")
    assert "-o" in refused(2, "generate", *model, "-p", "x")
    refused(2)
    refused(2, "no-such-command")


@pytest.mark.parametrize("option", ["-o", "--save-latents"])
def test_bad_outputs(model, option, tmp_path):
    """They are found before the model is loaded: the model given here does not exist."""
    (tmp_path / "folder.mp4").mkdir()
    for target in ("missing/clip.mp4", "folder.mp4", *(["clip.avi", "clip"] if option == "-o" else [])):
        line = refused(2, "generate", "-m", "no-such-model", "-p", "x", option, tmp_path / target)
        assert "[output]" in line
    assert names(tmp_path) == ["folder.mp4"]


def read_tensors(path):
    """Returns (metadata, {name: (dtype, shape, bytes)}) of a safetensors file, in any dtype."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    body = data[8 + size :]
    return metadata, {
        name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def write_tensors(path, metadata, tensors):
    header, body = {"__metadata__": metadata}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.fixture(scope="module")
def broken_models(tiny_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    source = tiny_dir / "tiny-ltx-2.3.safetensors"
    metadata, tensors = read_tensors(source)
    weight = "model.diffusion_model.transformer_blocks.1.attn1.to_q.weight"
    bias = "model.diffusion_model.transformer_blocks.1.attn1.to_q.bias"
    dtype, shape, data = tensors[weight]

    (folder / "truncated.safetensors").write_bytes(source.read_bytes()[:-1000])
    (folder / "header.safetensors").write_bytes(source.read_bytes()[:100])
    (folder / "truncated.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 100, 10))
    (folder / "text.safetensors").write_text("this is a text, not a model\n" * 100)
    (folder / "text.txt").write_text("this is a text, not a model\n" * 100)
    (folder / "empty.safetensors").touch()
    (folder / "empty").mkdir()
    write_tensors(
        folder / "shape.safetensors", metadata, {**tensors, weight: (dtype, [shape[0] // 2, shape[1] * 2], data)}
    )
    write_tensors(
        folder / "missing.safetensors",
        metadata,
        {name: tensors[name] for name in tensors if name not in (weight, bias)},
    )
    write_tensors(
        folder / "vae.safetensors", metadata, {name: tensors[name] for name in tensors if name.startswith("vae.")}
    )
    return folder


@pytest.mark.by_day(6)
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("no-such-file.safetensors", 3, []),
        ("truncated.safetensors", 3, []),
        ("header.safetensors", 3, []),
        ("truncated.gguf", 3, []),
        ("text.safetensors", 3, []),
        ("text.txt", 3, []),
        ("empty.safetensors", 3, []),
        ("empty", 3, []),
        ("shape.safetensors", 4, ["transformer_blocks.1.attn1.to_q.weight"]),
        ("missing.safetensors", 4, ["transformer_blocks.1.attn1.to_q.weight", "transformer_blocks.1.attn1.to_q.bias"]),
        ("vae.safetensors", 4, []),
    ],
)
def test_bad_models(broken_models, tiny_dir, name, code, words, tmp_path):
    model = ["-m", broken_models / name, "-m", tiny_dir / "gemma"]
    line = refused(code, "generate", *model, *SMALL, "-p", "x", "-o", tmp_path / "clip.mp4")
    assert all(word in line for word in [*words, name] if code == 3 or word != name)
    assert names(tmp_path) == []


def test_models_that_lack_a_part(tiny_dir, broken_models, tmp_path):
    output = ["-p", "x", "-o", tmp_path / "clip.mp4"]
    refused(4, "generate", "-m", tiny_dir / "tiny-ltx-2.3.safetensors", *SMALL, *output)
    refused(4, "generate", "-m", tiny_dir / "gemma", *SMALL, *output)
    refused(4, "generate", "-m", broken_models / "vae.safetensors", *SMALL, *output)


def test_bad_latents(model, tiny_dir, tmp_path):
    for latents in (tmp_path / "none.safetensors", tiny_dir / "tiny-ltx-2.3.safetensors"):
        assert "[latents]" in refused(3, "decode", latents, *model, "-o", tmp_path / "clip.mp4")


def test_tracebacks_only_on_request(tmp_path):
    common = ["generate", "-m", tmp_path / "none", "-p", "x", "-o", tmp_path / "clip.mp4"]
    assert "Traceback" not in cli(*common, "-v").stderr
    assert "Traceback" in cli(*common, "-vv").stderr


def interrupt(arguments, number, ready):
    """Starts a command, sends signal ``number`` when ``ready(what it has printed)``; returns (exit status, seconds)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sdltx", *map(str, arguments)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Background jobs of a script inherit an ignored SIGINT; the commands of a terminal, which are meant, do not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    printed = bytearray()

    def read():
        while data := os.read(process.stderr.fileno(), 65536):
            printed.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 120
    while not ready(printed.decode(errors="ignore")):
        assert process.poll() is None, printed.decode()
        assert time.monotonic() < deadline, printed.decode()
        time.sleep(0.01)
    sent = time.monotonic()
    process.send_signal(number)
    code = process.wait(timeout=60)
    took = time.monotonic() - sent
    reader.join()
    process.stderr.close()
    assert b"Traceback" not in printed
    return code, took


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_while_denoising(model, number, tmp_path):
    code, took = interrupt(
        ["generate", *model, "-p", "x", "--steps", 1000, "-v", "-o", tmp_path / "clip.mp4"],
        number,
        lambda printed: "denoise" in printed,
    )
    assert code == 128 + number
    assert took < 10
    assert names(tmp_path) == []


@pytest.mark.by_day(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_interrupt_while_decoding(model, number, suffix, tmp_path):
    clip = ["-W", 256, "-H", 256, "--num-frames", 161, "--steps", 1]
    code, took = interrupt(
        ["generate", *model, *clip, "-p", "x", "-o", tmp_path / f"clip{suffix}"],
        number,
        lambda printed: "seed" in printed and names(tmp_path),
    )
    assert code == 128 + number
    assert took < 10
    assert names(tmp_path) == ["clip.latents.safetensors"]  # what took long is not lost


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number, tmp_path):
    """Whatever the first one waits for, such as a disk that does not answer."""
    code = f"""
        import pathlib, signal, time
        from sdltx import _core, _files
        signal.signal({int(number)}, lambda *_: print("first", flush=True))
        _core.end_on_second_signal()
        _files.temporary_beside(pathlib.Path("clip.mp4"))
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    for line in (b"ready\n", b"first\n"):
        assert process.stdout.readline() == line
        process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert process.stderr.read() == b"\nstopped at once\n"
    process.stdout.close()
    process.stderr.close()
    assert names(tmp_path) == []


def test_built_in_model(tmp_path):
    """The README's first prompt: without -m the package's own model makes a clip that shows and sounds what it says."""
    prompt = "a red triangle moves right over a navy background, with high beeps"
    done = ok("generate", "-p", prompt, "-s", 6, "-o", tmp_path / "clip.mp4")
    assert "note: " in done.stderr
    defaults = sdltx.load().info["defaults"]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).astype(np.float32)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert frames.shape == (defaults["num_frames"], defaults["height"], defaults["width"], 3)

    navy, red = np.array([18, 30, 92]), np.array([226, 38, 44])
    edge = np.concatenate([frames[:, :4].reshape(-1, 3), frames[:, -4:].reshape(-1, 3)])
    assert np.abs(np.median(edge, 0) - navy).max() < 25
    is_red = np.abs(frames - red).max(-1) < 70
    assert (is_red.sum((1, 2)) > 40).mean() > 0.8
    columns = np.array([np.nonzero(f)[1].mean() for f in is_red if f.sum() > 40])
    assert columns[-1] - columns[0] > 12 and np.corrcoef(columns, np.arange(len(columns)))[0, 1] > 0.9
    # High beeps are notes of 1400 Hz.
    spectrum = np.abs(np.fft.rfft(sound))
    assert abs(np.argmax(spectrum) * rate / len(sound) - 1400) < 60
    assert np.abs(sound).max() > 0.05


def test_dry_run_prints_what_would_run_and_runs_nothing(tmp_path):
    out = tmp_path / "clip.mp4"
    done = ok("generate", "-p", "a fox", "--dry-run", "-o", out, "-W", 96, "-H", 64, "--steps", 4, "-s", 7)
    assert done.returncode == 0, done.stderr
    lines = dict(re.split(r" +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert list(lines) == ["model", "device", "prompt", "recipe", "clip", "steps", "guide", "sigmas", "seed", "memory"]
    assert "preset" in lines["model"]
    assert lines["clip"].startswith("96x64, ")
    assert lines["steps"] == "4, schedule ltx2, sampler euler"
    neutral = "stg 0, modality 1, rescale 0"
    assert lines["guide"] == f"picture cfg 5, {neutral}; sound cfg 1, {neutral}; 2 passes a step"
    assert lines["seed"] == "7"
    assert len(lines["sigmas"].split(", ")) == 5
    assert not out.exists()
    drawn = ok("generate", "-p", "a fox", "--dry-run", "--guidance-scale", 1).stdout
    assert "(drawn)" in drawn and "guide   none, 1 pass a step" in drawn
