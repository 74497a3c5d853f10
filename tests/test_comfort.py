"""What people expect of a Python library: bars, hints that resolve, diffusers' words, values that show themselves."""

from __future__ import annotations

import copy
import fcntl
import inspect
import logging
import os
import pickle
import pty
import struct
import subprocess
import sys
import termios
import typing
from pathlib import Path

import numpy as np
import pytest
from commands import run

import sdltx
from sdltx import display, progress
from sdltx.records import Record

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2}
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def pipe():
    with sdltx.load() as pipe:
        yield pipe


@pytest.fixture(scope="module")
def video(pipe):
    return pipe.generate(PROMPT, seed=1, **SMALL)


# --- hints ---


def public():
    for name in sdltx.__all__:
        value = getattr(sdltx, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for method, function in vars(value).items():
                if inspect.isfunction(function) and (not method.startswith("_") or method == "__init__"):
                    yield f"{name}.{method}", function
    yield "Options", sdltx.options.Options


@pytest.mark.parametrize(("name", "value"), list(public()), ids=[name for name, _ in public()])
def test_hints_resolve(name, value):
    typing.get_type_hints(value)


def test_hints_are_the_real_types():
    assert "numpy" in str(typing.get_type_hints(sdltx.Video)["frames"])
    assert "fractions.Fraction" in str(typing.get_type_hints(sdltx.options.Options)["frame_rate"])


def test_numpy_waits_for_an_array():
    late = ("numpy", "PIL", "tqdm", "huggingface_hub")
    program = f"import sys, sdltx; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_shows_options():
    assert "guidance_scale" in str(inspect.signature(sdltx.Pipeline.generate))
    assert "generator" in str(inspect.signature(sdltx.Pipeline.__call__))
    assert "enhance" in sdltx.Pipeline.generate.__doc__


# --- what is typed by those who come from elsewhere ---


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fps", "frame_rate"),
        ("steps", "num_inference_steps"),
        ("guidance_scal", "guidance_scale"),
        ("cfg", "guidance_scale"),
    ],
)
def test_did_you_mean(pipe, name, meant):
    with pytest.raises(TypeError, match=f"there is no option {name}; did you mean {meant}"):
        pipe.generate(PROMPT, **{name: 1})


@pytest.mark.parametrize("name", ["to", "enable_model_cpu_offload", "load_lora_weights", "from_pretrained"])
def test_methods_of_diffusers_are_explained(pipe, name):
    with pytest.raises(AttributeError, match=f"'{name}'; .*(sdltx.load|loras|offload)"):
        getattr(pipe, name)
    assert not hasattr(pipe, "anything_else")


def test_call_is_generate(pipe, video):
    np.testing.assert_array_equal(pipe(PROMPT, seed=1, **SMALL).frames, video.frames)
    np.testing.assert_array_equal(pipe(PROMPT, generator=1, **SMALL).frames, video.frames)


class Torch:
    """As torch.Generator tells its seed."""

    def initial_seed(self):
        return 1


@pytest.mark.parametrize("generator", [1, np.int64(1), Torch(), [Torch()]])
def test_generators(pipe, video, generator):
    assert pipe(PROMPT, generator=generator, **SMALL).seed == 1


def test_generators_of_numpy(pipe):
    rng = np.random.default_rng(3)
    first, second = (pipe(PROMPT, generator=rng, **SMALL).seed for _ in range(2))
    assert first != second and first == pipe(PROMPT, generator=np.random.default_rng(3), **SMALL).seed


def test_output_types(pipe, video):
    out = pipe(PROMPT, seed=1, output_type="np", **SMALL)
    assert out.frames[0].dtype == np.float32 and out.frames[0].shape == video.frames.shape
    np.testing.assert_array_equal(np.rint(out.frames[0] * 255), video.frames)
    np.testing.assert_array_equal(out.audio[0], video.audio)
    assert out.sample_rate == video.sample_rate
    pictures = pipe(PROMPT, seed=1, output_type="pil", **SMALL).frames[0]
    np.testing.assert_array_equal(np.array(pictures[3]), video.frames[3])
    latents = pipe(PROMPT, seed=1, output_type="latent", **SMALL).frames[0]
    np.testing.assert_array_equal(pipe.decode(latents).frames, video.frames)


