"""What theses would have earned: the positions that their decisions imply, walked through the one simulator.

Accounts are long-only there, so a decision tilts an equal weight: a sell holds none of the name, a hold the usual share, a
buy twice as much. An opinion is about the bars of its horizon, so a position is the mean of the tilts decided over the last
of them (overlapping portfolios, Jegadeesh and Titman 1993): each decision is held for its horizon, and a part turns over
each bar. Whoever decided nothing on a name counts as a hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif_ray.backtest.metrics import summary
from rlaif_ray.backtest.significance import edge
from rlaif_ray.core import Cube, Episode
from rlaif_ray.execution.caps import apply_cap
from rlaif_ray.execution.simulator import Accounts, Market, StepResult, step, walk
from rlaif_ray.execution.terms import Terms

HOLD, EQUAL = "buy_and_hold", "equal_weight"


def positions(signs: np.ndarray, listed: np.ndarray, horizon_bars: int) -> np.ndarray:
    """(R,A) target weights, adding up to 1 wherever a name is listed, of decisions on adjoining rows.

    Parameters
    ----------
    signs : (R,A) -1, 0 or 1; NaN, nothing was decided, counts as 0. Before row 0 nothing is known, so the first rows
        average fewer decisions.
    listed : (R,A) bool.
    """
    tilt = np.where(np.isfinite(signs), 1.0 + signs, 1.0) * listed
    total = np.zeros_like(tilt)
    for back in range(min(horizon_bars, len(tilt))):
        total[back:] += tilt[: len(tilt) - back]
    total = total * listed  # a name that is gone since is not held for what was said of it
    whole = total.sum(axis=1, keepdims=True)
    return np.where(whole > 0, total / np.where(whole > 0, whole, 1.0), equal(listed))


def equal(listed: np.ndarray) -> np.ndarray:
    """(R,A) the same weight on every listed name."""
    return listed / np.maximum(listed.sum(axis=1, keepdims=True), 1)


def traded(name: str, cube: Cube, rows: slice, targets: np.ndarray, terms: Terms) -> Episode:
    """The walk of target weights (R,A) decided on `rows`, from cash, each filled on the bar after it."""
    market, accounts = Market.of(cube, terms.fill), Accounts.of_cash(1, len(cube.symbols), terms.cash_usd)
    return _episode(name, cube, rows, walk(market, accounts, rows, apply_cap(targets, terms.limits.max_weight), terms.costs, terms.account))


def held(cube: Cube, rows: slice, terms: Terms) -> Episode:
    """Equal weight over what is tradable on the first row, then no trade; what it drifts to is kept whatever the cap."""
    market, accounts = Market.of(cube, terms.fill), Accounts.of_cash(1, len(cube.symbols), terms.cash_usd)
    targets = apply_cap(equal((cube.tradable & cube.listed)[rows.start][None]), terms.limits.max_weight)
    bars = []
    for row in range(rows.start, rows.stop):
        bars.append(step(market, accounts, np.array([row]), targets, terms.costs, terms.account))
        targets = accounts.weights(market, np.array([row + 1]))
    result = StepResult.joined(bars)
    return _episode(HOLD, cube, rows, result)


def earned(episode: Episode, hold: Episode, even: Episode, *, bars_per_year: float, resamples: int, seed: int) -> dict[str, Any]:
    """Net excess over buy-and-hold a bar and a year, Sharpe ratios, turnover, each with its interval, and whether an edge is claimed.

    An edge is what `significance.edge` says over equal weight of the same names at the same costs, and nothing else.
    """
    figures = summary(episode, hold, bars_per_year=bars_per_year, resamples=resamples, seed=seed)
    names = ("annual_return", "sharpe", "excess_log_return", "excess_sharpe", "turnover", "cost_drag")
    over = edge(episode.returns, even.returns, resamples=resamples, seed=seed)
    return {
        **{name: figures[name] for name in names},
        "over_equal_weight": {"value": over.value, "low": over.low, "high": over.high}, "edge": over.claim,
    }  # fmt: skip


def _episode(name: str, cube: Cube, rows: slice, result: StepResult) -> Episode:
    times = cube.times[rows.start + 1 : rows.stop + 1]
    return Episode(times, cube.symbols, result.weights, result.gross, result.cost, result.turnover, name)
