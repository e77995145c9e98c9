"""How good a table of forecasts was, once its horizons had closed: proper scores and calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif_ray.core import Cube, ForecastTable
from rlaif_ray.data.events import total_returns
from rlaif_ray.labels import forward_log_volatility, forward_returns


def outcomes(table: ForecastTable, cube: Cube) -> np.ndarray:
    """(T,A,H) what came true for each forecast of `table`; NaN where it is not known inside `cube`."""
    rows = np.searchsorted(cube.known_at, table.as_of)
    label = forward_returns if table.target == "return" else forward_log_volatility
    return label(total_returns(cube), table.horizons)[rows]


def pinball(values: np.ndarray, truth: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Mean pinball loss over levels, elementwise: (..., Q) quantiles and (...) truth. Koenker & Bassett (1978).

    Twice its integral over all levels is the CRPS, so forecasts over the same levels compare as by CRPS.
    """
    q = np.asarray(levels, np.float64)
    error = truth[..., None] - values
    return np.maximum(q * error, (q - 1.0) * error).mean(-1)


def qlike(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """QLIKE of a log-volatility forecast, elementwise: v/s - log(v/s) - 1, 0 at best. Patton (2011), eq. 24.

    v is the variance that came, s the mean of exp(2x) over the forecast quantiles (..., Q).
    """
    ratio = np.exp(2.0 * truth) / np.exp(2.0 * values).mean(-1)
    return ratio - np.log(ratio) - 1.0


def losses(table: ForecastTable, cube: Cube) -> np.ndarray:
    """(T,A,H) pinball loss of each forecast of `table`; NaN where there is none, or none has closed inside `cube`."""
    return pinball(table.values.astype(np.float64), outcomes(table, cube), table.levels)


def calibration(table: ForecastTable, cube: Cube) -> dict[str, Any]:
    """Scores by horizon, over every (row, symbol) that was forecast and has closed inside `cube`.

    Returns
    -------
    {"1": {"count", "pinball", "coverage": {"0.1": share of outcomes at or below that quantile, ...}, "interval_80" (share between
    the 10% and 90% quantiles, where both are there), and for returns "mae_to_naive" (mean absolute error of the median over that
    of no change; below 1 is better), for log volatility "qlike"}, "5": ...}. A horizon that nothing has closed on is left out.
    """
    truth_TAH = outcomes(table, cube)
    scores: dict[str, Any] = {}
    for j, horizon in enumerate(table.horizons):
        values, truth = table.values[:, :, j].astype(np.float64), truth_TAH[:, :, j]
        there = np.isfinite(truth) & np.isfinite(values).all(-1)
        if there.any():
            scores[str(horizon)] = _score(table, values[there], truth[there])
    return scores


def _score(table: ForecastTable, values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores of (N,Q) quantiles against (N,) outcomes."""
    below = (truth[:, None] <= values).mean(0)
    levels = list(table.levels)
    score: dict[str, Any] = {
        "count": len(truth),
        "pinball": float(pinball(values, truth, table.levels).mean()),
        "coverage": {str(level): float(share) for level, share in zip(levels, below, strict=True)},
    }
    if 0.1 in levels and 0.9 in levels:
        low, high = values[:, levels.index(0.1)], values[:, levels.index(0.9)]
        score["interval_80"] = float(((truth >= low) & (truth <= high)).mean())
    if table.target == "log_volatility":
        score["qlike"] = float(qlike(values, truth).mean())
    elif 0.5 in levels:
        error, stay = np.abs(truth - values[:, levels.index(0.5)]).mean(), np.abs(truth).mean()
        score["mae_to_naive"] = float(error / stay) if stay > 0 else None
    return score
