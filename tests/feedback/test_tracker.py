"""Open opinions are closed once, whenever their bars come, in whatever order, and whoever is cut off in between."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif_ray.agents import records
from rlaif_ray.core import Abstention, Cube, Opinion
from rlaif_ray.data import opinions as kept
from rlaif_ray.data.housekeeping import verify
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import DataError, MissingDataError, SchemaError
from rlaif_ray.feedback.outcomes import judge_records, opinion_id
from rlaif_ray.feedback.tracker_on_ray import Market, Tracked, follow, take_in, track
from rlaif_ray.feedback.yardstick import ALONE, NO_MOMENT, NO_PRICE, NO_SYMBOL, NO_USUAL, VOID, OutcomeTerms, Yardstick
from tests.data.bars import daily
from tests.laws import random_bars

pytestmark = pytest.mark.usefixtures("ray_session")
ROOT = Path(__file__).parents[2]
TERMS = OutcomeTerms(0.0002, beta_bars=20, volatility_bars=10)
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
FIRST_DAY, ROWS = dt.date(2020, 1, 2), 60


def walk(seed: int, rows: int = ROWS) -> list[float]:
    return (50.0 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).standard_normal(rows)))).tolist()


BARS = pl.concat([daily(symbol, walk(k)) for k, symbol in enumerate("ABCD")])
MOMENTS = BARS["timestamp"].unique().sort()


def until(row: int, symbols: str = "ABCD") -> pl.DataFrame:
    """Bars of some symbols up to a row."""
    return BARS.filter((pl.col("timestamp") <= MOMENTS[row]) & pl.col("symbol").is_in(list(symbols)))


def said(row: int, symbol: str, author: str = "risk", horizon_bars: int = 5, p_up: float = 0.6, **more: object) -> Opinion:
    moment = np.datetime64(MOMENTS[row].replace(tzinfo=None), "us")
    return Opinion(author, moment, symbol, horizon_bars, p_up, (), f"{author} on {symbol}", f"asked in row {row}", **more)  # pyright: ignore[reportArgumentType]


SPOKEN = [
    said(row, symbol, author, h, 0.5 + 0.01 * (row % 7 - 3 + k))
    for row in range(0, ROWS, 3) for symbol in "ABCD" for k, (author, h) in enumerate((("risk", 5), ("technical", 20)))
]  # fmt: skip
ABSTAINED = [Abstention("news", o.as_of, o.symbol, 5, "nothing known") for o in SPOKEN[:9:2]]


def lake_at(folder: Path, row: int = ROWS - 1, spoken: list[Opinion] = SPOKEN) -> Lake:
    """Bars up to a row, and what was said."""
    lake = Lake(str(folder), "set")
    lake.append("bars", until(row), "test")
    kept.keep_opinions(lake, records.to_arrow([*spoken, *ABSTAINED]), NOW)
    return lake


def one_pass(lake: Lake, **how: bool | int) -> Tracked:
    return track(lake, Market.of(lake).settled(), TERMS, **how)  # pyright: ignore[reportArgumentType]


def alone(cube: Cube, spoken: list[Opinion]) -> pa.Table:
    """What one process says of opinions, sorted as a lake reads them."""
    yardsticks = {h: Yardstick.of(cube, h, TERMS) for h in {o.horizon_bars for o in spoken}}
    return judge_records(records.to_arrow(spoken), cube.known_at, cube.symbols, yardsticks).sort_by(
        [("opened_at", "ascending"), ("opinion_id", "ascending")]
    )


@pytest.fixture(scope="module")
def whole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The outcomes of one undisturbed pass over all bars."""
    lake = lake_at(tmp_path_factory.mktemp("whole"))
    one_pass(lake)
    return kept.outcomes(lake)


def test_what_has_closed_is_judged_as_one_process_does_and_the_rest_is_counted(tmp_path: Path, whole: pa.Table) -> None:
    lake = lake_at(tmp_path, 30)
    cube = Market.of(lake).settled()
    done = one_pass(lake)
    expected = alone(cube, SPOKEN)
    assert kept.outcomes(lake).equals(expected) and len(expected) == 4 * (9 + 4)  # rows 0, 3, ... 24 and 0, 3, 6, 9
    open_ = len(SPOKEN) - len(expected)
    assert done == Tracked(len(SPOKEN), open_, len(expected), {}, 0, "2020-02-14T21:00:00.000000Z")
    before = lake.version("outcomes")
    assert one_pass(lake) == replace(done, closed=0) and lake.version("outcomes") == before  # nothing is left to do
    assert kept.outcomes(lake, MOMENTS[10]).equals(expected.filter(pa.array(expected["closed_at"].to_numpy() <= cube.known_at[10])))
    lake.append("bars", until(ROWS - 1), "test")
    assert one_pass(lake).closed == len(whole) - len(expected)
    assert kept.outcomes(lake).equals(whole) and verify(lake) == []


