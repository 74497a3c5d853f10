"""The C ABI: the same clips as Python's, and contracts that hold whatever is passed."""

from __future__ import annotations

import ctypes as c
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import capi
import numpy as np
import pytest
from capi import (
    BOTH,
    LIBRARY,
    PICTURES,
    SOUND,
    array,
    borrowed_text,
    call,
    callbacks,
    frames_of,
    free,
    load,
    made,
    pair,
    request,
    sound_of,
    text,
)

import sdltx

CLIP = {"width": 64, "height": 64, "num_frames": 17, "seed": 3}
WITHOUT_FAULTS = {
    f"sdltx_{name}"
    for name in (
        "set_log",
        "explain_crashes",
        "last_error",
        "version",
        "abi_version",
        "devices",
        "presets",
        "recipes",
        "tasks",
        "options",
        "request_new",
        "check",
    )
}


@pytest.fixture(scope="module")
def pipeline(demo_paths):
    handle = load(*demo_paths)
    yield handle
    free("pipeline", handle)


@pytest.fixture(scope="module")
def demo_paths():
    return sdltx._demo.demo_files()


@pytest.fixture(scope="module")
def python():
    with sdltx.load() as pipe:
        yield pipe


@pytest.fixture(scope="module")
def context(pipeline):
    handle = made("encode", pipeline, b"a red circle moves left", None, None)
    yield handle
    free("context", handle)


@pytest.fixture(scope="module")
def latents(pipeline, context):
    handle = made("sample", pipeline, context, None, request(**CLIP), None)
    yield handle
    free("latents", handle)


