"""What model files are is told without loading them, and everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
import real_layout
from commands import errors, read_safetensors, run, write_safetensors
from real_layout import DIT

import sdltx
from sdltx import inspection

RUN = ("text encoder", "text projection", "transformer", "video decoder", "audio decoder", "vocoder")


def parts(report):
    return {part.part: part for part in report.parts}


def test_the_tiny_model(tiny_paths):
    report = sdltx.inspect(*tiny_paths)
    assert (report.model, report.version, report.distilled, report.preset) == ("LTX-2.3", "2.3.0", False, "dev")
    assert not report.missing
    assert not report.problems
    assert not report.unexpected
    assert [part.part for part in report.parts if part.used] == [*RUN, "video encoder", "audio encoder"]
    assert {part.part for part in report.parts if not part.used} == {"vision tower"}
    for part in report.parts:
        mine = [tensor for tensor in report.tensors if tensor.part == part.part]
        assert (part.tensors, part.bytes) == (len(mine), sum(tensor.bytes for tensor in mine))
        assert part.types == {"BF16": (part.tensors, part.bytes)}
    header, _ = read_safetensors(tiny_paths[0])
    assert report.files[0].metadata["model_version"] == header["__metadata__"]["model_version"]
    assert {t.stored_name: list(t.shape) for t in report.tensors if t.file == 0} == {
        name: entry["shape"] for name, entry in header.items() if name != "__metadata__"
    }


def test_the_built_in_model_on_the_command_line():
    demo = Path(sdltx.__file__).parent / "demo"
    done = run("inspect", demo, "--tensors")
    assert done.returncode == 0, done.stderr
    for line in ("LTX-2.3, version", "note: ", "transformer ", "transformer_blocks.0.attn1.to_q.weight  ["):
        assert line in done.stdout


def test_json_and_checksums(tiny_paths, tmp_path):
    done = run("inspect", tiny_paths[0], "--json", "--sha256")
    found = json.loads(done.stdout)
    assert found["missing"] == ["text encoder"]
    assert found["files"][0]["sha256"] == hashlib.sha256(Path(tiny_paths[0]).read_bytes()).hexdigest()
    seen = []
    report = sdltx.inspect(tiny_paths[0], sha256=True, progress=lambda *event: seen.append(event))
    assert json.loads(json.dumps(report.to_dict())) == found
    assert seen[-1] == ("checksum", report.files[0].bytes, report.files[0].bytes)


# --- at the size of the release ---


def timed(*paths):
    start = time.monotonic()
    report = sdltx.inspect(*paths)
    print(f"{time.monotonic() - start:.2f} s for {inspection.size_text(sum(f.bytes for f in report.files))}")
    return report


@pytest.mark.parametrize(
    ("model", "tensors", "of_transformer", "of_projection", "parameters"),
    [("ltx-2.3-22b", 5947, 4444, 4, 18.98e9), ("ltx-2.0-19b", 4049, 3568, 1, 18.83e9)],
)
@pytest.mark.parametrize("configured", [True, False])
def test_the_releases(tmp_path, tiny_paths, model, tensors, of_transformer, of_projection, parameters, configured):
    """Every name in 46 GB with a place, also where no configuration says so; and Gemma's 626."""
    path = real_layout.write_checkpoint(tmp_path / f"{model}-dev.safetensors", model=model)
    if not configured:
        real = real_layout.manifest(model)
        real_layout.write_sparse(path, real["tensors"], dict.fromkeys(real["f32"], "F32"))
    report = timed(path)
    assert not report.problems
    assert not report.unexpected
    assert report.missing == ("text encoder",)
    assert report.model == f"LTX-{model.split('-')[1]}"
    assert len(report.tensors) == tensors
    found = parts(report)
    assert found["transformer"].tensors + found["text projection"].tensors - of_projection == of_transformer
    assert "other" not in found
    assert found["transformer"].parameters == pytest.approx(parameters, rel=0.01)

    gemma_tensors = real_layout.manifest("gemma-3-12b-it")["tensors"]
    gemma = tmp_path / "gemma"
    gemma.mkdir()
    real_layout.write_sparse(gemma / "model.safetensors", gemma_tensors)
    (gemma / "tokenizer.model").write_bytes((Path(tiny_paths[1]) / "tokenizer.model").read_bytes())
    report = timed(path, gemma)
    assert (report.problems, report.unexpected, report.missing) == ((), (), ())
    assert parts(report)["text encoder"].tensors == 626


