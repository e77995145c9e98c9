"""What a day's option chain says of its underlying: put/call ratios, the volatility at the money, its slope and its skew."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from rlaif_ray.data.sessions import schedule
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import DataError, MissingDataError, SchemaError, did_you_mean

CALENDAR, ZONE = "XNYS", "America/New_York"  # of Lean's option/usa
NEAR_MONEY = 0.05  # the strikes on both sides of the spot lie within this share of it
NEAR_DELTA = 0.10  # the deltas on both sides of 0.25 lie within this of it
NUMBERS = ("close", "volume", "open_interest", "implied_volatility", "delta")
UNITS = {
    "put_call_volume": "ratio", "put_call_open_interest": "ratio", "skew_25d": "annual volatility", "atm_iv_30d": "annual volatility",
    "atm_term_slope": "annual volatility",
}  # fmt: skip
CHAIN_SCHEMA: dict[str, Any] = {"expiry": pl.Date, "strike": pl.Float64, "right": pl.String, **dict.fromkeys(NUMBERS, pl.Float64)}
_OSI = r"^.+(\d{6})([CP])(\d{8})$"  # root, yyMMdd, right, strike in 1/1000 USD


class LeanOptionSource:
    """Facts `options/<figure>` of each underlying, from the chains that Lean keeps in option/usa/universes.

    Parameters
    ----------
    path : folder of `<underlying>/<yyyyMMdd>.csv`, or of one underlying's days itself.
    names : keep these underlyings; for the days of one underlying, its name.

    A file is the chain of its day, one row a contract with volume, open interest, implied volatility and greeks, and one row of
    the underlying; Lean makes it available at the midnight that ends the day (OptionUniverse.EndTime), and so do we.
    """

    calendar = CALENDAR

    def __init__(self, path: str, *, names: Sequence[str] | None = None) -> None:
        # A worker's current folder is not the driver's.
        self.path, self.names = str(Path(path).expanduser().absolute()), names

    def symbols(self) -> list[str]:
        """Underlyings, sorted. Raises `MissingDataError` where there are none, or not those asked for."""
        found = self._folders()
        for name in self.names or ():
            if name not in found:
                raise MissingDataError(f"{self.path} has no chains of {name!r}, but of {len(found)} others.{did_you_mean(name, found)}")
        return sorted(found if self.names is None else set(self.names))

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`facts` of one underlying in FACT_SCHEMA: the figures of each day's chain that it has what is needed for.

        Raises `SchemaError` with file and line for a cell that cannot be read, `DataError` for a day without a session.
        """
        rows: list[dict[str, Any]] = []
        for path in _days_in(self._folders()[symbol]):
            rows += _facts(symbol, path)
        return {"facts": pl.DataFrame(rows, schema=FACT_SCHEMA)}

    def _folders(self) -> dict[str, Path]:
        folder = Path(self.path)
        if not folder.is_dir():
            raise MissingDataError(f"{folder} does not exist; expected a folder of option chains in facts.path")
        if _days_in(folder):
            if self.names is None or len(self.names) != 1:
                raise MissingDataError(f"{folder} holds one underlying's chains and does not say which; expected its name in facts.names")
            return {self.names[0]: folder}
        found = {p.name.upper(): p for p in folder.iterdir() if p.is_dir() and _days_in(p)}
        if not found:
            raise MissingDataError(f"{folder} holds no <underlying>/<yyyyMMdd>.csv; expected Lean's option/usa/universes in facts.path")
        return found


