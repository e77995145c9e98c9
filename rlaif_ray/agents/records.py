"""Opinions at rest: one long Arrow table, a row for every time an analyst was asked, abstentions included."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rlaif_ray.core import Abstention, Claim, Opinion

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
