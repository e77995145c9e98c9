"""A folder, glob or file of CSV or Parquet tables as a source of bars."""

from __future__ import annotations

import datetime as dt
import glob
import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl

from rlaif_ray.core import UTC, content_hash
from rlaif_ray.data.clean import BAR_SCHEMA, OHLC, check_prices
from rlaif_ray.data.sessions import DAY, bar_size, local_dates, schedule
from rlaif_ray.data.spellings import header, read_table, symbols_in
from rlaif_ray.data.universe import Universe
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError, did_you_mean

Adjustment = Literal["auto", "raw", "split_adjusted", "vendor_adjusted"]
_SUFFIXES = {"csv": (".csv", ".csv.gz", ".csv.zst", ".txt"), "parquet": (".parquet", ".pq")}


class FileSource:
    """Bars from files, one symbol a file or a column of symbols.

    Parameters
    ----------
    path : folder, glob or file.
    kind : `csv` or `parquet`; which files of a folder count.
    symbol_pattern : regular expression with one group that finds the symbol in a file's name (without its ending); None: a
        symbol column where there is one, else the part of the names, split at `-`, `_` and `.`, that differs.
    names : keep these symbols.
    stamp : what a time marks: `start` or `end` of a bar, or a `date`; `auto`: the date for daily bars, the start for shorter.
    tz : zone of times without one.
    calendar : exchange that says when sessions close.
    adjustment : what was done to prices; `auto` takes an adjusted close as vendor-adjusted where no splits or dividends are
        given, and else leaves `price_kind` None: the split days tell, over the whole set.
    bad_rows : `refuse` prices that cannot be, with file and line; or let them pass, for whoever sets them apart.
    """

    def __init__(
        self, path: str, *, kind: Literal["csv", "parquet"] = "csv", symbol_pattern: str | None = None,
        names: Sequence[str] | None = None, stamp: Literal["auto", "start", "end", "date"] = "auto", tz: str = "America/New_York",
        calendar: str = "XNYS", adjustment: Adjustment = "auto", bad_rows: Literal["refuse", "quarantine"] = "refuse",
    ) -> None:  # fmt: skip
        # A worker's current folder is not the driver's.
        self.path = str(Path(path).expanduser().absolute())
        self.kind, self.symbol_pattern, self.names, self.stamp = kind, symbol_pattern, names, stamp
        self.tz, self.calendar = tz, calendar
        self.adjustment: Adjustment = adjustment
        self.bad_rows = bad_rows

    def symbols(self) -> list[str]:
        """All symbols, sorted. Raises `MissingDataError` where there are no files, or not those asked for."""
        if self.names is None:
            return sorted(self._files)
        for name in self.names:
            if name not in self._files:
                near = did_you_mean(name, self._files)
                raise MissingDataError(
                    f"data.names (or data.universe) asks for {name!r}; {self.path} has {len(self._files)} other symbols.{near}"
                )
        return sorted(set(self.names))

    @cached_property
    def price_kind(self) -> Literal["raw", "split_adjusted", "vendor_adjusted"] | None:
        """What is known of the prices beforehand; None: the split days will tell."""
        if self.adjustment != "auto":
            return self.adjustment
        columns = self._columns
        return "vendor_adjusted" if "adjusted_close" in columns and not {"split", "dividend"} & columns.keys() else None

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol in `clean.BAR_SCHEMA`, not yet cleaned. Opens this symbol's files only.

        Raises `DataError` (or below) with file, line and value where something cannot be used.
        """
        parts = []
        for path in self._files[symbol]:
            parts.append(self._prices(read_table(path, symbol if self._is_long else None), path))
        bars = self._timed(pl.concat(parts, how="vertical_relaxed"), symbol)
        return {"bars": bars.with_columns(
            symbol=pl.lit(symbol), known_at=pl.col("timestamp"), tradable=pl.lit(True), delisted=pl.lit(False)
        ).select(*BAR_SCHEMA)}  # fmt: skip

    @cached_property
    def _paths(self) -> list[Path]:
        path = Path(self.path)
        endings = _SUFFIXES[self.kind]
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.lower().endswith(endings) and p.is_file())
            if not found:
                others = sorted({p.suffix for p in path.iterdir() if p.suffix})
                raise MissingDataError(f"{path} holds no {self.kind} file, but {others or 'nothing'}; check data.path and data.type")
            return found
        found = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(self.path) if Path(p).is_file())
        if not found:
            raise MissingDataError(f"{path} does not exist and matches no file; expected a folder, file or glob in data.path")
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of what the files say and of how they are read: the same, and the same bars come out. Nothing is parsed."""
        with ThreadPoolExecutor() as threads:
            digests = list(threads.map(_digest, self._paths))
        knobs = [self.kind, self.symbol_pattern, self.names, self.stamp, self.tz, self.calendar, self.adjustment, self.bad_rows]
        return content_hash([*knobs, *([p.name, d] for p, d in zip(self._paths, digests, strict=True))])

    @cached_property
    def _columns(self) -> dict[str, str]:
        """Of the first file; where bad ones are set apart, of the first that can be read."""
        for path in self._paths:
            try:
                return header(path)
            except DataError:
                if self.bad_rows == "refuse" or path == self._paths[-1]:
                    raise
        raise AssertionError("a source has files")

    @cached_property
    def _is_long(self) -> bool:
        return self.symbol_pattern is None and "symbol" in self._columns

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        if self._is_long:
            for path in self._paths:
                for symbol in symbols_in(path):
                    found.setdefault(symbol, []).append(path)
        else:
            for path, symbol in zip(self._paths, symbols_of_names(self._paths, self.symbol_pattern), strict=True):
                found.setdefault(symbol, []).append(path)
        return found

    def _prices(self, table: pl.DataFrame, path: Path) -> pl.DataFrame:
        """`stamp` and all price columns in one standard, scaled where the set is vendor-adjusted."""
        scaled = self.price_kind == "vendor_adjusted" and "adjusted_close" in table.columns
        if self.price_kind == "vendor_adjusted" and self.adjustment == "auto" and not scaled:
            raise SchemaError(
                f"{path.name} has no adjusted close, others of {self.path} have; expected the same columns, or set data.adjustment"
            )
        if "close" not in table.columns:
            table = table.with_columns(close="adjusted_close")
        absent = [c for c in (*OHLC, "volume") if c not in table.columns]
        events = self.price_kind != "vendor_adjusted"  # else they are in the prices
        table = table.with_columns(
            *[pl.lit(None, pl.Float64).alias(c) for c in absent],
            split=pl.col("split").fill_null(1.0).replace(0.0, 1.0) if events and "split" in table.columns else pl.lit(1.0),
            dividend=pl.col("dividend").fill_null(0.0) if events and "dividend" in table.columns else pl.lit(0.0),
        )
        if self.bad_rows == "refuse":
            check_prices(table, lambda i: f"{path.name} line {table['line'][i]}")
        if scaled and self.bad_rows == "refuse":
            check_prices(table.with_columns(close="adjusted_close"), lambda i: f"{path.name} line {table['line'][i]}, adjusted")
        if scaled:
            table = table.with_columns(pl.col(OHLC) * (pl.col("adjusted_close") / pl.col("close")))
        return table.select("stamp", *OHLC, "volume", "dividend", "split")

    def _timed(self, bars: pl.DataFrame, symbol: str) -> pl.DataFrame:
        """With `timestamp` (bar end, UTC) and `session`, in place of `stamp`."""
        stamps = bars["stamp"]
        bar = bar_size(stamps)
        if bar == DAY:
            days = with_sessions(bars.with_columns(session=self._days(stamps)), self.calendar, symbol)
            return days.rename({"closes": "timestamp"})
        if self.stamp == "date":
            raise ConfigError(f"data.stamp is 'date', but {symbol} has bars of {bar}; expected start, end or auto")
        return self._intraday(bars.with_columns(timestamp=self._in_utc(stamps, symbol)), bar, symbol)

    def _days(self, stamps: pl.Series) -> pl.Series:
        """The calendar day that each daily stamp names."""
        if stamps.dtype == pl.Date:
            return stamps
        zone = getattr(stamps.dtype, "time_zone", None)
        midnight_utc = zone is not None and (stamps.dt.convert_time_zone("UTC").dt.time() == dt.time()).all()
        local = stamps if zone is None or midnight_utc else stamps.dt.convert_time_zone(self.tz)
        return (local - dt.timedelta(microseconds=1) if self.stamp == "end" else local).dt.date()

    def _intraday(self, bars: pl.DataFrame, bar: dt.timedelta, symbol: str) -> pl.DataFrame:
        marks_end = self.stamp == "end"
        inside = bars["timestamp"] if marks_end else bars["timestamp"] + dt.timedelta(microseconds=1)
        bars = with_sessions(bars.with_columns(session=local_dates(inside, self.calendar)), self.calendar, symbol)
        if marks_end:
            return bars
        start, closes = pl.col("timestamp"), pl.col("closes")
        on_close, on_open = bars.select((start == closes).any(), (start <= pl.col("opens")).any().alias("on_open")).row(0)
        if self.stamp == "auto" and on_close and not on_open:
            raise DataError(
                f"{symbol}: times fall on the sessions' closes and never on their opens, as bar ends do; expected starts: "
                f"set data.stamp to end (or to start, if that is what they are)"
            )
        # The last bar of a session may be cut short by the close.
        end = pl.when((start < closes) & (start + bar > closes)).then(closes).otherwise(start + bar)
        return bars.with_columns(timestamp=end)

    def _in_utc(self, stamps: pl.Series, symbol: str) -> pl.Series:
        if getattr(stamps.dtype, "time_zone", None) is None:
            try:
                stamps = stamps.dt.replace_time_zone(self.tz, ambiguous="earliest")
            except pl.exceptions.ComputeError as error:
                raise DataError(f"{symbol}: a time does not exist in data.tz {self.tz!r} ({error}); check data.tz") from None
        return stamps.dt.convert_time_zone("UTC").cast(UTC)