def test_opinions_that_come_twice_late_and_in_any_order_are_one_each(tmp_path: Path, whole: pa.Table) -> None:
    lake, shuffled = Lake(str(tmp_path), "set"), random.Random(0).sample(SPOKEN, len(SPOKEN))
    lake.append("bars", until(ROWS - 1), "test")
    assert kept.keep_opinions(lake, records.to_arrow([*shuffled[:90], *shuffled[:50]]), NOW) == 90
    one_pass(lake)
    assert kept.keep_opinions(lake, records.to_arrow(shuffled[60:]), NOW) == len(SPOKEN) - 90
    one_pass(lake)
    assert kept.keep_opinions(lake, records.to_arrow(SPOKEN), NOW) == 0
    assert kept.outcomes(lake).equals(whole)
    found = kept.opinions(lake, {opinion_id(o) for o in SPOKEN[:5]})
    assert found == {opinion_id(o): o for o in SPOKEN[:5]}


def test_outcomes_that_come_twice_and_in_any_order_are_one_each(tmp_path: Path, whole: pa.Table) -> None:
    lake, rng = Lake(str(tmp_path), "set"), random.Random(1)
    parts = [whole.slice(k, 20) for k in range(0, len(whole), 20)]
    added = [kept.keep_outcomes(lake, part, NOW) for part in rng.sample([*parts, *parts], 2 * len(parts))]
    assert sum(added) == len(whole) and added.count(0) == len(parts)
    assert kept.outcomes(lake).equals(whole) and verify(lake) == []


def test_who_says_something_else_later_is_judged_by_the_first_word(tmp_path: Path, whole: pa.Table) -> None:
    lake = lake_at(tmp_path)
    assert kept.keep_opinions(lake, records.to_arrow([replace(SPOKEN[0], p_up=0.9)]), NOW) == 1
    done = one_pass(lake)
    assert done.restated == 1 and done.opinions == len(SPOKEN) and kept.outcomes(lake).equals(whole)
    assert lake.read("opinions", revision="all").filter(pl.col("p_up") == 0.9)["known_at"].to_list() == [NOW]


def test_what_is_no_opinion_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    lake, table = Lake(str(tmp_path), "set"), records.to_arrow(SPOKEN[:2])
    with pytest.raises(SchemaError, match=r"without \['p_up'\]"):
        kept.keep_opinions(lake, table.drop_columns("p_up"), NOW)
    for p_up in (0.0, 1.0, float("nan")):
        wrong = table.set_column(table.column_names.index("p_up"), "p_up", pa.array([0.6, p_up]))
        with pytest.raises(DataError, match=r"technical on A .* expected strictly between 0 and 1"):
            kept.keep_opinions(lake, wrong, NOW)
    with pytest.raises(DataError, match=r"risk says two things on A .* numbered rounds or samples"):
        kept.keep_opinions(lake, records.to_arrow([SPOKEN[0], replace(SPOKEN[0], p_up=0.9)]), NOW)
    assert kept.keep_opinions(lake, records.to_arrow([SPOKEN[0], replace(SPOKEN[0], p_up=0.9, sample=1)]), NOW) == 2
    with pytest.raises(MissingDataError, match=r"no opinion nobody in .*rlaif feedback list"):
        kept.opinions(lake, {"nobody"})


