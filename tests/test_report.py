"""What the page says of a run is true of it: notes follow from the data, and half a run is not served."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray import artefacts, report, results
from rlaif_ray.core import OPEN, Cube
from rlaif_ray.errors import CheckpointError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Limits
from tests.laws import random_cube


def notes(cube: Cube, fill: Fill, max_weight: float = 0.5) -> list[str]:
    terms = Terms(CostModel(impact=0.5), fill, limits=Limits(max_weight=max_weight))
    return results.notes(cube, source="synthetic", terms=terms, analysts={}, trained_until=None)


def test_a_source_is_said_to_have_no_opens_only_where_it_has_none() -> None:
    cube = random_cube(np.random.default_rng(0), rows=50)
    assert notes(cube, "next_open") == []
    assert notes(cube, "next_close") == ["Decisions fill at the next close, as execution.fill asks."]
    prices = cube.prices.copy()
    prices[:, :, OPEN] = np.nan
    assert notes(replace(cube, prices=prices), "next_close") == ["The source has no opens: decisions fill at the next close."]


def test_a_source_whose_fills_are_cut_is_said_to_leave_buy_and_hold_short() -> None:
    cube, account = random_cube(np.random.default_rng(0), rows=50), AccountRules(participation=0.05)
    said = results.notes(cube, source="synthetic", terms=Terms(CostModel(impact=0.5), account=account), analysts={}, trained_until=None)
    assert said == [
        "A fill takes at most 5% of its bar's volume, and what is cut is cancelled: buy-and-hold, which asks once, goes without it."
    ]


def test_the_page_of_a_long_short_book_shows_both_sides(tiny_run: Path, tmp_path: Path) -> None:
    result = json.loads((tiny_run / "result.json").read_text())
    held, symbols = result["curves"]["weights"], result["curves"]["weights"]["symbols"]
    held["values"] = [[-0.7, 0.9, 0.1, -0.2, 0.0] for _ in held["values"]]
    for told, weight in zip(result["decision"]["predictions"], held["values"][0], strict=True):
        told["target_weight"] = weight
    page = report.render(result, tmp_path / "report.html", trials=1).read_text()
    chart = page[page.index("What the model held") :]
    legend = re.findall(r'<span class="key c\d"></span>(.*?)</span>', chart)
    assert legend == [symbols[1], symbols[0], symbols[3], symbols[2], symbols[4]]
    assert re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td>", chart)[:3] == [
        (symbols[1], "90.0%"), (symbols[0], "-70.0%"), (symbols[3], "-20.0%")
    ]  # fmt: skip


def test_the_page_says_what_share_each_policy_invested(tiny_run: Path, tmp_path: Path) -> None:
    result = json.loads((tiny_run / "result.json").read_text())
    assert all(0 <= p["invested"]["value"] <= 1 for p in result["policies"].values())
    result["policies"]["buy_and_hold"]["invested"]["value"] = 0.005
    page = report.render(result, tmp_path / "report.html", trials=1).read_text()
    costs = page[page.index("Costs and risk controls") :]
    assert "<th>invested</th>" in costs and "<td>buy_and_hold</td><td>0.5%</td>" in costs


def test_models_of_a_run_that_was_stopped_while_it_kept_them_are_not_served(tmp_path: Path) -> None:
    """Live is kept last: without it the rest may be served in its place."""
    kept = tmp_path / "artefacts" / "fold=0"
    kept.mkdir(parents=True)
    (kept / artefacts.MANIFEST).write_text("{}")
    with pytest.raises(CheckpointError, match="it did not finish"):
        artefacts.load_all(tmp_path)
