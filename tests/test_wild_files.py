"""Model files as they lie about: any prefix, any split, any place for the configuration or none."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import real_layout
from commands import read_safetensors, write_safetensors

import sdltx
from sdltx import _core

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1, "preset": "distilled"}
DIT = "model.diffusion_model."


def write_part(target: Path, source, rename, metadata=None) -> str:
    """The tensors of ``source`` that ``rename`` gives a name, in that of ``metadata``."""
    header, blob = read_safetensors(source)
    out, data = {"__metadata__": metadata or {}}, b""
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if (new := rename(name)) is None:
            continue
        begin, end = entry["data_offsets"]
        out[new] = {**entry, "data_offsets": [len(data), len(data) + end - begin]}
        data += blob[begin:end]
    return write_safetensors(target, out, data)


def all_but_transformer(folder: Path, source, config) -> str:
    """What belongs to a transformer that is a file of its own."""
    kept = {"config": json.dumps(config)}
    return write_part(folder / "rest.safetensors", source, lambda n: None if n.startswith(DIT) else n, kept)


def strip(prefix, add=""):
    return lambda name: add + name.removeprefix(prefix) if name.startswith(prefix) else None


def transformer_gguf(target: Path, source, keys: dict, prefix="") -> str:
    """The transformer as a GGUF in F32; without any metadata key if there are no ``keys``."""
    files = _core.ModelFiles([str(source)])
    writer = gguf.GGUFWriter(target, "ltxv")
    for key, value in keys.items():
        writer.add_string(key, value)
    if not keys:
        writer.kv_data[0].clear()
    for name in files.names():
        if name.startswith(DIT):
            writer.add_tensor(prefix + name.removeprefix(DIT), files.tensor(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(target)


def fingerprint(*paths):
    with sdltx.load(*paths, precision="f32") as pipe:
        pipe.require("transformer", "text encoder", "text projection", "video decoder")
        video = pipe.generate("a red ball", **SMALL)
        return video.frames.tobytes(), video.audio.tobytes()


@pytest.fixture(scope="module")
def expected(tiny_paths):
    return fingerprint(*tiny_paths)


@pytest.fixture(scope="module")
def config(tiny_paths):
    return json.loads(read_safetensors(tiny_paths[0])[0]["__metadata__"]["config"])


# --- the configuration from the shapes ---


def told(section, shapes):
    """What ``shapes`` says, as far as the configuration of a file has it."""
    for key, value in shapes.items():
        if isinstance(value, dict):
            told(section[key], value)
        elif key in section:
            assert section[key] == value, key


@pytest.mark.parametrize("section", ["transformer", "vae", "audio_vae", "vocoder"])
def test_shapes_tell_the_configuration_of_the_tiny_model(tiny_paths, config, section):
    told(config[section], json.loads(_core.ModelFiles(tiny_paths).config_from_shapes(section)))


@pytest.mark.parametrize("section", ["transformer", "vae", "audio_vae", "vocoder"])
def test_shapes_tell_the_configuration_of_the_release(tmp_path, section):
    path = real_layout.write_checkpoint(tmp_path / "ltx.safetensors")
    told(
        real_layout.manifest("ltx-2.3-22b")["config"][section],
        json.loads(_core.ModelFiles([str(path)]).config_from_shapes(section)),
    )


def test_a_model_without_any_configuration_is_the_same(tmp_path, tiny_paths, expected, caplog):
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], lambda name: name)
    caplog.set_level("INFO", "sdltx")
    assert fingerprint(path, tiny_paths[1]) == expected
    for part in ("transformer", "video VAE", "audio VAE", "vocoder"):
        assert f"no file has a configuration of the {part}; it is taken from the shapes" in caplog.text


def test_a_transformer_without_what_tells_its_sizes(tmp_path, tiny_paths):
    missing = "model.diffusion_model.audio_patchify_proj.weight"
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], lambda name: None if name == missing else name)
    with pytest.raises(sdltx.ModelMismatchError, match=r"neither a 'config' nor a usable '.*audio_patchify_proj"):
        sdltx.load(path, tiny_paths[1])


def test_a_configuration_that_contradicts_the_shapes(tmp_path, tiny_paths, config):
    wrong = {**config, "transformer": {**config["transformer"], "num_layers": 4}}
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], lambda name: name, {"config": json.dumps(wrong)})
    with pytest.raises(sdltx.ModelMismatchError, match=r"missing model.diffusion_model.transformer_blocks.3"):
        sdltx.load(path, tiny_paths[1])


# --- where the configuration is ---


@pytest.mark.by_day(7)
@pytest.mark.parametrize(
    ("key", "alone"),
    [*((key, alone) for key in ("config", "ltx.config", "general.config") for alone in (False, True)), (None, False)],
)
@pytest.mark.parametrize("prefix", ["", DIT, "diffusion_model."])
def test_a_transformer_as_gguf(tmp_path, tiny_paths, expected, config, key, alone, prefix):
    """With the whole configuration, the transformer's section alone, or no metadata at all."""
    whole = {name: section for name, section in config.items() if name != "vae"}
    keys = {key: json.dumps(config["transformer"] if alone else whole)} if key else {}
    dit = transformer_gguf(tmp_path / "dit.gguf", tiny_paths[0], keys, prefix)
    sections = {name: config[name] for name in ("vae", "audio_vae", "vocoder")}
    rest = all_but_transformer(tmp_path, tiny_paths[0], sections)
    assert fingerprint(dit, rest, tiny_paths[1]) == expected


