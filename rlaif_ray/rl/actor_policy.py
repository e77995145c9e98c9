"""The trained actor as a policy: recipe in, weights out. Plain torch, so that it decides without Ray wherever it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rlaif_ray.core import Decision, MarketView
from rlaif_ray.errors import CheckpointError
from rlaif_ray.rl.networks import EXTRA_FIELDS, Actor, weights_of
from rlaif_ray.rl.observation import Recipe

MANIFEST = "policy.json"


class ActorPolicy:
    """The mean of M actors' deterministic weights (M=1: the actor's own). What it holds is part of what it sees.

    Parameters
    ----------
    recipe : how an observation is made.
    actors : M trained actors of the same shape.
    kappa, max_weight : as in the environment that they were trained in.
    """

    name = "sac"

    def __init__(self, recipe: Recipe, actors: Sequence[Actor], *, hidden: tuple[int, ...], kappa: float, max_weight: float) -> None:
        if not actors:
            raise CheckpointError("a policy needs at least one trained actor; there is none")
        for m, actor in enumerate(actors):
            if not all(torch.isfinite(p).all() for p in actor.parameters()):
                raise CheckpointError(f"actor {m} has weights that are not finite; train again with lower --rl.actor_lr or --rl.critic_lr")
        self.recipe, self.actors, self.hidden = recipe, [a.eval() for a in actors], hidden
        self.kappa, self.max_weight = kappa, max_weight

    def decide(self, view: MarketView) -> Decision:
        """One row at a time, always the same shape, so that serving and backtest compute the same bits."""
        fields = self.recipe.row(view)
        listed = view.listed
        extra = np.stack((listed, view.portfolio.weights), axis=1).astype(np.float32)
        obs = torch.from_numpy(np.concatenate((fields, extra), axis=1)[None]).requires_grad_(True)
        means = [actor(obs)[0] for actor in self.actors]
        actions = torch.tanh(torch.stack(means)[:, 0]).detach().numpy()
        weights = weights_of(actions, np.broadcast_to(listed, actions.shape), self.kappa, self.max_weight).mean(axis=0)
        reason = self._reason(view.symbols, obs, torch.stack(means)[:, 0].mean(0), weights, listed)
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)

    def _reason(self, symbols: tuple[str, ...], obs: torch.Tensor, score: torch.Tensor, weights: np.ndarray, listed: np.ndarray) -> str:
        """Largest over- and underweight, and the fields that pushed each: gradient of its score times the input (Shrikumar et al. 2016)."""
        if listed.sum() < 2:
            return "all in cash: no name can be held" if not listed.any() else "one name can be held"
        tilt = np.where(listed, weights - listed / listed.sum(), 0.0)
        top, bottom = int(tilt.argmax()), int(tilt.argmin())
        (slope,) = torch.autograd.grad(score[top] - score[bottom], obs)
        pushes = (slope * obs.detach())[0, :, : len(self.recipe.names)].numpy()
        values = obs.detach()[0].numpy()
        parts = []
        for word, asset, sign in (("over", top, 1.0), ("under", bottom, -1.0)):
            strongest = np.argsort(-pushes[asset], kind="stable")[:3]
            fields = ", ".join(f"{self.recipe.names[k]} {values[asset, k]:+.1f}sd" for k in strongest if pushes[asset, k] > 0)
            parts.append(f"{symbols[asset]} {sign * abs(tilt[asset]):+.1%} {word} equal weight" + (f" ({fields})" if fields else ""))
        return "; ".join(parts)

    def save(self, folder: str | Path) -> None:
        """Actors as safetensors, everything else as JSON; nothing is pickled."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for m, actor in enumerate(self.actors):
            save_file({k: v.contiguous() for k, v in actor.state_dict().items()}, folder / f"actor-{m}.safetensors")
        manifest: dict[str, Any] = {
            "members": len(self.actors), "hidden": list(self.hidden), "kappa": self.kappa, "max_weight": self.max_weight,
            "fields": self.recipe.to_json(),
        }  # fmt: skip
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> ActorPolicy:
        """The inverse of `save`. Raises `CheckpointError` when a file is missing or does not fit."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            recipe = Recipe.of_json(manifest["fields"])
            hidden = tuple(manifest["hidden"])
            actors = [Actor(len(recipe.names) + EXTRA_FIELDS, hidden) for _ in range(manifest["members"])]
            for m, actor in enumerate(actors):
                actor.load_state_dict(load_file(folder / f"actor-{m}.safetensors"))
            return cls(recipe, actors, hidden=hidden, kappa=manifest["kappa"], max_weight=manifest["max_weight"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"no policy in {folder}: {error}; expected {MANIFEST} and actor-<m>.safetensors") from error
