"""At its own scale the whole pipeline finds the planted signal, and finds nothing where there is none. Each run takes minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif_ray.config import load_config
from rlaif_ray.pipeline import run_pipeline

SEEDS = (10, 11, 12)  # markets on which no setting was chosen; 0, 1 and 2 were looked at


def edge(folder: Path, **knobs: str) -> dict[str, Any]:
    """The learned policy's excess over equal weight in one run at `signal-test`."""
    config = load_config("signal-test", None, {"lake.uri": str(folder / "lake"), **{k.replace("__", "."): v for k, v in knobs.items()}})
    return run_pipeline(config, str(folder / "run"))[1]["edges"]["direct"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_with_the_planted_signal_the_policy_claims_an_edge(ray_session: None, tmp_path: Path, seed: int) -> None:
    found = edge(tmp_path, seed=str(seed), data__seed=str(seed))
    assert found["claim"], found


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_signal_the_policy_claims_nothing(ray_session: None, tmp_path: Path, seed: int) -> None:
    found = edge(tmp_path, seed=str(seed), data__seed=str(seed), data__signal_strength="0")
    assert not found["claim"], found
