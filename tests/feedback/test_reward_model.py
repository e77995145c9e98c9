"""The reward model finds skill that depends on context, says how sure it is, and learns from closed pairs only."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rlaif_ray.agents.debate import pool
from rlaif_ray.core import OpinionTable
from rlaif_ray.errors import CheckpointError, DataError, MissingDataError, NotFittedError
from rlaif_ray.feedback.context import CONTEXT, context_features
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import CLIMATOLOGY, HEADS, PairTable, pairs
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.reward_network import SIZES, draw, parameters
from rlaif_ray.feedback.reward_questions import drawn_dates, member_seed
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ROSTER, dense, desk_cube
from tests.laws import assert_apply, assert_fit
from tests.skill import AUTHORS, World, settings, skill

TREND, CHOP = np.array([1.0, 0.0]), np.array([-1.0, 0.0])
QUICK: dict[str, Any] = {"epochs": 12, "members": 3}


@pytest.fixture(scope="module")
def world() -> World:
    return skill(0, dates=120, names=20)


@pytest.fixture(scope="module")
def model(world: World) -> RewardModel:
    return RewardModel(settings(world)).fit(world.context, world.opinions, world.pairs)


def asked(model: RewardModel, context: np.ndarray, p_up=(0.6, 0.6, 0.6)) -> np.ndarray:
    """(K,) mean rewards in one context, of claims of no particular quality."""
    return model.rewards(context, np.array(p_up), np.zeros((3, 1))).mean


# --- what it learns ---


def test_the_reward_of_one_author_turns_with_the_context(model: RewardModel) -> None:
    said, traits = np.full((2, 3), 0.6), np.zeros((2, 3, 1))
    trend, chop = model.weights(np.stack([TREND, CHOP]), said, traits)
    assert trend[0] > 0.6 > 0.4 > trend[2] and chop[2] > 0.6 > 0.4 > chop[0]


def test_the_gap_is_that_of_the_generators_log_odds(model: RewardModel) -> None:
    """0.70 against 0.45 in a trend: a gap of 0.85 + 0.20."""
    gap = asked(model, TREND)[0] - asked(model, TREND)[2]
    assert gap == pytest.approx(np.log(0.7 / 0.3) - np.log(0.45 / 0.55), abs=0.25)


def test_good_claims_earn_more_than_poor_ones(model: RewardModel) -> None:
    said = np.full((2, 3), 0.6)
    good, poor = model.rewards(np.stack([TREND, TREND]), said, np.array([1.0, -1.0])[:, None, None] * np.ones((2, 3, 1))).mean
    assert (good > poor).all()


def test_a_reward_above_0_is_an_opinion_better_than_climatology() -> None:
    """By pairs against climatology alone; A is right seven times of ten, B every second time, which loses to who says nothing."""
    world = skill(1, dates=120, names=20, in_trend=(0.7, 0.5, 0.4), in_chop=(0.7, 0.5, 0.4), quality=0.0)
    alone = world.pairs.of_kind("climatology")
    assert ((alone.chosen == CLIMATOLOGY) ^ (alone.rejected == CLIMATOLOGY)).all()
    rewards = asked(RewardModel(settings(world)).fit(world.context, world.opinions, alone), TREND)
    assert rewards[0] > 0.3 and -0.5 < rewards[1] < 0.0 and rewards[2] < -0.4


def test_who_is_bold_beyond_their_skill_is_worth_less_than_the_timid() -> None:
    """C is right as often and so wins most pairs, but says 0.9 where 0.6 is true: the expected score is negative."""
    world = skill(2, dates=120, names=20, in_trend=(0.6,) * 3, in_chop=(0.6,) * 3, quality=0.0, bold=(0.1, 0.1, 0.4))
    won = world.pairs.chosen[(np.maximum(world.pairs.chosen, world.pairs.rejected) == 2) & world.pairs.rivals] == 2
    assert won.mean() > 0.55 and world.outcomes.score[..., 2].mean() < -0.2
    rewards = asked(RewardModel(settings(world)).fit(world.context, world.opinions, world.pairs), TREND, (0.6, 0.6, 0.9))
    assert rewards[2] < -0.1 < 0.0 < min(rewards[0], rewards[1])


def test_heads_are_learnt_each_from_its_own_labels(world: World) -> None:
    """B has the shorter texts: the brevity head prefers them, whoever was right."""
    table = world.pairs.take(world.pairs.rivals)
    agrees = np.zeros((len(table), len(HEADS)), np.int8)
    agrees[:, 0] = 1
    agrees[:, 2] = np.where(table.chosen == 1, 1, np.where(table.rejected == 1, -1, 0))
    labelled = replace(table, agrees=agrees)
    brief = RewardModel(settings(world, heads=(0.0, 0.0, 1.0), **QUICK)).fit(world.context, world.opinions, labelled)
    assert asked(brief, TREND).argmax() == 1 and asked(brief, CHOP).argmax() == 1
    both = RewardModel(settings(world, heads=(1.0, 0.0, 2.0), **QUICK)).fit(world.context, world.opinions, labelled)
    by_head = both.by_member(TREND, np.full(3, 0.6), np.zeros((3, 1))).mean(axis=0)
    assert by_head.shape == (3, 2) and by_head[:, 0].argmax() == 0 and by_head[:, 1].argmax() == 1
    assert np.allclose(asked(both, TREND), by_head @ [1.0, 2.0])


def test_labels_that_may_be_wrong_are_believed_less(world: World, model: RewardModel) -> None:
    """However well a pair is known, the gap ends at the log-odds of the label: at an error of 0.3, below 0.85."""
    smooth = RewardModel(settings(world, label_smoothing=0.3)).fit(world.context, world.opinions, world.pairs)
    bold, careful = (np.ptp(asked(m, TREND)) for m in (model, smooth))
    assert careful < 0.6 * bold and np.argsort(asked(smooth, TREND)).tolist() == np.argsort(asked(model, TREND)).tolist()


# --- how sure it is ---


def test_with_fewer_dates_the_members_differ_more(world: World, model: RewardModel) -> None:
    few = RewardModel(settings(world)).fit(world.context, world.opinions, world.pairs.take(world.pairs.date < 20))
    spread = []
    for m in (few, model):
        rewards = m.rewards(world.context, world.opinions.p_up, world.opinions.traits)
        assert (rewards.lower < rewards.mean).all() and (rewards.sure < rewards.mean).all()
        spread.append((rewards.mean - rewards.lower).mean())
    assert spread[0] > 1.5 * spread[1]


def test_what_all_members_shift_alike_is_no_doubt_between_voices(model: RewardModel) -> None:
    """By hand: the spread for choosing is that of the rewards less each member's mean over who spoke."""
    said, traits = np.array([0.6, np.nan, 0.4]), np.zeros((3, 1))
    each = model.by_member(TREND, said, traits)[..., 0]
    found = model.rewards(TREND, said, traits)
    centred = each - np.nanmean(each, axis=-1, keepdims=True)
    heard = [0, 2]
    assert np.allclose(found.mean[heard], each.mean(axis=0)[heard])
    assert np.allclose((found.mean - found.lower)[heard], centred.std(axis=0, ddof=1)[heard])
    assert np.allclose((found.mean - found.sure)[heard], each.std(axis=0, ddof=1)[heard])
    assert np.isnan(found.mean[1]) and np.isnan(found.lower[1]) and np.isnan(found.sure[1])


