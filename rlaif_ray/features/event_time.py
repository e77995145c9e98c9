"""What became known at moments of its own (stories, reports, figures), seen from rows: windows in days, by when a thing was known.

The window of d days of a row known at t holds what became known in (t - d days, t]. Every sum is taken afresh over its window, in
the order of the events: the same bits whatever comes after.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
DAY = 86_400_000_000  # in microseconds, the unit of all moments here


def moments(column: pl.Series) -> np.ndarray:
    """(N,) int64 of a column of times."""
    return column.dt.epoch("us").to_numpy().astype(np.int64)


def known_rows(bars: pl.DataFrame) -> np.ndarray:
    """(T,) when each row of one symbol's bars is known: it and all before it."""
    return moments(bars["known_at"].cum_max())


def window(events: np.ndarray, rows: np.ndarray, days: float, until_days: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """First and end (T,) of the events (rising) that became known in (t - days, t - until_days]."""
    first = np.searchsorted(events, rows - round(days * DAY), "right")
    return first, np.searchsorted(events, rows - round(until_days * DAY), "right")


def last(events: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(T,) index of the newest event (rising) that each row knows; -1 where there is none."""
    return np.searchsorted(events, rows, "right") - 1


def as_known(values: np.ndarray, events: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(T,) the value of the newest event that each row knows, NaN where there is none."""
    return np.append(values, np.nan)[last(events, rows)]


def age_days(times: np.ndarray, events: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(T,) days from `times` of the newest event that each row knows to the row; NaN where there is none."""
    newest = last(events, rows)
    return np.where(newest < 0, np.nan, (rows - np.append(times, 0)[newest]) / DAY)


@njit("float64[::1](float64[::1], int64[::1], int64[::1])", **_OPTIONS)
def total(x: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(T,) sum of x[first:end]; 0 of nothing."""
    out = np.zeros(first.size)
    for t in range(first.size):
        for k in range(first[t], end[t]):
            out[t] += x[k]
    return out


@njit("float64[::1](float64[::1], float64[::1], int64[::1], int64[::1])", **_OPTIONS)
def mean(x: np.ndarray, weight: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(T,) weighted mean of x[first:end]; NaNs are left out, no weight is NaN."""
    out = np.full(first.size, np.nan)
    for t in range(first.size):
        summed, weights = 0.0, 0.0
        for k in range(first[t], end[t]):
            if not np.isnan(x[k]):
                summed += weight[k] * x[k]
                weights += weight[k]
        if weights > 0.0:
            out[t] = summed / weights
    return out


@njit("float64[::1](float64[::1], int64[::1], int64[::1], int64[::1], int64[::1], float64)", **_OPTIONS)
def decayed_mean(
    x: np.ndarray, events: np.ndarray, rows: np.ndarray, first: np.ndarray, end: np.ndarray, half_life: float
) -> np.ndarray:  # fmt: skip
    """(T,) mean of x[first:end], each weighing half as much for every `half_life` (microseconds) since it was known."""
    out = np.full(first.size, np.nan)
    for t in range(first.size):
        summed, weights = 0.0, 0.0
        for k in range(first[t], end[t]):
            weight = 0.5 ** ((rows[t] - events[k]) / half_life)
            summed += weight * x[k]
            weights += weight
        if weights > 0.0:
            out[t] = summed / weights
    return out


@njit("float64[::1](float64[::1], int64[::1], int64[::1])", **_OPTIONS)
def strongest(x: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(T,) the value of x[first:end] with the largest magnitude, with its sign; of two the later."""
    out = np.full(first.size, np.nan)
    for t in range(first.size):
        for k in range(first[t], end[t]):
            if np.isnan(out[t]) or abs(x[k]) >= abs(out[t]):
                out[t] = x[k]
    return out


@njit("float64[::1](float64[::1], int64[::1], int64[::1])", **_OPTIONS)
def deviation(x: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(T,) standard deviation (n - 1) of x[first:end]; NaN of fewer than two."""
    out = np.full(first.size, np.nan)
    for t in range(first.size):
        n = end[t] - first[t]
        if n < 2:
            continue
        summed, squares = 0.0, 0.0
        for k in range(first[t], end[t]):
            summed += x[k]
        for k in range(first[t], end[t]):
            squares += (x[k] - summed / n) ** 2
        out[t] = np.sqrt(squares / (n - 1))
    return out


@njit("float64[::1](float32[:,::1], int64[::1])", **_OPTIONS)
def largest_cosine(cells: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(N,) of each unit vector with those from `first` to the one before it; -inf where there are none.

    Parameters
    ----------
    cells : (E,N) float32, a column an event: so laid out, the cosines of one event with all others are summed side by side.
    """
    out = np.full(first.size, -np.inf)
    cosines, filled = np.empty(first.size, np.float32), np.empty(cells.shape[0], np.int64)
    for k in range(first.size):
        since, n = first[k], 0
        for e in range(cells.shape[0]):
            if cells[e, k] != 0.0:
                filled[n] = e
                n += 1
        near = cosines[since:k]
        near[:] = 0.0
        for g in range(0, n - n % 4, 4):  # four at a time: the sums are loaded and stored a quarter as often
            a, b, c, d = filled[g], filled[g + 1], filled[g + 2], filled[g + 3]
            own_a, own_b, own_c, own_d = cells[a, k], cells[b, k], cells[c, k], cells[d, k]
            of_a, of_b, of_c, of_d = cells[a, since:k], cells[b, since:k], cells[c, since:k], cells[d, since:k]
            for j in range(k - since):
                near[j] += (own_a * of_a[j] + own_b * of_b[j]) + (own_c * of_c[j] + own_d * of_d[j])
        for g in range(n - n % 4, n):
            own, of = cells[filled[g], k], cells[filled[g], since:k]
            for j in range(k - since):
                near[j] += own * of[j]
        for j in range(k - since):
            out[k] = max(out[k], near[j])
    return out
