"""Indicators that neither TA-Lib nor a StockCharts sheet covers, on bars that a reader can follow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.one_symbol import bars, spec, values


def test_supertrend_trails_gives_way_and_turns() -> None:
    """ATR is 2 on every bar (high = close + 1, low = close - 1, steps of at most 1), the reach 1 x 2 = 2, the middle the close."""
    close = np.array([10.0, 10, 10, 10.5, 11, 12.0, 12, 11.5, 10.5, 9.5])
    panel = bars(high=close + 1, low=close - 1, close=close)
    got = values(panel, spec("supertrend", 2, 1.0), spec("supertrend_direction", 2, 1.0), spec("supertrend_distance", 2, 1.0))
    # rows 2 to 4: it starts above at 10 + 2 and may only fall, so it stays at 12; the close of 12 on row 5 does not exceed it
    np.testing.assert_allclose(got[2:8, 0], [12] * 6)
    assert (got[2:8, 1] == -1).all() and np.isnan(got[:2]).all()
    np.testing.assert_allclose(got[2, 2], 10 / 12 - 1, rtol=1e-6)


def test_supertrend_turns_when_the_close_leaves_it_behind() -> None:
    close = np.array([10.0, 10, 10, 11, 12, 13, 13, 12, 11, 10.0])
    panel = bars(high=close + 1, low=close - 1, close=close)
    got = values(panel, spec("supertrend", 2, 1.0), spec("supertrend_direction", 2, 1.0))
    # true range 2 on each bar: steps of 1 stay within the bar. Roof 12 until the close of 13 (row 5) exceeds it;
    # then the floor, which rose with the middles 10, 11, 12, 13 less 2, trails at 11 and holds until the close of 10 (row 9):
    # by then the middles' 13, 12, 11, 10 plus 2 have brought the roof down to 12
    np.testing.assert_allclose(got[2:, 0], [12, 12, 12, 11, 11, 11, 11, 12])
    np.testing.assert_array_equal(got[2:, 1], [-1, -1, -1, 1, 1, 1, 1, -1])


def test_the_ichimoku_cloud_of_a_steady_rise() -> None:
    """High t + 1 and low t on bar t: halfway between the extremes of n bars lies t + 1 - n/2."""
    t = np.arange(120.0)
    panel = bars(high=t + 2, low=t + 1, close=t + 1.5)  # one higher, for a price of 0 is none
    got = values(panel, "ichimoku_conversion_9", "ichimoku_base_26", "ichimoku_span_a", "ichimoku_span_b", "ichimoku_cloud_distance")[100]
    conversion, base = 100 + 2 - 4.5, 100 + 2 - 13
    a, b = (conversion + base) / 2 - 26, 100 + 2 - 26 - 26  # drawn now, of 26 bars ago, where everything was 26 lower
    np.testing.assert_allclose(got, [conversion, base, a, b, 101.5 / ((a + b) / 2) - 1], rtol=1e-6)


def test_a_swing_is_known_only_once_the_bars_after_it_are() -> None:
    high = np.array([1.0, 2, 3, 5, 4, 3, 4, 6, 6, 5, 4])
    panel = bars(high=high, low=high - 0.5, close=high - 0.25)
    level, age = values(panel, spec("swing_high", 2), spec("swing_high_age", 2)).T
    # 5 on row 3 stands out from row 5 on; of the two 6s the first (row 7) is the turn, from row 9 on
    np.testing.assert_array_equal(level, [np.nan] * 5 + [5, 5, 5, 5, 6, 6])
    np.testing.assert_array_equal(age, [np.nan] * 5 + [2, 3, 4, 5, 2, 3])
    low, below = values(panel, spec("swing_low", 2), spec("support_distance", 2)).T
    np.testing.assert_array_equal(low, [np.nan] * 7 + [2.5] * 4)  # row 5, from row 7 on
    np.testing.assert_allclose(below[-1], 3.75 / 2.5 - 1, rtol=1e-6)
    np.testing.assert_allclose(values(panel, spec("resistance_distance", 2))[-1], 3.75 / 6 - 1, rtol=1e-6)


def test_vwap_and_pivots_know_sessions() -> None:
    panel = bars(
        [7, 7, 7, 8, 8], high=[11.0, 13, 12, 20, 20], low=[9.0, 11, 9, 20, 20], close=[10.0, 12, 9, 20, 20], volume=[1.0, 3, 1, 0, 2]
    )
    # typical 10, 12, 10: 10; (10 + 36)/4; (10 + 36 + 10)/5; then a new session, without volume at first
    np.testing.assert_allclose(values(panel, "vwap_session"), [10, 11.5, 11.2, np.nan, 20], rtol=1e-6)
    np.testing.assert_allclose(values(panel, spec("vwap_distance", 2))[:3], [np.nan, 12 / 11.5 - 1, 9 / 11.5 - 1], rtol=1e-6)
    names = ("pivot", "pivot_r1", "pivot_r2", "pivot_s1", "pivot_s2", "pivot_distance")
    got = values(panel, *names)
    assert np.isnan(got[:3]).all()
    pivot = (13 + 9 + 9) / 3
    expected = [pivot, 2 * pivot - 9, pivot + 4, 2 * pivot - 13, pivot - 4, 20 / pivot - 1]
    np.testing.assert_allclose(got[3:], [expected, expected], rtol=1e-6)


def test_volume_indices_take_part_in_their_own_bars_only() -> None:
    """+10% on rising, -10% on falling volume: the positive index is 1.1, the negative 0.9, each over its EMA(2)."""
    panel = bars(close=[100.0, 110.0, 99.0], volume=[10.0, 20.0, 5.0])
    got = values(panel, spec("pvi_distance", 2), spec("nvi_distance", 2))
    # positive: 1, 1.1, 1.1; the EMA starts at 1.05 and goes 2/3 of the way to 1.1. Negative: 1, 1, 0.9 from a mean of 1
    np.testing.assert_allclose(got[1:, 0], [1.1 / 1.05 - 1, 1.1 / (1.05 + 2 / 3 * 0.05) - 1], rtol=1e-5)
    np.testing.assert_allclose(got[1:, 1], [0.0, 0.9 / (1 - 2 / 3 * 0.1) - 1], rtol=1e-5, atol=1e-9)


def test_force_over_what_is_traded() -> None:
    """The close rises by 1 a bar on 10 shares: force 10, over close x 10 shares."""
    close = np.arange(1.0, 31.0)
    got = values(bars(close=close, volume=np.full(30, 10.0)), "force_13", "force_ratio_13")
    np.testing.assert_allclose(got[13:, 0], 10.0, rtol=1e-6)
    np.testing.assert_allclose(got[13:, 1], 1 / close[13:], rtol=1e-6)


def test_mass_index_of_a_range_that_never_changes_is_its_window() -> None:
    close = 10 + np.sin(np.arange(60.0))
    got = values(bars(high=close + 1, low=close - 1, close=close), "mass_9_25")
    np.testing.assert_allclose(got[40:], 25.0, rtol=1e-6)


def test_fisher_transform_of_a_close_at_the_top_of_its_range() -> None:
    """Ehlers (2002): x goes 0.66 x 0.5 = 0.33 the first time, then 0.33 + 0.67 x; y = atanh(x) + y/2."""
    middle = np.arange(1.0, 7.0)
    got = values(bars(high=middle + 0.5, low=middle - 0.5, close=middle), spec("fisher", 3))
    x, y, expected = 0.0, 0.0, []
    for _ in range(4):
        x = min(0.33 + 0.67 * x, 0.999)
        y = np.arctanh(x) + 0.5 * y
        expected.append(y)
    np.testing.assert_allclose(got, [np.nan, np.nan, *expected], rtol=1e-6)


@pytest.mark.parametrize(("step", "value"), [(1.0, 100.0), (-1.0, -100.0)])
def test_true_strength_of_a_straight_line_is_whole(step: float, value: float) -> None:
    got = values(bars(close=100 + step * np.arange(60.0)), "tsi_25_13")
    np.testing.assert_allclose(got[37:], value, rtol=1e-6)
    assert np.isnan(got[:37]).all()


def test_the_line_through_a_straight_line() -> None:
    close = 50 + 2 * np.arange(40.0)
    slope, apart, share = values(bars(close=close), "linear_slope_21", "linear_distance_21", "linear_r2_21")[-1]
    np.testing.assert_allclose([slope, apart, share], [2 / close[-1], 0.0, 1.0], atol=1e-6)


def test_choppiness_runs_from_a_straight_way_to_none() -> None:
    """Bars without range that rise by 1: 14 true ranges of 1 over a span of 13. Bars that repeat: 14 spans over one: 100."""
    way = np.arange(10.0, 40.0)
    straight = values(bars(high=way, low=way, close=way), "choppiness_14")[-1]
    np.testing.assert_allclose(straight, 100 * np.log10(14 / 13) / np.log10(14), rtol=1e-6)
    still = np.full(30, 10.0)
    np.testing.assert_allclose(values(bars(high=still + 1, low=still - 1, close=still), "choppiness_14")[-1], 100.0, rtol=1e-6)


def test_a_split_on_a_halted_bar_moves_no_return() -> None:
    """The close that stands for the halt is in shares of after the split: 100 is 2 x 50."""
    panel = bars(close=[100.0, np.nan, 50.0, 55.0], split=[1.0, 2.0, 1.0, 1.0])
    np.testing.assert_allclose(values(panel, "ret_1"), [np.nan, 0.0, 0.0, 0.1], rtol=1e-6)
