"""Where others stand: what insiders bought, what options fear, what the economy's figures said against what they used to say."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from rlaif_ray.core import Panel
from rlaif_ray.data.tables import MACRO
from rlaif_ray.errors import ConfigError
from rlaif_ray.features import event_time
from rlaif_ray.features.event_time import DAY, age_days, as_known, known_rows, moments, window
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Tables
from rlaif_ray.features.series import on_rows

PUT_CALL = ("volume", "open_interest")
SERIES = ("UNRATE", "CPIAUCSL", "PAYEMS", "FEDFUNDS", "T10Y2Y")
"""Of FRED: unemployment, consumer prices, payrolls, the policy rate, the slope of the yield curve (percent, index, thousands)."""


@dataclass(frozen=True, eq=False)
class Path:
    """How a figure stood, from one moment of news (K,) to the next: that about the latest time, in its latest revision."""

    known: np.ndarray  # int64 microseconds, rising
    about: np.ndarray  # int64: the time that the figure is about
    value: np.ndarray
    change: np.ndarray  # from the figure about the time before, as both stood; NaN of the first
    released: np.ndarray  # bool: the figure was told for the first time, and one about an earlier time was known before

    @classmethod
    def of(cls, facts: pl.DataFrame) -> Path:
        """`facts` of one name, every revision."""
        stood: dict[int, float] = {}
        times: list[int] = []
        rows: list[tuple[int, int, float, float, bool]] = []
        told = facts.sort("known_at", "timestamp", maintain_order=True)
        news = zip(moments(told["known_at"]).tolist(), moments(told["timestamp"]).tolist(), told["value"].to_list(), strict=True)
        latest = None
        for known, about, value in news:
            if rows and rows[-1][0] == known:
                rows.pop()  # what is told at one moment is one piece of news
            else:
                latest = times[-1] if times else None
            if about not in stood:
                insort(times, about)
            stood[about] = value
            before = times[-2] if len(times) > 1 else None
            change = np.nan if before is None else stood[times[-1]] - stood[before]
            rows.append((known, times[-1], stood[times[-1]], change, latest is not None and times[-1] > latest))
        columns = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return cls(*(np.array(column, kind) for column, kind in zip(columns, (np.int64, np.int64, float, float, bool), strict=True)))

    def before(self, days: int, rows: np.ndarray) -> np.ndarray:
        """(T,) how the figure stood `days` before each row."""
        return as_known(self.value, self.known, rows - days * DAY)

    def surprise(self, releases: int) -> np.ndarray:
        """(K,) from a release on: (its change - mean) / standard deviation (n - 1) of the changes of the `releases` before it."""
        at = np.flatnonzero(self.released & np.isfinite(self.change))
        changes, score = self.change[at], np.full(len(at), np.nan)
        for k in range(releases, len(at)):
            seen = changes[k - releases : k]
            spread = seen.std(ddof=1) if releases > 1 else 0.0
            score[k] = (changes[k] - seen.mean()) / spread if spread > 0 else np.nan
        newest = np.searchsorted(at, np.arange(len(self.known)), "right") - 1
        return np.append(score, np.nan)[newest]


@dataclass(frozen=True, eq=False)
class Reports:
    """What each insider's report (N,) said, by when it was known: shares of the symbol's first bar, and USD; bought counts up."""

    known: np.ndarray
    shares: np.ndarray
    usd_known: np.ndarray
    usd: np.ndarray

    @classmethod
    def of(cls, facts: pl.DataFrame, bars: pl.DataFrame) -> Reports:
        shares, usd = (_told(facts.filter(name=f"form4/net_{unit}")) for unit in ("shares", "usd"))
        return cls(shares[0], shares[2] / _splits(bars, shares[0], shares[1]), usd[0], usd[2])


def _told(facts: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each report was known, the end of its day of trade, and by how much it moved that day's sum."""
    rows = facts.sort("known_at", "timestamp", maintain_order=True)
    rows = rows.with_columns(moved=pl.col("value") - pl.col("value").shift(1).over("timestamp").fill_null(0.0))
    return moments(rows["known_at"]), moments(rows["timestamp"]), rows["moved"].to_numpy(writable=True)


def _splits(bars: pl.DataFrame, known: np.ndarray, traded: np.ndarray) -> np.ndarray:
    """(N,) shares that one of the first bar had become by each day of trade, by the bars that were known with the report."""
    if "split" not in bars.columns or not bars.height:
        return np.ones(len(known))
    split = bars["split"].fill_null(1.0).to_numpy().copy()
    split[0] = 1.0
    bar = np.minimum(event_time.last(moments(bars["timestamp"]), traded), event_time.last(known_rows(bars), known))
    return np.append(np.cumprod(split), 1.0)[bar]


