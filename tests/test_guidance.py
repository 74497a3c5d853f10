"""Guidance against the reference and against its equations in NumPy; how many passes it costs, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import real_layout
from commands import computed_in, errors, read_safetensors, run, write_safetensors
from compare import assert_close
from test_transformer import contexts, inputs

import sdltx
from sdltx import _core

SMALL = {"width": 64, "height": 64, "num_frames": 9, "seed": 1}


def start(tiny, golden, name, **options):
    """A loop over the golden's noise and sigmas."""
    g, t = golden("trajectory"), golden("transformer")
    frames, height, width = (int(n) for n in t["pixel_shape"])
    f, h, w = (frames - 1) // 8 + 1, height // 32, width // 32
    positive, negative = contexts(golden), contexts(golden, "neg")
    video, audio = g[f"{name}.video_noise"], g[f"{name}.audio_noise"]
    sigmas = options.pop("sigmas", g[f"{name}.sigmas"].tolist())
    size = {"width": width, "height": height, "num_frames": frames, "frame_rate": float(t["fps"])}
    return tiny._core.sampler(
        positive["video"],
        positive["audio"],
        _core.ClipOptions(**size, sigmas=sigmas, **options),
        video_noise=video.T.reshape(-1, f, h, w),
        audio_noise=audio.reshape(len(audio), -1, 16).transpose(1, 0, 2),
        negative=(negative["video"], negative["audio"]),
    )


def golden_options(golden):
    g = golden("trajectory")
    options = {"stg_blocks": g["guided.stg_blocks"].tolist()}
    for kind, prefix in (("video", ""), ("audio", "audio_")):
        options[f"{prefix}guidance_scale"] = float(g[f"guided.{kind}_cfg_scale"])
        options[f"{prefix}stg_scale"] = float(g[f"guided.{kind}_stg_scale"])
        options[f"{prefix}modality_scale"] = float(g[f"guided.{kind}_modality_scale"])
        options[f"{prefix}guidance_rescale"] = round(float(g[f"guided.{kind}_rescale_scale"]), 6)
    return options


NEUTRAL = {
    f"{prefix}{name}": value
    for prefix in ("", "audio_")
    for name, value in (("guidance_scale", 1), ("stg_scale", 0), ("modality_scale", 1), ("guidance_rescale", 0))
}


@pytest.mark.device
def test_guided_trajectory(tiny, golden):
    """All four kinds, four passes a step."""
    g = golden("trajectory")
    loop = start(tiny, golden, "guided", **golden_options(golden))
    for i in range(loop.num_steps):
        loop.step()
        for kind in ("video", "audio"):
            got, estimate = getattr(loop, kind), getattr(loop, f"{kind}_denoised")
            # Scales multiply differences of passes, and so their errors.
            assert_close(f"{kind} x{i + 1}", got, g[f"guided.{kind}_latents"][i + 1], on_device=3e-2)
            assert_close(f"{kind} x0 {i}", estimate, g[f"guided.{kind}_denoised"][i], on_device=3e-2)


# --- against the equations ---


def passes_of(tiny, golden):
    """Estimates of the first step by each pass alone, from velocities."""
    g = golden("trajectory")
    sigma = float(g["guided.sigmas"][0])
    estimates = {}
    for name, tag, options in (
        ("plain", "pos", {}),
        ("negative", "neg", {}),
        ("perturbed video", "pos", {"skip_video_self_attn": [1]}),
        ("perturbed audio", "pos", {"skip_audio_self_attn": [1]}),
        ("isolated", "pos", {"skip_cross_modal": True}),
    ):
        video, audio, _ = inputs(golden, "t2v", tag)
        for stream, kind in ((video, "video"), (audio, "audio")):
            stream["tokens"] = g[f"guided.{kind}_latents"][0]
            stream["timesteps"] = np.full(len(stream["tokens"]), sigma, np.float32)
        velocities = tiny._core.velocity(video, audio, sigma=sigma, **options)
        for stream, kind, velocity in ((video, "video", velocities[0]), (audio, "audio", velocities[1])):
            estimates[name, kind] = stream["tokens"].astype(np.float64) - sigma * velocity
    return estimates


