from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks.all import NOT_BENCHES, machine
from benchmarks.rows import Row, in_turn, table

NAMES = sorted(p.stem for p in Path(benchmarks.__path__[0]).glob("*.py") if p.stem not in NOT_BENCHES)


@pytest.mark.parametrize("name", NAMES)
def test_every_bench_offers_rows(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").rows)


def test_a_row_says_whether_its_target_was_met():
    rows = [Row("x", 20.0, "peer", 4.0, 5.0, "steps/s", target, "") for target in (None, 5.0, 6.0)]
    assert [r.verdict for r in rows] == ["no target", "met", "MISSED"]
    assert table(rows).count("\n") == 4
    assert "cores" in machine()


def test_ours_and_the_peer_run_in_turn():
    order = []
    in_turn(lambda: order.append("A"), lambda: order.append("B"))
    assert "".join(order) == "AB" * 6
