"""Selection: by hand, against scikit-learn and pandas; three planted features are found among thirty, and of noise nothing is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score
from sklearn.tree import DecisionTreeRegressor

from rlaif_ray.errors import DataError
from rlaif_ray.features import selection
from rlaif_ray.splits import PurgedKFold

NAMES = [f"x{i:02d}" for i in range(30)]
PLANTED = ["x03", "x11", "x27"]


def planted(rows: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Thirty features, of which three make the target: one rises with it, one in steps, one by its size alone."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 30))
    return x, x[:, 3] + np.sign(x[:, 11]) + np.abs(x[:, 27]) + 0.7 * rng.standard_normal(rows)


def noise(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 30)), rng.standard_normal(rows)


def r2(predicted: np.ndarray, true: np.ndarray) -> float:
    return 1.0 - float(((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def kept(frame: pl.DataFrame) -> list[str]:
    return frame.filter(pl.col("kept"))["feature"].to_list()


def informed(x: np.ndarray, y: np.ndarray) -> pl.DataFrame:
    return selection.mutual_information(x, y, NAMES, permutations=100)


def important(x: np.ndarray, y: np.ndarray) -> pl.DataFrame:
    folds = PurgedKFold(5, label_ends=5).split(x)
    return selection.permutation_importance(DecisionTreeRegressor(max_depth=6, random_state=0), x, y, NAMES, folds, r2, repeats=2)


def stable(x: np.ndarray, y: np.ndarray) -> pl.DataFrame:
    return selection.stability(x, y, NAMES, top=3, resamples=40)


# --- by hand and parity --------------------------------------------------------------------------------------------


def test_information_by_hand() -> None:
    """A coin tells all of itself, ln 2; nothing of a coin beside it; and that a value is missing can tell as much."""
    coin, other = np.tile([0.0, 0.0, 1.0, 1.0], 50), np.tile([0.0, 1.0, 0.0, 1.0], 50)
    missing = np.where(coin > 0, np.nan, 1.0)
    found = selection.information(np.column_stack([coin, other, 1 - coin, missing]), coin)
    np.testing.assert_allclose(found, np.log(2) * np.array([1, 0, 1, 1]), atol=1e-12)


def test_information_is_that_of_scikit_learn_on_equal_bins() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(800)
    y = x + rng.standard_normal(800)
    bins = [pd.qcut(v, 8, labels=False) for v in (x, y)]
    np.testing.assert_allclose(selection.information(x[:, None], y), [mutual_info_score(*bins)], rtol=1e-10)


def test_clusters_by_hand() -> None:
    """What rises with x wherever x rises, or falls with it, is x; what does not vary is nobody's."""
    rng = np.random.default_rng(2)
    x, z = rng.standard_normal((2, 500))
    columns = np.column_stack([z, x, -(x**3), x + 0.3 * rng.standard_normal(500), np.full(500, 2.0), np.where(x > 1, np.nan, x)])
    found = selection.correlation_clusters(columns, list("zabcde"))
    assert found["cluster"].to_list() == [0, 1, 1, 1, 2, 1]
    assert found.filter(pl.col("representative"))["feature"].to_list() == ["z", "a", "d"]
    assert selection.correlation_clusters(x[:, None], ["x"])["representative"].to_list() == [True]


def test_rank_correlations_are_those_of_pandas() -> None:
    x = np.random.default_rng(3).standard_normal((200, 4)) @ np.random.default_rng(4).standard_normal((4, 4))
    x[np.random.default_rng(5).random(x.shape) < 0.1] = np.nan
    np.testing.assert_allclose(selection._spearman(x), pd.DataFrame(x).corr(method="spearman"), atol=1e-12)


def test_importance_by_hand() -> None:
    """y = 2 a: without a, what is left of r^2 is 1 - 2 var(2a)/var(2a) = -1 at the mean, so a's rows are worth 2; those of b nothing."""
    x = np.random.default_rng(6).standard_normal((2000, 2))
    folds = PurgedKFold(4, label_ends=1).split(x)
    found = selection.permutation_importance(LinearRegression(), x, 2 * x[:, 0], ["a", "b"], folds, r2)
    np.testing.assert_allclose(found["drop"], [2.0, 0.0], atol=0.05)
    assert kept(found) == ["a"]


# --- it finds what is planted and nothing in noise -----------------------------------------------------------------


@pytest.mark.parametrize("select", [informed, important, stable])
def test_three_planted_features_are_found_among_thirty(select: Callable[[np.ndarray, np.ndarray], pl.DataFrame]) -> None:
    found = select(*planted())
    assert found["feature"].to_list() == NAMES and kept(found) == PLANTED


@pytest.mark.parametrize("select", [informed, important, stable])
def test_of_noise_nothing_is_kept(select: Callable[[np.ndarray, np.ndarray], pl.DataFrame]) -> None:
    """At one time in twenty at most by each rule: more than two of ten would be a chance of one in a hundred."""
    assert sum(bool(kept(select(*noise(seed)))) for seed in range(10)) <= 2


def test_labels_that_overlap_need_blocks() -> None:
    """Slow features and sums over twenty bars: row by row the null is too narrow and noise passes; in blocks it does not."""
    rows, passed = 1000, {1: 0, 60: 0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = np.apply_along_axis(lambda e: np.convolve(e, np.ones(20), "valid"), 0, rng.standard_normal((rows + 19, 30)))
        y = np.convolve(rng.standard_normal(rows + 19), np.ones(20), "valid")
        for block in passed:
            passed[block] += bool(kept(selection.mutual_information(x, y, NAMES, permutations=60, block=block)))
    assert passed[1] == 10 and passed[60] <= 2


def test_the_seed_decides() -> None:
    x, y = noise(3)
    a, b, c = (selection.mutual_information(x, y, NAMES, permutations=50, seed=seed) for seed in (0, 0, 1))
    assert a.equals(b) and not a.equals(c)
    a, b, c = (selection.stability(x, y, NAMES, top=3, resamples=20, seed=seed) for seed in (0, 0, 1))
    assert a.equals(b) and not a.equals(c)


def test_bad_input_says_what_is_wrong() -> None:
    x, y = planted(50)
    with pytest.raises(DataError, match=r"shape \(50, 30\); expected .* \(50, 29\)"):
        selection.mutual_information(x, y, NAMES[1:])
    with pytest.raises(DataError, match="NaN on row 7"):
        selection.stability(x, np.where(np.arange(50) == 7, np.nan, y), NAMES, top=3)
    with pytest.raises(DataError, match="top 31"):
        selection.stability(x, y, NAMES, top=31)
    with pytest.raises(DataError, match="no folds"):
        selection.permutation_importance(LinearRegression(), x, y, NAMES, [], r2)
    with pytest.raises(DataError, match="block is 0"):
        selection.mutual_information(x, y, NAMES, block=0)
