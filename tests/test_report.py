"""What the page says of a run is true of it: notes follow from the data, and half a run is not served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray import artefacts, results
from rlaif_ray.core import OPEN, Cube
from rlaif_ray.errors import CheckpointError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Limits
from tests.laws import random_cube


def notes(cube: Cube, fill: Fill, max_weight: float = 0.5) -> list[str]:
    terms = Terms(CostModel(impact=0.5), fill, limits=Limits(max_weight=max_weight))
    return results.notes(cube, source="synthetic", terms=terms, analysts={}, trained_until=None)


def test_a_source_is_said_to_have_no_opens_only_where_it_has_none() -> None:
    cube = random_cube(np.random.default_rng(0), rows=50)
    assert notes(cube, "next_open") == []
    assert notes(cube, "next_close") == ["Decisions fill at the next close, as execution.fill asks."]
    prices = cube.prices.copy()
    prices[:, :, OPEN] = np.nan
    assert notes(replace(cube, prices=prices), "next_close") == ["The source has no opens: decisions fill at the next close."]


def test_models_of_a_run_that_was_stopped_while_it_kept_them_are_not_served(tmp_path: Path) -> None:
    """Live is kept last: without it the rest may be served in its place."""
    kept = tmp_path / "artefacts" / "fold=0"
    kept.mkdir(parents=True)
    (kept / artefacts.MANIFEST).write_text("{}")
    with pytest.raises(CheckpointError, match="it did not finish"):
        artefacts.load_all(tmp_path)
