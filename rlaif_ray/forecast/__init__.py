"""Forecasters: what predicts a distribution. `build` makes one from the config, `load` brings a fitted one back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rlaif_ray.config import ForecastSection
from rlaif_ray.core import Forecaster
from rlaif_ray.errors import CheckpointError, ConfigError, did_you_mean

NAMES = ("naive", "drift", "ewma_volatility", "lightgbm", "ttm")


class StoredForecaster(Forecaster, Protocol):
    """A forecaster whose state goes to a folder, for `load`."""

    def save(self, directory: Path) -> None: ...


def build(section: ForecastSection, name: str, *, seed: int = 0) -> StoredForecaster:
    """The forecaster of that name, not yet fitted. Raises `ConfigError` for an unknown name or a missing extra."""
    grid = {"horizons": section.horizons, "levels": section.levels}
    if name == "ttm":
        need_ttm()
        from rlaif_ray.forecast.tiny_time_mixer import TTMForecaster

        return TTMForecaster(**grid, **section.ttm.model_dump(), seed=seed)
    if name == "lightgbm":
        from rlaif_ray.forecast.trees import LightGBM

        return LightGBM(**grid, **section.trees.model_dump(), seed=seed)
    kind = _baseline(name)
    if kind is None:
        raise ConfigError(f"no forecaster {name!r}; expected one of {', '.join(NAMES)}.{did_you_mean(name, NAMES)}")
    return kind(**grid)


def load(directory: Path) -> StoredForecaster:
    """A fitted forecaster from the folder that its `save` wrote. Raises `CheckpointError` where there is none."""
    manifest = directory / "forecaster.json"
    if not manifest.is_file():
        raise CheckpointError(f"no forecaster.json in {directory}; expected a folder that a forecaster saved")
    state = json.loads(manifest.read_text())
    name = state.pop("name")
    if name == "ttm":
        need_ttm()
        from rlaif_ray.forecast.tiny_time_mixer import TTMForecaster

        return TTMForecaster.load(directory)
    if name == "lightgbm":
        from rlaif_ray.forecast.trees import LightGBM

        return LightGBM.load(directory)
    kind = _baseline(name)
    if kind is None:
        raise CheckpointError(f"{manifest} names the forecaster {name!r}; expected one of {', '.join(NAMES)}")
    return kind(**state)


def _baseline(name: str) -> Callable[..., StoredForecaster] | None:
    """The class of a forecaster that needs no training worth the name, by its name."""
    from rlaif_ray.forecast.baselines import Drift, EWMAVolatility, Naive

    kinds: dict[str, Callable[..., StoredForecaster]] = {"naive": Naive, "drift": Drift, "ewma_volatility": EWMAVolatility}
    return kinds.get(name)


def need_ttm() -> None:
    """Say which extra is missing before torch is loaded in vain."""
    from importlib.util import find_spec

    if find_spec("tsfm_public") is None:
        raise ConfigError(
            "forecaster 'ttm' needs granite-tsfm, which is missing; pip install 'rlaif-ray[ttm]', or leave 'ttm' out of --forecast.models"
        )
