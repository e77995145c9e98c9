"""Regimes by rule: by hand, against arch and pandas, run lengths against all ways of cutting a series, and the laws over the set."""

from __future__ import annotations

from itertools import product
from math import lgamma
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from arch.unitroot import VarianceRatio

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.features import change_points, regime
from rlaif_ray.features.family import OF_SCALE, FeatureSpec
from rlaif_ray.features.regime import REGIME
from tests.laws import assert_apply, assert_pure, random_bars

SPECS = tuple(s for family in REGIME.families for s in family.specs())
NAMES = [s.name for s in SPECS]


def bars(**columns: list[float] | np.ndarray) -> Panel:
    """One symbol, daily; what is not given is null."""
    n = len(next(iter(columns.values())))
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(n)
    frame = pl.DataFrame(
        {"symbol": ["A"] * n, "timestamp": times, "known_at": times} | {k: np.asarray(v, float) for k, v in columns.items()}
    )
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c not in columns)
    return Panel.of(frame.with_columns(pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)))


def of_close(close: np.ndarray) -> Panel:
    return bars(open=close, high=close * 1.01, low=close * 0.99, close=close, volume=np.ones(len(close)))


def market(rows: int = 420) -> Panel:
    return random_bars(np.random.default_rng(5), rows)


def apply(panel: Panel, specs: tuple[FeatureSpec, ...] = SPECS) -> Panel:
    return REGIME.apply({"bars": panel.frame}, specs)


def values(panel: Panel, name: str) -> np.ndarray:
    return apply(panel, tuple(s for s in SPECS if s.name == name)).frame[name].to_numpy()


# --- by hand -------------------------------------------------------------------------------------------------------


def test_percentile_by_hand() -> None:
    """Of (1, 2, 3) beside the last 2, one lies below and one is as large: 1.5 of 3."""
    np.testing.assert_allclose(regime.percentile(np.array([1.0, 2.0, 3.0, 2.0, 9.0, 0.0]), 4), [np.nan] * 3 + [0.5, 1.0, 0.0])
    np.testing.assert_array_equal(regime.percentile(np.ones(5), 5)[4:], [0.5])


