"""The knobs of every source: one section each, told apart by `type`, a sentence of help under each field."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Data(Section):
    """What every source shares."""

    dataset: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the folder in the lake; default: the source's type and a hash of its settings."""
    start: dt.date | None = None
    """First day kept."""
    end: dt.date | None = None
    """Last day kept; nothing after it enters any stage."""
    latency_s: float = Field(default=0.0, ge=0)
    """Seconds from a bar's end until it can be known; a decision on the bar is made then."""
    bad_rows: Literal["refuse", "quarantine"] = "refuse"
    """A row that cannot be right, a file that cannot be read: end with one line, or set it apart with the reason and go on."""


class BarTable(Data):
    """Bars in a table whose columns have their usual spellings."""

    names: tuple[str, ...] | None = None
    """Keep these symbols only."""
    universe: str | None = None
    """YAML file of symbols (with sector and CIK) and a benchmark; gives `names` where they are not set."""
    stamp: Literal["auto", "start", "end", "date"] = "auto"
    """What a time stamp marks: the start or end of its bar, or a calendar day; auto: date for daily, start for shorter bars."""
    tz: str = "America/New_York"
    """Zone of stamps that carry none."""
    calendar: str = "XNYS"
    """Exchange calendar that says when sessions close."""
    adjustment: Literal["auto", "raw", "split_adjusted", "vendor_adjusted"] = "auto"
    """What was done to the prices before we got them; auto looks at the split days."""


class LeanData(Data):
    """Zips of QuantConnect's Lean: unadjusted bars, with splits, dividends and changes of ticker from its map and factor files."""

    type: Literal["lean"]
    path: str
    """Folder of one resolution, such as Data/equity/usa/daily."""
    market: Literal["equity", "crypto", "forex"] = "equity"
    """Whose prices, hours and calendar the zips have."""
    reference: str | None = "beside"
    """Folder of map_files and factor_files; beside: the one above `path`; null: tickers as they are, without splits and dividends."""
    names: tuple[str, ...] | None = None
    """Keep these symbols only; FB@1999-08-10 is who had the ticker from that day."""
    universe: str | None = None
    """YAML file of symbols (with sector and CIK) and a benchmark; gives `names` where they are not set."""
    tz: str | None = None
    """Zone of the zips' times where it is not the market's."""
    extended_hours: bool = False
    """Keep bars before the open and after the close."""


class FileData(BarTable):
    """A folder, glob or file of CSV (packed by gzip, zstd, or a file a zip) or Parquet tables."""

    type: Literal["csv", "parquet"]
    path: str
    """Folder, glob or file. Columns are recognised in their usual spellings."""
    symbol_pattern: str | None = None
    """Regular expression with one group that finds the symbol in a file's name; default: the part that differs."""


class SqlData(BarTable):
    """A database, asked by one query for one symbol at a time."""

    type: Literal["sql"]
    query: str
    """SELECT that gives one row a bar: symbol, time and prices, in columns of the usual spellings."""
    url_variable: str = "RLAIF_SQL_URL"
    """Environment variable that holds the SQLAlchemy URL of the database; the URL itself is never written anywhere."""


class KafkaData(BarTable):
    """Topics whose messages are bars, one JSON object each."""

    type: Literal["kafka"]
    topics: tuple[str, ...] = Field(min_length=1)
    """Topics, read from the earliest message to the latest."""
    servers: tuple[str, ...] = Field(min_length=1)
    """Brokers to ask first, as host:port."""


class YahooData(Data):
    """Daily bars of Yahoo through yfinance: keyless, unofficial, split-adjusted by the vendor, so not point in time."""

    type: Literal["yahoo"]
    names: tuple[str, ...] = Field(min_length=1)
    """Symbols, as Yahoo spells them: BRK-B, ^VIX, BTC-USD."""
    calendar: str = "XNYS"
    """Exchange calendar that says when sessions close."""
    base_url: str | None = None
    """Where the same service answers, such as a caching proxy; default: Yahoo."""


class AlpacaData(Data):
    """Raw bars of US stocks from Alpaca, with splits and dividends; keys in ALPACA_API_KEY and ALPACA_SECRET_KEY."""

    type: Literal["alpaca"]
    names: tuple[str, ...] = Field(min_length=1)
    """Symbols, as Alpaca spells them: BRK.B."""
    timeframe: Literal["1Min", "5Min", "15Min", "1Hour", "1Day"] = "1Day"
    """Size of a bar; hours are counted from the session's open."""
    days: int | None = Field(default=None, ge=1)
    """So many days back instead of a start; without either: ten years."""
    feed: Literal["iex", "sip", "delayed_sip", "otc", "boats", "overnight"] = "sip"
    """sip: the whole market, 16 minutes late; iex: one exchange, at once."""
    requests_per_minute: int = Field(default=200, ge=10)
    """What the account allows, over all processes of a machine."""
    url: str | None = None
    """Another address of the same service, such as its sandbox."""


class Sp500Data(Data):
    """Adjusted closes of 20 S&P 500 stocks, 1990-2022, as shipped with skfolio: close only, vendor-adjusted."""

    type: Literal["sp500"]


