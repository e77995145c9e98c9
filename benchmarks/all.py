"""Every bench of this folder, or those that are named, in turn, into RESULTS.md beside it: `python -m benchmarks.all [NAME ...]`."""

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
NOT_BENCHES = {"__init__", "all", "rows", "peers", "peer_work", "finrl_env"}
HEAD = """# Benchmarks

CPU time of one thread, median of five after a warm run, ours and the peer in turn, where a bench does not say otherwise.
"""
VERSIONS = ("numpy", "numba", "polars", "torch", "ray")


def main() -> None:
    """One section for each bench, that says where and when it ran; those that are not run again stand as they stood."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run; default: all")
    parser.add_argument("--quick", action="store_true", help="less work for each timing")
    asked = parser.parse_args()
    known = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHES)
    if unknown := set(asked.names) - set(known):
        parser.error(f"no bench {sorted(unknown)[0]!r}; expected some of {', '.join(known)}")
    results = HERE / "RESULTS.md"
    sections = {s.partition("\n")[0]: s for s in results.read_text().split("\n## ")[1:]} if results.exists() else {}
    for name in asked.names or known:
        bench = importlib.import_module(f"benchmarks.{name}")
        when = f"{machine()}{' Quick run.' if asked.quick else ''}"
        sections[name] = f"{name}\n\n{(bench.__doc__ or '').strip()}\n\n{when}\n\n{table(bench.rows(asked.quick))}\n"
        print(f"## {sections[name]}", flush=True)
        results.write_text("\n## ".join([HEAD, *(sections[k].rstrip("\n") + "\n" for k in known if k in sections)]))


def machine() -> str:
    """Processor, cores, versions and date, in one paragraph."""
    libraries = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {libraries}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
