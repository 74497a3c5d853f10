"""Small files for every target to begin with, and the words that occur in them."""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
from broken_vocabularies import BYTES, FIRST, NORMALIZER, TRAINER, field, piece  # noqa: E402

TINY = ROOT / "tests" / "data"


def write(folder: Path) -> None:
    """Writes the seeds of each target to a folder of its name, and its words to ``<target>.dict``."""
    for target, seeds in SEEDS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (folder / target / f"seed-{number:02d}").write_bytes(seed)
        words = WORDS.get(target, list)()
        lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in sorted({w.encode() for w in words})]
        (folder / f"{target}.dict").write_text("".join(f'"{line}"\n' for line in lines if line))


VALUES = (None, "x", 0, -1, 0.5, 10**9, [], {}, True)


def varied(told: Any, values: Sequence[Any] = VALUES) -> Iterator[Any]:
    """A value of JSON with one of its leaves, or branches, replaced, left out or longer: all of these."""
    children = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for key, child in list(children):
        for value in (*values, *varied(child, values)):
            changed = told.copy()
            changed[key] = value
            yield changed
        if isinstance(told, dict):
            yield {name: value for name, value in told.items() if name != key}
    if isinstance(told, list) and told:
        yield told * 9
        yield told[1:]


def compact(told: Any) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode()


# --- files of models ---


def header_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def safetensors(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "U8": 1, "BOOL": 1}
DTYPES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "U32": 4, "U64": 8, "F4": 1}


def some_safetensors() -> Iterator[bytes]:
    yield save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}, {"format": "pt"})
    yield safetensors({"__metadata__": {"a": "b"}})
    header, at = {}, 0
    for dtype, size in DTYPES.items():
        header[dtype.lower()] = {"dtype": dtype, "shape": [2, 2], "data_offsets": [at, at + 4 * size]}
        at += 4 * size
    yield safetensors(header, bytes(range(256))[:at].ljust(at, b"\1"))
    weight = {"dtype": "F8_E4M3", "shape": [4, 8], "data_offsets": [0, 32]}
    scale = {"dtype": "F32", "shape": [], "data_offsets": [32, 36]}
    mark = b'{"format":"float8_e4m3fn"}'
    marked = {"dtype": "U8", "shape": [len(mark)], "data_offsets": [36, 36 + len(mark)]}
    yield safetensors({"a.weight": weight, "a.weight_scale": scale, "a.comfy_quant": marked}, bytes(36) + mark)
    yield safetensors({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})


