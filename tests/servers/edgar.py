"""EDGAR on loopback: data.sec.gov's JSON and www.sec.gov's archive by their wire formats, and its block page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.servers.loopback import Answer, Asked, Loopback, saying

BLOCK_PAGE = Answer(
    b"<!DOCTYPE html><html><head><title>SEC.gov | Your Request Originates from an Undeclared Automated Tool</title></head>"
    b"<body><h1>Your Request Originates from an Undeclared Automated Tool</h1></body></html>", 403, "text/html",
)  # fmt: skip
PAGE_FOR_JSON = Answer(b"<html><body>Scheduled maintenance</body></html>", 200, "text/html")
COLUMNS = ("accessionNumber", "filingDate", "reportDate", "acceptanceDateTime", "form", "primaryDocument")


def columns(*filings: tuple[str, str, str, str, str, str]) -> dict[str, list[str]]:
    """Rows in the order of COLUMNS as the submissions' lists of columns."""
    return {name: [row[i] for row in filings] for i, name in enumerate(COLUMNS)}


def submissions(ticker: str, recent: Mapping[str, Any], older: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"tickers": [ticker], "filings": {"recent": recent, "files": [{"name": name} for name in older]}}


def companyfacts(concepts: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """`us-gaap/Revenues` -> unit -> entries, as EDGAR nests them."""
    facts: dict[str, Any] = {}
    for name, units in concepts.items():
        taxonomy, concept = name.split("/")
        facts.setdefault(taxonomy, {})[concept] = {"label": concept, "description": "", "units": units}
    return {"cik": 1, "entityName": "X", "facts": facts}


def edgar(paths: Mapping[str, Any]) -> Loopback:
    """A server of `paths` (JSON values, or bytes of documents); the tickers name company 1 `AAA` and company 2 `BBB`."""
    listed = {"0": {"cik_str": 1, "ticker": "AAA", "title": "A"}, "1": {"cik_str": 2, "ticker": "BBB", "title": "B"}}

    def answer(asked: Asked) -> Answer:
        if "@" not in asked.headers.get("User-Agent", ""):
            return BLOCK_PAGE
        value = {"/files/company_tickers.json": listed, **paths}.get(asked.path)
        if value is None:
            return Answer(b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", 404, "application/xml")
        return Answer(value, kind="text/html") if isinstance(value, bytes) else saying(value)

    return Loopback(answer)


def write_folder(folder: Any, submission: Mapping[int, Any], facts: Mapping[int, Any]) -> None:
    """The same records as a folder of files."""
    for kind, records in (("submissions", submission), ("companyfacts", facts)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for cik, record in records.items():
            (folder / kind / f"CIK{cik:010d}.json").write_text(json.dumps(record))
