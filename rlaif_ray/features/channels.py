"""Where a bar lies: within itself, between extremes, and between bands around a mean."""

from __future__ import annotations

import numpy as np
import talib

from rlaif_ray.features import rolling
from rlaif_ray.features.averages import ema, sma
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import Series
from rlaif_ray.features.volatility import atr

_C, _HL, _HLC = ("close",), ("high", "low"), ("high", "low", "close")
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # upper, middle, lower


def bollinger(s: Series, bars: int, deviations: float) -> Band:
    """The mean, and `deviations` standard deviations (n, not n - 1) to either side."""
    return talib.BBANDS(s.close, bars, deviations, deviations)


def keltner(s: Series, bars: int, atr_bars: int, multiple: float) -> Band:
    """Raschke's form: an EMA, and `multiple` average true ranges to either side."""
    middle, reach = s.shared(ema, bars), multiple * s.shared(atr, atr_bars)
    return middle + reach, middle, middle - reach


def donchian(s: Series, bars: int) -> Band:
    """The highest high, the middle, the lowest low."""
    upper, lower = talib.MAX(s.high, bars), talib.MIN(s.low, bars)
    return upper, (upper + lower) / 2.0, lower


def close_location(s: Series) -> np.ndarray:
    """-1 at the low, 1 at the high; NaN for a bar without range."""
    return (2.0 * s.close - s.high - s.low) / (s.high - s.low)


def within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """0 at `low`, 1 at `high`."""
    return (x - low) / (high - low)


def _width(band: Band) -> np.ndarray:
    return (band[0] - band[2]) / band[1]


def _position(s: Series, band: Band) -> np.ndarray:
    return within(s.close, band[2], band[0])


def _donchian_width(s: Series, bars: int) -> np.ndarray:
    upper, _, lower = s.shared(donchian, bars)
    return (upper - lower) / s.shared(sma, bars)


def _ulcer(s: Series, bars: int) -> np.ndarray:
    return np.sqrt(rolling.mean((s.close / talib.MAX(s.close, bars) - 1.0) ** 2, bars))


def _keltner_look_back(bars: int, atr_bars: int, multiple: float) -> int:
    return max(bars - 1, atr_bars)


_BARS = ("bars",)
_BOLLINGER = (("bars", "deviations"), ((20, 2.0),), "Bollinger (2001)")
_KELTNER = (("bars", "atr_bars", "multiple"), ((20, 10, 2.0),), "Raschke's form of Keltner (1960)")

