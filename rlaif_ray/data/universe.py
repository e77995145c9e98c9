"""Who belonged to an index when: against choosing with hindsight from those that are in it today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rlaif_ray.errors import SchemaError

COLUMNS = ("ticker", "start_date", "end_date")
OPEN_END = np.datetime64("9999-12-31")


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
