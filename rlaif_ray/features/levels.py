"""Prices that traders watch: the volume-weighted mean, pivots of the session before, and the last turns of the market."""

from __future__ import annotations

import numpy as np
from numba import njit

from rlaif_ray.features import rolling
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import Series

_HL, _HLC, _HLCV = ("high", "low"), ("high", "low", "close"), ("high", "low", "close", "volume")
_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}


def vwap(s: Series, bars: int) -> np.ndarray:
    """Typical price weighted by volume; NaN where nothing was traded on any of the bars."""
    return rolling.mean(s.typical * s.volume, bars) / rolling.mean(s.volume, bars)


def session_vwap(s: Series) -> np.ndarray:
    return _since_open(s.typical, s.volume, s.sessions)


@njit("float64[::1](float64[::1], float64[::1], int64[::1])", **_OPTIONS)
def _since_open(price: np.ndarray, volume: np.ndarray, session: np.ndarray) -> np.ndarray:
    out = np.empty(price.size)
    money, shares = 0.0, 0.0
    for t in range(price.size):
        if t > 0 and session[t] != session[t - 1]:
            money, shares = 0.0, 0.0
        money += price[t] * volume[t]
        shares += volume[t]
        out[t] = money / shares
    return out


def session_before(s: Series) -> np.ndarray:
    """(3,T) high, low and close of the last session that is over; NaN during the first one."""
    return _session_before(s.high, s.low, s.close, s.sessions)


@njit("float64[:,::1](float64[::1], float64[::1], float64[::1], int64[::1])", **_OPTIONS)
def _session_before(high: np.ndarray, low: np.ndarray, close: np.ndarray, session: np.ndarray) -> np.ndarray:
    out = np.full((3, close.size), np.nan)
    top, bottom = -np.inf, np.inf
    for t in range(close.size):
        if t > 0 and session[t] != session[t - 1]:
            out[0, t], out[1, t], out[2, t] = top, bottom, close[t - 1]
            top, bottom = -np.inf, np.inf
        elif t > 0:
            out[:, t] = out[:, t - 1]
        top, bottom = max(top, high[t]), min(bottom, low[t])
    return out


def pivot(s: Series) -> np.ndarray:
    high, low, close = s.shared(session_before)
    return (high + low + close) / 3.0


def _pivot_step(s: Series) -> np.ndarray:
    high, low, _ = s.shared(session_before)
    return high - low


def swing_high(s: Series, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Price of the last confirmed turn and how many bars ago it was."""
    out = _last_turn(s.high, side)
    return out[0], out[1]


def swing_low(s: Series, side: int) -> tuple[np.ndarray, np.ndarray]:
    out = _last_turn(-s.low, side)
    return -out[0], out[1]


@njit("float64[:,::1](float64[::1], int64)", **_OPTIONS)
def _last_turn(x: np.ndarray, side: int) -> np.ndarray:
    """(2,T): value and age of the last x that exceeds the `side` before it and is not exceeded by the `side` after it.

    It is known once those after it are, so no age is below `side`.
    """
    out = np.full((2, x.size), np.nan)
    value, at = np.nan, 0
    for t in range(2 * side, x.size):
        top = t - side
        is_turn = True
        for k in range(1, side + 1):
            if not (x[top] > x[top - k] and x[top] >= x[top + k]):
                is_turn = False
                break
        if is_turn:
            value, at = x[top], top
        if not np.isnan(value):
            out[0, t], out[1, t] = value, t - at
    return out


_SIDE = (("side",), ((5,),), "Williams (1995): fractals")
_FIRST = "; undefined before the first"
_PIVOT = "floor traders' pivots"

FAMILIES = (
    Family(
        "vwap_session", lambda s: s.shared(session_vwap), _HLCV, 0, "price", "level",
        "typical price weighted by volume since the session began; a daily bar's own typical price",
    ),
    Family(
        "vwap_session_distance", lambda s: s.close / s.shared(session_vwap) - 1.0, _HLCV, 0, "ratio", "range",
        "close over the volume-weighted mean since the session began, less 1",
    ),
    Family(
        "vwap_{bars}", lambda s, bars: s.shared(vwap, bars), _HLCV, lambda bars: bars - 1, "price", "level",
        "typical price of {bars} bars weighted by volume", ("bars",), ((20,),),
    ),
    Family(
        "vwap_distance_{bars}", lambda s, bars: s.close / s.shared(vwap, bars) - 1.0, _HLCV, lambda bars: bars - 1, "ratio", "range",
        "close over the volume-weighted mean of {bars} bars, less 1", ("bars",), ((20,),),
    ),
    Family(
        "pivot", lambda s: s.shared(pivot), _HLC, 1, "price", "level",
        "mean of high, low and close of the session before", source=_PIVOT,
    ),
    Family(
        "pivot_r1", lambda s: 2.0 * s.shared(pivot) - s.shared(session_before)[1], _HLC, 1, "price", "level",
        "first resistance: twice the pivot less the low of the session before", source=_PIVOT,
    ),
    Family(
        "pivot_r2", lambda s: s.shared(pivot) + _pivot_step(s), _HLC, 1, "price", "level",
        "second resistance: the pivot plus the range of the session before", source=_PIVOT,
    ),
    Family(
        "pivot_s1", lambda s: 2.0 * s.shared(pivot) - s.shared(session_before)[0], _HLC, 1, "price", "level",
        "first support: twice the pivot less the high of the session before", source=_PIVOT,
    ),
    Family(
        "pivot_s2", lambda s: s.shared(pivot) - _pivot_step(s), _HLC, 1, "price", "level",
        "second support: the pivot less the range of the session before", source=_PIVOT,
    ),
    Family(
        "pivot_distance", lambda s: s.close / s.shared(pivot) - 1.0, _HLC, 1, "ratio", "range",
        "close over the pivot of the session before, less 1", source=_PIVOT,
    ),
    Family(
        "swing_high_{side}", lambda s, side: s.shared(swing_high, side)[0], _HL, lambda side: 2 * side, "price", "level",
        "last high above the {side} before it and not below the {side} after it" + _FIRST, *_SIDE,
    ),
    Family(
        "swing_low_{side}", lambda s, side: s.shared(swing_low, side)[0], _HL, lambda side: 2 * side, "price", "level",
        "last low below the {side} before it and not above the {side} after it" + _FIRST, *_SIDE,
    ),
    Family(
        "swing_high_age_{side}", lambda s, side: s.shared(swing_high, side)[1], _HL, lambda side: 2 * side, "bars", "structure",
        "bars since that swing high, at least {side}" + _FIRST, *_SIDE,
    ),
    Family(
        "swing_low_age_{side}", lambda s, side: s.shared(swing_low, side)[1], _HL, lambda side: 2 * side, "bars", "structure",
        "bars since that swing low, at least {side}" + _FIRST, *_SIDE,
    ),
    Family(
        "resistance_distance_{side}", lambda s, side: s.close / s.shared(swing_high, side)[0] - 1.0, _HLC, lambda side: 2 * side, "ratio",
        "structure", "close over the last swing high, less 1" + _FIRST, *_SIDE,
    ),
    Family(
        "support_distance_{side}", lambda s, side: s.close / s.shared(swing_low, side)[0] - 1.0, _HLC, lambda side: 2 * side, "ratio",
        "structure", "close over the last swing low, less 1" + _FIRST, *_SIDE,
    ),
)  # fmt: skip
