"""How much each label says that no other does: concurrency, uniqueness, decay and the sequential bootstrap.

Lopez de Prado, Advances in Financial Machine Learning (2018), ch. 4. A label covers its rows from `start`, where it
opens, to `end`, where it closes, both counted. Labels that cover the same bars share what happened on them: they are
not independent draws, and a fit that takes them for such is surer than it may be.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types

from rlaif_ray.errors import DataError

_F, _I = types.Array(float64, 1, "C", readonly=True), types.Array(int64, 1, "C", readonly=True)
_RNG = types.NumPyRandomGeneratorType("NumPyRandomGeneratorType")


def concurrency(start: np.ndarray, end: np.ndarray, n_rows: int) -> np.ndarray:
    """(T,) int64: labels that cover each row; snippet 4.1."""
    start, end = _spans(start, end, n_rows)
    steps = np.bincount(start, minlength=n_rows + 1) - np.bincount(end + 1, minlength=n_rows + 1)
    return np.cumsum(steps)[:n_rows]


def average_uniqueness(start: np.ndarray, end: np.ndarray, n_rows: int) -> np.ndarray:
    """(E,) in (0, 1]: mean over the rows of each label of 1 / concurrency; snippet 4.2."""
    start, end = _spans(start, end, n_rows)
    return _span_sums(1.0 / np.maximum(concurrency(start, end, n_rows), 1), start, end) / (end - start + 1)


def return_attribution(log_returns: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(E,) weights of mean 1: the absolute log return that is each label's own; snippet 4.10.

    Parameters
    ----------
    log_returns : (T,) log return of each bar, shared between the labels that cover it. As in the book the bar that ends
        at `start` counts too.
    """
    returns = np.ascontiguousarray(log_returns, np.float64)
    start, end = _spans(start, end, len(returns))
    weights = np.abs(_span_sums(returns / np.maximum(concurrency(start, end, len(returns)), 1), start, end))
    if not 0 < weights.sum() < np.inf:
        raise DataError(f"absolute log returns of {len(start)} labels add up to {weights.sum()}; expected a finite number above 0")
    return weights * (len(weights) / weights.sum())


def time_decay(uniqueness: np.ndarray, oldest: float) -> np.ndarray:
    """(E,) weights that fall linearly, in uniqueness passed rather than in time, from 1 for the newest label; snippet 4.11.

    Parameters
    ----------
    uniqueness : (E,) average uniqueness, in time order.
    oldest : in (-1, 1]; what the line comes to before the first label. 1: no decay; 0: nothing is left; below 0: so
        large a part of the labels, from the oldest, weighs nothing.
    """
    uniqueness = np.asarray(uniqueness, np.float64)
    if not -1 < oldest <= 1:
        raise DataError(f"the oldest label's weight is {oldest}; expected above -1 and at most 1")
    if not len(uniqueness) or not (uniqueness > 0).all() or not np.isfinite(uniqueness).all():
        raise DataError(f"uniqueness of {len(uniqueness)} labels, from {uniqueness.min(initial=np.inf)}; expected some, all above 0")
    passed = np.cumsum(uniqueness)
    slope = (1 - oldest) / passed[-1] if oldest >= 0 else 1 / ((oldest + 1) * passed[-1])
    return np.maximum(1 - slope * passed[-1] + slope * passed, 0.0)


def sequential_bootstrap(start: np.ndarray, end: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """(size,) int64 drawn labels: each more likely the less it overlaps with those drawn before; snippet 4.5.

    A label's chance is in proportion to the average uniqueness that it would have if it were drawn next.
    """
    start, end = _spans(start, end, None)
    if size < 1:
        raise DataError(f"{size} draws; expected 1 or more")
    return _draw(np.random.default_rng(seed), start - start[0], end - start[0], int(end.max() - start[0]) + 1, size)


def _spans(start: np.ndarray, end: np.ndarray, n_rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels as the kernels read them, or a `DataError` that says which is none."""
    start, end = np.asarray(start), np.asarray(end)
    if start.ndim != 1 or not len(start) or not np.issubdtype(start.dtype, np.integer):
        raise DataError(f"label starts are {start.dtype}{start.shape}; expected (E,) row numbers, at least one")
    if end.shape != start.shape or not np.issubdtype(end.dtype, np.integer):
        raise DataError(f"{len(start)} labels with end times {end.dtype}{end.shape}; every label needs the row at which it closes")
    if (np.diff(start) < 0).any():
        raise DataError(f"labels are not in time order at entry {int(np.argmax(np.diff(start) < 0)) + 1}; sort them by start")
    beyond = np.iinfo(np.int64).max if n_rows is None else n_rows
    bad = np.flatnonzero((end < start) | (start < 0) | (end >= beyond))
    if len(bad):
        seen = f"label {bad[0]} runs from row {start[bad[0]]} to {end[bad[0]]}"
        raise DataError(f"{seen}; expected an end at or after its start, inside the {'bars' if n_rows is None else f'{n_rows} bars'}")
    return np.ascontiguousarray(start, np.int64), np.ascontiguousarray(end, np.int64)


@njit(float64[::1](_F, _I, _I), cache=True)
def _span_sums(values, start, end):  # pragma: no cover
    """Each span is summed afresh: differences of running sums would carry the rounding of all that came before."""
    out = np.zeros(start.shape[0])
    for i in range(start.shape[0]):
        for t in range(start[i], end[i] + 1):
            out[i] += values[t]
    return out


@njit(int64[::1](_RNG, _I, _I, int64, int64), cache=True)
def _draw(rng, start, end, n_rows, size):  # pragma: no cover
    """Only labels that overlap the last one drawn change their chances, and starts rise: the rest are passed over."""
    labels = start.shape[0]
    covered, chance, drawn = np.zeros(n_rows, np.int64), np.ones(labels), np.empty(size, np.int64)
    for n in range(size):
        aim = rng.random() * chance.sum()
        pick, passed = 0, chance[0]
        while passed <= aim and pick < labels - 1:
            pick += 1
            passed += chance[pick]
        drawn[n] = pick
        for t in range(start[pick], end[pick] + 1):
            covered[t] += 1
        for i in range(labels):
            if start[i] > end[pick]:
                break
            if end[i] >= start[pick]:
                total = 0.0
                for t in range(start[i], end[i] + 1):
                    total += 1.0 / (1.0 + covered[t])
                chance[i] = total / (end[i] - start[i] + 1)
    return drawn
