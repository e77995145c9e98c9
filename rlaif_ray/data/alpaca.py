"""Raw bars of US stocks from Alpaca, with the splits and dividends that fall on them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.aggregate import MINUTE, MINUTE_SCHEMA, aggregate, place
from rlaif_ray.data.alpaca_access import THE_VENDOR, Access, sdk, spans
from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.resume import Span
from rlaif_ray.data.sessions import schedule
from rlaif_ray.errors import ConfigError, DataError, SchemaError

Timeframe = Literal["1Min", "5Min", "15Min", "1Hour", "1Day"]
Feed = Literal["iex", "sip", "delayed_sip", "otc", "boats", "overnight"]

# Bars of the last days are asked for again: the vendor corrects them.
OVERLAP = dt.timedelta(days=7)
SPAN = dt.timedelta(days=90)  # asked for at once: some 60,000 minute bars, 6 pages
YEARS = dt.timedelta(days=36_500)
SETTLING = dt.timedelta(days=120)  # from a dividend's ex-date to its payment, which is the date that the vendor lists it by
NOT_YET = {"sip": 16 * MINUTE}  # who does not pay may see the whole market after 15 minutes
# What is asked for and how large the bar is. The vendor's hours begin on the hour, sessions on the half: ours are made of halves.
_SIZES = {"1Min": (1, MINUTE), "5Min": (5, 5 * MINUTE), "15Min": (15, 15 * MINUTE), "1Hour": (30, 60 * MINUTE)}
_FIELDS = {"start": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_EVENTS = ("forward_splits", "reverse_splits", "stock_dividends", "cash_dividends")


@dataclass(frozen=True)
class AlpacaSource:
    """Bars of the regular sessions. A bar that has not ended is left out.

    Splits, stock and cash dividends come from the vendor's corporate actions; spin-offs, mergers and the like do not become
    events, and their jumps stay in the prices.

    Parameters
    ----------
    names : symbols, as the vendor spells them (`BRK.B`).
    timeframe : size of a bar. Hours are counted from the session's open.
    start, end : first and last day; `days` instead of `start`: so many days back. Default: ten years.
    feed : `sip` is the whole market, 16 minutes late; `iex` one exchange, at once.
    calendar : exchange whose sessions count.
    access : keys, limits and patience.
    """

    names: tuple[str, ...]
    timeframe: Timeframe = "1Day"
    start: dt.date | None = None
    end: dt.date | None = None
    days: int | None = None
    feed: Feed = "sip"
    calendar: str = "XNYS"
    access: Access = THE_VENDOR

    price_kind = "raw"

    def symbols(self) -> list[str]:
        """All names, sorted. Raises `ConfigError` where the keys or the SDK are missing."""
        self.access.need()
        return sorted(set(self.names))

    @property
    def series(self) -> str:
        """See `resume.Resumable`."""
        return f"alpaca bars {self.timeframe} {self.feed} {self.calendar}"

    def span(self) -> Span:
        """From `start` to the last moment that the feed may show. Raises `ConfigError` where `start` and `days` are given."""
        until = min(self.access.until(self.end), self.access.now() - NOT_YET.get(self.feed, dt.timedelta()))
        return Span(self.access.first_day(self.start, self.days), until)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` in `clean.BAR_SCHEMA`, not yet cleaned. Raises `DataError` (or below) with what the vendor said."""
        asked = self.span()
        events = self._events(symbol, asked.first, asked.until)
        return {"bars": with_events(self._bars(symbol, asked.first, asked.until), events)}

    def extend(self, symbol: str, bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """As `read`, with these bars for all but the last seven days of them. Events are laid on all anew: some are told late."""
        until, first = self.span().until, bars["session"][0]
        events = self._events(symbol, first, until)
        newer = self._bars(symbol, max(first, (min(bars["timestamp"][-1], until) - OVERLAP).date()), until)
        before = bars if newer.is_empty() else bars.filter(pl.col("timestamp") < newer["timestamp"][0])
        whole = pl.concat([before.with_columns(known_at=pl.col("timestamp"), dividend=pl.lit(0.0), split=pl.lit(1.0)), newer])
        return {"bars": with_events(whole, events)}

    @property
    def bar_minutes(self) -> int:
        """Minutes of a bar. Raises `ConfigError` for days, which no stream gives."""
        if self.timeframe == "1Day":
            raise ConfigError(f"data.timeframe is 1Day; a stream gives {', '.join(_SIZES)}")
        return _SIZES[self.timeframe][1] // MINUTE

    def minutes(self, since: dt.datetime, until: dt.datetime) -> pl.DataFrame:
        """One-minute bars of all names that began from `since` on and ended by `until`, in `aggregate.MINUTE_SCHEMA`."""
        with self.access.client("bars") as client:
            rows = _ask(client, sorted(set(self.names)), 1, since, until - MINUTE, self.feed)
        return pl.concat([pl.DataFrame(schema=MINUTE_SCHEMA), *[_frame(found, symbol) for symbol, found in sorted(rows.items())]])

    def _bars(self, symbol: str, first: dt.date, until: dt.datetime) -> pl.DataFrame:
        """What ended by `until`, without events, sorted."""
        size = YEARS if self.timeframe == "1Day" else SPAN
        with self.access.client("bars") as client:
            parts = [self._piece(client, symbol, *span) for span in spans(first, until, size)]
        return pl.concat([pl.DataFrame(schema=BAR_SCHEMA), *parts]).filter(pl.col("timestamp") <= until)

    def _piece(self, client: Any, symbol: str, start: dt.datetime, end: dt.datetime) -> pl.DataFrame:
        if self.timeframe == "1Day":
            return _daily(_frame(_ask(client, [symbol], None, start, end, self.feed).get(symbol, []), symbol), self.calendar)
        minutes, size = _SIZES[self.timeframe]
        return aggregate(place(_frame(_ask(client, [symbol], minutes, start, end, self.feed).get(symbol, []), symbol), size, self.calendar))

    def _events(self, symbol: str, first: dt.date, until: dt.datetime) -> pl.DataFrame:
        """`ex`, `split`, `dividend` of what the vendor lists from a day on, and of what will be paid for what was by `until`."""
        kinds: Any = [kind.removesuffix("s") for kind in _EVENTS]
        request = sdk().CorporateActionsRequest(symbols=[symbol], types=kinds, start=first, end=until.date() + SETTLING, limit=None)
        with self.access.client("corporate_actions") as client:
            found = client.get_corporate_actions(request)
        rows = [_event(kind, row) for kind in _EVENTS for row in found.get(kind, []) if row.get("symbol") == symbol]
        return pl.DataFrame(rows, schema={"ex": pl.Date, "split": pl.Float64, "dividend": pl.Float64}, orient="row").sort("ex")


def with_events(bars: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Splits and dividends on the first bar of their ex-date, or of the next session that has one.

    Parameters
    ----------
    bars : of one symbol, in `BAR_SCHEMA`.
    events : `ex` (date, rising), `split` (shares after / before), `dividend` (USD a share).
    """
    if not bars.height or not events.height:
        return bars
    opening = bars.group_by("session").agg(pl.col("timestamp").min()).sort("session")
    within = events.filter(pl.col("ex") >= opening["session"][0])
    placed = within.join_asof(opening, left_on="ex", right_on="session", strategy="forward").drop_nulls("timestamp")
    sums = placed.group_by("timestamp").agg(pl.col("split").product(), pl.col("dividend").sum())
    return bars.drop("split", "dividend").join(sums, on="timestamp", how="left", maintain_order="left").with_columns(
        pl.col("split").fill_null(1.0), pl.col("dividend").fill_null(0.0)
    ).select(*BAR_SCHEMA)  # fmt: skip


def _ask(
    client: Any, symbols: Sequence[str], minutes: int | None, start: dt.datetime, end: dt.datetime, feed: Feed
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Raw rows by symbol, all pages of them; `minutes` None for days."""
    data = sdk()
    size = data.TimeFrame(1, data.TimeFrameUnit.Day) if minutes is None else data.TimeFrame(minutes, data.TimeFrameUnit.Minute)
    return client.get_stock_bars(data.StockBarsRequest(
        symbol_or_symbols=list(symbols), timeframe=size, start=start, end=end, adjustment=data.Adjustment.RAW, feed=data.DataFeed(feed)
    ))  # fmt: skip


def _frame(rows: Sequence[dict[str, Any]], symbol: str) -> pl.DataFrame:
    """Raw rows in `MINUTE_SCHEMA`. Raises `SchemaError` for a field that is missing or no number."""
    columns = [
        pl.Series(ours, [row.get(theirs) for row in rows], dtype=pl.String if ours == "start" else pl.Float64, strict=False)
        for ours, theirs in _FIELDS.items()
    ]
    start = pl.col("start").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", strict=False).dt.replace_time_zone("UTC").cast(UTC)
    frame = pl.DataFrame(columns).with_columns(start, symbol=pl.lit(symbol)).select(*MINUTE_SCHEMA)
    broken = frame.select(pl.any_horizontal(pl.all().is_null()).arg_true()).to_series()
    if len(broken):
        raise SchemaError(f"Alpaca gave a bar of {symbol} as {rows[broken[0]]}; expected a time in t and numbers in o, h, l, c and v")
    frame = frame.unique(maintain_order=True)
    twice = frame.filter(pl.col("start").is_duplicated())
    if twice.height:
        raise DataError(f"Alpaca gave two different bars of {symbol} at {twice['start'][0]}; expected one: try again later")
    return frame.sort("start")


def _daily(days: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """Bars that are stamped at midnight of their day in New York, at the closes of their sessions."""
    if not days.height:
        return pl.DataFrame(schema=BAR_SCHEMA)
    dated = days.with_columns(session=pl.col("start").dt.convert_time_zone("America/New_York").dt.date())
    closes = schedule(calendar, dated["session"][0], dated["session"][-1]).select("session", timestamp="close")
    bars = dated.join(closes, on="session", how="left", maintain_order="left")
    stray = bars.filter(pl.col("timestamp").is_null())
    if stray.height:
        raise DataError(
            f"Alpaca has a daily bar of {stray['symbol'][0]} on {stray['session'][0]}, when {calendar} has no session; check data.calendar"
        )
    return aggregate(bars)


def _event(kind: str, row: dict[str, Any]) -> tuple[dt.date, float, float]:
    """(ex-date, shares after / before, USD a share) of one corporate action."""
    try:
        ex = dt.date.fromisoformat(row["ex_date"])
        if kind == "cash_dividends":
            return ex, 1.0, float(row["rate"])
        if kind == "stock_dividends":
            return ex, 1.0 + float(row["rate"]), 0.0
        return ex, float(row["new_rate"]) / float(row["old_rate"]), 0.0
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise SchemaError(f"Alpaca gave an event of {kind} as {row} ({error}); expected an ex_date and rates") from None
