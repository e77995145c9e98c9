"""An ingest that is killed at any moment and run again gives the table of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from rlaif_ray.data.housekeeping import verify
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import SHARD_SYMBOLS
from tests.data.bars import write_csv

ROOT = Path(__file__).parents[2]
KILLS, SHARDS = 20, 5
AGAIN = "import json, sys; from rlaif_ray.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"


def start(*program: str) -> subprocess.Popen[str]:
    """In a process group of its own, and Ray's processes with it."""
    return subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def commits(lake: Path) -> int:
    """Of bars, after the one that made the table."""
    return len(list((lake / "set" / "bars" / "_delta_log").glob("*.json"))) - 1


def kill(ingest: subprocess.Popen[str], lake: Path, after: int, delay_s: float) -> None:
    """SIGKILL for the whole group, so long after so many commits; -1: after the start."""
    while after >= 0 and commits(lake) < after and ingest.poll() is None:
        time.sleep(0.005)
    time.sleep(delay_s)
    os.killpg(ingest.pid, signal.SIGKILL)
    ingest.communicate()


@pytest.mark.slow
def test_killed_at_twenty_moments_and_run_again_it_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    for k in range(SHARDS * SHARD_SYMBOLS):
        write_csv(tmp_path / "in", f"S{k:03d}", [10.0 + k + i for i in range(20)])
    words = ["ingest", "--data.type=csv", f"--data.path={tmp_path / 'in'}", "--data.dataset=set"]
    lakes = [tmp_path / f"lake{k}" for k in range(1 + KILLS)]
    into = [[*words, f"--lake.uri={lake}"] for lake in lakes]

    began = time.monotonic()
    undisturbed = start("-m", "rlaif_ray.cli", *into[0])
    undisturbed.communicate()
    whole_s = time.monotonic() - began
    assert undisturbed.returncode == 0 and commits(lakes[0]) == SHARDS
    rng = random.Random(0)
    for k in range(1, 1 + KILLS):
        after = k % (SHARDS + 1) - 1
        kill(start("-m", "rlaif_ray.cli", *into[k]), lakes[k], after, rng.uniform(0.0, whole_s if after < 0 else 0.3))
    left = [commits(lake) for lake in lakes[1:]]
    assert len(set(left)) > 3, f"the kills did not fall between commits: {left}"
    for lake in lakes[1:]:  # what a reader finds meanwhile
        assert verify(Lake(str(lake), "set")) == []

    again = start("-c", AGAIN, json.dumps(into[1:]))
    said, _ = again.communicate()
    assert json.loads(said.splitlines()[-1]) == [0] * KILLS
    want = Lake(str(lakes[0]), "set")
    stored = want.read("bars", revision="all")
    for lake in lakes[1:]:
        found = Lake(str(lake), "set")
        assert found.read("bars", revision="all").equals(stored) and verify(found) == []
        scan = pl.scan_delta(found.delta("bars")).select("symbol", "timestamp", "revision").collect()
        assert scan.height == stored.height and (scan["revision"] == 0).all()
