"""Model files in other types and layouts: what is written, how good it is, and that nothing half-written stays."""

from __future__ import annotations

import json
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import real_layout
import wide_rows
from commands import errors, names, read_safetensors, run, write_safetensors
from real_layout import DIT
from test_wild_files import fingerprint

import sdltx
from sdltx import _core, conversion

CHECKPOINT = "tiny-ltx-2.3.safetensors"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return wide_rows.write(tmp_path_factory.mktemp("wide") / "wide.safetensors")


@pytest.fixture(scope="module")
def converted(tmp_path_factory, wide):
    """The wide model as a GGUF of each type, made once."""
    folder = tmp_path_factory.mktemp("converted")

    def convert(kind, **options):
        path = folder / f"{kind}{'-'.join(options)}.gguf"
        if not path.exists():
            sdltx.convert(wide, output=path, type=kind, **options)
        return path

    return convert


@pytest.fixture(scope="module")
def imatrix(tmp_path_factory, wide):
    """Importance of all columns of the wide model, in llama.cpp's older format: every fourth counts."""
    header, _ = read_safetensors(wide)
    entries = {
        name.removeprefix(DIT): entry["shape"][-1]
        for name, entry in header.items()
        if ".transformer_blocks." in name and len(entry["shape"]) == 2
    }
    data = struct.pack("<i", len(entries))
    for name, columns in entries.items():
        values = np.where(np.arange(columns) % 4 == 0, 100, 1e-3).astype(np.float32)
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, columns) + values.tobytes()
    path = tmp_path_factory.mktemp("imatrix") / "imatrix.dat"
    path.write_bytes(data)
    return path


def velocities(path, precision="auto"):
    """Of both streams, for fixed random inputs."""
    rng = np.random.default_rng(3)
    sizes = {"video": (72, 8, 512), "audio": (9, 32, 256)}
    positions = {"video": _core.video_positions(3, 4, 6, 24.0), "audio": _core.audio_positions(9)}
    streams = [
        {
            "tokens": rng.standard_normal((tokens, channels), dtype=np.float32),
            "timesteps": np.full(tokens, 0.7, np.float32),
            "positions": positions[kind],
            "context": rng.standard_normal((96, width), dtype=np.float32),
        }
        for kind, (tokens, channels, width) in sizes.items()
    ]
    with sdltx.load(path, precision=precision) as pipe:
        return pipe._core.velocity(*streams, sigma=0.7)


def cosine(a, b):
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# --- quality ---

LEAST_COSINE = {
    kind: least
    for least, kinds in (
        (0.9995, "q8_0"),
        (0.999, "q6_k q5_k_m q5_k_s q5_1 q5_0"),
        (0.99, "q4_k_m q4_k_s q4_1 q4_0 iq4_nl iq4_xs mxfp4 nvfp4 q3_k_m q3_k_s"),
        (0.98, "iq3_s iq3_xxs"),
        (0.97, "q2_k iq2_s"),
    )
    for kind in kinds.split()
}


@pytest.mark.by_day(3)
@pytest.mark.parametrize("kind", LEAST_COSINE)
def test_velocities_of_every_type(converted, wide, kind):
    exact, got = velocities(wide, "f32"), velocities(converted(kind))
    found = [cosine(a, b) for a, b in zip(exact, got, strict=True)]
    print(f"{kind}: {found[0]:.6f} {found[1]:.6f}")
    assert min(found) >= LEAST_COSINE[kind]
    # As stored: next to nothing is lost against float32 arithmetic on the same weights.
    for a, b in zip(velocities(converted(kind), "f32"), got, strict=True):
        assert np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-2


