"""A disk that is full: one clear line, the last good version stays, and there is no more to do than to make room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.bars import write_csv

ROOT = Path(__file__).parents[2]
# Run in a mount namespace of its own, so that the small disk is nobody else's and goes with it.
APPEND = """
import os, sys
import numpy as np
from rlaif_ray.data.housekeeping import verify
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import DataError
from tests.data.test_lake import rows
disk, page = sys.argv[1], 4096
lake, rng, held = Lake(disk, "set"), np.random.default_rng(0), 10
lake.append("bars", rows("A", [1.0] * held), "0")
refused = 0
for pages in range(8):  # room for nothing, for part of a file, for the files but not for the entry in the log, for all
    left = os.statvfs(disk)
    with open(f"{disk}/padding", "wb") as padding:
        padding.truncate(0)
        padding.write(bytes(left.f_bavail * left.f_bsize - pages * page))
    more = rows("B", rng.random(400).tolist(), first=held)
    try:
        lake.append("bars", more, "0")
        held += more.height
    except DataError as error:
        assert "No space left on device" in str(error) and "expected room" in str(error) and "\\n" not in str(error), error
        refused += 1
    assert lake.read("bars").height == held and verify(lake) == []
    os.remove(f"{disk}/padding")
    held += lake.append("bars", more, "0")
    assert lake.read("bars").height == held and verify(lake) == []
print("refused", refused)
"""
INGEST = """
import os, sys
from rlaif_ray.cli import main
from rlaif_ray.data.lake import Lake
disk, source = sys.argv[1:]
words = ["ingest", "--data.type=csv", f"--data.path={source}", f"--lake.uri={disk}/lake", "--data.dataset=us"]
left = os.statvfs(disk)
with open(f"{disk}/padding", "wb") as padding:
    padding.write(bytes(left.f_bavail * left.f_bsize - 5 * 4096))
code = main(words)
os.remove(f"{disk}/padding")
print("code", code, "then", main(words), "rows", Lake(f"{disk}/lake", "us").read("bars").height, flush=True)
main(["data", "verify", "--lake", f"{disk}/lake"])
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk may be mounted; only root may, and not in every container."""
    (tmp_path / "disk").mkdir()
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no small disk can be mounted here ({tried.stderr.strip()})")
    return tmp_path / "disk"


def on_small_disk(disk: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    mounted = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$0" -c "$2" "$1" "${@:3}"'
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", mounted, sys.executable, disk, program, *words], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip


def test_an_append_is_refused_and_the_table_stays_whole(disk: Path) -> None:
    done = on_small_disk(disk, APPEND)
    assert done.returncode == 0, done.stderr
    refused = int(done.stdout.split()[-1])
    assert 3 <= refused < 8


@pytest.mark.slow
def test_an_ingest_says_so_and_works_again_once_there_is_room(disk: Path, tmp_path: Path) -> None:
    for symbol in ("A", "B", "C"):
        write_csv(tmp_path / "in", symbol, [10.0 + k for k in range(30)])
    done = on_small_disk(disk, INGEST, str(tmp_path / "in"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "No space left on device" in lines[0] and "expected room" in lines[0], done.stderr
    assert "code 2 then 0 rows 90" in done.stdout and "tables of 1 datasets are whole" in done.stdout, done.stdout