@dataclass(frozen=True, eq=False)
class Positions:
    """One symbol's rows, known (T,), and the facts about it and about everybody."""

    rows: np.ndarray
    bars: pl.DataFrame
    facts: pl.DataFrame
    _paths: dict[str, Path]

    @classmethod
    def of(cls, bars: pl.DataFrame, facts: pl.DataFrame) -> Positions:
        return cls(known_rows(bars), bars, facts, {})

    @cached_property
    def insiders(self) -> Reports:
        return Reports.of(self.facts.filter(pl.col("symbol") != MACRO), self.bars)

    def path(self, name: str) -> Path:
        """Of an `options/` figure of the symbol, or a `fred/` series."""
        if name not in self._paths:
            everybodys = pl.col("symbol") == MACRO
            self._paths[name] = Path.of(self.facts.filter(everybodys if name.startswith("fred/") else ~everybodys, name=name))
        return self._paths[name]


# --- insiders ------------------------------------------------------------------------------------------------------


def insider_shares(p: Positions, days: int) -> np.ndarray:
    return _since_the_first(p, p.insiders.known, event_time.total(p.insiders.shares, *window(p.insiders.known, p.rows, days)))


def insider_usd(p: Positions, days: int) -> np.ndarray:
    return _since_the_first(p, p.insiders.usd_known, event_time.total(p.insiders.usd, *window(p.insiders.usd_known, p.rows, days)))


def insider_buys(p: Positions, days: int) -> np.ndarray:
    return _reports(p, p.insiders.shares > 0, days)


def insider_sells(p: Positions, days: int) -> np.ndarray:
    return _reports(p, p.insiders.shares < 0, days)


def insider_ratio(p: Positions, days: int) -> np.ndarray:
    buys, sells = insider_buys(p, days), insider_sells(p, days)
    return (buys - sells) / (buys + sells)


def insider_age(p: Positions) -> np.ndarray:
    return age_days(p.insiders.known, p.insiders.known, p.rows)


def _reports(p: Positions, which: np.ndarray, days: int) -> np.ndarray:
    return event_time.total(which * 1.0, *window(p.insiders.known, p.rows, days))


