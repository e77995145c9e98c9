"""The values that flow: checked once at the door, the same on every machine, blind to what is known later."""

import datetime as dt
import math
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from rlaif_ray import errors
from rlaif_ray.core import (
    CLOSE,
    UTC,
    Abstention,
    Claim,
    Cube,
    Episode,
    Forecast,
    ForecastTable,
    MarketView,
    Opinion,
    OpinionTable,
    Panel,
    Portfolio,
    Preference,
    canonical_json,
    content_hash,
)
from rlaif_ray.errors import DataError, LookAheadError, MissingDataError, SchemaError

DAY = dt.datetime(2020, 1, 2, 21, tzinfo=dt.UTC)


def days(n: int) -> np.ndarray:
    return np.datetime64("2020-01-02T21:00", "us") + np.arange(n) * np.timedelta64(1, "D")


def small_cube(t: int = 5, a: int = 2) -> Cube:
    """Close of asset 0: 100, 101, ...; of asset 1: 200, 201, ...; one feature that counts rows."""
    prices = np.empty((t, a, 5))
    prices[:] = (np.arange(t)[:, None] + 100.0 * np.arange(1, a + 1))[:, :, None]
    features = np.broadcast_to(np.arange(t, dtype=np.float32)[:, None, None], (t, a, 1)).copy()
    times = days(t)
    ones = np.ones((t, a))
    known_at, never = times + np.timedelta64(60, "s"), ones == 0
    return Cube(times, known_at, tuple("AB"[:a]), prices, features, ("count",), ~never, ones, ones * 0, never, 252.0)


def portfolio(cube: Cube) -> Portfolio:
    return Portfolio(cube.known_at[0], cube.symbols, 100.0, np.array([1.0, 0.5]), np.array([100.0, 200.0]))


def opinion(p_up: float, author: str = "risk", day: int = 0, symbol: str = "A") -> Opinion:
    return Opinion(author, days(day + 1)[-1], symbol, 5, p_up, (Claim("count", 1.0, "it counts"),), "because", "hash")


def frame(**changes) -> pl.DataFrame:
    times = [DAY, DAY + dt.timedelta(days=1), DAY]
    rows = {"symbol": ["B", "A", "A"], "timestamp": times, "known_at": times, "close": [1.0, 3.0, 2.0]}
    return pl.DataFrame(rows | changes)


def test_a_panel_is_sorted_and_the_same_from_any_library():
    panels = [Panel.of(f) for f in (frame(), frame().to_pandas(), frame().to_arrow(), frame().sample(fraction=1, shuffle=True, seed=1))]
    assert panels[0].frame["close"].to_list() == [2.0, 3.0, 1.0]
    assert panels[0].frame.schema["timestamp"] == UTC
    assert len({panel.id for panel in panels}) == 1
    assert panels[0].symbols == ("A", "B")
    assert panels[0].columns == ["close"]
    assert isinstance(panels[0].to_pandas(), pd.DataFrame)


def test_a_panel_as_of_shows_what_was_known():
    late = frame(known_at=[DAY, DAY + dt.timedelta(days=9), DAY])
    assert Panel.of(late).as_of(np.datetime64("2020-01-05", "us")).frame["close"].to_list() == [2.0, 1.0]
    assert Panel.of(late).as_of(np.datetime64("2020-01-02T20:59:59", "us")).frame.is_empty()


def test_a_panel_refuses_what_it_would_have_to_guess():
    with pytest.raises(SchemaError, match="known_at"):
        Panel.of(frame().drop("known_at"))
    with pytest.raises(SchemaError, match="time zone"):
        Panel.of(frame().with_columns(pl.col("timestamp").dt.replace_time_zone(None)))
    with pytest.raises(DataError, match="two rows"):
        Panel.of(frame(symbol=["A", "A", "A"]))
    with pytest.raises(DataError, match="before its interval ended"):
        Panel.of(frame(known_at=[DAY - dt.timedelta(seconds=1)] * 3))


def test_a_cube_finds_rows_by_when_they_are_known():
    cube = small_cube()
    assert [cube.row(cube.known_at[2]), cube.row(cube.times[2]), cube.row(cube.known_at[4] + np.timedelta64(9, "D"))] == [2, 1, 4]
    with pytest.raises(MissingDataError, match="before the first known bar"):
        cube.row(cube.times[0])
    assert cube.close.tolist()[1] == [101.0, 201.0]
    with pytest.raises(MissingDataError, match="Did you mean 'count'"):
        cube.feature("cuont")


def test_a_cube_refuses_wrong_shapes_and_time_that_goes_back():
    cube = small_cube()
    with pytest.raises(SchemaError, match="features"):
        replace(cube, features=cube.features[:-1])
    with pytest.raises(DataError, match="rise strictly"):
        replace(cube, times=cube.times[::-1].copy())


def test_the_head_of_a_cube_is_the_cube_as_it_stood():
    cube = small_cube()
    head = cube.head(3)
    assert len(head.times) == 3
    changed = cube.prices.copy()
    changed[3:] = np.nan
    assert replace(cube, prices=changed).head(3).id == head.id != cube.id


