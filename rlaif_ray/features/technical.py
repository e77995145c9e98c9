"""Technical indicators of one symbol, through TA-Lib and the kernels of `rolling`, on forward-adjusted prices.

Every value at bar t follows from bars up to t, bit for bit whatever comes after. Recursive indicators (EMA, RSI, ATR,
...) start from the symbol's first bar, as TA-Lib does. Levels are total-return prices anchored at that bar, and sums of
volume are in its shares: they compare with each other, not with the quoted price after a split or dividend.
"""

from __future__ import annotations

from rlaif_ray.features import averages, candles, channels, levels, oscillators, returns, trend, volatility, volume
from rlaif_ray.features.family import FeatureSet
from rlaif_ray.features.series import of_bars

_ROOMS = (returns, volatility, channels, volume, averages, trend, oscillators, levels, candles)

TECHNICAL = FeatureSet("technical", tuple(family for room in _ROOMS for family in room.FAMILIES), of_bars)
