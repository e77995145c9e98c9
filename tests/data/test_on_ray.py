import datetime as dt
import json
import uuid
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ray.exceptions import RayTaskError

from rlaif_ray.config_data import FileData, Sp500Data, SyntheticData
from rlaif_ray.core import Panel
from rlaif_ray.data import build
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.bundled import Sp500Source
from rlaif_ray.data.events import total_returns
from rlaif_ray.data.files import FileSource
from rlaif_ray.data.housekeeping import verify
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import ingest
from rlaif_ray.data.receipts import Ingest
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError
from tests.data.bars import daily, sessions, write_csv

pytestmark = pytest.mark.usefixtures("ray_session")
UP = [10.0 + k for k in range(30)]
FIRST = dt.date(2020, 1, 2)
DAYS = sessions(FIRST, 30)["session"].to_list()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "set")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for symbol in ("A", "B", "C"):
        write_csv(tmp_path / "in", symbol, UP)
    return tmp_path / "in"


def take(folder: Path, lake: Lake, **knobs) -> Ingest:
    return ingest(FileSource(str(folder)), lake, **knobs)


def test_build_makes_the_source_that_the_section_names() -> None:
    assert isinstance(build(FileData(type="parquet", path="somewhere")), FileSource)
    assert isinstance(build(Sp500Data(type="sp500")), Sp500Source)
    assert isinstance(build(SyntheticData()), SyntheticSource)


def test_files_become_bars_in_the_lake(folder: Path, lake: Lake) -> None:
    done = take(folder, lake)
    assert (done.symbols, done.rows, done.price_kind, done.bar_s) == (("A", "B", "C"), 90, "raw", 86_400)
    assert done.bars_per_year == pytest.approx(253 * 365.25 / 366) and list(done.versions) == ["bars"]
    bars = lake.read("bars", version=done.versions["bars"])
    assert bars.height == 90 and bars["close"][:30].to_list() == UP
    assert done.quality["A"]["rows"] == 30 and done.quality["A"]["gaps_left"] == 0


def test_again_adds_nothing_and_says_the_same(folder: Path, lake: Lake, tmp_path: Path) -> None:
    first, again = take(folder, lake), take(folder, lake)
    assert first == again
    elsewhere = take(folder, Lake(str(tmp_path / "other"), "name"))
    assert elsewhere.data_version == first.data_version
    write_csv(folder, "B", [*UP[:-1], 99.0])
    changed = take(folder, lake)
    assert changed.data_version != first.data_version
    assert lake.read("bars", ["B"])["close"].to_list()[-1] == 99.0
    assert lake.read("bars", ["B"], revision="first")["close"].to_list() == UP


def test_a_span_is_kept_and_nothing_after_it(folder: Path, lake: Lake) -> None:
    write_csv(folder, "NEW", UP[:2], first=DAYS[25])
    done = take(folder, lake, start=DAYS[3], end=DAYS[20])
    bars = lake.read("bars")
    assert bars["session"].min() == DAYS[3] and bars["session"].max() == DAYS[20]
    assert done.symbols == ("A", "B", "C")
    assert done.quality["NEW"] == {"rows": 0, "note": f"0 of 2 bars lie between {DAYS[3]} and {DAYS[20]}"}
    with pytest.raises(MissingDataError, match=r"no symbol; expected at least 2.*data.start and data.end"):
        take(folder, lake, start=dt.date(2030, 1, 1))


def test_bars_are_known_after_the_latency_and_one_dataset_has_one(folder: Path, lake: Lake) -> None:
    take(folder, lake, latency_s=30.0)
    bars = lake.read("bars")
    assert (bars["known_at"] - bars["timestamp"]).unique().to_list() == [dt.timedelta(seconds=30)]
    with pytest.raises(ConfigError, match=r"known 30 s after their end, these 0 s.*data.dataset"):
        take(folder, lake)
    for symbol in ("X", "Y"):
        write_csv(folder.parent / "others", symbol, UP)
    with pytest.raises(ConfigError, match="known 30 s after their end, these 0 s"):
        take(folder.parent / "others", lake)


