"""Where history lies: Delta tables under <uri>/<dataset>/<table>, by symbol or month, appended to and never updated."""

from __future__ import annotations

import datetime as dt
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyarrow.fs import FileSelector, FileSystem, FileType

from rlaif_ray.data.revisions import REVISION, news
from rlaif_ray.data.tables import Table, cut
from rlaif_ray.data.tables import table as table_of
from rlaif_ray.errors import DataError, MissingDataError, SchemaError, did_you_mean

Revision = Literal["latest", "first", "all"]
RETRIES = 30  # with 5, three of eight writers of one symbol gave up
WAIT_S = 0.05  # about one commit
MONTH = "month"


@contextmanager
def reached(path: str) -> Iterator[None]:
    """What a store says in many lines (no room, no right, no bucket, no such store), as a `DataError` of one; lost races pass through."""
    try:
        yield
    except CommitFailedError:
        raise
    # A store that no one knows is an ArrowInvalid; over a file that was cut Polars panics.
    except (OSError, pa.ArrowInvalid, DeltaError, pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{path} cannot be read or written ({in_one_line(error)}); what was committed stands; expected room, rights and whole files "
            f"there: check lake.uri (of s3:// the AWS_ variables of the environment), or say `rlaif data verify`"
        ) from None


def in_one_line(error: BaseException) -> str:
    """Without the colours and trees that libraries draw, and without their stacks."""
    said = re.split(r"\n\s+0: ", str(error), maxsplit=1)[0]
    return " ".join(re.sub(r"\x1b\[\d+m|↳", "", said).split())[:300]


