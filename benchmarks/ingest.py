"""Ten million minute bars from CSV files to the lake, a second time, a day more, and cleaning: `python -m benchmarks.ingest`."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.rows import REPEATS, Row, in_turn, main
from rlaif_ray.core import UTC
from rlaif_ray.data.clean import BAR_SCHEMA, MOVES, OHLC, OUTLIER_SIGMAS, clean
from rlaif_ray.data.files import FileSource
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.sessions import schedule

ROOT = Path(__file__).parents[1]
PLAIN = """
import sys, polars as pl
pl.read_csv(sys.argv[1] + "/*.csv", try_parse_dates=True, include_file_paths="file").write_parquet(sys.argv[2], compression="zstd")
"""
GIB = 2**30


def rows(quick: bool) -> list[Row]:
    """Whole processes by the clock, from start to end; cleaning in CPU time."""
    symbols, bars = (8, 8 * 390) if quick else (500, 52 * 390)  # whole sessions: what lacks to one that is over would be filled
    with tempfile.TemporaryDirectory() as folder:
        csv, lake, work = f"{folder}/csv", f"{folder}/lake", symbols * bars
        _write(Path(csv), symbols, bars)
        ours = [sys.executable, "-m", "rlaif_ray.cli", "ingest", "--data.type=csv", f"--data.path={csv}", "--data.dataset=set",
                f"--lake.uri={lake}"]  # fmt: skip
        seconds, peak = _measured(ours)
        again = median(_measured(ours)[0] for _ in range(3))
        plain = median(_measured([sys.executable, "-c", PLAIN, csv, f"{folder}/plain.parquet"])[0] for _ in range(3))
        stored = Lake(lake, "set").read("bars")
        assert stored.height == pl.scan_parquet(f"{folder}/plain.parquet").select(pl.len()).collect().item() == work
        day = _append_s(Lake(lake, "set"), stored)
    files = f"{symbols} files, {work:,} minute bars"
    return [
        Row(
            f"ingest, {files}", work / seconds, "Polars read_csv + write_parquet", work / plain, plain / seconds, "rows/s", 0.5,
            f"{seconds:.0f} s for the process, Ray's start in it, every file hashed, checked, cleaned, kept with its revisions and read "
            f"back for its version. Once; the peer, on all cores, three times.",
        ),
        Row(
            "the same again, nothing changed", again, "the first time", seconds, seconds / again, "s", 20.0,
            "The files are hashed, nothing is parsed; most of it is Python's imports.",
        ),
        Row(
            f"peak memory of that ingest, {files}", peak / GIB, "the limit", 4.0, 4.0 * GIB / peak, "GiB", 1.0,
            "Proportional set size, summed over the driver, Ray's own processes and its workers, seen twice a second.",
        ),
        Row(
            f"a day more, {symbols} symbols x 390 minutes", day, "the limit", 1.0, 1.0 / day, "s", 1.0,
            f"One commit by the clock, onto {work:,} bars: median of {REPEATS} days.",
        ),
        _cleaning(10 * 390 if quick else 52 * 390),
    ]  # fmt: skip


def _write(folder: Path, symbols: int, bars: int) -> None:
    """A file a symbol: minutes of consecutive sessions, starts in UTC."""
    folder.mkdir()
    hours = schedule("XNYS", dt.date(2021, 1, 4), dt.date(2021, 12, 31)).select("open", "close")
    days = hours.with_columns(pl.all().dt.replace_time_zone(None)).to_numpy()
    starts = np.concatenate([np.arange(opened, closed, np.timedelta64(1, "m")) for opened, closed in days])[:bars]
    for k in range(symbols):
        rng = np.random.default_rng(k)
        close = np.round(100 * np.exp(np.cumsum(0.0005 * rng.standard_normal(bars))), 2)
        first = np.round(close * (1 + 0.0002 * rng.standard_normal(bars)), 2)
        pl.DataFrame({
            "timestamp": pl.Series(starts).dt.strftime("%Y-%m-%dT%H:%M:%SZ"), "open": first, "high": np.maximum(first, close) + 0.01,
            "low": np.minimum(first, close) - 0.01, "close": close, "volume": rng.integers(100, 10**5, bars),
        }).write_csv(folder / f"S{k:03d}.csv")  # fmt: skip


def _measured(words: list[str]) -> tuple[float, int]:
    """Seconds by the clock and peak bytes of a process and those below it."""
    began, peak = time.perf_counter(), 0
    single = {"POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "RAY_ADDRESS"}  # each as a user starts it
    environment = {k: v for k, v in os.environ.items() if k not in single}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(0.5)
        seconds = time.perf_counter() - began
        said.seek(0)
        assert process.returncode == 0, said.read().decode()[-2000:]
    return seconds, peak


def _tree_bytes(root: int) -> int:
    """Proportional set size of a process and all below it: what is shared is counted once."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    tree = {root}
    while below := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= below
    total = 0
    for pid in tree:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def _append_s(lake: Lake, stored: pl.DataFrame) -> float:
    """Median seconds by the clock of a commit of the session after the last, for every symbol; five sessions in turn."""
    last = stored["session"].max()
    sessions = schedule("XNYS", dt.date(2021, 1, 4), dt.date(2022, 3, 31)).filter(pl.col("session") > last).head(REPEATS)
    model = stored.group_by("symbol", maintain_order=True).head(390)
    seconds = []
    for session, opened in sessions.select("session", "open").iter_rows():
        minute = pl.int_range(1, pl.len() + 1).over("symbol") * dt.timedelta(minutes=1)
        ends = pl.lit(opened, UTC) + minute
        day = model.with_columns(timestamp=ends, known_at=ends, session=pl.lit(session)).select(*BAR_SCHEMA)
        began = time.perf_counter()
        assert lake.append("bars", day, "day", revised_at=dt.datetime.now(dt.UTC)) == day.height
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _cleaning(bars: int) -> Row:
    """One symbol's minutes, a hundredth of them missing."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "csv", 1, bars)
        read = FileSource(f"{folder}/csv", tz="UTC").read("S000")["bars"]
    lacking = read.filter(pl.Series(np.random.default_rng(0).random(read.height) > 0.01))
    frame = lacking.to_pandas()
    ours, quality = clean(lacking, calendar="XNYS")
    theirs, outliers = _pandas_clean(frame)
    assert np.array_equal(ours.select(*OHLC, "volume").to_numpy(), theirs[[*OHLC, "volume"]].to_numpy()) and quality["outliers"] == outliers
    assert ours["tradable"].to_list() == theirs["tradable"].to_list() and ours.height > lacking.height

    seconds, peer = in_turn(lambda: [clean(lacking, calendar="XNYS") for _ in range(10)], lambda: [_pandas_clean(frame) for _ in range(10)])
    a_second, theirs = 10 * lacking.height / seconds, 10 * lacking.height / peer
    note = f"Goal: 500,000 a core, {'met' if a_second >= 5e5 else 'MISSED'}. The peer is our reference of the same rules."
    return Row("cleaning, minutes of a symbol", a_second, "pandas", theirs, peer / seconds, "rows/s", None, note)


def _pandas_clean(bars: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rules of `clean` for minutes, as a pandas user writes them: bars on the session grid, and the outliers counted."""
    bars = bars.drop_duplicates().sort_values("timestamp")
    if bars["timestamp"].duplicated().any() or not (np.isfinite(bars[list(OHLC)]) & (bars[list(OHLC)] > 0)).all().all():
        raise ValueError("bad rows")
    days = schedule("XNYS", bars["session"].min().date(), bars["session"].max().date())
    grid = [pd.date_range(o, c, freq="min", inclusive="right") for o, c in days.select("open", "close").iter_rows()]
    ends = grid[0].append(grid[1:])
    ends = ends[(ends >= bars["timestamp"].iloc[0]) & (ends <= bars["timestamp"].iloc[-1])]
    out = bars.set_index("timestamp").reindex(ends)
    missing = out["symbol"].isna()
    out["close"] = out["close"].ffill()
    for column in ("open", "high", "low"):
        out[column] = out[column].where(~missing, out["close"])
    out["volume"] = out["volume"].where(~missing, 0.0)
    seen = out["volume"].cummax() > 0
    out["tradable"] = ~missing & ~((out["volume"] == 0) & seen)
    moves: Any = np.log(out["close"]).diff().abs()  # pyright: ignore[reportAttributeAccessIssue]  # pandas hands numpy its own kind
    night = pd.Series(ends.tz_convert("America/New_York").date, index=ends)
    night = night != night.shift()
    outliers = 0
    for alike in (night, ~night):
        some = moves[alike & (moves > 0)]
        outliers += int((some > OUTLIER_SIGMAS * 1.4826 * some.rolling(MOVES, min_periods=20).median().shift()).sum())
    return out, outliers


if __name__ == "__main__":
    main(rows)