def test_long_licences_do_not_matter(tmp_path, tiny_paths, config):
    keys = {"config": json.dumps(config), "general.license": "x" * 60_000}
    dit = transformer_gguf(tmp_path / "dit.gguf", tiny_paths[0], keys)
    with sdltx.load(dit) as pipe:
        pipe.require("transformer")


# --- split files ---


def test_one_file_per_part(tmp_path, tiny_paths, expected, config):
    """Bare names, as repositories of single parts have them, and the connectors under their other name."""
    whole = {"config": json.dumps(config)}
    connectors = "embeddings_connector"

    def connector(name):
        name = strip(DIT)(name)
        return None if name is None or connectors not in name else name.removeprefix("video_")

    def others(name):
        return None if connectors in name else strip(DIT)(name)

    parts = {
        "transformer": (others, whole),
        "connectors": (connector, None),
        "text_projection": (lambda name: name if name.startswith("text_embedding_projection.") else None, None),
        "video_vae": (strip("vae."), {"config": json.dumps(config["vae"])}),
        "audio_vae": (strip("audio_vae."), {"config": json.dumps(config["audio_vae"])}),
        "vocoder": (strip("vocoder."), {"config": json.dumps(config["vocoder"])}),
    }
    paths = [
        write_part(tmp_path / f"{part}.safetensors", tiny_paths[0], rename, metadata)
        for part, (rename, metadata) in parts.items()
    ]
    assert fingerprint(*paths[::-1], tiny_paths[1]) == expected
    # The same without any metadata: names and shapes are enough.
    for part, (rename, _) in parts.items():
        write_part(tmp_path / f"{part}.safetensors", tiny_paths[0], rename)
    assert fingerprint(*paths, tiny_paths[1]) == expected


def test_single_rows_may_be_stored_as_matrices(tmp_path, tiny_paths, expected):
    header, blob = read_safetensors(tiny_paths[0])
    for name, entry in header.items():
        if name.startswith(DIT) and len(entry.get("shape", [])) == 1:
            entry["shape"] = [1, *entry["shape"]]
    path = write_safetensors(tmp_path / "m.safetensors", header, blob)
    assert fingerprint(path, tiny_paths[1]) == expected


