"""The Python interface over the tiny random model: results, reproducibility, progress, errors."""

import logging
import math
import subprocess
import sys

import numpy as np
import pytest

import sdltx
from sdltx import media
from sdltx.pipeline import check

SMALL = {"width": 64, "height": 32, "num_frames": 9, "frame_rate": 24, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def model(tiny_dir):
    return [tiny_dir / "tiny-ltx-2.3.safetensors", tiny_dir / "gemma"]


@pytest.fixture(scope="module")
def pipe(model):
    return sdltx.load(*model)


@pytest.fixture(scope="module")
def context(pipe):
    return pipe.encode("a red ball bounces")


@pytest.fixture(scope="module")
def latents(pipe, context):
    return pipe.sample(context, **SMALL, seed=7)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Stop(Exception):
    """An error of the caller's own."""


class Recorder:
    """A progress callback that can raise in a phase."""

    def __init__(self, error=None, phase=None, at=0):
        self.events = []
        self.error, self.phase, self.at = error, phase, at

    def __call__(self, phase, done, total):
        self.events.append((phase, done, total))
        if self.error is not None and phase == self.phase and done >= self.at:
            raise self.error

    def phases(self):
        return list(dict.fromkeys(phase for phase, _, _ in self.events))


def test_import_is_light():
    code = "import sdltx, sys; print([m for m in ('numpy', 'av', 'PIL', 'tqdm', 'safetensors') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_import_leaves_the_environment_alone():
    code = "import os; before = dict(os.environ); import sdltx; print(before == dict(os.environ))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_errors():
    assert issubclass(sdltx.OutOfMemoryError, MemoryError)
    assert issubclass(sdltx.InvalidRequestError, ValueError)
    for name in ("ModelFile", "ModelMismatch", "OutOfMemory", "InvalidRequest", "Backend"):
        error = getattr(sdltx, f"{name}Error")
        assert issubclass(error, sdltx.SdltxError)
        assert error.__module__ == "sdltx"
        assert error.__doc__
    assert issubclass(sdltx.Cancelled, sdltx.SdltxError)


def test_info(pipe):
    info = pipe.info
    assert info["version"] == "2.3.0"
    assert info["model"] == "LTX-2.3"
    assert set(info["defaults"]) == {"width", "height", "num_frames", "frame_rate", "steps"}
    assert isinstance(info["distilled"], bool)
    assert info["model"] in repr(pipe)
    assert "\n" not in repr(pipe)


def test_context(pipe, context):
    assert context.video.shape == (1024, 64)
    assert context.audio.shape == (1024, 32)
    assert context.prompt == "a red ball bounces"
    assert repr(context) == "Context(video=(1024, 64), audio=(1024, 32), prompt='a red ball bounces')"
    other = pipe.encode("a blue ball bounces")
    assert not np.array_equal(other.video, context.video)
    assert not np.array_equal(other.audio, context.audio)


def test_latents(latents):
    assert latents.video.shape == (8, 2, 1, 2)
    assert latents.audio.shape == (2, round(25 * 9 / 24), 16)
    assert latents.frame_rate == 24
    assert latents.seed == 7
    assert "seed=7" in repr(latents)
    assert np.isfinite(latents.video).all()
    assert np.isfinite(latents.audio).all()


def test_video(pipe, latents):
    video = pipe.decode(latents)
    assert video.frames.shape == (9, 32, 64, 3)
    assert video.frames.dtype == np.uint8
    assert video.frames.std() > 5  # a picture, not one colour
    assert np.abs(np.diff(video.frames.astype(int), axis=0)).mean() > 0.1  # that moves
    assert video.sample_rate == 48000
    assert video.audio.shape == (2, 480 * (4 * (latents.audio.shape[1] - 1) + 1))
    assert np.abs(video.audio).max() > 1e-4
    assert video.frame_rate == 24
    assert video.seed == 7
    assert "9 frames, 64x32, 24 fps" in repr(video)
    assert video.metadata == latents.settings


def test_results_are_read_only(pipe, context, latents):
    arrays = [context.video, context.audio, latents.video, latents.audio, pipe.decode(latents).frames]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_values_leave_the_callers_arrays_alone():
    mine = np.zeros((8, 2, 1, 2), np.float32)
    noise = sdltx.Latents(video=mine)
    mine[:] = 1
    assert noise.video.flags.writeable is False
    assert noise.audio is None


@pytest.mark.parametrize("shape", [(2, 1, 2), (1, 8, 2, 1, 2)])
def test_values_check_their_axes(shape):
    with pytest.raises(sdltx.InvalidRequestError, match="expected"):
        sdltx.Latents(video=np.zeros(shape, np.float32))
    with pytest.raises(sdltx.InvalidRequestError, match="uint8"):
        sdltx.Video(frames=np.zeros((1, 32, 32, 3), np.float32))


def test_same_seed_same_latents(pipe, context, latents, model):
    again = pipe.sample(context, **SMALL, seed=7)
    other = pipe.sample(context, **SMALL, seed=8)
    assert np.array_equal(again.video, latents.video)
    assert np.array_equal(again.audio, latents.audio)
    assert not np.array_equal(other.video, latents.video)
    assert not np.array_equal(other.audio, latents.audio)
    for threads in (1, 2):
        fresh = sdltx.load(*model, threads=threads)
        once_more = fresh.sample(fresh.encode(context.prompt), **SMALL, seed=7)
        assert np.array_equal(once_more.video, latents.video)
        assert np.array_equal(once_more.audio, latents.audio)


def test_random_seed_is_told(pipe, context):
    drawn = pipe.sample(context, **SMALL)
    another = pipe.sample(context, **SMALL)
    assert drawn.seed != another.seed
    assert np.array_equal(pipe.sample(context, **SMALL, seed=drawn.seed).video, drawn.video)


def test_given_noise(pipe, context, latents):
    random = np.random.default_rng(0)
    noise = sdltx.Latents(
        video=random.standard_normal(latents.video.shape),
        audio=random.standard_normal(latents.audio.shape),
        frame_rate=24,
    )
    options = {name: value for name, value in SMALL.items() if name != "frame_rate"}
    first = pipe.sample(context, **options, noise=noise)
    second = pipe.sample(context, **options, noise=noise, seed=3)
    assert first.seed is None
    assert first.frame_rate == 24
    assert np.array_equal(first.video, second.video)
    assert not np.array_equal(first.video, latents.video)
    half = sdltx.Latents(video=noise.video, frame_rate=24)
    mixed = [pipe.sample(context, **options, noise=half, seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(mixed[0].audio, mixed[1].audio)
    assert not np.array_equal(mixed[0].audio, mixed[2].audio)


def test_defaults_are_the_checkpoints(pipe, context):
    """A clip's settings name the number of steps; repeating them must give the clip that the defaults gave."""
    defaults = pipe.info["defaults"]
    size = {**SMALL, "num_inference_steps": None}
    first = pipe.sample(context, **size, seed=1)
    assert first.settings["num_inference_steps"] == defaults["steps"]
    again = pipe.sample(context, **{**size, "num_inference_steps": defaults["steps"]}, seed=1)
    assert np.array_equal(first.video, again.video)


def test_sigmas(pipe, context):
    size = {**SMALL, "num_inference_steps": None}
    given = pipe.sample(context, **size, seed=1, sigmas=[1.0, 0.5, 0.0])
    assert given.settings["sigmas"] == [1.0, 0.5, 0.0]
    assert given.settings["num_inference_steps"] is None
    other = pipe.sample(context, **size, seed=1, sigmas=[1.0, 0.25, 0.0])
    assert not np.array_equal(given.video, other.video)


def test_settings_and_saving(pipe, latents, tmp_path):
    settings = latents.settings
    assert settings["sdltx_version"] == sdltx.__version__
    assert settings["model"] == pipe.info["model"]
    assert settings["model_files"] == ["tiny-ltx-2.3.safetensors", "gemma"]
    assert {name: settings[name] for name in SMALL} == SMALL
    assert (settings["prompt"], settings["seed"]) == ("a red ball bounces", 7)
    video = pipe.decode(latents)
    video.save(tmp_path / "clip.mp4")
    assert media.read_settings(tmp_path / "clip.mp4") == settings


def test_generate_is_encode_sample_decode(pipe, latents):
    recorder = Recorder()
    pipe.generate("a red ball bounces", **SMALL, seed=7)  # every weight is loaded
    video = pipe.generate("a red ball bounces", **SMALL, seed=7, progress=recorder)
    assert np.array_equal(video.frames, pipe.decode(latents).frames)
    assert recorder.phases() == ["encode", "denoise", "decode", "sound"]
    for phase in recorder.phases():
        steps = [(done, total) for name, done, total in recorder.events if name == phase]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 0
        assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    # A step of a large model takes minutes, so the blocks of the transformer are reported: here 3 in each of 2 steps.
    assert [done for name, done, _ in recorder.events if name == "denoise"] == list(range(2 * 3 + 1))


def test_weights_come_when_they_are_needed(model):
    recorder = Recorder()
    pipe = sdltx.load(*model)
    assert all(of["weights"] == of["inputs"] == of["working"] == 0 for of in pipe.memory())
    pipe.generate("a red ball bounces", **SMALL, seed=7, progress=recorder)
    phases = [name for name, done, total in recorder.events]
    assert list(dict.fromkeys(phases)) == ["load", "encode", "denoise", "decode", "sound"]
    assert pipe.memory()[0]["weights"] > 0
    assert all(of["inputs"] == of["working"] == 0 for of in pipe.memory())


def test_load_reports(model):
    recorder = Recorder()
    sdltx.load(*model, progress=recorder)
    assert recorder.phases() == ["load"]
    assert recorder.events[-1][1] == recorder.events[-1][2] > 0
    error = Stop("no more")
    with pytest.raises(Stop) as raised:
        sdltx.load(*model, progress=Recorder(error, "load"))
    assert raised.value is error


@pytest.mark.by_day(3)
@pytest.mark.parametrize("phase", ["encode", "denoise", "decode"])
@pytest.mark.parametrize("error", [Stop("no more"), sdltx.Cancelled("enough"), KeyboardInterrupt()])
def test_progress_can_stop_a_run(pipe, latents, phase, error):
    for at in (0, 1):
        recorder = Recorder(error, phase, at)
        with pytest.raises(type(error)) as raised:
            pipe.generate("a red ball bounces", **SMALL, seed=7, progress=recorder)
        assert raised.value is error
        assert recorder.events[-1][0] == phase
        assert recorder.events[-1][1] == at
    video = pipe.generate("a red ball bounces", **SMALL, seed=7)
    assert np.array_equal(video.frames, pipe.decode(latents).frames)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ".png"])
@pytest.mark.parametrize("phase", ["decode", "write"])
def test_cancel_leaves_no_file(pipe, latents, suffix, phase, tmp_path):
    recorder = Recorder(sdltx.Cancelled("enough"), phase, 1)
    with (
        pytest.raises(sdltx.Cancelled),
        media.VideoWriter(tmp_path / f"clip{suffix}", 24, progress=recorder) as writer,
    ):
        pipe.decode_into(writer, latents, progress=recorder)
    assert recorder.events[-1][0] == phase
    assert names(tmp_path) == []


def test_frames_come_in_pieces(pipe, context):
    latents = pipe.sample(context, **{**SMALL, "num_frames": 33}, seed=7)
    pieces = []

    class Sink:
        def write_frames(self, frames):
            pieces.append(frames)

    pipe.decode_into(Sink(), latents, tiling=sdltx.Tiling(frames=16, frame_overlap=8))
    assert len(pieces) > 1
    whole = pipe.decode(latents, tiling=sdltx.Tiling(frames=16, frame_overlap=8)).frames
    assert np.array_equal(np.concatenate(pieces), whole)
    assert len(whole) == 33

    class Full:
        def write_frames(self, frames):
            raise Stop("full")

    with pytest.raises(Stop, match="full"):
        pipe.decode_into(Full(), latents)


def test_latents_file(pipe, latents, tmp_path):
    path = tmp_path / "clip.safetensors"
    latents.save(path)
    back = sdltx.Latents.load(path)
    assert np.array_equal(back.video, latents.video)
    assert np.array_equal(back.audio, latents.audio)
    assert (back.frame_rate, back.settings) == (latents.frame_rate, latents.settings)
    sdltx.Latents(video=latents.video, frame_rate=12.5).save(path)
    assert sdltx.Latents.load(path).audio is None
    assert sdltx.Latents.load(path).frame_rate == 12.5
    assert names(tmp_path) == [path.name]
    with pytest.raises(sdltx.InvalidRequestError):
        latents.save(tmp_path / "missing" / "clip.safetensors")


def test_latents_file_of_another_kind(model, latents, tmp_path):
    path = tmp_path / "clip.safetensors"
    with pytest.raises(sdltx.ModelFileError, match="does not exist"):
        sdltx.Latents.load(path)
    with pytest.raises(sdltx.ModelFileError, match="holds no latents"):
        sdltx.Latents.load(model[0])
    latents.save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"text, not tensors", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(sdltx.ModelFileError, match="damaged"):
            sdltx.Latents.load(path)


def test_trace(pipe, context):
    with pipe.trace("*") as traced:
        assert traced == {}
        pipe.sample(context, **SMALL, seed=7)
    assert traced
    name = min(traced)
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in traced.values())
    with pipe.trace(name, "no such stage") as one:
        pipe.sample(context, **SMALL, seed=7)
    assert set(one) == {name}
    assert np.array_equal(one[name], traced[name])
    with pytest.raises(Stop), pipe.trace("*"):
        raise Stop
    with pipe.trace("no such stage") as nothing:
        pipe.sample(context, **SMALL, seed=7)
    assert nothing == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 500}, "480|512"),
        ({"height": 500}, "480|512"),
        ({"width": 0}, None),
        ({"height": -32}, None),
        ({"num_frames": 120}, "113|121"),
        ({"num_frames": 0}, None),
        ({"frame_rate": 0}, None),
        ({"frame_rate": -24.0}, None),
        ({"frame_rate": float("nan")}, None),
        ({"num_inference_steps": 0}, None),
        ({"num_inference_steps": -1}, None),
        ({"num_inference_steps": None, "sigmas": []}, None),
        ({"num_inference_steps": None, "sigmas": [1.0]}, None),
        ({"num_inference_steps": None, "sigmas": [0.5, 1.0, 0.0]}, None),
        ({"num_inference_steps": None, "sigmas": [1.0, float("nan"), 0.0]}, None),
        ({"seed": -2}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"noise": sdltx.Latents(video=np.zeros((8, 2, 1, 3), np.float32))}, None),
        ({"noise": sdltx.Latents(np.zeros((8, 2, 1, 2), np.float32), np.zeros((2, 1, 16), np.float32))}, None),
    ],
)
def test_bad_requests(pipe, context, options, words):
    with pytest.raises(sdltx.InvalidRequestError, match=words) as raised:
        pipe.sample(context, **{**SMALL, **options})
    assert "\n" not in str(raised.value)


