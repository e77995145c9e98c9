"""The formulas of `core_31`, each as what it says at one bar: the same steps run over a whole history and over a stream.

`bars` is (6,W) float64: open, high, low, close, volume and the bar's end in microseconds since 1970 (UTC), adjusted as `Series`
are. A step reads it at position t and before, never after. Windows are summed afresh, as distances from their last value, so that
a price that stands still has a spread of exactly 0. What goes on from bar to bar is in `memory`, all zeros before the symbol's
first bar, and is what TA-Lib does from that bar on.

All kernels stand in one file: numba's cache does not see that a callee in another one has changed. The dispatchers are inlined:
passing arrays down costs numba more than most steps do.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rlaif_ray.core import CLOSE, HIGH, LOW, VOLUME

TIME = 5
DAY_US = 86_400_000_000.0
THURSDAY = 3.0  # 1970-01-01, from Monday
NO_BAR = np.iinfo(np.int64).min  # NaT

(
    MOMENTUM, RETURN, BAND_POSITION, BAND_WIDTH, RANGE_POSITION, VOLUME_RATIO, VOLUME_TREND, VOLUME_SPIKE, HIGHER_HIGHS, LOWER_LOWS,
    SWING_POSITION, HOUR_SIN, HOUR_COS, DAY_OF_WEEK, TREND_STRENGTH, CHOPPINESS, MEAN_REVERSION,
    ATR_RATIO, RSI_NORM, RSI_SLOPE, MACD_NORM, MACD_HISTOGRAM, ADX_NORM, ADX_DIRECTION,
) = range(24)  # fmt: skip
"""Formulas by number. From `ATR_RATIO` on they need their memory brought along on every bar."""

PHASE, AGE, POSITION, LAST_TIME = range(4)  # columns of a stream's `counts`
WAITING, LIVE, GONE = range(3)  # phases of a symbol: before its first close, trading, delisted
FACTOR, SPLITS, LAST_CLOSE = range(3)  # columns of its `anchors`: total-return factor, product of the splits, raw close

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_BARS, _LAST_N = "float64[:,::1]", "float64(float64[::1], int64, int64)"
_RECURSIVE = f"float64({_BARS}, int64, int64, int64, float64[::1])"
_PLAN = "Tuple((int64[::1], int64[::1], float64[:,::1], int64[::1], int64[:,::1], float64[:,::1], float64[:,:,::1], float64[:,::1]))"


# --- of a window ---------------------------------------------------------------------------------------------------


@njit(_LAST_N, **_OPTIONS)
def _offset(x, t, n):  # pragma: no cover
    """Mean of the n values up to t, less the last of them."""
    total = 0.0
    for k in range(t - n + 1, t + 1):
        total += x[k] - x[t]
    return total / n


@njit(_LAST_N, **_OPTIONS)
def _mean(x, t, n):  # pragma: no cover
    total = 0.0
    for k in range(t - n + 1, t + 1):
        total += x[k]
    return total / n


@njit(_LAST_N, **_OPTIONS)
def _deviation(x, t, n):  # pragma: no cover
    """Of the population, as Bollinger's bands have it."""
    offset, squares = _offset(x, t, n), 0.0
    for k in range(t - n + 1, t + 1):
        squares += (x[k] - x[t] - offset) ** 2
    return math.sqrt(squares / n)


@njit(_LAST_N, **_OPTIONS)
def _highest(x, t, n):  # pragma: no cover
    top = x[t]
    for k in range(t - n + 1, t):
        top = max(top, x[k])
    return top


@njit(_LAST_N, **_OPTIONS)
def _lowest(x, t, n):  # pragma: no cover
    bottom = x[t]
    for k in range(t - n + 1, t):
        bottom = min(bottom, x[k])
    return bottom


@njit("UniTuple(float64, 3)(float64[::1], int64, int64)", **_OPTIONS)
def _line(x, t, n):  # pragma: no cover
    """Sums of squares of the bar number and of x about their means, and of their products: what a straight line is fitted from."""
    offset, middle = _offset(x, t, n), 0.5 * (n - 1)
    tt, xx, tx = 0.0, 0.0, 0.0
    for k in range(n):
        d = x[t - n + 1 + k] - x[t] - offset
        tt += (k - middle) ** 2
        xx += d * d
        tx += (k - middle) * d
    return tt, xx, tx


@njit("float64(float64[::1], int64, int64, float64)", **_OPTIONS)
def _share(x, t, n, sign):  # pragma: no cover
    """Of the last n values, those above (sign 1) or below (-1) the one before them."""
    count = 0
    for k in range(t - n + 1, t + 1):
        count += sign * (x[k] - x[k - 1]) > 0.0
    return count / n