def test_a_single_member_learns_from_every_date_and_is_taken_at_its_word(world: World) -> None:
    alone = RewardModel(settings(world, members=1, epochs=2)).fit(world.context, world.opinions, world.pairs)
    rewards = alone.rewards(world.context, world.opinions.p_up, world.opinions.traits)
    assert np.array_equal(rewards.mean, rewards.lower) and np.array_equal(rewards.mean, rewards.sure)


def test_dates_are_drawn_whole_about_once_each_and_the_same_in_every_fit() -> None:
    clusters = np.repeat(np.arange(4000), 3)
    counts = np.stack([drawn_dates(7, m, clusters) for m in range(4)])
    assert (counts.reshape(4, -1, 3).std(axis=-1) == 0).all()
    assert abs(counts.mean() - 1.0) < 0.03 and abs(counts[:, ::3].var() - 1.0) < 0.06  # Poisson: mean and variance are 1
    assert np.abs(np.corrcoef(counts[:, ::3]) - np.eye(4)).max() < 0.06
    assert np.array_equal(drawn_dates(7, 2, clusters[6000:]), counts[2, 6000:])


# --- how it is used ---


def test_weights_sum_to_one_over_who_spoke(world: World, model: RewardModel) -> None:
    said = np.where(np.random.default_rng(0).random(world.opinions.p_up.shape) < 0.5, np.nan, world.opinions.p_up)
    weights = model.weights(world.context, said, world.opinions.traits)
    assert np.allclose(weights.sum(axis=-1), np.isfinite(said).any(axis=-1))
    assert (weights[np.isnan(said)] == 0).all()


