"""Candlestick patterns as TA-Lib finds them: how many speak for rising and for falling, and the best-known by themselves."""

from __future__ import annotations

import numpy as np
import talib

from rlaif_ray.features.family import Family
from rlaif_ray.features.series import Series, before

_OHLC = ("open", "high", "low", "close")
PATTERNS: tuple[str, ...] = tuple(talib.get_function_groups()["Pattern Recognition"])
_FIRST = 14  # the first row on which TA-Lib looks for all of them


def _find(s: Series, name: str) -> np.ndarray:
    """(T,) int32: positive where TA-Lib sees the pattern as bullish (or without direction), negative where bearish, else 0."""
    return getattr(talib, name)(s.open, s.high, s.low, s.close)


def found(s: Series) -> tuple[np.ndarray, np.ndarray]:
    """(T,) each: bullish and bearish patterns that are complete by each bar, since the first bar that all could be found on."""
    bullish, bearish = np.zeros(len(s.close), np.int64), np.zeros(len(s.close), np.int64)
    for name in PATTERNS:
        signs = _find(s, name)
        bullish += signs > 0
        bearish += signs < 0
    for count in (bullish, bearish):
        count[:_FIRST] = 0
        np.cumsum(count, out=count)
    return bullish, bearish


def _over(total: np.ndarray, bars: int) -> np.ndarray:
    """(T,) how many were added on the last `bars`; NaN until all of them could have been."""
    out = total - np.nan_to_num(before(total, bars))
    out[: _FIRST + bars - 1] = np.nan
    return out


def _bullish(s: Series, bars: int) -> np.ndarray:
    return _over(s.shared(found)[0], bars)


def _bearish(s: Series, bars: int) -> np.ndarray:
    return _over(s.shared(found)[1], bars)


def _look_back(bars: int) -> int:
    return _FIRST + bars - 1


def _pattern(column: str, name: str, first: int, text: str) -> Family:
    def sign(s: Series) -> np.ndarray:
        out = np.sign(_find(s, name)).astype(float)
        out[:first] = np.nan
        return out

    return Family(column, sign, _OHLC, first, "flag", "pattern", text, source=f"TA-Lib {name}; Nison (1991)")


_COUNTS = (("bars",), ((1,), (5,), (10,)), "TA-Lib's CDL functions; Bulkowski (2008)")

FAMILIES = (
    Family(
        "candles_bullish_{bars}", _bullish, _OHLC, _look_back, "count", "pattern",
        "patterns that TA-Lib signs positive (bullish, or a doji) over {bars} bars", *_COUNTS,
    ),
    Family(
        "candles_bearish_{bars}", _bearish, _OHLC, _look_back, "count", "pattern",
        "patterns that TA-Lib signs negative (bearish) over {bars} bars", *_COUNTS,
    ),
    Family(
        "candles_net_{bars}", lambda s, bars: _bullish(s, bars) - _bearish(s, bars), _OHLC, _look_back, "count", "pattern",
        "bullish less bearish patterns over {bars} bars", *_COUNTS,
    ),
    _pattern("engulfing", "CDLENGULFING", 2, "1: a rising body covers the falling one before it; -1: the reverse"),
    _pattern("hammer", "CDLHAMMER", 11, "1: small body on a long lower shadow, below the bar before"),
    _pattern("doji", "CDLDOJI", 10, "1: open and close all but meet"),
    _pattern("morning_star", "CDLMORNINGSTAR", 12, "1: long fall, small body below it, close deep into the fall"),
    _pattern("evening_star", "CDLEVENINGSTAR", 12, "-1: long rise, small body above it, close deep into the rise"),
    _pattern("shooting_star", "CDLSHOOTINGSTAR", 11, "-1: small body under a long upper shadow, above the bar before"),
    _pattern("three_white_soldiers", "CDL3WHITESOLDIERS", 12, "1: three long rising bars in step"),
    _pattern("three_black_crows", "CDL3BLACKCROWS", 13, "-1: three falling bars in step after a rise"),
)  # fmt: skip
