"""Events, and how each of them ended: CUSUM filter, triple barrier, meta-labels, trend scanning.

Lopez de Prado, Advances in Financial Machine Learning (2018; AFML below), ch. 2 and 3, and Machine Learning for Asset
Managers (2020), ch. 5. One series of bars at a time; rows number its bars. An event on row t is known at the close of
row t; its label closes at row `end`, which is what a purge goes by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import float64, int64, njit, types

from rlaif_ray.errors import DataError

_F, _I = types.Array(float64, 1, "C", readonly=True), types.Array(int64, 1, "C", readonly=True)


@dataclass(frozen=True, eq=False)
class EventLabels:
    """What became of events whose label has closed; (E,) each, in the order of `start`."""

    start: np.ndarray  # int64 row of the event: the label opens at its close
    end: np.ndarray  # int64 row at whose close the label is known; nothing after it can change the label
    label: np.ndarray  # int64 -1, 0 or +1
    returns: np.ndarray  # float64 simple return from the close of `start` to the touch, in the direction of the bet


@dataclass(frozen=True, eq=False)
class Trends(EventLabels):
    """Labels of the trend that starts at each event: `label` is its direction, `returns` what it brought by `trend_end`."""

    t_value: np.ndarray  # (E,) float64 of the slope; infinite on a straight line
    trend_end: np.ndarray  # (E,) int64 last row of the trend. `end` is later: the longest trend that was looked at


def cusum_events(prices: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Rows at which log returns since the last event have added up to more than the threshold: AFML snippet 2.4.

    Parameters
    ----------
    prices : (T,) positive.
    threshold : log return > 0, or (T,) of them, each known at its own row. NaN there: no event on that row.

    Returns
    -------
    (E,) int64, rising. Upward and downward sums run and restart apart from each other.
    """
    prices = _prices("prices", prices)
    limits = np.ascontiguousarray(np.broadcast_to(np.asarray(threshold, np.float64), prices.shape))
    if (limits <= 0).any():
        raise DataError(f"CUSUM threshold {limits[limits <= 0][0]:g}; expected a log return above 0")
    return _cusum(np.diff(np.log(prices), prepend=0.0), limits)


def triple_barrier(
    prices: np.ndarray, events: np.ndarray, target: np.ndarray | float, *, take: float, stop: float, vertical: int | np.ndarray,
    min_target: float = 0.0, side: np.ndarray | None = None, high_low: tuple[np.ndarray, np.ndarray] | None = None,
) -> EventLabels:  # fmt: skip
    """The first of three barriers that each event's path goes beyond: AFML snippets 3.2 to 3.6.

    Parameters
    ----------
    prices : (T,) closes, positive.
    events : (E,) rows, rising.
    target : return, or (E,) of them, that the barriers are multiples of, known at the event (its volatility, say).
    take, stop : multiples of the target above and below the close of the event; 0 for no such barrier.
    vertical : bars until an event ends untouched, or (E,) the rows at which it does.
    min_target : events whose target is not above it (or unknown) are left out.
    side : (E,) +1 or -1, the direction of the bet, which turns the path round; None: all +1.
    high_low : (T,) highs and lows, to follow the path within bars; None follows closes. The touch then pays the
        barrier itself, or, of a bar that lies beyond it as a whole, the price nearest to it. Of a bar that reaches
        both barriers the stop counts, for the order within the bar is not known.

    Returns
    -------
    Labels of the events that have closed: +1 for `take`, -1 for `stop`, 0 for the vertical barrier. An event untouched
    whose vertical barrier lies beyond the last row is still open, and left out.
    """
    prices, events = _prices("prices", prices), _events(events, len(prices))
    target, side = _column("target", target, events), _column("side", 1.0 if side is None else side, events)
    if not (np.abs(side) == 1.0).all():
        raise DataError(f"side {side[np.abs(side) != 1.0][0]:g}; expected +1 (long) or -1 (short) for every event")
    if not (take >= 0 and stop >= 0 and min_target >= 0):
        raise DataError(f"take {take}, stop {stop}, min_target {min_target}; expected multiples and a return of 0 or more")
    last = events + vertical if isinstance(vertical, int | np.integer) else _rows("vertical", vertical, events)
    if (last <= events).any():
        raise DataError(f"vertical barrier {int((last - events).min())} bars after an event; expected 1 or more")
    high, low = (prices, prices) if high_low is None else (_prices(n, x) for n, x in zip(("high", "low"), high_low, strict=True))
    if not high.shape == low.shape == prices.shape or (low > prices).any() or (high < prices).any():
        raise DataError("highs and lows do not enclose the closes; expected (T,) of the same bars")
    kept = target > min_target
    start, last = np.ascontiguousarray(events[kept]), np.ascontiguousarray(last[kept])
    found = _touch(prices, high, low, start, target[kept], side[kept], last, take, stop, high_low is not None)
    closed = found[0] >= 0
    return EventLabels(start[closed], *(x[closed] for x in found))


