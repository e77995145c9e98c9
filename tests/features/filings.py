"""What a company files, written by hand: figures as facts, and bars to lay them against."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.features.fundamental import FUNDAMENTAL

CLOSES = dt.time(21)
SPECS = tuple(s for f in FUNDAMENTAL.families for s in f.specs())
FLOWS = {  # of one quarter, in millions
    "Revenues": 100.0, "CostOfRevenue": 60.0, "GrossProfit": 40.0, "OperatingIncomeLoss": 20.0, "NetIncomeLoss": 12.0,
    "InterestExpense": 2.0, "DepreciationDepletionAndAmortization": 5.0, "ResearchAndDevelopmentExpense": 8.0,
    "NetCashProvidedByUsedInOperatingActivities": 16.0, "PaymentsToAcquirePropertyPlantAndEquipment": 6.0, "PaymentsOfDividends": 3.0,
    "PaymentsForRepurchaseOfCommonStock": 1.0, "EarningsPerShareDiluted": 1.2,
}  # fmt: skip
ON_CASH_FLOW = ("NetCashProvidedByUsedInOperatingActivities", "PaymentsToAcquirePropertyPlantAndEquipment", "PaymentsOfDividends",
                "PaymentsForRepurchaseOfCommonStock", "DepreciationDepletionAndAmortization")  # fmt: skip
BALANCES = {
    "Assets": 1000.0, "AssetsCurrent": 400.0, "CashAndCashEquivalentsAtCarryingValue": 100.0, "MarketableSecuritiesCurrent": 50.0,
    "AccountsReceivableNetCurrent": 80.0, "InventoryNet": 60.0, "LiabilitiesCurrent": 200.0, "StockholdersEquity": 500.0,
    "LongTermDebtNoncurrent": 150.0, "LongTermDebtCurrent": 20.0, "CommercialPaper": 10.0,
}  # fmt: skip


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def midnight(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def said(
    name: str, value: float | None, end: str, known: str, start: str | None = None, unit: str = "USD", source: str | None = None
) -> dict[str, object]:
    """A fact: `start` and `end` are the first and the last day of its period, `known` a day (its noon) or a moment."""
    moment = dt.datetime.fromisoformat(known if "T" in known else f"{known}T12:00").replace(tzinfo=dt.UTC)
    return {
        "symbol": "A", "timestamp": midnight(day(end) + dt.timedelta(days=1)), "known_at": moment,
        "name": name if "/" in name else f"us-gaap/{name}", "started": None if start is None else day(start), "unit": unit, "value": value,
        "form": "10-Q", "source_id": source or known,
    }  # fmt: skip


def facts(*rows: Mapping[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), FACT_SCHEMA, orient="row")


def bars(first: str, last: str, close: float | Sequence[float] | np.ndarray = 100.0, **events: Mapping[str, float]) -> pl.DataFrame:
    """A bar each day, known when it closes; `split` and `dividend`: by day."""
    days = pl.date_range(day(first), day(last), "1d", eager=True)
    stamps = days.dt.combine(CLOSES).dt.replace_time_zone("UTC").cast(UTC)
    columns = {name: pl.Series([by_day.get(str(d), float(name == "split")) for d in days]) for name, by_day in events.items()}
    close = np.broadcast_to(np.asarray(close, float), (len(days),))
    return pl.DataFrame({"symbol": ["A"] * len(days), "timestamp": stamps, "known_at": stamps, "close": close, "split": 1.0, **columns})


def column(panel_rows: pl.DataFrame, told: pl.DataFrame, name: str) -> dict[str, float]:
    """One column of the set by day."""
    made = FUNDAMENTAL.apply({"bars": panel_rows, "facts": told}, [s for s in SPECS if s.name == name]).frame
    return dict(zip(made["timestamp"].dt.date().cast(pl.String), made[name].to_list(), strict=True))


def company(rng: np.random.Generator | None = None, years: int = 5, last: int = 2019, **other: float) -> pl.DataFrame:
    """Years of filings to the end of `last`, each 30 days after its period: three 10-Qs (quarter and year to date; of the cash
    flow statement only the latter) and a 10-K (the year). With `rng` the figures vary and some are restated in the filing after."""
    quarter_ends = [(3, 31), (6, 30), (9, 30), (12, 31)]
    rows: list[Mapping[str, object]] = []
    for year in range(last - years + 1, last + 1):
        to_date = dict.fromkeys(FLOWS, 0.0)
        for q, (month, end_day) in enumerate(quarter_ends):
            end = dt.date(year, month, end_day)
            known, source = f"{end + dt.timedelta(days=30)}T13:00", f"{year}-{q}"
            revised = f"{end + dt.timedelta(days=120)}T13:00", f"{year}-{q}-again"
            begun = dt.date(year, month - 2, 1)
            for name, usual in {**FLOWS, **BALANCES}.items():
                x = other.get(name, usual) * (1.02 ** (4 * (year - 2015) + q)) * (1.0 if rng is None else rng.lognormal(0.0, 0.1))
                x *= 1.0 if name.startswith("Earnings") else 1e6
                unit = "USD/shares" if name.startswith("Earnings") else "USD"
                again = rng is not None and rng.random() < 0.2
                if name in BALANCES:
                    rows.append(said(name, x, str(end), known, None, unit, source))
                    if again:
                        rows.append(said(name, 1.1 * x, str(end), revised[0], None, unit, revised[1]))
                    continue
                to_date[name] += x
                if q < 3 and name not in ON_CASH_FLOW:
                    rows.append(said(name, x, str(end), known, str(begun), unit, source))
                    if again:
                        rows.append(said(name, 1.1 * x, str(end), revised[0], str(begun), unit, revised[1]))
                if q > 0 or name in ON_CASH_FLOW:
                    rows.append(said(name, to_date[name], str(end), known, f"{year}-01-01", unit, source))
            cover = str(end + dt.timedelta(days=20))
            shares = other.get("shares", 10.0) * 1e6 * (1.0 if rng is None else rng.lognormal(0.0, 0.01))
            rows.append(said("dei/EntityCommonStockSharesOutstanding", shares, cover, known, None, "shares", source))
    return facts(*rows)
