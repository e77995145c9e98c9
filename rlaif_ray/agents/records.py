"""Opinions at rest: one long Arrow table, a row for every time an analyst was asked, abstentions included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_ray.core import Abstention, Claim, Opinion, OpinionTable
from rlaif_ray.errors import DataError

SCHEMA = pa.schema([
    ("as_of", pa.timestamp("us")), ("symbol", pa.string()), ("author", pa.string()), ("horizon_bars", pa.int32()),
    ("p_up", pa.float64()),  # null: abstained
    ("reason", pa.string()),  # why it abstained
    ("max_weight", pa.float64()), ("claims", pa.string()), ("narrative", pa.string()), ("prompt_hash", pa.string()),
    ("scores", pa.string()), ("origin", pa.string()), ("model", pa.string()),
])  # fmt: skip


def to_arrow(opinions: Sequence[Opinion | Abstention]) -> pa.Table:
    """Rows in the order given. Claims and scores are JSON, floats in full precision."""
    if not opinions:
        return SCHEMA.empty_table()
    columns = zip(*map(_row, opinions), strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def _row(o: Opinion | Abstention) -> tuple[object, ...]:
    moment = int(o.as_of.astype("datetime64[us]").astype(np.int64))
    if isinstance(o, Abstention):
        return moment, o.symbol, o.author, o.horizon_bars, None, o.reason, *[None] * 7
    claims = json.dumps([[c.feature, c.value, c.statement] for c in o.claims])
    scores = json.dumps(dict(o.scores)) if o.scores else None
    said = o.p_up, None, o.max_weight, claims, o.narrative, o.prompt_hash, scores, o.origin, o.model
    return moment, o.symbol, o.author, o.horizon_bars, *said


def of_arrow(table: pa.Table) -> list[Opinion | Abstention]:
    """The inverse of `to_arrow`."""
    moments = table["as_of"].to_numpy().astype("datetime64[us]")
    out: list[Opinion | Abstention] = []
    for moment, row in zip(moments, table.to_pylist(), strict=True):
        who = row["author"], moment, row["symbol"], row["horizon_bars"]
        if row["p_up"] is None:
            out.append(Abstention(*who, row["reason"]))
            continue
        claims = tuple(Claim(*c) for c in json.loads(row["claims"]))
        said = row["p_up"], claims, row["narrative"], row["prompt_hash"], row["max_weight"], json.loads(row["scores"] or "{}")
        out.append(Opinion(*who, *said, row["origin"], row["model"]))
    return out


def at(table: pa.Table, as_of: np.datetime64) -> list[Opinion | Abstention]:
    """What was on the table at a moment: the opinions of the last date at or before it; none before the first."""
    moments = table["as_of"].to_numpy().astype("datetime64[us]")
    given = moments[moments <= as_of]
    return of_arrow(table.filter(pa.array(moments == given.max()))) if len(given) else []


def dense(table: pa.Table, symbols: tuple[str, ...], authors: tuple[str, ...]) -> OpinionTable:
    """The same as `OpinionTable.of(of_arrow(table), ...)`, without making an object of each row."""
    horizons = table["horizon_bars"].unique().to_pylist()
    if len(horizons) > 1:
        raise DataError(f"opinions over {sorted(horizons)} bars do not go into one table; expected one horizon")
    as_of, t = np.unique(table["as_of"].to_numpy().astype("datetime64[us]"), return_inverse=True)
    frame = pl.from_arrow(table.select(["symbol", "author", "p_up"]))
    assert isinstance(frame, pl.DataFrame)
    a, k = (
        frame[c].replace_strict({n: i for i, n in enumerate(names)}, default=-1, return_dtype=pl.Int64).to_numpy()
        for c, names in (("symbol", symbols), ("author", authors))
    )
    if (a < 0).any():
        raise DataError(f"an opinion speaks of {frame['symbol'][int(np.argmax(a < 0))]!r}, which is not among the {len(symbols)} symbols")
    p_up = np.full((len(as_of), len(symbols), len(authors)), np.nan)
    known = k >= 0
    p_up[t[known], a[known], k[known]] = frame["p_up"].fill_null(np.nan).to_numpy()[known]
    return OpinionTable(as_of, symbols, authors, p_up, horizons[0] if horizons else 0)


def write(table: pa.Table, path: Path) -> None:
    """One Parquet file, zstd."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def read(path: Path) -> pa.Table:
    return pq.read_table(path, schema=SCHEMA)
