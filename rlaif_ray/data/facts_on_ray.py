"""Facts and documents to the lake: every symbol read by its own Ray task, one commit a table and shard of symbols."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import ray

from rlaif_ray.core import Source
from rlaif_ray.data.intake import append_facts
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import SHARD_SYMBOLS, TRIES, or_why
from rlaif_ray.data.resume import ReadableSince, Resume, Span
from rlaif_ray.errors import RlaifError


@dataclass(frozen=True)
class Taken:
    """Rows that were new, by table; symbols that could not be read, and why."""

    added: dict[str, int]
    failed: dict[str, str]


def take_facts(source: Source, lake: Lake) -> Taken:
    """Append what a source without bars has of each of its symbols; what the lake knows already is skipped.

    A symbol that cannot be read is left out and named: the others are not lost for it. A document that two symbols share is
    one document. A source that is `resume.ReadableSince` is asked for what is newer than what the lake has of it.
    """
    resume = Resume.of(source, lake)
    stored, symbols, fetched_at = ray.put(source), sorted(source.symbols()), dt.datetime.now(dt.UTC)
    held: Mapping[str, Span] = {} if resume is None else resume.held
    refs = {symbol: _read.remote(stored, symbol, held.get(symbol)) for symbol in symbols}
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
    if resume is not None:
        resume.note([symbol for symbol in symbols if symbol not in failed], fetched_at)
    return Taken(added, failed)


@ray.remote(num_cpus=1, max_retries=TRIES - 1, retry_exceptions=[OSError])  # pyright: ignore[reportCallIssue, reportArgumentType]
def _read(source: Source, symbol: str, held: Span | None) -> dict[str, pa.Table] | RlaifError:
    try:
        since = None if held is None else held.until
        tables = source.read_since(symbol, since) if since and isinstance(source, ReadableSince) else source.read(symbol)
        return {name: table.to_arrow() for name, table in tables.items()}
    except RlaifError as error:
        return error