def _since_the_first(p: Positions, known: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Before any report is known, nobody can tell whether insiders are followed at all."""
    return np.where(event_time.last(known, p.rows) >= 0, x, np.nan)


# --- options -------------------------------------------------------------------------------------------------------


def put_call(p: Positions, measure: str) -> np.ndarray:
    if measure not in PUT_CALL:
        raise ConfigError(f"options have no put/call ratio by {measure!r}; expected one of {', '.join(PUT_CALL)}")
    return _standing(p, f"put_call_{measure}")


def put_call_change(p: Positions, measure: str, days: int) -> np.ndarray:
    return put_call(p, measure) - p.path(f"options/put_call_{measure}").before(days, p.rows)


def skew(p: Positions) -> np.ndarray:
    return _standing(p, "skew_25d")


def skew_change(p: Positions, days: int) -> np.ndarray:
    return skew(p) - p.path("options/skew_25d").before(days, p.rows)


def implied_volatility(p: Positions) -> np.ndarray:
    return _standing(p, "atm_iv_30d")


def implied_change(p: Positions, days: int) -> np.ndarray:
    return implied_volatility(p) - p.path("options/atm_iv_30d").before(days, p.rows)


def term_slope(p: Positions) -> np.ndarray:
    return _standing(p, "atm_term_slope")


def options_age(p: Positions) -> np.ndarray:
    path = p.path("options/put_call_open_interest")
    return age_days(path.about, path.known, p.rows)


def _standing(p: Positions, figure: str) -> np.ndarray:
    path = p.path(f"options/{figure}")
    return as_known(path.value, path.known, p.rows)


# --- the economy ---------------------------------------------------------------------------------------------------


def macro_level(p: Positions, series: str) -> np.ndarray:
    path = _fred(p, series)
    return as_known(path.value, path.known, p.rows)


def macro_change(p: Positions, series: str) -> np.ndarray:
    path = _fred(p, series)
    return as_known(path.change, path.known, p.rows)


def macro_surprise(p: Positions, series: str, releases: int) -> np.ndarray:
    path = _fred(p, series)
    return as_known(path.surprise(releases), path.known, p.rows)


def macro_age(p: Positions, series: str) -> np.ndarray:
    path = _fred(p, series)
    return age_days(path.about, path.known, p.rows)


def _fred(p: Positions, series: str) -> Path:
    return p.path(f"fred/{series}")


# --- the set -------------------------------------------------------------------------------------------------------

_NET, _PUT_CALL, _FRED = ("form4/net_shares",), ("options/put_call_{measure}",), ("fred/{series}",)
_DAYS, _TWO, _FIVE = ("days",), ((30,), (90,)), ((5,),)
_EACH = tuple((s,) for s in SERIES)
_LAKONISHOK = "Lakonishok and Lee (2001), Review of Financial Studies 14: net purchase ratio"
_PAN = "Pan and Poteshman (2006), Review of Financial Studies 19"
_XING = "Xing, Zhang and Zhao (2010), J. of Financial and Quantitative Analysis 45"
_VASQUEZ = "Vasquez (2017), J. of Financial and Quantitative Analysis 52"
_BALDUZZI = "after Balduzzi, Elton and Green (2001), J. of Financial and Quantitative Analysis 36, without a survey"

FAMILIES = (
    Family("insider_net_shares_{days}d", insider_shares, _NET, 0, "shares", "positioning",
           "open-market shares bought less sold in reports of {days} days, in shares of the first bar; 0 without one", _DAYS, _TWO),
    Family("insider_net_usd_{days}d", insider_usd, ("form4/net_usd",), 0, "usd", "positioning",
           "the same in USD, of trades whose price is stated", _DAYS, _TWO),
    Family("insider_purchase_ratio_{days}d", insider_ratio, _NET, 0, "ratio", "positioning",
           "(buying - selling) / all reports of {days} days", _DAYS, _TWO, _LAKONISHOK),
    Family("insider_buys_{days}d", insider_buys, _NET, 0, "count", "positioning",
           "reports of {days} days that raised a day's net purchases", _DAYS, _TWO, missing="zero"),
    Family("insider_sells_{days}d", insider_sells, _NET, 0, "count", "positioning",
           "reports of {days} days that lowered them", _DAYS, _TWO, missing="zero"),
    Family("insider_age_days", insider_age, _NET, 0, "days", "positioning", "days since the last report of an insider's trade"),
    Family("put_call_{measure}", put_call, _PUT_CALL, 0, "ratio", "positioning",
           "puts over calls by {measure}, of the last chain", ("measure",), tuple((m,) for m in PUT_CALL), _PAN, "carry"),
    Family("put_call_{measure}_change_{days}d", put_call_change, _PUT_CALL, 0, "ratio", "positioning",
           "the same less that of {days} days ago", ("measure", "days"), tuple((m, 5) for m in PUT_CALL)),
    Family("option_skew", skew, ("options/skew_25d",), 0, "rate", "positioning",
           "annual implied volatility of the 25-delta put less the call's, 30 days", source=_XING, missing="carry"),
    Family("option_skew_change_{days}d", skew_change, ("options/skew_25d",), 0, "rate", "positioning",
           "the same less that of {days} days ago", _DAYS, _FIVE),
    Family("implied_volatility", implied_volatility, ("options/atm_iv_30d",), 0, "rate", "positioning",
           "annual implied volatility at the money, 30 days", missing="carry"),
    Family("implied_volatility_change_{days}d", implied_change, ("options/atm_iv_30d",), 0, "rate", "positioning",
           "the same less that of {days} days ago", _DAYS, _FIVE),
    Family("implied_term_slope", term_slope, ("options/atm_term_slope",), 0, "rate", "positioning",
           "implied volatility of 90 days less that of 30", source=_VASQUEZ, missing="carry"),
    Family("options_age_days", options_age, ("options/put_call_open_interest",), 0, "days", "positioning",
           "days since the session of the last chain"),
    Family("macro_{series}_level", macro_level, _FRED, 0, "rate", "macro",
           "{series}, as it stood: the latest figure in its latest revision", ("series",), _EACH, missing="carry"),
    Family("macro_{series}_change", macro_change, _FRED, 0, "rate", "macro",
           "{series}, less the figure before, as both stood", ("series",), _EACH, missing="carry"),
    Family("macro_{series}_surprise_{releases}", macro_surprise, _FRED, 0, "score", "macro",
           "standard score of the change of {series} when it was first told, among those of the {releases} releases before",
           ("series", "releases"), tuple((s, 24) for s in SERIES), _BALDUZZI, "carry"),
    Family("macro_{series}_age_days", macro_age, _FRED, 0, "days", "macro",
           "days since the end of what the latest figure of {series} is about", ("series",), _EACH),
)  # fmt: skip


def apply(tables: Tables, specs: Sequence[FeatureSpec]) -> Panel:
    """Columns over the facts about one symbol and about everybody (`MACRO`), every revision; none where there are no facts.

    NaN where nothing was known yet; what was stands until there is news, so look at its age.
    """
    bars, facts = tables["bars"], tables.get("facts")
    if facts is None:
        return on_rows(bars, {})
    positions = Positions.of(bars, facts.filter(pl.col("value").is_finite()))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return on_rows(bars, {s.name: s.of(positions) for s in specs})


POSITIONING = FeatureSet("positioning", FAMILIES, apply, reads=("bars", "facts"))
