"""Sentiment by a BERT that was fine-tuned on financial text (FinBERT and its kin), from a folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from rlaif_ray.errors import ConfigError
from rlaif_ray.text.protocols import LABELS, Label
from rlaif_ray.text.weights import fingerprint, folder_of

_EXPECTED = "expected a network that save_pretrained wrote, with the labels positive, neutral and negative, or the model 'lexicon'"
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # tokens that a passage is filled up to


class FinBERT:
    """P(positive) - P(negative), and the probability of the likeliest of the three as confidence.

    Which output means what is read from the config's `id2label`, never from its place: FinBERTs differ in it. A text is read in
    passages as long as the network takes (512 tokens for BERT), the first `passages` of them; what stands behind them is not
    read. Its probabilities are the mean of the passages', weighted by their tokens. Batches have few fixed shapes, so that
    on one device a text's score does not hang on the texts beside it.

    Parameters
    ----------
    weights : a folder that `save_pretrained` wrote, or a name on the hub.
    device : cpu, cuda, mps, or auto: the fastest that is there.
    batch : passages that go through the network at once.
    passages : passages of a text that are read.

    Raises `ConfigError` where there are no weights, or the network does not tell positive, negative and neutral apart.
    """

    name = "finbert"

    def __init__(self, weights: str | None, *, device: str = "auto", batch: int = 32, passages: int = 8) -> None:
        folder = folder_of(weights)
        disable_progress_bar()  # of tensors that are loaded: a second's work
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())[:120]
            raise ConfigError(f"{folder} holds no classifier of texts ({said}); {_EXPECTED}") from None
        self._columns = columns_of(network.config.id2label)
        self._device = device_of(device)
        self._network = _by_rows(network).to(self._device).eval()
        self._batch, self._passages = batch, passages
        most = min(network.config.max_position_embeddings, self._tokenizer.model_max_length, LENGTHS[-1])
        self._lengths = (*(n for n in LENGTHS if n < most), most)
        self.fingerprint = fingerprint(folder)

    def score(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(score (N,) in [-1, 1], confidence (N,) in [0, 1]), float32."""
        p = self.probabilities(texts)
        return p[:, 0] - p[:, 2], p.max(axis=1)

    def classify(self, texts: Sequence[str]) -> list[Label]:
        return [LABELS[k] for k in self.probabilities(texts).argmax(axis=1)]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 3) float32, in the order of `LABELS`."""
        of, passages = self._passages_of(texts)
        said = np.zeros((len(passages), len(LABELS)))
        order = sorted(range(len(passages)), key=lambda k: len(passages[k]))
        for rows in self._batches(passages, order):
            said[rows] = self._batch_of([passages[k] for k in rows])
        tokens = np.array([len(p) for p in passages], float)
        out = np.zeros((len(texts), len(LABELS)))
        np.add.at(out, of, said * tokens[:, None])
        return (out / np.bincount(of, tokens, minlength=len(texts))[:, None]).astype(np.float32)

    def _passages_of(self, texts: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
        """Which text each passage is of, and its tokens."""
        if not texts:
            return np.empty(0, int), []
        # One token less than the network takes: see `_batch_of`.
        told = self._tokenizer(
            list(texts), truncation=True, max_length=self._lengths[-1] - 1, return_overflowing_tokens=True, return_attention_mask=False
        )
        of = np.array(told["overflow_to_sample_mapping"])
        nth = np.arange(len(of)) - np.searchsorted(of, of)
        kept = np.flatnonzero(nth < self._passages)
        return of[kept], [told["input_ids"][k] for k in kept]

    def _batches(self, passages: list[list[int]], order: list[int]) -> Iterator[list[int]]:
        """Passages of one filled-up length, `batch` at a time."""
        rows: list[int] = []
        for k in order:
            if rows and (len(rows) == self._batch or self._length(passages[k]) != self._length(passages[rows[0]])):
                yield rows
                rows = []
            rows.append(k)
        if rows:
            yield rows

    def _length(self, passage: list[int]) -> int:
        return next(n for n in self._lengths if n > len(passage))

    def _batch_of(self, passages: list[list[int]]) -> np.ndarray:
        """(n, 3). Always `batch` rows of a fixed length, each with padding at its end: without any, attention takes another
        path, whose last bits differ."""
        shape = self._batch, self._length(passages[0])
        tokens = torch.full(shape, self._tokenizer.pad_token_id or 0)
        mask = torch.zeros(shape, dtype=torch.long)
        mask[:, 0] = 1
        for row, passage in enumerate(passages):
            tokens[row, : len(passage)] = torch.tensor(passage)
            mask[row, : len(passage)] = 1
        with torch.inference_mode():
            logits = self._network(input_ids=tokens.to(self._device), attention_mask=mask.to(self._device)).logits
        odds = np.exp(np.ascontiguousarray(logits.cpu().double().numpy()[:, self._columns]))
        return (odds / odds.sum(axis=1, keepdims=True))[: len(passages)]


class _Head(torch.nn.Module):
    """A linear layer as sums of products: a matrix product of three columns rounds a row by its place among the others."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.unsqueeze(-2) * self.weight).sum(-1) + (0.0 if self.bias is None else self.bias)


def _by_rows(network: Any) -> Any:
    """The same network, its last layer in another form."""
    narrow = [(n, m) for n, m in network.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == len(LABELS)]
    for name, linear in narrow[-1:]:
        network.set_submodule(name, _Head(linear))
    return network


def columns_of(id2label: dict[int, str]) -> list[int]:
    """Where the network says `LABELS`. Raises `ConfigError` where its labels do not say that."""
    said = {str(label).strip().lower(): int(column) for column, label in id2label.items()}
    if set(said) != set(LABELS):
        raise ConfigError(f"the network's id2label is {dict(id2label)}; {_EXPECTED}")
    return [said[label] for label in LABELS]


def device_of(device: str) -> torch.device:
    """Raises `ConfigError` for a device that this process does not have."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    if not there.get(device.split(":")[0], False):
        raise ConfigError(f"device is {device!r}; here there is {', '.join(n for n, t in there.items() if t)}: choose one, or auto")
    return torch.device(device)
