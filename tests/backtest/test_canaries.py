"""Strategies that peek are caught, each time and in each way; their honest twins are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlaif_ray.backtest.canaries import looks_ahead
from rlaif_ray.core import CLOSE, Cube
from tests.laws import random_cube

Rule = Callable[[Cube, int], np.ndarray]


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


PEEKING: dict[str, Rule] = {
    "one bar": lambda cube, row: long_the_best(closes(cube)[row + 1] / closes(cube)[row]),
    # Filled at the next close, a decision that knows this close is one taken at the price that it is filled at.
    "same close": lambda cube, row: long_the_best(-closes(cube)[row + 1] / closes(cube)[row - 4]),
    "full-sample scaler": lambda cube, row: long_the_best(scaled(cube, row, len(cube.times))),
    "smoothed label": lambda cube, row: long_the_best(smoothed(cube, row, 2)),
}
HONEST: dict[str, Rule] = {
    "last return": lambda cube, row: long_the_best(closes(cube)[row] / closes(cube)[row - 1]),
    "scaled on the past": lambda cube, row: long_the_best(scaled(cube, row, row + 1)),
    "trailing mean": lambda cube, row: long_the_best(smoothed(cube, row, 0)),
}


def caught(rules: dict[str, Rule], seed: int) -> dict[str, str]:
    cube = random_cube(np.random.default_rng(seed), rows=200, assets=12)
    traded = {row: {name: rule(cube, row) for name, rule in rules.items()} for row in range(100, 190, 10)}
    return looks_ahead(lambda c, row: {name: rule(c, row) for name, rule in rules.items()}, cube, traded, seed=seed)


def test_peeking_is_caught_every_time_and_honest_decisions_are_left_alone() -> None:
    for seed in range(25):
        assert set(caught(PEEKING | HONEST, seed)) == set(PEEKING)


def test_what_moved_is_said() -> None:
    found = caught({"all on one": lambda c, row: np.eye(12)[int(closes(c)[row + 1, 0] * 1e6) % 12]}, 0)
    assert "up to 1 of equity: it knew what came" in found["all on one"]


def test_who_decided_in_bulk_on_the_future_is_caught_by_what_was_traded() -> None:
    """Asked again on a view that ends at its row, such a rule decides honestly: only its trades give it away."""
    cube = random_cube(np.random.default_rng(1), rows=200, assets=12)
    z = (closes(cube) - closes(cube).mean(axis=0)) / (closes(cube).std(axis=0) + 1e-9)
    traded = {row: {"bulk": long_the_best(z[row]), "honest": HONEST["last return"](cube, row)} for row in range(100, 190, 10)}

    def on_views(c: Cube, row: int) -> dict[str, np.ndarray]:
        return {"bulk": long_the_best(scaled(c, row, row + 1)), "honest": HONEST["last return"](c, row)}

    found = looks_ahead(on_views, cube, traded, seed=0)
    assert set(found) == {"bulk"} and "what was traded at" in found["bulk"]
