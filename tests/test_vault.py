"""Which bars are the vault, what it keeps out, and that opening it is an act that is remembered."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_ray.config import Config, load_config
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.folds import judged_rows, walk_forward
from rlaif_ray.ledger import TrialLedger
from rlaif_ray.plan import cut_folds, vault_of
from rlaif_ray.runs import Run
from rlaif_ray.vault import Vault, open_vault
from tests.laws import random_cube
from tests.tiny import TINY

CLOSES = np.arange("2015-01-01", "2020-01-01", dtype="datetime64[D]").astype("datetime64[us]") + np.timedelta64(21, "h")
SMALL: dict[str, Any] = {"forecaster_fraction": 0.5, "inner_windows": 2, "horizon": 5, "embargo": 2, "warmup": 10, "test_fraction": 0.4}


def vault(first_day: dt.date | None = None, asked: Any = "closed", *, real: bool = True) -> Vault:
    return Vault.of(CLOSES, first_day=first_day, asked=asked, real=real, bars_per_year=365.25)


def test_the_vault_starts_on_its_day_else_two_years_before_the_end_of_a_real_set() -> None:
    named = vault(dt.date(2019, 3, 1))
    assert (CLOSES[named.row].astype("datetime64[D]"), named.first, named.last) == (np.datetime64("2019-03-01"), "2019-03-01", "2019-12-31")
    assert (vault().bars, vault().first, vault().state) == (730, "2018-01-01", "closed")
    for none in (vault(real=False), vault(dt.date(2020, 1, 1))):
        assert (none.row, none.bars, none.state) == (None, 0, "none")
    assert vault(real=False).notes == []
    assert vault(dt.date(2020, 1, 1)).notes == ["The vault begins on 2020-01-01, after the last bar: nothing is kept from being tested."]
    assert vault(dt.date(2019, 3, 1), real=False).row == named.row


@pytest.mark.parametrize("asked", ["open", "broken"])
def test_where_there_is_no_vault_there_is_none_to_open(asked: str) -> None:
    with pytest.raises(ConfigError, match=r"which end on 2019-12-31, is in a vault to open; check --backtest\.vault_from"):
        vault(asked=asked, real=False)


def test_judged_rows_by_hand() -> None:
    """Twelve rows; row 8 is the first in the vault; labels close two rows later."""
    where: dict[str, Any] = {"test_fraction": 0.5, "horizon": 2}
    assert judged_rows(12, **where) == slice(6, 11)  # 11 decisions can be judged, the last five of them are
    assert judged_rows(12, **where, vault=8) == slice(3, 6)  # the label of row 5 closes on row 7; row 6's on row 8 would look in
    assert judged_rows(12, **where, vault=8, opened=True) == slice(7, 11)  # decided on row 7, filled on row 8


@pytest.mark.parametrize(("n_rows", "first", "folds"), [*itertools.product((900, 1501), (700, 850), (1, 3))])
def test_no_label_of_a_tested_decision_closes_in_a_closed_vault_and_live_learns_to_the_end(n_rows: int, first: int, folds: int) -> None:
    closed = walk_forward(n_rows, folds=folds, vault=first, **SMALL)
    tests = [fold.last.rows for fold in closed[:-1]]
    assert tests[-1].stop == first - SMALL["horizon"]  # the last row is stop - 1, whose label closes on row first - 1
    assert all(a.stop == b.start for a, b in itertools.pairwise(tests))
    assert all(window.rows.stop <= first for fold in closed[:-1] for window in fold.windows)
    assert closed[-1] == walk_forward(n_rows, folds=folds, **SMALL)[-1]
    assert (closed[-1].last.rows, closed[-1].last.fit.stop) == (slice(n_rows - 1, n_rows), n_rows)


def test_an_open_vault_is_all_that_is_tested() -> None:
    folds = walk_forward(1501, folds=3, vault=1201, opened=True, **SMALL)
    assert [fold.last.rows for fold in folds[:-1]] == [slice(1200, 1300), slice(1300, 1400), slice(1400, 1500)]
    assert folds[0].last.fit.stop == 1200 - SMALL["embargo"]


def test_a_vault_that_leaves_too_little_says_so() -> None:
    cube = random_cube(np.random.default_rng(0), rows=700, assets=3)
    days = cube.times.astype("datetime64[D]")
    config = load_config("smoke", None, {**TINY, "backtest.vault_from": str(days[120])})
    with pytest.raises(DataError, match=rf"580 bars from {days[120]} on are a vault, see --backtest\.vault_from") as caught:
        cut_folds(config, cube)
    assert "\n" not in str(caught.value)
    config = load_config("smoke", None, {**TINY, "backtest.vault_from": str(days[650])})
    assert cut_folds(config, cube)[0].last.rows.stop == 650 - 5
    assert vault_of(config, cube).bars == 50


def run_of(folder: Path, **knobs: str) -> Run:
    return Run.create("pipeline", load_config(overrides={k.replace("__", "."): v for k, v in knobs.items()}), folder)


def test_a_configuration_opens_its_vault_once_whatever_its_seed(tmp_path: Path) -> None:
    ledger, opened, broken = TrialLedger(str(tmp_path)), vault(asked="open"), vault(asked="broken")
    first = run_of(tmp_path / "a", backtest__vault="open")
    open_vault(opened, first, ledger, "data-1")
    first.close()
    open_vault(opened, Run.resume(first.path, "pipeline"), ledger, "data-1")
    for same in ({"seed": "7"}, {"backtest__vault_from": "2018-06-01"}):
        again = run_of(tmp_path / f"b{next(iter(same))}", backtest__vault="open", **same)
        with pytest.raises(ConfigError, match=r"opened its vault before.*--break-vault"):
            open_vault(opened, again, ledger, "data-2")
    open_vault(opened, run_of(tmp_path / "c", rl__members="9"), ledger, "data-1")
    open_vault(broken, run_of(tmp_path / "d", backtest__vault="broken"), ledger, "data-1")
    assert len(ledger.records()) == 3
    assert "VAULT BROKEN" in broken.notes[0] and "cannot serve as a test again" in opened.notes[0] and "is closed" in vault().notes[0]


def test_the_state_of_the_vault_is_no_part_of_what_is_tried() -> None:
    base = Config()
    states = [load_config(overrides={"backtest.vault": state}) for state in ("open", "broken")]
    assert {c.hash for c in states} == {base.hash} and {c.family for c in states} == {base.family}
    assert load_config(overrides={"seed": "1"}).family == base.family
    assert load_config(overrides={"backtest.vault_from": "2020-01-01"}).family == base.family
    assert load_config(overrides={"rl.members": "2"}).family != base.family