class SyntheticData(Data):
    """A market with a planted, known signal: every "it works" rests on it."""

    type: Literal["synthetic"] = "synthetic"
    n_symbols: int = Field(default=8, ge=2)
    """Symbols."""
    n_bars: int = Field(default=1500, ge=300)
    """Bars a symbol."""
    bar: Literal["1d", "15m", "1m"] = "1d"
    """Bar size."""
    seed: int = 0
    """Seed of the market itself, apart from the run's seed."""
    signal_strength: float = Field(default=1.0, ge=0)
    """s: multiplies the planted signal; 0 is pure noise."""
    drift: float = 0.0
    """Mean simple return a bar, the same for each symbol."""


class LeanOptionFacts(Section):
    """What option chains say of their underlyings: put/call ratios, volatility at the money, its slope and skew."""

    type: Literal["lean_options"]
    path: str
    """Folder such as Lean's option/usa/universes, one folder of days for each underlying; or the days of one underlying."""
    names: tuple[str, ...] | None = None
    """Keep these underlyings; for the days of one underlying, its name."""


class EdgarFacts(Section):
    """What companies filed with the SEC: figures, text by item, insiders' trades."""

    type: Literal["edgar"]
    path: str | None = None
    """Folder of EDGAR's records; default: EDGAR's web interface."""
    user_agent: str = ""
    """Who asks EDGAR: a name and a mail address, as it demands."""
    names: tuple[str, ...] | None = None
    """Tickers to keep; needed without a path."""
    forms: tuple[Literal["10-K", "10-Q", "8-K", "4"], ...] = ("10-K", "10-Q", "8-K", "4")
    """Forms whose documents are read, amendments with them: text by item, and of form 4 the trades; figures come anyway."""
    start: dt.date | None = None
    """First day of filing whose documents are read; figures come whole."""
    lag_days: int = Field(default=90, ge=60, le=90)
    """Days after its period's end when a filing counts as known whose acceptance time is missing."""
    per_second: float = Field(default=10.0, gt=0, le=10)
    """Requests a second, over all processes of a machine; EDGAR allows 10 from one caller, so share them out among machines."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for a connection, and for each piece of an answer."""


class MacroFacts(Section):
    """Economic series of FRED and ALFRED, each figure and revision from the day of its publication."""

    type: Literal["macro"]
    path: str | None = None
    """Folder of answers named <series>.json; default: FRED's web interface, with FRED_API_KEY from the environment."""
    names: tuple[str, ...] | None = None
    """Series to keep, such as UNRATE; needed without a path."""
    start: dt.date = dt.date(1776, 7, 4)
    """First day of publication asked for; what stood then counts as published then."""
    end: dt.date = dt.date(9999, 12, 31)
    """Last day of publication asked for."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for a connection, and for each piece of an answer."""


class DocumentsData(Section):
    """News, tweets, transcripts and notes from files; their format is told by their content."""

    type: Literal["documents"]
    path: str
    """Folder, glob or file: CSV, JSON, responses of NewsAPI or Alpha Vantage, text under a header, tar archives of these."""
    kind: str = "news"
    """What stories are that do not say it: news, transcript, note."""
    publisher: str = "unknown"
    """Source of stories that name none."""
    symbol_pattern: str | None = None
    """Regular expression with one group that finds the symbol in the name of a file whose stories name none."""
    names: tuple[str, ...] | None = None
    """Keep these symbols only."""
    tz: str = "America/New_York"
    """Zone of times that carry none; where it is not known, one west of the true one lets nothing be known early."""
    latency_s: float = Field(default=0.0, ge=0)
    """Seconds from a story's publication until it can be known."""


class AlpacaNewsData(Section):
    """News of US stocks from Alpaca with its text; keys in ALPACA_API_KEY and ALPACA_SECRET_KEY."""

    type: Literal["alpaca_news"]
    names: tuple[str, ...] = Field(min_length=1)
    """Symbols whose stories are asked for."""
    start: dt.date | None = None
    """First day of a story's last update."""
    end: dt.date | None = None
    """Last day of a story's last update."""
    days: int | None = Field(default=None, ge=1)
    """So many days back instead of a start; without either: ten years."""
    requests_per_minute: int = Field(default=200, ge=10)
    """What the account allows, over all processes of a machine."""
    url: str | None = None
    """Another address of the same service, such as its sandbox."""


DataConfig = Annotated[
    AlpacaData | FileData | KafkaData | LeanData | Sp500Data | SqlData | SyntheticData | YahooData, Field(discriminator="type")
]
FactsConfig = Annotated[AlpacaNewsData | DocumentsData | EdgarFacts | LeanOptionFacts | MacroFacts, Field(discriminator="type")]

SOURCES: dict[str, type[Data]] = {
    "csv": FileData, "parquet": FileData, "lean": LeanData, "alpaca": AlpacaData, "yahoo": YahooData, "sql": SqlData, "kafka": KafkaData,
    "sp500": Sp500Data, "synthetic": SyntheticData,
}  # fmt: skip
FACT_SOURCES: dict[str, type[Section]] = {
    "edgar": EdgarFacts, "macro": MacroFacts, "documents": DocumentsData, "alpaca_news": AlpacaNewsData, "lean_options": LeanOptionFacts,
}  # fmt: skip
