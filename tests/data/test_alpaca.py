import datetime as dt
import logging
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import AlpacaData
from rlaif_ray.data import build
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.clean import BAR_SCHEMA, clean
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import ConfigError, DataError, SchemaError
from tests.data.clock import NOW, Clock
from tests.servers.alpaca import KEY, SECRET, AlpacaRest, bar, days, dividend, minute, split


def read(access: Access, symbol: str = "AAPL", **knobs: Any) -> pl.DataFrame:
    given: dict[str, Any] = {"start": dt.date(2025, 1, 1)} | knobs
    return AlpacaSource(("AAPL", "MSFT"), access=access, **given).read(symbol)["bars"]


def test_a_day_is_stamped_at_its_sessions_close(vendor: AlpacaRest, access: Access) -> None:
    # New York's midnight in winter and summer; the day after Thanksgiving closes at 13:00.
    stamps = ["2025-11-26T05:00:00Z", "2025-11-28T05:00:00Z", "2026-03-06T05:00:00Z", "2026-03-09T04:00:00Z"]
    vendor.bars["1Day", "AAPL"] = [bar(s, 100.0 + k) for k, s in enumerate(stamps)]
    bars = read(access)
    assert bars.schema == BAR_SCHEMA
    ends = [dt.datetime(2025, 11, 26, 21), dt.datetime(2025, 11, 28, 18), dt.datetime(2026, 3, 6, 21), dt.datetime(2026, 3, 9, 20)]
    assert bars["timestamp"].to_list() == bars["known_at"].to_list() == [t.replace(tzinfo=dt.UTC) for t in ends]
    assert [str(d) for d in bars["session"]] == [s[:10] for s in stamps]
    assert bars.select("open", "high", "low", "close", "volume").row(1) == (101.0, 102.0, 100.0, 101.5, 100.0)
    asked = dict(vendor.asked)["/v2/stocks/bars"]
    assert {k: asked[k] for k in ("symbols", "timeframe", "adjustment", "feed")} == {
        "symbols": "AAPL", "timeframe": "1Day", "adjustment": "raw", "feed": "sip"
    }  # fmt: skip


def test_splits_and_dividends_lie_on_their_ex_dates(vendor: AlpacaRest, access: Access) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-10-05", 15)
    vendor.actions = {
        "forward_splits": [split("AAPL", "2026-10-07", 4, 1), split("AAPLW", "2026-10-08", 2, 1)],
        "reverse_splits": [split("AAPL", "2026-10-09", 1, 10)],
        # Paid a month later, which is the date that the vendor lists it by. A Saturday's goes to Monday.
        "cash_dividends": [dividend("AAPL", "2026-10-07", "2026-11-13", 0.25), dividend("AAPL", "2026-10-10", "2026-10-10", 0.1)],
        "stock_dividends": [dividend("AAPL", "2026-10-12", "2026-10-12", 0.05)],
    }
    bars = read(access)
    events = bars.filter((pl.col("split") != 1) | (pl.col("dividend") != 0)).select(pl.col("session").cast(pl.String), "split", "dividend")
    assert events.rows() == [("2026-10-07", 4.0, 0.25), ("2026-10-09", 0.1, 0.0), ("2026-10-12", 1.05, 0.1)]
    vendor.actions["forward_splits"].append({"symbol": "AAPL", "ex_date": "2026-10-08", "process_date": "2026-10-08", "new_rate": 2})
    with pytest.raises(SchemaError, match=r"an event of forward_splits as .*'old_rate'.*expected an ex_date and rates"):
        read(access)


def test_an_event_before_the_first_bar_is_none_of_ours(vendor: AlpacaRest, access: Access) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-10-05", 3)
    vendor.actions = {"forward_splits": [split("AAPL", "2026-10-02", 4, 1)]}
    assert read(access)["split"].to_list() == [1.0, 1.0, 1.0]


def test_minutes_carry_events_on_the_first_bar_of_the_day(vendor: AlpacaRest, access: Access) -> None:
    vendor.bars["5Min", "AAPL"] = [minute(t, 100.0, d) for d in ("2026-11-18", "2026-11-19") for t in ("14:30", "14:35")]
    vendor.actions = {"cash_dividends": [dividend("AAPL", "2026-11-19", "2026-12-10", 0.5)]}
    assert read(access, timeframe="5Min", days=10, start=None)["dividend"].to_list() == [0.0, 0.0, 0.5, 0.0]


