import json
from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import Abstention, Cube, ForecastTable, MarketView, Opinion, OpinionTable, Portfolio
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import MissingDataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.rl.env import PortfolioVectorEnv, Track
from rlaif_ray.rl.observation import CLIP, PORTFOLIO, Layout, Recipe
from rlaif_ray.rl.projection import ActionSet
from tests.laws import assert_apply, assert_fit, random_cube

ROWS, ASSETS = 120, 4
BLOCK_A, TRAIN = slice(0, 50), slice(50, 90)
EVERYTHING = ("features", "returns", "forecasts", "quantiles", "opinions", "stances")


def market(seed: int = 0) -> Cube:
    cube = random_cube(np.random.default_rng(seed), ROWS, ASSETS, 3)
    features = cube.features.copy()
    features[:60, 1, 1] = np.nan
    features[:, :, 2] = 7.0
    storms = np.random.default_rng(seed).random((ROWS, 1, 1)).astype(np.float32) * np.ones((1, ASSETS, 1), np.float32)
    storms[20:25], storms[:, 0, 0] = np.nan, np.nan
    return replace(cube, features=np.concatenate((features, storms), axis=2), feature_names=(*cube.feature_names, "turbulence_20"))


def forecasts(cube: Cube, seed: int = 0) -> dict[str, ForecastTable]:
    rng = np.random.default_rng(seed)
    as_of = cube.known_at[50:115]
    values = np.sort(rng.standard_normal((len(as_of), ASSETS, 2, 3)).astype(np.float32) * 0.02, axis=-1)
    values[3, 2] = np.nan
    return {"m": ForecastTable(as_of, "return", cube.symbols, (1, 5), (0.1, 0.5, 0.9), values, "m")}


def said(cube: Cube, seed: int = 0) -> list[Opinion | Abstention]:
    rng, out = np.random.default_rng(seed), []
    for row in range(52, 115, 5):
        for symbol in cube.symbols:
            for author in ("risk", "manager"):
                moment = cube.known_at[row]
                if author == "risk" and rng.random() < 0.3:
                    out.append(Abstention(author, moment, symbol, 5, "no data"))
                else:
                    out.append(Opinion(author, moment, symbol, 5, float(rng.uniform(0.3, 0.7)), (), "", ""))
    return out


def desk(cube: Cube) -> OpinionTable:
    return OpinionTable.of(said(cube), cube.symbols, ("risk", "manager"))


def test_the_first_turbulence_is_the_accounts_and_others_are_fields() -> None:
    cube = market()
    more = np.concatenate((cube.features, cube.features[:, ::-1, -1:]), axis=2)
    recipe = fit(replace(cube, features=more, feature_names=(*cube.feature_names, "turbulence_60")))
    assert recipe.turbulence is not None and recipe.turbulence.source == "turbulence_20"
    assert "turbulence_60" in recipe.names


def fit(cube: Cube, **changes: object) -> Recipe:
    knobs = {"features": cube.feature_names, "sees": EVERYTHING, "returns_window": 3, "block_a": BLOCK_A, "train_rows": TRAIN} | changes
    return Recipe.fit(cube, forecasts(cube), desk(cube), **knobs)  # pyright: ignore[reportArgumentType]


def view(cube: Cube, row: int, portfolio: Portfolio | None = None) -> MarketView:
    known = [o for o in said(cube) if o.as_of <= cube.known_at[row]]
    last_two = sorted({o.as_of for o in known})[-2:]
    at = {m: t.at(cube.known_at[row]) for m, t in forecasts(cube).items() if cube.known_at[row] in t.as_of}
    nothing = Portfolio(cube.known_at[row], cube.symbols, 1.0, np.zeros(ASSETS), np.ones(ASSETS))
    return MarketView(cube, row, portfolio or nothing, at, [o for o in known if o.as_of in last_two])


def test_bulk_and_view_agree_bit_for_bit() -> None:
    cube = market()
    recipe = fit(cube)
    bulk = recipe.bulk(cube, forecasts(cube), desk(cube), slice(40, ROWS))
    assert bulk.dtype == np.float32 and bulk.shape == (ROWS - 40, ASSETS, len(recipe.names))
    for row in range(40, ROWS):
        assert (recipe.row(view(cube, row)) == bulk[row - 40]).all(), row
    first = recipe.bulk(cube, forecasts(cube), desk(cube), slice(0, 5))
    assert all((recipe.row(view(cube, row)) == first[row]).all() for row in range(5))