def test_lists_and_other_things(pipe):
    asked = [
        sdltx.Request("a", **{**SMALL, "num_inference_steps": 1}),
        sdltx.Request("b", **{**SMALL, "num_inference_steps": 3}),
    ]
    heard = []
    pipe(asked, callback_on_step_end=lambda _, step, timestep, values: heard.append((step, timestep)))
    sigmas = [pipe.resolve(one).sigmas[:-1] for one in asked]
    assert heard == [(i, s * 1000) for of in sigmas for i, s in enumerate(of)]
    first, second = pipe([PROMPT, PROMPT], generator=3, **SMALL)
    assert (first.seed, second.seed) == (3, 4)
    for wrong in (5, {"a": 1}, b"x"):
        with pytest.raises(sdltx.InvalidRequestError, match="prompt: expected text"):
            pipe(wrong, num_videos_per_prompt=2)
    with pytest.raises(sdltx.InvalidRequestError, match="no place for exceptions"):
        pipe([PROMPT], output_type="np", return_exceptions=True)


def test_several_videos_of_a_prompt(pipe, video):
    first, second = pipe(PROMPT, seed=1, num_videos_per_prompt=2, **SMALL)
    np.testing.assert_array_equal(first.frames, video.frames)
    assert second.seed == 2
    many = pipe([PROMPT, "a blue star"], num_videos_per_prompt=2, output_type="np", seed=5, **SMALL)
    assert len(many.frames) == 4


def test_callback_on_step_end(pipe):
    heard = []
    pipe(PROMPT, seed=1, callback_on_step_end=lambda *what: heard.append(what), **SMALL)
    sigmas = pipe.resolve(**SMALL).sigmas
    assert [(step, timestep) for _, step, timestep, _ in heard] == [(i, s * 1000) for i, s in enumerate(sigmas[:-1])]
    assert all(one is pipe and isinstance(values["latents"], sdltx.Latents) for one, _, _, values in heard)

    def stop(*_):
        raise sdltx.Cancelled("enough")

    with pytest.raises(sdltx.Cancelled, match="enough"):
        pipe(PROMPT, callback_on_step_end=stop, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_type": "pt"}, "output_type 'pt' is unknown"),
        ({"num_videos_per_prompt": 0}, "out of range"),
        ({"generator": "x"}, "generator: expected a number"),
        ({"generator": 1, "seed": 1}, "two ways to say the same"),
        ({"callback_on_step_end": 1}, "callback_on_step_end: expected a function"),
        ({"callback_on_step_end": print, "on_step": print}, "are the same"),
    ],
)
def test_what_a_call_refuses(pipe, options, message):
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        pipe(PROMPT, **options)


def test_one_dictionary_of_arguments_serves_all(pipe):
    given = {
        "negative_prompt": "x",
        "tiling": sdltx.Tiling(),
        "seed": 1,
        "image": np.zeros((64, 64, 3), np.uint8),
        **SMALL,
    }
    assert pipe.resolve(PROMPT, **given).width == 64
    assert pipe.estimate(PROMPT, **given).memory > 0
    pipe.check(PROMPT, **given)
    assert pipe.doubts(PROMPT, **given) == pipe.doubts(sdltx.Request(PROMPT, **given))


# --- what methods tell ---


def test_records(pipe):
    plan, estimate, info = pipe.resolve(**SMALL), pipe.estimate(**SMALL), pipe.info
    for record in (
        plan,
        estimate,
        info,
        *pipe.memory(),
        *sdltx.recipes(),
        *sdltx.tasks(),
        *pipe.presets,
        *estimate.steps,
    ):
        assert isinstance(record, Record)
        for name in record:
            assert getattr(record, name) == record[name]
        assert set(record.to_dict()) == set(record)
        assert name in dir(record) and "=" in repr(record)
        with pytest.raises(KeyError):
            record["nothing"]
        with pytest.raises(AttributeError):
            record.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="only read"):
        plan.width = 5
    assert pickle.loads(pickle.dumps(plan)) == plan == copy.deepcopy(plan)
    assert info.model == info["model"] == "LTX-2.3"
    assert estimate.to_dict()["steps"][0]["devices"][0]["working"] == estimate.steps[0].devices[0].working


# --- values ---