def test_pages_make_one_table(vendor: AlpacaRest, access: Access, clock: Clock) -> None:
    vendor.bars["1Day", "AAPL"] = days("2025-01-02", 400)
    vendor.bars["1Day", "MSFT"] = days("2025-01-02", 10)
    whole = read(access)
    vendor.page, vendor.asked[:] = 7, []
    assert read(access).equals(whole) and whole.height == 400
    assert len([path for path, _ in vendor.asked if path.endswith("bars")]) == 58
    assert clean(whole, calendar="XNYS")[1]["gaps_filled"] == 0


def test_ten_years_unless_days_or_a_start_are_given(vendor: AlpacaRest, access: Access) -> None:
    def asked(**knobs: Any) -> tuple[str, str]:
        vendor.asked.clear()
        read(access, **knobs)
        query = dict(vendor.asked)["/v2/stocks/bars"]
        return query["start"][:16], query["end"][:16]

    assert asked(start=None) == ("2016-11-20T00:00", "2026-11-20T21:14")
    assert asked(start=None, days=30, feed="iex") == ("2026-10-21T00:00", "2026-11-20T21:30")
    assert asked(start=dt.date(2026, 1, 5), end=dt.date(2026, 2, 3)) == ("2026-01-05T00:00", "2026-02-04T00:00")
    with pytest.raises(ConfigError, match=r"data\.start is 2026-01-05 and data\.days 3; expected one of them"):
        read(access, start=dt.date(2026, 1, 5), days=3)


def test_long_spans_of_minutes_are_asked_for_in_pieces_without_loss(vendor: AlpacaRest, access: Access) -> None:
    spots = ["2026-01-02", "2026-04-01", "2026-04-02", "2026-07-01", "2026-11-20"]
    vendor.bars["1Min", "AAPL"] = [minute("15:00", 100.0 + k, day) for k, day in enumerate(spots)]
    bars = read(access, timeframe="1Min", start=dt.date(2026, 1, 1))
    assert bars["open"].to_list() == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert len([path for path, _ in vendor.asked if path.endswith("bars")]) == 4


@pytest.mark.parametrize(("feed", "kept"), [("iex", 3), ("sip", 2)])
def test_a_bar_that_has_not_ended_is_no_bar(vendor: AlpacaRest, access: Access, clock: Clock, feed: Any, kept: int) -> None:
    clock.set("2026-11-20T15:22:00Z")
    vendor.bars["15Min", "AAPL"] = [minute(t, 100.0) for t in ("14:30", "14:45", "15:00", "15:15")]
    assert read(access, timeframe="15Min", days=5, start=None, feed=feed).height == kept
    vendor.bars["1Day", "AAPL"] = days("2026-11-18", 3)
    assert str(read(access, feed=feed)["session"][-1]) == "2026-11-19"


def test_bars_end_where_they_end_and_only_the_session_counts(vendor: AlpacaRest, access: Access) -> None:
    # 2025-11-28 closes at 18:00 UTC.
    vendor.bars["5Min", "AAPL"] = [minute(t, 100.0, "2025-11-28") for t in ("09:00", "14:25", "14:30", "17:55", "18:00", "23:55")]
    bars = read(access, timeframe="5Min", start=dt.date(2025, 11, 20), end=dt.date(2025, 12, 1))
    assert [t.strftime("%H:%M") for t in bars["timestamp"]] == ["14:35", "18:00"]


def test_hours_are_counted_from_the_open(vendor: AlpacaRest, access: Access) -> None:
    halves = [f"{h:02d}:{m:02d}" for h in range(14, 22) for m in (0, 30)]
    vendor.bars["30Min", "AAPL"] = [minute(t, 100.0 + k, volume=1.0 + k) for k, t in enumerate(halves)]
    bars = read(access, timeframe="1Hour", days=3, start=None)
    assert [t.strftime("%H:%M") for t in bars["timestamp"]] == ["15:30", "16:30", "17:30", "18:30", "19:30", "20:30", "21:00"]
    # 14:30 and 15:00 are the second and third half hour.
    assert bars.select("open", "high", "low", "close", "volume").row(0) == (101.0, 103.0, 100.0, 102.5, 5.0)
    assert bars["volume"].sum() == sum(range(2, 15))