def test_bad_values(pipe, context, latents):
    with pytest.raises(sdltx.InvalidRequestError):
        pipe.sample(sdltx.Context(context.video[:, :5], context.audio), **SMALL)
    with pytest.raises(sdltx.InvalidRequestError):
        pipe.sample(sdltx.Context(context.video, context.audio[:0]), **SMALL)
    with pytest.raises(sdltx.InvalidRequestError):
        pipe.decode(sdltx.Latents(latents.video[:3], frame_rate=24))
    with pytest.raises(sdltx.InvalidRequestError):
        pipe.decode(latents, tiling=sdltx.Tiling(size=33))
    with pytest.raises(sdltx.InvalidRequestError, match="Unicode"):
        pipe.encode("half a character: \ud83d")


def test_bad_loads(model, tmp_path):
    with pytest.raises(sdltx.ModelFileError, match=r"no-such-file\.safetensors"):
        sdltx.load(tmp_path / "no-such-file.safetensors")
    with pytest.raises(sdltx.SdltxError):
        sdltx.load(*model, device="no-such-device")
    with pytest.raises(sdltx.InvalidRequestError):
        sdltx.load(*model, precision="f7")


def test_logging(pipe, caplog):
    with caplog.at_level(logging.DEBUG, logger="sdltx"):
        assert len(pipe.tokenize("ball " * 2000)) == 1024
    assert [(record.name, record.levelname) for record in caplog.records] == [("sdltx", "WARNING")]


