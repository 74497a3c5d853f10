"""LoRAs as branches beside the transformer's matrices: against the reference, in every spelling, alone and together."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from commands import errors, read_safetensors, run, write_safetensors
from compare import assert_close
from safetensors import safe_open
from safetensors.numpy import save_file
from test_transformer import run as velocity

import sdltx

LORA = Path(__file__).parent / "data" / "tiny-a" / "tiny-lora.safetensors"
SIZE = {"width": 64, "height": 64, "num_frames": 9, "seed": 3, "preset": "distilled", "num_inference_steps": 2}
# First parts of names in the releases and in diffusers.
DIFFUSERS = {
    "patchify_proj": "proj_in",
    "audio_patchify_proj": "audio_proj_in",
    "adaln_single": "time_embed",
    "audio_adaln_single": "audio_time_embed",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
}


@pytest.fixture(scope="module")
def pairs():
    """(A, B) by module, float32."""
    header, blob = read_safetensors(LORA)

    def values(name):
        entry = header[name]
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(blob[begin:end], np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(entry["shape"])

    tail = ".lora_A.weight"
    modules = [name.removesuffix(tail) for name in header if name.endswith(tail)]
    return {
        name.removeprefix("diffusion_model."): (values(f"{name}.lora_A.weight"), values(f"{name}.lora_B.weight"))
        for name in modules
    }


def write(path, pairs, spell=lambda name: f"diffusion_model.{name}", a=".lora_A.weight", b=".lora_B.weight", **more):
    """A LoRA's file in another spelling."""
    tensors = dict(more)
    for name, (down, up) in pairs.items():
        tensors[spell(name) + a] = down
        tensors[spell(name) + b] = up
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    return path


@pytest.mark.device
def test_velocity(tiny, golden):
    g = golden("transformer")
    video, audio = velocity(tiny, golden, "t2v", loras=[(str(LORA), float(g["lora.strength"]))])
    assert_close("video", video, g["lora.video_velocity"])
    assert_close("audio", audio, g["lora.audio_velocity"])
    # Nothing of it stays.
    video, audio = velocity(tiny, golden, "t2v")
    assert_close("video", video, g["t2v.video_velocity"])


def diffusers(name):
    first, dot, rest = name.partition(".")
    return f"transformer.{DIFFUSERS.get(first, first)}{dot}{rest}"


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("spell", "a", "b"),
    [
        (diffusers, ".lora_A.weight", ".lora_B.weight"),
        (lambda name: f"base_model.model.{name}", ".lora_A.default.weight", ".lora_B.default.weight"),
        (lambda name: f"model.diffusion_model.{name}", ".lora.down.weight", ".lora.up.weight"),
        (lambda name: f"lora_unet_{name.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
        (lambda name: f"lycoris_{name.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"),
        (lambda name: f"base_model.model.diffusion_model.{name}", ".lora_A.style.weight", ".lora_B.style.weight"),
        (lambda name: f"velocity_model.{name}", ".lora_A", ".lora_B"),
        (lambda name: f"unet.{name}", ".lora_A.weight", ".lora_B.weight"),
    ],
)
def test_spellings(tiny, golden, pairs, tmp_path, spell, a, b):
    g = golden("transformer")
    path = write(tmp_path / "x.safetensors", pairs, spell, a, b)
    video, audio = velocity(tiny, golden, "t2v", loras=[(str(path), float(g["lora.strength"]))])
    assert_close("video", video, g["lora.video_velocity"])
    assert_close("audio", audio, g["lora.audio_velocity"])


def test_alpha_and_ranks_of_pairs(tiny, golden, pairs, tmp_path):
    """Some have twice the rank, with zeros; all have an alpha of half of it, and twice the strength."""
    g = golden("transformer")
    alphas, padded = {}, {}
    for i, (name, (down, up)) in enumerate(pairs.items()):
        if i % 2:  # other pairs keep their rank
            down = np.concatenate([down, np.zeros_like(down)])
            up = np.concatenate([up, np.zeros_like(up)], 1)
        padded[name] = down, up
        alphas[f"diffusion_model.{name}.alpha"] = np.array(len(down) / 2, np.float32)
    path = write(tmp_path / "x.safetensors", padded, **alphas)
    video, _ = velocity(tiny, golden, "t2v", loras=[(str(path), 2 * float(g["lora.strength"]))])
    assert_close("video", video, g["lora.video_velocity"])


