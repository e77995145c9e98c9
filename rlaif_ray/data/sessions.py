"""When an exchange is open: session closes in UTC (half days included), bars a year, the size of a bar.

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
    return whole.filter(pl.col("session").is_between(first, last))


@lru_cache(maxsize=16)
def _years(calendar: str, first: int, last: int) -> pl.DataFrame:
    # Both ends are given: by default a calendar reaches from 20 years ago to next year, as seen from today.
    times = _calendar(calendar, first, last).schedule
    return pl.DataFrame({
        "session": times.index.to_numpy().astype("datetime64[D]"),
        "open": times["open"].dt.tz_localize(None).to_numpy().astype("datetime64[us]"),
        "close": times["close"].dt.tz_localize(None).to_numpy().astype("datetime64[us]"),
    }).with_columns(pl.col("open", "close").dt.replace_time_zone("UTC").cast(UTC))  # fmt: skip


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

    Whole years, because a span of a few days says little about a year. A last, shorter bar of a session counts as one.
    """
    sessions = schedule(calendar, dt.date(first.year, 1, 1), dt.date(last.year, 12, 31))
    years = (dt.date(last.year + 1, 1, 1) - dt.date(first.year, 1, 1)).days / 365.25
    if bar >= DAY:
        return sessions.height / years
    minutes = (sessions["close"] - sessions["open"]).dt.total_seconds().to_numpy()
    return float(np.ceil(minutes / bar.total_seconds()).sum()) / years
