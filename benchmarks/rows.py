"""What a benchmark says, how it is timed and how it is printed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

REPEATS = 5
TURN_SECONDS = 0.2


@dataclass(frozen=True)
class Row:
    """One comparison; `ratio` is such that larger is better for us."""

    name: str
    ours: float
    peer_name: str
    peer: float
    ratio: float
    unit: str
    target: float | None  # of the ratio, where the project has set itself one
    note: str

    @classmethod
    def not_run(cls, name: str, ours: float, peer_name: str, unit: str, target: float | None) -> Row:
        """Ours alone, where the peer is not installed."""
        return cls(name, ours, peer_name, float("nan"), float("nan"), unit, target, "Peer not run: it is not installed.")

    @property
    def verdict(self) -> str:
        """A miss is said, never raised."""
        if self.target is None:
            return "no target"
        if self.ratio != self.ratio:
            return "not run"
        return "met" if self.ratio >= self.target else "MISSED"


def in_turn(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median CPU seconds of each, run A B A B after one warm run each.

    A turn repeats its work until it has lasted `TURN_SECONDS`: a shorter one would measure what the other left in the caches.
    """
    for work in (ours, peer):
        work()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(REPEATS):
        for work, times in zip((ours, peer), seconds, strict=True):
            times.append(_turn(work))
    return median(seconds[0]), median(seconds[1])


def _turn(work: Callable[[], object]) -> float:
    """CPU seconds a run, over as many as fill a turn."""
    runs, start, begun = 0, time.process_time(), time.perf_counter()
    while not runs or time.perf_counter() - begun < TURN_SECONDS:
        work()
        runs += 1
    return (time.process_time() - start) / runs


def own_time(ours: Callable[[], object]) -> float:
    """Median CPU seconds of ours, where there is no peer to take turns with."""
    ours()
    return median(_turn(ours) for _ in range(REPEATS))


def peak_mb(work: Callable[..., object], *arguments: object) -> float:
    """Largest resident memory of a process of its own that does `work`; NaN where the system does not tell."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_own_peak_mb, (work, *arguments))


def _own_peak_mb(work: Callable[..., object], *arguments: object) -> float:
    work(*arguments)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


def main(rows: Callable[[bool], list[Row]]) -> None:
    """The command line that every bench shares."""
    parser = argparse.ArgumentParser(description=rows.__doc__)
    parser.add_argument("--quick", action="store_true", help="less work for each timing: seconds in all")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    arguments = parser.parse_args()
    found = rows(arguments.quick)
    print(json.dumps([asdict(r) for r in found], indent=1) if arguments.json else table(found))


def table(rows: list[Row]) -> str:
    """As a Markdown table."""
    head = "| what | ours | peer | | ratio | target | |\n|---|---:|---|---:|---:|---:|---|\n"
    return head + "\n".join(
        f"| {r.name} ({r.unit}) | {_figure(r.ours)} | {r.peer_name} | {_figure(r.peer)} | {_ratio(r.ratio)} "
        f"| {'' if r.target is None else f'{r.target:g}'} | {r.verdict}. {r.note} |"
        for r in rows
    )


def _ratio(x: float) -> str:
    return f"{x:.2f}" if x < 2 else f"{x:.1f}"


def _figure(x: float) -> str:
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"
