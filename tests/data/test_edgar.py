import datetime as dt
import gzip
import json
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import EdgarFacts
from rlaif_ray.data import build_facts
from rlaif_ray.data.edgar import EdgarSource
from rlaif_ray.data.edgar_archive import EdgarApi, EdgarFolder
from rlaif_ray.data.edgar_facts import company_facts, filings
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, FACT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError
from tests.data.clock import Clock
from tests.data.test_edgar_insiders import form4, trade
from tests.servers.edgar import BLOCK_PAGE, PAGE_FOR_JSON, columns, companyfacts, edgar, submissions, write_folder
from tests.servers.loopback import BROKEN, CUT_JSON, TOO_FAST, TORN, Loopback

needs_edgartools = pytest.mark.skipif(find_spec("edgar") is None, reason="edgartools is not installed (extra edgar)")
WHO = "A Tester tester@example.com"
QUARTER, ANNUAL, INSIDER = "0000000001-24-000001", "0000000001-25-000002", "0000000001-24-000003"
OLDER = columns((QUARTER, "2024-02-01", "2023-12-31", "2024-02-01T16:31:00.000Z", "10-Q", "q.htm"))
RECENT = columns(
    (ANNUAL, "2025-02-03", "2024-12-31", "2025-02-03T16:31:00.000Z", "10-K", "k.htm"),
    (INSIDER, "2024-05-08", "2024-05-06", "2024-05-08T18:31:00.000Z", "4", "xslF345X05/form4.xml"),
)
PERIOD = {"start": "2023-10-01", "end": "2023-12-31"}
REVENUE = [
    {**PERIOD, "val": 100, "accn": QUARTER, "fy": 2024, "fp": "Q1", "form": "10-Q", "filed": "2024-02-01"},
    {**PERIOD, "val": 90, "accn": ANNUAL, "fy": 2025, "fp": "FY", "form": "10-K", "filed": "2025-02-03"},
]
FACTS = companyfacts({"us-gaap/Revenues": {"USD": REVENUE}})
FORM_4 = form4(trade("S", 100, "10"))
REPORT = b"<html><body>" + b"".join(
    f"<p><b>Item {n}. {title}</b></p>{f'<p>{text}</p>' * 30}".encode()
    for n, title, text in (("1A", "Risk Factors", "Things may break. "), ("7", "Management's Discussion", "Sales rose."))
) + b"</body></html>"  # fmt: skip


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def vendor() -> Loopback:
    return edgar({
        "/submissions/CIK0000000001.json": submissions("AAA", RECENT, ("CIK0000000001-submissions-001.json",)),
        "/submissions/CIK0000000001-submissions-001.json": OLDER,
        "/api/xbrl/companyfacts/CIK0000000001.json": FACTS,
        "/Archives/edgar/data/1/000000000124000003/form4.xml": FORM_4,
        "/Archives/edgar/data/1/000000000125000002/k.htm": REPORT,
    })  # fmt: skip


@pytest.fixture
def api(tmp_path: Path, clock: Clock) -> Callable[[str], EdgarApi]:
    """EDGAR at an address, with waits that take no time."""
    return lambda url: EdgarApi(WHO, 10, 5, url, url, str(tmp_path / "bucket"), clock, clock.sleep)


def folder(path: Path) -> EdgarFolder:
    write_folder(path, {1: submissions("AAA", RECENT)}, {1: FACTS})
    (path / "submissions" / "CIK0000000001-submissions-001.json.gz").write_bytes(gzip.compress(json.dumps(OLDER).encode()))
    (path / f"4_{INSIDER}").mkdir()
    (path / f"4_{INSIDER}" / "form4.xml.gz").write_bytes(gzip.compress(FORM_4))
    (path / "filings").mkdir()
    (path / "filings" / f"{ANNUAL}.html").write_bytes(REPORT)
    return EdgarFolder(str(path))


@pytest.mark.parametrize("said", [[], 5, {}, {"filings": None}, {"filings": {"recent": RECENT, "files": [1]}}])
def test_submissions_of_another_shape_are_one_line(tmp_path: Path, api: Callable[[str], EdgarApi], said: Any) -> None:
    archives: list[Any] = []
    if said != {"filings": {"recent": RECENT, "files": [1]}}:  # what a folder says of older pages it does not need
        write_folder(tmp_path / "edgar", {1: said}, {1: FACTS})
        archives.append(EdgarFolder(str(tmp_path / "edgar")))
    with edgar({"/submissions/CIK0000000001.json": said, "/api/xbrl/companyfacts/CIK0000000001.json": FACTS}).serving() as server:
        for archive in [*archives, api(server.url)]:
            with pytest.raises(SchemaError, match=r"(submissions.* is or holds|EDGAR's submissions lack) .*; expected") as caught:
                filings(archive.submissions(1), 90)
            assert "\n" not in str(caught.value)


