"""The verbs that follow opinions and take people's word on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile, copytree

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from rlaif_ray import cli_feedback
from rlaif_ray.agents import records
from rlaif_ray.artefacts import keep_dataset, load_dataset
from rlaif_ray.core import Opinion
from rlaif_ray.data import opinions as kept
from rlaif_ray.data.human_labels import add_label, human_preferences, labels, reviews
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, RlaifError
from rlaif_ray.feedback.outcomes import opinion_id
from tests.data.bars import daily

pytestmark = pytest.mark.usefixtures("ray_session")
BARS = pl.concat([daily(symbol, [10.0 + k + 0.1 * i * (-1) ** i for i in range(30)]) for k, symbol in enumerate("ABC")])
MOMENTS = BARS["timestamp"].unique().sort()
Flags = dict[str, str]


def said(row: int, symbol: str, author: str, p_up: float, evidence: str = "the same") -> Opinion:
    moment = np.datetime64(MOMENTS[row].replace(tzinfo=None), "us")
    return Opinion(author, moment, symbol, 5, p_up, (), f"{author} on {symbol}", f"{evidence} {row} {symbol}")


SPOKEN = [said(row, s, author, p) for row in range(0, 30, 5) for s in "ABC" for author, p in (("risk", 0.55), ("news", 0.45))]
FIRST, SECOND = opinion_id(SPOKEN[0]), opinion_id(SPOKEN[1])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"), "us")
    lake.append("bars", BARS.filter(pl.col("timestamp") <= MOMENTS[20]), "test")
    kept.keep_opinions(lake, records.to_arrow(SPOKEN), MOMENTS[29])
    return lake


def of(lake: Lake, **flags: str) -> Flags:
    return {"lake": lake.uri, "dataset": lake.dataset, **{k.replace("_", "-"): v for k, v in flags.items()}}


def test_a_pass_says_what_is_open_and_what_has_closed(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    cli_feedback.track(of(lake), {})
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{lake.uri}/us" and told[1:5] == ["  opinions: 36", "  open: 12", "  closed now: 24", "  void: 0"]
    cli_feedback.track(of(lake, json=""), {"feedback.beta_bars": "20"})
    assert json.loads(capsys.readouterr().out) == {
        "opinions": 36, "open": 12, "closed": 0, "void": {}, "restated": 0, "until": "2020-01-31T21:00:00.000000Z"
    }  # fmt: skip


def test_on_other_terms_all_can_be_judged_again(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    cli_feedback.track(of(lake), {})
    served = kept.outcomes(lake)
    cli_feedback.track(of(lake, json="", again=""), {"execution.preset": "institutional"})
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["closed"] == 24
    now = kept.outcomes(lake)
    assert now["score"].equals(served["score"]) and now["cost"].to_pylist() != served["cost"].to_pylist()


def test_it_follows_until_it_is_told_to_end(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    def live() -> None:
        patience = time.monotonic() + 60
        while "outcomes" not in lake.tables() and time.monotonic() < patience:
            time.sleep(0.05)
        lake.append("bars", BARS, "live")
        while kept.outcomes(lake).num_rows < 30 and time.monotonic() < patience:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    market = threading.Thread(target=live)
    market.start()
    cli_feedback.track(of(lake, follow="", every="0.05", json=""), {})
    market.join()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [t["closed"] for t in told] == [24, 6] and told[-1]["open"] == 6
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """What is read of a finished run, and its lake: a copy, for the lake is written to."""
    data, copy = load_dataset(tiny_run), tmp_path / "run"
    copytree(data.lake.uri, tmp_path / "lake")
    copytree(tiny_run / "stages" / "opinions", copy / "stages" / "opinions")
    copyfile(tiny_run / "config.json", copy / "config.json")
    keep_dataset(copy, replace(data, lake=Lake(str(tmp_path / "lake"), data.lake.dataset)))
    return copy


def test_a_finished_runs_opinions_are_taken_in_and_followed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli_feedback.track({"run": str(run), "json": ""}, {})
    told = json.loads(capsys.readouterr().out)
    (file,) = (run / "stages" / "opinions").rglob("opinions.parquet")
    spoken = pq.read_table(file, columns=["p_up"])["p_up"]
    assert told["opinions"] == len(spoken) - spoken.null_count and 0 < told["open"] < told["opinions"]
    assert told["closed"] == told["opinions"] - told["open"]
    cli_feedback.track({"run": str(run), "json": ""}, {})
    assert json.loads(capsys.readouterr().out) == {**told, "closed": 0}


WRONG: list[tuple[Callable[[Flags, Flags], None], Flags, type[RlaifError], str]] = [
    (cli_feedback.track, {"lake": "-", "dataset": "-", "every": "5"}, ConfigError, "--every .* add --follow"),
    (cli_feedback.track, {"lake": "-", "dataset": "-", "every": "0", "follow": ""}, ConfigError, "--every is '0'; expected seconds"),
    (cli_feedback.track, {"run": "somewhere", "lake": "-"}, ConfigError, "leave out --lake"),
    (cli_feedback.track, {"run": "nowhere"}, MissingDataError, "nowhere is not a run"),
    (cli_feedback.track, {"lake": "-"}, ConfigError, "name what is tracked: --dataset NAME"),
    (cli_feedback.track, {"lake": "-", "dataset": "su"}, MissingDataError, r"no dataset 'su' in .*it has \['us'\]"),
    (cli_feedback.add, {"lake": "-", "dataset": "-", "by": "ann"}, ConfigError, "feedback add needs --chosen, --rejected; `rlaif"),
    (cli_feedback.review, {"by": "bob"}, ConfigError, "needs --lake, --dataset, --label, --verdict"),
    (cli_feedback.show, {"lake": "-"}, ConfigError, "feedback list needs --dataset"),
    (cli_feedback.show, {"lake": "-", "dataset": "-", "symbol": "A", "as-of": "2020-01-02"}, ConfigError, "a moment with its zone"),
    (
        cli_feedback.review, {"lake": "-", "dataset": "-", "label": "x", "by": "bob", "verdict": "acept"}, ConfigError,
        "expected accept or reject. Did you mean 'accept'?",
    ),
    (
        cli_feedback.review, {"lake": "-", "dataset": "-", "label": "x", "by": "bob", "verdict": "accept"}, MissingDataError,
        "no label x in .*feedback list",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("act", "flags", "kind", "words"), WRONG, ids=[w[3][:30] for w in WRONG])
def test_a_mistake_is_told_in_one_line(
    lake: Lake, act: Callable[[Flags, Flags], None], flags: Flags, kind: type[RlaifError], words: str
) -> None:  # fmt: skip
    meant = {"lake": lake.uri, "dataset": lake.dataset}
    with pytest.raises(kind, match=words) as told:
        act({name: meant.get(name, value) if value == "-" else value for name, value in flags.items()}, {})
    assert "\n" not in str(told.value)


def test_a_label_waits_in_quarantine_until_somebody_else_accepts_it(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    def listed() -> list[dict[str, str]]:
        capsys.readouterr()
        cli_feedback.show(of(lake, json=""), {})
        return json.loads(capsys.readouterr().out)

    def learnt(moment: np.datetime64) -> int:
        return len(human_preferences(lake, moment))

    later = np.datetime64("2100-01-01T00:00", "us")
    assert listed() == []
    cli_feedback.add(of(lake, symbol="A", as_of="2020-01-02T21:00:00Z", chosen=FIRST, rejected=SECOND, by="ann", note="saw it"), {})
    key = capsys.readouterr().out.splitlines()[0].removeprefix("label: ")
    (label,) = listed()
    assert label["id"] == key and label["state"] == "held: nobody else has reviewed it" and learnt(later) == 0
    assert {k: label[k] for k in ("by", "channel", "symbol", "as_of", "chosen", "rejected", "note")} == {
        "by": "ann", "channel": "command line", "symbol": "A", "as_of": "2020-01-02T21:00:00.000000Z", "chosen": FIRST,
        "rejected": SECOND, "note": "saw it",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"Ann gave label .* somebody else"):
        cli_feedback.review(of(lake, label=key, by=" Ann", verdict="accept"), {})
    cli_feedback.review(of(lake, label=key, by="bob", verdict="reject", reason="a hunch"), {})
    assert listed()[0]["state"] == "held: rejected by bob: a hunch"
    cli_feedback.review(of(lake, label=key, by="cid", verdict="accept"), {})
    assert listed()[0]["state"].startswith("released by cid at 20") and len(reviews(lake)) == 2
    (given,) = labels(lake)
    (learned,) = human_preferences(lake, later)
    assert learned.judge == "human:ann" and (learned.chosen, learned.rejected) == (SPOKEN[0], SPOKEN[1])
    assert learnt(given.given_at) == 0 and learnt(learned.closed_at) == 1


def test_a_label_names_two_opinions_of_one_question(lake: Lake) -> None:
    add = cli_feedback.add
    kept.keep_opinions(lake, records.to_arrow([said(0, "A", "thesis", 0.7, "other evidence")]), MOMENTS[29])
    other = opinion_id(said(0, "A", "thesis", 0.7, "other evidence"))
    wrong: list[tuple[Flags, type[RlaifError], str]] = [
        ({"chosen": FIRST, "rejected": "none"}, MissingDataError, "no opinion none"),
        ({"chosen": FIRST, "rejected": opinion_id(SPOKEN[2])}, DataError, "risk on A .* and risk on B .* one prompt_hash"),
        ({"chosen": FIRST, "rejected": other}, DataError, "one evidence; expected two opinions with one prompt_hash"),
        ({"chosen": FIRST, "rejected": FIRST}, DataError, "to itself"),
        ({"chosen": FIRST, "rejected": SECOND, "symbol": "B"}, ConfigError, "--symbol is 'B', but opinion"),
        ({"chosen": FIRST, "rejected": SECOND, "as_of": "2020-01-03T21:00:00Z"}, ConfigError, "--as-of is .*-03T.* given as of .*-02T"),
    ]
    for flags, kind, words in wrong:
        with pytest.raises(kind, match=words):
            add(of(lake, by="ann", **flags), {})
    assert labels(lake) == []


def test_labels_may_be_given_by_other_doors_and_twice_is_once(lake: Lake) -> None:
    at = np.datetime64("2024-01-02T10:00", "us")
    one = [add_label(lake, FIRST, SECOND, by="ann", channel="form", note="", given_at=at) for _ in range(2)]
    assert one[0] == one[1] and labels(lake) == one[:1]


def test_opinions_are_shown_with_the_ids_that_a_label_names(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    cli_feedback.show(of(lake, symbol="A", as_of="2020-01-02T22:00:00Z"), {})
    assert capsys.readouterr().out == "none\n"
    cli_feedback.show(of(lake, symbol="A", as_of="2020-01-02T16:00:00-05:00"), {})
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and {row.split()[0] for row in rows} == {FIRST, SECOND} and any("risk  5  0.55  risk on A" in row for row in rows)
    cli_feedback.show(of(lake, symbol="A"), {})
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_help_is_quick_to_import() -> None:
    """The doors import nothing heavy before they are asked to act."""
    code = "import sys, rlaif_ray.cli_feedback; sys.exit(bool({'ray', 'torch', 'polars', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
