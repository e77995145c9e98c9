"""Intervals that respect dates, splits that purge, raters that see less, records that say how much there was to see."""

from typing import Any

import numpy as np
import pytest

from rlaif_ray.core import OpinionTable, canonical_json
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.evidence import (
    accuracy_at,
    calibration_of,
    claims_skill,
    clustered_interval,
    clusters_of,
    held_out,
    paired_gain,
    pairs_needed,
    power_of,
    split_held_out,
    track_records,
)
from rlaif_ray.feedback.intervals import effective, standard_error
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import pairs
from rlaif_ray.feedback.raters import RATERS, gaps, right
from rlaif_ray.feedback.reward_model import Settings
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ROSTER, dense, desk_cube, planted
from tests.skill import COIN, World, closed, settings, skill

# --- intervals ---


def test_copies_of_a_date_add_no_certainty() -> None:
    rng = np.random.default_rng(0)
    once = rng.standard_normal(100)
    many = np.repeat(once, 30)
    single = clustered_interval(once, np.arange(100), resamples=2000, seed=0)
    copied = clustered_interval(many, np.repeat(np.arange(100), 30), resamples=2000, seed=0)
    naive = clustered_interval(many, np.arange(3000), resamples=2000, seed=0)
    assert np.isclose(single["low"], copied["low"]) and np.isclose(single["high"], copied["high"])
    assert naive["high"] - naive["low"] < 0.3 * (copied["high"] - copied["low"])


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for k in range(200):
        dates = rng.standard_normal(60)
        found = clustered_interval(np.repeat(dates, 5) + rng.standard_normal(300), np.repeat(np.arange(60), 5), resamples=400, seed=k)
        held += found["low"] <= 0.0 <= found["high"]
    assert 178 <= held <= 200


def test_nothing_or_one_date_has_no_interval() -> None:
    assert np.isnan(clustered_interval(np.array([np.nan]), np.array([1]), resamples=100, seed=0)["value"])
    alone = clustered_interval(np.array([1.0, 3.0]), np.array([7, 7]), resamples=100, seed=0)
    assert alone["value"] == 2.0 and np.isnan(alone["low"])
    assert np.isnan(standard_error(np.array([1.0, 3.0]), np.array([7, 7]))) and np.isnan(effective(np.array([1.0]), np.array([0])))


def test_the_standard_error_is_the_width_of_the_interval() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(200), 4)
    values = np.repeat(rng.standard_normal(200), 4) + rng.standard_normal(800)
    found = clustered_interval(values, groups, resamples=4000, seed=0)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * standard_error(values, groups), rel=0.05)


def test_dates_a_horizon_apart_are_each_a_cluster() -> None:
    assert clusters_of(np.array([0, 5, 10, 17, 22]), 5).tolist() == [0, 1, 2, 3, 4]
    assert clusters_of(np.array([12, 5, 5, 12, 40]), 5).tolist() == [2, 1, 1, 2, 8]  # they may repeat, in any order
    assert clusters_of(np.array([], np.int64), 5).tolist() == [] and clusters_of(np.array([7]), 5).tolist() == [1]


