"""A toy market with a planted signal one bar ahead, small enough to be learnt in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rlaif_ray.core import Cube
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.rl.env import Track
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import Reward
from tests.markets import daily

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
SMALL: dict[str, Any] = {
    "hidden": (32, 32), "batch": 64, "paths": 16, "updates_per_step": 2.0, "episode_bars": 30, "warmup_steps": 20, "gamma": 0.5,
    "tau": 0.01, "actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, "replay": 50_000, "target_entropy": -1.0, "initial_alpha": 0.02,
    "input_noise": 0.5, "allowed": ActionSet(0.5), "reward": Reward("excess_utility", scale=100.0, risk_aversion=20.0),
}  # fmt: skip


def toy(signal: float, seed: int = 0, rows: int = 900, assets: int = 5) -> Cube:
    """Returns open to close of bar t+1 are signal * 1% * z[t] + 1% * noise; z is the first of three features, the others are noise."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, assets, 3))
    returns = 0.01 * rng.standard_normal((rows, assets))
    returns[1:] += 0.01 * signal * z[:-1, :, 0]
    closes = 100.0 * np.cumprod(1.0 + returns, axis=0)
    cube = daily(closes, closes / (1.0 + returns))
    return replace(cube, features=z.astype(np.float32), feature_names=("z", "x", "y"))


def track(cube: Cube, rows: slice) -> Track:
    return Track.of(cube, np.clip(cube.features[rows], -5, 5), rows, fill="next_open", costs=COSTS)
