"""Which of the facts known at a moment counts: one rule, and where it holds on the rows of a join or a cube."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
from numba import boolean, float64, int32, int64, njit, types

_I4, _I8 = types.Array(int32, 1, "C", readonly=True), types.Array(int64, 1, "C", readonly=True)
_B1 = types.Array(boolean, 1, "C", readonly=True)


def that_count(facts: pl.DataFrame) -> pl.DataFrame:
    """In order of knowledge, without what was about an older or longer period than was known already, or in another unit than
    the first: each row left is, from its `known_at` until the next of its symbol (and `name`), the one that counts."""
    facts = facts.sort("known_at", maintain_order=True)
    series = _codes(facts["symbol"])
    if "name" in facts.columns:
        names = _codes(facts["name"])
        series = series * np.int32(names.max(initial=0) + 1) + names
    nothing = np.zeros(facts.height, np.int32)
    unit = _codes(facts["unit"]) if "unit" in facts.columns else nothing
    # An instant is shorter than any period.
    begin = facts["started"].fill_null(dt.date.max).to_physical().to_numpy() if "started" in facts.columns else nothing
    return facts.filter(pl.Series(_counting(series, unit, facts["timestamp"].to_physical().to_numpy(), begin)))


def standing(moments: pl.DataFrame, facts: pl.DataFrame, names: list[str]) -> tuple[pl.DataFrame, np.ndarray]:
    """The facts that ever count, with the `first_row` that knows each, and (N,R) int32: which of them counts, -1 for none.

    Parameters
    ----------
    moments : R rows, sorted by `symbol` and `known_at`.
    names : N names that facts may have, all of them.
    """
    symbols = moments["symbol"].unique(maintain_order=True)
    facts = that_count(facts.filter(pl.col("symbol").is_in(symbols.implode())))
    starts = np.append(moments["symbol"].search_sorted(symbols).to_numpy(), moments.height).astype(np.int64)
    asset = facts["symbol"].cast(pl.Enum(symbols)).to_physical().cast(pl.Int32).to_numpy()
    name = facts["name"].cast(pl.Enum(names)).to_physical().cast(pl.Int32).to_numpy()
    known, seen = (frame["known_at"].to_physical().to_numpy() for frame in (facts, moments))
    at = np.full((len(names), moments.height), -1, np.int32)
    rows = _place(asset, name, known, starts, seen, at)
    return facts.with_columns(first_row=pl.Series(rows)), at


def laid_out(facts: pl.DataFrame, at: np.ndarray, moments: pl.DataFrame, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,R) and ages in days (N,R) float64 of what counts at each row, NaN where nothing does.

    Parameters
    ----------
    facts, at : what `standing` gives.
    moments : its R rows.
    order : (R,) where each of them goes.
    """
    now, ends = (s.to_physical().to_numpy() for s in (moments["known_at"], facts["timestamp"]))
    return _laid_out(at, facts["value"].to_numpy(), ends, now, order.astype(np.int64))


def _codes(words: pl.Series) -> np.ndarray:
    """(F,) int32: a number for each word, none missing below the largest; nothing is a word."""
    known = words.unique().drop_nulls()
    return words.cast(pl.Enum(known)).to_physical().fill_null(len(known)).cast(pl.Int32).to_numpy()


@njit(boolean[::1](_I4, _I4, _I8, _I4), cache=True)
def _counting(series: np.ndarray, unit: np.ndarray, end: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Facts (F,) in order of knowledge: whether each is about no older and no longer period than the last that counted."""
    n = series.max() + 1 if len(series) else 0
    last = np.full(n, -1, np.int64)
    count = np.zeros(len(series), np.bool_)
    for i in range(len(series)):
        before = last[series[i]]
        if before < 0 or (unit[i] == unit[before] and (end[i] > end[before] or (end[i] == end[before] and begin[i] >= begin[before]))):
            last[series[i]] = i
            count[i] = True
    return count


@njit(int64[::1](_I4, _I4, _I8, _I8, _I8, int32[:, ::1]), cache=True)
def _place(asset: np.ndarray, name: np.ndarray, known: np.ndarray, starts: np.ndarray, seen: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Put facts (F,) at the first row of their asset that knows them, and carry them on; that row, or -1 where none does."""
    rows = np.full(len(asset), -1, np.int64)
    for i in range(len(asset)):
        end = starts[asset[i] + 1]
        row = starts[asset[i]] + np.searchsorted(seen[starts[asset[i]] : end], known[i])
        if row < end:
            rows[i] = row
            at[name[i], row] = i  # in order of knowledge: the last of a row wins
    for n in range(at.shape[0]):
        for asset_ in range(len(starts) - 1):
            for row in range(starts[asset_] + 1, starts[asset_ + 1]):
                if at[n, row] < 0:
                    at[n, row] = at[n, row - 1]
    return rows


@njit(types.UniTuple(float64[:, ::1], 2)(int32[:, ::1], types.Array(float64, 1, "C", readonly=True), _I8, _I8, _I8), cache=True)
def _laid_out(
    at: np.ndarray, value: np.ndarray, end: np.ndarray, now: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    values, days = np.empty(at.shape), np.empty(at.shape)
    for n in range(at.shape[0]):
        for row in range(at.shape[1]):
            i, to = at[n, row], order[row]
            values[n, to] = value[i] if i >= 0 else np.nan
            days[n, to] = (now[row] - end[i]) / 86.4e9 if i >= 0 else np.nan
    return values, days