def test_one_dataset_has_one_bar_size(folder: Path, lake: Lake, tmp_path: Path) -> None:
    take(folder, lake)
    before = lake.read("bars")
    for symbols in (("A", "B"), ("X", "Y")):  # those that are there, and others beside them
        minutes = tmp_path / symbols[0]
        minutes.mkdir()
        for symbol in symbols:
            rows = [f"2020-01-02 15:{k},{k}" for k in range(55, 60)]
            (minutes / f"{symbol}.csv").write_text("\n".join(["datetime,close", *rows]) + "\n")
        with pytest.raises(DataError, match=r"/set are of 1 day, 0:00:00, these of 0:01:00; expected one size a dataset"):
            take(minutes, lake)
    assert lake.read("bars").equals(before)


def test_who_ends_early_is_delisted_and_who_ends_a_little_early_is_halted(folder: Path, lake: Lake) -> None:
    write_csv(folder, "GONE", UP[:12])
    write_csv(folder, "SLOW", UP[:27])
    done = take(folder, lake)
    gone = lake.read("bars", ["GONE"])
    assert gone["delisted"].to_list() == [False] * 22 + [True] and gone["close"].to_list()[11:] == [UP[11]] * 11 + [None]
    assert gone["session"][-1] == DAYS[22] and gone["tradable"].to_list() == [True] * 12 + [False] * 11
    assert done.quality["GONE"]["ends_early"] and done.quality["GONE"]["delisted"] == DAYS[22].isoformat()
    slow = lake.read("bars", ["SLOW"])
    assert slow["close"].to_list()[-4:] == [UP[26]] * 4 and slow["tradable"].to_list()[-4:] == [True, False, False, False]
    assert done.quality["SLOW"]["gaps_filled"] == 3 and not done.quality["SLOW"]["ends_early"]
    assert done.rows == 3 * 30 + 22 + 30


def split_file(folder: Path, symbol: str, closes: list[float]) -> None:
    rows = [f"{d},{c},{2.0 if k == 10 else 0.0}" for k, (d, c) in enumerate(zip(DAYS, closes, strict=True))]
    (folder / f"{symbol}.csv").write_text("\n".join(["date,close,stock_splits", *rows]) + "\n")


def test_a_split_that_is_in_the_prices_is_not_applied_twice(folder: Path, lake: Lake, tmp_path: Path) -> None:
    for symbol in "ABC":
        split_file(folder, symbol, UP)
    adjusted = take(folder, lake)
    assert adjusted.price_kind == "split_adjusted" and adjusted.quality["A"]["split_days"] == 1
    assert lake.read("bars")["split"].unique().to_list() == [1.0]
    for symbol in "ABC":
        split_file(folder, symbol, [c * 2 if k < 10 else c for k, c in enumerate(UP)])
    raw_lake = Lake(str(tmp_path / "lake"), "raw")
    raw = take(folder, raw_lake)
    assert raw.price_kind == "raw" and (raw_lake.read("bars")["split"] == 2.0).sum() == 3
    returns = [
        total_returns(build_cube(Panel.of(at.read("bars")), bars_per_year=252.0, price_kind=done.price_kind))
        for at, done in ((lake, adjusted), (raw_lake, raw))
    ]
    np.testing.assert_allclose(returns[0], returns[1])


def test_a_back_adjusted_history_that_is_rewritten_keeps_its_moments(folder: Path, lake: Lake) -> None:
    for symbol in "ABC":
        split_file(folder, symbol, UP)
    take(folder, lake)
    for symbol in "ABC":
        split_file(folder, symbol, [c / 2 for c in UP])
    done = take(folder, lake)
    bars = lake.read("bars", version=done.versions["bars"])
    assert bars["close"][0] == 5.0 and (bars["known_at"] == bars["timestamp"]).all()


def test_facts_go_along(lake: Lake) -> None:
    source = SyntheticSource(3, 400, seed=1)
    done = ingest(source, lake)
    assert sorted(done.versions) == ["bars", "filings", "news"] and lake.tables() == ["bars", "filings", "ingests", "news"]
    facts = {name: lake.read(name) for name in ("filings", "news")}
    cube = build_cube(Panel.of(lake.read("bars")), None, facts, bars_per_year=done.bars_per_year, price_kind="raw")
    assert cube.feature_names == ("filing_score", "filing_age_bars", "news_score", "news_age_bars")
    assert cube.delisted[-1].tolist() == [False, False, True] and done.quality["S002"]["delisted"]
    expected = pl.concat([source.read(s)["bars"] for s in source.symbols()])
    assert lake.read("bars").equals(expected.sort("symbol", "timestamp"))