@pytest.fixture(scope="module")
def estimates(tiny, golden):
    return passes_of(tiny, golden)


def restated(e, kind, cfg=1.0, stg=0.0, modality=1.0, rescale=0.0, method="cfg", eta=1.0, threshold=0.0):
    plain, negative = e["plain", kind], e["negative", kind]
    delta = plain - negative
    if method == "cfg_star":
        delta = plain - negative * (np.vdot(plain, negative) / (np.vdot(negative, negative) + 1e-8))
    elif method == "apg":
        if threshold:
            delta = delta * min(1.0, threshold / np.linalg.norm(delta))
        parallel = plain * (np.vdot(delta, plain) / (np.vdot(plain, plain) + 1e-8))
        delta = eta * parallel + (delta - parallel)
    y = (
        plain
        + (cfg - 1) * delta
        + stg * (plain - e[f"perturbed {kind}", kind])
        + (modality - 1) * (plain - e["isolated", kind])
    )
    return y * (rescale * plain.std(ddof=1) / y.std(ddof=1) + 1 - rescale)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"guidance_scale": 4.0}, {"cfg": 4.0}),
        ({"stg_scale": 0.7}, {"stg": 0.7}),
        ({"modality_scale": 2.5}, {"modality": 2.5}),
        ({"guidance_scale": 3.0, "guidance_rescale": 0.5}, {"cfg": 3.0, "rescale": 0.5}),
        ({"guidance_scale": 0.0}, {"cfg": 0.0}),
        ({"guidance_scale": 4.0, "guidance_method": "cfg_star"}, {"cfg": 4.0, "method": "cfg_star"}),
        ({"guidance_scale": 4.0, "guidance_method": "apg"}, {"cfg": 4.0, "method": "apg"}),
        (
            {"guidance_scale": 4.0, "guidance_method": "apg", "apg_eta": 0.2, "apg_threshold": 1.5},
            {"cfg": 4.0, "method": "apg", "eta": 0.2, "threshold": 1.5},
        ),
    ],
)
@pytest.mark.parametrize("guided", ["video", "audio"])
def test_each_kind_for_each_stream_apart(tiny, golden, estimates, options, terms, guided):
    """The other stream is not guided, though the passes are run."""
    prefix = "audio_" if guided == "audio" else ""
    shared = ("guidance_method", "apg_eta", "apg_threshold")
    given = {(name if name in shared else prefix + name): value for name, value in options.items()}
    loop = start(tiny, golden, "guided", **{**NEUTRAL, **given, "stg_blocks": [1]})
    loop.step()
    for kind in ("video", "audio"):
        expected = restated(estimates, kind, **(terms if kind == guided else {}))
        assert_close(kind, getattr(loop, f"{kind}_denoised"), expected)


def test_apg_without_change_is_cfg(tiny, golden):
    results = []
    for method in ("cfg", "apg"):
        loop = start(tiny, golden, "guided", **{**NEUTRAL, "guidance_scale": 5, "guidance_method": method})
        loop.step()
        results.append(loop.video_denoised)
    assert_close("apg", results[1], results[0], 1e-6)


# --- how many passes ---


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 1),
        ({"guidance_scale": 3}, 2),
        ({"audio_guidance_scale": 3}, 2),
        ({"stg_scale": 1}, 2),
        ({"modality_scale": 2}, 2),
        ({"guidance_scale": 3, "audio_guidance_scale": 7, "stg_scale": 1}, 3),
        ({"guidance_scale": 3, "stg_scale": 1, "audio_modality_scale": 3}, 4),
        ({"guidance_rescale": 0.7}, 1),
    ],
)
def test_passes_are_told_and_run(tiny, options, passes):
    """Counted in the first block: only passes that count are run."""
    options = {**SMALL, **NEUTRAL, **options}
    assert tiny.resolve(**options)["passes"] == passes
    context = tiny.encode("a red ball")
    with tiny.trace("transformer_blocks.0.ff"):
        tiny.sample(context, negative=context, num_inference_steps=2, **options)
        assert tiny._core.traced_runs() == {"transformer_blocks.0.ff": 2 * passes}


