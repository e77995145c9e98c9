"""Whom a run may be about, by name: where each leaves what it needs to decide, and how it is read back."""

from __future__ import annotations

import json
from pathlib import Path

from rlaif_ray.core import POLICY_FILE, Policy
from rlaif_ray.errors import CheckpointError

LEARNERS = ("direct", "sac")  # by their policies' names; others are rules, known by what they did


def load(folder: str | Path) -> Policy:
    """The policy that was saved there. Raises `CheckpointError` where there is none, or no such policy."""
    try:
        name = json.loads((Path(folder) / POLICY_FILE).read_text())["policy"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"no policy in {folder}: {error}; expected {POLICY_FILE}") from error
    match name:
        case "direct":
            from rlaif_ray.rl.direct_policy import DirectPolicy

            return DirectPolicy.load(folder)
        case "sac":
            from rlaif_ray.rl.actor_policy import ActorPolicy

            return ActorPolicy.load(folder)
        case "lightgbm_optimiser":
            from rlaif_ray.strategies import ForecastOptimiser

            return ForecastOptimiser.load(folder)
    raise CheckpointError(f"{folder} holds a policy {name!r}; expected direct, sac or lightgbm_optimiser")
