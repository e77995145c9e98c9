"""One symbol's way from its source to the lake: cut to its span, checked, made clean, finished by what the set tells, appended.

What `on_ray` spreads over a cluster, as plain functions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from rlaif_ray.core import Source, content_hash
from rlaif_ray.data.bar_tables import BadRows, PriceKind
from rlaif_ray.data.clean import OHLC, clean, fill_sessions, sift
from rlaif_ray.data.events import price_kind
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.quarantine import set_apart
from rlaif_ray.data.resume import Extensible, Resumable, as_told, from_first_change
from rlaif_ray.data.revisions import REVISION
from rlaif_ray.data.sessions import DAY, schedule
from rlaif_ray.data.tables import cut
from rlaif_ray.data.tables import table as table_of
from rlaif_ray.errors import DataError, RlaifError

GONE_SESSIONS = 10  # a symbol without bars for longer, while others go on, is taken as delisted
# The source's usual delay: the least time from a bar's end to its `known_at`.
_DELAY_S = (pl.col("known_at") - pl.col("timestamp")).min().dt.total_microseconds() / 1e6
Tables = dict[str, pl.DataFrame]
Report = dict[str, Any]


@runtime_checkable
class OfMany(Source, Protocol):
    """A source whose files may hold many symbols each: `together` of them are best read in one go."""

    @property
    def together(self) -> int: ...

    def among(self, symbols: Sequence[str]) -> Source:
        """The same source with the rows of these symbols at hand."""
        ...


def calendar_of(source: Source) -> str:
    """The exchange that says when sessions close."""
    return getattr(source, "calendar", "XNYS")


def read_clean(
    source: Source, symbol: str, stored: pl.DataFrame | None, start: dt.date | None, end: dt.date | None, latency_s: float,
    bad_rows: BadRows,
) -> tuple[Report | RlaifError, Tables]:  # fmt: skip
    """A small report (or the error, for whoever reads many) and the clean tables.

    Where a source goes on from the bars that the lake has `stored`, the report is about all its bars and the table begins with
    the first that is new.
    """
    try:
        read_at = source.span().until if isinstance(source, Resumable) else dt.datetime.now(dt.UTC)  # before it is read
        if stored is not None and stored.height and isinstance(source, Extensible):
            tables = source.extend(symbol, as_told(stored))
        else:
            tables, stored = source.read(symbol), None
        whole = tables.pop("bars")
        bars, apart = cut(whole, start, end), None
        if bars.height < 2 <= whole.height:
            return {"rows": 0, "note": f"{bars.height} of {whole.height} bars lie between {start} and {end}"}, {}
        bars = bars.with_columns(pl.col("known_at") + dt.timedelta(seconds=latency_s))
        if bad_rows == "quarantine":
            bars, apart = sift(bars)
        bars, report = clean(bars, calendar=calendar_of(source), read_at=read_at)
    except RlaifError as error:
        return error, {}
    alive = bars.filter(~pl.col("delisted"))
    report |= {
        "first_session": alive["session"][0], "last_session": alive["session"][-1], "delay_s": bars.select(_DELAY_S).item(),
        "quarantined": 0 if apart is None else apart.height,
    }  # fmt: skip
    fresh = bars if stored is None else from_first_change(bars, stored)
    good = {"bars": fresh, **{name: cut(table, start, end) for name, table in tables.items()}}
    if apart is not None and apart.height:
        good["quarantine"] = set_apart(apart)
    return report, good


@dataclass(frozen=True)
class Whole:
    """What only all symbols of a set together can tell: the size of a bar, its last session, what was done to the prices."""

    calendar: str
    bar: dt.timedelta
    last: dt.date
    kind: PriceKind

    @classmethod
    def of(cls, source: Source, reports: Mapping[str, Report]) -> Whole:
        """From the reports of all symbols. Raises `DataError` for bars of two sizes."""
        kind: Any = getattr(source, "price_kind", None) or price_kind(
            sum(r["split_days"] for r in reports.values()), sum(r["split_jumps"] for r in reports.values())
        )
        return cls(calendar_of(source), _one_bar_size(reports), max(r["last_session"] for r in reports.values()), kind)


def append_bars(lake: Lake, read: Mapping[str, Tables], reports: Mapping[str, Report], whole: Whole, at: dt.datetime) -> None:
    """Append a shard of symbols, one commit a table. What it says anew of rows that are there is known from `at` on.

    A back-adjusted history is rewritten by every event: it was never point in time, so its moments stay.
    """
    tables: dict[str, list[pl.DataFrame]] = {}
    for symbol, frames in read.items():
        for name, frame in frames.items():
            tables.setdefault(name, []).append(_finish(frame, reports[symbol], whole) if name == "bars" else frame)
    for name, parts in tables.items():
        rows = pl.concat(parts)
        if name == "bars":
            rows = pl.concat([rows, _came_back(lake, rows)])
        lake.append(name, rows, _named(read), revised_at=None if name == "bars" and whole.kind != "raw" else at)


def _came_back(lake: Lake, bars: pl.DataFrame) -> pl.DataFrame:
    """Rows that stand still, in place of those by which the lake says that a symbol is gone, where `bars` say that it is not.

    Where whole sessions are not filled no bar of the source's would ever lie on that row.
    """
    newest = bars.filter(~pl.col("delisted")).group_by("symbol").agg(newest=pl.col("timestamp").max())
    if "bars" not in lake.tables():
        return bars.clear()
    named = pl.col("symbol").is_in(newest["symbol"].to_list()) & pl.col("delisted")
    gone = lake.ask("bars", lambda rows: rows.filter(named).select(pl.col("symbol").unique()))["symbol"].to_list()
    if not gone:
        return bars.clear()
    now = pl.concat([lake.read("bars", gone).select(*bars.columns).join(bars, on=["symbol", "timestamp"], how="anti"), bars])
    close = pl.col("close").forward_fill().over("symbol", order_by="timestamp")
    still = now.filter(pl.col("symbol").is_in(gone)).with_columns(
        *[pl.when("delisted").then(close).otherwise(c).alias(c) for c in OHLC], volume=pl.when("delisted").then(0.0).otherwise("volume")
    ).join(newest, on="symbol")  # fmt: skip
    back = still.filter(pl.col("delisted") & (pl.col("timestamp") < pl.col("newest"))).with_columns(delisted=pl.lit(False))
    return back.join(bars, on=["symbol", "timestamp"], how="anti").select(*bars.columns)


def append_facts(lake: Lake, read: Mapping[str, Tables], at: dt.datetime) -> dict[str, int]:
    """Append a shard's facts and documents, one commit a table. Returns the rows that were new, by table.

    A document that two symbols share is one document; what is said anew of rows that are there is known from `at` on.
    """
    tables: dict[str, list[pl.DataFrame]] = {}
    for frames in read.values():
        for name, frame in frames.items():
            tables.setdefault(name, []).append(frame)
    added: dict[str, int] = {}
    for name, parts in tables.items():
        rows = pl.concat(parts).unique(maintain_order=True)
        if not table_of(name).versions:  # two symbols may tell of one story, which is known when it was known first
            rows = rows.sort("known_at", maintain_order=True).unique(table_of(name).keys, keep="first", maintain_order=True)
        added[name] = lake.append(name, rows, _named(read), revised_at=at)
    return added


def _named(symbols: Iterable[str]) -> str:
    first, *rest = symbols
    return f"{first}..{rest[-1] if rest else first}"


def _finish(bars: pl.DataFrame, report: Report, whole: Whole) -> pl.DataFrame:
    """What only the whole set can tell of one symbol: whether splits are in the prices, and whether it is gone."""
    if whole.kind != "raw":
        bars = bars.with_columns(split=pl.lit(1.0))
    report |= {"ends_early": False, "delisted": None}
    gone = bars.filter("delisted")
    if gone.height:
        report["delisted"] = gone["session"][0].isoformat()
        return bars
    missed = schedule(whole.calendar, report["last_session"] + DAY, whole.last) if whole.last > report["last_session"] else None
    if missed is None or not missed.height:
        return bars
    if whole.bar == DAY:
        filled = fill_sessions(bars, whole.calendar, missed["session"][:GONE_SESSIONS][-1])
        added = filled.height - bars.height
        report |= {key: report[key] + added for key in ("rows", "gaps_filled")}
        bars = filled
    if missed.height <= GONE_SESSIONS:
        return bars
    # Not sooner: until then it may come back, and an ingest that ended there had to say that it stood still.
    session, closes = missed.select("session", "close").row(GONE_SESSIONS)
    gone = bars.tail(1).with_columns(
        *[pl.lit(None, pl.Float64).alias(c) for c in (*OHLC, "volume")], timestamp=pl.lit(closes),
        known_at=pl.lit(closes + dt.timedelta(seconds=report["delay_s"])), session=pl.lit(session), dividend=pl.lit(0.0),
        split=pl.lit(1.0), tradable=pl.lit(False), delisted=pl.lit(True),
    ).cast(bars.schema)  # fmt: skip
    report |= {"ends_early": True, "delisted": session.isoformat()}
    return pl.concat([bars, gone])


def _one_bar_size(reports: Mapping[str, Report]) -> dt.timedelta:
    by_size: dict[float, list[str]] = {}
    for symbol, report in reports.items():
        by_size.setdefault(report["bar_s"], []).append(symbol)
    if len(by_size) > 1:
        seen = "; ".join(f"{len(s)} of {dt.timedelta(seconds=b)} such as {s[0]!r}" for b, s in sorted(by_size.items()))
        raise DataError(
            f"symbols have bars of different sizes: {seen}; expected one size: "
            f"narrow data.path by a glob such as *_15min.csv, or data.names"
        )
    return dt.timedelta(seconds=next(iter(by_size)))


def usual_delay_s(lake: Lake, symbols: Sequence[str]) -> float | None:
    """Of the bars that are in the lake, when first known; None where there are none."""
    first = pl.col("symbol").is_in(list(symbols)) & (pl.col(REVISION) == 0)
    return lake.ask("bars", lambda bars: bars.filter(first).select(_DELAY_S)).item()


@dataclass(frozen=True)
class Stored:
    """What the lake says of some symbols between two days, latest revisions.

    hashes : `<table>/<symbol>` -> content hash of its rows: equal wherever the same rows lie.
    times : ends of the bars that any of them has, ascending.
    spans : symbol -> first and last bar, and how many; without the day on which it was gone.
    """

    hashes: dict[str, str]
    times: np.ndarray
    spans: dict[str, tuple[np.datetime64, np.datetime64, int]]

    @classmethod
    def of(
        cls, lake: Lake, symbols: Sequence[str], start: dt.date | None = None, end: dt.date | None = None,
        versions: Mapping[str, int] | None = None,
    ) -> Stored:  # fmt: skip
        """`versions` : of tables, where it is not their newest that is asked for."""
        hashes: dict[str, str] = {}
        spans: dict[str, tuple[np.datetime64, np.datetime64, int]] = {}
        times = np.empty(0, "datetime64[us]")
        for name in source_tables(lake) if versions is None else versions:
            rows = lake.read(name, symbols, None if versions is None else versions[name], start=start, end=end)
            for (symbol,), frame in rows.partition_by("symbol", as_dict=True, maintain_order=True).items():
                hashes[f"{name}/{symbol}"] = content_hash(frame)
                if name == "bars":
                    ends = frame["timestamp"].dt.replace_time_zone(None).to_numpy()
                    alive = ends[~frame["delisted"].to_numpy()]
                    spans[str(symbol)] = (alive[0], alive[-1], len(alive))
                    times = ends if np.array_equal(times, ends) else np.union1d(times, ends)
        return cls(hashes, times, spans)


def version_of(parts: Iterable[Stored]) -> str:
    """Content hash of all rows of some shards: their `data_version`."""
    return content_hash({key: said for part in parts for key, said in part.hashes.items()})


def gaps_left(parts: Iterable[Stored]) -> dict[str, int]:
    """Bars that each symbol lacks between its first and its last while another symbol has one."""
    parts = list(parts)
    times = np.unique(np.concatenate([part.times for part in parts]))
    spans = {symbol: span for part in parts for symbol, span in part.spans.items()}
    inside = {s: np.searchsorted(times, last, "right") - np.searchsorted(times, first) for s, (first, last, _) in spans.items()}
    return {symbol: int(n) - spans[symbol][2] for symbol, n in inside.items()}


def source_tables(lake: Lake) -> list[str]:
    """The tables that a source of bars writes."""
    return [t for t in lake.tables() if t in ("bars", "filings", "news")]