@pytest.mark.by_day(3)
@pytest.mark.parametrize("kind", LEAST_COSINE)
def test_quantised_weights_are_used_as_they_are_stored(converted, kind):
    path = converted(kind)
    with sdltx.load(path) as pipe:
        pipe._core.velocity(
            *(
                {
                    "tokens": np.zeros((4, channels), np.float32),
                    "timesteps": np.zeros(4, np.float32),
                    "positions": positions,
                    "context": np.zeros((2, width), np.float32),
                }
                for channels, positions, width in (
                    (8, _core.video_positions(1, 2, 2, 24.0), 512),
                    (32, _core.audio_positions(4), 256),
                )
            ),
            sigma=0.5,
        )
        (memory,) = pipe.memory()
    quantised = sum(
        t.bytes for t in sdltx.inspect(path).tensors if t.part == "transformer" and t.type not in ("F32", "F16", "BF16")
    )
    assert quantised > 3_000_000
    assert memory["mapped"] >= quantised  # no copy of any of them


@pytest.mark.by_day(3)
@pytest.mark.parametrize("kind", [k for k in LEAST_COSINE if k not in ("mxfp4", "nvfp4")])
def test_other_readers_see_the_same_values(converted, kind):
    """The Python package gguf reads what is written as we do."""
    path = converted(kind)
    ours = _core.ModelFiles([str(path)])
    seen = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if "transformer_blocks.1." not in tensor.name or ".weight" not in tensor.name:
            continue
        theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
        got = ours.tensor(DIT + tensor.name).reshape(theirs.shape)
        assert np.allclose(got, theirs, rtol=1e-5, atol=1e-7), tensor.name
        seen += 1
    assert seen > 30


