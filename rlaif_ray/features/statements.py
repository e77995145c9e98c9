"""A company's statements as they were known on each row of its bars: twelve months of what flows, balances, shares.

All is said of the newest period end of a net income that the row knows, the anchor: what the filings do not say of it is NaN,
not what they said of an older one. A restatement counts from its own `known_at` on, in every sum that contains it. Figures
in other currencies than USD are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numba import boolean, float64, int64, njit, types

# By preference: of one period the first tag counts that said anything of it.
FLOWS: Mapping[str, tuple[str, ...]] = {
    "revenue": (
        "Revenues", "RevenueFromContractWithCustomerExcludingAssessedTax", "RevenueFromContractWithCustomerIncludingAssessedTax",
        "SalesRevenueNet", "RevenuesNetOfInterestExpense", "SalesRevenueGoodsNet", "SalesRevenueServicesNet",
    ),
    "cost_of_revenue": ("CostOfRevenue", "CostOfGoodsAndServicesSold", "CostOfGoodsSold", "CostOfServices"),
    "gross_profit": ("GrossProfit",),
    "operating_income": ("OperatingIncomeLoss",),
    "net_income": ("NetIncomeLoss", "NetIncomeLossAvailableToCommonStockholdersBasic", "ProfitLoss"),
    "interest_expense": ("InterestExpense", "InterestExpenseNonoperating", "InterestExpenseDebt"),
    "depreciation": ("DepreciationDepletionAndAmortization", "DepreciationAmortizationAndAccretionNet", "DepreciationAndAmortization"),
    "research": ("ResearchAndDevelopmentExpense", "ResearchAndDevelopmentExpenseExcludingAcquiredInProcessCost"),
    "operating_cash": ("NetCashProvidedByUsedInOperatingActivities", "NetCashProvidedByUsedInOperatingActivitiesContinuingOperations"),
    "capital_spending": ("PaymentsToAcquirePropertyPlantAndEquipment", "PaymentsToAcquireProductiveAssets"),
    "dividends": ("PaymentsOfDividends", "PaymentsOfDividendsCommonStock"),
    "repurchases": ("PaymentsForRepurchaseOfCommonStock",),
    "eps": ("EarningsPerShareDiluted", "EarningsPerShareBasicAndDiluted", "EarningsPerShareBasic"),
}  # fmt: skip
BALANCES: Mapping[str, tuple[str, ...]] = {
    "assets": ("Assets", "LiabilitiesAndStockholdersEquity"),
    "current_assets": ("AssetsCurrent",),
    "cash": ("CashAndCashEquivalentsAtCarryingValue", "CashCashEquivalentsRestrictedCashAndRestrictedCashEquivalents", "Cash"),
    "short_investments": (
        "MarketableSecuritiesCurrent", "ShortTermInvestments", "AvailableForSaleSecuritiesCurrent",
        "AvailableForSaleSecuritiesDebtSecuritiesCurrent", "DebtSecuritiesCurrent",
    ),
    "receivables": ("AccountsReceivableNetCurrent", "ReceivablesNetCurrent"),
    "inventory": ("InventoryNet",),
    "current_liabilities": ("LiabilitiesCurrent",),
    "equity": ("StockholdersEquity", "StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest"),
    "minorities": ("MinorityInterest",),
    "long_debt": ("LongTermDebtNoncurrent", "ConvertibleDebtNoncurrent", "ConvertibleLongTermNotesPayable"),
    "maturing_debt": ("LongTermDebtCurrent", "ConvertibleDebtCurrent", "ConvertibleNotesPayableCurrent"),
    "whole_long_debt": ("LongTermDebt",),
    "short_debt": ("ShortTermBorrowings", "CommercialPaper"),
    "current_debt": ("DebtCurrent",),
}  # fmt: skip
SHARES = (
    "dei/EntityCommonStockSharesOutstanding",
    "us-gaap/CommonStockSharesOutstanding",
    "us-gaap/WeightedAverageNumberOfSharesOutstandingBasic",
)
ANCHOR, EPS = "net_income", "eps"

# Days. Filers mistake dates by some; fiscal years have 52 or 53 weeks, fiscal quarters 12 to 17.
NEAR, NEAR_A_YEAR, NEAR_A_COVER = 4, 10, 46
QUARTER, LONGEST_QUARTER, YEAR, LONGEST_YEAR = 70, 125, 350, 380
OUTDATED = 200  # a preferred count of shares that is older than another by more has ceased
_NEVER = -(10**9)
_DAY_US = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Told:
    """Facts (N,) of one concept in order of knowledge, the shorter of two periods last."""

    row: np.ndarray  # int64: the first row that knows it
    start: np.ndarray  # int64 days since 1970: the first day; of an instant its `end`
    end: np.ndarray  # int64 days: the day after the last
    rank: np.ndarray  # int64: place of its tag among the concept's
    value: np.ndarray  # float64; a share is one of before the first row


@dataclass(frozen=True, eq=False)
class Statements:
    """One company's statements on T rows. What several formulas ask for is computed once."""

    told: Mapping[str, Told]
    anchor: np.ndarray  # (T,) int64 days: the day after the newest period of a net income; `_NEVER` before any
    statement_age_days: np.ndarray  # (T,) float64: from that day to the row's moment
    filing_age_days: np.ndarray  # (T,) float64: from when the newest figure became known
    _made: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def ttm(self, concept: str, years: int = 0) -> np.ndarray:
        """(T,) of `FLOWS`: over the twelve months to the anchor, or to the period end `years` before it, as known on the row.

        A filed year, which stands until it is restated itself; else four quarters, each as filed or the difference of two
        cumulative figures (FY - 9M, H1 - Q1) or of one and the quarters before (FY - Q1 - Q2 - Q3); else the last year plus the
        year to date less that of the year before. NaN where none of these closes without a gap. Earnings a share add up only
        nearly, since shares change within a year.
        """
        return self._of(concept, years, flow=True)

    def balance(self, concept: str, years: int = 0) -> np.ndarray:
        """(T,) of `BALANCES`: at the anchor, or at the date nearest to `years` before it (10 days at most)."""
        return self._of(concept, years, flow=False)

    def shares(self, years: int = 0) -> np.ndarray:
        """(T,) newest count outstanding, or that of `years` before it (46 days at most), in shares of before the first row.

        That of the cover page; where a company ceased to give one (it may count each class of stock by itself), that of the
        balance sheet, else the mean of the newest period.
        """
        key = "shares", years
        if key not in self._made:
            t = self.told["shares"]
            self._made[key] = _newest(t.row, t.end, t.rank, t.value, len(self.anchor), _days(years))
        return self._made[key]

    def _of(self, concept: str, years: int, *, flow: bool) -> np.ndarray:
        key = concept, years
        if key not in self._made:
            t = self.told[concept]
            self._made[key] = _as_known(t.row, t.start, t.end, t.rank, t.value, self.anchor, _days(years), flow)
        return self._made[key]


