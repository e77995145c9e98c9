"""A trial counts once, the chain shows what was changed in it, drivers may write at once, and a vault is opened once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.ledger import Record, Trial, TrialLedger, _hash, _of_trial

DAYS = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]").astype("datetime64[us]")


def trial(config: str = "config-1", block: slice = slice(0, 5), data: str = "data-1", *, policy: str = "sac", level: float = 0.01) -> Trial:
    """Returns that rise by the bar from `level` on; the benchmark earns a thousandth a bar."""
    times = DAYS[block]
    net = level + np.arange(block.start, block.stop) / 1000
    where = f"{times[0]}/{times[-1]}"
    return Trial(policy, policy != "sac", config, config[:6], 1, data, where, times, net, np.full(len(times), 0.001))


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    return TrialLedger(str(tmp_path / "lake"))


def test_the_same_trial_counts_once(ledger: TrialLedger) -> None:
    assert (ledger.count(), ledger.verify(), ledger.records()) == (0, "", [])
    assert ledger.record([trial(), trial()]) == 1
    assert ledger.record([trial(), trial("config-2"), trial(data="data-2"), trial(block=slice(5, 10))]) == 3
    assert ledger.record([trial(level=7.0)]) == 0  # what it returned the first time stands
    assert (ledger.count(), ledger.count("data-1"), ledger.count("data-3")) == (4, 3, 0)
    assert [r["number"] for r in ledger.records()] == [1, 2, 3, 4]
    assert ledger.record([trial("rule-a", policy="momentum")]) == 1
    assert (ledger.count("data-1"), ledger.count("data-1", baselines=True)) == (3, 4)


def test_each_record_carries_the_hash_of_the_one_before(ledger: TrialLedger) -> None:
    ledger.record([trial()])
    ledger.record([trial("config-2"), trial("config-3")])
    records = ledger.records()
    assert [r["previous"] for r in records] == ["", records[0]["hash"], records[1]["hash"]]
    assert ledger.verify(head=records[1]["hash"]) == records[2]["hash"]


def test_the_ledger_lies_beside_the_lake_wherever_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ledgers = [TrialLedger(uri) for uri in ("~/lake", f"file://{tmp_path}/lake", str(tmp_path / "lake"))]
    assert [ledger.record([trial()]) for ledger in ledgers] == [1, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["lake"]


def test_returns_of_all_that_was_tried_on_the_same_bars(ledger: TrialLedger) -> None:
    """Two blocks of one configuration are joined in time; who was not tried on all of the bars is left out and counted."""
    ledger.record([trial(block=slice(5, 10)), trial("config-2", slice(0, 10), level=0.5), trial("rule-a", slice(0, 10), policy="momentum")])
    ledger.record([trial(), trial("config-3"), trial("config-4", slice(0, 10), "data-2")])
    tried = ledger.returns("data-1", DAYS[2:8])
    assert tried.names == ("sac config-1", "sac config-2", "momentum rule-a")
    assert tried.baseline.tolist() == [False, False, True]
    assert tried.families == ("config", "config", "rule-a")
    assert (tried.left_out, tried.net.shape) == (1, (6, 3))
    np.testing.assert_array_equal(tried.times, DAYS[2:8])
    np.testing.assert_allclose(tried.net[:, 0], 0.01 + np.arange(2, 8) / 1000, rtol=1e-15)
    np.testing.assert_allclose(tried.net[:, 1], 0.5 + np.arange(2, 8) / 1000, rtol=1e-15)
    assert (tried.benchmark == 0.001).all()
    nothing = ledger.returns("data-3", DAYS)
    assert (nothing.names, nothing.net.shape, nothing.benchmark.shape, nothing.left_out) == ((), (10, 0), (10, 0), 0)


def test_a_trial_without_returns_is_counted_and_left_out(ledger: TrialLedger) -> None:
    """What a sweep drew was walked on no test block: the search was that much wider, and there is nothing to correlate."""
    ledger.record([trial(block=slice(0, 10)), trial("drawn", slice(0, 10))])
    drawn = replace(trial("drawn"), test_block="validation", times=DAYS[:0], net=np.empty(0), benchmark=np.empty(0))
    assert [ledger.record([drawn, replace(drawn, config_hash="drawn-2")]) for _ in range(2)] == [2, 0]
    tried = ledger.returns("data-1", DAYS)
    assert (tried.names, tried.left_out, ledger.count("data-1")) == (("sac config-1", "sac drawn"), 1, 4)


Rows = list[Record]


def rewritten(ledger: TrialLedger, change: Callable[[Rows], Rows]) -> None:
    """The table as a forger leaves it."""
    table = DeltaTable(ledger.path).to_pyarrow_table()
    rows = change(table.sort_by("number").to_pylist())
    write_deltalake(ledger.path, pa.Table.from_pylist(rows, schema=table.schema), mode="overwrite")


def edited(rows: Rows) -> Rows:
    rows[1]["config_hash"] = "config-9"
    return rows


def forged(rows: Rows) -> Rows:
    """Edited, and its own hash made to fit."""
    rows[1]["config_hash"] = "config-9"
    rows[1]["hash"] = _hash(rows[1])
    return rows


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edited, "record 2 was edited"),
        (forged, "record 3 does not follow record 2"),
        (lambda rows: [rows[0], *rows[2:]], "record 2 is missing"),
        (lambda rows: [*rows, {**rows[3], "config_hash": "config-9"}], "a second record 4 was inserted|record 4 was edited"),
        (lambda rows: rows[1:], "record 1 is missing"),
    ],
)
def test_the_first_broken_link_is_named(ledger: TrialLedger, change: Callable[[Rows], Rows], says: str) -> None:
    ledger.record([trial(f"config-{k}") for k in range(4)])
    rewritten(ledger, change)
    for use in (ledger.verify, ledger.count, lambda: ledger.record([trial("config-5")])):
        with pytest.raises(DataError, match=says) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_an_end_that_was_cut_off_is_found_by_a_head_that_was_stamped(ledger: TrialLedger) -> None:
    ledger.record([trial(f"config-{k}") for k in range(4)])
    head = ledger.verify()
    rewritten(ledger, lambda rows: rows[:-1])
    ledger.verify()  # what is left is a whole chain
    with pytest.raises(DataError, match=f"ends with record 3 and has none of hash {head[:12]}"):
        ledger.verify(head)


def test_returns_that_were_changed_are_found_when_they_are_used(ledger: TrialLedger) -> None:
    ledger.record([trial(), trial("config-2")])
    rewritten(ledger, lambda rows: [rows[0], {**rows[1], "net": [0.9] * 5}])
    with pytest.raises(DataError, match="returns of record 2 were edited"):
        ledger.returns("data-1", DAYS[:5])


@pytest.mark.parametrize("where", ["*.parquet", "_delta_log/*.json"])
def test_a_torn_record_is_one_clear_line(ledger: TrialLedger, where: str) -> None:
    ledger.record([trial()])
    ledger.record([trial("config-2")])
    file = max(Path(ledger.path).glob(where), key=lambda f: f.stat().st_mtime_ns)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="is torn") as caught:
        ledger.count()
    assert "\n" not in str(caught.value)


WRITER = """
import sys, time
from pathlib import Path
from rlaif_ray.ledger import TrialLedger
from tests.test_ledger import trial
uri, name = sys.argv[1:]
Path(uri, name).touch()
while len(list(Path(uri).iterdir())) < 2:
    time.sleep(0.001)
