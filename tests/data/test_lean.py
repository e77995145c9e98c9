"""Lean's zips: by hand on small ones, on the real ones, and what is refused."""

from __future__ import annotations

import datetime as dt
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlaif_ray.config import load_config
from rlaif_ray.data import build
from rlaif_ray.data.clean import BAR_SCHEMA, clean
from rlaif_ray.data.events import forward_adjust
from rlaif_ray.data.lean import LeanSource
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError
from tests.data.bars import sessions
from tests.data.lean_files import put_company, put_daily, put_zip

D = dt.date
FIRST = D(2020, 1, 2)
PRICES = ("open", "high", "low", "close", "volume")
MINUTE = "{:%Y%m%d}_{}_minute_{}.csv"


def bars_of(path: Path, symbol: str, **knobs: Any) -> pl.DataFrame:
    bars = LeanSource(str(path), **knobs).read(symbol)["bars"]
    assert bars.schema == pl.Schema(BAR_SCHEMA) and bars["timestamp"].is_sorted()
    return bars


def put_minutes(root: Path, ticker: str, day: dt.date, kind: str, *lines: str) -> None:
    put_zip(root / "minute" / ticker / f"{day:%Y%m%d}_{kind}.zip", MINUTE.format(day, ticker, kind), *lines)


# --- days and hours


def test_daily_bars_are_in_dollars_and_end_with_their_session(tmp_path: Path) -> None:
    rows = ("20191224 00:00,1000000,1100000,990000,1050000,7", "20191226 00:00,1050001,1100000,990000,1050000,8")
    put_zip(tmp_path / "daily" / "a.zip", "a.csv", *rows)
    put_company(tmp_path, "a", ["20191224,a", "20501231,a"])
    bars = bars_of(tmp_path / "daily", "A")
    assert bars.select(PRICES).rows() == [(100, 110, 99, 105, 7), (105.0001, 110, 99, 105, 8)]
    assert bars["session"].to_list() == [D(2019, 12, 24), D(2019, 12, 26)]
    assert [t.hour for t in bars["timestamp"]] == [18, 21]  # Christmas Eve ends at 13:00 in New York
    assert (bars["known_at"] == bars["timestamp"]).all() and bars["tradable"].all() and not bars["delisted"].any()


def test_splits_and_dividends_come_from_the_factor_file(tmp_path: Path) -> None:
    put_daily(tmp_path, "a", FIRST, [100, 100, 49, 49])
    put_company(tmp_path, "a", ["20200102,a", "20501231,a"], ["20200102,0.98,0.5,1", "20200103,0.98,0.5,100", "20501231,1,1,0"])
    bars = bars_of(tmp_path / "daily", "A")
    assert bars.select("close", "split", "dividend").rows() == [(100, 1, 0), (100, 1, 0), (49, 2, 1), (49, 1, 0)]
    # Two shares of 49 and 2 dollars are what one share of 100 was.
    factor = forward_adjust(*(bars[c].to_numpy() for c in ("close", "split", "dividend")))
    assert np.diff(bars["close"].to_numpy() * factor) == pytest.approx([0, 0, 0])


def test_who_had_the_ticker_before_does_not_leak(tmp_path: Path) -> None:
    put_daily(tmp_path, "fb", D(2019, 12, 26), [1, 2, 3, 4, 400, 401])  # 26, 27, 30, 31 December, 2 and 3 January
    put_company(tmp_path, "fb", ["20200102,fb,Q", "20501231,fb,Q"])
    assert bars_of(tmp_path / "daily", "FB")["close"].to_list() == [400, 401]
    assert bars_of(tmp_path / "daily", "FB@2020-01-02")["close"].to_list() == [400, 401]
    earlier = bars_of(tmp_path / "daily", "FB@2019-12-27")
    assert earlier["close"].to_list() == [2, 3, 4] and earlier["symbol"].unique().to_list() == ["FB@2019-12-27"]
    with pytest.raises(MissingDataError, match=r"FB@2020-01-03: on that day a company had the ticker.*2020-01-02; expected FB@2020-01-02"):
        bars_of(tmp_path / "daily", "FB@2020-01-03")
    with pytest.raises(ConfigError, match=r"'FB@soon'; expected a day after the @"):
        bars_of(tmp_path / "daily", "FB@soon")


