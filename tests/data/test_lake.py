import datetime as dt
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from rlaif_ray.cli import main
from rlaif_ray.core import UTC
from rlaif_ray.data import lake as lake_module
from rlaif_ray.data.housekeeping import status, verify
from rlaif_ray.data.lake import Lake, datasets
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, FACT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import DataError, MissingDataError, SchemaError

LATER = dt.datetime(2021, 6, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(2022, 6, 1, tzinfo=dt.UTC)


def day(k: int) -> dt.datetime:
    return dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=k)


def rows(symbol: str, values: list[float | None], first: int = 0) -> pl.DataFrame:
    ends = [day(first + k) for k in range(len(values))]
    return pl.DataFrame(
        {"symbol": [symbol] * len(values), "timestamp": ends, "known_at": ends, "x": values},
        schema={"symbol": pl.String, "timestamp": UTC, "known_at": UTC, "x": pl.Float64},
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path), "set")


def test_what_goes_in_comes_out_sorted(lake: Lake) -> None:
    both = pl.concat([rows("B/2 ^", [3.0, None]), rows("A", [1.0, float("nan")])])
    assert lake.append("bars", both, "0") == 4
    assert lake.read("bars").equals(both.sort("symbol", "timestamp"))
    assert lake.read("bars", ["B/2 ^"]).equals(both[:2])
    assert lake.read("bars", ["nobody"]).is_empty()
    assert lake.tables() == ["bars"]


def test_the_same_again_is_skipped_without_a_commit(lake: Lake) -> None:
    frame = rows("A", [1.0, None, float("nan")])
    lake.append("bars", frame, "0")
    before = lake.version("bars")
    assert lake.append("bars", frame, "0", revised_at=LATER) == 0
    assert lake.append("bars", rows("A", [None], first=1), "0") == 0
    assert lake.version("bars") == before
    assert lake.append("bars", rows("A", [1.0, None, float("nan"), 4.0]), "0") == 1


def test_other_values_are_a_new_revision_and_the_old_one_stays(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0, 2.0, 3.0]), "0")
    assert lake.append("bars", rows("A", [1.0, 2.5, 3.0]), "0", revised_at=LATER) == 1
    assert lake.append("bars", rows("A", [1.0, 2.5, 3.0]), "0", revised_at=LATEST) == 0
    assert lake.append("bars", rows("A", [1.0, 2.0, 3.0]), "0", revised_at=LATEST) == 1  # taken back: a third word
    newest = lake.read("bars")
    assert newest["x"].to_list() == [1.0, 2.0, 3.0] and newest["known_at"].to_list() == [day(0), LATEST, day(2)]
    assert lake.read("bars", revision="first").equals(rows("A", [1.0, 2.0, 3.0]))
    assert lake.read("bars", as_of=LATER)["x"].to_list() == [1.0, 2.5, 3.0]
    assert lake.read("bars", as_of=day(1)).equals(rows("A", [1.0, 2.0]))


def test_the_sources_own_moment_of_revision_counts(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0, 2.0]), "0")
    own = rows("A", [1.0, 2.5]).with_columns(pl.when(pl.col("x") == 2.5).then(day(40)).otherwise("known_at").alias("known_at"))
    lake.append("bars", own, "0", revised_at=LATER)
    assert lake.read("bars")["known_at"].to_list() == [day(0), day(40)]


def test_a_derived_table_keeps_the_moments_of_its_inputs(lake: Lake) -> None:
    lake.append("features", rows("A", [1.0]), "0")
    lake.append("features", rows("A", [7.0]), "0")
    assert lake.read("features").equals(rows("A", [7.0]))


def test_a_pinned_version_does_not_move(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0]), "0")
    pinned = lake.version("bars")
    lake.append("bars", rows("A", [9.0, 2.0]), "0", revised_at=LATER)
    assert lake.read("bars", version=pinned).equals(rows("A", [1.0]))
    with pytest.raises(MissingDataError, match=r"has no version 99; expected 0 to"):
        lake.read("bars", version=99)