@njit("float64(float64[::1], int64, int64, int64, float64)", **_OPTIONS)
def _last_pivot(x, t, sides, n, sign):  # pragma: no cover
    """The latest peak (sign 1) or trough (-1): beyond its `sides` neighbours on both sides, all in the window; NaN without one."""
    for i in range(t - sides, t - n + sides, -1):
        pivot = True
        for j in range(1, sides + 1):
            pivot &= sign * (x[i] - x[i - j]) > 0.0 and sign * (x[i] - x[i + j]) > 0.0
        if pivot:
            return x[i]
    return np.nan


@njit(f"float64({_BARS}, int64, int64, int64)", **_OPTIONS)
def _swing_position(bars, t, sides, n):  # pragma: no cover
    top, bottom = _last_pivot(bars[HIGH], t, sides, n, 1.0), _last_pivot(bars[LOW], t, sides, n, -1.0)
    top = _highest(bars[HIGH], t, n) if math.isnan(top) else top
    bottom = _lowest(bars[LOW], t, n) if math.isnan(bottom) else bottom
    low = min(top, bottom)  # after a gap the last peak may lie below the last trough
    return (bars[CLOSE, t] - low) / (max(top, bottom) - low)


@njit(f"float64({_BARS}, int64)", **_OPTIONS)
def _true_range(bars, t):  # pragma: no cover
    high, low, before = bars[HIGH, t], bars[LOW, t], bars[CLOSE, t - 1]
    return max(high - low, abs(high - before), abs(low - before))


@njit(f"float64({_BARS}, int64, int64)", **_OPTIONS)
def _choppiness(bars, t, n):  # pragma: no cover
    way = 0.0
    for k in range(t - n + 1, t + 1):
        way += _true_range(bars, k)
    return math.log10(way / (_highest(bars[HIGH], t, n) - _lowest(bars[LOW], t, n))) / math.log10(n)


@njit(_LAST_N, **_OPTIONS)
def _reversion(x, t, n):  # pragma: no cover
    """Minus the slope of n one-bar changes on the values before them."""
    offset, drift = _offset(x, t - 1, n), (x[t] - x[t - n]) / n
    xx, xy = 0.0, 0.0
    for k in range(t - n, t):
        d = x[k] - x[t - 1] - offset
        xx += d * d
        xy += d * (x[k + 1] - x[k] - drift)
    return -xy / xx


@njit(f"float64(int64, {_BARS}, int64, float64[::1])", inline="always", **_OPTIONS)
def _of_window(code, bars, t, p):  # pragma: no cover
    a, b = int(p[0]), int(p[1])
    close, volume = bars[CLOSE], bars[VOLUME]
    if code == MOMENTUM:
        return close[t] / close[t - a] - 1.0
    if code == RETURN:
        return close[t - a + 1] / close[t - a] - 1.0
    if code == BAND_POSITION:
        half = p[1] * _deviation(close, t, a)
        return (half - _offset(close, t, a)) / (2.0 * half)
    if code == BAND_WIDTH:
        return 2.0 * p[1] * _deviation(close, t, a) / (close[t] + _offset(close, t, a))
    if code == RANGE_POSITION:
        low = _lowest(bars[LOW], t, a)
        return (close[t] - low) / (_highest(bars[HIGH], t, a) - low)
    if code == VOLUME_RATIO:
        return _mean(volume, t, a) / _mean(volume, t, b)
    if code == VOLUME_TREND:
        tt, _, tx = _line(volume, t, a)
        return tx / tt / _mean(volume, t, a)
    if code == VOLUME_SPIKE:
        return volume[t] / _mean(volume, t - 1, a)
    if code == HIGHER_HIGHS:
        return _share(bars[HIGH], t, a, 1.0)
    if code == LOWER_LOWS:
        return _share(bars[LOW], t, a, -1.0)
    if code == SWING_POSITION:
        return _swing_position(bars, t, a, b)
    if code == HOUR_SIN:
        return math.sin(2.0 * math.pi * (bars[TIME, t] % DAY_US) / DAY_US)
    if code == HOUR_COS:
        return math.cos(2.0 * math.pi * (bars[TIME, t] % DAY_US) / DAY_US)
    if code == DAY_OF_WEEK:  # an end at midnight belongs to the day that it ends
        return (math.floor((bars[TIME, t] - 1.0) / DAY_US) + THURSDAY) % 7.0
    if code == TREND_STRENGTH:
        tt, xx, tx = _line(close, t, a)
        return tx / math.sqrt(tt * xx)
    if code == CHOPPINESS:
        return _choppiness(bars, t, a)
    if code == MEAN_REVERSION:
        return _reversion(close, t, a)
    return np.nan