@pytest.mark.sanitize
def test_several_add_up(tiny, golden, pairs, tmp_path):
    """Halves of the strength twice, and halves of the modules, add up."""
    g = golden("transformer")
    strength = float(g["lora.strength"])
    for loras in (
        [(LORA, 0.25 * strength), (LORA, 0.75 * strength)],
        [(write(tmp_path / f"{i}.safetensors", dict(list(pairs.items())[i::2])), strength) for i in range(2)],
    ):
        video, audio = velocity(tiny, golden, "t2v", loras=[(str(path), value) for path, value in loras])
        assert_close("video", video, g["lora.video_velocity"])
        assert_close("audio", audio, g["lora.audio_velocity"])


@pytest.mark.parametrize("kind", ["q8_0", "bf16"])
def test_on_any_type_of_weights(tiny_paths, tmp_path, kind):
    """The stored weights are used as they are: strength 0 changes nothing, and no copy of them is made."""
    folder = tmp_path / "x"
    sdltx.convert(tiny_paths[0], output=f"{folder}/", type=kind)
    with sdltx.load(folder, tiny_paths[1]) as pipe:
        context = pipe.encode("x")
        plain = pipe.sample(context, **SIZE)
        before = pipe.memory()[0]["weights"]
        none = pipe.sample(context, **SIZE, loras=[(LORA, 0.0)])
        np.testing.assert_array_equal(none.video, plain.video)
        assert pipe.memory()[0]["weights"] - before < 2 * LORA.stat().st_size
        full = pipe.sample(context, **SIZE, loras=[LORA])
        assert np.abs(full.video - plain.video).max() > 1e-2
        assert full.settings["loras"] == [[str(LORA), 1.0]]


def merged_checkpoint(tiny_paths, path, changes):
    """The tiny checkpoint in float32 with ``changes`` added to its weights."""
    header, blob = read_safetensors(tiny_paths[0])
    header.pop("__metadata__")
    metadata = safe_open(tiny_paths[0], "np").metadata()
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "BF16"
        bits = np.frombuffer(blob[begin:end], np.uint16).astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    for name, change in changes.items():
        key = f"model.diffusion_model.{name}"
        tensors[key] = tensors[key] + change
    save_file(tensors, path, metadata=metadata)
    return path


def test_as_if_merged(tiny_paths, tiny, pairs, tmp_path):
    """At sizes for which our own products add the branch, sums and activations included."""
    merged = merged_checkpoint(
        tiny_paths, tmp_path / "merged.safetensors", {f"{k}.weight": 0.5 * up @ down for k, (down, up) in pairs.items()}
    )
    size = SIZE | {"width": 256, "height": 256}
    got = tiny.sample(tiny.encode("x"), **size, loras=[(LORA, 0.5)])
    with sdltx.load(merged, tiny_paths[1], precision="f32") as pipe:
        want = pipe.sample(pipe.encode("x"), **size)
    assert_close("video", got.video, want.video)
    assert_close("audio", got.audio, want.audio)