def load_universe(path: str) -> Universe:
    """The universe of a YAML file (`Universe.parse`); raises `ConfigError` for a file that cannot be read, `SchemaError` with its name."""
    try:
        return Universe.parse(Path(path).expanduser().read_text())
    except OSError as error:
        raise ConfigError(f"data.universe {path}: {error.strerror}; expected a YAML file of symbols") from None
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None


def with_sessions(bars: pl.DataFrame, calendar: str, symbol: str) -> pl.DataFrame:
    """With the `opens` and `closes` (UTC) of each bar's `session`; raises `DataError` for days without one."""
    sessions = schedule(calendar, *_span(bars["session"])).rename({"open": "opens", "close": "closes"})
    bars = bars.join(sessions, on="session", how="left", maintain_order="left")
    stray = bars.filter(pl.col("closes").is_null())
    if stray.height:
        raise DataError(
            f"{symbol} has {stray.height} of {bars.height} bars on days without a session of {calendar}, the first on "
            f"{stray['session'][0]}; expected trading days: set data.calendar (24/7 for markets that never close), or mend the source"
        )
    return bars


def symbols_of_names(paths: Sequence[Path], pattern: str | None = None) -> list[str]:
    """The symbol in each file's name: the group of `pattern`, else what is left when the names' common parts are gone.

    Raises `MissingDataError` where that leaves more than one part that differs.
    """
    stems = [re.sub(r"(\.csv)?\.[A-Za-z]+$", "", p.name) for p in paths]
    if pattern is not None:
        return [_matched(pattern, stem) for stem in stems]
    if len(stems) == 1:
        return stems
    parts = [re.split(r"([-_.])", stem) for stem in stems]  # every second one is a separator
    shortest = min(len(p) for p in parts)
    head = next((k for k in range(0, shortest, 2) if len({p[k] for p in parts}) > 1), shortest - 1)
    tail = next((k for k in range(0, shortest - head, 2) if len({p[-1 - k] for p in parts}) > 1), 0)
    middles = [p[head : len(p) - tail] for p in parts]
    if len({len(m) for m in middles}) == 1 and len(middles[0]) > 1:
        raise MissingDataError(
            f"file names such as {paths[0].name} and {paths[-1].name} differ in more than one part; expected the symbol only: "
            f"narrow data.path by a glob, or give data.symbol_pattern"
        )
    return ["".join(m) for m in middles]


def _matched(pattern: str, stem: str) -> str:
    try:
        match = re.search(pattern, stem)
    except re.error as error:
        raise ConfigError(f"data.symbol_pattern {pattern!r} is no regular expression ({error})") from None
    if match is None or not match.groups():
        raise ConfigError(f"data.symbol_pattern {pattern!r} finds no group in {stem!r}; expected one group around the symbol")
    return match.group(1)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _span(days: pl.Series) -> tuple[dt.date, dt.date]:
    first: Any = days.min()
    last: Any = days.max()
    return first, last
