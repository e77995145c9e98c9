"""Planted skill, not planted authors: the judge comes near who knows the generator, on dates that it has not seen.

Being right depends on the regime (A 70% in a trend, 45% in a chop; C the other way round; B always 50%) and good claims add
5 points. The Bayes rater prefers by the generator's own probabilities, on the same pairs.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from rlaif_ray.feedback.evidence import claims_skill, held_out, paired_gain
from rlaif_ray.feedback.intervals import Interval, clustered_interval, clusters_of
from rlaif_ray.feedback.raters import author_average, gaps, rewards_on, right
from rlaif_ray.feedback.reward_model import RewardModel
from tests.skill import COIN, HORIZON, World, settings, skill, verdict_scores

LEARNT = 400  # dates; 600 later ones are held out
DRAWN = {"resamples": 2000, "seed": 0}


@dataclass(frozen=True)
class Found:
    n_pairs: int
    short_of_bayes: Interval
    over_author_average: Interval
    over_equal_weights: Interval  # of the desk's verdict, nats


def found(world: World, model: RewardModel, bayes: np.ndarray) -> Found:
    """`bayes` (T,A,K): what the Bayes rater prefers by."""
    earlier, later = world.split(LEARNT)
    duels = later.take(later.rivals)
    groups = clusters_of(duels.opened_row, HORIZON)
    ours = right(gaps(rewards_on(model, world.context, world.opinions, duels), duels))
    best = right(gaps(bayes[duels.date, duels.asset], duels))
    average = author_average(world.outcomes, earlier)
    theirs = right(gaps(np.broadcast_to(average, (len(duels), 3)), duels))
    weighed, equal = verdict_scores(world, model, slice(LEARNT, None))
    return Found(
        len(duels), clustered_interval(best - ours, groups, **DRAWN), clustered_interval(ours - theirs, groups, **DRAWN),
        paired_gain(weighed, equal, world.outcomes.opened_row[LEARNT:], HORIZON, **DRAWN),
    )  # fmt: skip


def fit(world: World, *, masked: bool) -> RewardModel:
    earlier, _ = world.split(LEARNT)
    return RewardModel(settings(world, masked=masked)).fit(world.context, world.opinions, earlier)


def test_the_judge_is_within_two_points_of_the_generator() -> None:
    """By the upper end of the interval of Bayes less ours; the author average loses three points by the lower end of its own."""
    world = skill(0, dates=LEARNT + 600)
    f = found(world, fit(world, masked=False), world.chance)
    assert f.n_pairs >= 20_000
    assert f.short_of_bayes["high"] <= 0.02
    assert f.over_author_average["low"] >= 0.03
    assert f.over_equal_weights["low"] > 0.0


def test_with_the_author_masked_what_is_said_carries_the_skill() -> None:
    """The kinds of reasoning change hands with every question, so that who speaks says nothing: the same bounds hold."""
    world = skill(1, dates=LEARNT + 600, wandering=True)
    f = found(world, fit(world, masked=True), world.chance)
    assert f.n_pairs >= 20_000
    assert f.short_of_bayes["high"] <= 0.02
    assert f.over_author_average["low"] >= 0.03
    assert f.over_equal_weights["low"] > 0.0


@pytest.mark.slow
def test_with_nothing_but_the_quality_of_claims_to_go_by_it_is_near_who_goes_by_that() -> None:
    """Authors keep their kinds, and neither author nor kind is seen: the Bayes rater that sees no more prefers the better claim."""
    world = skill(2, dates=LEARNT + 600)
    f = found(world, fit(world, masked=True), world.good.astype(float))
    assert f.n_pairs >= 20_000 and f.short_of_bayes["high"] <= 0.02 and f.over_equal_weights["low"] > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_it_is_so_for_other_seeds(seed: int) -> None:
    for wandering in (False, True):
        world = skill(seed, dates=LEARNT + 600, wandering=wandering)
        f = found(world, fit(world, masked=wandering), world.chance)
        assert f.short_of_bayes["high"] <= 0.02 and f.over_author_average["low"] >= 0.03 and f.over_equal_weights["low"] > 0.0


def claims(seed: int, *, dates: int, names: int, members: int, epochs: int) -> bool:
    world = skill(100 + seed, dates=dates, names=names, in_trend=COIN, in_chop=COIN, quality=0.0)
    s = settings(world, members=members, epochs=epochs, seed=seed)
    return claims_skill(held_out(world.context, world.outcomes, world.opinions, world.pairs, s, min_pairs=200, resamples=1000, seed=seed))


def test_where_all_guess_nothing_is_claimed() -> None:
    assert sum(claims(seed, dates=120, names=6, members=2, epochs=6) for seed in range(20)) <= 1


@pytest.mark.slow
def test_where_all_guess_nothing_is_claimed_by_a_judge_of_full_size() -> None:
    assert sum(claims(seed, dates=400, names=25, members=5, epochs=30) for seed in range(20)) <= 1