def test_contexts_are_kept(pipe, tmp_path):
    context = pipe.encode(PROMPT)
    context.save(tmp_path / "c.safetensors")
    back = sdltx.Context.load(tmp_path / "c.safetensors")
    assert back.prompt == PROMPT
    np.testing.assert_array_equal(back.video, context.video)
    np.testing.assert_array_equal(back.audio, context.audio)
    with pytest.raises(sdltx.ModelFileError, match="holds no latents"):
        sdltx.Latents.load(tmp_path / "c.safetensors")
    with pytest.raises(sdltx.ModelFileError, match=r"\[context\] .* does not exist"):
        sdltx.Context.load(tmp_path / "none")
    with pytest.raises(sdltx.InvalidRequestError, match="path: expected"):
        context.save(None)
    with pytest.raises(sdltx.InvalidRequestError, match="prompt: expected str"):
        sdltx.Context(context.video, context.audio, 5)
    (tmp_path / "bad").write_bytes(b"x" * 100)
    with pytest.raises(sdltx.ModelFileError, match="is damaged"):
        sdltx.Context.load(tmp_path / "bad")


def test_videos_show_themselves(video, monkeypatch, tmp_path):
    page = video._repr_html_()
    assert page.startswith("<video controls") and "data:video/mp4;base64," in page
    silent = sdltx.Video(np.empty((0, 0, 0, 3), np.uint8), video.audio, video.sample_rate)
    assert "data:audio/wav" in silent._repr_html_()
    monkeypatch.setattr(display, "_LARGEST", 100)
    assert "too large" in video._repr_html_()
    assert len(video.to_pil()) == 9 and video.to_pil()[0].size == (64, 64)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sdltx.BackendError, match="is installed to show it"):
        video.show()
    player = tmp_path / "mpv"
    player.write_text(f'#!/bin/sh\n/bin/cat "$1" > {tmp_path}/shown\n')
    player.chmod(0o755)
    video.show()
    for _ in range(200):
        if (tmp_path / "shown").exists() and (tmp_path / "shown").stat().st_size > 1000:
            break
        __import__("time").sleep(0.05)
    assert (tmp_path / "shown").read_bytes()[4:8] == b"ftyp"


# --- bars ---


