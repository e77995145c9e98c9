"""The context by hand and under the law."""

import numpy as np

from rlaif_ray.feedback.context import CONTEXT, context_features
from tests.desk import desk_cube
from tests.laws import assert_apply, assert_pure
from tests.markets import daily


def test_a_calm_market_that_turns_wild_shows_in_level_and_trend() -> None:
    rng = np.random.default_rng(0)
    sigma = np.where(np.arange(200) < 150, 0.005, 0.02)[:, None]
    shared = rng.standard_normal((200, 1))
    cube = daily(100 * np.cumprod(1 + sigma * (shared + 0.1 * rng.standard_normal((200, 5))), axis=0))
    calm, wild = context_features(cube, [149, 175])[:, 0]
    at = CONTEXT.index
    assert np.isclose(calm[at("market_volatility")], np.log(0.005), atol=0.4)
    assert np.isclose(wild[at("market_volatility")], np.log(0.02), atol=0.4)
    assert abs(calm[at("market_volatility_trend")]) < 0.4 < wild[at("market_volatility_trend")]
    assert (context_features(cube, [175])[0, :, at("market_trend")] == wild[at("market_trend")]).all()


def test_momentum_is_in_standard_errors_and_too_little_history_is_not_a_number() -> None:
    steps = np.where(np.arange(130) % 2 == 0, 0.02, 0.0)[:, None]
    cube = daily(100 * np.cumprod(1 + steps * np.ones((1, 3)), axis=0))
    early, late = context_features(cube, [5, 126])[:, 0, CONTEXT.index("momentum")]
    # 63 bars that alternate 0 and 2%: mean near 1%, deviation 1%, so near 1 * sqrt(63)
    assert np.isnan(early) and np.isclose(late, np.sqrt(63), rtol=0.05)


def test_news_is_fresh_or_it_is_not_and_none_is_not_fresh() -> None:
    cube = desk_cube(0)
    fresh = context_features(cube, [5, 100])[..., CONTEXT.index("news_fresh")]
    assert (fresh[0] == 0).all()
    assert np.allclose(fresh[1], np.exp(-cube.feature("news_age_bars")[100].astype(float) / 5))
    assert (context_features(desk_cube(0, names=()), [100])[..., CONTEXT.index("news_fresh")] == 0).all()


def test_the_past_never_moves_and_one_row_is_that_row_of_all() -> None:
    cube = desk_cube(1)

    def at_all_rows(c):
        return context_features(c, np.arange(len(c.times)))

    assert_pure(at_all_rows, cube, 200)
    assert_apply(at_all_rows, cube, 200, np.random.default_rng(0))
    assert np.array_equal(at_all_rows(cube)[[7, 222]], context_features(cube, [7, 222]), equal_nan=True)
