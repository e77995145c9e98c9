"""What came of an ingest, noted in the lake: the same request on the same lake need not be carried out again."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from rlaif_ray.core import Source, canonical_json, content_hash
from rlaif_ray.data.bar_tables import BadRows, PriceKind
from rlaif_ray.data.intake import source_tables
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import INGEST_SCHEMA
from rlaif_ray.runs import code_version


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
    fields = json.loads(said[0])
    return Ingest(**{**fields, "symbols": tuple(fields["symbols"])})


def request(source: Source, *terms: Any) -> str | None:
    """Names what a source says now and how it is taken in; None for a source that does not say whether it has changed."""
    fingerprint = getattr(source, "fingerprint", None)
    return None if fingerprint is None else content_hash([fingerprint, *terms, code_version()])


def record(lake: Lake, asked: str, done: Ingest, at: dt.datetime) -> None:
    """Note what came of a request."""
    row = {"id": [_receipt(lake, asked)], "timestamp": [at], "known_at": [at], "record": [canonical_json(asdict(done))]}
    lake.append("ingests", pl.DataFrame(row, schema=INGEST_SCHEMA), asked)


def _receipt(lake: Lake, asked: str) -> str:
    """Names a request and the state of the lake after it; another ingest, and it names something else."""
    return content_hash([asked, {table: lake.version(table) for table in source_tables(lake)}])
