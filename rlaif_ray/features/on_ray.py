"""Features of every symbol on the cluster: bars from the lake, one symbol a task, features back to the lake."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
import pyarrow as pa
import ray

from rlaif_ray.core import KEYS, Panel, content_hash
from rlaif_ray.data.bar_tables import PriceKind
from rlaif_ray.data.decided import bars_as_decided
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import MissingDataError, RlaifError
from rlaif_ray.features import technical
from rlaif_ray.features.catalog import CROSS_SECTION, FEATURES, TECHNICAL, computable, spec
from rlaif_ray.features.cross_section import cross_section

BARS = "bars"
TABLE, ACROSS = "features_technical", "features_cross_section"
_PASSED = pa.schema({
    "symbol": pa.string(), "problem": pa.binary(), "rows": pa.int64(), "added": pa.int64(), "names": pa.list_(pa.string()),
    "hash": pa.string(), "compared": pa.large_binary(),
})  # fmt: skip
_COMPARED = tuple(dict.fromkeys(spec(n).inputs[0] for n in CROSS_SECTION))


@dataclass(frozen=True)
class Computed:
    """What a pass over all symbols made."""

    names: tuple[str, ...]  # features that at least one symbol has, in the catalogue's order
    absent: tuple[str, ...]  # features that the source's columns do not allow
    rows: int  # symbol-bars that were computed
    added: int  # rows that the lake did not have yet, of both tables
    data_version: str  # hash of the features' content
    versions: dict[str, int]  # table -> the Delta version that holds them: where, not what


def compute(
    lake: Lake, symbols: Sequence[str], *, bars_version: int | None = None, price_kind: PriceKind = "raw", start: dt.date | None = None,
    end: dt.date | None = None,
) -> Computed:  # fmt: skip
    """Compute all features of `symbols` and append them to the lake.

    Pass one takes the table `bars` and writes `features_technical`, one symbol a block. Pass two compares the symbols at
    each moment and writes `features_cross_section`. Both tables have one fixed schema, the catalogue's: what a symbol's
    bars do not allow is null there. Computing again adds nothing.

    Parameters
    ----------
    symbols : the universe; it is what cross-sectional features compare with.
    bars_version : Delta version of `bars` to read; None: the newest.
    price_kind : what was done to the prices, which says how bars count that were restated; see `decided.bars_as_decided`.
    start, end : days of bars that count. Recursive indicators begin at the first of them.

    Raises the first symbol's error: `MissingDataError` where there are no bars, `DataError` for an impossible price.
    """
    blocks = ray.data.from_items([{"symbol": s} for s in symbols], override_num_blocks=len(symbols))
    one_symbol = partial(_one_symbol, lake=lake, bars_version=bars_version, price_kind=price_kind, start=start, end=end)
    done = blocks.map_batches(one_symbol, batch_size=1, batch_format="pyarrow").materialize()
    passed = done.select_columns(["symbol", "problem", "rows", "added", "names", "hash"]).take_all()
    for row in passed:
        if row["problem"]:
            raise pickle.loads(row["problem"])
    compared = done.select_columns(["compared"]).to_arrow_refs()
    added_across, names_across, hash_across = ray.get(_all_symbols.remote(lake, *compared))
    names = {n for row in passed for n in row["names"]} | set(names_across)
    stateless = [s.name for s in FEATURES if s.kind != "fact"]
    return Computed(
        tuple(n for n in stateless if n in names),
        tuple(n for n in stateless if n not in names),
        sum(row["rows"] for row in passed),
        sum(row["added"] for row in passed) + added_across,
        content_hash([sorted((row["symbol"], row["hash"]) for row in passed), hash_across]),
        {table: lake.version(table) for table in (TABLE, ACROSS)},
    )


def _one_symbol(
    batch: pa.Table, lake: Lake, bars_version: int | None, price_kind: PriceKind, start: dt.date | None, end: dt.date | None
) -> pa.Table:  # fmt: skip
    """One row in, one row out; the features go to the lake, those that are compared travel on as an Arrow stream.

    An error travels as a value, so that the driver raises that of the first symbol and not of the fastest.
    """
    symbol = batch["symbol"][0].as_py()
    try:
        bars = bars_as_decided(lake, [symbol], price_kind, bars_version, start=start, end=end)
        if not bars.height:
            raise MissingDataError(f"no bars of {symbol!r} in {lake.uri}/{lake.dataset} from {start} to {end}; ingest it first")
        features = technical.apply(Panel.of(bars))
    except RlaifError as error:
        return _row(symbol, problem=pickle.dumps(error))
    added = lake.append(TABLE, _whole(features.frame, TECHNICAL), symbol)
    compared = features.frame.select(*KEYS, *[c for c in _COMPARED if c in features.columns])
    return _row(
        symbol, rows=bars.height, added=added, names=features.columns, hash=content_hash(features.frame),
        compared=compared.write_ipc_stream(None).getvalue(),
    )  # fmt: skip


def _row(symbol: str, **values: object) -> pa.Table:
    return pa.Table.from_pylist([{"symbol": symbol, **values}], _PASSED)


@ray.remote
def _all_symbols(lake: Lake, *blocks: pa.Table) -> tuple[int, tuple[str, ...], str]:
    """Rows added, names and content hash of the cross-sectional features."""
    streams = [stream for block in blocks for stream in block["compared"].to_pylist()]
    panel = Panel(pl.concat([pl.read_ipc_stream(s) for s in streams], how="diagonal").sort("symbol", "timestamp"))
    features = cross_section(panel)
    added = lake.append(ACROSS, _whole(features.frame, CROSS_SECTION), "all")
    return added, computable(CROSS_SECTION, panel.columns), content_hash(features.frame)


def _whole(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The table's full schema: a column that these bars do not allow is null."""
    absent = [pl.lit(None, pl.Float32).alias(n) for n in names if n not in frame.columns]
    return frame.with_columns(absent).select(*KEYS, *names)