@pytest.mark.parametrize("fault", ["429", "500", "truncated", "cut", "closed"])
def test_what_passes_is_tried_again(vendor: AlpacaRest, access: Access, clock: Clock, fault: str) -> None:
    vendor.bars["1Day", "AAPL"], vendor.page = days("2026-01-05", 30), 10
    whole = read(access)
    vendor.asked.clear()
    vendor.faults = ["", fault, "", fault, fault]
    assert read(access).equals(whole)
    assert len(vendor.asked) == 1 + 3 + 3
    assert len(clock.slept) == 3 and max(clock.slept) <= 60.0


def test_a_silent_socket_is_given_up(vendor: AlpacaRest, access: Access, clock: Clock) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-01-05", 3)
    vendor.faults = ["mute"]
    hasty = Access(access.url, bucket_file=access.bucket_file, timeout_s=0.05, clock=clock, sleep=clock.sleep)
    assert read(hasty).height == 3


def test_no_sooner_than_the_vendor_says(vendor: AlpacaRest, access: Access, clock: Clock) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-01-05", 3)
    vendor.faults = ["429"]
    clock.now = 1_795_177_830.0 - 20.0
    read(access)
    assert clock.slept == [pytest.approx(20.0)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("429", "HTTP 429 'too many requests.'"), ("500", "HTTP 500 'internal server error'"),
        ("closed", r"no whole answer \(ConnectionError\)"), ("truncated", r"JSON that breaks off after \d+ bytes"),
        ("cut", r"no whole answer \(ChunkedEncodingError\)"),
    ],
)  # fmt: skip
def test_what_does_not_pass_is_one_clear_error(vendor: AlpacaRest, access: Access, clock: Clock, fault: str, says: str) -> None:
    vendor.faults = [fault] * 99
    with pytest.raises(DataError, match=rf"^Alpaca gave {says} for /v1/corporate-actions\?.*, 6 tries in turn; expected") as caught:
        read(access)
    assert len(vendor.asked) == 6 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("html", r"with content type 'text/html' \('Please log in'\); expected application/json"),
        ("array", r"with '\[\]'; expected a JSON object that holds 'bars'"),
        ("null", r"with '.*null.*'; expected a JSON object that holds 'bars'"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_not_tried_again(vendor: AlpacaRest, access: Access, fault: str, says: str) -> None:
    vendor.faults = ["", fault]
    with pytest.raises(DataError, match=rf"Alpaca answered /v2/stocks/bars\?\S+ {says}"):
        read(access)
    assert len(vendor.asked) == 2


def test_a_loop_of_page_tokens_is_noticed(vendor: AlpacaRest, access: Access) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-01-05", 30)
    vendor.faults = ["", *["loop"] * 9]
    with pytest.raises(DataError, match=r"answered /v2/stocks/bars\?.* with page token '7', the second time in one listing"):
        read(access)
    assert len(vendor.asked) == 3


def test_a_bar_that_is_none_is_named(vendor: AlpacaRest, access: Access) -> None:
    good = days("2026-01-05", 2)
    for broken, says in (
        ({"c": None}, r"as \{.*'c': None.*\}; expected"), ({"o": "much"}, "'o': 'much'"), ({"t": "Monday"}, "'t': 'Monday'"),
        ({"t": good[0]["t"]}, "two different bars of AAPL at 2026-01-05"),
        ({"t": "2026-01-10T05:00:00Z"}, "daily bar of AAPL on 2026-01-10, when XNYS has no session"),
    ):  # fmt: skip
        vendor.bars["1Day", "AAPL"] = [good[0], good[1] | broken]
        vendor.answer = whatever_is_asked(vendor)
        with pytest.raises(DataError, match=says):
            read(access)


def whatever_is_asked(vendor: AlpacaRest) -> Any:
    """Answers without a look at the times asked for."""

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.endswith("bars"):
            return 200, {"bars": {"AAPL": vendor.bars["1Day", "AAPL"]}, "next_page_token": None}
        return 200, {"corporate_actions": {}, "next_page_token": None}

    return answer


def test_wrong_keys_are_refused_at_once_and_never_shown(
    vendor: AlpacaRest, access: Access, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vendor.bars["1Day", "AAPL"] = days("2026-01-05", 2)
    source = AlpacaSource(("AAPL",), access=access)
    source.read("AAPL")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "wr0ng-secret")
    with pytest.raises(DataError, match=r"refused /v1/corporate-actions\?.* with HTTP 403 'forbidden.'; expected 200") as caught:
        source.read("AAPL")
    seen = [caplog.text, repr(source), str(pickle.dumps(source)), "".join(traceback.format_exception(caught.value))]
    assert not [text for text in seen for secret in (KEY, SECRET, "wr0ng-secret") if secret in text]


def test_missing_keys_and_a_missing_sdk_are_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(AlpacaData(type="alpaca", names=("MSFT", "AAPL")))
    monkeypatch.delenv("ALPACA_API_KEY", raising=False)
    monkeypatch.setenv("ALPACA_SECRET_KEY", "")
    with pytest.raises(ConfigError, match=r"^ALPACA_API_KEY and ALPACA_SECRET_KEY are not set; expected in the environment of every node$"):
        source.symbols()
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    with pytest.raises(ConfigError, match=r"^ALPACA_SECRET_KEY is not set"):
        source.symbols()
    monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
    assert source.symbols() == ["AAPL", "MSFT"]
    monkeypatch.setitem(sys.modules, "alpaca.data", None)
    with pytest.raises(ConfigError, match=r"alpaca-py, which is missing .*pip install 'rlaif-ray\[alpaca\]'"):
        source.symbols()


def test_bars_that_are_there_are_not_asked_for_again(vendor: AlpacaRest, access: Access) -> None:
    vendor.bars["1Day", "AAPL"] = days("2026-08-03", 79)
    source = pickle.loads(pickle.dumps(AlpacaSource(("AAPL",), start=dt.date(2026, 1, 1), access=access)))
    whole = source.read("AAPL")["bars"]
    known = whole.filter(pl.col("session") <= dt.date(2026, 11, 13))
    vendor.asked.clear()
    assert source.extend("AAPL", known).get("bars").equals(whole) and known.height == 74
    assert dict(vendor.asked)["/v2/stocks/bars"]["start"].startswith("2026-11-06")
    # A dividend of 2026-10-12 that the vendor tells of when it is paid, on the 18th of November; a correction; nothing new.
    vendor.actions = {"cash_dividends": [dividend("AAPL", "2026-10-12", "2026-11-18", 0.25)]}
    vendor.bars["1Day", "AAPL"][72]["c"] += 1
    late = source.extend("AAPL", known)["bars"]
    assert late.equals(source.read("AAPL")["bars"]) and not late.equals(whole) and late["dividend"].sum() == 0.25
    vendor.bars["1Day", "AAPL"] = []
    assert source.extend("AAPL", late)["bars"].equals(late)


def test_nothing_there_is_an_empty_table(vendor: AlpacaRest, access: Access) -> None:
    assert read(access).schema == BAR_SCHEMA and read(access, timeframe="1Min", days=100, start=None).is_empty()


def test_law_later_bars_and_late_events_change_nothing_known_before(
    vendor: AlpacaRest, access: Access, clock: Clock, tmp_path: Path
) -> None:  # fmt: skip
    lake = Lake(str(tmp_path / "lake"), "set")
    vendor.bars["1Day", "AAPL"] = days("2026-10-05", 34)
    clock.set("2026-11-02T22:00:00Z")
    lake.append("bars", read(access), "0", revised_at=access.now())
    before = dt.datetime(2026, 11, 2, 23, tzinfo=dt.UTC)
    known = lake.read("bars", as_of=before)
    clock.set(NOW)
    vendor.actions = {"cash_dividends": [dividend("AAPL", "2026-10-12", "2026-11-18", 0.25)]}
    vendor.bars["1Day", "AAPL"][10]["c"] += 0.25  # a correction
    lake.append("bars", read(access), "0", revised_at=access.now())
    assert lake.read("bars", as_of=before).equals(known) and known.height == 21
    now = lake.read("bars")
    assert now.height == 34 and now["dividend"].sum() == 0.25 and now["close"][10] == known["close"][10] + 0.25
