import datetime as dt
import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import DocumentsData
from rlaif_ray.core import content_hash
from rlaif_ray.data import build_facts
from rlaif_ray.data.document_formats import moment
from rlaif_ray.data.documents import DocumentSource
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError

STORY = {"headline": "Apple up", "body": "Apple rose.", "symbols": ["AAPL"], "published": "2024-05-02T16:00:00Z", "source": "Wire"}
FOUR = dt.datetime(2024, 5, 2, 16, tzinfo=dt.UTC)


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path, symbol: str, **knobs: Any) -> pl.DataFrame:
    return DocumentSource(str(path), **knobs).read(symbol)["documents"]


def test_a_story_becomes_a_document_and_a_mention(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "news.jsonl", STORY | {"url": "http://x/1"}, {"about": "others", **STORY, "symbols": "MSFT", "body": "No."})
    source = pickle.loads(pickle.dumps(DocumentSource(str(path), latency_s=60)))
    assert source.symbols() == ["AAPL", "MSFT"]
    tables = source.read("AAPL")
    assert dict(tables["documents"].schema) == DOCUMENT_SCHEMA and dict(tables["mentions"].schema) == MENTION_SCHEMA
    name, known = content_hash(("Wire", FOUR.isoformat(), "Apple up", "Apple rose.")), FOUR + dt.timedelta(seconds=60)
    assert tables["documents"].rows() == [(name, FOUR, known, "news", None, "Wire", "Apple up", "Apple rose.", "http://x/1")]
    assert tables["mentions"].rows() == [("AAPL", FOUR, known, name)]


@pytest.mark.parametrize("symbols", ["AAPL,MSFT", "$AAPL; $MSFT", "['AAPL', 'MSFT']", ["AAPL", "MSFT", "AAPL"], "AAPL MSFT",
                                     [{"ticker": "AAPL", "relevance_score": "0.9"}, {"ticker": "MSFT"}]])  # fmt: skip
def test_several_symbols_a_story_however_written(tmp_path: Path, symbols: Any) -> None:
    source = DocumentSource(str(jsonl(tmp_path / "news.jsonl", STORY | {"symbols": symbols})))
    assert source.symbols() == ["AAPL", "MSFT"]
    assert source.read("AAPL")["documents"].equals(source.read("MSFT")["documents"])  # one document, two mentions


def test_the_same_story_twice_is_one_document(tmp_path: Path) -> None:
    later = STORY | {"symbols": ["MSFT", "AAPL"], "updated": "2024-05-03T00:00:00Z"}
    source = DocumentSource(str(jsonl(tmp_path / "news.jsonl", later, STORY, STORY)))
    documents = source.read("AAPL")["documents"]
    assert documents.height == 1 and documents["known_at"][0] == FOUR  # known when it was known first
    assert source.read("MSFT")["documents"]["id"].to_list() == documents["id"].to_list()


def test_a_changed_story_is_known_when_it_changed(tmp_path: Path) -> None:
    changed = STORY | {"body": "Apple fell.", "updated_at": "2024-05-03T00:00:00Z"}
    documents = read(jsonl(tmp_path / "news.jsonl", STORY, changed), "AAPL")
    assert documents["timestamp"].to_list() == [FOUR, FOUR] and documents["known_at"].dt.day().to_list() == [2, 3]


def test_who_names_nobody_is_about_the_market(tmp_path: Path) -> None:
    source = DocumentSource(str(jsonl(tmp_path / "news.jsonl", STORY, STORY | {"symbols": [], "body": "Rates rose."})))
    assert source.symbols() == ["AAPL", "MACRO"] and source.read("MACRO")["documents"]["text"].to_list() == ["Rates rose."]


