"""Feature sets from lake to lake on Ray Data against the same work in one process: `python -m benchmarks.features_on_ray`.

By the clock. The one process computes and writes what a Ray task does, through the same function; once pinned to one core, once free.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.rows import Row, main
from rlaif_ray import ray_runtime

ray_runtime.set_environment()  # before Ray is imported

from rlaif_ray.core import UTC  # noqa: E402
from rlaif_ray.data.builds import Note  # noqa: E402
from rlaif_ray.data.clean import BAR_SCHEMA  # noqa: E402
from rlaif_ray.data.lake import Lake  # noqa: E402
from rlaif_ray.features.catalog import Catalog  # noqa: E402
from rlaif_ray.features.family import Tables  # noqa: E402
from rlaif_ray.features.on_ray import SHARD_ROWS, Wanted, build, make  # noqa: E402
from rlaif_ray.features.spread_on_ray import BARS, Terms  # noqa: E402

BARS_A_SYMBOL = 10_000
SETS = ("technical",)
ROOT = Path(__file__).parents[1]
FREE = {name: str(os.cpu_count()) for name in ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")}


def rows(quick: bool) -> list[Row]:
    """Rows of bars per second; Ray's workers are warm, as a process's imports are, and neither's start is counted."""
    sizes = (2, 8) if quick else (5, 20, 100, 500)
    with tempfile.TemporaryDirectory() as folder:
        _write(Lake(folder, "set"), max(sizes))
        ray_runtime.attach(num_cpus=os.cpu_count())
        _on_ray(folder, _symbols(max(sizes))[: 2 * (os.cpu_count() or 1)], "warm")
        found = [_row(folder, symbols) for symbols in sizes]
        ray_runtime.detach()
    return found


def _row(folder: str, symbols: int) -> Row:
    names, work = _symbols(symbols), symbols * BARS_A_SYMBOL
    seconds, version = _on_ray(folder, names, f"ray{symbols}")
    pinned, free = (_alone(folder, symbols, how) for how in ("pinned", "free"))
    # What it says lies in both lakes alike, or nothing was compared.
    mine, theirs = (Lake(folder, f"set-{d}").read("features_technical", names[:2]) for d in (f"ray{symbols}", f"pinned{symbols}"))
    assert mine.equals(theirs) and mine.height == 2 * BARS_A_SYMBOL
    columns = len(Catalog(SETS).names())
    size = sum(f.stat().st_size for f in (Path(folder) / f"set-ray{symbols}" / "features_technical").rglob("*.parquet"))
    split = ", ".join(f"{what} {100 * pinned[what] / pinned['seconds']:.0f}%" for what in ("read", "compute", "write"))
    note = (
        f"{columns} columns, {size / work:.0f} bytes a row on disk; {work / free['seconds']:,.0f} rows/s free on {os.cpu_count()} cores, "
        f"so {free['seconds'] / seconds:.2f} times that; of the pinned process {split}. Once each; content {version}."
    )
    target = 1.6 if work >= 5_000_000 else None
    name = f"{', '.join(SETS)} of {symbols} x {BARS_A_SYMBOL:,} bars, lake to lake"
    alone = pinned["seconds"]
    for how in ("ray", "pinned", "free"):
        shutil.rmtree(Path(folder) / f"set-{how}{symbols}" / "features_technical")
    return Row(name, work / seconds, "one process on one core", work / alone, alone / seconds, "rows/s", target, note)


def _on_ray(folder: str, names: Sequence[str], dataset: str) -> tuple[float, str]:
    lake = _beside(folder, dataset)
    start = time.perf_counter()
    made = build(lake, names, Catalog(SETS))
    return time.perf_counter() - start, made.data_version


def _beside(folder: str, dataset: str) -> Lake:
    """A dataset of its own over the same bars."""
    lake = Lake(folder, f"set-{dataset}")
    (Path(folder) / lake.dataset).mkdir()
    (Path(folder) / lake.dataset / BARS).symlink_to(Path(folder) / "set" / BARS)
    return lake


def _alone(folder: str, symbols: int, how: str) -> dict[str, float]:
    """The same in a process of its own."""
    _beside(folder, f"{how}{symbols}")
    command = [sys.executable, "-m", "benchmarks.features_on_ray", "--alone", how, folder, str(symbols)]
    environment = {**os.environ, **(FREE if how == "free" else {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class _Timed(Terms):
    """The parts of the work, by the clock."""

    spent: dict[str, float]

    def tables(self, *arguments, **named) -> Tables:
        return self._timed("read", super().tables, *arguments, **named)

    def compute(self, *arguments, **named) -> tuple[pl.DataFrame, tuple[str, ...]]:
        return self._timed("compute", super().compute, *arguments, **named)

    def append(self, *arguments, **named) -> int:
        return self._timed("write", super().append, *arguments, **named)

    def _timed(self, what: str, do, *arguments, **named):
        start = time.perf_counter()
        try:
            return do(*arguments, **named)
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + time.perf_counter() - start


def _work_alone(how: str, folder: str, symbols: int) -> None:
    if how == "pinned":
        os.sched_setaffinity(0, {0})
    lake, names = Lake(folder, f"set-{how}{symbols}"), _symbols(symbols)
    wanted: list[Wanted] = [(name, Note("", ""), None) for name in SETS]
    shard = SHARD_ROWS // BARS_A_SYMBOL
    warm = _beside(folder, f"{how}-warm{symbols}")
    make(Terms(warm, Catalog(SETS), {BARS: warm.version(BARS)}), [(names[0], wanted)])
    terms = _Timed(lake, Catalog(SETS), {BARS: lake.version(BARS)})
    object.__setattr__(terms, "spent", {})
    start = time.perf_counter()
    for k in range(0, symbols, shard):
        make(terms, [(s, wanted) for s in names[k : k + shard]])
    print(json.dumps({"seconds": time.perf_counter() - start, **terms.spent}))


def _symbols(n: int) -> list[str]:
    return [f"S{k:03d}" for k in range(n)]


def _write(lake: Lake, symbols: int) -> None:
    """Minute bars around the clock, random walks, without events."""
    rng, names = np.random.default_rng(0), _symbols(symbols)
    first, last = dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 2) + dt.timedelta(minutes=BARS_A_SYMBOL - 1)
    times = pl.datetime_range(first, last, "1m", time_zone="UTC", eager=True).cast(UTC)
    for k in range(0, symbols, 20):
        parts = []
        for name in names[k : k + 20]:
            close = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, BARS_A_SYMBOL)))
            open_ = close * np.exp(rng.normal(0, 3e-4, BARS_A_SYMBOL))
            swing = np.exp(np.abs(rng.normal(0, 5e-4, BARS_A_SYMBOL)))
            parts.append(pl.DataFrame({
                "symbol": name, "timestamp": times, "known_at": times, "session": times.dt.date(), "open": open_,
                "high": np.maximum(open_, close) * swing, "low": np.minimum(open_, close) / swing, "close": close,
                "volume": np.floor(rng.lognormal(8, 1, BARS_A_SYMBOL)) + 1.0, "dividend": 0.0, "split": 1.0, "tradable": True,
                "delisted": False,
            }, schema=BAR_SCHEMA))  # fmt: skip
        lake.append(BARS, pl.concat(parts), names[k])


if __name__ == "__main__":
    if "--alone" in sys.argv:
        _work_alone(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(rows)
