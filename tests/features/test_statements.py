"""Statements as known: sums over twelve months by hand, restatements, mistaken dates, counts of shares over splits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from rlaif_ray.features.statements import BALANCES, FLOWS, Statements, as_known
from tests.features.filings import bars, facts, said

REVENUE, PROFIT, CASH = "Revenues", "NetIncomeLoss", "NetCashProvidedByUsedInOperatingActivities"
Q = {
    "Q1": ("2020-01-01", "2020-03-31"), "Q2": ("2020-04-01", "2020-06-30"), "Q3": ("2020-07-01", "2020-09-30"),
    "Q4": ("2020-10-01", "2020-12-31"), "H1": ("2020-01-01", "2020-06-30"), "9M": ("2020-01-01", "2020-09-30"),
    "FY": ("2020-01-01", "2020-12-31"), "next Q1": ("2021-01-01", "2021-03-31"), "next H1": ("2021-01-01", "2021-06-30"),
    "FY before": ("2019-01-01", "2019-12-31"), "Q1 before": ("2019-01-01", "2019-03-31"),
}  # fmt: skip
FILED = {"2020-03-31": "2020-05-01", "2020-06-30": "2020-08-01", "2020-09-30": "2020-11-01", "2020-12-31": "2021-02-01",
         "2021-03-31": "2021-05-01", "2021-06-30": "2021-08-01", "2019-12-31": "2020-02-01", "2019-03-31": "2020-05-01"}  # fmt: skip


def periods(name: str, **values: float) -> list[Mapping[str, object]]:
    """Figures by period (`Q` with _ for a blank), each filed with the period it ends with."""
    spans = {key: Q[key.replace("_", " ").strip()] for key in values}
    return [said(name, v, spans[k][1], FILED[spans[k][1]], spans[k][0]) for k, v in values.items()]


def on(
    told: pl.DataFrame, first: str = "2020-01-01", last: str = "2021-09-01", split: Mapping[str, float] | None = None
) -> tuple[Statements, list[str]]:  # fmt: skip
    """The statements on daily rows, and the rows' days."""
    rows = bars(first, last, split=split or {})
    moments = rows["known_at"].to_physical().to_numpy()
    return as_known(told, moments, moments, np.cumprod(rows["split"].to_numpy())), rows["timestamp"].dt.date().cast(pl.String).to_list()


def ttm(told: pl.DataFrame, concept: str, at: str, years: int = 0) -> float:
    statements, days = on(told)
    return float(statements.ttm(concept, years)[days.index(at)])


# --- twelve months -----------------------------------------------------------------------------------------------------


def test_the_fourth_quarter_is_the_year_less_nine_months() -> None:
    told = facts(*periods(PROFIT, Q1=10, Q2=11, Q3=12, FY=50, next_Q1=14), *periods(PROFIT, **{"9M": 33}))
    assert ttm(told, "net_income", "2021-02-01") == 50
    assert ttm(told, "net_income", "2021-05-01") == 11 + 12 + (50 - 33) + 14


def test_the_fourth_quarter_is_the_year_less_three_quarters() -> None:
    told = facts(*periods(PROFIT, Q2=11, Q1=10, Q3=12, FY=50, next_Q1=14))
    assert ttm(told, "net_income", "2021-05-01") == 11 + 12 + (50 - 33) + 14


def test_cash_flows_are_filed_for_the_year_to_date_only() -> None:
    told = facts(
        *periods(CASH, Q1=5, H1=12, FY=30, next_Q1=7, next_H1=15), *periods(CASH, **{"9M": 20}),
        *periods(PROFIT, Q1=1, Q2=1, Q3=1, Q4=1, next_Q1=1), said(PROFIT, 1, "2021-06-30", "2021-08-01", "2021-04-01"),
    )  # fmt: skip
    assert ttm(told, "operating_cash", "2021-02-01") == 30
    assert ttm(told, "operating_cash", "2021-05-01") == (12 - 5) + (20 - 12) + (30 - 20) + 7
    assert ttm(told, "operating_cash", "2021-08-01") == (20 - 12) + (30 - 20) + 7 + (15 - 7)