@pytest.mark.sanitize
def test_nulls_and_zeros():
    """In a process of its own, as a crash would end it."""
    code = (
        "import ctypes as c, sys; sys.path.insert(0, sys.argv[1])\n"
        "import capi\n"
        "results = {}\n"
        "for name, count in capi.functions().items():\n"
        "    f = getattr(capi.LIBRARY, name)\n"
        "    results[name] = [f(*[c.c_void_p()] * count)]\n"
        "    zeros = c.create_string_buffer(4096)\n"
        "    if not name.endswith('_free'):\n"
        "        results[name].append(f(*[c.c_void_p()] * (count - 1), *[zeros] * min(count, 1)))\n"
        "        if name != 'sdltx_set_log': results[name].append(f(*[zeros] * count))\n"
        "import json; print(json.dumps(results, default=str))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, statuses in json.loads(done.stdout).items():
        if name.endswith("_free") or name in WITHOUT_FAULTS:
            continue
        assert set(statuses) == {capi.INVALID}, (name, statuses)


def test_versions():
    assert LIBRARY.sdltx_version().decode() == sdltx.__version__
    for kind in ("load", "convert"):
        for version in (0, 6, 2**32 - 1):
            with pytest.raises(capi.Failed, match=r"has version \d+; fill it with its _init function") as failed:
                call(f"{kind}_options_init", c.byref(c.create_string_buffer(1024)), c.c_uint32(version))
            assert failed.value.status == capi.INVALID


def test_images(pipeline, python, context):
    picture = np.random.default_rng(4).integers(0, 256, (30, 50, 3), np.uint8)
    expected = python.sample(
        python.encode("a red circle moves left"),
        **CLIP,
        conditions=[sdltx.Condition(picture, 0, 0.5, crf=0), sdltx.Condition(picture, -1, crf=0)],
    )
    asked = request(**CLIP)
    pixels = picture.ctypes.data_as(c.c_void_p)
    sizes = c.c_int64(30), c.c_int64(50)
    call("request_add_image", asked, pixels, *sizes, c.c_int64(0), c.c_double(0.5))
    call("request_add_image", asked, pixels, *sizes, c.c_int64(-1), c.c_double(1))
    handle = made("sample", pipeline, context, None, asked, None)
    video, audio = pair("latents", handle, None)
    np.testing.assert_array_equal(video, expected.video)
    np.testing.assert_array_equal(audio, expected.audio)
    pixels = python._core.encode_video(picture[None, :, :32].repeat(2, 1)[:, :32].astype(np.float32) / 127.5 - 1)
    frames = array(picture[None, :, :32].repeat(2, 1)[:, :32].astype(np.float32) / 127.5 - 1)
    encoded = made("encode_video", pipeline, c.byref(frames), None, None)
    np.testing.assert_array_equal(pair("latents", encoded, None)[0], pixels)
    for lent, height in ((None, 30), (picture.ctypes.data_as(c.c_void_p), 0)):
        with pytest.raises(capi.Failed, match="no pixels") as failed:
            call("request_add_image", asked, lent, c.c_int64(height), sizes[1], c.c_int64(0), c.c_double(1))
        assert failed.value.status == capi.INVALID
    call("request_add_image", asked, picture.ctypes.data_as(c.c_void_p), *sizes, c.c_int64(17), c.c_double(1))
    with pytest.raises(capi.Failed, match="no frame 17") as failed:
        made("sample", pipeline, context, None, asked, None)
    assert failed.value.status == capi.INVALID
    for one in (handle, encoded):
        free("latents", one)


def test_a_clip_is_pythons(pipeline, python, context, latents):
    want = python.encode("a red circle moves left")
    video, audio = pair("context", context)
    np.testing.assert_array_equal(video, want.video)
    np.testing.assert_array_equal(audio, want.audio)
    expected = python.sample(want, **CLIP)
    rate = c.c_double()
    video, audio = pair("latents", latents, c.byref(rate))
    np.testing.assert_array_equal(video, expected.video)
    np.testing.assert_array_equal(audio, expected.audio)
    assert rate.value == expected.frame_rate
    clip = python.decode(expected)
    handles = [
        made("decode", pipeline, latents, None, BOTH, None),
        made("generate", pipeline, request(prompt="a red circle moves left", **CLIP), BOTH, None, None),
    ]
    for handle in handles:
        frames, rate = frames_of(handle)
        np.testing.assert_array_equal(frames, clip.frames)
        assert rate == clip.frame_rate
        sound, hertz = sound_of(handle)
        np.testing.assert_array_equal(sound, clip.audio)
        assert hertz == clip.sample_rate
        free("video", handle)


def test_guidance_noise_and_values_of_the_callers(pipeline, python):
    prompts = "a blue square", "sound of rain"
    guided = {"guidance_scale": 3.0, "audio_guidance_scale": 2.0, "stg_scale": 1.0, "guidance_method": "cfg_star"}
    shapes = python.sample(python.encode(""), **CLIP, num_inference_steps=1)
    rng = np.random.default_rng(1)
    noise = [rng.standard_normal(x.shape, np.float32) for x in (shapes.video, shapes.audio)]
    wanted, unwanted = (python.encode(prompt) for prompt in prompts)
    expected = python.sample(
        wanted,
        negative=unwanted,
        noise=sdltx.Latents(*noise),
        sigmas=[1.0, 0.5, 0.0],
        stg_blocks=[1],
        guidance_interval=(0.2, 1.0),
        **guided,
        **CLIP,
    )
    contexts = [made("context_new", c.byref(array(x.video)), c.byref(array(x.audio))) for x in (wanted, unwanted)]
    lent = [array(x) for x in noise]
    asked = request(**CLIP, **guided, sigmas=[1, 0.5, 0], stg_blocks=[1], guidance_interval=[0.2, 1.0], noise=lent)
    handle = made("sample", pipeline, *contexts, asked, None)
    video, audio = pair("latents", handle, None)
    np.testing.assert_array_equal(video, expected.video)
    np.testing.assert_array_equal(audio, expected.audio)
    mine = made("latents_new", c.byref(array(video)), c.byref(array(audio)), c.c_double(24))
    again = pair("latents", mine, None)
    np.testing.assert_array_equal(again[0], video)
    np.testing.assert_array_equal(again[1], audio)
    for kind, objects in (("context", contexts), ("latents", [handle, mine])):
        for one in objects:
            free(kind, one)


def test_json(pipeline, python, demo_paths):
    told = json.loads(text("describe", pipeline))
    info = python.info
    for name in ("model", "version", "distilled", "preset", "note", "parts", "defaults", "has_audio"):
        assert told[name] == info[name]
    assert (told["device"], told["latent_channels"], told["unused_tensors"]) == (
        "cpu",
        python.latent_channels,
        python._core.unused_tensors(),
    )
    assert json.loads(text("presets")) == python.presets
    assert [d["name"] for d in json.loads(text("devices"))] == [d["name"] for d in sdltx._core.devices()]
    report = json.loads(text("inspect", capi.strings(*demo_paths), c.c_size_t(len(demo_paths))))
    assert report["model"] == info["model"]
    asked = request(**CLIP, guidance_scale=3.0, sampler="res_2s")
    same = {**CLIP, "guidance_scale": 3.0, "sampler": "res_2s"}
    assert json.loads(text("resolve", pipeline, asked)) == python.resolve(**same)
    asked = request(**CLIP, num_inference_steps=99)
    same = {**CLIP, "num_inference_steps": 99}
    assert json.loads(text("doubts", pipeline, asked)) == python.doubts(**same)
    size = {key: value for key, value in CLIP.items() if key != "seed"}
    asked = request(**size, tiling=[64, 32, 0, 24])
    assert json.loads(text("estimate", pipeline, asked)) == python.estimate(**size, tiling=sdltx.Tiling(64, 32, 0, 24))
    assert json.loads(text("estimate", pipeline, None)) == python.estimate()
    for entry, want in zip(json.loads(text("memory", pipeline)), python.memory(), strict=True):
        assert entry.keys() == want.keys()


@pytest.mark.threads
@pytest.mark.sanitize
def test_callbacks(pipeline, context, latents, python):
    heard, shown, pieces = [], [], []

    @capi.Progress
    def progress(phase, done, total, payload):
        heard.append((phase, done, total, payload))
        return 0

    @capi.OnStep
    def on_step(done, steps, estimate, payload):
        free("latents", c.c_void_p(estimate))  # it is lent: nothing happens
        shown.append((done, steps, pair("latents", c.c_void_p(estimate), None)))
        return 0

    @capi.OnFrames
    def on_frames(rgb, first, count, height, width, payload):
        values = np.ctypeslib.as_array(rgb, (count, height, width, 3)).copy()
        pieces.append((first, values))
        return 0

    steps = {"num_inference_steps": 2, **CLIP}
    told = callbacks(progress=progress, on_step=on_step, payload=5)
    handle = made("sample", pipeline, context, None, request(**steps), c.byref(told))
    assert all(entry["mapped"] + entry["weights"] > 0 for entry in json.loads(text("memory", pipeline)))
    assert {x[0] for x in heard} == {b"denoise"}
    assert {x[3] for x in heard} == {5}
    assert heard[-1][1] == heard[-1][2] > 0
    estimates = []
    python.sample(
        python.encode("a red circle moves left"), **steps, on_step=lambda i, n, x: estimates.append((i, n, x))
    )
    assert [x[:2] for x in shown] == [x[:2] for x in estimates] == [(1, 2), (2, 2)]
    for (_, _, (video, audio)), (_, _, want) in zip(shown, estimates, strict=True):
        np.testing.assert_array_equal(video, want.video)
        np.testing.assert_array_equal(audio, want.audio)
    video = made("decode", pipeline, latents, None, PICTURES, c.byref(callbacks(on_frames=on_frames)))
    whole = made("decode", pipeline, latents, None, BOTH, None)
    assert [first for first, _ in pieces] == list(np.cumsum([0, *(len(x) for _, x in pieces)])[:-1])
    np.testing.assert_array_equal(np.concatenate([x for _, x in pieces]), frames_of(whole)[0])
    got = capi.Frames()
    call("video_frames", video, c.byref(got))
    assert (got.rgb, got.num_frames) == (None, 17)
    assert sound_of(video) is None
    alone = made("decode", pipeline, latents, None, SOUND, None)
    np.testing.assert_array_equal(sound_of(alone)[0], sound_of(whole)[0])
    free("latents", handle)
    for one in (video, whole, alone):
        free("video", one)


def test_stopping(pipeline, context, latents):
    stop = capi.Progress(lambda *_: 1)
    kept = capi.OnStep(lambda *_: 1)
    frames = capi.OnFrames(lambda *_: 7)
    out = c.c_void_p(1)
    for name, arguments in (
        ("encode", (pipeline, b"x", stop, None)),
        ("sample", (pipeline, context, None, request(**CLIP), c.byref(callbacks(progress=stop)))),
        ("sample", (pipeline, context, None, request(**CLIP), c.byref(callbacks(on_step=kept)))),
        ("decode", (pipeline, latents, None, BOTH, c.byref(callbacks(progress=stop)))),
        ("decode", (pipeline, latents, None, BOTH, c.byref(callbacks(on_frames=frames)))),
        ("generate", (pipeline, request(prompt="x", **CLIP), BOTH, c.byref(callbacks(progress=stop)), None)),
    ):
        with pytest.raises(capi.Failed, match=r"stopped|cancelled") as failed:
            call(name, *arguments, c.byref(out))
        assert failed.value.status == capi.CANCELLED
        assert not out.value
    free("context", made("encode", pipeline, b"x", None, None))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"width": 65}, "width"),
        ({"num_frames": 12}, "number of frames 12"),
        ({"num_inference_steps": 0}, "num_inference_steps 0"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"preset": "fast"}, "fast"),
        ({"sampler": "heun"}, "heun"),
        ({"seed": -2}, "seed"),
    ],
)
def test_bad_requests(pipeline, fields, line):
    asked = request(**fields)
    with pytest.raises(capi.Failed, match=line):
        call("check", asked)
    for name, arguments in (("resolve", (asked,)), ("generate", (asked, BOTH, None, None))):
        with pytest.raises(capi.Failed, match=line) as failed:
            made(name, pipeline, *arguments)
        assert failed.value.status == capi.INVALID
        assert "\n" not in str(failed.value)


