"""What a run's policy learns in a fold: the direct policy or SAC, each kept as it did best on validation rows, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from rlaif_ray.config_rl import RL, SAC
from rlaif_ray.core import Cube, ForecastTable, OpinionTable
from rlaif_ray.errors import ConfigError, ModelError, RlaifError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.folds import Fold
from rlaif_ray.rl.actor_policy import ActorPolicy
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_on_ray import train_direct
from rlaif_ray.rl.env import PortfolioVectorEnv, Track, excess, random_parts
from rlaif_ray.rl.networks import Actor
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import Reward
from rlaif_ray.runs import seed_for
from rlaif_ray.strategies import forecast_optimiser

CHECKS = 5  # times that a member is judged on validation during its budget


def train(
    cube_ref: Any, fold: Fold, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, terms: Terms, *, section: RL,
    features: tuple[str, ...], seed: int, out_dir: str | Path, num_gpus: float = 0,
) -> dict[str, Any]:  # fmt: skip
    """Whatever `section.policy` needs to decide on the fold's test rows, left in `out_dir` for `policies.load`.

    Parameters
    ----------
    cube_ref : object reference of the cube; the tasks read it without a copy.
    forecasts : by model; out of sample on the fold's training and validation rows.
    terms : on which it trades.
    features : what the policy sees of the cube where `section.sees` has features.
    num_gpus : share of a GPU for each member's learner.

    Returns
    -------
    {"fields": names, "members": [{"seed", "curve": [...], ...}]}; both empty for a policy that learns nothing.

    Raises `ConfigError`, `DataError` or `ExecutionError` as the parts do, without Ray's wrapping.
    """
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    cube: Cube = ray.get(cube_ref)
    if section.policy == "lightgbm_optimiser":
        if (table := forecasts.get("lightgbm")) is None:
            raise ConfigError(f"--rl.policy is {section.policy}; expected lightgbm among --forecast.models, seen {sorted(forecasts)}")
        forecast_optimiser(cube, table, cost_per_side=terms.costs.rate, max_weight=terms.limits.max_weight).save(out_dir)
        return {"fields": [], "members": []}
    course = Course.of(cube, fold, forecasts, desk, terms, section=section, features=features)
    if section.policy == "direct":
        return train_direct(course, section=section, seed=seed, out_dir=out_dir)
    return _train_sac(course, section=section, seed=seed, out_dir=out_dir, num_gpus=num_gpus)


def _train_sac(course: Course, *, section: RL, seed: int, out_dir: str | Path, num_gpus: float) -> dict[str, Any]:
    """`section.members` policies side by side, one task each; their mean is saved."""
    environment(course.train, section.sac, allowed=course.allowed, seed=seed)  # says at once, and plainly, what does not fit
    refs = [ray.put(track) for track in (course.train, course.validation)]
    task = ray.remote(num_cpus=1, num_gpus=num_gpus)(_member)
    seeds = [seed_for(seed, f"member={m}", bits=31) for m in range(section.members)]
    try:
        # in a list, so that Ray hands over the reference itself: the algorithm's copies of its config stay small
        members = ray.get([task.remote([refs[0]], [refs[1]], section.sac, course.allowed, s, num_gpus) for s in seeds])
    except RayTaskError as error:
        if isinstance(error.cause, RlaifError):
            raise error.cause from None
        raise
    actors = []
    for member in members:
        actor = Actor(len(course.recipe.names), section.sac.hidden)
        actor.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in member.pop("actor").items()})
        actors.append(actor)
    ActorPolicy(course.recipe, actors, hidden=section.sac.hidden, allowed=course.allowed).save(out_dir)
    return {"fields": list(course.recipe.names), "members": members}


def environment(track: Track, section: SAC, *, allowed: ActionSet, seed: int) -> PortfolioVectorEnv:
    """The training environment of a section."""
    return PortfolioVectorEnv(
        track, paths=section.paths, episode_bars=section.episode_bars, allowed=allowed, reward=reward_of(section, track, allowed),
        cost_range=section.cost_range, subset=section.subset, seed=seed,
    )  # fmt: skip


def reward_of(section: SAC, track: Track, allowed: ActionSet) -> Reward:
    """The reward of a section; the weighted kind takes its deviations from a random policy on the track, the training rows."""
    scale = section.reward_scale or (1.0 if section.reward == "weighted" else 100.0)
    reward = Reward(section.reward, scale=scale, risk_aversion=section.risk_aversion)
    if section.reward == "weighted":
        return reward.fitted(random_parts(track, allowed=allowed, episode_bars=section.episode_bars))
    return reward


def _member(
    train: list[Any], validation: list[Any], section: SAC, allowed: ActionSet, seed: int, num_gpus: float
) -> dict[str, Any]:  # fmt: skip
    """One seeded policy: its curve, and the actor that did best on validation (of equals the later)."""
    # here, not above: RLlib takes seconds to import, and only the workers need it
    from ray.rllib.core import DEFAULT_MODULE_ID

    from rlaif_ray.rl.sac import configure

    torch.set_num_threads(1)
    judged: Track = ray.get(validation[0])
    knobs = section.model_dump(exclude={"updates", "reward", "reward_scale", "risk_aversion"})
    reward = reward_of(section, ray.get(train[0]), allowed)
    algorithm: Any = configure(
        lambda: ray.get(train[0]), **knobs, allowed=allowed, reward=reward, seed=seed, num_gpus=num_gpus
    ).build_algo()  # fmt: skip
    curve: list[dict[str, float]] = []
    kept: dict[str, np.ndarray] = {}
    try:
        while algorithm.updates < section.updates:
            _train_until(algorithm, round(section.updates * (len(curve) + 1) / CHECKS))
            actor = algorithm.get_module(DEFAULT_MODULE_ID).actor
            if not all(bool(torch.isfinite(p).all()) for p in actor.parameters()):
                raise ModelError(f"training diverged by update {algorithm.updates}; lower --rl.sac.actor_lr or --rl.sac.critic_lr")
            score = _judge(actor, judged, allowed)
            if all(score >= point["validation_log_excess"] for point in curve):
                kept = {k: v.detach().cpu().numpy().copy() for k, v in actor.state_dict().items()}
                kept_update = algorithm.updates
            parts = {f"mean_{part}": value for part, value in algorithm.parts.items()}
            curve.append({"update": algorithm.updates, "validation_log_excess": score, **algorithm.learned, **parts})
    finally:
        algorithm.stop()
    return {"seed": seed, "kept_update": kept_update, "curve": curve, "actor": kept}


def _judge(actor: Actor, track: Track, allowed: ActionSet) -> float:
    """Mean log return a bar over equal weight, of the deterministic actor on rows that it has not learnt from."""

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return actor.best(torch.from_numpy(obs)).numpy()

    return float(excess(track, act, allowed=allowed).mean())


def _train_until(algorithm: Any, update: int) -> None:
    """RLlib tells of a failure in the environment as a bare RuntimeError; the cause says more."""
    try:
        while algorithm.updates < update:
            algorithm.train()
    except RuntimeError as error:
        if isinstance(error.__cause__, RlaifError):
            raise error.__cause__ from None
        raise
