"""Trees over the cross-section: ranks by hand, it learns what is planted and nothing where nothing is, and the laws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import rankdata

from rlaif_ray.core import Cube
from rlaif_ray.data.events import total_returns
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.errors import CheckpointError, DataError, NotFittedError
from rlaif_ray.forecast import load
from rlaif_ray.forecast.scores import calibration, outcomes
from rlaif_ray.forecast.trees import LightGBM, least_bars, ranks
from tests.laws import assert_apply, assert_fit, assert_pure, random_cube
from tests.markets import daily
from tests.oracle import market_cube

GRID = {"horizons": (1, 4), "levels": (0.1, 0.5, 0.9)}
SMALL = {**GRID, "trees": 20, "min_rows": 20}
ROWS = range(300)


def fitted(cube: Cube, rows: slice = slice(0, 150), **knobs) -> LightGBM:
    forecaster = LightGBM(**(SMALL | knobs))
    forecaster.fit(cube, rows)
    return forecaster


def with_reversal(strength: float, seed: int = 0) -> Cube:
    """20 names x 1,500 bars; a bar's return is minus `strength` times the last one's, and noise. Past returns and noise are seen."""
    rng = np.random.default_rng(seed)
    steps = lfilter([1.0], [1.0, strength], 0.015 * rng.standard_t(5, (1500, 20)) * np.sqrt(0.6), axis=0)
    return seen(daily(100 * np.exp(np.cumsum(steps + rng.normal(0, 0.01, (1500, 1)), axis=0))), seed)


def seen(cube: Cube, seed: int) -> Cube:
    """The cube with past returns over 1, 5 and 20 bars and noise as features, beside its own."""
    growth = np.cumsum(np.log1p(np.nan_to_num(total_returns(cube))), axis=0)
    back = [growth - growth[np.maximum(np.arange(len(growth)) - n, 0)] for n in (1, 5, 20)]
    noise = np.random.default_rng(seed).standard_normal(growth.shape)
    features = np.concatenate([cube.features, np.stack([*back, noise], axis=-1).astype(np.float32)], axis=-1)
    return replace(cube, features=features, feature_names=(*cube.feature_names, "ret_1", "ret_5", "ret_20", "noise"))


def rank_correlation(cube: Cube) -> tuple[float, float]:
    """Mean over the rows after the fit of the rank correlation of medians with what came one bar later, and its standard error."""
    table = fitted(cube, slice(30, 800), horizons=(1,), trees=300, min_rows=100).predict(cube, range(810, 1490))
    said, came = table.values[:, :, 0, 1], outcomes(table, cube)[:, :, 0]
    found = []
    for a, b in zip(said, came, strict=True):
        there = np.isfinite(a) & np.isfinite(b)
        found.append(np.corrcoef(rankdata(a[there]), rankdata(b[there]))[0, 1])
    return float(np.mean(found)), float(np.std(found) / np.sqrt(len(found)))


def test_ranks_by_hand() -> None:
    nan = np.nan
    rows = np.array([[3, 1, 2], [5, 5, 9], [nan, 7, 8], [nan, 4, nan], [np.inf, 1, 2]], np.float32)[:, :, None]
    expected = [[0.5, -0.5, 0], [-0.25, -0.25, 0.5], [nan, -0.5, 0.5], [nan, nan, nan], [nan, -0.5, 0.5]]
    np.testing.assert_array_equal(ranks(rows)[:, :, 0], expected)


def test_it_learns_a_planted_reversal_and_nothing_from_noise() -> None:
    """The best rank correlation that there is to have is a little below 0.1."""
    planted = [rank_correlation(with_reversal(0.1, seed)) for seed in range(2)]
    assert min(mean for mean, _ in planted) > 0.05, planted
    noise = [rank_correlation(with_reversal(0.0, seed)) for seed in range(4)]
    assert abs(sum(mean for mean, _ in noise)) < 3 * np.sqrt(sum(error**2 for _, error in noise)), noise


def test_it_learns_the_signal_of_the_synthetic_market() -> None:
    """Three of whose four scores can be read from these features; knowing all says 0.1."""
    mean, error = rank_correlation(seen(market_cube(SyntheticSource(20, 1500, seed=1)), 1))
    assert mean > 3 * error, (mean, error)


def test_bands_cover_what_they_say_on_new_rows() -> None:
    rng = np.random.default_rng(0)
    cube = daily(100 * np.exp(np.cumsum(rng.normal(0, 0.01, (1500, 6)), axis=0)))
    cube = replace(cube, features=rng.standard_normal((1500, 6, 2), np.float32), feature_names=("a", "b"))
    for score in calibration(fitted(cube, slice(0, 1000)).predict(cube, range(1005, 1500)), cube).values():
        assert abs(score["interval_80"] - 0.8) < 0.03


def test_a_drift_of_the_held_out_rows_is_no_part_of_the_forecast() -> None:
    """All names rise together by 1% a bar and features say nothing: the medians of a row differ by what trees say, not by volatility."""
    rng = np.random.default_rng(1)
    steps = 0.01 + rng.normal(0, 1, (400, 4)) * [0.001, 0.005, 0.01, 0.02]
    cube = daily(100 * np.exp(np.cumsum(steps, axis=0)))
    cube = replace(cube, features=np.ones((400, 4, 1), np.float32), feature_names=("same",))
    table = fitted(cube, slice(0, 350)).predict(cube, [399])
    assert np.abs(table.values[0, :, :, 1]).max() < 0.003


def test_trees_do_not_look_ahead_in_fit_or_forecast() -> None:
    cube = random_cube(np.random.default_rng(1), assets=5)
    forecaster = fitted(cube)
    assert_pure(lambda c: forecaster.predict(c, range(len(c.times))), cube, 200)
    assert_apply(lambda c: forecaster.predict(c, ROWS), cube, 200, np.random.default_rng(2))
    assert_fit(lambda c: fitted(c).parameter_hash, cube, 149, np.random.default_rng(2))


def test_rows_asked_together_or_one_by_one_are_forecast_alike() -> None:
    cube = random_cube(np.random.default_rng(3), assets=5)
    forecaster = fitted(cube)
    together = forecaster.predict(cube, ROWS).values
    for t in (40, 123, 299):
        np.testing.assert_array_equal(forecaster.predict(cube, [t]).values[0], together[t])
    assert (np.diff(together[np.isfinite(together).all(-1)]) >= 0).all()


def test_fitting_twice_says_the_same_and_another_seed_is_another_model(tmp_path: Path) -> None:
    cube = random_cube(np.random.default_rng(4), assets=5)
    first = fitted(cube, seed=2**63 + 5)
    assert first.parameter_hash == fitted(cube, seed=2**63 + 5).parameter_hash != fitted(cube, seed=1).parameter_hash
    first.save(tmp_path)
    again = load(tmp_path)
    assert again.predict(cube, ROWS).id == first.predict(cube, ROWS).id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.txt", "4.txt", "forecaster.json"]
    (tmp_path / "4.txt").unlink()
    with pytest.raises(CheckpointError, match=r"no 4\.txt"):
        load(tmp_path)


def test_what_cannot_be_learnt_from_is_told() -> None:
    cube = random_cube(np.random.default_rng(5))
    with pytest.raises(NotFittedError, match="call fit"):
        LightGBM(**GRID).predict(cube, [25])
    with pytest.raises(DataError, match="bring more"):
        fitted(cube, slice(0, 25))
    with pytest.raises(DataError, match=r"--rl\.features"):
        fitted(replace(cube, features=cube.features[:, :, :0], feature_names=()))


def test_the_least_number_of_bars_is_enough() -> None:
    cube = daily(100 * np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.01, (200, 3)), axis=0)))
    cube = replace(cube, features=np.random.default_rng(7).standard_normal((200, 3, 1), np.float32), feature_names=("x",))
    assert np.isfinite(fitted(cube, slice(0, least_bars(GRID["horizons"], 0.2))).predict(cube, [199]).values).all()
