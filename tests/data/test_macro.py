import datetime as dt
import gzip
import json
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import requests

from rlaif_ray.data.macro import FredApi, FredFolder, FredSource, vintages
from rlaif_ray.data.tables import FACT_SCHEMA, MACRO
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError
from tests.data.clock import Clock
from tests.servers.fred import FRED_KEY, fred, observations
from tests.servers.loopback import BROKEN, CUT_JSON, TOO_FAST, TORN, Answer

# The first quarter was said in April, revised in May and June, and said again unchanged in July.
GDP = [
    ("2020-04-29", "2020-01-01", "100.0"), ("2020-05-28", "2020-01-01", "101.5"), ("2020-06-25", "2020-01-01", "101.0"),
    ("2020-07-30", "2020-01-01", "101.0"), ("2020-07-30", "2020-04-01", "90"), ("2020-07-30", "2020-07-01", "."),
]  # fmt: skip


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.fixture
def api(tmp_path: Path, clock: Clock) -> Callable[..., FredApi]:
    """FRED at an address, with waits that take no time."""
    return lambda url, **knobs: FredApi(url=url, bucket_file=str(tmp_path / "bucket"), clock=clock, sleep=clock.sleep, **knobs)


def test_each_vintage_is_known_when_its_day_is_over_in_st_louis() -> None:
    facts = vintages("GDP", [observations(GDP)])
    assert facts.schema == FACT_SCHEMA
    assert facts.select("timestamp", "known_at", "value", "source_id").rows() == [
        (utc("2020-01-02T00:00"), utc("2020-04-30T05:00"), 100.0, "2020-04-29"),
        (utc("2020-01-02T00:00"), utc("2020-05-29T05:00"), 101.5, "2020-05-28"),
        (utc("2020-01-02T00:00"), utc("2020-06-26T05:00"), 101.0, "2020-06-25"),
        (utc("2020-04-02T00:00"), utc("2020-07-31T05:00"), 90.0, "2020-07-30"),
    ]
    assert set(facts["name"]) == {"fred/GDP"} and set(facts["symbol"]) == {MACRO}
    winter = vintages("GDP", [observations([("2021-01-28", "2020-10-01", "95")])])
    assert winter["known_at"].to_list() == [utc("2021-01-29T06:00")]


def test_a_later_vintage_changes_nothing_known_before() -> None:
    whole = vintages("GDP", [observations(GDP)])
    for day in sorted({row[0] for row in GDP}):
        then = vintages("GDP", [observations([row for row in GDP if row[0] <= day])])
        assert whole.filter(pl.col("known_at") <= utc(f"{day}T05:00") + dt.timedelta(days=1)).equals(then)


def test_a_folder_of_answers(tmp_path: Path) -> None:
    (tmp_path / "GDP.json").write_text(json.dumps(observations(GDP)))
    (tmp_path / "UNRATE.json.gz").write_bytes(gzip.compress(json.dumps(observations([("2020-05-08", "2020-04-01", "14.7")])).encode()))
    source = pickle.loads(pickle.dumps(FredSource(FredFolder(str(tmp_path)))))
    assert source.symbols() == [MACRO] and set(source.read(MACRO)["facts"]["name"]) == {"fred/GDP", "fred/UNRATE"}
    assert set(FredSource(FredFolder(str(tmp_path)), ["GDP"]).read(MACRO)["facts"]["name"]) == {"fred/GDP"}
    with pytest.raises(MissingDataError, match=r"asks for 'UNRAT'.*Did you mean 'UNRATE'"):
        FredSource(FredFolder(str(tmp_path)), ["UNRAT"]).read(MACRO)
    with pytest.raises(MissingDataError, match="expected 'MACRO'"):
        source.read("GDP")
    with pytest.raises(MissingDataError, match=r"holds no <series>\.json"):
        FredSource(FredFolder(str(tmp_path / "none"))).read(MACRO)


def test_the_interface_pages_and_recovers(monkeypatch: pytest.MonkeyPatch, api: Callable[..., FredApi]) -> None:
    monkeypatch.setenv("FRED_API_KEY", FRED_KEY)
    with fred({"GDP": GDP}, most=2).serving() as vendor:
        vendor.faults.extend([TOO_FAST, BROKEN, TORN, CUT_JSON])
        facts = FredSource(api(vendor.url), ["GDP"]).read(MACRO)["facts"]
        assert facts.equals(vintages("GDP", [observations(GDP)]))
        assert [a.query["offset"] for a in vendor.asked] == ["0"] * 5 + ["2", "0", "2", "4"]
        since = api(vendor.url, vintages_from=dt.date(2020, 6, 1))
        later = FredSource(since, ["GDP"]).read(MACRO)["facts"]
        assert later.select("value", "source_id").rows() == [(101.5, "2020-06-01"), (101.0, "2020-06-25"), (90.0, "2020-07-30")]