def test_the_fp8_release(tmp_path):
    report = timed(real_layout.write_fp8(tmp_path / "ltx-2.3-22b-distilled-fp8.safetensors"))
    assert (report.problems, report.unexpected, report.missing) == ((), (), ("text encoder",))
    assert report.distilled
    assert parts(report)["transformer"].types["F8_E4M3"][0] == 46 * 28
    assert len(report.tensors) == 5947 + 2 * 46 * 28


def test_a_community_gguf(tmp_path):
    """The histogram of types of QuantStack's Q4_K_M: gates quantised, connectors BF16, everything else F32."""
    config = real_layout.manifest("ltx-2.3-22b")["config"]
    types = {}
    for name, shape in real_layout.manifest("ltx-2.3-22b")["tensors"].items():
        if not name.startswith(DIT):
            continue
        name = name.removeprefix(DIT)
        if name.startswith("transformer_blocks.") and len(shape) == 2 and name.endswith(".weight"):
            number = int(name.split(".")[1])
            six = name.endswith((".to_v.weight", ".net.2.weight")) and (number < 20 or number % 3 == 0)
            types[name] = "Q6_K" if six else "Q5_K" if "to_gate" in name and number < 12 else "Q4_K"
        else:
            block = re.search(r"_connector\.transformer_1d_blocks", name)
            types[name] = "BF16" if block and len(shape) == 2 else "F32"
    counts = {kind: list(types.values()).count(kind) for kind in set(types.values())}
    # Of the 1,632 that are quantised there 1,242 are Q4_K, 68 Q5_K and 322 Q6_K.
    for kind, wanted in (("Q6_K", 322), ("Q5_K", 68)):
        for name in [n for n, t in types.items() if t == "Q4_K"][: max(0, wanted - counts[kind])]:
            types[name] = kind
        for name in [n for n, t in types.items() if t == kind][wanted:]:
            types[name] = "Q4_K"
    path = real_layout.write_gguf(
        tmp_path / "LTX-2.3-22B-distilled-1.1-Q4_K_M.gguf", types, {"config": json.dumps(config)}
    )
    report = timed(path)
    assert not report.problems
    assert not report.unexpected
    assert len(report.tensors) == 4444
    found = {}
    for part in report.parts:
        for kind, (count, _) in part.types.items():
            found[kind] = found.get(kind, 0) + count
    assert found == {"Q4_K": 1242, "Q5_K": 68, "Q6_K": 322, "BF16": 112, "F32": 2700}
    assert set(report.missing) == {"text encoder", "video decoder", "audio decoder", "vocoder"}


# --- what is wrong ---


def test_every_problem_at_once(tmp_path, tiny_paths):
    header, blob = read_safetensors(tiny_paths[0])
    del header[DIT + "audio_proj_out.weight"]
    header["vae.decoder.conv_in.conv.weight"]["shape"][0] //= 2
    header["vae.decoder.conv_in.conv.weight"]["shape"][1] *= 2
    header["vocoder.vocoder.surplus"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    damaged = write_safetensors(tmp_path / "m.safetensors", header, blob)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(tiny_paths[0]).read_bytes()[:50_000])
    empty = tmp_path / "empty.gguf"
    empty.touch()
    report = sdltx.inspect(damaged, cut, empty, tmp_path / "none.gguf")
    text = "\n".join(report.problems)
    for part in (
        f"missing {DIT}audio_proj_out.weight",
        "misshapen vae.decoder.conv_in.conv.weight",
        "cut.safetensors] ",
        "empty.gguf] the file is empty",
        "none.gguf] cannot open the file",
    ):
        assert part in text
    assert report.unexpected == ("vocoder.vocoder.surplus",)
    done = run("inspect", damaged, cut)
    assert done.returncode == 4
    assert done.stdout.count("problem: ") == 3
    assert errors(done) == [
        "error: [inspect] 3 problems, see above; such files are not loaded together",
    ]


