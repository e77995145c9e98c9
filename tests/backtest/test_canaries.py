"""Strategies that peek are caught, each time and in each way; their honest twins are not."""

from __future__ import annotations

import numpy as np

from rlaif_ray.backtest.canaries import looks_ahead
from rlaif_ray.backtest.peeking import ASKED, HONEST, PEEKING, a_market, caught, closes, long_the_best, scaled
from rlaif_ray.core import Cube


def test_peeking_is_caught_every_time_and_honest_decisions_are_left_alone() -> None:
    for seed in range(25):
        assert set(caught(PEEKING | HONEST, seed)) == set(PEEKING)


def test_what_moved_is_said() -> None:
    found = caught({"all on one": lambda c, row: np.eye(12)[int(closes(c)[row + 1, 0] * 1e6) % 12]}, 0)
    assert "up to 1 of equity: it knew what came" in found["all on one"]


def test_who_decided_in_bulk_on_the_future_is_caught_by_what_was_traded() -> None:
    """Asked again on a view that ends at its row, such a rule decides honestly: only its trades give it away."""
    cube = a_market(1)
    z = (closes(cube) - closes(cube).mean(axis=0)) / (closes(cube).std(axis=0) + 1e-9)
    traded = {row: {"bulk": long_the_best(z[row]), "honest": HONEST["last return"](cube, row)} for row in ASKED}

    def on_views(c: Cube, row: int) -> dict[str, np.ndarray]:
        return {"bulk": long_the_best(scaled(c, row, row + 1)), "honest": HONEST["last return"](c, row)}

    found = looks_ahead(on_views, cube, traded, seed=0)
    assert set(found) == {"bulk"} and "what was traded at" in found["bulk"]
