import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import KafkaData
from rlaif_ray.data import build as build_elsewhere
from rlaif_ray.data.clean import BAR_SCHEMA, clean, sift
from rlaif_ray.data.kafka import bars, decoded, price_kind, symbols
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import ingest
from rlaif_ray.data.sources_on_ray import KafkaSource, build
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from tests.servers.kafka import kafka_broker

SETTINGS: dict[str, Any] = {"stamp": "auto", "tz": "UTC", "calendar": "XNYS", "adjustment": "auto"}


def message(offset: int, symbol: str = "A", **fields: Any) -> tuple[str, int, int, bytes]:
    """Bars of 15 minutes from 09:30 in New York on 2019-07-03."""
    start = dt.datetime(2019, 7, 3, 13, 30, tzinfo=dt.UTC) + dt.timedelta(minutes=15 * offset)
    row = {"symbol": symbol, "time": int(start.timestamp()), "o": 10 + offset, "h": 12.5 + offset, "l": "9", "c": 11.0 + offset, "v": 1000}
    return "prices", offset % 2, offset, json.dumps(row | fields).encode()


def test_messages_become_bars() -> None:
    table = decoded([*[message(i) for i in range(3)], message(0, "B")])
    assert symbols(table, "topic prices") == ["A", "B"] and price_kind(table, "topic prices", "auto") is None
    found = bars(table, "A", "topic prices", **SETTINGS)
    assert dict(found.schema) == BAR_SCHEMA and found["symbol"].unique().to_list() == ["A"]
    assert found.select("open", "high", "low", "close", "volume").rows() == [(10 + i, 12.5 + i, 9, 11 + i, 1000) for i in range(3)]
    assert found["timestamp"].dt.strftime("%H:%M").to_list() == ["13:45", "14:00", "14:15"]


def test_messages_may_differ_in_their_fields() -> None:
    table = decoded([message(0), message(1, split=1.0, note="x"), message(2)])
    assert bars(table, "A", "topic prices", **SETTINGS)["split"].to_list() == [1, 1, 1]


def test_a_bar_that_is_delivered_twice_counts_once() -> None:
    twice = bars(decoded([message(i) for i in (0, 1, 1, 2)]), "A", "topic prices", **SETTINGS)
    assert clean(twice, calendar="XNYS")[1]["duplicates_dropped"] == 1
    changed = bars(decoded([message(0), message(1), message(1, c=12.25)]), "A", "topic prices", **SETTINGS)
    with pytest.raises(DataError, match=r"A has 2 different rows at .*close 12.0 and 12.25"):
        clean(changed, calendar="XNYS")


@pytest.mark.parametrize(
    ("value", "says"),
    [(b"{", r"topic prices partition:offset 1:7 holds b'\{'; expected one JSON object a bar"), (b"[1]", r"1:7 holds b'\[1\]'"),
     (None, r"1:7 holds b''"), (b"\xff", r"1:7 holds b'\\xff'")],
)  # fmt: skip
def test_a_message_that_is_no_bar_is_refused_by_its_place(value: bytes | None, says: str) -> None:
    with pytest.raises(DataError, match=says):
        decoded([message(0), ("prices", 1, 7, value)])


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"c": "x"}, r"topic prices partition:offset 1:1: close is 'x'; expected a number"), ({"c": 0}, r"1:1: close is 0.0; expected"),
     ({"c": None}, r"1:1: close is missing"), ({"time": "soon"}, r"1:1: the time is 'soon'"),
     ({"time": None}, r"1:1: the time is missing")],
)  # fmt: skip
def test_a_bad_field_is_refused_by_its_place(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        bars(decoded([message(0), message(1, **fields), message(2)]), "A", "topic prices", **SETTINGS)


def test_a_bad_price_costs_its_message_where_bad_rows_are_set_apart() -> None:
    table = decoded([message(0), message(1, c=0), message(2), message(3, c=None)])
    good, apart = sift(bars(table, "A", "topic prices", **SETTINGS, bad_rows="quarantine"))
    assert good["close"].to_list() == [11, 13]
    assert [why.split(";")[0] for why in apart["reason"]] == ["close is 0.0", "close is missing"]


def test_each_message_names_its_symbol() -> None:
    with pytest.raises(DataError, match=r"partition:offset 1:1 names no symbol in 'symbol'; expected one in each message"):
        symbols(decoded([message(0), message(1, symbol=None)]), "topic prices")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"topic prices names no symbol in .*expected a field such as symbol, ticker"):
        symbols(decoded([("prices", 0, 0, b'{"time": 1577923200, "close": 1}')]), "topic prices")


def test_later_messages_leave_what_was_known_before(tmp_path: Path) -> None:
    lake, moment = Lake(str(tmp_path), "kafka"), dt.datetime(2019, 7, 3, 14, tzinfo=dt.UTC)
    served: list[pl.DataFrame] = []
    for n in (2, 4):
        lake.append("bars", bars(decoded([message(i) for i in range(n)]), "A", "topic prices", **SETTINGS), "A")
        served.append(lake.read("bars", ["A"], as_of=moment))
    assert served[0].equals(served[1]) and served[0].height == 2 and lake.read("bars").height == 4


def test_the_section_builds_it_where_ray_is() -> None:
    section = KafkaData(type="kafka", topics=("prices",), servers=("127.0.0.1:9092",), names=("A",), stamp="end", bad_rows="quarantine")
    source = build(section)
    assert isinstance(source, KafkaSource) and (source.topics, source.names) == (["prices"], ("A",))
    assert (source.stamp, source.bad_rows) == ("end", "quarantine")
    with pytest.raises(ConfigError, match="read through Ray"):
        build_elsewhere(section)


def test_a_topic_through_ray(ray_session: None, tmp_path: Path) -> None:
    with kafka_broker() as broker:
        broker.send("prices", *[value for i in range(4) for symbol in ("A", "B") for *_, value in [message(i, symbol)]])
        source = KafkaSource(["prices"], [broker.address])
        assert source.symbols() == ["A", "B"] and source.read("B")["bars"].height == 4
        broker.send("prices", message(0, "C")[-1])
        assert source.symbols() == ["A", "B"]  # later messages are the next ingest's
        done = ingest(source, Lake(str(tmp_path), "kafka"))
        assert done.symbols == ("A", "B") and done.rows == 8
        with pytest.raises(MissingDataError, match=r"data.names asks for \['D'\]"):
            KafkaSource(["prices"], [broker.address], names=["D"]).symbols()
