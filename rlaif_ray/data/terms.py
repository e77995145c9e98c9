"""What all bars of a dataset have in common: their size, and how long after their end they are known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from rlaif_ray.data.intake import usual_delay_s
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.sessions import bar_size
from rlaif_ray.errors import ConfigError, DataError


def refuse_other_size(lake: Lake, bar: dt.timedelta) -> None:
    """Raise `DataError` where the dataset has bars of another size: two on one time would revise each other."""
    symbol = _fullest(lake)
    if symbol is None:
        return
    times = lake.ask("bars", lambda bars: bars.filter(pl.col("symbol") == symbol).select(pl.col("timestamp").unique())).to_series()
    if len(times) > 1 and bar_size(times) != bar:
        raise DataError(
            f"the bars in {lake.uri}/{lake.dataset} are of {bar_size(times)}, these of {bar}; "
            f"expected one size a dataset: choose another data.dataset"
        )


def refuse_other_latency(lake: Lake, symbols: Sequence[str], delay_s: float) -> None:
    """Raise `ConfigError` where the dataset's bars are known sooner or later after their end.

    Rows with the same values are skipped, so their old `known_at` would silently stand; new ones would be late to every
    decision on the set, or all others be.
    """
    symbol = _fullest(lake)
    if symbol is None:
        return
    before = usual_delay_s(lake, symbols)
    if before is None:
        before = usual_delay_s(lake, [symbol])
    if before != delay_s:
        raise ConfigError(
            f"the bars in {lake.uri}/{lake.dataset} are known {before:g} s after their end, these {delay_s:g} s; "
            f"expected one data.latency_s a dataset: choose another data.dataset"
        )


def _fullest(lake: Lake) -> str | None:
    """The symbol of the most rows, by what the log says of the files; None where there are no bars."""
    if "bars" not in lake.tables():
        return None
    files = pl.DataFrame(lake.delta("bars").get_add_actions(flatten=True)).rename({"partition.symbol": "symbol"})
    rows = files.group_by("symbol").agg(pl.col("num_records").sum()).sort("num_records", "symbol")
    return rows["symbol"][-1] if rows.height else None