def test_two_of_a_part_and_additions(tmp_path, tiny_paths, tiny_dir):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(tiny_paths[0]).read_bytes())
    report = sdltx.inspect(tiny_paths[0], copy)
    assert sum("both hold a" in problem for problem in report.problems) == 4
    header = {"x.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    lora = write_safetensors(tmp_path / "lora.safetensors", header, b"1234")
    report = sdltx.inspect(lora)
    assert [(file.kind, file.tensors) for file in report.files] == [("a LoRA", 1)]


def test_configurations_of_other_kinds(tmp_path, tiny_paths):
    header, blob = read_safetensors(tiny_paths[0])
    config = json.loads(header["__metadata__"]["config"])
    config["transformer"]["rope_type"] = "interleaved"
    config["vae"]["norm_layer"] = "group_norm"
    header["__metadata__"]["config"] = json.dumps(config)
    report = sdltx.inspect(write_safetensors(tmp_path / "m.safetensors", header, blob))
    assert any("'rope_type' is \"interleaved\"" in problem for problem in report.problems)
    assert any("'norm_layer' is \"group_norm\"" in problem for problem in report.problems)
    assert report.model is None


def test_companions_of_another_variant_are_doubted(tmp_path, tiny_paths, caplog):
    header, blob = read_safetensors(tiny_paths[0])
    metadata = header.pop("__metadata__")
    dit = {name: entry for name, entry in header.items() if name.startswith(DIT)}
    rest = {name: entry for name, entry in header.items() if not name.startswith(DIT)}
    one = write_safetensors(tmp_path / "ltx-2.3-22b-dev.safetensors", {"__metadata__": metadata, **dit}, blob)
    other = write_safetensors(
        tmp_path / "ltx-2.3-distilled_rest.safetensors",
        {"__metadata__": {**metadata, "model_version": "2.0.0"}, **rest},
        blob,
    )
    report = sdltx.inspect(one, other)
    assert not report.problems
    assert [re.sub(r"\S+/", "", doubt) for doubt in report.doubts] == [
        "[load] by their names ltx-2.3-22b-dev.safetensors is not distilled and ltx-2.3-distilled_rest.safetensors is "
        "distilled; use parts of the same model",
        "[load] ltx-2.3-22b-dev.safetensors is of LTX-2.3 and ltx-2.3-distilled_rest.safetensors of LTX-2.0; use parts "
        "of the same model",
    ]
    with sdltx.load(one, other):
        pass
    for doubt in report.doubts:
        assert doubt in caplog.text


def write_parts(path, source, wanted):
    header, blob = read_safetensors(source)
    kept = {name: entry for name, entry in header.items() if name == "__metadata__" or wanted(name)}
    return write_safetensors(path, kept, blob)


def test_parts_of_two_generations(tmp_path, tiny_paths):
    """Told by the tensors, whatever the metadata says."""
    of_2_0 = tiny_paths[0].replace("tiny-a", "tiny-ltx2").replace("2.3", "2")
    dit = write_parts(tmp_path / "dit.safetensors", tiny_paths[0], lambda name: name.startswith(DIT))
    rest = write_parts(tmp_path / "rest.safetensors", of_2_0, lambda name: not name.startswith((DIT, "text_")))
    report = sdltx.inspect(dit, rest)
    assert not report.problems
    for part in ("video decoder", "vocoder"):
        assert any(f"the {part} is of LTX-2.0 and the transformer of LTX-2.3" in doubt for doubt in report.doubts)
    projection = write_parts(tmp_path / "p.safetensors", of_2_0, lambda name: name.startswith("text_"))
    report = sdltx.inspect(dit, projection)
    assert any("the text projection is of LTX-2.0 and the transformer of LTX-2.3" in p for p in report.problems)


@pytest.mark.parametrize("paths", [(), (3,), (None,)])
def test_what_is_no_path_is_refused(paths):
    with pytest.raises(sdltx.InvalidRequestError):
        sdltx.inspect(*paths)


def test_names_of_any_bytes_do_no_harm(tmp_path):
    header = {"a\x1b[31m\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    path = write_safetensors(tmp_path / "x\x1b.safetensors", header, b"1234")
    done = run("inspect", path, "--tensors")
    assert "\x1b" not in done.stdout
    assert "\x1b" not in done.stderr
