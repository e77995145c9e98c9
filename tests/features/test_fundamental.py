"""Fundamental features: Apple's and NVIDIA's filings by hand, every formula by hand, the laws over bars and facts, extremes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Panel
from rlaif_ray.data.edgar import EdgarSource
from rlaif_ray.data.edgar_archive import EdgarFolder
from rlaif_ray.errors import DataError
from rlaif_ray.features.catalog import Catalog
from rlaif_ray.features.fundamental import FUNDAMENTAL, apply
from tests.features.filings import SPECS, bars, column, company, facts, said
from tests.laws import assert_apply, assert_pure, moments, random_bars

NAMES = [s.name for s in SPECS]


def made(rows: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    return apply({"bars": rows, "facts": told}, SPECS).frame


def last(rows: pl.DataFrame, told: pl.DataFrame) -> dict[str, float]:
    return made(rows, told).row(-1, named=True)


# --- the filings of Apple and NVIDIA -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filed(real_data: Path) -> dict[str, pl.DataFrame]:
    source = EdgarSource(EdgarFolder(str(real_data / "fundamentals")), None, forms=())
    return {symbol: source.read(symbol)["facts"].with_columns(symbol=pl.lit("A")) for symbol in ("AAPL", "NVDA")}


def test_apple_fiscal_2023_as_the_annual_report_says_it(filed: dict[str, pl.DataFrame]) -> None:
    """10-K of 2023-11-03 (06:01 in New York), in millions; the year has 53 weeks, its last quarter is not filed by itself."""
    at = last(bars("2023-11-01", "2023-11-03", 176.65), filed["AAPL"])
    expected = {
        "net_margin": 96_995 / 383_285,
        "gross_margin": 169_148 / 383_285,
        "operating_margin": 114_301 / 383_285,
        "current_ratio": 143_566 / 145_308,
        "cash_ratio": (29_965 + 31_590) / 145_308,
        "quick_ratio": (29_965 + 31_590 + 29_508) / 145_308,
        "roe": 96_995 / ((62_146 + 50_672) / 2),
        "roa": 96_995 / ((352_583 + 352_755) / 2),
        "equity_multiplier": 352_583 / 62_146,
        "debt_to_equity": (95_281 + 9_822 + 5_985) / 62_146,  # non-current, maturing, commercial paper
        "interest_coverage": 114_301 / 3_933,
        "inventory_turnover": 214_137 / ((6_331 + 4_946) / 2),
        "receivables_turnover": 383_285 / ((29_508 + 28_184) / 2),
        "revenue_growth_1": 383_285 / 394_328 - 1,
        "earnings_growth_1": 96_995 / 99_803 - 1,
        "eps_growth_1": 6.13 / 6.11 - 1,
        "accruals": (96_995 - 110_543) / ((352_583 + 352_755) / 2),
        "price_to_earnings": 176.65 / 6.13,
        "price_to_book": 176.65 * 15_552.752 / 62_146,  # shares of the cover page, 2023-10-20
        "price_to_sales": 176.65 * 15_552.752 / 383_285,
        "ev_to_ebitda": (176.65 * 15_552.752 + 111_088 - 61_555) / (114_301 + 11_519),
        "free_cash_yield": (110_543 - 10_959) / (176.65 * 15_552.752),
        "dividend_yield": 15_025 / (176.65 * 15_552.752),
        "statement_age_days": 33 + 21 / 24,
    }  # fmt: skip
    assert {name: at[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert at["filing_age_days"] == pytest.approx(11 / 24, abs=1e-3)  # from 10:00:30 UTC or so to 21:00
    # The day before, the 10-Q of August was the newest: four quarters to 2023-07-01.
    before = made(bars("2023-11-01", "2023-11-03"), filed["AAPL"]).row(-2, named=True)
    sales, gross = (394_328 - 304_182) + 293_787, (170_782 - 132_687) + 128_721  # Q4 of fiscal 2022, and nine months
    assert before["gross_margin"] == pytest.approx(gross / sales, rel=1e-6)
    assert before["statement_age_days"] == pytest.approx(123 + 21 / 24)


def test_apple_in_the_middle_of_a_fiscal_year(filed: dict[str, pl.DataFrame]) -> None:
    """10-Q of 2024-05-03: sales of Q3 and Q4 (the year less nine months) of fiscal 2023, Q1 and Q2 of 2024."""
    at = last(bars("2024-05-01", "2024-05-03", 183.38), filed["AAPL"])
    sales = 81_797 + (383_285 - 293_787) + 119_575 + 90_753
    profit = 19_881 + (96_995 - 74_039) + 33_916 + 23_636
    cash = (88_945 - 62_565) + (110_543 - 88_945) + 39_895 + (62_585 - 39_895)  # filed for the year to date only
    spent = (8_796 - 6_703) + (10_959 - 8_796) + 2_392 + (4_388 - 2_392)
    assert at["net_margin"] == pytest.approx(profit / sales)
    assert at["free_cash_margin"] == pytest.approx((cash - spent) / sales)
    assert at["price_to_earnings"] == pytest.approx(183.38 / (1.26 + (6.13 - 4.67) + 2.18 + 1.53))
    assert np.isnan(at["interest_coverage"])  # Apple has not said its interest since fiscal 2023


def test_nvidia_over_its_fiscal_year_end_and_the_split_of_ten_for_one(filed: dict[str, pl.DataFrame]) -> None:
    closes = np.where(np.arange(94) < 10, 1208.88, 120.888)  # ten for one on 2024-06-10, worth the same
    rows = bars("2024-05-31", "2024-09-01", closes, split={"2024-06-10": 10.0})
    pe = column(rows, filed["NVDA"], "price_to_earnings")
    # 10-Q of 2024-05-29: Q2 and Q3 of fiscal 2024, the year less nine months, Q1 of 2025, all on the old basis.
    assert pe["2024-06-09"] == pytest.approx(1208.88 / (2.48 + 3.71 + (11.93 - 7.01) + 5.98))
    assert pe["2024-06-10"] == pytest.approx(pe["2024-06-09"]) and pe["2024-08-28"] == pytest.approx(pe["2024-06-09"])
    # 10-Q of 2024-08-28 (after the close): Q2 is 0.67 on the new basis, the three before are still filed on the old one.
    assert pe["2024-08-29"] == pytest.approx(120.888 / (0.371 + (1.193 - 0.701) + 0.598 + 0.67))
    worth = column(rows, filed["NVDA"], "market_value")
    assert worth["2024-06-09"] == pytest.approx(1208.88 * 2_460e6) and worth["2024-06-10"] == pytest.approx(1208.88 * 2_460e6)
    assert worth["2024-08-29"] == pytest.approx(120.888 * 24_530e6)
    # The year to January 2024, known since 2024-02-21: 29,760 of 60,922.
    margin = column(bars("2024-02-20", "2024-02-22"), filed["NVDA"], "net_margin")
    assert margin["2024-02-22"] == pytest.approx(29_760 / 60_922)
    assert margin["2024-02-21"] == pytest.approx((4_368 - 2_954 + 17_475) / (26_974 - 20_923 + 38_819), rel=2e-4)


@pytest.mark.parametrize(("symbol", "splits", "first"), [
    ("AAPL", {"2014-06-09": 7.0, "2020-08-31": 4.0}, "2012-01-01"), ("NVDA", {"2021-07-20": 4.0, "2024-06-10": 10.0}, "2012-01-01"),
])  # fmt: skip
def test_no_ratio_jumps_with_a_split(filed: dict[str, pl.DataFrame], symbol: str, splits: dict[str, float], first: str) -> None:
    """A company whose worth a share never changes: from row to row P/E and P/B move by what its filings say, never by a split."""
    rows = bars(first, "2025-12-31", split=splits)
    rows = rows.with_columns(close=1000.0 / pl.col("split").cum_prod())
    frame = made(rows, filed[symbol])
    for name in ("price_to_earnings", "price_to_book"):
        steps = np.abs(np.diff(np.log(frame[name].to_numpy().astype(float))))
        on = frame["timestamp"].dt.date().cast(pl.String).is_in(list(splits)).to_numpy()[1:]
        assert on.sum() == 2 and (steps[on] < 1e-6).all()
        assert np.nanmax(steps) < np.log(2.5)  # NVIDIA's earnings doubled within a quarter; seven for one would be log(7)
    assert np.abs(frame["share_growth_1"].to_numpy()[400:]).max() < 0.15


# --- formulas by hand --------------------------------------------------------------------------------------------------


def steady(**other: float) -> dict[str, float]:
    """The last row of `company` after its 10-K of fiscal 2019, at 100 USD a share."""
    return last(bars("2020-03-01", "2020-03-05"), company(None, 5, 2019, **other))


def test_formulas_of_a_company_by_hand() -> None:
    """Fiscal 2019 of `company`, whose every figure grows 2 % a quarter: a year's flow is 4.121608 of its first quarter's
    (1 + 1.02 + 1.02^2 + 1.02^3), a year's growth 1.02^4 - 1 = 8.243216 %, a mean balance that of the end and of four quarters before."""
    at = steady()
    grown = 1.02**16  # of the first quarter of 2019 over that of 2015
    flow, end, mean = 4.121608 * grown, 1.02**3 * grown, 1.02**3 * grown * (1 + 1.02**-4) / 2
    worth = 100 * 10  # price times shares, in millions; shares do not grow
    expected = {
        "roe": 12 * flow / (500 * mean), "roa": 12 * flow / (1000 * mean), "gross_profitability": 40 * flow / (1000 * end),
        "net_margin": 0.12, "gross_margin": 0.40, "operating_margin": 0.20, "free_cash_margin": 0.10, "research_intensity": 0.08,
        "current_ratio": 2.0, "quick_ratio": 230 / 200, "cash_ratio": 150 / 200, "debt_to_equity": 180 / 500, "debt_to_assets": 0.18,
        "net_debt_to_ebitda": 30 * end / (25 * flow), "equity_multiplier": 2.0, "interest_coverage": 10.0,
        "asset_turnover": 100 * flow / (1000 * mean), "inventory_turnover": 60 * flow / (60 * mean),
        "receivables_turnover": 100 * flow / (80 * mean), "accruals": -4 * flow / (1000 * mean), "payout_ratio": 0.25,
        "revenue_growth_1": 0.08243216, "revenue_growth_3": 0.08243216, "earnings_growth_1": 0.08243216,
        "earnings_growth_3": 0.08243216, "eps_growth_1": 0.08243216, "eps_growth_3": 0.08243216, "asset_growth_1": 0.08243216,
        "share_growth_1": 0.0, "market_value": 1000e6, "price_to_earnings": 100 / (1.2 * flow), "earnings_yield": 1.2 * flow / 100,
        "price_to_book": worth / (500 * end), "price_to_sales": worth / (100 * flow),
        "ev_to_ebitda": (worth + 30 * end) / (25 * flow), "free_cash_yield": 10 * flow / worth, "dividend_yield": 3 * flow / worth,
        "payout_yield": 4 * flow / worth, "statement_age_days": 64 + 21 / 24, "filing_age_days": 35 + 8 / 24,
    }  # fmt: skip
    assert set(expected) | {"piotroski_f"} == set(NAMES)
    assert {name: at[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_piotroski_by_hand() -> None:
    """Two years to January; begun with assets of 100 each. All nine hold; then one after the other fails."""

    def score(**now: float) -> float:
        this = {"Revenues": 120, "GrossProfit": 60, "NetIncomeLoss": 12, "NetCashProvidedByUsedInOperatingActivities": 15,
                "Assets": 100, "AssetsCurrent": 50, "LiabilitiesCurrent": 20, "LongTermDebt": 10, "shares": 9} | now  # fmt: skip
        was = {"Revenues": 100, "GrossProfit": 40, "NetIncomeLoss": 10, "NetCashProvidedByUsedInOperatingActivities": 9, "Assets": 100,
               "AssetsCurrent": 40, "LiabilitiesCurrent": 20, "LongTermDebt": 20, "shares": 10}  # fmt: skip
        rows = [said("Assets", 100, "2017-12-31", "2018-02-01")]
        for year, figures in ((2018, was), (2019, this)):
            for name, x in figures.items():
                flow = name in ("Revenues", "GrossProfit", "NetIncomeLoss", "NetCashProvidedByUsedInOperatingActivities")
                rows.append(said(
                    "dei/EntityCommonStockSharesOutstanding" if name == "shares" else name, x, f"{year}-12-31", f"{year + 1}-02-01",
                    f"{year}-01-01" if flow else None, "shares" if name == "shares" else "USD",
                ))  # fmt: skip
        return last(bars("2020-03-01", "2020-03-02"), facts(*rows))["piotroski_f"]

    assert score() == 9
    assert score(shares=10) == 9 and score(shares=11) == 8
    assert score(LongTermDebt=20) == 8 and score(AssetsCurrent=40) == 8 and score(GrossProfit=48) == 8
    assert score(NetCashProvidedByUsedInOperatingActivities=11) == 8  # less than was earned
    assert score(NetIncomeLoss=-1) == 7  # a loss, and less than before
    assert score(NetIncomeLoss=-1, NetCashProvidedByUsedInOperatingActivities=-2) == 5
    assert score(Revenues=90, GrossProfit=45) == 8  # turnover


def test_each_column_is_defined_on_the_first_row_whose_facts_were_known() -> None:
    first = made(bars("2020-03-01", "2020-03-01"), company()).row(0, named=True)
    assert all(s.look_back_bars == 0 for s in SPECS)
    assert [n for n in NAMES if not np.isfinite(first[n])] == []


def test_gross_profit_is_revenue_less_its_cost_where_it_is_not_filed() -> None:
    told = company().filter(pl.col("name") != "us-gaap/GrossProfit")
    assert last(bars("2020-03-01", "2020-03-02"), told)["gross_margin"] == pytest.approx(0.4)


def test_debt_as_one_figure_or_only_as_what_is_due() -> None:
    told, rows = company().filter(~pl.col("name").str.contains("LongTermDebt")), bars("2020-03-01", "2020-03-02")
    assert last(rows, told)["debt_to_equity"] == pytest.approx(10 / 500)  # commercial paper
    whole = pl.concat([told, facts(said("LongTermDebt", 250e6, "2019-12-31", "2020-01-30"))])
    equity, paper = 500e6 * 1.02**19, 10e6 * 1.02**19
    assert last(rows, whole)["debt_to_equity"] == pytest.approx((250e6 + paper) / equity)
    none = told.filter(pl.col("name") != "us-gaap/CommercialPaper")
    assert np.isnan(last(rows, none)["debt_to_equity"]) and np.isnan(last(rows, none)["ev_to_ebitda"])  # silence is no zero


# --- what is undefined -------------------------------------------------------------------------------------------------

OVER = {
    "StockholdersEquity": ("roe", "debt_to_equity", "equity_multiplier", "price_to_book"),
    "Revenues": ("net_margin", "gross_margin", "operating_margin", "price_to_sales", "revenue_growth_1", "revenue_growth_3"),
    "NetIncomeLoss": ("payout_ratio", "earnings_growth_1", "earnings_growth_3"),
    "InterestExpense": ("interest_coverage",),
    "LiabilitiesCurrent": ("current_ratio", "quick_ratio", "cash_ratio"),
    "InventoryNet": ("inventory_turnover",),
    "EarningsPerShareDiluted": ("price_to_earnings", "eps_growth_1"),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER)
@pytest.mark.parametrize("base", [0.0, -5.0])
def test_a_ratio_over_nothing_or_less_is_undefined(name: str, base: float) -> None:
    at = steady(**{name: base})
    assert [n for n in OVER[name] if not np.isnan(at[n])] == []
    assert all(not np.isinf(at[n]) for n in NAMES)


def test_a_loss_has_a_yield_and_a_margin() -> None:
    at = steady(EarningsPerShareDiluted=-1.0, NetIncomeLoss=-10.0)
    assert at["earnings_yield"] < 0 and at["net_margin"] == pytest.approx(-0.1) and at["roe"] < 0


def test_another_currency_is_not_read() -> None:
    told = company().with_columns(unit=pl.col("unit").str.replace("USD", "EUR"))
    at = last(bars("2020-03-01", "2020-03-02"), told)
    assert at.keys() >= set(NAMES) and np.isfinite(at["market_value"]) and np.isnan(at["net_margin"]) and np.isnan(at["price_to_book"])


def test_adjusted_prices_have_no_price_ratios() -> None:
    rows = bars("2020-03-01", "2020-03-02").drop("split")
    frame = made(rows, company())
    assert set(frame.columns) == {"symbol", "timestamp", "known_at", *(s.name for s in SPECS if "split" not in s.inputs)}
    a_share = {"eps_growth_1", "eps_growth_3", "share_growth_1", "piotroski_f"}  # and what a split between two years would bend
    assert {s.name for s in SPECS if "split" in s.inputs} == a_share | {f.name for f in FUNDAMENTAL.families if f.kind == "value"}
    assert frame["roe"].is_finite().all()


def test_extreme_input() -> None:
    told = company()
    for rows in (bars("2020-03-01", "2020-03-01"), bars("2020-03-01", "2020-03-01").clear(), bars("2020-03-01", "2020-05-01")):
        for some in (told, told.clear(), told.with_columns(value=pl.lit(None, pl.Float64)), told.with_columns(value=pl.lit(0.0))):
            frame = made(rows, some)
            assert frame.height == rows.height and not frame.select(pl.any_horizontal(pl.col(NAMES).is_infinite()).any()).item()
    for price in (1e-4, 1e6):
        assert last(bars("2020-03-01", "2020-03-02", price), told)["price_to_earnings"] == pytest.approx(
            price / 100 * steady()["price_to_earnings"], rel=1e-5
        )
    gap = pl.concat([bars("2020-01-01", "2020-01-10"), bars("2020-03-01", "2020-03-02")])
    assert made(gap, told).row(-1) == made(bars("2020-03-01", "2020-03-02"), told).row(-1)
    with pytest.raises(DataError, match="one symbol at a time; seen 2: A, B"):
        made(pl.concat([gap, gap.with_columns(symbol=pl.lit("B"))]), told)


def test_without_a_price_there_is_nothing_and_a_halt_stands_at_the_last() -> None:
    rows = bars("2020-03-01", "2020-03-06", [np.nan, 50.0, np.nan, 60.0, np.nan, np.nan]).with_columns(
        pl.col("close").fill_nan(None), delisted=pl.Series([False] * 5 + [True])
    )  # fmt: skip
    frame = made(rows, company())
    np.testing.assert_allclose(frame["market_value"], [np.nan, 500e6, 500e6, 600e6, 600e6, np.nan], rtol=1e-6)
    assert frame["roe"].is_nan().to_list() == [True, False, False, False, False, True]


def test_a_split_while_a_symbol_is_halted_moves_no_ratio() -> None:
    """The close that stands for the halt is one of shares of before: 500 for one of the 50 that ten are worth."""
    rows = bars("2020-03-01", "2020-03-05", [500.0, np.nan, np.nan, 50.0, 50.0], split={"2020-03-02": 10.0})
    frame = made(rows.with_columns(pl.col("close").fill_nan(None)), company())
    for name in ("price_to_earnings", "market_value", "price_to_book"):
        np.testing.assert_allclose(frame[name], frame[name][0], rtol=1e-6, err_msg=name)


def test_bars_with_their_splits_in_the_prices_do_not_say_when_there_were_any() -> None:
    catalog = Catalog(("fundamental",))
    left = {s.name for s in catalog.specs("fundamental", "split_adjusted")}
    assert left == {s.name for s in catalog.specs("fundamental", "vendor_adjusted")} == {s.name for s in SPECS if "split" not in s.inputs}


def test_facts_of_others_are_not_read() -> None:
    told, rows = company(), bars("2020-03-01", "2020-03-02")
    others = pl.concat([told, company(NetIncomeLoss=99.0).with_columns(symbol=pl.lit("B")), told.with_columns(symbol=pl.lit("MACRO"))])
    assert made(rows, others).equals(made(rows, told))


def test_a_bar_that_comes_late_delays_what_follows() -> None:
    """The row knows what was known when all before it were; a filing in between is known to it."""
    rows = bars("2020-01-25", "2020-01-31").with_columns(
        known_at=pl.when(pl.col("timestamp").dt.day() == 26).then(dt.datetime(2020, 1, 30, 20, tzinfo=dt.UTC)).otherwise("known_at")
    )  # fmt: skip
    frame = made(rows, company())
    assert frame["known_at"].is_sorted() and frame["filing_age_days"].to_list() == pytest.approx(
        [87 + 8 / 24, *[7 / 24] * 4, 8 / 24, 1 + 8 / 24]  # the 10-Q of 2019-10-30, then the 10-K of 2020-01-30, both at 13:00
    )  # fmt: skip


# --- laws --------------------------------------------------------------------------------------------------------------


def market(seed: int) -> Panel:
    frame = random_bars(np.random.default_rng(seed), 1100).frame.with_columns(
        pl.col("timestamp", "known_at") + dt.timedelta(days=365 * 17), symbol=pl.lit("A")
    )  # fmt: skip
    assert frame.height == 1100 and (frame["split"] != 1).sum() > 1
    return Panel.of(frame)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.62, 0.97])
