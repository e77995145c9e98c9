"""EDGAR: what companies filed with the SEC: figures, text by item, insiders' trades, each from when the public had it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.edgar_archive import EdgarApi, EdgarFolder, document_url
from rlaif_ray.data.edgar_facts import company_facts, filings
from rlaif_ray.data.edgar_insiders import insider_facts
from rlaif_ray.data.edgar_items import items
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, FACT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import ConfigError, MissingDataError, did_you_mean

INSIDERS = "4"


@dataclass(frozen=True)
class EdgarSource:
    """Facts, documents and mentions of companies. Picklable: holds strings and numbers.

    Parameters
    ----------
    archive : a folder of EDGAR's records, or EDGAR itself.
    names : tickers to keep; None: all of the folder.
    forms : of these the documents are read, amendments with them: `10-K`, `10-Q` and `8-K` as text by item, `4` as insiders'
        trades.
    start : first day of filing whose documents are read. Figures come whole, whatever the day.
    lag_days : where a filing's acceptance is not known, it counts as known so many days after the period that it is about.
    """

    archive: EdgarFolder | EdgarApi
    names: Sequence[str] | None = None
    forms: Sequence[str] = ("10-K", "10-Q", "8-K", INSIDERS)
    start: dt.date | None = None
    lag_days: int = 90

    def symbols(self) -> list[str]:
        """Tickers, sorted. Raises `MissingDataError` where there is none of that name."""
        if self.names is None and isinstance(self.archive, EdgarApi):
            raise ConfigError("facts.names is not set; EDGAR lists ten thousand companies: name the tickers to fetch, or set facts.path")
        return sorted(self._companies)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`facts`, `documents` and `mentions` of one symbol.

        Raises `DataError` (or below) where EDGAR's answer or a file is not as EDGAR writes it, `MissingDataError` for a
        symbol that is not there.
        """
        companies = self._companies
        if symbol not in companies:
            raise MissingDataError(f"EDGAR's records have no {symbol!r}.{did_you_mean(symbol, companies)}")
        cik = companies[symbol]
        filed = filings(self.archive.submissions(cik), self.lag_days)
        answer = self.archive.company_facts(cik)
        facts = [] if answer is None else [company_facts(symbol, answer, filed, self.lag_days)]
        facts.append(insider_facts(symbol, cik, self._reports(cik, filed)))
        documents = pl.DataFrame(list(self._documents(cik, filed)), DOCUMENT_SCHEMA, orient="row").unique("id", maintain_order=True)
        mentions = documents.select(pl.lit(symbol).alias("symbol"), "timestamp", "known_at", "id").cast(pl.Schema(MENTION_SCHEMA))
        return {"facts": pl.concat(facts).cast(pl.Schema(FACT_SCHEMA)), "documents": documents, "mentions": mentions}

    @cached_property
    def _companies(self) -> dict[str, int]:
        known = self.archive.companies()
        for name in self.names or ():
            if name not in known:
                raise MissingDataError(f"facts.names asks for {name!r}; EDGAR's records have no such ticker.{did_you_mean(name, known)}")
        return {name: known[name] for name in known if self.names is None or name in self.names}

    def _chosen(self, cik: int, filed: pl.DataFrame, forms: Sequence[str]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Filings on these forms with their documents, oldest first; those that the archive does not hold are left out."""
        chosen = filed.filter(pl.col("form").str.strip_suffix("/A").is_in(forms))
        if self.start is not None:
            chosen = chosen.filter(pl.col("filed") >= self.start)
        for filing in chosen.iter_rows(named=True):
            document = self.archive.document(cik, filing["accession"], filing["document"])
            if document is not None:
                yield filing, document

    def _reports(self, cik: int, filed: pl.DataFrame) -> list[tuple[dt.datetime, str, str, bytes]]:
        chosen = self._chosen(cik, filed, [INSIDERS]) if INSIDERS in self.forms else ()
        return [(filing["known_at"], filing["accession"], filing["form"], xml) for filing, xml in chosen]

    def _documents(self, cik: int, filed: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
        for filing, html in self._chosen(cik, filed, [f for f in self.forms if f != INSIDERS]):
            url = document_url(cik, filing["accession"], filing["document"])
            for item in items(html, filing["form"], f"{filing['document']} of {filing['accession']}"):
                identity = content_hash((filing["accession"], item.section, item.text))
                yield identity, filing["known_at"], filing["known_at"], filing["form"], item.section, "EDGAR", item.title, item.text, url
