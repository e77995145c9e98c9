"""Intervals that respect dates, splits that purge, records that count."""

import numpy as np

from rlaif_ray.feedback.evidence import clustered_interval, clusters_of, split_held_out, track_records
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import pairs
from tests.desk import ROSTER, dense, desk_cube, planted


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


def test_dates_whose_horizons_overlap_are_one_cluster() -> None:
    assert clusters_of(np.array([0, 1, 4, 5, 9, 10]), 5).tolist() == [0, 0, 0, 1, 1, 2]


def test_the_last_fifth_is_held_out_and_what_closes_in_it_is_purged() -> None:
    table = pairs(planted(0, (0.5, 0.6), (0.5, 0.6), dates=100).outcomes, tie=0.01)
    earlier, later = split_held_out(table)
    assert later.opened_row.min() == 400 and earlier.closed_row.max() < 400
    assert earlier.opened_row.max() == 390  # opened at 395, it would close at 400, the first row held out


def test_a_record_counts_what_was_said_and_what_was_not() -> None:
    cube = desk_cube(0)
    opinions = dense(cube)
    out = close(opinions, cube, cost_per_side=0.0)
    record = track_records(out, opinions.p_up, slice(200, 300), resamples=200, seed=0)
    assert list(record) == list(ROSTER)
    for k, author in enumerate(ROSTER):
        said = np.isfinite(opinions.p_up[40:, :, k])
        assert record[author]["n_opinions"] == said.sum() and record[author]["n_abstentions"] == (~said).sum()
        assert record[author]["n_closed"] == np.isfinite(out.score[40:, :, k]).sum() < said.sum()
        assert np.isclose(record[author]["score"]["value"], np.nanmean(out.score[40:, :, k]))