def meta_labels(labels: EventLabels) -> np.ndarray:
    """(E,) int64: 1 where the bet on the event's side made money, else 0; AFML snippet 3.7. What a bet-or-pass model learns."""
    return (labels.returns > 0).astype(np.int64)


def trend_scanning(prices: np.ndarray, events: np.ndarray, *, min_bars: int, max_bars: int) -> Trends:
    """The look-forward line of `min_bars` to `max_bars` closes whose slope has the largest t-value: MLAM snippets 5.1, 5.2.

    Parameters
    ----------
    prices : (T,) positive; the line is fitted to them as they are.
    events : (E,) rows, rising; the event's own close is the first of the line.
    min_bars, max_bars : closes in the shortest and longest line, both tried; 3 <= min_bars <= max_bars.

    Returns
    -------
    Labels of the events whose longest line has closed: which one is best is not known before, so `end` is
    events + max_bars - 1 for all, not the end of the line that was chosen (the books' t1), which would let a purge through.
    """
    prices, events = _prices("prices", prices), _events(events, len(prices))
    if not 3 <= min_bars <= max_bars:
        raise DataError(f"lines of {min_bars} to {max_bars} bars; expected 3 or more, the longest not shorter than the shortest")
    start = np.ascontiguousarray(events[events + max_bars <= len(prices)])
    t_value, trend_end = _trends(prices, start, min_bars, max_bars)
    returns = prices[trend_end] / prices[start] - 1
    return Trends(start, start + max_bars - 1, np.sign(t_value).astype(np.int64), returns, t_value, trend_end)


def _prices(name: str, values: np.ndarray) -> np.ndarray:
    """As the kernels read them, or a `DataError` that names the first that is none."""
    values = np.ascontiguousarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise DataError(f"{name} have shape {values.shape}; expected (T,) with 2 bars or more")
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if len(bad):
        raise DataError(f"{name} hold {values[bad[0]]:g} at row {bad[0]} ({len(bad)} such in all); expected finite and positive ones")
    return values


def _events(events: np.ndarray, n_rows: int) -> np.ndarray:
    rows = np.asarray(events)
    if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"events are {rows.dtype}{rows.shape}; expected (E,) row numbers, at least one")
    if (np.diff(rows) <= 0).any():
        raise DataError(f"events are not in rising order at entry {int(np.argmax(np.diff(rows) <= 0)) + 1}; sort them, each row once")
    if rows[0] < 0 or rows[-1] >= n_rows:
        raise DataError(f"events on rows {rows[0]} to {rows[-1]}; expected 0 to {n_rows - 1}")
    return np.ascontiguousarray(rows, np.int64)


