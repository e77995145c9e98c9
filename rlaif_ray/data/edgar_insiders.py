"""Form 4 XML -> what insiders bought and sold in the open market, net, by day of trade."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

import polars as pl

from rlaif_ray.data.facts import first_said
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import DataError

OPEN_MARKET = ("P", "S")  # grants, exercises, gifts and tax withheld say little of what an insider thinks
_SIGNS = {"A": 1.0, "D": -1.0}


@dataclass(frozen=True)
class Form4:
    """One report. `days`: day of trade -> net shares, and net USD or None where a price is not stated."""

    issuer_cik: int
    owner_ciks: tuple[int, ...]
    amends: bool
    days: dict[dt.date, tuple[float, float | None]]


def read_form4(xml: bytes, where: str) -> Form4:
    """The open-market trades (codes P and S) in common stock of one report; bought counts up, sold down.

    Schema: EDGAR Ownership XML Technical Specification, `ownershipDocument`, `nonDerivativeTable`. Raises `DataError` that
    names `where` for what is no such document.
    """
    try:
        root = ElementTree.fromstring(xml)
        days: dict[dt.date, tuple[float, float | None]] = {}
        for trade in root.iterfind("nonDerivativeTable/nonDerivativeTransaction"):
            if _text(trade, "transactionCoding/transactionCode") not in OPEN_MARKET:
                continue
            day = dt.date.fromisoformat(_text(trade, "transactionDate/value")[:10])  # a zone may follow
            sign = _SIGNS[_text(trade, "transactionAmounts/transactionAcquiredDisposedCode/value")]
            shares = sign * float(_text(trade, "transactionAmounts/transactionShares/value"))
            price = trade.findtext("transactionAmounts/transactionPricePerShare/value")  # may stand in a footnote only
            days[day] = _plus(days.get(day, (0.0, 0.0)), (shares, None if price is None else shares * float(price)))
        owners = sorted(int(e.text or "") for e in root.iterfind("reportingOwner/reportingOwnerId/rptOwnerCik"))
        return Form4(int(_text(root, "issuer/issuerCik")), tuple(owners), _text(root, "documentType").endswith("/A"), days)
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise DataError(f"{where} is no Form 4 ({error!r}); expected EDGAR's ownershipDocument XML") from None


def insider_facts(symbol: str, cik: int, reports: Iterable[tuple[dt.datetime, str, str, bytes]]) -> pl.DataFrame:
    """`form4/net_shares` and `form4/net_usd` of each day of trade (`FACT_SCHEMA`), as each report made them known.

    Several insiders trade on one day and report at different times: the value is the sum over all reports known by then, so
    that a later report is a revision of the day. An amendment takes the place of what its owners had said of the day. Of a
    day with a trade whose price is not stated there is no `net_usd` from that report on.

    Parameters
    ----------
    reports : (known_at, accession, form, XML); those on other issuers than `cik` are left out.
    """
    told: dict[dt.date, dict[tuple[int, ...], tuple[float, float | None]]] = {}
    rows = []
    for known_at, accession, form, xml in sorted(reports):
        report = read_form4(xml, accession)
        if report.issuer_cik != cik:
            continue
        for day, traded in report.days.items():
            of_day = told.setdefault(day, {})
            before = of_day.get(report.owner_ciks, (0.0, 0.0))
            of_day[report.owner_ciks] = traded if report.amends else _plus(before, traded)
            shares, usd = 0.0, 0.0
            for one in of_day.values():
                shares, usd = _plus((shares, usd), one)
            ends = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
            rows.append((symbol, ends, known_at, "form4/net_shares", day, "shares", shares, form, accession))
            if usd is not None:
                rows.append((symbol, ends, known_at, "form4/net_usd", day, "USD", usd, form, accession))
    return first_said(pl.DataFrame(rows, FACT_SCHEMA, orient="row"))


def _plus(a: tuple[float, float | None], b: tuple[float, float | None]) -> tuple[float, float | None]:
    return a[0] + b[0], None if a[1] is None or b[1] is None else a[1] + b[1]


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text.strip()
