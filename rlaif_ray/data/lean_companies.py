"""Lean's map and factor files: which company had a ticker when, and what its shares became.

Formats and rules: QuantConnect/Lean, Common/Data/Auxiliary/{MapFile,CorporateFactorRow,CorporateFactorProvider}.cs and
Common/Data/Market/Dividend.cs.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from rlaif_ray.errors import MissingDataError, SchemaError

ALIVE = dt.date(2050, 12, 31)  # last day of a map file whose company is still listed
DIVIDEND_DECIMALS = 3  # factors have 7 decimals, which at a price of 1,000 USD are a tenth of a tenth of a cent
EVER = (dt.date(1900, 1, 1), dt.date(2100, 1, 1))
SPLIT_ROUNDING = 1e-5  # relative: 0.0357143 for 1/28 is off by 1.2e-6, and a ratio has two of them
NO_EVENTS = pl.DataFrame(schema={"before": pl.Date, "split": pl.Float64, "dividend": pl.Float64})


@dataclass(frozen=True)
class Span:
    """A ticker from `start` to `end`, both included."""

    ticker: str
    start: dt.date
    end: dt.date


@dataclass(frozen=True)
class Company:
    """One security through all its tickers, in order; `name` is that of its files (Lean's permtick)."""

    name: str
    spans: tuple[Span, ...]

    @property
    def first(self) -> dt.date:
        return self.spans[0].start

    @property
    def last(self) -> dt.date:
        """The day of its delisting; `ALIVE` where there is none."""
        return self.spans[-1].end

    @property
    def ticker(self) -> str:
        """The ticker that it has at the end."""
        return self.spans[-1].ticker


def read_companies(folder: Path) -> list[Company]:
    """Every company of a `map_files` folder.

    A row `date,ticker[,exchange]` says what the company was called up to and including the date; the first row is the day of
    its first data. Raises `MissingDataError` without the folder, `SchemaError` with file and line for a row that is none.
    """
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder} does not exist; expected Lean's map_files, which say whose bars a ticker's are: set data.reference to the folder "
            f"that holds map_files and factor_files (null: tickers as they are, without splits and dividends)"
        )
    return [_company(path) for path in sorted(folder.glob("*.csv"))]


def _company(path: Path) -> Company:
    spans: list[Span] = []
    for where, day, cells in _dated(path, (2, 3, 4)):
        start = spans[-1].end + dt.timedelta(days=1) if spans else day
        if start > day:
            raise SchemaError(f"{where}: {day} is not after the row before; expected rising dates")
        ticker = cells[0].strip().lower()
        if spans and spans[-1].ticker == ticker:
            spans[-1] = Span(ticker, spans[-1].start, day)
        else:
            spans.append(Span(ticker, start, day))
    if not spans:
        raise SchemaError(f"{path} has no rows; expected date,ticker")
    return Company(path.stem, tuple(spans))


def holders(companies: Iterable[Company]) -> dict[str, list[tuple[Span, Company]]]:
    """Ticker -> who has had it, in order."""
    found: dict[str, list[tuple[Span, Company]]] = {}
    for company in companies:
        for span in company.spans:
            found.setdefault(span.ticker, []).append((span, company))
    return {ticker: sorted(ever, key=lambda pair: pair[0].start) for ticker, ever in found.items()}


def read_events(path: Path) -> pl.DataFrame:
    """Splits and dividends of a factor file: `before` (the last trading day before it), `split`, `dividend`.

    A row `date,price factor,split factor,close` holds the factors up to and including its date, and the raw close of that day;
    the event that the next row's differ by is effective on the next trading day. `split`, shares after / shares before, is the
    next split factor over this one. `dividend`, USD a share *after* that split, is Lean's distribution,

        D = close - close * (price factor / next price factor)        (Dividend.ComputeDistribution),

    over the split. Two roundings of Lean's are undone: it writes split factors with 8 digits (7:1 comes back as 6.99999; the
    nearest ratio of two whole numbers up to 100 is taken where it is that near), and it rounds distributions to cents, which
    takes AAPL's 0.205 for 0.20; the factors' seven digits carry tenths of a cent.

    Raises `MissingDataError` without the file, `SchemaError` with file and line for a row that is none.
    """
    if not path.is_file():
        raise MissingDataError(
            f"{path} does not exist; without a factor file nobody knows the company's splits and dividends: "
            f"add it, or leave the symbol out with data.names"
        )
    rows = [_factors(where, day, cells) for where, day, cells in _dated(path, (3, 4))]
    events = []
    for (day, price, split, close), (_, next_price, next_split, _) in pairwise(rows):
        if price != next_price and close == 0:
            raise SchemaError(f"{path.parent.name}/{path.name}: the price factor changes after {day}, but no close is given; expected one")
        ratio = _near_whole(next_split / split)
        dividend = round(close - close * (price / next_price), DIVIDEND_DECIMALS)
        if ratio != 1.0 or dividend != 0.0:
            events.append((day, ratio, dividend / ratio))
    return pl.DataFrame(events, schema=NO_EVENTS.schema, orient="row")


def with_events(bars: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Bars (sorted by time, with `session`) with `split` and `dividend` on the first bar after each event's `before`.

    Usually that is the first bar of the ex-day; after a gap in the bars it is the first one there is, so that nothing that a
    holder was due is lost. What lies before the first bar or after the last has no bar, and no holder.
    """
    sessions = bars["session"].to_numpy()
    split, dividend = np.ones(len(sessions)), np.zeros(len(sessions))
    for day, ratio, amount in events.iter_rows():
        k = int(np.searchsorted(sessions, np.datetime64(day), side="right"))
        if 0 < k < len(sessions):
            split[k] *= ratio
            dividend[k] = dividend[k] / ratio + amount
    return bars.with_columns(split=pl.Series(split, dtype=pl.Float64), dividend=pl.Series(dividend, dtype=pl.Float64))


def _near_whole(ratio: float) -> float:
    near = Fraction(ratio).limit_denominator(100)
    return float(near) if near and abs(float(near) / ratio - 1.0) <= SPLIT_ROUNDING else ratio


def _factors(where: str, day: dt.date, cells: list[str]) -> tuple[dt.date, float, float, float]:
    try:
        price, split = float(cells[0]), float(cells[1])
        close = float(cells[2]) if len(cells) > 2 else 0.0
    except ValueError:
        raise SchemaError(f"{where}: {','.join(cells)!r} holds no numbers; expected price factor, split factor, close") from None
    if not all(math.isfinite(x) for x in (price, split, close)) or price <= 0 or split <= 0 or close < 0:
        raise SchemaError(f"{where}: factors are {price} and {split}, the close {close}; expected finite numbers > 0")
    return day, price, split, close


def _dated(path: Path, widths: tuple[int, ...]) -> Iterator[tuple[str, dt.date, list[str]]]:
    """(where, date, other cells) of each row that begins with yyyyMMdd."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path.parent.name}/{path.name} line {number}"
        cells = line.strip().split(",")
        if len(cells) not in widths:
            raise SchemaError(f"{where} has {len(cells)} columns; expected {' or '.join(map(str, widths))}")
        try:
            day = dt.datetime.strptime(cells[0], "%Y%m%d").date()
        except ValueError:
            raise SchemaError(f"{where}: the date is {cells[0]!r}; expected yyyyMMdd") from None
        yield where, day, cells[1:]
