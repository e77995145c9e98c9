"""The study of the gate: what its markets are like, and, slowly, that the gate is as careful and as sharp as it says."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.backtest.calibration import BARS_PER_YEAR, TRIALS, Cell, Judged, judge, search
from rlaif_ray.backtest.calibration_on_ray import judged, looked_ahead
from rlaif_ray.backtest.peeking import HONEST, PEEKING


def test_a_search_is_correlated_fat_tailed_and_without_skill() -> None:
    found = [search(Cell(5), np.random.default_rng(n)) for n in range(20)]
    tried, first = [f.tried for f in found], found[0]
    x = np.concatenate(tried)
    assert first.tried.shape == first.late.shape == (5 * BARS_PER_YEAR, TRIALS) and first.strong.shape == (5 * BARS_PER_YEAR,)
    assert 0 < np.corrcoef(first.tried[:, 0], first.late[:, 0])[0, 1] < 1  # a bar late, tilts that last have changed a little
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    assert (z**4).mean() > 4  # 3 for a normal
    pairs = np.corrcoef(tried[0].T)[np.triu_indices(TRIALS, 1)]
    assert pairs.std() > 0.15  # independent trials of so many bars would have 0.03
    sharpes = np.array([t.mean(axis=0) / t.std(axis=0) * np.sqrt(BARS_PER_YEAR) for t in tried])
    assert abs(sharpes.mean()) < 3 * sharpes.mean(axis=1).std() / np.sqrt(len(tried))


def test_the_planted_trial_has_the_ratio_that_was_asked_for_over_the_stronger_benchmark() -> None:
    found = []
    for n in range(40):
        at = search(Cell(20, 1.0), np.random.default_rng(n))
        gap = at.tried[:, 0] - at.strong
        found.append(gap.mean() / gap.std() * np.sqrt(BARS_PER_YEAR))
    assert abs(np.mean(found) - 1.0) < 3 * np.std(found) / np.sqrt(len(found))


def test_clear_skill_is_promoted_and_none_is_not() -> None:
    assert all(judge(Cell(10, 2.5), resamples=200, seed=n) == Judged(True, True, ()) for n in range(3))
    assert sum(judge(Cell(5), resamples=200, seed=n).superior for n in range(10)) <= 2


def test_workers_change_nothing(ray_session: None) -> None:
    cells = [Cell(5), Cell(5, 1.0)]
    spread = judged(cells, 30, resamples=100, seed=3)
    assert [len(found) for found in spread] == [30, 30]
    assert [found[:5] for found in spread] == judged(cells, 5, resamples=100, seed=3)
    assert looked_ahead(30, seed=0) == dict.fromkeys(PEEKING, 30) | dict.fromkeys(HONEST, 0)


def share(found: list[Judged]) -> float:
    return sum(j.superior for j in found) / len(found)


@pytest.mark.slow
def test_the_gate_is_as_careful_and_as_sharp_as_it_says(ray_session: None) -> None:
    """2,000 searches without skill: at most one in twenty promoted. Sharpe 1.5 over 10 years: at least 85% found."""
    assert share(judged([Cell(10)], 2000, seed=0)[0]) <= 0.05
    assert share(judged([Cell(10, 1.5)], 500, seed=1)[0]) >= 0.85