@pytest.mark.sanitize
def test_tokens(pipeline, python):
    want = python.tokenize("a red circle")
    ids, count = (c.c_int32 * 1024)(), c.c_size_t()
    call("tokenize", pipeline, b"a red circle", ids, c.c_size_t(1024), c.byref(count))
    assert ids[: count.value] == want.tolist()
    ids = (c.c_int32 * 3)(7, 7, 7)
    call("tokenize", pipeline, b"a red circle", ids, c.c_size_t(2), c.byref(count))
    assert (ids[:], count.value) == ([*want[:2], 7], len(want))
    call("tokenize", pipeline, b"word " * 3000, None, c.c_size_t(0), c.byref(count))
    assert count.value == 1024


@pytest.mark.sanitize
def test_a_denoised_clip_survives_its_decoding(pipeline):
    """And tells the seed that was drawn for it."""
    fields = {key: value for key, value in CLIP.items() if key != "seed"}
    full = capi.OnFrames(lambda *_: 1)
    arguments = (request(prompt="x", **fields), BOTH, c.byref(callbacks(on_frames=full)))
    kept, video = c.c_void_p(1), c.c_void_p(1)
    with pytest.raises(capi.Failed) as failed:
        call("generate", pipeline, *arguments, c.byref(kept), c.byref(video))
    assert (failed.value.status, video.value) == (capi.CANCELLED, None)
    video = made("decode", pipeline, kept, None, BOTH, None)
    settings = json.loads(borrowed_text("latents_settings", kept))
    assert borrowed_text("video_settings", video) == borrowed_text("latents_settings", kept)
    assert settings["num_frames"] == CLIP["num_frames"]
    again = c.c_void_p()
    asked = request(prompt="x", **fields, seed=settings["seed"])
    repeated = made("generate", pipeline, asked, BOTH, None, c.byref(again))
    np.testing.assert_array_equal(frames_of(repeated)[0], frames_of(video)[0])
    for one, other in zip(pair("latents", kept, None), pair("latents", again, None), strict=True):
        np.testing.assert_array_equal(one, other)
    for kind, objects in (("latents", (kept, again)), ("video", (video, repeated))):
        for one in objects:
            free(kind, one)


