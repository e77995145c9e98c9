import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Panel
from rlaif_ray.data.clean import clean, sift
from rlaif_ray.data.sessions import bar_ends
from rlaif_ray.errors import DataError, SchemaError
from tests.data.bars import daily
from tests.laws import assert_apply

CLOSES = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]


def test_good_bars_pass_unchanged() -> None:
    bars = daily("A", CLOSES)
    out, quality = clean(bars, calendar="XNYS")
    assert out.equals(bars)
    assert quality["rows"] == 6
    assert {quality[k] for k in ("gaps_filled", "halts", "duplicates_dropped", "violations", "outliers")} == {0}
    assert quality["first"] == "2020-01-02T21:00:00+00:00" and quality["last"] == "2020-01-09T21:00:00+00:00"


def test_descending_bars_are_put_in_order() -> None:
    bars = daily("A", CLOSES)
    assert clean(bars.reverse(), calendar="XNYS")[0].equals(bars)


def test_a_missing_session_stands_still_and_cannot_trade() -> None:
    bars = daily("A", CLOSES)
    out, quality = clean(bars.filter(pl.col("close") != 12.0), calendar="XNYS")
    assert (quality["gaps_filled"], quality["halts"]) == (1, 0)
    filled = out.row(2, named=True)
    assert [filled[c] for c in ("open", "high", "low", "close", "volume", "split", "dividend")] == [11.0] * 4 + [0.0, 1.0, 0.0]
    assert not filled["tradable"] and filled["timestamp"] == filled["known_at"] == bars["timestamp"][2]
    assert out["tradable"].sum() == 5


def test_a_filled_row_of_a_close_only_source_gets_no_open_or_volume() -> None:
    bars = daily("A", CLOSES).with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "volume"))
    out, _ = clean(bars.filter(pl.col("close") != 12.0), calendar="XNYS")
    assert out["open"].null_count() == out["volume"].null_count() == 6 and out["close"][2] == 11.0


def test_a_filled_row_is_known_with_the_usual_delay() -> None:
    late = daily("A", CLOSES).with_columns(pl.col("known_at") + dt.timedelta(seconds=60))
    out, _ = clean(late.filter(pl.col("close") != 12.0), calendar="XNYS")
    assert (out["known_at"] - out["timestamp"]).unique().to_list() == [dt.timedelta(seconds=60)]


def test_a_day_without_volume_is_a_halt_once_there_was_any() -> None:
    out, quality = clean(daily("A", CLOSES, volume=[0, 0, 5, 0, 5, 5]), calendar="XNYS")
    assert out["tradable"].to_list() == [True, True, True, False, True, True] and quality["halts"] == 1
    index = clean(daily("VIX", CLOSES, volume=[0] * 6), calendar="XNYS")[0]
    assert index["tradable"].all()


def test_identical_rows_are_dropped_and_counted() -> None:
    bars = daily("A", CLOSES)
    out, quality = clean(pl.concat([bars, bars[2:4]]), calendar="XNYS")
    assert out.equals(bars) and quality["duplicates_dropped"] == 2


def test_rows_that_contradict_each_other_are_refused() -> None:
    bars = daily("A", CLOSES)
    with pytest.raises(DataError, match=r"A has 2 different rows at 2020-01-06 .*close 12.0 and 12.5.*data.names"):
        clean(pl.concat([bars, bars[2].with_columns(close=pl.lit(12.5))]), calendar="XNYS")


@pytest.mark.parametrize(("value", "seen"), [(float("nan"), "nan"), (-1.0, "-1.0"), (0.0, "0.0"), (float("inf"), "inf"), (None, "missing")])
@pytest.mark.parametrize("column", ["open", "close"])
def test_impossible_prices_are_refused(column: str, value: float | None, seen: str) -> None:
    bars = daily("A", CLOSES).with_columns(pl.Series(column, [10.0, 11.0, value, 13.0, 14.0, 15.0]))
    with pytest.raises(DataError, match=rf"A at 2020-01-06 21:00:00\+00:00: {column} is {seen}; expected a finite number > 0"):
        clean(bars, calendar="XNYS")