def test_who_does_not_clear_the_bar_is_not_heard_and_where_nobody_does_the_manager_abstains(world: World) -> None:
    context, said, traits = np.stack([TREND, CHOP]), np.full((2, 3), 0.6), np.zeros((2, 3, 1))
    choosy = RewardModel(settings(world, bar=0.1)).fit(world.context, world.opinions, world.pairs)
    sure = choosy.rewards(context, said, traits).sure
    weights = choosy.weights(context, said, traits)
    assert np.array_equal(weights > 0, sure >= 0.1) and np.allclose(weights.sum(axis=-1), 1.0)
    assert choosy.best_of(context, said, traits).tolist() == [0, 2]
    deaf = RewardModel(settings(world, bar=9.0, epochs=1)).fit(world.context, world.opinions, world.pairs)
    assert (deaf.weights(context, said, traits) == 0).all() and np.isnan(pool(said, deaf.weights(context, said, traits))).all()
    assert deaf.best_of(context, said, traits).tolist() == [-1, -1]


def test_the_bar_is_held_against_the_outcome_head_alone_and_unweighted(world: World) -> None:
    """With the risk head on, who is better than climatology is heard: its smaller drawdown is no merit, for it takes no position."""
    heads = {"heads": (0.5, 2.0, 0.0), "bar": 0.1}
    model = RewardModel(settings(world, **heads)).fit(world.context, world.opinions, world.pairs)
    said, traits = np.full((2, 3), 0.6), np.zeros((2, 3, 1))
    context = np.stack([TREND, CHOP])
    outcome = model.by_member(context, said, traits)[..., 0]
    found = model.rewards(context, said, traits)
    assert np.allclose(found.sure, outcome.mean(axis=0) - outcome.std(axis=0, ddof=1))
    weights = model.weights(context, said, traits)
    assert np.array_equal(weights > 0, found.sure >= 0.1) and np.allclose(weights.sum(axis=-1), 1.0)
    assert weights[0, 0] > 0 and weights[1, 2] > 0
    against = world.pairs.take(~world.pairs.rivals)
    assert not against.agrees[:, 1:].any()


def test_a_bar_without_an_outcome_head_is_refused(world: World) -> None:
    with pytest.raises(DataError, match=r"unset feedback.bar, or turn feedback.heads.outcome up"):
        RewardModel(settings(world, heads=(0.0, 1.0, 0.0), bar=0.0))
    risk = RewardModel(settings(world, heads=(0.0, 1.0, 0.0), epochs=1)).fit(world.context, world.opinions, world.pairs)
    found = risk.rewards(TREND, np.full(3, 0.6), np.zeros((3, 1)))
    assert np.isnan(found.sure).all() and np.isfinite(found.lower).all()


