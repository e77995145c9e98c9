"""The verb `stream`: live bars to the lake, through cut connections and interruptions, and in the end what REST says."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.cli import main
from rlaif_ray.data import vendors
from rlaif_ray.data.aggregate import aggregate, place
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.housekeeping import verify
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.live import listen
from rlaif_ray.errors import ConfigError, DataError
from tests.data.bars import daily
from tests.data.clock import Clock
from tests.servers import polygon
from tests.servers.alpaca import KEY, SECRET, AlpacaRest, BarSocket, Row, alpaca_socket, live, minute

DAY = "2026-11-20"  # a Friday; the session is 14:30 to 21:00 UTC
MINUTES = [f"14:{m}" for m in range(30, 60)]
PRICES = (("AAPL", 100.0), ("MSFT", 400.0))


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaRest]:
    """Half an hour of both symbols: what the market did, whatever the stream says of it."""
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
    monkeypatch.setenv("POLYGON_API_KEY", polygon.KEY)
    with AlpacaRest().serving() as server:
        for symbol, price in PRICES:
            server.bars["1Min", symbol] = [minute(t, price + k, volume=10.0 + k) for k, t in enumerate(MINUTES)]
        yield server


def says(first: int, last: int) -> list[Row]:
    """Minutes of the day as the stream says them, numbered from the open."""
    return [live(s, minute(MINUTES[k], p + k, volume=10.0 + k)) for k in range(first, last) for s, p in PRICES]


def typed(rest: AlpacaRest, socket: BarSocket, lake: Path) -> list[str]:
    words = ["stream", "--data.names=[AAPL]", "--data.timeframe=1Min", "--data.feed=iex", "--data.dataset=live"]
    return [*words, f"--data.url={rest.url}", f"--url={socket.url}", f"--lake.uri={lake}"]


class Desk:
    """`rlaif stream` with a clock of its own."""

    def __init__(self, rest: AlpacaRest, folder: Path, timeframe: Any = "1Min") -> None:
        self.clock, self.lake = Clock(f"{DAY}T14:30:02Z"), Lake(str(folder / "lake"), "live")
        access = Access(rest.url, bucket_file=str(folder / "bucket"), clock=self.clock, sleep=self.clock.sleep)
        self.source = AlpacaSource(("AAPL", "MSFT"), timeframe, feed="iex", access=access)

    def at(self, hhmmss: str) -> Any:
        """A step of the server's that moves the clock."""
        return lambda: self.clock.set(f"{DAY}T{hhmmss}Z")

    def listen(self, vendor: vendors.Vendor, until: str, **knobs: Any) -> int:
        """Until the lake has the bar that ends then."""
        end, looks = dt.datetime.fromisoformat(f"{DAY}T{until}:00Z"), iter(range(2000))

        def stopped() -> bool:
            has = "bars" in self.lake.tables() and self.lake.read("bars")["timestamp"].max() == end
            return has or next(looks, None) is None

        return listen(self.source, vendor, self.lake, stopped, tick_s=0.005, sleep=lambda s: None, **knobs)

    def truth(self, minutes: int, until: str) -> pl.DataFrame:
        small = self.source.minutes(*(dt.datetime.fromisoformat(f"{DAY}T{t}:00Z") for t in ("14:30", until)))
        return aggregate(place(small, dt.timedelta(minutes=minutes), "XNYS")).sort("symbol", "timestamp")


@pytest.mark.parametrize(("timeframe", "minutes"), [("1Min", 1), ("5Min", 5)])
def test_the_lake_says_what_rest_says_though_the_connection_was_cut(
    rest: AlpacaRest, tmp_path: Path, caplog: pytest.LogCaptureFixture, timeframe: str, minutes: int
) -> None:
    caplog.set_level(logging.INFO)
    desk = Desk(rest, tmp_path, timeframe)
    with alpaca_socket().serving() as socket:
        socket.scripts = [[says(0, 4), desk.at("14:34:10"), "drop"], [desk.at("14:41:30"), says(11, 12), "garbage"], [desk.at("14:50:10")]]
        assert desk.listen(vendors.named("alpaca", "iex", socket.url), "14:50") == 2 * 20 // minutes
        assert socket.connections == 3
    assert desk.lake.read("bars").equals(desk.truth(minutes, "14:50")) and verify(desk.lake) == []
    told = [record.getMessage() for record in caplog.records if record.name == "rlaif_ray.data.live"]
    assert told[0] == "Alpaca: bars of AAPL, MSFT after 2026-11-20 14:30 UTC" and told[-1].endswith("new, 0 set apart")


def test_another_vendors_stream_is_mended_from_the_same_door(rest: AlpacaRest, tmp_path: Path) -> None:
    desk = Desk(rest, tmp_path)
    with polygon.polygon_socket().serving() as socket:
        rows = [polygon.live(row["S"], row) for row in says(0, 6)]
        socket.scripts = [[rows[:4], desk.at("14:32:10"), "drop"], [rows[8:], desk.at("14:36:10")]]
        desk.listen(vendors.named("polygon", "iex", socket.url), "14:36")
    assert desk.lake.read("bars").equals(desk.truth(1, "14:36"))