@pytest.mark.parametrize(("kind", "bound"), [("BF16", 0), ("F16", 1e-2), ("Q8_0", 5e-2)])
def test_any_tensor_may_have_any_type(tmp_path, tiny_paths, config, kind, bound):
    """Also gates, connectors, registers, tables and norms, where rows are whole blocks."""
    quantised = gguf.GGMLQuantizationType[kind]
    files = _core.ModelFiles([tiny_paths[0]])
    writer = gguf.GGUFWriter(tmp_path / "dit.gguf", "ltxv")
    writer.add_string("config", json.dumps(config))
    changed = 0
    for name in files.names():
        if not name.startswith(DIT):
            continue
        array = files.tensor(name)
        fits = array.shape[-1] % gguf.GGML_QUANT_SIZES[quantised][0] == 0
        changed += fits
        raw = gguf.quantize(array, quantised) if fits else array
        writer.add_tensor(name.removeprefix(DIT), raw, raw_dtype=quantised if fits else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rest = all_but_transformer(tmp_path, tiny_paths[0], config)
    assert changed > 100
    with sdltx.load(tmp_path / "dit.gguf", rest, tiny_paths[1]) as pipe, sdltx.load(*tiny_paths) as reference:
        got, exact = (p.sample(p.encode("a red ball"), **SMALL).video for p in (pipe, reference))
    error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    print(f"{kind}: {error:.1e}")
    assert error <= bound


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_tensors_that_were_reshaped_get_their_shape_back(tmp_path, tiny_paths, config, expected, kind):
    """`comfy.gguf.orig_shape`, as writers leave it where rows are no whole blocks."""
    files = _core.ModelFiles([tiny_paths[0]])
    writer = gguf.GGUFWriter(tmp_path / "dit.gguf", "ltxv")
    writer.add_string("config", json.dumps(config))
    for name in files.names():
        if not name.startswith(DIT):
            continue
        array, bare = files.tensor(name), name.removeprefix(DIT)
        if array.ndim == 2:
            key = f"comfy.gguf.orig_shape.{bare}"
            if kind is np.int32:
                writer.add_array(key, list(array.shape))
            else:
                writer.add_key_value(key, list(array.shape), gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT64)
            array = array.reshape(-1, 16)
        writer.add_tensor(bare, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rest = all_but_transformer(tmp_path, tiny_paths[0], config)
    assert fingerprint(tmp_path / "dit.gguf", rest, tiny_paths[1]) == expected


def test_a_model_of_sound_alone_is_refused_by_name(tmp_path, tiny_paths):
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], strip(DIT, "velocity_model."))
    with pytest.raises(sdltx.ModelMismatchError, match="makes sound alone"):
        sdltx.load(path)


# --- eight-bit floats ---