@pytest.mark.parametrize(("column", "value"), [("volume", -1.0), ("dividend", -0.1), ("split", 0.0), ("split", float("nan"))])
def test_impossible_events_are_refused(column: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{column} is {value}"):
        clean(daily("A", CLOSES).with_columns(pl.Series(column, [1.0] * 5 + [value])), calendar="XNYS")


def test_high_below_low_is_flagged_and_left_alone() -> None:
    bars = daily("A", CLOSES, high=[11, 12, 11, 14, 15, 16], low=[9, 10, 12.5, 12, 13, 14])
    out, quality = clean(bars, calendar="XNYS")
    assert out.equals(bars)
    assert quality["violations"] == 1 and quality["violations_at"] == ["2020-01-06T21:00:00+00:00"]


def test_an_outlier_is_flagged_and_left_alone_and_a_split_is_none() -> None:
    rng = np.random.default_rng(0)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 300)))
    split = np.ones(300)
    closes[100:] /= 4
    split[100] = 4.0
    assert clean(daily("A", closes.tolist(), split=split.tolist()), calendar="XNYS")[1]["outliers"] == 0
    closes[200] *= 3
    out, quality = clean(daily("A", closes.tolist(), split=split.tolist()), calendar="XNYS")
    assert quality["outliers"] == 2 and out["close"][200] == closes[200]  # there and back


def test_moves_are_held_against_those_before_them() -> None:
    rng = np.random.default_rng(1)
    calm, wild = rng.normal(0, 0.001, 200), rng.normal(0, 0.02, 200)  # a crisis: its first days are outliers, later ones are not
    closes = (100 * np.exp(np.cumsum(np.concatenate([calm, wild])))).tolist()
    times = daily("A", closes)["timestamp"]
    quality = clean(daily("A", closes), calendar="XNYS")[1]
    assert 1 <= quality["outliers"] < 60 and quality["outliers_at"][0] >= times[200].isoformat()
    last = clean(daily("A", [*closes[:-1], closes[-1] * 2]), calendar="XNYS")[1]
    assert last["outliers"] == quality["outliers"] + 1
    assert clean(daily("A", [*(100 + rng.normal(0, 1, 19)).tolist(), 500.0]), calendar="XNYS")[1]["outliers"] == 0  # too few before


def within(days: list[str], minutes: int, first: str, bars: int) -> pl.DataFrame:
    """Bars of `minutes` whose first of a day ends at `first` in New York."""
    ends = [
        dt.datetime.fromisoformat(f"{day}T{first}").replace(tzinfo=ZoneInfo("America/New_York")) + k * dt.timedelta(minutes=minutes)
        for day in days for k in range(bars)
    ]  # fmt: skip
    rows = daily("A", [10.0 + k for k in range(len(ends))])
    at = pl.Series([end.astimezone(dt.UTC) for end in ends], dtype=rows.schema["timestamp"])
    return rows.with_columns(timestamp=at, known_at=at, session=pl.Series([end.date() for end in ends]))


def at(ends: list[dt.datetime], zone: str, night: dt.timedelta = dt.timedelta(0)) -> pl.DataFrame:
    """Bars that end then; their session is the day in `zone`, which ends `night` before midnight."""
    rows = pl.concat([daily("A", [10.0 + k]) for k in range(len(ends))])
    moments = pl.Series(ends, dtype=rows.schema["timestamp"])
    days = (moments + night - dt.timedelta(microseconds=1)).dt.convert_time_zone(zone).dt.date()
    return rows.with_columns(timestamp=moments, known_at=moments, session=days)


def test_missing_minutes_of_half_days_and_over_the_change_of_clocks_stand_still() -> None:
    friday = within(["2019-11-29"], 1, "09:31", 210)  # the market closes at one
    out, quality = clean(friday.filter(~pl.col("close").is_in([12.0, 13.0, 219.0])), calendar="XNYS")
    assert (out.height, quality["gaps_filled"], quality["halts"]) == (209, 2, 0)  # what would come after the last bar is not missing
    assert out["close"][:5].to_list() == [10.0, 11.0, 11.0, 11.0, 14.0] and out["tradable"].to_list().count(False) == 2
    clocks = within(["2020-03-06", "2020-03-09"], 15, "09:45", 26)
    out, quality = clean(clocks.filter(pl.col("close") != 40.0), calendar="XNYS")
    assert quality["gaps_filled"] == 1 and out["timestamp"].equals(clocks["timestamp"])
    assert clean(within(["2020-03-06", "2020-03-10"], 15, "09:45", 26), calendar="XNYS")[1]["gaps_filled"] == 0  # a day is no bar