def as_known(facts: pl.DataFrame, known: np.ndarray, times: np.ndarray, splits: np.ndarray) -> Statements:
    """Statements on the T rows of a company's bars.

    Parameters
    ----------
    facts : every version of the company's facts (`tables.FACT_SCHEMA`), and perhaps others.
    known : (T,) int64 microseconds: when each row is known, never falling.
    times : (T,) int64 microseconds: the ends of the bars.
    splits : (T,) float64: shares that one share of before the first row has become.

    A figure a share, or a count of shares, stands on the basis of the day on which its filing became known: a split is in it
    from the day of the first bar that is traded on it. The moment of a filing is the first of what it told, so that figures which
    count as known late, for want of an acceptance, keep the basis that they were filed on. Splits before the first row are
    not known: what was filed before it is taken to be on its basis.
    """
    told = _in_order(facts, known, times, splits)
    by_concept = {}
    for name in (*FLOWS, *BALANCES, "shares"):
        own = told.filter(pl.col("concept") == name)
        if name != "shares":  # of which the last tag is of a period
            own = own.filter(pl.col("started").is_not_null() == (name in FLOWS))
        by_concept[name] = Told(*(own[c].to_numpy().copy() for c in ("row", "start", "end", "rank", "value")))
    anchor = np.full(len(known), _NEVER)
    np.maximum.at(anchor, by_concept[ANCHOR].row, by_concept[ANCHOR].end)
    anchor = np.maximum.accumulate(anchor)
    news = told["known_at"].to_physical().to_numpy()
    newest = np.searchsorted(news, known, side="right") - 1
    return Statements(
        by_concept, anchor,
        np.where(anchor > _NEVER, (known - anchor * _DAY_US) / _DAY_US, np.nan),
        np.where(newest >= 0, (known - np.append(news, 0)[newest]) / _DAY_US, np.nan),
    )  # fmt: skip


