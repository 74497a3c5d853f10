"""Memory of the process at its peak against the estimate, at the real widths with random weights.

    python bench/memory.py [NAME ...] [--folder FOLDER] [--markdown FILE]

A clip is stopped once all kinds of its plans have run, so that large ones do not take hours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

_MIB = 1 << 20
_BLOCKS = 2
_SIZES = {"512x320x25": 24, "768x512x121": 24, "1280x704x121": 24, "1920x1088x121": 24}
_FULL: dict[str, Any] = {"preset": "full"}
_DISTILLED: dict[str, Any] = {"preset": "distilled"}


def _denoise(size: str, offload: str, passes: int, **more: Any) -> dict[str, Any]:
    guidance: dict[str, Any] = {
        1: {"preset": "distilled"},
        2: {"guidance_scale": 3.0, "stg_scale": 0.0, "modality_scale": 1.0},
        3: {"guidance_scale": 3.0, "stg_scale": 1.0, "modality_scale": 1.0},
        4: {"guidance_scale": 3.0, "stg_scale": 1.0, "modality_scale": 3.0},
    }[passes]
    for name in ("guidance_scale", "stg_scale", "modality_scale"):
        if name in guidance:
            guidance[f"audio_{name}"] = guidance[name]
    return {"what": "denoise", "size": size, "offload": offload, "options": {**guidance, **more}}


def cases() -> dict[str, dict[str, Any]]:
    """What is measured, by name."""
    found: dict[str, dict[str, Any]] = {}
    for size in ("512x320x25", "768x512x121", "1280x704x121"):
        for passes in (1, 2, 3, 4):
            found[f"denoise {size}, {passes} passes"] = _denoise(size, "auto", passes)
    found["denoise 1920x1088x121, 1 passes"] = _denoise("1920x1088x121", "auto", 1)
    for offload in ("none", "stage", "blocks"):
        found[f"denoise 512x320x25, 4 passes, {offload}"] = _denoise("512x320x25", offload, 4)
    found["denoise 512x320x25, picture"] = {**_denoise("512x320x25", "auto", 1), "pictures": [0]}
    found["denoise 512x320x25, keyframes"] = {**_denoise("512x320x25", "auto", 1), "pictures": [0, -1]}
    for size in ("512x320x25", "768x512x49"):
        for tiles in ((768, 64, 80, 24), (256, 64, 32, 16), (0, 0, 0, 0)):
            found[f"decode {size}, tiles {tiles[0]} {tiles[2]}"] = {
                "what": "decode pictures",
                "size": size,
                "offload": "auto",
                "options": {},
                "tiles": tiles,
            }
    found["denoise 512x320x25, LoRA"] = {**_denoise("512x320x25", "auto", 1), "lora": True}
    found["denoise 768x512x121, 4 passes, LoRA"] = {**_denoise("768x512x121", "auto", 4), "lora": True}
    found["two stages to 1024x640x25, the first"] = {**_denoise("1024x640x25", "auto", 1), "two_stages": True}
    for size in ("1024x640x25", "1536x1024x49"):
        found[f"upscale to {size}"] = {**_denoise(size, "auto", 1), "what": "upscale", "two_stages": True}
    found["sound 5 s"] = {"what": "decode sound", "size": "64x64x121", "offload": "stage", "options": {}}
    found["sound 20 s"] = {"what": "decode sound", "size": "64x64x481", "offload": "stage", "options": {}}
    found["encode picture 768x512"] = {
        "what": "encode pictures",
        "size": "768x512x9",
        "offload": "auto",
        "options": {"preset": "distilled"},
        "pictures": [0],
    }
    return found


class _Watch:
    """The most memory of its own that the process has had."""

    def __init__(self) -> None:
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.003):
            self.most = max(self.most, own())

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.most


def own() -> int:
    """Bytes of memory that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    return 0


class _EnoughError(Exception):
    pass


