"""What theses would have earned: the positions that their decisions imply, walked through the one simulator under the run's controls.

Theses trade long-only, so a decision tilts an equal weight: a sell holds none of the name, a hold the usual share, a
buy twice as much. An opinion is about the bars of its horizon, so a position is the mean of the tilts decided over the last
of them (overlapping portfolios, Jegadeesh and Titman 1993): each decision is held for its horizon, and a part turns over
each bar. Whoever decided nothing on a name counts as a hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif_ray.backtest.controlled import ControlledAccount, trips_of
from rlaif_ray.backtest.metrics import summary
from rlaif_ray.backtest.significance import edge
from rlaif_ray.core import Cube, Episode
from rlaif_ray.execution.simulator import Market
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Controls


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
    """The walk of target weights (R,A) decided on `rows`, from cash, each filled on the bar after it; controls have the last word."""
    controls = Controls.of(cube, terms.limits, terms.sectors, slice(0, rows.start))
    walked = ControlledAccount(Market.of(cube, terms.fill), controls, terms).advance(rows.start, targets)
    times, result, trips = cube.times[rows.start + 1 : rows.stop + 1], walked.result, trips_of(controls, rows, [walked])
    return Episode(times, cube.symbols, result.weights, result.gross, result.cost, result.turnover, name, trips)


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