FAMILIES = (
    Family(
        "range_1", lambda s: (s.high - s.low) / s.close, _HLC, 0, "ratio", "range", "high less low, over the close",
    ),
    Family(
        "close_location_1", close_location, _HLC, 0, "ratio", "range", "where the close lies between low (-1) and high (1)",
    ),
    Family(
        "channel_{bars}", lambda s, bars: _position(s, s.shared(donchian, bars)), _HLC, lambda bars: bars - 1, "ratio", "range",
        "where the close lies between the {bars}-bar low (0) and high (1)", _BARS, ((20,),), "Donchian",
    ),
    Family(
        "channel_252", lambda s, bars: within(s.close, talib.MIN(s.close, bars), talib.MAX(s.close, bars)), _C, lambda bars: bars - 1,
        "ratio", "range", "where the close lies between the lowest (0) and the highest (1) of {bars} closes", _BARS, ((252,),),
    ),
    Family(
        "drawdown_{bars}", lambda s, bars: s.close / talib.MAX(s.close, bars) - 1.0, _C, lambda bars: bars - 1, "ratio", "range",
        "close over the highest close of {bars} bars, less 1", _BARS, ((252,),),
    ),
    Family(
        "drawup_{bars}", lambda s, bars: s.close / talib.MIN(s.close, bars) - 1.0, _C, lambda bars: bars - 1, "ratio", "range",
        "close over the lowest close of {bars} bars, less 1", _BARS, ((252,),),
    ),
    Family(
        "ulcer_{bars}", _ulcer, _C, lambda bars: 2 * bars - 2, "ratio", "range",
        "root mean square of {bars} drawdowns from the {bars}-bar high", _BARS, ((14,),), "Martin and McCann (1989)",
    ),
    Family(
        "bollinger_upper_{bars}", lambda s, *p: s.shared(bollinger, *p)[0], _C, lambda bars, deviations: bars - 1, "price", "level",
        "{bars}-bar mean plus {deviations} standard deviations", *_BOLLINGER,
    ),
    Family(
        "bollinger_middle_{bars}", lambda s, *p: s.shared(bollinger, *p)[1], _C, lambda bars, deviations: bars - 1, "price", "level",
        "middle of the Bollinger bands: the {bars}-bar mean", *_BOLLINGER,
    ),
    Family(
        "bollinger_lower_{bars}", lambda s, *p: s.shared(bollinger, *p)[2], _C, lambda bars, deviations: bars - 1, "price", "level",
        "{bars}-bar mean less {deviations} standard deviations", *_BOLLINGER,
    ),
    Family(
        "bollinger_width_{bars}", lambda s, *p: _width(s.shared(bollinger, *p)), _C, lambda bars, deviations: bars - 1, "ratio",
        "volatility", "Bollinger upper less lower band, over the middle", *_BOLLINGER,
    ),
    Family(
        "bollinger_b_{bars}", lambda s, *p: _position(s, s.shared(bollinger, *p)), _C, lambda bars, deviations: bars - 1, "ratio",
        "oscillator", "where the close lies between the Bollinger bands (0 and 1)", *_BOLLINGER,
    ),
    Family(
        "keltner_upper_{bars}", lambda s, *p: s.shared(keltner, *p)[0], _HLC, _keltner_look_back, "price", "level",
        "EMA({bars}) plus {multiple} ATR({atr_bars})", *_KELTNER,
    ),
    Family(
        "keltner_middle_{bars}", lambda s, *p: s.shared(keltner, *p)[1], _HLC, _keltner_look_back, "price", "level",
        "middle of the Keltner bands: EMA({bars})", *_KELTNER,
    ),
    Family(
        "keltner_lower_{bars}", lambda s, *p: s.shared(keltner, *p)[2], _HLC, _keltner_look_back, "price", "level",
        "EMA({bars}) less {multiple} ATR({atr_bars})", *_KELTNER,
    ),
    Family(
        "keltner_width_{bars}", lambda s, *p: _width(s.shared(keltner, *p)), _HLC, _keltner_look_back, "ratio", "volatility",
        "Keltner upper less lower band, over the middle", *_KELTNER,
    ),
    Family(
        "keltner_position_{bars}", lambda s, *p: _position(s, s.shared(keltner, *p)), _HLC, _keltner_look_back, "ratio", "oscillator",
        "where the close lies between the Keltner bands (0 and 1)", *_KELTNER,
    ),
    Family(
        "donchian_upper_{bars}", lambda s, bars: s.shared(donchian, bars)[0], _HL, lambda bars: bars - 1, "price", "level",
        "highest high of {bars} bars, this one among them", _BARS, ((20,),), "Donchian",
    ),
    Family(
        "donchian_middle_{bars}", lambda s, bars: s.shared(donchian, bars)[1], _HL, lambda bars: bars - 1, "price", "level",
        "halfway between the lowest low and the highest high of {bars} bars", _BARS, ((20,),), "Donchian",
    ),
    Family(
        "donchian_lower_{bars}", lambda s, bars: s.shared(donchian, bars)[2], _HL, lambda bars: bars - 1, "price", "level",
        "lowest low of {bars} bars, this one among them", _BARS, ((20,),), "Donchian",
    ),
    Family(
        "donchian_width_{bars}", _donchian_width, _HLC, lambda bars: bars - 1, "ratio", "volatility",
        "highest high less lowest low of {bars} bars, over their mean close", _BARS, ((20,),), "Donchian",
    ),
)  # fmt: skip
