"""Hashed words: unit vectors that are alike where words are shared. A sentence transformer where the extra is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.text import build_embedding, made_by

TEXTS = ["Steel maker cuts guidance", "steel maker CUTS guidance!", "Steel maker cuts its guidance", "A bank opens in Lisbon", ""]


def test_the_same_words_are_the_same_vector_and_shared_words_are_near() -> None:
    v = build_embedding("hashing").vectors(TEXTS)
    cosines = v @ v.T
    np.testing.assert_allclose(np.diag(cosines), [1, 1, 1, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(v[0], v[1])
    assert v.dtype == np.float32 and v.shape == (5, 256)
    # 4 words + 3 pairs against 5 + 4, with 4 words and 2 pairs in common: 6 / sqrt(7 * 9), give or take a shared cell
    np.testing.assert_allclose(cosines[0, 2], 6 / np.sqrt(63), atol=0.15)
    assert abs(cosines[0, 3]) < 0.3


def test_no_texts_and_unknown_names() -> None:
    assert build_embedding("hashing").vectors([]).shape == (0, 256)
    with pytest.raises(ConfigError, match="Did you mean 'hashing'"):
        build_embedding("hash")


@pytest.mark.skipif(find_spec("sentence_transformers") is not None, reason="the extra is installed")
def test_a_missing_extra_is_named() -> None:
    with pytest.raises(ConfigError, match=r"rlaif-ray\[rag\]"):
        build_embedding("sentence_transformer", "anywhere")


def test_a_sentence_transformer_from_a_folder(tiny_finbert: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs the extra rag")
    library.SentenceTransformer(str(tiny_finbert), device="cpu").save(str(tmp_path / "model"))  # with a mean over the words
    embedding = build_embedding("sentence_transformer", str(tmp_path / "model"), device="cpu")
    v = embedding.vectors(["the bank falls", "the bank falls", "steel"])
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(v[0], v[1], atol=1e-6)
    assert v.shape == (3, embedding.dimension) == (3, 32) and embedding.vectors([]).shape == (0, 32)
    assert embedding.name == made_by("sentence_transformer", str(tmp_path / "model")).replace(":", "/")
