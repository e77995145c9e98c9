"""Stages are whole or absent, seeds follow names, and a run has one writer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_ray.config import Config
from rlaif_ray.core import canonical_json
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.runs import Run, code_version, seed_for


def write_one(folder: Path) -> None:
    (folder / "out.txt").write_text("1")


def refuse(folder: Path) -> None:
    raise AssertionError("a committed stage is not computed again")


def test_a_stage_is_computed_once_and_found_again_after_reopening(tmp_path):
    config = Config(seed=7)
    with Run.create("pipeline", config, tmp_path / "run") as run:
        folder = run.stage("forecast/fold=0", config.forecast, "data-1").get_or(write_one)
        assert (folder / "out.txt").read_text() == "1"
        assert folder.parent == tmp_path / "run" / "stages" / "forecast" / "fold=0"
    with Run.resume(tmp_path / "run", "pipeline") as again:
        assert again.config == config
        assert again.stage("forecast/fold=0", config.forecast, "data-1").get_or(refuse) == folder


def test_another_input_is_another_stage(tmp_path):
    run = Run.create("pipeline", Config(), tmp_path / "run")
    inputs = [("features", "data-1"), ("features", "data-2"), ("forecast", "data-1"), ("features", "data-1", 3)]
    stages = [run.stage(*each) for each in inputs]
    assert len({stage.key for stage in stages}) == 4
    assert run.stage("features", "data-1").key == stages[0].key


def test_a_failed_stage_is_not_committed(tmp_path):
    run = Run.create("pipeline", Config(), tmp_path / "run")

    def fail_half_way(folder: Path) -> None:
        write_one(folder)
        raise ArithmeticError

    stage = run.stage("features")
    with pytest.raises(ArithmeticError):
        stage.get_or(fail_half_way)
    assert not stage.done
    assert (stage.get_or(write_one) / "out.txt").exists()


def test_kill_nine_in_a_stage_leaves_nothing_that_looks_finished(tmp_path):
    """The process dies after writing half a stage: the lock is free, the half is gone after resume, the stage runs again."""
    script = f"""
import os, signal
from pathlib import Path
from rlaif_ray.config import Config
from rlaif_ray.runs import Run
run = Run.create("pipeline", Config(), {str(tmp_path / "run")!r})
run.stage("data").get_or(lambda folder: (folder / "whole").touch())
def die(folder):
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
run.stage("features").get_or(die)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "run").rglob("half"))
    with Run.resume(tmp_path / "run", "pipeline") as run:
        assert not list(run.path.rglob("*.partial"))
        assert run.stage("data").done
        assert not run.stage("features").done
        assert (run.stage("features").get_or(write_one) / "out.txt").exists()


def test_work_that_ends_elsewhere_is_committed_by_its_owner(tmp_path):
    """Two writers of one key: the first to commit wins, the other's copy goes, and both see the same folder."""
    with Run.create("pipeline", Config(), tmp_path / "run") as run:
        stage = run.stage("rl/fold=1")
        first, second = stage.begin(), stage.begin()
        write_one(first)
        write_one(second)
        assert stage.commit(first, seconds=1.5) == stage.commit(second) == stage.path
    assert [p.name for p in stage.path.parent.iterdir()] == [stage.key]
    assert json.loads((stage.run.path / "timing.json").read_text()) == {"rl/fold=1": 1.5}


def test_one_writer_at_a_time(tmp_path):
    run = Run.create("pipeline", Config(), tmp_path / "run")
    with pytest.raises(ConfigError, match="another process is writing"):
        Run.resume(run.path, "pipeline")
    Run.open(run.path)  # reading needs no lock
    run.close()
    Run.resume(run.path, "pipeline").close()


def test_the_users_mistake_leaves_nothing_until_the_run_is_settled(tmp_path):
    """Found before the first stage, inside it or after it: a config that does not fit its data can never be resumed."""

    def refuse_the_data(folder: Path) -> None:
        write_one(folder)
        raise DataError("a negative price")

    with pytest.raises(DataError), Run.create("pipeline", Config(), tmp_path / "before"):
        raise DataError("no rows")
    with pytest.raises(DataError), Run.create("pipeline", Config(), tmp_path / "inside") as run:
        run.stage("ingest").get_or(refuse_the_data)
    with pytest.raises(ConfigError), Run.create("pipeline", Config(), tmp_path / "after") as run:
        run.stage("ingest").get_or(write_one)
        raise ConfigError("an unknown feature")
    assert not list(tmp_path.iterdir())


