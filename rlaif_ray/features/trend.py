"""Which way a symbol goes and how steadily: directional movement, lines, stops that trail, clouds."""

from __future__ import annotations

import numpy as np
import talib
from numba import njit

from rlaif_ray.features import rolling
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import Series, before, change
from rlaif_ray.features.volatility import atr

_C, _HL, _HLC = ("close",), ("high", "low"), ("high", "low", "close")


def aroon(s: Series, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Down, up."""
    return talib.AROON(s.high, s.low, bars)


def true_range(s: Series) -> np.ndarray:
    """High less low, either of them stretched to the close before; NaN on the first bar."""
    return talib.TRANGE(s.high, s.low, s.close)


def directional(s: Series, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """+DI, -DI."""
    return talib.PLUS_DI(s.high, s.low, s.close, bars), talib.MINUS_DI(s.high, s.low, s.close, bars)


def vortex(s: Series, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """From the low before to the high, from the high before to the low: each summed, over the summed true range."""
    span = rolling.mean(s.shared(true_range), bars)
    up, down = np.abs(s.high - before(s.low, 1)), np.abs(s.low - before(s.high, 1))
    return rolling.mean(up, bars) / span, rolling.mean(down, bars) / span


def parabolic_stop(s: Series, step: float, limit: float) -> np.ndarray:
    return talib.SAR(s.high, s.low, step, limit)


def supertrend(s: Series, bars: int, multiple: float) -> tuple[np.ndarray, np.ndarray]:
    """Level and direction: 1 while the level trails below the close, -1 while above. It starts below, with direction -1."""
    reach = multiple * s.shared(atr, bars)
    middle = (s.high + s.low) / 2.0
    out = _trail(middle - reach, middle + reach, s.close)
    return out[0], out[1]


@njit("float64[:,::1](float64[::1], float64[::1], float64[::1])", cache=True, nogil=True, error_model="numpy")
def _trail(low: np.ndarray, high: np.ndarray, close: np.ndarray) -> np.ndarray:
    out = np.full((2, close.size), np.nan)
    floor, roof, direction = np.nan, np.nan, -1.0
    for t in range(close.size):
        if np.isnan(low[t]):
            continue
        if np.isnan(floor):
            floor, roof = low[t], high[t]
        else:  # a band gives way only once the close before has left it behind
            floor = low[t] if low[t] > floor or close[t - 1] < floor else floor
            roof = high[t] if high[t] < roof or close[t - 1] > roof else roof
        if direction < 0.0 and close[t] > roof:
            direction = 1.0
        elif direction > 0.0 and close[t] < floor:
            direction = -1.0
        out[0, t] = floor if direction > 0.0 else roof
        out[1, t] = direction
    return out


def halfway(s: Series, bars: int) -> np.ndarray:
    """Between the highest high and the lowest low."""
    return talib.MIDPRICE(s.high, s.low, bars)


def span_a(s: Series, conversion: int, base: int, shift: int) -> np.ndarray:
    return before((s.shared(halfway, conversion) + s.shared(halfway, base)) / 2.0, shift)


def span_b(s: Series, bars: int, shift: int) -> np.ndarray:
    return before(s.shared(halfway, bars), shift)


def _cloud_distance(s: Series, conversion: int, base: int, span: int, shift: int) -> np.ndarray:
    cloud = (s.shared(span_a, conversion, base, shift) + s.shared(span_b, span, shift)) / 2.0
    return s.close / cloud - 1.0


def _linear_r2(s: Series, bars: int) -> np.ndarray:
    return rolling.correlation(s.close, np.arange(float(len(s.close))), bars) ** 2


def _efficiency(s: Series, bars: int) -> np.ndarray:
    return np.abs(change(s.close, bars)) / (bars * rolling.mean(np.abs(change(s.close, 1)), bars))


def _choppiness(s: Series, bars: int) -> np.ndarray:
    """100 log10(summed true range / (highest high - lowest low)) / log10(bars)."""
    travelled = bars * rolling.mean(s.shared(true_range), bars)
    return 100.0 * np.log10(travelled / (talib.MAX(s.high, bars) - talib.MIN(s.low, bars))) / np.log10(bars)


def _mass(s: Series, smooth: int, bars: int) -> np.ndarray:
    once = talib.EMA(s.high - s.low, smooth)
    return bars * rolling.mean(once / talib.EMA(once, smooth), bars)


_BARS = ("bars",)
_SAR = (("step", "limit"), ((0.02, 0.2),), "Wilder (1978)")
_SUPERTREND = (("bars", "multiple"), ((10, 3.0),), "Seban's SuperTrend")
_ICHIMOKU = "Hosoda's Ichimoku Kinko Hyo (1969)"

FAMILIES = (
    Family(
        "adx_{bars}", lambda s, bars: talib.ADX(s.high, s.low, s.close, bars), _HLC, lambda bars: 2 * bars - 1, "percent", "trend",
        "average directional index", _BARS, ((14,),), "Wilder (1978)",
    ),
    Family(
        "adxr_{bars}", lambda s, bars: talib.ADXR(s.high, s.low, s.close, bars), _HLC, lambda bars: 3 * bars - 2, "percent", "trend",
        "mean of ADX({bars}) now and as long ago as makes {bars} bars", _BARS, ((14,),), "Wilder (1978)",
    ),
    Family(
        "dx_{bars}", lambda s, bars: talib.DX(s.high, s.low, s.close, bars), _HLC, lambda bars: bars, "percent", "trend",
        "directional movement index, {bars} bars", _BARS, ((30,),), "Wilder (1978)",
    ),
    Family(
        "plus_di_{bars}", lambda s, bars: s.shared(directional, bars)[0], _HLC, lambda bars: bars, "percent", "trend",
        "+DI: smoothed upward movement over the smoothed true range", _BARS, ((14,),), "Wilder (1978)",
    ),
    Family(
        "minus_di_{bars}", lambda s, bars: s.shared(directional, bars)[1], _HLC, lambda bars: bars, "percent", "trend",
        "-DI: smoothed downward movement over the smoothed true range", _BARS, ((14,),), "Wilder (1978)",
    ),
    Family(
        "di_spread_{bars}", lambda s, bars: np.subtract(*s.shared(directional, bars)), _HLC, lambda bars: bars, "percent", "trend",
        "+DI less -DI", _BARS, ((14,),), "Wilder (1978)",
    ),
    Family(
        "vortex_plus_{bars}", lambda s, bars: s.shared(vortex, bars)[0], _HLC, lambda bars: bars, "ratio", "trend",
        "summed reach from the low before to the high, over summed true range", _BARS, ((14,),), "Botes and Siepman (2010)",
    ),
    Family(
        "vortex_minus_{bars}", lambda s, bars: s.shared(vortex, bars)[1], _HLC, lambda bars: bars, "ratio", "trend",
        "summed reach from the high before to the low, over summed true range", _BARS, ((14,),), "Botes and Siepman (2010)",
    ),
    Family(
        "aroon_up_{bars}", lambda s, bars: s.shared(aroon, bars)[1], _HL, lambda bars: bars, "percent", "trend",
        "how lately the {bars}-bar high was, 0 to 100", _BARS, ((25,),), "Chande (1995)",
    ),
    Family(
        "aroon_down_{bars}", lambda s, bars: s.shared(aroon, bars)[0], _HL, lambda bars: bars, "percent", "trend",
        "how lately the {bars}-bar low was, 0 to 100", _BARS, ((25,),), "Chande (1995)",
    ),
    Family(
        "aroon_oscillator_{bars}", lambda s, bars: np.subtract(*s.shared(aroon, bars)[::-1]), _HL, lambda bars: bars, "percent", "trend",
        "Aroon up less Aroon down", _BARS, ((25,),), "Chande (1995)",
    ),
    Family(
        "linear_slope_{bars}", lambda s, bars: talib.LINEARREG_SLOPE(s.close, bars) / s.close, _C, lambda bars: bars - 1, "ratio", "trend",
        "slope a bar of the line through {bars} closes, over the close", _BARS, ((21,),),
    ),
    Family(
        "linear_distance_{bars}", lambda s, bars: s.close / talib.LINEARREG(s.close, bars) - 1.0, _C, lambda bars: bars - 1, "ratio",
        "trend", "close over the end of the line through {bars} closes, less 1", _BARS, ((21,),),
    ),
    Family(
        "linear_r2_{bars}", _linear_r2, _C, lambda bars: bars - 1, "ratio", "trend",
        "share of the variance of {bars} closes that their line explains", _BARS, ((21,),),
    ),
    Family(
        "efficiency_{bars}", _efficiency, _C, lambda bars: bars, "ratio", "trend",
        "net over summed absolute change of {bars} bars", _BARS, ((10,),), "Kaufman (1995)",
    ),
    Family(
        "choppiness_{bars}", _choppiness, _HLC, lambda bars: bars, "percent", "trend",
        "choppiness index: 100 where {bars} bars go nowhere, near 0 on a straight way", _BARS, ((14,),), "Dreiss (1993)",
    ),
    Family(
        "mass_{smooth}_{bars}", _mass, _HL, lambda smooth, bars: 2 * smooth + bars - 3, "ratio", "trend",
        "mass index: {bars}-bar sum of the range's EMA({smooth}) over its own EMA", ("smooth", "bars"), ((9, 25),), "Dorsey (1992)",
    ),
    Family(
        "sar", lambda s, *p: s.shared(parabolic_stop, *p), _HL, 1, "price", "level", "parabolic stop ({step}, {limit})", *_SAR,
    ),
    Family(
        "sar_distance", lambda s, *p: s.close / s.shared(parabolic_stop, *p) - 1.0, _HLC, 1, "ratio", "trend",
        "close over the parabolic stop, less 1 ({step}, {limit})", *_SAR,
    ),
    Family(
        "supertrend", lambda s, *p: s.shared(supertrend, *p)[0], _HLC, lambda bars, multiple: bars, "price", "level",
        "stop that trails the middle of the bar by {multiple} ATR({bars})", *_SUPERTREND,
    ),
    Family(
        "supertrend_direction", lambda s, *p: s.shared(supertrend, *p)[1], _HLC, lambda bars, multiple: bars, "flag", "trend",
        "1 while SuperTrend trails below the close, -1 while above", *_SUPERTREND,
    ),
    Family(
        "supertrend_distance", lambda s, *p: s.close / s.shared(supertrend, *p)[0] - 1.0, _HLC, lambda bars, multiple: bars, "ratio",
        "trend", "close over SuperTrend, less 1", *_SUPERTREND,
    ),
    Family(
        "ichimoku_conversion_{bars}", lambda s, bars: s.shared(halfway, bars), _HL, lambda bars: bars - 1, "price", "level",
        "halfway between the highest high and lowest low of {bars} bars (tenkan-sen)", _BARS, ((9,),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_base_{bars}", lambda s, bars: s.shared(halfway, bars), _HL, lambda bars: bars - 1, "price", "level",
        "halfway between the highest high and lowest low of {bars} bars (kijun-sen)", _BARS, ((26,),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_span_a", lambda s, *p: s.shared(span_a, *p), _HL, lambda conversion, base, shift: max(conversion, base) + shift - 1,
        "price", "level", "edge of the cloud drawn at this bar: mean of conversion and base of {shift} bars ago",
        ("conversion", "base", "shift"), ((9, 26, 26),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_span_b", lambda s, *p: s.shared(span_b, *p), _HL, lambda bars, shift: bars + shift - 1, "price", "level",
        "edge of the cloud drawn at this bar: halfway between the extremes of {bars} bars, {shift} bars ago",
        ("bars", "shift"), ((52, 26),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_cross", lambda s, fast, slow: s.shared(halfway, fast) / s.shared(halfway, slow) - 1.0, _HL,
        lambda fast, slow: max(fast, slow) - 1, "ratio", "trend", "conversion over base, less 1", ("fast", "slow"), ((9, 26),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_cloud_distance", _cloud_distance, _HLC, lambda conversion, base, span, shift: max(conversion, base, span) + shift - 1,
        "ratio", "trend", "close over the middle of the cloud drawn at this bar, less 1", ("conversion", "base", "span", "shift"),
        ((9, 26, 52, 26),), _ICHIMOKU,
    ),
    Family(
        "ichimoku_lagging", lambda s, bars: s.close / before(s.close, bars) - 1.0, _C, lambda bars: bars, "ratio", "trend",
        "close over that of {bars} bars ago, less 1: what the lagging line shows, told when it is known", _BARS, ((26,),), _ICHIMOKU,
    ),
)  # fmt: skip
