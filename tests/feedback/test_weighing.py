"""Three ways to weigh a desk: each fitted on what had closed, each says what it is, each comes back from disk."""

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.agents.analysts import view_at
from rlaif_ray.errors import CheckpointError, DataError
from rlaif_ray.feedback.context import CONTEXT, context_features
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import pairs
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.weighing import EqualWeights, Kind, TrackRecord, Weigher, fit_weigher, load_weigher, shrunk, weigh_with
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ROSTER, dense, desk_cube
from tests.laws import assert_fit
from tests.skill import AUTHORS, settings, skill

NOWHERE = np.zeros((2, 2))


def record(*scores: float) -> TrackRecord:
    return TrackRecord(AUTHORS, scores, (0.01,) * 3, scores, 0)


def test_weights_go_by_what_is_above_0() -> None:
    said = np.array([[0.6, 0.6, 0.4], [0.6, np.nan, 0.4]])
    assert np.allclose(record(0.03, 0.01, -0.02).weights(NOWHERE, said), [[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]])


def test_where_nobody_who_spoke_is_above_0_all_who_did_weigh_alike() -> None:
    said = np.array([[np.nan, 0.6, 0.4], [np.nan] * 3])
    assert record(0.03, -0.01, -0.02).weights(NOWHERE, said).tolist() == [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]


def test_shrinking_by_hand() -> None:
    """Errors of 1 on means of -3, 0 and 3: they differ by 9 where luck explains 1, so the variance between is 8."""
    assert np.allclose(shrunk(np.array([-3.0, 0.0, 3.0]), np.ones(3)), [-3 * 8 / 9, 0.0, 3 * 8 / 9])


def test_what_luck_explains_is_shrunk_to_the_desks_mean() -> None:
    assert np.allclose(shrunk(np.array([0.9, 1.0, 1.1]), np.ones(3)), 1.0)


def test_who_has_no_record_stands_at_the_desks_mean() -> None:
    found = shrunk(np.array([1.0, np.nan, 3.0]), np.array([0.1, np.nan, 0.1]))
    assert found[1] == pytest.approx(2.0) and 1.0 < found[0] < 1.1 and 2.9 < found[2] < 3.0
    assert shrunk(np.full(2, np.nan), np.full(2, np.nan)).tolist() == [0.0, 0.0]


def test_shrunk_scores_are_nearer_the_truth_than_means() -> None:
    """James and Stein: with five authors or more, whatever the truth; here means and their errors as drawn, 400 desks."""
    rng = np.random.default_rng(0)
    truth, error = 0.02 * rng.standard_normal((400, 6)), rng.uniform(0.01, 0.04, (400, 6))
    seen = truth + error * rng.standard_normal((400, 6))
    ours = np.stack([shrunk(m, e) for m, e in zip(seen, error, strict=True)])
    assert ((ours - truth) ** 2).mean() < 0.7 * ((seen - truth) ** 2).mean()


def test_the_error_of_a_record_counts_dates_that_share_bars_once() -> None:
    world = skill(0, dates=60, names=5)
    found = TrackRecord.fit(world.outcomes, slice(0, 1000))
    twice = replace(world.outcomes, **{
        name: np.concatenate([getattr(world.outcomes, name)] * 2, axis=1) for name in ("residual", "climatology", "void", "score")
    })  # fmt: skip
    same = TrackRecord.fit(twice, slice(0, 1000))
    assert np.allclose(found.mean, same.mean) and np.allclose(found.error, same.error)  # the names again add no certainty
    assert found.mean[0] == pytest.approx(world.outcomes.score[..., 0].mean())


def test_a_better_author_weighs_more_and_on_a_desk_of_coins_all_weigh_alike() -> None:
    better = skill(1, in_trend=(0.65, 0.55, 0.52), in_chop=(0.65, 0.55, 0.52), dates=200)
    weights = TrackRecord.fit(better.outcomes, slice(0, 5000)).weights(np.zeros((1, 2)), np.full((1, 3), 0.6))[0]
    assert weights[0] > 0.7 > weights[1] >= weights[2]
    coins = skill(2, in_trend=(0.5,) * 3, in_chop=(0.5,) * 3, quality=0.0, dates=200)
    found = TrackRecord.fit(coins.outcomes, slice(0, 5000))
    assert max(found.shrunk) < 0.0 and np.allclose(found.weights(np.zeros((1, 2)), np.full((1, 3), 0.6)), 1 / 3)


