"""Bounds, scales and gaps: by hand, against scikit-learn, saved and read, and the laws."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from sklearn.preprocessing import QuantileTransformer

from rlaif_ray.core import UTC, Panel
from rlaif_ray.errors import ConfigError, MissingDataError, SchemaError
from rlaif_ray.features.core_31 import COLUMNS
from rlaif_ray.features.family import FeatureSpec, Missing
from rlaif_ray.features.normalise import Bounds, Method, Normalisation, fill
from tests.laws import assert_apply, assert_fit, assert_pure, parameter_hash

METHODS: tuple[Method, ...] = ("zscore", "robust", "rank_gauss")
END = np.datetime64("2030-01-01", "us")


def panel(symbols: int = 1, **columns: list[float] | np.ndarray) -> Panel:
    """Daily rows from 2024-01-01, those of one symbol after those of another; columns are float32, NaN where undefined."""
    n = len(next(iter(columns.values()))) // symbols
    times = np.tile(np.datetime64("2024-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(n), symbols)
    frame = pl.DataFrame({"symbol": np.repeat([f"S{i}" for i in range(symbols)], n), "timestamp": times, "known_at": times})
    values = (pl.Series(name, np.asarray(x, np.float32)) for name, x in columns.items())
    return Panel.of(frame.with_columns(*values, pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)))


def noisy(rows: int = 400, symbols: int = 2) -> Panel:
    """A heavy tail, a column with gaps, and one that is mostly 0."""
    rng = np.random.default_rng(4)
    n = rows * symbols
    gaps, rare = rng.random((2, n)) < [[0.2], [0.3]]
    return panel(symbols, a=rng.standard_t(3, n), b=np.where(gaps, np.nan, rng.lognormal(size=n)), c=rng.integers(1, 3, n) * rare)


def day(n: int) -> np.datetime64:
    return np.datetime64("2024-01-01T21:00", "us") + np.timedelta64(n, "D")


def column(of: Panel, name: str) -> np.ndarray:
    assert of.frame.schema[name] == pl.Float32
    return of.frame[name].to_numpy()


def specs(**missing: Missing) -> list[FeatureSpec]:
    return [dataclasses.replace(COLUMNS[0], name=name, missing=rule) for name, rule in missing.items()]


# --- by hand -------------------------------------------------------------------------------------------------------


def test_winsorised_at_the_training_quantiles() -> None:
    """0 .. 100 has its 5 % and 95 % quantiles at 5 and 95; what came later had no say."""
    data = panel(x=np.r_[np.arange(101.0), 1e6, -1e6, np.nan])
    bounds = Bounds.winsorised(data, ["x"], day(100), 0.05)
    assert (bounds.low[0], bounds.high[0]) == (5.0, 95.0)
    np.testing.assert_array_equal(column(bounds.apply(data), "x")[[0, 5, 50, 100, 101, 102, 103]], [5, 5, 50, 95, 95, 5, np.nan])


def test_within_median_absolute_deviations() -> None:
    """1, 2, 3, 4, 100: median 3, deviations 2, 1, 0, 1, 97, their median 1."""
    data = panel(x=[1.0, 2.0, 3.0, 4.0, 100.0], flat=[0.0, 0.0, 0.0, 7.0, 9.0])
    bounds = Bounds.within_mad(data, ["x", "flat"], END, 2.0)
    np.testing.assert_allclose(column(bounds.apply(data), "x"), [1, 2, 3, 4, 3 + 2 * 1.4826], rtol=1e-6)
    np.testing.assert_array_equal(column(bounds.apply(data), "flat"), [0, 0, 0, 7, 9])


def test_scales_by_hand() -> None:
    """1, 3, 5, 7, 9: mean and median 5, deviation sqrt(8), median absolute deviation 2."""
    data = panel(x=[1.0, 3.0, 5.0, 7.0, 9.0, 21.0, np.nan], y=[7.0] * 7)
    zscore = Normalisation.fit(data, ["x"], day(4)).apply(data)
    np.testing.assert_allclose(column(zscore, "x"), np.array([-4, -2, 0, 2, 4, 16, np.nan]) / np.sqrt(8), rtol=1e-6)
    robust = Normalisation.fit(data, ["x"], day(4), "robust").apply(data)
    np.testing.assert_allclose(column(robust, "x"), np.array([-4, -2, 0, 2, 4, 16, np.nan]) / (2 * 1.4826), rtol=1e-6)
    assert robust.frame["y"].to_list() == [7.0] * 7, "other columns stay"


def test_ranks_become_normal_quantiles() -> None:
    """Of 1, 2, 4, 8, 16 the median is at 0, and what lies outside is half a value inside the ends: at 0.1 and 0.9."""
    data = panel(x=[1.0, 2.0, 4.0, 8.0, 16.0, 1e9, -1e9, 3.0])
    scores = column(Normalisation.fit(data, ["x"], day(4), "rank_gauss").apply(data), "x")
    np.testing.assert_allclose(scores[[2, 4, 5, 0, 6]], [0.0, 1.2815516, 1.2815516, -1.2815516, -1.2815516], atol=1e-6)
    np.testing.assert_allclose(scores[1], -0.6744898, rtol=1e-5)  # the quartile
    assert scores[1] < scores[7] < scores[2]


def test_rank_gauss_equals_scikit_learns() -> None:
    """By the same knots; but for the ends, which scikit-learn puts 5.2 deviations out."""
    data = noisy(rows=1000)
    for name in ("a", "b", "c"):
        x = data.frame[name].drop_nans().to_numpy().astype(np.float64)
        theirs = QuantileTransformer(n_quantiles=1001, output_distribution="normal").fit_transform(x[:, None])[:, 0]
        ours = column(Normalisation.fit(data, [name], END, "rank_gauss").apply(data), name)
        inside = np.abs(theirs) < 3.0
        np.testing.assert_allclose(ours[np.isfinite(ours)][inside], theirs[inside], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_column_without_spread_is_0_and_makes_no_infinity(method: Method) -> None:
    data = panel(x=[0.1] * 9 + [3e38], y=[0.0] * 6 + [1.0] * 4, z=np.r_[1.0, np.nextafter(np.float32(1), np.float32(2)), np.ones(7), -3e38])
    scaled = Normalisation.fit(data, ["x", "y", "z"], day(8), method).apply(data)
    assert (column(scaled, "x")[:9] == 0).all() and np.ptp(column(scaled, "y")) > 1
    assert not any(np.isinf(column(scaled, n)).any() for n in "xyz")


def test_gaps_are_filled_as_each_feature_says() -> None:
    data = panel(2, u=[1, np.nan] * 3, z=[np.nan, 2] * 3, c=[np.nan, 1, np.nan, np.nan, np.nan, 5], other=[np.nan] * 6)
    filled = fill(data, specs(u="undefined", z="zero", c="carry"))
    np.testing.assert_array_equal(column(filled, "u"), [1, np.nan] * 3)
    np.testing.assert_array_equal(column(filled, "z"), [0, 2] * 3)
    np.testing.assert_array_equal(column(filled, "c"), [np.nan, 1, 1, np.nan, np.nan, 5])  # never from another symbol
    np.testing.assert_array_equal(column(filled, "other"), [np.nan] * 6)
    assert filled.frame.select("symbol", "timestamp", "known_at").equals(data.frame.select("symbol", "timestamp", "known_at"))
    assert filled.columns == data.columns


def test_a_row_that_carries_is_known_no_earlier_than_what_it_carries() -> None:
    data = panel(c=[1.0, np.nan, np.nan])
    late = pl.when(pl.int_range(pl.len()) == 0).then(pl.col("known_at").dt.offset_by("36h")).otherwise(pl.col("known_at"))
    data = Panel.of(data.frame.with_columns(known_at=late))
    known = fill(data, specs(c="carry")).frame["known_at"]
    assert (known[1], known[2]) == (known[0], data.frame["known_at"][2])
    assert fill(data, specs(c="zero")).frame["known_at"].equals(data.frame["known_at"])


# --- laws ----------------------------------------------------------------------------------------------------------

FITS: dict[str, Callable[[Panel, np.datetime64], Bounds | Normalisation]] = {
    "winsorised": lambda data, end: Bounds.winsorised(data, ["a", "b", "c"], end),
    "within_mad": lambda data, end: Bounds.within_mad(data, ["a", "b", "c"], end),
    **{method: (lambda data, end, method=method: Normalisation.fit(data, ["a", "b", "c"], end, method)) for method in METHODS},
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_sees_nothing_after_its_end_and_what_it_says_nothing_after_a_row(name: str) -> None:
    data = noisy()
    assert_fit(lambda d: FITS[name](d, day(200)).to_arrays()[0], data, day(200), np.random.default_rng(1))
    fitted = FITS[name](data, day(200))
    for t in (150, 200, 201, 202, 203, 350):
        assert_pure(fitted.apply, data, t)
        assert_apply(fitted.apply, data, t, np.random.default_rng(t))
    assert parameter_hash(fitted.to_arrays()[0]) != parameter_hash(FITS[name](data, day(60)).to_arrays()[0])


@pytest.mark.parametrize("t", [0, 100, 101, 102, 399])
def test_a_gap_is_never_filled_from_the_future(t: int) -> None:
    rules = specs(a="zero", b="carry", c="undefined")
    assert_pure(lambda d: fill(d, rules), noisy(), t)
    assert_apply(lambda d: fill(d, rules), noisy(), t, np.random.default_rng(t))


@pytest.mark.parametrize("name", FITS)
def test_what_was_fitted_is_saved_and_read(name: str) -> None:
    data = noisy()
    fitted = FITS[name](data, day(200))
    arrays, meta = fitted.to_arrays()
    again = type(fitted).of_arrays(arrays, json.loads(json.dumps(meta)))
    assert again.fit_end == day(200) and again.names == ("a", "b", "c")
    assert again.apply(data).frame.equals(fitted.apply(data).frame)
    with pytest.raises(SchemaError, match=r"is \(3,\); expected an array \(2,\)"):
        type(fitted).of_arrays(arrays, {**meta, "names": ["a", "b"]})
    with pytest.raises(SchemaError, match="expected its names and fit_end"):
        type(fitted).of_arrays(arrays, {"method": "zscore"})


def test_what_cannot_be_fitted_says_why() -> None:
    data = noisy()
    with pytest.raises(MissingDataError, match="Did you mean"):
        Normalisation.fit(panel(core_mom_5=[1.0]), ["core_mom5"], END)
    with pytest.raises(MissingDataError, match="a has no value known by 2020"):
        Normalisation.fit(data, ["a"], np.datetime64("2020-01-01"))
    with pytest.raises(ConfigError, match=r"no normalisation 'z-score'; .*Did you mean 'zscore'"):
        Normalisation.fit(data, ["a"], END, "z-score")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"share is 0\.5"):
        Bounds.winsorised(data, ["a"], END, 0.5)
    with pytest.raises(ConfigError, match="above 0"):
        Bounds.within_mad(data, ["a"], END, 0.0)
    with pytest.raises(MissingDataError, match="no column 'b'"):
        Bounds.winsorised(data, ["b"], END).apply(panel(a=[1.0]))