def test_hours_may_be_counted_from_the_full_hour() -> None:
    hours = within(["2020-01-06", "2020-01-07"], 60, "10:00", 7)
    out, quality = clean(hours.filter(pl.col("close") != 13.0), calendar="XNYS")
    assert quality["gaps_filled"] == 1 and out["timestamp"].equals(hours["timestamp"])
    early = within(["2020-01-06"], 1, "04:01", 330)  # before the open; they say nothing about what lacks within hours
    within_hours = within(["2020-01-06"], 1, "09:31", 5).filter(pl.col("close") != 12.0)
    out, quality = clean(pl.concat([early.filter(pl.col("close") < 300), within_hours]), calendar="XNYS")
    assert quality["gaps_filled"] == 1 and out.height == 295
    odd = hours.with_columns(pl.col("timestamp") + dt.timedelta(minutes=7)).filter(pl.col("close") != 13.0)
    assert clean(odd, calendar="XNYS")[1]["gaps_filled"] == 0


def test_a_session_that_is_over_is_filled_until_its_close() -> None:
    bars = within(["2020-01-06", "2020-01-07"], 15, "09:45", 26)
    lacks = bars.filter(~pl.col("close").is_in([34.0, 35.0, 59.0, 60.0, 61.0]))
    close = dt.datetime(2020, 1, 7, 21, tzinfo=dt.UTC)
    counts = {at: clean(lacks, calendar="XNYS", read_at=at)[1]["gaps_filled"] for at in (close, close - dt.timedelta(seconds=1), None)}
    assert list(counts.values()) == [5, 2, 2]
    late = lacks.with_columns(pl.col("known_at") + dt.timedelta(seconds=1))
    assert clean(late, calendar="XNYS", read_at=close)[1]["gaps_filled"] == 2  # the last is not known before


@pytest.mark.parametrize("first_day", [3, 12, 26])
def test_later_bars_add_none_before_them(first_day: int) -> None:
    """A name that hardly trades on its first day, and what is read after each session."""
    days = [f"2020-01-{day:02}" for day in (6, 7, 8, 9)]
    bars = pl.concat([within(days[:1], 15, "09:45", first_day), within(days[1:], 15, "09:45", 26)]).with_columns(close=10.0)
    bars = bars.filter(pl.Series(np.random.default_rng(5).random(bars.height) > 0.2))
    closes = [dt.datetime.fromisoformat(f"{day}T21:00:00Z") for day in days]
    parts = [clean(bars.filter(pl.col("timestamp") <= at), calendar="XNYS", read_at=at)[0] for at in closes]
    for at, part in zip(closes, parts, strict=True):
        assert part.select("timestamp", "session").equals(parts[-1].filter(pl.col("timestamp") <= at).select("timestamp", "session"))
    assert parts[-1].height > 3 * 26


def test_a_break_at_noon_is_no_gap() -> None:
    ends = bar_ends("XHKG", dt.date(2020, 1, 6), dt.date(2020, 1, 7), dt.timedelta(minutes=1), True, True)
    assert ends.height == 2 * 330
    bars = at(ends["timestamp"].to_list(), "Asia/Hong_Kong")
    out, quality = clean(bars.filter(pl.col("close") != 30.0), calendar="XHKG")
    assert quality["gaps_filled"] == 1 and out["timestamp"].equals(bars["timestamp"])


def test_a_last_hour_may_reach_beyond_the_close() -> None:
    hours = within(["2020-01-06", "2020-01-07"], 60, "10:30", 7)
    out, quality = clean(hours.filter(pl.col("close") != 13.0), calendar="XNYS")
    assert quality["gaps_filled"] == 1 and out["timestamp"].equals(hours["timestamp"])
    moved = within(["2020-01-06", "2020-01-07"], 15, "09:45", 26)
    earlier = pl.col("timestamp") - dt.timedelta(minutes=8)
    moved = moved.with_columns(pl.when(pl.col("close") == 14.0).then(earlier).otherwise("timestamp").alias("timestamp"))
    assert clean(moved, calendar="XNYS")[1]["gaps_filled"] == 0  # what would be filled is there, otherwise counted


@pytest.mark.parametrize(("first", "bars"), [("03:01", 510), ("20:01", 240), ("16:01", 240)])
def test_bars_of_other_hours_and_markets_get_no_rows(first: str, bars: int) -> None:
    """London's in New York's hours, Hong Kong's, and those after the close."""
    days = [f"2020-01-{day:02}" for day in (6, 7, 8, 9, 10)]
    assert clean(within(days, 1, first, bars), calendar="XNYS")[1]["gaps_filled"] == 0
    over = dt.datetime(2020, 2, 1, tzinfo=dt.UTC)
    assert clean(within(days[:1], 1, first, bars), calendar="XNYS", read_at=over)[1]["gaps_filled"] == 0


