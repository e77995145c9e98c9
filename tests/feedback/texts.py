"""Texts whose better side bears a planted word, and tiny encoders with a vocabulary of their own to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from rlaif_ray.feedback.opinion_texts import TextPairs

GOOD, BAD = ("proven", "checked"), ("guessed", "hoped")
FILLER = ("the", "shares", "company", "bank", "steel", "food", "sales", "today", "again", "on", "of", "in")


def tiny_encoder(folder: Path, head: int | None = None, **config: int) -> str:
    """Folder of a random BERT of one layer, 32 wide, that reads 64 WordPiece tokens; with a classifier of `head` labels, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER, "##s", "."]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    shape: dict[str, Any] = {
        "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 64,
    } | config  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if head is None:
            network = BertModel(BertConfig(**shape))
        else:
            network = BertForSequenceClassification(BertConfig(**shape, id2label={k: str(k) for k in range(head)}))
    network.save_pretrained(folder)
    return str(folder)


def marked(seed: int, n: int, wrong: float = 0.0) -> TextPairs:
    """n pairs of texts of four to eleven words; the chosen has a good word, the rejected a bad one, but for a share `wrong`."""
    rng = np.random.default_rng(seed)

    def text(marks: tuple[str, ...]) -> str:
        words = list(rng.choice(FILLER, rng.integers(3, 11)))
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(marks)))
        return " ".join(words)

    pairs = [(text(GOOD), text(BAD)) for _ in range(n)]
    pairs = [(worse, better) if rng.random() < wrong else (better, worse) for better, worse in pairs]
    return TextPairs(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), rng.uniform(0.2, 1.0, n))
