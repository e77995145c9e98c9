"""What may be inferred from: observations that are numbers, that are enough, and that vary."""

from __future__ import annotations

import numpy as np

from rlaif_ray.backtest.significance import MIN_BARS
from rlaif_ray.errors import DataError

ROUNDING = 1e-12  # a spread below this part of the largest value is what is left of constant numbers


def series(values: np.ndarray, name: str, *, least: int = MIN_BARS) -> np.ndarray:
    """(T,) float64, finite, at least `least` bars, not constant; else `DataError` in `name`'s name."""
    out = np.ascontiguousarray(values, np.float64)
    if out.ndim != 1:
        raise DataError(f"{name} has the shape {out.shape}; expected one number a bar")
    return columns(out[:, None], name, least=least)[:, 0]


def columns(values: np.ndarray, name: str, *, least: int = MIN_BARS) -> np.ndarray:
    """(T,K) float64, K > 0, as `series` for every column."""
    out = np.ascontiguousarray(values, np.float64)
    if out.ndim != 2 or not out.shape[1]:
        raise DataError(f"{name} has the shape {out.shape}; expected (bars, series) with at least one series")
    if len(out) < least:
        raise DataError(f"{name} has {len(out)} bars; expected at least {least}: test over a longer span")
    if not np.isfinite(out).all():
        t, k = np.argwhere(~np.isfinite(out))[0]
        raise DataError(f"{name} holds {out[t, k]} in bar {t} of series {k}; expected finite numbers")
    if (still := np.flatnonzero(constant(out))).size:
        raise DataError(f"{name} is constant in series {still[0]}, at {out[0, still[0]]:g}; nothing can be inferred from it: leave it out")
    return out


def same_shape(a: np.ndarray, b: np.ndarray, name: str) -> None:
    """`DataError` where two sets of observations are not of the same bars."""
    if np.shape(a) != np.shape(b):
        raise DataError(f"{name} have the shapes {np.shape(a)} and {np.shape(b)}; expected the same bars")


def constant(values: np.ndarray) -> np.ndarray:
    """(K,) whether a column of (T,K) does not vary beyond rounding."""
    return np.ptp(values, axis=0) <= ROUNDING * np.abs(values).max(axis=0)


def block_of(bars: int, block: float, name: str) -> float:
    """A mean block length that fits into `bars`: at least 1, and twice in them."""
    if not 1 <= block <= bars / 2:
        raise DataError(f"{name} has {bars} bars and the block {block:g}; expected a block from 1 to half the bars: shorten it")
    return float(block)
