"""The loop that improves a desk: what a run leaves, what its turns may know, and that a kill costs nothing."""

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
import pyarrow.parquet as pq
import pytest
import ray

from rlaif_ray.config import Config, load_config
from rlaif_ray.core import Cube, canonical_json
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.feedback import build
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.lessons import judged_pairs
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.reward_model import RewardModel
from rlaif_ray.feedback.weighing import EqualWeights, TrackRecord, load_weigher
from rlaif_ray.folds import Cycle
from rlaif_ray.improve import _close, _fit, _Loop, _rollouts, improve
from rlaif_ray.improve_contest import Heard, hear
from rlaif_ray.improve_report import headline, render, summary_text
from rlaif_ray.improve_result import ARMS
from rlaif_ray.ledger import TrialLedger
from rlaif_ray.pipeline import run_pipeline
from rlaif_ray.plan import cut_cycles, outcome_terms, terms_of
from rlaif_ray.runs import Run, committed
from tests.desk import dense, desk_cube
from tests.laws import perturb_future
from tests.tiny import arguments, knobs

QUICK = {"data__n_bars": "900", "improve__cycles": "2", "improve__workers": "0", "feedback__members": "2"}  # no trainer to start


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def artefacts(run: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((run / "artefacts" / "judge").iterdir())}


@pytest.fixture(scope="module")
def whole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop of two turns that nobody disturbed."""
    folder = tmp_path_factory.mktemp("improve")
    run, _ = improve(load_config("smoke", None, knobs(folder / "lake", **QUICK)), str(folder / "run"))
    return run.path


def test_a_run_leaves_turns_a_page_and_the_judge_in_office(whole: Path) -> None:
    result = result_of(whole)
    assert [t["cycle"] for t in result["cycles"]] == [1, 2] and set(result["overall"]) == set(ARMS)
    for turn in result["cycles"]:
        assert turn["judge"]["kind"] == "reward_model" and turn["judge"]["n_pairs"] > 50 and 0 <= turn["judge"]["label_smoothing"] < 0.5
        assert turn["learn"][1] < turn["block"][0] and turn["challenge"]["alpha"] == 0.025
        assert turn["challenge"]["kept"] == (turn["challenge"]["p_value"] is not None and turn["challenge"]["p_value"] <= 0.025)
    manifest = json.loads((whole / "artefacts/judge/manifest.json").read_text())
    kept = [f"turn {t['cycle']}" for t in result["cycles"] if t["challenge"]["kept"]]
    assert manifest["office"] == (kept[-1] if kept else "equal weights") == result["cycles"][-1]["office"]
    assert load_weigher(whole / "artefacts/judge").kind == ("reward_model" if kept else "equal_weights")
    page = (whole / "report.html").read_text()
    assert "<svg" in page and "http" not in page.replace("http-equiv", "")


def test_an_opinion_is_rolled_out_once_and_learnt_from_only_when_it_had_closed(whole: Path) -> None:
    spoken = [pq.read_table(f) for f in sorted(whole.glob("stages/rollout/*/*/opinions.parquet"))]
    moments = [(t["as_of"][k].as_py(), t["symbol"][k].as_py(), t["author"][k].as_py()) for t in spoken for k in range(len(t))]
    assert len(spoken) == 3 and len(set(moments)) == len(moments) > 1000
    for turn in result_of(whole)["cycles"]:
        (closed,) = whole.glob(f"stages/close/cycle={turn['cycle']}/*/outcomes.parquet")
        assert str(max(pq.read_table(closed)["closed_at"].to_pylist()))[:10] < turn["block"][0]


def test_every_arm_on_every_block_is_a_trial(whole: Path) -> None:
    ledger = TrialLedger(str(whole.parent / "lake"))
    assert ledger.count() == json.loads((whole / "verdict.json").read_text())["trials"] > 0


def test_the_office_of_the_first_turn_is_equal_weights(whole: Path) -> None:
    first = result_of(whole)["cycles"][0]["arms"]
    assert first["in_office"] == first["equal_weights"]


def challenger_of(cube: Cube, turn: Cycle, folder: Path) -> str:
    """What a turn's challenger has learnt, by content."""
    config = load_config("smoke", None, knobs(folder / "lake", **QUICK))
    terms = terms_of(config, cube, {})
    with Run.create("improve", config, folder / "run") as run:
        loop = _Loop(run, cube, ray.put(cube), terms, outcome_terms(config, terms))
        spoken = _rollouts(loop, turn)
        return load_weigher(_fit(loop, turn, spoken, _close(loop, turn, spoken)) / "challenger").state_hash