def test_a_step_outside_the_interval_is_a_plain_one(tiny, golden):
    plain = start(tiny, golden, "guided", **NEUTRAL)
    inside = start(tiny, golden, "guided", **golden_options(golden))
    outside = start(tiny, golden, "guided", **golden_options(golden), guidance_interval=[0.0, 0.9])
    for loop in (plain, inside, outside):
        loop.step()
    assert np.array_equal(plain.video, outside.video)
    assert not np.array_equal(plain.video, inside.video)
    outside.step()
    plain.step()
    assert not np.array_equal(plain.video, outside.video)


def test_skipped_steps_use_the_last_estimate(tiny, golden):
    both = {"guidance_skip_steps": 1, "audio_guidance_skip_steps": 1}
    loop = start(tiny, golden, "guided", **golden_options(golden), **both)
    loop.step()
    first = loop.video_denoised, loop.audio_denoised
    loop.step()
    assert np.array_equal(loop.video_denoised, first[0])
    assert np.array_equal(loop.audio_denoised, first[1])
    loop.step()
    assert not np.array_equal(loop.video_denoised, first[0])


@pytest.mark.parametrize(("name", "skip"), [("skip_video", (1, 0)), ("skip_audio", (0, 2)), ("skip_both", (1, 1))])
def test_skipping_as_the_reference_does(tiny, golden, name, skip):
    """A stream that skips alone stands still, and the other goes on looking at it."""
    options = {"guidance_skip_steps": skip[0], "audio_guidance_skip_steps": skip[1]}
    loop = start(tiny, golden, "guided", **golden_options(golden), **options)
    for i in range(loop.num_steps):
        loop.step()
        for kind in ("video", "audio"):
            assert_close(f"{kind} x{i + 1}", getattr(loop, kind), golden("skip_steps")[f"{name}.{kind}_latents"][i + 1])


def test_memory_of_four_passes(tmp_path):
    """Only the hidden states multiply, the negative prompt is another context, and the keys and values that three
    passes share stay from one to the next. At the widths of the release."""
    path = real_layout.write_checkpoint(tmp_path / "ltx-dev.safetensors", lambda name: name.startswith(real_layout.DIT))
    with sdltx.load(path) as pipe:
        for width, height, num_frames in ((768, 512, 121), (1280, 704, 121)):
            size = {"width": width, "height": height, "num_frames": num_frames}
            one, four = (computed_in(pipe.estimate(**size, **more), "denoise") for more in (NEUTRAL, {}))
            tokens = 16 * height * width // 1024
            states = 3 * 4 * (tokens * 4096 + 126 * 2048) + (1 + 2) * 4 * 1024 * (4096 + 2048)
            print(f"{width}x{height}x{num_frames}: {four / 2**30:.2f} GiB for {one / 2**30:.2f}, {four / one:.2f}")
            assert four - one < 1.02 * states
            assert four < 1.42 * one


# --- defaults and errors ---


def test_the_default_negative_prompt_is_encoded_when_it_is_needed(tiny):
    context = tiny.encode("a red ball")
    negative = tiny.encode(sdltx.default_negative_prompt)
    options = {**SMALL, "num_inference_steps": 2, **NEUTRAL, "guidance_scale": 3}
    seen = []
    given = tiny.sample(context, negative=negative, **options)
    default = tiny.sample(context, **options, progress=lambda *e: seen.append(e[0]))
    assert np.array_equal(given.video, default.video)
    assert given.settings["negative_prompt"] == default.settings["negative_prompt"] == sdltx.default_negative_prompt
    assert tiny.sample(context, **{**options, "guidance_scale": 1}).settings["negative_prompt"] is None
    other = tiny.generate("a red ball", negative_prompt="blue", **options)
    assert other.metadata["negative_prompt"] == "blue"