def test_a_company_keeps_its_history_when_its_ticker_changes(tmp_path: Path) -> None:
    """`old` until 3 January, `new` from the 6th on, when somebody else takes `old`."""
    put_daily(tmp_path, "old", FIRST, [1, 2, 30, 40])
    put_daily(tmp_path, "new", FIRST, [90, 90, 3, 4])
    put_company(tmp_path, "new", ["20200102,old", "20200103,old", "20501231,new"])
    put_company(tmp_path, "old", ["20200106,old", "20501231,old"])
    assert bars_of(tmp_path / "daily", "NEW")["close"].to_list() == [1, 2, 3, 4]
    assert bars_of(tmp_path / "daily", "OLD")["close"].to_list() == [30, 40]
    assert bars_of(tmp_path / "daily", "OLD@2020-01-02")["close"].to_list() == [1, 2, 3, 4]
    assert LeanSource(str(tmp_path / "daily")).symbols() == ["NEW", "OLD"]


def test_a_ticker_that_was_given_up_is_no_symbol_of_its_own(tmp_path: Path) -> None:
    put_daily(tmp_path, "qqqq", FIRST, [1, 2])
    put_daily(tmp_path, "qqq", D(2020, 1, 6), [3, 4])
    put_company(tmp_path, "qqq", ["20200102,qqqq", "20200103,qqqq", "20501231,qqq"])
    source = LeanSource(str(tmp_path / "daily"))
    assert source.symbols() == ["QQQ"] and source.read("QQQ")["bars"]["close"].to_list() == [1, 2, 3, 4]
    with pytest.raises(MissingDataError, match=r"QQQQ is what QQQ was called until 2020-01-03; ask for QQQ"):
        LeanSource(str(tmp_path / "daily"), names=("QQQQ",)).symbols()


def test_a_delisting_that_the_map_file_knows_is_a_last_row(tmp_path: Path) -> None:
    put_daily(tmp_path, "leh", D(2008, 9, 15), [0.21, 0.3, 0.13, 0.05, 9.0])  # Monday to Friday
    put_company(tmp_path, "leh", ["20080901,leh", "20080918,leh"])
    bars = bars_of(tmp_path / "daily", "LEH")
    assert bars["close"].to_list() == [0.21, 0.3, 0.13, 0.05, None] and bars["delisted"].to_list() == [False] * 4 + [True]
    assert bars["session"][-1] == D(2008, 9, 19) and not bars["tradable"][-1]
    cleaned, quality = clean(bars, calendar="XNYS")
    assert cleaned["delisted"][-1] and quality["rows"] == 4


def test_hour_bars_are_cut_to_the_session(tmp_path: Path) -> None:
    """The first hour begins before the open at 09:30, the last of a half day ends with it."""
    rows = [f"20190703 {h:02}:00,10000,10000,10000,10000,{h}" for h in (8, 9, 10, 11, 12, 13)]
    put_zip(tmp_path / "hour" / "a.zip", "a.csv", *rows)
    bars = bars_of(tmp_path / "hour", "A", reference=None)
    assert bars["volume"].to_list() == [9, 10, 11, 12]
    assert bars["timestamp"].dt.strftime("%H:%M").to_list() == ["14:00", "15:00", "16:00", "17:00"]


# --- minutes and seconds


def test_minutes_start_at_their_stamp_and_the_night_is_left_out(tmp_path: Path) -> None:
    day, flat = D(2020, 1, 2), "10000,10000,10000,10000"
    starts = (14_400_000, 34_140_000, 34_200_000, 57_540_000, 57_600_000)  # 04:00, 09:29, 09:30, 15:59, 16:00
    put_minutes(tmp_path, "a", day, "trade", *[f"{start},{flat},{n}" for n, start in enumerate(starts, 1)])
    put_minutes(tmp_path, "a", day, "quote", f"34200000,{flat},1,20000,20000,20000,20000,1")
    bars = bars_of(tmp_path / "minute", "A", reference=None)
    assert bars["volume"].to_list() == [3, 4] and bars["close"].to_list() == [1, 1]
    assert bars["timestamp"].dt.strftime("%H:%M").to_list() == ["14:31", "21:00"]
    longer = bars_of(tmp_path / "minute", "A", reference=None, extended_hours=True)
    assert longer["timestamp"].dt.strftime("%H:%M").to_list() == ["09:01", "14:30", "14:31", "21:00", "21:01"]
    assert longer["session"].unique().to_list() == [day]


