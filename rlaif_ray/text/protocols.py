"""The two roles of a text model, and the three things that it can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np

Label = Literal["positive", "neutral", "negative"]
LABELS: tuple[Label, ...] = get_args(Label)


class SentimentModel(Protocol):
    """What a text says: good or bad news. The same text always has the same score, whatever stands beside it."""

    name: str
    fingerprint: str  # of what makes the scores: words and weights; another model under the same name has another

    def score(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(score (N,) in [-1, 1], confidence (N,) in [0, 1]), float32."""
        ...

    def classify(self, texts: Sequence[str]) -> list[Label]: ...


class Embedding(Protocol):
    """Texts as unit vectors: the cosine of two is their likeness. A text without words is all zeros."""

    name: str
    dimension: int

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, dimension) float32."""
        ...