def test_a_read_is_cut_by_session_else_at_its_end_by_knowledge(lake: Lake) -> None:
    lake.append("news", rows("A", [1.0, 2.0, 3.0]), "0")
    lake.append("bars", rows("A", [1.0, 2.0, 3.0]).with_columns(session=pl.col("timestamp").dt.date()), "0")
    second = day(1).date()
    assert lake.read("bars", start=second, end=second)["x"].to_list() == [2.0]
    assert lake.read("news", start=second, end=second)["x"].to_list() == [1.0, 2.0, 3.0]  # midnight ends the day before
    assert lake.read("news", end=day(0).date())["x"].to_list() == [1.0, 2.0]


def test_other_columns_or_types_are_refused(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0]), "0")
    with pytest.raises(SchemaError, match=r"unknown \['y'\], missing \[\].*data.dataset"):
        lake.append("bars", rows("A", [1.0]).with_columns(y=pl.lit(1)), "0")
    with pytest.raises(SchemaError, match=r"'x': 'Float32 for Float64'"):
        lake.append("bars", rows("A", [1.0]).with_columns(pl.col("x").cast(pl.Float32)), "0")
    with pytest.raises(SchemaError, match="known_at"):
        lake.append("other", rows("A", [1.0]).drop("known_at"), "0")
    with pytest.raises(DataError, match="'A' at 2020-01-01 00:00:00\\+00:00 twice"):
        lake.append("bars", pl.concat([rows("A", [1.0]), rows("A", [2.0])]), "0")
    assert lake.tables() == ["bars"] and lake.read("bars").equals(rows("A", [1.0]))


def test_a_table_that_is_not_there(lake: Lake) -> None:
    with pytest.raises(MissingDataError, match=r"no table 'bars'.*Ingest first"):
        lake.read("bars")
    lake.append("bars", rows("A", [1.0]), "0")
    with pytest.raises(MissingDataError, match=r"no table 'barz'.*Did you mean 'bars'"):
        lake.version("barz")


def test_files_of_a_write_that_died_before_its_commit_are_not_read(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0, 2.0]), "0")
    folder = Path(lake.uri) / "set" / "bars" / "symbol=A"
    torn = rows("A", [99.0, 99.0]).drop("symbol").with_columns(revision=pl.lit(5, pl.Int32))
    torn.write_parquet(folder / "part-00000-torn-c000.zstd.parquet")
    (folder / "part-00001-torn-c000.zstd.parquet").write_bytes(b"PAR1 half a file")
    assert lake.read("bars").equals(rows("A", [1.0, 2.0]))
    assert lake.append("bars", rows("A", [1.0, 2.0, 3.0]), "0") == 1
    assert lake.read("bars").equals(rows("A", [1.0, 2.0, 3.0]))


def test_a_stale_writer_of_the_same_symbol_fails_and_of_another_does_not(lake: Lake) -> None:
    lake.append("bars", rows("A", [1.0]), "0")
    path = f"{lake.uri}/set/bars"
    stale_a, stale_b = DeltaTable(path), DeltaTable(path)
    lake.append("bars", pl.concat([rows("A", [1.0, 2.0]), rows("C", [1.0])]), "0")
    with_revision = pl.lit(0, pl.Int32).alias("revision")
    with pytest.raises(CommitFailedError):
        lake_module._commit(stale_a, rows("A", [1.0, 2.0])[1:].with_columns(with_revision), "other name")
    lake_module._commit(stale_b, rows("B", [5.0]).with_columns(with_revision), "0")
    assert lake.read("bars").equals(pl.concat([rows("A", [1.0, 2.0]), rows("B", [5.0]), rows("C", [1.0])]))


# --- facts, documents, mentions ---------------------------------------------------------------------------------------


def facts(*said: tuple[int, int, float | None, dt.date | None], symbol: str = "A", name: str = "Revenues") -> pl.DataFrame:
    """(end of the period, day known, value, start of the period) each."""
    return pl.DataFrame(
        [(symbol, day(end), day(known), name, started, "USD", value, "10-Q", None) for end, known, value, started in said],
        schema=FACT_SCHEMA, orient="row",
    )  # fmt: skip