def test_a_folder_and_the_interface_say_the_same(tmp_path: Path, api: Callable[[str], EdgarApi]) -> None:
    with vendor().serving() as server:
        server.faults.extend([TOO_FAST, BROKEN, TORN, CUT_JSON])
        source = EdgarSource(api(server.url), ["AAA"], ["4"])
        assert source.symbols() == ["AAA"]
        fetched = pickle.loads(pickle.dumps(source)).read("AAA")
        assert {a.headers["User-Agent"] for a in server.asked} == {WHO}
    saved = EdgarSource(folder(tmp_path), None, ["4"])
    assert saved.symbols() == ["AAA"]
    read = saved.read("AAA")
    assert fetched["facts"].equals(read["facts"]) and read["facts"].schema == FACT_SCHEMA
    assert read["facts"].select("name", "value", "known_at").rows() == [
        ("us-gaap/Revenues", 100.0, utc("2024-02-01T21:31")), ("us-gaap/Revenues", 90.0, utc("2025-02-03T21:31")),
        ("form4/net_shares", -100.0, utc("2024-05-08T22:31")), ("form4/net_usd", -1000.0, utc("2024-05-08T22:31")),
    ]  # fmt: skip
    assert read["documents"].schema == DOCUMENT_SCHEMA and not read["documents"].height


@needs_edgartools
def test_reports_become_documents_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGAR_LOCAL_DATA_DIR", str(tmp_path / "edgartools"))
    source = EdgarSource(folder(tmp_path / "saved"), None, ["10-K", "10-Q"])
    tables = source.read("AAA")
    documents = tables["documents"]
    assert documents.schema == DOCUMENT_SCHEMA and tables["mentions"].schema == MENTION_SCHEMA
    assert documents.select("kind", "section", "title", "source", "known_at").rows() == [
        ("10-K", "1A", "Risk Factors", "EDGAR", utc("2025-02-03T21:31")),
        ("10-K", "7", "Management's Discussion", "EDGAR", utc("2025-02-03T21:31")),
    ]
    assert documents["url"][0] == "https://www.sec.gov/Archives/edgar/data/1/000000000125000002/k.htm"
    assert documents["text"][0].count("Things may break.") == 30 and "Sales" not in documents["text"][0]
    assert tables["mentions"].select("symbol", "id").rows() == [("AAA", i) for i in documents["id"]]
    assert source.read("AAA")["documents"].equals(documents)  # the same ids again
    late = EdgarSource(source.archive, None, ["10-K"], start=dt.date(2025, 2, 4))
    assert not late.read("AAA")["documents"].height and late.read("AAA")["facts"].height == 2


def test_a_caller_without_a_name_is_refused_here_and_there(api: Callable[[str], EdgarApi]) -> None:
    for nobody in ("", "python-requests/2"):
        with pytest.raises(ConfigError, match=r"facts\.user_agent is .*a name and a mail address"):
            EdgarApi(nobody)
    with vendor().serving() as server:
        server.faults.append(BLOCK_PAGE)
        with pytest.raises(DataError, match=r"HTTP 403 .*Undeclared Automated Tool.*set facts\.user_agent"):
            EdgarSource(api(server.url), ["AAA"]).read("AAA")
        server.faults.append(PAGE_FOR_JSON)
        with pytest.raises(DataError, match=r"EDGAR answered /files/\S+ with content type 'text/html' \('Scheduled maintenance'\)"):
            EdgarSource(api(server.url), ["AAA"]).read("AAA")


def test_what_is_not_there_is_named(tmp_path: Path, api: Callable[[str], EdgarApi]) -> None:
    with vendor().serving() as server:
        with pytest.raises(MissingDataError, match=r"asks for 'AAB'.*Did you mean 'AAA'"):
            EdgarSource(api(server.url), ["AAB"]).symbols()
        with pytest.raises(MissingDataError, match=r"refused /submissions/CIK0000000002\.json with HTTP 404"):
            EdgarSource(api(server.url), ["BBB"]).read("BBB")
        with pytest.raises(ConfigError, match="ten thousand companies"):
            EdgarSource(api(server.url)).symbols()
        server.faults.extend([BROKEN] * 6)
        with pytest.raises(DataError, match=r"gave HTTP 500 'upstream failed' for /files/company_tickers\.json, 6 tries in turn"):
            EdgarSource(api(server.url), ["AAA"]).symbols()
    with pytest.raises(MissingDataError, match=r"holds no CIK<10 digits>\.json"):
        EdgarSource(EdgarFolder(str(tmp_path))).symbols()
    saved = folder(tmp_path / "saved")
    with pytest.raises(MissingDataError, match="have no 'ZZZ'"):
        EdgarSource(saved).read("ZZZ")
    (tmp_path / "saved" / "companyfacts" / "CIK0000000001.json").write_text('{"facts": {')
    with pytest.raises(DataError, match=r"CIK0000000001\.json is no JSON"):
        EdgarSource(EdgarFolder(saved.path), forms=()).read("AAA")