def child(case: dict[str, Any], files: list[str]) -> None:
    """Measures one; prints bytes: estimated, taken."""
    import numpy as np

    import sdltx

    width, height, frames = map(int, case["size"].split("x"))
    options = {"width": width, "height": height, "num_frames": frames, "frame_rate": 24, **case["options"]}
    tiling = sdltx.Tiling(*case["tiles"]) if "tiles" in case else None
    rng = np.random.default_rng(0)
    pictures = [
        sdltx.Condition(np.zeros((height, width, 3), np.uint8), frame, crf=0) for frame in case.get("pictures", ())
    ]
    with sdltx.load(*files[:2], offload=case["offload"]) as pipe:
        if case.get("lora"):
            options["loras"] = [files[-1]]
        if case.get("two_stages"):
            options["upscaler"] = [files[-2]]
        told = pipe.estimate(conditions=pictures, tiling=tiling, **options)
        ran = {"denoise": ("encode pictures", "denoise")}.get(case["what"], (case["what"],))
        steps = told["steps"]
        if case.get("two_stages"):
            # What has run when it is stopped: the first stage, and then the upscaler beside what stays of it.
            names = [one["step"] for one in steps]
            until = names.index("upscale") if case["what"] == "upscale" else names.index("denoise")
            steps, ran = steps[: until + 1], ("denoise", "upscale")
        step = max((step for step in steps if step["step"] in ran), key=lambda step: step["memory"])
        run: Callable[[], object]
        if case["what"] in ("denoise", "encode pictures", "upscale"):
            context = sdltx.Context(
                rng.standard_normal((1024, 4096), np.float32), rng.standard_normal((1024, 2048), np.float32)
            )

            upscaled = False

            def progress(phase: str, done: int, total: int) -> None:
                nonlocal upscaled
                upscaled = upscaled or phase == "upscale"
                if case["what"] == "upscale":
                    enough = upscaled and phase == "denoise"
                else:
                    enough = phase == "denoise" and (case["what"] != "denoise" or done > _BLOCKS)
                if enough:
                    raise _EnoughError

            def run() -> object:
                negative = context if options.get("guidance_scale", 1) != 1 else None
                return pipe.sample(
                    context, negative=negative, conditions=pictures, seed=1, progress=progress, **options
                )
        else:
            latents = sdltx.Latents(
                rng.standard_normal((128, (frames - 1) // 8 + 1, height // 32, width // 32), np.float32),
                rng.standard_normal((8, round((frames) / 24 * 25), 16), np.float32),
                24,
            )
            if case["what"] == "decode sound":

                def run() -> object:
                    return pipe.decode_audio(latents)
            else:

                class Nothing:
                    def write_frames(self, frames: Any) -> None:
                        pass

                def run() -> object:
                    return pipe.decode_into(Nothing(), latents, tiling=tiling)

        before = own()
        watch = _Watch()
        start = time.monotonic()
        with suppress(_EnoughError):
            run()
        taken = watch.end() - before
    print(json.dumps({"estimated": step["memory"], "taken": taken, "seconds": time.monotonic() - start, "step": step}))


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--child", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child[0]), args.child[1:])
        return
    import weights

    files = [
        str(path)
        for path in (
            weights.blocks(args.folder, _BLOCKS),
            weights.decoders(args.folder),
            weights.upscaler(args.folder),
            weights.lora(args.folder, _BLOCKS),
        )
    ]
    lines = ["| case | estimated, MiB | taken, MiB | estimated / taken |", "| --- | --- | --- | --- |"]
    print("\n".join(lines))
    for name, case in cases().items():
        if args.names and not any(wanted in name for wanted in args.names):
            continue
        done = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(case), *files],
            stdout=subprocess.PIPE,
            check=True,
            cwd=args.folder,
        )
        told = json.loads(done.stdout)
        lines.append(
            f"| {name} | {told['estimated'] / _MIB:.0f} | {told['taken'] / _MIB:.0f} | "
            f"{told['estimated'] / told['taken']:.3f} |"
        )
        print(lines[-1], f"{told['seconds']:.0f} s", told["step"]["devices"], told["step"]["host"] >> 20, flush=True)
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
