import datetime as dt

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import UTC, Panel
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.events import as_first_told, forward_adjust, price_kind, split_evidence, total_returns
from rlaif_ray.errors import DataError
from tests.data.bars import daily
from tests.laws import assert_apply, assert_pure, random_bars, random_cube

ONE, NONE = np.ones, np.zeros
LATER = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def test_a_split_in_two_leaves_the_adjusted_close_where_it_was() -> None:
    factor = forward_adjust(np.array([100.0, 50.0, 55.0]), np.array([1.0, 2.0, 1.0]), np.zeros(3))
    assert factor.tolist() == [1.0, 2.0, 2.0]  # adjusted: 100, 100, 110


def test_a_dividend_is_reinvested_at_the_close_of_its_day() -> None:
    close, dividend = np.array([100.0, 99.0, 99.0]), np.array([0.0, 1.0, 0.0])
    assert (close * forward_adjust(close, np.ones(3), dividend)).tolist() == pytest.approx([100.0, 100.0, 100.0])


def test_split_and_dividend_on_one_day_pay_on_the_new_shares() -> None:
    # 1 share at 100 -> 4 at 24, each paid 1 USD: worth 100.
    factor = forward_adjust(np.array([100.0, 24.0]), np.array([1.0, 4.0]), np.array([0.0, 1.0]))
    assert 24.0 * factor[1] == pytest.approx(100.0)


def test_events_on_the_first_bar_lie_before_the_series() -> None:
    assert forward_adjust(np.array([10.0, 10.0]), np.array([3.0, 1.0]), np.array([2.0, 0.0])).tolist() == [1.0, 1.0]


def test_adjusted_close_moves_by_the_total_return() -> None:
    cube = random_cube(np.random.default_rng(1), rows=400, assets=6)
    adjusted = cube.close * forward_adjust(cube.close, cube.splits, cube.dividends)
    returns = total_returns(cube)
    assert np.isnan(returns[0]).all()
    np.testing.assert_allclose(adjusted[1:] / adjusted[:-1] - 1, returns[1:], rtol=0, atol=1e-12)


def test_a_gap_in_the_close_keeps_the_splits_inside_it() -> None:
    factor = forward_adjust(np.array([100.0, np.nan, 50.0]), np.array([1.0, 2.0, 1.0]), np.zeros(3))
    assert factor.tolist() == [1.0, 2.0, 2.0]


def _adjusted(bars: Panel) -> np.ndarray:
    close, split, dividend = (bars.frame[c].to_numpy() for c in ("close", "split", "dividend"))
    return close * forward_adjust(close, split, dividend)


@pytest.mark.parametrize("t", [0, 57, 298])
def test_no_event_changes_an_earlier_value(t: int) -> None:
    rng = np.random.default_rng(t)
    bars = random_bars(rng, rows=300)
    assert_pure(_adjusted, bars, t)
    assert_apply(_adjusted, bars, t, rng)
    cube = random_cube(rng, rows=300)
    assert_pure(total_returns, cube, t)
    assert_apply(total_returns, cube, t, rng)


def test_back_adjustment_is_caught_by_the_law() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError):
        assert_apply(lambda b: _adjusted(b) / _adjusted(b)[-1], random_bars(rng), 150, rng)


def test_total_returns_follow_the_cube_of_bars() -> None:
    bars = random_bars(np.random.default_rng(2), rows=60, assets=2)
    cube = build_cube(bars, bars_per_year=252.0, price_kind="raw")
    assert total_returns(cube).shape == (60, 2)


def test_split_days_tell_raw_from_adjusted() -> None:
    split = np.array([1.0, 1.0, 4.0, 1.0, 0.1])
    assert split_evidence(np.array([400.0, 404.0, 100.0, 101.0, 1000.0]), split) == (2, 2)
    assert split_evidence(np.array([100.0, 101.0, 100.0, 101.0, 100.0]), split) == (2, 0)
    assert split_evidence(np.array([100.0, 101.0]), np.array([1.0, 1.001])) == (0, 0)  # too small to tell


def test_kind_of_a_set() -> None:
    assert (price_kind(0, 0), price_kind(33, 33), price_kind(21, 0), price_kind(21, 1)) == (
        "raw", "raw", "split_adjusted", "split_adjusted",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"5 of 12 split days.*data.adjustment"):
        price_kind(12, 5)


def test_an_event_that_is_told_late_counts_on_the_first_bar_after_it() -> None:
    """Bars of a stream know no splits: the next ingest tells of the 2:1 on the fourth day, and of the dividend on the second."""
    bars = daily("A", [100.0, 100.0, 100.0, 50.0, 50.0, 50.0, 50.0])
    late = bars["known_at"][4] + dt.timedelta(hours=2)  # between the fifth close and the sixth
    split = bars[3].with_columns(split=pl.lit(2.0), known_at=pl.lit(late, UTC))
    dividend = bars[1].with_columns(dividend=pl.lit(3.0), known_at=pl.lit(late, UTC))
    told = pl.concat([bars, split, dividend, daily("B", [1.0, 2.0])]).sort("symbol", "timestamp", "known_at", maintain_order=True)
    found = as_first_told(told)
    assert found.columns == told.columns and found.height == 9
    one = found.filter(symbol="A")
    assert one["split"].to_list() == [1, 1, 1, 1, 1, 2, 1] and one["dividend"].to_list() == [0, 0, 0, 0, 0, 3, 0]
    assert one.drop("split", "dividend").equals(bars.drop("split", "dividend"))
    # Another split on the third day, known in time, lies between the dividend and where it counts.
    halved = told.with_columns(split=pl.when(pl.col("timestamp") == bars["timestamp"][2]).then(4.0).otherwise("split"))
    assert as_first_told(halved).filter(symbol="A")["dividend"].to_list() == [0, 0, 0, 0, 0, 0.75, 0]
    unheard = told.with_columns(known_at=pl.when(pl.col("known_at") == pl.lit(late, UTC)).then(pl.lit(LATER, UTC)).otherwise("known_at"))
    assert as_first_told(unheard).filter(symbol="A").equals(bars)  # no bar is known after it yet
    again = pl.concat([told, split.with_columns(split=pl.lit(1.0), known_at=pl.lit(bars["known_at"][5] + dt.timedelta(hours=2), UTC))])
    withdrawn = as_first_told(again.sort("symbol", "timestamp", "known_at", maintain_order=True))
    assert withdrawn.filter(symbol="A")["split"].to_list() == [1, 1, 1, 1, 1, 2, 0.5]
