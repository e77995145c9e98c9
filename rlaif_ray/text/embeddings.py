"""Texts as unit vectors: hashed words, which need no weights, or a sentence transformer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from rlaif_ray.errors import ConfigError

DIMENSION = 256


class Hashing:
    """Words and pairs of them, each counted in one of 256 cells by its hash (Weinberger et al. 2009, ICML), scaled to length 1.

    What shares its words is alike, whatever it means. Texts without a common word have cosines around 0 with a standard
    deviation of 1/16, from cells that two words share.
    """

    name, dimension = "hashing", DIMENSION

    def __init__(self) -> None:
        self._hashed = HashingVectorizer(n_features=DIMENSION, ngram_range=(1, 2), norm="l2")

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 256) float32."""
        if not len(texts):
            return np.empty((0, DIMENSION), np.float32)
        found: Any = self._hashed.transform(texts)
        return found.toarray().astype(np.float32)


class SentenceEmbedding:
    """A sentence transformer (Reimers and Gurevych 2019, EMNLP): what means the same is alike. Truncates at its own length.

    Raises `ConfigError` where the extra `rag` or the weights are missing.
    """

    def __init__(self, weights: str | None, *, device: str = "auto") -> None:
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                "embedding 'sentence_transformer' needs sentence-transformers, which is missing; pip install 'rlaif-ray[rag]', or choose "
                "'hashing'"
            ) from None
        from rlaif_ray.text.finbert import device_of  # torch is loaded for those who need it
        from rlaif_ray.text.weights import fingerprint, folder_of

        folder = folder_of(weights, "the embedding 'hashing'")
        self._network = SentenceTransformer(folder, device=str(device_of(device)))
        self.name = f"sentence_transformer/{fingerprint(folder)}"
        self.dimension = len(self._network.encode("how wide is this", show_progress_bar=False))

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, dimension) float32."""
        found = self._network.encode(list(texts), convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32).reshape(len(texts), self.dimension)
