"""Stage: the trained parts as one safetensors file in the layout of the release (F16), and a folder of Gemma."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

import networks
import torch
from networks import CONFIG, GEMMA
from safetensors.torch import save_file
from scenes import FPS, FRAMES, SIZE

NOTE = (
    "Built-in demonstration model, not a sample of LTX-2.3: it knows 4 shapes (circle, square, triangle, star), one or "
    "two at a time, in 8 colours with 8 motions on 6 backgrounds, and 10 sounds."
)
STEPS, GUIDANCE = 20, 5.0  # of the defaults


def _parts(runs: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors of the checkpoint and of Gemma by their names in the release."""
    states = {name: torch.load(runs / f"{name}.pt") for name in ("video_vae", "audio_vae", "vocoder", "transformer")}
    if (runs / "decoder.pt").exists():  # the same one, trained on
        states["video_vae"] |= {"dec": torch.load(runs / "decoder.pt")["dec"]}
    trained = states["transformer"]["model"]

    def of(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in trained.items() if name.startswith(prefix)}

    mean, std, audio_mean, audio_std = states["transformer"]["statistics"]
    found: dict[str, torch.Tensor] = {}
    for part, kind, (a, b) in (("vae", "video_vae", (mean, std)), ("audio_vae", "audio_vae", (audio_mean, audio_std))):
        pair = networks.video_vae() if kind == "video_vae" else networks.audio_vae()
        for name, key, module in zip(("encoder", "decoder"), ("enc", "dec"), pair, strict=True):
            module.load_state_dict(states[kind][key])
            networks.set_statistics(module, a, b)
            for tensor, value in module.state_dict().items():
                own = tensor.startswith("per_channel_statistics.")
                found[f"{part}.{tensor}" if own else f"{part}.{name}.{tensor}"] = value
    dit = "model.diffusion_model."
    places = {
        dit: of("dit."),
        f"{dit}video_embeddings_connector.": of("text.video_connector."),
        f"{dit}audio_embeddings_connector.": of("text.audio_connector."),
        "text_embedding_projection.": of("text.features."),
        "vocoder.": states["vocoder"]["voc"],
    }
    for prefix, tensors in places.items():
        found |= {prefix + name: value for name, value in tensors.items()}
    return found, {f"language_model.model.{name}": value for name, value in of("text.gemma.").items()}


def _stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """F16, but statistics, which are read before the rest, F32."""
    kept = {}
    for name, value in tensors.items():
        assert torch.isfinite(value).all(), name
        exact = "per_channel_statistics" in name or not value.is_floating_point()
        kept[name] = (value if exact else value.half()).contiguous()
    return kept


def _metadata() -> dict[str, str]:
    config = json.loads(json.dumps(CONFIG))
    # ltx-core 1.0.0 multiplies the decoder's width by 8 whatever its blocks say; the release's layout, and what came
    # after, by the product of their multipliers.
    vae = config["vae"]
    vae["decoder_base_channels"] *= 8 // math.prod(block[1].get("multiplier", 1) for block in vae["decoder_blocks"])
    defaults: dict[str, Any] = {"width": SIZE, "height": SIZE, "num_frames": FRAMES, "frame_rate": FPS, "steps": STEPS}
    # Away from the empty prompt, which is what a tenth of the captions were; sounds are right without.
    defaults |= {"guidance_scale": GUIDANCE, "audio_guidance_scale": 1, "negative_prompt": ""}
    return {
        "config": json.dumps(config),
        "model_version": "2.3.0",
        "sdltx.defaults": json.dumps(defaults),
        "sdltx.note": NOTE,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def export(runs: Path, out: Path) -> None:
    """Writes out/ltx-2.3-demo.safetensors and out/gemma."""
    tensors, gemma = _parts(runs)
    folder = out / "gemma"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_stored(tensors), out / "ltx-2.3-demo.safetensors", metadata=_metadata())
    save_file(_stored(gemma), folder / "model.safetensors", metadata={"format": "pt"})
    text = GEMMA | {
        "model_type": "gemma3_text",
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "sliding_window_pattern": 6,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "torch_dtype": "float16",
    }
    ids = {name: GEMMA[name] for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    top = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    _write_json(folder / "config.json", top | {"torch_dtype": "float16"} | ids)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": networks.REGISTERS,
        "padding_side": "left",
        "spaces_between_special_tokens": False,
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer | special)
    _write_json(folder / "special_tokens_map.json", special)
    shutil.copy(runs / "tokenizer.model", folder / "tokenizer.model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("weights"))
    args = parser.parse_args()
    export(args.runs, args.out)


if __name__ == "__main__":
    main()