def test_quiet_by_default(model):
    code = f"import sdltx; sdltx.load(*{[str(path) for path in model]}).encode('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "size",
    [{}, {"frame_rate": 1000}, {"frame_rate": 0.5}, {"num_frames": 1}, {"num_frames": 65529}, {"width": 16384}],
)
def test_check_without_a_model_allows_what_may_be_legal(size):
    check(**size)


@pytest.mark.parametrize("size", [{"width": 500}, {"num_frames": 120}, {"frame_rate": 0}, {"frame_rate": math.nan}])
def test_check_without_a_model_refuses_what_never_is(size):
    with pytest.raises(sdltx.InvalidRequestError, match=r"^\[sample\]"):
        check(**size)


def test_resolve_leaves_nothing_open(pipe):
    defaults = pipe.info["defaults"]
    resolved = pipe.resolve()
    for name in ("width", "height", "num_frames", "frame_rate"):
        assert resolved[name] == defaults[name]
    assert resolved["num_inference_steps"] == defaults["steps"] == len(resolved["sigmas"]) - 1
    assert pipe.info["preset"] == resolved["preset"]
    assert 0 <= resolved["seed"] < 2**31
    assert pipe.resolve()["seed"] != resolved["seed"]
    given = {"width": 96, "height": 64, "num_frames": 17, "frame_rate": 25.0, "seed": 2**63 - 1}
    assert given.items() <= pipe.resolve(**given, sigmas=[1, 0.5, 0]).items()
    assert pipe.resolve(sigmas=[1, 0.5, 0])["schedule"] == "given"


def test_the_resolved_seed_repeats_a_clip(pipe):
    size = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}
    seed = pipe.resolve(**size)["seed"]
    context = pipe.encode("a fox")
    assert np.array_equal(pipe.sample(context, **size, seed=seed).video, pipe.sample(context, **size, seed=seed).video)


@pytest.mark.parametrize(
    "name, steps, preset, schedule",
    [
        ("ltx-2.3-22b-distilled.safetensors", 8, "distilled", "distilled"),
        ("ltx-2.3-22b-dev.safetensors", 30, "dev", "ltx2"),
    ],
)
def test_presets(tmp_path, model, name, steps, preset, schedule):
    path = tmp_path / name
    path.symlink_to(model[0])
    pipe = sdltx.load(path, model[1])
    resolved = pipe.resolve()
    assert (resolved["preset"], resolved["num_inference_steps"], resolved["schedule"]) == (preset, steps, schedule)
    assert (resolved["width"], resolved["height"], resolved["num_frames"]) == (768, 512, 121)
    # A distilled checkpoint has a list for its own number of steps only.
    assert pipe.resolve(num_inference_steps=5)["schedule"] == "ltx2"