def test_who_files_years_only_has_the_last_one() -> None:
    told = facts(*periods(PROFIT, FY_before=40, FY=50))
    statements, days = on(told)
    known = statements.ttm("net_income")
    assert known[days.index("2020-02-01")] == 40 and known[days.index("2021-01-31")] == 40 and known[days.index("2021-02-01")] == 50
    assert np.isnan(known[: days.index("2020-02-01")]).all()
    assert statements.ttm("net_income", 1)[-1] == 40


def test_after_a_first_annual_report_a_quarter_replaces_that_of_the_year_before() -> None:
    told = facts(*periods(PROFIT, FY_before=40, Q1_before=9, Q1=12))  # of the quarters between nothing is known
    assert ttm(told, "net_income", "2020-05-01") == 40 + 12 - 9


def test_there_is_no_sum_over_a_gap() -> None:
    told = facts(*periods(PROFIT, Q1=10, Q2=11, Q4=17, next_Q1=14))
    assert np.isnan(on(told)[0].ttm("net_income")).all()
    whole = facts(*periods(PROFIT, Q1=10, Q2=11, Q3=12, Q4=17, next_Q1=14))
    assert ttm(whole, "net_income", "2021-02-01") == 50 and ttm(whole, "net_income", "2021-05-01") == 54


def test_a_figure_that_ends_before_the_newest_statement_is_not_carried_on() -> None:
    told = facts(*periods(PROFIT, FY_before=40, FY=50), *periods("InterestExpense", FY_before=4))
    statements, days = on(told)
    known = statements.ttm("interest_expense")
    assert known[days.index("2021-01-31")] == 4 and np.isnan(known[days.index("2021-02-01")])


def test_quarters_of_twelve_and_sixteen_weeks() -> None:
    """Three of 84 days and one of 112 or 119: a retailer's year of 52 weeks and then one of 53."""
    ends = np.cumsum([0, 84, 84, 84, 112, 84, 84, 84, 119]) + np.datetime64("2018-12-31")
    rows = [said(PROFIT, float(k + 1), str(b - 1), str(b + 30), str(a)) for k, (a, b) in enumerate(pairwise(ends))]
    assert ttm(facts(*rows), "net_income", "2020-05-01") == 2 + 3 + 4 + 5
    assert ttm(facts(*rows), "net_income", "2021-03-01") == 5 + 6 + 7 + 8
    assert ttm(facts(*rows), "net_income", "2021-03-01", 1) == 1 + 2 + 3 + 4  # 371 days before, not 365


def test_dates_that_are_mistaken_by_days_are_the_same_dates() -> None:
    """NVIDIA dates the start of fiscal 2009 both 2008-01-25 and 2008-01-28."""
    told = facts(
        said(PROFIT, 10, "2020-03-31", "2020-05-01", "2019-12-29"), said(PROFIT, 21, "2020-06-30", "2020-08-01", "2020-01-01"),
        said(PROFIT, 33, "2020-09-28", "2020-11-01", "2020-01-02"), said(PROFIT, 50, "2020-12-31", "2021-02-01", "2020-01-01"),
        said(PROFIT, 14, "2021-03-31", "2021-05-01", "2021-01-03"),
    )  # fmt: skip
    assert ttm(told, "net_income", "2021-05-01") == (21 - 10) + (33 - 21) + (50 - 33) + 14
    again = pl.concat([told, facts(said(PROFIT, 51, "2020-12-31", "2021-03-01", "2020-01-03"))])  # a restatement, of another day
    assert ttm(again, "net_income", "2021-02-28") == 50 and ttm(again, "net_income", "2021-03-01") == 51


# --- what counts when --------------------------------------------------------------------------------------------------


