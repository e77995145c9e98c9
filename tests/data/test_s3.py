"""A lake in a bucket: the same verbs and reads, and of two writers neither loses a commit. The environment says where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from rlaif_ray.cli import main
from rlaif_ray.data import lake as lake_module
from rlaif_ray.data.housekeeping import compact, status, verify
from rlaif_ray.data.lake import Lake, datasets
from rlaif_ray.errors import DataError
from rlaif_ray.ledger import Trial, TrialLedger
from tests.data.bars import write_csv
from tests.data.test_lake import LATER, day, document, rows
from tests.servers.s3 import BUCKET, s3_server

ROOT = Path(__file__).parents[2]
UP = [10.0 + k for k in range(30)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as where, pytest.MonkeyPatch.context() as env:
        for name, value in where.items():
            env.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.mark.slow
def test_a_set_comes_in_is_shown_checked_and_read(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own: the workers of its Ray must have the environment, too."""
    for symbol in ("A", "B"):
        write_csv(tmp_path / "in", symbol, UP)
    uri = f"{bucket}/verbs"
    words = ["ingest", "--data.type=csv", f"--data.path={tmp_path / 'in'}", f"--lake.uri={uri}", "--data.dataset=us", "--json"]
    twice = [sys.executable, "-c", f"from rlaif_ray.cli import main; print([main({words}), main({words})])"]
    done = subprocess.run(twice, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    first, again, codes = done.stdout.splitlines()
    assert codes == "[0, 0]" and first == again and json.loads(first)["rows"] == 60, done.stderr
    for verb, says in (("status", "2020-01-02 21:00"), ("verify", "2 tables of 1 datasets are whole"), ("compact", "no partition")):
        assert main(["data", verb, "--lake", uri]) == 0
        assert says in capsys.readouterr().out
    assert Lake(uri, "us").read("bars", ["B"])["close"].to_list() == UP
    assert Lake(uri, "us").version("bars") == 1  # the second time nothing was new


def test_revisions_months_and_any_name_of_a_symbol(bucket: str) -> None:
    lake = Lake(f"{bucket}/names", "set")
    assert lake.tables() == [] and datasets(lake.uri) == []
    odd = pl.concat([rows(symbol, [1.0, 2.0]) for symbol in ("^VIX", "B/2 [x]*", "a%41", "é")])
    assert lake.append("bars", odd, "0") == 8 and lake.append("bars", odd, "0") == 0
    assert lake.append("bars", odd.with_columns(pl.col("x") + 1.0), "0", revised_at=LATER) == 8
    assert lake.append("documents", pl.concat([document("a", day(3)), document("b", day(40))]), "0") == 2
    assert lake.read("bars", as_of=day(5)).equals(odd.sort("symbol", "timestamp")) and verify(lake) == []
    assert (lake.tables(), datasets(lake.uri)) == (["bars", "documents"], ["set"])


def test_many_files_become_few(bucket: str) -> None:
    lake = Lake(f"{bucket}/many", "set")
    for k in range(22):
        lake.append("bars", rows("A", [float(k)], first=k), "0")
    assert compact(lake) == {"bars": 22} and status(lake)["files"].to_list() == [1]
    assert lake.read("bars").height == 22 and lake.read("bars", version=3).height == 3 and verify(lake) == []


def test_a_stale_writer_of_the_same_symbol_fails_and_of_another_does_not(bucket: str) -> None:
    """The store puts a log entry only where there is none: else the later of two would replace what the first has said."""
    lake = Lake(f"{bucket}/stale", "set")
    lake.append("bars", rows("A", [1.0]), "0")
    stale_a, stale_b = (DeltaTable(f"{lake.uri}/set/bars") for _ in "AB")
    lake.append("bars", rows("A", [1.0, 2.0]), "0")
    revision = pl.lit(0, pl.Int32).alias("revision")
    with pytest.raises(CommitFailedError):
        lake_module._commit(stale_a, rows("A", [1.0, 2.0])[1:].with_columns(revision), "other")
    lake_module._commit(stale_b, rows("B", [5.0]).with_columns(revision), "0")
    assert lake.read("bars").equals(pl.concat([rows("A", [1.0, 2.0]), rows("B", [5.0])]))


def test_writers_at_once_lose_nothing(bucket: str) -> None:
    """Each brings days that all have and days of its own."""
    lake = Lake(f"{bucket}/race", "set")
    frames = [pl.concat([rows("A", [1.0] * 5), rows("A", [float(w)] * 3, first=10 + 3 * w)]) for w in range(3)]
    with ThreadPoolExecutor(3) as pool:
        added = list(pool.map(lambda frame: lake.append("bars", frame, "0"), frames))
    assert sorted(added) == [3, 3, 8] and lake.read("bars").equals(pl.concat(frames).unique().sort("symbol", "timestamp"))


def test_the_ledger_of_trials_lies_beside_it(bucket: str) -> None:
    uri = f"{bucket}/names"
    times = np.array(["2020-01-01", "2020-01-02"], "datetime64[us]")
    trials = [Trial(name, False, "c", "f", 0, "data", "block", times, np.array([0.1, 0.2]), np.zeros(2)) for name in ("p", "q")]
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(lambda trial: TrialLedger(uri).record([trial]), trials)) == 2
    ledger = TrialLedger(uri)
    assert ledger.record(trials) == 0 and ledger.count("data") == 2 and ledger.verify()
    assert ledger.returns("data", times).net.tolist() == [[0.1, 0.1], [0.2, 0.2]]


def test_a_bucket_that_is_not_there_is_one_line(bucket: str) -> None:
    with pytest.raises(DataError, match=r"s3://nowhere/set/bars cannot be read or written .*404 Not Found.*AWS_ variables") as caught:
        Lake("s3://nowhere", "set").append("bars", rows("A", [1.0]), "0")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