def _in_order(facts: pl.DataFrame, known: np.ndarray, times: np.ndarray, splits: np.ndarray) -> pl.DataFrame:
    """The facts that are read and that some row knows, in order of knowledge: `concept` and the columns of `Told`."""
    filing = pl.when(pl.col("source_id").is_null()).then("known_at").otherwise(pl.col("known_at").min().over("source_id"))
    told = facts.filter(pl.col("value").is_finite()).with_columns(filing=filing).join(_TAGS, on=["name", "unit"])
    told = told.sort("known_at", "timestamp", "started", "name", nulls_last=True)
    row = np.searchsorted(known, told["known_at"].to_physical().to_numpy())
    days = times // _DAY_US * _DAY_US
    # A split on a later bar than the fact's first row is not foreseen.
    traded = np.clip(np.searchsorted(days, told["filing"].to_physical().to_numpy(), side="right") - 1, 0, row)
    end = pl.col("timestamp").dt.date().to_physical().cast(pl.Int64)
    return told.with_columns(
        end.alias("end"), row=pl.Series(row, dtype=pl.Int64), start=pl.col("started").to_physical().cast(pl.Int64).fill_null(end),
        became=pl.Series(np.append(splits, 1.0)[traded]),
    ).with_columns(
        value=pl.when(pl.col("concept") == EPS).then(pl.col("value") * pl.col("became"))
        .when(pl.col("concept") == "shares").then(pl.col("value") / pl.col("became")).otherwise("value")
    ).filter(pl.col("row") < len(known))  # fmt: skip


def _tags() -> pl.DataFrame:
    """name and unit of every fact that is read, its concept, and its place among the concept's tags."""
    rows = [
        (f"us-gaap/{tag}", "USD/shares" if concept == EPS else "USD", concept, rank)
        for concept, tags in {**FLOWS, **BALANCES}.items()
        for rank, tag in enumerate(tags)
    ]
    rows += [(name, "shares", "shares", rank) for rank, name in enumerate(SHARES)]
    return pl.DataFrame(rows, {"name": pl.String, "unit": pl.String, "concept": pl.String, "rank": pl.Int64}, orient="row")


_TAGS = _tags()


def _days(years: int) -> int:
    return round(365.25 * years)


# --- kernels: times in days; what is known so far is a small table that is searched ------------------------------------

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_I8, _F8 = int64[::1], float64[::1]


@njit(int64(int64, int64, int64, float64, int64, _I8, _I8, _I8, _F8, int64), **_OPTIONS)
def _put(
    start: int, end: int, rank: int, value: float, count: int, starts: np.ndarray, ends: np.ndarray, ranks: np.ndarray,
    values: np.ndarray, near: int,
) -> int:  # fmt: skip
    """Enter a figure into the table of `count` periods: a later word replaces an earlier one of no better tag. The new count."""
    for j in range(count):
        if abs(starts[j] - start) <= near and abs(ends[j] - end) <= near:
            if rank <= ranks[j]:
                ranks[j], values[j] = rank, value
            return count
    starts[count], ends[count], ranks[count], values[count] = start, end, rank, value
    return count + 1


@njit(int64(_I8, int64, int64), **_OPTIONS)
def _nearest(days: np.ndarray, day: int, near: int) -> int:
    """The first of the nearest; -1 where none is within `near`."""
    best, distance = -1, near + 1
    for j in range(days.size):
        if abs(days[j] - day) < distance:
            best, distance = j, abs(days[j] - day)
    return best


@njit(int64(_I8, _I8, _I8, int64), **_OPTIONS)
def _filed_quarter(starts: np.ndarray, ends: np.ndarray, edges: np.ndarray, day: int) -> int:
    """The shortest quarter one of whose `edges` (its starts, or its ends) is that day; -1 where none is."""
    best = -1
    for j in range(starts.size):
        length = ends[j] - starts[j]
        shortest = best < 0 or length < ends[best] - starts[best]
        if abs(edges[j] - day) <= NEAR and QUARTER <= length <= LONGEST_QUARTER and shortest:
            best = j
    return best