def test_a_forecast_table_survives_arrow_and_refuses_crossing_quantiles():
    values = np.sort(np.random.default_rng(0).normal(size=(3, 2, 2, 3)).astype(np.float32), axis=-1)
    values[0, 0] = np.nan
    table = ForecastTable(days(3), "return", ("A", "B"), (1, 5), (0.1, 0.5, 0.9), values, "naive")
    again = ForecastTable.of_arrow(table.to_arrow())
    assert again.id == table.id
    shuffled = table.to_arrow().take(np.random.default_rng(1).permutation(table.values.size))
    assert ForecastTable.of_arrow(shuffled).id == table.id
    assert np.array_equal(table.at(days(3)[1]).at_level(5, 0.5), values[1, :, 1, 1])
    with pytest.raises(DataError, match="does not fill its grid"):
        ForecastTable.of_arrow(table.to_arrow().slice(1))
    with pytest.raises(DataError, match="cross"):
        replace(table, values=values[..., ::-1])
    with pytest.raises(MissingDataError, match="no forecast made"):
        table.at(days(9)[-1])


@pytest.mark.parametrize(
    ("p_up", "stance"), [(0.5, "hold"), (0.519, "hold"), (0.53, "buy"), (0.61, "strong_buy"), (0.47, "sell"), (0.39, "strong_sell")]
)
def test_stance_and_confidence_follow_from_p_up(p_up, stance):
    assert opinion(p_up).stance == stance
    assert opinion(p_up).confidence == pytest.approx(2 * abs(p_up - 0.5))


@pytest.mark.parametrize("p_up", [0.0, 1.0, -0.1, math.nan])
def test_certainty_is_no_opinion(p_up):
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        opinion(p_up)


def test_an_opinion_table_keeps_abstention_apart_from_neutral():
    given = [opinion(0.5), opinion(0.7, day=1), Abstention("mood", days(1)[0], "A", 5, "no news"), opinion(0.4, symbol="B")]
    table = OpinionTable.of(given, ("A", "B"), ("risk", "mood"))
    assert table.p_up.shape == (2, 2, 2)
    assert table.p_up[0, 0, 0] == 0.5
    assert np.isnan(table.p_up[0, 0, 1])
    assert np.isnan(table.latest(days(1)[0] - np.timedelta64(1, "s"))).all()
    assert table.latest(days(9)[-1])[0, 0] == 0.7
    with pytest.raises(DataError, match="one horizon"):
        OpinionTable.of([opinion(0.5), replace(opinion(0.6), horizon_bars=1)], ("A",), ("risk",))


def test_a_view_shows_nothing_that_is_known_later():
    cube = small_cube()
    view = MarketView(cube, 2, portfolio(cube), opinions=(opinion(0.6),))
    assert view.prices(2)[:, 0, CLOSE].tolist() == [101.0, 102.0]
    assert view.prices(99).shape == (3, 2, 5)
    assert view.feature("count").tolist() == [2.0, 2.0]
    assert view.feature("count", 0).tolist() == [0.0, 0.0]
    assert view.history().id == cube.head(3).id
    with pytest.raises(LookAheadError):
        view.feature("count", 3)
    with pytest.raises(LookAheadError, match="known later"):
        MarketView(cube, 2, portfolio(cube), opinions=(opinion(0.6, day=4),))
    early = Forecast(cube.known_at[3], "return", cube.symbols, (1,), (0.5,), np.zeros((2, 1, 1)), "naive")
    with pytest.raises(LookAheadError, match="return"):
        MarketView(cube, 2, portfolio(cube), forecasts={"return": early})
    with pytest.raises(LookAheadError, match="outside"):
        MarketView(cube, 5, portfolio(cube))


def test_a_portfolio_and_an_episode_add_up():
    held = portfolio(small_cube())
    assert held.equity_usd == 100.0 + 100.0 + 100.0
    assert held.weights.tolist() == [1 / 3, 1 / 3]
    path = Episode(days(2), ("A",), np.ones((2, 1)), np.array([0.10, -0.05]), np.array([0.01, 0.0]), np.zeros(2), "x")
    assert path.returns.tolist() == pytest.approx([0.09, -0.05])
    assert path.equity.tolist() == pytest.approx([1.09, 1.09 * 0.95])


def test_a_preference_said_the_other_way_round():
    pair = Preference("A", days(1)[0], "hash", "good", "bad", 0.3, "market", days(2)[1])
    assert (pair.swapped().chosen, pair.swapped().margin) == ("bad", -0.3)
    assert pair.swapped().swapped() == pair


def test_content_hash_says_what_a_value_says():
    assert content_hash({"a": 1, "b": [2.0]}) == content_hash({"b": [2.0], "a": 1})
    assert content_hash([1, 2]) == content_hash((1, 2))
    different = [1, 1.0, "1", True, [1], [[1]], {"1": 1}, np.ones(1), np.ones(1, np.float32), np.ones((1, 1)), None]
    assert len({content_hash(value) for value in different}) == len(different)
    assert content_hash(np.arange(6).reshape(2, 3).T) == content_hash(np.arange(6).reshape(2, 3).T.copy())
    assert opinion(0.6).id == opinion(0.6).id != opinion(0.61).id


def test_canonical_json_is_one_text_for_one_value():
    assert canonical_json({"b": 1, "a": np.float64(0.1)}) == canonical_json({"a": 0.1, "b": np.int64(1)})
    assert canonical_json({"x": float("nan"), "t": np.datetime64("2020-01-01")}) == '{\n "t": "2020-01-01",\n "x": null\n}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("inf")})


@pytest.mark.parametrize("kind", [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.RlaifError)])
def test_errors_travel(kind):
    again = pickle.loads(pickle.dumps(kind("seen x, expected y, turn --z")))
    assert type(again) is kind
    assert str(again) == "seen x, expected y, turn --z"


def test_values_travel():
    cube = small_cube()
    assert pickle.loads(pickle.dumps(cube)).id == cube.id
    assert pickle.loads(pickle.dumps(opinion(0.6))) == opinion(0.6)
