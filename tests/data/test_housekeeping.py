import datetime as dt
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from pyarrow.parquet import ParquetFile

from rlaif_ray.cli import main
from rlaif_ray.data import lake as lake_module
from rlaif_ray.data.housekeeping import compact, status, verify
from rlaif_ray.data.lake import Lake, Revision
from tests.data.bars import daily, sessions
from tests.data.test_lake import LATER, day, document, facts, rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Bars of two symbols, one of which lacks a session and has one restated; facts and documents."""
    lake = Lake(str(tmp_path), "set")
    a, b = daily("A", [1.0, 2.0, 3.0, 4.0]), daily("B/2 ^", [5.0, 6.0, 7.0], first=sessions(dt.date(2020, 1, 2), 2)["session"][1])
    lake.append("bars", pl.concat([a, b.filter(pl.col("close") != 6.0)]), "0")
    lake.append("bars", a.with_columns(pl.when(pl.col("close") == 2.0).then(2.5).otherwise("close").alias("close")), "0", revised_at=LATER)
    lake.append("facts", facts((5, 10, 1.0, None), (5, 30, 2.0, None), (5, 20, 3.0, None)), "0")
    lake.append("documents", pl.concat([document("a", day(1)), document("b", day(50))]), "0")
    return lake


def test_status_says_what_lies_there(lake: Lake) -> None:
    found = {row.pop("table"): row for row in status(lake).to_dicts()}
    ends = daily("A", [1.0, 2.0, 3.0, 4.0])["timestamp"]
    bars = {"symbols": 2, "first": ends[0], "last": ends[3], "rows": 6, "revisions": 1, "last_known": LATER, "gaps": 1, "files": 3}
    assert {k: found["bars"][k] for k in bars} == bars
    assert [found["facts"][k] for k in ("symbols", "rows", "revisions", "gaps", "last_known")] == [1, 1, 2, None, day(30)]
    assert [found["documents"][k] for k in ("symbols", "rows", "files", "first")] == [None, 2, 2, day(0)]
    assert status(Lake(lake.uri, "nothing")).is_empty()


def test_of_bars_within_sessions_days_are_counted_and_not_minutes(lake: Lake) -> None:
    """Two bars a session; B begins a session later, lacks one, and of another has one bar only."""
    def minutes(symbol: str, *without: int) -> pl.DataFrame:
        bars = daily(symbol, [1.0] * 5)
        hours = pl.concat([bars, bars.with_columns(pl.col("timestamp", "known_at") - dt.timedelta(hours=1))]).sort("timestamp")
        return hours.with_row_index().filter(~pl.col("index").is_in(without)).drop("index")

    within = Lake(lake.uri, "minutes")
    within.append("bars", pl.concat([minutes("A"), minutes("B", 0, 1, 4, 5, 6)]), "0")
    assert status(within)["gaps"].to_list() == [1]


def test_a_whole_lake_has_nothing_wrong_with_it(lake: Lake) -> None:
    assert verify(lake) == []
    lake.append("documents", document("a", day(1), title="corrected"), "0", revised_at=LATER)
    assert verify(lake) == []


def parquet(lake: Lake, table: str, part: str) -> Path:
    return sorted((Path(lake.uri) / "set" / table / part).glob("*.parquet"))[0]


def test_a_file_that_is_gone_torn_or_of_other_rows_is_named(lake: Lake) -> None:
    gone, torn = parquet(lake, "documents", "month=2020-02"), parquet(lake, "facts", "symbol=A")
    other = parquet(lake, "documents", "month=2020-01")
    pl.concat([pl.read_parquet(other, hive_partitioning=False)] * 2).write_parquet(other)
    torn.write_bytes(torn.read_bytes()[:-100])
    gone.unlink()
    found = verify(lake)
    assert len(found) == 4
    assert "set/documents: month=2020-01/" in found[0] and "has 2 rows; the log claims 1" in found[0]
    assert "set/documents: month=2020-02/" in found[1] and "cannot be read" in found[1]
    assert "2 rows share ('id',) and revision with another" in found[2]
    assert "set/facts: symbol=A/" in found[3] and "cannot be read" in found[3]


def test_a_log_that_cannot_be_read_is_said(lake: Lake) -> None:
    (Path(lake.uri) / "set" / "facts" / "_delta_log" / "00000000000000000001.json").write_text("{ half")
    assert [line for line in verify(lake) if line.startswith("set/facts: the Delta log cannot be read")]


def test_revisions_that_go_wrong_are_found(lake: Lake) -> None:
    def force(symbol: str, revision: int, known: int) -> None:
        row = rows(symbol, [1.0]).with_columns(revision=pl.lit(revision, pl.Int32), known_at=pl.lit(day(known)))
        lake_module._commit(lake.delta("x"), row, "0")

    lake.append("x", pl.concat([rows("A", [1.0]), rows("B", [1.0]), rows("C", [1.0])]).with_columns(known_at=pl.lit(day(9))), "0")
    force("A", 0, 9)
    force("B", 2, 9)
    force("C", 1, 8)
    found = verify(lake)
    assert len(found) == 3
    assert "2 rows share ('symbol', 'timestamp') and revision with another, first ('A'" in found[0]
    assert "1 revisions are not numbered one after the other, first ('B'" in found[1]
    assert "1 revisions are known before what they revise, first ('C'" in found[2]


def test_compaction_changes_no_row_and_no_pinned_version(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "set")
    for k in range(22):
        both = [rows("A", [float(k)], first=k), *([rows("B b", [1.0])] if k == 0 else [])]
        lake.append("bars", pl.concat(both), "0")
        lake.append("documents", document(str(k), day(k)), "0")
    lake.append("bars", rows("A", [-1.0]), "0", revised_at=LATER)
    pinned = lake.version("bars")
    before = {(t, r): lake.read(t, revision=r) for t in lake.tables() for r in get_args(Revision)}
    assert compact(lake) == {"bars": 23, "documents": 22}
    assert len(lake.delta("bars").file_uris()) == 2 and len(lake.delta("documents").file_uris()) == 1
    for (table, revision), frame in before.items():
        assert lake.read(table, revision=revision).equals(frame)
    assert lake.version("bars") > pinned
    assert lake.read("bars", version=pinned).equals(before["bars", "latest"])
    assert compact(lake) == {} and verify(lake) == []
    assert lake.append("bars", rows("A", [float(k) if k else -1.0 for k in range(23)]), "0", revised_at=LATER) == 1


def test_a_compacted_file_is_written_as_an_appended_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "set")
    lake.append("bars", rows("A", [0.0]), "0")
    appended = encodings(lake)
    for k in range(1, 22):
        lake.append("bars", rows("A", [float(k)], first=k), "0")
    assert compact(lake) == {"bars": 22}
    assert encodings(lake) == appended and "RLE_DICTIONARY" not in appended["x"] | appended["timestamp"] | appended["known_at"]


def encodings(lake: Lake) -> dict[str, set[str]]:
    """How the columns are written in the one file that the table's newest version names."""
    (file,) = lake.delta("bars").file_uris()
    group = ParquetFile(file).metadata.row_group(0)
    return {group.column(k).path_in_schema: set(group.column(k).encodings) for k in range(group.num_columns)}


def test_the_commands_say_it_and_exit(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "status", "--lake", lake.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{lake.uri}/set" and lines[1].split()[:3] == ["table", "symbols", "first"]
    assert [line.split()[0] for line in lines[2:]] == ["bars", "documents", "facts"]
    assert main(["data", "verify", "--lake", lake.uri, "--dataset=set"]) == 0
    assert capsys.readouterr().out == "3 tables of 1 datasets are whole\n"
    assert main(["data", "compact", "--lake", lake.uri]) == 0
    assert capsys.readouterr().out == "set: no partition has over 20 files\n"
    parquet(lake, "bars", "symbol=A").unlink()
    assert main(["data", "verify", "--lake", lake.uri]) == 1
    assert "set/bars: symbol=A/" in capsys.readouterr().out
    assert main(["data", "status", "--lake", lake.uri, "--dataset=sets"]) == 2
    assert "no dataset 'sets'" in capsys.readouterr().err
