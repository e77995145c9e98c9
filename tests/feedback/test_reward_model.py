"""The reward model finds skill that depends on context, finds none in noise, and learns from closed pairs only."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlaif_ray.agents.debate import pool
from rlaif_ray.errors import CheckpointError, DataError, NotFittedError
from rlaif_ray.feedback.context import CONTEXT, context_features
from rlaif_ray.feedback.evidence import clustered_interval, held_out, split_held_out
from rlaif_ray.feedback.outcomes import close, judge
from rlaif_ray.feedback.preferences import pairs
from rlaif_ray.feedback.reward_model import EqualWeights, RewardModel, Settings, fit_judge, load_judge, weigh_with
from tests.desk import ROSTER, Planted, dense, desk_cube, planted
from tests.laws import assert_apply, assert_fit

TREND, CHOP = (0.70, 0.50, 0.45), (0.45, 0.50, 0.70)  # A, B, C: A and C are equally good on average
SETTINGS = Settings(("A", "B", "C"), ("trend",))


def shows_skill(fair: Mapping[str, Any]) -> bool:
    """Whether one held-out result, by itself, lies above both chance and the author-average baseline. Looking often makes it likelier."""
    return fair["accuracy"] is not None and bool(fair["accuracy"]["low"] > 0.5 and fair["gain"]["low"] > 0.0)


def judged(world: Planted, settings: Settings = SETTINGS, seed: int = 0) -> dict:
    table = pairs(world.outcomes, tie=0.01)
    return held_out(world.context, world.outcomes, world.p_up, table, settings, min_pairs=200, resamples=1000, seed=seed)


def gain_over_equal(world: Planted, settings: Settings = SETTINGS) -> dict[str, float]:
    """Score of the weighed verdict less that of equal weights, on the dates held out."""
    earlier, later = split_held_out(pairs(world.outcomes, tie=0.01))
    model = RewardModel(settings).fit(world.context, world.p_up, earlier)
    unseen = np.unique(later.date)
    p_up, out = world.p_up[unseen], world.outcomes
    both = np.stack([pool(p_up, w) for w in (model.weights(world.context[unseen], p_up), np.ones_like(p_up))], axis=-1)
    score, _ = judge(both, out.residual[unseen], out.climatology[unseen])
    gain = score[..., 0] - score[..., 1]
    return clustered_interval(gain.reshape(-1), np.repeat(unseen, gain.shape[1]), resamples=1000, seed=0)


def test_skill_that_depends_on_context_is_found_on_unseen_dates() -> None:
    world = planted(0, TREND, CHOP)
    fair = judged(world)
    assert shows_skill(fair) and fair["gain"]["value"] > 0.03
    assert gain_over_equal(world)["low"] > 0


def test_the_reward_of_one_author_turns_with_the_context() -> None:
    world = planted(1, TREND, CHOP)
    model = RewardModel(SETTINGS).fit(world.context, world.p_up, pairs(world.outcomes, tie=0.01))
    said = np.full((2, 3), 0.6)
    trend, chop = model.weights(np.array([[1.0], [-1.0]]), said)
    assert trend[0] > 0.6 > 0.4 > trend[2] and chop[2] > 0.6 > 0.4 > chop[0]


def test_who_is_always_better_is_found_and_so_is_the_author_average() -> None:
    fair = judged(planted(2, (0.7, 0.5, 0.3), (0.7, 0.5, 0.3)))
    assert fair["accuracy"]["low"] > 0.5 and abs(fair["gain"]["value"]) < 0.02


def test_with_the_author_masked_the_content_still_counts() -> None:
    """Confidence carries the skill: the bolder of two is right more often."""
    world = planted(3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    up = world.outcomes.residual > 0
    bold = np.random.default_rng(3).random(world.p_up.shape) < 0.5
    right = np.random.default_rng(4).random(world.p_up.shape) < np.where(bold, 0.75, 0.4)
    p_up = np.where(right == up[..., None], 0.5 + 0.5 * np.where(bold, 0.3, 0.1), 0.5 - 0.5 * np.where(bold, 0.3, 0.1))
    score, _ = judge(p_up, world.outcomes.residual, world.outcomes.climatology)
    fair = judged(replace(world, p_up=p_up, outcomes=replace(world.outcomes, score=score)), replace(SETTINGS, mask_author=True))
    assert shows_skill(fair)


def test_where_all_guess_nothing_is_claimed() -> None:
    seeds = range(10)
    worlds = [planted(100 + s, (0.5,) * 3, (0.5,) * 3, dates=300, assets=6) for s in seeds]
    claims = [shows_skill(judged(w, replace(SETTINGS, epochs=10, seed=s), s)) for s, w in zip(seeds, worlds, strict=True)]
    assert sum(claims) <= 1


def test_too_few_pairs_give_equal_weights_that_say_so() -> None:
    world = planted(4, TREND, CHOP)
    few = pairs(world.outcomes, tie=0.01).inside(slice(0, 30))
    judge_ = fit_judge(world.context, world.p_up, few, SETTINGS, min_pairs=1000)
    assert isinstance(judge_, EqualWeights) and f"{len(few)} judged pairs" in judge_.reason and "1000" in judge_.reason
    said = np.array([[0.6, np.nan, 0.4], [np.nan] * 3])
    assert judge_.weights(np.zeros((2, 1)), said).tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_before_it_is_fitted_it_says_nothing() -> None:
    with pytest.raises(NotFittedError, match="no pairs"):
        RewardModel(SETTINGS).weights(np.zeros((1, 1)), np.full((1, 3), 0.6))


def test_weights_sum_to_one_over_who_spoke() -> None:
    world = planted(5, TREND, CHOP, dates=60)
    model = RewardModel(SETTINGS).fit(world.context, world.p_up, pairs(world.outcomes, tie=0.01))
    said = np.where(np.random.default_rng(0).random(world.p_up.shape) < 0.3, np.nan, world.p_up)
    weights = model.weights(world.context, said)
    assert np.allclose(weights.sum(axis=-1), np.isfinite(said).any(axis=-1))
    assert (weights[np.isnan(said)] == 0).all()


def test_the_same_seed_gives_the_same_model_and_disk_keeps_it(tmp_path) -> None:
    world = planted(6, TREND, CHOP, dates=100)
    table = pairs(world.outcomes, tie=0.01)
    one, two = (RewardModel(SETTINGS).fit(world.context, world.p_up, table) for _ in range(2))
    other = RewardModel(replace(SETTINGS, seed=1)).fit(world.context, world.p_up, table)
    assert one.state_hash == two.state_hash != other.state_hash
    one.save(tmp_path)
    back = load_judge(tmp_path)
    assert isinstance(back, RewardModel) and back.settings == one.settings and back.n_pairs == len(table)
    assert np.array_equal(back.weights(world.context, world.p_up), one.weights(world.context, world.p_up))
    equal = EqualWeights(("A",), 3, 200)
    equal.save(tmp_path / "equal")
    assert load_judge(tmp_path / "equal") == equal


def test_a_torn_artefact_is_refused(tmp_path) -> None:
    world = planted(7, TREND, CHOP, dates=60)
    path = RewardModel(SETTINGS).fit(world.context, world.p_up, pairs(world.outcomes, tie=0.01)).save(tmp_path)
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "state_hash": "0"}))
    with pytest.raises(CheckpointError, match="different runs"):
        load_judge(tmp_path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(CheckpointError, match="cut short"):
        load_judge(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected reward_model\.json"):
        load_judge(tmp_path / "nowhere")


def test_one_opinion_is_scored_as_in_a_table_of_all() -> None:
    world = planted(8, TREND, CHOP)
    model = RewardModel(SETTINGS).fit(world.context, world.p_up, pairs(world.outcomes, tie=0.01))
    bulk = model.rewards(world.context, world.p_up)
    for at in [(0, 0), (17, 3), (399, 9)]:
        assert np.array_equal(model.rewards(world.context[at], world.p_up[at]), bulk[at])


def fitted_until(cube, last_row: int, usable_until: int) -> dict[str, np.ndarray]:
    """All numbers of a model that is meant to have learnt by the close of `last_row`."""
    opinions = dense(cube)
    out = close(opinions, cube, cost_per_side=0.0)
    usable = pairs(out, tie=0.01).inside(slice(0, usable_until))
    settings = Settings(ROSTER, CONTEXT, epochs=2)
    return RewardModel(settings).fit(context_features(cube, out.opened_row), opinions.p_up, usable)._fitted()


def test_noise_after_the_fit_changes_no_number_of_the_model() -> None:
    cube = desk_cube(9)
    assert_fit(lambda c: fitted_until(c, 200, 201), cube, 200, np.random.default_rng(0))


def test_the_law_catches_a_pair_that_closes_after_the_cut() -> None:
    cube = desk_cube(9)
    with pytest.raises(AssertionError, match="past its end"):
        assert_fit(lambda c: fitted_until(c, 200, 206), cube, 200, np.random.default_rng(0))


def test_with_its_numbers_fixed_noise_after_t_changes_no_weight_by_t() -> None:
    cube = desk_cube(10)
    opinions = dense(cube)
    out = close(opinions, cube, cost_per_side=0.0)
    settings = Settings(ROSTER, CONTEXT, epochs=2)
    model = RewardModel(settings).fit(context_features(cube, out.opened_row), opinions.p_up, pairs(out, tie=0.01))

    def weights(c):
        table = dense(c, 1)
        return model.weights(context_features(c, np.arange(len(c.times))), table.p_up)

    assert_apply(weights, cube, 150, np.random.default_rng(0))


def test_a_judge_weighs_no_stranger() -> None:
    weigh = weigh_with(EqualWeights(("A",), 0, 200))
    from rlaif_ray.agents.analysts import view_at

    cube = desk_cube(11)
    with pytest.raises(DataError, match="B"):
        weigh(view_at(cube, 10), cube.known_at[10], ("A", "B"), np.full((4, 2), 0.6))