def test_latents_of_values_have_no_settings(pipeline, context, latents):
    video, audio = pair("latents", latents, None)
    mine = made("latents_new", c.byref(array(video)), c.byref(array(audio)), c.c_double(24))
    assert borrowed_text("latents_settings", mine) == "{}"
    noise = [array(x) for x in (video, audio)]
    asked = request(**{key: value for key, value in CLIP.items() if key != "seed"}, noise=noise)
    sampled = made("sample", pipeline, context, None, asked, None)
    assert json.loads(borrowed_text("latents_settings", sampled))["seed"] is None
    for one in (mine, sampled):
        free("latents", one)


def test_sound_to_latents_and_back(tiny_paths, tiny):
    handle = load(*tiny_paths, precision=1)
    wave = np.random.default_rng(2).uniform(-0.5, 0.5, (2, 20000)).astype(np.float32)
    latents = made("encode_audio", handle, c.byref(array(wave)), c.c_int64(44100))
    video, audio = pair("latents", latents, None)
    assert video is None
    np.testing.assert_array_equal(audio, tiny.encode_audio(wave, 44100))
    sound = made("decode", handle, latents, None, SOUND, None)
    samples, rate = tiny.decode_audio(sdltx.Latents(np.zeros((1, 1, 1, 1), np.float32), audio))
    got, hertz = sound_of(sound)
    np.testing.assert_array_equal(got, samples)
    assert hertz == rate
    for samples, rate, line in ((wave, 0, "0 Hz"), (wave, 2**40, "Hz"), (wave[:1], 44100, "expected sound of")):
        with pytest.raises(capi.Failed, match=line) as failed:
            made("encode_audio", handle, c.byref(array(samples)), c.c_int64(rate))
        assert failed.value.status == capi.INVALID
    with pytest.raises(capi.Failed, match="no pictures"):
        made("decode", handle, latents, None, BOTH, None)
    for kind, one in (("latents", latents), ("video", sound), ("pipeline", handle)):
        free(kind, one)


