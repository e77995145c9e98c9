"""Opinions at rest: one long Arrow table, a row for every time an analyst was asked, abstentions included."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rlaif_ray.core import TRAITS, Abstention, Claim, Opinion, OpinionTable, Voice, code_of, traits_of
from rlaif_ray.errors import DataError

SCHEMA = pa.schema([
    ("as_of", pa.timestamp("us")), ("symbol", pa.string()), ("author", pa.string()), ("horizon_bars", pa.int32()),
    ("p_up", pa.float64()),  # null: abstained
    ("reason", pa.string()),  # why it abstained
    ("max_weight", pa.float64()), ("claims", pa.string()), ("narrative", pa.string()), ("prompt_hash", pa.string()),
    ("scores", pa.string()), ("origin", pa.string()), ("model", pa.string()), ("quantiles", pa.string()),
    ("round", pa.int32()), ("sample", pa.int32()),
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
        return moment, o.symbol, o.author, o.horizon_bars, None, o.reason, *[None] * 10
    claims = json.dumps([[c.feature, c.value, c.statement] for c in o.claims])
    scores = json.dumps(dict(o.scores)) if o.scores else None
    quantiles = json.dumps(o.quantiles) if o.quantiles else None
    said = o.p_up, None, o.max_weight, claims, o.narrative, o.prompt_hash, scores, o.origin, o.model, quantiles, o.round, o.sample
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
        quantiles = tuple((level, value) for level, value in json.loads(row["quantiles"] or "[]"))
        out.append(Opinion(*who, *said, row["origin"], row["model"], quantiles, row["round"], row["sample"]))
    return out


def dense(table: pa.Table, symbols: tuple[str, ...], authors: tuple[str, ...]) -> OpinionTable:
    """`OpinionTable.of` of a whole record at once, without a value an opinion: the same table, bit for bit."""
    horizons = table["horizon_bars"].unique().to_pylist()
    if len(horizons) > 1:
        raise DataError(f"opinions over {sorted(horizons)} bars do not go into one table; expected one horizon")
    as_of, row = np.unique(table["as_of"].to_numpy().astype("datetime64[us]"), return_inverse=True)
    spoke = np.isfinite(table["p_up"].to_numpy())
    said = table.filter(pa.array(spoke))
    columns = {name: said[name].to_pylist() for name in ("symbol", "author", "origin", "round", "sample", "prompt_hash", "quantiles")}
    who = list(zip(columns["author"], columns["origin"], columns["round"], columns["sample"], strict=True))
    voices = {key: Voice(*key) for key in dict.fromkeys(who)}
    if len({v.name for v in voices.values()}) < len(voices):
        raise DataError(f"one voice speaks by two origins: {sorted(voices)}; expected another author, round or sample for each")
    place, assets = {name: k for k, name in enumerate(authors)}, {s: a for a, s in enumerate(symbols)}
    k = np.array([place.get(voices[key].name, -1) for key in who], np.int64)
    heard = k >= 0
    strangers = sorted(set(columns["symbol"]) - set(symbols))
    if strangers:
        raise DataError(f"opinions on {', '.join(strangers[:3])}, which are not among the {len(symbols)} symbols of the table")
    at = row[spoke][heard], np.array([assets[s] for s in columns["symbol"]], np.int64)[heard], k[heard]
    codes = {text: code_of(text) for text in dict.fromkeys(columns["prompt_hash"])}
    texts = zip(said["narrative"].to_pylist(), said["claims"].to_pylist(), strict=True)
    shape = len(as_of), len(symbols), len(authors)
    p_up, prompts, traits = np.full(shape, np.nan), np.zeros(shape, np.uint64), np.full((*shape, len(TRAITS)), np.nan, np.float32)
    p_up[at] = said["p_up"].to_numpy()[heard]
    prompts[at] = np.array([codes[text] for text in columns["prompt_hash"]], np.uint64)[heard]
    traits[at] = np.array([traits_of(narrative, len(json.loads(claims))) for narrative, claims in texts]).reshape(-1, len(TRAITS))[heard]
    spread = [json.loads(q) if q else [] for q, there in zip(columns["quantiles"], heard.tolist(), strict=True) if there]
    levels = {tuple(level for level, _ in q) for q in spread if q}
    if len(levels) > 1:
        raise DataError(f"quantiles at {len(levels)} sets of levels do not go into one table; expected one")
    asked, quantiles = levels.pop() if levels else (), None
    if asked:
        quantiles = np.full((*shape, len(asked)), np.nan)
        quantiles[at] = [[value for _, value in q] or [np.nan] * len(asked) for q in spread]
    named = {voice.name: voice for voice in voices.values()}
    return OpinionTable(
        as_of, symbols, authors, p_up, horizons[0] if horizons else 0, tuple(named.get(name, Voice(name)) for name in authors), asked,
        quantiles, prompts, traits, TRAITS,
    )  # fmt: skip
