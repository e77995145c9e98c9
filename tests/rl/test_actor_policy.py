import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlaif_ray.backtest import engine
from rlaif_ray.core import Cube
from rlaif_ray.errors import CheckpointError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.terms import Terms
from rlaif_ray.rl.actor_policy import ActorPolicy
from rlaif_ray.rl.env import Track, excess
from rlaif_ray.rl.networks import Actor
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.strategies import EqualWeight
from tests.laws import assert_apply, random_cube

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
TERMS, ROWS = Terms(COSTS), slice(60, 100)


def policy(cube: Cube, members: int = 1, max_weight: float = 0.5) -> ActorPolicy:
    recipe = Recipe.fit(cube, {}, None, features=cube.feature_names, sees=("features",), block_a=slice(0, 30), train_rows=slice(30, 60))
    torch.manual_seed(0)
    actors = [Actor(len(recipe.names), (8, 8)) for _ in range(members)]
    return ActorPolicy(recipe, actors, hidden=(8, 8), allowed=ActionSet(max_weight))


def walk(p: ActorPolicy, cube: Cube):
    return engine.run(p, cube, ROWS, TERMS)


def test_saved_and_loaded_decides_the_same(tmp_path: Path) -> None:
    cube = random_cube(np.random.default_rng(0), 120, 5)
    made = policy(cube, members=2)
    made.save(tmp_path)
    assert not list(tmp_path.glob("*.p*k*l"))
    assert walk(ActorPolicy.load(tmp_path), cube)[1] == walk(made, cube)[1]


def test_backtest_is_the_environments_episode() -> None:
    """The policy in the engine, row by row, and its actor in the environment, in bulk, earn the same."""
    cube = random_cube(np.random.default_rng(1), 120, 5)
    p = policy(cube)
    episode, _ = walk(p, cube)
    equal, _ = engine.run(EqualWeight(), cube, ROWS, TERMS)
    fields = p.recipe.bulk(cube, {}, None, slice(60, 101))
    track = Track.of(cube, fields, slice(60, 101), fill="next_open", costs=COSTS, memory=p.recipe.memory)
    with torch.no_grad():
        walked = excess(track, lambda obs: p.actors[0].best(torch.from_numpy(obs)).numpy(), allowed=ActionSet(0.5))
    # what is held comes by two float64 sums, which can round to neighbouring float32 inputs
    np.testing.assert_allclose(walked, np.log1p(episode.returns) - np.log1p(equal.returns), atol=1e-6)


def test_members_vote_by_mean() -> None:
    cube = random_cube(np.random.default_rng(2), 120, 5)
    both = policy(cube, members=2)
    alone = [ActorPolicy(both.recipe, [a], hidden=(8, 8), allowed=ActionSet(0.5)) for a in both.actors]
    first = [walk(p, cube)[1][0].weights for p in (both, *alone)]
    for symbol in cube.symbols:
        assert first[0][symbol] == pytest.approx((first[1][symbol] + first[2][symbol]) / 2)


def test_decisions_do_not_see_the_future() -> None:
    cube, rng = random_cube(np.random.default_rng(3), 120, 5), np.random.default_rng(0)
    p = policy(cube)
    assert_apply(lambda c: walk(p, c)[1], cube, 80, rng)


def test_reason_gives_the_names_and_what_pushed_them() -> None:
    cube = random_cube(np.random.default_rng(4), 120, 5)
    decision = walk(policy(cube), cube)[1][0]
    top = max(decision.weights, key=decision.weights.__getitem__)
    assert decision.reason.startswith(f"{top} ") and "over equal weight" in decision.reason and "under equal weight" in decision.reason
    assert "sd" in decision.reason and ("x0" in decision.reason or "x1" in decision.reason)


def test_delisted_names_get_nothing() -> None:
    cube = random_cube(np.random.default_rng(5), 120, 4)
    gone = np.zeros((120, 4), bool)
    gone[70:, 2] = True
    prices, tradable = cube.prices.copy(), cube.tradable.copy()
    prices[70:, 2], tradable[70:, 2] = np.nan, False
    cube = replace(cube, prices=prices, tradable=tradable, delisted=gone)
    decisions = walk(policy(cube), cube)[1]
    assert all(d.weights["S02"] == 0.0 for d in decisions[10:]) and decisions[0].weights["S02"] > 0.0
    assert all(sum(d.weights.values()) == pytest.approx(1.0) for d in decisions)


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no policy in .*policy\.json"):
        ActorPolicy.load(tmp_path / "nowhere")
    policy(random_cube(np.random.default_rng(0), 120, 5)).save(tmp_path)
    manifest = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(manifest | {"hidden": [16, 16]}))
    with pytest.raises(CheckpointError, match="no policy in"):
        ActorPolicy.load(tmp_path)


def test_weights_that_are_not_finite_are_refused() -> None:
    p = policy(random_cube(np.random.default_rng(0), 120, 5))
    broken = Actor(len(p.recipe.names), (8, 8))
    torch.nn.init.constant_(broken.net.head.bias, float("nan"))
    with pytest.raises(CheckpointError, match=r"actor 0 has weights that are not finite.*rl\.sac\.actor_lr"):
        ActorPolicy(p.recipe, [broken], hidden=(8, 8), allowed=ActionSet(0.5))
