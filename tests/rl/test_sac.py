from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlaif_ray.core import Cube
from rlaif_ray.rl.env import excess
from rlaif_ray.rl.sac import configure
from tests.laws import parameter_hash
from tests.rl.toys import SMALL, toy, track

# RLlib registers every environment of a process under one name
pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent")]


def build(cube: Cube, rows: slice, seed: int = 0, **changes: Any) -> Any:
    ref = ray.put(track(cube, rows))
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

    x = excess(track(cube, rows), act, kappa=SMALL["kappa"], max_weight=SMALL["max_weight"])
    return float(x.mean() / x.std() * np.sqrt(len(x)))


def test_it_learns_a_planted_signal() -> None:
    cube = toy(signal=0.3)
    actor = trained(cube, slice(0, 450), updates=600)
    assert edge(actor, cube, slice(460, 900)) > 4.0


def test_it_claims_nothing_on_noise() -> None:
    cube = toy(signal=0.0, seed=1)
    actor = trained(cube, slice(0, 450), updates=600)
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