def test_what_can_never_be_judged_is_recorded_with_its_reason_once_its_horizon_has_passed(tmp_path: Path) -> None:
    """A is delisted on row 20: who spoke before is judged by what is left of it, who speaks after cannot be."""
    wide = ((0.1, -0.05), (0.9, 0.05))
    odd = [
        said(17, "A", horizon_bars=5), said(21, "A", horizon_bars=5), said(1, "B", horizon_bars=5, quantiles=wide),
        said(5, "Z", horizon_bars=5), replace(said(5, "B"), as_of=said(5, "B").as_of + np.timedelta64(1, "h")),
        said(26, "A"), said(26, "B"), said(26, "Z"),
    ]  # fmt: skip
    gone = pl.when((pl.col("symbol") == "A") & (pl.col("timestamp") == MOMENTS[20]))
    bars = until(30).with_columns(delisted=gone.then(True).otherwise("delisted"))
    bars = bars.filter((pl.col("symbol") != "A") | (pl.col("timestamp") <= MOMENTS[20]))
    lake = Lake(str(tmp_path), "set")
    lake.append("bars", bars, "test")
    kept.keep_opinions(lake, records.to_arrow(odd), NOW)
    done = one_pass(lake)
    assert (done.open, done.closed) == (3, 5)  # row 31 has not come
    why = dict(zip(*(kept.outcomes(lake)[c].to_pylist() for c in ("opinion_id", "void")), strict=True))
    reasons = "", VOID[NO_PRICE], VOID[NO_USUAL], VOID[NO_SYMBOL], VOID[NO_MOMENT]
    assert why == {opinion_id(o): reason for o, reason in zip(odd, reasons, strict=False)}
    assert done.void == dict.fromkeys(reasons[1:], 1)
    fell = kept.outcomes(lake).to_pylist()
    assert next(r for r in fell if r["void"] == "")["gross"] < -0.2  # p_up was 0.6, and the simulator leaves 0.7
    assert all(r["score"] is None for r in fell if r["void"])
    assert one_pass(lake).closed == 0


def test_a_symbol_that_stands_alone_gives_no_residual(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "set")
    lake.append("bars", until(20, "A"), "test")
    kept.keep_opinions(lake, records.to_arrow([said(3, "A")]), NOW)
    assert one_pass(lake).void == {VOID[ALONE]: 1}


def test_a_row_that_a_symbol_has_not_reached_judges_nobody(tmp_path: Path, whole: pa.Table) -> None:
    """Shards come one after another: D's last bar must not be taken for its price while the others go on."""
    lake = Lake(str(tmp_path), "set")
    lake.append("bars", until(30, "ABC"), "one shard")
    lake.append("bars", until(24, "D"), "before")
    kept.keep_opinions(lake, records.to_arrow(SPOKEN), NOW)
    one_pass(lake)
    assert kept.outcomes(lake)["closed_at"].to_numpy().max() <= np.datetime64(MOMENTS[24].replace(tzinfo=None), "us")
    lake.append("bars", until(ROWS - 1), "the rest")
    one_pass(lake)
    assert kept.outcomes(lake).equals(whole)


def test_who_is_silent_for_two_weeks_or_delisted_is_not_waited_for(tmp_path: Path) -> None:
    for last, gone, reached in [(59, False, 59), (50, False, 50), (50, True, 59), (48, False, 59)]:  # rows; ten sessions are 14 days
        lake, d = Lake(str(tmp_path / f"{last}-{gone}"), "set"), until(last, "D")
        lake.append("bars", until(ROWS - 1, "ABC"), "one shard")
        lake.append("bars", d.with_columns(delisted=gone & (pl.col("timestamp") == MOMENTS[last])), "another")
        assert len(Market.of(lake).settled().times) == reached + 1
    with pytest.raises(MissingDataError, match="no table 'bars'"):
        Market.of(Lake(str(tmp_path / "none"), "set"))


def test_a_restated_bar_makes_a_revision_when_all_is_judged_again(tmp_path: Path) -> None:
    """Vendors rewrite adjusted prices: the outcome that was served stays what was known, the new one is known from now on."""
    lake = lake_at(tmp_path)
    market = replace(Market.of(lake), price_kind="vendor_adjusted")
    track(lake, market.settled(), TERMS)
    served = kept.outcomes(lake)
    assert track(lake, market.settled(), TERMS, again=True).closed == 0
    one = (pl.col("symbol") == "A") & (pl.col("timestamp") == MOMENTS[ROWS - 1])
    lake.append("bars", BARS.with_columns(close=pl.when(one).then(pl.col("close") * 1.5).otherwise("close")), "restated", revised_at=NOW)
    assert track(lake, market.settled(), TERMS).closed == 0
    last = served.filter(pa.array(served["closed_at"].to_numpy() == market.settled().known_at[-1]))["opinion_id"].to_pylist()
    assert len(last) == 8  # of both horizons all four: they are residual to a mean with A in it
    assert track(lake, market.settled(), TERMS, again=True).closed == len(last)
    now = kept.outcomes(lake)
    moved = [a["opinion_id"] for a, b in zip(served.to_pylist(), now.to_pylist(), strict=True) if a != b]
    assert sorted(moved) == sorted(last) and kept.outcomes(lake, NOW).equals(served) and verify(lake) == []
    assert track(lake, market.settled(), TERMS, again=True).closed == 0


