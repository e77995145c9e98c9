"""Where history lies: Delta tables under <uri>/<dataset>/<table>, partitioned by symbol, appended to and never updated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from pyarrow.fs import FileSelector, FileSystem, FileType

from rlaif_ray.core import KEYS, UTC
from rlaif_ray.data.asof import cut
from rlaif_ray.errors import DataError, MissingDataError, SchemaError, did_you_mean

Revision = Literal["latest", "first"]
RETRIES = 5
REVISION = "revision"
_ROW = ("symbol", "timestamp")


def as_decided(price_kind: str) -> Revision:
    """The revision of bars that a decision at each of them could have seen.

    A raw bar is what was first known: one restated years later would be unknown at its own moment, and so would every
    indicator that runs through it. Adjusted histories are rewritten by each event and were never point in time.
    """
    return "first" if price_kind == "raw" else "latest"


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

        A row whose (symbol, timestamp) is there with the same values is skipped. With other values it becomes a new
        revision, known at `revised_at`, unless it brings a later `known_at` of its own than the row that it revises;
        with `revised_at=None` (derived tables) its `known_at` stays as given.

        Parameters
        ----------
        frame : `symbol`, `timestamp`, `known_at` and values; the same columns as the table has.
        shard : name of the group of symbols, for the table's history.

        Each symbol is one app transaction: of two writers that touch a symbol at the same time the later one fails, reads
        what the other wrote and tries again, at most 5 times. Raises `SchemaError` for other columns, `DataError` for two
        rows on one key or when other writers win each time.
        """
        _check(table, frame)
        frame = frame.with_columns(pl.lit(0, pl.Int32).alias(REVISION))
        for _ in range(1 + RETRIES):
            try:
                handle = self._create_or_open(table, frame)
                self._same_schema(handle, table, frame)
                fresh = _news(_existing(handle, frame), frame, revised_at)
                if fresh.height:
                    _commit(handle, fresh, shard)
                return fresh.height
            except CommitFailedError:
                continue
        raise DataError(
            f"{self._path(table)}: other writers of the same symbols were first {RETRIES + 1} times; expected one writer a shard: "
            f"run one ingest at a time"
        )

    def read(
        self, table: str, symbols: Iterable[str] | None = None, version: int | None = None, *, as_of: dt.datetime | None = None,
        revision: Revision = "latest", start: dt.date | None = None, end: dt.date | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """One row a (symbol, timestamp), sorted by them.

        Parameters
        ----------
        version : the Delta version to read; None: the newest.
        as_of : leave out what became known later.
        revision : the latest of each row, or the first: what a decision at that bar could have seen.
        start, end : days kept, see `asof.cut`.
        """
        scan = cut(pl.scan_delta(self._open(table, version)), start, end)
        if symbols is not None:
            scan = scan.filter(pl.col("symbol").is_in(sorted(symbols)))
        if as_of is not None:
            scan = scan.filter(pl.col("known_at") <= as_of)
        rows = scan.collect().sort(*_ROW, REVISION)
        if (rows[REVISION] > 0).any():
            rows = rows.unique(subset=_ROW, keep="last" if revision == "latest" else "first", maintain_order=True)
        return rows.drop(REVISION)

    def version(self, table: str) -> int:
        """The newest Delta version of a table: where to find it again, not what it says."""
        return self._open(table).version()

    def tables(self) -> list[str]:
        """Names of the tables that have been committed, sorted."""
        system, root = FileSystem.from_uri(f"{self.uri}/{self.dataset}")
        entries = system.get_file_info(FileSelector(root, allow_not_found=True))
        return sorted(e.base_name for e in entries if e.type == FileType.Directory and DeltaTable.is_deltatable(self._path(e.base_name)))

    def _path(self, table: str) -> str:
        return f"{self.uri}/{self.dataset}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
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
            DeltaTable.create(self._path(table), Schema.from_arrow(frame.head(0).to_arrow().schema), mode="ignore", partition_by=["symbol"])
        return DeltaTable(self._path(table))

    def _same_schema(self, handle: DeltaTable, table: str, frame: pl.DataFrame) -> None:
        stored, given = dict(pl.scan_delta(handle).collect_schema()), dict(frame.schema)
        if stored != given:
            extra, lost = sorted(given.keys() - stored.keys()), sorted(stored.keys() - given.keys())
            other = {c: f"{given[c]} for {stored[c]}" for c in given.keys() & stored.keys() if given[c] != stored[c]}
            raise SchemaError(
                f"{self._path(table)} has other columns: unknown {extra}, missing {lost}, types {other}; "
                f"expected {list(stored)}: choose another data.dataset"
            )


def _check(table: str, frame: pl.DataFrame) -> None:
    missing = [k for k in KEYS if k not in frame.columns]
    if missing or REVISION in frame.columns:
        raise SchemaError(f"rows for {table!r} have columns {frame.columns}; expected {list(KEYS)} and values, without {REVISION!r}")
    twice = frame.filter(pl.struct(_ROW).is_duplicated())
    if twice.height:
        raise DataError(f"rows for {table!r} hold {twice['symbol'][0]!r} at {twice['timestamp'][0]} twice; expected one row a key")


def _existing(handle: DeltaTable, frame: pl.DataFrame) -> pl.DataFrame:
    """The latest revisions of the symbols and span that `frame` touches."""
    if not frame.height:
        return frame
    touched = pl.col("symbol").is_in(frame["symbol"].unique().sort().to_list()) & pl.col("timestamp").is_between(
        frame["timestamp"].min(), frame["timestamp"].max()
    )
    rows = pl.scan_delta(handle).filter(touched).collect()
    return rows.sort(*_ROW, REVISION).unique(subset=_ROW, keep="last", maintain_order=True)


def _news(stored: pl.DataFrame, frame: pl.DataFrame, revised_at: dt.datetime | None) -> pl.DataFrame:
    """Rows of `frame` that the table does not say yet, with their revision numbers."""
    if not stored.height:
        return frame
    values = [c for c in frame.columns if c not in (*KEYS, REVISION)]
    both = frame.drop(REVISION).join(stored, on=_ROW, how="left", suffix=":old", maintain_order="left")
    new = pl.col(REVISION).is_null()
    changed = pl.any_horizontal(pl.lit(False), *[pl.col(c).ne_missing(pl.col(f"{c}:old")) for c in values])
    told_later = pl.col("known_at") > pl.col("known_at:old")
    moment = pl.col("known_at") if revised_at is None else pl.when(told_later).then("known_at").otherwise(pl.lit(revised_at, UTC))
    return both.filter(new | changed).with_columns(
        pl.when(new).then("known_at").otherwise(moment).alias("known_at"), pl.col(REVISION).fill_null(-1) + 1
    ).select(frame.columns)  # fmt: skip


def _commit(handle: DeltaTable, fresh: pl.DataFrame, shard: str) -> None:
    number = handle.version() + 1
    write_deltalake(
        handle, fresh.sort(*_ROW).to_arrow(compat_level=pl.CompatLevel.oldest()), mode="append",
        writer_properties=WriterProperties(compression="ZSTD"),
        commit_properties=CommitProperties(
            custom_metadata={"shard": shard}, app_transactions=[Transaction(s, number) for s in fresh["symbol"].unique().sort()],
        ),
        # A run pins the version that it read: old log entries stay.
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
    )  # fmt: skip
