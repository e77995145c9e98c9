from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from rlaif_ray.backtest import engine
from rlaif_ray.config import RL
from rlaif_ray.core import ForecastTable
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.folds import walk_forward
from rlaif_ray.rl.actor_policy import ActorPolicy
from rlaif_ray.rl.on_ray import CHECKS, train
from tests.rl.toys import COSTS, toy

pytestmark = pytest.mark.usefixtures("ray_session")

SECTION = RL(hidden=(16, 16), batch=32, updates=40, paths=8, members=2, warmup_steps=8, episode_bars=20, replay=2000)
FOLD = walk_forward(600, folds=2, test_fraction=0.4, forecaster_fraction=0.5, inner_windows=2, horizon=2, embargo=2, warmup=10)[0]


def test_a_fold_gives_a_policy_and_its_curve(tmp_path: Path) -> None:
    cube = toy(signal=0.3, rows=600)
    rows = np.arange(FOLD.train_rows.start, FOLD.last.rows.stop)
    values = np.sort(np.random.default_rng(0).standard_normal((len(rows), 5, 1, 3)).astype(np.float32), axis=-1)
    forecasts = {"m": ForecastTable(cube.known_at[rows], "return", cube.symbols, (1,), (0.1, 0.5, 0.9), values, "m")}
    told = train(
        ray.put(cube), FOLD, forecasts, None, section=SECTION, features=cube.feature_names, costs=COSTS, fill="next_open",
        max_weight=0.5, seed=1, out_dir=tmp_path,
    )  # fmt: skip
    assert told["fields"] == ["z", "x", "y", "m[1] median", "m[1] spread"]
    for member in told["members"]:
        assert [p["update"] for p in member["curve"]] == [8 * k for k in range(1, CHECKS + 1)]
        best = max(member["curve"], key=lambda p: (p["validation_log_excess"], p["update"]))
        assert member["kept_update"] == best["update"]
    policy = ActorPolicy.load(tmp_path)
    assert len(policy.actors) == 2
    at = forecasts["m"].at
    _, decisions = engine.run(
        policy, cube, slice(FOLD.last.rows.start, FOLD.last.rows.start + 5), costs=COSTS, fill="next_open", max_weight=0.5,
        forecasts_at=lambda t: {"return": at(cube.known_at[t])},
    )  # fmt: skip
    assert all(sum(d.weights.values()) == pytest.approx(1.0) for d in decisions)


def test_errors_come_without_rays_wrapping(tmp_path: Path) -> None:
    cube = toy(signal=0.3, rows=600)
    rest = {"features": cube.feature_names, "costs": COSTS, "fill": "next_open", "max_weight": 0.5, "seed": 1, "out_dir": tmp_path}
    long = SECTION.model_copy(update={"episode_bars": 400})
    with pytest.raises(ConfigError, match=r"^--rl\.episode_bars is 400"):
        train(ray.put(cube), FOLD, {}, None, section=long, **rest)  # pyright: ignore[reportArgumentType]
    prices = cube.prices.copy()
    prices[300, 2, :4] = -1.0
    with pytest.raises(DataError, match=r"^C at .* price that is not positive"):
        train(ray.put(replace(cube, prices=prices)), FOLD, {}, None, section=SECTION, **rest)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())