@pytest.mark.by_day(1)
def test_an_imatrix_moves_the_error(converted, wide, imatrix, tmp_path):
    name = DIT + "transformer_blocks.1.ff.net.0.proj.weight"
    exact = _core.ModelFiles([wide]).tensor(name)
    plain = _core.ModelFiles([str(converted("q4_k_s"))]).tensor(name)
    newer = tmp_path / "imatrix.gguf"
    writer = gguf.GGUFWriter(newer, "")
    writer.add_string("general.type", "imatrix")
    importance = np.where(np.arange(512) % 4 == 0, 200, 2e-3).astype(np.float32)
    writer.add_tensor(f"{name.removeprefix(DIT)}.in_sum2", importance.reshape(1, -1))
    writer.add_tensor(f"{name.removeprefix(DIT)}.counts", np.full((1, 1), 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = []
    for number, file in enumerate((imatrix, newer)):
        path = tmp_path / f"{number}.gguf"
        sdltx.convert(wide, output=path, type="q4_k_s", imatrix=file)
        tensors.append(_core.ModelFiles([str(path)]).tensor(name))
    assert np.array_equal(*tensors)
    before, after = (np.square(t - exact)[:, ::4].sum() for t in (plain, tensors[0]))
    assert after < 0.8 * before


def with_imatrix(imatrix):
    """Options of types that take their time: for one block only."""
    return {"imatrix": imatrix, "tensor_types": {"transformer_blocks.1.*": "q8_0"}}


@pytest.mark.by_day(0)
@pytest.mark.parametrize("kind", ["iq2_xs", "iq2_xxs"])
def test_types_that_need_an_imatrix(wide, imatrix, tmp_path, kind, converted):
    with pytest.raises(sdltx.InvalidRequestError, match=f"{kind} needs an imatrix"):
        sdltx.convert(wide, output=tmp_path / "x.gguf", type=kind)
    path = converted(kind, **with_imatrix(imatrix))
    exact, got = velocities(wide, "f32"), velocities(path)
    assert min(cosine(a, b) for a, b in zip(exact, got, strict=True)) > 0.8


# --- which type ---


def test_what_stays_exact(converted):
    types = {t.name.removeprefix(DIT): t.type for t in sdltx.inspect(converted("q4_k_m")).tensors}
    for name, kind in types.items():
        # Programs that replace linear layers read other parameters as F32 only.
        if re.search("scale_shift_table|learnable_registers", name) or name.endswith((".bias", "_norm.weight")):
            assert kind == "F32", name
        elif re.search("to_gate_logits|adaln|patchify|proj_out", name):
            assert kind == "BF16", name
        elif "_connector." in name:
            assert kind == "Q8_0", name
        else:
            assert kind in ("Q4_K", "Q6_K"), name
            if kind == "Q6_K":
                assert re.search(r"\.to_v\.weight|\.net\.2\.weight", name)


def test_types_of_single_tensors(wide, tmp_path):
    rules = {"*.1.attn1.to_q.weight": "f32", "*.attn1.to_q.weight": "Q6_K", DIT + "proj_out.weight": "f16"}
    (path,) = sdltx.convert(wide, output=tmp_path / "x.gguf", type="q4_0", tensor_types=rules)
    types = {t.name.removeprefix(DIT): t.type for t in sdltx.inspect(path).tensors}
    assert [types[f"transformer_blocks.{i}.attn1.to_q.weight"] for i in range(2)] == ["Q6_K", "F32"]
    assert types["proj_out.weight"] == "F16"
    done = run("convert", wide, tmp_path / "y.gguf", "--type", "q8_0", "--tensor-type", "*.ff.*=q4_k", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Q4_K 12" in done.stdout  # of the connectors too, and no bias
    assert not (tmp_path / "y.gguf").exists()


def test_rows_that_are_no_whole_blocks(tiny_paths, tmp_path):
    """The tiny model has rows of 32 to 256: what does not fit gets a type of smaller blocks."""
    for kind, fallback in (("q6_k", "Q8_0"), ("q5_k_s", "Q5_1"), ("q4_k_s", "Q5_0"), ("q2_k", "IQ4_NL")):
        (path,) = sdltx.convert(tiny_paths[0], output=tmp_path / f"{kind}.gguf", type=kind)
        types = {t.name: t.type for t in sdltx.inspect(path).tensors}
        assert types[DIT + "transformer_blocks.0.attn1.to_q.weight"] == fallback


# --- layouts ---


def contents(*paths):
    """Names, types, shapes and bytes."""
    found = {}
    for path in paths:
        header, blob = read_safetensors(path)
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], entry["shape"], blob[begin:end])
    return found


def test_one_file_to_parts_and_back(tiny_paths, tmp_path):
    parts = sdltx.convert(tiny_paths[0], output=f"{tmp_path / 'parts'}/", type="keep")
    assert [path.name for path in parts] == [
        f"{part}.safetensors" for part in ("transformer", "text_projection", "video_vae", "audio_vae")
    ]
    bare = contents(tmp_path / "parts" / "video_vae.safetensors")
    assert {name.split(".")[0] for name in bare} == {"encoder", "decoder", "per_channel_statistics"}
    (whole,) = sdltx.convert(tmp_path / "parts", output=tmp_path / "whole.safetensors", type="keep")
    assert contents(whole) == contents(tiny_paths[0])
    before, after = (read_safetensors(path)[0]["__metadata__"] for path in (tiny_paths[0], whole))
    assert after == before | {"format": "pt"}  # which transformers wants
    expected = fingerprint(*tiny_paths)
    assert fingerprint(tmp_path / "parts", tiny_paths[1]) == expected
    assert fingerprint(whole, tiny_paths[1]) == expected


def test_everything_in_one_gguf(tiny_paths, tmp_path):
    """Kernels of five axes keep their shape beside the four that a GGUF has."""
    (path,) = sdltx.convert(tiny_paths[0], output=tmp_path / "all.gguf", type="f32", parts=conversion.PARTS[:4])
    assert fingerprint(path, tiny_paths[1]) == fingerprint(*tiny_paths)
    (back,) = sdltx.convert(path, output=tmp_path / "back.safetensors", type="bf16")
    original, returned = contents(tiny_paths[0]), contents(back)
    assert {n: s for n, (_, s, _) in returned.items()} == {n: s for n, (_, s, _) in original.items()}


def test_a_quantised_model_keeps_its_bytes(converted, tmp_path):
    (path,) = sdltx.convert(converted("q4_k_m"), output=tmp_path / "again.gguf", type="keep")
    assert path.read_bytes()[-1_000_000:] == converted("q4_k_m").read_bytes()[-1_000_000:]
    assert sdltx.inspect(path).parts == sdltx.inspect(converted("q4_k_m")).parts
    (path,) = sdltx.convert(converted("q4_k_m"), output=tmp_path / "floats.safetensors", type="keep")
    assert {t.type for t in sdltx.inspect(path).tensors} == {"BF16", "F32"}


def test_fp8_becomes_what_it_stands_for(tiny_paths, tmp_path):
    from test_wild_files import write_fp8

    meant = write_fp8(tmp_path / "fp8.safetensors", tiny_paths[0], "F8_E4M3", "weight_scale", True)
    (path,) = sdltx.convert(tmp_path / "fp8.safetensors", output=tmp_path / "x.gguf", type="f32")
    files = _core.ModelFiles([str(path)])
    assert not [name for name in files.names() if "scale" in name and "scale_shift" not in name]
    for name, values in meant.items():
        assert np.array_equal(files.tensor(name), values)


@pytest.mark.by_day(0)
def test_threads_do_not_matter(wide, converted, tmp_path):
    for threads in (1, 3):
        (path,) = sdltx.convert(wide, output=tmp_path / f"{threads}.gguf", type="q4_k_m", threads=threads)
        assert path.read_bytes() == converted("q4_k_m").read_bytes()


def test_names_and_keys_are_those_of_the_community(tiny_paths, tmp_path):
    """What ComfyUI-GGUF and stable-diffusion.cpp look at: the architecture, bare names of at most 127 bytes, at most
    four axes, file and quantisation version as u32, everything else text."""
    source = tmp_path / "ltx-2.3-22b-distilled.safetensors"
    header, blob = read_safetensors(tiny_paths[0])
    header["__metadata__"] |= {"license": "x" * 40_000, "format": "pt"}
    write_safetensors(source, header, blob)
    (path,) = sdltx.convert(source, output=tmp_path / "renamed.gguf", type="q4_k_m")
    reader = gguf.GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert keys.pop("config") == header["__metadata__"]["config"]
    assert keys == {
        "general.architecture": "ltxv",
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_Q4_K_M),
        "general.quantization_version": 2,
        "general.name": "LTX-2.3",
        "general.quantized_by": f"sdltx {sdltx.__version__}",
        "license": "x" * 40_000,
        "model_version": "2.3.0",
        "sdltx.defaults": '{"distilled": true}',
    }
    for key in ("general.file_type", "general.quantization_version"):
        assert reader.fields[key].types == [gguf.GGUFValueType.UINT32]
    expected = {name.removeprefix(DIT) for name in header if name.startswith(DIT)}
    assert {tensor.name for tensor in reader.tensors} == expected
    assert max(len(name) for name in real_layout.manifest("ltx-2.3-22b")["tensors"]) < 128
    for tensor in reader.tensors:
        assert tensor.data_offset % 32 == 0
        assert len(tensor.shape) <= 4
    # The name no longer says what it is, so the file does.
    assert sdltx.inspect(path).distilled


