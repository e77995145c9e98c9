"""Means of the close, how far it is from them, and how they stand to each other (MACD and its kin)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import talib

from rlaif_ray.features.family import Family
from rlaif_ray.features.series import EMA, Series

_C = ("close",)


def sma(s: Series, bars: int) -> np.ndarray:
    return talib.SMA(s.close, bars)


def ema(s: Series, bars: int) -> np.ndarray:
    """2/(bars + 1) of the new close each bar, started from the mean of the first `bars`."""
    return talib.EMA(s.close, bars)


def macd(s: Series, fast: int, slow: int, signal: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MACD, its signal, and the one less the other; in prices."""
    return talib.MACD(s.close, fast, slow, signal)


def _distance(average: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Series, int], np.ndarray]:
    return lambda s, bars: s.close / average(s.close, bars) - 1.0


def _sma_cross(s: Series, fast: int, slow: int) -> np.ndarray:
    return s.shared(sma, fast) / s.shared(sma, slow) - 1.0


def know_sure_thing(
    s: Series, roc_1: int, roc_2: int, roc_3: int, roc_4: int, mean_1: int, mean_2: int, mean_3: int, mean_4: int
) -> np.ndarray:
    """Four smoothed rates of change, in percent, weighted 1 to 4."""
    terms = ((roc_1, mean_1), (roc_2, mean_2), (roc_3, mean_3), (roc_4, mean_4))
    total = np.zeros(len(s.close))
    for weight, (bars, smooth) in enumerate(terms, start=1):
        total += weight * talib.SMA(talib.ROC(s.close, bars), smooth)
    return total


def _coppock(s: Series, smooth: int, long: int, short: int) -> np.ndarray:
    return talib.WMA(talib.ROC(s.close, long) + talib.ROC(s.close, short), smooth)


def _macd_look_back(fast: int, slow: int, signal: int) -> int:
    return max(fast, slow) + signal - 2


def _kst_look_back(*p: int) -> int:
    return max(p[i] + p[i + 4] for i in range(4)) - 1


_BARS = ("bars",)
_MACD = (("fast", "slow", "signal"), ((12, 26, 9),), "Appel (1979)")
_KST = ("roc_1", "roc_2", "roc_3", "roc_4", "mean_1", "mean_2", "mean_3", "mean_4")

