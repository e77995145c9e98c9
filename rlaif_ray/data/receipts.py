"""What came of an ingest, noted in the lake: the same request on the same lake need not be carried out again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from rlaif_ray.core import Source, canonical_json, content_hash
from rlaif_ray.data.bar_tables import BadRows, PriceKind
from rlaif_ray.data.intake import Stored, source_tables, version_of
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import INGEST_SCHEMA
from rlaif_ray.errors import DataError
from rlaif_ray.runs import code_version

SHARD_SYMBOLS = 32  # whose rows are hashed together


@dataclass(frozen=True)
class Ingest:
    """What came in. `versions` are locators (table -> Delta version); all else follows from the data and the settings.

    `failed` : symbols that were left out although their bars were asked for, and why.
    """

    symbols: tuple[str, ...]
    rows: int
    quality: dict[str, dict[str, Any]]
    data_version: str
    price_kind: PriceKind
    bar_s: float
    bars_per_year: float
    versions: dict[str, int]
    failed: dict[str, str] = field(default_factory=dict)


def known(
    source: Source, lake: Lake, *, start: dt.date | None, end: dt.date | None, latency_s: float, bad_rows: BadRows
) -> Ingest | None:  # fmt: skip
    """`recorded`, of a request that was not made yet. Needs no cluster, and no parsing."""
    return recorded(lake, request(source, start, end, latency_s, bad_rows))


def recorded(lake: Lake, asked: str | None) -> Ingest | None:
    """What came of a request, if the lake still holds that and nothing else."""
    if asked is None or "ingests" not in lake.tables():
        return None
    said = lake.read("ingests").filter(pl.col("id") == _receipt(lake, asked))["record"]
    if not len(said):
        return None
    return _ingest(said[0])


def latest(lake: Lake) -> Ingest | None:
    """What the last ingest of bars left, whatever it was asked for."""
    found = _bars_noted(lake)
    return _ingest(found["record"][0]) if found.height else None


def request(source: Source, *terms: Any) -> str | None:
    """Names what a source says now and how it is taken in; None for a source that does not say whether it has changed."""
    fingerprint = getattr(source, "fingerprint", None)
    return None if fingerprint is None else content_hash([fingerprint, *terms, code_version()])


def record(lake: Lake, asked: str | None, done: Ingest, at: dt.datetime, start: dt.date | None, end: dt.date | None) -> None:
    """Note what came of a request between two days."""
    said = canonical_json({**asdict(done), "start": str(start or ""), "end": str(end or "")})
    row = {"id": [_receipt(lake, asked)], "timestamp": [at], "known_at": [at], "record": [said]}
    lake.append("ingests", pl.DataFrame(row, schema=INGEST_SCHEMA), asked or "")


def changed(lake: Lake) -> Iterator[str]:
    """Whether the rows that the last ingest left, at the versions that it noted, still hash to its `data_version`; one line if not."""
    for at, said in _bars_noted(lake).select("timestamp", "record").iter_rows():
        fields, done = json.loads(said), _ingest(said)
        span = [dt.date.fromisoformat(fields[k]) if fields[k] else None for k in ("start", "end")]
        shards = [done.symbols[k : k + SHARD_SYMBOLS] for k in range(0, len(done.symbols), SHARD_SYMBOLS)]
        try:
            found = version_of(Stored.of(lake, shard, *span, versions=done.versions) for shard in shards)
        except DataError as error:
            found = f"not to be read ({error})"
        if found != done.data_version:
            yield (
                f"{lake.dataset}: what came in at {at:%Y-%m-%d %H:%M} UTC was {done.data_version} and is {found} now; expected rows that "
                f"nobody changes (and the Polars that hashed them): take them in again into another dataset"
            )


def _bars_noted(lake: Lake) -> pl.DataFrame:
    """The record of the last ingest of bars; no row where there is none."""
    if "ingests" not in lake.tables():
        return pl.DataFrame(schema=INGEST_SCHEMA)
    return lake.read("ingests").filter(pl.col("record").str.contains('"data_version"', literal=True)).sort("timestamp").tail(1)


def _ingest(said: str) -> Ingest:
    fields = {k: v for k, v in json.loads(said).items() if k not in ("start", "end")}
    return Ingest(**{**fields, "symbols": tuple(fields["symbols"])})


def _receipt(lake: Lake, asked: str | None) -> str:
    """Names a request and the state of the lake after it; another ingest, and it names something else."""
    return content_hash([asked, {table: lake.version(table) for table in source_tables(lake)}])