def test_bad_calls(pipeline, context, latents, tmp_path, tiny_paths):
    values = np.zeros((2, 3, 2, 2), np.float32)
    bad_shape, too_many = array(values), array(values)
    bad_shape.shape[1] = -1
    too_many.dims = 9
    blank = request()
    for name, arguments, line in (
        ("sample", (pipeline, latents, None, None, None), "context.*does not exist"),
        ("decode", (pipeline, context, None, BOTH, None), "latents.*does not exist"),
        ("latents_new", (c.byref(bad_shape), None, c.c_double(24)), "impossible shape"),
        ("latents_new", (c.byref(too_many), None, c.c_double(24)), "9 dimensions"),
        ("latents_new", (c.byref(array(values[0])), None, c.c_double(24)), "shape .channels"),
        ("latents_new", (c.byref(array(values)), None, c.c_double(float("nan"))), "frame rate"),
        ("resolve", (pipeline, request(guidance_interval=[0.5])), "two noise levels"),
        ("decode", (pipeline, latents, None, 0, None), "must be SDLTX_PICTURES"),
        ("decode", (pipeline, latents, None, 7, None), "must be SDLTX_PICTURES"),
        ("decode", (pipeline, latents, request(tiling=[64, 64, 0, 0]), BOTH, None), "tile"),
        ("decode", (pipeline, latents, None, BOTH, c.byref(capi.structure("sdltx_callbacks")(version=9))), "version 9"),
        ("encode", (pipeline, b"\xff\xfe", None, None), "UTF-8"),
    ):
        with pytest.raises(capi.Failed, match=line) as failed:
            made(name, *arguments)
        assert failed.value.status == capi.INVALID
    for setter, arguments, line in (
        ("set_text", (b"width", b"3"), "width is of the kind 'whole'"),
        ("set_int", (b"prompt", c.c_int64(3)), "prompt is of the kind 'text'"),
        ("set_int", (b"audio", c.c_int64(3)), "audio must be 0 or 1"),
        ("set_float", (b"seed", c.c_double(3)), "seed is of the kind 'whole'"),
        ("set_int", (b"widht", c.c_int64(3)), "no option 'widht'"),
        ("set_floats", (b"sigmas", None, c.c_size_t(3)), "values.*NULL"),
        ("add_text", (b"loras", b"x"), "loras is of the kind 'loras'"),
        ("read", (b'{"width": "3"}',), "width: expected a whole number"),
        ("read", (b'{"width": 64, "widht": 3}',), "no option 'widht'"),
        ("read", (b"[1]",), "expected an object"),
        ("read", (b"{",), "JSON"),
    ):
        with pytest.raises(capi.Failed, match=line) as failed:
            call(f"request_{setter}", blank, *arguments)
        assert failed.value.status == capi.INVALID
    assert json.loads(text("request_json", blank)) == {}
    other = made("latents_new", c.byref(array(values)), None, c.c_double(24))
    with pytest.raises(capi.Failed) as failed:
        made("decode", pipeline, other, None, BOTH, None)
    assert failed.value.status == capi.INVALID
    free("latents", other)
    free("latents", other)  # found out
    with pytest.raises(capi.Failed, match="does not exist"):
        made("decode", pipeline, other, None, BOTH, None)
    for paths, fields, status in (
        ([tmp_path / "missing.gguf"], {}, 1),
        (tiny_paths, {"device": "cuda7"}, capi.BACKEND),
        (tiny_paths, {"precision": 5}, capi.INVALID),
        (tiny_paths, {"offload": -1}, capi.INVALID),
        (tiny_paths, {"threads": -1}, capi.INVALID),
        (tiny_paths, {"version": 0}, capi.INVALID),
    ):
        with pytest.raises(capi.Failed) as failed:
            load(*paths, **fields)
        assert failed.value.status == status, str(failed.value)