@dataclass(frozen=True)
class Lake:
    """The tables of one dataset. Picklable: holds two strings, opens tables where it is used.

    Parameters
    ----------
    uri : folder or object store (`s3://`, `gs://`); on a cluster one that all nodes reach.
    dataset : folder in it.
    """

    uri: str
    dataset: str

    def __post_init__(self) -> None:
        if "://" not in self.uri:
            # A worker's current folder is not the driver's.
            object.__setattr__(self, "uri", str(Path(self.uri).expanduser().absolute()))

    def append(self, table: str, frame: pl.DataFrame, shard: str, *, revised_at: dt.datetime | None = None) -> int:
        """Add what is new in `frame`, in one commit: all of it or nothing. Returns the rows added.

        A row whose keys (`tables.table`) are there with the same values is skipped. With other values it becomes a new
        revision, known at `revised_at`, unless it brings a later `known_at` of its own than the row that it revises;
        with `revised_at=None` (derived tables) its `known_at` stays as given. Facts may come in several versions at once,
        see `revisions.news`.

        Parameters
        ----------
        frame : the table's keys, `timestamp`, `known_at` and values; the same columns as the table has.
        shard : name of the group of symbols or of the span, for the table's history.

        Each symbol (or month of `timestamp`) is one app transaction: of two writers that touch it at the same time the
        later one fails, reads what the other wrote and tries again, at most 30 times. Raises `SchemaError` for other
        columns, `DataError` for two rows on one key, when other writers win each time, or for a store without room.
        """
        kind = table_of(table)
        _check_columns(table, kind, frame)
        if kind != Table() or not _ascending(frame):
            _check_keys(table, kind, frame)
            frame = frame.sort(_order(kind))
        for attempt in range(1 + RETRIES):
            try:
                with reached(self._path(table)):
                    handle = self._create_or_open(table, frame)
                    self._same_schema(handle, table, frame)
                    fresh = news(_touched(handle, frame, kind), frame, kind, revised_at)
                    if fresh.height:
                        _commit(handle, fresh, shard)
                    return fresh.height
            except CommitFailedError:
                # Whoever lost waits for a moment of its own choosing, longer each time: else the same ones meet again.
                time.sleep(random.uniform(0.0, WAIT_S * min(1 + attempt, 8)))
        raise DataError(
            f"{self._path(table)}: other writers of the same {kind.partition}s were first {RETRIES + 1} times; expected one writer a "
            f"shard: run one ingest at a time"
        )

    def read(
        self, table: str, symbols: Iterable[str] | None = None, version: int | None = None, *, as_of: dt.datetime | None = None,
        revision: Revision = "latest", start: dt.date | None = None, end: dt.date | None = None, columns: Iterable[str] | None = None,
        moments: tuple[dt.datetime, dt.datetime] | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """One row a key, sorted by the table's keys; what has no `timestamp` among them, by that first.

        Parameters
        ----------
        symbols : those kept; None: all, and the only choice for a table without symbols.
        version : the Delta version to read; None: the newest.
        as_of : leave out what became known later: exactly what the table said then.
        revision : the latest of each row; the first: what a decision at that bar could have seen; all of them, in order.
        start, end : days kept, see `tables.cut`.
        columns : values kept beside the keys; None: all.
        moments : first and last `timestamp` kept.
        """
        kind, handle = table_of(table), self.delta(table, version)
        with reached(self._path(table)):
            scan = cut(pl.scan_delta(handle), start, end)
            if moments is not None:
                scan = scan.filter(pl.col("timestamp").is_between(*moments))
            if symbols is not None:
                if "symbol" not in scan.collect_schema():
                    raise DataError(f"{table!r} has no symbols to choose by; expected symbols=None: who names whom is in 'mentions'")
                scan = scan.filter(pl.col("symbol").is_in(sorted(symbols)))
            if as_of is not None:
                scan = scan.filter(pl.col("known_at") <= as_of)
                if kind.partition == MONTH:
                    scan = scan.filter(pl.col(MONTH) <= f"{as_of.astimezone(dt.UTC):%Y-%m}")
            if columns is not None:
                kept = dict.fromkeys((*kind.keys, "timestamp", "known_at", *columns))
                scan = scan.select(*kept, pl.col(REVISION, *([MONTH] if kind.partition == MONTH else [])))
            if not _revised(handle):
                scan = scan.drop(REVISION).with_columns(pl.lit(0, pl.Int32).alias(REVISION))
            rows = scan.drop(MONTH, strict=False).collect()
        return _by_symbol(rows, kind, revision) if kind == Table() else _told(rows, kind, revision)

    def ask(self, table: str, question: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """What a question makes of a table's rows: all of them, with their `revision`. Only what it needs is read."""
        with reached(self._path(table)):
            return question(pl.scan_delta(self.delta(table))).collect(engine="streaming")

    def files(self, table: str, version: int | None = None) -> pl.DataFrame:
        """Path, rows and partition (`symbol` or `month`) of each file of a table: what it is made of, without reading it."""
        kind, handle = table_of(table), self.delta(table, version)
        log = pl.DataFrame(handle.get_add_actions(flatten=True))
        return log.select("path", rows="num_records", **{kind.partition: f"partition.{kind.partition}"})

    def version(self, table: str) -> int:
        """The newest Delta version of a table: where to find it again, not what it says."""
        return self.delta(table).version()

    def tables(self) -> list[str]:
        """Names of the tables that have been committed, sorted."""
        with reached(f"{self.uri}/{self.dataset}"):
            return [name for name in _folders(f"{self.uri}/{self.dataset}") if DeltaTable.is_deltatable(self._path(name))]

    def _path(self, table: str) -> str:
        return f"{self.uri}/{self.dataset}/{table}"

    def delta(self, table: str, version: int | None = None) -> DeltaTable:
        """The Delta table itself, with the columns that readers do not see (`revision`, `month`)."""
        with reached(self._path(table)):
            try:
                handle = DeltaTable(self._path(table))
            except TableNotFoundError:
                known = self.tables()
                hint = did_you_mean(table, known) if known else " Ingest first."
                raise MissingDataError(f"no table {table!r} in {self.uri}/{self.dataset}; it has {known}.{hint}") from None
            if version is not None:
                if not 0 <= version <= handle.version():
                    raise MissingDataError(f"{self._path(table)} has no version {version}; expected 0 to {handle.version()}")
                handle.load_as_version(version)
            return handle

    def _create_or_open(self, table: str, frame: pl.DataFrame) -> DeltaTable:
        # An empty table first: a commit that also creates the table would not notice another that does.
        if not DeltaTable.is_deltatable(self._path(table)):
            partition = table_of(table).partition
            empty = _filed(frame.clear().with_columns(pl.lit(0, pl.Int32).alias(REVISION)), partition)
            DeltaTable.create(self._path(table), Schema.from_arrow(empty.to_arrow().schema), mode="ignore", partition_by=[partition])
        return DeltaTable(self._path(table))

    def _same_schema(self, handle: DeltaTable, table: str, frame: pl.DataFrame) -> None:
        stored, given = dict(pl.scan_delta(handle).drop(MONTH, REVISION, strict=False).collect_schema()), dict(frame.schema)
        if stored != given:
            extra, lost = sorted(given.keys() - stored.keys()), sorted(stored.keys() - given.keys())
            other = {c: f"{given[c]} for {stored[c]}" for c in given.keys() & stored.keys() if given[c] != stored[c]}
            raise SchemaError(
                f"{self._path(table)} has other columns: unknown {extra}, missing {lost}, types {other}; "
                f"expected {list(stored)}: choose another data.dataset"
            )


def datasets(uri: str) -> list[str]:
    """Names of the datasets that lie in the lake at `uri`, sorted."""
    with reached(uri):
        return [name for name in _folders(Lake(uri, "").uri) if Lake(uri, name).tables()]


def _folders(uri: str) -> list[str]:
    """Names of the folders at `uri`, sorted; none where nothing is."""
    system, root = FileSystem.from_uri(uri)
    entries = system.get_file_info(FileSelector(root, allow_not_found=True))
    return sorted(entry.base_name for entry in entries if entry.type == FileType.Directory)


def _told(rows: pl.DataFrame, kind: Table, revision: Revision) -> pl.DataFrame:
    """The revisions of each row that were asked for, in order, without their numbers."""
    if revision == "all":
        return rows.sort(*_order(kind), "known_at", REVISION).drop(REVISION)
    if (rows[REVISION] > 0).any():
        keep = "last" if revision == "latest" else "first"
        rows = rows.sort("known_at", REVISION).unique(subset=kind.keys, keep=keep, maintain_order=True)
    return rows.sort(_order(kind)).drop(REVISION)


def _by_symbol(rows: pl.DataFrame, kind: Table, revision: Revision) -> pl.DataFrame:
    """`_told`, a symbol at a time. A file holds one symbol in order: what was read moves in pieces, and only where a symbol's
    pieces overlap are its rows sorted."""
    bare, starts = rows.drop(REVISION), np.cumsum([0, *(rows["timestamp"].chunk_lengths() if rows.height else ())])
    pieces: dict[str, list[slice]] = {}
    for first, end in pairwise(starts.tolist()):
        symbols = rows["symbol"][first:end]
        if (symbols != symbols[0]).any():
            return _told(rows, kind, revision)
        pieces.setdefault(symbols[0], []).append(slice(first, end))
    parts = []
    for _, of_symbol in sorted(pieces.items()):
        of_symbol.sort(key=lambda piece: rows["timestamp"][piece.start])
        part = pl.concat([bare[piece] for piece in of_symbol])
        moments = part["timestamp"].to_physical().to_numpy()
        parts.append(part if (moments[1:] > moments[:-1]).all() else _told(pl.concat([rows[p] for p in of_symbol]), kind, revision))
    return pl.concat(parts) if parts else bare


def _revised(handle: DeltaTable) -> bool:
    """Whether any row may revise another, by what the log says of the files."""
    most = pl.DataFrame(handle.get_add_actions(flatten=True))
    return f"max.{REVISION}" not in most.columns or bool((most[f"max.{REVISION}"].fill_null(1) > 0).any())


def _order(kind: Table) -> tuple[str, ...]:
    return kind.keys if "timestamp" in kind.keys else ("timestamp", *kind.keys)


def _check_columns(table: str, kind: Table, frame: pl.DataFrame) -> None:
    needed = dict.fromkeys((*kind.keys, "timestamp", "known_at"))
    if [k for k in needed if k not in frame.columns] or {REVISION, MONTH} & set(frame.columns):
        raise SchemaError(f"rows for {table!r} have columns {frame.columns}; expected {list(needed)} and values, without {REVISION!r}")
    if kind.schema is not None and dict(frame.schema) != dict(kind.schema):
        wrong = {c: frame.schema.get(c) for c in {**frame.schema, **kind.schema} if frame.schema.get(c) != kind.schema.get(c)}
        raise SchemaError(f"rows for {table!r} have {wrong}; expected {({c: kind.schema.get(c) for c in wrong})}")


def _ascending(frame: pl.DataFrame) -> bool:
    """Whether rows of (symbol, timestamp) are in order, and none of them twice: cheaper to see than to make so."""
    symbol, before = pl.col("symbol"), pl.col("symbol").shift()
    later = pl.col("timestamp") > pl.col("timestamp").shift()
    return bool(frame.select(((symbol > before) | ((symbol == before) & later)).slice(1).all()).item())


def _check_keys(table: str, kind: Table, frame: pl.DataFrame) -> None:
    once = (*kind.keys, "known_at") if kind.versions else kind.keys
    twice = frame.filter(pl.struct(once).is_duplicated())
    if twice.height:
        name, *rest = (f"{value!r}" if isinstance(value, str) else str(value) for value in twice.select(once).row(0))
        raise DataError(f"rows for {table!r} hold {name}{' at ' * bool(rest)}{', '.join(rest)} twice; expected one row a {once}")


def _touched(handle: DeltaTable, frame: pl.DataFrame, kind: Table) -> pl.DataFrame:
    """All revisions of the symbols (or ids) and span of `frame`."""
    scan = pl.scan_delta(handle).drop(MONTH, strict=False)
    for key in [k for k in ("symbol", "id") if k in kind.keys]:
        scan = scan.filter(pl.col(key).is_in(frame[key].unique().sort().implode()))
    if "timestamp" in kind.keys and frame.height:
        scan = scan.filter(pl.col("timestamp").is_between(frame["timestamp"].min(), frame["timestamp"].max()))
    return scan.collect()


def _filed(rows: pl.DataFrame, partition: str) -> pl.DataFrame:
    """Rows with the column that names their folder."""
    return rows.with_columns(pl.col("known_at").dt.strftime("%Y-%m").alias(MONTH)) if partition == MONTH else rows


def writing(schema: Mapping[str, pl.DataType]) -> WriterProperties:
    """How files are written: measures and moments hardly repeat, and a dictionary of them costs half the writing."""
    plain = ColumnProperties(dictionary_enabled=False)
    columns = {name: plain for name, dtype in schema.items() if dtype.is_float() or isinstance(dtype, pl.Datetime)}
    return WriterProperties(compression="ZSTD", column_properties=columns)


def _commit(handle: DeltaTable, fresh: pl.DataFrame, shard: str) -> None:
    partition, number = handle.metadata().partition_columns[0], handle.version() + 1
    # Two fetches of one document may know it from different moments, but agree on when it was published: there they meet.
    owned = fresh["timestamp"].dt.strftime("%Y-%m") if partition == MONTH else fresh[partition]
    write_deltalake(
        handle, _filed(fresh, partition).to_arrow(compat_level=pl.CompatLevel.oldest()), mode="append",
        writer_properties=writing(fresh.schema),
        commit_properties=CommitProperties(
            custom_metadata={"shard": shard}, app_transactions=[Transaction(part, number) for part in owned.unique().sort()],
        ),
        # A run pins the version that it read: old log entries stay.
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
    )  # fmt: skip
