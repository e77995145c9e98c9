"""Strategies that peek are caught, each time and in each way; their honest twins are not."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.backtest.canaries import Decide, looks_ahead
from rlaif_ray.core import CLOSE, Cube
from tests.laws import random_cube


def long_the_best(score: np.ndarray) -> np.ndarray:
    """Everything on the names with an above-average score."""
    chosen = np.nan_to_num(score, nan=-np.inf) >= np.nanmean(score)
    return chosen / max(chosen.sum(), 1)


def closes(cube: Cube) -> np.ndarray:
    return np.nan_to_num(cube.prices[:, :, CLOSE], nan=1.0)


def smoothed(cube: Cube, row: int, ahead: int) -> np.ndarray:
    returns = np.diff(np.log(closes(cube)), axis=0, prepend=0)
    return returns[max(row - 4, 0) : row + 1 + ahead].mean(axis=0)


def scaled(cube: Cube, row: int, stop: int) -> np.ndarray:
    x = closes(cube)[:stop]
    return (closes(cube)[row] - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)


PEEKING: dict[str, Decide] = {
    "one bar": lambda cube, row: long_the_best(closes(cube)[row + 1] / closes(cube)[row]),
    # Filled at the next close, a decision that knows this close is one taken at the price that it is filled at.
    "same close": lambda cube, row: long_the_best(-closes(cube)[row + 1] / closes(cube)[row - 4]),
    "full-sample scaler": lambda cube, row: long_the_best(scaled(cube, row, len(cube.times))),
    "smoothed label": lambda cube, row: long_the_best(smoothed(cube, row, 2)),
}
HONEST: dict[str, Decide] = {
    "last return": lambda cube, row: long_the_best(closes(cube)[row] / closes(cube)[row - 1]),
    "scaled on the past": lambda cube, row: long_the_best(scaled(cube, row, row + 1)),
    "trailing mean": lambda cube, row: long_the_best(smoothed(cube, row, 0)),
}


def asked(decide: Decide, seed: int) -> str | None:
    cube = random_cube(np.random.default_rng(seed), rows=200, assets=12)
    return looks_ahead(decide, cube, range(100, 190, 10), seed=seed)


@pytest.mark.parametrize("name", PEEKING)
def test_peeking_is_caught_every_time(name: str) -> None:
    for seed in range(25):
        found = asked(PEEKING[name], seed)
        assert found is not None and "knew what came after" in found


@pytest.mark.parametrize("name", HONEST)
def test_honest_decisions_are_left_alone(name: str) -> None:
    assert not [seed for seed in range(25) if asked(HONEST[name], seed)]


def test_what_moved_is_said() -> None:
    cube = random_cube(np.random.default_rng(0), rows=50, assets=4)
    found = looks_ahead(lambda c, row: np.eye(4)[int(closes(c)[row + 1, 0] * 1e6) % 4], cube, [10, 20, 30], seed=0)
    assert found is not None and "up to 1 of equity" in found
