"""Reading one table as vendors write it: which column is what, and text into numbers and times, with the line at fault."""

from __future__ import annotations

import datetime as dt
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rlaif_ray.errors import MissingDataError, SchemaError

# In order of preference; names are compared in lower case with everything else than letters and digits as "_".
SPELLINGS: dict[str, tuple[str, ...]] = {
    "stamp": ("timestamp", "datetime", "date_time", "date", "time", "day", "session"),
    "symbol": ("symbol", "ticker", "tic", "sym", "name"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price", "close_last", "last", "price"),
    "adjusted_close": ("adj_close", "adjusted_close", "adjclose", "close_adj", "close_adjusted"),
    "volume": ("volume", "vol", "v"),
    "dividend": ("dividend_amount", "dividends", "dividend", "div", "cash_dividend"),
    "split": ("split_coefficient", "stock_splits", "split", "splits", "split_ratio", "split_factor"),
}
NUMBERS = ("open", "high", "low", "close", "adjusted_close", "volume", "dividend", "split")
_NOTHING = ["", "null", "NULL", "None", "NaN", "nan", "NA", "N/A", "n/a", "-"]
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%m/%d/%Y", "%d.%m.%Y", "%d-%b-%Y", "%b %d, %Y")  # a/b/c is month/day/year
TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y%m%d %H:%M:%S",
          "%Y%m%d %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M")  # fmt: skip
