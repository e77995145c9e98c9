"""The law, for every source: what `Lake.read(as_of=t)` serves does not change when anything known after t comes in."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray import config_data
from rlaif_ray.config_data import FACT_SOURCES, SOURCES
from rlaif_ray.core import UTC, Source
from rlaif_ray.data import build, build_facts, sources_on_ray
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.alpaca_news import AlpacaNews
from rlaif_ray.data.documents import DocumentSource
from rlaif_ray.data.edgar import EdgarSource
from rlaif_ray.data.housekeeping import status, verify
from rlaif_ray.data.intake import Whole, append_bars, append_facts, read_clean
from rlaif_ray.data.kafka import decoded
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.macro import FredSource
from rlaif_ray.data.options import LeanOptionSource
from rlaif_ray.data.resume import ReadableSince, Resume, bars_before
from rlaif_ray.data.sessions import bar_ends
from rlaif_ray.data.sources_on_ray import KafkaSource
from rlaif_ray.data.tables import table as table_of
from rlaif_ray.errors import RlaifError
from tests.data import test_documents, test_edgar, test_kafka, test_macro, test_options, test_yahoo
from tests.data.bars import sessions, write_csv
from tests.data.clock import Clock
from tests.data.lean_files import put_company, put_daily
from tests.data.test_alpaca import days, dividend, split
from tests.servers.alpaca import KEY, SECRET, AlpacaRest, story
from tests.servers.edgar import columns, companyfacts, submissions, write_folder
from tests.servers.fred import observations
from tests.servers.yahoo import Chart, yahoo_server

AT_FIRST, LATER = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2027, 2028))  # the two ingests: after all that is told
FACT_CLASSES = (DocumentSource, EdgarSource, FredSource, LeanOptionSource)
FIRST = dt.date(2020, 1, 2)
SERVED = ("bars", "facts", "documents", "mentions", "filings", "news")
# A changed story is another document; pasts that a vendor adjusts are rewritten, were never point in time and are marked so
# (`append_bars`); what a library ships, or a seed makes, is not restated.
NEVER_REVISED = {"documents", "yahoo", "sp500", "synthetic"}


@dataclasses.dataclass(frozen=True)
class Told:
    """A source, and how much of it there is already."""

    source: Source
    end: dt.date | None = None


Case = Callable[[Path, pytest.MonkeyPatch], Generator[Told, None, None]]


# --- each source as it is first, and as it is later: more rows, an old one changed, a restatement -------------------------------


def csv(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """LATE lags by three sessions and catches up; GONE lags by five and never comes again: it is taken as delisted."""
    up = [10.0 + k for k in range(60)]
    section = config_data.FileData(type="csv", path=str(place / "in"))
    for symbol, n in (("A", 30), ("B", 30), ("GONE", 25), ("LATE", 27)):
        write_csv(place / "in", symbol, up[:n])
    yield Told(build(section))
    for symbol in ("A", "B", "LATE"):
        write_csv(place / "in", symbol, [*up[:7], 17.5, *up[8:45]])
    yield Told(build(section))


def parquet(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    def put(n: int, changed: float) -> Source:
        day = pl.DataFrame({"Date": sessions(FIRST, n)["session"]})
        both = day.join(pl.DataFrame({"Ticker": ["A", "B"]}), how="cross").with_row_index("k")
        both.select("Date", "Ticker", Close=pl.when(pl.col("k") == 9).then(changed).otherwise(pl.col("k") + 10.0)).write_parquet(
            place / "all.parquet"
        )
        return build(config_data.FileData(type="parquet", path=str(place)))

    yield Told(put(20, 19.0))
    yield Told(put(33, 19.25))


def lean(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """The split of A is not in its factor file until later."""
    section = config_data.LeanData(type="lean", path=str(place / "daily"))
    put_daily(place, "a", FIRST, [100, 100, 49, 49, 50])
    put_company(place, "a", ["20200102,a", "20501231,a"])
    yield Told(build(section))
    put_daily(place, "a", FIRST, [100, 101, 49, 49, 50, 51, 52])
    put_company(place, "a", ["20200102,a", "20501231,a"], ["20200102,0.98,0.5,1", "20200103,0.98,0.5,100", "20501231,1,1,0"])
    yield Told(build(section))


def sql(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    pytest.importorskip("sqlalchemy")
    env.setenv("RLAIF_SQL_URL", f"sqlite:///{place / 'prices.db'}")
    section = config_data.SqlData(type="sql", query="SELECT ticker, day, close FROM prices")
    database = sqlite3.connect(place / "prices.db")
    try:
        database.execute("CREATE TABLE prices (ticker TEXT, day TEXT, close REAL)")
        rows = [(s, str(day), 10.0 + k) for s in "AB" for k, day in enumerate(sessions(FIRST, 12)["session"])]
        database.executemany("INSERT INTO prices VALUES (?, ?, ?)", [row for row in rows if row[2] < 18.0])
        database.commit()
        yield Told(build(section))
        database.executemany("INSERT INTO prices VALUES (?, ?, ?)", [row for row in rows if row[2] >= 18.0])
        database.execute("UPDATE prices SET close = 11.5 WHERE ticker = 'A' AND close = 11")
        database.commit()
        yield Told(build(section))
    finally:
        database.close()


def kafka(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """A correction is a later message about the same bar."""
    section = config_data.KafkaData(type="kafka", topics=("prices",), servers=("127.0.0.1:9",), tz="UTC")

    def topic(*messages: Any) -> Source:
        source = sources_on_ray.build(section)
        assert isinstance(source, KafkaSource)
        vars(source)["_messages"] = decoded(messages)  # what it would have read through Ray
        return source

    first = [test_kafka.message(k, s) for k in range(6) for s in "AB"]
    yield Told(topic(*first))
    yield Told(topic(*first, test_kafka.message(2, "A", c=12.25), *[test_kafka.message(k, s) for k in range(6, 9) for s in "AB"]))


def alpaca(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """A dividend is listed late, a split lies ahead."""
    with _alpaca(env) as vendor:
        source = build(config_data.AlpacaData(type="alpaca", names=("AAPL", "MSFT"), start=dt.date(2026, 10, 1)))
        assert isinstance(source, AlpacaSource)
        for symbol in source.names:
            vendor.bars["1Day", symbol] = days("2026-10-01", 20)
        yield Told(dataclasses.replace(source, access=_access(vendor, place, "2026-10-28T23:00:00Z")))
        for symbol in source.names:
            vendor.bars["1Day", symbol] = days("2026-10-01", 30)
        vendor.bars["1Day", "AAPL"][17]["c"] += 0.25  # of the last days, which are asked for again
        vendor.actions["cash_dividends"] = [dividend("MSFT", "2026-10-14", "2026-11-05", 0.5)]
        vendor.actions["forward_splits"] = [split("AAPL", "2026-11-05", 2, 1)]
        yield Told(dataclasses.replace(source, access=_access(vendor, place, "2026-11-20T23:00:00Z")))


def yahoo(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    pytest.importorskip("yfinance").set_tz_cache_location(str(place))
    with yahoo_server() as server:
        for n in (2, 3):  # it asks for another last day each time: yfinance remembers what it was answered
            server.charts["SRCLAW"] = Chart(test_yahoo.ROWS[:n])
            days = test_yahoo.DAYS
            yield Told(build(config_data.YahooData(type="yahoo", names=("SRCLAW",), start=days[0], end=days[n - 1], base_url=server.url)))


def sp500(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    source = build(config_data.Sp500Data(type="sp500"))
    yield Told(source, dt.date(1995, 5, 5))
    yield Told(source, dt.date(1996, 5, 5))


def synthetic(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    source = build(config_data.SyntheticData(n_symbols=3, n_bars=300))
    yield Told(source, dt.date(2024, 6, 28))
    yield Told(source)


def edgar(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """An annual report is amended: another revenue, another text. An insider's second trade of the day is filed later."""
    pytest.importorskip("edgar")
    env.setenv("EDGAR_LOCAL_DATA_DIR", str(place / "edgartools"))
    amended, late = "0000000001-25-000007", "0000000001-25-000008"
    older = (test_edgar.ANNUAL, "2025-02-03", "2024-12-31", "2025-02-03T16:31:00.000Z", "10-K", "k.htm")
    trade = (test_edgar.INSIDER, "2024-05-08", "2024-05-06", "2024-05-08T18:31:00.000Z", "4", "xslF345X05/form4.xml")
    newer = (amended, "2025-06-02", "2024-12-31", "2025-06-02T16:31:00.000Z", "10-K/A", "ka.htm")
    again = (late, "2025-06-03", "2024-05-06", "2025-06-03T18:31:00.000Z", "4", "xslF345X05/form4.xml")
    restated = test_edgar.REVENUE[1] | {"val": 80, "accn": amended, "form": "10-K/A", "filed": "2025-06-02"}
    section = config_data.EdgarFacts(type="edgar", path=str(place / "in"), forms=("10-K", "4"))

    def put(filed: Sequence[Any], revenue: list[dict[str, Any]], reports: dict[str, bytes]) -> Source:
        facts = companyfacts({"us-gaap/Revenues": {"USD": revenue}})
        write_folder(place / "in", {1: submissions("AAA", columns(*filed))}, {1: facts})
        for name, document in reports.items():
            path = place / "in" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(document)
        return build_facts(section)

    yield Told(put([older, trade], test_edgar.REVENUE, {
        f"filings/{test_edgar.ANNUAL}.html": test_edgar.REPORT, f"4_{test_edgar.INSIDER}/form4.xml": test_edgar.FORM_4,
    }))  # fmt: skip
    yield Told(put([again, newer, older, trade], [*test_edgar.REVENUE, restated], {
        f"filings/{amended}.html": test_edgar.REPORT.replace(b"Sales rose", b"Sales fell"), f"4_{late}/form4.xml": test_edgar.FORM_4,
    }))  # fmt: skip


