"""The whole job: what it leaves, that it says the same twice, that a kill costs nothing, that mistakes leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import TaskCancelledError

from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.config import load_config
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.ledger import TrialLedger
from rlaif_ray.pipeline import _or_end_all, run_pipeline
from rlaif_ray.plan import cut_folds
from rlaif_ray.portfolio.limits import Controls, Limits
from rlaif_ray.runs import committed
from tests.laws import random_cube
from tests.tiny import TINY, arguments, knobs

QUICK = {  # no trainer to start
    "forecast__models": "[naive, ewma_volatility]", "rl__policy": "sac", "rl__sac__updates": "10", "data__n_symbols": "4"
}  # fmt: skip


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def test_a_run_leaves_a_result_a_report_and_models_to_serve(tiny_run: Path) -> None:
    result = result_of(tiny_run)
    rules = {"buy_and_hold", "equal_weight", "momentum_12_1", "short_term_reversal", "inverse_volatility", "min_variance", "hrp"}
    assert set(result["policies"]) == {"direct", "lightgbm_optimiser", *rules}
    assert set(result["forecasts"]) == {"naive", "drift", "ewma_volatility", "lightgbm", "ttm"}
    assert set(result["analysts"]) == {"fundamental", "sentiment", "technical", "risk", "manager"}
    none = {"n_effective": None, "detectable_annual": None}
    assert result["edges"]["equal_weight"] == {"value": 0.0, "low": 0.0, "high": 0.0, "claim": False, **none}
    assert 1 <= result["edges"]["direct"]["n_effective"] <= result["test"]["bars"] and result["edges"]["direct"]["detectable_annual"] > 0
    first = {name: model["horizons"]["1"] for name, model in result["forecasts"].items() if model["target"] == "return"}
    assert any(scores["may_be_best"] for scores in first.values())
    assert [name for name, scores in first.items() if scores["loss_over_first"] is None] == ["naive"]
    page = (tiny_run / "report.html").read_text()
    assert "<svg" in page and "http" not in page.replace("http-equiv", "")
    manifests = [json.loads(m.read_text()) for m in sorted((tiny_run / "artefacts").glob("*/manifest.json"))]
    assert [m["fold"] for m in manifests] == ["0", "live"]
    assert manifests[1]["serves_from"][:10] == result["data"]["last"]


def test_test_blocks_come_after_everything_that_was_learnt(tiny_run: Path) -> None:
    for fold in result_of(tiny_run)["folds"]:
        assert fold["train"][1] < fold["validation"][0] <= fold["validation"][1] < fold["test"][0]


def test_each_distinct_try_is_one_trial_and_says_what_it_returned(tiny_run: Path) -> None:
    ledger, result = TrialLedger(str(tiny_run.parent / "lake")), result_of(tiny_run)
    verdict = json.loads((tiny_run / "verdict.json").read_text())
    assert ledger.count() == verdict["trials"] == 1
    assert ledger.verify(verdict["ledger"]) == verdict["ledger"]
    walked = {p.stem: read_episode(p) for p in (tiny_run / "stages" / "backtest" / "fold=0").glob("*/*.npz")}
    tried = ledger.returns(result["data"]["data_version"], walked["direct"].times)
    assert {name.split()[0] for name in tried.names} == set(result["policies"]) == set(walked)
    learned = list(tried.baseline).index(False)
    assert tried.names[learned].startswith("direct ") and tried.seeds[learned] == result["seed"]
    for k, name in enumerate(tried.names):
        assert np.array_equal(tried.net[:, k], walked[name.split()[0]].returns)
        assert np.array_equal(tried.benchmark[:, k], walked["equal_weight"].returns)


def test_a_vault_is_not_tested_until_it_is_opened_and_then_once(ray_session: None, tmp_path: Path) -> None:
    """The last 150 of 700 bars; one market, three runs: closed, opened, and opened again with another seed."""

    def run(name: str, **more: str) -> dict[str, Any]:
        config = load_config("smoke", None, knobs(tmp_path / "lake", **{**QUICK, "backtest__vault_from": first, **more}))
        return run_pipeline(config, str(tmp_path / name))[1]

    first = "2024-05-29"
    closed = run("closed")
    assert closed["vault"]["state"] == "closed" and closed["vault"]["from"] >= first > closed["test"]["to"]
    assert set(closed["feedback"]) == set(closed["rl"]) == {"0"}  # what live did on validation, it did in the vault
    assert closed["decision"]["as_of"][:10] == closed["data"]["last"] > closed["vault"]["from"]
    assert "is closed" in closed["notes"][0] and "starts from cash" in " ".join(closed["decision"]["notes"])
    opened = run("open", backtest__vault="open")
    assert (opened["test"]["from"], opened["test"]["to"]) == (opened["vault"]["from"], opened["data"]["last"])
    assert opened["config_hash"] == closed["config_hash"] and set(opened["rl"]) == {"0", "live"}
    with pytest.raises(ConfigError, match="--break-vault"):
        run("again", backtest__vault="open", seed="5")
    assert not (tmp_path / "again").exists()
    verdict = json.loads((tmp_path / "open" / "verdict.json").read_text())
    assert (verdict["vault"]["state"], verdict["trials"]) == ("open", 2)
    assert [r["kind"] for r in TrialLedger(str(tmp_path / "lake")).records()].count("opening") == 1


@pytest.fixture(scope="module")
def whole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The result of a quick run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run, _ = run_pipeline(load_config("smoke", None, knobs(folder / "lake", **QUICK)), str(folder / "run"))
    return (run.path / "result.json").read_bytes()


def start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "rlaif_ray.cli", "pipeline", *words], stdout=out, stderr=out, start_new_session=True)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.wait(timeout=400) == 0, log.read_text()[-2000:]


def stages_done(run: Path) -> int:
    log = run / "events.jsonl"
    return sum(1 for _ in committed(log.read_text().splitlines())) if log.exists() else 0


def kill_when(process: subprocess.Popen[bytes], log: Path, reached: Callable[[], bool]) -> None:
    """SIGKILL to the driver alone, as the kernel would: its Ray dies by noticing."""
    while not reached():
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("places", [(4,), pytest.param((1, 4, 8), marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_result_also_where_it_was_killed(whole: bytes, tmp_path: Path, places: tuple[int, ...]) -> None:
    """Killed and resumed in the middle of the folds; the slow one after the first stage and near the end, too."""
    broken, log = tmp_path / "broken", tmp_path / "log"
    process = start(log, *arguments(tmp_path / "lake", **QUICK), "--run-dir", str(broken))
    for stages in places:
        kill_when(process, log, lambda stages=stages: stages_done(broken) >= stages)
        assert not (broken / "result.json").exists()
        process = start(log, "--resume", str(broken))
    finish(process, log)
    assert (broken / "result.json").read_bytes() == whole


@pytest.mark.parametrize(
    ("knob", "says"),
    [
        ({"backtest__inner_windows": "20"}, "training bars are too few"),
        ({"rl__features": "[ret_5, rsi_41]"}, "rsi_41"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_run(ray_session: None, tmp_path: Path, knob: dict[str, str], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says) as raised:
        run_pipeline(load_config("smoke", None, knobs(tmp_path / "lake", **knob)), str(tmp_path / "run"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_told_with_the_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-ray\[ttm\]'"):
        cut_folds(load_config("smoke", None, TINY), random_cube(np.random.default_rng(0), rows=700, assets=3))



def test_a_policy_may_see_columns_of_any_set_that_the_run_makes() -> None:
    """The folds begin where all of them are defined."""
    names = ("core_mom_50", "vol_percentile_63_252")
    cube = replace(random_cube(np.random.default_rng(0), rows=1400, assets=3), feature_names=names)
    config = load_config("smoke", None, {**TINY, "features.sets": "[core_31, regime]", "rl.features": f"[{', '.join(names)}]"})
    assert cut_folds(config, cube)[0].block_a.start == 314
    with pytest.raises(MissingDataError, match="no feature 'core_mom_50' among"):
        cut_folds(config.model_copy(update={"features": config.features.model_copy(update={"sets": ("regime",)})}), cube)


def test_yearly_folds_are_one_for_each_year_of_test_bars() -> None:
    cube = random_cube(np.random.default_rng(0), rows=1900, assets=3)  # half of 7.5 years of 252 bars
    folds = cut_folds(load_config("smoke", None, {**TINY, "backtest.folds": "yearly", "backtest.test_fraction": "0.5"}), cube)
    assert [fold.name for fold in folds] == ["0", "1", "2", "3", "live"]


def test_a_failed_fold_ends_the_folds_beside_it(ray_session: None, tmp_path: Path) -> None:
    @ray.remote(num_cpus=0)
    def fails() -> None:
        raise DataError("no such bar")

    @ray.remote(num_cpus=0, max_retries=0)
    def works_on() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # like native code that is deep in a long call
        (tmp_path / "at work").touch()
        while True:
            time.sleep(0.05)

    other = works_on.remote()
    while not (tmp_path / "at work").exists():
        time.sleep(0.02)
    with pytest.raises(DataError, match="no such bar"):
        _or_end_all(fails.remote(), [other])
    with pytest.raises(TaskCancelledError):
        ray.get(other, timeout=60)


@pytest.mark.parametrize(
    ("knob", "says"),
    [
        ({"forecast.ttm.context": "400"}, "lower --forecast.ttm.context"), ({"forecast.trees.held_out": "0.95"}, "lightgbm needs 525"),
        ({"rl.sac.episode_bars": "5000", "rl.policy": "sac"}, "--rl.sac.episode_bars is 5000"),
        ({"rl.direct.horizon_bars": "5000", "rl.policy": "direct"}, "--rl.direct.horizon_bars is 5000"),
        ({"rl.policy": "lightgbm_optimiser", "forecast.models": "[naive]"}, "add lightgbm"),
    ],
)  # fmt: skip
def test_what_a_later_stage_could_not_do_is_told_with_the_folds(knob: dict[str, str], says: str) -> None:
    cube = random_cube(np.random.default_rng(0), rows=700, assets=3)
    assert [fold.name for fold in cut_folds(load_config("smoke", None, TINY), cube)] == ["0", "live"]
    with pytest.raises((ConfigError, DataError), match=says):
        cut_folds(load_config("smoke", None, {**TINY, **knob}), cube)


def test_a_turbulence_pause_without_enough_readings_is_told_with_the_folds() -> None:
    """A learner meets it on validation, from row 301 on, who learns nothing on the test block, from row 345 on."""
    cube = random_cube(np.random.default_rng(0), rows=460, assets=3)
    knobs = {**TINY, "forecast.models": "[naive, lightgbm]", "execution.limits.turbulence": "0.99"}
    with pytest.raises(DataError, match="301 bars before the validation rows of fold 0; the turbulence pause needs 313"):
        cut_folds(load_config("smoke", None, knobs), cube)
    assert cut_folds(load_config("smoke", None, {**knobs, "rl.policy": "lightgbm_optimiser"}), cube)
    limits = Limits(turbulence=0.99)
    Controls.of(cube, limits, {}, slice(0, 313))
    with pytest.raises(DataError, match="hold 59 readings"):
        Controls.of(cube, limits, {}, slice(0, 312))
