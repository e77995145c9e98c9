"""The trained actor as a policy: recipe in, weights out. Plain torch, so that it decides without Ray wherever it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rlaif_ray.core import POLICY_FILE, Decision, MarketView
from rlaif_ray.errors import CheckpointError
from rlaif_ray.rl.networks import Actor
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.reason import tilts, too_few


class ActorPolicy:
    """The mean of M actors' deterministic weights (M=1: the actor's own). What it holds is part of what it sees.

    Parameters
    ----------
    recipe : how an observation is made.
    actors : M trained actors of the same shape.
    allowed : weights that an action may ask for, as in the environment that they were trained in.
    """

    name = "sac"

    def __init__(self, recipe: Recipe, actors: Sequence[Actor], *, hidden: tuple[int, ...], allowed: ActionSet) -> None:
        if not actors:
            raise CheckpointError("a policy needs at least one trained actor; there is none")
        for m, actor in enumerate(actors):
            if not all(torch.isfinite(p).all() for p in actor.parameters()):
                raise CheckpointError(f"actor {m} has weights that are not finite; lower --rl.sac.actor_lr or --rl.sac.critic_lr")
        self.recipe, self.actors, self.hidden, self.allowed = recipe, [a.eval() for a in actors], hidden, allowed

    def decide(self, view: MarketView) -> Decision:
        """One row at a time, always the same shape, so that serving and backtest compute the same bits."""
        listed = view.listed
        obs = torch.from_numpy(self.recipe.observation(view)).requires_grad_(True)
        means = torch.stack([actor(obs)[0] for actor in self.actors])[:, 0]
        actions = torch.tanh(means).detach().numpy()
        weights = self.allowed.targets(actions, np.broadcast_to(listed, actions.shape)).mean(axis=0)
        reason = too_few(listed) or "; ".join(tilts(
            view.symbols, listed, weights, names=self.recipe.names, seen=obs, score=means.mean(0), long_short=self.allowed.long_short
        ))  # fmt: skip
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)

    def save(self, folder: str | Path) -> None:
        """Actors as safetensors, everything else as JSON; nothing is pickled."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for m, actor in enumerate(self.actors):
            save_file({k: v.contiguous() for k, v in actor.state_dict().items()}, folder / f"actor-{m}.safetensors")
        manifest: dict[str, Any] = {
            "policy": self.name, "members": len(self.actors), "hidden": list(self.hidden), "allowed": asdict(self.allowed),
            "recipe": self.recipe.to_json(),
        }  # fmt: skip
        (folder / POLICY_FILE).write_text(json.dumps(manifest, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> ActorPolicy:
        """The inverse of `save`. Raises `CheckpointError` when a file is missing or does not fit."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / POLICY_FILE).read_text())
            recipe, hidden = Recipe.of_json(manifest["recipe"]), tuple(manifest["hidden"])
            allowed = ActionSet(**manifest["allowed"] | {"sectors": tuple(manifest["allowed"]["sectors"])})
            actors = [Actor(len(recipe.names), hidden) for _ in range(manifest["members"])]
            for m, actor in enumerate(actors):
                actor.load_state_dict(load_file(folder / f"actor-{m}.safetensors"))
            return cls(recipe, actors, hidden=hidden, allowed=allowed)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"no policy in {folder}: {error}; expected {POLICY_FILE} and actor-<m>.safetensors") from error
