"""Which symbols there are and what each is; who belonged to an index when, against choosing with hindsight from who is in it today."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import yaml

from rlaif_ray.errors import MissingDataError, SchemaError, did_you_mean

COLUMNS = ("ticker", "start_date", "end_date")
OPEN_END = np.datetime64("9999-12-31")
_NOTHING = (None, "", "~", "null")


@dataclass(frozen=True, eq=False)
class Membership:
    """Spans of membership by ticker, as the index's list of entries and exits has them; a ticker may have several."""

    spans: dict[str, list[tuple[np.datetime64, np.datetime64]]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Membership:
        """From columns `ticker`, `start_date`, `end_date` (ISO dates or dates; no end: still in).

        Raises `SchemaError` for missing columns, a date that is none, or an end before its start.
        """
        missing = [c for c in COLUMNS if c not in frame.columns]
        if missing:
            raise SchemaError(f"a membership table has no column {missing[0]!r}; expected {', '.join(COLUMNS)}, seen {frame.columns}")
        days = [pl.col(c).cast(pl.String).str.to_date(strict=False).alias(c) for c in COLUMNS[1:]]
        read = frame.select("ticker", *days)
        wrong = read.filter(pl.col("start_date").is_null() | (pl.col("end_date") < pl.col("start_date")))
        wrong = wrong if wrong.height else frame.filter(pl.Series(read["end_date"].is_null() & frame["end_date"].is_not_null()))
        if wrong.height:
            raise SchemaError(f"membership of {wrong['ticker'][0]!r} has dates that are none or end before they start; mend the table")
        spans: dict[str, list[tuple[np.datetime64, np.datetime64]]] = {}
        for ticker, start, end in read.iter_rows():
            spans.setdefault(ticker, []).append((np.datetime64(start), OPEN_END if end is None else np.datetime64(end)))
        return cls(spans)

    def members(self, symbols: Sequence[str], days: np.ndarray) -> np.ndarray:
        """(T,A) bool: whether each symbol was a member on each of `days` (T,); False for tickers that the list does not know."""
        at = days.astype("datetime64[D]")
        out = np.zeros((len(at), len(symbols)), bool)
        for a, symbol in enumerate(symbols):
            for start, end in self.spans.get(symbol, []):
                out[:, a] |= (at >= start) & (at < end)
        return out


@dataclass(frozen=True)
class Listing:
    """A symbol, its sector and the CIK by which the SEC knows its company; None where that is not said."""

    symbol: str
    sector: str | None = None
    cik: int | None = None


@dataclass(frozen=True)
class Universe:
    """Which symbols there are, what each is, and what they are held against. Sorted by symbol."""

    listings: tuple[Listing, ...]
    benchmark: str | None = None

    @classmethod
    def of(cls, listings: Iterable[Mapping[str, Any]], benchmark: str | None = None) -> Universe:
        """From mappings with `symbol` and perhaps `sector` and `cik`, such as a table's named rows; other keys are refused.

        Raises `SchemaError` for an unknown key, a CIK that is no number, a symbol that is none or comes twice, and no symbol at all.
        """
        found = sorted((_listing(entry) for entry in listings), key=lambda listing: listing.symbol)
        if not found:
            raise SchemaError("a universe has no symbols; expected at least one")
        for one, next_ in pairwise(found):
            if one.symbol == next_.symbol:
                raise SchemaError(f"a universe has {one.symbol!r} twice; expected each symbol once")
        return cls(tuple(found), benchmark)

    @classmethod
    def parse(cls, text: str) -> Universe:
        """From YAML: `benchmark: SPY` and `symbols: {AAPL: {sector: Information Technology, cik: 320193}, XOM: }`.

        Every scalar is read as it is written, so that ON and NO are tickers and 0000012345 is no octal number.
        """
        try:
            tree = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise SchemaError(f"a universe is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict) or not isinstance(tree.get("symbols"), dict):
            raise SchemaError("a universe has no mapping 'symbols'; expected 'symbols: {AAPL: {sector: ..., cik: ...}}'")
        _known(tree, ("symbols", "benchmark"), "a universe")
        entries = []
        for symbol, entry in tree["symbols"].items():
            if not isinstance(entry, dict) and entry not in _NOTHING:
                raise SchemaError(f"{symbol} in a universe is {entry!r}; expected sector and cik, or nothing")
            entries.append({"symbol": symbol, **(entry if isinstance(entry, dict) else {})})
        return cls.of(entries, _said(tree, "benchmark"))

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, sorted, the benchmark among them only where it is listed itself."""
        return tuple(listing.symbol for listing in self.listings)

    def __getitem__(self, symbol: str) -> Listing:
        for listing in self.listings:
            if listing.symbol == symbol:
                return listing
        raise MissingDataError(f"the universe has no {symbol!r}.{did_you_mean(symbol, self.symbols)}")


def _listing(entry: Mapping[str, Any]) -> Listing:
    _known(entry, ("symbol", "sector", "cik"), "a listing")
    symbol, sector, cik = (_said(entry, key) for key in ("symbol", "sector", "cik"))
    if symbol is None:
        raise SchemaError(f"a listing has no symbol, but {dict(entry)}; expected a ticker")
    if cik is not None and not cik.isdigit():
        raise SchemaError(f"the CIK of {symbol} is {cik!r}; expected digits, such as 320193")
    return Listing(symbol, sector, None if cik is None else int(cik))


def _said(tree: Mapping[str, Any], key: str) -> str | None:
    value = tree.get(key)
    return None if value in _NOTHING else str(value).strip()


def _known(tree: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in tree:
        if key not in known:
            raise SchemaError(f"{what} has an unknown key {key!r}; expected {', '.join(known)}.{did_you_mean(str(key), known)}")
