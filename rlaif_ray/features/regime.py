"""Which kind of market a symbol is in, by rules that look back only: calm or wild, trending or choppy, bull or bear, how long since.

States are -1, 0 and 1. What is learnt from data (a hidden Markov model) is in `hmm`.
"""

from __future__ import annotations

import numpy as np
import talib
from numba import njit

from rlaif_ray.features import change_points, rolling
from rlaif_ray.features.family import Family, FeatureSet
from rlaif_ray.features.series import Series, before, change, of_bars

_C, _HLC = ("close",), ("high", "low", "close")
_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def percentile(x: np.ndarray, window: int) -> np.ndarray:
    """(T,) share of the other values of the window that lie below its last one, ties half, in [0, 1]; NaN with a NaN among them."""
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        below, whole = 0.0, True
        for k in range(t - window + 1, t + 1):
            whole = whole and not np.isnan(x[k])
            below += 1.0 if x[k] < x[t] else 0.5 if x[k] == x[t] else 0.0
        if whole:
            out[t] = (below - 0.5) / (window - 1)
    return out


@njit("float64[:,::1](float64[::1], int64, int64)", **_OPTIONS)
def variance_ratio(x: np.ndarray, q: int, window: int) -> np.ndarray:
    """(2,T): variance of q-bar changes of x over q times that of 1-bar changes, of the last `window` changes; and its z statistic.

    Lo and MacKinlay (1988): overlapping changes, unbiased variances (equations 12 to 14), z robust to heteroscedasticity
    (equation 19 in the form of Campbell, Lo and MacKinlay 1997, 2.4.44). NaN where x does not move.
    """
    out = np.full((2, x.size), np.nan)
    m = q * (window - q + 1) * (1.0 - q / window)
    square = np.empty(window)  # of each change less the mean
    for t in range(window, x.size):
        start = t - window
        mean = (x[t] - x[start]) / window
        single, several, theta = 0.0, 0.0, 0.0
        for k in range(window):
            square[k] = (x[start + k + 1] - x[start + k] - mean) ** 2
            single += square[k]
        for k in range(start + q, t + 1):
            several += (x[k] - x[k - q] - q * mean) ** 2
        for j in range(1, q):
            product = 0.0
            for k in range(j, window):
                product += square[k] * square[k - j]
            theta += (2.0 * (q - j) / q) ** 2 * product * window / (single * single)
        out[0, t] = (several / m) / (single / (window - 1))
        out[1, t] = np.sqrt(window) * (out[0, t] - 1.0) / np.sqrt(theta)
    return out


@njit("float64[:,::1](float64[::1], float64)", **_OPTIONS)
def bull_bear(price: np.ndarray, turn: float) -> np.ndarray:
    """(3,T): 1 in a bull market and -1 in a bear market (0 before the first), bars since it was declared, move since the last extreme.

    A bear market is declared when the price has fallen by the share `turn` from its highest since the bull market was, a bull
    market when it has risen by `turn` from its lowest since the bear market was: known on the bar that says so, unlike the
    turning points of Pagan and Sossounov (2003), which are dated afterwards. Before the first, both are looked for from the
    first bar on, and the move is that from the highest.
    """
    out = np.empty((3, price.size))
    state, bars, high, low = 0.0, -1.0, -np.inf, np.inf
    for t in range(price.size):
        p = price[t]
        high, low, bars = max(high, p), min(low, p), bars + 1.0
        if state >= 0.0 and p <= high * (1.0 - turn):
            state, bars, low = -1.0, 0.0, p
        elif state <= 0.0 and p >= low * (1.0 + turn):
            state, bars, high = 1.0, 0.0, p
        out[0, t], out[1, t] = state, bars
        out[2, t] = p / (low if state < 0.0 else high) - 1.0
    return out


@njit("float64[::1](float64[::1])", **_OPTIONS)
def bars_in_state(state: np.ndarray) -> np.ndarray:
    """(T,) bars since the state last changed, or was first known; 0 on that bar, NaN where it is undefined."""
    out = np.full(state.size, np.nan)
    for t in range(state.size):
        if not np.isnan(state[t]):
            out[t] = out[t - 1] + 1.0 if t > 0 and state[t] == state[t - 1] else 0.0
    return out


