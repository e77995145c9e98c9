"""What is traded: how much, against what is usual, and on which side of the price."""

from __future__ import annotations

import numpy as np
import talib

from rlaif_ray.features import rolling
from rlaif_ray.features.channels import close_location
from rlaif_ray.features.family import Family
from rlaif_ray.features.series import EMA, Series, before, change
from rlaif_ray.features.volatility import correlation

_V, _CV, _HLV, _HLCV = ("volume",), ("close", "volume"), ("high", "low", "volume"), ("high", "low", "close", "volume")


def mean_volume(s: Series, bars: int) -> np.ndarray:
    return rolling.mean(s.volume, bars)


def on_balance(s: Series) -> np.ndarray:
    return talib.OBV(s.close, s.volume)


def force(s: Series, bars: int) -> np.ndarray:
    """EMA of the close's change times volume."""
    return talib.EMA(change(s.close, 1) * s.volume, bars)


def _volume_ratio(s: Series, fast: int, slow: int) -> np.ndarray:
    return np.log(s.shared(mean_volume, fast) / s.shared(mean_volume, slow))


def _dollar_volume_ratio(s: Series, fast: int, slow: int) -> np.ndarray:
    dollars = s.close * s.volume
    return np.log(rolling.mean(dollars, fast) / rolling.mean(dollars, slow))


def _money_flow(s: Series, bars: int) -> np.ndarray:
    """Volume placed by the close within its range, over volume; a bar without range counts 0 (as in TA-Lib's AD)."""
    flow = np.where(s.high > s.low, close_location(s), 0.0) * s.volume
    return rolling.mean(flow, bars) / s.shared(mean_volume, bars)


def _chaikin(s: Series, fast: int, slow: int) -> np.ndarray:
    return talib.ADOSC(s.high, s.low, s.close, s.volume, fast, slow) / s.shared(mean_volume, slow)


def _ease_of_movement(s: Series, bars: int) -> np.ndarray:
    """Mean of the middle's change times the range, over volume in 100 million shares; a bar without volume counts 0."""
    moved = change((s.high + s.low) / 2.0, 1) * (s.high - s.low) / (s.volume / 1e8)
    return rolling.mean(np.where(s.volume > 0, moved, 0.0 * change(s.volume, 1)), bars)


def _volume_price_trend(s: Series) -> np.ndarray:
    ret = s.close / before(s.close, 1) - 1.0
    ret[:1] = 0.0
    return np.cumsum(s.volume * ret)


def _index_distance(s: Series, bars: int, rising: bool) -> np.ndarray:
    """Over its own EMA, less 1, of an index that takes part only in bars of rising (or falling) volume."""
    step = change(s.volume, 1)
    counts = step > 0 if rising else step < 0
    index: np.ndarray = np.cumprod(np.where(counts, s.close / before(s.close, 1), 1.0))
    return index / talib.EMA(index, bars) - 1.0


_BARS = ("bars",)

