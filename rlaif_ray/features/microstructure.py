"""What trading costs and who presses, from bars alone: spreads out of bounces and ranges, price impact, bulk order flow.

Spreads are shares of the price (0.01 = 1%). Every value depends on its own window alone, summed afresh. Impact is given
for the window's own mean volume, so that neither the level of the price nor the number of shares is in it. A halted bar
is a bar that did not move and traded nothing, and counts as one. A source's own windows (a month of days) become `bars`.
"""

from __future__ import annotations

from math import erf

import numpy as np
from numba import njit
from scipy.special import ndtri

from rlaif_ray.features import rolling
from rlaif_ray.features.family import Family, FeatureSet
from rlaif_ray.features.series import Series, before, of_bars

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_C, _V, _CV, _HLC, _OHLC = ("close",), ("volume",), ("close", "volume"), ("high", "low", "close"), ("open", "high", "low", "close")
_ROUNDING = 1e-24  # of a sum of squares: a spread below this is the rounding of numbers that are equal


# --- kernels: x (T,) float64, NaN until the window is full -----------------------------------------------------------


@njit("float64[:,::1](float64[::1], float64[::1], int64)", **_OPTIONS)
def _comoments(x: np.ndarray, y: np.ndarray, window: int) -> np.ndarray:
    """(2,T): variance of x and covariance of x and y (n - 1) in each window; an x that is one number has neither."""
    out = np.full((2, x.size), np.nan)
    for t in range(window - 1, x.size):
        sx, sy, squares = 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            sx += x[k]
            sy += y[k]
            squares += x[k] * x[k]
        mx, my = sx / window, sy / window
        xx, xy = 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            xx += (x[k] - mx) * (x[k] - mx)
            xy += (x[k] - mx) * (y[k] - my)
        if xx <= _ROUNDING * squares:
            xx, xy = 0.0, 0.0
        out[0, t], out[1, t] = xx / (window - 1), xy / (window - 1)
    return out


@njit("float64[::1](float64[::1], float64[::1], float64[::1], int64)", **_OPTIONS)
def _second_slope(y: np.ndarray, a: np.ndarray, b: np.ndarray, window: int) -> np.ndarray:
    """The coefficient of b in the least-squares fit of y to 1, a and b; NaN where one of these follows from the others."""
    out = np.full(y.size, np.nan)
    for t in range(window - 1, y.size):
        sy, sa, sb, a_squares, b_squares = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            sy += y[k]
            sa += a[k]
            sb += b[k]
            a_squares += a[k] * a[k]
            b_squares += b[k] * b[k]
        my, ma, mb = sy / window, sa / window, sb / window
        aa, bb, ab, ay, by = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            da, db, dy = a[k] - ma, b[k] - mb, y[k] - my
            aa += da * da
            bb += db * db
            ab += da * db
            ay += da * dy
            by += db * dy
        determinant = aa * bb - ab * ab
        if aa > _ROUNDING * a_squares and bb > _ROUNDING * b_squares and determinant > 1e-12 * aa * bb:
            out[t] = (aa * by - ab * ay) / determinant
    return out


@njit("float64[:,::1](float64[::1], float64[::1], int64, int64)", **_OPTIONS)
def _bulk_flow(log_return: np.ndarray, volume: np.ndarray, window: int, buckets: int) -> np.ndarray:
    """(2,T): bought less sold over traded, and the mean of that, unsigned, over `buckets` of equal volume in time's order.

    Of a bar's volume, Phi(r / s) is bought, s the standard deviation (n - 1) of the window's returns. A bar that does not
    fit into a bucket goes on in the next. The buckets share the window's own volume, so that all are full at its end and the
    first defined bar does not hang on how much was traded; theirs have one size, and the last waits until it is full.
    """
    out = np.full((2, volume.size), np.nan)
    for t in range(window - 1, volume.size):
        total, returns = 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            total += volume[k]
            returns += log_return[k]
        centre, squares = returns / window, 0.0
        for k in range(t - window + 1, t + 1):
            squares += (log_return[k] - centre) ** 2
        spread = np.sqrt(squares / (window - 1))
        if not (total > 0.0 and spread > 0.0):
            continue
        size = total / buckets
        net, toxic, tilt, room, closed = 0.0, 0.0, 0.0, size, 0
        for k in range(t - window + 1, t + 1):
            left, lean = volume[k], erf(log_return[k] / spread / np.sqrt(2.0))  # 2 Phi(z) - 1
            net += left * lean
            while left > room and closed < buckets - 1:
                toxic += abs(tilt + room * lean)
                left -= room
                tilt, room = 0.0, size
                closed += 1
            tilt += left * lean
            room -= left
        out[0, t], out[1, t] = net / total, (toxic + abs(tilt)) / total
    return out


