"""The networks that were trained through the market, as a policy. Plain torch, so that it decides without Ray wherever it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rlaif_ray.core import POLICY_FILE, Decision, MarketView
from rlaif_ray.errors import CheckpointError
from rlaif_ray.portfolio.limits import sector_numbers
from rlaif_ray.rl.direct_network import DirectNetwork, choose
from rlaif_ray.rl.observation import PORTFOLIO, Layout, Recipe
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.reason import tilts, too_few


class DirectPolicy:
    """The mean of M networks' target weights (what is allowed is convex). What it holds is part of what it sees.

    It is bound to no universe: it decides on any names that show its fields, one or five hundred.

    Parameters
    ----------
    recipe : how an observation is made.
    networks : M trained networks of the same shape.
    allowed : weights that may be asked for, without the numbers of sectors, which follow from the names.
    sectors : by symbol, for the cap on a sector; a name without one is in no sector.
    """

    name = "direct"

    def __init__(
        self, recipe: Recipe, networks: Sequence[DirectNetwork], *, hidden: tuple[int, ...], heads: int, allowed: ActionSet,
        sectors: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        if not networks:
            raise CheckpointError("a policy needs at least one trained network; there is none")
        for m, network in enumerate(networks):
            if not all(torch.isfinite(p).all() for p in network.parameters()):
                raise CheckpointError(f"network {m} has weights that are not finite; train again with a lower --rl.direct.learning_rate")
        self.recipe, self.networks, self.hidden, self.heads = recipe, [n.eval() for n in networks], hidden, heads
        self.allowed, self.sectors = replace(allowed, sectors=()), dict(sectors or {})

    def decide(self, view: MarketView) -> Decision:
        """One row at a time, always the same shape, so that serving and backtest compute the same bits."""
        allowed = replace(self.allowed, sectors=sector_numbers(view.symbols, self.sectors))
        seen = torch.from_numpy(self.recipe.observation(view)).requires_grad_(True)
        layout = Layout(len(view.symbols), len(self.recipe.names))
        assets, account = layout.split(seen)
        fields, listed = assets[..., : layout.fields], assets[..., layout.fields].detach()
        held = torch.from_numpy(view.portfolio.weights[None])
        choices = [choose(n, allowed, n.encode(fields, listed), listed, held, account) for n in self.networks]
        weights = torch.stack([c.targets for c in choices]).mean(0)[0].detach().numpy()
        score = torch.stack([c.score for c in choices]).mean(0)[0]
        names, traded = self.recipe.names, f"trades {np.abs(weights - view.portfolio.weights).sum():.1%}"
        reason = too_few(view.listed) or "; ".join([traded, *tilts(
            view.symbols, view.listed, weights, names=names, seen=seen, score=score, long_short=self.allowed.long_short
        )])  # fmt: skip
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)

    def save(self, folder: str | Path) -> None:
        """Networks as safetensors, everything else as JSON; nothing is pickled."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for m, network in enumerate(self.networks):
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / f"network-{m}.safetensors")
        manifest: dict[str, Any] = {
            "policy": self.name, "members": len(self.networks), "hidden": list(self.hidden), "heads": self.heads,
            "allowed": asdict(self.allowed), "sectors": self.sectors, "recipe": self.recipe.to_json(),
        }  # fmt: skip
        (folder / POLICY_FILE).write_text(json.dumps(manifest, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> DirectPolicy:
        """The inverse of `save`. Raises `CheckpointError` when a file is missing or does not fit."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / POLICY_FILE).read_text())
            recipe, hidden, heads = Recipe.of_json(manifest["recipe"]), tuple(manifest["hidden"]), manifest["heads"]
            allowed = ActionSet(**manifest["allowed"] | {"sectors": ()})
            states = [load_file(folder / f"network-{m}.safetensors") for m in range(manifest["members"])]
            networks = [network_of(state, len(recipe.names), hidden=hidden, heads=heads) for state in states]
            return cls(recipe, networks, hidden=hidden, heads=heads, allowed=allowed, sectors=manifest["sectors"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"no policy in {folder}: {error}; expected {POLICY_FILE} and network-<m>.safetensors") from error


def network_of(state: Mapping[str, Any], fields: int, *, hidden: tuple[int, ...], heads: int) -> DirectNetwork:
    """A network with the weights that training returned, arrays or tensors by name."""
    network = DirectNetwork(fields, len(PORTFOLIO), hidden=hidden, heads=heads)
    network.load_state_dict({name: torch.as_tensor(values).clone() for name, values in state.items()})
    return network
