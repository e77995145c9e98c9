"""A market with a planted, known signal: every "it works" rests on it.

The simple return of symbol i over bar t+1 (close t to close t+1) is

    r[i,t+1] = beta_i . f[t+1] + s * sigma[i,t] * (IC / sqrt(K)) * sum_k z_k[i,t] + sigma[i,t] * eps + jump + drift

with K = 4 hidden scores of unit variance, eps Student-t(5) of unit variance, f a market factor and sector factors, and
sigma in two states that the whole market shares (a Markov chain). The planted part falls between the open and the close
of bar t+1; the gap from close t to that open carries noise, jumps and drift alone, so that a fill at the next open is in
time for all of it. One regime flips one sign: past prices revert in the calm state and run on in the turbulent one.

Every other term has mean zero by construction. Sample means are left alone on purpose: were they taken out, a path would
be a bridge, its past would foretell its future, and betting against past winners would pay without any signal.

Decay times are counted in bars, whatever the size of a bar. Symbols are made one at a time, each from its own seed.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from scipy.signal import lfilter

from rlaif_ray.data.sessions import schedule
from rlaif_ray.errors import DataError, MissingDataError, did_you_mean

# The one dial: the oracle's net Sharpe is 3.0 +- 0.3 (long-only, research costs, 30 symbols x 5,000 daily bars, mean of 10 seeds; tested).
INFORMATION_COEFFICIENT = 0.10
SCORES = ("reversal", "volume", "filings", "news")
REVERSAL_BARS, VOLUME_BARS, FILINGS_BARS, NEWS_BARS = 5.0, 10.0, 20.0, 5.0  # a score falls to 1/e over so many bars
FILING_GAPS = (57, 70)  # bars from one filing to the next: about a quarter of daily bars
NEWS_RATE = 0.15  # news items a bar
LATE_BARS = 45  # the one late filing is known so many bars after its event, still before the next

_LAST_SESSION = dt.date(2024, 12, 31)
_BAR_MINUTES = {"1d": None, "15m": 15, "1m": 1}
_REGIME_BARS = (200.0, 100.0)  # mean stay in the calm and in the turbulent state
_LEVEL = np.array([0.75, 1.5])  # volatility in the two states, over its base
_MARKET_VOLATILITY, _SECTOR_VOLATILITY, _SECTORS = 0.008, 0.004, 5  # a session
_GAP_SHARE, _GAP_SHARE_INSIDE = 0.20, 0.01  # share of a bar's variance that falls before its open: first bar of a session, later bars
_LARGEST = 12.0  # standard deviations; keeps every gross return positive and cuts both tails alike

# (good, bad). The two of a pair use the same words, so tone lies in who did what and no count of words can tell it.
_HEADLINES = (
    ("{}: profit rose while costs fell", "{}: costs rose while profit fell"),
    ("{} cuts its debt, not its dividend", "{} cuts its dividend, not its debt"),
    ("{} fell less than feared, its rival rose less than hoped", "{} rose less than hoped, its rival fell less than feared"),
    ("{} sees its record loss narrow and its lead widen", "{} sees its lead narrow and its record loss widen"),
    ("{} did not miss its target, the sector did not beat it", "{} did not beat its target, the sector did not miss it"),
    ("Analysts expected a weak quarter at {} and saw a strong one", "Analysts expected a strong quarter at {} and saw a weak one"),
    ("The downgrade of {} is withdrawn, the upgrade stands", "The upgrade of {} is withdrawn, the downgrade stands"),
    ("{} gains customers, its rival loses some", "{} loses customers, its rival gains some"),
    ("{} won the appeal that matters, having lost the first trial", "{} lost the appeal that matters, having won the first trial"),
    ("{} beats its own forecast, if not the lowest one", "{} beats the lowest forecast, if not its own one"),
)
_EMPHASIS = (" (brief)", " (urgent)")  # |score| below and above 1


@dataclass(frozen=True, eq=False)
class Truth:
    """What is hidden about one symbol, row by row; of the rows that it has bars for (T,)."""

    scores: np.ndarray  # (T,4) z_k known at close t, in the order of SCORES, before the regime flips a sign
    turbulent: np.ndarray  # (T,) bool
    sigma: np.ndarray  # (T,) residual volatility of bar t+1
    planted: np.ndarray  # (T,) s * sigma * (IC/sqrt(K)) * sum of scores, the flip applied
    expected: np.ndarray  # (T,) E[return from open t+1 to close t+1]: planted, or 0 where bar t+1 is halted or missing
    residual: np.ndarray  # (T,) eps of bar t, unit variance
    beta: float


@dataclass(frozen=True, eq=False)
class _Market:
    """What all symbols share."""

    starts: np.ndarray  # (T,) datetime64[us]: the end of the bar before
    ends: np.ndarray  # (T,) datetime64[us] UTC
    sessions: np.ndarray  # (T,) datetime64[D]
    bars_a_session: float
    gap: np.ndarray  # (T,) share of variance before the open
    turbulent: np.ndarray  # (T,) bool
    factor_gap: np.ndarray  # (T,1+S) factor returns before the open: the market, then sectors
    factor_day: np.ndarray  # (T,1+S) from open to close


@dataclass(frozen=True, eq=False)
class _Path:
    """One symbol, generated."""

    market: _Market
    truth: Truth
    prices: np.ndarray  # (T,4) raw open, high, low, close
    volume: np.ndarray
    dividend: np.ndarray
    split: np.ndarray
    tradable: np.ndarray
    filings: tuple[np.ndarray, np.ndarray, np.ndarray]  # row of the event, row at which it is known, score
    news: tuple[np.ndarray, np.ndarray]  # row, score


class SyntheticSource:
    """A `Source` of made-up symbols S000, S001, ... with a signal of known strength.

    Parameters
    ----------
    n_symbols : symbols; the last one is delisted after 85% of the bars.
    n_bars : bars of the market, ending with the last session of 2024 on the NYSE calendar.
    bar : "1d", "15m" (26 in a full session) or "1m" (390).
    seed : of the market; equal arguments give equal tables, in whatever order symbols are read.
    signal_strength : s; 0 is pure noise.
    drift : mean simple return a bar that every symbol has on top, paid before the open.
    """

    def __init__(
        self, n_symbols: int, n_bars: int, bar: str = "1d", seed: int = 0, signal_strength: float = 1.0, drift: float = 0.0
    ) -> None:  # fmt: skip
        if bar not in _BAR_MINUTES:
            raise DataError(f"bar is {bar!r}; expected one of {', '.join(_BAR_MINUTES)}.{did_you_mean(bar, _BAR_MINUTES)}")
        if n_symbols < 2 or n_bars < 300 or signal_strength < 0:
            raise DataError(
                f"a synthetic market of {n_symbols} symbols, {n_bars} bars and signal strength {signal_strength}; "
                "expected at least 2, 300 and 0: change --data.n_symbols, --data.n_bars or --data.signal_strength"
            )
        self.n_symbols, self.n_bars, self.bar = n_symbols, n_bars, bar
        self.seed, self.signal_strength, self.drift = seed, signal_strength, drift

    def symbols(self) -> list[str]:
        width = max(3, len(str(self.n_symbols - 1)))
        return [f"S{i:0{width}d}" for i in range(self.n_symbols)]

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars`, `filings` and `news` of one symbol; nothing of the others is held."""
        path = self._path(symbol)
        rng = np.random.default_rng([self.seed, 2, self._index(symbol)])
        return {"bars": _bars(symbol, path), "filings": _filings(symbol, path, rng), "news": _news(symbol, path, rng)}

    def truth(self, symbol: str) -> Truth:
        """The hidden side of one symbol."""
        return self._path(symbol).truth

    def oracle(self) -> np.ndarray:
        """(T,A) float64: E[simple return from open t+1 to close t+1], given all that is known or hidden at close t.

        0 where bar t+1 is halted or is not; NaN once the symbol is delisted. Columns in the order of `symbols()`.
        """
        out = np.full((self.n_bars, self.n_symbols), np.nan)
        for i, symbol in enumerate(self.symbols()):
            expected = self.truth(symbol).expected
            out[: len(expected), i] = expected
        return out

    def _index(self, symbol: str) -> int:
        names = self.symbols()
        if symbol not in names:
            raise MissingDataError(f"no synthetic symbol {symbol!r} among {len(names)}.{did_you_mean(symbol, names)}")
        return names.index(symbol)

    def _path(self, symbol: str) -> _Path:
        index = self._index(symbol)
        length = int(0.85 * self.n_bars) if index == self.n_symbols - 1 else self.n_bars
        market = _market(self.n_bars, self.bar, self.seed)
        return _generate(market, index, length, np.random.default_rng([self.seed, 1, index]), self.signal_strength, self.drift)


