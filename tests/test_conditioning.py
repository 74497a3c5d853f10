"""Given sound, spans, masks and references against the reference: every array of conditioning.npz."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compare import assert_close
from reference_runs import contexts

import sdltx
from sdltx import _core

pytestmark = [pytest.mark.sanitize, pytest.mark.device]
GUIDANCE = ("guidance_scale", "stg_scale", "guidance_rescale", "modality_scale")
NEUTRAL = (1.0, 0.0, 0.0, 1.0)
BINS = 16


def tokens(latent: np.ndarray) -> np.ndarray:
    """Video (C, F, H, W) or sound (C, T, mel) as the transformer sees it."""
    if latent.ndim == 4:
        return latent.reshape(len(latent), -1).T
    return latent.transpose(1, 0, 2).reshape(latent.shape[1], -1)


class Case:
    """A run of the reference, and what it was told."""

    def __init__(self, golden: Any, name: str) -> None:
        self.all = golden("conditioning")
        self.text = golden("text")
        self.name, self.group = name, name.split(".", maxsplit=1)[0]
        self.frames, self.height, self.width = (int(n) for n in self.of_group("pixel_shape"))
        self.fps = float(self.of_group("fps"))

    def of_group(self, name: str) -> np.ndarray:
        return self.all.get(f"{self.name}.{name}", self.all.get(f"{self.group}.{name}"))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.all[f"{self.name}.{name}"]

    def __contains__(self, name: str) -> bool:
        return f"{self.name}.{name}" in self.all

    def sampler(self, pipe: sdltx.Pipeline, *, half: bool = False, loras: Any = (), **streams: Any) -> _core.Sampler:
        """Its loop; video and audio: what is given of the streams, None: it is not there."""
        positive, negative = contexts(self.text), contexts(self.text, "neg")
        options: dict[str, Any] = {}
        guided = not self.name.endswith((".distilled", ".second"))
        for kind, prefix in (("video", ""), ("audio", "audio_")):
            scales = self.of_group(f"{kind}_guidance") if guided else None
            for option, value in zip(GUIDANCE, NEUTRAL if scales is None else scales.tolist(), strict=True):
                options[prefix + option] = value
        if self.of_group("stg_blocks") is not None:
            options["stg_blocks"] = self.of_group("stg_blocks").tolist()

        def draw(video: bool, step: int, _kind: int, count: int) -> np.ndarray:
            assert step == -1
            noise = self["video_noise" if video else "audio_noise"]
            assert noise.size == count, (noise.shape, count)
            return noise.ravel()

        scale = 2 if half else 1
        return pipe._core.sampler(
            positive["video"],
            positive["audio"],
            _core.ClipOptions(
                width=self.width // scale,
                height=self.height // scale,
                num_frames=self.frames,
                frame_rate=self.fps,
                sigmas=self["sigmas"].tolist(),
                preset="distilled",
                video=streams.get("video", {}) is not None,
                **options,
            ),
            negative=(negative["video"], negative["audio"]),
            step_noise=draw,
            video=streams.get("video") or {},
            audio=streams.get("audio") or {},
            loras=list(loras),
        )

    def check(self, loop: _core.Sampler) -> None:
        """Compares the state at the start, and latents and estimates of every step."""
        frozen = {}
        for i, kind in enumerate(("video", "audio")):
            told = loop.state[i]
            for name in ("mask", "clean", "positions"):
                if f"{kind}_{name}" in self:
                    expected = self[f"{kind}_{name}"].reshape(told[name].shape)
                    assert np.abs(told[name] - expected).max() <= 1e-6, (kind, name)
            if f"{kind}_attention_mask" in self:
                assert np.abs(np.exp(np.array(told["bias"])) - self[f"{kind}_attention_mask"]).max() <= 1e-6
            else:
                assert not told["bias"]
            if f"{kind}_latents" not in self:
                frozen[kind] = getattr(loop, kind)
        for step in range(loop.num_steps + 1):
            for kind in ("video", "audio"):
                if f"{kind}_latents" in self:
                    assert_close(f"{kind} x{step}", getattr(loop, kind), self[f"{kind}_latents"][step])
                if step and f"{kind}_denoised" in self:
                    assert_close(
                        f"{kind} x0 {step}", getattr(loop, f"{kind}_denoised"), self[f"{kind}_denoised"][step - 1]
                    )
            if step < loop.num_steps:
                loop.step()
        for kind, before in frozen.items():
            assert np.array_equal(getattr(loop, kind), before), f"{kind} was given and changed"


@pytest.fixture(scope="module")
def on_worker(tiny_paths, workers):
    with sdltx.load(*tiny_paths, device=workers[0], precision="f32") as pipe:
        yield pipe


@pytest.fixture
def lora(tiny_dir):
    return [(str(tiny_dir / "tiny-lora.safetensors"), 1.0)]


def held(latent):
    return {"initial": latent, "frozen": True}


@pytest.mark.parametrize("run", ["distilled", "guided"])
def test_given_sound(tiny, golden, run):
    case = Case(golden, f"a2v.{run}")
    case.check(case.sampler(tiny, audio=held(case.all["a2v.audio_latent"])))


def test_what_the_model_is_told_of_given_sound(tiny, golden):
    """One call: sound that is given counts as clean in everything that follows the noise level."""
    case = Case(golden, "a2v.forward")
    frames, context = (case.frames - 1) // 8 + 1, contexts(case.text)
    cells = (frames, case.height // 32, case.width // 32)
    streams = {}
    for kind, values, positions in (
        ("video", case["video_latent"], _core.video_positions(*cells, case.fps)),
        ("audio", tokens(case.all["a2v.audio_latent"]), _core.audio_positions(case.all["a2v.audio_latent"].shape[1])),
    ):
        streams[kind] = {
            "tokens": values,
            "timesteps": case[f"{kind}_timesteps"].ravel(),
            "positions": positions,
            "context": context[kind],
            "sigma": float(case[f"{kind}_sigma"][0]),
        }
    with tiny.trace("*adaln_single") as traced:
        video, audio = tiny._core.velocity(streams["video"], streams["audio"], sigma=float(case["sigma"]))
    assert_close("video", video, case["video_velocity"])
    assert_close("audio", audio, case["audio_velocity"])
    for kind, prefix, gate in (("video", "", "a2v"), ("audio", "audio_", "v2a")):
        for name, stage in (
            ("adaln", f"{prefix}adaln_single"),
            ("prompt_adaln", f"{prefix}prompt_adaln_single"),
            ("av_scale_shift", f"av_ca_{kind}_scale_shift_adaln_single"),
            ("av_gate", f"av_ca_{gate}_gate_adaln_single"),
        ):
            assert_close(stage, traced[stage].reshape(1, -1), case[f"{kind}_{name}"])


def test_given_sound_in_two_stages(tiny, golden, lora):
    first, second = Case(golden, "a2v_two_stage.first"), Case(golden, "a2v_two_stage.second")
    strength = float(first.all["a2v_two_stage.image_strength"])
    sound = held(first.all["a2v_two_stage.audio_latent"])
    start = first.all["a2v_two_stage.upscaled_latent"]
    first.check(
        first.sampler(tiny, half=True, video={"keyframes": [(first["image_latent"], 0, strength)]}, audio=sound)
    )
    loop = second.sampler(
        tiny,
        video={"initial": start, "keyframes": [(second["image_latent"], 0, strength)]},
        audio=sound,
        loras=lora,
    )
    second.check(loop)
    assert_close("result", loop.video, tokens(second.all["a2v_two_stage.video_latent"]))


def retake(case, what=("video", "audio")):
    """The streams of a retake, each taken again where the times lie or held."""
    video, audio = case.all["retake.video_source"], case.all["retake.audio_source"]
    start, end = (round(float(t), 4) for t in case.all["retake.time"])
    cells = video.shape[1:]
    free = {
        "video": np.array(_core.within(_core.video_positions(*cells, case.fps), start, end)).reshape(cells),
        "audio": np.array(_core.within(_core.audio_positions(audio.shape[1]), start, end)),
    }
    streams = {}
    for kind, source in (("video", video), ("audio", audio)):
        streams[kind] = (
            {"initial": source, "kept": [(source, 0, 1.0, 1 - free[kind])]} if kind in what else held(source)
        )
    return streams


@pytest.mark.parametrize("run", ["both", "video_only", "audio_only", "guided", "silent"])
def test_retake(tiny, golden, run):
    case = Case(golden, f"retake.{run}")
    what = (run.removesuffix("_only"),) if run.endswith("_only") else ("video", "audio")
    streams = retake(case, what)
    if run == "silent":
        streams["audio"] = {}
    case.check(case.sampler(tiny, **streams))


def test_edges_of_a_retake(golden):
    g = golden("conditioning")
    frames = int(g["retake.edges.pixel_shape"][0])
    fps = float(g["retake.fps"])
    video = _core.video_positions((frames - 1) // 8 + 1, 1, 1, fps)
    audio = _core.audio_positions(round(frames / fps * 25))
    for (start, end), of_video, of_audio in zip(
        g["retake.edges.times"], g["retake.edges.video_masks"], g["retake.edges.audio_masks"], strict=True
    ):
        assert np.array_equal(_core.within(video, start, end), of_video), (start, end)
        assert np.array_equal(_core.within(audio, start, end), of_audio), (start, end)


@pytest.mark.parametrize("run", ["forward", "backward", "soft"])
def test_extend(tiny, golden, run):
    case = Case(golden, f"extend.{run}")
    video, audio = case.all["extend.video_given"], case.all["extend.audio_given"]
    at_end = run == "backward"
    frames, sound = (case.frames - 1) // 8 + 1, len(case["audio_noise"])
    kept = [(video, frames - video.shape[1] if at_end else 0, 1.0, None)]
    if run == "soft":
        kept = [(video[:, :1], 0, 1.0, None), (video[:, 1:], 1, 0.5, None)]
    case.check(
        case.sampler(
            tiny, video={"kept": kept}, audio={"kept": [(audio, sound - audio.shape[1] if at_end else 0, 1.0, None)]}
        )
    )


def test_mask_in_space(tiny, golden):
    case = Case(golden, "inpaint")
    case.check(
        case.sampler(tiny, video={"kept": [(case.all["inpaint.video_given"], 0, 1.0, case.all["inpaint.keep_mask"])]})
    )


@pytest.mark.parametrize("run", ["one", "downscaled", "soft", "slow", "mask", "unmasked_after_mask", "guided"])
def test_references(tiny, golden, lora, run):
    case = Case(golden, f"ref.{run}")
    full, half, slow, image, key = (case.all[f"ref.{n}_latent"] for n in ("full", "half", "slow", "image", "keyframe"))
    strength, factor = float(case.all["ref.mask.strength"]), int(case.all["ref.slow_factor"])
    scalar = np.full(half[0].size, strength).tolist()
    masked = (case.all["ref.mask.tokens"] * strength).tolist()
    video: dict[str, Any] = {
        "one": {"references": [(full, 1, 1, 1.0, None)]},
        "downscaled": {"keyframes": [(image, 0, 1.0)], "references": [(half, 2, 1, 1.0, None)]},
        "soft": {"references": [(half, 2, 1, float(case.all["ref.soft_strength"]), None)]},
        "slow": {"references": [(slow, 1, factor, 1.0, None)]},
        "mask": {
            "keyframes": [(key, 9, 1.0)],
            "references": [(full, 1, 1, 1.0, masked), (half, 2, 1, 1.0, scalar)],
        },
        "unmasked_after_mask": {"references": [(half, 2, 1, 1.0, scalar), (full, 1, 1, 1.0, None)]},
        "guided": {"keyframes": [(key, 9, 0.9)]},
    }[run]
    case.check(case.sampler(tiny, video=video, loras=lora))


def test_reference_in_two_stages(tiny, golden, lora):
    first, second = Case(golden, "ic_lora.first"), Case(golden, "ic_lora.second")
    reference = first.all["ic_lora.reference_latent"]
    loop = first.sampler(tiny, half=True, video={"references": [(reference, 2, 1, 1.0, None)]}, loras=lora)
    first.check(loop)
    sound = loop.audio.reshape(len(loop.audio), -1, BINS).transpose(1, 0, 2)
    loop = second.sampler(tiny, video={"initial": second.all["ic_lora.upscaled_latent"]}, audio={"initial": sound})
    second.check(loop)
    assert_close("video", loop.video, tokens(second.all["ic_lora.video_latent"]))
    assert_close("sound", loop.audio, tokens(second.all["ic_lora.audio_latent"]))


def test_dub(tiny, golden, lora):
    first, second = Case(golden, "dub.first"), Case(golden, "dub.second")
    reference, sound = first.all["dub.video_reference"], first.all["dub.audio_reference"]
    follow = [(reference, 1, 1, 1.0, None)]
    loop = first.sampler(tiny, video={"references": follow}, audio={"sound_before": sound}, loras=lora)
    first.check(loop)
    length = round(first.frames / first.fps * 25)
    assert_close("sound", loop.audio[:length], second["audio_clean"][:length])
    made = second["audio_clean"][:length].reshape(length, -1, BINS).transpose(1, 0, 2)
    loop = second.sampler(
        tiny,
        video={"initial": second.all["dub.second.video_start"], "references": follow},
        audio={**held(made), "sound_before": made},
        loras=lora,
    )
    second.check(loop)


@pytest.mark.parametrize("run", ["", ".distilled"])
def test_sound_alone(tiny, golden, run):
    case = Case(golden, f"t2a{run}")
    loop = case.sampler(tiny, video=None)
    case.check(loop)
    assert loop.video.size == 0
    if not run:
        assert_close("sound", loop.audio, tokens(case.all["t2a.audio_latent"]))


def test_sound_for_pictures(tiny, golden):
    case = Case(golden, "v2a")
    case.check(case.sampler(tiny, video=held(case.all["v2a.video_source"])))


def test_on_a_worker(on_worker, golden, lora):
    """Groups as a mask, runs of tokens by plain operations."""
    test_references(on_worker, golden, lora, "mask")
    test_mask_in_space(on_worker, golden)
    test_given_sound(on_worker, golden, "distilled")
    test_extend(on_worker, golden, "forward")
    test_sound_alone(on_worker, golden, ".distilled")