def fp8_values(kind):
    """All 256, by the definitions of the OCP formats."""
    values = []
    exponent_bits, mantissa_bits = {"F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}[kind]
    for i in range(256):
        mantissa, exponent = i % 2**mantissa_bits, (i >> mantissa_bits) % 2**exponent_bits
        scale = 2.0 ** (max(exponent, 1) - (2 ** (exponent_bits - 1) - 1))
        value = (mantissa / 2**mantissa_bits + (exponent > 0)) * scale * (-1 if i & 0x80 else 1)
        if kind == "F8_E5M2" and exponent == 31:
            value = np.nan if mantissa else np.copysign(np.inf, value)
        if kind == "F8_E4M3" and i & 0x7F == 0x7F:
            value = np.nan
        values.append(value)
    return np.array(values, np.float32)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_every_eight_bit_float_is_read_exactly(tmp_path, kind):
    header = {"a.weight": {"dtype": kind, "shape": [2, 128], "data_offsets": [0, 256]}}
    path = write_safetensors(tmp_path / "x.safetensors", header, bytes(range(256)))
    got = _core.ModelFiles([path]).tensor("a.weight")
    assert np.array_equal(got.ravel(), fp8_values(kind), equal_nan=True)
    assert np.nanmax(got) == (448 if kind == "F8_E4M3" else np.inf)


def write_fp8(target, source, kind, spelling, rows, marks=None, mark=None, wrong_scale=False):
    """The transformer's large weights in FP8 with their scales; returns the values that they stand for."""
    header, blob = read_safetensors(source)
    metadata = {**header.pop("__metadata__"), **(marks or {})}
    table = fp8_values(kind)
    order = np.argsort(np.nan_to_num(table, nan=np.inf))
    order = order[np.isfinite(table[order])]
    files, new, data, meant = _core.ModelFiles([str(source)]), {"__metadata__": metadata}, b"", {}

    def add(name, dtype, shape, raw):
        nonlocal data
        new[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw

    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not (".transformer_blocks." in name and len(entry["shape"]) == 2 and name.endswith(".weight")):
            add(name, entry["dtype"], entry["shape"], blob[begin:end])
            continue
        array = files.tensor(name)
        scale = np.abs(array).max(axis=1 if rows else None, keepdims=True).astype(np.float32) / np.float32(16)
        nearest = np.abs((array / scale)[..., None] - table[order]).argmin(-1)
        codes = order[nearest].astype(np.uint8)
        add(name, kind, entry["shape"], codes.tobytes())
        meant[name] = table[codes] * (scale if spelling else 1)
        layer = name.removesuffix("weight")
        if spelling:
            kept = np.repeat(scale.ravel(), 2) if wrong_scale and rows else scale.ravel()
            shape = [len(kept)] if rows else []
            add(layer + spelling, "F32", shape, kept.astype(np.float32).tobytes())
            add(layer + {"weight_scale": "input_scale", "scale_weight": "scale_input"}[spelling], "F32", [], bytes(4))
        if mark:
            said = json.dumps({"format": mark}).encode()
            add(layer + "comfy_quant", "U8", [len(said)], said)
    if spelling == "scale_weight":
        add("scaled_fp8", kind, [2], bytes(2))
    write_safetensors(target, new, data)
    return meant


@pytest.mark.by_day(5)
@pytest.mark.parametrize("spelling", ["weight_scale", "scale_weight", None])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_fp8_checkpoints(tmp_path, tiny_paths, kind, spelling, rows, caplog):
    """What they compute is what the values that they stand for compute, bit for bit in float32."""
    from safetensors.numpy import save_file

    fp8 = tmp_path / "fp8.safetensors"
    header = {"layers": {"x": {"format": "float8_e4m3fn"}}, "format_version": "1.0"}
    marks = {"_quantization_metadata": json.dumps(header)} if rows else None
    mark = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[kind]
    meant = write_fp8(fp8, tiny_paths[0], kind, spelling, rows, marks, None if rows else mark)
    assert len(meant) > 50
    files = _core.ModelFiles([str(fp8)])
    for name, values in meant.items():
        assert np.array_equal(files.tensor(name), values), name
    plain = _core.ModelFiles([tiny_paths[0]])
    arrays = {name: meant.get(name, plain.tensor(name)).astype(np.float32) for name in plain.names()}
    metadata = {"config": plain.metadata("config"), "model_version": plain.metadata("model_version")}
    save_file(arrays, tmp_path / "f32.safetensors", metadata)
    if spelling is None:  # weights of the size of 16 are no model, so only that they load
        with sdltx.load(fp8, tiny_paths[1]) as pipe:
            pipe.require("transformer")
        return
    results = []
    for path in (fp8, tmp_path / "f32.safetensors"):
        with sdltx.load(path, tiny_paths[1], precision="f32") as pipe:
            results.append(pipe.sample(pipe.encode("a red ball"), **SMALL).video)
    assert np.array_equal(*results)
    with sdltx.load(fp8, tiny_paths[1]) as pipe:  # as stored: in BF16
        error = np.linalg.norm(pipe.sample(pipe.encode("a red ball"), **SMALL).video - results[0])
        assert error / np.linalg.norm(results[0]) < 2e-2
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("mark", "where"),
    [("asym_w4a8_int8", "header"), ("svdquant_w4a4", "tensor"), ("float8_e4m3fn_blockwise", "tensor")],
)
def test_other_quantisations_are_refused_by_name(tmp_path, tiny_paths, mark, where):
    header = {"_quantization_metadata": json.dumps({"layers": {"x": {"format": mark}}})}
    path = tmp_path / "q.safetensors"
    marks = (header, None) if where == "header" else (None, mark)
    write_fp8(path, tiny_paths[0], "F8_E4M3", "weight_scale", False, *marks)
    with pytest.raises(sdltx.ModelMismatchError, match=f"quantised as '{mark}'"):
        sdltx.load(path, tiny_paths[1])


def test_a_scale_of_another_shape_is_refused(tmp_path, tiny_paths):
    path = tmp_path / "fp8.safetensors"
    write_fp8(path, tiny_paths[0], "F8_E4M3", "weight_scale", True, wrong_scale=True)
    with pytest.raises(sdltx.ModelFileError, match="is no scale of"):
        sdltx.load(path, tiny_paths[1])


# --- text encoders ---


def test_a_tokenizer_inside_the_weights(tmp_path, tiny_paths):
    """As ComfyUI's single files have it: the bytes of tokenizer.model as a tensor."""
    gemma = Path(tiny_paths[1])
    header, blob = read_safetensors(gemma / "model.safetensors")
    model = (gemma / "tokenizer.model").read_bytes()
    header["spiece_model"] = {"dtype": "U8", "shape": [len(model)], "data_offsets": [len(blob), len(blob) + len(model)]}
    write_safetensors(tmp_path / "gemma.safetensors", header, blob + model)
    (tmp_path / "config.json").write_bytes((gemma / "config.json").read_bytes())
    with sdltx.load(tiny_paths[0], tmp_path / "gemma.safetensors") as pipe, sdltx.load(*tiny_paths) as reference:
        for prompt in ("a red ball", "ein grüner Würfel \N{SOCCER BALL}", "<bos> x"):
            assert pipe.tokenize(prompt).tolist() == reference.tokenize(prompt).tolist()


def test_gemma_12b_needs_no_configuration(tmp_path, tiny_paths, caplog):
    tensors = real_layout.manifest("gemma-3-12b-it")["tensors"]
    flat = {name.removeprefix("language_model."): shape for name, shape in tensors.items() if "vision" not in name}
    real_layout.write_sparse(tmp_path / "gemma_3_12B_it.safetensors", flat)
    (tmp_path / "tokenizer.model").write_bytes((Path(tiny_paths[1]) / "tokenizer.model").read_bytes())
    checkpoint = real_layout.write_checkpoint(tmp_path / "ltx.safetensors")
    caplog.set_level("INFO", "sdltx")
    with sdltx.load(checkpoint, tmp_path / "gemma_3_12B_it.safetensors") as pipe:
        pipe.require("text encoder", "text projection")
    assert "they have the sizes of Gemma 3 12B" in caplog.text


def test_other_gemmas_need_their_configuration(tmp_path, tiny_paths):
    (tmp_path / "gemma.safetensors").write_bytes((Path(tiny_paths[1]) / "model.safetensors").read_bytes())
    with pytest.raises(sdltx.ModelFileError, match=r"config\.json is missing, and the weights are not those of"):
        sdltx.load(tiny_paths[0], tmp_path / "gemma.safetensors")


def test_a_smaller_gemma_is_named(tmp_path, tiny_paths):
    """Gemma 3 4B beside a checkpoint of the release."""
    checkpoint = real_layout.write_checkpoint(tmp_path / "ltx.safetensors")
    gemma = tmp_path / "gemma"
    gemma.mkdir()
    config = json.loads((Path(tiny_paths[1]) / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 2560, "num_hidden_layers": 34}
    (gemma / "config.json").write_text(json.dumps(config))
    real_layout.write_sparse(gemma / "model.safetensors", {"model.embed_tokens.weight": [262208, 2560]})
    with pytest.raises(
        sdltx.ModelMismatchError, match=r"width 3840 \(Gemma 3 12B\), the one given has 2560 \(Gemma 3 4B\)"
    ):
        sdltx.load(checkpoint, gemma)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gemma4_unified", "Gemma 4, which belongs to LTX-2.5"),
        ("gemma3n", r"Gemma 3n \(E2B or E4B\)"),
        ("gemma2", "Gemma 2"),
        ("llama", "'llama'"),
    ],
)
@pytest.mark.parametrize("layout", ["folder", "gguf"])
def test_other_encoders_are_refused_by_name(tmp_path, tiny_paths, kind, name, layout):
    if layout == "folder":
        gemma = tmp_path / "gemma"
        gemma.mkdir()
        (gemma / "config.json").write_text(json.dumps({"model_type": kind}))
        (gemma / "model.safetensors").write_bytes((Path(tiny_paths[1]) / "model.safetensors").read_bytes())
    else:
        gemma = tmp_path / "encoder.gguf"
        writer = gguf.GGUFWriter(gemma, kind.removesuffix("_unified"))
        writer.add_tensor("token_embd.weight", np.ones((8, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with pytest.raises(sdltx.ModelMismatchError, match=f"the text encoder is {name}; LTX-2.3 and 2.0 take Gemma 3 12B"):
        sdltx.load(tiny_paths[0], gemma)
    assert any("the text encoder is" in problem for problem in sdltx.inspect(tiny_paths[0], gemma).problems)


def test_gemma_4_without_a_configuration(tmp_path, tiny_paths):
    """It has the width and depth of Gemma 3 12B."""
    shapes = {"model.embed_tokens.weight": [262144, 3840], "model.layers.0.layer_scalar": [1]}
    real_layout.write_sparse(tmp_path / "gemma4.safetensors", shapes)
    with pytest.raises(sdltx.ModelMismatchError, match="the text encoder is Gemma 4"):
        sdltx.load(tiny_paths[0], tmp_path / "gemma4.safetensors")


def test_the_eyes_of_gemma_given_by_name(tmp_path, tiny_paths):
    path = tmp_path / "vision.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_tensor("v.blk.0.attn_q.weight", np.ones((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(sdltx.ModelMismatchError, match=r"is the eyes of a text model \(mmproj\)"):
        sdltx.load(*tiny_paths, path)


# --- LTX-2.5 ---


def test_ltx_2_5_takes_no_gemma_3(tmp_path, tiny_paths, config):
    """By its configuration, and by its tensors where there is none."""
    newer = {**config, "transformer": {**config["transformer"], "use_keyframes_abs_pos_embedding": True}}
    header, blob = read_safetensors(tiny_paths[0])
    header["__metadata__"]["config"] = json.dumps(newer)
    path = write_safetensors(tmp_path / "m.safetensors", header, blob)
    with pytest.raises(sdltx.ModelMismatchError, match=r"not Gemma 4 12B, which LTX-2\.5 takes"):
        sdltx.load(path, tiny_paths[1])
    told = sdltx.inspect(path, tiny_paths[1])
    assert any("not Gemma 4 12B" in problem for problem in told.problems)


def test_the_diffusion_decoder_is_refused_by_name(tmp_path, tiny_paths, config):
    diffusion = {**config, "vae": {**config["vae"], "_class_name": "CausalDiffusionVAE"}}
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], lambda n: n, {"config": json.dumps(diffusion)})
    with pytest.raises(sdltx.ModelMismatchError, match=r"the diffusion decoder of LTX-2\.5"):
        sdltx.load(path, tiny_paths[1])
