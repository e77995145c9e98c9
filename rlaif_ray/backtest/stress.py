"""The same decisions under harder terms: other costs, one bar late, names that die, names that were not yet members.

Decisions are replayed, not taken anew: what is asked is whether the result hangs on the terms that they were traded on,
or on one state of the market.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from rlaif_ray.execution.account import GROSS, NET
from rlaif_ray.execution.kernel import DELISTED, FILLABLE
from rlaif_ray.execution.simulator import Accounts, Market, walk
from rlaif_ray.execution.terms import Terms

DELISTED_A_YEAR = 0.03  # share of the names that die in a year; about what the S&P 500 loses to failure and takeover together
QUARTER, YEAR = 0.25, 1.0  # over which the market's volatility and its direction are looked back on
ROUNDING = 1e-9  # sums of squares that differ by less are the same volatility


def replay(market: Market, rows: slice, targets: np.ndarray, terms: Terms) -> np.ndarray:
    """(T,) simple net return of each bar, of target weights (T,A) decided on `rows`, from cash; what controls cut is cut already."""
    accounts = Accounts.of_cash(1, targets.shape[1], terms.cash_usd)
    return walk(market, accounts, rows, np.ascontiguousarray(targets), terms.costs, terms.account).net


def late(held: np.ndarray) -> np.ndarray:
    """Targets (T,A) of an account that makes every trade one bar later than one that held `held` (T,A) at its closes; cash until then.

    It holds at each open what the other held at the close before: who did not trade there does not trade here, however far
    prices drift, which targets of one bar ago would ask for. But what a long-short account holds may drift beyond what may
    be asked for: all weights of such a bar are scaled down until it may.
    """
    return _within(np.concatenate([np.zeros_like(held[:1]), held[:-1]]))


def among(targets: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Weights (T,A) on members (T,A) bool alone, longs and shorts each scaled up to what was invested on their side.

    A side without a member in a row is in cash; where the other alone is more than may be held, it is scaled down.
    """
    longs, shorts = (_onto(np.maximum(side, 0.0), members) for side in (targets, -targets))
    return _within(longs - shorts)


def _onto(invested: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Amounts (T,A) >= 0 on members alone, each row with the sum that it had; a row without any holds nothing."""
    kept = np.where(members, invested, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    return np.divide(kept * invested.sum(axis=1, keepdims=True), total, out=np.zeros_like(kept), where=total > 0)


def _within(weights: np.ndarray) -> np.ndarray:
    """Weights (T,A), rows scaled down as far as a long-short account may hold them; long-only ones that may be held stay as they are."""
    gross, net = np.abs(weights).sum(axis=1, keepdims=True), np.abs(weights.sum(axis=1, keepdims=True))
    return weights / np.maximum(np.maximum(gross / GROSS, net / NET), 1.0)


def with_delistings(market: Market, rows: slice, *, bars_per_year: float, seed: int, rate: float = DELISTED_A_YEAR) -> Market:
    """The market in which each name dies on a random bar of `rows` with a hazard of `rate` a year.

    A dead name pays what the simulator pays on a delisting and is not traded again; at least two names live on.
    """
    rng = np.random.default_rng(seed)
    assets = len(market.symbols)
    at = rows.start + 1 + rng.geometric(rate / bars_per_year, assets)
    dying = [a for a in np.argsort(at, kind="stable") if at[a] <= rows.stop][: assets - 2]
    fillable, delisted = market.book[:, FILLABLE].copy(), market.book[:, DELISTED].copy()
    for a in dying:
        delisted[at[a], a] = 1.0
        fillable[at[a] :, a] = 0.0
    return market.with_planes({FILLABLE: fillable, DELISTED: delisted})


def regimes(market_returns: np.ndarray, *, bars_per_year: float) -> np.ndarray:
    """(T,) the state of the market at each close: rising or falling over the past year, calm or rough over the past quarter.

    `market_returns` (T,) are simple, of equal weight. Rough is a volatility above the median of all that were seen until
    then; bars without a quarter behind them are calm, so that nothing after a bar says what it is called.
    """
    logs, bars = np.log1p(market_returns), np.arange(len(market_returns))
    total = np.concatenate([[0.0], np.cumsum(logs)])
    squares = np.concatenate([[0.0], np.cumsum(logs**2)])
    year, quarter = (max(2, round(bars_per_year * span)) for span in (YEAR, QUARTER))
    grown = total[1:] - total[np.maximum(bars + 1 - year, 0)]
    volatility = squares[1:] - squares[np.maximum(bars + 1 - quarter, 0)]
    rough = np.zeros(len(bars), bool)
    seen: list[float] = []
    for t in range(quarter, len(bars)):
        rough[t] = bool(seen) and volatility[t] > seen[len(seen) // 2] * (1 + ROUNDING)
        insort(seen, float(volatility[t]))
    return np.char.add(np.where(grown >= 0, "rising, ", "falling, "), np.where(rough, "rough", "calm"))
