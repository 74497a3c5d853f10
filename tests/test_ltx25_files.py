"""LTX-2.5: files as they come, how long clips are, and where new options meet old ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoded
import numpy as np
import pytest
from commands import read_safetensors, run, write_safetensors
from compare import assert_close
from ltx25 import (  # noqa: F401
    FOLDER,
    PARTS_OF_A_CLIP,
    VARIANT,
    file,
    golden,
    pipe,
    prompts,
    rewritten,
    velocity,
)

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize


# --- files ---


def renamed(header: dict[str, Any], to: Callable[[str], str]) -> None:
    for name in list(header):
        if name != "__metadata__":
            header[to(name)] = header.pop(name)


def changed_encoder(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    return rewritten(file("text_encoder"), tmp_path / "encoder.safetensors", change)


def config_of_gemma(header: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(header["__metadata__"]["gemma_config"])
    change(config)
    header["__metadata__"]["gemma_config"] = json.dumps(config)


def test_the_other_spelling_and_a_tokenizer_of_signed_bytes(pipe, tmp_path, prompts):
    """As transformers names the tower, and as ComfyUI stores the tokenizer."""

    def change(header):
        renamed(header, lambda name: name.replace("model.", "model.language_model.", 1))
        header["tokenizer_json"]["dtype"] = "I8"

    with sdltx.load(file("transformer"), changed_encoder(tmp_path, change), precision="f32") as other:
        assert np.array_equal(other.encode(prompts["pos"]).video, pipe.encode(prompts["pos"]).video)
        assert all(
            name.startswith(("vision_model.", "multi_modal_projector.", "audio_projector.", "hf_asset__"))
            for name in other._core.unused_tensors()
        )


def test_sound_without_biases_of_its_feed_forward_layers(pipe, golden, tmp_path):
    """They are found where they are: none gives what zeros give."""
    block = "model.diffusion_model.transformer_blocks"
    names = [f"{block}.{i}.audio_ff.net.{n}.bias" for i in range(VARIANT["layers"]) for n in ("0.proj", "2")]
    header, values = read_safetensors(file("transformer"))
    zeros = bytearray(values)
    for name in names:
        begin, end = header[name]["data_offsets"]
        zeros[begin:end] = bytes(end - begin)
    with_zeros = write_safetensors(tmp_path / "zeros.safetensors", header, bytes(zeros))
    without = rewritten(file("transformer"), tmp_path / "none.safetensors", lambda h: [h.pop(name) for name in names])
    with sdltx.load(with_zeros, precision="f32") as one, sdltx.load(without, precision="f32") as other:
        for a, b in zip(velocity(one, golden, "t2v"), velocity(other, golden, "t2v"), strict=True):
            assert np.array_equal(a, b)
        assert not np.allclose(a, velocity(pipe, golden, "t2v")[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("model.layers.1.layer_scalar"), "1 of 6 layers of Gemma 4 lack 'layer_scalar'"),
        (
            lambda h: config_of_gemma(h, lambda c: c.update(gemma_version="gemma4-12b-ltx-v2")),
            "the text encoder is gemma4-12b-ltx-v2, and .* was trained with gemma4-tiny-ltx-v1",
        ),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"].update(hidden_size_per_layer_input=256)),
            "the text encoder is Gemma 4 E2B or E4B",
        ),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"].update(enable_moe_block=True)),
            "the text encoder is Gemma 4 26B-A4B",
        ),
        (lambda h: config_of_gemma(h, lambda c: c.update(model_type="gemma4")), "a Gemma 4 of another kind"),
        (lambda h: h.pop("tokenizer_json"), "came without its tokenizer"),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"]["layer_types"].pop()),
            "contradicts itself",
        ),
        (lambda h: h["__metadata__"].pop("gemma_config"), "a Gemma 4 of another size, without a configuration"),
    ],
)
def test_encoders_that_are_refused(tmp_path, change, message):
    broken = changed_encoder(tmp_path, change)
    with pytest.raises((sdltx.ModelMismatchError, sdltx.ModelFileError), match=message):
        sdltx.load(file("transformer"), broken)


def test_an_encoder_that_does_not_tell_its_training(tmp_path, caplog):
    silent = changed_encoder(tmp_path, lambda h: config_of_gemma(h, lambda c: c.pop("gemma_version")))
    sdltx.load(file("transformer"), silent).close()
    assert "does not say which training of Gemma 4 it is" in caplog.text


def test_a_transformer_without_its_marker(golden, tmp_path, caplog):
    """Early copies lack it: as with one of zeros, and it is told."""
    name = "model.diffusion_model.keyframes_abs_pos_embedding"
    path = rewritten(file("transformer"), tmp_path / "t.safetensors", lambda h: h.pop(name))
    g = golden("transformer")
    with sdltx.load(path, precision="f32") as early:
        assert "lacks keyframes_abs_pos_embedding" in caplog.text
        for kind, got in zip(("video", "audio"), velocity(early, golden, "t2v"), strict=True):
            assert_close(kind, got, g[f"no_marker.{kind}_velocity"])


def test_a_marker_without_its_axis_of_one(pipe, golden, tmp_path):
    def change(header):
        header["model.diffusion_model.keyframes_abs_pos_embedding"]["shape"].pop(0)

    path = rewritten(file("transformer"), tmp_path / "t.safetensors", change)
    with sdltx.load(path, precision="f32") as other:
        for a, b in zip(velocity(other, golden, "t2v"), velocity(pipe, golden, "t2v"), strict=True):
            assert np.array_equal(a, b)


# --- quantised releases ---


def decoded(source: Path, meant: dict[str, np.ndarray], to: Path) -> Path:
    """A copy with these values, in float32."""
    header, values = read_safetensors(source)
    metadata, blob, out = header.pop("__metadata__"), b"", {}
    for name, told in header.items():
        begin, end = told["data_offsets"]
        raw = meant[name].astype(np.float32).tobytes() if name in meant else values[begin:end]
        dtype = "F32" if name in meant else told["dtype"]
        out[name] = {"dtype": dtype, "shape": told["shape"], "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    write_safetensors(to, {"__metadata__": metadata, **out}, blob)
    return to


@pytest.mark.parametrize(("kind", "more"), [("int8_tensorwise", {"rotation": 16}), ("nvfp4", {})])
def test_quantised_releases(golden, tmp_path, kind, more, prompts):
    """All linear layers of blocks and tower, as the release quantises them, against the values that they stand for."""
    paths: dict[str, list[Path]] = {"quantised": [], "decoded": []}
    # By the names under which the values of weights are read.
    encoder = changed_encoder(
        tmp_path, lambda h: renamed(h, lambda name: name.replace("model.", "language_model.model.", 1))
    )
    for source, within in ((file("transformer"), "transformer_blocks."), (encoder, "model.layers.")):
        part = within.split(".")[0]
        meant = encoded.write(
            tmp_path / f"{part}.safetensors",
            str(source),
            kind,
            lambda name, shape, within=within: (
                within in name
                and name.endswith(".weight")
                and len(shape) == 2
                and shape[0] >= 16
                and shape[1] % 16 == 0
            ),
            **more,
        )
        assert len(meant) > 30
        paths["quantised"].append(tmp_path / f"{part}.safetensors")
        paths["decoded"].append(decoded(source, meant, tmp_path / f"{part}-decoded.safetensors"))
    with (
        sdltx.load(*paths["quantised"], precision="f32") as one,
        sdltx.load(*paths["decoded"], precision="f32") as other,
    ):
        assert_close("context", one.encode(prompts["pos"]).video, other.encode(prompts["pos"]).video)
        for got, expected in zip(velocity(one, golden, "t2v"), velocity(other, golden, "t2v"), strict=True):
            assert_close("velocity", got, expected)
    assert not sdltx.inspect(*paths["quantised"]).problems


# --- how long ---


@pytest.mark.device
def test_duration_head(golden, prompts):
    g = golden("duration")
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        with pipe.trace("duration_head.*") as traced:
            got = pipe._core.duration((g["video_tokens"], g["audio_tokens"]))
        assert_close("pooled", traced["duration_head.attention_pooler"].reshape(g["pooled"].shape), g["pooled"])
        assert_close("hidden", traced["duration_head.mlp_hidden"].reshape(-1), g["hidden"])
        assert_close("seconds", np.array([got]), g["seconds"])
        nothing = np.zeros((0, 0), np.float32)
        assert_close(
            "video only", np.array([pipe._core.duration((g["video_tokens"], nothing))]), g["seconds_video_only"]
        )
        assert_close(
            "audio only", np.array([pipe._core.duration((nothing, g["audio_tokens"]))]), g["seconds_audio_only"]
        )
        for tag in ("pos", "empty"):
            assert_close(tag, np.array([pipe.duration(pipe.encode(prompts[tag]))]), g[f"{tag}.seconds"])


def test_frames_of_a_duration(golden):
    for seconds, rate, frames in golden("duration")["frames.table"]:
        assert _core.frames_of_duration(float(f"{seconds:.7g}"), float(f"{rate:.6g}")) == frames, (seconds, rate)


SMALL = {"width": 64, "height": 64, "frame_rate": 8.0, "num_inference_steps": 1}


def test_clips_as_long_as_their_prompts_ask_for(prompts):
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        context = pipe.encode(prompts["pos"])
        frames = _core.frames_of_duration(pipe.duration(context), 8.0)
        latents = pipe.sample(context, **SMALL, duration="auto", seed=3)
        assert latents.settings["num_frames"] == frames == 25
        assert "duration" not in latents.settings
        same = pipe.sample(context, **SMALL, num_frames=frames, seed=3)
        assert np.array_equal(latents.video, same.video)
        one = pipe.sample(context, **SMALL, duration="auto")
        assert np.array_equal(one.video, pipe.sample(context, **SMALL, num_frames=frames, seed=one.seed).video)
        clip = pipe.generate(prompts["pos"], **SMALL, duration="auto", seed=3)
        assert len(clip.frames) == frames
        with pytest.raises(sdltx.InvalidRequestError, match="frame 100"):
            pipe.sample(
                context, **SMALL, duration="auto", conditions=[sdltx.Condition(np.zeros((64, 64, 3), np.uint8), 100)]
            )
        assert pipe.resolve(**SMALL, duration="auto")["duration"] == "auto"


@pytest.mark.parametrize(
    ("duration", "frames"), [("5s", 41), (5, 41), (5.0, 41), ("2.5", 17), ("0.01s", 1), ("1e0s", 9)]
)
def test_durations_in_seconds(pipe, duration, frames):
    assert pipe.resolve(**SMALL, duration=duration)["num_frames"] == frames


def test_estimates_of_a_length_that_the_prompt_decides():
    parts = [*PARTS_OF_A_CLIP, file("duration_head")]
    models = [argument for part in parts for argument in ("-m", part)]
    size = ("-W", 64, "-H", 64, "--fps", 8)
    told = run("estimate", *models, *size, "--duration", "auto").stdout.splitlines()
    longest = run("estimate", *models, *size, "--duration", "20s").stdout.splitlines()
    assert told[-1].startswith("the prompt decides how long the clip is: this is of 5.12 s; 20 s, the longest, take ")
    assert told[-1].split("take ")[1] == longest[-2].split(" of memory")[0] + " at most"


def test_durations_that_are_none(pipe):
    for wrong in ("", "s", "five", "-1s", 0, float("nan"), "1e9s", "5m", "null", "[5]"):
        with pytest.raises(sdltx.InvalidRequestError, match=r"the duration .* is none"):
            pipe.resolve(**SMALL, duration=wrong)
    with pytest.raises(sdltx.InvalidRequestError, match="give one of them"):
        pipe.resolve(**SMALL, duration="5s", num_frames=9)
    with pytest.raises(sdltx.ModelMismatchError, match="duration head"):
        pipe.sample(pipe.encode("a"), **SMALL, duration="auto")


def test_pictures_are_spoilt_as_the_vae_is_used_to(pipe, tiny_paths, tmp_path):
    assert pipe.info["image_crf"] == 18
    with sdltx.load(*tiny_paths) as older:
        assert older.info["image_crf"] == 33

    def older_vae(header):
        header["__metadata__"]["model_version"] = "2.3.0"

    vae = rewritten(file("video_vae_conv"), tmp_path / "vae.safetensors", older_vae)
    with sdltx.load(file("transformer"), file("text_encoder"), vae) as mixed:
        assert mixed.info["image_crf"] == 33


@pytest.mark.parametrize(
    ("kind", "output", "tolerance"), [("keep", "t.gguf", 0), ("q8_0", "t.gguf", 3e-2), ("bf16", "t.safetensors", 1e-2)]
)
def test_converted(pipe, golden, tmp_path, kind, output, tolerance):
    """The marker stays exact, and what tells the text encoder stays with the transformer."""
    sdltx.convert(file("transformer"), output=tmp_path / output, type=kind)
    told = sdltx.inspect(tmp_path / output)
    marker = next(one for one in told.tensors if one.name.endswith("keyframes_abs_pos_embedding"))
    assert marker.type == "F32"
    with sdltx.load(tmp_path / output, file("text_encoder"), precision="f32") as other:
        assert other.info["version"] == "2.5.0"
        for got, expected in zip(velocity(other, golden, "t2v"), velocity(pipe, golden, "t2v"), strict=True):
            if tolerance:
                assert_close(kind, got, expected, tolerance)
            else:
                assert np.array_equal(got, expected)

    def another(header):
        config_of_gemma(header, lambda c: c.update(gemma_version="gemma4-12b-ltx-v2"))

    with pytest.raises(sdltx.ModelMismatchError, match="was trained with gemma4-tiny-ltx-v1"):
        sdltx.load(tmp_path / output, changed_encoder(tmp_path, another))


# --- seams ---


def test_a_clip_in_two_stages_is_made_again_with_both_samplers(tmp_path):
    """It remembers the sampler of the first alone."""
    with sdltx.load(*PARTS_OF_A_CLIP) as pipe:
        asked = {
            "width": 128,
            "height": 128,
            "num_frames": 9,
            "frame_rate": 8,
            "seed": 3,
            "upscaler": file("upsampler"),
        }
        told = pipe.resolve(**asked, sampler="euler_ancestral")
        assert [stage["sampler"] for stage in told["stages"]] == ["euler_ancestral", "euler"]
        told = pipe.resolve(**asked, sampler="gradient_estimation")
        assert [stage["sampler"] for stage in told["stages"]] == ["gradient_estimation"] * 2


@pytest.mark.parametrize("shape", [[], [64], [2, 16], [0]])
def test_a_damaged_duration_head(tmp_path, shape):
    def change(header):
        header["duration_head.video_modality_emb"]["shape"] = shape

    path = rewritten(file("duration_head"), tmp_path / "head.safetensors", change)
    with pytest.raises(sdltx.SdltxError):
        sdltx.load(*PARTS_OF_A_CLIP, path)
    assert sdltx.inspect(path).problems


def test_pictures_late_in_a_clip_of_open_length(prompts):
    """Its frames are looked at once its length is known."""
    picture = np.zeros((64, 64, 3), np.uint8)
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        late = {"width": 64, "height": 64, "frame_rate": 50, "duration": "auto", "num_inference_steps": 1}
        assert pipe.estimate(**late, conditions=[sdltx.Condition(picture, 300)])["steps"]
        made = pipe.sample(pipe.encode(prompts["pos"]), **late, conditions=[sdltx.Condition(picture, 130)])
        assert made.settings["num_frames"] == 153
        assert pipe.resolve(**{**late, "frame_rate": 0.01})["num_frames"] == 1


def test_estimates_refuse_what_runs_refuse(tiny):
    with pytest.raises(sdltx.ModelMismatchError, match="duration head"):
        tiny.estimate(duration="auto")
    with pytest.raises(sdltx.ModelMismatchError, match="keyframes are generated"):
        tiny.estimate(num_generated_keyframes=3)


def test_a_converted_folder_goes_with_its_text_encoder(tmp_path):
    written = sdltx.convert(*PARTS_OF_A_CLIP, file("duration_head"), output=f"{tmp_path}/all/", type="bf16")
    assert sorted(path.name.split(".")[0] for path in written) == [
        "audio_vae",
        "duration_head",
        "transformer",
        "video_vae",
    ]
    with sdltx.load(tmp_path / "all", file("text_encoder")) as pipe:
        assert len(pipe.info["parts"]) == 9
    (one,) = sdltx.convert(file("duration_head"), *PARTS_OF_A_CLIP, output=tmp_path / "one.safetensors", type="bf16")
    with sdltx.load(one, file("text_encoder")) as pipe:
        assert len(pipe.info["parts"]) == 9


def test_a_transformer_that_tells_nothing_takes_its_encoder(tmp_path, caplog):
    config = json.loads(read_safetensors(file("transformer"))[0]["__metadata__"]["config"])

    def change(header):
        header["__metadata__"] = {"config": json.dumps(config)}

    path = rewritten(file("transformer"), tmp_path / "t.safetensors", change)
    with sdltx.load(path, file("text_encoder")) as pipe:
        assert pipe.info["model"] == "LTX-2.5"
    assert "says nothing of its version" in caplog.text


def test_a_gemma_3_that_tells_its_configuration(tiny_paths, tmp_path):
    """The metadata is no mark of Gemma 4."""
    folder = Path(tiny_paths[1])
    header, values = read_safetensors(folder / "model.safetensors")
    header.setdefault("__metadata__", {})["gemma_config"] = (folder / "config.json").read_text()
    (tmp_path / "gemma").mkdir()
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / "gemma" / name).write_bytes((folder / name).read_bytes())
    write_safetensors(tmp_path / "gemma" / "model.safetensors", header, values)
    with sdltx.load(tiny_paths[0], tmp_path / "gemma") as pipe:
        assert "text encoder" in pipe.info["parts"]


@pytest.mark.by_day(0)
def test_lengths_from_the_command_line_replace_remembered_ones(tmp_path):
    small = ["-m", FOLDER, "--fps", "8", "-W", "64", "-H", "64", "--steps", "1", "-s", "3"]
    done = run("generate", *small, "-p", "a", "--num-frames", "9", "-o", tmp_path / "a.mp4")
    assert done.returncode == 0, done.stderr
    again = ["-m", FOLDER, "--from", tmp_path / "a.mp4"]
    for more, frames in ((["--duration", "2s"], 17), (["--num-frames", "auto"], 25)):
        done = run("generate", *again, *more, "-o", tmp_path / "b.webp", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert sdltx.media.read_settings(tmp_path / "b.webp")["num_frames"] == frames
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "a", "duration": "auto", "output": "f-%03d.png"}\n{"prompt": "b", "num_frames": 17}\n')
    for _ in range(2):
        done = run("batch", jobs, *small, "--duration", "1s", "-o", tmp_path / "clips")
        assert done.returncode == 0, done.stderr
    assert "2 of 2 clips are there already" in done.stderr
    assert len(list((tmp_path / "clips").glob("f-*.png"))) == 25
