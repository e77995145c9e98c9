"""`rlaif sweep` from a source to knobs that the pipeline takes, on rows before every test block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.cli import main
from rlaif_ray.config import load_config
from rlaif_ray.config_rl import Direct
from rlaif_ray.errors import ConfigError
from rlaif_ray.ledger import TrialLedger
from rlaif_ray.plan import cut_folds
from rlaif_ray.sweep import run_sweep, summary_text
from tests.laws import random_cube
from tests.tiny import arguments, knobs

QUICK = {
    "forecast__models": "[naive, ewma_volatility]", "data__n_symbols": "4", "rl__direct__steps": "10",
    "sweep__space": "{learning_rate: [0.001, 0.01]}",
}  # fmt: skip


def test_a_sweep_leaves_knobs_that_the_pipeline_takes_and_prints_nothing_else(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tmp_path / "lake", **QUICK)
    assert main(["sweep", *words, "--trials", "3", "--run-dir", str(tmp_path / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["trials"]) == 3 and result["trials"][0]["validation_log_excess"] >= result["trials"][1]["validation_log_excess"]
    ledger, drawn = TrialLedger(str(tmp_path / "lake")), {trial["knobs"]["learning_rate"] for trial in result["trials"]}
    assert ledger.count() == ledger.count(result["data"]["data_version"]) == len(drawn)
    best = tmp_path / "run" / "best.yaml"
    config = load_config(None, str(best))
    assert config.rl.policy == "direct" and config.rl.direct == Direct(**result["best"])
    assert str(config.backtest.chosen_until)[:10] == result["validation"]["to"]
    assert main(["sweep", "--resume", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "3 trials, told apart on" in said and str(best) in said
    assert ledger.count() == len(drawn)  # the same again is no new try
    assert main(["sweep", *words, "--sweep.space={horizon_bars: [8, 400]}", "--run-dir", str(tmp_path / "long")]) == 2
    assert "--sweep.space.horizon_bars is 400" in capsys.readouterr().err and not (tmp_path / "long").exists()
    assert main(["pipeline", *words, "--config", str(best), "--backtest.test_fraction=0.5", "--run-dir", str(tmp_path / "pipeline")]) == 2
    assert "knobs were chosen on bars until" in capsys.readouterr().err and not (tmp_path / "pipeline").exists()


def test_failed_trials_stand_in_the_summary_with_why() -> None:
    trial = {"knobs": {"hidden": [32]}, "validation_log_excess": 1e-4, "checks": 10}
    failed = {"knobs": {"hidden": [33]}, "error": "2 heads do not divide the last hidden width, 33"}
    said = summary_text({"validation": {"from": "2001-01-02", "to": "2001-12-31"}, "trials": [trial], "failed": [failed]})
    assert said.splitlines()[1:] == [
        "  +1.000 bp a bar over equal weight after 10 checks  hidden [32]",
        "failed: 2 heads do not divide the last hidden width, 33  hidden [33]",
    ]


@pytest.mark.slow
def test_where_trials_are_stopped_early_the_result_shows_none(ray_session: None, tmp_path: Path) -> None:
    config = load_config("smoke", None, knobs(tmp_path / "lake", **QUICK, sweep__trials="2", sweep__stop_early="true"))
    run, found = run_sweep(config, str(tmp_path / "run"))
    assert found.keys() - run.read_result().keys() == {"best", "trials", "failed"}


def test_no_test_block_has_a_bar_that_knobs_were_chosen_on() -> None:
    """However many blocks there are; where more of the bars are tested, the pipeline refuses."""
    cube = random_cube(np.random.default_rng(0), rows=1500, assets=3)
    folds = cut_folds(load_config("smoke"), cube)
    chosen_on = folds[0].validation.rows
    assert all(chosen_on.stop < f.last.rows.start for f in folds if f.last.role == "test")
    told = {"backtest.chosen_until": str(cube.times[chosen_on.stop - 1])}
    for folds in ("1", "2", "4"):
        cut_folds(load_config("smoke", None, {**told, "backtest.folds": folds}), cube)
    with pytest.raises(ConfigError, match=r"knobs were chosen on bars until .* lower --backtest\.test_fraction") as caught:
        cut_folds(load_config("smoke", None, {**told, "backtest.test_fraction": "0.6"}), cube)
    assert "\n" not in str(caught.value)
