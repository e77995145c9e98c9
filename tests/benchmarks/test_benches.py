from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

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


def test_ours_and_the_peer_run_in_turn(monkeypatch):
    order = []
    monkeypatch.setattr("benchmarks.rows.TURN_SECONDS", 0.0)
    in_turn(lambda: order.append("A"), lambda: order.append("B"))
    assert "".join(order) == "AB" * 6


def test_a_turn_repeats_short_work(monkeypatch):
    now, turns = [0.0], []

    def work(name, seconds):
        now[0] += seconds
        turns.append(name)

    monkeypatch.setattr("benchmarks.rows.time", SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: now[0]))
    assert in_turn(lambda: work("A", 0.06), lambda: work("B", 0.5)) == pytest.approx((0.06, 0.5))
    assert "".join(turns) == "AB" + "AAAAB" * 5
