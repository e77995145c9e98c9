"""Who claims an edge, and how often: nearly no one without a signal, all who learn with one.

Markets of the `signal-test` size (30 symbols x 2,500 daily bars); learned policies are fitted on the first half, and all
are judged on the second, at the same costs, over equal weight.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from rlaif_ray.backtest.engine import run
from rlaif_ray.backtest.significance import Interval, edge
from rlaif_ray.core import OPEN, VOLUME, Cube, Decision, MarketView, Policy
from rlaif_ray.data.events import total_returns
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.strategies import EqualWeight, baselines
from tests.oracle import MAX_WEIGHT, TERMS, OraclePolicy, market_cube

SEEDS, BARS, HALF, WARMUP = 20, 2500, 1250, 80
CALM = ("min_variance", "hrp")  # where all drift alike, half the variance saved is log return gained: an edge without any skill
ROWS = slice(HALF + 6, BARS - 1)  # past the last label that a fit has seen, and an embargo of 5 bars


def trailing_mean(x: np.ndarray, window: int) -> np.ndarray:
    """(T,A) mean of the last `window` rows, fewer at the start."""
    total = np.cumsum(np.vstack([np.zeros((1, x.shape[1])), x]), axis=0)
    t = np.arange(1, len(x) + 1)
    first = np.maximum(t - window, 0)
    return (total[t] - total[first]) / (t - first)[:, None]


def observation(cube: Cube) -> tuple[np.ndarray, np.ndarray]:
    """What each score can be read from, (T,A,4), and the residual volatility (T,A); both known at the row."""
    returns = np.nan_to_num(total_returns(cube))
    apart = returns - returns.mean(axis=1, keepdims=True)
    volatility = np.sqrt(np.maximum(trailing_mean(apart**2, 20), 1e-8))
    reversal = -trailing_mean(apart, 5) * np.sqrt(5) / volatility
    volume = cube.prices[:, :, VOLUME] / np.cumprod(cube.splits, axis=0)
    log_volume = np.log(np.where(volume > 0, volume, np.nan))
    log_volume = np.nan_to_num(log_volume - np.nanmedian(log_volume[:WARMUP], axis=0))
    surge = log_volume - trailing_mean(log_volume, 60)
    facts = [
        np.nan_to_num(cube.feature(f"{kind}_score") * np.exp(-cube.feature(f"{kind}_age_bars") / bars))
        for kind, bars in (("filing", 20.0), ("news", 5.0))
    ]  # fmt: skip
    return np.stack([reversal, surge, *facts], axis=-1).astype(np.float64), volatility


class Ridge:
    """Ridge regression of the next bar's residual open-to-close return, traded the way the oracle is."""

    name = "ridge"

    def __init__(self, cube: Cube) -> None:
        seen, volatility = observation(cube)
        move = np.nan_to_num(cube.close / cube.prices[:, :, OPEN] - 1)
        label = (move - move.mean(axis=1, keepdims=True))[WARMUP + 1 : HALF + 1] / volatility[WARMUP:HALF]
        x, y = seen[WARMUP:HALF].reshape(-1, 4), label.reshape(-1)
        self.slopes = np.linalg.solve(x.T @ x + 100 * np.eye(4), x.T @ y)
        self.expected = np.where(cube.delisted, 0.0, (seen @ self.slopes) * volatility)
        self._book = OraclePolicy(self.expected)

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        return self._book.weights(cube, rows)

    def decide(self, view: MarketView) -> Decision:
        return self._book.decide(view)


class Losers:
    """Bets on the third of the names that have lost most since the first bar: wins if sample means were taken out."""

    name = "losers"

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        growth = np.where(cube.delisted, np.inf, np.cumsum(np.log1p(np.nan_to_num(total_returns(cube))), axis=0))[rows]
        chosen = growth <= np.quantile(growth, 1 / 3, axis=1, keepdims=True)
        return chosen / chosen.sum(axis=1, keepdims=True)

    def decide(self, view: MarketView) -> Decision:
        weights = self.weights(view.history(), slice(view.t, view.t + 1))[0]
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), "has lost most", self.name)


@lru_cache(maxsize=8)
def judged(seed: int, strength: float) -> dict[str, Interval]:
    """The edge of each cheap policy on one market."""
    cube = market_cube(SyntheticSource(30, BARS, seed=seed, signal_strength=strength))
    policies: list[Policy] = [*baselines(cube, max_weight=MAX_WEIGHT), Ridge(cube), Losers()]
    returns = {
        p.name: run(p, cube, ROWS, TERMS)[0].returns for p in policies
    }  # fmt: skip
    benchmark = returns.pop(EqualWeight.name)
    return {name: edge(r, benchmark, seed=seed) for name, r in returns.items()}


@pytest.mark.slow
def test_without_a_signal_hardly_anyone_claims_an_edge() -> None:
    claims: dict[str, int] = {}
    for seed in range(SEEDS):
        for name, interval in judged(seed, 0.0).items():
            claims[name] = claims.get(name, 0) + interval.claim
    assert {"buy_and_hold", "momentum_12_1", "short_term_reversal", *CALM, "ridge", "losers"} < set(claims)
    assert max(claims[name] for name in claims if name not in CALM) <= 2, claims


@pytest.mark.slow
def test_half_the_signal_is_enough_for_a_line_on_most_seeds() -> None:
    assert sum(judged(seed, 0.5)["ridge"].claim for seed in range(10)) >= 7


def test_with_the_signal_a_line_through_the_scores_claims_an_edge_on_every_seed() -> None:
    found = [judged(seed, 1.0) for seed in range(3)]
    assert [f["ridge"].claim for f in found] == [True] * 3
    assert min(f["ridge"].value for f in found) * 252 > 0.15  # a year, after costs
    assert not any(f["buy_and_hold"].claim or f["inverse_volatility"].claim for f in found)
