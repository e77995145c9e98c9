"""Facts and documents to the lake: every symbol read by its own Ray task, one commit a table and shard of symbols."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import ray

from rlaif_ray.core import Source
from rlaif_ray.data.intake import append_facts
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import SHARD_SYMBOLS, TRIES, or_why
from rlaif_ray.errors import RlaifError


@dataclass(frozen=True)
class Taken:
    """Rows that were new, by table; symbols that could not be read, and why."""

    added: dict[str, int]
    failed: dict[str, str]


def take_facts(source: Source, lake: Lake) -> Taken:
    """Append what a source without bars has of each of its symbols; what the lake knows already is skipped.

    A symbol that cannot be read is left out and named: the others are not lost for it. A document that two symbols share is
    one document.
    """
    stored, symbols, fetched_at = ray.put(source), sorted(source.symbols()), dt.datetime.now(dt.UTC)
    refs = {symbol: _read.remote(stored, symbol) for symbol in symbols}
    added: dict[str, int] = {}
    failed: dict[str, str] = {}
    for start in range(0, len(symbols), SHARD_SYMBOLS):
        shard = symbols[start : start + SHARD_SYMBOLS]
        tables: dict[str, dict[str, pl.DataFrame]] = {}
        for symbol in shard:
            read = or_why(symbol, refs.pop(symbol))
            if isinstance(read, RlaifError):
                failed[symbol] = str(read)
                continue
            tables[symbol] = {name: pl.DataFrame(pl.from_arrow(table)) for name, table in read.items()}
        for name, rows in append_facts(lake, tables, fetched_at).items():
            added[name] = added.get(name, 0) + rows
    return Taken(added, failed)


@ray.remote(num_cpus=1, max_retries=TRIES - 1, retry_exceptions=[OSError])  # pyright: ignore[reportCallIssue, reportArgumentType]
def _read(source: Source, symbol: str) -> dict[str, pa.Table] | RlaifError:
    try:
        return {name: table.to_arrow() for name, table in source.read(symbol).items()}
    except RlaifError as error:
        return error