def fitted(cube, kind: Kind, stop: int) -> Weigher:
    opinions = dense(cube)
    out = close(opinions, cube, OutcomeTerms(0.0))
    s = Settings(ROSTER, CONTEXT, epochs=1, members=2)
    context = context_features(cube, out.opened_row)
    return fit_weigher(kind, slice(20, stop), context, opinions, out, pairs(out, tie=0.01), s, min_pairs=50)


@pytest.mark.parametrize("kind", ["reward_model", "track_record"])
def test_what_closes_after_the_cut_changes_no_weigher(kind: Kind) -> None:
    """And the canary: with the cut one close too late, it does."""
    cube = desk_cube(9)
    found = fitted(cube, kind, 201)
    assert found.kind == kind
    assert_fit(lambda c: fitted(c, kind, 201).state_hash, cube, 200, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="past its end"):
        assert_fit(lambda c: fitted(c, kind, 206).state_hash, cube, 200, np.random.default_rng(0))


def test_too_few_pairs_give_equal_weights_that_say_so() -> None:
    world = skill(3, dates=30)
    kinds: tuple[tuple[Kind, str], ...] = (("reward_model", "reward model"), ("track_record", "track record"))
    for kind, said in kinds:
        found = fit_weigher(
            kind, slice(0, 30), world.context, world.opinions, world.outcomes, world.pairs, settings(world), min_pairs=10_000
        )  # fmt: skip
        n = len(world.pairs.inside(slice(0, 30)))
        assert isinstance(found, EqualWeights) and n > 0
        assert found.reason == f"{n} judged pairs had closed; at least 10000 are needed for a {said}"
    said = np.array([[0.6, np.nan, 0.4], [np.nan] * 3])
    assert found.weights(NOWHERE, said).tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_equal_weights_may_be_asked_for() -> None:
    world = skill(3, dates=30)
    found = fit_weigher(
        "equal_weights", slice(0, 150), world.context, world.opinions, world.outcomes, world.pairs, settings(world), min_pairs=1
    )  # fmt: skip
    assert found == EqualWeights(AUTHORS, "equal weights were asked for")


def test_every_weigher_comes_back_from_disk(tmp_path) -> None:
    world = skill(4, dates=40)
    o = world.opinions
    kinds: tuple[Kind, ...] = ("reward_model", "track_record", "equal_weights")
    for kind in kinds:
        found = fit_weigher(
            kind, slice(0, 200), world.context, o, world.outcomes, world.pairs, settings(world, epochs=1), min_pairs=10
        )  # fmt: skip
        assert found.kind == kind and found.authors == AUTHORS
        path = found.save(tmp_path / kind)
        back = load_weigher(tmp_path / kind)
        assert path.is_file() and type(back) is type(found) and back.state_hash == found.state_hash
        weights = found.weights(world.context, o.p_up, o.traits)
        assert np.array_equal(weights, back.weights(world.context, o.p_up, o.traits)) and np.allclose(weights.sum(axis=-1), 1.0)
    with pytest.raises(CheckpointError, match="no weigher"):
        load_weigher(tmp_path / "nowhere")
    EqualWeights(AUTHORS, "twice").save(tmp_path / "track_record")
    with pytest.raises(CheckpointError, match="expected one of"):
        load_weigher(tmp_path / "track_record")


def test_a_manager_hears_in_bulk_what_it_hears_one_by_one() -> None:
    """The same authors in another order: each gets the weight that the table gives, bit for bit."""
    cube = desk_cube(12)
    opinions = dense(cube)
    out = close(opinions, cube, OutcomeTerms(0.0))
    context = context_features(cube, out.opened_row)
    s = Settings(ROSTER, CONTEXT, opinions.trait_names, sees=("context", "stance", "author", "text"), epochs=1)
    model = RewardModel(s).fit(context, opinions, pairs(out, tie=0.01, opinions=opinions))
    assert opinions.traits is not None
    bulk = model.weights(context, opinions.p_up, opinions.traits)
    order = list(range(len(ROSTER)))[::-1]
    for t in (20, 41):
        served = weigh_with(model)(
            view_at(cube, 5 * t), cube.known_at[5 * t], tuple(ROSTER[k] for k in order), opinions.p_up[t][:, order],
            opinions.traits[t][:, order],
        )  # fmt: skip
        assert np.isfinite(opinions.p_up[t]).any() and np.array_equal(served, bulk[t][:, order])


def test_a_judge_weighs_no_stranger() -> None:
    cube = desk_cube(11)
    with pytest.raises(DataError, match="B"):
        weigh_with(EqualWeights(("A",), "alone"))(view_at(cube, 10), cube.known_at[10], ("A", "B"), np.full((4, 2), 0.6))