# --- from bar to bar -----------------------------------------------------------------------------------------------


@njit(_RECURSIVE, **_OPTIONS)
def _average_range(bars, t, row, n, memory):  # pragma: no cover
    """ATR: the mean of the first n true ranges, then Wilder's average."""
    if row == 0:
        return np.nan
    true_range = _true_range(bars, t)
    if row > n:
        memory[0] = (memory[0] * (n - 1) + true_range) / n
        return memory[0]
    memory[0] += true_range
    if row < n:
        return np.nan
    memory[0] /= n
    return memory[0]


@njit(_RECURSIVE, **_OPTIONS)
def _strength(bars, t, row, n, memory):  # pragma: no cover
    """RSI / 100. Where nothing has moved since the first bar it is NaN; TA-Lib says 0 there, as if all had fallen."""
    if row == 0:
        return np.nan
    move = bars[CLOSE, t] - bars[CLOSE, t - 1]
    gain, loss = max(move, 0.0), max(-move, 0.0)
    if row > n:
        memory[0] = (memory[0] * (n - 1) + gain) / n
        memory[1] = (memory[1] * (n - 1) + loss) / n
    else:
        memory[0] += gain
        memory[1] += loss
        if row < n:
            return np.nan
        memory[0] /= n
        memory[1] /= n
    return memory[0] / (memory[0] + memory[1])


@njit(f"float64({_BARS}, int64, int64, int64, int64, float64[::1])", **_OPTIONS)
def _strength_slope(bars, t, row, n, lag, memory):  # pragma: no cover
    now, slot = _strength(bars, t, row, n, memory), 2 + row % lag
    slope = (now - memory[slot]) / lag if row >= n + lag else np.nan
    memory[slot] = now
    return slope


@njit(f"float64({_BARS}, int64, int64, int64, int64, float64[::1])", **_OPTIONS)
def _convergence(bars, t, row, fast, slow, memory):  # pragma: no cover
    """MACD line: both averages start, as TA-Lib's do, on row `slow` - 1 from the mean of the closes before."""
    close = bars[CLOSE, t]
    if row >= slow:
        memory[0] += (close - memory[0]) * (2.0 / (fast + 1))
        memory[1] += (close - memory[1]) * (2.0 / (slow + 1))
        return memory[0] - memory[1]
    memory[0] += close if row >= slow - fast else 0.0
    memory[1] += close
    if row < slow - 1:
        return np.nan
    memory[0] /= fast
    memory[1] /= slow
    return memory[0] - memory[1]


@njit(f"float64({_BARS}, int64, int64, int64, int64, int64, float64[::1])", **_OPTIONS)
def _histogram(bars, t, row, fast, slow, signal, memory):  # pragma: no cover
    line, since = _convergence(bars, t, row, fast, slow, memory), row - slow + 1
    if since >= signal:
        memory[2] += (line - memory[2]) * (2.0 / (signal + 1))
        return line - memory[2]
    memory[2] += line if since >= 0 else 0.0
    if since < signal - 1:
        return np.nan
    memory[2] /= signal
    return line - memory[2]


@njit(_RECURSIVE, **_OPTIONS)
def _direction(bars, t, row, n, memory):  # pragma: no cover
    """(+DI - -DI) / (+DI + -DI): of the directional movement alone, as the true range cancels; NaN without any."""
    if row == 0:
        return np.nan
    up, down = bars[HIGH, t] - bars[HIGH, t - 1], bars[LOW, t - 1] - bars[LOW, t]
    if row >= n:
        memory[0] -= memory[0] / n
        memory[1] -= memory[1] / n
    memory[0] += up if up > max(down, 0.0) else 0.0
    memory[1] += down if down > max(up, 0.0) else 0.0
    return (memory[0] - memory[1]) / (memory[0] + memory[1]) if row >= n else np.nan


@njit(_RECURSIVE, **_OPTIONS)
def _direction_average(bars, t, row, n, memory):  # pragma: no cover
    """ADX / 100: a bar without directional movement counts 0 among the first n, and leaves the average as it was after."""
    strength = abs(_direction(bars, t, row, n, memory))
    if row >= 2 * n:
        memory[2] = memory[2] if math.isnan(strength) else (memory[2] * (n - 1) + strength) / n
        return memory[2]
    memory[2] += 0.0 if math.isnan(strength) else strength
    if row < 2 * n - 1:
        return np.nan
    memory[2] /= n
    return memory[2]


