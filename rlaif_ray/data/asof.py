"""From rows with a moment of knowledge to dense arrays: what a row of the cube shows is what could be known at it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

from rlaif_ray.core import CLOSE, PRICE_COLUMNS, VOLUME, Cube, Panel
from rlaif_ray.errors import DataError, SchemaError

PriceKind = Literal["raw", "split_adjusted", "vendor_adjusted"]
_EVENTS = ("dividend", "split", "tradable", "delisted")


def cut(frame: Any, start: dt.date | None, end: dt.date | None) -> Any:
    """Rows (of a DataFrame or LazyFrame) from `start` to `end`, days included.

    Bars are cut by their session. What has none (features, facts) is cut at its end only, by the day that its interval
    ends on: a fact from before the start may still be the latest one.
    """
    columns = frame.collect_schema().names()
    # Midnight ends the day before.
    day = pl.col("session") if "session" in columns else (pl.col("timestamp") - dt.timedelta(microseconds=1)).dt.date()
    if start is not None and "session" in columns:
        frame = frame.filter(day >= start)
    return frame if end is None else frame.filter(day <= end)


def build_cube(
    bars: Panel, features: Panel | None = None, facts: Mapping[str, Panel] | None = None, *, bars_per_year: float,
    price_kind: PriceKind,
) -> Cube:  # fmt: skip
    """One cube over the union of the symbols' bar ends.

    A row is decided on at its bar end plus the set's usual delay (the least `known_at - timestamp`). A bar that became
    known later than that (it came late, or was revised since) is not shown on its row: the close before stands, the row
    cannot be traded, and a split or dividend on it counts on the next row that is shown. So does a bar that is missing
    between others. Prices are NaN before a symbol's first bar and from its delisting on.

    Parameters
    ----------
    bars : clean bars (`clean.BAR_SCHEMA`), one as-of view.
    features : float columns on the bars' keys, shown where known by the row's moment, else as they stood before.
    facts : tables with columns `<kind>_score`, joined as of each row's moment: `<kind>_score` and `<kind>_age_bars`
        (bars since the first row that knew it), NaN where there is none yet.
    """
    frame = bars.frame
    missing = [c for c in (*PRICE_COLUMNS, *_EVENTS) if c not in frame.columns]
    if missing:
        raise SchemaError(f"a cube needs cleaned bars; {missing} are missing from {frame.columns}")
    if not frame.height:
        raise DataError("a cube needs bars; there are none: check data.start, data.end and data.names")
    times, symbols = _micros(frame["timestamp"].unique().sort()), bars.symbols
    known_at = times + (_micros(frame["known_at"]) - _micros(frame["timestamp"])).min()
    t, a = _cells(frame, times, symbols)
    shape = len(times), len(symbols)

    present = np.zeros(shape, bool)
    present[t, a] = _micros(frame["known_at"]) <= known_at[t]
    delisted = np.zeros(shape, bool)
    delisted[t, a] = frame["delisted"].to_numpy()
    delisted = np.logical_or.accumulate(delisted, axis=0)
    shown = present & ~delisted
    source_row = _latest(shown)  # the row whose values each cell carries, -1 before the first bar
    carried = ~shown & (source_row >= 0) & ~delisted

    prices = _carry(_scatter(frame.select(PRICE_COLUMNS), t, a, shape, np.float64), source_row, delisted)
    for column in range(CLOSE):
        prices[:, :, column] = np.where(carried & np.isfinite(prices[:, :, column]), prices[:, :, CLOSE], prices[:, :, column])
    prices[:, :, VOLUME][carried & np.isfinite(prices[:, :, VOLUME])] = 0.0
    events = _scatter(frame.select(pl.col("split", "dividend", "tradable").cast(pl.Float64)), t, a, shape, np.float64)
    # The row on which a symbol is gone settles what was due.
    splits, dividends = _events_when_shown(np.nan_to_num(events[..., 0], nan=1.0), np.nan_to_num(events[..., 1]), shown | delisted)
    names, columns = _feature_columns(features, facts or {}, times, known_at, symbols, delisted)
    return Cube(
        times, known_at, symbols, prices, columns, names, shown & (events[..., 2] == 1.0), splits, dividends, delisted,
        bars_per_year, price_kind,
    )  # fmt: skip


def _feature_columns(
    features: Panel | None, facts: Mapping[str, Panel], times: np.ndarray, known_at: np.ndarray, symbols: tuple[str, ...],
    delisted: np.ndarray,
) -> tuple[tuple[str, ...], np.ndarray]:  # fmt: skip
    """Names (F,) and values (T,A,F) float32."""
    shape = len(times), len(symbols)
    names: list[str] = []
    parts: list[np.ndarray] = []
    if features is not None:
        on_grid = pl.Series(np.isin(_micros(features.frame["timestamp"]), times))
        frame = features.frame.filter(pl.col("symbol").is_in(symbols) & on_grid)
        t, a = _cells(frame, times, symbols)
        visible = np.zeros(shape, bool)
        visible[t, a] = _micros(frame["known_at"]) <= known_at[t]
        parts.append(_carry(_scatter(frame.select(features.columns), t, a, shape, np.float32), _latest(visible), delisted))
        names += features.columns
    for table in facts.values():
        for score in (c for c in table.columns if c.endswith("_score")):
            parts.append(_fact_as_of(table, score, known_at, symbols))
            names += [score, f"{score.removesuffix('_score')}_age_bars"]
    if not parts:
        return (), np.empty((*shape, 0), np.float32)
    return tuple(names), parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _fact_as_of(table: Panel, score: str, known_at: np.ndarray, symbols: tuple[str, ...]) -> np.ndarray:
    """(T,A,2) float32: the fact that became known last by each row's moment, and its age in bars."""
    out = np.full((len(known_at), len(symbols), 2), np.nan, np.float32)
    by_symbol = table.frame.drop_nulls(score).sort("known_at", "timestamp").partition_by("symbol", as_dict=True)
    for a, symbol in enumerate(symbols):
        facts = by_symbol.get((symbol,))
        if facts is None:
            continue
        first_row = np.searchsorted(known_at, _micros(facts["known_at"]), side="left")
        seen = first_row < len(known_at)
        latest = np.full(len(known_at), -1)
        latest[first_row[seen]] = np.flatnonzero(seen)  # facts are in order of knowledge: the last of a row wins
        latest = np.maximum.accumulate(latest)
        rows = np.flatnonzero(latest >= 0)
        out[rows, a, 0] = facts[score].to_numpy()[latest[rows]]
        out[rows, a, 1] = rows - first_row[latest[rows]]
    return out


