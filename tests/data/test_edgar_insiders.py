import datetime as dt

import pytest

from rlaif_ray.data.edgar_insiders import insider_facts, read_form4
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import DataError

MONDAY, TUESDAY = dt.date(2024, 5, 6), dt.date(2024, 5, 7)


def trade(code: str, shares: float, price: str | None, sold: bool = True, day: str = "2024-05-06") -> str:
    cost = '<footnoteId id="F1"/>' if price is None else f"<value>{price}</value>"
    return f"""
    <nonDerivativeTransaction>
      <securityTitle><value>Common Stock</value></securityTitle>
      <transactionDate><value>{day}</value></transactionDate>
      <transactionCoding><transactionFormType>4</transactionFormType><transactionCode>{code}</transactionCode>
        <equitySwapInvolved>0</equitySwapInvolved></transactionCoding>
      <transactionAmounts><transactionShares><value>{shares}</value></transactionShares>
        <transactionPricePerShare>{cost}</transactionPricePerShare>
        <transactionAcquiredDisposedCode><value>{"D" if sold else "A"}</value></transactionAcquiredDisposedCode></transactionAmounts>
      <postTransactionAmounts><sharesOwnedFollowingTransaction><value>1</value></sharesOwnedFollowingTransaction></postTransactionAmounts>
      <ownershipNature><directOrIndirectOwnership><value>D</value></directOrIndirectOwnership></ownershipNature>
    </nonDerivativeTransaction>"""


def form4(*trades: str, owners: tuple[int, ...] = (7,), issuer: int = 1, form: str = "4") -> bytes:
    who = "".join(
        f"<reportingOwner><reportingOwnerId><rptOwnerCik>{cik:010d}</rptOwnerCik><rptOwnerName>X</rptOwnerName></reportingOwnerId></reportingOwner>"
        for cik in owners
    )
    return f"""<?xml version="1.0"?>
    <ownershipDocument><schemaVersion>X0508</schemaVersion><documentType>{form}</documentType><periodOfReport>2024-05-06</periodOfReport>
      <issuer><issuerCik>{issuer:010d}</issuerCik><issuerName>A</issuerName><issuerTradingSymbol>AAA</issuerTradingSymbol></issuer>{who}
      <nonDerivativeTable>{"".join(trades)}</nonDerivativeTable>
      <derivativeTable><derivativeTransaction><transactionCoding><transactionCode>S</transactionCode></transactionCoding></derivativeTransaction></derivativeTable>
    </ownershipDocument>""".encode()


def at(hour: int, day: int = 8) -> dt.datetime:
    return dt.datetime(2024, 5, day, hour, tzinfo=dt.UTC)


def test_only_open_market_trades_count() -> None:
    xml = form4(
        trade("S", 100, "10.5"), trade("P", 30, "10", sold=False), trade("M", 500, "1", sold=False), trade("F", 40, "10"),
        trade("G", 60, "0"), trade("A", 70, "0", sold=False), trade("S", 12.5, "8", day="2024-05-07-05:00"),
    )  # fmt: skip
    report = read_form4(xml, "x")
    assert report.days == {MONDAY: (-70.0, -750.0), TUESDAY: (-12.5, -100.0)}
    assert (report.issuer_cik, report.owner_ciks, report.amends) == (1, (7,), False)


def test_a_day_is_the_sum_of_the_reports_known_by_then() -> None:
    facts = insider_facts("AAA", 1, [
        (at(22), "b", "4", form4(trade("P", 40, "10", sold=False), owners=(8,))),
        (at(21), "a", "4", form4(trade("S", 100, "10"))),
        (at(23), "c", "4", form4(trade("S", 5, "10"), issuer=2)),  # somebody else's stock
    ])  # fmt: skip
    assert facts.schema == FACT_SCHEMA
    rows = facts.select("name", "known_at", "value", "unit", "source_id").rows()
    assert rows == [
        ("form4/net_shares", at(21), -100.0, "shares", "a"), ("form4/net_shares", at(22), -60.0, "shares", "b"),
        ("form4/net_usd", at(21), -1000.0, "USD", "a"), ("form4/net_usd", at(22), -600.0, "USD", "b"),
    ]  # fmt: skip
    assert set(facts["timestamp"]) == {dt.datetime(2024, 5, 7, tzinfo=dt.UTC)} and set(facts["started"]) == {MONDAY}


def test_an_amendment_takes_the_place_of_what_its_owners_had_said() -> None:
    facts = insider_facts("AAA", 1, [
        (at(21), "a", "4", form4(trade("S", 100, "10"))), (at(22), "b", "4", form4(trade("S", 7, "10"), owners=(8,))),
        (at(21, 9), "c", "4/A", form4(trade("S", 10, "10"), form="4/A")),
    ])  # fmt: skip
    assert [r[6] for r in facts.rows() if r[3] == "form4/net_shares"] == [-100.0, -107.0, -17.0]


def test_a_price_that_is_not_stated_leaves_the_dollars_unsaid() -> None:
    facts = insider_facts("AAA", 1, [(at(21), "a", "4", form4(trade("S", 100, None)))])
    assert facts["name"].to_list() == ["form4/net_shares"]
    assert insider_facts("AAA", 1, []).schema == FACT_SCHEMA


def test_what_is_reported_later_changes_nothing_known_before() -> None:
    forms = ["4", "4", "4", "4/A", "4"]
    reports = [(at(10 + i), f"{i}", form, form4(trade("S", 10 + i, "2"), owners=(i % 2,), form=form)) for i, form in enumerate(forms)]
    whole = insider_facts("AAA", 1, reports)
    for cut in range(1, 5):
        known = whole.filter(whole["known_at"] <= reports[cut - 1][0])
        assert known.equals(insider_facts("AAA", 1, reports[:cut]))


@pytest.mark.parametrize("xml", [b"<html>", b"<a/>", form4(trade("S", 1, "x")), form4(trade("S", 1, "1", day="soon"))])
def test_what_is_no_form_4_is_named(xml: bytes) -> None:
    with pytest.raises(DataError, match="0000000001-24-000009 is no Form 4"):
        read_form4(xml, "0000000001-24-000009")
