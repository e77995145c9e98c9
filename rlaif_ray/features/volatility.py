"""How much a symbol moves: of closes, of ranges (Parkinson to Yang and Zhang), and how the moves are distributed."""

from __future__ import annotations

import numpy as np
import talib

from rlaif_ray.features import rolling
from rlaif_ray.features.family import Family
from rlaif_ray.features.returns import volatility
from rlaif_ray.features.series import Series, before

_C, _HL, _HLC, _OHLC = ("close",), ("high", "low"), ("high", "low", "close"), ("open", "high", "low", "close")


def atr(s: Series, bars: int) -> np.ndarray:
    """Wilder (1978): average true range, started from the mean of the first `bars` true ranges after the first bar."""
    return talib.ATR(s.high, s.low, s.close, bars)


def moments(s: Series, bars: int) -> np.ndarray:
    """(4,T) mean, standard deviation, skewness and excess kurtosis of log returns."""
    return rolling.moments(s.log_return, bars)


def _downside(s: Series, bars: int) -> np.ndarray:
    return np.sqrt(rolling.mean(np.minimum(s.log_return, 0.0) ** 2, bars))


def _parkinson(s: Series, bars: int) -> np.ndarray:
    """variance = mean(ln(H/L)^2) / (4 ln 2)."""
    return np.sqrt(rolling.mean(s.log_range**2, bars) / (4.0 * np.log(2.0)))


def _garman_klass(s: Series, bars: int) -> np.ndarray:
    """Their practical form: variance = mean(ln(H/L)^2 / 2 - (2 ln 2 - 1) ln(C/O)^2)."""
    x = 0.5 * s.log_range**2 - (2.0 * np.log(2.0) - 1.0) * s.log_body**2
    return np.sqrt(np.maximum(rolling.mean(x, bars), 0.0))


def _rogers_satchell_variance(s: Series, bars: int) -> np.ndarray:
    """mean(u (u - c) + d (d - c)), u, d, c = ln of high, low, close over open."""
    up, down, move = np.log(s.high / s.open), np.log(s.low / s.open), s.log_body
    return np.maximum(rolling.mean(up * (up - move) + down * (down - move), bars), 0.0)


def _yang_zhang(s: Series, bars: int) -> np.ndarray:
    """var(ln(O/C before)) + k var(ln(C/O)) + (1 - k) Rogers-Satchell, k = 0.34/(1.34 + (n+1)/(n-1))."""
    k = 0.34 / (1.34 + (bars + 1) / (bars - 1))
    overnight = rolling.deviation(np.log(s.open) - before(s.log_close, 1), bars) ** 2
    intraday = rolling.deviation(s.log_body, bars) ** 2
    return np.sqrt(overnight + k * intraday + (1.0 - k) * s.shared(_rogers_satchell_variance, bars))


def correlation(x: np.ndarray, y: np.ndarray, window: int, first: int) -> np.ndarray:
    """Rolling correlation of what there is from row `first` on, where the first pair can be whole."""
    return np.concatenate([np.full(min(first, len(x)), np.nan), rolling.correlation(x[first:], y[first:], window)])


FAMILIES = (
    Family(
        "vol_{bars}", lambda s, bars: s.shared(volatility, bars), _C, lambda bars: bars, "ratio", "volatility",
        "standard deviation of {bars} log returns, per bar (not annualised)", ("bars",), ((5,), (20,), (21,), (60,), (63,)),
    ),
    Family(
        "vol_ewma", lambda s, decay, seed: rolling.ewma_volatility(s.log_return, decay, seed), _C, lambda decay, seed: seed, "ratio",
        "volatility", "RiskMetrics volatility, decay {decay}, started from the first {seed} bars", ("decay", "seed"), ((0.94, 21),),
        "J.P. Morgan, RiskMetrics technical document (1996)",
    ),
    Family(
        "downside_vol_{bars}", _downside, _C, lambda bars: bars, "ratio", "volatility",
        "root mean square of the falling log returns among {bars}", ("bars",), ((21,),),
    ),
    Family(
        "parkinson_{bars}", _parkinson, _HL, lambda bars: bars - 1, "ratio", "volatility", "range volatility, {bars} bars",
        ("bars",), ((21,),), "Parkinson (1980)",
    ),
    Family(
        "garman_klass_{bars}", _garman_klass, _OHLC, lambda bars: bars - 1, "ratio", "volatility",
        "open-high-low-close volatility, {bars} bars", ("bars",), ((21,),), "Garman and Klass (1980)",
    ),
    Family(
        "rogers_satchell_{bars}", lambda s, bars: np.sqrt(s.shared(_rogers_satchell_variance, bars)), _OHLC, lambda bars: bars - 1,
        "ratio", "volatility", "drift-free range volatility, {bars} bars", ("bars",), ((21,),), "Rogers and Satchell (1991)",
    ),
    Family(
        "yang_zhang_{bars}", _yang_zhang, _OHLC, lambda bars: bars, "ratio", "volatility",
        "overnight, open-close and range volatility, {bars} bars", ("bars",), ((21,),), "Yang and Zhang (2000), equation 7",
    ),
    Family(
        "vol_ratio_{fast}_{slow}", lambda s, fast, slow: s.shared(volatility, fast) / s.shared(volatility, slow), _C, max,
        "ratio", "volatility", "{fast}-bar volatility over that of {slow} bars", ("fast", "slow"), ((5, 63), (21, 252)),
    ),
    Family(
        "skew_{bars}", lambda s, bars: s.shared(moments, bars)[2], _C, lambda bars: bars, "ratio", "volatility",
        "skewness of {bars} log returns", ("bars",), ((63,),),
    ),
    Family(
        "kurtosis_{bars}", lambda s, bars: s.shared(moments, bars)[3], _C, lambda bars: bars, "ratio", "volatility",
        "excess kurtosis of {bars} log returns", ("bars",), ((63,),),
    ),
    Family(
        "autocorrelation_{bars}", lambda s, bars: correlation(s.log_return, before(s.log_return, 1), bars, first=2), _C,
        lambda bars: bars + 1, "ratio", "volatility", "correlation of {bars} log returns with those a bar earlier", ("bars",), ((21,),),
    ),
    Family(
        "atr_{bars}", lambda s, bars: s.shared(atr, bars), _HLC, lambda bars: bars, "price", "volatility",
        "average true range, {bars} bars", ("bars",), ((14,),), "Wilder (1978)",
    ),
    Family(
        "natr_{bars}", lambda s, bars: talib.NATR(s.high, s.low, s.close, bars), _HLC, lambda bars: bars, "percent", "volatility",
        "average true range over the close", ("bars",), ((14,),), "Wilder (1978)",
    ),
    Family(
        "atr_ratio_{fast}_{slow}", lambda s, fast, slow: s.shared(atr, fast) / s.shared(atr, slow), _HLC, max, "ratio", "volatility",
        "ATR({fast}) over ATR({slow})", ("fast", "slow"), ((14, 63),),
    ),
)  # fmt: skip
