"""The Tiny Time Mixer learns what is there and nothing where nothing is; the same bits alone, in bulk and from disk."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import torch
from tsfm_public.models.tinytimemixer import TinyTimeMixerConfig, TinyTimeMixerForPrediction

from rlaif_ray.core import Cube
from rlaif_ray.errors import CheckpointError, ConfigError, DataError, NotFittedError
from rlaif_ray.forecast import load
from rlaif_ray.forecast.baselines import Naive
from rlaif_ray.forecast.scores import calibration
from rlaif_ray.forecast.tiny_time_mixer import TTMForecaster
from tests.laws import assert_apply, assert_fit, random_cube
from tests.markets import daily

GRID = {"horizons": (1, 3), "levels": (0.1, 0.3, 0.5, 0.7, 0.9)}
QUICK = {**GRID, "context": 32, "batch": 32, "steps": 3, "refit_steps": 2, "seed": 7}


def reverting(phi: float, rows: int = 1200, assets: int = 4) -> Cube:
    """Log returns r[t] = phi r[t-1] + noise, without drift; phi = 0 is a random walk."""
    rng = np.random.default_rng(5)
    returns = rng.standard_t(5, (rows, assets)) * 0.01
    for t in range(1, rows):
        returns[t] += phi * returns[t - 1]
    return daily(100 * np.exp(np.cumsum(returns - returns.mean(0), axis=0)))


def trained(cube: Cube, rows: slice = slice(0, 800), **knobs) -> TTMForecaster:
    forecaster = TTMForecaster(**{**QUICK, **knobs})
    forecaster.fit(cube, rows)
    return forecaster


@pytest.fixture(scope="module")
def market() -> Cube:
    return random_cube(np.random.default_rng(1), 300, 5)


@pytest.fixture(scope="module")
def quick(market: Cube) -> TTMForecaster:
    return trained(market, slice(0, 150))


def test_it_learns_a_reversal_that_the_naive_forecast_cannot_see() -> None:
    cube = reverting(-0.5)
    ttm = calibration(trained(cube, steps=150, batch=64, learning_rate=3e-3).predict(cube, range(810, 1200)), cube)["1"]
    naive = calibration(Naive(**GRID).predict(cube, range(810, 1200)), cube)["1"]
    assert ttm["pinball"] < 0.92 * naive["pinball"]
    assert ttm["mae_to_naive"] < 0.92
    assert abs(ttm["interval_80"] - 0.8) < 0.06


def test_on_pure_noise_its_median_knows_nothing_and_its_bands_stay_honest() -> None:
    cube = reverting(0.0)
    rows = range(810, 1200)
    ttm = calibration(trained(cube, steps=150, batch=64, learning_rate=3e-3).predict(cube, rows), cube)
    naive = calibration(Naive(**GRID).predict(cube, rows), cube)
    for h in ("1", "3"):
        assert 0.99 < ttm[h]["mae_to_naive"] < 1.03
        assert 0.98 < ttm[h]["pinball"] / naive[h]["pinball"] < 1.03
        assert abs(ttm[h]["interval_80"] - 0.8) < 0.05


def test_it_starts_as_the_naive_forecast() -> None:
    """At a learning rate of nothing: median 0, and the quantiles of a Student-t in proportion to their outer band."""
    cube = reverting(0.0)
    values = trained(cube, learning_rate=1e-12).predict(cube, [900]).values
    logs = np.log1p(values.astype(np.float64))
    naive = np.log1p(Naive(**GRID).predict(cube, [900]).values.astype(np.float64))
    assert np.abs(logs[..., 2]).max() < 1e-6
    np.testing.assert_allclose(logs[..., 3] / logs[..., 4], naive[..., 3] / naive[..., 4], rtol=1e-3)
    assert (logs[..., 4] / naive[..., 4]).min() > 0.8 and (logs[..., 4] / naive[..., 4]).max() < 1.25


def test_a_row_alone_has_the_bits_of_the_row_in_bulk(market: Cube, quick: TTMForecaster) -> None:
    bulk = quick.predict(market, range(100, 300)).values
    for t in (100, 177, 299):
        alone = quick.predict(market.head(t + 1), [t]).values  # as served: nothing later is there
        np.testing.assert_array_equal(alone[0], bulk[t - 100])
    backwards = quick.predict(market, range(299, 99, -1)).values
    np.testing.assert_array_equal(backwards[::-1], bulk)


def test_quantiles_rise_and_a_symbol_without_context_has_none(market: Cube, quick: TTMForecaster) -> None:
    values = quick.predict(market, range(300)).values
    there = np.isfinite(values[..., 0, 0])
    assert there[40:].any() and not there[:32].any()  # 32 returns need 33 closes
    assert there[32, ~market.delisted[32]].all() and not there[market.delisted].any()
    assert (np.diff(values[there]) >= 0).all() and np.isnan(values[~there]).all()
    assert (values[there] > -1).all()


def test_it_does_not_look_ahead(market: Cube, quick: TTMForecaster) -> None:
    assert_apply(lambda c: quick.predict(c, range(300)), market, 200, np.random.default_rng(2))


def test_its_fit_sees_only_labels_that_closed_inside(market: Cube) -> None:
    """The last row of the fit is 149: noise from row 150 on changes no weight, and noise on row 149 does."""
    assert_fit(lambda c: trained(c, slice(0, 150)).parameter_hash, market, 149, np.random.default_rng(3))
    with pytest.raises(AssertionError, match="saw past its end"):
        assert_fit(lambda c: trained(c, slice(0, 150), steps=20).parameter_hash, market, 130, np.random.default_rng(3))


def test_the_seed_decides_the_weights_whatever_was_drawn_before(market: Cube, quick: TTMForecaster) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert trained(market, slice(0, 150)).parameter_hash == quick.parameter_hash
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trained(market, slice(0, 150), seed=8).parameter_hash != quick.parameter_hash


def test_a_later_fit_goes_on_from_the_first(market: Cube) -> None:
    """With nothing to learn by, a refit leaves the weights where the first fit brought them."""
    first = trained(market, slice(0, 150))
    weights = {k: v.clone() for k, v in first._fitted().state_dict().items()}
    first.learning_rate = 1e-12
    first.fit(market, slice(0, 200))
    assert first.fits == 2
    for name, value in first._fitted().state_dict().items():
        assert torch.allclose(value, weights[name], atol=1e-6), name


def test_saved_and_loaded_it_says_the_same_and_goes_on_the_same(tmp_path: Path, market: Cube) -> None:
    forecaster = trained(market, slice(0, 150))
    forecaster.save(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, TTMForecaster)
    assert loaded.predict(market, range(100, 200)).id == forecaster.predict(market, range(100, 200)).id
    for each in (forecaster, loaded):
        each.fit(market, slice(0, 200))
    assert loaded.parameter_hash == forecaster.parameter_hash
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pkl"))


def test_weights_that_are_not_those_saved_are_refused(tmp_path: Path, market: Cube) -> None:
    trained(market, slice(0, 150)).save(tmp_path / "a")
    trained(market, slice(0, 150), seed=8).save(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="as saved"):
        load(tmp_path / "a")


def pretrained(folder: Path, **changes) -> str:
    """A tiny network such as the hub holds: scales what it sees, predicts levels 8 bars on, has no quantile head."""
    torch.manual_seed(0)
    config = {
        "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8, "num_input_channels": 1, "d_model": 16,
        "num_layers": 1, "decoder_num_layers": 1, "decoder_d_model": 8, "scaling": "std", **changes,
    }  # fmt: skip
    TinyTimeMixerForPrediction(TinyTimeMixerConfig(**config)).save_pretrained(folder)
    return str(folder)


def test_pretrained_weights_load_fit_and_come_back(tmp_path: Path, market: Cube) -> None:
    weights = {"weights": pretrained(tmp_path / "hub"), "trained_until": dt.date(1999, 12, 31)}
    forecaster = trained(market, slice(0, 150), learning_rate=1e-12, **weights)
    given = TinyTimeMixerForPrediction.from_pretrained(weights["weights"]).state_dict()
    for name, value in given.items():
        assert torch.allclose(forecaster._fitted().state_dict()[name], value, atol=1e-6), name
    assert trained(market, slice(0, 150), learning_rate=1e-12, **weights).parameter_hash == forecaster.parameter_hash
    table = forecaster.predict(market, range(100, 200))
    forecaster.save(tmp_path / "mine")
    loaded = load(tmp_path / "mine")
    assert loaded.predict(market, range(100, 200)).id == table.id
    assert isinstance(loaded, TTMForecaster) and loaded.trained_until == dt.date(1999, 12, 31)


def test_pretrained_weights_see_the_path_relative_to_its_last_point(tmp_path: Path, market: Cube) -> None:
    weights = {"weights": pretrained(tmp_path), "trained_until": dt.date(1999, 12, 31)}
    forecaster, seen = trained(market, slice(0, 150), **weights), []
    forecaster._fitted().register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["past_values"]), with_kwargs=True)
    forecaster.predict(market, [120])
    assert (seen[0][:, -1] == 0).all()
    logs = np.log(market.close[120] / market.close[119] * market.splits[120] + market.dividends[120] / market.close[119])
    moved = -seen[0][:, -2, 0].numpy()
    assert (np.sign(moved) == np.sign(np.nan_to_num(logs))).all()


def test_bad_weights_say_what_to_turn(tmp_path: Path, market: Cube) -> None:
    until = {"trained_until": dt.date(1999, 12, 31)}
    with pytest.raises(ConfigError, match="trained_until"):
        TTMForecaster(**QUICK, weights="x")
    with pytest.raises(ConfigError, match="expected a local folder or a hub id"):
        trained(market, slice(0, 150), weights=str(tmp_path / "nowhere"), **until)
    with pytest.raises(ConfigError, match="context=32"):
        trained(market, slice(0, 150), context=64, weights=pretrained(tmp_path), **until)
    with pytest.raises(ConfigError, match="predict 8 bars"):
        trained(market, slice(0, 150), horizons=(1, 20), weights=pretrained(tmp_path), **until)
    with pytest.raises(ConfigError, match="make them equal"):
        other = pretrained(tmp_path, multi_quantile_head=True, quantile_levels=[0.2, 0.5, 0.8])
        trained(market, slice(0, 150), weights=other, **until)


def test_bad_knobs_and_too_few_bars_say_what_to_turn(market: Cube) -> None:
    with pytest.raises(ConfigError, match="symmetric about"):
        TTMForecaster(**{**QUICK, "levels": (0.1, 0.5, 0.8)})
    with pytest.raises(ConfigError, match="multiple of 8"):
        TTMForecaster(**{**QUICK, "context": 33})
    with pytest.raises(NotFittedError, match="call fit"):
        TTMForecaster(**QUICK).predict(market, [100])
    with pytest.raises(DataError, match="bring more bars or lower"):
        trained(market, slice(0, 35))
