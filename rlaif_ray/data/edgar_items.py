"""The text of a 10-K, 10-Q or 8-K by item."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rlaif_ray.errors import ConfigError, DataError

_HEADING = re.compile(r"(?im)^[ \t]*item[ \t]*\d+(?:\.\d+)?[a-c]?(?:\([a-z]\))?[ \t.:\-\u2013\u2014]*(.*)$")
_NEXT_PART = re.compile(r"\s*\n\s*part\s+[ivx]+\s*$", re.IGNORECASE)
_HEADING_WITHIN = 300  # characters: what may stand before it is a link back to the table of contents


@dataclass(frozen=True)
class Item:
    """`section`: `1A` (10-K), `II.1A` (10-Q, whose two parts number their items alike), `2.02` (8-K); None: the whole document."""

    section: str | None
    title: str | None
    text: str


def items(document: bytes, form: str, where: str) -> list[Item]:
    """The items of a filing's main document in their order; the whole text as one where it has no items, as exhibits have none.

    Where items begin and end is edgartools' finding: by the links of the table of contents, else by headings; the table itself
    is no item, and neither are the signatures. Raises `DataError` that names `where` for a document without text,
    `ConfigError` where edgartools is not installed.
    """
    found = _parse(document, form, where)
    parts = [
        _item(section.item, section.part, form, _plain(section.text())) for section in found.sections.values() if section.item is not None
    ]  # fmt: skip
    whole = [] if parts else [Item(None, None, _plain(found.text()))]
    told = [part for part in parts + whole if part.text]
    if not told:
        raise DataError(f"{where} holds no text; expected the HTML of a {form}")
    return told


def _parse(document: bytes, form: str, where: str) -> Any:
    try:
        # On first import it makes a folder of its own (EDGAR_LOCAL_DATA_DIR, else ~/.edgar), which is of no use here.
        from edgar.documents import HTMLParser, ParserConfig, ParsingError
    except ImportError as error:
        raise ConfigError(
            f"text of filings by item needs edgartools ({error}); pip install 'rlaif-ray[edgar]', or leave 10-K, 10-Q and 8-K out of "
            f"facts.forms"
        ) from None
    try:
        return HTMLParser(ParserConfig(form=form, extract_xbrl=False)).parse(document)
    except ParsingError as error:
        raise DataError(f"{where} cannot be read ({error}); expected the HTML of a {form}") from None


def _item(number: str, part: str | None, form: str, text: str) -> Item:
    heading = _HEADING.search(text, 0, _HEADING_WITHIN)
    if heading:
        text = text[heading.start() :].strip()
    title = heading[1].strip() if heading else ""
    if form.startswith("8-K"):
        number = f"{number[0]}.{number[1:]}"
    elif form.startswith("10-Q") and part:
        number = f"{part}.{number}"
    return Item(number, title or None, _NEXT_PART.sub("", text))


def _plain(text: str) -> str:
    return re.sub(r"[^\S\n]+", " ", text.replace("\xa0", " ")).strip()