def test_the_best_of_nobody_is_nobody(model: RewardModel) -> None:
    said = np.array([[np.nan, 0.6, np.nan], [np.nan] * 3])
    assert model.best_of(np.stack([TREND, TREND]), said, np.zeros((2, 3, 1))).tolist() == [1, -1]


def test_a_bar_needs_pairs_against_climatology(world: World) -> None:
    duels = world.pairs.take(world.pairs.rivals)
    with pytest.raises(DataError, match="no zero"):
        RewardModel(settings(world, bar=0.0)).fit(world.context, world.opinions, duels)
    assert not RewardModel(settings(world, epochs=1)).fit(world.context, world.opinions, duels).anchored


@pytest.mark.parametrize(("size", "members"), [("tiny", 5), ("tiny", 11), ("small", 2)])
def test_one_opinion_is_scored_as_in_a_table_of_all(world: World, size: str, members: int) -> None:
    some = world.pairs.take(world.pairs.date < 20)
    model = RewardModel(settings(world, size=size, members=members, epochs=1)).fit(world.context, world.opinions, some)
    o = world.opinions
    assert o.traits is not None
    bulk = model.rewards(world.context, o.p_up, o.traits)
    weights = model.weights(world.context, o.p_up, o.traits)
    for at in [(0, 0), (17, 3), (119, 19)]:
        one = model.rewards(world.context[at], o.p_up[at], o.traits[at])
        for name in ("mean", "lower", "sure"):
            assert np.array_equal(getattr(one, name), getattr(bulk, name)[at])
        assert np.array_equal(model.weights(world.context[at], o.p_up[at], o.traits[at]), weights[at])


# --- the ensemble at once ---


def test_members_fitted_apart_are_those_fitted_together_bit_for_bit(world: World) -> None:
    def fit(only: list[int] | None) -> RewardModel:
        return RewardModel(settings(world, epochs=2)).fit(world.context, world.opinions, world.pairs, only)

    whole = fit(None)
    for shares in ([[0, 1, 2], [3, 4]], [[0], [1], [2], [3], [4]], [[0, 1, 2, 3], [4]]):
        joined = RewardModel.joined([fit(share) for share in shares])
        assert joined.state_hash == whole.state_hash and joined.n_pairs == whole.n_pairs and joined.anchored