def test_only_quotes_are_mids_without_a_volume(tmp_path: Path) -> None:
    """Sunday 2014-05-04 21:00 UTC is 17:00 in New York: Monday's trading day begins. One minute has no bid, and so no mid."""
    sunday = ("75600000,1.1,1.3,1.0,1.2,0,1.3,1.5,1.2,1.4,0", "75660000,,,,,0,1.3,1.5,1.2,1.4,0")
    put_minutes(tmp_path, "eurusd", D(2014, 5, 4), "quote", *sunday)
    put_minutes(tmp_path, "eurusd", D(2014, 5, 5), "quote", "75540000,1,1,1,1,0,2,2,2,2,0", "75600000,1,1,1,1,0,2,2,2,2,0")
    bars = bars_of(tmp_path / "minute", "EURUSD", market="forex")
    assert bars.select(PRICES).rows()[0] == (pytest.approx(1.2), pytest.approx(1.4), pytest.approx(1.1), pytest.approx(1.3), None)
    assert bars["session"].to_list() == [D(2014, 5, 5), D(2014, 5, 5), D(2014, 5, 6)]
    assert bars["timestamp"][0] == dt.datetime(2014, 5, 4, 21, 1, tzinfo=dt.UTC)


def test_crypto_trades_on_sunday_in_its_own_prices(tmp_path: Path) -> None:
    put_minutes(tmp_path, "btcusd", D(2020, 1, 5), "trade", "86340000,7300.5,7301,7300,7300.25,0.125")
    bars = bars_of(tmp_path / "minute", "BTCUSD", market="crypto")
    assert bars.select(PRICES).row(0) == (7300.5, 7301, 7300, 7300.25, 0.125)
    assert bars["timestamp"][0] == dt.datetime(2020, 1, 6, tzinfo=dt.UTC) and bars["session"][0] == D(2020, 1, 5)


def test_a_ticker_changes_between_two_days_of_minutes(tmp_path: Path) -> None:
    for ticker, price in (("old", 10_000), ("new", 20_000)):
        for day in sessions(FIRST, 2)["session"]:
            put_minutes(tmp_path, ticker, day, "trade", f"34200000,{','.join([str(price)] * 4)},1")
    put_company(tmp_path, "new", ["20200102,old", "20501231,new"])
    assert bars_of(tmp_path / "minute", "NEW")["close"].to_list() == [1, 2]


# --- what is refused


def test_a_zip_that_is_torn_or_rotten_is_named(tmp_path: Path) -> None:
    path = put_daily(tmp_path, "a", FIRST, [1.0 + 0.01 * i for i in range(200)])
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:200] + bytes(50) + whole[250:], b"", b"not a zip"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"a.zip cannot be unpacked \(.*\); expected a zip of one table: fetch it again") as caught:
            bars_of(tmp_path / "daily", "A", reference=None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["20200102 00:00,1,1,1,1"], r"a.zip/a.csv has 5 columns; expected 6 \(trades\) or 11 \(quotes\)"),
        (["20200102 00:00,1,1,1,1,1", "20200103 00:00,1,1,1,1"], r"a.csv line 2 has 5 columns; expected 6"),
        (["20200102 00:00,1,1,1,1,1", "20200103 00:00,1,1,1,1,1,1"], r"a.csv line 2 has 7 columns; expected 6"),
        (["20200102 00:00,1,1,1,1,1", "20200103 00:00,1,1,,1,1"], r"a.csv line 2: low is missing; expected a number"),
        (["20200102 00:00,1,one,1,1,1"], r"a.csv line 1: high is 'one'; expected a number"),
        (["2020-01-02,1,1,1,1,1"], r"line 1: the time is '2020-01-02'; expected yyyyMMdd HH:mm"),
        ([], r"a.csv is empty"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, rows: list[str], says: str) -> None:
    put_zip(tmp_path / "daily" / "a.zip", "a.csv", *rows)
    with pytest.raises(DataError, match=says) as caught:
        bars_of(tmp_path / "daily", "A", reference=None)
    assert "\n" not in str(caught.value)


