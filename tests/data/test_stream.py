import asyncio
import datetime as dt
import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.data import vendors
from rlaif_ray.data.aggregate import MINUTE_SCHEMA, aggregate, place
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.stream import BarStream, Book
from rlaif_ray.errors import ConfigError, DataError, SchemaError
from tests.data.clock import Clock
from tests.servers import polygon
from tests.servers.alpaca import KEY, SECRET, AlpacaRest, BarSocket, Row, alpaca_socket, live, minute

DAY = "2026-11-20"  # a Friday; the session is 14:30 to 21:00 UTC
MINUTES = [f"14:{m}" for m in range(30, 60)]


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaRest]:
    """Half an hour of both symbols: what the market did, whatever the stream says of it."""
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
    with AlpacaRest().serving() as server:
        for symbol, price in (("AAPL", 100.0), ("MSFT", 400.0)):
            server.bars["1Min", symbol] = [minute(t, price + k, volume=10.0 + k) for k, t in enumerate(MINUTES)]
        yield server


@pytest.fixture
def socket() -> Iterator[BarSocket]:
    with alpaca_socket().serving() as server:
        yield server


class Desk:
    """A stream with a clock and a lake of its own, and what was handed over when."""

    def __init__(self, rest: AlpacaRest, socket: BarSocket, folder: Path, **knobs: Any) -> None:
        self.clock, self.lake = Clock(f"{DAY}T14:30:02Z"), Lake(str(folder / "lake"), "live")
        self.handed: list[tuple[float, pl.DataFrame]] = []
        access = Access(rest.url, bucket_file=str(folder / "bucket"), clock=self.clock, sleep=self.clock.sleep)
        self.source = AlpacaSource(("AAPL", "MSFT"), "1Min", feed="iex", access=access)
        given: dict[str, Any] = {"vendor": vendors.alpaca(socket.url), "repair": self.source.minutes, "mute_s": 3600.0} | knobs
        self.stream = BarStream(
            symbols=["MSFT", "AAPL"], hand_over=self.take, tick_s=0.005, clock=self.clock, sleep=lambda s: None, **given
        )  # fmt: skip

    def take(self, bars: pl.DataFrame) -> None:
        self.handed.append((self.clock(), bars))
        self.lake.append("bars", bars, "live", revised_at=dt.datetime.fromtimestamp(self.clock(), dt.UTC))

    def run(self, enough: Callable[[], bool]) -> pl.DataFrame:
        """The lake's bars once there is `enough`."""
        looks = iter(range(4000))
        self.stream.run(lambda: enough() or next(looks, None) is None)
        return self.lake.read("bars")

    def has(self, hhmm: str) -> Callable[[], bool]:
        """Whether a bar that ends then was handed over last."""
        end = dt.datetime.fromisoformat(f"{DAY}T{hhmm}:00Z")
        return lambda: len(self.handed) > 0 and self.handed[-1][1]["timestamp"].max() == end

    def until(self, condition: Callable[[], bool]) -> Callable[[], None]:
        """A step of the server's that waits for the stream to come so far."""

        def wait() -> None:
            looks = iter(range(4000))
            while not condition() and next(looks, None) is not None:
                time.sleep(0.005)

        return wait

    def at(self, hhmmss: str) -> Callable[[], None]:
        """A step of the server's that moves the clock, once the stream has looked at what was said before."""

        def move() -> None:
            before = self.clock.looks
            self.until(lambda: self.clock.looks > before + 3)()
            self.clock.set(f"{DAY}T{hhmmss}Z")

        return move

    def says(self, first: int, last: int) -> list[Row]:
        """Minutes of the day as the stream says them, numbered from the open."""
        rows = [(s, p + k, k) for k in range(first, last) for s, p in (("AAPL", 100.0), ("MSFT", 400.0))]
        return [live(s, minute(MINUTES[k], price, volume=10.0 + k)) for s, price, k in rows]

    def truth(self, minutes: int, until: str) -> pl.DataFrame:
        """What REST's minutes make."""
        small = self.source.minutes(dt.datetime.fromisoformat(f"{DAY}T14:30:00Z"), dt.datetime.fromisoformat(f"{DAY}T{until}:00Z"))
        return aggregate(place(small, dt.timedelta(minutes=minutes), "XNYS")).sort("symbol", "timestamp")


@pytest.fixture
def desk(rest: AlpacaRest, socket: BarSocket, tmp_path: Path) -> Desk:
    return Desk(rest, socket, tmp_path)


def test_minutes_arrive_as_bars(desk: Desk, socket: BarSocket) -> None:
    socket.scripts = [[desk.says(0, 2), desk.says(2, 3), desk.at("14:33:10")]]
    bars = desk.run(desk.has("14:33"))
    assert bars.schema == BAR_SCHEMA and bars.equals(desk.truth(1, "14:33"))
    first = bars.row(0, named=True)
    assert (first["symbol"], first["open"], first["close"], first["volume"]) == ("AAPL", 100.0, 100.5, 10.0)
    assert first["timestamp"] == first["known_at"] == dt.datetime(2026, 11, 20, 14, 31, tzinfo=dt.UTC)


