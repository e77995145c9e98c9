"""One symbol's bars made fit for the lake: checked, in order, without gaps, and with a report of what was seen.

Prices are never changed: what looks wrong is flagged, what is impossible is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.events import split_evidence
from rlaif_ray.data.sessions import DAY, bar_ends, bar_size, schedule, trading_hours
from rlaif_ray.errors import DataError, SchemaError

OHLC = ("open", "high", "low", "close")
BAR_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "session": pl.Date, **dict.fromkeys(OHLC, pl.Float64),
    "volume": pl.Float64, "dividend": pl.Float64, "split": pl.Float64, "tradable": pl.Boolean, "delisted": pl.Boolean,
}  # fmt: skip
_POSITIVE = (*OHLC, "split")
_COUNTED = (*_POSITIVE, "volume", "dividend")
OUTLIER_SIGMAS = 12.0  # robust standard deviations of log returns; a plain 4-sigma day is a market, not an error
GRID_BARS = 1000  # a symbol's first, from which it is seen how its bars are counted: two or three sessions of minutes
MOVES, FEWEST_MOVES = 100, 20  # before a move that it is held against


def clean(bars: pl.DataFrame, *, calendar: str, read_at: dt.datetime | None = None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Bars of one symbol -> (bars, quality).

    Parameters
    ----------
    bars : `BAR_SCHEMA`, in any order; at most one last row with `delisted` and null prices.
    calendar : exchange whose sessions daily bars must fill.
    read_at : when the source was read. A last session that was over then is filled until its close; else, and with None, until
        the last bar: what was not said of a session that is over would otherwise be added by the next bars, in hindsight.

    Returns
    -------
    bars sorted by time. What is missing inside the symbol's life (of daily bars a session; of shorter ones a bar of a session
    that others are there of) becomes a row with the close before as all four prices, volume 0 and `tradable` False, known at
    its own end (plus the source's usual delay). A bar without volume is a halt, once the symbol has shown any volume before.
    quality : counts that go to the report; see `_report`.

    Raises
    ------
    SchemaError for missing columns; DataError for a price that is missing, zero, negative or infinite, and for two
    different rows on one time (identical ones are dropped and counted).
    """
    wrong = {c: bars.schema.get(c) for c, dtype in BAR_SCHEMA.items() if bars.schema.get(c) != dtype}
    if wrong:
        raise SchemaError(f"bars have {wrong}; expected {({c: BAR_SCHEMA[c] for c in wrong})}")
    symbol = bars["symbol"][0] if bars.height else "?"
    bars = bars.select(*BAR_SCHEMA)
    rows_seen = bars.height
    if not ascending(bars["timestamp"]):
        bars = bars.unique(maintain_order=True).sort("timestamp")
        _refuse_conflicts(bars, symbol)
    alive, gone = bars.filter(~pl.col("delisted")), bars.filter("delisted")
    check_prices(alive, lambda i: f"{symbol} at {alive['timestamp'][i]}")
    if alive.height < 2:
        raise DataError(f"{symbol} has {alive.height} bars; expected at least 2: check data.path, data.start and data.end")
    bar = bar_size(alive["timestamp"])
    found = alive.height
    alive = fill_sessions(alive, calendar, alive["session"][-1]) if bar == DAY else _fill_within(alive, calendar, bar, read_at)
    filled = alive.height - found
    alive = alive.with_columns(tradable=pl.col("tradable") & ~((pl.col("volume") == 0) & (pl.col("volume").cum_max() > 0)).fill_null(False))
    quality = {"duplicates_dropped": rows_seen - bars.height, "gaps_filled": filled, "bar_s": bar.total_seconds()}
    return pl.concat([alive, gone]), quality | _report(alive, filled)


