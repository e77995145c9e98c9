import datetime as dt
import pickle
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config import load_config
from rlaif_ray.data import build
from rlaif_ray.data.clean import clean, sift
from rlaif_ray.data.files import FileSource, load_universe, symbols_of_names
from rlaif_ray.data.spellings import read_table, recognise, rows_of
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError
from tests.data.bars import write_csv

CLOSES = [10.0, 11.0, 12.0, 13.0]
FIRST = dt.date(2020, 1, 2)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def bars_of(path: Path | str, symbol: str, **knobs) -> pl.DataFrame:
    return FileSource(str(path), **knobs).read(symbol)["bars"]


def symbols(*names: str, pattern: str | None = None) -> list[str]:
    return symbols_of_names([Path(n) for n in names], pattern)


def test_the_symbol_is_the_part_of_the_name_that_differs() -> None:
    assert symbols("DA-AAPL-T-2021-04-21.csv", "DA-T-T-2021-04-21.csv") == ["AAPL", "T"]
    assert symbols("AAPL_15min.csv", "V_15min.csv") == ["AAPL", "V"]
    assert symbols("AAPL.csv", "BRK-A.csv", "BRK-B.csv") == ["AAPL", "BRK-A", "BRK-B"]
    assert symbols("us.aapl.csv", "us.brk.b.csv") == ["aapl", "brk.b"]
    assert symbols("SPY.csv") == ["SPY"]
    assert symbols("prices.AAPL.parquet", "prices.MSFT.parquet") == ["AAPL", "MSFT"]


def test_names_that_differ_twice_need_a_glob_or_a_pattern() -> None:
    with pytest.raises(MissingDataError, match=r"AAPL_15min.csv and V_1min.csv differ in more than one part.*data.symbol_pattern"):
        symbols("AAPL_15min.csv", "AAPL_1min.csv", "V_15min.csv", "V_1min.csv")
    assert symbols("AAPL_2019.csv", "AAPL_2020.csv", "V_2019.csv", pattern=r"^([A-Z]+)_") == ["AAPL", "AAPL", "V"]
    with pytest.raises(ConfigError, match="no regular expression"):
        symbols("A.csv", "B.csv", pattern="(")
    with pytest.raises(ConfigError, match="finds no group in 'A'"):
        symbols("A.csv", "B.csv", pattern="A")


def test_a_folder_a_glob_and_a_file_are_read(tmp_path: Path) -> None:
    for name in ("AAA", "BBB", "CCC"):
        write_csv(tmp_path, name, CLOSES)
    (tmp_path / "README.md").write_text("not data")
    assert FileSource(str(tmp_path)).symbols() == ["AAA", "BBB", "CCC"]
    assert FileSource(str(tmp_path / "[AB]*.csv")).symbols() == ["AAA", "BBB"]
    assert FileSource(str(tmp_path / "BBB.csv")).symbols() == ["BBB"]
    assert FileSource(str(tmp_path), names=("CCC", "AAA")).symbols() == ["AAA", "CCC"]
    with pytest.raises(MissingDataError, match=r"asks for 'AAB'.*Did you mean"):
        FileSource(str(tmp_path), names=("AAB",)).symbols()


