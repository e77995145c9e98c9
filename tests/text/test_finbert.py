"""FinBERT's code over a tiny BERT: it reads labels by name, and scores a text by that text alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.text import build, made_by
from rlaif_ray.text.finbert import FinBERT, columns_of, device_of
from rlaif_ray.text.protocols import LABELS
from tests.text.conftest import BAD, GOOD, PLAIN, toy


@pytest.fixture(scope="module")
def finbert(tiny_finbert: Path) -> FinBERT:
    return FinBERT(str(tiny_finbert), device="cpu", batch=8)


def test_it_learned_the_toy_and_its_labels_are_read_by_name(finbert: FinBERT) -> None:
    """By position the labels of this network would be right for none of the neutral and positive texts."""
    texts, labels = toy(np.random.default_rng(2), 200)
    assert finbert.classify(texts) == labels
    score, confidence = finbert.score([f"the company {word} today" for word in (GOOD[0], PLAIN[0], BAD[0])])
    assert score[0] > 0.8 and abs(score[1]) < 0.2 and score[2] < -0.8 and (confidence > 0.8).all()


def test_score_and_confidence_are_made_of_the_probabilities(finbert: FinBERT) -> None:
    p = finbert.probabilities(toy(np.random.default_rng(3), 30)[0])
    score, confidence = finbert.score(toy(np.random.default_rng(3), 30)[0])
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(score, p[:, LABELS.index("positive")] - p[:, LABELS.index("negative")])
    np.testing.assert_array_equal(confidence, p.max(axis=1))


def test_a_text_has_the_same_score_beside_any_others(finbert: FinBERT) -> None:
    """Bit for bit: alone, in another order, with longer ones, as the last of a batch and as the first."""
    texts = [*toy(np.random.default_rng(4), 45)[0], "the bank " * 25 + "falls", ""]
    whole = finbert.probabilities(texts)
    order = np.random.default_rng(5).permutation(len(texts))
    np.testing.assert_array_equal(finbert.probabilities([texts[k] for k in order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([finbert.probabilities([text]) for text in texts]), whole)


def test_a_long_text_is_the_mean_of_its_passages(tiny_finbert: Path, finbert: FinBERT) -> None:
    """61 words a passage, between two tokens of its own; this network takes 64 and one is left for padding."""
    first, second = "gains " + "the bank " * 30, "falls " + "of steel " * 12
    p = finbert.probabilities([first + second, first, second])
    np.testing.assert_allclose(p[0], (63 * p[1] + 27 * p[2]) / 90, atol=1e-6)
    only_first = FinBERT(str(tiny_finbert), device="cpu", batch=8, passages=1)
    np.testing.assert_array_equal(only_first.probabilities([first + second]), p[1:2])


def test_no_texts_and_empty_ones(finbert: FinBERT) -> None:
    assert [x.shape for x in finbert.score([])] == [(0,), (0,)] and finbert.classify([]) == []
    assert np.isfinite(finbert.score(["", " "])[0]).all()


def test_missing_weights_name_the_lexicon(tmp_path: Path) -> None:
    for weights in (None, str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match="'lexicon'"):
            build("finbert", weights)
    with pytest.raises(ConfigError, match="holds no classifier"):
        build("finbert", str(tmp_path))


def test_a_network_with_other_labels_is_refused(tiny_finbert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_finbert, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"LABEL_1.*positive, neutral and negative"):
        build("finbert", str(folder))
    assert columns_of({0: "positive", 1: "negative", 2: "neutral"}) == [0, 2, 1]


def test_other_weights_are_another_model(tiny_finbert: Path, tmp_path: Path, finbert: FinBERT) -> None:
    assert made_by("finbert", str(tiny_finbert)) == f"finbert:{finbert.fingerprint}"
    folder = Path(shutil.copytree(tiny_finbert, tmp_path / "other"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert made_by("finbert", str(folder)) != made_by("finbert", str(tiny_finbert))


def test_a_device_that_is_not_there_is_said() -> None:
    assert device_of("cpu").type == "cpu" and device_of("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match=r"'tpu'; here there is .*cpu"):
        device_of("tpu")
