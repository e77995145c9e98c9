"""From rows with a moment of knowledge to what could be known at one: the join, and the cube, by one rule of what counts."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from rlaif_ray.core import CLOSE, KEYS, PRICE_COLUMNS, VOLUME, Cube, Panel, PriceKind
from rlaif_ray.data.standing import laid_out, standing, that_count
from rlaif_ray.data.tables import MACRO, table
from rlaif_ray.errors import DataError, SchemaError

_EVENTS = ("dividend", "split", "tradable", "delisted")
MENTION_DAYS = (1, 7, 30)
_ROW = "row"


def join(rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Each row with what every table said of its symbol by its moment, and how old that was.

    Of what was known by then, the row with the latest `timestamp` counts, in its latest revision: a restatement replaces
    what it restates, a fact about an older period that arrives late replaces nothing newer. Of figures over several periods
    that end together the shortest counts: who wants years picks them by `started` before joining. Of figures in several
    units, those in the one that became known first.

    Parameters
    ----------
    rows : `symbol`, `known_at` (the moment) and whatever else; kept, in their order.
    tables : by name, every revision (`Lake.read(..., revision="all")`).

    Returns
    -------
    rows with, for facts: `<name>` and `<name>_age_days`, names sorted; those of `MACRO` go to every symbol. For mentions:
    `mentions_<d>d`, documents that became known in the last 1, 7 and 30 days. For any other table (bars, scores, features): its
    columns. For each but facts `<table>_age_days`. Ages are days from `timestamp` to the row's moment; null where nothing
    was known yet.

    Raises `SchemaError` for a table without symbols (documents: join their mentions or scores) and for a column of two tables.
    """
    parts = [rows]
    for name, frame in tables.items():
        if "symbol" not in frame.columns:
            raise SchemaError(f"{name!r} has no symbol to be joined by; expected mentions or scores of it, which have")
        if "name" in table(name).keys:
            everyones = pl.col("symbol") == MACRO
            parts += [_facts(rows, frame.filter(~everyones)), _facts(rows.with_columns(symbol=pl.lit(MACRO)), frame.filter(everyones))]
        elif "id" in table(name).keys:
            parts += [_as_it_stood(rows, name, frame.select(KEYS)), _counts(rows, frame)]
        else:
            parts.append(_as_it_stood(rows, name, frame))
    uses = Counter(column for part in parts for column in part.columns)
    twice = sorted(column for column, n in uses.items() if n > 1)
    if twice:
        raise SchemaError(f"columns {twice} come from two of the tables {list(tables)} or the rows; expected names of their own")
    return pl.concat(parts, how="horizontal")


def _as_it_stood(rows: pl.DataFrame, name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The value columns of a table with one row a symbol and time, as of each of `rows`, and the age."""
    told = that_count(frame).rename({"timestamp": _ROW + "_of"})
    seen = _at_moments(rows, told)
    age = (pl.col("known_at") - pl.col(_ROW + "_of")).dt.total_microseconds() / 86.4e9
    return seen.select(*[c for c in frame.columns if c not in KEYS], age.alias(f"{name}_age_days"))


def _counts(rows: pl.DataFrame, mentions: pl.DataFrame) -> pl.DataFrame:
    """Documents that became known in the last days before each of `rows`."""
    first = mentions.sort("known_at", maintain_order=True).unique(["symbol", "id"], keep="first", maintain_order=True)
    told = first.select("symbol", "known_at", told=pl.int_range(1, pl.len() + 1).over("symbol"))
    now = _at_moments(rows, told)["told"]
    before = {d: _at_moments(rows.with_columns(pl.col("known_at") - dt.timedelta(days=d)), told)["told"] for d in MENTION_DAYS}
    return pl.DataFrame({f"mentions_{d}d": now - n.fill_null(0) for d, n in before.items()})


def _at_moments(rows: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """For each of `rows`, in their order, the last of `told` (in order of knowledge) that was known."""
    moments = rows.select("symbol", "known_at").with_row_index(_ROW).sort("known_at")
    # Both are in order, within each symbol too; polars cannot check that.
    return moments.join_asof(told, on="known_at", by="symbol", strategy="backward", check_sortedness=False).sort(_ROW)


def _facts(rows: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """One column and one age for each name in `facts`."""
    moments = rows.select("symbol", "known_at").with_row_index(_ROW).sort("symbol", "known_at")
    names = facts["name"].unique().sort().to_list()
    facts, at = standing(moments, facts.drop("form", "source_id", strict=False), names)
    values, days = laid_out(facts, at, moments, moments[_ROW].to_numpy())
    columns = {}
    for k, name in enumerate(names):
        columns[name] = pl.Series(values[k], nan_to_null=True)
        columns[f"{name}_age_days"] = pl.Series(days[k], nan_to_null=True)
    return pl.DataFrame(columns)


def build_cube(
    bars: Panel, features: Panel | None = None, facts: Mapping[str, pl.DataFrame] | None = None, *, bars_per_year: float,
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
    facts : tables with columns `<kind>_score`, every revision, joined as of each row's moment as in `join`: `<kind>_score`
        and `<kind>_age_bars` (bars since the first row that knew it), NaN where there is none yet.
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
    features: Panel | None, facts: Mapping[str, pl.DataFrame], times: np.ndarray, known_at: np.ndarray, symbols: tuple[str, ...],
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
    for frame in facts.values():
        scores = [c for c in frame.columns if c.endswith("_score")]
        parts.append(_scores(frame, scores, known_at, symbols))
        names += [name for score in scores for name in (score, f"{score.removesuffix('_score')}_age_bars")]
    if not parts:
        return (), np.empty((*shape, 0), np.float32)
    return tuple(names), parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _scores(frame: pl.DataFrame, scores: list[str], known_at: np.ndarray, symbols: tuple[str, ...]) -> np.ndarray:
    """(T,A,2S) float32: each score that counts at a row's moment, and its age in bars."""
    rows = len(known_at)
    moments = pl.DataFrame({"symbol": np.repeat(symbols, rows), "known_at": np.tile(known_at, len(symbols))})
    moments = moments.with_columns(pl.col("known_at").dt.replace_time_zone("UTC"))
    facts, at = standing(moments, frame.unpivot(scores, index=KEYS, variable_name="name").drop_nulls("value"), scores)
    value = np.append(facts["value"].to_numpy(), np.nan)[at]
    age = np.arange(moments.height) - np.append(facts["first_row"].to_numpy().astype(np.float64), np.nan)[at]
    both = np.stack([value, age], axis=1).astype(np.float32)  # (S,2,A*T)
    return both.reshape(2 * len(scores), len(symbols), rows).transpose(2, 1, 0)


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