def check_prices(bars: pl.DataFrame, where: Callable[[int], str]) -> None:
    """Refuse a price that money cannot be counted in. A price column that is empty throughout is absent, and passes.

    `where(i)` names row i in the message.
    """
    for name, rows in _wrong(bars).items():
        raise DataError(f"{where(rows[0])}: {_said(bars, name, rows[0])}: mend the source, or leave the symbol out with data.names")


def sift(bars: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that `clean` takes, and those that it would refuse with a `reason` each.

    A row is set apart for the first of its figures that money cannot be counted in. Of different rows on one time the
    last in the source's order stays: who writes twice corrects himself. Rows that say `delisted` have no figures and stay.
    """
    alive, gone = bars.filter(~pl.col("delisted")), bars.filter("delisted")
    reasons: dict[int, str] = {}
    for name, rows in _wrong(alive).items():
        for i in rows:
            reasons.setdefault(i, _said(alive, name, i))
    if not reasons and ascending(alive["timestamp"]):
        return bars, bars.clear().with_columns(reason=pl.lit("", pl.String))
    numbered = alive.with_row_index("i").filter(~pl.col("i").is_in(list(reasons)))
    if numbered["timestamp"].is_duplicated().any():
        last = numbered.filter(pl.col("i") == pl.col("i").max().over("timestamp")).drop("i")
        corrected = numbered.join(last, on=bars.columns, how="anti", nulls_equal=True)["i"]
        reasons |= dict.fromkeys(corrected, "another row on the same time came later in the source")
    order = sorted(reasons)
    apart = alive[order].with_columns(pl.Series("reason", [reasons[i] for i in order], pl.String))
    return pl.concat([alive.with_row_index("i").filter(~pl.col("i").is_in(order)).drop("i"), gone]), apart


def ascending(moments: pl.Series) -> bool:
    """Whether each is later than the one before."""
    at = moments.to_physical().to_numpy()
    return bool((at[1:] > at[:-1]).all())


def _wrong(bars: pl.DataFrame) -> dict[str, list[int]]:
    """Columns that hold figures which cannot be, and in which rows; mostly none, seen in one pass."""
    wrong = {
        name: (~pl.col(name).is_finite() | (pl.col(name) <= 0 if name in _POSITIVE else pl.col(name) < 0)).fill_null(name != "volume")
        for name in _COUNTED if name not in ("open", "high", "low", "volume") or bars[name].null_count() < bars.height
    }  # fmt: skip
    found = bars.select(bad.any().alias(name) for name, bad in wrong.items()).row(0, named=True)
    return {name: bars.select(wrong[name]).to_series().arg_true().to_list() for name in wrong if found[name]}


def _said(bars: pl.DataFrame, name: str, i: int) -> str:
    value = bars[name][i]
    return f"{name} is {'missing' if value is None else value}; expected a finite number {'>' if name in _POSITIVE else '>='} 0"


def _refuse_conflicts(bars: pl.DataFrame, symbol: str) -> None:
    twice = bars.filter(pl.col("timestamp").is_duplicated())
    if twice.height:
        first = twice.filter(pl.col("timestamp") == twice["timestamp"][0])
        differs = next(c for c in first.columns if first[c].n_unique() > 1)
        seen = " and ".join(map(str, first[differs][:2]))
        raise DataError(
            f"{symbol} has {first.height} different rows at {first['timestamp'][0]} ({differs} {seen}); expected one row a time: "
            f"mend the source, or leave the symbol out with data.names"
        )


def fill_sessions(bars: pl.DataFrame, calendar: str, last: dt.date) -> pl.DataFrame:
    """Daily bars with every session from their first to `last` present; those that were missing stand still and cannot trade."""
    sessions = schedule(calendar, bars["session"][0], last)
    outside = bars.filter(~pl.col("session").is_in(sessions["session"].implode()))
    if outside.height:
        raise DataError(f"{bars['symbol'][0]} has a bar on {outside['session'][0]}, when {calendar} has no session; check data.calendar")
    missing = sessions.join(bars, on="session", how="anti").select("session", timestamp="close")
    return _standing_still(bars, missing)


def _fill_within(bars: pl.DataFrame, calendar: str, bar: dt.timedelta, read_at: dt.datetime | None) -> pl.DataFrame:
    """Bars shorter than a day with those present that sessions lack, from the first bar to the end of the last session that is over.

    Whole sessions are not added: a file of some days says nothing about the others. Nothing is added where the source's sessions
    are not the calendar's (days of currencies end in New York), to a session that no bar beside the gap belongs to, nor
    where a bar that is counted otherwise lies.
    """
    grid = _choose(bars, calendar, bar)
    if grid is None:
        return bars
    close: Any = grid.filter(pl.col("session") == bars["session"][-1])["timestamp"].max()
    over = read_at is not None and close is not None and close + _delay(bars) <= read_at
    until = max(close, bars["timestamp"][-1]) if over else bars["timestamp"][-1]
    grid = _followed(grid.filter(pl.col("timestamp").is_between(bars["timestamp"][0], until)), bars, calendar)
    told = bars.select("timestamp", told="session")
    odd = told.join(grid, on="timestamp", how="anti").select("timestamp", odd=True)
    lacks = grid.join(told, on="timestamp", how="anti", maintain_order="left")
    lacks = lacks.join_asof(told, on="timestamp").join_asof(told, on="timestamp", strategy="forward", suffix="_next")
    beside = (pl.col("session") == pl.col("told")) | (pl.col("session") == pl.col("told_next")).fill_null(False)
    lacks = lacks.join_asof(odd, on="timestamp", strategy="nearest", tolerance=bar - dt.timedelta(microseconds=1))
    return _standing_still(bars, lacks.filter(beside & pl.col("odd").is_null()).select("session", "timestamp"))


def _choose(bars: pl.DataFrame, calendar: str, bar: dt.timedelta) -> pl.DataFrame | None:
    """`session` and `timestamp` (end) of all bars of the span, counted as most of the symbol's first ones are: from the open or the
    full hour, the last cut short by the close or not. None if a bar's session is not the calendar's."""
    span = calendar, bars["session"][0], bars["session"][-1]
    within = _within(bars, calendar)
    if (within["session"] != within["open_session"]).any():
        return None
    first = bars["timestamp"].head(GRID_BARS).implode()
    early = calendar, bars["session"][0], bars["session"].head(GRID_BARS)[-1]
    ways = [(from_open, cut) for from_open in (True, False) for cut in (True, False)]
    return bar_ends(*span, bar, *max(ways, key=lambda way: bar_ends(*early, bar, *way)["timestamp"].is_in(first).sum()))


def _within(bars: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """`timestamp` and `session` of the bars within the calendar's hours, with the session that is open then."""
    hours = trading_hours(calendar, bars["session"][0], bars["session"][-1]).rename({"session": "open_session"})
    return bars.select("timestamp", "session").join_asof(
        hours, left_on="timestamp", right_on="begin", allow_exact_matches=False
    ).filter(pl.col("timestamp") <= pl.col("end"))  # fmt: skip


def _followed(grid: pl.DataFrame, bars: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """The sessions of `grid` until whose end most bars within hours were on it, reaching from first to last over more than half of
    the hours: another market's do not.

    The symbol's first bars tell of all that come after them, and of each session those until its end: what comes later does not
    add to what has been said.
    """
    early = bars.head(GRID_BARS)
    at_first = grid.filter(pl.col("timestamp") <= early["timestamp"][-1]) if bars.height > GRID_BARS else grid
    met = pl.col("i").filter(pl.col("timestamp").is_in(early["timestamp"].implode()))
    seen = at_first.with_row_index("i").with_columns(pl.col("i").cast(pl.Int64)).group_by("session", maintain_order=True).agg(
        could=pl.len(), on=met.len(), reach=(met.max() - met.min() + 1).fill_null(0)
    )  # fmt: skip
    seen = seen.join(_within(early, calendar).group_by("session").agg(in_hours=pl.len()), on="session", maintain_order="left")
    sums = seen.select("session", pl.exclude("session").cast(pl.Int64).cum_sum())
    verdict = sums.select("session", follows=(2 * pl.col("reach") > pl.col("could")) & (2 * pl.col("on") > pl.col("in_hours")))
    return grid.join_asof(verdict, on="session").filter("follows").select("session", "timestamp")


def _delay(bars: pl.DataFrame) -> dt.timedelta:
    """From a bar's end until it is known, usually."""
    delay: Any = (bars["known_at"] - bars["timestamp"]).min()
    return delay


def _standing_still(bars: pl.DataFrame, missing: pl.DataFrame) -> pl.DataFrame:
    """Bars with `missing` ones (`session`, `timestamp`) that repeat the close before and cannot trade."""
    if not missing.height:
        return bars
    rows = pl.concat([bars, missing], how="diagonal").sort("timestamp")
    absent, close = pl.col("symbol").is_null(), pl.col("close").forward_fill()

    def stands(column: str, value: pl.Expr) -> pl.Expr:
        """`value` on missing bars, where the source has the column at all."""
        return pl.when(absent & pl.col(column).forward_fill().is_not_null()).then(value).otherwise(column).alias(column)

    return rows.with_columns(
        pl.col("symbol").forward_fill(), close, *[stands(c, close) for c in ("open", "high", "low")], stands("volume", pl.lit(0.0)),
        known_at=pl.coalesce("known_at", pl.col("timestamp") + _delay(bars)), dividend=pl.col("dividend").fill_null(0.0),
        split=pl.col("split").fill_null(1.0), tradable=pl.col("tradable").fill_null(False), delisted=pl.col("delisted").fill_null(False),
    ).select(*BAR_SCHEMA)  # fmt: skip


def _report(bars: pl.DataFrame, filled: int) -> dict[str, Any]:
    """rows, first, last; halts (bars that the source has and nobody could trade); violations (high or low on the wrong side) and
    outliers, each with the first few times; split days and the jumps seen on them."""
    broken = bars.filter(
        (pl.col("high") < pl.max_horizontal("open", "close", "low")) | (pl.col("low") > pl.min_horizontal("open", "close", "high"))
    )
    close, split = bars["close"].to_numpy(), bars["split"].to_numpy()
    days, jumps = split_evidence(close, split)
    raw = np.diff(np.log(close))
    moves = np.where(np.abs(raw + np.log(split[1:])) < np.abs(raw), raw + np.log(split[1:]), raw)
    wild = bars[1:].filter(_outliers(np.abs(moves), bars["session"][1:] != bars["session"][:-1]))
    return {
        "rows": bars.height, "first": bars["timestamp"][0].isoformat(), "last": bars["timestamp"][-1].isoformat(),
        "halts": bars.height - filled - int(bars["tradable"].sum()),
        "violations": broken.height, "violations_at": [t.isoformat() for t in broken["timestamp"][:5]],
        "outliers": wild.height, "outliers_at": [t.isoformat() for t in wild["timestamp"][:5]],
        "split_days": days, "split_jumps": jumps,
    }  # fmt: skip


def _outliers(moves: np.ndarray, overnight: pl.Series) -> pl.Series:
    """Moves (T-1,) beyond 12 robust standard deviations of the 100 before them: 1.4826 times their rolling median
    from zero (Rousseeuw & Croux 1993). Moves over night and within sessions are of different sizes, and held apart.
    """
    wild = np.zeros(len(moves), bool)
    for alike in (overnight.to_numpy(), ~overnight.to_numpy()):
        at = np.flatnonzero(alike & (moves != 0))
        spread = 1.4826 * pl.Series(moves[at]).rolling_median(MOVES, min_samples=FEWEST_MOVES).shift().to_numpy()
        wild[at] = moves[at] > OUTLIER_SIGMAS * spread
    return pl.Series(wild)
