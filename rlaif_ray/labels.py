"""What the future turned out to be, per decision row: the targets that forecasts are fitted to and judged by.

A label on row t with horizon h closes at row t + h: it may be learnt from only by what is fitted on rows that reach
that far. Everything here looks forward on purpose; nothing here may feed a feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_VARIANCE = 1e-12
"""Floor of a per-bar variance (a volatility of 1e-6): a price that stands still has no logarithm of volatility."""


def log_returns(returns_TA: np.ndarray) -> np.ndarray:
    """(T,A) log returns of simple ones; NaN where unknown, and for a loss of everything, which has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log1p(returns_TA.astype(np.float64))
    return np.where(np.isfinite(logs), logs, np.nan)


def forward_sums(values_TA: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    """(T,A,H): the sum of rows t+1 .. t+h for each h; NaN where one of them is NaN or lies beyond the end."""
    t, a = values_TA.shape
    sums = np.full((t, a, len(horizons)), np.nan)
    for j, h in enumerate(horizons):
        if t > h:
            sums[: t - h, :, j] = np.lib.stride_tricks.sliding_window_view(values_TA[1:], h, axis=0).sum(-1)
    return sums


def forward_returns(returns_TA: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    """(T,A,H) cumulative simple return from the close of row t to the close h bars later, of simple returns per bar."""
    return np.expm1(forward_sums(log_returns(returns_TA), horizons))


def forward_log_volatility(returns_TA: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    """(T,A,H) half the log of the mean squared log return over the h bars after row t."""
    sums = forward_sums(log_returns(returns_TA) ** 2, horizons)
    return 0.5 * np.log(np.maximum(sums / np.asarray(horizons, np.float64), MIN_VARIANCE))


def closed_inside(n_rows: int, horizon: int, rows: slice) -> np.ndarray:
    """(T,) bool: decision rows in `rows` whose label over `horizon` bars also closes in `rows`."""
    t = np.arange(n_rows)
    return (t >= rows.start) & (t + horizon < rows.stop)
