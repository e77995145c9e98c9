"""`rlaif train-thesis`: a run that prints its table, goes on where it stopped, and refuses what it cannot do in one line."""

import json
import shutil
from pathlib import Path

import pytest

from rlaif_ray import cli_thesis
from rlaif_ray.cli import main
from rlaif_ray.feedback.thesis_policy import ThesisPolicy

SMALL = [
    "--data.n_symbols=4", "--data.n_bars=400", "--features.sets=[technical]", "--thesis.planted_insider=0.05", "--thesis.sft.epochs=2",
    "--thesis.rft.epochs=1", "--thesis.train_bars=100", "--thesis.test_bars=40", "--thesis.folds=2", "--thesis.min_validation=50",
    "--backtest.resamples=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thesis")
    assert main(["train-thesis", *SMALL, f"--lake.uri={root / 'lake'}", "--run-dir", str(root / "run")]) == 0
    return root / "run"


def test_a_run_leaves_its_result_and_its_policies(finished):
    result = json.loads((finished / "result.json").read_text())
    assert list(result["arms"]) == ["buy_and_hold", "equal_weight", "rft", "sft", "shuffled_labels"]
    assert result["features"]["missing"] == ["f_value"] and result["features"]["subset"] == "9 of 10 features"
    for k, fold in enumerate(result["folds"]):
        folder = finished / "artefacts" / f"fold={k}"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert [m["name"] for m in manifest["models"]] == ["thesis_sft", "thesis_rft", "thesis_shuffled_labels"]
        assert manifest["sources"]["f_insider"] == "planted_insider" and manifest["fit_end"] < manifest["serves_from"]
        assert ThesisPolicy.load(folder / "rft").state_hash == fold["arms"]["rft"]["learnt"]["state_hash"]
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["trials"] == 3 * 2  # arms and test blocks


def test_the_table_says_what_is_planted_what_is_missing_and_what_is_claimed(finished):
    text = cli_thesis.summary_text(json.loads((finished / "result.json").read_text()), trials=6)
    parts = ("f_insider is PLANTED, with a coefficient of 0.05", "masked: f_value", "RFT over SFT", "SFT, shuffled labels", "6 series")
    assert [part for part in parts if part not in text] == []
    assert ("EDGE" in text) != ("No edge over equal weight is claimed" in text)
    assert all(len(line) < 260 for line in text.splitlines())


def test_what_bound_the_arms_is_in_the_result_and_in_the_table(finished):
    result = json.loads((finished / "result.json").read_text())
    text = cli_thesis.summary_text(result, trials=6)
    assert set(result["trips"]) == set(result["arms"]) and all(result["trips"].values())
    for trips in result["trips"].values():
        assert set(trips) <= {"name_cap", "drawdown"}  # what is on where no sector is known
        assert all(f"{t['count']} x {control.replace('_', ' ')}" in text for control, t in trips.items())


def test_resume_does_the_folds_that_are_missing_and_says_the_same(finished, tmp_path, capsys):
    broken = tmp_path / "run"
    shutil.copytree(finished, broken)
    shutil.rmtree(broken / "stages" / "thesis" / "fold=1")
    (broken / "result.json").unlink()
    capsys.readouterr()
    assert main(["train-thesis", "--resume", str(broken), "--json"]) == 0
    said = capsys.readouterr()
    assert said.out == (broken / "result.json").read_text() == (finished / "result.json").read_text()
    assert said.err.rstrip().endswith(f"run: {broken}")
    events = [json.loads(line) for line in (broken / "events.jsonl").read_text().splitlines()]
    since = events[[e["event"] for e in events].index("resumed") :]
    assert [e["stage"] for e in since if e["event"] == "stage_begun"] == ["thesis/fold=1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--thesis.train_bars=4000"], "rows do not hold 2 folds of 4000 rows"),
        (["--thesis.planted_insider=0.5"], "knows more than this market plants; expected at most 0.1"),
        (["--thesis.columns.f_qualty=x"], "no thesis feature 'f_qualty'"),
        (["--backtest.vault=open"], "in a vault to open"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(finished, tmp_path, capsys, words, says):
    lake = f"--lake.uri={finished.parent / 'lake'}"
    assert main(["train-thesis", *SMALL, lake, *words, "--run-dir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert says in err.splitlines()[-1] and not (tmp_path / "run").exists()
