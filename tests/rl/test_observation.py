import json
from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import Abstention, Cube, ForecastTable, MarketView, Opinion, OpinionTable, Portfolio
from rlaif_ray.errors import MissingDataError
from rlaif_ray.rl.observation import CLIP, Recipe
from tests.laws import assert_apply, assert_fit, random_cube

ROWS, ASSETS = 120, 4
BLOCK_A, TRAIN = slice(0, 50), slice(50, 90)


def market(seed: int = 0) -> Cube:
    cube = random_cube(np.random.default_rng(seed), ROWS, ASSETS, 3)
    features = cube.features.copy()
    features[:60, 1, 1] = np.nan
    features[:, :, 2] = 7.0
    return replace(cube, features=features)


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


def fit(cube: Cube, **changes: object) -> Recipe:
    sees = ("features", "forecasts", "opinions")
    knobs = {"features": cube.feature_names, "sees": sees, "block_a": BLOCK_A, "train_rows": TRAIN} | changes
    return Recipe.fit(cube, forecasts(cube), desk(cube), **knobs)  # pyright: ignore[reportArgumentType]


def view(cube: Cube, row: int) -> MarketView:
    known = [o for o in said(cube) if o.as_of <= cube.known_at[row]]
    latest = max((o.as_of for o in known), default=None)
    at = {m: t.at(cube.known_at[row]) for m, t in forecasts(cube).items() if cube.known_at[row] in t.as_of}
    portfolio = Portfolio(cube.known_at[row], cube.symbols, 1.0, np.zeros(ASSETS), np.ones(ASSETS))
    return MarketView(cube, row, portfolio, at, [o for o in known if o.as_of == latest])


def test_bulk_and_view_agree_bit_for_bit() -> None:
    cube = market()
    recipe = fit(cube)
    bulk = recipe.bulk(cube, forecasts(cube), desk(cube), slice(40, ROWS))
    assert bulk.dtype == np.float32 and bulk.shape == (ROWS - 40, ASSETS, len(recipe.names))
    for row in range(40, ROWS):
        assert (recipe.row(view(cube, row)) == bulk[row - 40]).all(), row


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
    assert [n for n in recipe.names if n.endswith("missing")] == ["x1 missing", "risk missing", "manager missing"]
    bulk = recipe.bulk(cube, forecasts(cube), desk(cube), slice(55, 65))
    flag = bulk[:, 1, recipe.names.index("x1 missing")]
    np.testing.assert_array_equal(flag, [1] * 5 + [0] * 5)
    assert (bulk[:5, 1, recipe.names.index("x1")] == 0).all()


@pytest.mark.parametrize("sees", [("features",), ("forecasts",), ("opinions",), ("features", "opinions")])
def test_sees_chooses_the_groups(sees: tuple[str, ...]) -> None:
    kinds = {f.kind for f in fit(market(), sees=sees).fields}
    assert kinds == {name[:-1] for name in sees}


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


def test_fit_sees_nothing_after_the_training_rows() -> None:
    cube, rng = market(), np.random.default_rng(0)
    fitted = lambda c: fit(c).to_json()  # noqa: E731
    assert_fit(fitted, cube, TRAIN.stop - 1, rng)
    features_only = lambda c: fit(c, sees=("features",)).to_json()  # noqa: E731
    assert_fit(features_only, cube, BLOCK_A.stop - 1, rng)


def test_rows_do_not_see_the_future() -> None:
    cube, rng = market(), np.random.default_rng(0)
    recipe, said_all, heard = fit(cube), forecasts(cube), desk(cube)
    assert_apply(lambda c: recipe.bulk(c, said_all, heard, slice(0, ROWS)), cube, 80, rng)