class Closed(FileSource):
    """Says what its files say as long as nobody asks for a bar."""

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        raise AssertionError(f"{symbol} was read")


def test_unchanged_files_are_known_by_their_content_and_not_read(folder: Path, lake: Lake) -> None:
    first = take(folder, lake)
    assert "ingests" in lake.tables() and first.versions.keys() == {"bars"}
    assert ingest(Closed(str(folder)), lake) == first
    with pytest.raises(RayTaskError, match="was read"):  # another span is another request
        ingest(Closed(str(folder)), lake, end=DAYS[20])
    write_csv(folder, "B", [*UP[:-1], 99.0])
    with pytest.raises(RayTaskError, match="was read"):
        ingest(Closed(str(folder)), lake)
    changed = take(folder, lake)
    write_csv(folder, "B", UP)  # the first state again, but the lake has moved on: a third word
    assert take(folder, lake).versions["bars"] > changed.versions["bars"]
    assert lake.read("bars", ["B"])["close"].to_list() == UP


class Flaky(FileSource):
    """Cannot be reached for the first `times` asks for B."""

    times = 0

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        asks = Path(self.path).parent / "asks"
        asks.mkdir(exist_ok=True)
        if symbol == "B":
            (asks / uuid.uuid4().hex).touch()
            if len(list(asks.iterdir())) <= self.times:
                raise ConnectionResetError("the line went dead")
        return super().read(symbol)


def test_who_cannot_be_reached_is_asked_again_and_then_named_and_the_others_come_in(folder: Path, lake: Lake, tmp_path: Path) -> None:
    source = Flaky(str(folder))
    source.times = 2
    assert ingest(source, lake).symbols == ("A", "B", "C")
    source.times = 1000
    with pytest.raises(MissingDataError, match=r"B could not be read in 3 tries .*the line went dead"):
        ingest(source, Lake(str(tmp_path / "lake"), "strict"))
    other = Lake(str(tmp_path / "lake"), "other")
    done = ingest(source, other, bad_rows="quarantine")
    assert done.symbols == ("A", "C") and list(done.failed) == ["B"] and "ingests" not in other.tables()
    assert other.read("quarantine")["reason"].to_list() == [done.failed["B"]]


def test_what_cannot_be_right_is_set_apart_with_the_reason_and_the_rest_comes_in(folder: Path, lake: Lake) -> None:
    text = (folder / "C.csv").read_text().splitlines()
    text[6] = ",".join([*text[6].split(",")[:4], "-1", "1000"])
    (folder / "C.csv").write_text("\n".join([*text, f"{DAYS[8]},50,51,49,50,1000"]) + "\n")
    (folder / "BROKEN.csv").write_bytes(b"")
    source = FileSource(str(folder), bad_rows="quarantine")
    done = ingest(source, lake, bad_rows="quarantine")
    assert done.symbols == ("A", "B", "C") and "BROKEN.csv cannot be read as a table" in done.failed["BROKEN"]
    bars = lake.read("bars", ["C"])
    # The day without a price stands still; of the two rows of a day the later one counts.
    assert bars["close"][5] == UP[4] and not bars["tradable"][5] and bars["close"][8] == 50.0 and bars.height == 30
    apart = lake.read("quarantine").filter(pl.col("symbol") == "C").sort("timestamp")
    assert [why.split(";")[0] for why in apart["reason"]] == ["close is -1.0", "another row on the same time came later in the source"]
    assert json.loads(apart["row"][1])["close"] == UP[8] and done.quality["C"]["quarantined"] == 2
    again = ingest(source, lake, bad_rows="quarantine")
    assert again == done and lake.read("quarantine").height == 3


# --- bad input: one clear line, and nothing written ------------------------------------------------------------------


def refused(folder: Path | str, lake: Lake, error: type[Exception], line: str, **knobs) -> None:
    with pytest.raises(error, match=line) as caught:
        ingest(FileSource(str(folder), **knobs), lake)
    assert "\n" not in str(caught.value)
    assert lake.tables() == []


def test_one_symbol_only(folder: Path, lake: Lake) -> None:
    refused(folder / "A.csv", lake, DataError, r"one symbol only \('A'\); expected at least 2.*data.path and data.names")