@pytest.mark.threads
@pytest.mark.sanitize
def test_errors_belong_to_threads(pipeline):
    with pytest.raises(capi.Failed):
        made("resolve", pipeline, request(width=65))
    mine = LIBRARY.sdltx_last_error()
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(LIBRARY.sdltx_last_error()))
    thread.start()
    thread.join()
    assert theirs == [b""]
    assert b"width" in mine


@pytest.mark.threads
@pytest.mark.sanitize
def test_threads(pipeline, demo_paths, latents):
    """Two pipelines run in two threads; one in two is busy, also from within a callback."""
    other = load(*demo_paths)
    started, going_on = threading.Event(), threading.Event()
    results = []

    @capi.Progress
    def progress(*_):
        started.set()
        going_on.wait(60)
        return 0

    def run():
        video = made("decode", pipeline, latents, None, BOTH, c.byref(callbacks(progress=progress)))
        results.append(frames_of(video)[0])
        free("video", video)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)
    with pytest.raises(capi.Failed, match="another thread") as failed:
        made("encode", pipeline, b"x", None, None)
    assert failed.value.status == capi.BUSY
    video = made("decode", other, latents, None, BOTH, None)
    going_on.set()
    thread.join()
    np.testing.assert_array_equal(results[0], frames_of(video)[0])
    free("video", video)
    free("pipeline", other)


