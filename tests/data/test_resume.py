"""An ingest that goes on from what the lake has: only what is newer is asked for, and all is as if it had come at once."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.cli import main
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.alpaca_news import AlpacaNews
from rlaif_ray.data.facts_on_ray import take_facts
from rlaif_ray.data.intake import read_clean
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import ingest
from rlaif_ray.data.receipts import Ingest
from rlaif_ray.data.resume import Span, as_told, bars_before
from rlaif_ray.data.sessions import bar_ends, schedule
from rlaif_ray.errors import RlaifError
from tests.data.bars import daily
from tests.data.clock import NOW, Clock
from tests.servers.alpaca import AlpacaRest, bar, days, dividend, midnight, minute, split, story

START = dt.date(2026, 9, 1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "set")


@pytest.fixture
def market(vendor: AlpacaRest, ray_session: None) -> AlpacaRest:
    """58 sessions of five symbols, as they stand on the 20th of November; the last bar of each is on another day."""
    sessions = days("2026-09-01", 58)
    vendor.bars = {
        ("1Day", "DAILY"): sessions,
        ("1Day", "NONE"): sessions[:48],  # nothing after the 6th of November
        ("1Day", "ONE"): [*sessions[:48], sessions[57]],
        ("1Day", "GAP"): [*sessions[:20], *sessions[22:48], *sessions[50:]],
        ("1Day", "HALT"): [*sessions[:39], *sessions[53:]],  # nothing from the 27th of October to the 16th of November
    }
    vendor.actions = {
        "reverse_splits": [split("HALT", "2026-10-27", 1, 10)],
        "cash_dividends": [dividend("GAP", "2026-11-10", "2026-11-18", 0.25), dividend("DAILY", "2026-10-12", "2026-11-18", 0.5)],
    }
    return vendor


def take(access: Access, lake: Lake, symbols: str = "DAILY NONE ONE GAP HALT", **knobs: Any) -> Ingest:
    given: dict[str, Any] = {"start": START} | knobs
    return ingest(AlpacaSource(tuple(symbols.split()), access=access, **given), lake)


def asked_from(vendor: AlpacaRest) -> dict[str, str]:
    """Day from which each symbol's bars were asked for; what was asked is forgotten."""
    found = {query["symbols"]: query["start"][:10] for path, query in vendor.asked if path == "/v2/stocks/bars"}
    vendor.asked.clear()
    return found


def test_what_comes_in_steps_is_what_would_have_come_at_once(
    market: AlpacaRest, access: Access, clock: Clock, lake: Lake, tmp_path: Path
) -> None:
    whole = Lake(str(tmp_path / "lake"), "whole")
    at_once = take(access, whole)
    assert at_once.rows == 5 * 58 and at_once.quality["GAP"]["gaps_filled"] == 4
    events = whole.read("bars").filter((pl.col("split") != 1) | (pl.col("dividend") != 0))
    assert events.select("symbol", pl.col("session").cast(pl.String), "split", "dividend").rows() == [
        ("DAILY", "2026-10-12", 1.0, 0.5), ("GAP", "2026-11-11", 1.0, 0.25), ("HALT", "2026-11-16", 0.1, 0.0)
    ]  # fmt: skip
    market.asked.clear()
    known = {}
    for now in ("2026-10-21T21:30:00Z", "2026-10-30T21:30:00Z", "2026-11-06T22:30:00Z", NOW):
        clock.set(now)
        before, in_steps = asked_from(market), take(access, lake)
        known[now] = lake.read("bars")
    assert asked_from(market) == {
        "DAILY": "2026-10-30", "NONE": "2026-10-30", "ONE": "2026-10-30", "GAP": "2026-10-30", "HALT": "2026-10-19"
    }  # fmt: skip
    assert before["ONE"] == "2026-10-23"
    assert lake.read("bars").equals(whole.read("bars"))
    assert all(lake.read("bars", as_of=dt.datetime.fromisoformat(now)).equals(then) for now, then in known.items())
    assert replace(in_steps, versions={}) == replace(at_once, versions={})
    assert take(access, lake).versions == in_steps.versions  # and again: nothing