@njit(types.Tuple((float64, int64))(_I8, _I8, _F8, int64), **_OPTIONS)
def _quarter(starts: np.ndarray, ends: np.ndarray, values: np.ndarray, end: int) -> tuple[float, int]:
    """The quarter that ends then, and its first day; NaN where it follows from nothing."""
    filed = _filed_quarter(starts, ends, ends, end)
    if filed >= 0:
        return values[filed], starts[filed]
    for a in range(starts.size):
        if abs(ends[a] - end) > NEAR or ends[a] - starts[a] <= LONGEST_QUARTER:
            continue
        for b in range(starts.size):
            if abs(starts[b] - starts[a]) <= NEAR and QUARTER <= end - ends[b] <= LONGEST_QUARTER:
                return values[a] - values[b], ends[b]
        day, rest = starts[a], values[a]
        while end - day > LONGEST_QUARTER:
            j = _filed_quarter(starts, ends, starts, day)
            if j < 0:
                break
            day, rest = ends[j], rest - values[j]
        if QUARTER <= end - day <= LONGEST_QUARTER:
            return rest, day
    return np.nan, end


@njit(float64(_I8, _I8, _F8, int64, int64), **_OPTIONS)
def _year_to(starts: np.ndarray, ends: np.ndarray, values: np.ndarray, day: int, near: int) -> float:
    """Twelve months to the period end nearest to a day, in the three ways of `Statements.ttm`."""
    at = _nearest(ends, day, near)
    if at < 0:
        return np.nan
    end = ends[at]
    for j in range(starts.size):
        if abs(ends[j] - end) <= NEAR and YEAR <= ends[j] - starts[j] <= LONGEST_YEAR:
            return values[j]
    day, total = end, 0.0
    while end - day < YEAR and not np.isnan(total):
        quarter, day = _quarter(starts, ends, values, day)
        total += quarter
    if end - day <= LONGEST_YEAR and not np.isnan(total):
        return total
    for now in range(starts.size):
        if abs(ends[now] - end) > NEAR:
            continue
        for year in range(starts.size):
            if abs(ends[year] - starts[now]) > NEAR or not YEAR <= ends[year] - starts[year] <= LONGEST_YEAR:
                continue
            for then in range(starts.size):
                if abs(starts[then] - starts[year]) <= NEAR and YEAR <= end - ends[then] <= LONGEST_YEAR:
                    return values[year] + values[now] - values[then]
    return np.nan


@njit(_F8(_I8, _I8, _I8, _I8, _F8, _I8, int64, boolean), **_OPTIONS)
def _as_known(
    row: np.ndarray, start: np.ndarray, end: np.ndarray, rank: np.ndarray, value: np.ndarray, anchor: np.ndarray, back: int, flow: bool
) -> np.ndarray:
    """(T,) twelve months, or balances, at `back` days before each row's anchor, from the facts that the row knows."""
    n, i, count, x = row.size, 0, 0, np.nan
    starts, ends, ranks, values = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    out = np.full(anchor.size, np.nan)
    same = NEAR if flow else 0  # an opening balance under a new rule stands a day after the one that closed the year
    near = NEAR if back == 0 else NEAR_A_YEAR
    for t in range(anchor.size):
        moved = t > 0 and anchor[t] != anchor[t - 1]
        while i < n and row[i] <= t:
            count = _put(start[i], end[i], rank[i], value[i], count, starts, ends, ranks, values, same)
            i += 1
            moved = True
        if moved:
            if flow:
                x = _year_to(starts[:count], ends[:count], values[:count], anchor[t] - back, near)
            else:
                j = _nearest(ends[:count], anchor[t] - back, near)
                x = values[j] if j >= 0 else np.nan
        out[t] = x
    return out


@njit(_F8(_I8, _I8, _I8, _F8, int64, int64), **_OPTIONS)
def _newest(row: np.ndarray, end: np.ndarray, rank: np.ndarray, value: np.ndarray, rows: int, back: int) -> np.ndarray:
    """The newest figure of the best tag that has not ceased, or that tag's of `back` days before."""
    newest = np.full(len(SHARES), -1)
    out = np.full(rows, np.nan)
    i, x = 0, np.nan
    for t in range(rows):
        before = i
        while i < row.size and row[i] <= t:
            if newest[rank[i]] < 0 or end[i] >= end[newest[rank[i]]]:
                newest[rank[i]] = i
            i += 1
        if i > before:
            best = -1
            for k in range(newest.size):
                if newest[k] >= 0 and (best < 0 or end[newest[k]] - end[best] > OUTDATED):
                    best = newest[k]
            x, distance = np.nan, NEAR_A_COVER + 1
            for j in range(i):
                away = abs(end[j] - (end[best] - back))
                if rank[j] == rank[best] and away <= distance and away <= NEAR_A_COVER:
                    x, distance = value[j], away  # of the same date the later word
            if back == 0:
                x = value[best]
        out[t] = x
    return out