@pytest.mark.parametrize("side", [64, 256])
def test_other_sums_as_if_merged(tiny_paths, tiny, pairs, tmp_path, side):
    """Whole differences of matrices, biases, norms and tables, and the biases of pairs, together with the pairs."""
    rng = np.random.default_rng(0)

    def random(*shape):
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)

    strength, alpha = 0.5, 2
    changes = {f"{name}.weight": strength * alpha / 4 * up @ down for name, (down, up) in pairs.items()}
    more = {f"diffusion_model.{name}.alpha": np.array(alpha, np.int64) for name in pairs}

    def add(name, weight, change, by=strength):
        more[f"diffusion_model.{name}"] = change
        changes[weight] = changes.get(weight, 0) + by * change

    block = "transformer_blocks.1"
    outputs, inputs = (pairs[f"{block}.attn1.to_q"][i].shape[1 - i] for i in (1, 0))
    add(f"{block}.attn1.to_q.diff", f"{block}.attn1.to_q.weight", random(outputs, inputs))
    add(f"{block}.attn1.to_q.diff_b", f"{block}.attn1.to_q.bias", random(outputs))
    add(f"{block}.attn1.to_v.lora_B.bias", f"{block}.attn1.to_v.bias", random(outputs), strength * alpha / 4)
    add(f"{block}.attn1.q_norm.w_norm", f"{block}.attn1.q_norm.weight", random(outputs))
    add(f"{block}.audio_attn2.k_norm.diff", f"{block}.audio_attn2.k_norm.weight", random(32))
    wide = pairs[f"{block}.ff.net.0.proj"][1].shape[0]
    add(f"{block}.ff.net.0.proj.diff_b", f"{block}.ff.net.0.proj.bias", random(wide))
    add(f"{block}.scale_shift_table.diff", f"{block}.scale_shift_table", random(9, inputs))
    add(f"{block}.scale_shift_table_a2v_ca_audio.diff", f"{block}.scale_shift_table_a2v_ca_audio", random(5, 32))
    add("scale_shift_table.diff", "scale_shift_table", random(2, inputs))
    add("patchify_proj.diff_b", "patchify_proj.bias", random(inputs))
    path = write(tmp_path / "x.safetensors", pairs, **more)
    merged = merged_checkpoint(tiny_paths, tmp_path / "merged.safetensors", changes)
    size = SIZE | {"width": side, "height": side}
    got = tiny.sample(tiny.encode("x"), **size, loras=[(path, strength)])
    with sdltx.load(merged, tiny_paths[1], precision="f32") as pipe:
        want = pipe.sample(pipe.encode("x"), **size)
    assert_close("video", got.video, want.video)
    assert_close("audio", got.audio, want.audio)


@pytest.mark.parametrize(
    ("ending", "shape"),
    [
        (".lora_magnitude_vector", (32,)),
        (".lora_magnitude_vector.default.weight", (32,)),
        (".magnitude", (32,)),
        (".dora_scale", (32, 1)),
        (".hada_w1_a", (32, 4)),
        (".lokr_w1", (4, 4)),
        (".oft_blocks", (4, 4)),
        (".lora_mid.weight", (4, 4)),
        (".set_weight", (32, 32)),
        (".reshape_weight", (2,)),
        (".bias", (32,)),
        (".something_new", (32,)),
    ],
)
def test_what_is_no_sum_is_refused_by_name(tiny, pairs, tmp_path, ending, shape):
    name = f"diffusion_model.transformer_blocks.0.attn1.to_q{ending}"
    path = write(tmp_path / "x.safetensors", pairs, **{name: np.ones(shape, np.float32)})
    with pytest.raises(sdltx.ModelMismatchError, match="to_q") as raised:
        tiny.sample(tiny.encode("x"), **SIZE, loras=[path])
    assert name in str(raised.value)


def test_sums_of_other_shapes_are_refused(tiny, pairs, tmp_path):
    for i, (ending, shape) in enumerate(
        {".diff": (3, 3), ".diff_b": (5,), ".lora_B.bias": (5,), ".w_norm": (64,)}.items()
    ):
        more = {f"diffusion_model.transformer_blocks.0.attn1.to_q{ending}": np.ones(shape, np.float32)}
        with pytest.raises(sdltx.ModelMismatchError, match=r"do(es)? not fit"):
            tiny.sample(tiny.encode("x"), **SIZE, loras=[write(tmp_path / f"{i}.safetensors", pairs, **more)])


@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "int64", "int32", "int16", "uint8"])
def test_alpha_of_any_type(tiny, pairs, tmp_path, kind):
    alphas = {f"diffusion_model.{name}.alpha": np.array(2, kind) for name in pairs}
    path = write(tmp_path / "x.safetensors", pairs, **alphas)
    context = tiny.encode("x")
    got = tiny.sample(context, **SIZE, loras=[path])
    np.testing.assert_allclose(got.video, tiny.sample(context, **SIZE, loras=[(LORA, 0.5)]).video, atol=1e-4)