def test_of_two_trackers_at_once_one_wins_each_batch_and_none_is_doubled(tmp_path: Path, whole: pa.Table) -> None:
    lake = lake_at(tmp_path)
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda _: one_pass(lake, batch=7), range(2)))
    assert sum(d.closed for d in done) == len(whole)
    assert kept.outcomes(lake).equals(whole) and verify(lake) == []
    assert lake.read("outcomes", revision="all").height == len(whole)


def test_it_follows_bars_and_opinions_as_they_come(tmp_path: Path, whole: pa.Table) -> None:
    lake, told = Lake(str(tmp_path), "set"), []
    lake.append("bars", until(4), "test")
    steps = iter([
        lambda: kept.keep_opinions(lake, records.to_arrow(SPOKEN[:80]), NOW), lambda: lake.append("bars", until(25), "live"),
        lambda: None, lambda: lake.append("bars", until(ROWS - 1), "live"),
        lambda: kept.keep_opinions(lake, records.to_arrow(SPOKEN[80:]), NOW), lambda: None,
    ])  # fmt: skip
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        step = next(steps, None)
        if step is not None:
            step()

    follow(lake, lambda: one_pass(lake), lambda: len(waits) > 6, every_s=0.5, sleep=sleep, tell=told.append)
    assert waits == [0.5] * 7
    assert [d.closed > 0 for d in told] == [False, True, True, True] and sum(d.closed for d in told) == len(whole)
    assert kept.outcomes(lake).equals(whole)


def test_a_runs_opinions_are_taken_in_once(tmp_path: Path) -> None:
    lake, run = Lake(str(tmp_path / "lake"), "set"), tmp_path / "run"
    (run / "stages" / "opinions").mkdir(parents=True)
    with pytest.raises(MissingDataError, match=r"no opinions in .*--resume"):
        take_in(lake, run)
    for k, part in enumerate((SPOKEN[:100], SPOKEN[90:])):
        folder = run / "stages" / "rollout" / f"rows={k}" / "key"
        folder.mkdir(parents=True)
        pq.write_table(records.to_arrow(part), folder / "opinions.parquet")
    assert take_in(lake, run) == len(SPOKEN) and take_in(lake, run) == 0


def test_bars_with_halts_splits_and_delistings_are_judged_as_they_stand(tmp_path: Path) -> None:
    bars, lake = random_bars(np.random.default_rng(3), rows=150, assets=5), Lake(str(tmp_path), "set")
    lake.append("bars", bars.frame, "test")
    cube = Market.of(lake).settled()
    spoken = [
        Opinion("risk", cube.known_at[row], symbol, h, 0.55, (), "x", f"{row}")
        for row in range(0, 150, 4) for symbol in cube.symbols for h in (1, 20)
    ]  # fmt: skip
    kept.keep_opinions(lake, records.to_arrow(spoken), NOW)
    done = track(lake, cube, TERMS)
    outcomes = kept.outcomes(lake)
    assert outcomes.equals(alone(cube, spoken)) and done.open == len(spoken) - len(outcomes)
    for row in outcomes.to_pylist():
        assert bool(row["void"]) == (row["score"] is None)


TRACKS = """
import sys
from rlaif_ray import ray_runtime
ray_runtime.set_environment()
from tests.feedback.test_tracker import TERMS, Lake, Market, track
ray_runtime.attach(num_cpus=1, object_store_bytes=100_000_000)
lake = Lake(sys.argv[1], "set")
track(lake, Market.of(lake).settled(), TERMS, batch=5)
"""


def commits(lake: Lake) -> int:
    return len(list(Path(lake.uri, lake.dataset, "outcomes", "_delta_log").glob("*.json")))


@pytest.mark.slow
def test_killed_anywhere_and_begun_again_it_loses_nothing_and_doubles_nothing(tmp_path: Path, whole: pa.Table) -> None:
    lake, rng, left = lake_at(tmp_path), random.Random(2), []
    for k in range(6):
        tracker = subprocess.Popen(
            [sys.executable, "-c", TRACKS, lake.uri], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        began = time.monotonic()
        while tracker.poll() is None and commits(lake) < 4 * k and time.monotonic() - began < 120:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.05 if k else 4.0))
        os.killpg(tracker.pid, signal.SIGKILL)
        tracker.wait()
        left.append(kept.outcomes(lake).num_rows)
        assert left[-1] in (len(whole), left[-1] // 5 * 5)  # whole batches
    assert len(set(left)) > 3, f"the kills did not fall between commits: {left}"
    assert one_pass(lake).closed == len(whole) - left[-1]
    assert kept.outcomes(lake).equals(whole) and verify(lake) == []
    assert lake.read("outcomes", revision="all").height == len(whole)