def macro(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    for until in ("2020-05-28", "2020-12-31"):
        rows = [row for row in test_macro.GDP if row[0] <= until]
        (place / "GDP.json").write_text(json.dumps(observations(rows)))
        yield Told(build_facts(config_data.MacroFacts(type="macro", path=str(place))))


def documents(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    """A story is changed and told of another symbol; a file without times of update could not say so."""
    section = config_data.DocumentsData(type="documents", path=str(place))
    stories = [test_documents.STORY, test_documents.STORY | {"symbols": ["MSFT"], "body": "Microsoft too."}]
    test_documents.jsonl(place / "news.jsonl", *stories)
    yield Told(build_facts(section))
    changed = stories[0] | {"body": "Apple fell.", "symbols": ["AAPL", "MSFT"], "updated_at": "2024-05-04T12:00:00Z"}
    test_documents.jsonl(place / "news.jsonl", *stories, changed, stories[1] | {"published": "2024-05-03T09:00:00Z"})
    yield Told(build_facts(section))


def alpaca_news(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    with _alpaca(env) as vendor:
        source = build_facts(config_data.AlpacaNewsData(type="alpaca_news", names=("AAPL", "MSFT"), start=dt.date(2026, 11, 1)))
        assert isinstance(source, AlpacaNews)
        vendor.news = [story(1, "2026-11-18T14:00:00Z"), story(2, "2026-11-18T15:00:00Z", symbols=["AAPL", "MSFT"])]
        yield Told(dataclasses.replace(source, access=_access(vendor, place, "2026-11-18T21:00:00Z")))
        vendor.news[0] |= {"updated_at": "2026-11-19T14:00:00Z", "content": "All was otherwise.", "symbols": ["AAPL", "MSFT"]}
        vendor.news.append(story(3, "2026-11-19T16:00:00Z"))
        yield Told(dataclasses.replace(source, access=_access(vendor, place, "2026-11-20T21:00:00Z")))


def lean_options(place: Path, env: pytest.MonkeyPatch) -> Generator[Told, None, None]:
    section = config_data.LeanOptionFacts(type="lean_options", path=str(place))
    rows = (",,,1,1,1,100,7,,,,,,,", "20200201,100,C,1,1,1,1,4,9,0.2,0.5,,,,", "20200201,100,P,1,1,1,1,2,3,0.2,-0.5,,,,")
    test_options.put(place / "goog", *rows)
    yield Told(build_facts(section))
    test_options.put(place / "goog", *(row.replace("0.2", "0.3") for row in rows))
    test_options.put(place / "goog", *rows, day="20200103")
    yield Told(build_facts(section))


CASES: dict[str, Case] = {case.__name__: case for case in (
    csv, parquet, lean, sql, kafka, alpaca, yahoo, sp500, synthetic, edgar, macro, documents, alpaca_news, lean_options
)}  # fmt: skip


def _alpaca(env: pytest.MonkeyPatch) -> Any:
    env.setenv("ALPACA_API_KEY", KEY)
    env.setenv("ALPACA_SECRET_KEY", SECRET)
    return AlpacaRest().serving()


def _access(vendor: AlpacaRest, place: Path, now: str) -> Access:
    clock = Clock(now)
    return Access(vendor.url, bucket_file=str(place / "bucket"), clock=clock, sleep=clock.sleep)


# --- the law -------------------------------------------------------------------------------------------------------------------


def take_in(told: Told, lake: Lake, at: dt.datetime) -> None:
    """What an ingest at that moment does, without its cluster: sources that can go on from what the lake has do so."""
    source, symbols = told.source, sorted(told.source.symbols())[:4]
    resume = Resume.of(source, lake)
    held = {} if resume is None else resume.held
    if isinstance(source, ReadableSince):
        append_facts(lake, {s: source.read_since(s, held[s].until) if s in held else source.read(s) for s in symbols}, at)
    elif isinstance(source, FACT_CLASSES):
        append_facts(lake, {symbol: source.read(symbol) for symbol in symbols}, at)
    else:
        stored = {symbol: bars_before(lake, symbol, held[symbol]) for symbol in symbols if symbol in held}
        read = {symbol: read_clean(source, symbol, stored.get(symbol), None, told.end, 0.0, "quarantine") for symbol in symbols}
        reports: Any = {symbol: report for symbol, (report, _) in read.items()}
        assert not [report for report in reports.values() if isinstance(report, RlaifError)]
        append_bars(lake, {symbol: tables for symbol, (_, tables) in read.items()}, reports, Whole.of(source, reports), at)
    if resume is not None:
        resume.note(symbols, at)


def moments_of(lake: Lake) -> list[dt.datetime]:
    """From the first thing known to the last: on them and just before them."""
    known = pl.concat([lake.read(name)["known_at"] for name in lake.tables() if name in SERVED]).unique().sort()
    chosen = [known[round(share * (len(known) - 1))] for share in (0.0, 0.3, 0.7, 1.0)]
    return sorted({t - step for t in chosen for step in (dt.timedelta(0), dt.timedelta(microseconds=1))})


def served(lake: Lake, moments: Sequence[dt.datetime]) -> dict[tuple[str, dt.datetime], pl.DataFrame]:
    tables = [name for name in SERVED if name in lake.tables()]
    return {(name, t): lake.read(name, as_of=t, revision="all") for name in tables for t in moments}


def hold(lake: Lake, change: Callable[[], object]) -> None:
    """The law: `change` brings something, and nothing that was served before is otherwise, bit for bit."""
    moments = moments_of(lake)
    before, rows = served(lake, moments), sum(lake.read(name, revision="all").height for name in lake.tables() if name in SERVED)
    change()
    for (name, t), frame in served(lake, moments).items():
        was = before.get((name, t), frame.clear())
        assert was.schema == frame.schema and was.equals(frame), f"what {name} said as of {t} has changed"
    assert sum(lake.read(name, revision="all").height for name in lake.tables() if name in SERVED) > rows


@pytest.mark.parametrize("name", sorted(SOURCES | FACT_SOURCES))
def test_what_is_known_later_changes_nothing_served_before(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in CASES, f"the source {name!r} has no case here: write what it tells first, and what later"
    lake, place = Lake(str(tmp_path / "lake"), "set"), tmp_path / "place"
    place.mkdir()
    with closing(CASES[name](place, monkeypatch)) as moments:
        first = next(moments)
        take_in(first, lake, AT_FIRST)
        hold(lake, lambda: take_in(next(moments), lake, LATER))
    revisions = status(lake).filter(pl.col("table").is_in(SERVED))["revisions"].sum()
    assert (revisions == 0) == (name in NEVER_REVISED)
    assert verify(lake) == []


def test_a_set_that_comes_in_steps_says_what_it_says_at_once(tmp_path: Path) -> None:
    """GONE ends after 12 sessions: whoever asks meanwhile sees it stand still, and on the eleventh session without it, gone."""
    lake, whole = (Lake(str(tmp_path / "lake"), name) for name in ("steps", "whole"))
    source = build(config_data.FileData(type="csv", path=str(tmp_path / "in")))
    for n in (12, 15, 22, 23, 30):
        for symbol in ("A", "B", "GONE"):
            write_csv(tmp_path / "in", symbol, [10.0 + k for k in range(n if symbol != "GONE" else 12)])
        take_in(Told(source), lake, LATER)
    take_in(Told(source), whole, LATER)
    assert lake.read("bars", revision="all").equals(whole.read("bars", revision="all"))
    gone = lake.read("bars", ["GONE"])
    assert gone.height == 23 and gone["delisted"].to_list() == [False] * 22 + [True]


def test_quarters_of_an_hour_that_come_in_steps_say_what_they_say_at_once(tmp_path: Path) -> None:
    """THIN's last trade of each session is before the close, and of the first it has few; what it lacks is told by then, or never."""
    lake, whole = (Lake(str(tmp_path / "lake"), name) for name in ("steps", "whole"))
    source = build(config_data.FileData(type="csv", path=str(tmp_path / "in"), stamp="end", tz="UTC"))
    (tmp_path / "in").mkdir()
    ends = bar_ends("XNYS", dt.date(2020, 1, 6), dt.date(2020, 1, 10), dt.timedelta(minutes=15), True, True)["timestamp"].to_list()

    def put(n: int) -> Told:
        for symbol in ("A", "THIN"):
            kept = [k for k in range(n) if symbol == "A" or (k % 26 < 22 and k % 5 and not 4 < k < 26)]
            lines = [f"{ends[k]:%Y-%m-%d %H:%M:%S},{10 + k},{11 + k},{9 + k},{10 + k},1000" for k in kept]
            (tmp_path / "in" / f"{symbol}.csv").write_text("\n".join(["Datetime,Open,High,Low,Close,Volume", *lines]) + "\n")
        return Told(source)

    take_in(put(26), lake, LATER)
    for n in (52, 78, 104, 130):
        hold(lake, lambda n=n: take_in(put(n), lake, LATER))
    take_in(Told(source), whole, LATER)
    assert lake.read("bars", revision="all").equals(whole.read("bars", revision="all"))
    assert lake.read("bars", ["THIN"]).height == 4 + 4 * 26


def test_a_name_that_comes_back_after_it_was_taken_as_gone_is_alive(tmp_path: Path) -> None:
    """BACK has no bars from the second session to the fourteenth: on the twelfth it is gone, and from the next ingest on it was not."""
    lake = Lake(str(tmp_path / "lake"), "set")
    source = build(config_data.FileData(type="csv", path=str(tmp_path / "in"), stamp="end", tz="UTC"))
    ends = bar_ends("XNYS", dt.date(2020, 1, 6), dt.date(2020, 1, 28), dt.timedelta(minutes=15), True, True)["timestamp"].to_list()

    def put(n: int) -> Told:
        (tmp_path / "in").mkdir(exist_ok=True)
        for symbol in ("A", "BACK"):
            kept = [k for k in range(26 * n) if symbol == "A" or not 26 <= k < 26 * 14]
            lines = [f"{ends[k]:%Y-%m-%d %H:%M:%S},{10 + k},{11 + k},{9 + k},{10 + k},1000" for k in kept]
            (tmp_path / "in" / f"{symbol}.csv").write_text("\n".join(["Datetime,Open,High,Low,Close,Volume", *lines]) + "\n")
        return Told(source)

    take_in(put(14), lake, AT_FIRST)
    gone = lake.read("bars", ["BACK"]).tail(1)
    assert gone["delisted"][0]
    hold(lake, lambda: take_in(put(15), lake, LATER))
    back = lake.read("bars", ["BACK"])
    assert not back["delisted"].any() and back.height == 26 + 1 + 26
    row = back.row(26, named=True)
    assert [row[c] for c in ("timestamp", "open", "close", "volume", "tradable")] == [gone["timestamp"][0], 35.0, 35.0, 0.0, False]
    assert lake.read("bars", ["BACK"], as_of=LATER - dt.timedelta(seconds=1))["delisted"].any()
    rows = lake.read("bars", revision="all").height
    take_in(Told(source), lake, LATER)
    assert lake.read("bars", revision="all").height == rows


def test_a_canary_that_restates_the_past_in_its_own_name_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old row with another value and its old moment, as a table that is not held against the time of its fetching."""
    lake, moments = Lake(str(tmp_path / "lake"), "set"), csv(tmp_path, monkeypatch)
    take_in(next(moments), lake, AT_FIRST)
    changed = lake.read("bars").with_columns(pl.col("close") + 1.0)
    with pytest.raises(AssertionError, match="what bars said as of"):
        hold(lake, lambda: lake.append("bars", changed, "canary"))


@pytest.mark.parametrize("name", ["csv", "macro", "documents"])
def test_a_canary_that_back_dates_what_is_new_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that says of everything that it was known at the first moment of all."""
    lake, place = Lake(str(tmp_path / "lake"), "set"), tmp_path / "place"
    place.mkdir()
    moments = CASES[name](place, monkeypatch)
    take_in(next(moments), lake, AT_FIRST)
    early = moments_of(lake)[1]

    def back_dated() -> None:
        later = next(moments).source
        for symbol in sorted(later.symbols()):
            for table, frame in later.read(symbol).items():
                fresh = frame.unique(table_of(table).keys, keep="last", maintain_order=True)
                lake.append(table, fresh.with_columns(known_at=pl.lit(early, UTC)), "canary", revised_at=early)

    with pytest.raises(AssertionError, match="said as of"):
        hold(lake, back_dated)