@pytest.mark.parametrize("alpha", [np.zeros(0), np.ones(2), np.array(np.nan), np.array(np.inf), np.array(True)])
def test_what_is_no_alpha(tiny, pairs, tmp_path, alpha):
    path = write(tmp_path / "x.safetensors", pairs, **{f"diffusion_model.{next(iter(pairs))}.alpha": alpha})
    with pytest.raises(sdltx.ModelFileError, match=r"x\.safetensors.*alpha.*is not a finite number"):
        tiny.sample(tiny.encode("x"), **SIZE, loras=[path])


@pytest.mark.parametrize(
    ("metadata", "scale"),
    [
        ({"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 2})}, 0.5),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 1, "transformer.use_rslora": True})}, 0.5),
        ({"transformer.r": "4", "transformer.lora_alpha": "2"}, 0.5),
        ({"lora_alpha": "8"}, 2),
        ({"lora_alpha": "1", "use_rslora": "True"}, 0.5),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 4}})}, 1),
    ],
)
def test_alpha_in_the_header(tiny, pairs, tmp_path, metadata, scale):
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    context = tiny.encode("x")
    got = tiny.sample(context, **SIZE, loras=[tmp_path / "x.safetensors"])
    want = tiny.sample(context, **SIZE, loras=[(LORA, scale)])
    np.testing.assert_allclose(got.video, want.video, atol=1e-4)


def test_alpha_of_some_modules(tiny, pairs, tmp_path):
    """PEFT's alpha_pattern names modules that have another one."""
    plain, patterned = tmp_path / "plain.safetensors", tmp_path / "patterned.safetensors"
    alphas = {f"diffusion_model.{name}.alpha": np.float32(8 if "attn1.to_q" in name else 4) for name in pairs}
    write(plain, pairs, **alphas)
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    told = {"lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 8, "audio_attn1.to_q": 8}}
    save_file(tensors, patterned, metadata={"lora_adapter_metadata": json.dumps(told)})
    context = tiny.encode("x")
    want = tiny.sample(context, **SIZE, loras=[plain])
    np.testing.assert_array_equal(tiny.sample(context, **SIZE, loras=[patterned]).video, want.video)


def test_folder_of_peft(tiny, tiny_paths, pairs, tmp_path):
    """The folder as PEFT writes it: alpha stands beside the file."""
    write(tmp_path / "adapter_model.safetensors", pairs, lambda name: f"base_model.model.{name}")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": {}}))
    context = tiny.encode("x")
    want = tiny.sample(context, **SIZE, loras=[(LORA, 0.5)]).video
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        np.testing.assert_allclose(tiny.sample(context, **SIZE, loras=[path]).video, want, atol=1e-4)
    for told, line in (
        ({"use_dora": True}, "DoRA"),
        ({"lora_alpha": "two"}, "no number"),
        ({"lora_alpha": 1, "alpha_pattern": {"to_.*": 1}}, "alpha_pattern"),
    ):
        config.write_text(json.dumps(told))
        with sdltx.load(*tiny_paths) as pipe, pytest.raises(sdltx.SdltxError, match=line):
            pipe.check(loras=[tmp_path])
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "more.safetensors").write_bytes(LORA.read_bytes())
    with pytest.raises(sdltx.ModelFileError, match="is a folder with 2"):
        tiny.check(loras=[tmp_path])


def test_a_module_twice_is_refused(tiny, pairs, tmp_path):
    name, (down, up) = next(iter(pairs.items()))
    for again in (name, f"base_model.model.{name}"):
        more = {f"{again}.lora_A.weight": down, f"{again}.lora_B.weight": up}
        path = write(tmp_path / "x.safetensors", pairs, **more)
        with pytest.raises(sdltx.ModelMismatchError, match="twice, as"):
            tiny.check(loras=[path])