def test_a_longer_span_and_a_new_symbol_are_asked_for_whole(market: AlpacaRest, access: Access, clock: Clock, lake: Lake) -> None:
    take(access, lake, "DAILY ONE", start=None, days=30)
    assert asked_from(market) == {"DAILY": "2026-10-21", "ONE": "2026-10-21"}
    assert take(access, lake, "DAILY ONE GAP", start=None, days=20).rows == 23 + 23 + 15
    assert asked_from(market) == {"DAILY": "2026-11-13", "ONE": "2026-11-13", "GAP": "2026-10-31"}
    assert take(access, lake, "DAILY ONE").rows == 2 * 58
    assert asked_from(market) == {"DAILY": "2026-09-01", "ONE": "2026-09-01"}
    # A month later, of which five days are asked for: what lies between is not known to have stood still.
    clock.set("2026-12-18T22:30:00Z")
    market.bars["1Day", "DAILY"] = market.bars["1Day", "ONE"] = days("2026-12-14", 5)
    assert take(access, lake, "DAILY ONE", start=None, days=5).rows == 2 * 5
    assert asked_from(market)["DAILY"] == "2026-12-13" and lake.read("bars", ["DAILY"]).height == 58 + 5


def test_a_correction_of_the_last_days_is_a_revision(market: AlpacaRest, access: Access, clock: Clock, lake: Lake) -> None:
    clock.set("2026-11-13T22:30:00Z")
    take(access, lake, "DAILY GAP")
    clock.set(NOW)
    market.bars["1Day", "DAILY"][49]["c"] += 7
    take(access, lake, "DAILY GAP")
    at = {"symbol": "DAILY", "session": dt.date(2026, 11, 10)}
    assert lake.read("bars").filter(**at)["close"][0] == lake.read("bars", revision="first").filter(**at)["close"][0] + 7
    assert take(access, lake, "DAILY GAP").quality["DAILY"]["rows"] == 58


def test_minutes_go_on_too(market: AlpacaRest, access: Access, clock: Clock, lake: Lake, tmp_path: Path) -> None:
    for symbol in ("A", "B"):
        market.bars["15Min", symbol] = [minute(t, 100.0, f"2026-11-{d}") for d in (18, 19, 20) for t in ("14:30", "14:45", "20:30")]
    market.bars["15Min", "B"][2]["v"] = 0.0  # a bar of the vendor's that stands still
    clock.set("2026-11-19T22:00:00Z")
    take(access, lake, "A B", timeframe="15Min", start=dt.date(2026, 11, 1))
    clock.set(NOW)
    in_steps = take(access, lake, "A B", timeframe="15Min", start=dt.date(2026, 11, 1))
    whole = Lake(str(tmp_path / "lake"), "whole")
    assert in_steps.quality == take(access, whole, "A B", timeframe="15Min", start=dt.date(2026, 11, 1)).quality
    assert lake.read("bars").equals(whole.read("bars")) and in_steps.rows == 2 * 3 * 26


def test_what_an_ingest_made_is_not_told_to_the_source_again(lake: Lake) -> None:
    flat = daily("A", [10.0, 10.0, 10.0, 11.0], volume=[5, 0, 5, 0], tradable=[True, False, True, False])
    gone = flat.tail(1).with_columns(
        pl.col("timestamp", "known_at") + dt.timedelta(days=1), session=dt.date(2020, 1, 8), close=None, delisted=True
    )
    lake.append("bars", pl.concat([flat, gone]).cast(flat.schema), "0")
    revised = flat[3:].with_columns(close=12.0)
    lake.append("bars", revised, "0", revised_at=dt.datetime(2020, 2, 1, tzinfo=dt.UTC))
    held = Span(dt.date(2020, 1, 2), dt.datetime(2020, 3, 1, tzinfo=dt.UTC))
    before = bars_before(lake, "A", held)
    assert before["close"].to_list() == [10.0, 10.0, 10.0, 12.0]
    assert as_told(before)["timestamp"].to_list() == [flat["timestamp"][k] for k in (0, 2, 3)]
    since = bars_before(lake, "A", Span(dt.date(2020, 1, 3), held.until))
    assert as_told(since)["close"].to_list() == [10.0, 10.0, 12.0]


