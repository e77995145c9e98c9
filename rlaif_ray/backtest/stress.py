"""The same decisions under harder terms: other costs, one bar late, names that die, names that were not yet members.

Decisions are replayed, not taken anew: what is asked is whether the result hangs on the terms that they were traded on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, walk

DELISTED_A_YEAR = 0.03  # share of the names that die in a year; about what the S&P 500 loses to failure and takeover together


def replay(market: Market, rows: slice, targets: np.ndarray, costs: CostModel, *, cash_usd: float = 1_000_000.0) -> np.ndarray:
    """(T,) simple net return of each bar, of target weights (T,A) decided on `rows`, from cash."""
    accounts = Accounts.of_cash(1, targets.shape[1], cash_usd)
    return walk(market, accounts, rows, np.ascontiguousarray(targets), costs).net


def late(targets: np.ndarray, bars: int = 1) -> np.ndarray:
    """Each decision acted on `bars` later than it was taken; cash until then."""
    return np.concatenate([np.zeros_like(targets[:bars]), targets[:-bars]])


def among(targets: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Weights (T,A) on members (T,A) bool alone, scaled up to what was invested; a row without a member holds cash."""
    kept = np.where(members, targets, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    return np.divide(kept * targets.sum(axis=1, keepdims=True), total, out=np.zeros_like(kept), where=total > 0)


def with_delistings(market: Market, rows: slice, *, bars_per_year: float, seed: int, rate: float = DELISTED_A_YEAR) -> Market:
    """The market in which each name dies on a random bar of `rows` with a hazard of `rate` a year.

    A dead name pays what the simulator pays on a delisting and is not traded again; at least two names live on.
    """
    rng = np.random.default_rng(seed)
    assets = len(market.symbols)
    at = rows.start + 1 + rng.geometric(rate / bars_per_year, assets)
    dying = [a for a in np.argsort(at, kind="stable") if at[a] <= rows.stop][: assets - 2]
    fillable, delisted = market.fillable.copy(), market.delisted.copy()
    for a in dying:
        delisted[at[a], a] = True
        fillable[at[a] :, a] = False
    return replace(market, fillable=fillable, delisted=delisted)
