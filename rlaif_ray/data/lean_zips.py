"""Lean's zips of bars: where those of a ticker lie, and the rows in one of them.

Formats: QuantConnect/Lean, Data/{equity,crypto,forex}/readme.md.
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from rlaif_ray.data.clean import OHLC
from rlaif_ray.data.sessions import DAY
from rlaif_ray.errors import DataError, MissingDataError, SchemaError

TRADE, QUOTE = 6, 11  # columns: time, OHLC, volume; time, OHLC and size of the bid, then of the ask
STEPS = {"second": dt.timedelta(seconds=1), "minute": dt.timedelta(minutes=1)}


class Zip(NamedTuple):
    """One file: the whole history of a ticker (`day` None) or a day of it."""

    path: Path
    kind: Literal["trade", "quote"]
    day: dt.date | None


def tickers_in(folder: Path) -> list[str]:
    """Tickers (in lower case) that a resolution's folder has zips or a folder of; raises `MissingDataError` for none."""
    if not folder.is_dir():
        raise MissingDataError(f"{folder} does not exist; expected a folder of Lean's zips in data.path")
    found = {re.sub(r"(_trade|_quote)?\.zip$", "", p.name) for p in folder.iterdir() if p.suffix == ".zip" or p.is_dir()}
    if not found:
        raise MissingDataError(
            f"{folder} holds no zip and no folder; expected <ticker>.zip or <ticker>/<yyyyMMdd>_trade.zip: "
            f"set data.path to the folder of one resolution"
        )
    return sorted(found)


def zips_of(folder: Path, ticker: str) -> list[Zip]:
    """Zips of a ticker: `<ticker>[_trade|_quote].zip`, or those of each day in a folder of its name, in order."""
    whole: list[tuple[str, Literal["trade", "quote"]]] = [("", "trade"), ("_trade", "trade"), ("_quote", "quote")]
    found = [Zip(folder / f"{ticker}{ending}.zip", kind, None) for ending, kind in whole]
    found = [z for z in found if z.path.is_file()]
    for path in sorted((folder / ticker).glob("*.zip")):
        match = re.fullmatch(r"(\d{8})_(trade|quote)\.zip", path.name)
        if match:
            day = dt.datetime.strptime(match[1], "%Y%m%d").date()
            found.append(Zip(path, "trade" if match[2] == "trade" else "quote", day))
    return found


def read_zip(zipped: Zip) -> pl.DataFrame:
    """Bars of one zip: `start` (as written: naive), `step`, OHLC as written and `volume`; of quotes the mid, without a volume.

    A quote bar that lacks its bid or its ask has no mid and is no row. Raises `DataError` for a zip that cannot be unpacked,
    `SchemaError` with zip, member and line for a row that cannot be read.
    """
    where, text = _unpack(zipped.path)
    rows = _table(text, where)
    if zipped.day is None:
        start = rows["0"].str.strptime(pl.Datetime("us"), "%Y%m%d %H:%M", strict=False)
        _refuse(rows["0"], start.is_null(), where, "the time", "yyyyMMdd HH:mm")
        step = DAY if (start.dt.time() == dt.time()).all() else dt.timedelta(hours=1)
    else:
        named = re.search(r"_(second|minute)_", where)
        if named is None:
            raise SchemaError(f"{where} does not name its resolution; expected a member such as 20140605_aapl_minute_trade.csv")
        millis = rows.select(pl.col("0").cast(pl.Int64, strict=False))["0"]
        _refuse(rows["0"], millis.is_null(), where, "the time", "milliseconds since midnight")
        midnight = dt.datetime.combine(zipped.day, dt.time())
        start = (millis * 1000 + int((midnight - dt.datetime(1970, 1, 1)) / dt.timedelta(microseconds=1))).cast(pl.Datetime("us"))
        step = STEPS[named[1]]
    return _prices(rows, where).with_columns(start=start, step=pl.lit(step, pl.Duration("us"))).drop_nulls(OHLC)


def _prices(rows: pl.DataFrame, where: str) -> pl.DataFrame:
    """`open`, `high`, `low`, `close` and `volume`; null where a side of the quote is empty."""
    if rows.width == TRADE:
        return pl.DataFrame([_numbers(rows, 1 + i, where, name) for i, name in enumerate((*OHLC, "volume"))])
    bid = [_numbers(rows, 1 + i, where, f"bid {name}", empty=True) for i, name in enumerate(OHLC)]
    ask = [_numbers(rows, 6 + i, where, f"ask {name}", empty=True) for i, name in enumerate(OHLC)]
    mids = [((b + a) / 2).alias(name) for b, a, name in zip(bid, ask, OHLC, strict=True)]
    return pl.DataFrame(mids).with_columns(volume=pl.lit(None, pl.Float64))


def _unpack(path: Path) -> tuple[str, bytes]:
    """(zip and member, content) of a zip of one table."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if len(members) != 1:
                raise SchemaError(f"{path} holds {len(members)} files; expected one table")
            return f"{path.name}/{members[0]}", archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); expected a zip of one table: fetch it again") from None


def _table(text: bytes, where: str) -> pl.DataFrame:
    """The rows as text, columns `0` and on; refused where they are not all as wide as trades or as quotes are."""
    widths = [line.count(b",") + 1 for line in text.splitlines()]
    if not widths:
        raise MissingDataError(f"{where} is empty; expected bars")
    expected = widths[0] if widths[0] in (TRADE, QUOTE) else TRADE
    odd = next((i for i, width in enumerate(widths) if width != expected), None)
    if odd is not None:
        raise SchemaError(
            f"{where} line {odd + 1} has {widths[odd]} columns; expected {expected}" if expected == QUOTE or odd else
            f"{where} has {widths[0]} columns; expected {TRADE} (trades) or {QUOTE} (quotes)"
        )  # fmt: skip
    return pl.read_csv(text, has_header=False, infer_schema=False, new_columns=[str(i) for i in range(expected)])


def _numbers(rows: pl.DataFrame, column: int, where: str, name: str, empty: bool = False) -> pl.Series:
    cells = rows[str(column)]
    numbers = cells.str.strip_chars().cast(pl.Float64, strict=False)
    _refuse(cells, numbers.is_null() & (cells.is_not_null() if empty else True), where, name, "a number")
    return numbers.alias(name)


def _refuse(cells: pl.Series, bad: pl.Series, where: str, name: str, expected: str) -> None:
    wrong = bad.arg_true()
    if len(wrong):
        seen = "missing" if cells[wrong[0]] is None else repr(cells[wrong[0]])
        raise SchemaError(f"{where} line {wrong[0] + 1}: {name} is {seen}; expected {expected}")
