"""The verbs that look after the lake, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif_ray.cli import main
from rlaif_ray.data.lake import Lake
from tests.data.bars import write_csv

UP = [10.0 + k for k in range(30)]


@pytest.fixture
def bars(ray_session: None, tmp_path: Path) -> list[str]:
    for symbol in ("A", "B"):
        write_csv(tmp_path / "in", symbol, UP)
    return ["ingest", "--data.type=csv", f"--data.path={tmp_path / 'in'}", f"--lake.uri={tmp_path / 'lake'}", "--data.dataset=us"]


def test_bars_come_in_and_are_shown(bars: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(bars) == 0 and "rows: 60" in capsys.readouterr().out
    assert main([*bars, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["symbols"] == 2
    assert main(["data", "status", "--lake", str(tmp_path / "lake")]) == 0
    assert "2020-01-02 21:00" in capsys.readouterr().out
    assert main(["data", "verify", "--lake", str(tmp_path / "lake")]) == 0


def test_one_symbol_may_be_kept(bars: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*bars, "--data.names=[B]"]) == 0 and "symbols: 1" in capsys.readouterr().out
    assert main([*bars, "--data.names=[B]"]) == 0  # known, and not read again
    words = [*bars[1:], "--data.names=[B]", "--data.bad_rows=quarantine", "--run-dir", str(tmp_path / "run")]
    assert main(["pipeline", *words]) == 2 and "a portfolio needs a choice" in capsys.readouterr().err
    assert main([*bars, "--data.end=1990-01-01"]) == 2 and "expected at least 1: check" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_the_rest_is_there(bars: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "C.csv").write_text("")
    assert main(bars) == 1
    said = capsys.readouterr()
    assert "rows: 60" in said.out and said.err.count("not read:") == 1 and "C.csv" in said.err


def test_a_file_may_refuse_what_the_verb_would_set_apart(bars: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "C.csv").write_text("")
    (tmp_path / "mine.yaml").write_text("data: {bad_rows: refuse}")
    assert main([*bars, f"--config={tmp_path / 'mine.yaml'}"]) == 2
    assert "C.csv" in capsys.readouterr().err and not (tmp_path / "lake").exists()


def test_facts_go_beside_bars(bars: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = {"headline": "A rises", "body": "It did.", "symbols": ["A"], "published": "2020-01-05T10:00:00Z", "source": "wire"}
    (tmp_path / "news.jsonl").write_text(json.dumps(story) + "\n")
    facts = ["ingest", "--facts.type=documents", f"--facts.path={tmp_path / 'news.jsonl'}", f"--lake.uri={tmp_path / 'lake'}"]
    assert main(facts) == 2
    assert "--data.dataset=NAME" in capsys.readouterr().err
    assert main([*facts, "--data.dataset=us"]) == 0
    lake = Lake(str(tmp_path / "lake"), "us")
    assert lake.read("documents")["title"].to_list() == ["A rises"] and lake.read("mentions")["symbol"].to_list() == ["A"]
    assert main(["pipeline", "--facts.type=edgar"]) == 2
    assert "with rlaif ingest" in capsys.readouterr().err
