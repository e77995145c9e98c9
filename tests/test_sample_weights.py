"""Weights of labels by hand, and against the book's own snippets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlaif_ray.errors import DataError
from rlaif_ray.sample_weights import average_uniqueness, concurrency, return_attribution, sequential_bootstrap, time_decay
from tests import afml

START, END = np.array([0, 2, 4]), np.array([2, 3, 5])  # the book's example 4.5.3


def spans(labels: int, bars: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.choice(bars - 20, labels, replace=False))
    return start, start + rng.integers(0, 20, labels)


def test_the_books_example_by_hand() -> None:
    assert concurrency(START, END, 7).tolist() == [1, 1, 2, 1, 1, 1, 0]
    np.testing.assert_allclose(average_uniqueness(START, END, 7), [5 / 6, 3 / 4, 1.0])


def test_overlaps_returns_and_uniqueness_are_the_books() -> None:
    start, end = spans(60, 200)
    close = pd.Series(100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 200))))
    t1 = pd.Series(end, index=start)
    count = afml.concurrent(200, t1)
    assert concurrency(start, end, 200).tolist() == count.tolist()
    np.testing.assert_allclose(average_uniqueness(start, end, 200), afml.uniqueness(t1, count), rtol=1e-14)
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    np.testing.assert_allclose(return_attribution(returns, start, end), afml.attribution(close, t1, count), rtol=1e-12)


def test_decay_runs_in_uniqueness_from_the_newest_label_back() -> None:
    unique = np.array([0.5, 0.5, 1.0])
    np.testing.assert_allclose(time_decay(unique, 1.0), [1, 1, 1])
    np.testing.assert_allclose(time_decay(unique, 0.0), [0.25, 0.5, 1.0])
    np.testing.assert_allclose(time_decay(unique, 0.5), [0.625, 0.75, 1.0])
    np.testing.assert_allclose(time_decay(unique, -0.5), [0.0, 0.0, 1.0])  # the older half weighs nothing


def test_after_the_second_label_the_chances_are_the_books() -> None:
    np.testing.assert_allclose(afml.draw_chances(afml.indicators(START, END), [1]), [5 / 14, 3 / 14, 6 / 14])
    second = [sequential_bootstrap(START, END, size=2, seed=s).tolist() for s in range(6000)]
    after = np.array([b for a, b in second if a == 1])
    np.testing.assert_allclose(np.bincount(after) / len(after), [5 / 14, 3 / 14, 6 / 14], atol=0.04)


def test_draws_are_the_books_with_the_same_random_numbers() -> None:
    start, end = spans(40, 120)
    covers, rng, drawn = afml.indicators(start, end), np.random.default_rng(5), []
    for _ in range(40):
        chances = np.cumsum(afml.draw_chances(covers, drawn))
        drawn.append(int(np.searchsorted(chances, rng.random(), side="right")))
    assert sequential_bootstrap(start, end, size=40, seed=5).tolist() == drawn


def test_sequential_draws_are_more_unique_than_plain_ones() -> None:
    start, end = spans(80, 120)

    def unique(drawn: np.ndarray) -> float:
        drawn = np.sort(drawn)
        return average_uniqueness(start[drawn], end[drawn], 140).mean()

    sequential = np.mean([unique(sequential_bootstrap(start, end, size=80, seed=s)) for s in range(50)])
    plain = np.mean([unique(np.random.default_rng(s).integers(0, 80, 80)) for s in range(50)])
    assert sequential > plain


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (START, np.array([2.0, np.nan, 5.0]), "every label needs the row at which it closes"),
        (START, END[:2], "every label needs the row at which it closes"),
        (START, np.array([2, 1, 5]), "label 1 runs from row 2 to 1"),
        (START, np.array([2, 3, 7]), "label 2 runs from row 4 to 7"),
        (START[::-1], END, "not in time order at entry 1"),
        (np.array([], np.int64), np.array([], np.int64), "at least one"),
    ],
)
def test_labels_without_a_good_end_are_refused(start, end, said) -> None:
    with pytest.raises(DataError, match=said):
        average_uniqueness(start, end, 7)


def test_weights_that_cannot_be_said_are_refused() -> None:
    for returns in (np.zeros(7), np.full(7, np.nan)):
        with pytest.raises(DataError, match="add up to"):
            return_attribution(returns, START, END)
    for unique, oldest in ((np.array([]), 0.5), (np.array([0.5, np.nan]), 0.5), (np.array([0.5, 0.0]), 0.5), (np.ones(2), -1.0)):
        with pytest.raises(DataError, match="expected"):
            time_decay(unique, oldest)
    with pytest.raises(DataError, match="0 draws"):
        sequential_bootstrap(START, END, size=0, seed=0)