@njit("float64[::1](float64[::1], float64[::1], float64[::1], float64[::1], int64)", **_OPTIONS)
def _edge(o: np.ndarray, h: np.ndarray, lo: np.ndarray, c: np.ndarray, window: int) -> np.ndarray:
    """Efficient estimator of the spread from the logs of open, high, low and close, over `window` pairs of bars.

    S^2 = (v2 e1 + v1 e2) / (v1 + v2): e and v are mean and variance of two moments, each -4 x covariance of a move that
    starts with a bounce and one that ends with it, corrected for opens and closes that are the bar's own high or low.
    """
    out = np.full(o.size, np.nan)
    for t in range(window, o.size):
        moved, opened, closed, s1, s3, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            middle = 0.5 * (h[k] + lo[k])
            if h[k] != lo[k] or lo[k] != c[k - 1]:
                moved += 1.0
                opened += (o[k] != h[k]) + (o[k] != lo[k])
                closed += (c[k - 1] != h[k - 1]) + (c[k - 1] != lo[k - 1])
            s1 += middle - o[k]
            s3 += middle - c[k - 1]
            s5 += o[k] - c[k - 1]
        if moved == 0.0 or opened == 0.0 or closed == 0.0:
            continue
        e1, e2, q1, q2 = 0.0, 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            middle, last_middle = 0.5 * (h[k] + lo[k]), 0.5 * (h[k - 1] + lo[k - 1])
            own = 1.0 / moved if h[k] != lo[k] or lo[k] != c[k - 1] else 0.0
            d1, d3, d5 = middle - o[k] - own * s1, middle - c[k - 1] - own * s3, o[k] - c[k - 1] - own * s5
            back = c[k - 1] - last_middle
            x1 = -4.0 * window * (d1 * (o[k] - last_middle) / opened + d3 * back / closed)
            x2 = -4.0 * window * (d1 * (o[k] - c[k - 1]) / opened + d5 * back / closed)
            e1 += x1 / window
            e2 += x2 / window
            q1 += x1 * x1 / window
            q2 += x2 * x2 / window
        v1, v2 = q1 - e1 * e1, q2 - e2 * e2
        out[t] = np.sqrt(abs((v2 * e1 + v1 * e2) / (v1 + v2)))
    return out


# --- formulas --------------------------------------------------------------------------------------------------------


def _flow_of(x: np.ndarray, s: Series) -> np.ndarray:
    """x with the sign of the bar's return: what was bought, by the tick rule; 0 where the price stood still."""
    return np.sign(s.log_return) * x


def _amihud(s: Series, bars: int) -> np.ndarray:
    """Mean of |return| / USD traded, over the bars that traded; undefined where under half of them did."""
    usd = s.close * s.volume
    price_of_a_dollar = np.where(usd > 0, np.abs(np.expm1(s.log_return)) / usd, np.nan)
    there = ~np.isnan(price_of_a_dollar)
    share = rolling.mean(there.astype(float), bars)
    mean = rolling.mean(np.where(there, price_of_a_dollar, 0.0), bars) / share
    mean[share < 0.5] = np.nan
    mean[:bars] = np.nan  # the first bar has no return, which is not the same as a bar that did not trade
    return mean


def _roll(s: Series, bars: int) -> np.ndarray:
    """2 sqrt(-cov(r_t, r_(t-1))); a covariance above zero leaves no room for a bounce and gives 0."""
    return 2.0 * np.sqrt(np.maximum(-_comoments(s.log_return, before(s.log_return, 1), bars)[1], 0.0))