def test_bars_that_come_later_change_nothing(share: float) -> None:
    panel, told = market(4), company(np.random.default_rng(1), 6)
    t = int(share * len(moments(panel)))

    def whole(some: Panel) -> Panel:
        return apply({"bars": some.frame, "facts": told}, SPECS)

    assert_pure(whole, panel, t)
    assert_apply(whole, panel, t, np.random.default_rng(t))


@pytest.mark.parametrize("share", [0.02, 0.21, 0.5, 0.77, 0.9])
def test_facts_that_become_known_later_change_nothing(share: float) -> None:
    """Facts known after t are gone, or say something else of other periods in another order: rows up to t keep their bits."""
    rng = np.random.default_rng(int(1000 * share))
    panel, told = market(4), company(rng, 6)
    t = panel.frame["known_at"][int(share * len(panel.frame))]
    past, future = told.filter(pl.col("known_at") <= t), told.filter(pl.col("known_at") > t)
    assert past.height and future.height
    noise = future.sample(fraction=1.5, with_replacement=True, shuffle=True, seed=7).with_columns(
        value=pl.Series(rng.normal(0.0, 1e9, int(1.5 * future.height))),
        timestamp=pl.col("timestamp") - dt.timedelta(days=91) * pl.Series(rng.integers(0, 9, int(1.5 * future.height))),
        source_id=pl.Series([f"x{k}" for k in rng.integers(0, 9, int(1.5 * future.height))]),
    )  # fmt: skip
    full = made(panel.frame, told)
    upto = pl.col("known_at") <= t
    for other in (past, pl.concat([noise, past])):
        changed = made(panel.frame, other)
        for name in NAMES:
            a, b = (f.filter(upto)[name].to_numpy() for f in (full, changed))
            np.testing.assert_array_equal(a.view(np.uint32)[~np.isnan(a)], b.view(np.uint32)[~np.isnan(a)], name)
            assert (np.isnan(a) == np.isnan(b)).all(), name
        assert not full.filter(~upto).equals(changed.filter(~upto))  # it does follow from them afterwards


def test_the_order_of_facts_does_not_matter() -> None:
    told, rows = company(np.random.default_rng(2)), market(4).frame
    assert made(rows, told).equals(made(rows, told.sample(fraction=1.0, shuffle=True, seed=1)))


def test_real_filings_that_come_later_change_nothing(filed: dict[str, pl.DataFrame]) -> None:
    rows = bars("2012-01-01", "2024-12-31", split={"2014-06-09": 7.0, "2020-08-31": 4.0})
    full = made(rows, filed["AAPL"])
    for moment in (dt.datetime(2014, 7, 1, tzinfo=dt.UTC), dt.datetime(2016, 2, 1, tzinfo=dt.UTC), dt.datetime(2020, 10, 1, tzinfo=dt.UTC)):
        then = made(rows.filter(pl.col("known_at") <= moment), filed["AAPL"].filter(pl.col("known_at") <= moment))
        assert then.equals(full.filter(pl.col("known_at") <= moment))