def figures(chain: pl.DataFrame, day: dt.date, spot: float | None) -> dict[str, float]:
    """The figures that a chain (`CHAIN_SCHEMA`) of `day` has what is needed for; others are absent, never 0.

    put_call_volume, put_call_open_interest
        Sum over all puts / sum over all calls (Cboe's put/call ratio), of the contracts that say a number; absent where one
        side says none, or the calls' sum is 0.
    atm_iv_30d
        sigma(30): annual volatility at the money, 30 calendar days ahead. Of each expiry, at the spot, linear in strike between
        the strikes next to it (both within 5% of it), each strike the mean of its call and put; then between the expiries next
        to 30 days linear in total variance sigma^2 * days, as the Cboe VIX is (Cboe, "Volatility Index Methodology").
    atm_term_slope
        sigma(90) - sigma(30), in volatility: above 0 in calm times (Vasquez 2017, "Equity volatility term structures and the
        cross section of option returns", JFQA 52: a long at-the-money volatility less the 1-month one).
    skew_25d
        Put at delta -0.25 less call at delta 0.25, in volatility, at 30 days (the risk reversal, sign turned; Mixon 2011, "What
        does implied volatility skew measure?", J. of Derivatives 18). Of each expiry linear in delta between the contracts next
        to it (both within 0.10 of it); then linear in days between the expiries next to 30.

    A volatility of 0 is one that the vendor could not solve for: the contract says none. Nothing is extrapolated.

    Parameters
    ----------
    spot : the underlying's price in USD, None where it is unknown.
    """
    known = chain.filter(pl.col("implied_volatility") > 0, pl.col("expiry") > day)
    by_expiry = [((e - day).days, part) for (e,), part in sorted(known.partition_by("expiry", as_dict=True).items())]
    variance = [(days, iv * iv * days) for days, part in by_expiry if (iv := _at_the_money(part, spot)) is not None]
    skews = [(days, skew) for days, part in by_expiry if (skew := _skew(part)) is not None]
    near, far = (None if (w := _between(variance, days)) is None else math.sqrt(w / days) for days in (30, 90))
    found = {
        "put_call_volume": _put_call(chain, "volume"), "put_call_open_interest": _put_call(chain, "open_interest"),
        "skew_25d": _between(skews, 30), "atm_iv_30d": near, "atm_term_slope": None if near is None or far is None else far - near,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _put_call(chain: pl.DataFrame, column: str) -> float | None:
    said = chain.drop_nulls(column)
    sides = [said.filter(right=right)[column] for right in "PC"]
    if not all(map(len, sides)):
        return None
    puts, calls = (float(side.sum()) for side in sides)
    return puts / calls if calls > 0 else None


def _at_the_money(part: pl.DataFrame, spot: float | None) -> float | None:
    if spot is None:
        return None
    strikes = part.group_by("strike").agg(pl.col("implied_volatility").mean()).filter((pl.col("strike") / spot - 1.0).abs() <= NEAR_MONEY)
    return _between(list(strikes.sort("strike").iter_rows()), spot)


def _skew(part: pl.DataFrame) -> float | None:
    sides = []
    for right in "PC":
        near = part.filter(right=right).with_columns(pl.col("delta").abs()).filter((pl.col("delta") - 0.25).abs() <= NEAR_DELTA)
        points = near.group_by("delta").agg(pl.col("implied_volatility").mean()).sort("delta")
        sides.append(_between(list(points.iter_rows()), 0.25))
    put, call = sides
    return None if put is None or call is None else put - call


def _between(points: Sequence[tuple[float, float]], at: float) -> float | None:
    """Linear between the points (x rising, y) on both sides of `at`; None where one side has none."""
    below = [p for p in points if p[0] <= at]
    above = [p for p in points if p[0] >= at]
    if not below or not above:
        return None
    (x0, y0), (x1, y1) = below[-1], above[0]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _facts(symbol: str, path: Path) -> list[dict[str, Any]]:
    try:
        day = dt.datetime.strptime(path.stem, "%Y%m%d").date()
    except ValueError:
        raise SchemaError(f"{path} is named by no day; expected <yyyyMMdd>.csv") from None
    sessions = schedule(CALENDAR, day, day)
    if not sessions.height:
        raise DataError(f"{path} is a chain of a day without a session of {CALENDAR}; expected trading days")
    midnight = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), ZoneInfo(ZONE))
    chain, spot = read_chain(path)
    return [
        {"symbol": symbol, "timestamp": sessions["close"][0], "known_at": midnight.astimezone(dt.UTC), "name": f"options/{name}",
         "started": day if name == "put_call_volume" else None, "unit": UNITS[name], "value": value}
        for name, value in figures(chain, day, spot).items()
    ]  # fmt: skip


def read_chain(path: Path) -> tuple[pl.DataFrame, float | None]:
    """(contracts in `CHAIN_SCHEMA`, the underlying's close in USD) of one file.

    Contracts are named by `expiry,strike,right` or, as Lean writes them since 2024, by the OSI name in `symbol_value`.
    """
    try:
        table = pl.read_csv(path, infer_schema=False).with_row_index("line", offset=2)
    except (pl.exceptions.NoDataError, pl.exceptions.ComputeError) as error:
        raise SchemaError(f"{path} cannot be read as a table ({' '.join(str(error).split())[:120]}); expected a chain of options") from None
    table = table.rename({c: c.lstrip("#") for c in table.columns})
    if "symbol_value" in table.columns:
        osi = pl.col("symbol_value").str.strip_chars()
        table = table.with_columns(
            expiry="20" + osi.str.extract(_OSI, 1), right=osi.str.extract(_OSI, 2),
            strike=(osi.str.extract(_OSI, 3).cast(pl.Float64) / 1000).cast(pl.String),
        )  # fmt: skip
    absent = [c for c in CHAIN_SCHEMA if c not in table.columns]
    if absent:
        raise SchemaError(f"{path.name} has no column {absent[0]!r} among {table.columns}; expected {', '.join(CHAIN_SCHEMA)}")
    read = table.select("line", pl.col("expiry").str.to_date("%Y%m%d", strict=False), "right",
                        *[pl.col(c).cast(pl.Float64, strict=False) for c in ("strike", *NUMBERS)])  # fmt: skip
    read = read.with_columns(pl.when(pl.col(c).is_finite()).then(c).alias(c) for c in ("strike", *NUMBERS))
    for name in CHAIN_SCHEMA:
        wrong = (read[name].is_null() & table[name].is_not_null()).arg_true()
        if len(wrong):
            expected = "yyyyMMdd" if name == "expiry" else "a number"
            raise SchemaError(f"{path} line {table['line'][wrong[0]]}: {name} is {table[name][wrong[0]]!r}; expected {expected}")
    contracts = read.filter(pl.col("expiry").is_not_null())
    wrong = contracts.filter(pl.col("strike").is_null() | ~pl.col("right").is_in(["C", "P"]).fill_null(False))
    if wrong.height:
        line, strike, right = wrong.select("line", "strike", "right").row(0)
        raise SchemaError(f"{path} line {line}: strike {strike}, right {right!r}; expected a strike and C or P")
    spot = read.filter(pl.col("expiry").is_null(), pl.col("close") > 0)["close"]
    return contracts.select(*CHAIN_SCHEMA), spot[0] if len(spot) == 1 else None


def _days_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.csv") if len(p.stem) == 8 and p.stem.isdigit())
