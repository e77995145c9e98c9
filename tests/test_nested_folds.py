"""Each stage learns only from out-of-sample outputs of the stages before it: the fit law over a whole fold, and the memoriser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlaif_ray import policies
from rlaif_ray.config import Config, Feedback, load_config
from rlaif_ray.core import Cube, ForecastTable, OpinionTable
from rlaif_ray.data.events import total_returns
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.on_ray import _Desk, _verdicts_in, judge_windows
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.weighing import EqualWeights
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Fold, walk_forward
from rlaif_ray.forecast.on_ray import forecast_fold
from rlaif_ray.labels import forward_returns
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.rl.on_ray import train
from tests.laws import parameter_hash, perturb_future, random_cube
from tests.tiny import TINY

H = 5


@pytest.fixture(scope="module")
def cube() -> Cube:
    return random_cube(np.random.default_rng(0), rows=420, assets=4, features=3)


@pytest.fixture(scope="module")
def fold() -> Fold:
    return walk_forward(420, folds=1, test_fraction=0.2, forecaster_fraction=0.5, inner_windows=2, horizon=H, embargo=5, warmup=40)[0]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("smoke", None, {**TINY, "rl.sac.updates": "20", "forecast.ttm.steps": "5", "forecast.ttm.refit_steps": "2"})


def desk(cube: Cube) -> OpinionTable:
    """Opinions that follow from the last return alone, so that noise after a row cannot have been in them."""
    rows = np.arange(40, len(cube.times), H)
    last = np.nan_to_num(cube.close[rows] / cube.close[rows - 1] - 1.0)
    p_up = 0.5 + 0.1 * np.tanh(20 * np.stack([last, -last], axis=-1))
    return OpinionTable(cube.known_at[rows], cube.symbols, ("trend", "contrarian"), p_up, H)


def fitted(cube: Cube, fold: Fold, config: Config, folder: Path) -> dict[str, str]:
    """Everything that a fold fits, by content, when its test block is still ahead."""
    cube_ref = ray.put(cube)
    tables = forecast_fold(cube_ref, fold, config.forecast, seed=1, storage=folder / "forecast")
    before = sum(w.rows.stop - w.rows.start for w in fold.windows[:-1])
    seen = {name: table.values[:before] for name, table in tables.items()}
    costs = CostModel.of_bps(0.5, 1.0, 2.0)
    manager, _ = judge_windows(cube, fold, desk(cube), config.feedback, 1, folder / "judge", terms=OutcomeTerms(costs.rate), resamples=50)
    train(
        cube_ref, fold, tables, manager, Terms(costs, limits=Limits(max_weight=0.5)), section=config.rl, features=cube.feature_names,
        seed=1, out_dir=folder / "rl",
    )  # fmt: skip
    files = [f for part in ("forecast/models", "judge", "rl") for f in sorted((folder / part).rglob("*")) if f.is_file()]
    by_name = {str(f.relative_to(folder)): f.read_bytes().hex() for f in files}
    assert any(name.endswith(".safetensors") for name in by_name)
    assert policies.load(folder / "rl").name == config.rl.policy
    return {"tables": parameter_hash({n: np.nan_to_num(v) for n, v in seen.items()}), **by_name}


def test_nothing_that_a_fold_fits_knows_what_comes_after_its_fit_end(
    ray_session: None, cube: Cube, fold: Fold, config: Config, tmp_path: Path
) -> None:
    noisy = perturb_future(cube, fold.last.fit.stop - 1, np.random.default_rng(3))
    assert not np.array_equal(noisy.close, cube.close, equal_nan=True)
    assert fitted(cube, fold, config, tmp_path / "a") == fitted(noisy, fold, config, tmp_path / "b")


class Memoriser:
    """Knows every return that had closed inside the rows that it was fitted on, and says 0 elsewhere."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth, self.rows = truth, slice(0, 0)

    def fit(self, rows: slice) -> None:
        self.rows = rows

    def predict(self, rows: slice) -> np.ndarray:
        inside = (np.arange(rows.start, rows.stop) >= self.rows.start) & (np.arange(rows.start, rows.stop) + H < self.rows.stop)
        return np.where(inside[:, None], self.truth[rows], 0.0)


def told(memoriser: Memoriser, fold: Fold, *, nested: bool) -> np.ndarray:
    """What a policy would be told on its training rows; not nested is the mistake: one fit for the whole span."""
    parts = []
    for window in fold.windows[:-2]:
        memoriser.fit(window.fit if nested else fold.last.fit)
        parts.append(memoriser.predict(window.rows))
    return np.concatenate(parts)


