"""What lies in a lake, whether it is whole, and fewer files for the same rows: `rlaif data status`, `verify`, `compact`."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError

from rlaif_ray.data.lake import MONTH, Lake, in_one_line, reached, writing
from rlaif_ray.data.receipts import changed
from rlaif_ray.data.revisions import REVISION
from rlaif_ray.data.tables import Table
from rlaif_ray.data.tables import table as table_of

MOST_FILES = 20  # of a partition, before it is worth writing anew


def status(lake: Lake) -> pl.DataFrame:
    """One row a table of the dataset.

    Returns
    -------
    table, symbols (null where it has none), first, last (`timestamp`), rows (keys), revisions (rows that revise one), gaps
    (bars of any size: days, not minutes, of which a symbol has no bar between its first and last while another has one; a
    session of which a few bars are missing is none; null for other tables), last_known (`known_at`), files, version (Delta).
    """
    with reached(f"{lake.uri}/{lake.dataset}"):
        tables = [_status(lake, name) for name in lake.tables()]
    return pl.concat(tables) if tables else pl.DataFrame()


def verify(lake: Lake) -> list[str]:
    """Read every file of a dataset and say what is wrong with it, one line each; none if all is as it must be.

    The Delta log can be read; each file that it names can be read whole and has the rows and columns that it claims; keys are
    there once a revision; revisions are numbered without a hole and known one after the other (facts, whose source dates
    every version itself, excepted); known tables have their schema. If all that holds: what the last ingest of bars brought still
    hashes to what it noted. Of facts and documents a value that was changed into another that can be read is not noticed.
    """
    found = [f"{lake.dataset}/{name}: {problem}" for name in lake.tables() for problem in _problems(lake, name)]
    return found or list(changed(lake))


def compact(lake: Lake) -> dict[str, int]:
    """Rewrite partitions with more than 20 files as few large ones. Table -> files that are no longer read.

    The rows stay as they are, and so do the old files: a run that pinned an older version reads it as before.
    """
    with reached(f"{lake.uri}/{lake.dataset}"):
        return {name: gone for name in lake.tables() if (gone := _compact(lake.delta(name)))}


def _status(lake: Lake, name: str) -> pl.DataFrame:
    handle = lake.delta(name)
    rows = pl.scan_delta(handle)
    columns = rows.collect_schema()
    none = pl.lit(None, pl.UInt32)
    totals = rows.select(
        table=pl.lit(name), symbols=pl.col("symbol").n_unique() if "symbol" in columns else none, first=pl.col("timestamp").min(),
        last=pl.col("timestamp").max(), rows=(pl.col(REVISION) == 0).sum(), revisions=(pl.col(REVISION) > 0).sum(),
        last_known=pl.col("known_at").max(),
    ).collect(engine="streaming")  # fmt: skip
    gaps = _gaps(rows.filter(pl.col(REVISION) == 0)) if {"session", "delisted"} <= set(columns) else None
    return totals.with_columns(
        gaps=pl.lit(gaps, pl.Int64), files=pl.lit(len(handle.file_uris()), pl.Int64), version=pl.lit(handle.version(), pl.Int64)
    )


def _gaps(bars: pl.LazyFrame) -> int:
    """Sessions that symbols lack inside their lives."""
    days = bars.filter(~pl.col("delisted")).select("symbol", "session").unique().collect(engine="streaming")
    sessions = days["session"].unique().sort()
    lives = days.group_by("symbol").agg(pl.len(), first=pl.col("session").min(), last=pl.col("session").max())
    inside = sessions.search_sorted(lives["last"], "right").cast(pl.Int64) - sessions.search_sorted(lives["first"]).cast(pl.Int64)
    return int((inside - lives["len"].cast(pl.Int64)).sum())


def _problems(lake: Lake, name: str) -> Iterator[str]:
    kind = table_of(name)
    try:
        handle = DeltaTable(f"{lake.uri}/{lake.dataset}/{name}")
        files = pl.DataFrame(handle.get_add_actions(flatten=True)).sort("path")
    except (OSError, DeltaError) as error:
        yield f"the Delta log cannot be read ({in_one_line(error)})"
        return
    stored = dict(pl.scan_delta(handle).collect_schema())
    if kind.schema is not None:
        expected = {**kind.schema, REVISION: pl.Int32, **({MONTH: pl.String} if kind.partition == MONTH else {})}
        wrong = [c for c in {**stored, **expected} if stored.get(c) != expected.get(c)]
        if wrong:
            yield f"columns {wrong} are {[stored.get(c) for c in wrong]}; expected {[expected.get(c) for c in wrong]}"
            return
    # Revisions of a month's rows may lie in another month.
    parts = files.partition_by("partition.symbol", maintain_order=True) if kind.partition == "symbol" else [files]
    for part in parts:
        yield from _part_problems(lake, name, kind, handle, part, stored)


def _part_problems(
    lake: Lake, name: str, kind: Table, handle: DeltaTable, part: pl.DataFrame, stored: dict[str, pl.DataType]
) -> Iterator[str]:  # fmt: skip
    keys: list[pl.DataFrame] = []
    folder = f"partition.{kind.partition}"
    # The log writes folders' names encoded once more than they are.
    uris = {uri.rpartition("/")[2]: uri for uri in handle.file_uris()}
    for path, claimed, where in part.select("path", "num_records", folder).iter_rows():
        try:
            rows = pl.read_parquet(uris[path.rpartition("/")[2]], hive_partitioning=False, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            yield f"{path} cannot be read ({in_one_line(error)})"
            continue
        if rows.height != claimed:
            yield f"{path} has {rows.height} rows; the log claims {claimed}"
        if dict(rows.schema) != {c: t for c, t in stored.items() if c != kind.partition}:
            yield f"{path} has columns {dict(rows.schema)}; the table has {stored}"
            continue
        keys.append(rows.with_columns(pl.lit(where).alias(kind.partition)).select(*kind.keys, "known_at", REVISION))
    if keys:
        yield from _revision_problems(pl.concat(keys), kind)


def _revision_problems(rows: pl.DataFrame, kind: Table) -> Iterator[str]:
    rows = rows.sort(*kind.keys, REVISION)
    twice = rows.filter(pl.struct(*kind.keys, REVISION).is_duplicated())
    if twice.height:
        yield f"{twice.height} rows share {kind.keys} and revision with another, first {twice.row(0)}"
    numbers = rows.with_columns(expected=pl.int_range(pl.len()).over(kind.keys))
    holes = numbers.filter(pl.col(REVISION) != pl.col("expected"))
    if holes.height and not twice.height:
        yield f"{holes.height} revisions are not numbered one after the other, first {holes.row(0)}"
    if not kind.versions:
        early = rows.filter(pl.col("known_at") < pl.col("known_at").shift().over(kind.keys))
        if early.height:
            yield f"{early.height} revisions are known before what they revise, first {early.row(0)}"


def _compact(handle: DeltaTable) -> int:
    (partition,) = handle.metadata().partition_columns
    counts = pl.DataFrame(handle.get_add_actions(flatten=True)).group_by(f"partition.{partition}").len()
    crowded = counts.filter(pl.col("len") > MOST_FILES)[f"partition.{partition}"].sort().to_list()
    if not crowded:
        return 0
    done = handle.optimize.compact(
        partition_filters=[(partition, "in", crowded)], writer_properties=writing(pl.scan_delta(handle).collect_schema()),
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
    )  # fmt: skip
    return int(done["numFilesRemoved"])
