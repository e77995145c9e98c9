"""Small bars into the sessions' own larger ones."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.sessions import local_dates, schedule

MINUTE = dt.timedelta(minutes=1)
# A small bar as vendors give it: `start` is when it begins.
MINUTE_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "start": UTC, **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
}  # fmt: skip
_BAR = ("symbol", "timestamp")


def place(minutes: pl.DataFrame, size: dt.timedelta, calendar: str) -> pl.DataFrame:
    """Each small bar with the `session` and the `timestamp` (end, UTC) of the bar of `size` that it is part of.

    Bars are counted from the session's open, and the last one ends with the close, however short. Small bars outside the
    sessions (before the open, after the close, on holidays) are left out.

    Parameters
    ----------
    minutes : `MINUTE_SCHEMA`; small bars that divide `size` and the time from midnight to the open.
    """
    if not minutes.height:
        return minutes.with_columns(session=pl.lit(None, pl.Date), timestamp=pl.lit(None, UTC))
    days = local_dates(minutes["start"] + dt.timedelta(microseconds=1), calendar)
    first: Any = days.min()
    last: Any = days.max()
    times = schedule(calendar, first, last).rename({"open": "opens", "close": "closes"})
    inside = minutes.with_columns(session=days).join(times, on="session", how="inner", maintain_order="left").filter(
        (pl.col("start") >= pl.col("opens")) & (pl.col("start") < pl.col("closes"))
    )  # fmt: skip
    number = (pl.col("start") - pl.col("opens")).dt.total_microseconds() // int(size.total_seconds() * 1e6)
    return inside.with_columns(timestamp=pl.min_horizontal(pl.col("opens") + (number + 1) * size, "closes")).drop("opens", "closes")


def aggregate(placed: pl.DataFrame) -> pl.DataFrame:
    """`BAR_SCHEMA`, sorted, from what `place` returned, one row a (symbol, start)."""
    bars = placed.sort("symbol", "start").group_by(*_BAR, maintain_order=True).agg(
        pl.col("session").first(), pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
        pl.col("volume").sum(),
    )  # fmt: skip
    return bars.with_columns(
        known_at=pl.col("timestamp"), dividend=pl.lit(0.0), split=pl.lit(1.0), tradable=pl.lit(True), delisted=pl.lit(False)
    ).select(*BAR_SCHEMA)
