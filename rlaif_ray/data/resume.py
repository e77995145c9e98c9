"""What the lake has of a source already, so that the source need only be asked for what is newer."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import polars as pl

from rlaif_ray.core import Source, canonical_json
from rlaif_ray.data.clean import BAR_SCHEMA, OHLC
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import INGEST_SCHEMA


@dataclass(frozen=True)
class Span:
    """From the start of a day (UTC) to a moment."""

    first: dt.date
    until: dt.datetime


@runtime_checkable
class Resumable(Source, Protocol):
    """A source that says what it is asked for, so that it need not be asked twice."""

    @property
    def series(self) -> str:
        """What is asked for, but for symbols and times: answers under one name go on from each other."""
        ...

    def span(self) -> Span:
        """What `read` asks for now."""
        ...


@runtime_checkable
class Extensible(Resumable, Protocol):
    """A source of bars that can go on from those that it gave before."""

    def extend(self, symbol: str, bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """As `read`, with these bars for what it need not ask for again: not empty, in `BAR_SCHEMA`, in order."""
        ...


@runtime_checkable
class ReadableSince(Resumable, Protocol):
    """A source of facts or documents that can leave out old ones."""

    def read_since(self, symbol: str, since: dt.datetime) -> dict[str, pl.DataFrame]:
        """As `read`, of what may have come or changed since a moment."""
        ...


@dataclass(frozen=True)
class Resume:
    """Which span of each symbol has been taken in; it stands in the table `ingests`, a row a symbol.

    `held` : of the symbols that can go on from there: the span begins no later than the one that is `asked` for, and no gap
        is left between them. All others are read whole.
    """

    lake: Lake
    series: str
    asked: Span
    held: Mapping[str, Span]

    @classmethod
    def of(cls, source: Source, lake: Lake) -> Resume | None:
        """None for a source that says everything each time."""
        if not isinstance(source, Resumable):
            return None
        asked, name = source.span(), f"{source.series}/"
        held: dict[str, Span] = {}
        if "ingests" in lake.tables():
            rows = lake.read("ingests").filter(pl.col("id").str.starts_with(name))
            for row, record in rows.select("id", "record").iter_rows():
                said = json.loads(record)
                span = Span(dt.date.fromisoformat(said["first"]), dt.datetime.fromisoformat(said["until"]))
                if span.first <= asked.first <= span.until.date():
                    held[row.removeprefix(name)] = span
        return cls(lake, source.series, asked, held)

    def note(self, symbols: Iterable[str], at: dt.datetime) -> None:
        """Say that these symbols' span is in the lake; after it is."""
        rows: list[dict[str, Any]] = []
        for symbol in symbols:
            span = self.held.get(symbol, self.asked)
            until = max(span.until, self.asked.until)
            record = canonical_json({"first": span.first.isoformat(), "until": until.isoformat()})
            rows.append({"id": f"{self.series}/{symbol}", "timestamp": at, "known_at": at, "record": record})
        self.lake.append("ingests", pl.DataFrame(rows, schema=INGEST_SCHEMA), self.series)


def bars_before(lake: Lake, symbol: str, held: Span) -> pl.DataFrame:
    """A symbol's bars of a span as the lake says them, without the day on which the set took it as gone."""
    stored = lake.read("bars", [symbol], start=held.first).select(*BAR_SCHEMA)
    return stored.filter(~pl.col("delisted") & (pl.col("timestamp") <= held.until))


def as_told(stored: pl.DataFrame) -> pl.DataFrame:
    """Bars of the lake as the source has said them: without those at which an ingest let them stand still; from these and newer
    ones they are made again."""
    flat = pl.all_horizontal(pl.col(OHLC) == pl.col("close").shift(1), pl.col("volume") == 0, ~pl.col("tradable"))
    return stored.filter(~(flat & (pl.col("dividend") == 0) & (pl.col("split") == 1)).fill_null(False))


def from_first_change(bars: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Clean bars in order from the first on that the lake's own, `stored`, do not say; the last bar in any case."""
    said = [column for column in BAR_SCHEMA if column != "known_at"]
    first: Any = bars.join(stored, on=said, how="anti", nulls_equal=True)["timestamp"].min()
    return bars.tail(1) if first is None else bars.filter(pl.col("timestamp") >= first)