def test_scaled_by_hand() -> None:
    """Block A's mean and deviation; what is missing is 0 and flagged; far values are clipped; a constant is no field."""
    cube = market()
    features = np.zeros((ROWS, ASSETS, 2), np.float32)
    features[:50, :, 0] = np.array([1.0, 3.0] * 25)[:, None]
    features[50, :, 0] = [2.0, 3.0, 900.0, np.nan]
    cube = replace(cube, features=features, feature_names=("x", "flat"))
    recipe = Recipe.fit(cube, {}, None, features=("x", "flat"), sees=("features",), block_a=BLOCK_A, train_rows=TRAIN)
    assert recipe.names == ("x",)
    np.testing.assert_array_equal(recipe.bulk(cube, {}, None, slice(50, 51))[0, :, 0], [0.0, 1.0, CLIP, 0.0])


def test_flags_say_where_data_is_missing() -> None:
    cube = market()
    recipe = fit(cube)
    flagged = [n.removesuffix(" missing") for n in recipe.names if n.endswith("missing") and not n.startswith("return")]
    assert flagged == ["x1", "risk", "manager", "manager confidence", "manager novelty", "desk agreement"]
    bulk = recipe.bulk(cube, forecasts(cube), desk(cube), slice(55, 65))
    flag = bulk[:, 1, recipe.names.index("x1 missing")]
    np.testing.assert_array_equal(flag, [1] * 5 + [0] * 5)
    assert (bulk[:5, 1, recipe.names.index("x1")] == 0).all()


@pytest.mark.parametrize("sees", [("features",), ("forecasts",), ("opinions",), ("features", "opinions")])
def test_sees_chooses_the_groups(sees: tuple[str, ...]) -> None:
    kinds = {f.kind for f in fit(market(), sees=sees).fields}
    assert kinds == {name[:-1] for name in sees}


def test_what_there_is_to_see() -> None:
    """Turbulence belongs to no asset; a constant feature is left out."""
    names = [name for name in fit(market()).names if not name.endswith("missing")]
    assert names == [
        "x0", "x1", "return[-0]", "return[-1]", "return[-2]", "m[1] median", "m[1] spread", "m[5] median", "m[5] spread",
        "m[1] level 0.1", "m[1] level 0.5", "m[1] level 0.9", "m[5] level 0.1", "m[5] level 0.5", "m[5] level 0.9", "risk", "manager",
        "manager confidence", "manager novelty", "desk agreement",
    ]  # fmt: skip


def test_returns_of_the_last_bars_by_hand() -> None:
    cube = market()
    recipe = fit(cube, sees=("returns",))
    bulk, returns = recipe.bulk(cube, {}, None, slice(30, 60)), total_returns(cube)
    for lag, field in enumerate(recipe.fields):
        raw = returns[30 - lag : 60 - lag]
        expected = np.clip((raw - field.mean) / field.std, -CLIP, CLIP)
        np.testing.assert_allclose(bulk[:, :, lag], np.nan_to_num(expected), atol=1e-5)


def test_stances_by_hand() -> None:
    """p 0.6 after 0.5: confident by 0.2, moved by log 1.5; two of three analysts say up."""
    cube = market()
    words = {"a": (0.7, 0.4), "b": (0.6, 0.4), "c": (0.4, 0.4), "manager": (0.6, 0.5)}
    table = OpinionTable(
        cube.known_at[[50, 40]][::-1], cube.symbols, tuple(words), np.array([[[w[k] for w in words.values()]] * ASSETS for k in (1, 0)]), 5
    )  # fmt: skip
    recipe = Recipe.fit(cube, {}, table, features=(), sees=("stances",), block_a=BLOCK_A, train_rows=slice(40, 60))
    seen = dict(zip(recipe.names, recipe.bulk(cube, {}, table, slice(55, 56))[0, 0].tolist(), strict=True))
    unscaled = {f.name: seen[f.name] * f.std + f.mean for f in recipe.fields}
    assert unscaled == pytest.approx({"manager confidence": 0.2, "desk agreement": 1 / 3}, abs=1e-6)
    moved = Recipe(tuple(replace(f, stat="novelty", mean=0.0, std=1.0) for f in recipe.fields[:1])).bulk(cube, {}, table, slice(55, 56))
    assert moved[0, 0, 0] == pytest.approx(np.log(1.5), abs=1e-6)


