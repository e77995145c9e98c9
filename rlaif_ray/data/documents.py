"""News, tweets, transcripts and analyst notes from files, as `documents` and the `mentions` that tie them to symbols."""

from __future__ import annotations

import datetime as dt
import glob
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.document_formats import ENDINGS, Row, moment, rows
from rlaif_ray.data.files import symbols_of_names
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, MACRO
from rlaif_ray.errors import DataError, MissingDataError, SchemaError, did_you_mean


class DocumentSource:
    """Stories from files in any of the formats of `document_formats`, told apart by their content.

    Parameters
    ----------
    path : folder, glob or file.
    kind : what stories are that do not say it: news, transcript, note...
    publisher : source of stories that name none.
    symbol_pattern : regular expression with one group that finds the symbol in the name of a file whose stories name no
        symbols; None: the part of the names that differs.
    names : keep these symbols.
    tz : zone of times without one. Where it is not known, one west of the true one is safe: the story is known later.
    latency_s : seconds from publication until a story can be known.

    A story's `id` is the hash of what it says (source, time, title, text): told twice it is one document, with a mention for
    each symbol. It is known when it was published, or last updated where the file says so, plus the latency; a day without a
    time counts from its end. Its text is the body, else the summary, else the headline. In a file where some stories name
    symbols, the others are mentions of `MACRO`.
    """

    def __init__(
        self, path: str, *, kind: str = "news", publisher: str = "unknown", symbol_pattern: str | None = None,
        names: Sequence[str] | None = None, tz: str = "America/New_York", latency_s: float = 0.0,
    ) -> None:  # fmt: skip
        # A worker's current folder is not the driver's.
        self.path = str(Path(path).expanduser().absolute())
        self.kind, self.publisher, self.symbol_pattern, self.names = kind, publisher, symbol_pattern, names
        self.tz, self.latency_s = tz, latency_s

    def symbols(self) -> list[str]:
        """All symbols that a story names, sorted. Raises `MissingDataError` where there are no files, or not those asked for."""
        known = sorted({symbol for _, symbols in self._whom.values() for symbol in symbols})
        if self.names is None:
            return known
        for name in self.names:
            if name not in known:
                raise MissingDataError(f"names asks for {name!r}; no story of {self.path} names it.{did_you_mean(name, known)}")
        return sorted(set(self.names))

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`documents` and `mentions` of one symbol (`data.tables`), by time; opens the files that name it only.

        Raises `DataError` (or below) with file and line for a story without a text or a time.
        """
        stories = [self._story(row) for path, (_, symbols) in self._whom.items() if symbol in symbols for row in self._about(path, symbol)]
        told = pl.DataFrame(stories, DOCUMENT_SCHEMA, orient="row").sort("known_at", "id")
        documents = told.unique("id", keep="first", maintain_order=True)  # told twice, a story is known when it was known first
        mentions = documents.select(pl.lit(symbol).alias("symbol"), "timestamp", "known_at", "id")
        return {"documents": documents, "mentions": mentions}

    def _about(self, path: Path, symbol: str) -> Iterator[Row]:
        whom, _ = self._whom[path]
        # JSON may escape what is neither letter nor digit; who is not named cannot be looked for.
        letters = None if symbol == whom else max(re.findall(r"[A-Za-z0-9]+", symbol), key=len, default=None)
        return (row for row in rows(path, containing=letters) if symbol in (row.symbols or (whom,)))

    def _story(self, row: Row) -> tuple[object, ...]:
        published = self._moment(row, "published")
        updated = self._moment(row, "updated") if "updated" in row.fields else published
        title, url = row.fields.get("title"), row.fields.get("url")
        text = row.fields.get("text", title)
        if text is None:
            raise DataError(f"{row.where} has no text; expected a body, a summary or a headline: mend the file")
        source, kind = row.fields.get("source", self.publisher), row.fields.get("kind", self.kind)
        known_at = max(published, updated) + dt.timedelta(seconds=self.latency_s)
        return content_hash((source, published.isoformat(), title, text)), published, known_at, kind, None, source, title, text, url

    def _moment(self, row: Row, which: str) -> dt.datetime:
        value = row.fields.get(which)
        found = None if value is None else moment(value, self.tz)
        if found is None:
            seen = "missing" if value is None else repr(str(value))
            raise SchemaError(f"{row.where}: the time {which} is {seen}; expected one such as 2020-01-31 16:00:00 that exists in {self.tz}")
        return found

    @cached_property
    def _paths(self) -> list[Path]:
        path = Path(self.path)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.lower().endswith(ENDINGS) and p.is_file())
        else:
            found = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(self.path) if Path(p).is_file())
        if not found:
            raise MissingDataError(f"{path} holds no stories; expected a folder, file or glob of {', '.join(ENDINGS)}")
        return found

    @cached_property
    def _whom(self) -> dict[Path, tuple[str, frozenset[str]]]:
        """Of each file: whom its stories that name nobody are about, and all whom its stories are about."""
        named = {path: {symbol for row in rows(path) for symbol in row.symbols or (None,)} for path in self._paths}
        silent = [path for path, symbols in named.items() if symbols == {None}]
        by_name = dict(zip(silent, symbols_of_names(silent, self.symbol_pattern), strict=True)) if silent else {}
        # A story that names no company, among others that do, is about the market.
        whom = {path: by_name.get(path, MACRO) for path in named}
        return {path: (whom[path], frozenset(symbol or whom[path] for symbol in symbols)) for path, symbols in named.items()}
