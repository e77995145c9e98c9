"""News from Alpaca (Benzinga's), as documents and the symbols that they name."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import polars as pl

from rlaif_ray.data.alpaca_access import THE_VENDOR, Access, sdk, spans
from rlaif_ray.data.resume import Span
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import SchemaError

OVERLAP = dt.timedelta(days=1)
SPAN = dt.timedelta(days=90)  # asked for at once: some 1,500 stories of a large name, 30 pages


@dataclass(frozen=True)
class AlpacaNews:
    """Stories with their full text.

    The vendor gives a story as it stands now. It is known from its last update on, not from its publication: what it said
    before is not in the answer. Read again after a later update, it is a new revision under the same id.

    Parameters
    ----------
    names : symbols whose stories are asked for.
    start, end : first and last day of the last update; `days` instead of `start`: so many days back. Default: ten years.
    access : keys, limits and patience.
    """

    names: tuple[str, ...]
    start: dt.date | None = None
    end: dt.date | None = None
    days: int | None = None
    access: Access = THE_VENDOR

    def symbols(self) -> list[str]:
        """All names, sorted. Raises `ConfigError` where the keys or the SDK are missing."""
        self.access.need()
        return sorted(set(self.names))

    series = "alpaca news"

    def span(self) -> Span:
        """From `start` to the end of the last day, or now. Raises `ConfigError` where `start` and `days` are given."""
        return Span(self.access.first_day(self.start, self.days), self.access.until(self.end))

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`documents` and this symbol's `mentions`, in the schemas of `tables`.

        A story that names two symbols comes with both, as the same row. Raises `DataError` (or below) with what the vendor said.
        """
        return self._told(symbol, self.span().first)

    def read_since(self, symbol: str, since: dt.datetime) -> dict[str, pl.DataFrame]:
        """As `read`, of stories that were updated since the day before a moment."""
        return self._told(symbol, max(self.span().first, (since - OVERLAP).date()))

    def _told(self, symbol: str, first: dt.date) -> dict[str, pl.DataFrame]:
        stories: dict[str, dict[str, Any]] = {}
        with self.access.client("news") as client:
            for start, end in spans(first, self.span().until, SPAN):
                found = client.get_news(sdk().NewsRequest(symbols=symbol, start=start, end=end, include_content=True, sort="asc"))
                # A story that is updated while its pages are turned comes twice; the later is how it stands.
                stories |= {row["id"]: row for row in map(_document, found.get("news") or [])}
        documents = pl.DataFrame(list(stories.values()), schema=DOCUMENT_SCHEMA).sort("known_at", "id")
        return {"documents": documents, "mentions": documents.with_columns(symbol=pl.lit(symbol)).select(*MENTION_SCHEMA)}


def _document(story: dict[str, Any]) -> dict[str, Any]:
    """One row of `documents`."""
    try:
        created, updated = (dt.datetime.fromisoformat(story[key]) for key in ("created_at", "updated_at"))
        number, source, title = story["id"], story["source"], story["headline"]
        bodies = [_plain(story.get(part) or "") for part in ("content", "summary", "headline")]
        known_at = max(created, updated)
    except (KeyError, TypeError, ValueError) as error:
        raise SchemaError(f"Alpaca gave a story as {str(story)[:200]} ({error!r}); expected id, source, headline and two times") from None
    return {
        "id": f"alpaca/{number}", "timestamp": created, "known_at": known_at, "kind": "news", "section": None,
        "source": f"alpaca/{source}", "title": title, "text": next(filter(None, bodies), ""), "url": story.get("url"),
    }  # fmt: skip


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def _plain(html: str) -> str:
    """The words of a page, tags and entities gone."""
    words = _Words()
    words.feed(html)
    words.close()
    return " ".join(" ".join(words.said).split())