def _three(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """-1 under `low`, 1 above `high`, 0 from one to the other, NaN where x is."""
    return np.where(np.isnan(x), np.nan, (x > high) * 1.0 - (x < low) * 1.0)


def _volatility(s: Series, bars: int) -> np.ndarray:
    return rolling.deviation(s.log_return, bars)


def _vol_percentile(s: Series, bars: int, window: int) -> np.ndarray:
    return percentile(s.shared(_volatility, bars), window)


def _vol_state(s: Series, bars: int, window: int) -> np.ndarray:
    return _three(s.shared(_vol_percentile, bars, window), 1.0 / 3.0, 2.0 / 3.0)


def _adx_state(s: Series, bars: int, level: float) -> np.ndarray:
    adx = talib.ADX(s.high, s.low, s.close, bars)
    way = np.sign(talib.PLUS_DI(s.high, s.low, s.close, bars) - talib.MINUS_DI(s.high, s.low, s.close, bars))
    return np.where(np.isnan(adx), np.nan, np.where(adx > level, way, 0.0))


def _chop_state(s: Series, bars: int, low: float, high: float) -> np.ndarray:
    """100 log10(sum of true ranges / (highest - lowest)) / log10(bars); undefined where nothing moved."""
    reach = talib.MAX(s.high, bars) - talib.MIN(s.low, bars)
    index = 100.0 * np.log10(bars * rolling.mean(talib.TRANGE(s.high, s.low, s.close), bars) / reach) / np.log10(bars)
    return _three(-index, -high, -low)


def _efficiency_state(s: Series, bars: int, times: float) -> np.ndarray:
    """|move| / path of a random walk is 1/sqrt(bars) at the mean, whatever its volatility: for normal steps both hold the same E|step|."""
    path = bars * rolling.mean(np.abs(s.log_return), bars)
    move = change(s.log_close, bars)
    return np.where(np.isnan(move), np.nan, np.where(np.abs(move) > times * path / np.sqrt(bars), np.sign(move), 0.0))


def _variance_ratio(s: Series, q: int, window: int) -> np.ndarray:
    return variance_ratio(s.log_close, q, window)


def _standardised(s: Series, bars: int) -> np.ndarray:
    """Log return less the mean of the `bars` before it, over their standard deviation."""
    centre, spread = rolling.moments(s.log_return, bars)[:2]
    return (s.log_return - before(centre, 1)) / before(np.where(spread > 0, spread, np.nan), 1)


def _cusum(s: Series, bars: int, drift: float, alarm: float) -> np.ndarray:
    return change_points.cusum(s.shared(_standardised, bars), drift, alarm)


def _cusum_vol(s: Series, bars: int, drift: float, alarm: float) -> np.ndarray:
    """Of (z^2 - 1) / sqrt(2): mean 0 and variance 1 for normal z while the volatility stays."""
    return change_points.cusum((s.shared(_standardised, bars) ** 2 - 1.0) / np.sqrt(2.0), drift, alarm)[0]


def _run_length(s: Series, bars: int, mean_run: int, longest: int, recent: int) -> np.ndarray:
    return change_points.run_length(s.shared(_standardised, bars), mean_run, longest, recent)


def _bull_bear(s: Series, percent: int) -> np.ndarray:
    return bull_bear(s.close, percent / 100.0)


def _full(bars: int, window: int) -> int:
    return bars + window - 1


def _after(bars: int, *_: float) -> int:
    return bars + 1


_VOL, _CUSUM = ("bars", "window"), ("bars", "drift", "alarm")
_RUN, _RUN_ROWS = ("bars", "mean_run", "longest", "recent"), ((252, 250, 252, 10),)
_LO, _PAGE = "Lo and MacKinlay (1988)", "Page (1954); Montgomery, Statistical Quality Control, chapter 9"
_ADAMS = "Adams and MacKay (2007), Bayesian online changepoint detection"
_RATIOS = ((2, 252), (5, 252), (21, 252))

REGIME = FeatureSet(
    "regime",
    (
        Family(
            "vol_percentile_{bars}_{window}", lambda s, *p: s.shared(_vol_percentile, *p), _C, _full, "rank",
            "regime", "share of the others of {window} {bars}-bar volatilities that lie below today's", _VOL, ((21, 252), (63, 252)),
        ),
        Family(
            "vol_state_{bars}_{window}", lambda s, *p: s.shared(_vol_state, *p), _C, _full, "flag", "regime",
            "-1 with {bars}-bar volatility in the lowest third of its last {window} values, 1 in the highest, else 0", _VOL, ((21, 252),),
        ),
        Family(
            "vol_state_bars_{bars}_{window}", lambda s, *p: bars_in_state(s.shared(_vol_state, *p)), _C,
            _full, "bars", "regime", "bars since vol_state_{bars}_{window} last changed", _VOL, ((21, 252),),
        ),
        Family(
            "adx_state_{bars}", lambda s, *p: s.shared(_adx_state, *p), _HLC, lambda bars, level: 2 * bars - 1, "flag", "regime",
            "1 or -1, up or down, where ADX({bars}) is above {level:g}, else 0", ("bars", "level"), ((14, 25.0),), "Wilder (1978)",
        ),
        Family(
            "adx_state_bars_{bars}", lambda s, *p: bars_in_state(s.shared(_adx_state, *p)), _HLC, lambda bars, level: 2 * bars - 1, "bars",
            "regime", "bars since adx_state_{bars} (level {level:g}) last changed", ("bars", "level"), ((14, 25.0),), "Wilder (1978)",
        ),
        Family(
            "chop_state_{bars}", _chop_state, _HLC, lambda bars, low, high: bars, "flag", "regime",
            "-1 (choppy) where the {bars}-bar choppiness index is above {high:g}, 1 (trending) below {low:g}, else 0",
            ("bars", "low", "high"), ((14, 38.2, 61.8),), "Dreiss, choppiness index",
        ),
        Family(
            "efficiency_state_{bars}", _efficiency_state, _C, lambda bars, times: bars, "flag", "regime",
            "1 or -1, up or down, where the {bars}-bar move over its path is over {times:g} times a random walk's, else 0",
            ("bars", "times"), ((21, 2.0),), "Kaufman (1995), efficiency ratio",
        ),
        Family(
            "variance_ratio_{bars}_{window}", lambda s, *p: s.shared(_variance_ratio, *p)[0], _C, lambda bars, window: window, "ratio",
            "regime", "variance of {bars}-bar returns over {bars} x that of 1 bar, {window} bars: 1 for a random walk", _VOL, _RATIOS, _LO,
        ),
        Family(
            "variance_ratio_z_{bars}_{window}", lambda s, *p: s.shared(_variance_ratio, *p)[1], _C, lambda bars, window: window, "score",
            "regime", "heteroscedasticity-robust z of variance_ratio_{bars}_{window}: trending above 0", _VOL, _RATIOS, _LO,
        ),
        Family(
            "cusum_up_{bars}", lambda s, *p: s.shared(_cusum, *p)[0], _C, _after, "score", "regime",
            "upper CUSUM of returns standardised by the {bars} bars before, drift {drift:g}, starts again past {alarm:g}", _CUSUM,
            ((63, 0.5, 5.0),), _PAGE,
        ),
        Family(
            "cusum_down_{bars}", lambda s, *p: s.shared(_cusum, *p)[1], _C, _after, "score", "regime",
            "lower CUSUM of returns standardised by the {bars} bars before, drift {drift:g}, starts again past {alarm:g}", _CUSUM,
            ((63, 0.5, 5.0),), _PAGE,
        ),
        Family(
            "cusum_bars_{bars}", lambda s, *p: s.shared(_cusum, *p)[2], _C, _after, "bars", "regime",
            "bars since a CUSUM of standardised returns ({bars} bars, drift {drift:g}) last passed {alarm:g}", _CUSUM,
            ((63, 0.5, 5.0),), _PAGE,
        ),
        Family(
            "cusum_vol_{bars}", _cusum_vol, _C, _after, "score", "regime",
            "upper CUSUM of squared returns standardised by the {bars} bars before, drift {drift:g}, starts again past {alarm:g}", _CUSUM,
            ((63, 0.5, 8.0),), _PAGE,
        ),
        Family(
            "run_length_{bars}", lambda s, *p: s.shared(_run_length, *p)[0], _C, _after, "bars", "regime",
            "expected bars since mean or variance of standardised returns changed (a priori {mean_run}, {longest} at most)", _RUN,
            _RUN_ROWS, _ADAMS,
        ),
        Family(
            "change_probability_{bars}", lambda s, *p: s.shared(_run_length, *p)[1], _C, _after, "rate", "regime",
            "probability that mean or variance of standardised returns changed within the last {recent} bars", _RUN, _RUN_ROWS, _ADAMS,
        ),
        Family(
            "bull_bear_{percent}", lambda s, *p: s.shared(_bull_bear, *p)[0], _C, 0, "flag", "regime",
            "1 once the price is {percent}% above its lowest of the bear market, -1 once as far below its highest; 0 before", ("percent",),
            ((20,),),
        ),
        Family(
            "bull_bear_bars_{percent}", lambda s, *p: s.shared(_bull_bear, *p)[1], _C, 0, "bars", "regime",
            "bars since bull_bear_{percent} last changed", ("percent",), ((20,),),
        ),
        Family(
            "bull_bear_move_{percent}", lambda s, *p: s.shared(_bull_bear, *p)[2], _C, 0, "ratio", "regime",
            "price over its highest of the bull market, or lowest of the bear market, less 1", ("percent",), ((20,),),
        ),
    ),
    of_bars,
)  # fmt: skip