def test_other_bad_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere does not exist; expected a folder of Lean's zips"):
        LeanSource(str(tmp_path / "nowhere"), reference=None).symbols()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"holds no zip and no folder"):
        LeanSource(str(tmp_path / "empty"), reference=None).symbols()
    put_daily(tmp_path, "aapl", FIRST, [1, 2])
    with pytest.raises(MissingDataError, match=r"map_files does not exist.*data.reference"):
        LeanSource(str(tmp_path / "daily")).symbols()
    with pytest.raises(MissingDataError, match=r"no zip of 'APPL'.*Did you mean 'aapl'"):
        LeanSource(str(tmp_path / "daily"), reference=None, names=("APPL",)).symbols()
    put_company(tmp_path, "b", ["20200102,b", "20501231,b"])
    with pytest.raises(MissingDataError, match=r"map_files names 'AAPL'.*nobody knows whose bars"):
        LeanSource(str(tmp_path / "daily")).read("AAPL")
    put_zip(tmp_path / "two" / "a.zip", "a.csv", "20200104 00:00,1,1,1,1,1")
    with pytest.raises(DataError, match=r"1 of 1 bars on days without a session of XNYS, the first on 2020-01-04"):
        LeanSource(str(tmp_path / "two"), reference=None).read("A")
    put_zip(tmp_path / "fx" / "eurusd.zip", "eurusd.csv", "20200106 00:00,1,1,1,1,0,2,2,2,2,0")
    with pytest.raises(ConfigError, match=r"end at midnight UTC.*hour bars"):
        LeanSource(str(tmp_path / "fx"), market="forex").read("EURUSD")
    put_zip(tmp_path / "minute" / "a" / "20200102_trade.zip", "a.csv", "34200000,1,1,1,1,1")
    with pytest.raises(SchemaError, match=r"does not name its resolution"):
        LeanSource(str(tmp_path / "minute"), reference=None).read("A")


def test_later_bars_and_events_change_nothing_before_them(tmp_path: Path) -> None:
    factors = ["20200102,0.98,1,1", "20200103,0.98,1,100", "20501231,1,1,0"]
    put_daily(tmp_path, "a", FIRST, [100, 100, 98, 98])
    put_company(tmp_path, "a", ["20200102,a", "20501231,a"], factors)
    before = bars_of(tmp_path / "daily", "A")
    put_daily(tmp_path, "a", FIRST, [100, 100, 98, 98, 24, 24])
    later = ["20200102,0.97,0.25,1", "20200103,0.97,0.25,100", "20200107,0.9897959,0.25,98", "20501231,1,1,0"]
    put_company(tmp_path, "a", ["20200102,a", "20501231,a"], later)
    after = bars_of(tmp_path / "daily", "A")
    assert after.head(4).equals(before) and after.row(4, named=True)["split"] == 4


def test_the_source_travels_and_the_config_builds_it(tmp_path: Path) -> None:
    put_daily(tmp_path, "a", FIRST, [1, 2])
    put_company(tmp_path, "a", ["20200102,a", "20501231,a"])
    universe = tmp_path / "mine.yaml"
    universe.write_text("symbols: {A: {cik: 7}}\n")
    config = load_config(overrides={"data.type": "lean", "data.path": str(tmp_path / "daily"), "data.universe": str(universe)})
    source = build(config.data)
    assert source.symbols() == ["A"] and getattr(source, "calendar", "") == "XNYS"
    assert pickle.loads(pickle.dumps(source)).read("A")["bars"].equals(source.read("A")["bars"])


# --- real zips


def test_real_daily_bars_belong_to_the_company_of_today(real_data: Path) -> None:
    source = LeanSource(str(real_data / "daily" / "lean" / "daily"))
    assert len(source.symbols()) == 14
    sessions_of = {s: source.read(s)["bars"]["session"] for s in ("FB", "USO", "QQQ", "GOOG", "GOOGL", "WM")}
    first = {s: days[0] for s, days in sessions_of.items()}
    assert first["FB"] == D(2012, 5, 18) and first["USO"] == D(2006, 4, 10) and first["QQQ"] == D(1999, 3, 10)
    # GOOG was what GOOGL is now until 2 April 2014; WM was Washington Mutual before Waste Management, whose older zips are not here.
    assert first["GOOGL"] == D(2004, 8, 19) and first["GOOG"] == D(2014, 4, 3) and first["WM"] == D(2009, 8, 5)
    assert {days[-1] for days in sessions_of.values()} == {D(2021, 3, 31)}
    # QQQ was QQQQ, whose zip is not here: a gap, and nobody else's bars in it.
    renamed = sessions_of["QQQ"].is_between(D(2004, 12, 1), D(2011, 3, 22))
    assert len(sessions_of["QQQ"]) == 3964 and not renamed.any()