def test_currencies_whose_days_end_in_new_york_get_no_rows() -> None:
    start, bar = dt.datetime(2020, 1, 6, tzinfo=dt.UTC), dt.timedelta(minutes=15)
    friday, sunday = (dt.datetime(2020, 1, day, 22, tzinfo=dt.UTC) for day in (10, 12))
    ends = [end for k in range(1, 10 * 96) if not friday < (end := start + k * bar) <= sunday]
    bars = at(ends, "UTC", night=dt.timedelta(hours=2))
    out, quality = clean(bars.filter(pl.col("close") != 200.0), calendar="24/5")
    assert quality["gaps_filled"] == 0 and out["session"].is_sorted()


def test_the_row_after_the_last_stays_without_prices() -> None:
    bars = daily("A", CLOSES)
    nothing = [pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "close", "volume")]
    gone = bars[-1].with_columns(*nothing, tradable=pl.lit(False), delisted=pl.lit(True))
    out, quality = clean(pl.concat([bars[:-1], gone]), calendar="XNYS")
    assert out["delisted"].to_list() == [False] * 5 + [True] and quality["rows"] == 5


def test_other_columns_days_and_too_few_bars_are_refused() -> None:
    bars = daily("A", CLOSES)
    with pytest.raises(SchemaError, match="volume"):
        clean(bars.drop("volume"), calendar="XNYS")
    with pytest.raises(DataError, match="A has 1 bars; expected at least 2"):
        clean(bars[:1], calendar="XNYS")
    sunday = bars.with_columns(pl.when(pl.col("close") == 13).then(dt.date(2020, 1, 5)).otherwise("session").alias("session"))
    with pytest.raises(DataError, match="2020-01-05, when XNYS has no session"):
        clean(sunday, calendar="XNYS")


def test_what_comes_later_changes_no_earlier_row() -> None:
    rng = np.random.default_rng(3)
    bars = daily("A", (100 * np.exp(np.cumsum(rng.normal(0, 0.02, 200)))).tolist(), volume=rng.integers(0, 3, 200).tolist())
    gappy = Panel.of(bars.filter(pl.Series(rng.random(200) > 0.1)))
    for t in (20, 90, 150):
        assert_apply(lambda panel: Panel.of(clean(panel.frame, calendar="XNYS")[0]), gappy, t, rng)


def test_sifting_takes_what_cannot_be_right_and_of_rows_that_disagree_all_but_the_last() -> None:
    bars = daily("A", CLOSES, volume=[100.0, -5.0, 100.0, 100.0, 100.0, 100.0])
    bars = bars.with_columns(high=pl.when(pl.col("close") == 13.0).then(float("inf")).otherwise("high"))
    corrected = bars.row(4, named=True) | {"close": 14.5, "high": 14.5}
    twice = pl.concat([bars, bars[5:], pl.DataFrame([corrected], schema=bars.schema)])  # the last day again, and the fifth corrected
    good, apart = sift(twice)
    assert good["close"].to_list() == [10.0, 12.0, 15.0, 15.0, 14.5] and clean(good, calendar="XNYS")[1]["duplicates_dropped"] == 1
    assert apart["reason"].to_list() == [
        "volume is -5.0; expected a finite number >= 0", "high is inf; expected a finite number > 0",
        "another row on the same time came later in the source",
    ]  # fmt: skip
    assert apart["close"].to_list() == [11.0, 13.0, 14.0]
    assert sift(bars[:1])[1].is_empty()


def test_sifting_leaves_the_row_that_says_delisted() -> None:
    bars = daily("A", CLOSES, volume=[100.0, -5.0, 100.0, 100.0, 100.0, 100.0])
    nothing = [pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "close", "volume")]
    gone = bars[-1].with_columns(*nothing, tradable=pl.lit(False), delisted=pl.lit(True))
    good, apart = sift(pl.concat([bars[:-1], gone]))
    assert apart["close"].to_list() == [11.0] and good["delisted"].to_list() == [False] * 4 + [True]
    assert clean(good, calendar="XNYS")[0]["delisted"].to_list() == [False] * 5 + [True]  # the second day stands still
    assert sift(pl.concat([bars[2:-1], gone]))[1].is_empty()