def test_a_challenger_knows_nothing_of_its_block(ray_session: None, tmp_path: Path) -> None:
    """The fit law: noise from the block's first row on changes no bit of it. One that learns a month further is caught."""
    cube = desk_cube(0, rows=700)
    turn = cut_cycles(load_config("smoke", None, knobs(tmp_path / "lake", **QUICK)), cube)[0]
    noisy = perturb_future(cube, turn.block.start - 1, np.random.default_rng(3))
    assert challenger_of(cube, turn, tmp_path / "a") == challenger_of(noisy, turn, tmp_path / "b")
    late = replace(turn, learn=slice(turn.learn.start, turn.learn.stop + 21), block=slice(turn.block.start + 21, turn.block.stop))
    assert challenger_of(cube, late, tmp_path / "c") != challenger_of(noisy, late, tmp_path / "d")


def test_an_online_judge_knows_at_each_update_what_had_closed_and_no_more(ray_session: None, tmp_path: Path) -> None:
    """Noise after a row in the block changes no verdict by that row, and the later verdicts are not those of a judge that stood still."""
    cube = desk_cube(0, rows=700)
    online = load_config("smoke", None, knobs(tmp_path / "lake", **{**QUICK, "improve__online": "true"}))
    still = load_config("smoke", None, knobs(tmp_path / "lake", **QUICK))
    turn, terms = cut_cycles(online, cube)[0], terms_of(online, cube, {})
    judged_by = outcome_terms(online, terms)
    table = dense(cube)
    outcomes = close(table, cube, judged_by)
    settings = build(online.feedback, table.authors, seed=0)
    model = RewardModel(settings).fit(
        context_features(cube, outcomes.opened_row), table, judged_pairs(outcomes, table, tie=0.01, metric="score").inside(turn.learn)
    )  # fmt: skip

    def verdicts(c: Cube, config: Config) -> np.ndarray:
        heard: Heard = ray.get(hear.remote(c, turn, dense(c), {"one": model}, {"one": turn.learn.stop}, judged_by, terms, config))
        assert (heard.weighers["one"].state_hash != model.state_hash) == config.improve.online
        return heard.verdicts["one"]

    middle = (turn.block.start + turn.block.stop) // 2
    noisy = perturb_future(cube, middle, np.random.default_rng(3))
    opened = outcomes.opened_row[(outcomes.opened_row >= turn.block.start) & (outcomes.opened_row < turn.block.stop)]
    told, fixed = verdicts(cube, online), verdicts(cube, still)
    assert np.array_equal(told[opened <= middle], verdicts(noisy, online)[opened <= middle], equal_nan=True)
    first = opened < turn.block.start + online.improve.update_bars
    assert np.array_equal(told[first], fixed[first], equal_nan=True) and not np.array_equal(told[~first], fixed[~first], equal_nan=True)


def test_whether_a_challenger_is_kept_does_not_hang_on_bars_after_its_block(ray_session: None, tmp_path: Path) -> None:
    """They are the next block's. An opinion given near the end is judged by nobody: noise on what it closes in moves no score."""
    cube = desk_cube(0, rows=700)
    config = load_config("smoke", None, knobs(tmp_path / "lake", **QUICK))
    turn, terms = cut_cycles(config, cube)[0], terms_of(config, cube, {})
    judged_by, table = outcome_terms(config, terms), dense(cube)
    weighers = {"one": EqualWeights(table.authors, "all alike"), "two": TrackRecord(table.authors, *[(0.0, 0.0, 0.0, 1.0)] * 3, n_pairs=9)}

    def scores(c: Cube) -> list[np.ndarray]:
        heard: Heard = ray.get(hear.remote(c, turn, table, weighers, dict.fromkeys(weighers, 0), judged_by, terms, config))
        return [heard.block.score(heard.verdicts[name]) for name in weighers]

    noisy = perturb_future(cube, turn.block.stop - 1, np.random.default_rng(3))
    for before, after in zip(scores(cube), scores(noisy), strict=True):
        assert np.array_equal(before, after, equal_nan=True) and np.isnan(before[-1]).all() and np.isfinite(before[-2]).any()


def test_the_words_say_what_the_figures_say(whole: Path, tmp_path: Path) -> None:
    result = result_of(whole)
    text = summary_text(result, trials=7)
    assert headline(result) in text and "7 series were tried" in text and "reward model over equal weights" in text
    never = {**result, "cycles": [{**t, "challenge": {**t["challenge"], "kept": False}} for t in result["cycles"]]}
    assert headline(never).startswith("NO BETTER")
    kept = {**result, "cycles": [{**t, "challenge": {**t["challenge"], "kept": True}} for t in result["cycles"]]}
    for low, word in ((-0.1, "KEPT, NOT PROVEN"), (0.1, "BETTER")):
        gains = {**result["gains"], "in_office over equal_weights": {"value": 0.2, "low": low, "high": 0.3}}
        assert headline({**kept, "gains": gains}).startswith(word)
    render({**kept, "gains": gains}, tmp_path / "page.html", trials=7)
    assert "BETTER" in (tmp_path / "page.html").read_text()