@pytest.mark.by_day(4)
@pytest.mark.parametrize("kind", conversion.TYPES[1:])
def test_file_types_are_those_of_llama(converted, imatrix, kind, wide, tmp_path):
    names = {"f32": "ALL_F32", "mxfp4": "MOSTLY_MXFP4_MOE", "nvfp4": "MOSTLY_NVFP4"}
    name = names.get(kind, f"MOSTLY_{kind.upper()}")
    if not hasattr(gguf.LlamaFileType, name):
        pytest.fail(f"gguf does not know {name}")
    path = converted(kind, **with_imatrix(imatrix)) if kind.startswith("iq2_x") else converted(kind)
    field = gguf.GGUFReader(path).fields["general.file_type"]
    assert field.contents() == getattr(gguf.LlamaFileType, name)


# --- size ---


def test_the_release_as_a_plan(tmp_path):
    """4,444 tensors as the community's files have them, planned without reading a weight."""
    path = real_layout.write_checkpoint(tmp_path / "ltx-2.3-22b-distilled.safetensors")
    (file,) = conversion.Plan(path, output=tmp_path / "x.gguf", type="q4_k_m").files
    assert file.types == {"F32": 2672, "Q4_K": 1152, "Q6_K": 192, "Q8_0": 96, "BF16": 332}
    assert file.bytes == pytest.approx(14.38e9, rel=1e-3)
    plan = conversion.Plan(path, output=f"{tmp_path}/parts/", type="keep")
    assert sum(file.tensors for file in plan.files) == 5947
    assert names(tmp_path) == [path.name]


