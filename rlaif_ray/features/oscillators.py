"""Numbers that swing between bounds, or about zero, and are read by how far they swung."""

from __future__ import annotations

import numpy as np
import talib
from numba import njit

from rlaif_ray.features import rolling
from rlaif_ray.features.averages import ema
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import SMA, Series, change

_C, _HL, _HLC, _OHLC = ("close",), ("high", "low"), ("high", "low", "close"), ("open", "high", "low", "close")
_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_BLOCK = 256  # windows summed side by side, as in `rolling`


def stochastic(s: Series, bars: int, smooth: int, signal: int) -> tuple[np.ndarray, np.ndarray]:
    """Slow %K, %D."""
    return talib.STOCH(s.high, s.low, s.close, bars, smooth, SMA, signal, SMA)


def fast_stochastic(s: Series, bars: int, signal: int) -> tuple[np.ndarray, np.ndarray]:
    """%K, %D."""
    return talib.STOCHF(s.high, s.low, s.close, bars, signal, SMA)


def stochastic_rsi(s: Series, bars: int, smooth: int) -> np.ndarray:
    return talib.STOCHRSI(s.close, bars, bars, smooth, SMA)[1]


@njit("float64[::1](float64[::1], float64[::1], float64[::1], int64)", **_OPTIONS)
def _commodity_channel(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int) -> np.ndarray:
    """TA-Lib's CCI at a multiple of its speed, within the rounding of sums in another order (1e-9); 0 of prices that stand still.

    TA-Lib sums from where the window lies in a ring; here each is summed in order, `_BLOCK` windows side by side, four values a pass.
    """
    out, x = np.empty(close.size), np.empty(close.size)
    out[: bars - 1] = np.nan
    for t in range(close.size):
        x[t] = (high[t] + low[t] + close[t]) / 3.0
    room = np.empty((2, _BLOCK))
    for start in range(bars - 1, x.size, _BLOCK):
        rows, first = min(_BLOCK, x.size - start), x[start - bars + 1 :]
        mean, away = room[0, :rows], room[1, :rows]
        mean[:] = 0.0
        away[:] = 0.0
        k = 0
        while k + 4 <= bars:
            a, b, c, d = first[k:], first[k + 1 :], first[k + 2 :], first[k + 3 :]
            for t in range(rows):
                mean[t] = mean[t] + a[t] + b[t] + c[t] + d[t]
            k += 4
        while k < bars:
            a = first[k:]
            for t in range(rows):
                mean[t] += a[t]
            k += 1
        for t in range(rows):
            mean[t] = mean[t] / bars
        k = 0
        while k + 4 <= bars:
            a, b, c, d = first[k:], first[k + 1 :], first[k + 2 :], first[k + 3 :]
            for t in range(rows):
                m = mean[t]
                away[t] = away[t] + abs(a[t] - m) + abs(b[t] - m) + abs(c[t] - m) + abs(d[t] - m)
            k += 4
        while k < bars:
            a = first[k:]
            for t in range(rows):
                away[t] += abs(a[t] - mean[t])
            k += 1
        for t in range(rows):
            apart = x[start + t] - mean[t]
            moves = (abs(apart) >= 1e-14) & (away[t] >= 1e-14)  # as TA-Lib; the other bound, of prices that stand still, is ours
            moves &= away[t] > 1e-12 * bars * mean[t]
            index = apart / (0.015 * (away[t] / bars))
            out[start + t] = index if moves else 0.0
    return out


def _true_strength(s: Series, slow: int, fast: int) -> np.ndarray:
    move = change(s.close, 1)
    return 100.0 * talib.EMA(talib.EMA(move, slow), fast) / talib.EMA(talib.EMA(np.abs(move), slow), fast)


def _schaff(s: Series, fast: int, slow: int, cycle: int) -> np.ndarray:
    """The stochastic of the stochastic of EMA(fast) less EMA(slow), each smoothed by half."""
    first = slow - 1 if slow > fast else fast - 1
    lines = s.shared(ema, fast) - s.shared(ema, slow)
    once = _half_smoothed(lines, s.close, first, cycle)
    return _half_smoothed(once, np.full(len(once), 100.0), first + cycle - 1, cycle)


@njit("float64[::1](float64[::1], float64[::1], int64, int64)", **_OPTIONS)
def _half_smoothed(x: np.ndarray, scale: np.ndarray, first: int, bars: int) -> np.ndarray:
    """0 to 100: where x lies within its last `bars` from row `first` on, half of that and half of the last value each bar.

    A range below 1e-12 of `scale` is rounding, not movement: the place within it is the one before.
    """
    out = np.full(x.size, np.nan)
    place, smooth = 0.0, 0.0
    for t in range(first + bars - 1, x.size):
        low, high = np.inf, -np.inf
        for k in range(t - bars + 1, t + 1):
            low, high = min(low, x[k]), max(high, x[k])
        if high - low > 1e-12 * scale[t]:
            place = 100.0 * (x[t] - low) / (high - low)
        smooth += 0.5 * (place - smooth)
        out[t] = smooth
    return out


