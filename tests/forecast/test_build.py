"""From the config to a forecaster, and from its folder back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlaif_ray.config import ForecastSection
from rlaif_ray.errors import CheckpointError, ConfigError
from rlaif_ray.forecast import NAMES, build, load


def test_every_model_of_the_config_can_be_built() -> None:
    section = ForecastSection()
    assert section.models == NAMES
    for name in section.models:
        forecaster = build(section, name, seed=1)
        assert forecaster.name == name
        assert forecaster.target == ("log_volatility" if name == "ewma_volatility" else "return")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'naive'"):
        build(ForecastSection(), "naiv")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without granite-tsfm: its name cannot be found."""
    monkeypatch.delitem(sys.modules, "tsfm_public", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"rlaif-ray\[ttm\]"):
        build(ForecastSection(), "ttm")


def test_a_folder_without_a_forecaster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no forecaster\.json"):
        load(tmp_path)
