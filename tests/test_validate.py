"""A finished run before the gate: what it leaves, that honest policies look ahead nowhere, that a peeking feature is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray import artefacts
from rlaif_ray.backtest.gate import LADDER_BPS
from rlaif_ray.cli import main
from rlaif_ray.errors import ConfigError, MissingDataError
from rlaif_ray.validate import moved_feature, validate


@pytest.fixture(scope="module")
def judged(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with its verdicts."""
    copy = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(tiny_run, copy)
    validate(copy)
    return copy


def test_every_policy_but_equal_weight_has_a_verdict_with_reasons(judged: Path) -> None:
    result, said = (json.loads((judged / name).read_text()) for name in ("result.json", "verdict.json"))
    assert set(said["policies"]) == set(result["policies"]) - {"equal_weight"}
    assert {"edge", "trials", "ledger"} <= set(said)  # what the pipeline said stays
    for name, verdict in said["policies"].items():
        assert verdict["verdict"] == ("PROMOTE" if verdict["promote"] else "REJECT") and verdict["reasons"]
        assert sorted(map(float, verdict["diagnostics"]["ladder"])) == list(LADDER_BPS)
        rival = {"equal_weight"} if name == "lightgbm_optimiser" else {"equal_weight", "lightgbm_optimiser"}
        assert {t["benchmark"] for t in verdict["tests"]} == rival
        assert all(np.isfinite([t["p_value"], t["value"], t["critical"]]).all() for t in verdict["tests"])


def test_honest_policies_look_ahead_nowhere(judged: Path) -> None:
    for verdict in json.loads((judged / "verdict.json").read_text())["policies"].values():
        assert not next(v for v in verdict["vetoes"] if v["name"] == "looks ahead")["fired"]


def test_one_seed_is_not_enough_for_what_chance_had_a_part_in(judged: Path) -> None:
    policies = json.loads((judged / "verdict.json").read_text())["policies"]
    seeds = {name: next(v for v in verdict["vetoes"] if v["name"] == "seeds") for name, verdict in policies.items()}
    assert seeds["direct"]["fired"] and "1 of 3 seeds" in seeds["direct"]["seen"]
    assert not any(veto["fired"] for name, veto in seeds.items() if name != "direct")


def test_the_page_is_one_file_that_tells_every_verdict(judged: Path) -> None:
    page = (judged / "validation.html").read_text()
    assert page.count("<svg") >= 2 and "http" not in page.replace("http-equiv", "")
    assert all(name in page for name in json.loads((judged / "verdict.json").read_text())["policies"])


def test_judging_again_says_the_same_and_members_alone_is_a_stress_where_the_list_is_given(judged: Path, tmp_path: Path) -> None:
    before = json.loads((judged / "verdict.json").read_text())["policies"]
    symbols = json.loads((judged / "result.json").read_text())["data"]["symbols"]
    file = tmp_path / "members.csv"
    file.write_text("ticker,start_date,end_date\n" + "".join(f"{s},1990-01-01,\n" for s in symbols[:-1]))
    copy = tmp_path / "run"
    shutil.copytree(judged, copy)
    verdicts = validate(copy, membership=str(file))[1]
    assert all(v.diagnostics.stressed["members alone"] is not None for v in verdicts.values())
    again = json.loads((copy / "verdict.json").read_text())["policies"]
    assert {name: v["tests"] for name, v in again.items()} == {name: v["tests"] for name, v in before.items()}
    file.write_text("ticker,start_date,end_date\nNOBODY,1990-01-01,\n")
    with pytest.raises(ConfigError, match=r"knows none of the run's symbols"):
        validate(copy, membership=str(file))


@pytest.mark.slow
def test_cross_validated_the_page_shows_every_path(judged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(judged, copy)
    validate(copy, cross_validated=True)
    paths = json.loads((copy / "verdict.json").read_text())["paths"]
    assert [len(p) for p in paths.values()] == [9, 9] and np.isfinite(list(paths.values())).all()  # 2 of 10 groups: 45 splits, 9 paths
    assert (copy / "validation.html").read_text().count("<svg") == 3


def test_a_feature_that_knew_its_future_is_named(ray_session: None, tiny_run: Path) -> None:
    dataset = artefacts.load_dataset(tiny_run)
    cube, row = dataset.cube(), 500
    assert moved_feature(dataset, cube, row) is None
    peeking = cube.features.copy()
    peeking[:-1, :, 2] = peeking[1:, :, 2]
    found = moved_feature(dataset, replace(cube, features=peeking), row)
    assert found is not None and found.startswith(f"{cube.feature_names[2]} of ") and "known by then" in found


def test_what_cannot_be_judged_is_one_line(tmp_path: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingDataError, match="is not a run"):
        validate(tmp_path)
    with pytest.raises(ConfigError, match=r"--membership .*expected a CSV"):
        validate(tiny_run, membership=str(tmp_path / "none.csv"))
    assert main(["validate"]) == 2
    assert "validate needs --run RUN" in capsys.readouterr().err
