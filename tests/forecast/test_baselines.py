"""Baselines by hand, and the laws: no quantile crosses, nothing looks ahead, the fit sees only what had closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.errors import DataError, NotFittedError
from rlaif_ray.forecast import load
from rlaif_ray.forecast.baselines import Drift, EWMAVolatility, Naive, ewma_volatility, mean_log_return, standard_quantiles
from tests.laws import assert_apply, assert_fit, assert_pure, random_cube
from tests.markets import daily

GRID = {"horizons": (1, 4), "levels": (0.1, 0.5, 0.9)}
ROWS = range(300)


def zigzag(rows: int, step: float = 0.01) -> np.ndarray:
    """Closes whose log return is +step, -step, +step ...: the volatility is `step` whatever the weights."""
    return 100.0 * np.exp(step * (np.arange(rows) % 2))


def fitted_volatility(cube, rows: slice = slice(0, 150)) -> EWMAVolatility:
    forecaster = EWMAVolatility(**GRID)
    forecaster.fit(cube, rows)
    return forecaster


def test_ewma_volatility_of_a_zigzag_is_its_step_once_twenty_returns_are_known() -> None:
    volatility = ewma_volatility(np.log(zigzag(30))[1:, None] - np.log(zigzag(30))[:-1, None])
    assert np.isnan(volatility[:19]).all()
    np.testing.assert_allclose(volatility[19:], 0.01)


def test_ewma_weights_fall_by_the_decay() -> None:
    volatility = ewma_volatility(np.array([0.03, np.nan, 0.01])[:, None], decay=0.5, warmup_bars=1)[:, 0]
    # squares 9 and 1, the first aged by two bars: (0.25 * 9 + 1) / (0.25 + 1) = 2.6
    np.testing.assert_allclose(volatility, [0.03, np.nan, 0.01 * np.sqrt(2.6)])


def test_mean_return_forgets_what_is_older_than_its_window() -> None:
    returns = np.array([9.0, 1.0, 2.0, 3.0])[:, None]
    np.testing.assert_allclose(mean_log_return(returns, bars=2, warmup_bars=2)[:, 0], [np.nan, 5.0, 1.5, 2.5])


def test_naive_is_centred_on_no_change_and_spreads_by_the_root_of_time() -> None:
    table = Naive(**GRID).predict(daily(zigzag(40)), [39])
    low, _, high = np.log1p(table.values[0, 0].astype(np.float64)).T
    assert (table.values[0, 0, :, 1] == 0.0).all()
    np.testing.assert_allclose(high, 0.01 * standard_quantiles([0.9])[0] * np.array([1.0, 2.0]), rtol=1e-4)
    np.testing.assert_allclose(low, -high, rtol=1e-4)
    assert table.as_of[0] == daily(zigzag(40)).known_at[39] and table.target == "return"


def test_drift_goes_on_as_the_past_did() -> None:
    """One per cent a bar: four bars ahead the median is 1.01 ** 4 - 1, whatever the spread."""
    table = Drift(**GRID).predict(daily(1.01 ** np.arange(50)), [49])
    np.testing.assert_allclose(table.values[0, 0, :, 1], [0.01, 1.01**4 - 1], rtol=1e-5)


def test_dividends_and_splits_are_no_news() -> None:
    close, split = zigzag(60), np.ones(60)
    close[40:] /= 2.0
    split[40] = 2.0
    plain, halved = Naive(**GRID).predict(daily(zigzag(60)), range(60)), Naive(**GRID).predict(daily(close, splits=split), range(60))
    np.testing.assert_allclose(halved.values, plain.values, rtol=1e-5)


def test_volatility_quantiles_are_the_forecast_plus_its_past_errors() -> None:
    """A zigzag is always forecast right: every quantile is the log of its step."""
    cube = daily(zigzag(60))
    np.testing.assert_allclose(fitted_volatility(cube, slice(0, 50)).predict(cube, [59]).values, np.log(0.01), rtol=1e-6)


def test_volatility_bands_cover_what_they_say_on_new_rows() -> None:
    rng = np.random.default_rng(0)
    cube = daily(100 * np.exp(np.cumsum(rng.normal(0, 0.01, (1500, 4)), axis=0)))
    from rlaif_ray.forecast.scores import calibration

    scores = calibration(fitted_volatility(cube, slice(0, 1000)).predict(cube, range(1005, 1500)), cube)
    for score in scores.values():
        assert abs(score["interval_80"] - 0.8) < 0.03


def test_no_forecast_where_history_is_short_or_the_symbol_is_gone() -> None:
    close = np.stack([zigzag(60), zigzag(60)], axis=1)
    close[:30, 1] = np.nan  # listed on row 30: its twentieth return is on row 50
    close[55:, 0] = np.nan
    cube = daily(close, delisted=np.stack([np.arange(60) >= 55, np.zeros(60, bool)], axis=1))
    there = np.isfinite(Naive(**GRID).predict(cube, range(60)).values[..., 0, 0])
    assert np.flatnonzero(there[:, 0]).tolist() == list(range(20, 55))
    assert np.flatnonzero(there[:, 1]).tolist() == list(range(50, 60))


@pytest.mark.parametrize("forecaster", [Naive(**GRID), Drift(**GRID)])
def test_return_baselines_do_not_look_ahead(forecaster) -> None:
    cube = random_cube(np.random.default_rng(1))
    assert_pure(lambda c: forecaster.predict(c, range(len(c.times))), cube, 200)
    assert_apply(lambda c: forecaster.predict(c, ROWS), cube, 200, np.random.default_rng(2))


def test_volatility_does_not_look_ahead_in_fit_or_forecast() -> None:
    cube = random_cube(np.random.default_rng(1))
    assert_apply(lambda c: fitted_volatility(cube).predict(c, ROWS), cube, 200, np.random.default_rng(2))
    assert_fit(lambda c: fitted_volatility(c).parameter_hash, cube, 149, np.random.default_rng(2))


def test_quantiles_of_every_baseline_rise_with_the_level() -> None:
    cube = random_cube(np.random.default_rng(3))
    for forecaster in (Naive(**GRID), Drift(**GRID), fitted_volatility(cube)):
        values = forecaster.predict(cube, ROWS).values
        assert (np.diff(values[np.isfinite(values).all(-1)]) >= 0).all()


@pytest.mark.parametrize("name", ["naive", "drift", "ewma_volatility"])
def test_a_saved_baseline_comes_back_with_the_same_bits(tmp_path: Path, name: str) -> None:
    cube = random_cube(np.random.default_rng(4))
    forecaster = {"naive": Naive(**GRID), "drift": Drift(**GRID), "ewma_volatility": fitted_volatility(cube)}[name]
    forecaster.save(tmp_path)
    assert load(tmp_path).predict(cube, ROWS).id == forecaster.predict(cube, ROWS).id


def test_volatility_says_what_is_missing() -> None:
    cube = daily(zigzag(30))
    with pytest.raises(NotFittedError, match="call fit"):
        EWMAVolatility(**GRID).predict(cube, [25])
    with pytest.raises(DataError, match="bring more bars"):
        fitted_volatility(cube, slice(0, 20))
