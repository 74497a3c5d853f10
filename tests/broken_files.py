"""Files that are not what they should be, made by rules: each is a result or one typed error, at once and in little
memory. A case is named by its kind and by what is wrong; ``accepted`` are those that are odd and right."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from broken_case import Case
from broken_models import entries, gguf, ggufs, headers, many, others, places, tensor
from broken_vocabularies import sentencepieces, tokenizer_jsons
from PIL import Image

# --- LoRAs and imatrices ---


def stored(tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    from safetensors.numpy import save

    return save(tensors, metadata)


def loras() -> Iterator[Case]:
    name = "transformer_blocks.0.attn1.to_q"
    down, up = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)  # of the tiny model: 64 wide
    good = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

    def case(what: str, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None, accepted=False) -> Case:
        return Case("lora", what, stored(tensors, metadata), accepted)

    yield case("without-up", {f"{name}.lora_A.weight": down})
    yield case("without-down", {f"{name}.lora_B.weight": up})
    yield case("ranks", {**good, f"{name}.lora_B.weight": np.ones((64, 3), np.float32)})
    yield case("rank-0", {f"{name}.lora_A.weight": down[:0], f"{name}.lora_B.weight": up[:, :0]})
    yield case("vectors", {f"{name}.lora_A.weight": down[0], f"{name}.lora_B.weight": up[0]})
    yield case("widths", {f"{name}.lora_A.weight": down[:, :63], f"{name}.lora_B.weight": up})
    yield case("whole-numbers", {key: value.astype(np.int64) for key, value in good.items()})
    yield case("two-adapters", {f"{name}.lora_A.x.weight": down, f"{name}.lora_B.y.weight": up})
    yield case("two-spellings", {**good, f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    for alpha in (np.float32([np.nan]), np.float32([np.inf]), np.float32([1, 2]), np.zeros(0, np.float32)):
        yield case(f"alpha-{alpha.tolist()}", {**good, f"{name}.alpha": alpha})
    for text in ("{", "[]", "1", '{"lora_alpha":"x"}', '{"lora_alpha":[]}', '{"use_rslora":3}', '{"use_dora":true}',
                 '{"alpha_pattern":[]}', '{"alpha_pattern":{"(":1}}', '{"alpha_pattern":{"attn1.to_q":"x"}}',
                 '{"peft_type":"LOHA"}', '{"fan_in_fan_out":true}', '{"lora_alpha":1e999}'):  # fmt: skip
        yield case(f"metadata-{text}", good, {"lora_adapter_metadata": text})
    for tail in (".dora_scale", ".hada_w1_a", ".lokr_w1", ".oft_blocks", ".lora_mid.weight", ".set_weight", ".weight"):
        yield case(f"foreign{tail}", {**good, f"{name}{tail}": down})
    yield case("a-diff-of-nothing", {f"{name}x.diff": down, **good}, accepted=True)
    yield case("a-diff-of-another-shape", {f"{name}.diff": down, **good})


def imatrices() -> Iterator[Case]:
    def dat(
        entries: int,
        name: bytes = b"blk",
        length: int | None = None,
        calls: int = 1,
        count: int | None = None,
        values=(1.0,),
    ):
        head = struct.pack("<ii", entries, len(name) if length is None else length)
        raw = np.array(values, np.float32).tobytes()
        return head + name + struct.pack("<ii", calls, len(values) if count is None else count) + raw

    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("imatrix", name, data, accepted)

    whole = dat(1)
    for told in (0, -1, 2, 2**20, 2**20 + 1, 2**31 - 1, -(2**31)):
        yield case(f"{told}-entries", dat(told))
    for length in (0, -1, 1025, 2**31 - 1):
        yield case(f"name-of-{length}", dat(1, length=length))
    for count in (0, -1, 2, 2**24, 2**24 + 1, 2**31 - 1):
        yield case(f"{count}-values", dat(1, count=count))
    yield case("negative-calls", dat(1, calls=-1))
    for wrong in (-1.0, math.nan, math.inf):
        yield case(f"holds-{wrong}", dat(1, values=(wrong,)))
    for cut in range(0, len(whole), 3):
        yield case(f"cut-{cut}", whole[:cut])
    yield case("gguf-without-sums", gguf(tensors=[tensor()]))
    yield case("gguf-without-counts", gguf(tensors=[tensor("a.in_sum2")]))
    yield case("gguf-of-empty-counts", gguf(tensors=[tensor("a.in_sum2"), tensor("a.counts", (0,), offset=32)]))
    yield case("gguf-in-bits", gguf(tensors=[tensor("a.in_sum2", kind=26), tensor("a.counts", offset=32)]))


# --- what sdltx writes itself ---


def kept_values() -> Iterator[Case]:
    latents = {"video": np.zeros((4, 1, 2, 2), np.float32), "audio": np.zeros((8, 3, 16), np.float32)}
    good = {"frame_rate": 24.0, "settings": {}}

    def case(name: str, tensors: dict[str, np.ndarray], told: Any, accepted: bool = False) -> Case:
        text = told if isinstance(told, str) else json.dumps(told)
        return Case("latents", name, stored(tensors, {"sdltx.latents": text}), accepted)

    yield case("whole", latents, good, True)
    for text in ("", "{", "[]", "1", "null", "[" * 10_000, '{"frame_rate":24}', '{"settings":{}}'):
        yield case(f"told-{text[:20]}", latents, text)
    for rate in (0, -1, 1e9, "24", None, [], True, math.nan, math.inf):
        yield case(f"rate-{rate}", latents, {**good, "frame_rate": rate}, rate == 0)
    for settings in (1, "x", [1], None):
        yield case(f"settings-{settings}", latents, {**good, "settings": settings})
    yield case("no-tensors", {"other": np.zeros(1, np.float32)}, good)
    for name, shape in (
        ("video", (4,)),
        ("video", (4, 1, 2)),
        ("video", (0, 1, 2, 2)),
        ("audio", (8, 3)),
        ("audio", (0, 0, 0)),
    ):
        empty = len(shape) == latents[name].ndim  # of sound alone; the decoders refuse what is neither
        yield case(f"{name}-{shape}", {**latents, name: np.zeros(shape, np.float32)}, good, empty)
    for kind in (np.int64, np.uint8):
        yield case(f"video-{kind.__name__}", {**latents, "video": latents["video"].astype(kind)}, good, True)
    for wrong in (math.nan, math.inf):
        yield case(f"video-of-{wrong}", {**latents, "video": latents["video"] + np.float32(wrong)}, good, True)
    yield Case("latents", "no-mark", stored(latents))
    whole = stored(latents, {"sdltx.latents": json.dumps(good)})
    for cut in (0, 4, 8, 9, 100, len(whole) - 1):
        yield Case("latents", f"cut-{cut}", whole[:cut])


# --- pictures and sound ---


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 100).convert("RGB").save(out, kind)
    return out.getvalue()


def png_of(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """A PNG that says it is of a size, with next to no pixels."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def pictures() -> Iterator[Case]:
    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("picture", name, data, accepted)

    for width, height in (
        (0, 1),
        (1, 0),
        (2**31 - 1, 1),
        (2**31, 1),
        (2**32 - 1, 2**32 - 1),
        (65_536, 65_536),
        (30_000, 30_000),
    ):
        yield case(f"png-{width}x{height}", png_of(width, height))
    for depth, kind in ((0, 2), (3, 2), (8, 1), (8, 5), (8, 255), (16, 3)):
        yield case(f"png-depth-{depth}-kind-{kind}", png_of(8, 8, depth, kind))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = picture(kind)
        for cut in (1, 8, 20, len(whole) // 2):
            yield case(f"{kind}-cut-{cut}", whole[:cut])
        yield case(f"{kind}-ends-early", whole[: len(whole) * 3 // 4])
    for name, data in {"empty": b"", "text": b"hello", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                       "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "zip": b"PK\3\4" + bytes(99),
                       "gif-of-nothing": b"GIF89a" + bytes(20),
                       "gif-huge": b"GIF89a\x10\0\x10\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 53_199, 53_199, 0) + b"\x02\x02D\x01\0;", "tiff-loop": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
                       "bmp-huge": b"BM" + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
                       "jpeg-of-nothing": b"\xff\xd8\xff\xd9", "ico": b"\0\0\1\0\xff\xff" + bytes(40),
                       "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 300_000, 300_000, 8, 3) + bytes(20)}.items():  # fmt: skip
        yield case(name, data)


def wav(
    rate: int = 48_000,
    channels: int = 2,
    bits: int = 16,
    size: int | None = None,
    data: bytes = bytes(64),
    form: int = 1,
):
    align = channels * bits // 8
    head = struct.pack("<IHHIIHH", 16, form, channels, rate, rate * align % 2**32, align % 2**16, bits)
    body = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def mp4() -> bytes:
    """A tenth of a second of silence."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def sounds() -> Iterator[Case]:
    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("sound", name, data, accepted)

    yield case("whole", wav(), True)
    yield case("claims-4-gb", wav(size=2**32 - 1), True)  # as streams are written; the file's end is its end
    yield case("no-samples", wav(data=b""))
    for rate in (0, 2**31, 2**32 - 1):
        yield case(f"rate-{rate}", wav(rate=rate))
    for channels in (0, 65_535):
        yield case(f"channels-{channels}", wav(channels=channels))
    for bits in (0, 1, 7, 65_535):
        yield case(f"bits-{bits}", wav(bits=bits), None)
    yield case("format-9999", wav(form=9999))
    sizes = mp4().index(b"stsz") + 16  # of the packets
    for size in (0, 2**29, 2**31 - 1, 2**31, 2**32 - 1):
        data = mp4()
        packet = struct.pack(">I", size)
        yield Case("sound", f"packet-of-{size}", data[:sizes] + packet + data[sizes + 4 :], None)
    for cut in (0, 4, 12, 20, 36, 44):
        yield case(f"cut-{cut}", wav()[:cut])
    for name, data in {"text": b"hello", "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "picture": picture(),
                       "concat": b"ffconcat version 1.0\nfile /etc/passwd\n", "mp3-of-nothing": b"\xff\xfb\x90\x64" + bytes(10),
                       "ogg-of-nothing": b"OggS" + bytes(30), "flac-of-nothing": b"fLaC" + bytes(60),
                       "midi": b"MThd" + bytes(30), "mp4-of-nothing": b"\0\0\0\x18ftypisom" + bytes(12)}.items():  # fmt: skip
        yield case(name, data)


# --- JSON for people ---


def requests() -> Iterator[Case]:
    for told in (
        *("", "{", "[]", "1", "null", '"x"', "[" * 100_000, '{"a":' * 1000, '{"width":"x"}', '{"width":1e999}'),
        *('{"nonsense":1}', '{"width":64.5}', '{"width":-1}', '{"width":0}', '{"width":18446744073709551616}'),
        *('{"prompt":1}', '{"prompt":null,"images":1}', '{"images":[1]}', '{"images":[{}]}', '{"images":[{"path":1}]}'),
        *(
            '{"images":[{"path":"x","frame":0.5}]}',
            '{"sigmas":[]}',
            '{"sigmas":["x"]}',
            '{"sigmas":[[1]]}',
            '{"loras":[1]}',
        ),
        *('{"loras":[["x"]]}', '{"loras":[["x","y"]]}', '{"tiling":[1]}', '{"tiling":[1,2,3,4,5]}', '{"seed":1.5}'),
        *('{"sound":1}', '{"sound":{"path":1}}', '{"film":[]}', '{"references":{}}', '{"references":[{"strength":1}]}'),
        *('{"duration":"x"}', '{"duration":"-1s"}', '{"recipe":"x"}', '{"sampler":1}', '{"num_frames":true}'),
        *('{"guidance_scale":NaN}', '{"guidance_scale":Infinity}', '{"prompt":"\\ud800"}', '{"prompt":"a\\u0000b"}'),
        *('{"enhance":"yes"}', '{"noise":true}', '{"initial":1}', '{"stg_blocks":[1.5]}', '{"stg_blocks":[-1]}'),
    ):
        # Halves of characters and NULs are taken or refused, as prompts are.
        odd = "ud800" in told or "u0000" in told
        yield Case("request", told[:60], told.encode(), None if odd else False)


MAKERS: dict[str, tuple[Callable[[], Iterator[Case]], ...]] = {
    "safetensors": (headers, entries, places, many, others),
    "gguf": (ggufs,),
    "sentencepiece": (sentencepieces,),
    "tokenizer_json": (tokenizer_jsons,),
    "lora": (loras,),
    "imatrix": (imatrices,),
    "latents": (kept_values,),
    "picture": (pictures,),
    "sound": (sounds,),
    "request": (requests,),
}


def cases(kind: str) -> list[Case]:
    """All of a kind."""
    return [case for maker in MAKERS[kind] for case in maker()]


def write(case: Case, folder: Path) -> Path:
    """Writes a case under a name that its kind has."""
    suffix = {"safetensors": "safetensors", "gguf": "gguf", "sentencepiece": "model", "tokenizer_json": "json", "lora": "safetensors",
              "imatrix": "dat", "latents": "latents.safetensors", "picture": "png", "sound": "wav", "request": "json"}[case.kind]  # fmt: skip
    path = folder / f"x.{suffix}"
    path.write_bytes(case.data)
    return path