def test_csv_in_the_usual_spellings(tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text('Date,Ticker,Title,Content,Publisher,Link\n2024-05-02 12:00,AAPL,Up,"Two\nlines, quoted",Wire,http://x\n'
                    "2024-05-02 13:00,AAPL,Down,,,\n")  # fmt: skip
    documents = read(path, "AAPL", publisher="desk")
    assert documents.select("timestamp", "source", "title", "text", "url").rows() == [
        (FOUR, "Wire", "Up", "Two\nlines, quoted", "http://x"), (FOUR + dt.timedelta(hours=1), "desk", "Down", "Down", None),
    ]  # fmt: skip
    assert read(path, "AAPL", tz="UTC")["timestamp"].dt.hour().to_list() == [12, 13]


NEWSAPI = {"status": "ok", "totalResults": 2, "articles": [
    {"source": {"id": None, "name": "Reuters"}, "author": "A", "title": "Up", "description": "Short.", "url": "http://x",
     "publishedAt": "2024-05-02T16:00:00Z", "content": "Long… [+900 chars]"},
    {"source": {"id": None, "name": "[Removed]"}, "author": None, "title": "[Removed]", "description": "[Removed]",
     "url": "https://removed.com", "urlToImage": None, "publishedAt": "1970-01-01T00:00:00Z", "content": "[Removed]"},
]}  # fmt: skip
ALPHA_VANTAGE = {"items": "1", "sentiment_score_definition": "x", "feed": [
    {"title": "Up", "url": "http://x", "time_published": "20240502T120000", "authors": ["A"], "summary": "Short.", "source": "Reuters",
     "source_domain": "reuters.com", "topics": [{"topic": "Technology", "relevance_score": "1.0"}], "overall_sentiment_score": 0.1,
     "ticker_sentiment": [{"ticker": "AAPL", "relevance_score": "0.5"}, {"ticker": "CRYPTO:BTC", "relevance_score": "0.1"}]},
]}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
def test_responses_of_newsapi_name_their_symbol_by_the_file(tmp_path: Path, indent: int | None) -> None:
    for symbol in ("AAPL", "MSFT"):
        (tmp_path / f"{symbol}.json").write_text(json.dumps(NEWSAPI, indent=indent))
    source = DocumentSource(str(tmp_path))
    assert source.symbols() == ["AAPL", "MSFT"]
    rows = source.read("MSFT")["documents"].select("timestamp", "source", "title", "text").rows()
    assert rows == [(FOUR, "Reuters", "Up", "Long… [+900 chars]")]  # what was withdrawn is no story


@pytest.mark.parametrize("indent", [None, 2])
def test_responses_of_alpha_vantage(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "av.json").write_text(json.dumps(ALPHA_VANTAGE, indent=indent))
    source = DocumentSource(str(tmp_path))
    assert source.symbols() == ["AAPL", "CRYPTO:BTC"]
    rows = source.read("CRYPTO:BTC")["documents"].select("timestamp", "source", "title", "text").rows()
    assert rows == [(FOUR, "Reuters", "Up", "Short.")]


def test_an_array_of_stories_and_packed_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([STORY]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(STORY | {"body": "Second."}).encode()))
    assert read(tmp_path, "AAPL")["text"].sort().to_list() == ["Apple rose.", "Second."]


