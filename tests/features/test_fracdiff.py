"""Fractional differences: weights by hand, the book's own loop, the inverse operator; the fitted order sees training rows only."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pytest
from safetensors.numpy import load, save
from scipy.special import binom
from statsmodels.tsa.stattools import adfuller

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.errors import CheckpointError, ConfigError, MissingDataError
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.fitted import FittedFeature
from rlaif_ray.features.fracdiff import FRACDIFF, MinimalOrder, OrderState, fixed_width, weights
from tests.laws import assert_apply, assert_fit, assert_pure, moments, random_bars

SPECS = tuple(s for family in FRACDIFF.families for s in family.specs())


def panel_of(**closes: np.ndarray) -> Panel:
    """Daily closes of some symbols."""
    frames = []
    for symbol, close in closes.items():
        times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(len(close))
        frames.append(pl.DataFrame({"symbol": [symbol] * len(close), "timestamp": times, "known_at": times, "close": close}))
    frame = pl.concat(frames).with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c != "close")
    return Panel.of(frame.with_columns(pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)))


def walk(rows: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(0.02 * np.random.default_rng(seed).standard_normal(rows).cumsum())


def apply(panel: Panel, specs: tuple[FeatureSpec, ...] = SPECS) -> Panel:
    return FRACDIFF.apply({"bars": panel.frame}, specs)


# --- by hand and closed form ---------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    """0.4: -0.4; -0.4 x 0.6 / 2; -0.12 x 1.6 / 3; -0.064 x 2.6 / 4; the next, -0.0416 x 3.6 / 5, is under 0.03."""
    np.testing.assert_allclose(weights(0.4, 0.03), [1, -0.4, -0.12, -0.064, -0.0416], rtol=1e-14)


@pytest.mark.parametrize("order", [0.3, 0.5, 0.8])
def test_weights_are_the_binomial_series(order: float) -> None:
    w = weights(order, 1e-4)
    k = np.arange(len(w))
    np.testing.assert_allclose(w, (-1.0) ** k * binom(order, k), rtol=1e-9)
    assert abs(w[-1]) >= 1e-4 > abs(binom(order, len(w)))


def test_order_0_is_the_series_and_order_1_and_2_are_its_differences() -> None:
    x = np.random.default_rng(0).standard_normal(50).cumsum()
    np.testing.assert_array_equal(fixed_width(x, weights(0.0, 1e-4)), x)
    np.testing.assert_array_equal(fixed_width(x, weights(1.0, 1e-4))[1:], np.diff(x))
    np.testing.assert_allclose(fixed_width(x, weights(2.0, 1e-4))[2:], np.diff(x, 2), atol=1e-12)


def test_differencing_undoes_fractional_integration() -> None:
    """(1 - B)^-d e, with weights w_k = w_(k-1) (k - 1 + d) / k (Hosking 1981), differenced by d is e, up to the weights left out."""
    rng, d = np.random.default_rng(1), 0.4
    e = rng.standard_normal(6000)
    k = np.arange(1.0, 6000)
    memory = np.convolve(e, np.r_[1.0, np.cumprod((k - 1 + d) / k)])[:6000]
    found = fixed_width(memory, weights(d, 1e-5))
    there = np.isfinite(found)
    assert there.sum() > 1000 and np.std(found[there] - e[there]) < 0.01


def test_a_value_missing_makes_the_windows_that_hold_it_undefined() -> None:
    w = weights(0.5, 0.02)
    x = np.arange(40.0)
    x[20] = np.nan
    undefined = np.flatnonzero(np.isnan(fixed_width(x, w)))
    np.testing.assert_array_equal(undefined, [*range(len(w) - 1), *range(20, 20 + len(w))])


# --- parity --------------------------------------------------------------------------------------------------------


def test_it_is_the_books_loop() -> None:
    """Snippet 5.3 on pandas, row by row."""
    log_price = pd.Series(np.log(walk(700)))
    w = weights(0.4, 1e-4)[::-1].reshape(-1, 1)
    expected = pd.Series(np.nan, index=log_price.index)
    for at in range(len(w) - 1, len(log_price)):
        expected[at] = np.dot(w.T, log_price.loc[at - len(w) + 1 : at])[0]
    found = fixed_width(log_price.to_numpy().copy(), weights(0.4, 1e-4))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_feature_is_that_of_the_price_since_the_first_bar() -> None:
    close = walk(500)
    found = apply(panel_of(A=close)).frame["fracdiff_0p4"].to_numpy()
    np.testing.assert_allclose(found, fixed_width(np.log(close / close[0]), weights(0.4, 1e-4)), atol=1e-6)


# --- laws ----------------------------------------------------------------------------------------------------------


def test_the_set_is_pure_and_causal() -> None:
    panel = random_bars(np.random.default_rng(5), 1500)
    for t in (0, 100, 500, 1410, 1498):
        assert_pure(apply, panel, t)
        assert_apply(apply, panel, t, np.random.default_rng(t))


def test_look_backs_are_exact_and_scale_says_nothing() -> None:
    panel = random_bars(np.random.default_rng(5), 420)
    a = apply(panel).frame
    b = apply(Panel.of(panel.frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * 8))).frame
    for spec in SPECS:
        defined = np.isfinite(a[spec.name].to_numpy())
        assert np.argmax(defined) == spec.look_back_bars and defined[spec.look_back_bars :].all(), spec.name
        np.testing.assert_allclose(a[spec.name].to_numpy(), b[spec.name].to_numpy(), atol=1e-6, err_msg=spec.name)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_a_price_that_never_moves_has_differences_of_zero(scale: float) -> None:
    frame = apply(panel_of(A=np.full(450, scale))).frame
    assert all((frame[s.name].to_numpy()[s.look_back_bars :] == 0).all() for s in SPECS)


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_short_histories_are_warm_up(rows: int) -> None:
    out = apply(Panel(panel_of(A=walk(60)).frame.head(rows))).frame
    assert out.height == rows and all(out[s.name].is_nan().all() for s in SPECS if s.name in out.columns)


def test_bad_orders_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"order 3\.0 .* 0 <= order <= 2"):
        weights(3.0, 1e-4)
    with pytest.raises(ConfigError, match="threshold 0"):
        weights(0.4, 0.0)


# --- the fitted order ----------------------------------------------------------------------------------------------

FEATURE: FittedFeature[OrderState] = MinimalOrder()


def test_the_order_is_the_first_whose_test_rejects_a_unit_root() -> None:
    close = walk(900, seed=3)
    state = FEATURE.fit(panel_of(A=close))
    p = {}
    for order in np.round(np.arange(0, 1.01, 0.05), 2):
        x = fixed_width(np.log(close / close[0]), weights(order, 1e-4))
        x = x[~np.isnan(x)]
        if len(x) >= 100:
            test: Any = adfuller(x, maxlag=1, regression="c", autolag=cast(Any, None), result_object=True)
            p[order] = test.pvalue
    first = next(order for order, value in p.items() if value < 0.05)
    assert 0 < first < 1 and state.order[0] == pytest.approx(first) and state.p_value[0] == pytest.approx(p[first])
    found = FEATURE.apply(panel_of(A=close), state).frame["fracdiff_minimal"].to_numpy()
    np.testing.assert_allclose(found, fixed_width(np.log(close / close[0]), weights(first, 1e-4)), atol=1e-6)


def test_what_is_stationary_is_left_as_it_is() -> None:
    close = 100 * np.exp(0.1 * np.random.default_rng(4).standard_normal(400))
    assert FEATURE.fit(panel_of(A=close)).order[0] == 0.0


def test_what_cannot_be_fitted_is_undefined() -> None:
    panel = panel_of(FLAT=np.full(900, 7.0), LONG=walk(900), SHORT=walk(90), LATER=walk(900))
    state = FEATURE.fit(Panel(panel.frame.filter(pl.col("symbol") != "LATER")))
    assert state.symbols == ("FLAT", "LONG", "SHORT") and np.isnan(state.order[[0, 2]]).all()
    out = FEATURE.apply(panel, state).frame
    defined = out.filter(pl.col("fracdiff_minimal").is_not_nan())["symbol"].unique().to_list()
    assert out.height == panel.frame.height and defined == ["LONG"]
    assert FEATURE.apply(Panel(panel.frame.head(0)), state).columns == ["fracdiff_minimal"]
    with pytest.raises(MissingDataError, match="no row is known at"):
        FEATURE.fit(panel, np.datetime64("2010-01-01"))


def test_the_fit_sees_training_rows_only_and_the_rest_follows_from_it() -> None:
    panel = random_bars(np.random.default_rng(7), 900, 2)
    end = moments(panel)[600]
    state = FEATURE.fit(panel, end)
    assert state.fit_end == end and np.isfinite(state.order).all()
    assert_fit(lambda p: FEATURE.fit(p, end), panel, end, np.random.default_rng(0))
    for t in (450, 600, 898):
        assert_apply(lambda p: FEATURE.apply(p, state), panel, t, np.random.default_rng(t))
        assert_pure(lambda p: FEATURE.apply(p, state), panel, t)


def test_an_order_fitted_on_all_rows_is_caught() -> None:
    panel = random_bars(np.random.default_rng(7), 900, 2)
    with pytest.raises(AssertionError, match="the fit saw past its end"):
        assert_fit(lambda p: replace(FEATURE.fit(p), fit_end=moments(panel)[600]), panel, 600, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="changed what was said by then"):
        assert_apply(lambda p: FEATURE.apply(p, FEATURE.fit(p)), panel, 600, np.random.default_rng(0))


def test_a_state_comes_back_from_safetensors_and_json() -> None:
    state = FEATURE.fit(panel_of(A=walk(600), B=walk(600, seed=1)))
    arrays, words = state.to_arrays()
    again = OrderState.of_arrays(load(save(arrays)), json.loads(json.dumps(words)))
    assert (again.symbols, again.fit_end, again.threshold) == (state.symbols, state.fit_end, state.threshold)
    np.testing.assert_array_equal(again.order, state.order)
    with pytest.raises(CheckpointError, match=r"OrderState has .* fit it again"):
        OrderState.of_arrays({"order": state.order}, words)