def test_it_goes_on_where_the_lake_ends(rest: AlpacaRest, tmp_path: Path) -> None:
    desk = Desk(rest, tmp_path)
    desk.clock.set(f"{DAY}T14:47:20Z")
    desk.lake.append("bars", desk.truth(1, "14:35"), "ingest")
    with alpaca_socket().serving() as socket:
        vendor = vendors.named("alpaca", "iex", socket.url)
        assert desk.listen(vendor, "14:47", latency_s=0.0) == 2 * 12
        assert desk.lake.read("bars").equals(desk.truth(1, "14:47"))
        desk.clock.set("2026-11-28T14:47:20Z")
        with pytest.raises(DataError, match=r"bars of AAPL, MSFT in .* AAPL at 2026-11-20 14:47 UTC; expected .* 7 days.*rlaif ingest"):
            desk.listen(vendor, "14:48")
        with pytest.raises(DataError, match=r"are of 0:01:00, these of 0:05:00; expected one size a dataset: choose another data"):
            Desk(rest, tmp_path, "5Min").listen(vendor, "14:48")
        with pytest.raises(ConfigError, match=r"data.timeframe is 1Day; a stream gives 1Min, 5Min"):
            Desk(rest, tmp_path, "1Day").listen(vendor, "14:48")


def test_every_symbol_goes_on_where_it_ends(rest: AlpacaRest, tmp_path: Path) -> None:
    desk = Desk(rest, tmp_path)
    desk.clock.set(f"{DAY}T14:47:20Z")
    paid = pl.when(pl.col("timestamp").dt.minute() == 40).then(0.5).otherwise(0.0).alias("dividend")  # no stream says so
    apple, other = (desk.truth(1, until).filter(symbol=s) for s, until in (("AAPL", "14:45"), ("MSFT", "14:35")))
    desk.lake.append("bars", pl.concat([apple.with_columns(paid), other]), "ingest")
    with alpaca_socket().serving() as socket:
        vendor = vendors.named("alpaca", "iex", socket.url)
        assert desk.listen(vendor, "14:47") == 2 + 12
        has = desk.lake.read("bars", revision="all")
        assert has.drop("dividend").equals(desk.truth(1, "14:47").drop("dividend")) and has["dividend"].sum() == 0.5
        desk.clock.set("2026-11-28T14:47:20Z")
        later = desk.lake.read("bars", ["AAPL"])[-1:].with_columns(pl.col("timestamp", "known_at") + dt.timedelta(days=3))
        desk.lake.append("bars", later, "ingest")
        with pytest.raises(DataError, match=r"bars of MSFT in .* at 2026-11-20 14:47 UTC; expected an end within the last 7 days"):
            desk.listen(vendor, "14:48")


@pytest.mark.parametrize("there", ["AAPL", "NVDA"])  # a name of the stream's, another of the dataset's
def test_a_stream_has_the_latency_of_its_dataset(rest: AlpacaRest, tmp_path: Path, there: str) -> None:
    desk = Desk(rest, tmp_path)
    desk.lake.append("bars", desk.truth(1, "14:35").filter(symbol="AAPL").with_columns(symbol=pl.lit(there)), "ingest")
    with alpaca_socket().serving() as socket:
        vendor = vendors.named("alpaca", "iex", socket.url)
        with pytest.raises(ConfigError, match=r"known 0 s after their end, these 60 s; expected one data.latency_s a dataset"):
            desk.listen(vendor, "14:47", latency_s=60.0)
        assert socket.connections == 0


def test_what_cannot_be_right_is_set_apart_and_the_latency_counts(rest: AlpacaRest, tmp_path: Path) -> None:
    desk = Desk(rest, tmp_path)
    rest.bars["1Min", "AAPL"][1] |= {"l": 0.0}
    rows = says(0, 3)
    rows[2] |= {"l": 0.0}
    with alpaca_socket().serving() as socket:
        socket.scripts = [[rows, desk.at("14:33:10")]]
        assert desk.listen(vendors.named("alpaca", "iex", socket.url), "14:33", latency_s=2.0) == 5
    bars, apart = desk.lake.read("bars"), desk.lake.read("quarantine")
    assert bars.height == 5 and (bars["known_at"] - bars["timestamp"]).unique().to_list() == [dt.timedelta(seconds=2)]
    assert apart["symbol"].to_list() == ["AAPL"] and apart["reason"][0].startswith("low is 0.0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_verb_in_order(rest: AlpacaRest, tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    with alpaca_socket().serving() as socket:
        words = typed(rest, socket, tmp_path / "lake")
        verb = subprocess.Popen(
            [sys.executable, "-m", "rlaif_ray.cli", *words], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not socket.connections:
            assert verb.poll() is None, verb.communicate()
            time.sleep(0.02)
        verb.send_signal(number)
        out, err = verb.communicate(timeout=60)
    assert verb.returncode == 0 and out.splitlines() == [f"{tmp_path / 'lake'}/live", "  rows: 0"], err
    assert "Alpaca: bars of AAPL after" in err and "Traceback" not in err


def test_it_ends_by_itself_and_wrong_keys_end_it_at_once(
    rest: AlpacaRest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with alpaca_socket().serving() as socket:
        words = typed(rest, socket, tmp_path / "lake")
        assert main([*words, "--for=0.001"]) == 0 and "rows: 0" in capsys.readouterr().out
        monkeypatch.setenv("ALPACA_SECRET_KEY", "wrong")
        assert main([*words, "--for=1"]) == 2
        assert "refused with 402 'auth failed'" in capsys.readouterr().err
    Lake(str(tmp_path / "mixed"), "live").append("bars", daily("AAPL", [1.0, 2.0]), "0")
    assert main([*typed(rest, socket, tmp_path / "mixed"), "--for=1"]) == 2
    assert "are of 1 day, 0:00:00, these of 0:01:00" in capsys.readouterr().err
