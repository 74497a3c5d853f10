"""Reading safetensors and GGUF: the values that their own Python packages give, one clear error for all else."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize

RNG = np.random.default_rng(1)


def safetensors_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_gguf(path: Path, tensors: dict, keys: dict | None = None, arch: str = "ltxv") -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (keys or {}).items():
        writer.add_string(key, value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_safetensors_values_and_metadata(tmp_path):
    arrays = {
        "a": RNG.standard_normal((3, 4)).astype(np.float32),
        "b": RNG.standard_normal((2, 3, 1, 2, 5)).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
    }
    path = tmp_path / "x.safetensors"
    save_file(arrays, path, metadata={"config": "{}"})
    files = _core.ModelFiles([str(path)])
    assert sorted(files.names()) == sorted(arrays)
    assert files.metadata("config") == "{}"
    for name, array in load_file(path).items():
        got = files.tensor(name)
        assert got.shape == array.shape
        assert np.array_equal(got, array.astype(np.float32))


def test_bfloat16_is_read_exactly(tmp_path):
    bits = RNG.integers(0, 2**16, 4096, dtype=np.uint16)
    bits = bits[(bits & 0x7F80) != 0x7F80]  # no infinities, no NaN
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry([len(bits)], 0, 2 * len(bits), "BF16")}, bits.tobytes()))
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(_core.ModelFiles([str(path)]).tensor("a"), expected)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q5_1"])
def test_gguf_values(tmp_path, kind):
    type_ = gguf.GGMLQuantizationType[kind]
    array = RNG.standard_normal((6, 64)).astype(np.float32)
    path = write_gguf(tmp_path / "x.gguf", {"w": (array, type_)}, {"config": "{}"})
    files = _core.ModelFiles([str(path)])
    assert files.metadata("config") == "{}"
    assert files.dtype("w") == kind.lower()
    expected = gguf.dequantize(gguf.quantize(array, type_), type_)
    np.testing.assert_allclose(files.tensor("w"), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    tensors=st.dictionaries(
        st.text("abc.", min_size=1, max_size=8), st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=5
    )
)
def test_any_safetensors_file_reads_as_its_package_reads_it(tmp_path, tensors):
    arrays = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in tensors.items()}
    path = tmp_path / "x.safetensors"
    save_file(arrays, path)
    files = _core.ModelFiles([str(path)])
    assert {name: files.tensor(name).tolist() for name in arrays} == {n: a.tolist() for n, a in arrays.items()}


BAD_SAFETENSORS = {
    "the file is empty": b"",
    "neither a safetensors nor a GGUF file": b"This is a text file, not a model.",
    "pickled PyTorch checkpoint": b"PK\x03\x04" + bytes(40),
    "header does not fit": safetensors_bytes({"a": entry([1], 0, 4)}, bytes(4), length=10**6),
    "not valid JSON": safetensors_bytes(b'{"a": '),
    "listed twice": safetensors_bytes(b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), bytes(4)),
    "truncated, download it again": safetensors_bytes({"a": entry([8], 0, 32)}, bytes(16)),
    "has 4 bytes where its shape and dtype need 8": safetensors_bytes({"a": entry([2], 0, 4)}, bytes(4)),
    "overlap": safetensors_bytes({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "larger than any file": safetensors_bytes({"a": entry([2**40, 2**40], 0, 4)}, bytes(4)),
    "not a natural number": safetensors_bytes({"a": entry([-1], 0, 4)}, bytes(4)),
    "more than 8 dimensions": safetensors_bytes({"a": entry([1] * 9, 0, 4)}, bytes(4)),
    "not described by dtype": safetensors_bytes({"a": {"shape": [1]}}, bytes(4)),
}


@pytest.mark.parametrize("message", BAD_SAFETENSORS)
def test_bad_safetensors(tmp_path, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD_SAFETENSORS[message])
    with pytest.raises(sdltx.ModelFileError, match=message):
        _core.ModelFiles([str(path)])


def gguf_bytes(tensors=b"", n_tensors=0, keys=b"", n_keys=0, version=3, data=b"") -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + keys + tensors
    return head + bytes(-len(head) % 32) + data


def text(s: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(s) if length is None else length) + s


def tensor(name=b"a", dims=(8,), kind=0, offset=0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


BAD_GGUF = {
    "has version 9": gguf_bytes(version=9),
    "at most 32768": gguf_bytes(n_tensors=2**60),
    "ends in the middle of its header": gguf_bytes(keys=text(b"k", 900), n_keys=1),
    "truncated": gguf_bytes(keys=text(b"k", 2**62), n_keys=1),
    "array that is longer than the file": gguf_bytes(keys=text(b"k") + struct.pack("<IIQ", 9, 0, 2**61), n_keys=1),
    "unknown type 77": gguf_bytes(tensor(kind=77), 1, data=bytes(64)),
    "metadata value of unknown type": gguf_bytes(keys=text(b"k") + struct.pack("<I", 99), n_keys=1),
    "at most 4 are possible": gguf_bytes(tensor(dims=(1,) * 5), 1, data=bytes(64)),
    "larger than any file": gguf_bytes(tensor(dims=(2**32, 2**32)), 1),
    "no whole number of blocks": gguf_bytes(tensor(dims=(8,), kind=8), 1, data=bytes(64)),
    "unaligned offset": gguf_bytes(tensor(offset=4), 1, data=bytes(64)),
    "beyond its end": gguf_bytes(tensor(dims=(800,)), 1, data=bytes(64)),
    "twice": gguf_bytes(tensor() + tensor(), 2, data=bytes(64)),
    "expected a power of two": gguf_bytes(keys=text(b"general.alignment") + struct.pack("<II", 4, 3), n_keys=1),
}


@pytest.mark.parametrize("message", BAD_GGUF)
def test_bad_gguf(tmp_path, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(BAD_GGUF[message])
    with pytest.raises(sdltx.ModelFileError, match=message):
        _core.ModelFiles([str(path)])


def test_a_file_cut_off_anywhere_is_an_error(tmp_path):
    whole = {}
    save_file({"a": np.arange(4, dtype=np.float32)}, tmp_path / "x.safetensors")
    write_gguf(tmp_path / "x.gguf", {"a": (np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.F32)})
    for path in (tmp_path / "x.safetensors", tmp_path / "x.gguf"):
        whole[path] = path.read_bytes()
        _core.ModelFiles([str(path)])
        for length in range(len(whole[path])):
            path.write_bytes(whole[path][:length])
            with pytest.raises(sdltx.ModelFileError):
                _core.ModelFiles([str(path)])


@pytest.mark.parametrize("make", [lambda p: p / "absent.safetensors", lambda p: p])
def test_missing_files_and_empty_folders(tmp_path, make):
    with pytest.raises(sdltx.ModelFileError, match=r"cannot open|holds no \.safetensors"):
        _core.ModelFiles([str(make(tmp_path))])


def test_folders_shards_and_index(tmp_path):
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros(1, np.float32)}, tmp_path / "model-2.safetensors")
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "stale.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert sorted(_core.ModelFiles([str(tmp_path)]).names()) == ["a", "b"]
    index["weight_map"]["c"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(sdltx.ModelFileError, match="outside its folder"):
        _core.ModelFiles([str(tmp_path)])


def test_the_same_file_given_twice_is_read_once(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path)
    assert _core.ModelFiles(
        [str(path), str(tmp_path), str(tmp_path / ".." / tmp_path.name / "x.safetensors")]
    ).names() == ["a"]


# --- from files to a model ---


def split_files(tiny_paths: list[str], folder: Path, kind: str) -> list[str]:
    """The tiny checkpoint as the community splits it: transformer (GGUF) and VAE without prefixes, projection apart."""
    source = _core.ModelFiles(tiny_paths[:1])
    config = source.metadata("config")
    parts: dict[str, dict[str, np.ndarray]] = {"dit": {}, "vae": {}, "projection": {}}
    for name in source.names():
        array = source.tensor(name)
        if name.startswith("model.diffusion_model."):
            parts["dit"][name.removeprefix("model.diffusion_model.")] = array
        elif name.startswith("vae."):
            parts["vae"][name.removeprefix("vae.")] = array
        elif name.startswith("text_embedding_projection."):
            parts["projection"][name] = array
    type_ = gguf.GGMLQuantizationType[kind]
    f32 = gguf.GGMLQuantizationType.F32
    tensors = {
        n: (a, type_ if n.endswith("weight") and a.ndim == 2 and a.shape[1] % 32 == 0 else f32)
        for n, a in parts["dit"].items()
    }
    write_gguf(folder / "dit.gguf", tensors, {"config": config, "model_version": "2.3.0"})
    save_file(parts["vae"], folder / "video_vae.safetensors", metadata={"config": config})
    save_file(parts["projection"], folder / "projection.safetensors")
    return [str(folder), tiny_paths[1]]


def latents_of(pipe):
    return pipe.sample(
        pipe.encode("a fox"),
        width=64,
        height=64,
        num_frames=9,
        frame_rate=24,
        num_inference_steps=2,
        preset="distilled",
        seed=3,
    )


def test_split_files_in_any_order_give_the_same_clip(tiny, tiny_paths, tmp_path):
    files = split_files(tiny_paths, tmp_path, "F32")
    pipe = sdltx.load(*reversed(files), precision="f32")
    expected, got = latents_of(tiny), latents_of(pipe)
    assert np.array_equal(got.video, expected.video)
    assert np.array_equal(got.audio, expected.audio)
    assert np.array_equal(pipe.decode(got).frames, tiny.decode(expected).frames)


def test_quantised_gguf_runs_as_stored(tiny, tiny_paths, tmp_path):
    pipe = sdltx.load(*split_files(tiny_paths, tmp_path, "Q8_0"))
    expected, got = latents_of(tiny), latents_of(pipe)
    for kind in ("video", "audio"):
        a, b = getattr(expected, kind).ravel(), getattr(got, kind).ravel()
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        print(f"{kind} cosine {cosine:.5f}")
        assert cosine > 0.999
        assert not np.array_equal(a, b)


@pytest.fixture
def edited(tiny_paths, tmp_path):
    """Writes the tiny checkpoint with some tensors changed (None: left out)."""

    def write(changes: dict[str, np.ndarray | None], metadata: dict[str, str] | None = None, keep: str = "") -> str:
        source = _core.ModelFiles(tiny_paths[:1])
        arrays = {n: source.tensor(n) for n in source.names() if n.startswith(keep)}
        arrays.update({n: a for n, a in changes.items() if a is not None})
        for name in [n for n, a in changes.items() if a is None]:
            del arrays[name]
        path = tmp_path / "edited.safetensors"
        kept = {"config": source.metadata("config"), "model_version": "2.3.0"}
        save_file(arrays, path, metadata=kept if metadata is None else metadata)
        return str(path)

    return write


def test_all_problems_are_reported_together(edited, tiny_paths):
    bias = "model.diffusion_model.transformer_blocks.1.attn1.to_q.bias"
    conv = "vae.decoder.conv_in.conv.weight"
    path = edited({bias: None, conv: np.zeros((4, 4, 3, 3, 3), np.float32)})
    with pytest.raises(sdltx.ModelMismatchError) as error:
        sdltx.load(path, tiny_paths[1])
    assert f"missing {bias} (64)" in str(error.value)
    assert f"misshapen {conv}: expected (32, 8, 3, 3, 3), the file has (4, 4, 3, 3, 3)" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_name_in_two_files_is_an_error(edited, tiny_paths):
    path = edited({}, keep="vae.per_channel")
    two = r"\[video VAE\] .* and .*edited.* both hold its weights.*\(vae\.per_channel_statistics\.mean-of-means"
    with pytest.raises(sdltx.ModelMismatchError, match=two):
        sdltx.load(*tiny_paths, path)


@pytest.mark.parametrize("part, name", [("model.", "transformer"), ("vae.", "video VAE"), ("vocoder.", "vocoder")])
def test_two_files_with_one_part(edited, tiny_paths, part, name):
    with pytest.raises(sdltx.ModelMismatchError, match=f"both hold a {name}; give one") as error:
        sdltx.load(*tiny_paths, edited({}, keep=part))
    assert len(str(error.value)) < 400


def test_a_lora_or_an_upscaler_is_no_model(tiny_paths, tmp_path):
    lora, upscaler = tmp_path / "style.safetensors", tmp_path / "x2.safetensors"
    save_file({"diffusion_model.proj_out.lora_A.weight": np.zeros((4, 4), np.float32)}, lora)
    save_file({n: np.zeros(4, np.float32) for n in ("initial_conv.weight", "upsampler.0.weight")}, upscaler)
    with pytest.raises(sdltx.ModelMismatchError, match=r"style\.safetensors\] is a LoRA"):
        sdltx.load(*tiny_paths, lora)
    with pytest.raises(sdltx.ModelMismatchError, match=r"x2\.safetensors\] is a latent upscaler"):
        sdltx.load(*tiny_paths, upscaler)


def test_in_a_folder_what_is_no_part_is_left_out(tiny_paths, tmp_path, caplog):
    save_file({"x.lora_A.weight": np.zeros((4, 4), np.float32)}, tmp_path / "style.safetensors")
    (tmp_path / "model.safetensors").symlink_to(tiny_paths[0])
    (tmp_path / "._model.safetensors").write_bytes(b"what macOS leaves")
    with caplog.at_level("INFO", "sdltx"):
        sdltx.load(tmp_path, tiny_paths[1])
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("[load]")] == [
        f"[load] not used: {tmp_path / 'style.safetensors'}, which is a LoRA"
    ]


def test_a_file_that_is_not_used_is_reported(tiny_paths, tmp_path, caplog):
    save_file({"something": np.zeros(4, np.float32)}, tmp_path / "other.safetensors")
    sdltx.load(*tiny_paths, tmp_path / "other.safetensors")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", f"[load] not used: {tmp_path / 'other.safetensors'} holds nothing that is needed")
    ]


def test_the_file_of_the_transformer_tells_the_schedule(tiny_paths, edited, tmp_path):
    """Not that of a VAE or a text encoder, whose names may say anything."""
    rest = Path(edited({}, keep="vae.")).rename(tmp_path / "ltx-distilled-vae.safetensors")
    dit = Path(edited({}, keep="model.")).rename(tmp_path / "ltx-dev.safetensors")
    pipe = sdltx.load(dit, rest)
    assert not pipe.info["distilled"]
    pipe.close()
    dit = dit.rename(tmp_path / "LTX-2.3-Distilled.safetensors")
    assert sdltx.load(dit, rest).info["distilled"]


def test_a_checkpoint_beside_shards_is_found(tiny_paths, tmp_path):
    """A folder with an index may hold more than its shards; an older copy of them is not meant."""
    for file in Path(tiny_paths[1]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    names = _core.ModelFiles([str(tmp_path)]).names()
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "ltx.safetensors").symlink_to(tiny_paths[0])
    (tmp_path / "old.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    pipe = sdltx.load(tmp_path)
    assert {"transformer", "text encoder"} <= set(pipe.info["parts"])


def test_empty_tensors_take_no_place(tmp_path):
    header = {"a": entry([2], 0, 4, "F16"), "z": entry([1], 4, 8), "zz": entry([0], 4, 4), "y": entry([0, 3], 0, 0)}
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, bytes(8)))
    assert sorted(_core.ModelFiles([str(tmp_path / "x.safetensors")]).names()) == ["a", "y", "z", "zz"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("where", ["transformer value", "config", "header", "index", "gemma", "tokenizer"])
def test_deep_json_is_damage(edited, tiny_paths, tmp_path, where):
    config = _core.ModelFiles(tiny_paths[:1]).metadata("config")
    if where == "transformer value":
        config = config.replace('"AVTransformer3DModel"', DEEP)
        paths = [edited({}, {"config": config}), tiny_paths[1]]
    elif where == "config":
        paths = [edited({}, {"config": DEEP}), tiny_paths[1]]
    elif where == "header":
        (tmp_path / "deep.safetensors").write_bytes(safetensors_bytes(b'{"a":' + DEEP.encode() + b"}"))
        paths = [tmp_path / "deep.safetensors"]
    elif where == "index":
        (tmp_path / "model.safetensors.index.json").write_text(DEEP)
        paths = [tmp_path]
    else:
        for file in Path(tiny_paths[1]).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        if where == "gemma":
            (tmp_path / "config.json").write_text('{"text_config": ' + DEEP + "}")
        else:
            (tmp_path / "tokenizer.model").unlink()
            (tmp_path / "tokenizer.json").write_text('{"normalizer": ' + DEEP + "}")
        paths = [tiny_paths[0], tmp_path]
    with pytest.raises(sdltx.ModelFileError, match="64 levels deep"):
        sdltx.load(*paths)


@pytest.mark.parametrize("layers", [200, 1024])
def test_many_layers_are_missing_not_too_many(edited, tiny_paths, layers):
    """More tensors are declared than one ggml context of a fixed size would hold."""
    config = json.loads(_core.ModelFiles(tiny_paths[:1]).metadata("config"))
    config["transformer"]["num_layers"] = layers
    with pytest.raises(sdltx.ModelMismatchError, match=r"missing model\.diffusion_model\.transformer_blocks\.3\."):
        sdltx.load(edited({}, {"config": json.dumps(config)}), tiny_paths[1])


def test_an_unreadable_subfolder_is_passed_over(tiny_paths, tmp_path):
    """Such as lost+found of a disk for models. Root reads everything, so for root a dangling link has to do."""
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").symlink_to(tiny_paths[0])
    assert "transformer" in sdltx.load(tmp_path, tiny_paths[1]).info["parts"]


def test_metadata_that_is_not_utf8(tmp_path, tiny_paths):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "ltxv")
    writer.add_key_value("sdltx.note", b"caf\xe9", gguf.GGUFValueType.STRING)
    writer.add_tensor("something", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert sdltx.load(*tiny_paths, tmp_path / "x.gguf").info["note"] == "caf\ufffd"


def gemma_with(tiny_paths, tmp_path, change):
    for file in Path(tiny_paths[1]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["text_config"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_gemma_configurations_of_both_generations_are_the_same_model(tiny, tiny_paths, tmp_path):
    def as_transformers_5(c):
        pattern = c.pop("sliding_window_pattern", 6)
        kinds = ["sliding_attention", "full_attention"]
        c["layer_types"] = [kinds[(i + 1) % pattern == 0] for i in range(c["num_hidden_layers"])]
        full = {"rope_type": "default", "rope_theta": c.pop("rope_theta")}
        if scaling := c.pop("rope_scaling", None):
            full |= scaling
        local = {"rope_type": "default", "rope_theta": c.pop("rope_local_base_freq")}
        c["rope_parameters"] = {"full_attention": full, "sliding_attention": local}

    pipe = sdltx.load(tiny_paths[0], gemma_with(tiny_paths, tmp_path, as_transformers_5), precision="f32")
    assert np.array_equal(pipe.encode("a fox").video, tiny.encode("a fox").video)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(rms_norm_eps=-1), "contradicts itself"),
        (lambda c: c.update(rope_scaling={"rope_type": "yarn", "factor": 8.0}), 'scaling "yarn"'),
        (lambda c: c.update(layer_types=["chunked_attention"] * 6), 'layer type "chunked_attention"'),
        (lambda c: c.update(layer_types=["full_attention"]), "contradicts itself"),
        (lambda c: (c.update(hidden_size=3840), c.pop("rope_scaling", None)), "lacks 'rope_scaling'"),
        (lambda c: c.update(model_type="gemma2"), "the text encoder is Gemma 2"),
        (lambda c: c.update(hidden_activation="relu"), "'hidden_activation' is 'relu'"),
        (lambda c: c.update(num_hidden_layers=1.5), "'num_hidden_layers' has a value of the wrong kind: 1.5"),
        (lambda c: c.update(num_hidden_layers=True), "wrong kind: true"),
        (lambda c: c.update(rms_norm_eps="1e-6"), "wrong kind"),
    ],
)
def test_gemma_configurations_that_are_refused(tiny_paths, tmp_path, change, message):
    with pytest.raises(sdltx.ModelMismatchError, match=message):
        sdltx.load(tiny_paths[0], gemma_with(tiny_paths, tmp_path, change))


def test_a_part_alone_is_named(edited, tiny_paths):
    pipe = sdltx.load(edited({}, keep="vae."))
    assert pipe.info["parts"] == ["video decoder", "video encoder"]
    with pytest.raises(sdltx.ModelMismatchError, match=r"not among the files: .*text encoder"):
        pipe.encode("a fox")
    with pytest.raises(sdltx.ModelMismatchError, match="text encoder but no part of LTX-2"):
        sdltx.load(tiny_paths[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": None}, "lacks 'num_attention_heads'"),
        ({"rope_type": "interleaved"}, 'only "split" is implemented'),
        ({"apply_gated_attention": False}, "'apply_gated_attention' contradicts the weights"),
        ({"cross_attention_adaln": False}, "'cross_attention_adaln' contradicts the weights"),
        ({"caption_proj_input_norm": True}, "'caption_proj_before_connector' is true beside other keys"),
        ({"connector_ff_bias": False}, "connector_ff_bias"),
        ({"num_layers": "many"}, "wrong kind"),
        ({"num_layers": -3}, "not between 1 and"),
        ({"num_layers": 4}, "missing model.diffusion_model.transformer_blocks.3."),
    ],
)
def test_configurations_that_do_not_fit(edited, tiny_paths, change, message):
    config = json.loads(_core.ModelFiles(tiny_paths[:1]).metadata("config"))
    for key, value in change.items():
        config["transformer"][key] = value
        if value is None:
            del config["transformer"][key]
    with pytest.raises(sdltx.ModelMismatchError, match=message):
        sdltx.load(edited({}, {"config": json.dumps(config)}), tiny_paths[1])