@pytest.mark.threads
def test_log(demo_paths):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import capi\n"
        "lines = []\n"
        "log = capi.Log(lambda level, line, payload: lines.append((level, payload)))\n"
        "capi.LIBRARY.sdltx_set_log(log, 9)\n"
        "p = capi.load(*sys.argv[2:])\n"
        "capi.free('context', capi.made('encode', p, b'word ' * 3000, None, None))\n"
        "capi.LIBRARY.sdltx_set_log(None, None)\n"
        "n = len(lines)\n"
        "capi.free('context', capi.made('encode', p, b'word ' * 3000, None, None))\n"
        "assert len(lines) == n and (30, 9) in lines, lines\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, demo_paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_paths_that_are_no_utf8(tiny_paths, tiny_dir, tmp_path):
    """A clip is not lost because its settings name such a file."""
    lora = tmp_path.joinpath(os.fsdecode(b"l\xe9.safetensors"))
    lora.write_bytes((tiny_dir / "tiny-lora.safetensors").read_bytes())
    pipeline = load(*tiny_paths)
    context = made("encode", pipeline, b"x", None, None)
    clip = {"width": 64, "height": 64, "num_frames": 9, "seed": 3, "num_inference_steps": 1, "preset": "distilled"}
    clip["loras"] = [(os.fsencode(lora), 0.5)]
    latents = made("sample", pipeline, context, None, request(**clip), None)
    assert "l\ufffd.safetensors" in borrowed_text("latents_settings", latents)
    video, kept = c.c_void_p(), c.c_void_p()
    call("generate", pipeline, request(prompt="x", **clip), BOTH, None, c.byref(kept), c.byref(video))
    for kind, handle in (("video", video), ("latents", kept), ("latents", latents), ("context", context)):
        free(kind, handle)
    free("pipeline", pipeline)


def test_a_context_for_the_picture_alone(tiny_paths, tiny):
    wanted = tiny.encode("a fox")
    pipeline = load(*tiny_paths, precision=1)
    context = made("context_new", c.byref(array(wanted.video)), None)
    clip = {"width": 64, "height": 64, "num_frames": 9, "seed": 3, "num_inference_steps": 2, "preset": "distilled"}
    latents = made("sample", pipeline, context, None, request(audio=0, **clip), None)
    video, audio = pair("latents", latents, None)
    np.testing.assert_array_equal(video, tiny.sample(wanted, audio=False, **clip).video)
    assert audio is None
    with pytest.raises(capi.Failed, match="for sound"):
        made("sample", pipeline, context, None, request(**clip), None)
    for kind, handle in (("latents", latents), ("context", context), ("pipeline", pipeline)):
        free(kind, handle)


@pytest.mark.sanitize
@pytest.mark.parametrize("count", [5, 62])
def test_a_wrong_count_of_upscalers(pipeline, context, tiny_dir, count):
    paths = [tiny_dir / "tiny-spatial-upscaler-x2.safetensors"] * count
    with pytest.raises(capi.Failed, match="at most 4"):
        text("resolve", pipeline, request(upscaler=paths))


def test_several_clips(pipeline, python):
    wanted = [request(prompt=prompt, **CLIP, num_inference_steps=2) for prompt in ("a red circle", "a blue square")]
    call("request_add_image", wanted[1], b"abc", c.c_int64(1), c.c_int64(1), c.c_int64(99), c.c_double(1))
    requests, videos = (c.c_void_p * 2)(*(one.value for one in wanted)), (c.c_void_p * 2)()
    statuses = (c.c_int32 * 2)(7, 7)
    with pytest.raises(capi.Failed, match="no frame 99") as failed:
        call("generate_all", pipeline, requests, c.c_size_t(2), PICTURES, None, videos, statuses)
    assert failed.value.status == capi.INVALID
    assert statuses[:] == [0, capi.INVALID]
    assert videos[1] is None
    expected = python.generate("a red circle", **CLIP, num_inference_steps=2)
    np.testing.assert_array_equal(frames_of(c.c_void_p(videos[0]))[0], expected.frames)
    assert sound_of(c.c_void_p(videos[0])) is None
    fraction, left = c.c_double(-1), c.c_double(-1)
    call("whole_progress", pipeline, c.byref(fraction), c.byref(left))
    assert (fraction.value, left.value) == (1, 0)
    free("video", c.c_void_p(videos[0]))