def test_a_model_may_have_a_negative_prompt_and_scales_of_its_own(tiny, tiny_paths, tmp_path):
    header, blob = read_safetensors(tiny_paths[0])
    asked = {"negative_prompt": "grey", "guidance_scale": 2.5, "audio_guidance_scale": 1, "steps": 2}
    header["__metadata__"]["sdltx.defaults"] = json.dumps(asked)
    changed = write_safetensors(tmp_path / "x.safetensors", header, blob)
    with sdltx.load(changed, tiny_paths[1], precision="f32") as pipe:
        assert pipe.info["negative_prompt"] == "grey"
        got = pipe.sample(pipe.encode("a red ball"), **SMALL)
    settings = {"guidance_scale": 2.5, "audio_guidance_scale": 1, "num_inference_steps": 2}
    assert got.settings["negative_prompt"] == "grey"
    assert {name: got.settings[name] for name in settings} == settings
    want = tiny.sample(tiny.encode("a red ball"), negative=tiny.encode("grey"), **{**SMALL, **NEUTRAL, **settings})
    assert tiny.info["negative_prompt"] == sdltx.default_negative_prompt
    np.testing.assert_array_equal(got.video, want.video)


def test_guidance_without_a_text_encoder(tiny_paths, tiny):
    context = tiny.encode("a red ball")
    with sdltx.load(tiny_paths[0]) as pipe:
        with pytest.raises(sdltx.ModelMismatchError, match="guidance needs the context of a negative prompt"):
            pipe.sample(context, **SMALL, num_inference_steps=1, guidance_scale=3)
        pipe.sample(context, negative=context, **SMALL, num_inference_steps=1, guidance_scale=3)
        pipe.sample(context, **SMALL, num_inference_steps=1, **NEUTRAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": -1}, r"guidance_scale -1 is out of range; use 0 to 100"),
        ({"audio_guidance_scale": float("nan")}, "audio_guidance_scale nan is out of range"),
        ({"stg_scale": float("inf")}, "stg_scale inf is out of range"),
        ({"modality_scale": -0.5}, "modality_scale -0.5 is out of range"),
        ({"guidance_rescale": 1.5}, "guidance_rescale 1.5 is out of range; use 0 to 1"),
        ({"guidance_skip_steps": -1}, "guidance_skip_steps -1 is out of range"),
        ({"stg_blocks": [-1]}, "stg_blocks -1 is out of range; use 0 to"),
        ({"stg_blocks": "28"}, "stg_blocks"),
        ({"stg_blocks": [0.5]}, "stg_blocks"),
        ({"guidance_interval": [0.9, 0.1]}, "guidance_interval must be two noise levels"),
        ({"guidance_interval": [0.5]}, "guidance_interval must be two noise levels"),
        ({"guidance_method": "best"}, "there is no guidance method 'best'; use one of cfg, cfg_star, apg"),
        ({"sampler": "dpm"}, "there is no sampler 'dpm'; use one of euler"),
        ({"apg_threshold": -1}, "apg_threshold -1 is out of range"),
        ({"guidance_scale": "high"}, "guidance_scale"),
    ],
)
def test_bad_values_are_refused_before_a_model_is_loaded(options, message):
    from sdltx import pipeline

    with pytest.raises(sdltx.InvalidRequestError, match=message):
        pipeline.check(**options)


def test_blocks_that_the_model_does_not_have(tiny):
    with pytest.raises(sdltx.InvalidRequestError, match="stg_blocks holds 3; the model has blocks 0 to 2"):
        tiny.resolve(stg_blocks=[3])


@pytest.mark.by_day(1)
def test_on_the_command_line(tmp_path):
    done = run("generate", "-p", "x", "--guidance-scale", "-3", "--dry-run")
    assert (done.returncode, len(errors(done))) == (2, 1)
    assert "guidance_scale -3 is out of range" in done.stderr
    options = ["--cfg-scale", "3", "--stg-scale", "1", "--stg-blocks", "1", "-n", "a blue square"]
    done = run("generate", "-p", "x", *options, "--dry-run")
    assert "guide   picture cfg 3, stg 1, modality 1, rescale 0; sound cfg 1" in done.stdout
    assert "3 passes a step" in done.stdout
    size = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "2", "-s", "1"]
    first, again = tmp_path / "a.mp4", tmp_path / "b.mp4"
    done = run("generate", "-p", "a red circle", *options, *size, "-o", first)
    assert done.returncode == 0, done.stderr
    assert "3 passes a step" in done.stderr
    done = run("generate", "--from", first, "-o", again)
    assert done.returncode == 0, done.stderr
    from sdltx.media import read_settings

    one, two = read_settings(first), read_settings(again)
    assert one == two
    assert (one["negative_prompt"], one["guidance_scale"], one["stg_blocks"]) == ("a blue square", 3, [1])
    assert first.read_bytes() == again.read_bytes()
    done = run("generate", "-p", "x", "-n", "y", *size, "--guidance-scale", "1", "-o", tmp_path / "c.mp4")
    assert "the negative prompt has no effect" in done.stderr


