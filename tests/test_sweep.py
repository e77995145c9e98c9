"""`rlaif sweep` from a source to knobs that the pipeline takes, on rows before every test block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlaif_ray.cli import main
from rlaif_ray.config import load_config
from rlaif_ray.config_rl import Direct
from rlaif_ray.plan import cut_folds
from tests.laws import random_cube
from tests.tiny import arguments


def test_a_sweep_leaves_knobs_that_the_pipeline_takes_and_prints_nothing_else(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {
        "forecast__models": "[naive, ewma_volatility]", "data__n_symbols": "4", "rl__direct__steps": "10",
        "sweep__space": "{learning_rate: [0.001, 0.01]}", "sweep__stop_early": "false",
    }  # fmt: skip
    words = arguments(tmp_path / "lake", **quick)
    assert main(["sweep", *words, "--trials", "2", "--run-dir", str(tmp_path / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["trials"]) == 2 and result["trials"][0]["validation_log_excess"] >= result["trials"][1]["validation_log_excess"]
    best = tmp_path / "run" / "best.yaml"
    config = load_config(None, str(best))
    assert config.rl.policy == "direct" and config.rl.direct == Direct(**result["best"])
    assert yaml.safe_load(best.read_text())["rl"]["direct"]["learning_rate"] in (0.001, 0.01)
    assert main(["sweep", "--resume", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "2 trials, told apart on" in said and str(best) in said


def test_the_rows_that_tell_knobs_apart_lie_before_every_test_block() -> None:
    folds = cut_folds(load_config("smoke"), random_cube(np.random.default_rng(0), rows=1500, assets=3))
    assert all(folds[0].validation.rows.stop < f.last.rows.start for f in folds if f.last.role == "test")