_ZONED = ("%Y-%m-%dT%H:%M:%S%#z", "%Y-%m-%d %H:%M:%S%#z", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
_FORMATS: tuple[tuple[str, Any], ...] = (
    *((form, pl.Date) for form in DATES), *((form, pl.Datetime("us")) for form in TIMES),
    *((form.replace("%#z", end), pl.Datetime("us", "UTC")) for end in ("Z", "%#z") for form in _ZONED),
)  # fmt: skip
EPOCH_UNITS = (("s", 1e8), ("ms", 1e11), ("us", 1e14), ("ns", 1e17))  # least value of a stamp after 1973 in that unit


def header(path: Path) -> dict[str, str]:
    """What each column of a file is: our name -> the file's.

    Raises `MissingDataError` for an empty file, `SchemaError` when no column holds times or prices.
    """
    return recognise(_load(path, n_rows=0).columns, path.name)


def plain(name: str) -> str:
    """A column's name as names are compared: lower case, everything else than letters and digits as "_"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().strip("\ufeff \t")).strip("_")


def recognise(columns: Iterable[str], where: str) -> dict[str, str]:
    """Our column names -> those of `columns`, by the usual spellings."""
    theirs = {plain(c): c for c in columns}
    found = {ours: theirs[name] for ours, names in SPELLINGS.items() for name in reversed(names) if name in theirs}
    if "stamp" not in found:
        raise SchemaError(f"{where} has no time column among {list(columns)}; expected one of {', '.join(SPELLINGS['stamp'])}")
    if "close" not in found and "adjusted_close" not in found:
        expected = ", ".join(SPELLINGS["close"] + SPELLINGS["adjusted_close"])
        raise SchemaError(f"{where} has no price column among {list(columns)}; expected one of {expected}")
    if found["stamp"] == theirs.get("date") and "time" in theirs:
        found["time_of_day"] = theirs["time"]
    return found


def read_table(path: Path) -> pl.DataFrame:
    """One file under our column names, `line` as counted in the file; see `understood`."""
    names = header(path)
    table = _load(path, numbers=[names[column] for column in NUMBERS if column in names])
    if not table.height:
        raise MissingDataError(f"{path} has a header but no rows; expected bars")
    return understood(table.with_row_index("line", offset=_first_line(path)), path.name, "line")


def rows_of(path: Path, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
    """Of a long table the rows of some symbols as they lie there, with their `line`. One pass over the file, which need not fit into
    memory; `understood` makes bars of them."""
    name, wanted = header(path)["symbol"], list(symbols)
    symbol = pl.col(name).cast(pl.String).str.strip_chars()
    with _a_table(path):
        rows = _scan(path).with_row_index("line", offset=_first_line(path)).with_columns(symbol).filter(pl.col(name).is_in(wanted))
        parts = rows.collect(engine="streaming").sort("line").partition_by(name, as_dict=True)
    return {str(symbol): part for (symbol,), part in parts.items()}


def understood(table: pl.DataFrame, place: str, unit: str, symbol: str | None = None) -> pl.DataFrame:
    """A vendor's table under our column names: `stamp` (Date, naive or UTC datetime), numbers as Float64, `line`.

    Parameters
    ----------
    table : any columns, of text or of types, and `line`, the number of each row where it comes from.
    place, unit : name a row in messages together with its `line`: "AAPL.csv", "line".
    symbol : keeps the rows of one symbol of a long table.

    Columns that the table has not are absent. Raises `SchemaError` for a cell that is neither number nor time, with its
    line; `MissingDataError` where there is no row.
    """
    names = recognise([c for c in table.columns if c != "line"], place)
    table = table.select("line", **{ours: pl.col(theirs) for ours, theirs in names.items()})
    if symbol is not None and "symbol" in names:
        table = table.filter(pl.col("symbol").cast(pl.String).str.strip_chars() == symbol)
    if not table.height:
        raise MissingDataError(f"{place} has no rows{f' of {symbol}' if symbol else ''}; expected bars")
    if "time_of_day" in names:
        table = table.with_columns(stamp=pl.concat_str(pl.col("stamp", "time_of_day").cast(pl.String), separator=" "))
    at = f"{place} {unit}"
    numbers = [_numbers(table, c, at) for c in NUMBERS if c in names]
    return table.select("line", _stamps(table, at), *numbers)


def as_text(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows of Python values as a table of text, as from a CSV file, but for columns of dates and times."""
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pl.DataFrame([
        pl.Series(name, column) if any(isinstance(c, dt.date) for c in column)
        else pl.Series(name, [None if c is None else str(c) for c in column], pl.String)
        for name, column in zip(names, cells, strict=True)
    ])  # fmt: skip


def symbols_in(path: Path) -> list[str]:
    """The symbols of a long table; none where the file has no symbol column."""
    name = header(path).get("symbol")
    if name is None:
        return []
    with _a_table(path):
        said = _scan(path).select(pl.col(name).cast(pl.String).str.strip_chars().unique()).collect(engine="streaming")[name]
    return sorted(said.drop_nulls())


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_csv(_unpacked(path), infer_schema=False, null_values=_NOTHING) if _is_csv(path) else pl.scan_parquet(path)


def _unpacked(path: Path) -> Path | bytes:
    """The file; of a zip the one table in it, which must fit into memory. Raises `MissingDataError` for a zip of another kind."""
    if path.suffix.lower() != ".zip":
        return path
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            if len(members) == 1:
                return archive.read(members[0])
        # What is turned around is an OSError, too; a password, or a method that is not known, a RuntimeError.
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
            raise MissingDataError(f"{path} cannot be read as a table ({error}); expected a zip of one CSV file: check data.path") from None
    raise MissingDataError(
        f"{path} holds {len(members)} files; expected one CSV file a zip: unpack it, or leave it out by a glob in data.path"
    )


def _first_line(path: Path) -> int:
    return 2 if _is_csv(path) else 1


@contextmanager
def _a_table(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.NoDataError, pl.exceptions.ComputeError) as error:
        why = " ".join(str(error).split())[:120]
        raise MissingDataError(f"{path} cannot be read as a table ({why}); expected a header and rows: check data.path") from None


def _load(path: Path, numbers: Iterable[str] = (), **some: Any) -> pl.DataFrame:
    """The table as it lies there: types from Parquet, from CSV text and `numbers`, where these are all plain. `some` limits rows or
    columns."""
    with _a_table(path):
        if not _is_csv(path):
            return pl.read_parquet(path, **some)
        table = _unpacked(path)
        with suppress(pl.exceptions.ComputeError):  # then as text, in which the cell can be named
            return pl.read_csv(table, infer_schema=False, null_values=_NOTHING, schema_overrides=dict.fromkeys(numbers, pl.Float64), **some)
        return pl.read_csv(table, infer_schema=False, null_values=_NOTHING, **some)


def _is_csv(path: Path) -> bool:
    return ".csv" in path.suffixes or path.suffix.lower() in (".txt", ".zip")


def _numbers(table: pl.DataFrame, name: str, at: str) -> pl.Series:
    column = table[name]
    if column.dtype != pl.String:
        return column.cast(pl.Float64).fill_nan(None).alias(name)
    numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    _refuse_cells(table, column, numbers.is_null() & column.is_not_null(), f"{name} is", "a number", at)
    return numbers.fill_nan(None).alias(name)


def _stamps(table: pl.DataFrame, at: str) -> pl.Series:
    column = table["stamp"]
    _refuse_cells(table, column, column.is_null(), "the time is", "a date or time", at)
    if column.dtype.is_temporal():
        return column if column.dtype == pl.Date else column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
    text = column.cast(pl.String).str.strip_chars()
    numbers = text.str.contains(r"^\d{9,}$")
    if numbers.all():
        written = _written_out(text)
        return _epochs(text.cast(pl.Int64)) if written is None else written
    parsed = _parse(text)
    wrong = ~numbers if 2 * numbers.sum() > len(text) else parsed.is_null()
    _refuse_cells(table, column, wrong, "the time is", "a date or time such as 2020-01-31 or 2020-01-31 16:00:00", at)
    return parsed


def _parse(text: pl.Series) -> pl.Series:
    """By the one format that reads most cells; null where that one fails."""
    best = pl.Series("stamp", [None] * len(text), dtype=pl.Datetime("us"))
    few = text.gather(np.linspace(0, len(text) - 1, min(len(text), 20)).astype(int))
    likely = next((f for f in _FORMATS if not _parsed(few, *f).null_count()), _FORMATS[0])
    for form, dtype in (likely, *_FORMATS):
        parsed = _parsed(text, form, dtype)
        if not parsed.null_count():
            return parsed.alias("stamp")
        if parsed.null_count() < best.null_count():
            best = parsed.alias("stamp")
    return best


def _parsed(text: pl.Series, form: str, dtype: Any) -> pl.Series:
    """By one format; null where it fails. Zulu times are read as if they had no zone: five times as fast."""
    if form.endswith("Z"):
        return text.str.strptime(pl.Datetime("us"), form, strict=False, cache=False).dt.replace_time_zone("UTC")
    return text.str.strptime(dtype, form, strict=False)


def _written_out(text: pl.Series) -> pl.Series | None:
    """Stamps such as 202001311600 or 20200131160000, where all of them read as one; as epochs they would lie in 1976 or 2610."""
    for length, form in ((12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):
        if (text.str.len_chars() == length).all() and text.str.contains("^(19|20)").all():
            parsed = text.str.strptime(pl.Datetime("us"), form, strict=False)
            return parsed.alias("stamp") if not parsed.null_count() else None
    return None


def _epochs(numbers: pl.Series) -> pl.Series:
    """Seconds, milli-, micro- or nanoseconds since 1970, UTC, told apart by their size."""
    largest: Any = numbers.max()
    unit: Any = next((u for u, least in reversed(EPOCH_UNITS) if largest >= least), "s")
    micros = numbers // 1000 if unit == "ns" else numbers * {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("stamp")


def _refuse_cells(table: pl.DataFrame, column: pl.Series, bad: pl.Series, what: str, expected: str, at: str) -> None:
    wrong = bad.arg_true()
    if len(wrong):
        cell = column[wrong[0]]
        seen = "missing" if cell is None else repr(str(cell))
        raise SchemaError(f"{at} {table['line'][wrong[0]]}: {what} {seen}; expected {expected}")