ledger = TrialLedger(uri)
for k in range(15):
    ledger.record([trial(f"{name}-{k}"), trial(f"shared-{k}")])
"""


def test_two_drivers_that_write_at_once_leave_one_chain_with_every_trial_once(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], env={**os.environ, "PYTHONPATH": root}, cwd=root) for name in ("a", "b")]
    assert [w.wait(120) for w in writers] == [0, 0]
    tried = [r["config_hash"] for r in TrialLedger(str(tmp_path)).records()]
    assert sorted(tried) == sorted(f"{name}-{k}" for name in ("a", "b", "shared") for k in range(15))


def test_a_driver_that_was_late_reads_again_and_follows(ledger: TrialLedger) -> None:
    """Another driver commits between our reading of the chain's end and our commit: our first try must not stand."""
    seen: list[int] = []

    def late(records: Sequence[Record]) -> list[Record]:
        seen.append(len(records))
        if len(seen) == 1:
            TrialLedger(str(Path(ledger.path).parent)).record([trial("config-2")])
        return [_of_trial(trial("config-3"))]

    ledger.record([trial()])
    ledger._append(late)
    assert seen == [1, 2]
    assert [r["config_hash"] for r in ledger.records()] == ["config-1", "config-2", "config-3"]


def opened(ledger: TrialLedger, by: str, *, family: str = "family-1", again: bool = False) -> int:
    ledger.open_vault(family, "config-1", "data-1", "2020-01-01/2021-12-31", opened_by=by, again=again)
    return ledger.openings("data-1")


def test_a_family_opens_its_vault_once_and_breaks_it_after(ledger: TrialLedger) -> None:
    assert opened(ledger, "run-1") == 1
    assert opened(ledger, "run-1") == 1  # resumed
    with pytest.raises(ConfigError, match=r"has opened its vault before \(2020-01-01/2021-12-31, ledger record 1\)"):
        opened(ledger, "run-2")
    assert opened(ledger, "run-2", family="family-2") == 2
    assert opened(ledger, "run-2", again=True) == 3
    assert ledger.count(baselines=True) == 0  # to look is no trial; what is seen then is


def test_a_trial_says_what_it_returned() -> None:
    assert trial().returns_hash == trial("config-2").returns_hash != trial(level=0.02).returns_hash
    assert trial().returns_hash != replace(trial(), benchmark=np.zeros(5)).returns_hash