@lru_cache(maxsize=4)
def _market(n_bars: int, bar: str, seed: int) -> _Market:
    ends, sessions = _clock(n_bars, bar)
    first = np.concatenate([[True], sessions[1:] != sessions[:-1]])
    starts = np.concatenate([ends[:1] - np.timedelta64(_BAR_MINUTES[bar] or 24 * 60, "m"), ends[:-1]])
    gap = np.where(first, _GAP_SHARE, _GAP_SHARE_INSIDE)
    bars_a_session = {"1d": 1.0, "15m": 26.0, "1m": 390.0}[bar]
    rng = np.random.default_rng([seed, 0])
    turbulent = _regime(rng, n_bars)
    volatility = np.array([_MARKET_VOLATILITY] + [_SECTOR_VOLATILITY] * _SECTORS) / np.sqrt(bars_a_session)
    scale = _lagged(_LEVEL[turbulent.astype(int)])[:, None] * volatility
    before, after = _student(rng, (n_bars, 1 + _SECTORS), gap[:, None])
    return _Market(starts, ends, sessions, bars_a_session, gap, turbulent, scale * before, scale * after)


def _clock(n_bars: int, bar: str) -> tuple[np.ndarray, np.ndarray]:
    """The last `n_bars` bar ends (datetime64[us], UTC) and their sessions on the NYSE calendar, early closes included."""
    minutes = _BAR_MINUTES[bar]
    years = n_bars / (245 if minutes is None else 245 * 370 // minutes) + 1
    if years > 300:
        raise DataError(f"{n_bars} bars of {bar} are {years:.0f} years; expected at most 300: lower --data.n_bars or shorten --data.bar")
    calendar = schedule("XNYS", _LAST_SESSION - dt.timedelta(days=int(366 * years)), _LAST_SESSION)
    sessions = calendar["session"].to_numpy()
    opens, closes = (calendar[c].dt.replace_time_zone(None).to_numpy() for c in ("open", "close"))
    if minutes is None:
        return closes[-n_bars:], sessions[-n_bars:]
    step = np.timedelta64(minutes, "m")
    count = (closes - opens) // step
    row = np.repeat(np.arange(len(sessions)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + 1
    return (opens[row] + nth * step)[-n_bars:], sessions[row][-n_bars:]


def _regime(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) bool: a two-state Markov chain from its stationary law, drawn as the lengths of its stays."""
    begins_turbulent = rng.random() < _REGIME_BARS[1] / sum(_REGIME_BARS)
    means = np.array(_REGIME_BARS[::-1] if begins_turbulent else _REGIME_BARS)
    leaves = np.cumsum(rng.geometric(1 / np.resize(means, n)))
    return (np.searchsorted(leaves, np.arange(n), side="right") + begins_turbulent) % 2 == 1


def _student(rng: np.random.Generator, shape: tuple[int, ...], gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two uncorrelated parts, before and after the open, whose sum is Student-t(5) scaled to unit variance."""
    mixing = np.sqrt(3.0 / rng.chisquare(5, shape))
    before, after = rng.standard_normal(shape), rng.standard_normal(shape)
    return np.sqrt(gap) * np.clip(mixing * before, -_LARGEST, _LARGEST), np.sqrt(1 - gap) * np.clip(mixing * after, -_LARGEST, _LARGEST)


def _lagged(x: np.ndarray) -> np.ndarray:
    """x of the row before; the first row stands for its own past."""
    return np.concatenate([x[:1], x[:-1]])


def _autoregressive(shocks: np.ndarray, start: float, bars: float) -> np.ndarray:
    """x[t] = a x[t-1] + sqrt(1-a^2) shock[t] with a = exp(-1/bars): unit variance if the shocks have it."""
    a = np.exp(-1.0 / bars)
    return np.asarray(lfilter([np.sqrt(1 - a * a)], [1.0, -a], shocks, zi=[a * start])[0])


def _decaying(rows: np.ndarray, scores: np.ndarray, n: int, bars: float) -> np.ndarray:
    """(n,) the latest score, fading as exp(-age/bars) from the row at which it is known; 0 before the first."""
    latest = np.searchsorted(rows, np.arange(n), side="right") - 1
    age = np.arange(n) - rows[latest]
    return np.where(latest >= 0, scores[latest] * np.exp(-np.maximum(age, 0) / bars), 0.0)


def _filings_scale() -> float:
    """Turns the fading surprise into unit variance: 1 / E[exp(-2 age/20)] over gaps drawn evenly from FILING_GAPS."""
    gaps, q = np.arange(*FILING_GAPS), np.exp(-2.0 / FILINGS_BARS)
    return float(np.sqrt(gaps.mean() / ((1 - q**gaps) / (1 - q)).mean()))


def _news_scale() -> float:
    """The same for news, whose age is geometric: E[q^age] = p / (1 - (1-p) q)."""
    return float(np.sqrt((1 - (1 - NEWS_RATE) * np.exp(-2.0 / NEWS_BARS)) / NEWS_RATE))


def _filing_rows(rng: np.random.Generator, n: int, late: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = rng.integers(0, FILING_GAPS[0]) + np.cumsum(np.concatenate([[0], rng.integers(*FILING_GAPS, n // FILING_GAPS[0] + 1)]))
    scores = rng.standard_normal(len(rows))
    known = rows.copy()
    if late:
        known[np.searchsorted(rows, n // 2)] += LATE_BARS
    keep = known < n
    return rows[keep], known[keep], scores[keep]


def _generate(market: _Market, index: int, n: int, rng: np.random.Generator, strength: float, drift: float) -> _Path:
    """The path of one symbol over its first `n` rows."""
    gap, turbulent = market.gap[:n], market.turbulent[:n]
    base = rng.uniform(0.012, 0.022) / np.sqrt(market.bars_a_session)
    beta = rng.uniform(0.6, 1.4)
    loads = np.zeros(1 + _SECTORS)
    loads[0], loads[1 + index % _SECTORS] = beta, 1.0
    before, after = _student(rng, (n,), gap)
    jump = np.where(rng.random(n) < 0.004, 3.0 * np.clip(rng.standard_normal(n), -3, 3), 0.0)
    filings = _filing_rows(rng, n, late=index == 1)
    news_rows = np.flatnonzero(rng.random(n) < NEWS_RATE)
    news = news_rows, rng.standard_normal(len(news_rows))
    scores = np.column_stack([
        -_autoregressive(before + after, rng.standard_normal(), REVERSAL_BARS),
        _autoregressive(rng.standard_normal(n), rng.standard_normal(), VOLUME_BARS),
        _filings_scale() * _decaying(filings[1], filings[2], n, FILINGS_BARS),
        _news_scale() * _decaying(*news, n, NEWS_BARS),
    ])  # fmt: skip
    sigma = base * _LEVEL[turbulent.astype(int)]
    flip = np.where(turbulent, -1.0, 1.0)
    planted = strength * sigma * INFORMATION_COEFFICIENT / np.sqrt(len(SCORES)) * (flip * scores[:, 0] + scores[:, 1:].sum(axis=1))

    tradable = _halts(rng, n)
    expected = planted * np.concatenate([tradable[1:], [n == len(market.ends)]])
    past_sigma = _lagged(sigma)
    overnight = market.factor_gap[:n] @ loads + past_sigma * (before + jump) + drift
    intraday = market.factor_day[:n] @ loads + past_sigma * after + np.concatenate([[0.0], expected[:-1]])
    split, dividend_yield = _events(rng, market, index, tradable)
    prices = _prices(rng, overnight, intraday, split, dividend_yield, tradable, past_sigma * np.sqrt(1 - gap))
    close_before = _lagged(prices[:, 3])
    activity = 0.15 * np.abs(before + after) + 0.3 * np.log(sigma / base)
    log_volume = 0.5 * scores[:, 1] + 0.25 * rng.standard_normal(n) + activity
    base_volume = rng.uniform(2e7, 2e8) / prices[0, 3] / market.bars_a_session
    volume = np.where(tradable, np.ceil(base_volume * np.exp(log_volume) * np.cumprod(split)), 0.0)
    truth = Truth(scores, turbulent, sigma, planted, expected, before + after, beta)
    dividend = dividend_yield * close_before / split
    return _Path(market, truth, prices, volume, dividend, split, tradable, filings, news)


def _halts(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) bool, False on halted rows: about one halt of 1 to 5 bars in 1,000, at least one, none at the ends."""
    tradable = np.ones(n, bool)
    for start in rng.integers(n // 10, n - n // 10, 1 + n // 1000):
        tradable[start : start + rng.integers(1, 6)] = False
    return tradable


def _events(rng: np.random.Generator, market: _Market, index: int, tradable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split ratios (n,), in every third symbol one or two, and dividends (n,) as a share of the close before, quarterly in every second."""
    n = len(tradable)
    opening = np.flatnonzero((market.sessions[1:n] != market.sessions[: n - 1]) & tradable[1:]) + 1  # before the first bar of a session
    split, dividend_yield = np.ones(n), np.zeros(n)
    at = rng.permutation(opening)[: rng.integers(1, 3)]
    ratio = rng.choice([2.0, 3.0, 1.5, 0.2], len(at))
    paid = opening[rng.integers(0, 63) % max(len(opening), 1) :: 63]
    share = rng.uniform(0.003, 0.008)
    if index % 3 == 0:
        split[at] = ratio
    if index % 2 == 1:
        dividend_yield[paid] = share
    return split, dividend_yield


def _prices(
    rng: np.random.Generator, overnight: np.ndarray, intraday: np.ndarray, split: np.ndarray, dividend_yield: np.ndarray,
    tradable: np.ndarray, volatility: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """(n,4) raw open, high, low, close.

    High and low are drawn from the law of a Brownian bridge's extremes between open and close. On halted rows the price
    stands still; what moved meanwhile is in the open of the row that trades again.
    """
    to_open, to_close = (1 + overnight - dividend_yield) / split, 1 + intraday
    if min(to_open.min(), to_close.min()) <= 0:
        raise DataError("a synthetic price would fall to zero in one bar; lower --data.signal_strength or --data.drift")
    close = np.exp(rng.uniform(np.log(20), np.log(200))) * np.cumprod(to_open * to_close)
    open_ = close / to_close
    move = np.log(to_close)
    reach = -2 * volatility**2 * np.log(1 - rng.random((2, len(close))))
    high, low = (open_ * np.exp((move + sign * np.sqrt(move**2 + x)) / 2) for sign, x in zip((1, -1), reach, strict=True))
    prices = np.column_stack([open_, np.maximum(high, np.maximum(open_, close)), np.minimum(low, np.minimum(open_, close)), close])
    last_traded = np.maximum.accumulate(np.where(tradable, np.arange(len(close)), 0))
    return np.where(tradable[:, None], prices, close[last_traded][:, None])


def _bars(symbol: str, path: _Path) -> pl.DataFrame:
    n, market = len(path.volume), path.market
    ends = pl.Series(market.ends).dt.replace_time_zone("UTC")
    open_, high, low, close = path.prices.T
    frame = pl.DataFrame({
        "timestamp": ends[:n], "known_at": ends[:n], "session": market.sessions[:n], "open": open_, "high": high, "low": low,
        "close": close, "volume": path.volume, "dividend": path.dividend, "split": path.split, "tradable": path.tradable,
        "delisted": np.zeros(n, bool),
    })  # fmt: skip
    if n < len(market.ends):
        gone = {"dividend": 0.0, "split": 1.0, "tradable": False, "delisted": True}
        last = pl.DataFrame({"timestamp": ends[n : n + 1], "known_at": ends[n : n + 1], "session": market.sessions[n : n + 1]})
        frame = pl.concat([frame, last.with_columns(**{k: pl.lit(v) for k, v in gone.items()})], how="diagonal")
    return frame.select(pl.lit(symbol).alias("symbol"), pl.all())


def _moments(rng: np.random.Generator, market: _Market, rows: np.ndarray, known: np.ndarray) -> dict[str, pl.Series]:
    """Times inside the bars `rows`, known a tenth of a bar later inside the bars `known`: before both close."""
    share = rng.uniform(0.05, 0.85, len(rows))
    span = (market.ends - market.starts).astype(np.int64)

    def inside(at: np.ndarray, where: np.ndarray) -> pl.Series:
        return pl.Series(market.starts[at] + (where * span[at]).astype("timedelta64[us]")).dt.replace_time_zone("UTC")

    return {"timestamp": inside(rows, share), "known_at": inside(known, share + 0.1)}


def _filings(symbol: str, path: _Path, rng: np.random.Generator) -> pl.DataFrame:
    rows, known, scores = path.filings
    return pl.DataFrame({"symbol": [symbol] * len(rows), **_moments(rng, path.market, rows, known), "filing_score": scores})


def _news(symbol: str, path: _Path, rng: np.random.Generator) -> pl.DataFrame:
    rows, scores = path.news
    story = rng.integers(len(_HEADLINES), size=len(rows))
    text = [
        _HEADLINES[k][int(score < 0)].format(symbol) + _EMPHASIS[int(abs(score) > 1)]
        for k, score in zip(story.tolist(), scores.tolist(), strict=True)
    ]  # fmt: skip
    return pl.DataFrame({"symbol": [symbol] * len(rows), **_moments(rng, path.market, rows, rows), "news_score": scores, "text": text})
