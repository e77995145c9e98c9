from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rlaif_ray.core import Cube
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.rl.env import Track, excess
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import PARTS, Reward
from rlaif_ray.rl.sac import configure
from tests.laws import parameter_hash
from tests.markets import daily
from tests.rl.toys import COSTS, SMALL, toy, track

# RLlib registers every environment of a process under one name
pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent")]


def build(cube: Cube, rows: slice, seed: int = 0, wild: Track | None = None, **changes: Any) -> Any:
    ref = ray.put(wild or track(cube, rows))
    held = [ref]
    return configure(lambda: ray.get(held[0]), **SMALL | changes, seed=seed).build_algo()


def trained(cube: Cube, rows: slice, updates: int, seed: int = 0, **changes: Any) -> torch.nn.Module:
    algorithm = build(cube, rows, seed, **changes)
    while algorithm.updates < updates:
        algorithm.train()
    actor = algorithm.get_module(DEFAULT_MODULE_ID).actor
    algorithm.stop()
    return actor


def edge(actor: Any, cube: Cube, rows: slice) -> float:
    """t statistic of the log return over equal weight, out of sample."""

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return actor.best(torch.from_numpy(obs)).numpy()

    x = excess(track(cube, rows), act, allowed=SMALL["allowed"])
    return float(x.mean() / x.std() * np.sqrt(len(x)))


def test_it_learns_a_planted_signal() -> None:
    cube = toy(signal=0.3)
    actor = trained(cube, slice(0, 450), updates=300)
    assert edge(actor, cube, slice(460, 900)) > 4.0


def test_it_claims_nothing_on_noise() -> None:
    cube = toy(signal=0.0, seed=1)
    actor = trained(cube, slice(0, 450), updates=300)
    assert edge(actor, cube, slice(460, 900)) < 2.0


def test_same_seed_same_weights() -> None:
    cube = toy(signal=0.3)
    one, two, other = (parameter_hash(trained(cube, slice(0, 200), 16, seed=s).state_dict()) for s in (3, 3, 4))
    assert one == two != other


def test_sampler_acts_by_what_was_learnt() -> None:
    algorithm = build(toy(signal=0.3), slice(0, 200))
    while algorithm.updates < 16:
        algorithm.train()
    learner = algorithm.learner_group.get_state()["learner"]["rl_module"][DEFAULT_MODULE_ID]
    for name, value in algorithm.get_module(DEFAULT_MODULE_ID).state_dict().items():
        np.testing.assert_array_equal(value.numpy(), learner[name])
    algorithm.stop()


def test_checkpoint_goes_on_with_its_replay(tmp_path: Path) -> None:
    """RLlib alone would restore networks and counters, and then learn from an empty buffer."""
    cube = toy(signal=0.3)
    algorithm = build(cube, slice(0, 200))
    while algorithm.updates < 16:
        algorithm.train()
    algorithm.save_to_path(str(tmp_path))
    other = build(cube, slice(0, 200), seed=5)
    other.restore_from_path(str(tmp_path))
    assert other.updates == algorithm.updates == 16 and len(other.ring) == len(algorithm.ring) > 0
    states = [a.learner_group.get_state()["learner"]["rl_module"] for a in (algorithm, other)]
    assert parameter_hash(states[0]) == parameter_hash(states[1])
    a, b = algorithm.ring.sample(8), other.ring.sample(8)
    assert all((a[k] == b[k]).all() for k in a)
    other.train()
    assert other.updates > 16
    for each in (algorithm, other):
        each.stop()


def test_parts_of_the_reward_are_told_apart() -> None:
    algorithm = build(toy(signal=0.3), slice(0, 200))
    algorithm.train()
    assert tuple(algorithm.parts) == PARTS and algorithm.parts["turnover"] > 0 and algorithm.parts["drawdown"] != 0
    algorithm.stop()


def test_a_path_that_ends_is_learnt_from_as_an_end() -> None:
    """Shorts lose more than all on bars that double: RLlib's runner restarts the paths one by one, and nothing is expected after an end."""
    rng = np.random.default_rng(0)
    cube = daily(100.0 * np.cumprod(np.exp(rng.choice([-0.5, 0.9], (120, 3))), axis=0))
    cube = replace(cube, features=rng.standard_normal((120, 3, 1)).astype(np.float32), feature_names=("x",))
    rules = AccountRules(long_short=True, maintenance=0.0)
    wild = Track.of(cube, cube.features, slice(0, 120), fill="next_close", costs=COSTS, account=rules)
    algorithm = build(cube, slice(0, 120), wild=wild, allowed=ActionSet(1.0, long_short=True), reward=Reward("log_return", 1.0))
    while algorithm.updates < 32:
        algorithm.train()
    ended = algorithm.ring.sample(4000)[Columns.TERMINATEDS].mean()
    assert 0.005 < ended < 0.5 and np.isfinite(algorithm.learned["critic_loss"])
    algorithm.stop()