def packed(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.csv", text)
    return path


@pytest.mark.parametrize("ending", [".zip", ".csv.zip"])
def test_a_zip_of_one_file_is_read_like_the_file(tmp_path: Path, ending: str) -> None:
    plain, zips = tmp_path / "plain", tmp_path / "zips"
    zips.mkdir()
    for name in ("AAA", "BBB"):
        packed(zips / f"{name}{ending}", prices=write_csv(plain, name, CLOSES).read_text())
    source = FileSource(str(zips))
    assert source.symbols() == ["AAA", "BBB"] and source.read("AAA")["bars"].equals(bars_of(plain, "AAA"))
    before = source.fingerprint
    packed(zips / f"AAA{ending}", prices="date,close\n2020-01-02,ten\n")
    assert FileSource(str(zips)).fingerprint != before
    with pytest.raises(SchemaError, match=rf"AAA{ending} line 2: close is 'ten'; expected a number"):
        bars_of(zips, "AAA")


def test_a_long_table_in_a_zip(tmp_path: Path) -> None:
    path = packed(tmp_path / "all.zip", all="Date,Ticker,Close\n2020-01-02,A,1\n2020-01-02,B,2\n2020-01-03,A,3\n2020-01-03,B,4\n")
    source = FileSource(str(path))
    assert source.symbols() == ["A", "B"] and source.among(["B"]).read("B")["bars"]["close"].to_list() == [2, 4]


@pytest.mark.parametrize("fault", ["cut", "turned", "empty", "two", "none"])
def test_a_zip_that_cannot_be_read_costs_its_symbol(tmp_path: Path, fault: str) -> None:
    text = write_csv(tmp_path, "BBB", CLOSES).read_text()
    bad = packed(tmp_path / "AAA.zip", **({"x": text, "y": text} if fault == "two" else {} if fault == "none" else {"x": text}))
    whole = bad.read_bytes()
    if fault in ("cut", "turned", "empty"):
        middle = len(whole) // 3
        turned = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 9]) + whole[middle + 9 :]
        bad.write_bytes({"cut": whole[: len(whole) // 2], "turned": turned, "empty": b""}[fault])
    with pytest.raises(MissingDataError, match=r"AAA\.zip (cannot be read as a table \(|holds [02] files;).*expected") as caught:
        bars_of(tmp_path, "AAA")
    assert "\n" not in str(caught.value)
    source = FileSource(str(tmp_path), bad_rows="quarantine")
    assert source.symbols() == ["AAA", "BBB"] and source.read("BBB")["bars"]["close"].to_list() == CLOSES
    with pytest.raises(MissingDataError, match=r"AAA\.zip"):
        source.read("AAA")


def test_bars_are_stamped_at_the_close_of_their_session(tmp_path: Path) -> None:
    bars = bars_of(write_csv(tmp_path, "A", CLOSES), "A")
    first = bars.row(0, named=True)
    assert first["session"] == FIRST and first["timestamp"] == first["known_at"] == dt.datetime(2020, 1, 2, 21, tzinfo=dt.UTC)
    assert [first[c] for c in ("open", "high", "low", "close", "volume", "dividend", "split")] == [10, 11, 9, 10, 1000, 0, 1]
    assert bars["close"].to_list() == CLOSES and bars["tradable"].all() and not bars["delisted"].any()


@pytest.mark.parametrize(
    "header",
    ["Date,Open,High,Low,Close,Volume", "timestamp,open,high,low,close,volume", "\ufeffdatetime,OPEN,HIGH,LOW,CLOSE,VOL",
     " time ,o,h,l,c,v"],
)  # fmt: skip
def test_usual_spellings(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "A.csv", header, "2020-01-02,10,11,9,10,1000", "2020-01-03,11,12,10,11,1000")
    assert bars_of(path, "A").select("open", "high", "low", "close", "volume").rows() == [(10, 11, 9, 10, 1000), (11, 12, 10, 11, 1000)]


@pytest.mark.parametrize(
    "stamps",
    [("2020-01-02", "2020-01-03"), ("20200102", "20200103"), ("01/02/2020", "01/03/2020"), ("2020-01-02 00:00:00", "2020-01-03 00:00:00"),
     ("2020-01-02 00:00:00-05:00", "2020-01-03 00:00:00-05:00"), ("2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z"),
     ("1577923200", "1578009600"), ("1577923200000", "1578009600000"), ("2020-01-02 16:00:00", "2020-01-03 16:00:00")],
)  # fmt: skip
def test_dates_however_written(tmp_path: Path, stamps: tuple[str, str]) -> None:
    path = write(tmp_path / "A.csv", "date,close", *[f"{s},{c}" for s, c in zip(stamps, ("10", "11"), strict=True)])
    assert bars_of(path, "A")["session"].to_list() == [dt.date(2020, 1, 2), dt.date(2020, 1, 3)]


def test_splits_and_dividends_however_named(tmp_path: Path) -> None:
    header = "timestamp,close,adjusted_close,dividend_amount,split_coefficient"
    raw = write(tmp_path / "A.csv", header, "2020-01-02,10,5,0,1.0", "2020-01-03,5,5,0.5,2.0")
    yahoo = write(tmp_path / "B.csv", "date,close,dividends,stock_splits", "2020-01-02,10,0,0.0", "2020-01-03,5,0.5,2.0")
    for path, symbol in ((raw, "A"), (yahoo, "B")):
        assert bars_of(path, symbol).select("close", "dividend", "split").rows() == [(10, 0, 1), (5, 0.5, 2)]
        assert FileSource(str(path)).price_kind is None  # the whole set's split days will tell


def test_an_adjusted_close_alone_scales_all_prices(tmp_path: Path) -> None:
    header = "Date,Open,High,Low,Close,Adj Close,Volume"
    path = write(tmp_path / "A.csv", header, "2020-01-02,8,12,8,10,5,100", "2020-01-03,10,14,9,12,12,100")
    assert FileSource(str(path)).price_kind == "vendor_adjusted"
    assert bars_of(path, "A").select("open", "high", "low", "close", "volume").rows() == [(4, 6, 4, 5, 100), (10, 14, 9, 12, 100)]
    assert bars_of(path, "A", adjustment="split_adjusted")["close"].to_list() == [10, 12]
    only = write(tmp_path / "B.csv", "Date,Adj Close", "2020-01-02,5", "2020-01-03,6")
    assert bars_of(only, "B")["close"].to_list() == [5, 6] and bars_of(only, "B")["open"].null_count() == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_symbols_of_long_files_come_in_one_pass_as_they_come_alone(tmp_path: Path, kind: Any) -> None:
    lines = [f"2020-01-{d:02d},{s} ,{k + d}.5,{100 * d}" for d in (6, 3, 2) for k, s in enumerate("ABC")]  # names in broad columns
    for part, some in enumerate((lines[:4], lines[4:])):
        (tmp_path / f"{part}.csv").write_text("\n".join(["Date,Ticker,Close,Volume", *some]) + "\n")
        if kind == "parquet":
            pl.read_csv(tmp_path / f"{part}.csv").write_parquet(tmp_path / f"{part}.parquet")
    source = FileSource(str(tmp_path), kind=kind)
    assert source.symbols() == ["A", "B", "C"] and source.together > 1
    near = pickle.loads(pickle.dumps(source)).among(["A", "C"])
    for path in tmp_path.iterdir():
        path.unlink()  # what is at hand need not be read again
    assert near.read("A")["bars"]["close"].sort().to_list() == [2.5, 3.5, 6.5] and near.read("C")["bars"].height == 3


def test_a_cell_of_a_long_file_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("Date,Ticker,Close\n2020-01-02,A,1.5\n2020-01-02,B,2.5\n2020-01-03,A,oops\n")
    with pytest.raises(SchemaError, match=r"all\.csv line 4: close is 'oops'; expected a number"):
        FileSource(str(tmp_path)).among(["A", "B"]).read("A")


def test_one_long_table_with_a_column_of_symbols(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", "Ticker,Date,Close", "A,2020-01-02,1", "B,2020-01-02,2", "A,2020-01-03,3", "B,2020-01-03,4")
    source = FileSource(str(path))
    assert source.symbols() == ["A", "B"]
    assert source.read("B")["bars"]["close"].to_list() == [2, 4]


def test_parquet_of_either_form(tmp_path: Path) -> None:
    days = [FIRST, FIRST, dt.date(2020, 1, 3), dt.date(2020, 1, 3)]
    frame = pl.DataFrame({"symbol": ["A", "B"] * 2, "date": days, "close": [1, 2, 3, 4]})
    frame.write_parquet(tmp_path / "all.parquet")
    assert bars_of(tmp_path / "all.parquet", "B", kind="parquet")["close"].to_list() == [2, 4]
    (tmp_path / "one").mkdir()
    for symbol in ("A", "B"):
        frame.filter(symbol=symbol).drop("symbol").write_parquet(tmp_path / "one" / f"{symbol}.parquet")
    source = FileSource(str(tmp_path / "one"), kind="parquet")
    assert source.symbols() == ["A", "B"] and source.read("A")["bars"]["close"].to_list() == [1, 3]


def test_two_files_of_one_symbol_are_one_history(tmp_path: Path) -> None:
    write_csv(tmp_path, "A", [1.5, 2.5], name="A_2020a.csv")
    write_csv(tmp_path, "A", [3.5, 4.5], first=dt.date(2020, 1, 6), name="A_2020b.csv")
    assert bars_of(tmp_path, "A", symbol_pattern="^([A-Z]+)_")["close"].to_list() == [1.5, 2.5, 3.5, 4.5]


# --- shorter bars: a half day in New York, 2019-07-03, open 09:30 to 13:00 -------------------------------------------


def intraday(path: Path, *stamps: str) -> Path:
    return write(path, "datetime,close", *[f"2019-07-03 {s},10" for s in stamps])


def ends(bars: pl.DataFrame) -> list[str]:
    assert bars["session"].unique().to_list() == [dt.date(2019, 7, 3)]
    return bars["timestamp"].dt.strftime("%H:%M").to_list()


def test_start_stamps_are_moved_to_the_end_of_the_bar(tmp_path: Path) -> None:
    path = intraday(tmp_path / "A.csv", "12:45", "12:30", "09:45", "09:30")
    assert ends(bars_of(path, "A")) == ends(bars_of(path, "A", stamp="start")) == ["17:00", "16:45", "14:00", "13:45"]


def test_end_stamps_stay(tmp_path: Path) -> None:
    path = intraday(tmp_path / "A.csv", "13:00", "12:45", "10:00", "09:45")
    assert ends(bars_of(path, "A", stamp="end")) == ["17:00", "16:45", "14:00", "13:45"]
    with pytest.raises(DataError, match=r"set data\.stamp to end"):
        bars_of(path, "A")


def test_the_last_bar_ends_with_the_session(tmp_path: Path) -> None:
    path = intraday(tmp_path / "A.csv", "09:30", "10:30", "11:30", "12:30")
    assert ends(bars_of(path, "A")) == ["14:30", "15:30", "16:30", "17:00"]


def test_zone_of_naive_stamps(tmp_path: Path) -> None:
    path = intraday(tmp_path / "A.csv", "13:30", "13:45")
    assert ends(bars_of(path, "A", tz="UTC")) == ["13:45", "14:00"]
    with pytest.raises(ConfigError, match=r"data.stamp is 'date', but A has bars of 0:15:00"):
        bars_of(path, "A", stamp="date")


def test_around_the_clock_a_day_ends_at_midnight(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC.csv", "date,close", "2020-01-04,7300", "2020-01-05,7400")  # Saturday, Sunday
    assert bars_of(path, "BTC", calendar="24/7")["timestamp"].to_list()[1] == dt.datetime(2020, 1, 6, tzinfo=dt.UTC)
    with pytest.raises(DataError, match=r"2 of 2 bars on days without a session of XNYS, the first on 2020-01-04.*data.calendar"):
        bars_of(path, "BTC")


# --- bad input: one clear line ---------------------------------------------------------------------------------------


def test_missing_path_empty_folder_empty_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere does not exist and matches no file.*data.path"):
        FileSource(str(tmp_path / "nowhere")).symbols()
    with pytest.raises(MissingDataError, match=r"holds no csv file, but nothing; check data.path and data.type"):
        FileSource(str(tmp_path)).symbols()
    (tmp_path / "A.parquet").write_bytes(b"")
    with pytest.raises(MissingDataError, match=r"no csv file, but \['.parquet'\]"):
        FileSource(str(tmp_path)).symbols()
    with pytest.raises(MissingDataError, match=r"A.parquet cannot be read as a table"):
        FileSource(str(tmp_path), kind="parquet").symbols()
    (tmp_path / "A.csv").write_text("")
    with pytest.raises(MissingDataError, match=r"A.csv cannot be read as a table .*; expected a header and rows"):
        FileSource(str(tmp_path)).symbols()
    (tmp_path / "A.csv").write_text("date,close\n")
    with pytest.raises(MissingDataError, match=r"A.csv has a header but no rows"):
        bars_of(tmp_path, "A")


def test_a_line_of_too_many_cells_and_a_torn_file(tmp_path: Path) -> None:
    path = write(tmp_path / "A.csv", "date,close", "2020-01-02,10", "2020-01-03,11,12,13")
    with pytest.raises(MissingDataError, match=r"A.csv cannot be read as a table"):
        bars_of(path, "A")
    pl.DataFrame({"date": [FIRST], "close": [1.0]}).write_parquet(tmp_path / "A.parquet")
    whole = (tmp_path / "A.parquet").read_bytes()
    (tmp_path / "A.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MissingDataError, match=r"A.parquet cannot be read as a table"):
        FileSource(str(tmp_path), kind="parquet").symbols()


def test_digits_are_a_date_written_out_or_seconds_since_1970(tmp_path: Path) -> None:
    """As milliseconds since 1970 the first would be a second of 1976."""
    for first, second in (("202001311600", "202001311615"), ("20200131160000", "20200131161500"), ("1580486400", "1580487300")):
        stamps = read_table(write(tmp_path / "A.csv", "timestamp,close", f"{first},1", f"{second},2"))["stamp"]
        assert [t.replace(tzinfo=None) for t in stamps] == [dt.datetime(2020, 1, 31, 16), dt.datetime(2020, 1, 31, 16, 15)]
    # All of 14 September 2001 to the millisecond: epochs of 12 digits do exist.
    assert read_table(write(tmp_path / "B.csv", "timestamp,close", "999999999000,1"))["stamp"][0].year == 2001


def test_no_price_or_time_column() -> None:
    with pytest.raises(SchemaError, match=r"A.csv has no price column among \['Date', 'Volume'\]; expected one of close"):
        recognise(["Date", "Volume"], "A.csv")
    with pytest.raises(SchemaError, match=r"no time column among \['Close'\]; expected one of timestamp"):
        recognise(["Close"], "A.csv")


@pytest.mark.parametrize(
    ("row", "error", "line"),
    [("2020-01-06,", DataError, r"A.csv line 4: close is missing; expected a finite number > 0.*data.names"),
     ("2020-01-06,NaN", DataError, r"A.csv line 4: close is missing"),
     ("2020-01-06,-3.5", DataError, r"A.csv line 4: close is -3.5; expected a finite number > 0"),
     ("2020-01-06,0", DataError, r"A.csv line 4: close is 0.0"),
     ("2020-01-06,twelve", SchemaError, r"A.csv line 4: close is 'twelve'; expected a number"),
     ("2020-13-06,12", SchemaError, r"A.csv line 4: the time is '2020-13-06'; expected a date or time such as"),
     (",12", SchemaError, r"A.csv line 4: the time is missing; expected a date or time")],
)  # fmt: skip
def test_cells_that_cannot_be_used_name_file_and_line(tmp_path: Path, row: str, error: type[DataError], line: str) -> None:
    path = write(tmp_path / "A.csv", "date,close", "2020-01-02,10", "2020-01-03,11", row, "2020-01-07,13")
    with pytest.raises(error, match=line):
        bars_of(path, "A")


def test_a_bad_adjusted_close_is_not_hidden_by_scaling(tmp_path: Path) -> None:
    path = write(tmp_path / "A.csv", "date,close,adj close", "2020-01-02,10,5", "2020-01-03,-11,-5.5")
    with pytest.raises(DataError, match=r"A.csv line 3: close is -11.0"):
        bars_of(path, "A")
    path = write(tmp_path / "A.csv", "date,close,adj close", "2020-01-02,10,5", "2020-01-03,11,-5.5")
    with pytest.raises(DataError, match=r"A.csv line 3, adjusted: close is -5.5"):
        bars_of(path, "A")


def test_a_close_that_is_no_price_does_not_look_like_one_once_it_is_scaled(tmp_path: Path) -> None:
    rows = ["2020-01-02,10,5", "2020-01-03,-12,6", "2020-01-06,14,7", "2020-01-07,16,-8"]
    write(tmp_path / "A.csv", "Date,Close,Adj Close", *rows)
    good, apart = sift(FileSource(str(tmp_path), bad_rows="quarantine").read("A")["bars"])
    assert good["close"].to_list() == [5, 7] and apart["close"].to_list() == [-12, -8]


def test_lines_are_counted_in_the_file_also_for_one_symbol_of_many(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", "symbol,date,close", "A,2020-01-02,1", "B,2020-01-02,2", "B,2020-01-03,3")
    assert rows_of(path, ["B"])["B"]["line"].to_list() == [3, 4]


def test_a_universe_names_the_symbols_that_are_kept(tmp_path: Path) -> None:
    prices, universe = tmp_path / "prices", tmp_path / "mine.yaml"
    for name in ("AAA", "BBB", "ON"):
        write_csv(prices, name, CLOSES)
    universe.write_text("symbols: {ON: , AAA: {sector: Energy}}\nbenchmark: BBB\n")
    knobs = {"data.type": "csv", "data.path": str(prices), "data.universe": str(universe)}
    assert build(load_config(overrides=knobs).data).symbols() == ["AAA", "ON"]
    assert build(load_config(overrides=knobs | {"data.names": "[BBB]"}).data).symbols() == ["BBB"]
    universe.write_text("symbols: {ON: , ABA: }\n")
    with pytest.raises(MissingDataError, match=r"data.names \(or data.universe\) asks for 'ABA'"):
        build(load_config(overrides=knobs).data).symbols()
    universe.write_text("symbols: {ON: {secto: Energy}}\n")
    with pytest.raises(SchemaError, match=r"mine.yaml: a listing has an unknown key 'secto'.*Did you mean 'sector'"):
        build(load_config(overrides=knobs).data)
    with pytest.raises(ConfigError, match=r"universe .*nowhere.yaml: No such file"):
        load_universe(str(tmp_path / "nowhere.yaml"))


def test_the_real_vix_has_days_on_which_new_york_is_closed(real_data: Path) -> None:
    """Quoted on 32 holidays since 2022 and on one day of mourning: NYSE's calendar refuses it, weekdays read it whole."""
    path = real_data / "daily" / "vix-daily.csv"
    with pytest.raises(DataError, match=r"33 of 9235 bars on days without a session of XNYS, the first on 2004-06-11.*data.calendar"):
        bars_of(path, "vix-daily")
    bars = bars_of(path, "vix-daily", calendar="24/5")
    assert (bars.height, bars["session"][0], bars["close"][0], bars["volume"].null_count()) == (9235, dt.date(1990, 1, 2), 17.24, 9235)
    assert bars["timestamp"][0] == dt.datetime(1990, 1, 3, tzinfo=dt.UTC)  # hours after Chicago's close, never before it
    cleaned, quality = clean(bars, calendar="24/5")
    assert cleaned.height == 9538 and (quality["gaps_filled"], quality["halts"]) == (303, 0)
    assert quality["violations"] == 47  # 47 opens of 1992 to 2006 lie outside the day's range
