"""Strategies that look ahead, each in a way of its own, and their honest twins: what the canaries are held to.

Filled at the next close, a decision that knows that close is one taken at the price that it is filled at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlaif_ray.backtest.canaries import looks_ahead, noise_market
from rlaif_ray.core import CLOSE, Cube

Rule = Callable[[Cube, int], np.ndarray]  # (cube, row) -> (A,) weights
BARS, ASSETS, SMOOTH = 200, 12, 5
ASKED = range(BARS // 2, BARS - 10, 10)  # rows whose decisions are taken again


def closes(cube: Cube) -> np.ndarray:
    """(T,A); 1 where there is none."""
    return np.nan_to_num(cube.prices[:, :, CLOSE], nan=1.0)


def long_the_best(score: np.ndarray) -> np.ndarray:
    """Everything on the names with an above-average score."""
    chosen = np.nan_to_num(score, nan=-np.inf) >= np.nanmean(score)
    return chosen / max(chosen.sum(), 1)


def scaled(cube: Cube, row: int, stop: int) -> np.ndarray:
    """How far each close stands from its mean, in deviations, both of all bars before `stop`."""
    x = closes(cube)[:stop]
    return (closes(cube)[row] - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)


def _smoothed(cube: Cube, row: int, ahead: int) -> np.ndarray:
    returns = np.diff(np.log(closes(cube)), axis=0, prepend=0)
    return returns[max(row + 1 - SMOOTH, 0) : row + 1 + ahead].mean(axis=0)


PEEKING: dict[str, Rule] = {
    "one bar": lambda cube, row: long_the_best(closes(cube)[row + 1] / closes(cube)[row]),
    "same close": lambda cube, row: long_the_best(-closes(cube)[row + 1] / closes(cube)[row + 1 - SMOOTH]),
    "full-sample scaler": lambda cube, row: long_the_best(scaled(cube, row, len(cube.times))),
    "smoothed label": lambda cube, row: long_the_best(_smoothed(cube, row, SMOOTH // 2)),
}
HONEST: dict[str, Rule] = {
    "last return": lambda cube, row: long_the_best(closes(cube)[row] / closes(cube)[row - 1]),
    "scaled on the past": lambda cube, row: long_the_best(scaled(cube, row, row + 1)),
    "trailing mean": lambda cube, row: long_the_best(_smoothed(cube, row, 0)),
}


def a_market(seed: int) -> Cube:
    """Daily random walks with splits, dividends, halts and delistings, without a feature."""
    noise = noise_market(np.random.default_rng(seed), BARS, ASSETS)
    times = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * np.arange(BARS)
    return Cube(
        times, times.copy(), tuple(f"S{a:02d}" for a in range(ASSETS)), noise["prices"], np.empty((BARS, ASSETS, 0), np.float32), (),
        noise["tradable"], noise["splits"], noise["dividends"], noise["delisted"], 252.0,
    )  # fmt: skip


def caught(rules: dict[str, Rule], seed: int) -> dict[str, str]:
    """Which of the rules look ahead on one such market, and how that showed."""
    cube = a_market(seed)
    traded = {row: {name: rule(cube, row) for name, rule in rules.items()} for row in ASKED}
    return looks_ahead(lambda c, row: {name: rule(c, row) for name, rule in rules.items()}, cube, traded, seed=seed)