def document(key: str, known_at: dt.datetime, title: str | None = None) -> pl.DataFrame:
    row = (key, day(0), known_at, "news", None, "wire", title, f"text of {key}", None)
    return pl.DataFrame([row], schema=DOCUMENT_SCHEMA, orient="row")


def test_an_instant_and_a_period_that_end_together_are_two_facts(lake: Lake) -> None:
    start = day(0).date()
    both = facts((90, 100, 1.0, None), (90, 100, 2.0, start))
    assert lake.append("facts", both, "0") == 2
    assert lake.append("facts", both, "0", revised_at=LATER) == 0
    assert lake.append("facts", facts((90, 200, 3.0, None)), "0", revised_at=LATER) == 1
    assert sorted(lake.read("facts")["value"]) == [2.0, 3.0]
    assert lake.read("facts", as_of=day(150))["value"].to_list() == lake.read("facts", revision="first")["value"].to_list() == [1.0, 2.0]


def test_every_version_of_a_fact_comes_at_once_and_again(lake: Lake) -> None:
    """First said on day 10, said again on 20, restated on 30, taken back on 40."""
    told = facts((5, 10, 1.0, None), (5, 20, 1.0, None), (5, 30, 2.0, None), (5, 40, 1.0, None))
    assert lake.append("facts", told[::-1], "0", revised_at=LATER) == 3
    assert lake.append("facts", told, "0", revised_at=LATER) == 0
    every = lake.read("facts", revision="all")
    assert every["value"].to_list() == [1.0, 2.0, 1.0] and every["known_at"].to_list() == [day(10), day(30), day(40)]
    known = [lake.read("facts", as_of=day(k))["value"].to_list() for k in (9, 10, 29, 30, 40)]
    assert known == [[], [1.0], [1.0], [2.0], [1.0]]
    assert lake.append("facts", pl.concat([told, facts((5, 50, 7.0, None))]), "0", revised_at=LATER) == 1
    assert lake.read("facts")["value"].to_list() == [7.0]


def test_what_a_source_takes_back_of_a_version_is_known_from_now_on(lake: Lake) -> None:
    lake.append("facts", facts((5, 10, 1.0, None), (6, 10, 1.0, None), (6, 20, 2.0, None)), "0")
    mended = facts((5, 10, 9.0, None), (6, 10, 9.0, None), (6, 20, 2.0, None))
    assert lake.append("facts", mended, "0", revised_at=LATER) == 1  # of the second fact something newer is known
    assert lake.append("facts", mended, "0", revised_at=LATEST) == 0
    assert lake.read("facts")["value"].to_list() == [9.0, 2.0]
    assert lake.read("facts", as_of=day(15))["value"].to_list() == [1.0, 1.0]
    with pytest.raises(DataError, match=r"'A' at 'Revenues', 'USD', None, 2020-01-06 .* twice"):
        lake.append("facts", facts((5, 10, 1.0, None), (5, 10, 2.0, None)), "0")


def test_a_version_that_is_told_late_stands_where_it_belongs(lake: Lake) -> None:
    lake.append("facts", facts((5, 10, 1.0, None), (5, 30, 3.0, None)), "0")
    assert lake.append("facts", facts((5, 20, 2.0, None)), "0", revised_at=LATER) == 1
    assert lake.read("facts")["value"].to_list() == [3.0]
    assert lake.read("facts", as_of=day(25))["value"].to_list() == [2.0]


def test_documents_lie_by_month_and_readers_do_not_see_it(lake: Lake) -> None:
    two = pl.concat([document("b", day(40)), document("a", day(3))])
    assert lake.append("documents", two, "2020") == 2
    assert sorted(p.name for p in (Path(lake.uri) / "set" / "documents").glob("month=*")) == ["month=2020-01", "month=2020-02"]
    assert lake.read("documents").equals(two[::-1])
    assert lake.read("documents", as_of=day(3)).equals(two[1:])
    assert lake.append("documents", two, "2020", revised_at=LATER) == 0
    assert lake.append("documents", document("a", day(3), title="corrected"), "2020", revised_at=LATER) == 1  # in another month
    assert lake.read("documents")["title"].to_list() == ["corrected", None]
    assert lake.read("documents", as_of=LATER - dt.timedelta(1)).equals(two[::-1])
    with pytest.raises(DataError, match=r"no symbols to choose by.*mentions"):
        lake.read("documents", ["A"])


