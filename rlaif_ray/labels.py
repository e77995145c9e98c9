"""What the future turned out to be, per decision row: the targets that forecasts are fitted to and judged by.

A label on row t with horizon h closes at row t + h (`closes_at`): it may be learnt from only by what is fitted on rows
that reach that far. Everything but `trailing_beta` looks forward on purpose; nothing here may feed a feature. Labels of
events, which close when something happens, are in `barriers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from rlaif_ray.errors import DataError

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


def residual_to_market(forward_TAH: np.ndarray, beta_TA: np.ndarray, market_TH: np.ndarray) -> np.ndarray:
    """(T,A,H) what is left of forward returns after beta times the market's over the same bars.

    Parameters
    ----------
    beta_TA : what was known of each name at row t, `trailing_beta` for one; NaN leaves no label.
    market_TH : forward returns of the market.
    """
    if forward_TAH.shape[:2] != beta_TA.shape or forward_TAH.shape[::2] != market_TH.shape:
        seen = f"betas {beta_TA.shape} and market returns {market_TH.shape} for forward returns {forward_TAH.shape}"
        raise DataError(f"{seen}; expected (T,A) and (T,H) for (T,A,H)")
    return forward_TAH - beta_TA[:, :, None] * market_TH[:, None, :]


def residual_to_sector(forward_TAH: np.ndarray, sectors: Sequence[str]) -> np.ndarray:
    """(T,A,H) forward returns less the mean of the other names of the same sector; NaN where no other one is known.

    The name itself is left out of the mean: in it, a name of a sector of n would lose 1/n of its own return.
    """
    if len(sectors) != forward_TAH.shape[1]:
        raise DataError(f"{len(sectors)} sectors for {forward_TAH.shape[1]} names; expected one a name")
    residual = np.full(forward_TAH.shape, np.nan)
    for sector in sorted(set(sectors)):
        members = np.array([s == sector for s in sectors])
        own, known = forward_TAH[:, members], np.isfinite(forward_TAH[:, members])
        total, count = np.where(known, own, 0.0).sum(axis=1, keepdims=True), known.sum(axis=1, keepdims=True)
        others = np.divide(total - own, count - 1, out=np.full(own.shape, np.nan), where=known & (count > 1))
        residual[:, members] = own - others
    return residual


def volatility_scaled(forward_TAH: np.ndarray, volatility_TA: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    """(T,A,H) forward returns over the standard deviation that they would have at the volatility per bar known at row t."""
    if forward_TAH.shape != (*volatility_TA.shape, len(horizons)):
        raise DataError(
            f"volatility {volatility_TA.shape} and {len(horizons)} horizons for forward returns {forward_TAH.shape}; expected (T,A), H"
        )
    known = np.where(volatility_TA > 0, volatility_TA, np.nan)
    return forward_TAH / (known[:, :, None] * np.sqrt(np.asarray(horizons, np.float64)))


def trailing_beta(returns_TA: np.ndarray, market_T: np.ndarray, window: int) -> np.ndarray:
    """(T,A) slope of each name's returns on the market's over rows t-window+1 .. t: known at the close of row t.

    Pairs with a NaN are left out; with under half of the window left, or a market that stood still, it is NaN.
    """
    returns_TA, market_T = np.ascontiguousarray(returns_TA, np.float64), np.ascontiguousarray(market_T, np.float64)
    if returns_TA.ndim != 2 or returns_TA.shape[:1] != market_T.shape or window < 2:
        raise DataError(f"returns {returns_TA.shape}, market {market_T.shape}, window {window}; expected (T,A), (T,) and 2 bars or more")
    return _betas(returns_TA, market_T, window)


def closes_at(n_rows: int, horizons: Sequence[int]) -> np.ndarray:
    """(T,H) int64 row at which each label closes; -1 where that lies beyond the end: there is no label yet."""
    ends = np.arange(n_rows)[:, None] + np.asarray(horizons, np.int64)
    return np.where(ends < n_rows, ends, -1)


def closed_inside(n_rows: int, horizon: int, rows: slice) -> np.ndarray:
    """(T,) bool: decision rows in `rows` whose label over `horizon` bars also closes in `rows`."""
    t = np.arange(n_rows)
    return (t >= rows.start) & (t + horizon < rows.stop)


@njit("float64[:,::1](Array(float64, 2, 'C', readonly=True), Array(float64, 1, 'C', readonly=True), int64)", cache=True)
def _betas(returns, market, window):  # pragma: no cover
    """Each window is summed afresh, so that a value depends on its own window alone, to the last bit."""
    t_all, assets = returns.shape
    out = np.full((t_all, assets), np.nan)
    for a in range(assets):
        for t in range(window - 1, t_all):
            sx, sy, count = 0.0, 0.0, 0
            for k in range(t - window + 1, t + 1):
                if np.isfinite(returns[k, a]) and np.isfinite(market[k]):
                    sx += market[k]
                    sy += returns[k, a]
                    count += 1
            if count < 2 or 2 * count < window:
                continue
            xx, xy = 0.0, 0.0
            for k in range(t - window + 1, t + 1):
                if np.isfinite(returns[k, a]) and np.isfinite(market[k]):
                    xx += (market[k] - sx / count) ** 2
                    xy += (market[k] - sx / count) * (returns[k, a] - sy / count)
            if xx > 0.0:
                out[t, a] = xy / xx
    return out
