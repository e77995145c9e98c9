import datetime as dt
from typing import Any

import polars as pl
import pytest

from rlaif_ray.data.edgar_facts import company_facts, filings
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import SchemaError
from tests.servers.edgar import columns, companyfacts

NAME = "us-gaap/Revenues"


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def accepted(form: str, filed: str, stamp: str) -> tuple[dt.datetime | None, dt.datetime]:
    row = filings([columns(("0000000001-24-000001", filed, "2023-12-31", stamp, form, "x.htm"))], 90).row(0, named=True)
    return row["accepted"], row["known_at"]


def entry(accession: str, filed: str, value: float, start: str | None = "2023-10-01") -> Any:
    said = {"end": "2023-12-31", "val": value, "accn": accession, "fy": 2023, "fp": "Q4", "form": "10-Q", "filed": filed}
    return said | ({"start": start} if start else {})


def facts_of(*entries: Any, pages: Any = (), lag_days: int = 90) -> pl.DataFrame:
    return company_facts("AAA", companyfacts({NAME: {"USD": list(entries)}}), filings(pages, lag_days), lag_days)


def test_a_z_that_is_new_yorks_clock_is_read_as_such() -> None:
    # Apple's 10-Q: 06:01 UTC would be one at night, when EDGAR is shut.
    assert accepted("10-Q", "2026-01-30", "2026-01-30T06:01:32.000Z") == (utc("2026-01-30T11:01:32"), utc("2026-01-30T11:01:32"))
    # Apple's 8-K in summer: as UTC it would be 12:30, which could be; the later reading is the safe one.
    assert accepted("8-K", "2025-07-31", "2025-07-31T16:30:25.000Z")[0] == utc("2025-07-31T20:30:25")


def test_a_z_that_is_utc_is_read_as_such() -> None:
    # NVIDIA's 8-K: 20:22 in New York would bear the next day's date.
    assert accepted("8-K", "2025-08-27", "2025-08-27T20:22:14.000Z")[0] == utc("2025-08-27T20:22:14")
    # NVIDIA's Form 4s: dated by the same day until 22:00, but EDGAR is shut after it, and at night.
    assert accepted("4", "2025-12-12", "2025-12-13T02:15:33.000Z")[0] == utc("2025-12-13T02:15:33")
    assert accepted("4", "2025-12-10", "2025-12-10T23:49:34.000Z")[0] == utc("2025-12-10T23:49:34")
    # Not told by anything: 18:30 may be either, so it is the later one, New York's.
    assert accepted("4", "2026-02-26", "2026-02-26T18:34:19.000Z")[0] == utc("2026-02-26T23:34:19")


def test_what_came_in_the_evening_is_public_the_next_morning() -> None:
    assert accepted("10-Q", "2024-08-02", "2024-08-01T18:03:34.000Z") == (utc("2024-08-01T22:03:34"), utc("2024-08-02T10:00:00"))
    # Friday 19:36 in New York, dated Monday.
    assert accepted("10-Q", "2023-08-28", "2023-08-25T23:36:34.000Z") == (utc("2023-08-25T23:36:34"), utc("2023-08-28T10:00:00"))
    # An insider's report is out at once, at whatever hour.
    assert accepted("4", "2023-10-03", "2023-10-03T21:09:17.000Z")[1] == utc("2023-10-04T01:09:17")


def test_a_filing_without_acceptance_is_known_late_and_never_before_its_day_is_over() -> None:
    assert accepted("10-K", "2024-01-15", "") == (None, utc("2024-03-31T00:00:00"))
    assert accepted("10-K", "2024-06-03", "") == (None, utc("2024-06-04T04:00:00"))


def test_the_first_filing_says_a_figure_and_repeats_say_nothing_new() -> None:
    page = columns(
        ("a", "2024-02-01", "2023-12-31", "2024-02-01T16:31:00.000Z", "10-Q", "a.htm"),
        ("b", "2025-02-03", "2024-12-31", "2025-02-03T16:31:00.000Z", "10-Q", "b.htm"),
        ("c", "2026-02-02", "2025-12-31", "2026-02-02T16:31:00.000Z", "10-Q", "c.htm"),
        ("d", "2026-03-02", "2025-12-31", "2026-03-02T16:31:00.000Z", "10-Q/A", "d.htm"),
    )
    facts = facts_of(
        entry("d", "2026-03-02", 100.0), entry("c", "2026-02-02", 90.0), entry("b", "2025-02-03", 100.0), entry("a", "2024-02-01", 100.0),
        pages=[page],
    )  # fmt: skip
    assert facts.schema == FACT_SCHEMA
    assert facts.select("value", "source_id").rows() == [(100.0, "a"), (90.0, "c"), (100.0, "d")]  # said, restated, restated back
    first = facts.row(0, named=True)
    assert first["known_at"] == utc("2024-02-01T21:31:00") and first["timestamp"] == utc("2024-01-01T00:00:00")
    assert (first["symbol"], first["name"], first["unit"], first["started"]) == ("AAA", NAME, "USD", dt.date(2023, 10, 1))


