"""Where prices, filings and news come from, how they are made clean, and the lake they go to."""

from __future__ import annotations

from rlaif_ray.config_data import (
    AlpacaData,
    AlpacaNewsData,
    BarTable,
    DataConfig,
    DocumentsData,
    EdgarFacts,
    FactsConfig,
    FileData,
    KafkaData,
    LeanData,
    LeanOptionFacts,
    MacroFacts,
    Sp500Data,
    SqlData,
    SyntheticData,
    YahooData,
)
from rlaif_ray.core import Source
from rlaif_ray.errors import ConfigError


def build(section: DataConfig) -> Source:
    """The source that the `data` section names."""
    match section:
        case FileData():
            from rlaif_ray.data.files import FileSource

            return FileSource(
                section.path, kind=section.type, symbol_pattern=section.symbol_pattern, names=_names(section), stamp=section.stamp,
                tz=section.tz, calendar=section.calendar, adjustment=section.adjustment, bad_rows=section.bad_rows,
            )  # fmt: skip
        case LeanData():
            from rlaif_ray.data.lean import LeanSource

            return LeanSource(
                section.path, market=section.market, reference=section.reference, names=_names(section), tz=section.tz,
                extended_hours=section.extended_hours,
            )  # fmt: skip
        case SqlData():
            from rlaif_ray.data.sql import SqlSource

            return SqlSource(
                section.query, url_variable=section.url_variable, names=_names(section), stamp=section.stamp, tz=section.tz,
                calendar=section.calendar, adjustment=section.adjustment, bad_rows=section.bad_rows,
            )  # fmt: skip
        case KafkaData():
            raise ConfigError("data.type is kafka, which is read through Ray; expected sources_on_ray.build to build it")
        case YahooData():
            from rlaif_ray.data.yahoo import YahooSource

            return YahooSource(
                section.names, start=section.start, end=section.end, calendar=section.calendar, base_url=section.base_url,
                bad_rows=section.bad_rows,
            )  # fmt: skip
        case AlpacaData():
            from rlaif_ray.data.alpaca import AlpacaSource
            from rlaif_ray.data.alpaca_access import Access

            return AlpacaSource(
                section.names, section.timeframe, start=section.start, end=section.end, days=section.days, feed=section.feed,
                access=Access(section.url, section.requests_per_minute),
            )  # fmt: skip
        case Sp500Data():
            from rlaif_ray.data.bundled import Sp500Source

            return Sp500Source()
        case SyntheticData():
            from rlaif_ray.data.synthetic import SyntheticSource

            return SyntheticSource(
                section.n_symbols, section.n_bars, section.bar, section.seed, section.signal_strength, section.drift
            )  # fmt: skip


def build_facts(section: FactsConfig) -> Source:
    """The source of facts or documents that a `facts` section names."""
    match section:
        case LeanOptionFacts():
            from rlaif_ray.data.options import LeanOptionSource

            return LeanOptionSource(section.path, names=section.names)
        case EdgarFacts():
            from rlaif_ray.data.edgar import EdgarSource
            from rlaif_ray.data.edgar_archive import EdgarApi, EdgarFolder

            return EdgarSource(
                EdgarApi(section.user_agent, section.per_second, section.timeout_s) if section.path is None else EdgarFolder(section.path),
                section.names, section.forms, section.start, section.lag_days,
            )  # fmt: skip
        case MacroFacts():
            from rlaif_ray.data.macro import FredApi, FredFolder, FredSource

            return FredSource(
                FredApi(section.start, section.end, timeout_s=section.timeout_s) if section.path is None else FredFolder(section.path),
                section.names,
            )  # fmt: skip
        case DocumentsData():
            from rlaif_ray.data.documents import DocumentSource

            return DocumentSource(
                section.path, kind=section.kind, publisher=section.publisher, symbol_pattern=section.symbol_pattern,
                names=section.names, tz=section.tz, latency_s=section.latency_s,
            )  # fmt: skip
        case AlpacaNewsData():
            from rlaif_ray.data.alpaca_access import Access
            from rlaif_ray.data.alpaca_news import AlpacaNews

            return AlpacaNews(
                section.names, start=section.start, end=section.end, days=section.days,
                access=Access(section.url, section.requests_per_minute),
            )  # fmt: skip


def _names(section: BarTable | LeanData) -> tuple[str, ...] | None:
    """`data.names`, else those of the file that `data.universe` names."""
    if section.names is not None or section.universe is None:
        return section.names
    from rlaif_ray.data.files import load_universe

    return load_universe(section.universe).symbols
