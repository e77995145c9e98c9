"""Analysts who give judgeable opinions, and the manager who pools them. `build` seats the desk that the config names."""

from __future__ import annotations

from rlaif_ray.config import Agents
from rlaif_ray.core import Analyst


def build(section: Agents) -> tuple[Analyst, ...]:
    """The analysts of the roster, in its order. Raises `ConfigError` for a name that is not on it."""
    from rlaif_ray.agents.analysts import RuleAnalyst, rows_of

    return tuple(RuleAnalyst(row, horizon_bars=section.horizon_bars) for row in rows_of(section.roster))
