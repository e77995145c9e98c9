"""What a company's statements say of it on each of its bars: quality, growth, and what the market pays for them.

All is as known: as first filed, then as restated, each from its own `known_at` on. Flows are those of twelve months (`ttm`),
balances those at their end, or the mean of both ends where help says mean. A ratio over something that is not above 0 is
undefined (NaN), and so is one of which the filings do not say a part. What a company pays or owes is 0 only where it says so.

Price ratios need prices as traded, with splits: the families that name `split` among their inputs are left out where the bars
lack it, and must not be asked of prices that were adjusted, of which it cannot be told what a share was worth. A market
value is the price times all shares: of a company with several classes of stock, as if all were worth what this one is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rlaif_ray.core import Panel
from rlaif_ray.errors import DataError
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Tables
from rlaif_ray.features.series import on_rows
from rlaif_ray.features.statements import Statements, as_known

_PRICE = ("close", "split")


@dataclass(frozen=True, eq=False)
class Company:
    """One company on the T rows of its bars: its statements, and what a share of before the first row is worth."""

    said: Statements
    price: np.ndarray  # (T,) float64 USD, as last traded

    def ttm(self, concept: str, years: int = 0) -> np.ndarray:
        return self.said.ttm(concept, years)

    def balance(self, concept: str, years: int = 0) -> np.ndarray:
        return self.said.balance(concept, years)

    def mean(self, concept: str) -> np.ndarray:
        """Of the balances at both ends of the twelve months."""
        return (self.balance(concept) + self.balance(concept, 1)) / 2.0

    def gross_profit(self, years: int = 0) -> np.ndarray:
        filed = self.ttm("gross_profit", years)
        return np.where(np.isnan(filed), self.ttm("revenue", years) - self.ttm("cost_of_revenue", years), filed)

    def ebitda(self) -> np.ndarray:
        return self.ttm("operating_income") + self.ttm("depreciation")

    def free_cash(self) -> np.ndarray:
        return self.ttm("operating_cash") - self.ttm("capital_spending")

    def liquid(self) -> np.ndarray:
        """Cash and, where the company has any, short-term investments."""
        return self.balance("cash") + _or_zero(self.balance("short_investments"))

    def long_term_debt(self, years: int = 0) -> np.ndarray:
        """What of it matures within a year included."""
        long, maturing = self.balance("long_debt", years), self.balance("maturing_debt", years)
        return np.where(np.isnan(long), self.balance("whole_long_debt", years), long + _or_zero(maturing))

    def debt(self, years: int = 0) -> np.ndarray:
        """Non-current and current debt; without the first, long-term debt as one figure and short-term borrowings; else what is current.

        NaN where the company says nothing of debt.
        """
        long, whole = self.balance("long_debt", years), self.balance("whole_long_debt", years)
        short, current = self.balance("short_debt", years), self.balance("current_debt", years)
        current = np.where(np.isnan(current), _added(self.balance("maturing_debt", years), short), current)
        return np.where(np.isnan(long), np.where(np.isnan(whole), current, whole + _or_zero(short)), long + _or_zero(current))

    def market_value(self) -> np.ndarray:
        return self.price * self.said.shares()

    def enterprise_value(self) -> np.ndarray:
        return self.market_value() + self.debt() + _or_zero(self.balance("minorities")) - self.liquid()


def _over(x: np.ndarray, base: np.ndarray) -> np.ndarray:
    """x / base, undefined unless the base is above 0."""
    return np.where(base > 0, x / base, np.nan)


def _or_zero(x: np.ndarray) -> np.ndarray:
    return np.nan_to_num(x, nan=0.0)


def _added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Their sum, or the one that there is."""
    return np.where(np.isnan(a), b, a + _or_zero(b))


def _growth(now: np.ndarray, then: np.ndarray, years: int) -> np.ndarray:
    """A year, compounded."""
    return _over(now, then) ** (1.0 / years) - 1.0