def test_dates_that_overlap_are_put_into_wide_clusters_and_a_gap_ends_one() -> None:
    rows = np.arange(0, 100)
    assert np.array_equal(clusters_of(rows, 5), rows // 20 * 4)
    # no bars are shared across a horizon: 10 to 14 is a run, 20 and 27 stand alone, and 33 on is a run with an edge at 40
    found = clusters_of(np.array([10, 12, 14, 20, 27, 33, 37, 41, 45, 45, 33]), 5)
    assert found.tolist() == [2, 2, 2, 4, 5, 6, 6, 8, 8, 8, 6]
    rng = np.random.default_rng(0)
    for _ in range(200):  # a cluster is never wider than four horizons, and two of them in one run are cut at an edge of those
        rows, h = np.sort(rng.choice(300, 60)), int(rng.integers(1, 12))
        number = clusters_of(rows, h)
        assert (np.diff(number) >= 0).all()
        for c in np.unique(number):
            inside = np.unique(rows[number == c])
            assert np.ptp(inside) < 4 * h and (np.diff(inside) < h).all()
        cut = np.flatnonzero(np.diff(number))
        assert all(rows[i + 1] - rows[i] >= h or rows[i + 1] // (4 * h) > rows[i] // (4 * h) for i in cut)


@pytest.mark.parametrize(("horizon_bars", "every"), [(20, 1), (20, 5), (5, 1), (20, 20)])
def test_intervals_of_outcomes_that_share_bars_hold_the_truth_as_often_as_they_say(horizon_bars: int, every: int) -> None:
    """Returns over a horizon on 4,000 rows of a random walk: in 93% of 500 walks at least, by a one-sided binomial test at 5%."""
    rng, held, walks = np.random.default_rng(8), 0, 500
    rows = np.arange(0, 4000, every)
    for k in range(walks):
        price = np.cumsum(rng.standard_normal(4000 + horizon_bars))
        change = price[rows + horizon_bars - 1] - np.where(rows > 0, price[rows - 1], 0.0)
        found = clustered_interval(change, clusters_of(rows, horizon_bars), resamples=400, seed=k)
        held += found["low"] <= 0.0 <= found["high"]
    assert held / walks >= 0.93 - 1.645 * np.sqrt(0.93 * 0.07 / walks)


def test_a_paired_gain_is_by_hand_and_surer_than_its_parts() -> None:
    rng = np.random.default_rng(3)
    common = rng.standard_normal((80, 6))
    a, b = common + 0.1 + 0.01 * rng.standard_normal((80, 6)), common.copy()
    b[3, 2] = np.nan
    found = paired_gain(a, b, 5 * np.arange(80), 5, resamples=500, seed=0)
    assert found["value"] == pytest.approx(np.nanmean(a - b)) and 0.09 < found["low"] < found["high"] < 0.11
    by_date = paired_gain(np.nanmean(a, axis=1), np.nanmean(common, axis=1), 5 * np.arange(80), 5, resamples=500, seed=0)
    assert by_date["value"] == pytest.approx(0.1, abs=0.01)


def test_a_paired_gain_is_the_interval_of_the_differences_by_date_whatever_is_missing() -> None:
    rng = np.random.default_rng(9)
    a, b = (np.where(rng.random((60, 4)) < 0.3, np.nan, rng.standard_normal((60, 4))) for _ in range(2))
    a[7], rows = np.nan, 3 * np.arange(60)  # openings nearer than the horizon, and a date of which nothing is known
    found = paired_gain(a, b, rows, 5, resamples=300, seed=4)
    assert found == clustered_interval((a - b).reshape(-1), np.repeat(clusters_of(rows, 5), 4), resamples=300, seed=4)
    back = paired_gain(b, a, rows, 5, resamples=300, seed=4)
    assert [back[n] for n in ("value", "low", "high")] == pytest.approx([-found[n] for n in ("value", "high", "low")])
    assert np.isnan(paired_gain(np.full((3, 2), np.nan), np.zeros((3, 2)), np.arange(3), 5, resamples=10, seed=0)["value"])
    for wrong in (rows[:-1], np.repeat(rows, 4)):
        with pytest.raises(DataError, match=r"expected \(D,A\), \(D,A\) and \(D,\)"):
            paired_gain(a, b, wrong, 5, resamples=10, seed=0)
    with pytest.raises(DataError, match="scores"):
        paired_gain(a, b[:, 0], rows, 5, resamples=10, seed=0)


# --- how much there was to see ---


def test_independent_pairs_count_whole_and_copies_once() -> None:
    rng = np.random.default_rng(4)
    coins = (rng.random(4000) < 0.5).astype(float)
    assert effective(coins, np.arange(4000)) == pytest.approx(4000, rel=0.01)
    assert effective(np.repeat(coins[:400], 10), np.repeat(np.arange(400), 10)) == pytest.approx(400, rel=0.01)
    assert 3000 < effective(coins, np.repeat(np.arange(400), 10)) <= 4000


def test_at_an_information_coefficient_of_a_twentieth_a_pair_is_right_51_6_percent_of_the_time() -> None:
    assert accuracy_at(0.05) == pytest.approx(0.516, abs=0.0005) and accuracy_at(0.0) == 0.5 and accuracy_at(1.0) == 1.0
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((2, 2, 400_000))
    came = 0.3 * x + np.sqrt(1 - 0.3**2) * noise  # two names each: does the higher forecast have the higher return?
    assert ((x[0] > x[1]) == (came[0] > came[1])).mean() == pytest.approx(accuracy_at(0.3), abs=0.003)


def test_about_6_100_independent_pairs_are_needed_to_see_it() -> None:
    assert pairs_needed(0.05) == pytest.approx(6100, rel=0.005)
    assert pairs_needed(0.05) == pytest.approx(((1.645 + 0.842) * 0.5 / 0.0159) ** 2, rel=0.01)


def test_a_test_on_so_many_pairs_finds_it_in_four_of_five_cases() -> None:
    n = round(pairs_needed(0.05))
    share = np.random.default_rng(6).binomial(n, accuracy_at(0.05), 20_000) / n
    assert ((share - 0.5) / (0.5 / np.sqrt(n)) > 1.645).mean() == pytest.approx(0.8, abs=0.015)


def test_where_there_are_fewer_it_is_said() -> None:
    rng = np.random.default_rng(7)
    few = power_of((rng.random(900) < 0.5).astype(float), np.arange(900))
    assert few.n_effective == pytest.approx(900, rel=0.01) and few.accuracy == pytest.approx(0.5 + 2.487 * 0.5 / 30, abs=0.001)
    assert accuracy_at(few.ic) == pytest.approx(few.accuracy)
    assert "51.6%" in few.said and "6,100" in few.said and "there are fewer here: only 899," in few.said and "54.1%" in few.said
    many = power_of((rng.random(9000) < 0.5).astype(float), np.arange(9000))
    assert "fewer" not in many.said and "51.6%" in many.said
    assert "too few dates" in power_of(np.ones(3), np.zeros(3)).said


def test_the_calibration_error_is_by_hand() -> None:
    said, came = np.array([0.5, 0.6, 0.9, 0.9]), np.array([0.5, 1.0, 1.0, 0.0])
    found = calibration_of(said, came, np.ones(4), bins=2)
    assert found["bins"] == [{"said": 0.55, "came": 0.75, "n": 2}, {"said": 0.9, "came": 0.5, "n": 2}]
    assert found["expected_error"] == pytest.approx((0.2 + 0.4) / 2)
    weighed = calibration_of(said, came, np.array([1.0, 1.0, 3.0, 1.0]), bins=2)
    assert weighed["bins"][1]["came"] == 0.75 and weighed["expected_error"] == pytest.approx((2 * 0.2 + 4 * 0.15) / 6)


# --- the split and the record ---


def test_the_last_fifth_is_held_out_and_what_closes_in_it_is_purged() -> None:
    table = pairs(planted(0, (0.5, 0.6), (0.5, 0.6), dates=100).outcomes, tie=0.01)
    rows, earlier, later = split_held_out(table)
    assert rows == slice(0, 400) and later.opened_row.min() == 400 and earlier.closed_row.max() < 400
    assert earlier.opened_row.max() == 390  # opened at 395, it would close at 400, the first row held out


def test_an_embargo_keeps_what_closes_just_before_out_of_the_earlier_pairs() -> None:
    table = pairs(planted(0, (0.5, 0.6), (0.5, 0.6), dates=100).outcomes, tie=0.01)
    free, kept = split_held_out(table), split_held_out(table, embargo=10)
    assert kept.rows == slice(0, 390) and kept.earlier.closed_row.max() == 385
    assert np.array_equal(kept.later.margin, free.later.margin) and len(kept.earlier) < len(free.earlier)
    one = table.take(table.date == 3)
    assert split_held_out(one).earlier is one and not len(split_held_out(one).later)


def test_the_noise_of_a_held_out_judge_is_measured_on_the_rows_that_it_learns_from() -> None:
    world = skill(6, dates=60, names=8)
    asked: list[slice] = []

    def smoothing(rows: slice) -> float:
        asked.append(rows)
        return 0.3

    def found(s: Settings, **more: Any) -> dict[str, Any]:
        return held_out(
            world.context, world.outcomes, world.opinions, world.pairs, s, min_pairs=50, resamples=50, seed=0, embargo=7, **more
        )  # fmt: skip

    measured = found(settings(world, epochs=2, members=2, label_smoothing=0.1), smoothing=smoothing)
    assert asked == [slice(0, 5 * 48 - 7)]  # once, and by the earlier rows alone; judge and raters go by it
    stated = found(settings(world, epochs=2, members=2, label_smoothing=0.3))
    other = found(settings(world, epochs=2, members=2, label_smoothing=0.1))
    assert canonical_json(measured) == canonical_json(stated) != canonical_json(other)


def test_the_value_of_climatology_is_0() -> None:
    table = skill(0, dates=10, names=2).pairs
    values = np.broadcast_to([0.3, -0.2, 0.1], (len(table), 3))
    beside = {-1: 0.0, 0: 0.3, 1: -0.2, 2: 0.1}
    by_hand = [beside[int(c)] - beside[int(r)] for c, r in zip(table.chosen, table.rejected, strict=True)]
    assert np.allclose(gaps(values, table), by_hand) and (~table.rivals).any()
    assert right(np.array([0.2, 0.0, -0.1])).tolist() == [1.0, 0.5, 0.0]


def judged(world: World, **others: Any) -> dict[str, Any]:
    s = settings(world, **{"members": 2, "epochs": 15, **others})
    return held_out(world.context, world.outcomes, world.opinions, world.pairs, s, min_pairs=200, resamples=500, seed=0)


def test_the_record_of_a_judge_with_skill() -> None:
    found = judged(skill(1, dates=150, names=20))
    assert claims_skill(found) and found["gain"]["value"] > 0.05
    assert set(found["beside"]) == set(RATERS) - {"length"}  # the world has no texts to count
    assert all(r["gain"]["low"] > 0.0 and r["accuracy"]["value"] < found["accuracy"]["value"] for r in found["beside"].values())
    assert found["climatology"]["n_pairs"] == 30 * 20 * 3  # a fifth of the dates, every name and author
    assert found["climatology"]["accuracy"]["low"] > 0.5 and found["by_margin"]["low"] > 0.5
    assert 0 < found["power"]["n_effective"] <= found["n_pairs"] and "fewer" in found["power"]["said"]
    assert len(found["calibration"]["bins"]) == 10 and found["calibration"]["expected_error"] < 0.05
    canonical_json(found)


def told_by(world: World, says_up: np.ndarray, log_words: np.ndarray | None = None) -> World:
    """The same market, where everyone says what `says_up` (T,A,K) has them say, in so many words."""
    o = world.opinions
    p_up = np.where(says_up, 0.6, 0.4)
    texts: dict[str, Any] = {"traits": o.traits, "trait_names": o.trait_names}
    if log_words is not None:
        texts = {"traits": log_words[..., None].astype(np.float32), "trait_names": ("log_words",)}
    opinions = OpinionTable(o.as_of, o.symbols, o.authors, p_up, 5, **texts)
    outcomes = closed(opinions, world.outcomes.residual)
    return World(world.context, opinions, outcomes, pairs(outcomes, tie=0.01), world.chance, world.good)


def test_what_prices_alone_tell_is_no_merit_of_the_judge() -> None:
    """In a trend prices rise and in a chop they fall, seven times of ten; what is said, and by whom, is a coin."""
    world = skill(2, dates=150, names=20, in_trend=COIN, in_chop=COIN, quality=0.0)
    rng = np.random.default_rng(2)
    market = np.where(rng.random(world.context.shape[:2]) < 0.7, 1.0, -1.0) * np.sign(world.context[..., 0])
    moved = told_by(World(world.context, world.opinions, closed(world.opinions, 0.01 * market), world.pairs, world.chance, world.good),
                    rng.random(world.chance.shape) < 0.5)  # fmt: skip
    found = judged(moved)
    assert found["accuracy"]["low"] > 0.6 and found["gain"]["low"] > 0.0  # good, and better than the author average
    assert found["beside"]["price"]["accuracy"]["low"] > 0.6 and abs(found["beside"]["price"]["gain"]["value"]) < 0.02
    assert not claims_skill(found)


def test_what_length_alone_tells_is_no_merit_of_the_judge() -> None:
    """Whoever writes more is right more often."""
    world = skill(3, dates=150, names=20, in_trend=COIN, in_chop=COIN, quality=0.0)
    rng = np.random.default_rng(3)
    words = rng.standard_normal(world.chance.shape)
    is_right = rng.random(world.chance.shape) < np.where(words > 0, 0.7, 0.4)
    found = judged(told_by(world, is_right == (world.outcomes.residual > 0)[..., None], words))
    assert found["accuracy"]["low"] > 0.55 and found["beside"]["length"]["accuracy"]["low"] > 0.55
    assert found["beside"]["length"]["gain"]["value"] < 0.02 and not claims_skill(found)


def test_who_is_always_better_is_found_and_so_is_the_author_average() -> None:
    found = judged(skill(4, dates=150, names=20, in_trend=(0.7, 0.5, 0.3), in_chop=(0.7, 0.5, 0.3), quality=0.0))
    assert found["accuracy"]["low"] > 0.5 and abs(found["gain"]["value"]) < 0.02
    assert abs(found["beside"]["author"]["gain"]["value"]) < 0.02 and not claims_skill(found)


def test_too_few_pairs_make_no_record_and_no_claim() -> None:
    world = skill(5, dates=20, names=3)
    found = held_out(world.context, world.outcomes, world.opinions, world.pairs, settings(world), min_pairs=10**6, resamples=10, seed=0)
    assert found["accuracy"] is None and found["n_pairs"] > 0 and not claims_skill(found) and not claims_skill(None)


def test_one_rater_that_sees_as_much_takes_the_claim_away() -> None:
    won, tied = {"value": 0.05, "low": 0.01, "high": 0.09}, {"value": 0.01, "low": -0.01, "high": 0.03}
    record = {"accuracy": {"low": 0.51}, "gain": won, "beside": {"price": {"gain": won}, "stance": {"gain": won}}}
    assert claims_skill(record)
    assert not claims_skill({**record, "beside": {**record["beside"], "stance": {"gain": tied}}})
    assert not claims_skill({**record, "gain": tied}) and not claims_skill({**record, "accuracy": {"low": 0.49}})
    assert not claims_skill({**record, "accuracy": {"low": np.nan}})


def test_a_judge_over_the_rule_desk_is_held_beside_all_raters() -> None:
    cube = desk_cube(6, rows=400)
    opinions = dense(cube)
    out = close(opinions, cube, OutcomeTerms(0.0))
    context = np.zeros((*opinions.p_up.shape[:2], 1))
    table = pairs(out, tie=0.01, opinions=opinions)
    found = held_out(
        context, out, opinions, table, Settings(ROSTER, ("nothing",), epochs=1, members=2), min_pairs=50, resamples=100, seed=0
    )  # fmt: skip
    assert set(found["beside"]) == set(RATERS)
    alone = held_out(
        context, out, opinions, table, Settings(ROSTER, ("nothing",), epochs=1, members=2), min_pairs=50, resamples=100, seed=0,
        raters=False,
    )  # fmt: skip
    assert alone == {**found, "beside": {}}


def test_a_record_counts_what_was_said_and_what_was_not() -> None:
    cube = desk_cube(0)
    opinions = dense(cube)
    out = close(opinions, cube, OutcomeTerms(0.0))
    record = track_records(out, opinions.p_up, slice(200, 300), resamples=200, seed=0)
    assert list(record) == list(ROSTER)
    for k, author in enumerate(ROSTER):
        said = np.isfinite(opinions.p_up[40:, :, k])
        assert record[author]["n_opinions"] == said.sum() and record[author]["n_abstentions"] == (~said).sum()
        assert record[author]["n_closed"] == np.isfinite(out.score[40:, :, k]).sum() < said.sum()
        assert np.isclose(record[author]["score"]["value"], np.nanmean(out.score[40:, :, k]))
