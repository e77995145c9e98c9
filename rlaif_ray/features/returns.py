"""Returns of a symbol over many horizons, plain and in units of its own volatility."""

from __future__ import annotations

import numpy as np
import talib

from rlaif_ray.features import rolling
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import Series, before, change

_C, _OC = ("close",), ("open", "close")


def volatility(s: Series, bars: int) -> np.ndarray:
    """Standard deviation (n - 1) of log returns, a bar."""
    return rolling.deviation(s.log_return, bars)


def _scaled(s: Series, bars: int, window: int) -> np.ndarray:
    return change(s.log_close, bars) / (s.shared(volatility, window) * np.sqrt(bars))


def _up_share(s: Series, bars: int) -> np.ndarray:
    return rolling.mean(np.where(np.isnan(s.log_return), np.nan, s.log_return > 0), bars)


FAMILIES = (
    Family(
        "ret_{bars}", lambda s, bars: s.close / before(s.close, bars) - 1.0, _C, lambda bars: bars, "ratio", "return",
        "simple total return over {bars} bars", ("bars",), ((1,), (2,), (5,), (10,), (21,), (63,), (126,), (252,)),
    ),
    Family(
        "momentum_{far}_{near}", lambda s, far, near: before(s.close, near) / before(s.close, far) - 1.0, _C, max,
        "ratio", "return", "return from {far} to {near} bars ago: 12-1 momentum", ("far", "near"), ((252, 21),),
        "Jegadeesh and Titman (1993)",
    ),
    Family(
        "ret_{bars}_scaled", _scaled, _C, max, "score", "return",
        "{bars}-bar log return over its {window}-bar volatility x sqrt({bars})", ("bars", "window"), ((1, 63), (5, 63), (21, 63), (63, 63)),
    ),
    Family(
        "gap_1", lambda s: s.open / before(s.close, 1) - 1.0, _OC, 1, "ratio", "return", "open over the close before, less 1",
    ),
    Family(
        "intraday_1", lambda s: s.close / s.open - 1.0, _OC, 0, "ratio", "return", "close over open, less 1",
    ),
    Family(
        "max_ret_{bars}", lambda s, bars: np.expm1(talib.MAX(s.log_return, bars)), _C, lambda bars: bars, "ratio", "return",
        "largest 1-bar return of {bars}", ("bars",), ((21,),), "Bali, Cakici and Whitelaw (2011)",
    ),
    Family(
        "min_ret_{bars}", lambda s, bars: np.expm1(talib.MIN(s.log_return, bars)), _C, lambda bars: bars, "ratio", "return",
        "smallest 1-bar return of {bars}", ("bars",), ((21,),),
    ),
    Family(
        "up_share_{bars}", _up_share, _C, lambda bars: bars, "ratio", "return", "share of rising bars among {bars}", ("bars",), ((21,),),
    ),
)  # fmt: skip
