"""The laws themselves: honest code passes, and each planted canary is caught."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import CLOSE, Abstention, Cube, ForecastTable, OpinionTable, Panel
from tests.laws import assert_apply, assert_fit, assert_pure, known_by, moments, perturb_future, random_bars, random_cube

T = 200


@pytest.fixture
def cube() -> Cube:
    return random_cube(np.random.default_rng(1), 400)


@pytest.fixture
def bars() -> Panel:
    return random_bars(np.random.default_rng(2), 400, 2)


def trailing_mean(cube: Cube) -> np.ndarray:
    close = cube.close
    return np.stack([close[max(0, t - 4) : t + 1].mean(axis=0) for t in range(len(close))])


def centred_mean(cube: Cube) -> np.ndarray:
    close = cube.close
    return np.stack([close[max(0, t - 2) : t + 3].mean(axis=0) for t in range(len(close))])


def scaled_by_all_rows(cube: Cube) -> np.ndarray:
    x = cube.feature("x0")
    return (x - x.mean(axis=0)) / x.std(axis=0)


def next_returns(cube: Cube) -> np.ndarray:
    """(T-1,A): row t closes at t+1."""
    return np.nan_to_num(cube.close[1:] / cube.close[:-1] - 1.0)


def fit_purged(cube: Cube) -> np.ndarray:
    x, y = cube.feature("x0")[:T], next_returns(cube)[:T]
    return (x * y).sum(axis=0) / (x * x).sum(axis=0)


def fit_with_overlap(cube: Cube) -> np.ndarray:
    """The label of row T closes at T+1, one bar past the cut."""
    x, y = cube.feature("x0")[: T + 1], next_returns(cube)[: T + 1]
    return (x * y).sum(axis=0) / (x * x).sum(axis=0)


def test_honest_code_passes_each_form(cube: Cube) -> None:
    assert_pure(trailing_mean, cube, T)
    assert_apply(trailing_mean, cube, T, np.random.default_rng(3))
    assert_fit(fit_purged, cube, T, np.random.default_rng(3))


@pytest.mark.parametrize("leak", [centred_mean, scaled_by_all_rows])
def test_centred_window_and_full_sample_scaler_are_caught(cube: Cube, leak) -> None:
    with pytest.raises(AssertionError, match="changed what was computed"):
        assert_pure(leak, cube, T)
    with pytest.raises(AssertionError, match="changed what was said"):
        assert_apply(leak, cube, T, np.random.default_rng(3))


def test_a_label_that_overlaps_the_cut_is_caught(cube: Cube) -> None:
    with pytest.raises(AssertionError, match="saw past its end"):
        assert_fit(fit_with_overlap, cube, T, np.random.default_rng(3))


def test_one_bar_of_look_ahead_in_one_panel_column_is_caught(bars: Panel) -> None:
    def tomorrow(panel: Panel) -> Panel:
        return Panel(panel.frame.select("symbol", "timestamp", "known_at", x=pl.col("close").shift(-1).over("symbol")))

    def yesterday(panel: Panel) -> Panel:
        return Panel(panel.frame.select("symbol", "timestamp", "known_at", x=pl.col("close").shift(1).over("symbol")))

    assert_pure(yesterday, bars, T)
    assert_apply(yesterday, bars, T, np.random.default_rng(3))
    for law in (lambda f: assert_pure(f, bars, T), lambda f: assert_apply(f, bars, T, np.random.default_rng(3))):
        with pytest.raises(AssertionError, match="changed what was"):
            law(tomorrow)


def test_a_join_on_the_event_instead_of_the_knowledge_is_caught(bars: Panel) -> None:
    """A fact of day t that is published two days later must not be seen on day t."""
    late = Panel.of(bars.frame.with_columns(known_at=pl.col("known_at").dt.offset_by("2d")))

    def by_event(panel: Panel) -> Panel:
        facts = panel.frame.select("symbol", "timestamp", score="close")
        return Panel(bars.frame.select("symbol", "timestamp", "known_at").join(facts, on=["symbol", "timestamp"], how="left"))

    with pytest.raises(AssertionError, match="score"):
        assert_apply(by_event, late, moments(bars)[T], np.random.default_rng(3))


def test_the_past_of_a_perturbed_cube_is_untouched_and_the_future_is_a_market(cube: Cube) -> None:
    noisy = perturb_future(cube, T, np.random.default_rng(3))
    for name in ("prices", "features", "tradable", "splits", "dividends", "delisted"):
        np.testing.assert_array_equal(getattr(noisy, name)[: T + 1], getattr(cube, name)[: T + 1])
        assert (getattr(noisy, name)[T + 1 :] != getattr(cube, name)[T + 1 :]).any() or name == "delisted"
    there = ~noisy.delisted
    o, h, low, c = (noisy.prices[:, :, i][there] for i in range(4))
    assert (low > 0).all() and (low <= np.minimum(o, c)).all() and (h >= np.maximum(o, c)).all()
    assert np.isnan(noisy.prices[noisy.delisted]).all() and not noisy.tradable[noisy.delisted].any()
    assert (np.diff(noisy.delisted.astype(int), axis=0) >= 0).all()


def test_what_a_source_does_not_have_stays_absent(cube: Cube, bars: Panel) -> None:
    prices = cube.prices.copy()
    prices[:, :, :CLOSE] = np.nan
    close_only = Cube(**{**{k: v for k, v in vars(cube).items() if k != "id"}, "prices": prices})
    assert np.isnan(perturb_future(close_only, T, np.random.default_rng(3)).prices[:, :, :CLOSE]).all()
    without = Panel.of(bars.frame.with_columns(volume=pl.lit(None, pl.Float64)))
    assert perturb_future(without, T, np.random.default_rng(3)).frame["volume"].null_count() == without.frame.height


def test_panel_rows_are_cut_by_knowledge_not_by_event(bars: Panel) -> None:
    late = pl.when(pl.col("timestamp") == pl.col("timestamp").first()).then(pl.col("known_at").max()).otherwise(pl.col("known_at"))
    panel = Panel.of(bars.frame.with_columns(known_at=late))
    noisy = perturb_future(panel, T, np.random.default_rng(3))
    assert noisy.frame["close"][0] != panel.frame["close"][0]
    assert noisy.frame["close"][1] == panel.frame["close"][1]


def test_tables_and_lists_are_cut_by_as_of(cube: Cube) -> None:
    def forecasts(c: Cube, lead: int) -> ForecastTable:
        centre = np.roll(c.feature("x0"), -lead, axis=0)[:, :, None, None]
        return ForecastTable(c.known_at, "return", c.symbols, (1,), (0.5,), centre, "test")

    def opinions(c: Cube, lead: int) -> OpinionTable:
        return OpinionTable(c.known_at, c.symbols, ("a",), np.roll(c.feature("x0"), -lead, axis=0)[:, :, None], 1)

    def words(c: Cube, lead: int) -> list[Abstention]:
        return [Abstention("a", c.known_at[t], "S00", 1, str(c.feature("x0")[(t + lead) % len(c.times), 0])) for t in range(len(c.times))]

    for kind in (forecasts, opinions, words):
        assert_pure(lambda c, kind=kind: kind(c, 0), cube, T)
        assert_apply(lambda c, kind=kind: {"of": (kind(c, 0),)}, cube, T, np.random.default_rng(3))
        with pytest.raises(AssertionError):
            assert_apply(lambda c, kind=kind: kind(c, 1), cube, T, np.random.default_rng(3))


def test_known_by_is_the_data_as_it_stood(cube: Cube, bars: Panel) -> None:
    assert len(known_by(cube, T).times) == T + 1
    assert known_by(bars, T).frame["known_at"].max() == bars.frame["known_at"].unique().sort()[T]
