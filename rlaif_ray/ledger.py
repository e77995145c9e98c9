"""The ledger of trials: what was tried on which data, what it returned, and who has opened a vault. Hash-chained, append-only.

One Delta table, `<lake>/trials`, shared by all runs. Every record carries its number, the hash of the record before it and
its own, so an edited, deleted or inserted record breaks the chain at a place that can be named. Record n + 1 is made only
where n is the last: a commit is create-if-absent of the next log entry (a hard link on a local disk or NFS, a conditional
put on S3, GCS and Azure), and an app transaction makes two that were made after the same record conflict; the later reads
again and tries again. A store without create-if-absent (an old S3 clone with AWS_S3_ALLOW_UNSAFE_RENAME) keeps whole
records, but of two drivers at the same moment one may lose its own. The chain shows what was changed inside it; who
rewrites all of it, or cuts off its end, is found out only by a head that was stamped elsewhere (`verdict.json` has one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pyarrow.dataset import Expression, field

from rlaif_ray.core import canonical_json
from rlaif_ray.errors import ConfigError, DataError

REPAIR = "restore it from a copy, or move the folder away and say that the count starts again"
RETRIES = 100  # each time that we lose, another driver's records are in
TRIAL, OPENING = "trial", "opening"
FACTS = ("kind", "policy", "baseline", "config_hash", "family", "seed", "data_version", "test_block", "returns_hash", "opened_by")
LINKS = ("number", "previous", "hash")
SERIES = ("times", "net", "benchmark")
SCHEMA = pa.schema(
    [("number", pa.int64()), ("previous", pa.string()), ("hash", pa.string())]
    + [(name, {"baseline": pa.bool_(), "seed": pa.int64()}.get(name, pa.string())) for name in FACTS]
    + [("times", pa.list_(pa.int64())), ("net", pa.list_(pa.float64())), ("benchmark", pa.list_(pa.float64()))]
)
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Trial:
    """One policy, judged on one test block. The same (policy, config_hash, data_version, test_block) again is no new trial.

    What was chosen among without a test block, a sweep's draws, has rows of another name there and no returns (T = 0).
    """

    policy: str
    baseline: bool  # a rule that is judged beside what is tried
    config_hash: str  # of what was tried: its config and what it did with it
    family: str  # the config's hash without its seed
    seed: int
    data_version: str
    test_block: str
    times: np.ndarray  # (T,) datetime64[us] bar ends
    net: np.ndarray  # (T,) simple returns after costs
    benchmark: np.ndarray  # (T,) of equal weight of the same names on the same terms

    @property
    def returns_hash(self) -> str:
        return _series_hash(self.times.astype("datetime64[us]").astype(np.int64), self.net, self.benchmark)


@dataclass(frozen=True, eq=False)
class Tried:
    """Everything that was tried on the same bars: the K columns over which SPA and StepM look for the best."""

    times: np.ndarray  # (T,)
    names: tuple[str, ...]  # (K,) policy and config hash
    families: tuple[str, ...]  # (K,)
    seeds: tuple[int, ...]  # (K,)
    baseline: np.ndarray  # (K,) bool
    net: np.ndarray  # (T,K) simple returns after costs
    benchmark: np.ndarray  # (T,K) of equal weight on each one's own terms
    left_out: int  # tried on this data, but not on all of these bars


class TrialLedger:
    """`lake_uri` is a folder that all drivers see, or a URI of an object store, as the lake's."""

    def __init__(self, lake_uri: str) -> None:
        root = lake_uri if "://" in lake_uri else str(Path(lake_uri).expanduser().absolute())
        self.path = f"{root}/trials"

    def record(self, trials: Sequence[Trial]) -> int:
        """Put the trials that are absent, in one commit; returns how many were. The same key again is none."""

        def absent(records: Sequence[Record]) -> list[Record]:
            seen, fresh = {_key(r) for r in records if r["kind"] == TRIAL}, {}
            for record in map(_of_trial, trials):
                if _key(record) not in seen:
                    fresh.setdefault(_key(record), record)
            return list(fresh.values())

        return len(self._append(absent))

    def open_vault(self, family: str, config_hash: str, data_version: str, vault: str, *, opened_by: str, again: bool) -> None:
        """Record that a configuration's family looks into a vault.

        Parameters
        ----------
        vault : its first day and the data's last, as text.
        opened_by : the run's own token: a run that is resumed has opened it already.
        again : go on although the family has opened it before. Else that is a `ConfigError`, and nothing is recorded.
        """

        def opening(records: Sequence[Record]) -> list[Record]:
            before = [r for r in records if r["kind"] == OPENING and r["family"] == family]
            if any(r["opened_by"] == opened_by for r in before):
                return []
            if before and not again:
                raise ConfigError(
                    f"this configuration has opened its vault before ({before[0]['test_block']}, ledger record {before[0]['number']}); "
                    f"a second look is no test: leave out --open-vault, or say --break-vault, and the result is stamped"
                )
            facts = {"kind": OPENING, "policy": "", "baseline": False, "config_hash": config_hash, "family": family, "seed": 0}
            where = {"data_version": data_version, "test_block": vault, "returns_hash": "", "opened_by": opened_by}
            return [{**facts, **where, **{name: [] for name in SERIES}}]

        self._append(opening)

    def openings(self, data_version: str) -> int:
        """How often the vault of that data was opened, by whatever configuration."""
        return sum(r["kind"] == OPENING and r["data_version"] == data_version for r in self.records())

    def records(self) -> list[Record]:
        """All records in order, without their returns. Raises `DataError` where the chain is broken."""
        return self._records()[1]

    def verify(self, head: str | None = None) -> str:
        """Check the chain from its first record; returns the hash of the last ("" where there is none).

        Parameters
        ----------
        head : the hash of a record that was stamped elsewhere, and so must be there still.

        Raises `DataError` that names the first broken link.
        """
        records = self.records()
        if head and head not in {r["hash"] for r in records}:
            raise DataError(
                f"the ledger {self.path} ends with record {len(records)} and has none of hash {head[:12]}: its end was cut off; {REPAIR}"
            )
        return records[-1]["hash"] if records else ""

    def count(self, data_version: str | None = None, *, baselines: bool = False) -> int:
        """Distinct trials, on one version of the data or on all; the baselines beside them where asked for."""
        kept = (r for r in self.records() if r["kind"] == TRIAL and (baselines or not r["baseline"]))
        return sum(data_version is None or r["data_version"] == data_version for r in kept)

    def returns(self, data_version: str, times: np.ndarray) -> Tried:
        """What everything that was tried returned on the bars `times` (T,), blocks of one configuration end to end.

        Who was not tried on each of these bars is left out and counted. Raises `DataError` for a record whose returns
        are not those that were recorded.
        """
        wanted = np.asarray(times, "datetime64[us]").astype(np.int64)
        tried: dict[tuple[str, str], list[Record]] = {}
        for r in self.records():
            if r["kind"] == TRIAL and r["data_version"] == data_version:
                tried.setdefault((r["policy"], r["config_hash"]), []).append(r)
        series, whole, columns = self._series(data_version), [], []
        for blocks in tried.values():
            for r in blocks:
                if r["returns_hash"] != _series_hash(*series[r["number"]]):
                    raise DataError(f"the ledger {self.path} is broken: the returns of record {r['number']} were edited; {REPAIR}")
            at, net, benchmark = (np.concatenate(parts) for parts in zip(*(series[r["number"]] for r in blocks), strict=True))
            if np.isin(wanted, at).all():
                order = np.argsort(at, kind="stable")
                place = order[np.searchsorted(at, wanted, sorter=order)]
                whole.append(blocks[0])
                columns.append((net[place], benchmark[place]))
        net, benchmark = np.array(columns, np.float64).reshape(-1, 2, len(wanted)).transpose(1, 2, 0)
        return Tried(
            wanted.astype("datetime64[us]"), tuple(f"{r['policy']} {r['config_hash']}" for r in whole), tuple(r["family"] for r in whole),
            tuple(r["seed"] for r in whole),
            np.array([r["baseline"] for r in whole], bool), net, benchmark, len(tried) - len(whole),
        )  # fmt: skip

    def _append(self, choose: Callable[[Sequence[Record]], list[Record]]) -> list[Record]:
        """Chain what `choose` makes of the records so far to their end. Where another driver was first, all over again."""
        for _ in range(1 + RETRIES):
            try:
                # An empty table first: a commit that also creates the table would not notice another that does.
                if not DeltaTable.is_deltatable(self.path):
                    DeltaTable.create(self.path, Schema.from_arrow(SCHEMA), mode="ignore")
                handle, records = self._records()
                fresh = _chained(choose(records), records[-1]["hash"] if records else "", len(records))
                if fresh:
                    assert handle is not None
                    _commit(handle, fresh)
                return fresh
            except CommitFailedError:
                continue
        raise DataError(f"{self.path}: other drivers were first {RETRIES + 1} times; run fewer at once, or go on with --resume")

    def _records(self) -> tuple[DeltaTable | None, list[Record]]:
        handle, table = self._read([*LINKS, *FACTS])
        return handle, _checked(table.sort_by("number").to_pylist(), self.path)

    def _series(self, data_version: str) -> dict[int, tuple[np.ndarray, ...]]:
        """Times, net and benchmark returns by record number."""
        _, table = self._read(["number", *SERIES], field("data_version") == data_version)
        columns = [[row.values.to_numpy(zero_copy_only=False) for row in table[name]] for name in SERIES]
        return dict(zip(table["number"].to_pylist(), zip(*columns, strict=True), strict=True))

    def _read(self, columns: Sequence[str], where: Expression | None = None) -> tuple[DeltaTable | None, pa.Table]:
        """The table as it stands and columns of it; None and no rows where there is no table."""
        try:
            if not DeltaTable.is_deltatable(self.path):
                return None, SCHEMA.empty_table().select(list(columns))
            handle = DeltaTable(self.path)
            return handle, handle.to_pyarrow_dataset().to_table(columns=list(columns), filter=where)
        except (DeltaError, pa.ArrowException, OSError) as error:
            said = str(error).strip().splitlines()[0]
            raise DataError(f"the ledger {self.path} is torn: {said}; {REPAIR}") from None