@pytest.mark.parametrize("strength", [1.0, 0.8, 0.3])
def test_a_second_one_at_zero_changes_nothing(tiny_paths, pairs, tmp_path, strength):
    other = write(tmp_path / "x.safetensors", {name: (1.5 * down, up) for name, (down, up) in pairs.items()})
    with sdltx.load(*tiny_paths) as pipe:
        context = pipe.encode("x")
        alone = pipe.sample(context, **SIZE, loras=[(LORA, strength)])
        beside = pipe.sample(context, **SIZE, loras=[(LORA, strength), (other, 0)])
    np.testing.assert_array_equal(alone.video, beside.video)


@pytest.mark.threads
@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("shorter", [True, False])
def test_a_file_that_changed_counts(tiny, pairs, tmp_path, replaced, shorter):
    """As a training run writes the next epoch: under the same name, anew or in place."""
    context = tiny.encode("x")
    path = write(tmp_path / "style.safetensors", pairs)
    first = tiny.sample(context, **SIZE, loras=[path])
    some = {k: v for k, v in pairs.items() if not shorter or ".attn1.to_q" in k}
    new = write(tmp_path / "new.safetensors", {name: (down, 0.5 * up) for name, (down, up) in some.items()})
    expected = tiny.sample(context, **SIZE, loras=[new])
    if replaced:
        new.replace(path)
    else:
        path.write_bytes(new.read_bytes())
    again = tiny.sample(context, **SIZE, loras=[path])
    assert np.abs(again.video - first.video).max() > 1e-3
    np.testing.assert_array_equal(again.video, expected.video)


@pytest.mark.threads
@pytest.mark.sanitize
@pytest.mark.parametrize("offload", ["stage", "blocks"])
def test_offloaded(tiny_paths, tiny, offload):
    with sdltx.load(*tiny_paths, precision="f32", offload=offload) as pipe:
        got = pipe.sample(pipe.encode("x"), **SIZE, loras=[(LORA, 0.5), (LORA, 0.5)])
        assert pipe.memory()[0]["weights"] == 0
    want = tiny.sample(tiny.encode("x"), **SIZE, loras=[(LORA, 0.5), (LORA, 0.5)])
    np.testing.assert_array_equal(got.video, want.video)


def test_for_each_stage(tiny):
    upscaler = LORA.with_name("tiny-spatial-upscaler-x2.safetensors")
    context = tiny.encode("x")
    size = {**SIZE, "width": 128}
    both = tiny.sample(context, **size, upscaler=upscaler, loras=[LORA], loras_stage2=[])
    small = tiny.sample(context, **{**size, "width": 64, "height": 32}, loras=[LORA])
    sigmas = [0.909375, 0.725, 0.421875, 0.0]
    options = {**size, "num_inference_steps": None, "sigmas": sigmas, "initial": tiny.upsample(small, upscaler)}
    np.testing.assert_array_equal(both.video, tiny.sample(context, **options).video)
    both = tiny.sample(context, **size, upscaler=upscaler, loras=[LORA])
    np.testing.assert_array_equal(both.video, tiny.sample(context, **options, loras=[LORA]).video)


def test_what_is_applied_is_told(tiny, pairs, tmp_path, caplog):
    some = dict(list(pairs.items())[:4])
    path = write(tmp_path / "x.safetensors", {**some, "strange.module": (np.zeros((2, 3)), np.zeros((4, 2)))})
    with caplog.at_level(logging.INFO, "sdltx"):
        tiny.sample(tiny.encode("x"), **SIZE, loras=[path])
    assert "4 of 5 modules are applied" in caplog.text
    assert "1 modules are none of the transformer's and have no effect, such as 'diffusion_model.strange" in caplog.text


def test_ic_loras_are_named(tiny, tmp_path, caplog):
    header, blob = read_safetensors(LORA)
    header["__metadata__"] = {"reference_downscale_factor": "2"}
    path = write_safetensors(tmp_path / "x.safetensors", header, blob)
    with caplog.at_level(logging.WARNING, "sdltx"):
        tiny.sample(tiny.encode("x"), **SIZE, loras=[path])
    assert "is an IC-LoRA (reference_downscale_factor 2)" in caplog.text


