"""Bars from the zips that QuantConnect's Lean keeps in its data folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.bar_tables import with_sessions
from rlaif_ray.data.clean import BAR_SCHEMA, OHLC
from rlaif_ray.data.lean_companies import ALIVE, EVER, NO_EVENTS, Company, Span, holders, read_companies, read_events, with_events
from rlaif_ray.data.lean_zips import Zip, read_zip, tickers_in, zips_of
from rlaif_ray.data.sessions import DAY, local_dates, schedule
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, did_you_mean

Market = Literal["equity", "crypto", "forex"]
NEW_YORK = "America/New_York"
DECICENTS = 10_000.0  # shares are priced in 1/10000 USD, the other markets as they quote
# Zone of the times and calendar of each market: QuantConnect/Lean, Data/{equity,crypto,forex}/readme.md.
_ZONES: dict[str, str] = {"equity": NEW_YORK, "crypto": "UTC", "forex": "UTC"}
_CALENDARS: dict[str, str] = {"equity": "XNYS", "crypto": "24/7", "forex": "24/5"}
_FOREX_NIGHT = dt.timedelta(hours=7)  # a trading day of currencies ends at 17:00 in New York


class LeanSource:
    """Unadjusted bars of shares, crypto or currencies; splits and dividends of shares as events.

    `path` is the folder of one resolution: `<ticker>.zip` (daily, hour) or `<ticker>/<yyyyMMdd>_trade.zip` (minute, second).
    Trades are read; quotes, as the mid of bid and ask without a volume, only for a symbol that has no trades at all. Times mark
    the start of a bar, in the market's zone; daily bars are sessions.

    Parameters
    ----------
    path : folder.
    market : `equity` (1/10000 USD, New York, XNYS), `crypto` (UTC, 24/7) or `forex` (UTC, 24/5).
    reference : folder that holds `map_files` and `factor_files` of shares; `beside`: the one above `path`, where Lean has them;
        None: tickers are taken as they are, without splits and dividends.
    names : keep these symbols.
    tz : zone of the times where it is not the market's.
    extended_hours : keep bars before the open and after the close of shares; Lean, too, leaves them out by default.

    A symbol means the company that has the ticker at the end, through all the tickers that it had before; bars of others who
    had them are never its own. Where the zips of one of its tickers are absent, its bars have a gap. `FB@1999-08-10` means an
    earlier company: the one whose map file begins on that day, else whoever had the ticker from that day until a company with a
    map file took it; of that one no splits and dividends are known.
    """

    price_kind: Literal["raw"] = "raw"

    def __init__(
        self, path: str, *, market: Market = "equity", reference: str | None = "beside", names: Sequence[str] | None = None,
        tz: str | None = None, extended_hours: bool = False,
    ) -> None:  # fmt: skip
        # A worker's current folder is not the driver's.
        folder = Path(path).expanduser().absolute()
        self.path, self.names = str(folder), names
        self.market: Market = market
        self.calendar, self.tz, self.extended_hours = _CALENDARS[market], tz or _ZONES[market], extended_hours
        self.reference: str | None = None
        if market == "equity" and reference is not None:
            self.reference = str(folder.parent if reference == "beside" else Path(reference).expanduser().absolute())

    def symbols(self) -> list[str]:
        """All symbols, sorted; a ticker that its last company gave up is none, its bars are among that company's.

        Raises `MissingDataError` where there are no zips, or not those asked for.
        """
        if self.names is not None:
            for name in self.names:
                self._zips(name)
            return sorted(set(self.names))
        ever = self._holders
        return [ticker.upper() for ticker in self._tickers if ticker not in ever or ever[ticker][-1][1].ticker == ticker]

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol in `clean.BAR_SCHEMA`, sorted, not yet cleaned. Opens this symbol's zips only.

        A delisting that the map file knows is a last row without prices, on the session after it. Raises `DataError` (or
        below) with zip, line and value where something cannot be used.
        """
        _, company = self._who(symbol)
        parts = [read_zip(z).filter(pl.col("start").dt.date().is_between(s.start, s.end)) for s, z in self._zips(symbol)]
        bars = pl.concat(parts).sort("start")
        if self.market == "equity":
            # Not by Polars, which multiplies by the inverse: 0.21 would be 0.21000000000000002.
            bars = bars.with_columns(*[pl.Series(c, bars[c].to_numpy() / DECICENTS) for c in OHLC])
        if bars.height:
            bars = self._timed(bars, symbol)
        if not bars.height:
            raise MissingDataError(f"the zips of {symbol!r} in {self.path} hold no bar of its days and hours; leave it out with data.names")
        bars = with_events(bars, self._events(company)).with_columns(
            symbol=pl.lit(symbol), known_at=pl.col("timestamp"), tradable=pl.lit(True), delisted=pl.lit(False)
        ).select(*BAR_SCHEMA)  # fmt: skip
        return {"bars": bars if company is None or company.last >= ALIVE else _with_delisting(bars, company.last, self.calendar)}

    # --- who a symbol is, and where its zips lie

    @cached_property
    def _holders(self) -> dict[str, list[tuple[Span, Company]]]:
        return holders(read_companies(Path(self.reference) / "map_files")) if self.reference is not None else {}

    @cached_property
    def _tickers(self) -> list[str]:
        return tickers_in(Path(self.path))

    def _who(self, symbol: str) -> tuple[tuple[Span, ...], Company | None]:
        """A symbol's tickers and their days, and its company where one is known."""
        ticker, at, first = symbol.lower().partition("@")
        ever = self._holders.get(ticker, [])
        if at:
            return _since(symbol, ticker, first, ever)
        if self.reference is None:
            return (Span(ticker, *EVER),), None
        if not ever:
            raise MissingDataError(
                f"no file of {self.reference}/map_files names {symbol!r}, so nobody knows whose bars its zips hold; expected one: "
                f"add it, leave the symbol out with data.names, or set data.reference to null"
            )
        span, company = ever[-1]
        if company.ticker != ticker:
            now = company.ticker.upper()
            raise MissingDataError(f"{symbol} is what {now} was called until {span.end}; ask for {now} in data.names")
        return company.spans, company

    def _zips(self, symbol: str) -> list[tuple[Span, Zip]]:
        """The zips of each of the symbol's tickers; quotes only where there are no trades."""
        spans, _ = self._who(symbol)
        found = [(s, z) for s in spans for z in zips_of(Path(self.path), s.ticker) if z.day is None or s.start <= z.day <= s.end]
        if not found:
            near = did_you_mean(spans[-1].ticker, self._tickers)
            raise MissingDataError(f"{self.path} has no zip of {symbol!r} among {len(self._tickers)} tickers; check data.names.{near}")
        return [pair for pair in found if pair[1].kind == "trade"] or found

    def _events(self, company: Company | None) -> pl.DataFrame:
        if company is None or self.reference is None:
            return NO_EVENTS
        return read_events(Path(self.reference) / "factor_files" / f"{company.name}.csv")

    # --- times

    def _timed(self, bars: pl.DataFrame, symbol: str) -> pl.DataFrame:
        """With `timestamp` (bar end, UTC) and `session`, in place of `start` and `step`."""
        steps = bars["step"].unique().to_list()
        if len(steps) > 1:
            raise DataError(f"{symbol} has bars of {steps[0]} and of {steps[1]} in {self.path}; expected the folder of one resolution")
        if steps[0] == DAY:
            if self.market == "forex":
                raise ConfigError("daily bars of currencies end at midnight UTC, within a trading day; set data.path to the hour bars")
            days = with_sessions(bars.with_columns(session=pl.col("start").dt.date()), self.calendar, symbol)
            return days.rename({"closes": "timestamp"})
        start = bars["start"].dt.replace_time_zone(self.tz, ambiguous="earliest").dt.convert_time_zone("UTC").cast(UTC)
        ends = start + steps[0]
        if self.market == "forex":
            night = ends.dt.convert_time_zone(NEW_YORK).dt.replace_time_zone(None) + _FOREX_NIGHT
            session = (night - dt.timedelta(microseconds=1)).dt.date()
        else:
            session = local_dates(ends, self.calendar)
        bars = with_sessions(bars.with_columns(start=start, timestamp=ends, session=session), self.calendar, symbol)
        if self.market != "equity":
            return bars
        inside = (pl.col("timestamp") > pl.col("opens")) & (pl.col("start") < pl.col("closes"))
        # The last bar of a session may be cut short by the close.
        end = pl.when(inside & (pl.col("timestamp") > pl.col("closes"))).then("closes").otherwise("timestamp")
        return bars.filter(inside | pl.lit(self.extended_hours)).with_columns(timestamp=end)