def test_bull_and_bear_by_hand() -> None:
    """110 less 20% is 88, which ends it; the low is 80, plus 20% is 96."""
    state, age, move = regime.bull_bear(np.array([100.0, 110.0, 88.0, 80.0, 95.0, 96.0, 120.0, 108.0]), 0.2)
    np.testing.assert_array_equal(state, [0, 0, -1, -1, -1, 1, 1, 1])
    np.testing.assert_array_equal(age, [0, 1, 0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(move, [0, 0, 0, 0, 95 / 80 - 1, 0, 0, -0.1])


def test_bars_in_a_state_by_hand() -> None:
    np.testing.assert_array_equal(regime.bars_in_state(np.array([np.nan, 1, 1, 0, 0, 0, np.nan, 0])), [np.nan, 0, 1, 0, 1, 2, np.nan, 0])


def test_cusum_by_hand() -> None:
    """Drift 0.5, alarm above 2: -3 - 0.5 pulls the lower sum to 2.5, both start again, and a bar without a score changes nothing."""
    upper, lower, age = change_points.cusum(np.array([np.nan, 1.0, 1.0, -3.0, 1.0, np.nan]), 0.5, 2.0)
    np.testing.assert_array_equal(upper, [np.nan, 0.5, 1.0, 0.0, 0.5, 0.5])
    np.testing.assert_array_equal(lower, [np.nan, 0.0, 0.0, 2.5, 0.0, 0.0])
    np.testing.assert_array_equal(age, [np.nan, 0, 1, 0, 1, 2])


def test_cusum_rings_as_seldom_as_the_book_says() -> None:
    """Two-sided, drift 0.5 and alarm 5: a false alarm every 465 bars (Montgomery, table 9.3), here to four standard errors."""
    age = change_points.cusum(np.random.default_rng(0).standard_normal(1_000_000), 0.5, 5.0)[2]
    alarms = (age == 0).sum() - 1
    assert abs(1_000_000 / alarms - 465) < 4 * 465 / np.sqrt(alarms)


def test_a_steady_rise_and_a_steady_fall() -> None:
    up = of_close(100 * 1.01 ** np.arange(60.0))
    down = of_close(100 * 0.99 ** np.arange(60.0))
    for name in ("adx_state_14", "efficiency_state_21", "bull_bear_20"):
        assert values(up, name)[-1] == 1 and values(down, name)[-1] == -1, name
    assert values(up, "chop_state_14")[-1] == values(down, "chop_state_14")[-1] == 1
    zigzag = of_close(100 + np.arange(60.0) % 2)
    assert values(zigzag, "chop_state_14")[-1] == -1 and values(zigzag, "efficiency_state_21")[-1] == 0


def test_the_bear_markets_of_spy_are_known_on_the_day_they_were_declared(real_data: Path) -> None:
    """20.2% under its close of 20 September 2018 on 24 December; from 19 February 2020 to 12 March, and back on 8 April."""
    with ZipFile(real_data / "daily" / "lean" / "daily" / "spy.zip") as archive:
        table = pl.read_csv(archive.read("spy.csv"), has_header=False, new_columns=["time", *PRICE_COLUMNS])
    days, close = table["time"].str.slice(0, 8).to_list(), table["close"].to_numpy() / 1e4
    state = regime.bull_bear(np.ascontiguousarray(close), 0.2)[0]
    turns = [(days[t], state[t]) for t in range(1, len(days)) if state[t] != state[t - 1] and days[t] >= "20180101"]
    assert turns == [("20181224", -1.0), ("20190313", 1.0), ("20200312", -1.0), ("20200408", 1.0)]


# --- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [2, 5, 21])
def test_variance_ratio_is_that_of_arch(q: int) -> None:
    x = np.random.default_rng(1).standard_t(4, 300).cumsum()
    ours = regime.variance_ratio(x, q, 120)
    assert np.isnan(ours[:, :120]).all()
    for t in (120, 121, 200, 299):
        theirs = VarianceRatio(x[t - 120 : t + 1], q, trend="c", debiased=True, robust=True, overlap=True)
        np.testing.assert_allclose(ours[:, t], [theirs.vr, theirs.stat], rtol=1e-9)


def test_percentile_is_the_rank_of_pandas() -> None:
    x = np.round(np.random.default_rng(2).standard_normal(300), 1)
    ranks = pd.Series(x).rolling(50).rank(method="average").to_numpy()
    np.testing.assert_allclose(regime.percentile(x, 50), (ranks - 1) / 49, rtol=1e-12)


def test_choppiness_against_pandas() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0)).drop_nulls()
    high, low, close = (pd.Series(frame[c].to_numpy()) for c in ("high", "low", "close"))
    true_range = pd.Series(np.fmax(high.to_numpy(), close.shift().to_numpy()) - np.fmin(low.to_numpy(), close.shift().to_numpy()))
    reach = np.subtract(high.rolling(14).max(), low.rolling(14).min())
    index = (100 * np.log10(true_range.rolling(14).sum() / reach) / np.log10(14)).to_numpy()
    expected = np.where(index > 61.8, -1.0, np.where(index < 38.2, 1.0, 0.0))[14:]
    assert set(expected) == {-1.0, 0.0, 1.0}
    np.testing.assert_array_equal(values(Panel.of(frame), "chop_state_14")[14:], expected)


def log_evidence(z: np.ndarray) -> float:
    """ln p(z) of one run, in closed form (Murphy 2007, equation 95), of the prior mean 0, kappa 1, alpha 1, beta 1."""
    n, mean = len(z), z.mean()
    beta = 1 + 0.5 * ((z - mean) ** 2).sum() + 0.5 * n * mean**2 / (1 + n)
    return lgamma(1 + n / 2) - (1 + n / 2) * np.log(beta) - 0.5 * np.log(1 + n) - 0.5 * n * np.log(2 * np.pi)


def test_run_lengths_are_those_of_all_ways_to_cut_the_series() -> None:
    """2^7 ways of beginning a new run before each of the last seven of eight values, each with its prior and its evidence."""
    z = np.array([0.1, -0.2, 0.3, 4.0, 4.2, 3.8, 4.1, -6.0])
    expected, young = change_points.run_length(z, 10, 50, 2)
    for t in range(len(z)):
        mass = np.zeros(t + 2)
        for cuts in product([False, True], repeat=t):
            starts = [0, *[i + 1 for i, cut in enumerate(cuts) if cut]]
            evidence = sum(log_evidence(z[a:b]) for a, b in zip(starts, [*starts[1:], t + 1], strict=True))
            mass[t + 1 - starts[-1]] += 0.1 ** sum(cuts) * 0.9 ** (t - sum(cuts)) * np.exp(evidence)
        mass /= mass.sum()
        np.testing.assert_allclose(expected[t], mass @ np.arange(t + 2), rtol=1e-10)
        np.testing.assert_allclose(young[t], mass[:3].sum(), rtol=1e-10)


