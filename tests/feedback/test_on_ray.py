"""A fold judged: each window by what had closed before it, in bulk as when served, on Ray as at home."""

import json

import numpy as np
import pytest
import ray

from rlaif_ray.agents.analysts import opinion_row, view_at
from rlaif_ray.agents.debate import verdicts
from rlaif_ray.config import Feedback
from rlaif_ray.core import Cube, Opinion, OpinionTable, canonical_json
from rlaif_ray.feedback.on_ray import judge_fold, judge_windows
from rlaif_ray.feedback.reward_model import RewardModel
from rlaif_ray.feedback.weighing import load_weigher, weigh_with
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Fold, walk_forward
from tests.desk import ask, dense, desk_cube
from tests.laws import assert_apply

SECTION = Feedback(epochs=2, min_pairs=100)


def folds_of(cube: Cube) -> list[Fold]:
    return walk_forward(
        len(cube.times), folds=1, test_fraction=0.3, forecaster_fraction=0.3, inner_windows=2, horizon=5, embargo=5, warmup=20
    )  # fmt: skip


@pytest.fixture(scope="module")
def market() -> tuple[Cube, OpinionTable]:
    cube = desk_cube(0, rows=500)
    return cube, dense(cube)


def test_the_manager_speaks_on_every_row_of_every_window(market, tmp_path) -> None:
    cube, opinions = market
    fold = folds_of(cube)[0]
    manager, record = judge_windows(cube, fold, opinions, SECTION, 0, tmp_path, terms=OutcomeTerms(0.0003), resamples=100)
    rows = np.concatenate([np.arange(w.rows.start, w.rows.stop) for w in fold.windows])
    assert np.array_equal(manager.as_of, cube.known_at[rows]) and manager.authors == ("manager",)
    assert np.isfinite(manager.p_up[:, ~cube.delisted[-1]]).mean() > 0.9
    assert [w["role"] for w in record["windows"]] == ["train", "train", "validation", "test"]
    assert record["windows"][-1]["judge"] == "reward_model"
    json.loads(canonical_json(record))


def test_the_served_verdict_is_the_bulk_one_bit_for_bit(market, tmp_path) -> None:
    cube, opinions = market
    fold = folds_of(cube)[0]
    manager, _ = judge_windows(cube, fold, opinions, SECTION, 0, tmp_path, terms=OutcomeTerms(0.0003), resamples=100)
    judge, said = load_weigher(tmp_path), ask(cube)
    assert isinstance(judge, RewardModel)
    for row in (fold.last.rows.start, fold.last.rows.start + 3, fold.last.rows.stop - 1):
        on_table = [o for o in said if o.as_of == cube.known_at[opinion_row(row, 5)]]
        served = verdicts(view_at(cube, row), on_table, weigh_with(judge))
        p_up = [v.p_up if isinstance(v, Opinion) else np.nan for v in served]
        assert np.array_equal(p_up, manager.latest(cube.known_at[row])[:, 0], equal_nan=True)
        assert all(v.as_of == cube.known_at[row] for v in served)


def test_noise_after_t_changes_no_verdict_by_t(tmp_path) -> None:
    """The whole loop: opinions, outcomes, pairs, fits and verdicts of all windows."""
    cube = desk_cube(1, rows=500)
    for fold in folds_of(cube):

        def loop(c: Cube, fold: Fold = fold) -> OpinionTable:
            return judge_windows(c, fold, dense(c), SECTION, 0, tmp_path, terms=OutcomeTerms(0.0), resamples=100)[0]

        for t in (fold.windows[1].rows.start + 4, fold.last.rows.start):
            assert_apply(loop, cube, t, np.random.default_rng(t))


def test_a_judge_that_memorises_its_pairs_knows_nothing_of_the_test_block(tmp_path) -> None:
    """On noise, a model large and long enough to know its training pairs by heart gains nothing on unseen rows."""
    gains = []
    for seed in range(4):
        cube = desk_cube(20 + seed, rows=500)
        section = Feedback(epochs=60, weight_decay=0.0, temperature=0.1, min_pairs=100)
        _, record = judge_windows(cube, folds_of(cube)[0], dense(cube), section, seed, tmp_path, terms=OutcomeTerms(0.0), resamples=200)
        gains.append(record["gain_over_equal_weights"])
    assert np.mean([g["value"] for g in gains]) < 0.005 and sum(g["low"] > 0 for g in gains) == 0


def test_where_no_outcome_has_closed_weights_are_equal_and_it_is_said(market, tmp_path) -> None:
    cube, opinions = market
    section = Feedback(epochs=2, min_pairs=10**6)
    manager, record = judge_windows(cube, folds_of(cube)[0], opinions, section, 0, tmp_path, terms=OutcomeTerms(0.0), resamples=100)
    assert all(w["judge"] == "equal_weights" and "1000000 are needed" in w["reason"] for w in record["windows"])
    assert abs(record["gain_over_equal_weights"]["value"]) < 1e-12
    assert load_weigher(tmp_path).kind == "equal_weights" and np.isfinite(manager.p_up).any()


def test_the_manager_is_judged_against_the_climatology_that_the_analysts_are(market, tmp_path) -> None:
    """A desk of one has a manager who says what the analyst says: the same opinions on the same rows, so the same record."""
    cube, opinions = market
    alone = OpinionTable(opinions.as_of, opinions.symbols, opinions.authors[2:3], opinions.p_up[..., 2:3], opinions.horizon_bars)
    _, record = judge_windows(cube, folds_of(cube)[0], alone, SECTION, 0, tmp_path, terms=OutcomeTerms(0.0003), resamples=100)
    (analyst,) = record["analysts"].values()
    manager = record["ways"]["manager"]
    assert manager["score"]["value"] == pytest.approx(analyst["score"]["value"], abs=1e-12)
    assert manager["n_judged"] == analyst["n_closed"] > 0 and manager["n_abstained"] == 0


def test_with_the_live_fold_nothing_has_closed_and_nothing_breaks(market, tmp_path) -> None:
    cube, opinions = market
    live = folds_of(cube)[-1]
    manager, record = judge_windows(cube, live, opinions, SECTION, 0, tmp_path, terms=OutcomeTerms(0.0), resamples=100)
    assert manager.as_of[-1] == cube.known_at[-1] and np.isfinite(manager.p_up[-1]).any()
    assert all(r["n_closed"] == 0 and np.isnan(r["score"]["value"]) for r in record["analysts"].values())


def test_ray_judges_as_one_process_does(market, tmp_path, ray_session) -> None:
    cube, opinions = market
    fold = folds_of(cube)[0]
    here = judge_windows(cube, fold, opinions, SECTION, 0, tmp_path / "here", terms=OutcomeTerms(0.0003), resamples=100)
    there = judge_fold(ray.put(cube), fold, opinions, SECTION, 0, tmp_path / "there", terms=OutcomeTerms(0.0003), resamples=100)
    assert np.array_equal(here[0].p_up, there[0].p_up, equal_nan=True)
    assert canonical_json(here[1]) == canonical_json(there[1])
    assert (tmp_path / "here/reward_model.json").read_bytes() == (tmp_path / "there/reward_model.json").read_bytes()
