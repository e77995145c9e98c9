"""The direct policy's excess over equal weight rises with the strength of the planted signal, and where there is none it claims none.

Beside it stands the optimiser of the same forecasts. A market takes about a minute on a core of its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.rl.signal_response import Response, Told

SEEDS = (20, 21, 22)  # markets on which no setting was chosen
WITHOUT_SIGNAL = tuple(range(100, 120))
POLICIES = ("direct", "lightgbm_optimiser")
# of a few of the hundreds of problems that the optimiser solves: its weights are good to less than the 1e-5 that it is held to
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")]


@cache
def answers(seed: int, strength: float) -> dict[str, Response]:
    """Of both policies on one market, made once for all tests that ask."""
    torch.set_num_threads(1)
    return Told.of(seed, strength).respond()


def mean_excess(policy: str, strength: float) -> float:
    return float(np.mean([answers(seed, strength)[policy].excess for seed in SEEDS]))


@pytest.mark.parametrize("policy", POLICIES)
def test_excess_rises_with_the_signal(policy: str) -> None:
    without, half, full = (mean_excess(policy, strength) for strength in (0.0, 0.5, 1.0))
    assert without < half < full


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_at_full_strength_there_is_a_claim(policy: str, seed: int) -> None:
    answer = answers(seed, 1.0)[policy]
    assert answer.claim, answer


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_signal_at_most_one_market_of_twenty_brings_a_claim(policy: str) -> None:
    claims = {seed: answer for seed in WITHOUT_SIGNAL if (answer := answers(seed, 0.0)[policy]).claim}
    assert len(claims) <= 1, claims


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert Told.of(SEEDS[0], 1.0).respond() == answers(SEEDS[0], 1.0)
