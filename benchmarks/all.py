"""Every bench of this folder, in turn; writes RESULTS.md beside it: `python -m benchmarks.all [--quick]`."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.rows import table

HERE = Path(__file__).parent
NOT_BENCHES = {"__init__", "all", "rows", "peers", "peer_work"}
VERSIONS = ("numpy", "numba", "polars", "torch", "ray")


def main() -> None:
    """One section for each bench, under a head that says where and when it ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less work for each timing")
    quick = parser.parse_args().quick
    sections = [f"# Benchmarks\n\n{machine()}{' Quick run.' if quick else ''}"]
    for name in sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHES):
        bench = importlib.import_module(f"benchmarks.{name}")
        sections.append(f"## {name}\n\n{(bench.__doc__ or '').strip()}\n\n{table(bench.rows(quick))}")
        print(sections[-1] + "\n")
    (HERE / "RESULTS.md").write_text("\n\n".join(sections) + "\n")


def machine() -> str:
    """Processor, cores, versions and date, in one paragraph."""
    libraries = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {libraries}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}. CPU time of one thread, median of five after a warm run, ours and the peer in turn."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