def _fisher(s: Series, bars: int) -> np.ndarray:
    middle = (s.high + s.low) / 2.0
    return _fisher_of(middle, talib.MIN(middle, bars), talib.MAX(middle, bars))


@njit("float64[::1](float64[::1], float64[::1], float64[::1])", **_OPTIONS)
def _fisher_of(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Half a smoothed arctanh of where x lies between low (-1) and high (1), and half of the value before; middle where they meet."""
    out = np.full(x.size, np.nan)
    place, value = 0.0, 0.0
    for t in range(x.size):
        if np.isnan(low[t]):
            continue
        now = (x[t] - low[t]) / (high[t] - low[t]) - 0.5 if high[t] > low[t] else 0.0
        place = min(max(0.66 * now + 0.67 * place, -0.999), 0.999)
        value = 0.5 * np.log((1.0 + place) / (1.0 - place)) + 0.5 * value
        out[t] = value
    return out


def _awesome(s: Series, fast: int, slow: int) -> np.ndarray:
    middle = (s.high + s.low) / 2.0
    return (talib.SMA(middle, fast) - talib.SMA(middle, slow)) / s.close


def _cycle_trend(s: Series) -> np.ndarray:
    mode = np.asarray(talib.HT_TRENDMODE(s.close), float)
    mode[:63] = np.nan  # TA-Lib says 0 while it warms up
    return mode


def cycle(s: Series) -> tuple[np.ndarray, np.ndarray]:
    """Sine of the phase of the dominant cycle, and the same an eighth of a cycle ahead."""
    return talib.HT_SINE(s.close)


def _stochastic_look_back(bars: int, smooth: int, signal: int) -> int:
    return bars + smooth + signal - 3


_BARS, _EHLERS = ("bars",), "Ehlers (2001), by TA-Lib's Hilbert transform"
_STOCHASTIC = (("bars", "smooth", "signal"), ((14, 3, 3),), "Lane")
_FAST = (("bars", "signal"), ((14, 3),), "Lane")
_KROLL = "Chande and Kroll (1994)"

FAMILIES = (
    Family(
        "rsi_{bars}", lambda s, bars: talib.RSI(s.close, bars), _C, lambda bars: bars, "percent", "oscillator",
        "relative strength index, {bars} bars", _BARS, ((2,), (14,), (30,)), "Wilder (1978)",
    ),
    Family(
        "stochastic_rsi_{bars}", lambda s, bars: talib.STOCHRSI(s.close, bars, bars, 1, SMA)[0], _C, lambda bars: 2 * bars - 1,
        "percent", "oscillator", "where RSI({bars}) lies within its own {bars} bars, 0 to 100", _BARS, ((14,),), _KROLL,
    ),
    Family(
        "stochastic_rsi_k_{bars}", lambda s, *p: s.shared(stochastic_rsi, *p), _C, lambda bars, smooth: 2 * bars + smooth - 2,
        "percent", "oscillator", "{smooth}-bar mean of the stochastic RSI", ("bars", "smooth"), ((14, 3),), _KROLL,
    ),
    Family(
        "stochastic_rsi_d_{bars}", lambda s, bars, smooth, signal: talib.SMA(s.shared(stochastic_rsi, bars, smooth), signal), _C,
        lambda bars, smooth, signal: 2 * bars + smooth + signal - 3, "percent", "oscillator",
        "{signal}-bar mean of the stochastic RSI's %K", ("bars", "smooth", "signal"), ((14, 3, 3),), _KROLL,
    ),
    Family(
        "stochastic_fast_k_{bars}", lambda s, *p: s.shared(fast_stochastic, *p)[0], _HLC, lambda bars, signal: bars + signal - 2,
        "percent", "oscillator", "stochastic %K: where the close lies within {bars} bars, 0 to 100", *_FAST,
    ),
    Family(
        "stochastic_fast_d_{bars}", lambda s, *p: s.shared(fast_stochastic, *p)[1], _HLC, lambda bars, signal: bars + signal - 2,
        "percent", "oscillator", "{signal}-bar mean of the fast %K", *_FAST,
    ),
    Family(
        "stochastic_k_{bars}", lambda s, *p: s.shared(stochastic, *p)[0], _HLC, _stochastic_look_back, "percent", "oscillator",
        "slow stochastic %K: {bars} bars, smoothed over {smooth}", *_STOCHASTIC,
    ),
    Family(
        "stochastic_d_{bars}", lambda s, *p: s.shared(stochastic, *p)[1], _HLC, _stochastic_look_back, "percent", "oscillator",
        "{signal}-bar mean of the slow %K", *_STOCHASTIC,
    ),
    Family(
        "williams_r_{bars}", lambda s, bars: talib.WILLR(s.high, s.low, s.close, bars), _HLC, lambda bars: bars - 1, "percent",
        "oscillator", "Williams %R, -100 to 0", _BARS, ((14,),), "Williams (1973)",
    ),
    Family(
        "cci_{bars}", lambda s, bars: _commodity_channel(s.high, s.low, s.close, bars), _HLC, lambda bars: bars - 1, "score", "oscillator",
        "commodity channel index, {bars} bars", _BARS, ((14,), (20,), (30,)), "Lambert (1980)",
    ),
    Family(
        "cmo_{bars}", lambda s, bars: talib.CMO(s.close, bars), _C, lambda bars: bars, "percent", "oscillator",
        "Chande momentum oscillator, Wilder's smoothing as in TA-Lib", _BARS, ((14,),), _KROLL,
    ),
    Family(
        "roc_{bars}", lambda s, bars: talib.ROC(s.close, bars), _C, lambda bars: bars, "percent", "oscillator",
        "rate of change over {bars} bars", _BARS, ((12,), (21,)),
    ),
    Family(
        "mom_{bars}", lambda s, bars: talib.MOM(s.close, bars), _C, lambda bars: bars, "price", "oscillator",
        "momentum: close less that of {bars} bars ago", _BARS, ((10,),),
    ),
    Family(
        "tsi_{slow}_{fast}", _true_strength, _C, lambda slow, fast: slow + fast - 1, "percent", "oscillator",
        "true strength index: change of the close over its size, each smoothed by EMA({slow}), then EMA({fast})",
        ("slow", "fast"), ((25, 13),), "Blau (1991)",
    ),
    Family(
        "ultimate_{short}_{middle}_{long}", lambda s, *p: talib.ULTOSC(s.high, s.low, s.close, *p), _HLC, max, "percent", "oscillator",
        "ultimate oscillator", ("short", "middle", "long"), ((7, 14, 28),), "Williams (1985)",
    ),
    Family(
        "awesome_{fast}_{slow}", _awesome, _HLC, lambda fast, slow: max(fast, slow) - 1, "ratio", "oscillator",
        "mean of the bars' middles over {fast} bars less that over {slow}, over the close", ("fast", "slow"), ((5, 34),),
        "Williams (1998)",
    ),
    Family(
        "stc_{fast}_{slow}_{cycle}", _schaff, _C, lambda fast, slow, cycle: max(fast, slow) + 2 * cycle - 3, "percent", "oscillator",
        "Schaff trend cycle: the stochastic of the stochastic of MACD over {cycle} bars, each smoothed", ("fast", "slow", "cycle"),
        ((23, 50, 10),), "Schaff (1999)",
    ),
    Family(
        "fisher_{bars}", _fisher, _HL, lambda bars: bars - 1, "score", "oscillator",
        "Fisher transform of where the middle of the bar lies within {bars} bars", _BARS, ((10,),), "Ehlers (2002)",
    ),
    Family(
        "bull_power_{bars}", lambda s, bars: (s.high - s.shared(ema, bars)) / s.close, _HLC, lambda bars: bars - 1, "ratio", "oscillator",
        "Elder ray: high less EMA({bars}), over the close", _BARS, ((13,),), "Elder (1993)",
    ),
    Family(
        "bear_power_{bars}", lambda s, bars: (s.low - s.shared(ema, bars)) / s.close, _HLC, lambda bars: bars - 1, "ratio", "oscillator",
        "Elder ray: low less EMA({bars}), over the close", _BARS, ((13,),), "Elder (1993)",
    ),
    Family(
        "ret_percent_rank_{bars}", lambda s, bars: 100.0 * rolling.share_below(s.log_return, bars), _C, lambda bars: bars + 1,
        "percent", "oscillator", "share of the {bars} returns before that are below the last one", _BARS, ((100,),),
        "Connors and Alvarez (2012)",
    ),
    Family(
        "balance_of_power_1", lambda s: talib.BOP(s.open, s.high, s.low, s.close), _OHLC, 0, "ratio", "oscillator",
        "close less open, over high less low", source="Livshin (2001)",
    ),
    Family(
        "cycle_period", lambda s: talib.HT_DCPERIOD(s.close), _C, 32, "bars", "oscillator",
        "length of the dominant cycle, 6 to 50 bars", source=_EHLERS,
    ),
    Family(
        "cycle_sine", lambda s: s.shared(cycle)[0], _C, 63, "ratio", "oscillator", "sine of the dominant cycle's phase", source=_EHLERS,
    ),
    Family(
        "cycle_lead_sine", lambda s: s.shared(cycle)[1], _C, 63, "ratio", "oscillator",
        "that sine an eighth of a cycle ahead", source=_EHLERS,
    ),
    Family(
        "cycle_trend", _cycle_trend, _C, 63, "flag", "oscillator", "1 where the market trends, 0 where it cycles", source=_EHLERS,
    ),
)  # fmt: skip