def written(writer: gguf.GGUFWriter) -> bytes:
    """What it has been told, as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.gguf"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def some_gguf() -> Iterator[bytes]:
    kinds = gguf.GGMLQuantizationType
    for number in range(3):
        writer = gguf.GGUFWriter(None, ("ltxv", "gemma3", "clip")[number])
        writer.add_uint32("a.u32", 7)
        writer.add_float64("a.f64", 0.5)
        writer.add_bool("a.bool", True)
        writer.add_array("a.texts", ["x", "yy", ""])
        writer.add_array("a.numbers", [1, 2, 3])
        writer.add_array("comfy.gguf.orig_shape.b", [2, 16])
        writer.add_tensor("b", np.ones((1, 32), np.float32))
        writer.add_tensor("c", np.zeros((2, 34), np.uint8), raw_dtype=kinds.Q8_0)
        writer.add_tensor("d", np.ones(3, np.float16))
        if number == 1:
            writer.add_custom_alignment(64)
        yield written(writer)


PROBES = (
    *("model.diffusion_model.patchify_proj.weight", "patchify_proj.weight", "vae.decoder.conv_in.conv.weight"),
    *("audio_vae.decoder.conv_in.conv.weight", "vocoder.vocoder.conv_pre.weight", "token_embd.weight"),
    *("model.embed_tokens.weight", "attention_pooler.query_tokens", "text_embedding_projection.aggregate_embed.weight"),
    *("transformer_blocks.0.attn1.to_q.lora_A.weight", "initial_conv.weight", "upsampler.0.weight", "spiece_model"),
    *("conv_pre.weight", "video_embeddings_connector.learnable_registers", "decoder.conv_in.conv.weight"),
)


def config_of(*path: str) -> str:
    header = header_of(TINY.joinpath(*path))
    return header["__metadata__"]["config"]


def configs() -> dict[str, str]:
    two_five = "tiny-ltx25/diffusion_models/tiny-ltx-2.5-distilled-transformer-bf16.safetensors"
    return {
        "2.3.0": config_of("tiny-a", "tiny-ltx-2.3.safetensors"),
        "2.0.0": config_of("tiny-ltx2", "tiny-ltx-2.safetensors"),
        "2.5.0": config_of(two_five),
    }


def some_names() -> Iterator[bytes]:
    for first in range(0, len(PROBES), 3):
        header: dict[str, Any] = {
            name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
            for i, name in enumerate(PROBES[first : first + 3])
        }
        yield safetensors(header, bytes(48))
    for version, config in configs().items():
        config = json.dumps(json.loads(config), separators=(",", ":"))
        header = {"__metadata__": {"config": config, "model_version": version}}
        for i, name in enumerate(PROBES[:5]):
            header[name] = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8 * i, 8 * i + 8]}
        yield safetensors(header, bytes(40))
    yield from some_gguf()
    yield from some_gguf_encoders()


def some_shapes() -> Iterator[bytes]:
    """The parts of the small models, without a configuration and with it; and what Gemma 4 12B is known by."""
    lines = ["model.embed_tokens.weight 8 3840", "model.layers.0.mlp.gate_proj.weight 16 1"]
    for layer in range(6):
        names = ("q_norm", "k_proj", "q_proj") if layer == 5 else ("q_norm", "k_proj", "q_proj", "v_proj")
        lines += [f"model.layers.{layer}.self_attn.{name}.weight {16 if name == 'q_norm' else 64} 1" for name in names]
    yield "\n".join(lines).encode()
    yield "\n".join(["model.embed_tokens.weight 8 16", *lines[1:]]).encode()
    for lacking in range(len(lines)):
        yield "\n".join([*lines[:lacking], *lines[lacking + 1 :]]).encode()
    for told in ('{"model_type":"gemma4"}', '{"model_type":5}', "[]", "{", '{"model_type":"gemma3"}', "{}"):
        yield f"#gemma_config {told}\n{lines[0]}\nmodel.layers.0.x 1".encode()
        yield f"#gemma_config {told}\n{lines[0]}\nmodel.layers.0.layer_scalar 1".encode()
    for path in sorted(TINY.glob("tiny-*/**/*.safetensors")):
        header = header_of(path)
        metadata = header.pop("__metadata__", {})
        parts: dict[str, list[str]] = {}
        for name, entry in header.items():
            part = ".".join(name.split(".")[: 2 if name.startswith("vae.") else 1])
            parts.setdefault(part, []).append(" ".join((name, *map(str, entry["shape"]))))
        told = [f"#{key} {value}" for key, value in metadata.items() if "\n" not in value and key != "config"]
        config = [f"#config {json.dumps(json.loads(metadata['config']))}"] if "config" in metadata else []
        whole = "\n".join([*told, *(line for lines in parts.values() for line in lines)])
        yield whole.encode()
        yield "\n".join([*config, whole]).encode()
        for lines in parts.values():
            yield "\n".join([*told, *lines]).encode()


def some_gguf_encoders() -> Iterator[bytes]:
    sizes = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length", "attention.key_length")
    frequencies = (
        np.ones(1, np.float32),
        np.float32([1e30]),
        np.float32([5]),
        np.ones(1, np.float16),
        np.ones(3, np.float32),
    )
    for name, freqs in product(("gemma3", "gemma4"), frequencies):
        writer = gguf.GGUFWriter(None, name)
        for key in (*sizes, "attention.sliding_window", "attention.head_count_kv", "attention.key_length_swa"):
            writer.add_uint32(f"{name}.{key}", 2)
        writer.add_float32(f"{name}.attention.layer_norm_rms_epsilon", 1e-6)
        for key in ("rope.freq_base", "rope.freq_base_swa", "rope.scaling.factor"):
            writer.add_float32(f"{name}.{key}", 8)
        writer.add_array(f"{name}.attention.sliding_window_pattern", [True, False])
        writer.add_array(f"{name}.attention.head_count_kv_list", [1, 2])
        for tensor in ("token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight"):
            writer.add_tensor(tensor, np.ones((2, 2), np.float32))
        writer.add_tensor("rope_freqs.weight", freqs)
        yield written(writer)


def some_configurations() -> Iterator[bytes]:
    for number, config in enumerate(configs().values()):
        whole = json.loads(config)
        told = [whole, *({key: section} for key, section in whole.items()), *varied(whole, ("x", 0, 10**9))]
        for key, changes in OF_SECTIONS.items():
            told += ({**whole, key: {**whole.get(key, {}), **change}} for change in changes)
        for section in whole.values():
            if isinstance(section, dict):  # as if it were the whole
                told += (section, {**section, "duration_head": {}})
        yield from (bytes([number, 0]) + compact(one) for one in told)
    yield bytes([0, 3]) + b'{"distilled":true,"width":64,"steps":3,"guidance_scale":1.5,"negative_prompt":"x"}'


OF_SECTIONS = {
    "vae": ({"_class_name": "CausalDiffusionVAE"}, {"decoder_blocks": [["res_x", {"inject_noise": True}]] * 2}),
    "transformer": ({"duration_head": {}}, {"connector_num_layers": 2000}, {"use_prompt_adaln_single": False}),
}


def some_text_encoders() -> Iterator[bytes]:
    for told in encoder_configs():
        yield compact(told)
        for changed in varied(told):
            yield compact(changed)


def encoder_configs() -> Iterator[Any]:
    for path in ("tiny-a/gemma/config.json", "tiny-ltx2/gemma/config.json"):
        yield json.loads((TINY / path).read_text())
    encoder = header_of(TINY / "tiny-ltx25/text_encoders/tiny-gemma4-with-proj-ltx-2.5-bf16.safetensors")
    for text in encoder["__metadata__"].values():
        if text.startswith("{"):
            yield json.loads(text)


def config_words() -> Iterator[str]:
    def keys(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield f'"{key}"'
                yield from keys(value)
        elif isinstance(node, list):
            for value in node:
                yield from keys(value)
        elif isinstance(node, str) and len(node) < 60:
            yield f'"{node}"'

    for config in (*configs().values(), (TINY / "tiny-a/gemma/config.json").read_text()):
        yield from keys(json.loads(config))
    yield from ("null", "true", "false", "1e300", "-1", "18446744073709551615", "9223372036854775807", "[]", "{}")


# --- vocabularies ---


def some_sentencepiece() -> Iterator[bytes]:
    yield (TINY / "tiny-a/gemma/tokenizer.model").read_bytes()
    yield b"".join([*FIRST, piece("a"), piece("b"), piece("ab")]) + field(2, TRAINER) + NORMALIZER


def some_tokenizer_json() -> Iterator[bytes]:
    vocab = {text: i for i, text in enumerate(["<unk>", "<bos>", *BYTES, "a", "b", "ab", "\u2581"])}
    for merges in (["a b"], [["a", "b"]]):
        told = {
            "added_tokens": [{"id": 1, "content": "<bos>", "special": True, "lstrip": False}],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            "pre_tokenizer": None,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": vocab,
                "merges": merges,
            },
        }
        yield compact(told)
        for changed in varied({**told, "model": {**told["model"], "vocab": {}}}):
            yield compact(changed)
        for option in ("single_word", "lstrip", "rstrip", "normalized"):
            yield compact({**told, "added_tokens": [{"id": 1, "content": "<bos>", option: True}]})
        yield compact({**told, "normalizer": None, "pre_tokenizer": SPLIT})
        yield compact({**told, "pre_tokenizer": SPLIT})


SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


# --- what comes with them ---


def some_loras() -> Iterator[bytes]:
    down, up = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    name = "transformer_blocks.0.attn1.to_q"
    yield save({f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up})
    flat = "lora_unet_" + name.replace(".", "_")
    yield save({f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": np.float32([2])})
    meta = {"lora_adapter_metadata": '{"transformer.lora_alpha":4,"alpha_pattern":{"attn1.to_q":2},"use_rslora":true}'}
    yield save({f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}, meta)
    yield save({"scale_shift_table.diff": np.ones((2, 8), np.float16), "patchify_proj.diff_b": np.ones(8, np.float16)})
    yield save({f"transformer.{name}.lora_A.default.weight": down, f"transformer.{name}.lora_B.default.weight": up})
    pair = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    adapter = {
        "r": 2,
        "lora_alpha": 4,
        "peft_type": "LORA",
        "alpha_pattern": {"attn1.to_q": 2, "to_q": 3},
        "use_dora": False,
    }
    for told in (adapter, *varied(adapter)):
        yield save(pair, {"lora_adapter_metadata": compact(told).decode()})
    for key in ("ss_network_module", "ss_network_alpha", "lora_rank", "lora_alpha", "use_dora", "ss_network_args", "r"):
        for value in ("None", "", "x", "2", "-1", "1e999", "[]", '{"a":1}', "networks.lora", "lycoris.kohya", "true"):
            yield save(pair, {key: value})
    yield save({**pair, f"transformer.{name}.lora_A.weight": down})
    for shape in ((2, 4), (3, 8), (2,), (2, 8, 1), (0, 8)):
        yield save({**pair, f"{name}.lora_A.weight": np.ones(shape, np.float32)})
        yield save({f"{name}.diff": np.ones(shape, np.float32), f"{name}.diff_b": np.ones(shape, np.float32)})
    for kind in (
        "hada_w1_a",
        "lokr_w1",
        "dora_scale",
        "oft_blocks",
        "w_norm",
        "set_weight",
        "reshape_weight",
        "lora_mid.weight",
    ):
        yield save({**pair, f"{name}.{kind}": down})


LORA_WORDS = (
    *(".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".alpha", ".diff", ".diff_b"),
    *(".lora_B.bias", "base_model.model.", "diffusion_model.", "transformer.", "lora_unet_", "lora_alpha", "use_dora"),
    *("alpha_pattern", "use_rslora", "peft_type", "fan_in_fan_out", "lora_rank", ".hada_w1", ".dora_scale", ".w_norm"),
    *("patchify_proj", "adaln_single.linear", "scale_shift_table", "ff.net.2", "time_embed", "proj_in"),
)


def some_imatrices() -> Iterator[bytes]:
    name = b"blk.0.weight"
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii", 3, 4) + struct.pack("<4f", 1, 2, 3, 4)
    yield struct.pack("<i", 1) + entry
    writer = gguf.GGUFWriter(None, "imatrix")
    writer.add_tensor("a.in_sum2", np.ones(4, np.float32))
    writer.add_tensor("a.counts", np.ones(1, np.float32))
    yield written(writer)


def some_requests() -> Iterator[bytes]:
    yield b'{"prompt":"a fox","width":64,"height":64,"num_frames":9,"seed":1}'
    yield b'{"sigmas":[1.0,0.5,0.0],"tiling":[256,64,64,24],"loras":[["a.safetensors",0.5]],"upscaler":"x"}'
    yield b'{"images":["a.png",{"path":"b.png","frame":-1,"strength":0.5,"crf":null}],"stg_blocks":[1,2]}'
    from sdltx.options import ROWS

    for option in ROWS:
        for value in (*VALUES, "auto", "5s", [1.0, 0.0], [0, 1], ["a"] * 20, [["a", 1e999]], [["a", 0.5]], 64):
            yield compact({option: value})
    for pair in (("sigmas", "num_inference_steps"), ("duration", "num_frames"), ("enhance_system", "enhance")):
        for values in ((4, 4), ([1.0, 0.0], 4), ("x", False), (5.0, 9), ("x", True)):
            yield compact(dict(zip(pair, values, strict=True)))
    for value in (None, True, False, "x", 5, -1, 2.5, [], {}):
        for key in ("path", "frame", "strength", "crf", "sha256", "other"):
            yield compact({"images": [{"path": "a.png", key: value}]})
        for key in ("images", "noise", "initial", "upscalers", "references", "sound", "film"):
            yield compact({key: value})
    for value in (["a"], [], None, "a"):
        yield compact({"upscalers": value, "upscaler": None})
        yield compact({"upscalers": value, "upscaler": ["b"]})
    yield b'{"duration":"5s","guidance_interval":[0.1,0.9],"noise":false,"upscalers":[],"recipe":"distilled"}'


def option_words() -> Iterator[str]:
    from sdltx.options import ROWS

    for name, row in ROWS.items():
        yield f'"{name}":'
        yield from (f'"{choice}"' for choice in row["choices"])
    yield from ('"images":', '"path":', '"frame":', '"strength":', '"crf":', "null", "true", "1e999", "-1", "[", "{}")


# --- what Python reads: files of a kind that the first byte says ---


def some_lines() -> Iterator[bytes]:
    yield b'{"prompt":"a fox","seed":1,"images":["a.png"]}\n\n{"prompt":"a bear","duration":"5s","output":"b.webm"}\n'
    yield b'a fox in the snow\n{"sound":{"path":"s.wav","start":0.5},"prompt":""}'
    yield b'{"film":{"path":"f.mp4","mask":"m.png"},"retake":[0,1],"prompt":"x","references":[{"path":"r.mp4"}]}'


def some_remembered() -> Iterator[bytes]:
    told = {"sdltx_version": "0.1.0", "prompt": "a fox", "seed": 1, "width": 64, "height": 64, "num_frames": 9}
    yield json.dumps({**told, "model_files": ["a.safetensors"], "device": "cpu", "precision": "f32"}).encode()
    picture = {"path": "a.png", "frame": -1, "strength": 0.5, "crf": 20, "sha256": "00"}
    sound = {"path": "s.wav", "start": 0.5, "sha256": "00"}
    yield json.dumps({**told, "images": [picture], "sound": sound, "tiling": [256, 64, 64, 24]}).encode()
    film = {"path": "f.mp4", "sha256": "00", "mask": "m.png", "mask_sha256": "00"}
    reference = {"path": "r.mp4", "strength": 0.5, "attention": "a.png", "attention_sha256": "00"}
    yield json.dumps({**told, "film": film, "references": [reference], "audio": False, "recipe": "retake"}).encode()
    yield json.dumps(
        {**told, "upscalers": ["u.safetensors"], "loras": [["l.safetensors", 0.5]], "noise": True}
    ).encode()


def some_config() -> Iterator[bytes]:
    from sdltx.cli import config

    yield b'model = ["a.safetensors", "b"]\nquiet = true\n'
    yield "\n".join(f'{name} = "x"' for name in config.NAMES).encode()
    yield b"threads = 2\n[table]\nx = 1.5\n"


def some_states() -> Iterator[bytes]:
    done = {"key": "key", "frames": 9, "size": 0, "time": 1, "sha256": "00"}
    yield json.dumps({"done": {"a.mp4": done}, "seeds": {"key": 5}}).encode()


def some_clips() -> Iterator[bytes]:
    from sdltx import media

    frames = np.zeros((2, 16, 16, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for number, suffix in enumerate(("mp4", "webm", "gif", "webp", "png")):
            path = Path(folder) / f"x.{suffix}"
            with media.VideoWriter(path, 25, audio_rate=16000, metadata={"sdltx_version": "0", "prompt": "x"}) as file:
                file.write_frames(frames)
                file.write_audio(np.zeros((2, 1000), np.float32))
            (written_file, *_) = sorted(Path(folder).glob(f"*.{suffix}"))
            yield bytes([number]) + written_file.read_bytes()


def some_pictures() -> Iterator[bytes]:
    from PIL import Image

    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")):
        for mode in ("RGB", "L") if kind != "GIF" else ("P",):
            file = io.BytesIO()
            Image.new(mode, (5, 4), 1).save(file, kind)
            yield bytes([number]) + file.getvalue()


def some_sounds() -> Iterator[bytes]:
    import av

    for number, (suffix, codec) in enumerate(
        (("wav", "pcm_s16le"), ("mp3", "mp3"), ("flac", "flac"), ("mp4", "aac"), ("ogg", "libopus"))
    ):
        file = io.BytesIO()
        with av.open(file, "w", format=suffix) as container:
            stream = container.add_stream(codec, rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        yield bytes([number]) + file.getvalue()


def some_latents() -> Iterator[bytes]:
    import sdltx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        video, audio = np.zeros((1, 2, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)
        sdltx.Latents(video, audio, 25.0).save(path)
        yield path.read_bytes()
        sdltx.Context(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)).save(path)
        yield path.read_bytes()


def some_shards() -> Iterator[bytes]:
    yield b'{"metadata":{"total_size":1},"weight_map":{"a":"config.json","b":"config.json"}}'


def some_noise() -> Iterator[bytes]:
    for seed in range(8):
        yield random.Random(seed).randbytes(200)


SEEDS = {
    "safetensors": some_safetensors,
    "gguf": some_gguf,
    "names": some_names,
    "shapes": some_shapes,
    "encodings": some_noise,
    "configuration": some_configurations,
    "text_encoder": some_text_encoders,
    "sentencepiece": some_sentencepiece,
    "tokenizer_json": some_tokenizer_json,
    "tokenizer_arrays": some_noise,
    "lora": some_loras,
    "imatrix": some_imatrices,
    "request": some_requests,
    "calls": some_noise,
    "py_request": some_requests,
    "py_line": some_lines,
    "py_remembered": some_remembered,
    "py_config": some_config,
    "py_state": some_states,
    "py_clip": some_clips,
    "py_picture": some_pictures,
    "py_sound": some_sounds,
    "py_film": some_clips,
    "py_latents": some_latents,
    "py_shards": some_shards,
}
HEADER_WORDS = ('"dtype":', '"shape":[', '"data_offsets":[', '"__metadata__":{', '{"', '"},"', *DTYPES)
MARK_WORDS = ("float8_e4m3fn", "nvfp4", "mxfp8", "int8_tensorwise", '"convrot":true', '"convrot_groupsize":', "format")
GGUF_WORDS = ("general.alignment", "general.architecture", "comfy.gguf.orig_shape.", "tokenizer.ggml.tokens")
WORDS = {
    "safetensors": lambda: (*HEADER_WORDS, *MARK_WORDS, ".weight_scale", ".comfy_quant", ".weight"),
    "gguf": lambda: GGUF_WORDS,
    "names": lambda: (*HEADER_WORDS, *PROBES, *config_words()),
    "shapes": lambda: (*PROBES, *MARK_WORDS, *config_words()),
    "encodings": lambda: (*MARK_WORDS, '{"layers":{"a":{', "}}}"),
    "configuration": config_words,
    "text_encoder": config_words,
    "tokenizer_json": lambda: (
        '"model":{',
        '"vocab":{',
        '"merges":[',
        '"added_tokens":[',
        '"content":',
        '"id":',
        "null",
    ),
    "lora": lambda: (*HEADER_WORDS, *LORA_WORDS),
    "imatrix": lambda: (".in_sum2", ".counts"),
    "request": option_words,
    "py_request": option_words,
    "py_line": option_words,
    "py_remembered": option_words,
}
