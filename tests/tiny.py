"""The smallest market and budgets on which every stage has something to do; knobs as the command line takes them."""

from __future__ import annotations

from pathlib import Path

TINY: dict[str, str] = {
    "data.n_symbols": "5", "data.n_bars": "700",
    "forecast.trees.trees": "20",
    "forecast.ttm.context": "32", "forecast.ttm.steps": "10", "forecast.ttm.refit_steps": "5", "forecast.ttm.batch": "32",
    "rl.sac.hidden": "[16, 16]", "rl.sac.updates": "60", "rl.sac.batch": "32", "rl.sac.paths": "8", "rl.sac.warmup_steps": "5",
    "rl.sac.episode_bars": "20",
    "rl.direct.hidden": "[16, 16]", "rl.direct.steps": "30", "rl.direct.paths": "8", "rl.direct.horizon_bars": "8",
    "feedback.epochs": "2", "feedback.min_pairs": "50",
    "backtest.folds": "1", "backtest.test_fraction": "0.25", "backtest.resamples": "200",
}  # fmt: skip


def knobs(lake: Path, **more: str) -> dict[str, str]:
    """Of a tiny run with its lake in `lake`; `more` with __ for the dot."""
    return {**TINY, "lake.uri": str(lake), **{name.replace("__", "."): value for name, value in more.items()}}


def arguments(lake: Path, **more: str) -> list[str]:
    """The same as words of a command line."""
    return ["--scale", "smoke", *(f"--{name}={value}" for name, value in knobs(lake, **more).items())]
