"""A tiny FinBERT: random weights, a vocabulary of its own, taught a toy in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from rlaif_ray.text.protocols import LABELS

GOOD = ["rises", "gains", "climbs", "jumps", "beats", "wins"]
BAD = ["falls", "drops", "sinks", "slumps", "misses", "fails"]
PLAIN = ["meets", "moves", "names", "lists", "holds", "opens"]
FILLER = ["the", "shares", "company", "bank", "steel", "food", "sales", "today", "again", "on", "of", "in"]
ID2LABEL = {0: "Negative", 1: "positive", 2: "NEUTRAL"}  # neither ours nor ProsusAI's order


def toy(rng: np.random.Generator, n: int) -> tuple[list[str], list[str]]:
    """Sentences of four to eleven words, one of which says which way it went."""
    texts, labels = [], []
    for _ in range(n):
        words = list(rng.choice(FILLER, rng.integers(3, 11)))
        label = LABELS[rng.integers(3)]
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice({"positive": GOOD, "negative": BAD, "neutral": PLAIN}[label])))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="session")
def tiny_finbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer BERT (WordPiece, 32 wide, 64 tokens long) that learned the toy, its labels in an order of its own."""
    folder = tmp_path_factory.mktemp("finbert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN, *FILLER, "##s", "."]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    network = BertForSequenceClassification(BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, id2label=ID2LABEL, label2id={v: k for k, v in ID2LABEL.items()}, hidden_dropout_prob=0.0,
    ))  # fmt: skip
    texts, labels = toy(np.random.default_rng(1), 600)
    told = tokenizer(texts, padding=True, return_tensors="pt")
    column = {v.lower(): k for k, v in ID2LABEL.items()}
    target = torch.tensor([column[label] for label in labels])
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(120):
        rows = torch.arange(600) % 10 == step % 10
        loss = network(input_ids=told["input_ids"][rows], attention_mask=told["attention_mask"][rows], labels=target[rows]).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
    network.save_pretrained(folder)
    return folder