def test_too_few_pairs_keep_equal_weights_and_say_why(ray_session: None, tmp_path: Path) -> None:
    config = load_config("smoke", None, knobs(tmp_path / "lake", **QUICK, feedback__min_pairs="1000000"))
    _, result = improve(config, str(tmp_path / "run"))
    assert all(t["judge"]["kind"] == "equal_weights" and "1000000 are needed" in t["judge"]["reason"] for t in result["cycles"])
    assert not any(t["challenge"]["kept"] for t in result["cycles"]) and "nothing to test" in result["cycles"][0]["challenge"]["reason"]
    json.loads(canonical_json(result))


def test_theses_are_weighed_beside_the_rules_on_rows_that_they_were_not_taught_on(ray_session: None, tmp_path: Path) -> None:
    quick = {"thesis__sft__epochs": "1", "thesis__rft__epochs": "1", "improve__cycles": "1", "improve__thesis": "true"}
    run, result = improve(load_config("smoke", None, knobs(tmp_path / "lake", **{**QUICK, **quick})), str(tmp_path / "run"))
    spans = [pq.read_table(f).to_pylist() for f in sorted(run.path.glob("stages/rollout/*/*/opinions.parquet"), key=_row_of)]
    heard = [{o["author"] for o in span if o["p_up"] is not None} for span in spans]
    assert ["thesis" in authors for authors in heard] == [False, True, True]
    theses = [o for span in spans for o in span if o["author"] == "thesis" and o["p_up"] is not None]
    rules = {o["prompt_hash"] for span in spans for o in span if o["author"] == "technical"}
    assert all(o["origin"] == "thesis" and o["prompt_hash"] in rules for o in theses) and len({o["model"] for o in theses}) == 2
    assert result["cycles"][0]["judge"]["n_pairs"] > 50
    judge = load_weigher(next(run.path.glob("stages/fit/cycle=1/*/challenger")))
    assert judge.authors[-1] == "thesis"


def _row_of(opinions: Path) -> int:
    return int(opinions.parts[-3].removeprefix("rows="))


def test_a_run_goes_on_by_its_own_verb(whole: Path) -> None:
    before = (whole / "result.json").read_bytes()
    with pytest.raises(ConfigError, match="a run of `rlaif improve`; expected one of `rlaif pipeline`"):
        run_pipeline(load_config("smoke"), resume=str(whole))
    assert (whole / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("knob", "says"),
    [
        ({"improve__cycles": "9"}, "lower --improve.cycles"),
        ({"improve__cycles": "40"}, "raise --backtest.resamples to 800"),
        ({"feedback__metric": "os:nope"}, "os:nope"),
        ({"improve__thesis": "true", "thesis__horizon_bars": "20"}, "thesis.horizon_bars is 20"),
        ({"backtest__vault": "open", "backtest__vault_from": "2024-06-01"}, "leaves the vault closed"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_run(ray_session: None, tmp_path: Path, knob: dict[str, str], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says) as raised:
        improve(load_config("smoke", None, knobs(tmp_path / "lake", **{**QUICK, **knob})), str(tmp_path / "run"))
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


# --- kills ---


def start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "rlaif_ray.cli", "improve", *words], stdout=out, stderr=out, start_new_session=True)


def stages_done(run: Path) -> int:
    log = run / "events.jsonl"
    return sum(1 for _ in committed(log.read_text().splitlines())) if log.exists() else 0


def kill_when(process: subprocess.Popen[bytes], log: Path, reached: Callable[[], bool]) -> bool:
    """SIGKILL to the driver when `reached`; False where it was done before."""
    while not reached():
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()[-2000:]
            return False
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


@pytest.mark.parametrize("places", [(5,), pytest.param(tuple(range(10)), marks=pytest.mark.slow)])
def test_a_kill_costs_nothing(whole: Path, tmp_path: Path, places: tuple[int, ...]) -> None:
    """Killed and resumed after the fit of the first turn; the slow one ten times, at a random moment after each stage in turn."""
    broken, log, rng = tmp_path / "broken", tmp_path / "log", np.random.default_rng(0)
    process = start(log, *arguments(tmp_path / "lake", **QUICK), "--run-dir", str(broken))
    for stages in places:
        wait = float(rng.uniform(0.0, 2.0)) if len(places) > 1 else 0.0
        kill_when(process, log, lambda stages=stages: stages_done(broken) >= stages)
        if not (broken / "config.json").exists():  # killed before there was anything
            process = start(log, *arguments(tmp_path / "lake", **QUICK), "--run-dir", str(broken))
        else:
            process = start(log, "--resume", str(broken))
        time.sleep(wait)
    assert process.wait(timeout=600) == 0, log.read_text()[-2000:]
    assert (broken / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert artefacts(broken) == artefacts(whole)