def _events_when_shown(splits: np.ndarray, dividends: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move events off the rows that are not shown to the next row that is (T,A); shares keep their worth in between.

    A dividend is a share as traded on its own row, so a split that is passed on with it divides it.
    """
    for t in np.flatnonzero((~shown).any(axis=1)):
        moving = np.flatnonzero(~shown[t] & ((splits[t] != 1.0) | (dividends[t] != 0.0)))
        if len(moving) and t + 1 < len(splits):
            dividends[t + 1, moving] += dividends[t, moving] / splits[t + 1, moving]
            splits[t + 1, moving] *= splits[t, moving]
        splits[t, moving], dividends[t, moving] = 1.0, 0.0
    return splits, dividends


def _micros(column: pl.Series) -> np.ndarray:
    return column.dt.replace_time_zone(None).cast(pl.Datetime("us")).to_numpy().astype("datetime64[us]")


def _cells(frame: pl.DataFrame, times: np.ndarray, symbols: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and asset index of each row of a frame whose symbols and times are all known."""
    asset = frame["symbol"].replace_strict(list(symbols), range(len(symbols)), return_dtype=pl.Int64).to_numpy()
    return np.searchsorted(times, _micros(frame["timestamp"])), asset


def _scatter(frame: pl.DataFrame, t: np.ndarray, a: np.ndarray, shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """(T,A,C), NaN where there is no row or no value."""
    out = np.full((*shape, frame.width), np.nan, dtype)
    for k, name in enumerate(frame.columns):
        out[t, a, k] = frame[name].to_numpy()
    return out


def _latest(shown: np.ndarray) -> np.ndarray:
    """(T,A) index of the last row shown at or before each row; -1 before the first."""
    return np.maximum.accumulate(np.where(shown, np.arange(len(shown))[:, None], -1), axis=0)


def _carry(values: np.ndarray, source_row: np.ndarray, delisted: np.ndarray) -> np.ndarray:
    """Each cell's values from the row that it carries; NaN before the first and from delisting on."""
    own = np.arange(len(values))[:, None]
    moved = (source_row != own) | delisted
    t, a = np.nonzero(moved)
    origin = source_row[t, a]
    filled = values[np.maximum(origin, 0), a]
    filled[(origin < 0) | delisted[t, a]] = np.nan
    values[t, a] = filled
    return values