# --- presets ---


def test_presets_are_those_of_the_specification(tiny):
    """cfg, stg, modality and rescale of picture and sound, steps, schedule, sampler."""
    keys = [
        f"{prefix}{name}" for prefix in ("", "audio_") for name in ("guidance_scale", "stg_scale", "modality_scale")
    ]
    keys += ["guidance_rescale", "audio_guidance_rescale", "num_inference_steps", "schedule", "sampler"]
    table = {preset["name"]: [preset[key] for key in keys] for preset in tiny.presets}
    assert table == {
        "distilled-2.5": [1, 0, 1, 1, 0, 1, 0, 0, 8, "distilled", "euler_ancestral"],
        "distilled": [1, 0, 1, 1, 0, 1, 0, 0, 8, "distilled", "euler"],
        "dev-2.0": [3, 1, 3, 7, 1, 3, 0.7, 0.7, 40, "ltx2", "euler"],
        "dev": [3, 1, 3, 7, 1, 3, 0.7, 0.7, 30, "ltx2", "euler"],
        "hq": [3, 0, 3, 7, 0, 3, 0.45, 1.0, 15, "ltx2", "res_2s"],
    }


def test_what_a_preset_becomes(tiny, tmp_path):
    dev = tiny.resolve()
    assert (dev["preset"], dev["passes"], dev["stg_blocks"]) == ("dev", 4, [1])  # 28 of 48 blocks, here of three
    hq = tiny.resolve(preset="hq", width=768, height=512, num_frames=121)
    assert (hq["passes"], hq["sampler"]) == (3, "res_2s")
    assert hq["sigmas"] == _core.ltx2_sigmas(15, tokens=16 * 16 * 24)
    assert tiny.resolve(preset="distilled")["passes"] == 1
    path = real_layout.write_checkpoint(tmp_path / "ltx-2.3-dev.safetensors", lambda n: n.startswith(real_layout.DIT))
    with sdltx.load(path) as pipe:
        assert pipe.resolve()["stg_blocks"] == [28]
    of_2_0 = tmp_path / "ltx-2-19b-dev.safetensors"
    real_layout.write_checkpoint(of_2_0, lambda n: n.startswith(real_layout.DIT), model="ltx-2.0-19b")
    with sdltx.load(of_2_0) as pipe:
        resolved = pipe.resolve()
        assert (resolved["preset"], resolved["stg_blocks"], resolved["num_inference_steps"]) == ("dev-2.0", [29], 40)


@pytest.mark.parametrize(
    ("name", "options", "doubt"),
    [
        ("distilled", {"guidance_scale": 3}, "a distilled checkpoint needs no CFG"),
        ("distilled", {"num_inference_steps": 20}, "was made for 8 steps of its own"),
        ("distilled", {"sigmas": _core.distilled_stage_2_sigmas()}, "these sigmas refine an upscaled clip"),
        ("distilled", {}, None),
        ("dev", NEUTRAL, "gives poor pictures without guidance"),
        ("dev", {}, None),
        ("model", {}, "nothing tells whether this checkpoint is distilled"),
        ("model", {"preset": "distilled"}, None),
    ],
)
def test_what_is_probably_not_meant(tmp_path, tiny_paths, name, options, doubt):
    path = tmp_path / f"ltx-2.3-{name}.safetensors"
    path.symlink_to(tiny_paths[0])
    with sdltx.load(path, tiny_paths[1]) as pipe:
        lines = pipe.doubts(**SMALL, **options)
    assert len(lines) == (doubt is not None)
    assert doubt is None or doubt in lines[0]


def test_the_built_in_model_is_guided_away_from_nothing_said(demo):
    assert demo.resolve()["passes"] == 2
    assert demo.info["negative_prompt"] == ""
    assert not demo.doubts()
