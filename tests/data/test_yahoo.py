import datetime as dt
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif_ray.config import load_config
from rlaif_ray.data import build
from rlaif_ray.data.clean import BAR_SCHEMA, clean, sift
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.yahoo import YahooSource
from rlaif_ray.errors import DataError, MissingDataError
from tests.servers.yahoo import Chart, YahooServer, yahoo_server

yfinance = pytest.importorskip("yfinance")

DAYS = [dt.date(2024, 6, 7), dt.date(2024, 6, 10), dt.date(2024, 6, 11)]
ROWS = [(day, 10.0 + i, 12.0 + i, 9.0 + i, 11.0 + i, 1000 + i) for i, day in enumerate(DAYS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[YahooServer]:
    yfinance.set_tz_cache_location(str(tmp_path))  # else the home folder remembers what this server said
    with yahoo_server() as state:
        yield state


def source(server: YahooServer, *names: str, **knobs) -> YahooSource:
    return YahooSource(names, base_url=server.url, **knobs)


def test_daily_bars_come_as_traded_but_for_splits(server: YahooServer) -> None:
    server.charts["NVDA"] = Chart(list(ROWS), dividends={DAYS[2]: 0.01}, splits={DAYS[1]: (10, 1)})
    yahoo = pickle.loads(pickle.dumps(source(server, "NVDA")))
    bars = yahoo.read("NVDA")["bars"]
    assert dict(bars.schema) == BAR_SCHEMA and yahoo.price_kind == "split_adjusted"
    assert bars.select("session", "open", "high", "low", "close", "volume").rows() == [(d, *map(float, r)) for d, *r in ROWS]
    assert bars["dividend"].to_list() == [0, 0, 0.01] and bars["split"].to_list() == [1, 10, 1]
    assert bars["timestamp"].to_list() == bars["known_at"].to_list() == [dt.datetime(2024, 6, d, 20, tzinfo=dt.UTC) for d in (7, 10, 11)]
    assert clean(bars, calendar="XNYS")[1]["split_jumps"] == 0  # the split is in the prices: the pipeline must not count it again


def test_only_the_days_that_are_asked_for(server: YahooServer) -> None:
    server.charts["SPAN"] = Chart(list(ROWS))
    bars = source(server, "SPAN", start=DAYS[0], end=DAYS[2]).read("SPAN")["bars"]
    assert bars["session"].to_list() == DAYS
    asked = next(path for path in server.asked if "period1" in path)
    first, after = (int(dt.datetime(2024, 6, d, 4, tzinfo=dt.UTC).timestamp()) for d in (7, 12))  # midnights in New York
    assert f"period1={first}" in asked and f"period2={after}" in asked and "interval=1d" in asked


def test_a_session_that_goes_on_is_left_out(server: YahooServer) -> None:
    tomorrow = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    server.charts["BTC-USD"] = Chart([*ROWS, (tomorrow, 1.0, 1.0, 1.0, 1.0, 1)])
    assert source(server, "BTC-USD", calendar="24/7").read("BTC-USD")["bars"]["session"].to_list() == DAYS


def test_what_yahoo_does_not_have_is_missing(server: YahooServer) -> None:
    with pytest.raises(MissingDataError, match=r"Yahoo has no daily bars of 'GONE'"):
        source(server, "GONE").read("GONE")


def test_a_day_without_prices_is_refused_by_row_or_set_apart(server: YahooServer) -> None:
    server.charts["HOLE"] = Chart([ROWS[0], (DAYS[1], None, None, None, None, 5), ROWS[2]])
    with pytest.raises(DataError, match=r"Yahoo's HOLE row 2: open is missing; expected a finite number > 0"):
        source(server, "HOLE").read("HOLE")
    knobs = {"data.type": "yahoo", "data.names": "[HOLE]", "data.base_url": server.url, "data.bad_rows": "quarantine"}
    good, apart = sift(build(load_config(None, None, knobs).data).read("HOLE")["bars"])
    assert good["session"].to_list() == [DAYS[0], DAYS[2]] and apart["session"].to_list() == [DAYS[1]]
    assert apart["reason"][0].startswith("open is missing; expected")


@pytest.mark.parametrize("fault", ["429", "500", "truncated", "closed", "html", "no_quotes"])
def test_a_service_that_fails_is_said_to_in_one_line(server: YahooServer, fault) -> None:
    name = f"F{fault.upper()}"
    server.charts[name] = Chart(list(ROWS))
    yahoo = source(server, name, start=DAYS[0], end=DAYS[2])
    server.fault = fault
    with pytest.raises(DataError, match=f"'{name}'") as caught:
        yahoo.read(name)
    assert "\n" not in str(caught.value)
    server.fault = None
    assert yahoo.read(name)["bars"].height == 3


def test_later_bars_leave_what_was_known_before(server: YahooServer, tmp_path: Path) -> None:
    """A split in between would rewrite the past: such a set is read by its latest revisions, and marked not point in time."""
    lake, moment = Lake(str(tmp_path / "lake"), "yahoo"), dt.datetime(2024, 6, 10, 21, tzinfo=dt.UTC)
    served = []
    for name, days in (("LAW", 2), ("LAW", 3)):
        server.charts[name] = Chart(ROWS[:days])
        end = DAYS[days - 1]  # another address each time: yfinance remembers what it was answered
        lake.append("bars", source(server, name, start=DAYS[0], end=end).read(name)["bars"], name)
        served.append(lake.read("bars", [name], as_of=moment))
    assert served[0].equals(served[1]) and served[0].height == 2 and lake.read("bars").height == 3
    assert YahooSource.price_kind != "raw"


def test_the_section_builds_it() -> None:
    knobs = {"data.type": "yahoo", "data.names": "[AAPL, MSFT]", "data.start": "2020-01-02"}
    yahoo = build(load_config(None, None, knobs).data)
    assert isinstance(yahoo, YahooSource) and yahoo.symbols() == ["AAPL", "MSFT"] and yahoo.start == dt.date(2020, 1, 2)