def test_wrong_files(tiny, pairs, tiny_paths, tmp_path):
    name, (down, up) = next(iter(pairs.items()))
    bad = down.copy()
    bad[0, 0] = np.nan
    cases = (
        (
            {"nothing.here": (down, up)},
            "none of its 1 modules is one of this model's, such as 'diffusion_model.nothing",
        ),
        ({name: (down[:, 1:], up)}, "do not fit the model's"),
        ({name: (down[1:], up)}, "do not fit the model's"),
        ({name: (bad, up)}, "values that are not finite"),
    )
    for i, (content, line) in enumerate(cases):
        path = write(tmp_path / f"{i}.safetensors", content)
        with pytest.raises(sdltx.ModelMismatchError, match=line):
            tiny.generate("x", **SIZE, loras=[path])
    half = tmp_path / "half.safetensors"
    save_file({f"diffusion_model.{name}.lora_A.weight": down}, half)
    foreign = tmp_path / "foreign.safetensors"
    save_file({f"diffusion_model.{name}.hada_w1_a": down, "x.lora_A.weight": down}, foreign)
    for path, line in (
        (half, "one of its two matrices"),
        (foreign, "a kind of adapter that is not implemented"),
        (tiny_paths[0], "is a part of a model and not a LoRA"),
    ):
        with pytest.raises(sdltx.ModelMismatchError, match=line):
            tiny.generate("x", **SIZE, loras=[path])
    with pytest.raises(sdltx.ModelFileError, match="missing"):
        tiny.generate("x", **SIZE, loras=[tmp_path / "missing"])


@pytest.mark.parametrize("loras", ["x", 5, [5], [("x", "y")], [("x", float("nan"))], [("x", 1, 2)]])
def test_what_is_no_list_of_loras(tiny, loras):
    with pytest.raises(sdltx.InvalidRequestError, match="lora"):
        tiny.sample(tiny.encode("x"), **SIZE, loras=loras)


def test_command_line(tiny_paths, tmp_path):
    clip = ["-p", "x", "-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1", "--preset", "distilled"]
    model = ["-m", tiny_paths[0], "-m", tiny_paths[1]]
    outputs = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for output, options in zip(outputs, ([], ["--lora", LORA], ["--lora", f"{LORA}:0.5"]), strict=True):
        done = run("generate", *clip, *model, *options, "--save-latents", output, "-v")
        assert done.returncode == 0, done.stderr
        assert ("modules are applied" in done.stderr) == bool(options)
    latents = [sdltx.Latents.load(path).video for path in outputs]
    assert np.abs(latents[0] - latents[1]).max() > 1e-3
    assert np.abs(latents[1] - latents[2]).max() > 1e-3
    told = run("generate", "--from", outputs[2], *model, "--dry-run")
    assert f"{LORA} at 0.5" in told.stdout, told.stderr
    done = run("generate", *clip, *model, "--lora", tiny_paths[0], "--dry-run")
    assert done.returncode == 4
    assert "is a part of a model and not a LoRA" in errors(done)[0]


@pytest.mark.parametrize(
    ("spell", "pattern"),
    [
        (diffusers, "proj_in"),
        (diffusers, "transformer.transformer_blocks.0.attn1.to_q"),
        (lambda name: f"base_model.model.diffusion_model.{name}", "diffusion_model.transformer_blocks.0.attn1.to_q"),
        (lambda name: f"base_model.model.{name}", "base_model.model.transformer_blocks.0.attn1.to_q"),
        (lambda name: f"base_model.model.{name}", "patchify_proj"),
    ],
)
def test_patterns_of_alpha_in_the_spelling_of_the_file(tiny, pairs, tmp_path, spell, pattern):
    changed = "patchify_proj" if "proj" in pattern.split(".")[-1] else "transformer_blocks.0.attn1.to_q"
    alphas = {f"diffusion_model.{name}.alpha": np.float32(32 if name == changed else 4) for name in pairs}
    want = write(tmp_path / "want.safetensors", pairs, **alphas)
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {f"{spell(name)}.lora_A.weight": down, f"{spell(name)}.lora_B.weight": up}
    told = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {pattern: 32}}
    # More keys than a short text has.
    told["transformer.alpha_pattern"] |= {f"transformer_blocks.1.attn1.to_q.{'x' * 50}{i}": 4 for i in range(200)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"lora_adapter_metadata": json.dumps(told)})
    context = tiny.encode("x")
    expected = tiny.sample(context, **SIZE, loras=[want]).video
    np.testing.assert_array_equal(tiny.sample(context, **SIZE, loras=[tmp_path / "x.safetensors"]).video, expected)
    flat = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    save_file(tensors, tmp_path / "y.safetensors", metadata=flat)
    np.testing.assert_array_equal(tiny.sample(context, **SIZE, loras=[tmp_path / "y.safetensors"]).video, expected)