def test_mentions_are_chosen_by_symbol(lake: Lake) -> None:
    named = pl.DataFrame([("B", day(0), day(0), "x"), ("A", day(0), day(40), "x")], schema=MENTION_SCHEMA, orient="row")
    assert lake.append("mentions", named, "2020") == 2 and lake.append("mentions", named, "2020") == 0
    assert lake.read("mentions", ["A"]).equals(named[1:]) and lake.read("mentions", as_of=day(1)).equals(named[:1])


def test_a_known_table_has_its_own_columns(lake: Lake) -> None:
    with pytest.raises(SchemaError, match=r"'value': Float32.*expected \{'value': Float64"):
        lake.append("facts", facts((5, 10, 1.0, None)).with_columns(pl.col("value").cast(pl.Float32)), "0")
    with pytest.raises(SchemaError, match=r"\['id', 'timestamp', 'known_at'\]"):
        lake.append("documents", document("a", day(0)).drop("id"), "0")
    assert lake.tables() == []


def test_a_revision_is_known_no_earlier_than_what_it_revises(lake: Lake) -> None:
    lake.append("features", rows("A", [1.0]).with_columns(known_at=pl.lit(day(5))), "0")
    lake.append("features", rows("A", [2.0]), "0")
    assert lake.read("features")["known_at"].to_list() == [day(5)] and lake.read("features")["x"].to_list() == [2.0]
    assert lake.read("features", as_of=day(4)).is_empty()


@pytest.mark.parametrize("uri", ["foo://x/lake", "s3:///lake"])
def test_every_way_into_what_cannot_be_a_lake_ends_in_one_line(
    uri: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_REGION", "us-east-1")  # else it is asked for over the network
    lake = Lake(uri, "set")
    ways = [lambda: datasets(uri), lake.tables, lambda: lake.version("bars"), lambda: lake.read("bars"),
            lambda: lake.append("bars", rows("A", [1.0]), "0")]  # fmt: skip
    for way in ways:
        with pytest.raises(DataError, match=re.escape(uri) + r".* cannot be read or written \(.*check lake\.uri") as refused:
            way()
        assert "\n" not in str(refused.value)
    assert main(["data", "status", "--lake", uri]) == 2
    assert len([line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]) == 1


def test_a_broken_log_and_a_cut_file_end_in_one_line(lake: Lake, tmp_path: Path) -> None:
    def refused() -> None:
        ways = [lambda: lake.read("bars"), lambda: status(lake), lambda: lake.append("bars", rows("A", [2.0]), "0", revised_at=LATER)]
        for way in ways:
            with pytest.raises(DataError, match=r"cannot be read or written \(.*rlaif data verify") as error:
                way()
            assert "\n" not in str(error.value) and "0: <unknown>" not in str(error.value)

    lake.append("bars", rows("A", [1.0]), "0")
    torn = next((tmp_path / "set" / "bars").rglob("*.parquet"))
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-50])
    refused()
    torn.write_bytes(whole)
    (tmp_path / "set" / "bars" / "_delta_log" / "00000000000000000001.json").write_text("{ half")
    refused()


def test_datasets_are_folders_with_tables(lake: Lake, tmp_path: Path) -> None:
    assert datasets(str(tmp_path)) == []
    lake.append("bars", rows("A", [1.0]), "0")
    (tmp_path / "empty").mkdir()
    assert datasets(str(tmp_path)) == ["set"]


# --- many writers -----------------------------------------------------------------------------------------------------


WRITER = """
import sys
import polars as pl
from rlaif_ray.data.lake import Lake
from tests.data.test_lake import rows
uri, batches = sys.argv[1], int(sys.argv[2])
for k in range(batches):
    Lake(uri, "set").append("bars", pl.concat([rows(s, [float(k)] * 5, first=5 * k) for s in "ABC"]), "0")
"""


