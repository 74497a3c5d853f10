"""Stage: a small SentencePiece model of captions with Gemma's options, and batches of tokens."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from captions import caption
from networks import GEMMA
from scenes import sample_scene


def train(path: Path, captions: int = 40000) -> None:
    """Writes tokenizer.model."""
    rng = np.random.default_rng(123)
    lines = [caption(sample_scene(rng), rng) for _ in range(captions)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=GEMMA["vocab_size"],
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())


class Tokenizer:
    """Prompts to ids."""

    def __init__(self, path: Path) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def __call__(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, int64 (prompts, tokens), padded to the right."""
        rows = [[GEMMA["bos_token_id"], *self.model.encode(prompt.strip())] for prompt in prompts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    train(parser.parse_args().runs / "tokenizer.model")