def test_periods_and_instants_are_keys_of_their_own() -> None:
    quarter, year = entry("a", "2024-02-01", 1.0), entry("a", "2024-02-01", 4.0, start="2023-01-01")
    instant = entry("a", "2024-02-01", 9.0, start=None)
    assert facts_of(quarter, year, instant).select("started", "value").rows() == [
        (None, 9.0), (dt.date(2023, 1, 1), 4.0), (dt.date(2023, 10, 1), 1.0),
    ]  # fmt: skip


def test_a_figure_of_a_filing_that_is_not_listed_waits_for_its_lag() -> None:
    assert facts_of(entry("x", "2024-02-01", 1.0))["known_at"].to_list() == [utc("2024-03-31T00:00:00")]
    assert facts_of(entry("x", "2024-02-01", 1.0), lag_days=60)["known_at"].to_list() == [utc("2024-03-01T00:00:00")]
    # Repeated as last year's figure and restated there: 90 days after its period that filing did not exist.
    facts = facts_of(entry("x", "2024-02-01", 1.0), entry("y", "2025-02-03", 2.0))
    assert facts["known_at"].to_list() == [utc("2024-03-31T00:00:00"), utc("2025-02-04T05:00:00")]


def test_a_first_value_that_never_stood_alone_is_left_out() -> None:
    """Two filings within the lag: the later one's acceptance is known before the first one's guess is over."""
    page = columns(("b", "2024-02-20", "2023-12-31", "2024-02-20T16:31:00.000Z", "10-Q/A", "b.htm"))
    facts = facts_of(entry("a", "2024-02-01", 1.0), entry("b", "2024-02-20", 2.0), pages=[page])
    assert facts.select("value", "known_at").rows() == [(2.0, utc("2024-02-20T21:31:00"))]


def test_what_is_filed_later_changes_nothing_known_before() -> None:
    days = [f"2024-{month:02d}-05" for month in range(2, 7)]
    entries = [entry(f"{i}", day, value) for i, (day, value) in enumerate(zip(days, [5.0, 5.0, 7.0, 7.0, 6.0], strict=True))]
    for listed in ([], [0, 2, 3], [1, 4]):
        rows = [(f"{i}", days[i], "2023-12-31", f"{days[i]}T16:31:00.000Z", "10-Q", "x") for i in listed]
        for cut in range(1, 5):
            whole, before = facts_of(*entries, pages=[columns(*rows)]), facts_of(*entries[:cut], pages=[columns(*rows[:cut])])
            at = utc(f"{days[cut]}T00:00:00")  # before filing `cut` came
            assert whole.filter(pl.col("known_at") <= at).equals(before.filter(pl.col("known_at") <= at))


def test_a_figure_of_a_day_that_is_not_over_is_known_when_it_is() -> None:
    page = columns(("a", "2023-12-31", "2023-12-31", "2023-12-29T16:31:00.000Z", "10-Q", "a.htm"))
    assert facts_of(entry("a", "2023-12-31", 1.0), pages=[page])["known_at"].to_list() == [utc("2024-01-01T00:00:00")]


def test_other_shapes_are_named() -> None:
    with pytest.raises(SchemaError, match=r"company facts of AAA are not as EDGAR writes them.*'end'"):
        company_facts("AAA", companyfacts({NAME: {"USD": [{"val": 1}]}}), filings([], 90), 90)
    with pytest.raises(SchemaError, match=r"lack \['accessionNumber', .* in None; expected its lists"):
        filings([None], 90)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SchemaError, match=r"lack \['acceptanceDateTime'\]"):
        filings([{k: v for k, v in columns().items() if k != "acceptanceDateTime"}], 90)


@pytest.mark.parametrize(
    ("cell", "says"),
    [({"val": "abc"}, "value is 'abc'"), ({"val": [1]}, r"value is '\[1\]'"), ({"val": float("inf")}, "value is 'inf'"),
     ({"end": "2023-13-01"}, "ended is '2023-13-01'"), ({"end": None}, "ended is 'None'"), ({"filed": "soon"}, "filed is 'soon'"),
     ({"start": 5}, "started is '5'")],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_named(cell: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError, match=rf"^company facts of AAA: {says} in \('{NAME}', .*; expected a (number|day such as 2020-01-31)$"):
        facts_of(entry("a", "2024-02-01", 1.0), entry("b", "2024-02-01", 2.0) | cell)


@pytest.mark.parametrize(
    ("column", "says"),
    [({"filingDate": ["2024-13-01"]}, r": filed is '2024-13-01'"), ({"acceptanceDateTime": ["soon"]}, r": stamp is 'soon'"),
     ({"reportDate": ["soon"]}, r": about is 'soon'"), ({"form": [5]}, " hold columns that are no table"),
     ({"form": []}, " hold columns that are no table"), ({"form": None}, r" lack \['form'\]")],
)  # fmt: skip
def test_submissions_that_cannot_be_read_are_named(column: dict[str, Any], says: str) -> None:
    page = columns(("a", "2024-02-01", "2023-12-31", "2024-02-01T16:31:00.000Z", "10-Q", "a.htm"))
    with pytest.raises(SchemaError, match=f"EDGAR's submissions{says}.*; expected") as caught:
        filings([{**page, **column}], 90)
    assert "\n" not in str(caught.value)
