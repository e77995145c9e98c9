from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from rlaif_ray import policies
from rlaif_ray.backtest import engine
from rlaif_ray.config_rl import RL, SAC
from rlaif_ray.core import ForecastTable
from rlaif_ray.errors import CheckpointError, ConfigError, DataError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.folds import walk_forward
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.rl.actor_policy import ActorPolicy
from rlaif_ray.rl.on_ray import CHECKS, train
from rlaif_ray.strategies import forecast_optimiser
from tests.rl.toys import COSTS, toy

pytestmark = pytest.mark.usefixtures("ray_session")

LEARNER = SAC(hidden=(16, 16), batch=32, updates=40, paths=8, warmup_steps=8, episode_bars=20, replay=2000)
SECTION = RL(policy="sac", members=2, sees=("features", "forecasts"), sac=LEARNER)
TERMS = Terms(COSTS, limits=Limits(max_weight=0.5))
FOLD = walk_forward(600, folds=2, test_fraction=0.4, forecaster_fraction=0.5, inner_windows=2, horizon=2, embargo=2, warmup=10)[0]


def test_a_fold_gives_a_policy_and_its_curve(tmp_path: Path) -> None:
    cube = toy(signal=0.3, rows=600)
    rows = np.arange(FOLD.train_rows.start, FOLD.last.rows.stop)
    values = np.sort(np.random.default_rng(0).standard_normal((len(rows), 5, 1, 3)).astype(np.float32), axis=-1)
    forecasts = {"m": ForecastTable(cube.known_at[rows], "return", cube.symbols, (1,), (0.1, 0.5, 0.9), values, "m")}
    told = train(
        ray.put(cube), FOLD, forecasts, None, TERMS, section=SECTION, features=cube.feature_names, seed=1, out_dir=tmp_path,
    )  # fmt: skip
    assert told["fields"] == ["z", "x", "y", "m[1] median", "m[1] spread"]
    for member in told["members"]:
        assert [p["update"] for p in member["curve"]] == [8 * k for k in range(1, CHECKS + 1)]
        best = max(member["curve"], key=lambda p: (p["validation_log_excess"], p["update"]))
        assert member["kept_update"] == best["update"]
    policy = policies.load(tmp_path)
    assert isinstance(policy, ActorPolicy) and len(policy.actors) == 2
    at = forecasts["m"].at
    _, decisions = engine.run(
        policy, cube, slice(FOLD.last.rows.start, FOLD.last.rows.start + 5), TERMS,
        forecasts_at=lambda t: {"return": at(cube.known_at[t])},
    )  # fmt: skip
    assert all(0.0 <= sum(d.weights.values()) <= 1.0 + 1e-9 for d in decisions)


def test_errors_come_without_rays_wrapping(tmp_path: Path) -> None:
    cube = toy(signal=0.3, rows=600)
    rest = {"features": cube.feature_names, "seed": 1, "out_dir": tmp_path}
    long = SECTION.model_copy(update={"sac": LEARNER.model_copy(update={"episode_bars": 400})})
    with pytest.raises(ConfigError, match=r"^--rl\.sac\.episode_bars is 400"):
        train(ray.put(cube), FOLD, {}, None, TERMS, section=long, **rest)  # pyright: ignore[reportArgumentType]
    prices = cube.prices.copy()
    prices[300, 2, :4] = -1.0
    with pytest.raises(DataError, match=r"^C at .* price that is not positive"):
        train(ray.put(replace(cube, prices=prices)), FOLD, {}, None, TERMS, section=SECTION, **rest)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_the_optimiser_learns_nothing_and_is_kept_by_its_settings(tmp_path: Path) -> None:
    cube = toy(signal=0.3, rows=600)
    section = RL(policy="lightgbm_optimiser")
    with pytest.raises(ConfigError, match="expected lightgbm among"):
        train(ray.put(cube), FOLD, {}, None, TERMS, section=section, features=(), seed=1, out_dir=tmp_path)
    rows = np.arange(FOLD.train_rows.start, FOLD.last.rows.stop)
    values = np.zeros((len(rows), 5, 1, 3), np.float32)
    forecasts = {"lightgbm": ForecastTable(cube.known_at[rows], "return", cube.symbols, (5,), (0.1, 0.5, 0.9), values, "lightgbm")}
    told = train(ray.put(cube), FOLD, forecasts, None, TERMS, section=section, features=(), seed=1, out_dir=tmp_path)
    assert told == {"fields": [], "members": []}
    kept = policies.load(tmp_path)
    assert vars(kept) == vars(forecast_optimiser(cube, forecasts["lightgbm"], cost_per_side=COSTS.rate, max_weight=0.5))
    (tmp_path / "policy.json").write_text('{"policy": "luck"}')
    with pytest.raises(CheckpointError, match="holds a policy 'luck'; expected direct, sac or lightgbm_optimiser"):
        policies.load(tmp_path)
