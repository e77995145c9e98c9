"""The experiment's folds, arms and positions; that nothing is fitted on what comes later; and that it finds a signal, but none in noise."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlaif_ray.backtest import engine
from rlaif_ray.config import load_config
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.core import Cube, Panel
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.errors import DataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.thesis_experiment import (
    RFT,
    SFT,
    SHUFFLED,
    Exam,
    Ground,
    Study,
    ThesisFold,
    cut,
    examined,
    figures,
    learnt,
    paired,
    shuffled,
    taught,
)
from rlaif_ray.feedback.thesis_market import plant_insider
from rlaif_ray.feedback.thesis_on_ray import study_of
from rlaif_ray.feedback.thesis_trades import earned, equal, positions, traded
from rlaif_ray.feedback.thesis_training import begin, fit_sft, teacher_loss
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.strategies import BuyAndHold, EqualWeight
from tests.desk import desk_cube
from tests.laws import assert_fit
from tests.test_configs import ROOT

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
TERMS, TRADE = OutcomeTerms(COSTS.rate), Terms(COSTS)
CUBE = desk_cube(3, rows=420)
FOLD = ThesisFold("0", slice(60, 240), slice(251, 300), slice(311, 380))


def study(**knobs: Any) -> Study:
    return study_of(Thesis.model_validate({"sft": {"epochs": 3, "batch": 64}, "rft": {"epochs": 2}, "min_validation": 50, **knobs}))


def ground(cube: Cube = CUBE, **knobs: Any) -> Ground:
    return Ground.of(cube, study(**knobs), TERMS)


def test_folds_by_hand():
    """Gap 5 + 1 + 5 = 11; of 320 training rows the last 64 validate."""
    first, last = cut(1000, folds=2, train_bars=320, test_bars=120, validation=0.2, horizon=5, embargo=5)
    assert first == ThesisFold("0", slice(429, 674), slice(685, 749), slice(760, 880))
    assert last == ThesisFold("1", slice(549, 794), slice(805, 869), slice(880, 1000))


def test_too_few_rows_name_the_knobs():
    with pytest.raises(DataError, match=r"500 rows do not hold 3 folds .*--thesis\.folds"):
        cut(500, folds=3, train_bars=320, test_bars=120, validation=0.2, horizon=5, embargo=5)


def test_examples_are_what_has_closed_and_can_be_written_of():
    here = ground()
    data = here.examples(slice(0, len(CUBE.times)))
    assert (data.closed_row == data.row + 5).all() and data.closed_row.max() < len(CUBE.times)
    assert (np.isfinite(data.features).sum(axis=1) >= 3).all() and (np.diff(data.row) >= 0).all()
    np.testing.assert_array_equal(data.outcome, here.outcome[data.row, data.asset])
    assert len(here.examples(FOLD.test)) == np.isfinite(here.outcome[FOLD.test]).sum()


def test_shuffled_labels_keep_what_the_policy_reads_and_lose_the_drift():
    data = ground().examples(FOLD.learn)
    drifting = replace(data, outcome=data.outcome + 3.0 * data.asset)
    told = shuffled(drifting, (-1.0, -0.25, 0.25, 1.0), seed=1)
    np.testing.assert_array_equal(told.features, data.features)
    means = np.array([drifting.outcome[data.asset == a].mean() for a in range(4)])
    np.testing.assert_allclose(np.sort(told.outcome), np.sort(drifting.outcome - means[data.asset]))
    assert abs(np.corrcoef(told.outcome, data.asset)[0, 1]) < 0.1
    np.testing.assert_array_equal(told.outcome, shuffled(drifting, (-1.0, -0.25, 0.25, 1.0), seed=1).outcome)


@pytest.mark.parametrize("arm", [SFT, RFT, SHUFFLED])
def test_nothing_is_fitted_on_what_comes_later(arm):
    fit_end = FOLD.validation.stop - 1 + 5
    assert_fit(lambda c: taught(arm, ground(c), FOLD, seed=0).policy.state_hash, CUBE, fit_end, np.random.default_rng(0))


def test_a_label_that_overlaps_the_cut_is_caught():
    fit_end = FOLD.validation.stop - 1  # the canary: no purge, labels close after the rows that they are on
    with pytest.raises(AssertionError, match="the fit saw past its end"):
        assert_fit(lambda c: taught(SFT, ground(c), FOLD, seed=0).policy.state_hash, CUBE, fit_end, np.random.default_rng(0))


def test_arms_are_the_same_twice_and_rft_starts_where_sft_ended():
    first, again = (taught(RFT, ground(), FOLD, seed=2) for _ in range(2))
    assert first.policy.state_hash == again.policy.state_hash != taught(SFT, ground(), FOLD, seed=2).policy.state_hash
    assert first.sft == taught(SFT, ground(), FOLD, seed=2).sft
    assert study().arms == (SFT, RFT, SHUFFLED) and study(method="sft").arms == (SFT, SHUFFLED)


def test_positions_by_hand():
    """Two bars of horizon: each row holds the mean of the last two tilts (sell 0, hold 1, buy 2), made to add up to 1."""
    signs = np.array([[1.0, 0.0, -1.0], [1.0, np.nan, 1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
    listed = np.ones((4, 3), bool)
    expected = [[2 / 3, 1 / 3, 0.0], [4 / 8, 2 / 8, 2 / 8], [2 / 5, 1 / 5, 2 / 5], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(positions(signs, listed, 2), expected)
    listed[2:, 0] = False
    np.testing.assert_allclose(positions(signs, listed, 2)[2:], [[0.0, 1 / 3, 2 / 3], [0.0, 0.5, 0.5]])


def test_to_hold_everything_is_equal_weight():
    listed = CUBE.listed[FOLD.test]
    np.testing.assert_allclose(positions(np.zeros(listed.shape), listed, 5), equal(listed))


STRICT = Limits(max_weight=0.3, max_sector=0.5, drawdown=0.05, cooldown_bars=5, daily_loss=0.02)


@pytest.mark.parametrize("limits", [Limits(), STRICT])
def test_positions_are_traded_under_the_controls_that_bind_every_policy(limits):
    sectors = {s: "first" if a < 3 else "last" for a, s in enumerate(CUBE.symbols)}
    terms = replace(TRADE, limits=limits, sectors=sectors)
    even, _ = engine.run(EqualWeight(), CUBE, FOLD.test, terms)
    walked = traded("equal_weight", CUBE, FOLD.test, equal(CUBE.listed[FOLD.test]), terms)
    np.testing.assert_array_equal(walked.returns, even.returns)
    np.testing.assert_array_equal(walked.weights, even.weights)
    assert walked.trips == even.trips
    tripped = {trip.control for trip in walked.trips}
    assert tripped == (set() if limits == Limits() else {"name_cap", "sector_cap", "drawdown", "daily_loss"})


def test_what_was_tested_survives_the_disk_and_is_judged_by_date(tmp_path):
    here = ground()
    found = examined(taught(SFT, here, FOLD, seed=0).policy, here, FOLD, seed=0)
    found.save(tmp_path / "x.npz")
    again = Exam.load(tmp_path / "x.npz")
    assert all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(vars(found).values(), vars(again).values(), strict=True))
    said = figures([found], 5)
    assert said["examples"] == len(here.examples(FOLD.test)) and said["days"] <= 69
    assert said["reward"]["mean"] == pytest.approx(found.parts.sum(axis=1).mean())
    assert said["score"]["mean"] == pytest.approx(np.nanmean(found.score)) and said["score"]["low"] < said["score"]["high"]
    assert (np.isnan(found.score) == ~found.spoken).all()
    same = paired([found], [found], 5)
    assert same["reward"] == {"mean": 0.0, "low": None, "high": None, "p_value": None}


def test_the_course_of_a_training_is_told():
    told = learnt(taught(RFT, ground(), FOLD, seed=0))
    steps = told["sft"]["train"]
    assert len(steps) == 3 and told["second_over_last"]["steps"] == steps[1] / steps[2] and len(told["rft"]["train"]) == 2


@pytest.mark.parametrize(("name", "method"), [("baseline", "sft"), ("rft", "rft")])
def test_experiment_files_are_configs(name, method):
    config = load_config(None, str(ROOT / "experiments" / f"thesis_{name}.yaml"))
    section = config.thesis
    assert section.method == method and (section.folds, section.train_bars, section.test_bars) == (3, 320, 120)
    assert study_of(section).sources["f_insider"] == "planted_insider"
    real = load_config(
        None, str(ROOT / "experiments" / f"thesis_{name}.yaml"),
        {"data.type": "csv", "data.path": "prices/", "thesis.planted_insider": "null"},
    )  # fmt: skip
    assert real.thesis.planted_insider is None and real.data.type == "csv"


# --- it learns, and not from noise: minutes -------------------------------------------------------------------------


def synthetic(strength: float, insider: float | None, seed: int = 5) -> Cube:
    source = SyntheticSource(24, 1000, seed=seed, signal_strength=strength)
    tables = [source.read(s) for s in source.symbols()]
    facts = {name: pl.concat([t[name] for t in tables]) for name in ("filings", "news")}
    bars = Panel.of(pl.concat([t["bars"] for t in tables]))
    cube = build_cube(bars, None, facts, bars_per_year=252.0, price_kind="raw")
    return cube if insider is None else plant_insider(cube, source, insider, seed=0)


@cache
def experiment(strength: float, insider: float | None) -> tuple[dict[str, list[Exam]], dict[str, Any]]:
    cube = synthetic(strength, insider)
    knobs = load_config(None, str(ROOT / "experiments" / "thesis_rft.yaml")).thesis.model_copy(update={"planted_insider": insider})
    here = Ground.of(cube, study_of(knobs), TERMS)
    folds = cut(len(cube.times) - 5, folds=3, train_bars=320, test_bars=120, validation=0.2, horizon=5, embargo=5)
    blocks: dict[str, list[Exam]] = {}
    money: dict[str, Any] = {}
    for arm in here.study.arms:
        policies = [taught(arm, here, f, seed=int(f.name)).policy for f in folds]
        blocks[arm] = [examined(p, here, f, seed=0) for p, f in zip(policies, folds, strict=True)]
        walks = []
        for block, f in zip(blocks[arm], folds, strict=True):
            listed = cube.listed[f.test]
            mine = traded(arm, cube, f.test, positions(block.sides, listed, 5), TRADE)
            walks.append([mine, *(engine.run(rule, cube, f.test, TRADE)[0] for rule in (EqualWeight(), BuyAndHold()))])
        mine, even, hold = (engine.concatenate(list(parts)) for parts in zip(*walks, strict=True))
        money[arm] = earned(mine, hold, even, bars_per_year=252.0, resamples=1000, seed=0)
    return blocks, money


@pytest.mark.slow
def test_a_strong_signal_is_learnt_and_rft_earns_more_reward_than_sft():
    blocks, money = experiment(3.0, 0.25)
    for arm in (SFT, RFT):
        said = figures(blocks[arm], 5)
        assert said["validity"] > 0.9 and said["valid_likeliest"] > 0.9
        assert said["score"]["low"] > 0 and money[arm]["edge"]
    gap = paired(blocks[RFT], blocks[SFT], 5)["reward"]
    assert gap["low"] > 0 and gap["p_value"] < 0.01


@pytest.mark.slow
def test_in_noise_nothing_is_claimed():
    blocks, money = experiment(0.0, None)
    for arm in (SFT, RFT, SHUFFLED):
        said = figures(blocks[arm], 5)
        assert not said["score"]["low"] > 0 and not said["decision"]["low"] > 0 and not money[arm]["edge"]


@pytest.mark.slow
def test_two_epochs_of_sft_teach_nearly_all_that_twenty_do():
    """On the synthetic market of the experiment's size and settings: within 5% of the loss after 20 epochs, as the policy stands then."""
    cube = synthetic(1.0, 0.05)
    here = Ground.of(cube, study_of(load_config(None, str(ROOT / "experiments" / "thesis_rft.yaml")).thesis), TERMS)
    data = here.examples(slice(300, 1000))
    losses = []
    for epochs in (2, 20):
        policy = begin(data, hidden=here.study.hidden, seed=0)
        fit_sft(policy, data, replace(here.study.sft, epochs=epochs), seed=0)
        losses.append(teacher_loss(policy, data, here.study.sft))
    assert losses[0] / losses[1] < 1.05