@njit(f"float64(int64, {_BARS}, int64, int64, float64[::1], float64[::1])", inline="always", **_OPTIONS)
def _carried(code, bars, t, row, p, memory):  # pragma: no cover
    a, b = int(p[0]), int(p[1])
    if code == ATR_RATIO:
        return _average_range(bars, t, row, a, memory) / bars[CLOSE, t]
    if code == RSI_NORM:
        return 2.0 * _strength(bars, t, row, a, memory) - 1.0
    if code == RSI_SLOPE:
        return _strength_slope(bars, t, row, a, b, memory)
    if code == MACD_NORM:
        return _convergence(bars, t, row, min(a, b), max(a, b), memory) / bars[CLOSE, t]
    if code == MACD_HISTOGRAM:
        return _histogram(bars, t, row, min(a, b), max(a, b), int(p[2]), memory) / bars[CLOSE, t]
    if code == ADX_NORM:
        return _direction_average(bars, t, row, a, memory)
    if code == ADX_DIRECTION:
        return _direction(bars, t, row, a, memory)
    return np.nan


# --- over a history, and over a stream -----------------------------------------------------------------------------


@njit(f"float64(int64, {_BARS}, int64, int64, int64, float64[::1], float64[::1])", inline="always", **_OPTIONS)
def value_at(code, bars, t, row, first, p, memory):  # pragma: no cover
    """What formula `code` with parameters `p` (3,) says at position t, which is the symbol's live row `row`; NaN before row `first`."""
    if code >= ATR_RATIO:
        return _carried(code, bars, t, row, p, memory)
    return _of_window(code, bars, t, p) if row >= first else np.nan


@njit("float64[::1](int64, float64[:,::1], int64, float64[::1], int64)", **_OPTIONS)
def over(code, bars, first, p, slots):  # pragma: no cover
    """(T,) of one formula over a symbol's whole history, with `slots` numbers of memory."""
    out, memory = np.empty(bars.shape[1]), np.zeros(slots)
    for t in range(bars.shape[1]):
        out[t] = value_at(code, bars, t, t, first, p, memory)
    return out


@njit(f"void(int64, float64[::1], int64, float64, float64, boolean, {_PLAN}, float32[::1])", **_OPTIONS)
def _advance(n, raw, time, split, dividend, delisted, plan, out):  # pragma: no cover
    """One bar of symbol n, `raw` (5,), into its state, and what every formula says of it into `out` (F,)."""
    codes, firsts, parameters, slots, counts, anchors, buffer, memory = plan
    out[:] = np.nan
    if time == NO_BAR:
        return
    counts[n, LAST_TIME] = time
    if delisted:
        counts[n, PHASE] = GONE
    silent = math.isnan(raw[CLOSE])
    if counts[n, PHASE] == GONE or (counts[n, PHASE] == WAITING and silent):
        return
    close = anchors[n, LAST_CLOSE] / split if silent else raw[CLOSE]
    if counts[n, PHASE] == LIVE:  # an event on the first row lies before the series
        anchors[n, FACTOR] *= split * (close + dividend) / close
        anchors[n, SPLITS] *= split
    counts[n, PHASE] = LIVE
    anchors[n, LAST_CLOSE] = close
    width = buffer.shape[2] // 2
    if counts[n, POSITION] == 2 * width:  # full: the last half is all that a window can reach
        buffer[n, :, :width] = buffer[n, :, width:]
        counts[n, POSITION] = width
    t, row, bars = counts[n, POSITION], counts[n, AGE], buffer[n]
    for i in range(VOLUME):
        bars[i, t] = (close if math.isnan(raw[i]) else raw[i]) * anchors[n, FACTOR]
    bars[VOLUME, t] = 0.0 if silent or math.isnan(raw[VOLUME]) else raw[VOLUME] / anchors[n, SPLITS]
    bars[TIME, t] = time
    for j in range(len(codes)):
        x = np.float32(value_at(codes[j], bars, t, row, firsts[j], parameters[j], memory[n, slots[j] : slots[j + 1]]))
        out[j] = x if math.isfinite(x) else np.float32(np.nan)
    counts[n, POSITION] += 1
    counts[n, AGE] += 1


@njit(f"void(int64[::1], float64[:,::1], int64[::1], float64[::1], float64[::1], boolean[::1], {_PLAN}, float32[:,::1])", **_OPTIONS)
def advance(symbols, raw, times, splits, dividends, delisted, plan, out):  # pragma: no cover
    """Bars one after another: row k of `raw` (K,5) is the next of symbol `symbols[k]`; values into `out` (K,F).

    `plan` is, of the F formulas, numbers (F,), first rows (F,), parameters (F,3) and the bounds of their memory (F+1,); and, of
    the N symbols, their state as in `streaming.CoreStream`: counts, anchors, buffer, memory.
    """
    for k in range(len(symbols)):
        _advance(symbols[k], raw[k], times[k], splits[k], dividends[k], delisted[k], plan, out[k])