def on_a_terminal(program):
    """What a program writes on a terminal that it has as standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    done = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    assert done.wait(60) == 0, text
    return text.decode()


MAKE = "import sdltx; sdltx.load().generate('a red circle', width=64, height=64, num_frames=9, num_inference_steps=1{})"


def test_bars_on_a_terminal():
    text = on_a_terminal(MAKE.format(""))
    assert all(phase in text for phase in ("encode", "denoise", "decode", "100%", "whole"))
    assert on_a_terminal(MAKE.format(", progress=False")) == ""


def test_bars_elsewhere_only_if_asked(capfd, pipe):
    pipe.generate(PROMPT, **SMALL)
    assert capfd.readouterr().err == ""
    pipe.generate(PROMPT, progress=True, **SMALL)
    assert "denoise" in capfd.readouterr().err


def test_bars_in_a_notebook(monkeypatch):
    class ZMQInteractiveShell:
        pass

    module = type(sys)("IPython")
    module.get_ipython = ZMQInteractiveShell
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert progress.in_notebook()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert progress._tqdm_of_here().__name__ == "tqdm"


@pytest.mark.parametrize("call", ["generate", "encode", "enhance"])
def test_what_is_no_callback(pipe, call):
    with pytest.raises(sdltx.InvalidRequestError, match="progress: expected a function"):
        getattr(pipe, call)(PROMPT, progress=5)


def test_bars_can_be_used_by_hand(capfd):
    bars = sdltx.Bars(file=sys.stderr)
    for done in range(4):
        bars.show("denoise", done, 3)
    bars.close()
    assert "3/3" in capfd.readouterr().err


# --- where it runs ---


def test_the_demo_says_so(caplog):
    with caplog.at_level(logging.INFO, logger="sdltx"):
        sdltx.load().close()
    assert "demonstration model" in caplog.text and "LTX-2.3 runs on cpu" in caplog.text


def test_variables(monkeypatch):
    monkeypatch.setenv("SDLTX_PRECISION", "f32")
    monkeypatch.setenv("SDLTX_OFFLOAD", "stage")
    monkeypatch.setenv("SDLTX_THREADS", "1")
    with sdltx.load() as pipe:
        assert (pipe.precision, pipe.offload) == ("f32", "stage")
    with sdltx.load(precision="auto") as pipe:
        assert pipe.precision == "auto"
    monkeypatch.setenv("SDLTX_THREADS", "many")
    with pytest.raises(sdltx.InvalidRequestError, match=r"SDLTX_THREADS is 'many', which is no number"):
        sdltx.load()
    monkeypatch.delenv("SDLTX_THREADS")
    monkeypatch.setenv("SDLTX_DEVICE", "nothing")
    with pytest.raises(sdltx.SdltxError, match="nothing"):
        sdltx.load()


def configured(tmp_path, text, *arguments, **variables):
    (tmp_path / "c.toml").write_text(text)
    environment = {**os.environ, "SDLTX_CONFIG": str(tmp_path / "c.toml"), **variables}
    return run("generate", "-p", PROMPT, "--dry-run", *arguments, env=environment)


def test_config_file(tmp_path):
    plain, exact = configured(tmp_path, ""), configured(tmp_path, 'precision = "f32"\nthreads = 1')
    assert plain.returncode == exact.returncode == 0
    assert "f32" in exact.stdout and "f32" not in plain.stdout
    assert "f32" not in configured(tmp_path, 'precision = "f32"', "--precision", "auto").stdout
    assert "f32" not in configured(tmp_path, 'precision = "f32"', SDLTX_PRECISION="auto").stdout
    assert configured(tmp_path, 'model = "~/nothing.gguf"').returncode == 3
    assert configured(tmp_path, 'model = ["~/nothing.gguf"]', "-m", sdltx._demo.FOLDER).returncode == 0


@pytest.mark.by_day(1)
@pytest.mark.parametrize("words", [["--wav-format", "s16"], ["--wav-format=s16"]])
def test_the_command_line_counts_even_if_it_says_the_default(tmp_path, words):
    from sdltx import sound

    configured(tmp_path, 'wav_format = "f32"')
    environment = {**os.environ, "SDLTX_CONFIG": str(tmp_path / "c.toml")}
    for more, kind in (([], b"\x03\x00"), (words, b"\x01\x00")):
        done = run(
            "generate",
            "-p",
            PROMPT,
            "--frames",
            9,
            "-W",
            64,
            "-H",
            64,
            "--steps",
            1,
            "-o",
            tmp_path / "x.wav",
            *more,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "x.wav").read_bytes()[20:22] == kind
    assert sound.is_sound(tmp_path / "x.wav")


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precison = 1", "there is no option precison; did you mean precision?"),
        ("threads = true", "threads is True, expected int"),
        ("model = 3", "model is a file or set"),
        ("width = 64", "there is no option width"),
        ('metadata = "foo"', "metadata is 'foo'; use one of full, plain, none"),
        ('wav_format = "foo"', "wav_format is 'foo'; use one of"),
        ("a = " + "[" * 3000, "c.toml"),
        ("= 1", "c.toml"),
    ],
)
def test_config_files_that_make_no_sense(tmp_path, text, message):
    done = configured(tmp_path, text)
    assert done.returncode == 2 and message in done.stderr and "[config]" in done.stderr


def test_config_file_that_is_not_there(tmp_path):
    done = run("doctor", env={**os.environ, "SDLTX_CONFIG": str(tmp_path / "none")})
    assert done.returncode == 2 and "there is no file" in done.stderr
    assert run("recipes", env={**os.environ, "SDLTX_CONFIG": ""}).returncode == 0


def test_a_python_without_a_core(tmp_path):
    """As a wheel for other Pythons has it."""
    package = tmp_path / "sdltx"
    package.mkdir()
    for file in Path(sdltx.__file__).parent.glob("*.py"):
        (package / file.name).write_bytes(file.read_bytes())
    (package / "_core.cpython-39-x86_64-linux-gnu.so").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-S", "-c", "import sdltx"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "no compiled core for Python" in done.stderr and "it has one for 3.9" in done.stderr


def test_plain_metadata_have_no_folders(tmp_path):
    """Of nothing that a clip is made from."""
    from sdltx.settings import kept_settings

    told = {
        "sound": {"path": f"{tmp_path}/a.wav", "start": 0.0},
        "film": {"path": f"{tmp_path}/b.mp4", "mask": f"{tmp_path}/m.png"},
        "references": [{"path": f"{tmp_path}/c.mp4", "attention": f"{tmp_path}/d.png", "strength": 1.0}],
        "images": [{"path": f"{tmp_path}/e.png", "frame": 0}],
        "loras": [[f"{tmp_path}/f.safetensors", 0.5]],
        "prompt": "a/b",
    }
    plain = kept_settings(told, "plain")
    assert (
        str(tmp_path) in str(told)
        and str(tmp_path) not in str(plain)
        and plain["film"] == {"path": "b.mp4", "mask": "m.png"}
    )
    assert plain["prompt"] == "a/b" and plain["references"][0]["attention"] == "d.png"