def start_writer(uri: str, batches: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, "-c", WRITER, uri, str(batches)], env={**os.environ, "PYTHONPATH": root}, cwd=root)


def test_two_writers_of_the_same_rows_leave_each_row_once(tmp_path: Path) -> None:
    writers = [start_writer(str(tmp_path), 12) for _ in range(2)]
    assert [w.wait(120) for w in writers] == [0, 0]
    stored = pl.scan_delta(str(tmp_path / "set" / "bars")).collect()
    assert stored.height == 12 * 15 and stored["revision"].unique().to_list() == [0]
    assert stored.select("symbol", "timestamp").is_unique().all()


def write(uri: str, table: str, frames: list[pl.DataFrame]) -> int:
    return sum(Lake(uri, "set").append(table, frame, "0", revised_at=LATER) for frame in frames)


def race(uri: str, table: str, work: list[list[pl.DataFrame]]) -> list[int]:
    """Rows that each of the writers added, all at once."""
    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(lambda frames: write(uri, table, frames), work))


def test_eight_writers_of_their_own_symbols(tmp_path: Path) -> None:
    work = [[rows(s, [float(k)] * 5, first=5 * k) for k in range(4)] for s in "ABCDEFGH"]
    assert race(str(tmp_path), "bars", work) == [20] * 8
    assert Lake(str(tmp_path), "set").read("bars").equals(pl.concat([pl.concat(frames) for frames in work]))


def test_eight_writers_of_the_same_symbols(tmp_path: Path) -> None:
    """Each brings days of its own and days that all have: nothing lost, nothing twice."""
    shared = rows("A", [1.0] * 5)
    work = [[pl.concat([shared, rows("A", [float(w)] * 3, first=10 + 3 * w)]), rows("B", [2.0] * 4)] for w in range(8)]
    assert sum(race(str(tmp_path), "bars", work)) == 5 + 8 * 3 + 4
    stored = pl.scan_delta(str(tmp_path / "set" / "bars")).collect()
    assert stored.height == 33 and stored["revision"].unique().to_list() == [0] and stored.select("symbol", "timestamp").is_unique().all()
    assert stored.filter(pl.col("timestamp") >= day(10))["x"].sum() == 3 * sum(range(8))


def test_eight_writers_who_revise_the_same_row(tmp_path: Path) -> None:
    """Each says something else: all of it stands, numbered one after the other, and the first word is still the first."""
    lake = Lake(str(tmp_path), "set")
    lake.append("bars", rows("A", [0.0, 5.0]), "0")
    assert race(str(tmp_path), "bars", [[rows("A", [float(w)])] for w in range(1, 9)]) == [1] * 8
    every = lake.read("bars", revision="all")
    assert sorted(every["x"]) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 6.0, 7.0, 8.0] and verify(lake) == []
    first = rows("A", [0.0, 5.0])
    assert lake.read("bars", revision="first").equals(first) and lake.read("bars", as_of=day(9)).equals(first)


def test_eight_writers_of_one_month(tmp_path: Path) -> None:
    """A document that two fetch at two moments is one document, in whichever month it was first known."""
    work = [[pl.concat([document("all", day(29 + w)), document(f"only {w}", day(3))])] for w in range(8)]
    assert sum(race(str(tmp_path), "documents", work)) == 9
    assert sorted(Lake(str(tmp_path), "set").read("documents", revision="all")["id"]) == ["all", *(f"only {w}" for w in range(8))]


def test_a_killed_writer_leaves_whole_commits(tmp_path: Path) -> None:
    writer = start_writer(str(tmp_path), 10_000)
    log = tmp_path / "set" / "bars" / "_delta_log"
    while len(list(log.glob("*.json"))) < 5:
        assert writer.poll() is None
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(60)
    left = Lake(str(tmp_path), "set").read("bars")
    assert left.height > 0 and left.height % 15 == 0
    batches = left.height // 15
    more = pl.concat([rows(s, [float(k)] * 5, first=5 * k) for s in "ABC" for k in range(batches + 1)])
    assert Lake(str(tmp_path), "set").append("bars", more, "0") == 15