def _piotroski(c: Company) -> np.ndarray:
    """How many of nine hold; undefined where one of them is."""
    end, begin, before = (c.balance("assets", y) for y in (0, 1, 2))
    leverage, leverage_before = _over(c.long_term_debt(), end + begin), _over(c.long_term_debt(1), begin + before)
    turnover, turnover_before = _over(c.ttm("revenue"), begin), _over(c.ttm("revenue", 1), before)
    margin, margin_before = _over(c.gross_profit(), c.ttm("revenue")), _over(c.gross_profit(1), c.ttm("revenue", 1))
    current, current_before = (_over(c.balance("current_assets", y), c.balance("current_liabilities", y)) for y in (0, 1))
    better = (  # each above 0
        c.ttm("net_income"),
        c.ttm("operating_cash"),
        _over(c.ttm("net_income"), begin) - _over(c.ttm("net_income", 1), before),
        c.ttm("operating_cash") - c.ttm("net_income"),
        leverage_before - leverage,
        current - current_before,
        margin - margin_before,
        turnover - turnover_before,
    )
    unissued = c.said.shares(1) - c.said.shares()
    score = sum(((x > 0).astype(float) for x in better), (unissued >= 0).astype(float))
    return np.where(np.isnan(sum(better) + unissued), np.nan, score)


def _of_quality(name: str, formula: Callable[..., np.ndarray], inputs: Sequence[str], help: str, source: str = "") -> Family:
    return Family(name, formula, tuple(inputs), 0, "ratio", "quality", help, source=source)


def _of_growth(
    name: str, formula: Callable[..., np.ndarray], inputs: Sequence[str], what: str, years: Sequence[int], source: str = ""
) -> Family:  # fmt: skip
    return Family(
        name + "_{years}", formula, tuple(inputs), 0, "ratio", "growth", what + ", over {years} years, compounded a year", ("years",),
        tuple((y,) for y in years), source,
    )  # fmt: skip


def _of_price(name: str, formula: Callable[..., np.ndarray], inputs: Sequence[str], help: str, source: str = "") -> Family:
    return Family(name, formula, (*_PRICE, *inputs), 0, "ratio", "value", help, source=source)


