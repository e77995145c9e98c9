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
from rlaif_ray.data.sessions import DAY, bar_size, schedule
from rlaif_ray.errors import DataError, SchemaError

OHLC = ("open", "high", "low", "close")
BAR_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "session": pl.Date, **dict.fromkeys(OHLC, pl.Float64),
    "volume": pl.Float64, "dividend": pl.Float64, "split": pl.Float64, "tradable": pl.Boolean, "delisted": pl.Boolean,
}  # fmt: skip
_POSITIVE = (*OHLC, "split")
_COUNTED = (*_POSITIVE, "volume", "dividend")
OUTLIER_SIGMAS = 12.0  # robust standard deviations of log returns; a plain 4-sigma day is a market, not an error


def clean(bars: pl.DataFrame, *, calendar: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Bars of one symbol -> (bars, quality).

    Parameters
    ----------
    bars : `BAR_SCHEMA`, in any order; at most one last row with `delisted` and null prices.
    calendar : exchange whose sessions daily bars must fill.

    Returns
    -------
    bars sorted by time. A daily session without a bar inside the symbol's life becomes a row with the close before as all
    four prices, volume 0 and `tradable` False, known at its own close (plus the source's usual delay). A bar without
    volume is a halt, once the symbol has shown any volume before.
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
    bars = bars.unique(maintain_order=True).sort("timestamp")
    _refuse_conflicts(bars, symbol)
    alive, gone = bars.filter(~pl.col("delisted")), bars.filter("delisted")
    check_prices(alive, lambda i: f"{symbol} at {alive['timestamp'][i]}")
    if alive.height < 2:
        raise DataError(f"{symbol} has {alive.height} bars; expected at least 2: check data.path, data.start and data.end")
    bar = bar_size(alive["timestamp"])
    found = alive.height
    if bar == DAY:
        alive = fill_sessions(alive, calendar, alive["session"][-1])
    alive = alive.with_columns(tradable=pl.col("tradable") & ~((pl.col("volume") == 0) & (pl.col("volume").cum_max() > 0)).fill_null(False))
    quality = {"duplicates_dropped": rows_seen - bars.height, "gaps_filled": alive.height - found, "bar_s": bar.total_seconds()}
    return pl.concat([alive, gone]), quality | _report(alive)


def check_prices(bars: pl.DataFrame, where: Callable[[int], str]) -> None:
    """Refuse a price that money cannot be counted in. A price column that is empty throughout is absent, and passes.

    `where(i)` names row i in the message.
    """
    for name in _COUNTED:
        bad = _wrong(bars, name).arg_true()
        if len(bad):
            i = bad[0]
            raise DataError(f"{where(i)}: {_said(bars, name, i)}: mend the source, or leave the symbol out with data.names")


def sift(bars: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that `clean` takes, and those that it would refuse with a `reason` each.

    A row is set apart for the first of its figures that money cannot be counted in. Of different rows on one time the
    last in the source's order stays: who writes twice corrects himself.
    """
    reasons: dict[int, str] = {}
    for name in _COUNTED:
        for i in _wrong(bars, name).arg_true():
            reasons.setdefault(i, _said(bars, name, i))
    numbered = bars.with_row_index("i").filter(~pl.col("i").is_in(list(reasons)))
    if numbered["timestamp"].is_duplicated().any():
        last = numbered.filter(pl.col("i") == pl.col("i").max().over("timestamp")).drop("i")
        corrected = numbered.join(last, on=bars.columns, how="anti", nulls_equal=True)["i"]
        reasons |= dict.fromkeys(corrected, "another row on the same time came later in the source")
    order = sorted(reasons)
    apart = bars[order].with_columns(pl.Series("reason", [reasons[i] for i in order], pl.String))
    return bars.with_row_index("i").filter(~pl.col("i").is_in(order)).drop("i"), apart


def _wrong(bars: pl.DataFrame, name: str) -> pl.Series:
    """Which rows hold a figure that cannot be."""
    column = bars[name]
    if name in ("open", "high", "low", "volume") and column.null_count() == len(column):
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    bad = ~column.is_finite() | (column <= 0 if name in _POSITIVE else column < 0)
    return bad.fill_null(name != "volume")


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
    delay = (bars["known_at"] - bars["timestamp"]).min()
    outside = bars.filter(~pl.col("session").is_in(sessions["session"].implode()))
    if outside.height:
        raise DataError(f"{bars['symbol'][0]} has a bar on {outside['session'][0]}, when {calendar} has no session; check data.calendar")
    if sessions.height == bars.height:
        return bars
    grid = sessions.select("session", end="close").join(bars, on="session", how="left", maintain_order="left")
    missing = pl.col("timestamp").is_null()
    close = pl.col("close").forward_fill()

    def stands(column: str, value: pl.Expr) -> pl.Expr:
        """`value` on missing sessions, where the source has the column at all."""
        return pl.when(missing & pl.col(column).forward_fill().is_not_null()).then(value).otherwise(column).alias(column)

    return grid.with_columns(
        pl.col("symbol").forward_fill(), close, *[stands(c, close) for c in ("open", "high", "low")], stands("volume", pl.lit(0.0)),
        timestamp=pl.coalesce("timestamp", "end"), known_at=pl.coalesce("known_at", pl.col("end") + delay),
        dividend=pl.col("dividend").fill_null(0.0), split=pl.col("split").fill_null(1.0),
        tradable=pl.col("tradable").fill_null(False), delisted=pl.col("delisted").fill_null(False),
    ).select(*BAR_SCHEMA)  # fmt: skip


def _report(bars: pl.DataFrame) -> dict[str, Any]:
    """rows, first, last; halts (rows that cannot trade); violations (high or low on the wrong side) and outliers (returns
    beyond 12 robust standard deviations), each with the first few times; split days and the jumps seen on them."""
    broken = bars.filter(
        (pl.col("high") < pl.max_horizontal("open", "close", "low")) | (pl.col("low") > pl.min_horizontal("open", "close", "high"))
    )
    close, split = bars["close"].to_numpy(), bars["split"].to_numpy()
    days, jumps = split_evidence(close, split)
    raw = np.diff(np.log(close))
    moves = np.where(np.abs(raw + np.log(split[1:])) < np.abs(raw), raw + np.log(split[1:]), raw)
    spread = 1.4826 * np.median(np.abs(moves[moves != 0])) if (moves != 0).any() else np.inf
    wild = bars[1:].filter(pl.Series(np.abs(moves) > OUTLIER_SIGMAS * spread))
    return {
        "rows": bars.height, "first": bars["timestamp"][0].isoformat(), "last": bars["timestamp"][-1].isoformat(),
        "halts": bars.height - int(bars["tradable"].sum()),
        "violations": broken.height, "violations_at": [t.isoformat() for t in broken["timestamp"][:5]],
        "outliers": wild.height, "outliers_at": [t.isoformat() for t in wild["timestamp"][:5]],
        "split_days": days, "split_jumps": jumps,
    }  # fmt: skip