def tweets(path: Path, *days: list[dict[str, Any]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for number, day in enumerate(days):
            packed = "\n".join(map(json.dumps, day)).encode()
            member = tarfile.TarInfo(f"{path.name.partition('.')[0]}/2014-01-0{number + 1}")
            member.size = len(packed)
            archive.addfile(member, io.BytesIO(packed))
    return path


def test_tweets_are_packed_by_ticker(tmp_path: Path) -> None:
    tweet = {"text": ["rt", "AT_USER", "$", "aapl", "up"], "created_at": "Wed Jan 01 03:59:03 +0000 2014", "user_id_str": "1"}
    tweets(tmp_path / "AAPL.tar.gz", [tweet], [tweet | {"created_at": "Thu Jan 02 00:00:00 +0000 2014"}])
    tweets(tmp_path / "XOM.tar.gz", [tweet])
    source = DocumentSource(str(tmp_path))
    assert source.symbols() == ["AAPL", "XOM"]
    first, second = source.read("AAPL")["documents"].select("timestamp", "kind", "source", "title", "text").rows()
    assert first == (dt.datetime(2014, 1, 1, 3, 59, 3, tzinfo=dt.UTC), "tweet", "twitter", None, "rt AT_USER $ aapl up")
    assert second[0] == dt.datetime(2014, 1, 2, tzinfo=dt.UTC)


def test_transcripts_and_notes_are_text_under_a_header(tmp_path: Path) -> None:
    head = "Symbol: AAPL\nPublished: 2024-05-02 12:00\nTitle: Q2 2024 call\nSource: Desk\n"
    (tmp_path / "one.txt").write_text(f"{head}Kind: transcript\n\nOperator: Good day.\n\nTim Cook: Thanks.\n")
    (tmp_path / "two.txt").write_bytes(f"{head}\n\nBuy.".replace("\n", "\r\n").encode())
    documents = read(tmp_path, "AAPL", kind="note").sort("kind")
    assert documents["kind"].to_list() == ["note", "transcript"] and documents["timestamp"].to_list() == [FOUR, FOUR]
    assert documents["text"].to_list() == ["Buy.", "Operator: Good day.\n\nTim Cook: Thanks."]


@pytest.mark.parametrize(
    ("text", "utc"),
    [("2024-05-02T16:00:00Z", "2024-05-02 16:00"), ("2024-05-02 12:00:00", "2024-05-02 16:00"), ("20240502T120000", "2024-05-02 16:00"),
     ("2024-05-02 16:00:00 UTC", "2024-05-02 16:00"), ("2024-05-02T18:00:00.5+02:00", "2024-05-02 16:00"),
     ("Thu, 02 May 2024 12:00:00 -0400", "2024-05-02 16:00"), ("Thu May 02 16:00:00 +0000 2024", "2024-05-02 16:00"),
     ("05/02/2024 12:00", "2024-05-02 16:00"), ("202405021200", "2024-05-02 16:00"), ("1714665600", "2024-05-02 16:00"),
     ("1714665600000", "2024-05-02 16:00"),
     ("2024-05-02", "2024-05-03 04:00"), ("20240502", "2024-05-03 04:00"), ("May 02, 2024", "2024-05-03 04:00"),  # at the day's end
     ("2024-11-03 01:30:00", "2024-11-03 06:30"),  # the clock was set back: the later of the two
     ("2024-03-10 02:30:00", None), ("yesterday", None), ("2024-13-01", None),
     ("9" * 30, None), ("9999-12-31", None), ("0001-01-01T00:00:00+14:00", None), ("Mon, 1 Jan 2020 00:00:00 +" + "9" * 20, None)],
)  # fmt: skip
def test_times_however_written(text: str, utc: str | None) -> None:
    found = moment(text, "America/New_York")
    assert (None if found is None else found.strftime("%Y-%m-%d %H:%M")) == utc


BAD = {
    "no text": (STORY | {"headline": "", "body": " "}, r"bad.jsonl line 2 has no text; expected a body"),
    "no time": ({k: v for k, v in STORY.items() if k != "published"}, r"bad.jsonl line 2: the time published is missing"),
    "bad time": (STORY | {"published": "soon"}, r"bad.jsonl line 2: the time published is 'soon'; expected one such as"),
    "bad update": (STORY | {"updated": "soon"}, r"bad.jsonl line 2: the time updated is 'soon'"),
    "no object": (["AAPL"], r"bad.jsonl line 2 holds list; expected one object a line"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_story_is_refused_by_file_and_line(tmp_path: Path, fault: str) -> None:
    row, says = BAD[fault]
    with pytest.raises(DataError, match=says):
        read(jsonl(tmp_path / "bad.jsonl", STORY, row), "AAPL")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("a.jsonl", json.dumps(STORY) + '\n{"headline": "x', r"a.jsonl line 2 is no JSON"),
     ("a.json", '{\n"articles": [\n{]}', r"a.json line 3 is no JSON"),
     ("a.json", '{"status": "error", "code": "apiKeyInvalid", "message": "Your API key is invalid"}', r"message: Your API key is invalid"),
     ("a.json", '{"Information": "rate limit is 25 requests"}', r"Information: rate limit is 25"),
     ("a.json", "[" + "9" * 5000 + "]", r"a.json is no JSON"), ("a.json", "[" * 100_000, r"a.json cannot be read"),
     ("a.json", "[1]", r"a.json item 1 is int; expected an object"),
     ("a.csv", "headline,published,symbol\nUp, or down,2024-05-02,AAPL\n", r"a.csv line 2 has not the .* cells of the header"),
     ("a.csv", "Date,Close\n2024-05-02,1\n", r"a.csv has a format that cannot be told from 'Date,Close'; expected JSON objects"),
     ("a.txt", "Dear all,\nbuy.\n", r"a.txt has a format that cannot be told from 'Dear all,'"),
     ("a.txt", "Symbol: AAPL\nno header\n\ntext", r"a.txt line 2 ends the header without an empty line"),
     ("a.txt", "Symbol: AAPL\nPublished: 2024-05-02", r"a.txt line 2 ends the header without an empty line"),
     ("a.jsonl", "\n \n", r"a.jsonl is empty; expected stories"),
     ("a.jsonl.gz", "not packed", r"a.jsonl.gz cannot be read .*gzip"), ("a.tar.gz", "not packed", r"a.tar.gz cannot be read")],
)  # fmt: skip
def test_a_bad_file_is_refused_by_name(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        DocumentSource(str(tmp_path)).symbols()
    assert "\n" not in str(caught.value)


def test_what_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"headline,published\n\xff\xfe,2024\n")
    with pytest.raises(SchemaError, match=r"a.csv cannot be read .*expected text in UTF-8"):
        DocumentSource(str(tmp_path)).symbols()


def test_wrong_knobs_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no stories"):
        DocumentSource(str(tmp_path)).symbols()
    path = jsonl(tmp_path / "news.jsonl", STORY)
    with pytest.raises(MissingDataError, match=r"asks for 'APPL'; no story .* Did you mean 'AAPL'"):
        DocumentSource(str(path), names=["APPL"]).symbols()
    jsonl(path, STORY | {"published": "2024-05-02 12:00"})
    with pytest.raises(ConfigError, match="tz is 'New York'; expected a zone"):
        read(path, "AAPL", tz="New York")


def test_later_stories_leave_what_was_known_before(tmp_path: Path) -> None:
    lake, path, now = Lake(str(tmp_path / "lake"), "news"), tmp_path / "news.jsonl", FOUR + dt.timedelta(hours=1)
    later = [
        STORY | {"body": "Second.", "published": "2024-05-02T18:00:00Z"},  # a later story
        STORY | {"body": "Apple fell.", "updated": "2024-05-03T00:00:00Z"},  # the same one, told otherwise
    ]  # fmt: skip
    served = []
    for rows in ([STORY], [STORY, *later]):
        for name, table in DocumentSource(str(jsonl(path, *rows))).read("AAPL").items():
            lake.append(name, table, "AAPL")
        served.append((lake.read("documents", as_of=now), lake.read("mentions", ["AAPL"], as_of=now)))
    assert all(a.equals(b) for a, b in zip(*served, strict=True)) and served[0][0]["text"].to_list() == ["Apple rose."]
    assert lake.read("documents").height == lake.read("mentions").height == 3


def test_the_section_builds_it() -> None:
    source = build_facts(DocumentsData(type="documents", path="x", kind="note", publisher="desk", names=("A",), tz="UTC", latency_s=5))
    assert isinstance(source, DocumentSource) and (source.kind, source.publisher, source.names) == ("note", "desk", ("A",))


def test_stocknet_tweets(real_data: Path) -> None:
    source = DocumentSource(str(real_data / "text" / "stocknet_tweets" / "[BX]*.tar.gz"))
    assert source.symbols() == ["BA", "XOM"]
    boeing, exxon = (source.read(symbol)["documents"] for symbol in source.symbols())
    assert boeing.height == 886 and exxon.height == 1625  # of 1,632: seven were told twice in the same second
    assert (boeing["timestamp"].min(), boeing["timestamp"].max()) == (
        dt.datetime(2014, 1, 2, 2, 2, 16, tzinfo=dt.UTC), dt.datetime(2015, 12, 31, 16, 33, 13, tzinfo=dt.UTC),
    )  # fmt: skip
    assert set(boeing["kind"]) == {"tweet"} and len(set(boeing["id"]) & set(exxon["id"])) == 17  # each once in the lake, with two mentions