QUALITY = (
    _of_quality("roe", lambda c: _over(c.ttm("net_income"), c.mean("equity")), ("net_income", "equity"),
                "return on equity: net income over mean equity"),
    _of_quality("roa", lambda c: _over(c.ttm("net_income"), c.mean("assets")), ("net_income", "assets"),
                "return on assets: net income over mean assets"),
    _of_quality("gross_profitability", lambda c: _over(c.gross_profit(), c.balance("assets")), ("revenue", "assets"),
                "gross profit over assets", "Novy-Marx (2013)"),
    _of_quality("net_margin", lambda c: _over(c.ttm("net_income"), c.ttm("revenue")), ("net_income", "revenue"),
                "net income over revenue"),
    _of_quality("gross_margin", lambda c: _over(c.gross_profit(), c.ttm("revenue")), ("revenue",),
                "gross profit (else revenue less its cost) over revenue"),
    _of_quality("operating_margin", lambda c: _over(c.ttm("operating_income"), c.ttm("revenue")), ("operating_income", "revenue"),
                "operating income over revenue"),
    _of_quality("free_cash_margin", lambda c: _over(c.free_cash(), c.ttm("revenue")), ("operating_cash", "capital_spending", "revenue"),
                "operating cash flow less capital spending, over revenue"),
    _of_quality("research_intensity", lambda c: _over(c.ttm("research"), c.ttm("revenue")), ("research", "revenue"),
                "research and development over revenue", "Chan, Lakonishok and Sougiannis (2001)"),
    _of_quality("current_ratio", lambda c: _over(c.balance("current_assets"), c.balance("current_liabilities")),
                ("current_assets", "current_liabilities"), "current assets over current liabilities"),
    _of_quality("quick_ratio", lambda c: _over(c.liquid() + c.balance("receivables"), c.balance("current_liabilities")),
                ("cash", "receivables", "current_liabilities"),
                "cash, short-term investments and receivables over current liabilities"),
    _of_quality("cash_ratio", lambda c: _over(c.liquid(), c.balance("current_liabilities")), ("cash", "current_liabilities"),
                "cash and short-term investments over current liabilities"),
    _of_quality("debt_to_equity", lambda c: _over(c.debt(), c.balance("equity")), ("long_debt", "equity"),
                "interest-bearing debt over equity"),
    _of_quality("debt_to_assets", lambda c: _over(c.debt(), c.balance("assets")), ("long_debt", "assets"),
                "interest-bearing debt over assets"),
    _of_quality("net_debt_to_ebitda", lambda c: _over(c.debt() - c.liquid(), c.ebitda()),
                ("long_debt", "cash", "operating_income", "depreciation"),
                "debt less cash and short-term investments, over EBITDA"),
    _of_quality("equity_multiplier", lambda c: _over(c.balance("assets"), c.balance("equity")), ("assets", "equity"),
                "assets over equity"),
    _of_quality("interest_coverage", lambda c: _over(c.ttm("operating_income"), c.ttm("interest_expense")),
                ("operating_income", "interest_expense"), "operating income over interest expense"),
    _of_quality("asset_turnover", lambda c: _over(c.ttm("revenue"), c.mean("assets")), ("revenue", "assets"),
                "revenue over mean assets"),
    _of_quality("inventory_turnover", lambda c: _over(c.ttm("cost_of_revenue"), c.mean("inventory")), ("cost_of_revenue", "inventory"),
                "cost of revenue over mean inventory"),
    _of_quality("receivables_turnover", lambda c: _over(c.ttm("revenue"), c.mean("receivables")), ("revenue", "receivables"),
                "revenue over mean receivables"),
    _of_quality("accruals", lambda c: _over(c.ttm("net_income") - c.ttm("operating_cash"), c.mean("assets")),
                ("net_income", "operating_cash", "assets"), "net income less operating cash flow, over mean assets",
                "Sloan (1996); Hribar and Collins (2002)"),
    _of_quality("payout_ratio", lambda c: _over(c.ttm("dividends"), c.ttm("net_income")), ("dividends", "net_income"),
                "dividends over net income"),
    Family("piotroski_f", _piotroski, ("net_income", "operating_cash", "assets", "long_debt", "current_assets", "current_liabilities",
           "shares", "split", "revenue"), 0, "score", "quality", "how many of nine signs of health hold", source="Piotroski (2000)"),
)  # fmt: skip
GROWTH = (
    _of_growth("revenue_growth", lambda c, years: _growth(c.ttm("revenue"), c.ttm("revenue", years), years), ("revenue",),
               "growth of revenue", (1, 3)),
    _of_growth("earnings_growth", lambda c, years: _growth(c.ttm("net_income"), c.ttm("net_income", years), years), ("net_income",),
               "growth of net income from above 0", (1, 3)),
    _of_growth("eps_growth", lambda c, years: _growth(c.ttm("eps"), c.ttm("eps", years), years), ("eps", "split"),
               "growth of diluted earnings a share from above 0", (1, 3)),
    _of_growth("asset_growth", lambda c, years: _growth(c.balance("assets"), c.balance("assets", years), years), ("assets",),
               "growth of assets", (1,), "Cooper, Gulen and Schill (2008)"),
    _of_growth("share_growth", lambda c, years: _growth(c.said.shares(), c.said.shares(years), years), ("shares", "split"),
               "growth of the count of shares, splits aside", (1,), "Pontiff and Woodgate (2008)"),
)  # fmt: skip
VALUE = (
    Family("market_value", Company.market_value, (*_PRICE, "shares"), 0, "usd", "value", "price times shares outstanding"),
    _of_price("price_to_earnings", lambda c: _over(c.price, c.ttm("eps")), ("eps",), "price over diluted earnings a share, where above 0"),
    _of_price("earnings_yield", lambda c: _over(c.ttm("eps"), c.price), ("eps",), "diluted earnings a share over price", "Basu (1977)"),
    _of_price("price_to_book", lambda c: _over(c.market_value(), c.balance("equity")), ("shares", "equity"), "market value over equity"),
    _of_price("price_to_sales", lambda c: _over(c.market_value(), c.ttm("revenue")), ("shares", "revenue"), "market value over revenue"),
    _of_price("ev_to_ebitda", lambda c: _over(c.enterprise_value(), c.ebitda()),
              ("shares", "long_debt", "cash", "operating_income", "depreciation"),
              "market value, debt and minorities less cash and short-term investments, over operating income before depreciation"),
    _of_price("free_cash_yield", lambda c: _over(c.free_cash(), c.market_value()), ("shares", "operating_cash", "capital_spending"),
              "operating cash flow less capital spending, over market value", "Lakonishok, Shleifer and Vishny (1994)"),
    _of_price("dividend_yield", lambda c: _over(c.ttm("dividends"), c.market_value()), ("shares", "dividends"),
              "dividends paid over market value"),
    _of_price("payout_yield", lambda c: _over(_added(c.ttm("dividends"), c.ttm("repurchases")), c.market_value()),
              ("shares", "dividends"), "dividends and repurchases over market value", "Boudoukh et al. (2007)"),
)  # fmt: skip
AGE = (
    Family("statement_age_days", lambda c: c.said.statement_age_days, ("net_income",), 0, "days", "fact",
           "days since the end of the newest period with a net income"),
    Family("filing_age_days", lambda c: c.said.filing_age_days, ("net_income",), 0, "days", "fact",
           "days since the newest figure became known"),
)  # fmt: skip


