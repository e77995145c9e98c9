"""Arms held against each other on dates that none has seen: what is found, what is not, and what an abstention counts for."""

import numpy as np
import pytest

from rlaif_ray.feedback.contest import Block, challenge, rank_ic, standing

DATES, ASSETS = 150, 8


def block_of(seed: int, dates: int = DATES) -> Block:
    rng = np.random.default_rng(seed)
    residual = 0.02 * rng.standard_normal((dates, ASSETS))
    there = np.ones(residual.shape, bool)
    return Block(5 * np.arange(dates), 5, residual, np.full(residual.shape, 0.5), there)


def right(block: Block, share: float, seed: int) -> np.ndarray:
    """Verdicts that name the true side as often as stated, all with the same confidence."""
    rng = np.random.default_rng(seed)
    true = rng.random(block.residual.shape) < share
    return np.where(true == (block.residual > 0), 0.6, 0.4)


def test_a_score_is_by_hand() -> None:
    residual = np.array([[0.01, -0.01, 0.01, np.nan]])
    block = Block(np.array([0]), 5, residual, np.full((1, 4), 0.5), np.array([[True, True, False, True]]))
    score = block.score(np.array([[0.6, np.nan, 0.9, 0.7]]))
    assert np.isclose(score[0, 0], np.log(0.6 / 0.5))
    assert score[0, 1] == 0.0  # the desk spoke, this arm abstained: it added nothing
    assert np.isnan(score[0, 2]) and np.isnan(score[0, 3])  # nobody spoke; not closed


def test_the_better_challenger_is_kept_and_the_worse_is_not() -> None:
    block = block_of(0)
    good, fair = right(block, 0.6, 1), right(block, 0.5, 2)
    won = challenge(good, fair, block, alpha=0.05, resamples=1000, seed=0)
    lost = challenge(fair, good, block, alpha=0.05, resamples=1000, seed=0)
    assert won.kept and won.gain["low"] > 0 and won.reason.startswith("kept")
    assert not lost.kept and np.isclose(lost.gain["value"], -won.gain["value"]) and lost.reason.startswith("not kept")


def test_one_that_says_the_same_has_nothing_to_test() -> None:
    block = block_of(3)
    same = challenge(right(block, 0.6, 1), right(block, 0.6, 1), block, alpha=0.05, resamples=200, seed=0)
    assert not same.kept and same.p_value is None and "nothing to test" in same.reason and same.gain["value"] == 0.0


def test_too_few_dates_keep_the_judge_in_office() -> None:
    block = block_of(4, dates=6)
    assert not challenge(right(block, 1.0, 1), right(block, 0.5, 2), block, alpha=0.05, resamples=200, seed=0).kept


@pytest.mark.parametrize("alpha", [0.1])
def test_challengers_without_skill_are_kept_about_as_often_as_alpha(alpha: float) -> None:
    kept = 0
    for seed in range(150):
        block = block_of(1000 + seed, dates=60)
        kept += challenge(right(block, 0.5, seed), right(block, 0.5, 500 + seed), block, alpha=alpha, resamples=400, seed=seed).kept
    assert 4 <= kept <= 26  # 150 draws at 0.1: 15 +- 3 standard deviations of 3.7


def test_rank_correlation_is_by_hand_and_needs_five_names() -> None:
    residual = np.array([[0.01, 0.02, 0.03, 0.04, 0.05], [0.01, 0.02, 0.03, 0.04, np.nan], [0.01, 0.02, 0.03, 0.04, 0.05]])
    p_up = np.array([[0.1, 0.2, 0.3, 0.5, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5], [0.5] * 5])
    ic = rank_ic(p_up, residual)
    assert np.isclose(ic[0], 0.9) and np.isnan(ic[1]) and np.isnan(ic[2])


def test_a_standing_counts_what_was_said() -> None:
    block = block_of(5)
    p_up = right(block, 0.7, 1)
    p_up[:10] = np.nan
    found = standing(p_up, block, resamples=200, seed=0)
    assert found["n_judged"] == DATES * ASSETS and found["n_abstained"] == 10 * ASSETS
    assert 0.66 < found["hit_rate"]["value"] < 0.74 and found["score"]["low"] > 0 and found["rank_ic"]["low"] > 0