def plain_member(world: World, table: PairTable, s: Settings, member: int) -> np.ndarray:
    """(Q,K) rewards of one member, trained pair by pair in a network of its own, from the same start in the same order."""
    o = world.opinions
    drawn = {k: v[0] for k, v in draw(2 + 2 + 3 + 1, "tiny", 1, [member_seed(s.seed, member)]).items()}
    net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    with torch.no_grad():
        for parameter, start in zip(net.parameters(), ("weight0", "bias0", "head", "head_bias"), strict=True):
            parameter.copy_(drawn[start].mT if drawn[start].ndim == 2 else drawn[start])
    keys, question = np.unique(table.date * o.p_up.shape[1] + table.asset, return_inverse=True)
    date, asset = np.divmod(keys, o.p_up.shape[1])
    assert o.traits is not None
    logit = np.log(o.p_up[date, asset] / (1 - o.p_up[date, asset]))[..., None]
    spoke = np.zeros((len(keys), 4), bool)
    spoke[question, table.chosen] = spoke[question, table.rejected] = True
    spoke = spoke[:, :3]

    def scaled(x: np.ndarray, among: np.ndarray) -> np.ndarray:
        return np.clip((x - among.mean(axis=0)) / np.where(among.std(axis=0) > 1e-12, among.std(axis=0), 1.0), -5, 5)

    here, stance, text = world.context[date, asset], np.concatenate([logit, abs(logit)], axis=-1), o.traits[date, asset].astype(float)
    blocks = [
        np.broadcast_to(scaled(here, here)[:, None], (len(keys), 3, 2)), scaled(stance, stance[spoke]),
        np.broadcast_to(np.eye(3), (len(keys), 3, 3)), scaled(text, text[spoke]),
    ]  # fmt: skip
    x = torch.from_numpy(np.concatenate(blocks, axis=-1).astype(np.float32))
    count = drawn_dates(s.seed, member, table.opened_row // 5)
    weight = torch.from_numpy((count * table.weight * table.margin / table.margin.mean()).astype(np.float32))
    optimiser = torch.optim.AdamW(net.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
    generator = torch.Generator().manual_seed(member_seed(s.seed, -1))
    for _ in range(s.epochs):
        for index in torch.randperm(len(keys), generator=generator).split(s.batch):
            inside = np.flatnonzero(np.isin(question, index.numpy()))
            sides = [
                torch.where(torch.from_numpy(who[inside] >= 0), net(x[question[inside], np.maximum(who[inside], 0)])[:, 0], 0.0)
                for who in (table.chosen, table.rejected)
            ]
            loss = (torch.nn.functional.softplus(sides[1] - sides[0]) * weight[inside]).sum() / len(index)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net(x).detach().numpy()[..., 0]


def test_the_stacked_update_is_that_of_separate_networks_over_single_pairs(world: World) -> None:
    table = world.pairs.take(world.pairs.date < 40)
    s = settings(world, epochs=2)
    stacked = RewardModel(s).fit(world.context, world.opinions, table)
    keys = np.unique(table.date * 20 + table.asset)
    at = np.divmod(keys, 20)
    assert world.opinions.traits is not None
    ours = stacked.by_member(world.context[at], world.opinions.p_up[at], world.opinions.traits[at])[..., 0]
    for member in (0, 4):
        theirs = plain_member(world, table, s, member)
        assert np.abs(theirs).max() > 0.02 and np.abs(ours[member] - theirs).max() < 1e-4


def test_sizes_are_as_large_as_they_say() -> None:
    inputs = len(CONTEXT) + 2 + len(ROSTER)
    counts = {size: parameters(inputs, size, 1) for size in SIZES}
    assert counts["tiny"] < 5_000 and counts["small"] == pytest.approx(1e5, rel=0.15)
    assert counts["medium"] == pytest.approx(2e6, rel=0.1) and counts["large"] == pytest.approx(5e7, rel=0.05)
    for size in ("tiny", "small", "medium"):
        assert sum(v.numel() for v in draw(inputs, size, 1, [0]).values()) == counts[size]


def test_what_has_learnt_nothing_weighs_all_alike() -> None:
    weights = draw(8, "small", 3, [0, 1])
    assert not weights["head"].any() and not torch.equal(weights["weight0"][0], weights["weight0"][1])


# --- going on ---


def test_an_update_learns_what_is_new_and_keeps_its_scale(world: World) -> None:
    """After the turn A is right in chops and C in trends: a few passes over new pairs move both, and the fitted model stays."""
    turned = skill(5, dates=120, names=20, in_trend=(0.45, 0.5, 0.7), in_chop=(0.7, 0.5, 0.45))
    both = OpinionTable(
        np.concatenate([world.opinions.as_of, turned.opinions.as_of + np.timedelta64(10_000, "D")]), world.opinions.symbols, AUTHORS,
        np.concatenate([world.opinions.p_up, turned.opinions.p_up]), 5,
        traits=np.concatenate([np.asarray(w.opinions.traits) for w in (world, turned)]), trait_names=("quality",),
    )  # fmt: skip
    context = np.concatenate([world.context, turned.context])
    new = replace(turned.pairs, date=turned.pairs.date + 120, opened_row=turned.pairs.opened_row + 600)
    old = RewardModel(settings(world, **QUICK)).fit(context, both, world.pairs)
    before = old.state_hash
    on, again = (old.update(context, both, new, world.pairs) for _ in range(2))
    assert on.state_hash == again.state_hash != before == old.state_hash
    assert all(np.array_equal(on._scale[k], old._scale[k]) for k in old._scale) and on.n_pairs == old.n_pairs + len(new)
    lead = [asked(m, TREND)[0] - asked(m, TREND)[2] for m in (old, on)]
    assert lead[1] < lead[0] - 0.2


# --- disk, faults, laws ---


def test_the_same_seed_gives_the_same_model_and_disk_keeps_it(world: World, tmp_path) -> None:
    def fit(seed: int) -> RewardModel:
        return RewardModel(settings(world, seed=seed, bar=0.1, **QUICK)).fit(world.context, world.opinions, world.pairs)

    one = fit(0)
    assert one.state_hash == fit(0).state_hash != fit(1).state_hash
    one.save(tmp_path)
    back = RewardModel.load(tmp_path)
    assert back.settings == one.settings and back.n_pairs == len(world.pairs) and back.anchored
    o = world.opinions
    assert np.array_equal(back.weights(world.context, o.p_up, o.traits), one.weights(world.context, o.p_up, o.traits))


def test_a_torn_artefact_is_refused(model: RewardModel, tmp_path) -> None:
    path = model.save(tmp_path)
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "state_hash": "0"}))
    with pytest.raises(CheckpointError, match="different runs"):
        RewardModel.load(tmp_path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(CheckpointError, match="cut short"):
        RewardModel.load(tmp_path)


def test_before_it_is_fitted_it_says_nothing() -> None:
    with pytest.raises(NotFittedError, match="no pairs"):
        RewardModel(Settings(AUTHORS, ("regime",))).weights(np.zeros((1, 1)), np.full((1, 3), 0.6))


def test_what_it_cannot_be_made_from_is_refused(world: World, model: RewardModel) -> None:
    s = settings(world)
    for wrong, said in (
        ({"sees": ("tea_leaves",)}, "tea_leaves"), ({"heads": (0.0, 0.0, 0.0)}, "above 0"), ({"size": "huge"}, "huge"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            RewardModel(replace(s, **wrong))
    with pytest.raises(MissingDataError, match="qualty"):
        RewardModel(replace(s, traits=("qualty",))).fit(world.context, world.opinions, world.pairs)
    with pytest.raises(DataError, match="no pairs to learn from"):
        RewardModel(s).fit(world.context, world.opinions, world.pairs.take(world.pairs.date < 0))
    with pytest.raises(DataError, match="quality"):
        model.weights(TREND, np.full(3, 0.6))
    other = RewardModel(replace(s, seed=1, epochs=1)).fit(world.context, world.opinions, world.pairs)
    with pytest.raises(DataError, match="one fit"):
        RewardModel.joined([model, other])


def test_a_context_or_trait_that_is_not_known_stands_at_its_mean(world: World, model: RewardModel) -> None:
    nothing = model.rewards(np.full(2, np.nan), np.full(3, 0.6), np.full((3, 1), np.nan)).mean
    usual = model.rewards(model._scale["context.mean"], np.full(3, 0.6), np.broadcast_to(model._scale["text.mean"], (3, 1))).mean
    assert np.allclose(nothing, usual, atol=1e-6)


def fitted_until(cube, last_row: int, usable_until: int) -> dict[str, np.ndarray]:
    """All numbers of a model that is meant to have learnt by the close of `last_row`."""
    opinions = dense(cube)
    out = close(opinions, cube, OutcomeTerms(0.0))
    usable = pairs(out, tie=0.01, opinions=opinions).inside(slice(0, usable_until))
    s = Settings(ROSTER, CONTEXT, opinions.trait_names, epochs=2, sees=("context", "stance", "author", "text"))
    return RewardModel(s).fit(context_features(cube, out.opened_row), opinions, usable)._numbers()


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
    out = close(opinions, cube, OutcomeTerms(0.0))
    s = Settings(ROSTER, CONTEXT, epochs=2)
    model = RewardModel(s).fit(context_features(cube, out.opened_row), opinions, pairs(out, tie=0.01))

    def weights(c):
        table = dense(c, 1)
        return model.weights(context_features(c, np.arange(len(c.times))), table.p_up)

    assert_apply(weights, cube, 150, np.random.default_rng(0))