def test_a_company_without_submissions_waits_for_its_lag(tmp_path: Path) -> None:
    write_folder(tmp_path, {}, {1: FACTS})
    source = build_facts(EdgarFacts(type="edgar", path=str(tmp_path), lag_days=60))
    assert source.symbols() == ["CIK0000000001"]
    assert source.read("CIK0000000001")["facts"]["known_at"].to_list() == [utc("2024-03-01T00:00"), utc("2025-02-04T05:00")]


def filed_before(taxonomies: Any, day: str) -> Any:
    """EDGAR's company facts as they were."""
    return {
        taxonomy: {
            concept: {"units": {unit: [e for e in given if e["filed"] < day] for unit, given in body["units"].items()}}
            for concept, body in concepts.items()
        }
        for taxonomy, concepts in taxonomies.items()
    }


def as_of(facts: pl.DataFrame, at: dt.datetime, **key: Any) -> float:
    known = facts.filter(pl.col("known_at") <= at, *[pl.col(k) == v for k, v in key.items()])
    return known.sort("known_at")["value"][-1]


def test_figures_of_apple_and_nvidia_as_of_their_day(real_data: Path) -> None:
    source = EdgarSource(EdgarFolder(str(real_data / "fundamentals")), None, forms=())
    assert source.symbols() == ["AAPL", "NVDA"]
    apple, nvidia = source.read("AAPL")["facts"], source.read("NVDA")["facts"]
    assert (apple.height, nvidia.height) == (12_600, 15_806)  # of 24,579 and 26,903 entries: the rest repeats
    for facts in (apple, nvidia):
        assert facts["known_at"].null_count() == 0 and (facts["known_at"] >= facts["timestamp"]).all()

    # Fiscal 2014 Q1, filed 2014-01-28, a filing that the newest thousand do not reach back to: 90 days after the period.
    quarter = apple.filter(name="us-gaap/SalesRevenueNet", timestamp=utc("2013-12-29T00:00"), started=dt.date(2013, 9, 29))
    assert quarter.select("value", "known_at", "source_id").rows() == [(57_594e6, utc("2014-03-29T00:00"), "0001193125-14-024487")]

    # Fiscal 2009 was restated in January 2010, when sales of phones were no longer spread over two years.
    year = {"name": "us-gaap/SalesRevenueNet", "timestamp": utc("2009-09-27T00:00"), "started": dt.date(2008, 9, 28)}
    assert as_of(apple, utc("2010-01-25T23:00"), **year) == 36_537e6
    assert as_of(apple, utc("2010-01-26T05:00"), **year) == 42_905e6

    # NVIDIA split ten for one in June 2024; the 10-K of February 2025 says fiscal 2024 anew.
    year = {"name": "us-gaap/EarningsPerShareDiluted", "timestamp": utc("2024-01-29T00:00"), "started": dt.date(2023, 1, 30)}
    assert as_of(nvidia, utc("2024-02-21T21:36:57"), **year) == 11.93
    assert as_of(nvidia, utc("2025-02-26T21:48:32"), **year) == 11.93
    assert as_of(nvidia, utc("2025-02-26T21:48:33"), **year) == 1.19


def test_real_filings_that_come_later_change_nothing_known_before(real_data: Path) -> None:
    archive = EdgarFolder(str(real_data / "fundamentals"))
    for symbol, cik in archive.companies().items():
        page, answer = archive.submissions(cik)[0], archive.company_facts(cik)
        assert answer is not None
        whole = company_facts(symbol, answer, filings([page], 90), 90)
        for day in ("2016-02-01", "2020-08-01", "2024-06-10"):
            before = [i for i, filed in enumerate(page["filingDate"]) if filed < day]
            listed = filings([{name: [column[i] for i in before] for name, column in page.items()}], 90)
            then = company_facts(symbol, {"facts": filed_before(answer["facts"], day)}, listed, 90)
            at = utc(f"{day}T00:00")
            assert whole.filter(pl.col("known_at") <= at).equals(then.filter(pl.col("known_at") <= at))


@needs_edgartools
def test_the_text_of_apples_and_nvidias_reports(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGAR_LOCAL_DATA_DIR", str(tmp_path))
    source = EdgarSource(EdgarFolder(str(real_data / "fundamentals")), None)
    apple, nvidia = source.read("AAPL")["documents"], source.read("NVDA")["documents"]
    assert apple.group_by("kind").len().sort("kind").rows() == [("10-K", 23), ("10-Q", 11)] and nvidia.height == 23
    assert apple.filter(kind="10-K")["known_at"].unique().to_list() == [utc("2024-11-01T10:01:36")]
    assert nvidia["known_at"].unique().to_list() == [utc("2024-02-21T21:36:57")]
    assert apple["id"].n_unique() == apple.height
