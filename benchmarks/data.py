"""The lake and the as-of join against bare Polars and Parquet: `python -m benchmarks.data`."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.rows import Row, in_turn, main, peak_mb
from rlaif_ray.core import UTC
from rlaif_ray.data.asof import join
from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import FACT_SCHEMA

FIRST = dt.datetime(2015, 1, 1, 21, tzinfo=dt.UTC)


def rows(quick: bool) -> list[Row]:
    """A whole table read, and facts laid onto rows as they were known."""
    return [_scan(quick), _as_of(quick)]


def _scan(quick: bool) -> Row:
    """Bars as a run reads them: latest revisions, in order; the peer reads one file that holds just that."""
    symbols, bars = (20, 2500) if quick else (500, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        lake, file = Lake(folder, "set"), str(Path(folder) / "bare.parquet")
        for first in range(0, symbols, 50):
            shard = pl.concat([_bars(k, bars) for k in range(first, min(first + 50, symbols))])
            lake.append("bars", shard, str(first))
        lake.read("bars").write_parquet(file, compression="zstd")

        def ours() -> pl.DataFrame:
            return lake.read("bars")

        def peer() -> pl.DataFrame:
            return pl.read_parquet(file)

        assert ours().equals(peer())
        seconds, peer_seconds = in_turn(ours, peer)
    work = symbols * bars
    note = f"{symbols} files of one symbol against one file of all; sorted by symbol and time, revisions resolved."
    ours_a_second, theirs = work / seconds, work / peer_seconds
    return Row(f"scan, {work:,} bars", ours_a_second, "bare Parquet, Polars", theirs, peer_seconds / seconds, "rows/s", 0.5, note)


def _as_of(quick: bool) -> Row:
    """Every name of a fact at every row, as known by then; the peer joins a table that is wide and in order already."""
    symbols, days, names, quarters = (10, 50, 200, 8) if quick else (68, 250, 1000, 8)
    facts, places = _facts(symbols, names, quarters), _rows(symbols, days)
    newest = facts.sort("known_at").filter(pl.col("timestamp") >= pl.col("timestamp").cum_max().over("symbol", "name"))
    wide = newest.pivot("name", index=["symbol", "known_at"], values="value", aggregate_function="last")
    wide = wide.with_columns(pl.all().exclude("symbol", "known_at").forward_fill().over("symbol")).sort("known_at")
    in_order = places.sort("known_at")

    def ours() -> pl.DataFrame:
        return join(places, {"facts": facts})

    def peer() -> pl.DataFrame:
        return in_order.join_asof(wide, on="known_at", by="symbol", check_sortedness=False)

    values = [c for c in wide.columns if c not in ("symbol", "known_at")]
    assert ours().sort("symbol", "known_at").select(values).equals(peer().sort("symbol", "known_at").select(values)), "values differ"
    seconds, peer_seconds = in_turn(ours, peer)
    name = f"as-of join, {places.height:,} rows x {names:,} facts"
    note = (
        f"From {facts.height:,} facts in long form, a tenth of them restated, with the age of each; the peer's table is wide and filled "
        f"before. Peak memory of a process that does ours: {peak_mb(_joined, symbols, days, names, quarters):.0f} MB."
    )
    return Row(name, 1e3 * seconds, "Polars join_asof, one wide table", 1e3 * peer_seconds, peer_seconds / seconds, "ms", 0.1, note)


def _joined(symbols: int, days: int, names: int, quarters: int) -> pl.DataFrame:
    return join(_rows(symbols, days), {"facts": _facts(symbols, names, quarters)})


def _bars(symbol: int, bars: int) -> pl.DataFrame:
    """Close-like prices on consecutive hours: what they are does not matter here, how well they compress does."""
    rng = np.random.default_rng(symbol)
    ends = pl.Series(np.datetime64("2015-01-01", "us") + np.arange(bars) * np.timedelta64(1, "h")).dt.replace_time_zone("UTC")
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(bars)))
    return pl.DataFrame({
        "symbol": [f"S{symbol:03d}"] * bars, "timestamp": ends, "known_at": ends, "session": ends.dt.date(), "open": close * 0.999,
        "high": close * 1.01, "low": close * 0.99, "close": close, "volume": rng.integers(0, 10**6, bars).astype(float),
        "dividend": np.zeros(bars), "split": np.ones(bars), "tradable": np.ones(bars, bool), "delisted": np.zeros(bars, bool),
    }, schema=BAR_SCHEMA)  # fmt: skip


def _facts(symbols: int, names: int, quarters: int) -> pl.DataFrame:
    """Figures of each quarter, filed 20 to 60 days after it, all of a filing at one moment; a tenth restated 200 days on."""
    rng = np.random.default_rng(0)
    symbol, quarter, name = (x.ravel() for x in np.meshgrid(np.arange(symbols), np.arange(quarters), np.arange(names), indexing="ij"))
    end = 91 * quarter
    filed = end + rng.integers(20, 60, (symbols, quarters))[symbol, quarter]
    first = pl.DataFrame({"symbol": symbol, "end": end, "filed": filed, "name": name, "value": rng.standard_normal(len(end))})
    again = first.filter(pl.Series(rng.random(len(end)) < 0.1)).with_columns(pl.col("filed") + 200, value=pl.col("value") * 1.1)
    return pl.concat([first, again]).select(
        symbol=pl.format("S{}", "symbol"), timestamp=pl.lit(FIRST, UTC) + pl.duration(days="end"),
        known_at=pl.lit(FIRST, UTC) + pl.duration(days="filed"), name=pl.format("us-gaap/Concept{}", "name"),
        started=pl.lit(FIRST.date()) + pl.duration(days=pl.col("end") - 91), unit=pl.lit("USD"), value="value",
        form=pl.lit("10-Q"), source_id=pl.lit(None, pl.String),
    ).cast(pl.Schema(FACT_SCHEMA))  # fmt: skip


def _rows(symbols: int, days: int) -> pl.DataFrame:
    """A row a symbol and day, from the second year on."""
    moments = [FIRST + dt.timedelta(days=365 + k) for k in range(days)]
    places = pl.DataFrame({"symbol": [f"S{k}" for k in range(symbols)]}).join(pl.DataFrame({"known_at": moments}), how="cross")
    return places.cast({"known_at": UTC})


if __name__ == "__main__":
    main(rows)
