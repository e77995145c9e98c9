"""Events and their ends: by hand, against the books' own snippets, and blind to what comes after they close."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlaif_ray.barriers import cusum_events, meta_labels, trend_scanning, triple_barrier
from rlaif_ray.errors import DataError
from tests import afml

PATH = np.array([100.0, 101.0, 103.0, 99.0, 98.0, 98.5, 98.4])


def walk(bars: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, bars)))


def test_an_event_is_a_run_of_log_returns_beyond_the_threshold() -> None:
    prices = np.exp(np.array([0.0, 0.6, 1.1, 1.0, 1.5, 0.4]))  # up 0.6, 1.1 (event), 0, 0.5; down 0.1, 0, 1.1 (event)
    assert cusum_events(prices, 1.0).tolist() == [2, 5]
    assert cusum_events(prices, np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1.0])).tolist() == [4, 5]  # unknown: the sum runs on


def test_the_first_barrier_counts() -> None:
    found = triple_barrier(PATH, np.array([0, 1, 4]), np.array([0.02, 0.02, 0.02]), take=1.0, stop=1.0, vertical=2)
    # 100 -> 103 is +3% on row 2; 101 -> 103 is +1.98%, then 99 is -1.98% on row 3, where its time is up; 98 -> 98.4 goes nowhere.
    assert found.start.tolist() == [0, 1, 4] and found.end.tolist() == [2, 3, 6]
    assert found.label.tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.returns, [0.03, 99 / 101 - 1, 98.4 / 98 - 1])


def test_barriers_are_asymmetric_and_each_can_be_left_out() -> None:
    events, target = np.array([0]), np.array([0.01])
    both = triple_barrier(PATH, events, target, take=4.0, stop=1.5, vertical=6)
    assert (both.end[0], both.label[0]) == (4, -1) and both.returns[0] == pytest.approx(-0.02)
    no_stop = triple_barrier(PATH, events, target, take=4.0, stop=0.0, vertical=6)
    assert (no_stop.end[0], no_stop.label[0]) == (6, 0)
    at_the_barrier = triple_barrier(np.array([1.0, 1.5, 1.0]), events, np.array([0.5]), take=1.0, stop=0.0, vertical=2)
    assert at_the_barrier.label[0] == 0  # beyond, not at: the book's inequality is strict


def test_the_side_turns_the_path_round() -> None:
    short = triple_barrier(PATH, np.array([2]), np.array([0.03]), take=1.0, stop=1.0, vertical=3, side=np.array([-1]))
    assert (short.end[0], short.label[0]) == (3, 1) and short.returns[0] == pytest.approx(4 / 103)


def test_small_and_unknown_targets_are_left_out_and_open_events_too() -> None:
    target = np.array([0.01, np.nan, 0.05, 0.9])
    found = triple_barrier(PATH, np.array([0, 1, 2, 5]), target, take=1.0, stop=1.0, vertical=2, min_target=0.02)
    assert found.start.tolist() == [2]  # of row 5 the time would be up on row 7, and there is no row 7


def test_within_bars_the_barrier_pays_and_the_stop_goes_first() -> None:
    close = np.array([100.0, 100.0, 100.0, 120.0])
    high, low = np.array([100.0, 104.0, 106.0, 121.0]), np.array([100.0, 99.0, 94.0, 115.0])
    events, target = np.array([0]), np.array([0.05])
    both_on_row_2 = triple_barrier(close, events, target, take=1.0, stop=1.0, vertical=3, high_low=(high, low))
    assert (both_on_row_2.end[0], both_on_row_2.label[0], both_on_row_2.returns[0]) == (2, -1, -0.05)
    wide = triple_barrier(close, events, target, take=2.0, stop=2.0, vertical=3, high_low=(high, low))
    assert (wide.end[0], wide.label[0]) == (3, 1) and wide.returns[0] == pytest.approx(0.15)  # row 3 starts beyond 110
    short = triple_barrier(close, events, target, take=1.0, stop=3.0, vertical=3, side=np.array([-1.0]), high_low=(high, low))
    assert (short.end[0], short.label[0], short.returns[0]) == (2, 1, 0.05)


def test_a_meta_label_says_whether_the_bet_made_money() -> None:
    found = triple_barrier(PATH, np.array([0, 2]), np.full(2, 0.02), take=1.0, stop=1.0, vertical=4, side=np.array([1, 1]))
    assert found.label.tolist() == [1, -1] and meta_labels(found).tolist() == [1, 0]


def test_a_trend_is_the_line_with_the_largest_t_value() -> None:
    found = trend_scanning(np.array([4.0, 2.0, 1.0, 7.0, 7.0, 7.0, 7.0]), np.array([0, 3, 5]), min_bars=3, max_bars=4)
    # 4, 2, 1 falls by 1.5 a bar and leaves squares of 1/6: t = -1.5 / sqrt(1/6 / 2) = -3 sqrt(3). With the 7 it is no line.
    np.testing.assert_allclose(found.t_value, [-3 * np.sqrt(3), 0.0])
    assert found.label.tolist() == [-1, 0] and found.returns.tolist() == [-0.75, 0.0]
    assert found.trend_end.tolist() == [2, 5] and found.end.tolist() == [3, 6]  # known when the longest line is
    assert trend_scanning(np.arange(1.0, 6.0), np.array([0]), min_bars=3, max_bars=4).t_value[0] > 1e6


@pytest.fixture(params=["simulated", "dollar bars", "SPY"])
def series(request: pytest.FixtureRequest) -> np.ndarray:
    """A random walk, 1,000 dollar bars of the E-mini, and 2,000 days of an ETF: mlfinpy's own test data where it is."""
    if request.param == "simulated":
        return walk(600)
    folder: Path = request.getfixturevalue("real_data") / "reference" / "mlfinpy"
    file, column = ("dollar_bar_sample.csv", "close") if request.param == "dollar bars" else ("stock_prices.csv", "SPY")
    if not (folder / file).is_file():
        pytest.skip(f"no {file} in {folder}")
    return pd.read_csv(folder / file)[column].dropna().to_numpy(np.float64)


