"""Membership of an index: by hand, on the real list, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.data.universe import Membership
from rlaif_ray.errors import SchemaError


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
