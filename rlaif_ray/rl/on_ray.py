"""Train a fold's policy: one Ray task a member, each a local RLlib algorithm, the kept actor chosen on validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from rlaif_ray.config import RL
from rlaif_ray.core import Cube, ForecastTable, OpinionTable
from rlaif_ray.errors import ModelError, RlaifError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.folds import Fold
from rlaif_ray.rl.actor_policy import ActorPolicy
from rlaif_ray.rl.env import PortfolioVectorEnv, Track, excess
from rlaif_ray.rl.networks import EXTRA_FIELDS, Actor
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.runs import seed_for

CHECKS = 5  # times that a member is judged on validation during its budget


def train(
    cube_ref: Any, fold: Fold, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, *, section: RL, features: tuple[str, ...],
    costs: CostModel, fill: Fill, max_weight: float, seed: int, out_dir: str | Path, num_gpus: float = 0,
) -> dict[str, Any]:  # fmt: skip
    """Fit the recipe, train `section.members` policies side by side, save their mean as an `ActorPolicy` in `out_dir`.

    Parameters
    ----------
    cube_ref : object reference of the cube; the tasks read it without a copy.
    forecasts : by model; out of sample on the fold's training and validation rows.
    features : what the policy sees of the cube where `section.sees` has features.
    num_gpus : share of a GPU for each member's learner.

    Returns
    -------
    {"fields": names, "members": [{"seed", "kept_update", "curve": [{"update", "validation_log_excess", "alpha", "q"}]}]}

    Raises `ConfigError`, `DataError` or `ExecutionError` as the parts do, without Ray's wrapping.
    """
    cube: Cube = ray.get(cube_ref)
    train_rows, validation_rows = fold.train_rows, fold.validation.rows
    recipe = Recipe.fit(
        cube, forecasts, desk, features=features, sees=section.sees, block_a=fold.block_a, train_rows=train_rows
    )  # fmt: skip
    tracks = [
        Track.of(cube, recipe.bulk(cube, forecasts, desk, rows), rows, fill=fill, costs=costs) for rows in (train_rows, validation_rows)
    ]  # fmt: skip
    environment(tracks[0], section, max_weight=max_weight, seed=seed)  # says at once, and plainly, what does not fit
    refs = [ray.put(track) for track in tracks]
    task = ray.remote(num_cpus=1, num_gpus=num_gpus)(_member)
    seeds = [seed_for(seed, f"member={m}", bits=31) for m in range(section.members)]
    try:
        # in a list, so that Ray hands over the reference itself: the algorithm's copies of its config stay small
        members = ray.get([task.remote([refs[0]], [refs[1]], section, max_weight, s, num_gpus) for s in seeds])
    except RayTaskError as error:
        if isinstance(error.cause, RlaifError):
            raise error.cause from None
        raise
    actors = []
    for member in members:
        actor = Actor(len(recipe.names) + EXTRA_FIELDS, section.hidden)
        actor.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in member.pop("actor").items()})
        actors.append(actor)
    ActorPolicy(recipe, actors, hidden=section.hidden, kappa=section.kappa, max_weight=max_weight).save(out_dir)
    return {"fields": list(recipe.names), "members": members}


def environment(track: Track, section: RL, *, max_weight: float, seed: int) -> PortfolioVectorEnv:
    """The training environment of a section."""
    return PortfolioVectorEnv(
        track, paths=section.paths, episode_bars=section.episode_bars, kappa=section.kappa, max_weight=max_weight,
        reward_scale=section.reward_scale, risk_aversion=section.risk_aversion, seed=seed,
    )  # fmt: skip


def _member(train: list[Any], validation: list[Any], section: RL, max_weight: float, seed: int, num_gpus: float) -> dict[str, Any]:
    """One seeded policy: its curve, and the actor that did best on validation (of equals the later)."""
    # here, not above: RLlib takes seconds to import, and only the workers need it
    from ray.rllib.core import DEFAULT_MODULE_ID

    from rlaif_ray.rl.sac import configure

    torch.set_num_threads(1)
    judged: Track = ray.get(validation[0])
    knobs = section.model_dump(exclude={"updates", "members", "features", "sees"})
    algorithm: Any = configure(lambda: ray.get(train[0]), **knobs, max_weight=max_weight, seed=seed, num_gpus=num_gpus).build_algo()
    curve: list[dict[str, float]] = []
    kept: dict[str, np.ndarray] = {}
    try:
        while algorithm.updates < section.updates:
            _train_until(algorithm, round(section.updates * (len(curve) + 1) / CHECKS))
            actor = algorithm.get_module(DEFAULT_MODULE_ID).actor
            if not all(bool(torch.isfinite(p).all()) for p in actor.parameters()):
                raise ModelError(f"training diverged by update {algorithm.updates}; lower --rl.actor_lr or --rl.critic_lr")
            score = _judge(actor, judged, section, max_weight)
            if all(score >= point["validation_log_excess"] for point in curve):
                kept = {k: v.detach().cpu().numpy().copy() for k, v in actor.state_dict().items()}
                kept_update = algorithm.updates
            curve.append({"update": algorithm.updates, "validation_log_excess": score, **algorithm.learned})
    finally:
        algorithm.stop()
    return {"seed": seed, "kept_update": kept_update, "curve": curve, "actor": kept}


def _judge(actor: Actor, track: Track, section: RL, max_weight: float) -> float:
    """Mean log return a bar over equal weight, of the deterministic actor on rows that it has not learnt from."""

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return actor.best(torch.from_numpy(obs)).numpy()

    return float(excess(track, act, kappa=section.kappa, max_weight=max_weight).mean())


def _train_until(algorithm: Any, update: int) -> None:
    """RLlib tells of a failure in the environment as a bare RuntimeError; the cause says more."""
    try:
        while algorithm.updates < update:
            algorithm.train()
    except RuntimeError as error:
        if isinstance(error.__cause__, RlaifError):
            raise error.__cause__ from None
        raise