def _corwin_schultz_terms(s: Series) -> np.ndarray:
    """(T,) of each bar and the one before it: S = 2 (e^a - 1) / (1 + e^a), below zero set to 0.

    a = (sqrt(2 b) - sqrt(b)) / k - sqrt(g / k), k = 3 - 2 sqrt(2); b is the sum of the two squared log ranges, g the square
    of the range that both have together. A bar that lies wholly above or below the last close is moved there by the gap
    (in logs, so its own range stays as it was).
    """
    high, low, last = np.log(s.high), np.log(s.low), before(s.log_close, 1)
    gap = np.maximum(last - high, 0.0) + np.minimum(last - low, 0.0)
    own = (high - low) ** 2
    b = own + before(own, 1)
    g = (np.maximum(high + gap, before(high, 1)) - np.minimum(low + gap, before(low, 1))) ** 2
    k = 3.0 - 2.0 * np.sqrt(2.0)
    a = (np.sqrt(2.0 * b) - np.sqrt(b)) / k - np.sqrt(g / k)
    return np.maximum(2.0 * np.tanh(a / 2.0), 0.0)


def _corwin_schultz(s: Series, bars: int) -> np.ndarray:
    return rolling.mean(s.shared(_corwin_schultz_terms), bars)


def _spread_share(s: Series, bars: int) -> np.ndarray:
    return s.shared(_corwin_schultz, bars) / rolling.mean(np.log(s.high / s.low), bars)


def _abdi_ranaldo(s: Series, bars: int) -> np.ndarray:
    """Mean of sqrt(max(4 (c - m)(c - m'), 0)): c the last log close, m and m' the middle of the log range on its bar and the next."""
    middle, last = 0.5 * (np.log(s.high) + np.log(s.low)), before(s.log_close, 1)
    return rolling.mean(np.sqrt(np.maximum(4.0 * (last - before(middle, 1)) * (last - middle), 0.0)), bars)


def _edge_spread(s: Series, bars: int) -> np.ndarray:
    return _edge(np.log(s.open), np.log(s.high), np.log(s.low), s.log_close, bars)


def _impact(s: Series, size: np.ndarray, bars: int) -> np.ndarray:
    """Slope of the log return on signed `size`, for the window's mean size."""
    variance, covariance = _comoments(_flow_of(size, s), s.log_return, bars)
    return covariance / variance * rolling.mean(size, bars)


def _pastor_stambaugh(s: Series, bars: int) -> np.ndarray:
    """g of r_(t+1) = h + f r_t + g sign(r_t) v_t: how much of a move on volume comes back (below zero) on the next bar."""
    usd = s.close * s.volume
    slope = _second_slope(s.log_return, before(s.log_return, 1), before(_flow_of(usd, s), 1), bars)
    return slope * before(rolling.mean(usd, bars), 1)


def _zero_returns(s: Series, bars: int) -> np.ndarray:
    return rolling.mean(np.where(np.isnan(s.log_return), np.nan, s.log_return == 0.0), bars)


def _fht(s: Series, bars: int) -> np.ndarray:
    """2 s Phi^-1((1 + z) / 2): s the standard deviation of returns, z the share of those that are zero."""
    return 2.0 * rolling.deviation(s.log_return, bars) * ndtri(0.5 * (1.0 + s.shared(_zero_returns, bars)))


def _volume_variation(s: Series, bars: int) -> np.ndarray:
    mean, deviation = rolling.moments(s.volume, bars)[:2]
    return deviation / mean


def _order_imbalance(s: Series, bars: int) -> np.ndarray:
    return _bulk_flow(s.log_return, s.volume, bars, 1)[0]


def _vpin(s: Series, buckets: int, bars: int) -> np.ndarray:
    return _bulk_flow(s.log_return, s.volume, bars, buckets)[1]