@pytest.mark.parametrize(
    "metadata",
    [
        {"text_encoder.lora_alpha": "32"},
        {"transformer.lora_alpha": "4", "vae.lora_alpha": "32", "text_encoder.use_rslora": "True"},
        {"transformer.lora_alpha": "4", "text_encoder.use_dora": "True"},
        {"lora_alpha": "None", "use_dora": "False", "use_rslora": "0"},
    ],
)
def test_settings_of_other_networks_do_not_count(tiny, pairs, tmp_path, metadata):
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    context = tiny.encode("x")
    got = tiny.sample(context, **SIZE, loras=[tmp_path / "x.safetensors"])
    np.testing.assert_array_equal(got.video, tiny.sample(context, **SIZE, loras=[LORA]).video)


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({"lora_alpha": "abc"}, "lora_alpha .*no number"),
        ({"lora_alpha": "NaN"}, "lora_alpha .*no number"),
        ({"alpha_pattern": "{'to_q': 32}"}, "alpha_pattern .*no JSON object"),
        ({"lora_alpha": "4", "alpha_pattern": '{"to_q": 32, "attn1.to_q": 4}'}, "several values"),
        ({"use_rslora": "maybe"}, "neither true nor false"),
        ({"use_dora": "true"}, "DoRA"),
        ({"lora_adapter_metadata": '{"use_dora": "True"}'}, "DoRA"),
        ({"lora_adapter_metadata": "[1]"}, "not a JSON object"),
        ({"lora_adapter_metadata": '{"peft_type": "LOHA"}'}, "LOHA"),
        ({"lora_adapter_metadata": '{"fan_in_fan_out": true}'}, "fan_in_fan_out"),
    ],
)
def test_settings_of_the_wrong_form_are_refused(tiny, pairs, tmp_path, metadata, line):
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(sdltx.SdltxError, match=line):
        tiny.check(loras=[tmp_path / "x.safetensors"])


def test_patterns_that_fit_nothing_are_told(tiny, pairs, tmp_path, caplog):
    write(tmp_path / "adapter_model.safetensors", pairs, lambda name: f"base_model.model.{name}")
    told = {"peft_type": "LORA", "lora_alpha": 4, "alpha_pattern": {"to_nowhere": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    tiny.check(loras=[tmp_path])
    assert "to_nowhere (alpha_pattern)" in caplog.text


def test_two_adapters_and_parts(tiny, pairs, tmp_path):
    name, (down, up) = next(iter(pairs.items()))
    two = tmp_path / "x.safetensors"
    save_file({f"{name}.lora_A.a.weight": down, f"{name}.lora_B.b.weight": up}, two)
    with pytest.raises(sdltx.ModelMismatchError, match="of two adapters"):
        tiny.check(loras=[two])
    part = write(tmp_path / "l-00001-of-00002.safetensors", pairs)
    with pytest.raises(sdltx.ModelFileError, match="is one of 2 parts"):
        tiny.check(loras=[part])


def test_names_of_many_dots(tiny, pairs, tmp_path):
    path = write(tmp_path / "x.safetensors", pairs, **{"a." * 300_000 + "q": np.zeros(1, np.float32)})
    with pytest.raises(sdltx.ModelFileError, match="a tensor has a name of 600001 bytes") as raised:
        tiny.check(loras=[path])
    assert len(str(raised.value)) < 400