def test_a_restated_quarter_moves_the_sums_that_contain_it_from_when_it_is_known() -> None:
    first = periods(PROFIT, Q1=10, Q2=11, Q3=12, FY=50, next_Q1=14) + periods(PROFIT, **{"9M": 33})
    restated = said(PROFIT, 21, "2020-06-30", "2021-06-10T15:00", "2020-04-01")
    (before, days), (after, _) = on(facts(*first)), on(facts(*first, restated))
    moved = after.ttm("net_income") - before.ttm("net_income")
    at = days.index("2021-06-10")
    assert (moved[days.index("2021-02-01") : at] == 0).all() and (moved[at:] == 10).all()
    # A sum that does not contain it stays: the twelve months to June 2021 begin after it.
    second = said(PROFIT, 15, "2021-06-30", "2021-08-01", "2021-04-01")
    assert ttm(facts(*first, second), "net_income", "2021-09-01") == ttm(facts(*first, second, restated), "net_income", "2021-09-01")


def test_a_row_knows_what_became_known_by_its_moment() -> None:
    told = facts(said(PROFIT, 50, "2020-12-31", "2021-02-01T21:00:00", "2020-01-01"))
    late = facts(said(PROFIT, 50, "2020-12-31", "2021-02-01T21:00:01", "2020-01-01"))
    assert ttm(told, "net_income", "2021-02-01") == 50
    assert np.isnan(ttm(late, "net_income", "2021-02-01")) and ttm(late, "net_income", "2021-02-02") == 50


def test_a_fact_about_an_older_year_that_comes_late_replaces_nothing() -> None:
    told = facts(*periods(PROFIT, FY=50), said(PROFIT, 40, "2019-12-31", "2021-06-01", "2019-01-01"))
    statements, days = on(told)
    at = days.index("2021-06-01")
    assert (statements.ttm("net_income")[days.index("2021-02-01") :] == 50).all()
    assert np.isnan(statements.ttm("net_income", 1)[:at]).all() and (statements.ttm("net_income", 1)[at:] == 40).all()
    assert statements.statement_age_days[at] == pytest.approx(151 + 21 / 24)  # since the end of December, at 21:00
    assert statements.filing_age_days[at] == pytest.approx(9 / 24) and statements.filing_age_days[at - 1] == pytest.approx(119 + 9 / 24)


def test_tags_are_taken_by_preference_period_by_period() -> None:
    narrow = "RevenueFromContractWithCustomerExcludingAssessedTax"
    told = facts(
        *periods(narrow, FY_before=70, FY=80), said(REVENUE, 100, "2020-12-31", "2021-02-01", "2020-01-01"),
        said(narrow, 81, "2020-12-31", "2021-03-01", "2020-01-01"), *periods(PROFIT, FY_before=40, FY=50),
    )  # fmt: skip
    assert ttm(told, "revenue", "2020-02-01") == 70
    assert ttm(told, "revenue", "2021-03-01") == 100 and ttm(told, "revenue", "2021-03-01", 1) == 70


def test_other_units_and_missing_values_are_not_read() -> None:
    told = facts(
        *periods(PROFIT, FY=50), said(REVENUE, 90, "2020-12-31", "2021-02-01", "2020-01-01", unit="EUR"),
        said("GrossProfit", None, "2020-12-31", "2021-02-01", "2020-01-01"), said("MACRO/GDP", 1, "2020-12-31", "2021-02-01", "2020-01-01"),
        said("Assets", float("inf"), "2020-12-31", "2021-02-01"),
    )  # fmt: skip
    statements, _ = on(told)
    assert np.isnan(statements.ttm("revenue")).all() and np.isnan(statements.ttm("gross_profit")).all()
    assert np.isnan(statements.balance("assets")).all() and statements.ttm("net_income")[-1] == 50


def test_balances_at_the_statement_and_a_year_before() -> None:
    told = facts(
        *periods(PROFIT, FY_before=40, FY=50), said("StockholdersEquity", 300, "2019-12-31", "2020-02-01"),
        said("StockholdersEquity", 400, "2020-12-31", "2021-02-01"), said("StockholdersEquity", 370, "2021-01-01", "2021-02-01"),
        said("StockholdersEquity", 500, "2021-06-30", "2021-08-01"),
    )  # fmt: skip
    statements, days = on(told)
    # Not the opening balance of the day after, under a new rule; nor a later date, of which there is no income yet.
    assert statements.balance("equity")[days.index("2021-08-02")] == 400 and statements.balance("equity", 1)[-1] == 300
    assert statements.balance("equity")[days.index("2020-02-01")] == 300