@pytest.mark.parametrize("size", [1, 5, 15])
def test_a_lost_connection_leaves_no_gap_and_no_double(rest: AlpacaRest, socket: BarSocket, tmp_path: Path, size: int) -> None:
    desk = Desk(rest, socket, tmp_path, minutes=size)
    socket.scripts = [
        [desk.says(0, 4), desk.at("14:34:10"), "drop"],
        ["drop"],
        [desk.at("14:41:30"), desk.says(11, 12), "garbage"],
        [desk.says(14, 20), desk.at("14:50:10"), "bye"],
        [desk.says(21, 30), desk.at("15:00:10")],
    ]  # fmt: skip
    bars = desk.run(desk.has("15:00"))
    assert socket.connections == 5
    assert bars.equals(desk.truth(size, "15:00")) and bars.height == 2 * 30 // size


def test_hand_overs_are_a_minute_apart(desk: Desk, socket: BarSocket) -> None:
    steps: list[Any] = []
    for k in range(8):
        steps += [desk.says(k, k + 1), desk.at(f"14:{31 + k}:06"), desk.at(f"14:{31 + k}:50")]
    socket.scripts = [steps]
    desk.run(desk.has("14:38"))
    moments = [moment for moment, _ in desk.handed]
    assert all(b - a >= 60 for a, b in pairwise(moments[:-1]))  # the last comes when it ends
    assert desk.lake.read("bars").height == 16


def test_a_corrected_minute_becomes_a_revision(desk: Desk, rest: AlpacaRest, socket: BarSocket) -> None:
    late = minute("14:30", 100.0, volume=99.0)

    def correct() -> None:
        rest.bars["1Min", "AAPL"][0] = late

    socket.scripts = [[
        desk.says(0, 1), desk.at("14:31:10"), desk.until(lambda: len(desk.handed) > 0), correct,
        [*desk.says(1, 2), live("AAPL", late, "u")], desk.at("14:32:30"),
    ]]  # fmt: skip
    desk.run(lambda: len(desk.handed) > 1)
    assert [bars["volume"].to_list() for _, bars in desk.handed] == [[10.0, 10.0], [99.0, 11.0, 11.0]]
    before = dt.datetime.fromisoformat(f"{DAY}T14:32:00Z")
    assert desk.lake.read("bars", as_of=before).filter(pl.col("volume") == 99.0).is_empty()
    assert desk.lake.read("bars").filter(pl.col("volume") == 99.0).height == 1


def test_it_goes_on_from_what_the_lake_has(rest: AlpacaRest, socket: BarSocket, tmp_path: Path) -> None:
    desk = Desk(rest, socket, tmp_path, since=dt.datetime(2026, 11, 20, 14, 35, tzinfo=dt.UTC), minutes=5)
    desk.clock.set(f"{DAY}T14:47:20Z")
    bars = desk.run(lambda: len(desk.handed) > 0)
    assert [t.strftime("%H:%M") for t in bars["timestamp"].unique().sort()] == ["14:40", "14:45"]
    assert bars.equals(desk.truth(5, "14:45").filter(pl.col("timestamp") > dt.datetime(2026, 11, 20, 14, 35, tzinfo=dt.UTC)))


