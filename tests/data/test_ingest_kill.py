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
from tests.data.bars import write_csv

ROOT = Path(__file__).parents[2]
KILLS, SHARDS, SHARD_SYMBOLS, ROWS = 20, 5, 12, 20
INGESTS = f"""
import json, sys
from rlaif_ray import ray_runtime
ray_runtime.set_environment()
from rlaif_ray.cli import main
from rlaif_ray.data import on_ray
on_ray.SHARD_ROWS = {SHARD_SYMBOLS * ROWS}  # else a set this small is one commit
codes = [main(words) for words in json.loads(sys.argv[1])]
sys.exit(max(codes))
"""


def start(*ingests: list[str]) -> subprocess.Popen[bytes]:
    """One after the other, in a process group of their own, and Ray's processes with them."""
    return subprocess.Popen(
        [sys.executable, "-c", INGESTS, json.dumps(ingests)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def commits(lake: Path) -> int:
    """Of bars, after the one that made the table."""
    return len(list((lake / "set" / "bars" / "_delta_log").glob("*.json"))) - 1


def kill(ingest: subprocess.Popen[bytes], lake: Path, after: int, delay_s: float) -> None:
    """SIGKILL for the whole group, so long after so many commits; -1: after the start."""
    while after >= 0 and commits(lake) < after and ingest.poll() is None:
        time.sleep(0.005)
    time.sleep(delay_s)
    os.killpg(ingest.pid, signal.SIGKILL)
    ingest.wait()


@pytest.mark.slow
def test_killed_at_twenty_moments_and_run_again_it_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    for k in range(SHARDS * SHARD_SYMBOLS):
        write_csv(tmp_path / "in", f"S{k:03d}", [10.0 + k + i for i in range(ROWS)])
    words = ["ingest", "--data.type=csv", f"--data.path={tmp_path / 'in'}", "--data.dataset=set"]
    lakes = [tmp_path / f"lake{k}" for k in range(1 + KILLS)]
    into = [[*words, f"--lake.uri={lake}"] for lake in lakes]

    began = time.monotonic()
    assert start(into[0]).wait() == 0
    whole_s = time.monotonic() - began
    assert commits(lakes[0]) == SHARDS
    rng = random.Random(0)
    for k in range(1, 1 + KILLS):
        after = k % (SHARDS + 1) - 1
        kill(start(into[k]), lakes[k], after, rng.uniform(0.0, whole_s if after < 0 else 0.02))  # five commits take a tenth of a second
    left = [commits(lake) for lake in lakes[1:]]
    assert len(set(left)) > 3, f"the kills did not fall between commits: {left}"
    for lake in lakes[1:]:  # what a reader finds meanwhile
        assert verify(Lake(str(lake), "set")) == []

    assert start(*into[1:]).wait() == 0
    want = Lake(str(lakes[0]), "set")
    stored = want.read("bars", revision="all")
    for lake in lakes[1:]:
        found = Lake(str(lake), "set")
        assert found.read("bars", revision="all").equals(stored) and verify(found) == []
        scan = pl.scan_delta(found.delta("bars")).select("symbol", "timestamp", "revision").collect()
        assert scan.height == stored.height and (scan["revision"] == 0).all()