def apply(tables: Tables, specs: Sequence[FeatureSpec]) -> Panel:
    """Columns on one symbol's bars, from the facts known by each row.

    Parameters
    ----------
    tables : `bars` of ONE symbol, cleaned, with `split` where prices are as traded; `facts`: every version of those of the
        symbol, and perhaps of others.
    specs : wanted; those of prices are left out where the bars have no `split`.

    Returns
    -------
    Panel with the same rows and float32 columns; NaN where undefined, before the first price and from a delisting on. Halted
    bars stand at their last price.

    Raises `DataError` for several symbols.
    """
    panel = Panel(tables["bars"])
    if len(panel.symbols) > 1:
        raise DataError(f"these features are computed one symbol at a time; seen {len(panel.symbols)}: {', '.join(panel.symbols)}")
    bars = panel.frame
    wanted = [s for s in specs if "split" in bars.columns or "split" not in s.inputs]
    company, live = _company(bars, tables["facts"].filter(pl.col("symbol").is_in(panel.symbols)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return on_rows(bars, {s.name: np.where(live, s.of(company), np.nan) for s in wanted})


def _company(bars: pl.DataFrame, facts: pl.DataFrame) -> tuple[Company, np.ndarray]:
    """The context of the formulas, and (T,) on which rows the symbol has a price and still exists."""
    splits = np.cumprod(bars["split"].fill_null(1.0).to_numpy()) if "split" in bars.columns else np.ones(bars.height)
    price = (bars["close"].fill_nan(None) * pl.Series(splits)).forward_fill()  # a share of before the first bar
    live = price.is_not_null().to_numpy()
    if "delisted" in bars.columns:
        live = live & ~np.logical_or.accumulate(bars["delisted"].fill_null(False).to_numpy())
    known, times = (s.to_physical().to_numpy() for s in (bars["known_at"].cum_max(), bars["timestamp"]))
    return Company(as_known(facts, known, times, splits), price.to_numpy()), live


FUNDAMENTAL = FeatureSet("fundamental", (*QUALITY, *GROWTH, *VALUE, *AGE), apply, reads=("bars", "facts"))