def test_a_failure_or_a_late_mistake_leaves_what_was_done(tmp_path):
    with pytest.raises(ArithmeticError), Run.create("pipeline", Config(), tmp_path / "failed") as run:
        run.stage("data").get_or(write_one)
        raise ArithmeticError
    with pytest.raises(DataError), Run.create("pipeline", Config(), tmp_path / "late") as run:
        run.stage("data").get_or(write_one)
        run.settle()
        raise DataError("a fold found a bad row")
    with pytest.raises(DataError), Run.resume(tmp_path / "late", "pipeline"):
        raise DataError("still bad")
    assert all((tmp_path / name / "stages" / "data").is_dir() for name in ("failed", "late"))


def test_a_run_directory_in_use_or_without_a_run_is_the_users_mistake(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        Run.create("pipeline", Config(), tmp_path / "used")
    with pytest.raises(MissingDataError, match="is not a run"):
        Run.open(tmp_path / "used")
    (tmp_path / "used" / "config.json").write_text('{"model_type": "someone else\'s"}')
    with pytest.raises(MissingDataError, match="is not a run"):
        Run.open(tmp_path / "used")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--run-dir"):
        Run.create("pipeline", Config(), tmp_path / "file")


def test_default_directories_are_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Run.create("pipeline", Config()), Run.create("pipeline", Config())
    assert first.path != second.path
    assert first.path.parts[0] == "runs"
    assert first.path.name.startswith("pipeline-20")
    first.write_result({"n": 1})
    second.write_result({"n": 2})
    assert Run.open("runs/latest").read_result() == {"n": 2}


def test_the_latest_run_is_a_pipelines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run.create("pipeline", Config()).write_result({"n": 1})
    Run.create("sweep", Config()).write_result({"n": 2})
    assert Run.open("runs/latest").read_result() == {"n": 1}


def test_resuming_by_the_link_to_the_latest_run_keeps_the_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Run.create("pipeline", Config())
    first.write_result({"n": 1})
    first.close()
    with Run.resume("runs/latest", "pipeline") as again:
        again.write_result({"n": 2})
    assert os.readlink("runs/latest") == first.path.name
    assert Run.open("runs/latest").read_result() == {"n": 2}


def test_a_torn_event_line_does_not_hide_the_others(tmp_path):
    """Appends from several nodes may tear on a network file system; what happened is news, never a reason to fail."""
    run = Run.create("pipeline", Config(), tmp_path / "run")
    run.stage("data").commit(run.stage("data").begin(), seconds=1.0)
    with (run.path / "events.jsonl").open("a") as log:
        log.write('{"event": "stage_comm\n[1]\n')
    run.stage("features").commit(run.stage("features").begin(), seconds=2.0)
    assert run.timing() == {"data": 1.0, "features": 2.0}


def test_result_says_only_what_it_is_given(tmp_path):
    run = Run.create("pipeline", Config(), tmp_path / "run")
    with pytest.raises(MissingDataError, match="did not finish"):
        run.read_result()
    result = {"b": 0.1 + 0.2, "a": [1, None], "nested": {"é": "x"}}
    assert run.write_result(result).read_text() == canonical_json(result)
    assert run.read_result() == result
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "created"
    assert events[0]["code_version"] == code_version()


def test_seeds_follow_names():
    seeds = {seed_for(root, path) for root in range(20) for path in ("rl", "rl/member=0", "rl/member=1", "forecast")}
    assert len(seeds) == 80
    assert seed_for(3, "fold=1/rl") == seed_for(3, "fold=1/rl")
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert all(0 <= seed_for(root, "torch", bits=31) < 2**31 for root in range(50))
    # `printf 0/a | sha256sum`: a change of the rule would change every result, so it must be seen.
    assert seed_for(0, "a") == int("d3216b8dc7c46489", 16) >> 1


def test_a_run_of_other_code_is_one_clear_line(tmp_path: Path) -> None:
    run = Run.create("pipeline", Config(), tmp_path / "run")
    run.close()
    file = run.path / "config.json"
    file.write_text(file.read_text().replace('"subset"', '"subject"'))
    with pytest.raises(ConfigError, match=r"rl\.sac\.subject"):
        Run.open(run.path)
