import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import AlpacaNewsData
from rlaif_ray.data import build_facts
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.alpaca_news import AlpacaNews
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import ConfigError, DataError, SchemaError
from tests.servers.alpaca import AlpacaRest, story


def read(access: Access, symbol: str = "AAPL", **knobs: Any) -> dict[str, pl.DataFrame]:
    given: dict[str, Any] = {"days": 30} | knobs
    return AlpacaNews(("AAPL", "MSFT"), access=access, **given).read(symbol)


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_a_story_is_a_document_and_a_mention(vendor: AlpacaRest, access: Access) -> None:
    vendor.news = [story(24843171, "2026-11-18T14:00:00Z", symbols=["AAPL", "MSFT"], url="https://example.com/1")]
    tables = read(access)
    assert tables["documents"].schema == DOCUMENT_SCHEMA and tables["mentions"].schema == MENTION_SCHEMA
    assert tables["documents"].row(0, named=True) == {
        "id": "alpaca/24843171", "timestamp": moment("2026-11-18T14:00:00Z"), "known_at": moment("2026-11-18T14:00:00Z"),
        "kind": "news", "section": None, "source": "alpaca/benzinga", "title": "Headline 24843171", "text": "Body & soul of 24843171.",
        "url": "https://example.com/1",
    }  # fmt: skip
    other = read(access, "MSFT")
    assert other["documents"].equals(tables["documents"])
    assert [t["mentions"].select("symbol", "id").row(0) for t in (tables, other)] == [
        ("AAPL", "alpaca/24843171"), ("MSFT", "alpaca/24843171")
    ]  # fmt: skip
    assert dict(vendor.asked)["/v1beta1/news"]["include_content"] == "True"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": "<h1>A</h1><p>b&nbsp;c</p>"}, "A b c"), ({"content": "", "summary": "Short."}, "Short."),
        ({"content": None, "summary": None}, "Headline 1"),
    ],
)  # fmt: skip
def test_the_text_is_the_longest_form_that_there_is(vendor: AlpacaRest, access: Access, fields: dict[str, Any], text: str) -> None:
    vendor.news = [story(1, "2026-11-18T14:00:00Z", **fields)]
    assert read(access)["documents"]["text"].to_list() == [text]


def test_an_updated_story_is_known_from_its_update_on(vendor: AlpacaRest, access: Access) -> None:
    vendor.news = [story(1, "2026-11-18T14:00:00Z", "2026-11-19T09:00:00Z")]
    documents = read(access)["documents"]
    assert documents.select("timestamp", "known_at").row(0) == (moment("2026-11-18T14:00:00Z"), moment("2026-11-19T09:00:00Z"))


def test_pages_faults_and_spans_lose_nothing(vendor: AlpacaRest, access: Access) -> None:
    first = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    vendor.news = [story(k, (first + dt.timedelta(hours=12 * k)).strftime("%FT%TZ")) for k in range(600)]
    vendor.faults = ["", "429", "truncated", "", "500", "closed"]
    documents = read(access, days=None, start=dt.date(2026, 1, 1))["documents"]
    assert documents["id"].to_list() == [f"alpaca/{k}" for k in range(600)]
    with pytest.raises(ConfigError, match=r"data\.start is 2026-01-01 and data\.days 30"):
        read(access, start=dt.date(2026, 1, 1))


def test_what_is_newer_is_what_was_updated_since(vendor: AlpacaRest, access: Access) -> None:
    vendor.news = [story(1, "2026-11-10T14:00:00Z"), story(2, "2026-11-11T14:00:00Z", "2026-11-19T14:00:00Z")]
    found = AlpacaNews(("AAPL",), days=30, access=access).read_since("AAPL", moment("2026-11-18T10:00:00Z"))
    assert dict(vendor.asked)["/v1beta1/news"]["start"].startswith("2026-11-17T00:00")
    assert found["documents"]["id"].to_list() == ["alpaca/2"]


def test_nothing_there_is_two_empty_tables(vendor: AlpacaRest, access: Access) -> None:
    tables = read(access)
    assert tables["documents"].schema == DOCUMENT_SCHEMA and tables["mentions"].schema == MENTION_SCHEMA


@pytest.mark.parametrize(
    "fields", [{"updated_at": "yesterday"}, {"created_at": None}, {"created_at": "2026-11-18T14:00:00"}, {"content": 5}],
)
def test_a_story_that_cannot_be_read_is_named(vendor: AlpacaRest, access: Access, fields: dict[str, Any]) -> None:
    broken = story(1, "2026-11-18T14:00:00Z") | fields
    vendor.answer = lambda path, query: (200, {"news": [broken], "next_page_token": None})
    with pytest.raises(SchemaError, match=r"gave a story as \{'id': 1, .*expected id, source, headline and two times"):
        read(access)


def test_the_config_names_it() -> None:
    source = build_facts(AlpacaNewsData(type="alpaca_news", names=("AAPL",), days=3, requests_per_minute=1000))
    assert source == AlpacaNews(("AAPL",), days=3, access=Access(requests_per_minute=1000))


def test_law_a_later_update_changes_nothing_served_before(vendor: AlpacaRest, access: Access, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "set")

    def take_in() -> None:
        for name, frame in read(access).items():
            lake.append(name, frame, "0", revised_at=access.now())

    vendor.news = [story(1, "2026-11-18T14:00:00Z"), story(2, "2026-11-18T15:00:00Z")]
    take_in()
    before = moment("2026-11-19T00:00:00Z")
    known = [lake.read(name, as_of=before) for name in ("documents", "mentions")]
    vendor.news[0] |= {"updated_at": "2026-11-19T14:00:00Z", "content": "All was otherwise."}
    vendor.news.append(story(3, "2026-11-19T16:00:00Z"))
    take_in()
    assert all(lake.read(name, as_of=before).equals(k) for name, k in zip(("documents", "mentions"), known, strict=True))
    assert known[0].height == known[1].height == 2
    now = lake.read("documents").sort("id")
    assert now["text"].to_list() == ["All was otherwise.", "Body & soul of 2.", "Body & soul of 3."]
    assert now["known_at"][0] == moment("2026-11-19T14:00:00Z") and lake.read("mentions").height == 3


def test_wrong_keys_say_so(vendor: AlpacaRest, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPACA_API_KEY", "another")
    with pytest.raises(DataError, match=r"refused /v1beta1/news\?.* with HTTP 403"):
        read(access)