def test_a_daily_series_of_many_vintages_comes_in_whole(monkeypatch: pytest.MonkeyPatch, api: Callable[..., FredApi]) -> None:
    """4,500 days, each said on the next; every tenth is revised three weeks later, every hundredth goes back after a year."""
    monkeypatch.setenv("FRED_API_KEY", FRED_KEY)
    days = [(dt.date(2005, 1, 3) + dt.timedelta(days=k)).isoformat() for k in range(4900)]
    rows = [(days[k + 1], days[k], f"{k}") for k in range(4500)]
    rows += [(days[k + 21], days[k], f"{k}.5") for k in range(0, 4500, 10)]
    rows += [(days[k + 365], days[k], f"{k}") for k in range(0, 4500, 100)]
    with fred({"DGS10": rows}).serving() as vendor:
        facts = FredSource(api(vendor.url), ["DGS10"]).read(MACRO)["facts"]
        assert facts.equals(vintages("DGS10", [observations(rows)])) and facts.height == len(rows)
        asked = [(a.path.rpartition("/")[2], a.query["realtime_start"], a.query["realtime_end"]) for a in vendor.asked]
        assert asked == [
            ("vintagedates", "1776-07-04", "9999-12-31"), ("observations", "1776-07-04", days[1999]),
            ("observations", days[2000], days[3998]), ("observations", days[3999], "9999-12-31"),
        ]  # fmt: skip
        at_once = {**vendor.asked[1].query, "realtime_end": "9999-12-31"}
        assert "exceeds the maximum" in requests.get(f"{vendor.url}/fred/series/observations", at_once, timeout=5).json()["error_message"]


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, api: Callable[..., FredApi]) -> None:
    monkeypatch.delenv("FRED_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="FRED_API_KEY is not set"):
        FredSource(api("http://127.0.0.1:9"), ["GDP"]).read(MACRO)
    wrong = "f" * 32
    monkeypatch.setenv("FRED_API_KEY", wrong)
    with fred({"GDP": GDP}).serving() as vendor:
        source = FredSource(api(vendor.url), ["GDP"])
        with pytest.raises(DataError, match=r"HTTP 400 .*api_key is not registered.*check the series' name, FRED_API_KEY") as refused:
            source.read(MACRO)
        vendor.faults.extend([BROKEN] * 6)
        with pytest.raises(DataError, match=r"for /fred/series/vintagedates\?series_id=GDP&.*, 6 tries in turn") as broken:
            source.read(MACRO)
    for error in (refused.value, broken.value):
        assert wrong not in "".join(traceback.format_exception(error))
    assert wrong.encode() not in pickle.dumps(source)


def test_answers_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, api: Callable[..., FredApi]) -> None:
    with pytest.raises(SchemaError, match="output_type 2; expected"):
        vintages("GDP", [observations(GDP) | {"output_type": 2}])
    with pytest.raises(SchemaError, match="has no 'value'"):
        vintages("GDP", [observations([]) | {"observations": [{"realtime_start": "2020-01-01", "date": "2020-01-01"}]}])
    rows = observations(GDP)["observations"]
    for cell in ({"value": "abc"}, {"value": "inf"}, {"value": None}, {"date": "2020-13-01"}, {"realtime_start": "soon"}, {"date": 5}):
        ((name, said),) = cell.items()
        with pytest.raises(SchemaError, match=rf"FRED's GDP: {name} is '{said}' in \(.*; expected a (number|day such as 2020-01-31)$"):
            vintages("GDP", [observations(GDP) | {"observations": [*rows[:3], rows[3] | cell, *rows[4:]]}])
    for other in ([], None, {"observations": None}, {"observations": [None]}, {"observations": ["."]}, observations(GDP) | {"count": "6"}):
        with pytest.raises(SchemaError, match=r"FRED's GDP .*expected") as caught:
            vintages("GDP", [other])  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="holds 6 of 9 observations"):
        vintages("GDP", [observations(GDP, count=9)])
    monkeypatch.setenv("FRED_API_KEY", FRED_KEY)
    with fred({}).serving() as vendor:
        with pytest.raises(DataError, match="The series does not exist"):
            FredSource(api(vendor.url), ["NONE"]).read(MACRO)
        with pytest.raises(ConfigError, match=r"facts\.names is not set"):
            FredSource(api(vendor.url)).read(MACRO)
        for days in (b"null", b'["soon"]', b"[5]", b'"2020-01-01"'):
            vendor.faults.append(Answer(b'{"count": 1, "vintage_dates": ' + days + b"}"))
            with pytest.raises(SchemaError, match=r"FRED's vintage_?dates of GDP .*expected"):
                FredSource(api(vendor.url), ["GDP"]).read(MACRO)
        vendor.faults.append(Answer(b"<html>Maintenance</html>", 200, "text/html"))
        with pytest.raises(DataError, match=r"FRED answered .* with content type 'text/html' \('Maintenance'\); expected application/json"):
            FredSource(api(vendor.url), ["GDP"]).read(MACRO)
