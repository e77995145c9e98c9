"""Stories as vendors write them: a file's format told by its content, its rows under our names, the line that each stands on.

Read are CSV with a header, JSON (one object a line, or an array), the responses of NewsAPI (`articles`) and Alpha Vantage
(`feed`), text under a header of `Key: value` lines, and tar archives of these.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rlaif_ray.data.spellings import DATES, EPOCH_UNITS, TIMES, plain
from rlaif_ray.errors import ConfigError, MissingDataError, SchemaError

_PLAIN_ENDINGS = (".csv", ".jsonl", ".ndjson", ".json", ".txt", ".tar")
ENDINGS = (*_PLAIN_ENDINGS, *(f"{ending}.gz" for ending in _PLAIN_ENDINGS), ".tgz")
# In order of preference: of those that are there and not empty the first is taken.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "title": ("headline", "title", "subject"),
    "text": ("body", "text", "content", "article", "story", "full_text", "transcript", "summary", "description", "abstract", "snippet"),
    "published": ("published", "published_at", "publishedat", "published_utc", "time_published", "timestamp", "datetime", "date_time",
                  "created_at", "date", "time"),
    "updated": ("updated", "updated_at", "updatedat", "modified", "modified_at", "last_modified"),
    "symbols": ("symbols", "tickers", "symbol", "ticker", "stocks", "stock", "ticker_sentiment"),
    "source": ("source", "publisher", "provider", "outlet", "site"),
    "url": ("url", "link", "article_url"),
    "kind": ("kind", "document_type", "doc_type"),
}  # fmt: skip
_MEANING = {name: (ours, rank) for ours, names in SPELLINGS.items() for rank, name in enumerate(names)}
_RESPONSES = ("articles", "feed")  # where NewsAPI and Alpha Vantage keep their stories
_COMPLAINTS = ("message", "Information", "Note", "Error Message")  # where they say that there are none
_WITHDRAWN = "[Removed]"  # NewsAPI's title of an article that it may no longer show
_FORMATS = (  # Twitter's first; fractions of seconds are read as ISO
    *((form, False) for form in ("%a %b %d %H:%M:%S %z %Y", "%Y%m%d%H%M%S", "%Y%m%d%H%M", *TIMES) if "%." not in form),
    *((form, True) for form in DATES),
)
csv.field_size_limit(2**30)  # a transcript is longer than the 128 KiB that Python takes a cell to be


@dataclass(frozen=True)
class Row:
    """One story as it was written: where it stands, and its fields under our names, none of them empty."""

    where: str
    fields: Mapping[str, str]
    symbols: tuple[str, ...]


def rows(path: Path, containing: str | None = None) -> Iterator[Row]:
    """The stories of a file, in its order.

    Parameters
    ----------
    containing : skip lines (of JSON) without this text before they are parsed.

    Raises `SchemaError` with the line for what cannot be read, or a format that cannot be told.
    """
    try:
        if re.search(r"\.(tar(\.gz)?|tgz)$", path.name.lower()):
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    if stream is not None:
                        with io.TextIOWrapper(stream, "utf-8-sig") as text:
                            yield from _stories(text, f"{path.name}/{member.name}", containing)
        else:
            opened: Any = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
                yield from _stories(text, path.name, containing)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error, tarfile.TarError, csv.Error, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise SchemaError(f"{path} cannot be read ({why}); expected text in UTF-8, or a gzip or tar archive of it") from None


def _stories(text: TextIO, name: str, containing: str | None) -> Iterator[Row]:
    for where, row in _raw(text, name, containing):
        fields = _fields(row)
        if fields.get("title") != _WITHDRAWN:
            yield Row(where, fields, _symbols(fields.pop("symbols", ())))


def _raw(text: TextIO, name: str, containing: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where a row stands and what it says, in the vendor's words."""
    lines = enumerate(text, start=1)
    number, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
    if not first:
        raise MissingDataError(f"{name} is empty; expected stories")
    if first.lstrip().startswith(("{", "[")):
        if _is_story(first):
            yield from _json_lines(chain([(number, first)], lines), name, containing)
        else:
            yield from _document(first + text.read(), name, number)
    elif re.match(r"[A-Za-z][\w -]*: ", first):
        yield f"{name} line {number}", _under_header(first + text.read(), name)
    elif {"title", "text"} & _fields(dict.fromkeys(next(csv.reader([first])), "?")).keys():
        table = csv.DictReader(chain([first], text))
        for row in table:
            where = f"{name} line {number + table.line_num - 1}"
            if None in row or None in row.values():
                raise SchemaError(f"{where} has not the {len(row)} cells of the header; expected commas inside a cell between quotes")
            yield where, row
    else:
        raise SchemaError(
            f"{name} has a format that cannot be told from {first.strip()[:60]!r}; expected JSON objects, one a line, the response of "
            f"NewsAPI (articles) or Alpha Vantage (feed), a CSV header with a headline or body, or 'Key: value' lines above a text"
        )


