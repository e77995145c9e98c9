"""Universes and membership of an index: by hand, on the real list, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import content_hash
from rlaif_ray.data.universe import Listing, Membership, Universe
from rlaif_ray.errors import MissingDataError, SchemaError


def test_a_name_is_in_from_its_first_day_until_its_last() -> None:
    spans = {"ticker": ["A", "A", "B"], "start_date": ["2000-01-03", "2010-01-04", "2005-06-01"], "end_date": ["2001-01-02", None, None]}
    list_ = Membership.of(pl.DataFrame(spans))
    days = np.array(["2000-01-02", "2000-01-03", "2001-01-01", "2001-01-02", "2010-01-04"], "datetime64[us]")
    assert list_.members(["A", "B", "C"], days).T.tolist() == [
        [False, True, True, False, True], [False, False, False, False, True], [False] * 5,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"ticker": ["A"], "start_date": ["2000-01-03"]}, "no column 'end_date'"),
        ({"ticker": ["A"], "start_date": ["soon"], "end_date": [None]}, "membership of 'A'"),
        ({"ticker": ["A"], "start_date": ["2001-01-03"], "end_date": ["2000-01-03"]}, "end before they start"),
        ({"ticker": ["A"], "start_date": ["2001-01-03"], "end_date": ["late"]}, "membership of 'A'"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_read_is_refused(table: dict[str, list[str | None]], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        Membership.of(pl.DataFrame(table))


def test_the_real_list_knows_who_came_later(real_data: Path) -> None:
    list_ = Membership.of(pl.read_csv(real_data / "daily" / "sp500_membership" / "sp500_ticker_start_end.csv"))
    days = np.array(["2009-12-31", "2015-01-02", "2020-12-21"], "datetime64[D]")
    members = list_.members(["JNJ", "FB", "TSLA"], days)
    assert members.T.tolist() == [[True, True, True], [False, True, True], [False, False, True]]

def test_a_universe_by_hand() -> None:
    microsoft = "MSFT: {sector: Information Technology, cik: 789019}"
    text = f"benchmark: SPY\nsymbols:\n  {microsoft}\n  ON: {{cik: 0000012345}}\n  XOM:\n  NO: {{sector: null}}\n"
    universe = Universe.parse(text)
    assert universe.symbols == ("MSFT", "NO", "ON", "XOM") and universe.benchmark == "SPY"
    assert universe["MSFT"] == Listing("MSFT", "Information Technology", 789019)
    assert universe["ON"].cik == 12345 and universe["XOM"] == Listing("XOM") and universe["NO"].sector is None
    assert pickle.loads(pickle.dumps(universe)) == universe and content_hash(universe) == content_hash(Universe.parse(text))
    with pytest.raises(MissingDataError, match=r"no 'MSTF'\. Did you mean 'MSFT'"):
        universe["MSTF"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("symbols: [A, B]", "no mapping 'symbols'"),
        ("- A", "no mapping 'symbols'"),
        ("symbols: {}", "no symbols; expected at least one"),
        ("symbols: {A: }\nbenchmrk: SPY", r"unknown key 'benchmrk'; expected symbols, benchmark\. Did you mean 'benchmark'"),
        ("symbols: {A: {sectr: Energy}}", r"unknown key 'sectr'.*Did you mean 'sector'"),
        ("symbols: {A: {cik: soon}}", "the CIK of A is 'soon'; expected digits"),
        ("symbols: {A: Energy}", "A in a universe is 'Energy'"),
        ("symbols: {A: ", "is no YAML"),
    ],
)
def test_a_universe_that_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says) as caught:
        Universe.parse(text)
    assert "\n" not in str(caught.value)


def test_a_table_of_constituents_gives_a_universe(real_data: Path) -> None:
    table = pl.read_csv(real_data / "daily" / "sp500_constituents_current.csv")
    universe = Universe.of(table.select(symbol="Symbol", sector="GICS Sector", cik="CIK").iter_rows(named=True), "SPY")
    assert len(universe.symbols) == table.height > 500
    assert universe["AAPL"] == Listing("AAPL", "Information Technology", 320193)
    twice = [{"symbol": "A"}, {"symbol": "A"}]
    with pytest.raises(SchemaError, match="has 'A' twice"):
        Universe.of(twice)
    with pytest.raises(SchemaError, match="a listing has no symbol"):
        Universe.of([{"sector": "Energy"}])
