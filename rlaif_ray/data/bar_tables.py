"""From a table under our column names (`spellings.understood`) to bars: prices in one standard, stamps to the ends of bars."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Literal

import polars as pl

from rlaif_ray.core import UTC, PriceKind
from rlaif_ray.data.clean import BAR_SCHEMA, OHLC, check_prices
from rlaif_ray.data.sessions import DAY, bar_size, local_dates, schedule
from rlaif_ray.errors import ConfigError, DataError

Adjustment = Literal["auto", "raw", "split_adjusted", "vendor_adjusted"]
Stamp = Literal["auto", "start", "end", "date"]
BadRows = Literal["refuse", "quarantine"]


def declared_kind(columns: Iterable[str], adjustment: Adjustment) -> PriceKind | None:
    """What is known of the prices beforehand; None: the split days, over the whole set, will tell.

    `auto` takes an adjusted close as vendor-adjusted where no splits or dividends are given.
    """
    if adjustment != "auto":
        return adjustment
    return "vendor_adjusted" if "adjusted_close" in columns and not {"split", "dividend"} & set(columns) else None


def standard_prices(table: pl.DataFrame, place: str, kind: PriceKind | None, *, refuse: bool = True) -> pl.DataFrame:
    """`stamp` and all price columns in one standard, scaled to the adjusted close where the set is vendor-adjusted.

    Parameters
    ----------
    table : as `spellings.understood` gives it.
    place : names a row together with its `line`, such as "AAPL.csv line".
    refuse : raise `DataError` for a price that money cannot be counted in; else it passes, for whoever sets it apart.
    """
    scaled = kind == "vendor_adjusted" and "adjusted_close" in table.columns
    if "close" not in table.columns:
        table = table.with_columns(close="adjusted_close")
    absent = [c for c in (*OHLC, "volume") if c not in table.columns]
    events = kind != "vendor_adjusted"  # else they are in the prices
    table = table.with_columns(
        *[pl.lit(None, pl.Float64).alias(c) for c in absent],
        split=pl.col("split").fill_null(1.0).replace(0.0, 1.0) if events and "split" in table.columns else pl.lit(1.0),
        dividend=pl.col("dividend").fill_null(0.0) if events and "dividend" in table.columns else pl.lit(0.0),
    )
    if refuse:
        check_prices(table, lambda i: f"{place} {table['line'][i]}")
    if scaled and refuse:
        check_prices(table.with_columns(close="adjusted_close"), lambda i: f"{place} {table['line'][i]}, adjusted")
    if scaled:
        good = pl.col("close").is_finite() & (pl.col("close") > 0)  # what is no price must not look like one
        table = table.with_columns(pl.when(good).then(pl.col(OHLC) * (pl.col("adjusted_close") / pl.col("close"))).otherwise(pl.col(OHLC)))
    return table.select("stamp", *OHLC, "volume", "dividend", "split")


def timed(bars: pl.DataFrame, symbol: str, *, stamp: Stamp, tz: str, calendar: str) -> pl.DataFrame:
    """Standard prices -> one symbol's bars in `clean.BAR_SCHEMA`, each known at its end, not yet cleaned.

    Parameters
    ----------
    stamp : what `stamp` marks: `start` or `end` of a bar, or a `date`; `auto`: the date for daily bars, the start for shorter.
    tz : zone of times without one.
    calendar : exchange that says when sessions close.

    Raises `DataError` for a day without a session, a time that does not exist, and ends that are taken for starts.
    """
    stamps = bars["stamp"]
    bar = bar_size(stamps)
    if bar == DAY:
        bars = with_sessions(bars.with_columns(session=_days(stamps, stamp, tz)), calendar, symbol).rename({"closes": "timestamp"})
    elif stamp == "date":
        raise ConfigError(f"data.stamp is 'date', but {symbol} has bars of {bar}; expected start, end or auto")
    else:
        bars = _intraday(bars.with_columns(timestamp=_in_utc(stamps, symbol, tz)), bar, symbol, stamp, calendar)
    return bars.with_columns(
        symbol=pl.lit(symbol), known_at=pl.col("timestamp"), tradable=pl.lit(True), delisted=pl.lit(False)
    ).select(*BAR_SCHEMA)  # fmt: skip


def _days(stamps: pl.Series, stamp: Stamp, tz: str) -> pl.Series:
    """The calendar day that each daily stamp names."""
    if stamps.dtype == pl.Date:
        return stamps
    zone = getattr(stamps.dtype, "time_zone", None)
    midnight_utc = zone is not None and (stamps.dt.convert_time_zone("UTC").dt.time() == dt.time()).all()
    local = stamps if zone is None or midnight_utc else stamps.dt.convert_time_zone(tz)
    return (local - dt.timedelta(microseconds=1) if stamp == "end" else local).dt.date()


def _intraday(bars: pl.DataFrame, bar: dt.timedelta, symbol: str, stamp: Stamp, calendar: str) -> pl.DataFrame:
    marks_end = stamp == "end"
    inside = bars["timestamp"] if marks_end else bars["timestamp"] + dt.timedelta(microseconds=1)
    bars = with_sessions(bars.with_columns(session=local_dates(inside, calendar)), calendar, symbol)
    if marks_end:
        return bars
    start, closes = pl.col("timestamp"), pl.col("closes")
    on_close, on_open = bars.select((start == closes).any(), (start <= pl.col("opens")).any().alias("on_open")).row(0)
    if stamp == "auto" and on_close and not on_open:
        raise DataError(
            f"{symbol}: times fall on the sessions' closes and never on their opens, as bar ends do; expected starts: "
            f"set data.stamp to end (or to start, if that is what they are)"
        )
    # The last bar of a session may be cut short by the close.
    end = pl.when((start < closes) & (start + bar > closes)).then(closes).otherwise(start + bar)
    return bars.with_columns(timestamp=end)


def _in_utc(stamps: pl.Series, symbol: str, tz: str) -> pl.Series:
    if getattr(stamps.dtype, "time_zone", None) is None:
        try:
            stamps = stamps.dt.replace_time_zone(tz, ambiguous="earliest")
        except pl.exceptions.ComputeError as error:
            raise DataError(f"{symbol}: a time does not exist in data.tz {tz!r} ({error}); check data.tz") from None
    return stamps.dt.convert_time_zone("UTC").cast(UTC)


def with_sessions(bars: pl.DataFrame, calendar: str, symbol: str) -> pl.DataFrame:
    """With the `opens` and `closes` (UTC) of each bar's `session`; raises `DataError` for days without one."""
    first: Any = bars["session"].min()
    last: Any = bars["session"].max()
    sessions = schedule(calendar, first, last).rename({"open": "opens", "close": "closes"})
    bars = bars.join(sessions, on="session", how="left", maintain_order="left")
    stray = bars.filter(pl.col("closes").is_null())
    if stray.height:
        raise DataError(
            f"{symbol} has {stray.height} of {bars.height} bars on days without a session of {calendar}, the first on "
            f"{stray['session'][0]}; expected trading days: set data.calendar (24/7 for markets that never close), or mend the source"
        )
    return bars