def test_real_earlier_users_of_a_ticker_are_apart(real_data: Path) -> None:
    source = LeanSource(str(real_data / "daily" / "lean" / "daily"), names=("FB@1999-01-01", "USO@1998-01-01"))
    assert source.symbols() == ["FB@1999-01-01", "USO@1998-01-01"]
    facebooks, oil = (source.read(s)["bars"] for s in source.symbols())
    assert (facebooks.height, facebooks["session"][0], facebooks["session"][-1]) == (716, D(1999, 9, 29), D(2003, 3, 28))
    assert (oil.height, oil["session"][0], oil["session"][-1]) == (140, D(1998, 1, 2), D(1998, 12, 30))


def test_real_uso_merged_eight_shares_into_one(real_data: Path) -> None:
    bars = bars_of(real_data / "daily" / "lean" / "daily", "USO").filter(pl.col("session").is_between(D(2020, 4, 28), D(2020, 4, 29)))
    assert bars["split"].to_list() == [1, 0.125] and bars["close"][0] == 2.13 and bars["close"][1] > 15


def test_real_aapl_is_raw_and_its_splits_fit_its_jumps(real_data: Path) -> None:
    bars = bars_of(real_data / "daily" / "lean" / "daily", "AAPL")
    cleaned, quality = clean(bars, calendar="XNYS")
    assert quality["split_days"] == quality["split_jumps"] == 4
    by_day = {row["session"]: row for row in cleaned.iter_rows(named=True)}
    assert (by_day[D(2014, 6, 6)]["close"], by_day[D(2014, 6, 9)]["split"]) == (645.57, 7.0)
    assert (by_day[D(2020, 8, 28)]["close"], by_day[D(2020, 8, 31)]["split"]) == (499.23, 4.0)
    assert by_day[D(2020, 11, 6)]["dividend"] == 0.205


def test_real_bitcoin_and_euro_minutes(real_data: Path) -> None:
    bitcoin = bars_of(real_data / "intraday" / "lean" / "crypto_coinbase_minute", "BTCUSD", market="crypto")
    assert bitcoin.height == 12_423 and bitcoin["session"].n_unique() == 9 and bitcoin["open"][0] == 611.78
    saturday = bitcoin.filter(session=D(2016, 10, 8))
    assert [str(t)[:16] for t in (saturday["timestamp"][0], saturday["timestamp"][-1])] == ["2016-10-08 00:01", "2016-10-09 00:00"]
    euro = bars_of(real_data / "intraday" / "lean" / "forex_oanda_minute", "EURUSD", market="forex")
    assert euro.height == 18_184 and euro["volume"].null_count() == euro.height and 1.37 < euro["close"][0] < 1.40
    assert euro["session"].dt.weekday().max() == 5  # Sunday's bars open Monday's trading day


def test_real_hours_minutes_and_seconds_of_shares(real_data: Path) -> None:
    lean, reference = real_data / "intraday" / "lean", str(real_data / "daily" / "lean")
    hours = bars_of(lean / "equity_hour", "AAPL", reference=reference)
    daily = bars_of(real_data / "daily" / "lean" / "daily", "AAPL")
    assert hours.group_by("session", maintain_order=True).last()["session"].equals(daily["session"])
    splits = hours.filter(pl.col("split") != 1)
    assert splits["split"].to_list() == [2, 2, 7, 4] and splits["timestamp"][3] == dt.datetime(2020, 8, 31, 14, tzinfo=dt.UTC)
    minutes = bars_of(lean / "equity_minute", "AAPL", reference=reference)
    assert minutes.height == 3 * 390 and minutes.filter(pl.col("split") == 7)["timestamp"].to_list() == [
        dt.datetime(2014, 6, 9, 13, 31, tzinfo=dt.UTC)
    ]  # fmt: skip
    seconds = bars_of(lean / "equity_second", "IBM", reference=reference)
    assert seconds.height == 11_783 and str(seconds["timestamp"][0])[:19] == "2013-10-07 13:30:01"
    with pytest.raises(MissingDataError, match=r"map_files names 'TWX'"):
        bars_of(lean / "equity_minute", "TWX", reference=reference)
    assert bars_of(lean / "equity_minute", "TWX", reference=None)["session"].n_unique() == 4
