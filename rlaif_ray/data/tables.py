"""The tables of the lake: what makes two rows one, how a table lies on disk, which columns it must have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from rlaif_ray.core import UTC

FACT_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "name": pl.String, "started": pl.Date, "unit": pl.String,
    "value": pl.Float64, "form": pl.String, "source_id": pl.String,
}  # fmt: skip
DOCUMENT_SCHEMA: dict[str, Any] = {
    "id": pl.String, "timestamp": UTC, "known_at": UTC, "kind": pl.String, "section": pl.String, "source": pl.String,
    "title": pl.String, "text": pl.String, "url": pl.String,
}  # fmt: skip
MACRO = "MACRO"  # the symbol of facts about no one: everybody's
MENTION_SCHEMA: dict[str, Any] = {"symbol": pl.String, "timestamp": UTC, "known_at": UTC, "id": pl.String}
# Rows that could not be used: why, and what they said.
QUARANTINE_SCHEMA: dict[str, Any] = {
    "id": pl.String, "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "reason": pl.String, "row": pl.String,
}  # fmt: skip
INGEST_SCHEMA: dict[str, Any] = {"id": pl.String, "timestamp": UTC, "known_at": UTC, "record": pl.String}
# What a text model says of a document, to each symbol that it names. `model` is its name and the hash of its weights, `words` how
# many there are, `vector` what it is compared by.
TEXT_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "id": pl.String, "kind": pl.String, "section": pl.String,
    "source": pl.String, "model": pl.String, "score": pl.Float32, "confidence": pl.Float32, "words": pl.Int32,
    "vector": pl.List(pl.Float32),
}  # fmt: skip
BUILD_SCHEMA: dict[str, Any] = {
    "symbol": pl.String, "timestamp": UTC, "known_at": UTC, "name": pl.String, "inputs": pl.String, "terms": pl.String,
    "rows": pl.Int64, "first": UTC, "last": UTC, "hash": pl.String, "absent": pl.List(pl.String),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """What the lake must know of a table.

    Parameters
    ----------
    keys : rows that agree in them say the same thing: the same values are skipped, others are a revision. Nulls agree.
    partition : one folder a symbol, or one a month of `known_at` (UTC).
    schema : column types in order; None where whoever writes first decides.
    versions : the source tells every version of a row, each with the `known_at` of its own (filings, vintages), so that one
        frame may hold several rows a key; else it tells what holds now, one row a key.
    """

    keys: tuple[str, ...] = ("symbol", "timestamp")
    partition: Literal["symbol", "month"] = "symbol"
    schema: Mapping[str, Any] | None = None
    versions: bool = False


# What a table's `timestamp` means: bars, the end of the interval; facts, the end of the period that the figure is about, or
# the midnight after an observation's date; documents and mentions, publication; opinions and their outcomes, the moment that
# the opinion was given as of (it is part of the id, and a key of its own so that a writer reads those moments alone); labels and
# reviews, when they were given. The schemas of the last four are those of the values that they hold: see `data.opinions`.
TABLES: dict[str, Table] = {
    "bars": Table(),
    "filings": Table(),
    "news": Table(),
    "facts": Table(("symbol", "name", "unit", "started", "timestamp"), schema=FACT_SCHEMA, versions=True),
    "documents": Table(("id",), "month", DOCUMENT_SCHEMA),
    "mentions": Table(("symbol", "id"), "month", MENTION_SCHEMA),
    "quarantine": Table(("id",), "month", QUARANTINE_SCHEMA),
    "ingests": Table(("id",), "month", INGEST_SCHEMA),
    "builds": Table(("symbol", "name"), "month", BUILD_SCHEMA),
    "opinions": Table(("timestamp", "id"), "month"),
    "outcomes": Table(("timestamp", "opinion_id"), "month"),
    "human_labels": Table(("id",), "month"),
    "human_reviews": Table(("id",), "month"),
}
_ACROSS = Table(partition="month")
_TEXT = Table(("symbol", "id"), schema=TEXT_SCHEMA)


def table(name: str) -> Table:
    """A known table; any other name (`features_*`) has one row a (symbol, timestamp), by symbol.

    Features that compare symbols (`features_cross_*`) are made date by date, and lie by month. What text models say
    (`text_*`) has one row a symbol and document.
    """
    if name.startswith("text_"):
        return _TEXT
    return TABLES.get(name, _ACROSS if name.startswith("features_cross_") else Table())


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