FAMILIES = (
    Family(
        "volume_sma_{bars}", lambda s, bars: s.shared(mean_volume, bars), _V, lambda bars: bars - 1, "shares", "volume",
        "mean volume of {bars} bars", _BARS, ((20,), (50,)),
    ),
    Family(
        "relative_volume_{bars}", lambda s, bars: s.volume / s.shared(mean_volume, bars), _V, lambda bars: bars - 1, "ratio", "volume",
        "volume over the mean of {bars} bars, this one among them", _BARS, ((20,),),
    ),
    Family(
        "volume_z_{bars}", lambda s, bars: rolling.standard_score(s.log_volume, bars), _V, lambda bars: bars - 1, "score", "volume",
        "log volume, standard scores over {bars} bars; undefined on a halted bar", _BARS, ((21,), (63,)),
    ),
    Family(
        "volume_ratio_{fast}_{slow}", _volume_ratio, _V, lambda fast, slow: max(fast, slow) - 1, "ratio", "volume",
        "log of mean volume over {fast} bars to that over {slow}", ("fast", "slow"), ((5, 63),),
    ),
    Family(
        "dollar_volume_ratio_{fast}_{slow}", _dollar_volume_ratio, _CV, lambda fast, slow: max(fast, slow) - 1, "ratio", "volume",
        "log of mean close x volume over {fast} bars to that over {slow}", ("fast", "slow"), ((5, 63),),
    ),
    Family(
        "pvo_{fast}_{slow}", lambda s, fast, slow: talib.PPO(s.volume, fast, slow, EMA), _V, lambda fast, slow: max(fast, slow) - 1,
        "percent", "volume", "percentage volume oscillator: EMA({fast}) over EMA({slow}), less 1", ("fast", "slow"), ((12, 26),),
    ),
    Family(
        "obv", lambda s: s.shared(on_balance), _CV, 0, "shares", "volume",
        "on-balance volume since the first bar, whose volume it starts from", source="Granville (1963)",
    ),
    Family(
        "obv_slope_{bars}", lambda s, bars: change(s.shared(on_balance), bars) / (bars * s.shared(mean_volume, bars)), _CV,
        lambda bars: bars, "ratio", "volume", "{bars}-bar change of on-balance volume over the volume of those bars", _BARS, ((21,),),
        "Granville (1963)",
    ),
    Family(
        "mfi_{bars}", lambda s, bars: talib.MFI(s.high, s.low, s.close, s.volume, bars), _HLCV, lambda bars: bars, "percent", "volume",
        "money flow index", _BARS, ((14,),), "Quong and Soudack (1989)",
    ),
    Family(
        "cmf_{bars}", _money_flow, _HLCV, lambda bars: bars - 1, "ratio", "volume", "Chaikin money flow, {bars} bars", _BARS, ((21,),),
        "Chaikin",
    ),
    Family(
        "ad_line", lambda s: talib.AD(s.high, s.low, s.close, s.volume), _HLCV, 0, "shares", "volume",
        "accumulation/distribution: volume placed by the close within its range, since the first bar", source="Chaikin",
    ),
    Family(
        "adosc_{fast}_{slow}", _chaikin, _HLCV, lambda fast, slow: max(fast, slow) - 1, "ratio", "volume",
        "Chaikin oscillator over mean volume of {slow} bars", ("fast", "slow"), ((3, 10),), "Chaikin",
    ),
    Family(
        "force_{bars}", lambda s, bars: s.shared(force, bars), _CV, lambda bars: bars, "usd", "volume",
        "force index: EMA({bars}) of the close's change x volume", _BARS, ((13,),), "Elder (1993)",
    ),
    Family(
        "force_ratio_{bars}", lambda s, bars: s.shared(force, bars) / (s.close * s.shared(mean_volume, bars)), _CV, lambda bars: bars,
        "ratio", "volume", "force index over close x mean volume of {bars} bars", _BARS, ((13,),), "Elder (1993)",
    ),
    Family(
        "emv_{bars}", _ease_of_movement, _HLV, lambda bars: bars, "price", "volume",
        "ease of movement, {bars}-bar mean: move of the middle x range over volume, price squared per 100 million shares", _BARS,
        ((14,),), "Arms (1989)",
    ),
    Family(
        "vpt", _volume_price_trend, _CV, 0, "shares", "volume", "volume price trend: volume x return, summed since the first bar",
    ),
    Family(
        "nvi_distance_{bars}", lambda s, bars: _index_distance(s, bars, rising=False), _CV, lambda bars: bars - 1, "ratio", "volume",
        "negative volume index (what bars of falling volume earned) over its EMA({bars}), less 1", _BARS, ((255,),), "Fosback (1976)",
    ),
    Family(
        "pvi_distance_{bars}", lambda s, bars: _index_distance(s, bars, rising=True), _CV, lambda bars: bars - 1, "ratio", "volume",
        "positive volume index (what bars of rising volume earned) over its EMA({bars}), less 1", _BARS, ((255,),), "Fosback (1976)",
    ),
    Family(
        "price_volume_correlation_{bars}", lambda s, bars: correlation(s.log_return, s.log_volume, bars, first=1), _CV, lambda bars: bars,
        "ratio", "volume", "correlation of {bars} log returns with log volume", _BARS, ((21,),),
    ),
)  # fmt: skip