FAMILIES = (
    Family(
        "sma_{bars}", lambda s, bars: s.shared(sma, bars), _C, lambda bars: bars - 1, "price", "level", "mean of {bars} closes",
        _BARS, ((20,), (50,), (100,), (200,)),
    ),
    Family(
        "ema_{bars}", lambda s, bars: s.shared(ema, bars), _C, lambda bars: bars - 1, "price", "level",
        "exponential mean of the close, {bars} bars", _BARS, ((12,), (26,), (50,)),
    ),
    Family(
        "sma_distance_{bars}", lambda s, bars: s.close / s.shared(sma, bars) - 1.0, _C, lambda bars: bars - 1, "ratio", "trend",
        "close over its {bars}-bar mean, less 1", _BARS, ((5,), (10,), (20,), (30,), (50,), (60,), (100,), (200,)),
    ),
    Family(
        "ema_distance_{bars}", lambda s, bars: s.close / s.shared(ema, bars) - 1.0, _C, lambda bars: bars - 1, "ratio", "trend",
        "close over its EMA({bars}), less 1", _BARS, ((12,), (26,), (50,)),
    ),
    Family(
        "dema_distance_{bars}", _distance(talib.DEMA), _C, lambda bars: 2 * bars - 2, "ratio", "trend",
        "close over its double EMA({bars}), less 1", _BARS, ((20,),), "Mulloy (1994)",
    ),
    Family(
        "tema_distance_{bars}", _distance(talib.TEMA), _C, lambda bars: 3 * bars - 3, "ratio", "trend",
        "close over its triple EMA({bars}), less 1", _BARS, ((20,),), "Mulloy (1994)",
    ),
    Family(
        "wma_distance_{bars}", _distance(talib.WMA), _C, lambda bars: bars - 1, "ratio", "trend",
        "close over its linearly weighted {bars}-bar mean, less 1", _BARS, ((20,),),
    ),
    Family(
        "kama_distance_{bars}", _distance(talib.KAMA), _C, lambda bars: bars, "ratio", "trend",
        "close over Kaufman's adaptive mean({bars}, 2, 30), less 1", _BARS, ((10,),), "Kaufman (1995)",
    ),
    Family(
        "sma_cross_{fast}_{slow}", _sma_cross, _C, lambda fast, slow: max(fast, slow) - 1, "ratio", "trend",
        "{fast}-bar mean over {slow}-bar mean, less 1", ("fast", "slow"), ((50, 200),),
    ),
    Family(
        "macd", lambda s, *p: s.shared(macd, *p)[0] / s.close, _C, _macd_look_back, "ratio", "trend",
        "EMA({fast}) less EMA({slow}), over the close", *_MACD,
    ),
    Family(
        "macd_signal", lambda s, *p: s.shared(macd, *p)[1] / s.close, _C, _macd_look_back, "ratio", "trend",
        "EMA({signal}) of MACD, over the close", *_MACD,
    ),
    Family(
        "macd_histogram", lambda s, *p: s.shared(macd, *p)[2] / s.close, _C, _macd_look_back, "ratio", "trend",
        "MACD less its signal, over the close", *_MACD,
    ),
    Family(
        "macd_level", lambda s, *p: s.shared(macd, *p)[0], _C, _macd_look_back, "price", "level",
        "EMA({fast}) less EMA({slow}), in prices", *_MACD,
    ),
    Family(
        "macd_signal_level", lambda s, *p: s.shared(macd, *p)[1], _C, _macd_look_back, "price", "level",
        "EMA({signal}) of MACD, in prices", *_MACD,
    ),
    Family(
        "macd_histogram_level", lambda s, *p: s.shared(macd, *p)[2], _C, _macd_look_back, "price", "level",
        "MACD less its signal, in prices", *_MACD,
    ),
    Family(
        "ppo_{fast}_{slow}", lambda s, fast, slow: talib.PPO(s.close, fast, slow, EMA), _C, lambda fast, slow: max(fast, slow) - 1,
        "percent", "trend", "EMA({fast}) over EMA({slow}), less 1", ("fast", "slow"), ((12, 26),), "Appel",
    ),
    Family(
        "trix_{bars}", lambda s, bars: talib.TRIX(s.close, bars), _C, lambda bars: 3 * bars - 2, "percent", "trend",
        "1-bar change of the triple EMA({bars})", _BARS, ((15,),), "Hutson (1983)",
    ),
    Family(
        "kst", lambda s, *p: s.shared(know_sure_thing, *p), _C, _kst_look_back, "percent", "trend",
        "know sure thing: rates of change over {roc_1}, {roc_2}, {roc_3}, {roc_4} bars, smoothed and weighted 1 to 4",
        _KST, ((10, 15, 20, 30, 10, 10, 10, 15),), "Pring (1992)",
    ),
    Family(
        "kst_signal", lambda s, *p: talib.SMA(s.shared(know_sure_thing, *p[:-1]), p[-1]), _C,
        lambda *p: _kst_look_back(*p[:-1]) + p[-1] - 1, "percent", "trend",
        "{signal}-bar mean of the know sure thing", (*_KST, "signal"), ((10, 15, 20, 30, 10, 10, 10, 15, 9),),
        "Pring (1992)",
    ),
    Family(
        "coppock_{smooth}_{long}_{short}", _coppock, _C, lambda smooth, long, short: max(long, short) + smooth - 1, "percent", "trend",
        "weighted {smooth}-bar mean of the rates of change over {long} and {short} bars", ("smooth", "long", "short"), ((10, 14, 11),),
        "Coppock (1962), who counts months",
    ),
)  # fmt: skip
