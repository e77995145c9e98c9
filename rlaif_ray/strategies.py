"""Rule policies: the baselines that every learned policy is measured against, at the same costs and caps.

All but buy-and-hold are functions of past prices alone: they offer `weights` in bulk, and `decide` is its last row on
the history that the view can see. Returns are total returns, dividends and splits included.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rlaif_ray.core import Cube, Decision, MarketView, Policy
from rlaif_ray.data.events import total_returns


class _BulkRule(Protocol):
    name: str
    reason: str

    def weights(self, cube: Cube, rows: slice) -> np.ndarray: ...


class _DecidesInBulk:
    """`decide` as one row of `weights`."""

    def decide(self: _BulkRule, view: MarketView) -> Decision:
        weights = self.weights(view.history(), slice(view.t, view.t + 1))[0]
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), self.reason, self.name)


class BuyAndHold:
    """Equal weight over what is tradable at the first decision, then no trade: dividends stay in cash, later names are not bought."""

    name = "buy_and_hold"

    def decide(self, view: MarketView) -> Decision:
        """A portfolio of cash only is a start; any other is kept as it stands."""
        if view.portfolio.shares.any():
            weights, reason = view.portfolio.weights, "hold what was bought"
        else:
            tradable = view.tradable & np.isfinite(view.portfolio.prices)
            weights, reason = tradable / max(tradable.sum(), 1), "buy every tradable name in equal weight"
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)


class EqualWeight(_DecidesInBulk):
    """The same weight on every listed name, restored at each bar: what an edge is measured over."""

    name = "equal_weight"
    reason = "equal weight on every listed name"

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        return _equal(cube.listed[rows])


class Momentum(_DecidesInBulk):
    """The third of the names with the highest past return, the latest month left out; rebalanced monthly.

    Jegadeesh and Titman (1993), "Returns to buying winners and selling losers". Winners are picked on the absolute rows
    0, hold, 2*hold, ... and drift with their prices in between. Names listed for less than `lookback` bars are not
    candidates; while there are none, equal weight.

    Parameters
    ----------
    lookback, skip : the return runs from `lookback` bars back to `skip` bars back.
    hold : bars between rebalancings.
    """

    name = "momentum_12_1"
    reason = "the third of the names with the highest return over the past year less its last month"

    def __init__(self, lookback: int = 252, skip: int = 21, hold: int = 21) -> None:
        self.lookback, self.skip, self.hold = lookback, skip, hold

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        listed, growth = cube.listed, np.cumsum(_log_returns(cube), axis=0)
        numbers = np.arange(rows.start, rows.stop)
        picked_at = numbers - numbers % self.hold
        picks = {m: self._pick(listed, growth, m) for m in np.unique(picked_at).tolist()}
        held = np.stack([picks[m] for m in picked_at.tolist()]) * np.exp(growth[numbers] - growth[picked_at]) * listed[numbers]
        return _to_one(held)

    def _pick(self, listed: np.ndarray, growth: np.ndarray, m: int) -> np.ndarray:
        if m < self.lookback or not (candidates := listed[m] & listed[m - self.lookback]).any():
            return _equal(listed[m : m + 1])[0]
        past = np.where(candidates, growth[m - self.skip] - growth[m - self.lookback], -np.inf)
        winners = np.argsort(-past, kind="stable")[: -(-int(candidates.sum()) // 3)]
        chosen = np.zeros(len(past), bool)
        chosen[winners] = True
        return _equal(chosen[None])[0]


class InverseVolatility(_DecidesInBulk):
    """Weights in inverse proportion to each name's volatility over the last `window` bars, restored at each bar.

    Names listed for less than `window` bars, or whose price did not move, get nothing; while there are no others, equal weight.
    """

    name = "inverse_volatility"
    reason = "each name in inverse proportion to its volatility over the past quarter"

    def __init__(self, window: int = 63) -> None:
        self.window = window

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        listed, returns = cube.listed, _log_returns(cube)
        numbers = np.arange(rows.start, rows.stop)
        back = np.maximum(numbers[:, None] - np.arange(self.window), 0)  # (T,window), newest first
        mean = sum(returns[back[:, k]] for k in range(self.window)) / self.window
        variance = sum((returns[back[:, k]] - mean) ** 2 for k in range(self.window)) / (self.window - 1)
        known = listed[numbers] & listed[np.maximum(numbers - self.window, 0)] & (numbers >= self.window)[:, None] & (variance > 0)
        inverse = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=known)
        return np.where(known.any(axis=1, keepdims=True), _to_one(inverse), _equal(listed[numbers]))


def baselines(cube: Cube) -> list[Policy]:
    """The four rules, with their windows of a year, a quarter and a month in the cube's own bars."""
    year, quarter, month = (max(2, round(cube.bars_per_year / k)) for k in (1, 4, 12))
    return [BuyAndHold(), EqualWeight(), Momentum(lookback=year, skip=month, hold=month), InverseVolatility(window=quarter)]


def _log_returns(cube: Cube) -> np.ndarray:
    """(T,A) total log return per bar; 0 where there is none."""
    return np.log1p(np.nan_to_num(total_returns(cube)))


def _equal(chosen: np.ndarray) -> np.ndarray:
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def _to_one(positive: np.ndarray) -> np.ndarray:
    """Each row scaled to a sum of 1; a row of zeros stays in cash."""
    total = positive.sum(axis=1, keepdims=True)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