# --- shares ------------------------------------------------------------------------------------------------------------

COVER, SHEET = "dei/EntityCommonStockSharesOutstanding", "CommonStockSharesOutstanding"


def test_shares_are_those_of_the_cover_page_until_there_is_none() -> None:
    told = facts(
        said(SHEET, 99, "2019-12-31", "2020-01-20", unit="shares"), said(COVER, 100, "2020-01-10", "2020-02-01", unit="shares"),
        said(SHEET, 0.1, "2020-03-31", "2020-04-20", unit="shares"), said(SHEET, 104, "2020-12-31", "2021-02-01", unit="shares"),
    )  # fmt: skip
    statements, days = on(told)
    known = dict(zip(days, statements.shares(), strict=True))
    assert (known["2020-01-20"], known["2020-02-01"], known["2020-04-20"], known["2021-02-01"]) == (99, 100, 100, 104)
    assert statements.shares(1)[-1] == 99


def test_a_figure_a_share_stands_on_the_basis_of_the_day_of_its_filing() -> None:
    """Split two for one on 2020-06-01: what was filed before counts double in shares, half a share, and never changes."""
    split = {"2020-06-01": 2.0}
    told = facts(
        said(COVER, 100, "2020-04-10", "2020-05-01", unit="shares"), said(COVER, 200, "2020-07-10", "2020-08-01", unit="shares"),
        said("EarningsPerShareDiluted", 4, "2019-12-31", "2020-02-01", "2019-01-01", "USD/shares"),
        said("EarningsPerShareDiluted", 2, "2019-12-31", "2020-08-01", "2019-01-01", "USD/shares"),
        said(PROFIT, 400, "2019-12-31", "2020-02-01", "2019-01-01"),
    )  # fmt: skip
    statements, days = on(told, split=split)
    begun = days.index("2020-05-01")
    assert (statements.shares()[begun:] == 100).all()  # in shares of before the split
    assert (statements.ttm("eps")[begun:] == 4).all()


def test_a_filing_of_the_morning_of_a_split_is_on_the_new_basis() -> None:
    told = facts(
        said(COVER, 200, "2020-05-10", "2020-06-01T11:00", unit="shares"), said(COVER, 100, "2020-04-10", "2020-05-30", unit="shares")
    )  # fmt: skip
    statements, days = on(told, split={"2020-06-01": 2.0})
    assert (statements.shares()[days.index("2020-05-30") :] == 100).all()


def test_a_split_of_a_later_bar_of_the_same_day_is_not_foreseen() -> None:
    told = facts(said(COVER, 100, "2020-04-10", "2020-06-01T11:00", unit="shares"))
    moments = np.array(["2020-06-01T15:00", "2020-06-01T20:00"], "datetime64[us]").astype(np.int64)
    with_split, without = (as_known(told, moments, moments, np.array([1.0, after])).shares() for after in (2.0, 1.0))
    assert with_split[0] == without[0] == 100


def test_a_figure_that_counts_as_known_late_keeps_the_basis_of_its_filing() -> None:
    """Apple's 10-Q of 2014-04-24 has no acceptance: its own figures count from 90 days after the period, past the split of June 9."""
    told = facts(
        said(SHEET, 899, "2013-09-28", "2014-04-25", unit="shares", source="0001193125-14-157311"),
        said(COVER, 861, "2014-04-11", "2014-07-11", unit="shares", source="0001193125-14-157311"),
        said(COVER, 5987, "2014-07-11", "2014-10-10", unit="shares"),
    )  # fmt: skip
    statements, days = on(told, "2014-04-01", "2014-12-01", split={"2014-06-09": 7.0})
    known = dict(zip(days, statements.shares(), strict=True))
    assert (known["2014-04-25"], known["2014-07-11"], known["2014-10-10"]) == (899, 861, pytest.approx(5987 / 7))


def test_no_tag_is_read_twice() -> None:
    tags = [tag for concept in (*FLOWS.values(), *BALANCES.values()) for tag in concept]
    assert len(tags) == len(set(tags)) and not set(FLOWS) & set(BALANCES)
