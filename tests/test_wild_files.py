"""Model files as they lie about: any prefix, any split, any place for the configuration or none."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import real_layout

import sdltx
from sdltx import _core

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1}
DIT = "model.diffusion_model."


def read_header(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_part(target: Path, source, rename, metadata=None) -> str:
    """The tensors of ``source`` that ``rename`` gives a name, in that of ``metadata``."""
    header, blob = read_header(source)
    out, data = {"__metadata__": metadata or {}}, b""
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if (new := rename(name)) is None:
            continue
        begin, end = entry["data_offsets"]
        out[new] = {**entry, "data_offsets": [len(data), len(data) + end - begin]}
        data += blob[begin:end]
    text = json.dumps(out).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(target)


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
    return json.loads(read_header(tiny_paths[0])[0]["__metadata__"]["config"])


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
    rest = write_part(
        tmp_path / "rest.safetensors",
        tiny_paths[0],
        lambda name: None if name.startswith(DIT) else name,
        {"config": json.dumps({name: config[name] for name in ("vae", "audio_vae", "vocoder")})},
    )
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
    header, blob = read_header(tiny_paths[0])
    for name, entry in header.items():
        if name.startswith(DIT) and len(entry.get("shape", [])) == 1:
            entry["shape"] = [1, *entry["shape"]]
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)
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
    rest = write_part(
        tmp_path / "rest.safetensors",
        tiny_paths[0],
        lambda n: None if n.startswith(DIT) else n,
        {"config": json.dumps(config)},
    )
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
    rest = write_part(
        tmp_path / "rest.safetensors",
        tiny_paths[0],
        lambda n: None if n.startswith(DIT) else n,
        {"config": json.dumps(config)},
    )
    assert fingerprint(tmp_path / "dit.gguf", rest, tiny_paths[1]) == expected


def test_a_model_of_sound_alone_is_refused_by_name(tmp_path, tiny_paths):
    path = write_part(tmp_path / "m.safetensors", tiny_paths[0], strip(DIT, "velocity_model."))
    with pytest.raises(sdltx.ModelMismatchError, match="makes sound alone"):
        sdltx.load(path)
