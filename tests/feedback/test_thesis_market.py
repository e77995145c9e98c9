"""The ten features of a thesis, its decision label, and an insider whose skill is known."""

import numpy as np
import polars as pl
import pytest

from rlaif_ray.config_thesis import FEATURES, Thesis
from rlaif_ray.core import Cube, Panel
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.feedback.thesis_market import (
    OPEN,
    PLANTED,
    PRICE_SUBSET,
    SOURCES,
    decisions,
    observed_features,
    plant_insider,
    scaled_outcomes,
    sources_of,
    thesis_features,
)
from rlaif_ray.feedback.yardstick import OutcomeTerms, Yardstick
from tests.desk import desk_cube
from tests.laws import assert_apply, assert_pure
from tests.markets import daily

TERMS, EDGES = OutcomeTerms(cost_per_side=0.0005), Thesis().decision_z


def column(cube: Cube, name: str, sources: dict[str, str] | None = None) -> np.ndarray:
    return thesis_features(cube, {**SOURCES, **(sources or {})})[:, :, FEATURES.index(name)]


def test_momentum_is_the_total_return_through_a_split_and_a_dividend():
    closes = np.full(12, 100.0)
    closes[5:] = 51.0  # two for one on row 5, and 2% up
    splits, dividends = np.ones((12, 1)), np.zeros((12, 1))
    splits[5], dividends[8] = 2.0, 0.51
    cube = daily(closes, splits=splits, dividends=dividends)
    mom10 = column(cube, "mom10")
    assert np.isnan(mom10[:10]).all()
    np.testing.assert_allclose(mom10[10:, 0], 1.02 * 1.01 - 1, rtol=1e-6)


def test_volatility_is_that_of_21_log_returns():
    rng = np.random.default_rng(0)
    closes = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(40)))
    vol = column(daily(closes), "vol")
    assert np.isnan(vol[:21]).all()
    assert vol[30, 0] == pytest.approx(np.diff(np.log(closes))[9:30].std(ddof=1), rel=1e-6)


def test_a_named_column_takes_the_place_of_what_is_made_from_returns():
    cube = desk_cube(1)
    np.testing.assert_array_equal(column(cube, "vol", {"vol": "vol_21"})[40], cube.feature("vol_21")[40])


def test_a_score_fades_with_its_age():
    cube = desk_cube(2)
    expected = cube.feature("filing_score") * np.exp(-cube.feature("filing_age_bars") / 20.0)
    np.testing.assert_allclose(column(cube, "f_quality")[40:], np.where(cube.listed, expected, np.nan)[40:], rtol=1e-5)


def test_what_the_data_does_not_have_is_missing_and_never_zero():
    features = thesis_features(desk_cube(3, names=("rsi_14",)))
    assert observed_features(features) == ("f_momentum", "vol", "mom10", "mom30", "rsi")
    for missing in ("f_quality", "f_sentiment", "f_insider", "f_value", "volume_ratio"):
        assert np.isnan(features[:, :, FEATURES.index(missing)]).all()
    assert set(PRICE_SUBSET) == {"f_momentum", "vol", "mom10", "mom30", "rsi", "volume_ratio"}


def test_who_is_not_listed_has_no_features():
    closes = np.full((60, 2), 100.0) + np.arange(60)[:, None]
    closes[:30, 1] = np.nan
    features = thesis_features(daily(closes))
    assert np.isnan(features[:30, 1]).all() and np.isfinite(features[45, 1, FEATURES.index("mom10")])


def test_an_unknown_feature_is_named_and_one_of_your_own_needs_a_column():
    with pytest.raises(ConfigError, match=r"f_qualty.*f_quality"):
        thesis_features(desk_cube(4), {"f_qualty": "filing_score"})
    with pytest.raises(ConfigError, match=r"--thesis\.columns\.mine"):
        thesis_features(desk_cube(4), {}, ("mine",))
    assert np.isfinite(thesis_features(desk_cube(4), {"mine": "vol_21"}, ("mine",))[50:60]).any()


def test_features_do_not_know_the_future():
    cube = desk_cube(5, rows=320)
    for row in (40, 270, 300):
        assert_pure(thesis_features, cube, row)
        assert_apply(thesis_features, cube, row, np.random.default_rng(0))
    with pytest.raises(AssertionError):  # the canary: momentum that ends ten bars later
        assert_apply(lambda c: np.roll(thesis_features(c), -10, axis=0), cube, 270, np.random.default_rng(0))


def test_decisions_by_hand():
    scaled = np.array([-2.0, -1.0, -0.5, 0.0, 0.25, 0.9, 1.0, 3.0, np.nan])
    assert decisions(scaled, EDGES).tolist() == [0, 1, 1, 2, 3, 3, 4, 4, OPEN]


def test_an_outcome_is_scaled_by_what_was_known_and_open_until_its_horizon():
    cube = desk_cube(6)
    yardstick = Yardstick.of(cube, 5, TERMS)
    scaled = scaled_outcomes(yardstick)
    known = np.isfinite(scaled)
    np.testing.assert_allclose(scaled[known], (yardstick.residual / yardstick.volatility)[known])
    assert (decisions(scaled, EDGES)[-5:] == OPEN).all() and (decisions(scaled, EDGES)[known] != OPEN).all()


def market(strength: float) -> tuple[Cube, SyntheticSource]:
    source = SyntheticSource(6, 1500, seed=3, signal_strength=strength)
    bars = Panel.of(pl.concat([source.read(s)["bars"] for s in source.symbols()]))
    return build_cube(bars, bars_per_year=252.0, price_kind="raw"), source


def test_a_planted_insider_has_the_coefficient_that_is_stated():
    cube, source = market(3.0)
    planted = plant_insider(cube, source, 0.24, seed=1)
    score = planted.feature(PLANTED)
    seen = []
    for a, symbol in enumerate(cube.symbols):
        truth = source.truth(symbol)
        n = len(truth.sigma)
        own = truth.planted[:-1] / truth.sigma[:-1] + truth.residual[1:]  # of bar t + 1, in its own deviations
        seen.append(np.corrcoef(score[: n - 1, a], own)[0, 1])
    assert np.mean(seen) == pytest.approx(0.24, abs=3 / np.sqrt(6 * 1500))
    assert np.isfinite(column(planted, "f_insider", sources_of({}, planted=True))[cube.listed]).all()


def test_a_planted_insider_comes_from_the_generator_and_not_from_later_prices():
    cube, source = market(1.0)
    assert_apply(lambda c: plant_insider(c, source, 0.1, seed=0).feature(PLANTED), cube, 700, np.random.default_rng(0))


def test_an_insider_is_planted_in_its_own_market_only():
    cube, source = market(1.0)
    with pytest.raises(DataError, match="leave out start and end"):
        plant_insider(cube.head(700), source, 0.1, seed=0)
    with pytest.raises(ConfigError, match=r"expected at most 0\.1"):
        plant_insider(cube, source, 0.15, seed=0)