def _of_trial(trial: Trial) -> Record:
    return {
        "kind": TRIAL, "policy": trial.policy, "baseline": trial.baseline, "config_hash": trial.config_hash, "family": trial.family,
        "seed": trial.seed, "data_version": trial.data_version, "test_block": trial.test_block, "returns_hash": trial.returns_hash,
        "opened_by": "", "times": trial.times.astype("datetime64[us]").astype(np.int64), "net": trial.net, "benchmark": trial.benchmark,
    }  # fmt: skip


def _key(record: Record) -> tuple[str, ...]:
    return tuple(record[name] for name in ("policy", "config_hash", "data_version", "test_block"))


def _hash(record: Record) -> str:
    """Of the record's facts, its number and the record before it; its returns are in it by their own hash."""
    said = {name: record[name] for name in ("number", "previous", *FACTS)}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def _series_hash(*series: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.asarray(x, d).tobytes() for x, d in zip(series, ("<i8", "<f8", "<f8"), strict=True))).hexdigest()


def _chained(records: Iterable[Record], head: str, count: int) -> list[Record]:
    out = []
    for record in records:
        linked = {**record, "number": count + len(out) + 1, "previous": head}
        head = _hash(linked)
        out.append({**linked, "hash": head})
    return out


def _commit(handle: DeltaTable, fresh: list[Record]) -> None:
    write_deltalake(
        handle, pa.Table.from_pylist(fresh, schema=SCHEMA), mode="append", writer_properties=WriterProperties(compression="ZSTD"),
        commit_properties=CommitProperties(app_transactions=[Transaction("trials", fresh[-1]["number"])]),
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
    )  # fmt: skip


def _checked(records: list[Record], where: str) -> list[Record]:
    """The records, if each follows from the one before it and says what it said when it was made."""
    head = ""
    for expected, record in enumerate(records, start=1):
        number = record["number"]
        if number > expected:
            wrong = f"record {expected} is missing"
        elif number < expected:
            wrong = f"a second record {number} was inserted"
        elif record["previous"] != head:
            wrong = f"record {number} does not follow record {number - 1}: one of them was replaced"
        elif record["hash"] != _hash(record):
            wrong = f"record {number} was edited"
        else:
            head = record["hash"]
            continue
        raise DataError(f"the ledger {where} is broken: {wrong}; {REPAIR}")
    return records
