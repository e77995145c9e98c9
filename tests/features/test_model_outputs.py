"""Model outputs as columns: by hand, distances through a projection, and the law."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Cube, ForecastTable, Panel
from rlaif_ray.errors import ConfigError, MissingDataError, SchemaError
from rlaif_ray.features import model_outputs
from rlaif_ray.features.model_outputs import Projection
from tests.laws import assert_apply, assert_pure, random_cube

DAYS = np.array(["2020-01-02T21:00", "2020-01-03T21:00"], "datetime64[us]")


def table(values: np.ndarray, levels: tuple[float, ...] = (0.025, 0.1, 0.5, 0.9)) -> ForecastTable:
    """(T,A,H,Q) with T of at most two days and symbols B, A."""
    shape = values.shape
    return ForecastTable(
        DAYS[: shape[0]], "return", ("B", "A")[: shape[1]], (1, 5)[: shape[2]], levels, values.astype(np.float32), "tcn-v2"
    )


def test_columns_by_hand() -> None:
    """-2%, 1%, 6%: 8 wide, the median an eighth of it, (6 - 2 - 2)/8 = a quarter to the upper side."""
    found = model_outputs.columns(table(np.array([[[[-0.05, -0.02, 0.01, 0.06]]]])), (0.1, 0.5, 0.9)).frame
    expected = {"q10": -0.02, "q50": 0.01, "q90": 0.06, "width": 0.08, "tilt": 0.125, "asymmetry": 0.25}
    assert found.columns == ["symbol", "timestamp", "known_at", *(f"tcn_v2_return_1_{name}" for name in expected)]
    np.testing.assert_allclose(found.row(0)[3:], list(expected.values()), rtol=1e-5)
    assert found.schema["tcn_v2_return_1_tilt"] == pl.Float32


def test_rows_are_sorted_by_symbol_and_known_when_they_were_said() -> None:
    values = np.arange(8.0).reshape(2, 2, 2, 1) + np.array([0.0, 0.5, 1.0, 2.0])
    found = model_outputs.columns(table(values)).frame
    assert found["symbol"].to_list() == ["A", "A", "B", "B"]
    np.testing.assert_array_equal(found["known_at"].dt.replace_time_zone(None).to_numpy(), np.tile(DAYS, 2))
    np.testing.assert_array_equal(found["tcn_v2_return_5_q50"], [4.0, 8.0, 2.0, 6.0])
    assert "tcn_v2_return_1_q2p5" in model_outputs.columns(table(values, (0.025, 0.1, 0.5, 0.975)), (0.025, 0.5, 0.975)).columns


def test_what_was_not_said_and_what_has_no_width() -> None:
    values = np.stack([np.full((1, 1, 4), np.nan), np.full((1, 1, 4), 0.3)])
    found = model_outputs.columns(table(values)).frame
    assert all(np.isnan(found[c][0]) for c in found.columns[3:])
    assert found["tcn_v2_return_1_width"][1] == 0.0
    assert np.isnan(found["tcn_v2_return_1_tilt"][1]) and np.isnan(found["tcn_v2_return_1_asymmetry"][1])
    assert model_outputs.columns(table(np.empty((0, 2, 2, 4)))).frame.height == 0


def test_bad_requests_say_what_is_wrong() -> None:
    some = table(np.zeros((1, 1, 1, 4)))
    with pytest.raises(MissingDataError, match=r"tcn-v2 has no quantile at 0\.75; it has \[0\.025, 0\.1, 0\.5, 0\.9\]"):
        model_outputs.columns(some, (0.1, 0.5, 0.75))
    with pytest.raises(ConfigError, match="outermost ones that sum to 1"):
        model_outputs.columns(some, (0.025, 0.5, 0.9))
    with pytest.raises(SchemaError, match=r"\(T,A\) = \(1, 1\)"):
        model_outputs.columns(some, embeddings=np.zeros((2, 1, 8)))
    with pytest.raises(ConfigError, match="0 columns"):
        Projection(0)


def test_a_projection_keeps_distances_and_is_linear() -> None:
    """Off by sqrt(2 / 64) = 18%, one standard deviation; none of the 45 by five of them."""
    points = np.random.default_rng(0).standard_normal((10, 300))
    flat = Projection(64).apply(points)
    a, b = np.triu_indices(10, 1)
    ratio = np.square(flat[a] - flat[b]).sum(axis=1) / np.square(points[a] - points[b]).sum(axis=1)
    assert abs(ratio - 1).max() < 5 * np.sqrt(2 / 64) and 0.1 < ratio.std() < 0.26
    np.testing.assert_allclose(Projection(64).apply(2 * points), 2 * flat, rtol=1e-5)


def test_a_projection_is_the_same_whoever_stands_beside_a_row() -> None:
    points = np.random.default_rng(0).standard_normal((50, 7, 96)).astype(np.float32)
    whole = Projection(8).apply(points)
    np.testing.assert_array_equal(whole[3:4, 2:5], Projection(8).apply(points[3:4, 2:5]))
    assert not np.array_equal(whole, Projection(8, seed=1).apply(points))


def test_columns_follow_from_what_was_known() -> None:
    def outputs(cube: Cube) -> Panel:
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(np.diff(np.log(cube.close), axis=0, prepend=np.nan))
        values = (size[:, :, None, None] * np.array([-1.0, 0.1, 1.5])).astype(np.float32)
        said = ForecastTable(cube.known_at, "return", cube.symbols, (1,), (0.1, 0.5, 0.9), values, "naive")
        return model_outputs.columns(said, embeddings=cube.prices, projection=Projection(3))

    cube = random_cube(np.random.default_rng(1), 120)
    for t in (0, 60, 118):
        assert_pure(outputs, cube, t)
        assert_apply(outputs, cube, t, np.random.default_rng(t))
    assert outputs(cube).columns[-3:] == [f"naive_return_embedding_{i}" for i in range(3)]