def _is_story(line: str) -> bool:
    """A story on a line of its own; else the line is a part of a document, or all of a response."""
    try:
        value = json.loads(line)
    except ValueError:
        return False
    if not isinstance(value, dict) or any(isinstance(value.get(k), list) for k in _RESPONSES):
        return False
    return bool({"published", "text", "title"} & _fields(value).keys())


def _json_lines(lines: Iterable[tuple[int, str]], name: str, containing: str | None) -> Iterator[tuple[str, Any]]:
    for number, line in lines:
        if (containing is not None and containing not in line) or not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SchemaError(f"{where} is no JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict):
            raise SchemaError(f"{where} holds {type(row).__name__}; expected one object a line")
        yield where, row


def _document(text: str, name: str, first_line: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The items of an array, or of a vendor's response."""
    try:
        whole: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"{name} line {first_line + error.lineno - 1} is no JSON ({error.msg}); expected a whole document") from None
    except ValueError as error:  # a number of thousands of digits
        raise SchemaError(f"{name} is no JSON ({error}); expected a whole document") from None
    found: dict[str, Any] = {"articles": whole} if isinstance(whole, list) else whole
    items = next((found[k] for k in _RESPONSES if isinstance(found.get(k), list)), None)
    if items is None:
        said = next((f"{k}: {found[k]}" for k in _COMPLAINTS if k in found), f"keys {sorted(found)[:8]}")
        raise SchemaError(f"{name} holds no stories ({said}); expected a list in articles (NewsAPI) or feed (Alpha Vantage)")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise SchemaError(f"{name} item {number} is {type(item).__name__}; expected an object")
        yield f"{name} item {number}", item


def _under_header(text: str, name: str) -> dict[str, str]:
    head, blank, body = text.replace("\r\n", "\n").partition("\n\n")
    pairs = [line.partition(":") for line in head.splitlines()]
    wrong = next((i for i, (_, colon, _) in enumerate(pairs, start=1) if not colon), None)
    if wrong is not None or not blank:
        raise SchemaError(f"{name} line {wrong or len(pairs)} ends the header without an empty line; expected one between header and text")
    return {key: value.strip() for key, _, value in pairs} | {"body": body}


_plain = lru_cache(maxsize=4096)(plain)


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    best: dict[str, tuple[int, Any]] = {}
    for key, value in row.items():
        ours, rank = _MEANING.get(_plain(key), ("", 0))
        if ours and (said := value if ours == "symbols" else _said(value)) and (ours not in best or rank < best[ours][0]):
            best[ours] = rank, said
    twitter = {"kind": "tweet", "source": "twitter"} if "user_id_str" in row else {}
    return twitter | {ours: said for ours, (_, said) in best.items()}


def _said(value: Any) -> str:
    """Text without its edges; tokens as one text; NewsAPI's {id, name} by its name."""
    if isinstance(value, dict):
        value = value.get("name")
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return "" if value is None else str(value).strip()


def _symbols(value: Any) -> tuple[str, ...]:
    """`AAPL`, `AAPL, $MSFT`, `['AAPL', 'MSFT']`, a list of these, or Alpha Vantage's objects with a `ticker`; each once."""
    items = [v.get("ticker") if isinstance(v, dict) else v for v in (value if isinstance(value, (list, tuple)) else [value])]
    names = [name for item in items if item is not None for name in re.split(r"[\s,;|\[\]'\"]+", str(item))]
    return tuple(dict.fromkeys(stripped for name in names if (stripped := name.lstrip("$"))))


def moment(text: str, tz: str) -> dt.datetime | None:
    """A time in UTC; None where it cannot be read, or does not exist in `tz`.

    A time without a zone is one of `tz`, the later of two where the clock was set back. A day without a time counts from its
    end: nobody knows when on it a story came out.
    """
    zone = _zone(tz)
    try:
        local, is_day = _read_time(text)
        if local is None:
            return None
        if is_day:
            local += dt.timedelta(days=1)
        if local.tzinfo is not None:
            return local.astimezone(dt.UTC)
        moved = local.replace(tzinfo=zone, fold=1).astimezone(dt.UTC)
        return moved if moved.astimezone(zone).replace(tzinfo=None) == local else None
    except (OverflowError, ValueError):  # beyond the years 1 to 9999
        return None


@lru_cache(maxsize=16)
def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(f"tz is {tz!r}; expected a zone such as America/New_York or UTC") from None


def _read_time(text: str) -> tuple[dt.datetime | None, bool]:
    """The time, with a zone if it names one, and whether it is a day only."""
    if re.fullmatch(r"\d{9,}(\.\d+)?", text) and not re.fullmatch(r"(19|20)\d{10}(\d\d)?", text):
        unit = next((u for u, least in reversed(EPOCH_UNITS) if float(text) >= least), "s")
        return dt.datetime.fromtimestamp(float(text) / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit], dt.UTC), False
    text = re.sub(r"\s*(UTC|GMT)$", "+00:00", text)
    try:
        return dt.datetime.fromisoformat(text), len(text) <= 10
    except ValueError:
        pass
    for form, is_day in _FORMATS:
        try:
            return dt.datetime.strptime(text, form), is_day
        except ValueError:
            continue
    try:
        return parsedate_to_datetime(text), False
    except ValueError:
        return None, False