def test_wrong_keys_end_it_and_are_never_shown(
    desk: Desk, socket: BarSocket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ALPACA_SECRET_KEY", "wr0ng-secret")
    with pytest.raises(DataError, match=r"^Alpaca's stream refused with 402 'auth failed'; expected bars: check the keys") as caught:
        desk.stream.run(lambda: False)
    sent = "".join(r.getMessage() for r in caplog.records if "server" not in r.name)
    seen = sent + "".join(traceback.format_exception(caught.value)) + repr(desk.stream)
    assert "wr0ng-secret" not in seen and KEY not in seen
    monkeypatch.delenv("ALPACA_API_KEY")
    with pytest.raises(ConfigError, match="ALPACA_API_KEY is not set"):
        desk.stream.run(lambda: False)


def test_a_vendor_that_is_not_there_is_an_error_in_the_end(rest: AlpacaRest, tmp_path: Path) -> None:
    with alpaca_socket().serving() as gone:
        desk = Desk(rest, gone, tmp_path, attempts=3)
    with pytest.raises(DataError, match=r"stream at ws://\S+ broke 3 times without a word in between, the last by ConnectionRefused"):
        desk.stream.run(lambda: False)


def test_a_mute_connection_is_given_up_in_the_session_only(rest: AlpacaRest, socket: BarSocket, tmp_path: Path) -> None:
    desk = Desk(rest, socket, tmp_path, mute_s=180.0)
    socket.scripts = [
        [desk.until(lambda: len(rest.asked) > 0), desk.at("14:36:00")],
        [desk.at("14:38:30"), desk.says(8, 10), desk.at("14:40:10")],
    ]
    desk.run(desk.has("14:40"))
    assert socket.connections == 2 and desk.lake.read("bars").height == 20
    desk.clock.set(f"{DAY}T23:00:00Z")
    socket.scripts = [[lambda: desk.clock.set("2026-11-21T09:00:00Z")]]
    looks = iter(range(50))
    desk.stream.run(lambda: next(looks, None) is None)
    assert socket.connections == 3


def test_polygon_is_two_functions_behind_the_same_seam(rest: AlpacaRest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYGON_API_KEY", polygon.KEY)
    with polygon.polygon_socket().serving() as socket:
        desk = Desk(rest, socket, tmp_path, vendor=vendors.polygon(socket.url))
        rows = [polygon.live(r["S"], r) for r in desk.says(0, 6)]
        socket.scripts = [[rows[:4], desk.at("14:32:10"), "drop"], [rows[8:], desk.at("14:36:10")]]
        bars = desk.run(desk.has("14:36"))
        assert bars.equals(desk.truth(1, "14:36"))
        monkeypatch.setenv("POLYGON_API_KEY", "wrong")
        with pytest.raises(DataError, match="Polygon's stream refused with auth_failed 'authentication failed'; expected bars"):
            desk.stream.run(lambda: False)


def test_what_may_pass_and_what_will_not() -> None:
    alpaca, other = vendors.alpaca(), vendors.polygon()
    with pytest.raises(ConnectionError, match="406 'connection limit exceeded'"):
        alpaca.answer({"T": "error", "code": 406, "msg": "connection limit exceeded"}, (), ())
    with pytest.raises(DataError, match=r"405 'symbol limit exceeded'.*number of symbols"):
        alpaca.answer({"T": "error", "code": 405, "msg": "symbol limit exceeded"}, (), ())
    with pytest.raises(ConnectionError, match="max_connections"):
        other.answer({"ev": "status", "status": "max_connections", "message": "Maximum number of connections exceeded."}, (), ())
    assert alpaca.bar({"T": "subscription"}) is None and other.bar({"ev": "status", "status": "success"}) is None


def test_a_bar_that_is_none_is_named(desk: Desk, socket: BarSocket) -> None:
    socket.scripts = [[[{"T": "b", "S": "AAPL", "o": 1.0}]]]
    with pytest.raises(SchemaError, match=r"Alpaca gave a bar as \{'T': 'b', 'S': 'AAPL', 'o': 1.0\} \(KeyError\('h'\)\); expected"):
        desk.stream.run(lambda: False)


def small(rows: list[tuple[str, float]], symbol: str = "A") -> pl.DataFrame:
    starts = [dt.datetime.fromisoformat(f"{DAY}T{t}:00Z") for t, _ in rows]
    prices = [p for _, p in rows]
    return pl.DataFrame(
        {"symbol": symbol, "start": starts, "open": prices, "high": [p + 1 for p in prices], "low": [p - 1 for p in prices],
         "close": [p + 0.5 for p in prices], "volume": 1.0}, schema_overrides=MINUTE_SCHEMA,
    )  # fmt: skip


def test_bars_are_counted_from_the_open_and_cut_by_the_close() -> None:
    minutes = small([("14:29", 1), ("14:30", 2), ("14:43", 9), ("14:45", 4), ("20:59", 5), ("21:00", 6)])
    bars = aggregate(place(minutes, dt.timedelta(minutes=15), "XNYS"))
    assert [t.strftime("%H:%M") for t in bars["timestamp"]] == ["14:45", "15:00", "21:00"]
    assert bars.select("open", "high", "low", "close", "volume").row(0) == (2.0, 10.0, 1.0, 9.5, 2.0)
    hours = aggregate(place(small([("20:31", 5), ("20:10", 6)]), dt.timedelta(hours=1), "XNYS"))
    assert [t.strftime("%H:%M") for t in hours["timestamp"]] == ["20:30", "21:00"]


def test_the_book_gives_what_changed_and_has_ended_once() -> None:
    begins = dt.datetime(2026, 11, 20, 14, 30, tzinfo=dt.UTC)
    book = Book(dt.timedelta(minutes=5), "XNYS", begins)
    book.add(small([("14:30", 1.0), ("14:34", 2.0), ("14:35", 3.0)]))
    assert book.take(begins + dt.timedelta(minutes=5))["volume"].to_list() == [2.0]
    book.add(small([("14:30", 1.0)]))
    assert book.take(begins + dt.timedelta(minutes=5)).is_empty()
    book.add(small([("14:32", 1.0)]))
    assert book.take(begins + dt.timedelta(minutes=10))["volume"].to_list() == [3.0, 1.0]


def test_the_sdks_own_stream_understands_our_server(rest: AlpacaRest, socket: BarSocket) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from alpaca.data.live import StockDataStream

        socket.scripts = [[[live("AAPL", minute("14:30", 100.0))]]]
        stream, got = StockDataStream(KEY, SECRET, url_override=socket.url), []

        async def on(bar: Any) -> None:
            got.append(bar)
            await stream.stop_ws()

        stream.subscribe_bars(on, "AAPL")
        asyncio.run(asyncio.wait_for(stream._run_forever(), 10))
    assert [(b.symbol, b.open, b.timestamp) for b in got] == [("AAPL", 100.0, dt.datetime(2026, 11, 20, 14, 30, tzinfo=dt.UTC))]
