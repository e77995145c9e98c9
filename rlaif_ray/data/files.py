"""A folder, glob or file of CSV (packed, too) or Parquet tables as a source of bars."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.bar_tables import Adjustment, BadRows, PriceKind, Stamp, declared_kind, standard_prices, timed
from rlaif_ray.data.spellings import header, read_table, rows_of, symbols_in, understood
from rlaif_ray.data.universe import Universe
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError, did_you_mean

_SUFFIXES = {"csv": (".csv", ".csv.gz", ".csv.zst", ".txt", ".zip"), "parquet": (".parquet", ".pq")}


TOGETHER = 32  # symbols of a long file a pass


class FileSource:
    """Bars from files, one symbol a file or a column of symbols.

    Parameters
    ----------
    path : folder, glob or file.
    kind : `csv` or `parquet`; which files of a folder count. CSV may be packed: gzip, zstd, or a zip of one file.
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
        names: Sequence[str] | None = None, stamp: Stamp = "auto", tz: str = "America/New_York",
        calendar: str = "XNYS", adjustment: Adjustment = "auto", bad_rows: BadRows = "refuse",
    ) -> None:  # fmt: skip
        # A worker's current folder is not the driver's.
        self.path = str(Path(path).expanduser().absolute())
        self.kind, self.symbol_pattern, self.names = kind, symbol_pattern, names
        self.tz, self.calendar = tz, calendar
        self.stamp: Stamp = stamp
        self.adjustment: Adjustment = adjustment
        self.bad_rows = bad_rows
        self._at_hand: dict[Path, dict[str, pl.DataFrame]] = {}

    def symbols(self) -> list[str]:
        """All symbols, sorted. Raises `MissingDataError` where there are no files, or not those asked for."""
        if self.names is None:
            return sorted(self._files)
        for name in self.names:
            if name not in self._files:
                near = did_you_mean(name, self._files)
                asked = f"data.names (or data.universe) asks for {name!r}"
                raise MissingDataError(f"{asked}; {self.path} has {len(self._files)} other symbols.{near}")
        return sorted(set(self.names))

    @cached_property
    def price_kind(self) -> PriceKind | None:
        """What is known of the prices beforehand; None: the split days will tell."""
        return declared_kind(self._columns, self.adjustment)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol in `clean.BAR_SCHEMA`, not yet cleaned. Opens this symbol's files only.

        Raises `DataError` (or below) with file, line and value where something cannot be used.
        """
        bars = pl.concat([self._prices(path, symbol) for path in self._files[symbol]], how="vertical_relaxed")
        return {"bars": timed(bars, symbol, stamp=self.stamp, tz=self.tz, calendar=self.calendar)}

    @property
    def together(self) -> int:
        """Symbols to be read in one go: over a file that holds many, one pass for all of them."""
        return TOGETHER if self._is_long else 1

    def among(self, symbols: Sequence[str]) -> FileSource:
        """The same source with the rows of these symbols at hand."""
        near = copy(self)
        paths = {path for symbol in symbols for path in self._files[symbol]} if self._is_long else ()
        near._at_hand = {path: rows_of(path, symbols) for path in paths}
        return near

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
        *others, last = self._paths
        for path in others if self.bad_rows == "quarantine" else ():
            try:
                return header(path)
            except DataError:
                continue
        return header(last if self.bad_rows == "quarantine" else self._paths[0])

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

    def _prices(self, path: Path, symbol: str) -> pl.DataFrame:
        if self._is_long:
            rows = self._at_hand.get(path) or rows_of(path, [symbol])
            table = understood(rows[symbol], path.name, "line", symbol)
        else:
            table = read_table(path)
        if self.price_kind == "vendor_adjusted" and self.adjustment == "auto" and "adjusted_close" not in table.columns:
            raise SchemaError(
                f"{path.name} has no adjusted close, others of {self.path} have; expected the same columns, or set data.adjustment"
            )
        return standard_prices(table, f"{path.name} line", self.price_kind, refuse=self.bad_rows == "refuse")


def load_universe(path: str) -> Universe:
    """The universe of a YAML file (`Universe.parse`); raises `ConfigError` for a file that cannot be read, `SchemaError` with its name."""
    try:
        return Universe.parse(Path(path).expanduser().read_text())
    except OSError as error:
        raise ConfigError(f"universe {path}: {error.strerror}; expected a YAML file of symbols") from None
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None


def sectors_of(universe: str | None) -> dict[str, str]:
    """The sector of each symbol of a universe's file that has one; none without a file."""
    return {} if universe is None else {x.symbol: x.sector for x in load_universe(universe).listings if x.sector is not None}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def symbols_of_names(paths: Sequence[Path], pattern: str | None = None) -> list[str]:
    """The symbol in each file's name: the group of `pattern`, else what is left when the names' common parts are gone.

    Raises `MissingDataError` where that leaves more than one part that differs.
    """
    stems = [re.sub(r"(\.(csv|jsonl?|ndjson|txt|tar))?\.[A-Za-z]+$", "", p.name) for p in paths]
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