def test_events_and_touches_are_the_books(series: np.ndarray) -> None:
    close, threshold = pd.Series(series), 2 * float(np.diff(np.log(series)).std())
    events = cusum_events(series, threshold)
    assert events.tolist() == afml.cusum(close, threshold) and len(events) > 50
    target = close.pct_change().ewm(span=50).std().to_numpy()[events]
    side = np.where(np.random.default_rng(1).random(len(events)) < 0.5, 1.0, -1.0)
    vertical = np.where(events + 20 < len(series), events + 20, np.nan)
    for take, stop in ((1.0, 1.0), (2.0, 0.7), (0.0, 1.5), (3.0, 0.0)):
        table = pd.DataFrame({"t1": vertical, "trgt": target, "side": side}, index=events).dropna(subset=["trgt"])
        touches = afml.first_touch(close, table, take, stop)
        first = touches.min(axis=1).dropna()
        ours = triple_barrier(series, events, target, take=take, stop=stop, vertical=20, side=side)
        assert ours.start.tolist() == first.index.tolist() and ours.end.tolist() == first.astype(int).tolist()
        touches = touches.loc[ours.start]
        expected = np.where(touches["pt"] == first, 1, np.where(touches["sl"] == first, -1, 0))
        assert ours.label.tolist() == expected.tolist()
        returns = (series[ours.end] / series[ours.start] - 1) * table.loc[ours.start, "side"].to_numpy()
        assert ours.returns.tolist() == returns.tolist()


def test_trends_are_the_books(series: np.ndarray) -> None:
    events = np.arange(0, len(series), 7)
    found = trend_scanning(series, events, min_bars=5, max_bars=20)
    assert found.start.tolist() == [e for e in events.tolist() if e + 19 < len(series)]
    reference = [afml.best_trend(series, e, range(5, 21)) for e in found.start.tolist()]
    np.testing.assert_allclose(found.t_value, [t for t, _ in reference], rtol=1e-8)
    assert found.trend_end.tolist() == [end for _, end in reference]


@pytest.mark.parametrize(
    "label",
    [
        lambda prices, events: triple_barrier(prices, events, 0.02, take=1.0, stop=1.0, vertical=15),
        lambda p, events: triple_barrier(p, events, 0.02, take=1.0, stop=1.0, vertical=15, high_low=(p * 1.002, p * 0.998)),
        lambda prices, events: trend_scanning(prices, events, min_bars=5, max_bars=15),
    ],
    ids=["closes", "highs and lows", "trends"],
)
def test_what_comes_after_the_end_changes_no_label(label) -> None:
    prices = walk(300)
    events = cusum_events(prices, 0.02)
    for row in (80, 150, 220):
        other = np.concatenate([prices[: row + 1], walk(300, seed=9)[row + 1 :]])
        before, after = label(prices, events), label(other, events)
        assert (before.end <= row).any()
        for name, values in vars(before).items():
            assert np.array_equal(values[before.end <= row], getattr(after, name)[after.end <= row])


GOOD = {"prices": PATH, "events": np.array([0, 2]), "target": 0.02, "take": 1.0, "stop": 1.0, "vertical": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prices": np.array([1.0, 0.0, 1.0])}, "prices hold 0 at row 1"),
        ({"prices": np.array([1.0, np.nan, 1.0])}, "prices hold nan at row 1"),
        ({"prices": np.array([])}, "2 bars or more"),
        ({"events": np.array([2, 0])}, "not in rising order at entry 1"),
        ({"events": np.array([2, 2])}, "not in rising order"),
        ({"events": np.array([], np.int64)}, "at least one"),
        ({"events": np.array([0.0, 1.0])}, "row numbers"),
        ({"events": np.array([0, 7])}, "expected 0 to 6"),
        ({"target": np.array([0.1])}, "target has shape"),
        ({"target": np.inf}, "infinities"),
        ({"side": np.array([1.0, 0.0])}, "side 0"),
        ({"take": -1.0}, "multiples"),
        ({"take": np.nan}, "multiples"),
        ({"vertical": 0}, "vertical barrier 0 bars"),
        ({"vertical": np.array([2.0, np.nan])}, "vertical is float64"),
        ({"vertical": np.array([2, 1])}, "vertical barrier -1 bars"),
        ({"high_low": (PATH - 1, PATH)}, "do not enclose"),
        ({"high_low": (PATH[1:], PATH[1:])}, "do not enclose"),
    ],
)
def test_what_is_no_event_is_refused(change, said) -> None:
    with pytest.raises(DataError, match=said):
        triple_barrier(**(GOOD | change))


def test_thresholds_and_lines_are_checked() -> None:
    with pytest.raises(DataError, match="threshold 0"):
        cusum_events(PATH, 0.0)
    with pytest.raises(DataError, match="lines of 2 to 4"):
        trend_scanning(PATH, np.array([0]), min_bars=2, max_bars=4)