def test_run_lengths_that_end_at_a_longest_go_by_its_window() -> None:
    """Where no run may be longer than two, the weights are (new, two or more), and the second goes by the last two values."""
    z = np.random.default_rng(3).standard_normal(12)

    def density(x: float, past: np.ndarray) -> float:
        return np.exp(log_evidence(np.r_[past, x]) - (log_evidence(past) if len(past) else 0.0))

    weight = np.array([1.0, 0.0])
    expected = [1.0]
    for t in range(1, len(z)):
        one, two = 0.9 * weight * [density(z[t], z[t - 1 : t]), density(z[t], z[max(t - 2, 0) : t])]
        weight = np.array([0.1 * density(z[t], z[:0]), one + two])
        weight /= weight.sum()
        expected.append(weight @ [1, 2])
    np.testing.assert_allclose(change_points.run_length(z, 10, 2, 1)[0], expected, rtol=1e-10)


def test_a_change_of_volatility_is_noticed_and_noise_is_not() -> None:
    rng = np.random.default_rng(4)
    z = rng.standard_normal(400)
    z[300:] *= 4
    expected, young = change_points.run_length(z, 250, 252, 20)
    assert young[100:300].mean() < 0.1 and expected[290] > 150
    assert young[305:315].mean() > 0.9 and expected[315] < 30


# --- laws ----------------------------------------------------------------------------------------------------------


def test_the_set_is_pure_and_causal() -> None:
    panel = market()
    for t in (0, 30, 280, 350, 418):
        assert_pure(apply, panel, t)
        assert_apply(apply, panel, t, np.random.default_rng(t))


def test_look_backs_are_exact() -> None:
    frame = apply(market()).frame
    assert len(set(NAMES)) == len(NAMES)
    for spec in SPECS:
        defined = np.isfinite(frame[spec.name].to_numpy())
        assert np.argmax(defined) == spec.look_back_bars and defined[spec.look_back_bars :].all(), spec.name


def test_the_set_is_free_of_scale() -> None:
    frame = market().frame
    scaled = frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * 8)
    a, b = apply(Panel.of(frame)).frame, apply(Panel.of(scaled)).frame
    for spec in SPECS:
        assert spec.unit not in OF_SCALE
        np.testing.assert_allclose(a[spec.name].to_numpy(), b[spec.name].to_numpy(), rtol=1e-4, atol=1e-5, err_msg=spec.name)


def test_a_ten_for_one_split_changes_nothing() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))
    after = pl.int_range(pl.len()) >= 300
    split = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / 10).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        split=pl.when(pl.int_range(pl.len()) == 300).then(10.0).otherwise(1.0),
    )
    a, b = apply(Panel.of(frame)).frame, apply(Panel.of(split)).frame
    for name in NAMES:
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


# --- extremes ------------------------------------------------------------------------------------------------------


def test_a_price_that_never_moves() -> None:
    """Calm and wild alike (a percentile of a half), no trend, nothing changed; what divides by a spread is undefined."""
    frame = apply(bars(**{c: np.full(320, 5.0) for c in PRICE_COLUMNS})).frame
    last = {name: frame[name][-1] for name in NAMES}
    undefined = {n for n, x in last.items() if np.isnan(x)}
    of_spread = ("variance_ratio", "cusum", "run_length", "change_probability", "chop")
    assert undefined == {n for n in NAMES if n.startswith(of_spread)}
    assert last["vol_percentile_21_252"] == 0.5
    assert {last[n] for n in ("vol_state_21_252", "adx_state_14", "efficiency_state_21", "bull_bear_20", "bull_bear_move_20")} == {0.0}


@pytest.mark.parametrize("rows", [0, 1, 2, 30])
def test_short_histories_are_warm_up(rows: int) -> None:
    out = apply(Panel(market().frame.head(rows)))
    assert out.frame.height == rows
    assert all(np.isnan(out.frame[s.name].to_numpy()).all() for s in SPECS if s.name in out.columns and s.look_back_bars >= rows)


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_extreme_prices_halts_gaps_and_jumps_give_no_infinity(scale: float) -> None:
    rng = np.random.default_rng(6)
    close = scale * np.exp(0.02 * rng.standard_normal(400).cumsum())
    close[200:260] = close[199]  # stands still
    close[300:] *= 50.0
    frame = of_close(close).frame
    halted = pl.int_range(pl.len()).is_between(100, 104)
    frame = frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    month = pl.when(pl.int_range(pl.len()) >= 350).then(pl.duration(days=30)).otherwise(pl.duration(days=0))
    out = apply(Panel.of(frame.with_columns(pl.col("timestamp", "known_at") + month))).frame
    for name in NAMES:
        x = out[name].to_numpy()
        assert not np.isinf(x).any() and np.isfinite(x[-1]), name