def test_nothing_to_see_is_an_error() -> None:
    cube = market()
    with pytest.raises(MissingDataError, match="the policy would see nothing"):
        Recipe.fit(cube, {}, None, features=(), sees=("features",), block_a=BLOCK_A, train_rows=TRAIN)


def test_a_forecaster_that_went_missing_is_an_error() -> None:
    cube = market()
    with pytest.raises(MissingDataError, match="forecasts of 'm'"):
        fit(cube).bulk(cube, {}, desk(cube), slice(60, 61))


def test_json_and_back() -> None:
    recipe = fit(market())
    assert Recipe.of_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_layout_reads_what_was_written() -> None:
    layout = Layout(3, 2)
    flat = np.arange(2 * layout.size, dtype=np.float32).reshape(2, -1)
    assets, account = layout.split(flat)
    assert assets.shape == (2, 3, 4) and account.shape == (2, len(PORTFOLIO)) and np.shares_memory(assets, flat)
    assert assets[1, 2, 3] == flat[1, 11] and account[1, 0] == flat[1, 12]


def test_a_view_shows_what_the_environment_showed() -> None:
    """The policy in the backtest sees its assets and its account as it did in training: bit for bit but for sums of what is held."""
    cube, rows = market(), slice(60, 110)
    recipe = fit(cube)
    fields, storms = recipe.bulk(cube, forecasts(cube), desk(cube), rows), recipe.bulk_turbulence(cube, rows)
    costs = CostModel.of_bps(0.5, 1.0, 2.0)
    t = Track.of(cube, fields, rows, fill="next_open", costs=costs, memory=recipe.memory, turbulence=storms)
    env = PortfolioVectorEnv(t, paths=1, episode_bars=49, allowed=ActionSet(0.5))
    obs, _ = env.reset(options={"cash": True})
    returns, rng = [], np.random.default_rng(0)
    for _ in range(49):
        row = int(env.rows[0]) + 60
        shares, prices = env._holdings[0, 0].copy(), t.market.last[row]
        book = Portfolio(cube.known_at[row], cube.symbols, float(env._money[0, 0]), shares, prices, np.array(returns))
        seen = recipe.observation(view(cube, row, book))
        np.testing.assert_allclose(seen, obs, rtol=0, atol=1e-6)
        mine, theirs = (t.layout.split(x) for x in (seen, obs))
        assert (mine[0][..., :-1] == theirs[0][..., :-1]).all() and (mine[1][:, 1:] == theirs[1][:, 1:]).all()
        obs = env.step(rng.uniform(-1, 1, (1, ASSETS)))[0]
        returns.append(float(env.returns[0]))
    assert obs[0, -len(PORTFOLIO) + 1] > 0 and np.abs(storms).max() > 1


def test_fit_sees_nothing_after_the_training_rows() -> None:
    cube, rng = market(), np.random.default_rng(0)
    fitted = lambda c: fit(c).to_json()  # noqa: E731
    assert_fit(fitted, cube, TRAIN.stop - 1, rng)
    features_only = lambda c: fit(c, sees=("features", "returns")).to_json()  # noqa: E731
    assert_fit(features_only, cube, BLOCK_A.stop - 1, rng)


def test_rows_do_not_see_the_future() -> None:
    cube, rng = market(), np.random.default_rng(0)
    recipe, said_all, heard = fit(cube), forecasts(cube), desk(cube)
    assert_apply(lambda c: recipe.bulk(c, said_all, heard, slice(0, ROWS)), cube, 80, rng)
    assert_apply(lambda c: recipe.bulk_turbulence(c, slice(0, ROWS)), cube, 80, rng)
