"""When an exchange is open: session closes in UTC (half days included), breaks, bars a year, the size and the ends of bars.

Nothing here assumes 252 days or 390 minutes: all is counted from the exchange's calendar.
"""

from __future__ import annotations

import datetime as dt
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.errors import ConfigError, DataError, SchemaError, did_you_mean

DAY = dt.timedelta(days=1)


def schedule(calendar: str, first: dt.date, last: dt.date) -> pl.DataFrame:
    """Sessions from `first` to `last`, both included: `session` (date), `open` and `close` (UTC).

    Raises `ConfigError` for a calendar that does not exist.
    """
    # Whole years, so that one calendar is built for all symbols of a set.
    whole = _years(calendar, first.year, last.year)
    return whole.filter(pl.col("session").is_between(first, last)).select("session", "open", "close")


def trading_hours(calendar: str, first: dt.date, last: dt.date) -> pl.DataFrame:
    """When there is trading, in order: `session`, `begin` and `end` (UTC). A session with a break at noon has two rows."""
    days = _years(calendar, first.year, last.year).filter(pl.col("session").is_between(first, last))
    morning = days.select("session", begin="open", end=pl.coalesce("break_start", "close"))
    afternoon = days.drop_nulls("break_end").select("session", begin="break_end", end="close")
    return pl.concat([morning, afternoon]).sort("begin")


@lru_cache(maxsize=16)
def bar_ends(calendar: str, first: dt.date, last: dt.date, bar: dt.timedelta, from_open: bool, cut: bool) -> pl.DataFrame:
    """`session` and `timestamp` (end, UTC) of every bar that sessions have, counted from the open or from the full hour.

    A last bar that is longer than its session is `cut` short by the close, or keeps its size.
    """
    begin = pl.col("begin") if from_open else pl.col("begin").dt.truncate(bar)
    steps = trading_hours(calendar, first, last).with_columns(begin=begin).with_columns(
        step=pl.int_ranges(1, ((pl.col("end") - pl.col("begin")) / bar).ceil().cast(pl.Int64) + 1)
    ).explode("step")  # fmt: skip
    end = pl.col("begin") + pl.col("step") * bar
    return steps.select("session", timestamp=pl.min_horizontal(end, "end") if cut else end)


@lru_cache(maxsize=16)
def _years(calendar: str, first: int, last: int) -> pl.DataFrame:
    # Both ends are given: by default a calendar reaches from 20 years ago to next year, as seen from today.
    times = _calendar(calendar, first, last).schedule
    moments = {c: times[c].dt.tz_localize(None).to_numpy().astype("datetime64[us]") for c in ("open", "break_start", "break_end", "close")}
    return pl.DataFrame({"session": times.index.to_numpy().astype("datetime64[D]"), **moments}).with_columns(
        pl.col(*moments).dt.replace_time_zone("UTC").cast(UTC)
    )


@lru_cache(maxsize=16)
def _calendar(calendar: str, first: int, last: int) -> Any:
    import exchange_calendars  # brings pandas: not before it is needed

    known = exchange_calendars.get_calendar_names()
    if calendar not in known:
        raise ConfigError(f"data.calendar is {calendar!r}; expected an exchange such as XNYS or 24/7.{did_you_mean(calendar, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the library reads pandas in a way that pandas 4 will change
        try:
            return exchange_calendars.get_calendar(calendar, start=f"{first}-01-01", end=f"{last}-12-31")
        except ValueError as error:
            raise DataError(f"calendar {calendar} does not reach {first} to {last} ({error}); cut with data.start and data.end") from None


def local_dates(timestamps: pl.Series, calendar: str) -> pl.Series:
    """The day, in the exchange's own zone, that each interval END (UTC) belongs to: midnight ends the day before."""
    zone = str(_calendar(calendar, 2020, 2020).tz)
    return (timestamps - dt.timedelta(microseconds=1)).dt.convert_time_zone(zone).dt.date()


def bar_size(timestamps: pl.Series) -> dt.timedelta:
    """The size of a bar: the commonest step between the times of one symbol, in any order. Daily bars give one day.

    Raises `DataError` with fewer than two times, `SchemaError` for bars of a week or more.
    """
    steps = timestamps.cast(pl.Datetime("us") if timestamps.dtype == pl.Date else timestamps.dtype).unique().sort().diff().drop_nulls()
    if steps.is_empty():
        raise DataError("a single bar has no size; expected at least 2 bars a symbol")
    step: Any = steps.mode().min()
    if step >= 5 * DAY:
        raise SchemaError(f"bars come every {step.days} days; expected daily or shorter bars")
    return DAY if step >= dt.timedelta(hours=20) else step


def bars_per_year(calendar: str, bar: dt.timedelta, first: dt.date, last: dt.date) -> float:
    """Bars of size `bar` in a mean year of the calendar, counted over the whole years that hold `first` to `last`.

    Whole years, because a span of a few days says little about a year. A last, shorter bar of a session, or before its
    break, counts as one.
    """
    span = dt.date(first.year, 1, 1), dt.date(last.year, 12, 31)
    years = (dt.date(last.year + 1, 1, 1) - dt.date(first.year, 1, 1)).days / 365.25
    if bar >= DAY:
        return schedule(calendar, *span).height / years
    seconds = trading_hours(calendar, *span).select((pl.col("end") - pl.col("begin")).dt.total_seconds()).to_series().to_numpy()
    return float(np.ceil(seconds / bar.total_seconds()).sum()) / years