def test_missing_path_and_empty_file(folder: Path, lake: Lake) -> None:
    refused(folder / "nowhere", lake, MissingDataError, "does not exist and matches no file")
    (folder / "C.csv").write_text("")
    refused(folder, lake, MissingDataError, r"C.csv cannot be read as a table")


@pytest.mark.parametrize(
    ("cell", "error", "line"),
    [("nan", DataError, "C.csv line 7: close is missing"), ("-1", DataError, "C.csv line 7: close is -1.0"),
     ("0", DataError, "C.csv line 7: close is 0.0"), ("x", SchemaError, "C.csv line 7: close is 'x'")],
)  # fmt: skip
def test_one_bad_cell_in_the_last_symbol_writes_none(folder: Path, lake: Lake, cell: str, error: type[Exception], line: str) -> None:
    text = (folder / "C.csv").read_text().splitlines()
    text[6] = ",".join([*text[6].split(",")[:4], cell, "1000"])
    (folder / "C.csv").write_text("\n".join(text))
    refused(folder, lake, error, line)


def test_conflicting_rows_and_the_count_of_other_errors(folder: Path, lake: Lake) -> None:
    for symbol in "BC":
        with (folder / f"{symbol}.csv").open("a") as file:
            file.write(f"{DAYS[4]},50,51,49,50,1000\n")
    refused(folder, lake, DataError, r"B has 2 different rows at 2020-01-08 .*\(1 more of 3 symbols have errors\)")


def test_no_price_column(folder: Path, lake: Lake) -> None:
    for path in folder.iterdir():
        path.write_text("Date,Volume\n2020-01-02,5\n")
    refused(folder, lake, SchemaError, r"no price column among \['Date', 'Volume'\]")


def test_two_bar_sizes(folder: Path, lake: Lake) -> None:
    (folder / "C.csv").write_text("datetime,close\n2020-01-02 09:30,1\n2020-01-02 09:45,2\n2020-01-02 10:00,3\n")
    refused(folder, lake, DataError, r"1 of 0:15:00 such as 'C'; 2 of 1 day, 0:00:00 such as 'A'.*_15min.csv")


class OneOtherFiling:
    """Bars of four symbols; the filings of the last two have a column too many."""

    price_kind = "raw"

    def symbols(self) -> list[str]:
        return list("ABCD")

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        bars = daily(symbol, [10.0, 11.0, 12.0])
        filings = bars.select("symbol", "timestamp", "known_at", filings_score=pl.lit(1.0))
        return {"bars": bars, "filings": filings if symbol in "AB" else filings.with_columns(surprise=pl.lit(1.0))}


def test_a_shard_that_cannot_be_committed_is_named_and_the_others_are_not_lost(
    ray_session: None, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif_ray.data.on_ray.SHARD_SYMBOLS", 2)
    lake.append("filings", OneOtherFiling().read("A")["filings"], "before")
    with pytest.raises(SchemaError, match=r"other columns: unknown \['surprise'\].* \(1 more of 2 symbols have errors\)"):
        ingest(OneOtherFiling(), lake)
    done = ingest(OneOtherFiling(), lake, bad_rows="quarantine")
    assert done.symbols == ("A", "B") and set(done.quality) == {"A", "B"} and list(done.failed) == ["C", "D"]
    assert done.failed["D"].startswith("D did not come in whole: ") and "surprise" in done.failed["D"]
    assert lake.read("filings")["symbol"].unique().sort().to_list() == ["A", "B"]


def test_a_value_changed_by_other_hands_is_noticed(folder: Path, lake: Lake) -> None:
    take(folder, lake)
    assert verify(lake) == []
    (path,) = (Path(lake.uri) / "set" / "bars" / "symbol=B").glob("*.parquet")
    rows = pl.read_parquet(path, hive_partitioning=False)
    size = path.stat().st_size
    other = rows.with_columns(close=pl.when(pl.int_range(pl.len()) == 7).then(17.5).otherwise("close"))
    other.write_parquet(path, compression="zstd", compression_level=22, statistics=False)
    raw = path.read_bytes()
    footer = int.from_bytes(raw[-8:-4], "little") + 8
    path.write_bytes(raw[:-footer] + bytes(size - len(raw)) + raw[-footer:])  # of the size that the log says
    (found,) = verify(lake)
    assert found.startswith("set: what came in at ") and "expected rows that nobody changes" in found