@dataclass(frozen=True)
class Growing:
    """A source that goes on: quarters of an hour that lack some."""

    bars: pl.DataFrame
    until: dt.datetime
    series: str = "growing"

    def symbols(self) -> list[str]:
        return ["A"]

    def span(self) -> Span:
        return Span(dt.date(2020, 1, 1), self.until)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        return {"bars": self.bars.filter(pl.col("timestamp") <= self.until)}

    def extend(self, symbol: str, bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
        assert bars["tradable"].all()  # what was made is not told back
        return {"bars": pl.concat([bars, self.read(symbol)["bars"].filter(pl.col("timestamp") > bars["timestamp"][-1])])}


def test_what_stood_still_is_no_change(lake: Lake) -> None:
    ends = bar_ends("XNYS", dt.date(2020, 1, 2), dt.date(2020, 1, 31), dt.timedelta(minutes=15), True, True)
    rows = pl.concat([daily("A", [10.0 + k]) for k in range(ends.height)])
    rows = rows.with_columns(timestamp=ends["timestamp"], known_at=ends["timestamp"], session=ends["session"])
    told = rows.filter(pl.int_range(pl.len()) % 7 != 3)
    before, after = (dt.datetime(2020, 1, day, 22, tzinfo=dt.UTC) for day in (30, 31))
    lake.append("bars", read_clean(Growing(told, before), "A", None, None, None, 0.0, "refuse")[1]["bars"], "0")
    stored = bars_before(lake, "A", Span(dt.date(2020, 1, 1), before))
    report, tables = read_clean(Growing(told, after), "A", stored, None, None, 0.0, "refuse")
    assert not isinstance(report, RlaifError) and report["rows"] == rows.height
    assert tables["bars"]["session"].unique().to_list() == [dt.date(2020, 1, 31)] and tables["bars"].height == 26


def test_stories_since_the_last_ingest(vendor: AlpacaRest, ray_session: None, access: Access, clock: Clock, lake: Lake) -> None:
    def asked(**knobs: Any) -> str:
        vendor.asked.clear()
        take_facts(AlpacaNews(("AAPL",), access=access, **knobs), lake)
        return vendor.asked[0][1]["start"][:10]

    vendor.news = [story(1, "2026-11-10T14:00:00Z"), story(2, "2026-11-18T10:00:00Z")]
    clock.set("2026-11-17T12:00:00Z")
    assert asked(days=30) == "2026-10-18" and lake.read("documents")["id"].to_list() == ["alpaca/1"]
    clock.set(NOW)
    assert asked(days=30) == "2026-11-16" and lake.read("documents")["id"].to_list() == ["alpaca/1", "alpaca/2"]
    assert asked(days=60) == "2026-09-21"
    assert asked(days=60) == "2026-11-19"


def test_so_many_days_as_they_are_typed(
    vendor: AlpacaRest, ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    sessions = schedule("XNYS", today - dt.timedelta(days=60), today - dt.timedelta(days=1))["session"]
    for symbol in ("AAPL", "MSFT"):
        vendor.bars["1Day", symbol] = [bar(midnight(day), 100.0 + k) for k, day in enumerate(sessions)]
    typed = [
        "ingest", "--data.type=alpaca", "--data.names=[AAPL, MSFT]", f"--data.url={vendor.url}", "--data.dataset=us",
        "--data.requests_per_minute=100000", f"--lake.uri={tmp_path / 'lake'}",
    ]  # fmt: skip
    wanted = sessions.filter(sessions >= today - dt.timedelta(days=30))
    assert main([*typed, "--data.days=30"]) == 0
    assert f"rows: {2 * len(wanted)}" in capsys.readouterr().out
    first = asked_from(vendor)["AAPL"]
    assert main([*typed, "--data.days=30"]) == 0
    assert f"rows: {2 * len(wanted)}" in capsys.readouterr().out and asked_from(vendor)["AAPL"] > first