def _rows(name: str, values: np.ndarray, events: np.ndarray) -> np.ndarray:
    rows = np.asarray(values)
    if rows.shape != events.shape or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"{name} is {rows.dtype}{rows.shape}; expected a row number for each of {len(events)} events, or bars as an int")
    return rows.astype(np.int64)


def _column(name: str, values: np.ndarray | float, events: np.ndarray) -> np.ndarray:
    column = np.asarray(values, np.float64)
    if column.shape not in ((), events.shape) or np.isinf(column).any():
        raise DataError(f"{name} has shape {column.shape} and {int(np.isinf(column).sum())} infinities; expected a number for each event")
    return np.ascontiguousarray(np.broadcast_to(column, events.shape))


@njit(int64[::1](_F, _F), cache=True)
def _cusum(log_returns, limits):  # pragma: no cover
    rows, found = np.empty(log_returns.shape[0], np.int64), 0
    up, down = 0.0, 0.0
    for t in range(1, log_returns.shape[0]):
        up, down = max(0.0, up + log_returns[t]), min(0.0, down + log_returns[t])
        if down < -limits[t]:
            down = 0.0
        elif up > limits[t]:
            up = 0.0
        else:
            continue
        rows[found] = t
        found += 1
    return rows[:found].copy()


_FOUND = types.Tuple((int64[::1], int64[::1], float64[::1]))


@njit(_FOUND(_F, _F, _F, _I, _F, _F, _I, float64, float64, types.boolean), cache=True)
def _touch(prices, high, low, start, target, side, last, take, stop, within):  # pragma: no cover
    """(end, label, returns); end -1 for what is still open. Returns are formed as the book forms them, to the last bit."""
    events = start.shape[0]
    end, label, returns = np.full(events, -1, np.int64), np.zeros(events, np.int64), np.zeros(events)
    for i in range(events):
        above = take * target[i] if take > 0.0 else np.inf
        below = -stop * target[i] if stop > 0.0 else -np.inf
        entry = prices[start[i]]
        for t in range(start[i] + 1, min(last[i], prices.shape[0] - 1) + 1):
            best = ((high[t] if side[i] > 0.0 else low[t]) / entry - 1.0) * side[i]
            worst = ((low[t] if side[i] > 0.0 else high[t]) / entry - 1.0) * side[i]
            if worst < below:
                label[i], returns[i] = -1, min(best, below) if within else worst
            elif best > above:
                label[i], returns[i] = 1, max(worst, above) if within else best
            elif t == last[i]:
                returns[i] = (prices[t] / entry - 1.0) * side[i]
            else:
                continue
            end[i] = t
            break
    return end, label, returns


@njit(types.Tuple((float64[::1], int64[::1]))(_F, _I, int64, int64), cache=True, error_model="numpy")
def _trends(prices, start, shortest, longest):  # pragma: no cover
    """(t-value, last row) of the best line. One pass: each close adds its recursive residual (Brown, Durbin and Evans
    1975) to the squares that are left, so that nothing cancels."""
    best, at = np.zeros(start.shape[0]), np.empty(start.shape[0], np.int64)
    for i in range(start.shape[0]):
        x_mean, y_mean, xx, xy, left = 0.0, prices[start[i]], 0.0, 0.0, 0.0
        largest = -1.0
        for k in range(1, longest):  # k + 1 closes with this one
            dx, dy = k - x_mean, prices[start[i] + k] - y_mean
            if k > 1:
                surprise = dy - xy / xx * dx
                left += surprise * surprise / (1.0 + 1.0 / k + dx * dx / xx)
            x_mean += dx / (k + 1)
            y_mean += dy / (k + 1)
            xx += dx * (k - x_mean)
            xy += dx * (prices[start[i] + k] - y_mean)
            if k + 1 < shortest:
                continue
            t_value = xy / xx / np.sqrt(left / (k - 1) / xx) if xy != 0.0 else 0.0
            if abs(t_value) > largest:
                largest, best[i], at[i] = abs(t_value), t_value, start[i] + k
    return best, at
