"""Knobs of the policy: which one a run is about, what it sees, and how each learner learns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlaif_ray.config_data import Section

Sight = Literal["features", "returns", "forecasts", "quantiles", "opinions", "stances"]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Direct(Section):
    """Policy gradient through the differentiable market."""

    hidden: Widths = (32,)
    """Widths of the encoder that all assets share."""
    heads: int = Field(default=2, ge=1)
    """Of the attention over the other assets; they divide the last width."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps: the budget. Some years of daily bars are learnt by heart within a few hundred."""
    paths: int = Field(default=32, ge=1)
    """Paths through the market at once, each from a random row and holding."""
    horizon_bars: int = Field(default=8, ge=1)
    """Bars that a gradient reaches back through."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW."""
    input_noise: float = Field(default=1.0, ge=0)
    """Deviation of the noise on standardised observations while learning: keeps the network from learning bars by heart."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of the entropy of the weights aimed at, in log returns a bar."""
    turnover: float = Field(default=0.0, ge=0)
    """Weight of what is traded beyond what it costs, in log returns a bar."""
    risk_aversion: float = Field(default=20.0, ge=0)
    """Of the one-bar mean-variance utility of the return over equal weight."""


class Sweep(Section):
    """Of `rlaif sweep`, over knobs of the direct policy."""

    trials: int = Field(default=16, ge=1)
    """Draws from the space."""
    space: dict[str, list[Any]] = Field(
        default={
            "learning_rate": [1e-3, 3e-3, 1e-2], "horizon_bars": [4, 8, 16], "steps": [50, 100, 200], "input_noise": [0.5, 1.0, 2.0],
            "weight_decay": [1e-2, 1e-1], "turnover": [0.0, 5e-4, 2e-3], "risk_aversion": [5.0, 20.0], "hidden": [[16], [32], [32, 32]],
        }
    )  # fmt: skip
    """Values to choose from, by knob of rl.direct."""
    stop_early: bool = False
    """Stop trials that do badly (ASHA). Which ones also depends on who came first, so that result.json does not show the trials then."""


class SAC(Section):
    hidden: Widths = (64, 64)
    """Width of the shared per-asset actor and critic layers."""
    batch: int = Field(default=128, ge=1)
    """Transitions an update."""
    updates: int = Field(default=2000, ge=1)
    """Gradient updates: the budget."""
    paths: int = Field(default=16, ge=1)
    """Paths through the market at once, in one vectorised environment."""
    updates_per_step: float = Field(default=2.0, gt=0)
    """Gradient updates for each step of all paths."""
    episode_bars: int = Field(default=60, ge=2)
    """Length of a training episode."""
    warmup_steps: int = Field(default=40, ge=1)
    """Steps of all paths with random actions before learning starts."""
    gamma: float = Field(default=0.9, ge=0, lt=1)
    """Discount a bar."""
    tau: float = Field(default=0.01, gt=0, le=1)
    """Target network step."""
    actor_lr: float = Field(default=1e-3, gt=0)
    """Adam."""
    critic_lr: float = Field(default=1e-3, gt=0)
    """Adam."""
    alpha_lr: float = Field(default=1e-3, gt=0)
    """Adam, of the entropy temperature."""
    replay: int = Field(default=200_000, ge=1000)
    """Transitions kept."""
    reward: Literal[
        "excess_utility", "log_return", "differential_sharpe", "differential_sortino", "drawdown", "weighted", "weighted_raw"
    ] = "excess_utility"
    """What a bar is worth: the mean-variance utility of the return over equal weight; a log return; the increment of a Sharpe or Sortino
    ratio, or of the drawdown; 0.4 return + 0.3 Sharpe - 0.2 drawdown - 0.1 turnover, each over its usual deviation, or raw."""
    reward_scale: float | None = Field(default=None, gt=0)
    """Multiplies the reward; None: 1 for `weighted`, whose parts have unit variance, else 100, for log returns."""
    risk_aversion: float = Field(default=20.0, ge=0)
    """Of the one-bar mean-variance utility of the return over equal weight."""
    cost_range: tuple[float, float] = (1.0, 1.0)
    """An episode's costs are multiplied by a number drawn from it."""
    subset: float = Field(default=1.0, gt=0, le=1)
    """Share of the names, drawn anew, that an episode offers."""
    target_entropy: float = 0.0
    """Entropy that the temperature aims at, nats an asset; a uniform action has 0.69."""
    initial_alpha: float = Field(default=0.02, gt=0)
    """Entropy temperature at the start."""
    input_noise: float = Field(default=1.0, ge=0)
    """Deviation of the noise on standardised observations while learning: keeps the nets from learning bars by heart."""


class RL(Section):
    policy: Literal["direct", "sac", "lightgbm_optimiser"] = "direct"
    """Whom the run is about, judges against the rules, and serves: a learner, or the optimiser of LightGBM's forecasts."""
    members: int = Field(default=1, ge=1)
    """Independently seeded learners whose weights are averaged."""
    features: tuple[str, ...] = ()
    """Features that the policy sees; empty: the default set of the catalogue."""
    sees: tuple[Sight, ...] = ("features", "returns", "forecasts", "opinions", "stances")
    """What the policy may see (`quantiles` too: every level of a forecast of returns); leaving a stage out is the ablation."""
    returns_window: int = Field(default=10, ge=1)
    """Past bars whose returns it sees one by one."""
    direct: Direct = Direct()
    sac: SAC = SAC()
