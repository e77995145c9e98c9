"""What could not be used, kept with the reason: rows that cannot be right, symbols that cannot be read."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping

import polars as pl

from rlaif_ray.data.tables import QUARANTINE_SCHEMA


def set_apart(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a `reason`, as `clean.sift` took them out, in `QUARANTINE_SCHEMA`: what they said as JSON."""
    told = rows.with_columns(row=pl.struct(pl.exclude("reason", "symbol", "timestamp", "known_at")).struct.json_encode())
    ids = [_id(*map(str, cells)) for cells in told.select("symbol", "timestamp", "reason", "row").iter_rows()]
    return told.with_columns(pl.Series("id", ids, pl.String)).select(QUARANTINE_SCHEMA.keys()).unique("id", maintain_order=True)


def not_read(failed: Mapping[str, str], at: dt.datetime) -> pl.DataFrame:
    """A row for each symbol (and why) that gave nothing at all; they carry the moment of the attempt."""
    rows = [{"id": _id(s, why), "symbol": s, "timestamp": at, "known_at": at, "reason": why, "row": None} for s, why in failed.items()]
    return pl.DataFrame(rows, schema=QUARANTINE_SCHEMA)


def _id(*words: str) -> str:
    """The same finding again is the same row."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