def _since(
    symbol: str, ticker: str, first: str, ever: list[tuple[Span, Company]]
) -> tuple[tuple[Span, ...], Company | None]:  # fmt: skip
    """`TICKER@yyyy-MM-dd`: the company that began on that day, else the days from it on that no known company had the ticker."""
    try:
        day = dt.date.fromisoformat(first)
    except ValueError:
        raise ConfigError(f"data.names has {symbol!r}; expected a day after the @, such as {ticker.upper()}@1999-08-10") from None
    for span, company in ever:
        if company.first == day:
            return company.spans, company
        if span.start <= day <= span.end:
            raise MissingDataError(
                f"{symbol}: on that day a company had the ticker whose first day is {company.first}; "
                f"expected {ticker.upper()}@{company.first}"
            )
    later = [span.start for span, _ in ever if span.start > day]
    return (Span(ticker, day, min(later) - DAY if later else EVER[1]),), None


def _with_delisting(bars: pl.DataFrame, last: dt.date, calendar: str) -> pl.DataFrame:
    """With a row on the session after `last`, on which the company is gone."""
    after = schedule(calendar, last + DAY, last + 14 * DAY).head(1)
    gone = bars.tail(1).with_columns(
        *[pl.lit(None, pl.Float64).alias(c) for c in (*OHLC, "volume")], timestamp=pl.lit(after["close"][0]),
        known_at=pl.lit(after["close"][0]), session=pl.lit(after["session"][0]), dividend=pl.lit(0.0), split=pl.lit(1.0),
        tradable=pl.lit(False), delisted=pl.lit(True),
    ).cast(bars.schema)  # fmt: skip
    return pl.concat([bars, gone])