def write_one_block(path: Path) -> Path:
    """The widths of the release with one block instead of 48, and one of each connector."""
    real = real_layout.manifest("ltx-2.3-22b")
    config = real["config"]
    config["transformer"] |= {"num_layers": 1, "connector_num_layers": 1}

    def first(name):
        return not re.search(r"transformer_(1d_)?blocks\.[1-9]", name) and name.startswith(DIT)

    tensors = {name: shape for name, shape in real["tensors"].items() if first(name)}
    metadata = {"config": json.dumps(config), "model_version": "2.3.0"}
    return real_layout.write_sparse(path, tensors, dict.fromkeys(real["f32"], "F32"), metadata)


@pytest.mark.by_day(0)
@pytest.mark.parametrize("kind", ["q4_k_m", "keep"])
def test_memory_does_not_grow_with_the_model(tmp_path, kind):
    """A block of the real widths, 2 GB: far less is held, pages of the source included."""
    source = write_one_block(tmp_path / "block.safetensors")
    code = (
        "import re, sys, sdltx\n"
        "sdltx.convert(sys.argv[1], output=sys.argv[2], type=sys.argv[3])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, tmp_path / "out.gguf", kind], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    size = source.stat().st_size
    print(f"{kind}: {int(done.stdout) / 1e6:.2f} GB held for {size / 1e9:.2f} GB")
    assert size > 1.9e9
    assert int(done.stdout) * 1024 < 400e6


# --- errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "q9_9"}, "type 'q9_9' is unknown; use one of keep, f32"),
        ({"type": 3}, "type"),
        ({"output": "x.bin"}, r"x\.bin is none of \.gguf, \.safetensors and a folder"),
        ({"output": "x.safetensors", "type": "q8_0"}, "safetensors files hold f32, f16 and bf16 and not q8_0"),
        ({"tensor_types": {"*.nothing": "q8_0"}}, r"no matrix that is converted is called '\*\.nothing'"),
        ({"tensor_types": {"*": "q9"}}, "there is no type 'q9' for a tensor"),
        ({"tensor_types": ["*"]}, "tensor_types"),
        ({"parts": ["engine"]}, "there is no part 'engine'; use transformer, text_projection"),
        ({"parts": "transformer"}, "parts"),
        ({"threads": "many"}, "threads"),
    ],
)
def test_bad_requests_are_refused_before_work(tiny_paths, tmp_path, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        sdltx.convert(tiny_paths[0], **{"output": "x.gguf", "type": "q8_0", **options})
    assert not names(tmp_path)


def test_bad_sources_are_refused_before_work(tiny_paths, tmp_path, converted, wide, imatrix):
    out = tmp_path / "out"
    out.mkdir()
    header, blob = read_safetensors(tiny_paths[0])
    del header[DIT + "proj_out.weight"]
    incomplete = write_safetensors(tmp_path / "m.safetensors", header, blob)
    with pytest.raises(sdltx.ModelMismatchError, match=r"missing model\.diffusion_model\.proj_out\.weight"):
        sdltx.convert(incomplete, output=out / "x.gguf")
    with pytest.raises(sdltx.ModelMismatchError, match="the files hold a text encoder but no part"):
        sdltx.convert(tiny_paths[1], output=out / "x.gguf")
    with pytest.raises(sdltx.ModelMismatchError, match="the files hold no video_vae"):
        sdltx.convert(wide, output=out / "x.gguf", parts=["video_vae"])
    with pytest.raises(sdltx.ModelMismatchError, match="both hold a transformer"):
        sdltx.convert(wide, converted("q8_0"), output=out / "x.gguf")
    with pytest.raises(sdltx.ModelMismatchError, match=r"imatrix has \d+ values for .* it is of another model"):
        sdltx.convert(tiny_paths[0], output=out / "x.gguf", type="q4_0", imatrix=imatrix)
    with pytest.raises(sdltx.ModelFileError, match="is no imatrix"):
        sdltx.convert(wide, output=out / "x.gguf", imatrix=tiny_paths[0])
    with pytest.raises(sdltx.ModelFileError, match="is a GGUF but no imatrix"):
        sdltx.convert(wide, output=out / "x.gguf", imatrix=converted("q8_0"))
    for end in (3, 100, imatrix.stat().st_size - 1):
        (tmp_path / "cut.dat").write_bytes(imatrix.read_bytes()[:end])
        with pytest.raises(sdltx.ModelFileError, match="is no imatrix"):
            sdltx.convert(wide, output=out / "x.gguf", imatrix=tmp_path / "cut.dat")
    assert not names(out)


@pytest.mark.parametrize("layout", ["file", "folder", "link"])
def test_an_input_is_never_the_output(tiny_paths, tmp_path, layout):
    folder = tmp_path / "model"
    sdltx.convert(tiny_paths[0], output=f"{folder}/", type="q8_0")
    source = folder / "transformer.gguf"
    before = source.read_bytes()
    output = {"file": source, "folder": folder, "link": tmp_path / "link.gguf"}[layout]
    if layout == "link":
        output.symlink_to(source)
    with pytest.raises(sdltx.InvalidRequestError, match="is also an input"):
        sdltx.convert(folder, output=output, type="q4_0")
    assert source.read_bytes() == before


def test_values_that_are_not_finite(tiny_paths, tmp_path):
    header, blob = read_safetensors(tiny_paths[0])
    at = header[DIT + "transformer_blocks.1.ff.net.2.weight"]["data_offsets"][0] + 64
    damaged = write_safetensors(tmp_path / "m.safetensors", header, blob[:at] + b"\xc0\x7f" + blob[at + 2 :])
    with pytest.raises(sdltx.ModelFileError, match=r"transformer_blocks\.1\.ff\.net\.2\.weight' holds values that are"):
        sdltx.convert(damaged, output=tmp_path / "x.gguf", type="q4_0")
    assert names(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize("output", ["x.gguf", "folder/"])
def test_a_full_disk_leaves_nothing(tiny_paths, tmp_path, output):
    code = (
        "import resource, sys, sdltx\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "sdltx.convert(sys.argv[1], output=sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_paths[0], f"{tmp_path}/{output}"], capture_output=True, text=True, timeout=60
    )
    assert "BackendError: [convert] cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert not names(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


def test_a_stopped_conversion_leaves_nothing(wide, tmp_path):
    def stop(phase, done, total):
        assert phase == "convert"
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sdltx.convert(wide, output=tmp_path / "x.gguf", type="q4_k_m", progress=stop)
    with pytest.raises(KeyboardInterrupt):
        sdltx.convert(wide, output=f"{tmp_path}/folder/", type="q4_k_m", progress=stop)
    assert not names(tmp_path)


def test_a_converted_file_that_is_cut(converted, tmp_path):
    """Anywhere: in the header, between the tensors, in the last of them."""
    data = converted("q4_k_m").read_bytes()
    cut = tmp_path / "cut.gguf"
    for end in (*range(0, 4000, 331), *np.linspace(4000, len(data) - 33, 25, dtype=int)):
        cut.write_bytes(data[:end])
        with pytest.raises(sdltx.ModelFileError):
            sdltx.load(cut)


def test_on_the_command_line(tiny_paths, tmp_path):
    done = run("convert", *tiny_paths, f"{tmp_path}/q8/", "--type", "Q8_0", "-v")
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path}/q8/transformer.gguf: 382 tensors" in done.stderr
    assert "convert" in done.stderr
    done = run("inspect", f"{tmp_path}/q8", tiny_paths[1])
    assert done.returncode == 0, done.stderr
    assert "not among the files" not in done.stdout
    done = run("convert", tiny_paths[0], tmp_path / "x.gguf", "--type", "q99")
    assert (done.returncode, len(errors(done))) == (2, 1)
    done = run("convert", tiny_paths[0], tmp_path / "x.gguf", "--type", "q8_0", "--tensor-type", "x")
    assert "is no PATTERN=TYPE" in done.stderr
