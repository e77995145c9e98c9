"""What the sets that go across symbols share: what their tables allow, who is in which sector, and the rows they answer on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl

from rlaif_ray.core import KEYS, Panel
from rlaif_ray.errors import DataError
from rlaif_ray.features.family import FeatureSpec, Tables


def allowed(tables: Tables, specs: Sequence[FeatureSpec], of_sectors: Sequence[Callable[..., np.ndarray]]) -> list[FeatureSpec]:
    """Those of `specs` whose inputs are all there; where nobody said who is in which sector, those without a formula `of_sectors`."""
    there = set(tables["features"].columns)
    return [s for s in specs if set(s.inputs) <= there and ("sectors" in tables or s.formula not in of_sectors)]


def columns(frame: pl.DataFrame, specs: Sequence[FeatureSpec]) -> dict[str, np.ndarray]:
    """What the specs read, (N,) float64 in the frame's order, NaN where undefined."""
    names = dict.fromkeys(name for s in specs for name in s.inputs)
    return {name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in names}


def symbol_codes(frame: pl.DataFrame) -> tuple[list[str], np.ndarray]:
    """The symbols (A,), sorted, and for every row (N,) int64 which of them it is of; the frame lies sorted by symbol."""
    codes = frame["symbol"].rle_id().cast(pl.Int64).to_numpy()
    return frame["symbol"].unique(maintain_order=True).to_list(), codes


def moments(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Of every row (N,) int64: which of the timestamps it is of, in their order, and when it was known; and how many timestamps."""
    times = frame["timestamp"].unique().sort().to_physical().to_numpy()
    time, known = (frame[c].to_physical().to_numpy() for c in ("timestamp", "known_at"))
    return np.searchsorted(times, time), known.copy(), len(times)


def sector_codes(tables: Tables, symbols: Sequence[str]) -> np.ndarray:
    """(A,) int64, -1 where the sector is unknown. Raises `DataError` for a symbol in two of them."""
    if "sectors" not in tables:
        return np.full(len(symbols), -1, np.int64)
    known = tables["sectors"].select("symbol", "sector").drop_nulls().unique()
    twice = known.filter(pl.col("symbol").is_duplicated())["symbol"].sort()
    if len(twice):
        raise DataError(f"{twice[0]!r} has {(twice == twice[0]).sum()} sectors; expected one (sectors are one row a symbol)")
    number = {name: code for code, name in enumerate(known["sector"].unique().sort())}
    of = dict(known.iter_rows())
    return np.array([number[of[s]] if s in of else -1 for s in symbols], np.int64)


def on_given_rows(frame: pl.DataFrame, columns: Iterable[tuple[str, np.ndarray]]) -> Panel:
    """A Panel on the rows of `frame`, known when they are: float32, NaN for what is not finite. Takes one column after another."""
    filled = []
    for name, values in columns:
        with np.errstate(over="ignore"):
            x = values.astype(np.float32)
        x[~np.isfinite(x)] = np.nan
        filled.append(pl.Series(name, x))
    return Panel(frame.select(KEYS).with_columns(filled))


def beside(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Columns of two tables on the rows of the first; known when both are."""
    both = one.join(other, on=["symbol", "timestamp"], how="left", suffix=":other", validate="1:1", maintain_order="left")
    return both.with_columns(pl.max_horizontal("known_at", "known_at:other").alias("known_at")).drop("known_at:other")
