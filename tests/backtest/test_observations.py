from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.backtest.observations import block_of, columns, same_shape, series
from rlaif_ray.errors import DataError

GOOD = np.random.default_rng(0).normal(0, 0.01, (50, 3))


def test_good_observations_pass_unchanged():
    assert np.array_equal(columns(GOOD, "x"), GOOD)
    assert np.array_equal(series(GOOD[:, 0], "x"), GOOD[:, 0])
    assert series(GOOD[:, 0].astype(np.float32), "x").dtype == np.float64
    assert block_of(50, 25, "x") == 25.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named_with_its_place(value):
    bad = GOOD.copy()
    bad[7, 2] = value
    with pytest.raises(DataError, match=f"returns holds {value} in bar 7 of series 2; expected finite numbers"):
        columns(bad, "returns")


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6])
def test_a_constant_series_is_told_even_where_rounding_makes_it_vary(level):
    bad = GOOD.copy()
    bad[:, 1] = level * (1 + 1e-14 * GOOD[:, 0])
    with pytest.raises(DataError, match="constant in series 1"):
        columns(bad, "returns")


def test_too_few_and_misshapen():
    with pytest.raises(DataError, match="has 19 bars; expected at least 20"):
        columns(GOOD[:19], "returns")
    with pytest.raises(DataError, match="one number a bar"):
        series(GOOD, "returns")
    with pytest.raises(DataError, match="at least one series"):
        columns(GOOD[:, :0], "returns")
    with pytest.raises(DataError, match=r"\(50,\) and \(49,\); expected the same bars"):
        same_shape(GOOD[:, 0], GOOD[1:, 0], "returns and benchmark")
    for block in (0.5, 26, np.nan):
        with pytest.raises(DataError, match="shorten it"):
            block_of(50, block, "returns")