def recipe(cube: Cube, fold: Fold, said: np.ndarray | None) -> Recipe:
    """What SAC would look at on the training rows, with the memoriser among the forecasters or without it."""
    tables = {}
    if said is not None:
        quantiles = np.repeat(said[:, :, None, None], 3, axis=-1).astype(np.float32)
        tables["memoriser"] = ForecastTable(
            cube.known_at[fold.train_rows], "return", cube.symbols, (H,), (0.1, 0.5, 0.9), quantiles, "memoriser"
        )
    return Recipe.fit(
        cube, tables, None, features=cube.feature_names, sees=("features", "forecasts"), block_a=fold.block_a, train_rows=fold.train_rows
    )  # fmt: skip


def test_a_memorising_forecaster_adds_nothing_to_what_the_policy_sees(cube: Cube, fold: Fold) -> None:
    """So the learnt policy, and what it earns, is the one without it. And the canary: one fit for all hands over the answers."""
    truth = forward_returns(total_returns(cube), (H,))[..., 0]
    nested, leaked = (told(Memoriser(truth), fold, nested=n) for n in (True, False))
    assert not nested.any()
    assert recipe(cube, fold, nested) == recipe(cube, fold, None)
    known = np.isfinite(truth[fold.train_rows]) & (leaked != 0)
    assert np.corrcoef(leaked[known], truth[fold.train_rows][known])[0, 1] > 0.999
    assert recipe(cube, fold, leaked) != recipe(cube, fold, None)


class MemorisingJudge:
    """All weight on who turned out right, wherever a pair that it was fitted on stands; the same for all elsewhere."""

    def __init__(self, context: np.ndarray, p_up: np.ndarray, known: PairTable) -> None:
        where = zip(context[known.date, known.asset], p_up[known.date, known.asset], known.chosen.tolist(), strict=True)
        self.right = {(c.tobytes(), p.tobytes()): chosen for c, p, chosen in where}

    def weights(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        out = np.ones(p_up.shape)
        for at in np.ndindex(p_up.shape[:-1]):
            right = self.right.get((context[at].tobytes(), p_up[at].tobytes()))
            if right is not None:
                out[at] = np.arange(p_up.shape[-1]) == right
        return out


def manager_told(cube: Cube, fold: Fold, *, nested: bool, memorise: bool = True) -> np.ndarray:
    """(R,A) the manager's verdicts on the training rows."""
    table = desk(cube)
    outcomes = close(table, cube, OutcomeTerms(0.0))
    told = _Desk(cube, table, outcomes, Feedback(), OutcomeTerms(0.0))
    parts = []
    for window in fold.windows[:-2]:
        known = told.pairs.inside(window.fit if nested else fold.last.fit)
        known = known.take(known.rivals)
        assert len(known)
        judge: Any = MemorisingJudge(told.context, table.p_up, known) if memorise else EqualWeights(table.authors, "nothing is memorised")
        parts.append(_verdicts_in(window.rows, told, judge))
    return np.concatenate(parts)


def test_a_memorising_judge_leaves_the_manager_as_it_was(cube: Cube, fold: Fold) -> None:
    """So the policy hears, bit for bit, what equal weights would say. And the canary: fitted on the whole span it knows who was right."""
    equal = manager_told(cube, fold, nested=True, memorise=False)
    assert np.array_equal(manager_told(cube, fold, nested=True), equal)
    leaked = manager_told(cube, fold, nested=False)
    assert (leaked != equal).mean() > 0.5
    rows = np.arange(fold.train_rows.start, fold.train_rows.stop)
    outcomes = close(desk(cube), cube, OutcomeTerms(0.0))
    spoken = np.isin(outcomes.opened_row, rows)
    came_up = outcomes.residual[spoken] > 0
    said_up = leaked[np.isin(rows, outcomes.opened_row)] > 0.5
    parted = np.abs(outcomes.score[spoken, :, 0] - outcomes.score[spoken, :, 1]) >= 0.01
    assert (said_up == came_up)[parted].mean() > 0.95


def test_every_forecast_of_a_fold_is_made_by_a_fit_that_ended_before_it(fold: Fold) -> None:
    for window in fold.windows:
        assert window.fit.stop <= window.rows.start


def test_tables_hold_one_row_for_each_decision(ray_session: None, cube: Cube, fold: Fold, config: Config, tmp_path: Path) -> None:
    section = config.forecast.model_copy(update={"models": ("naive",)})
    tables: dict[str, ForecastTable] = forecast_fold(ray.put(cube), fold, section, seed=1, storage=tmp_path)
    rows = np.concatenate([np.arange(w.rows.start, w.rows.stop) for w in fold.windows])
    assert np.array_equal(tables["naive"].as_of, cube.known_at[rows])