MICROSTRUCTURE = FeatureSet("microstructure", (
    Family(
        "amihud_{bars}", lambda s, bars: 1e6 * s.shared(_amihud, bars), _CV, lambda bars: bars, "1/usd", "liquidity",
        "illiquidity: mean |return| per million USD traded, {bars} bars (falls as prices or volumes rise)", ("bars",), ((21,),),
        "Amihud (2002)",
    ),
    Family(
        "amihud_ratio_{fast}_{slow}", lambda s, fast, slow: np.log(s.shared(_amihud, fast) / s.shared(_amihud, slow)), _CV,
        lambda fast, slow: max(fast, slow), "ratio", "liquidity", "log of Amihud illiquidity over {fast} bars to that over {slow}",
        ("fast", "slow"), ((21, 252),), "Amihud (2002)",
    ),
    Family(
        "roll_spread_{bars}", _roll, _C, lambda bars: bars + 1, "ratio", "liquidity",
        "effective spread from the bounce of {bars} log returns; 0 where they do not bounce", ("bars",), ((21,), (63,)), "Roll (1984)",
    ),
    Family(
        "corwin_schultz_{bars}", lambda s, bars: s.shared(_corwin_schultz, bars), _HLC, lambda bars: bars, "ratio", "liquidity",
        "high-low spread, mean of {bars} two-bar estimates, gaps taken out, below zero set to 0", ("bars",), ((21,), (63,)),
        "Corwin and Schultz (2012) eq. 14 and 18",
    ),
    Family(
        "spread_share_{bars}", _spread_share, _HLC, lambda bars: bars, "ratio", "liquidity",
        "Corwin-Schultz spread over the mean log range of {bars} bars", ("bars",), ((21,),), "Corwin and Schultz (2012)",
    ),
    Family(
        "abdi_ranaldo_{bars}", _abdi_ranaldo, _HLC, lambda bars: bars, "ratio", "liquidity",
        "close-high-low spread, mean of {bars} two-bar estimates, below zero set to 0", ("bars",), ((21,), (63,)),
        "Abdi and Ranaldo (2017), two-day corrected",
    ),
    Family(
        "edge_spread_{bars}", _edge_spread, _OHLC, lambda bars: bars, "ratio", "liquidity",
        "efficient spread estimate from open, high, low and close of {bars} bars", ("bars",), ((21,), (63,)),
        "Ardia, Guidotti and Kroencke (2024)",
    ),
    Family(
        "kyle_lambda_{bars}", lambda s, bars: _impact(s, s.volume, bars), _CV, lambda bars: bars, "ratio", "liquidity",
        "slope of log return on signed volume (tick rule), for a bar of mean volume, {bars} bars", ("bars",), ((63,),), "Kyle (1985)",
    ),
    Family(
        "hasbrouck_lambda_{bars}", lambda s, bars: _impact(s, np.sqrt(s.close * s.volume), bars), _CV, lambda bars: bars, "ratio",
        "liquidity", "slope of log return on signed root dollar volume, for a bar of mean root, {bars} bars", ("bars",), ((63,),),
        "Hasbrouck (2009)",
    ),
    Family(
        "pastor_stambaugh_{bars}", _pastor_stambaugh, _CV, lambda bars: bars + 1, "ratio", "liquidity",
        "reversal of the next return for a bar of mean dollar volume, {bars} bars (own, not excess, returns)", ("bars",), ((63,),),
        "Pastor and Stambaugh (2003) eq. 1",
    ),
    Family(
        "zero_return_share_{bars}", lambda s, bars: s.shared(_zero_returns, bars), _C, lambda bars: bars, "ratio", "liquidity",
        "share of {bars} bars on which the price stood still", ("bars",), ((63,),), "Lesmond, Ogden and Trzcinka (1999)",
    ),
    Family(
        "zero_volume_share_{bars}", lambda s, bars: rolling.mean((s.volume == 0.0).astype(float), bars), _V, lambda bars: bars - 1,
        "ratio", "liquidity", "share of {bars} bars on which nothing was traded", ("bars",), ((63,),), "Liu (2006)",
    ),
    Family(
        "fht_spread_{bars}", _fht, _C, lambda bars: bars, "ratio", "liquidity",
        "spread that would hide as many of {bars} returns as are zero", ("bars",), ((63,),), "Fong, Holden and Trzcinka (2017)",
    ),
    Family(
        "volume_variation_{bars}", _volume_variation, _V, lambda bars: bars - 1, "ratio", "liquidity",
        "standard deviation of volume over its mean, {bars} bars", ("bars",), ((63,),), "Chordia, Subrahmanyam and Anshuman (2001)",
    ),
    Family(
        "order_imbalance_{bars}", _order_imbalance, _CV, lambda bars: bars, "ratio", "liquidity",
        "bought less sold over traded, {bars} bars, by bulk volume classification", ("bars",), ((21,), (63,)),
        "Easley, Lopez de Prado and O'Hara (2012)",
    ),
    Family(
        "vpin_{buckets}_{bars}", _vpin, _CV, lambda buckets, bars: bars, "ratio", "liquidity",
        "flow toxicity: unsigned bulk imbalance over {buckets} buckets of equal volume, which the last {bars} bars fill",
        ("buckets", "bars"), ((50, 250),), "Easley, Lopez de Prado and O'Hara (2012)",
    ),
), of_bars)  # fmt: skip
