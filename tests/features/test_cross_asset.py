"""The universe as one: by hand, against pandas and FinRL's definition, and each value from its own window alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from rlaif_ray.core import KEYS, Panel
from rlaif_ray.features import co_movement, covariance
from rlaif_ray.features.cross_asset import CROSS_ASSET
from rlaif_ray.features.family import FeatureSpec
from tests.laws import assert_apply, assert_pure

START = dt.datetime(2020, 1, 2, 21, tzinfo=dt.UTC)
SPECS = {s.name: s for f in CROSS_ASSET.families for s in f.specs()}
INPUTS = sorted({name for s in SPECS.values() for name in s.inputs})
SECTORS = pl.DataFrame({"symbol": [f"S{a:03d}" for a in range(7)], "sector": list("xxxyyyz")})
WARM_UP = {"ret_1": 1, "ret_21": 21, "momentum_252_21": 252, "vol_21": 21, "sma_distance_50": 49, "sma_distance_200": 199}


def spec(family: str, *parameters: int) -> FeatureSpec:
    (found,) = next(f for f in CROSS_ASSET.families if f.key == family).specs([parameters])
    return found


def panel_of(returns: np.ndarray, **more: np.ndarray) -> Panel:
    """(T,A) returns, and other columns, of symbols A, B, C, ... as a panel without the rows that are NaN everywhere."""
    bars, symbols = returns.shape
    stamp = pl.Series("timestamp", [START + dt.timedelta(days=i) for i in range(bars)])
    frames = []
    for a in range(symbols):
        columns = {name: x[:, a].astype(np.float32) for name, x in {"ret_1": returns, **more}.items()}
        frames.append(pl.DataFrame(columns).with_columns(symbol=pl.lit(f"S{a:03d}"), timestamp=stamp, known_at=stamp))
    return Panel.of(pl.concat(frames))


def across(panel: Panel, *specs: FeatureSpec, sectors: list[str] | None = None) -> dict[str, np.ndarray]:
    """Each column (T,A)."""
    tables = {"features": panel.frame}
    if sectors is not None:
        tables["sectors"] = pl.DataFrame({"symbol": list(panel.symbols), "sector": sectors})
    out = CROSS_ASSET.apply(tables, specs or list(SPECS.values())).frame
    return {c: out[c].to_numpy().reshape(len(panel.symbols), -1).T for c in out.columns if c not in KEYS}


def one_factor(rng: np.random.Generator, bars: int, symbols: int) -> np.ndarray:
    """(T,A) returns with betas from 0.5 to 1.5; the first bar has none."""
    market = rng.normal(0.0003, 0.01, bars)
    returns = market[:, None] * np.linspace(0.5, 1.5, symbols) + rng.normal(0, 0.01, (bars, symbols))
    returns[0] = np.nan
    return returns.astype(np.float32).astype(float)


def ragged(rng: np.random.Generator, bars: int = 560, symbols: int = 7, late: float = 0.02, holes: float = 0.01) -> Panel:
    """Symbols that list later, leave, skip days and lack returns, with rows that arrive up to three days late."""
    columns = {name: 0.01 * rng.standard_normal((bars, symbols)) for name in INPUTS}
    columns["ret_1"] = one_factor(rng, bars, symbols)
    frames = []
    for a, frame in enumerate(panel_of(columns.pop("ret_1"), **columns).frame.partition_by("symbol", maintain_order=True)):
        hours = pl.Series(rng.choice([0, 1, 30, 80], bars, p=[1 - late, late / 3, late / 3, late / 3]))
        frame = frame.with_columns(
            (pl.col("known_at") + pl.duration(hours=1) * hours).cum_max(),
            pl.when(pl.Series(rng.random(bars) < 0.01)).then(None).otherwise(pl.col("ret_1")).alias("ret_1"),
        )
        life = (np.arange(bars) >= 40 * (a % 4)) & (np.arange(bars) < bars - 60 * (a % 3))
        frames.append(frame.filter(life & (rng.random(bars) > holes)))
    return Panel.of(pl.concat(frames))


# --- by hand --------------------------------------------------------------------------------------------------------


def test_an_exactly_linear_pair() -> None:
    """B moves twice as A does: on the other, A's beta is 1/2 and B's 2; nothing is left over."""
    a = np.array([np.nan, 1, -1, 2, 0, -2, 1, 3]) / 128
    out = across(panel_of(np.stack([a, 2 * a], axis=1)), *[spec(f, 4) for f in ("market_beta", "market_correlation", "market_r2")],
                 spec("idiosyncratic_vol", 4), spec("market_residual", 4))  # fmt: skip
    assert np.isnan(out["market_beta_4"][:4]).all(), "the first bar has no return, so the fourth has three"
    np.testing.assert_allclose(out["market_beta_4"][4:], [[0.5, 2.0]] * 4, rtol=1e-6)
    np.testing.assert_allclose(out["market_correlation_4"][4:], 1.0, rtol=1e-6)
    np.testing.assert_allclose(out["market_r2_4"][4:], 1.0, rtol=1e-6)
    np.testing.assert_allclose(out["idiosyncratic_vol_4"][4:], 0.0, atol=1e-8)
    np.testing.assert_allclose(out["market_residual_4"][4:], 0.0, atol=1e-8)


def test_the_market_is_the_mean_of_the_others() -> None:
    """C stands against the mean of A and B, which are mirror images: a market that never moves has no beta."""
    a = np.array([np.nan, 1, -1, 2, 0]) / 128
    out = across(panel_of(np.stack([a, -a, a], axis=1)), spec("market_beta", 4), spec("relative_strength", 2))
    assert np.isnan(out["market_beta_4"][4, 2])
    np.testing.assert_allclose(out["relative_strength_2"][3, 2], (1 - 1 / 128) * (1 + 2 / 128) - 1, rtol=1e-6)


def test_idiosyncratic_volatility_has_two_degrees_of_freedom_less() -> None:
    """Market -1, -1, 1, 1; symbol 0, 2, 0, 2: no slope, residuals -1, 1, -1, 1, variance 4 / (4 - 2)."""
    x, y = np.array([np.nan, 0, 2, 0, 2]) / 100, np.array([np.nan, -1, -1, 1, 1]) / 100
    out = across(panel_of(np.stack([x, y], axis=1)), spec("idiosyncratic_vol", 4), spec("market_beta", 4))
    np.testing.assert_allclose(out["market_beta_4"][4, 0], 0.0, atol=1e-7)
    np.testing.assert_allclose(out["idiosyncratic_vol_4"][4, 0], 0.01 * 2**0.5, rtol=1e-6)


def test_downside_beta_sees_falling_bars_only() -> None:
    """B loses twice what A loses and gains half of what A gains."""
    a = np.concatenate([[np.nan], np.resize([1, -1, 2, -2, 3, -3], 30) / 100])
    out = across(panel_of(np.stack([a, np.where(a < 0, 2 * a, a / 2)], axis=1)), spec("downside_beta", 30), spec("downside_beta", 12))
    np.testing.assert_allclose(out["downside_beta_30"][-1], [0.5, 2.0], rtol=1e-5)
    assert np.isnan(out["downside_beta_12"]).all(), "six falling bars are not ten"


def test_who_leads() -> None:
    """B does today what A did yesterday: A leads, B follows."""
    a = np.random.default_rng(0).normal(0, 0.01, 400)
    b = np.concatenate([[np.nan], a[:-1]])
    a[0] = np.nan
    out = across(panel_of(np.stack([a, b], axis=1)), spec("leader_score", 252), spec("market_lag_correlation", 252))
    assert out["market_lag_correlation_252"][-1, 1] == pytest.approx(1.0)
    assert out["leader_score_252"][-1, 0] > 0.9 and out["leader_score_252"][-1, 1] < -0.9


def test_sectors_by_hand() -> None:
    """A and B are one sector, C is alone in its own, and D's is unknown."""
    a = np.array([np.nan, 1, -1, 2, 0]) / 128
    returns = np.stack([a, 3 * a, np.full(5, 1 / 128), np.full(5, -1 / 128)], axis=1)
    wanted = [spec("sector_beta", 4), spec("sector_correlation", 4), spec("sector_momentum", 2)]
    out = across(panel_of(returns), *wanted, sectors=["x", "x", "y", None])  # type: ignore[list-item]
    np.testing.assert_allclose(out["sector_beta_4"][4], [1 / 3, 3, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(out["sector_correlation_4"][4], [1, 1, np.nan, np.nan], rtol=1e-6)
    own, everyone = (1 + 4 / 128) * 1.0, (1 + 2 / 128) * 1.0  # bars 3 and 4: means of sector x are 2 x (2, 0), of all (2, 0)
    np.testing.assert_allclose(out["sector_momentum_2"][4, :2], own / everyone - 1, rtol=1e-6)
    assert np.isnan(out["sector_momentum_2"][4, 3])
    assert not any("sector" in name for name in across(panel_of(returns)))


def test_the_whole_market_by_hand() -> None:
    returns = np.array([[np.nan] * 3, [0.01, 0.02, 0.03], [-0.01, 0.0, 0.04]])  # the last: squares 4 + 1 + 9 from their mean
    distance = np.array([[np.nan] * 3, [0.1, -0.1, np.nan], [0.1, 0.2, 0.3]])
    wanted = [spec("dispersion", 1), spec("market_ret", 2), spec("advancers", 1), spec("advancers", 2), spec("breadth", 50)]
    out = across(panel_of(returns, sma_distance_50=distance), *wanted)
    np.testing.assert_allclose(out["dispersion_1"][:, 0], [np.nan, 0.01, 0.0007**0.5], rtol=1e-6)
    np.testing.assert_allclose(out["market_ret_2"][2], 1.02 * 1.01 - 1, rtol=1e-6)
    np.testing.assert_allclose(out["advancers_1"][:, 0], [np.nan, 1, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(out["advancers_2"][2], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(out["breadth_50"][:, 0], [np.nan, 0.5, 1.0])


def test_beta_neutral_is_the_residual_of_a_line_through_the_symbols() -> None:
    returns = one_factor(np.random.default_rng(1), 80, 6)
    value = np.random.default_rng(2).normal(size=returns.shape).astype(np.float32)
    out = across(panel_of(returns, ret_21=value), SPECS["ret_21_beta_neutral_63"], SPECS["market_beta_63"])
    beta = out["market_beta_63"][-1].astype(float)
    slope, level = np.polyfit(beta, value[-1], 1)
    np.testing.assert_allclose(out["ret_21_beta_neutral_63"][-1], value[-1] - level - slope * beta, atol=1e-5)


def test_turbulence_of_two_symbols_in_closed_form() -> None:
    """Kritzman and Li 2010: with correlation r and returns z in standard deviations, (z1^2 - 2 r z1 z2 + z2^2) / (1 - r^2)."""
    a = np.array([1, -1, 1, -1, 2]) / 64
    b = np.array([1, 1, 1, -3, -1]) / 64  # over the first four bars: means 0 and 0, sum of products 4, of squares 4 and 12
    returns = np.vstack([[np.nan] * 2, np.stack([a, b], axis=1)])
    out = across(panel_of(returns), spec("turbulence", 4), spec("correlation_surprise", 4))
    r, z1, z2 = 4 / (4 * 12) ** 0.5, 2 / (4 / 3) ** 0.5, -1 / (12 / 3) ** 0.5
    squared = (z1 * z1 - 2 * r * z1 * z2 + z2 * z2) / (1 - r * r)
    np.testing.assert_allclose(out["turbulence_4"][5], squared / 2, rtol=1e-6)
    np.testing.assert_allclose(out["correlation_surprise_4"][5], squared / (z1 * z1 + z2 * z2), rtol=1e-6)
    assert np.isnan(out["turbulence_4"][:5]).all()


def test_absorption_of_symbols_that_move_as_one_and_of_independent_ones() -> None:
    """Ten orthogonal series of one size: two of ten eigenvectors hold a fifth. Ten that are one: the first holds all."""
    one = np.array([[1, 1], [1, -1]])
    orthogonal = np.kron(np.kron(np.kron(one, one), one), one)[:, 1:11] / 64  # (16,10), columns without the constant
    apart = across(panel_of(np.vstack([np.full((1, 10), np.nan), orthogonal])), spec("absorption", 16), spec("average_correlation", 16))
    np.testing.assert_allclose(apart["absorption_16"][-1], 0.2, rtol=1e-6)
    np.testing.assert_allclose(apart["average_correlation_16"][-1], 0.0, atol=1e-7)
    together = np.vstack([np.full((1, 10), np.nan), orthogonal[:, :1] * np.arange(1, 11)])
    as_one = across(panel_of(together), spec("absorption", 16), spec("average_correlation", 16))
    np.testing.assert_allclose(as_one["absorption_16"][-1], 1.0, rtol=1e-6)
    np.testing.assert_allclose(as_one["average_correlation_16"][-1], 1.0, rtol=1e-6)


@pytest.mark.parametrize("window", [*range(1, 40), 63, 252, 256])
def test_a_window_of_whole_numbers_sums_exactly(window: int) -> None:
    x = np.random.default_rng(window).integers(-1000, 1000, 300).astype(float)
    out, room = np.zeros(300), np.empty((2, 300))
    co_movement.window_sum(x, window, out, room[0], room[1])
    assert out[window - 1 :].tolist() == [x[t - window + 1 : t + 1].sum() for t in range(window - 1, 300)]
    assert not out[: window - 1].any()
    co_movement.window_sum(x[:20], window, out[:20], room[0], room[1])  # shorter than most of the windows: no harm


# --- parity ---------------------------------------------------------------------------------------------------------


def test_equals_pandas() -> None:
    returns = one_factor(np.random.default_rng(7), 300, 5)
    r = pd.DataFrame(returns)
    out = across(panel_of(returns))
    spread = pd.Series(np.std(returns, axis=1, ddof=1))
    expected: dict[str, list[pd.Series]] = {}
    for a in r:
        x, y = r[a], r.drop(columns=a).mean(axis=1)
        beta = x.rolling(63).cov(y) / y.rolling(63).var()
        columns = {
            "market_beta_63": beta,
            "market_beta_252": x.rolling(252).cov(y) / y.rolling(252).var(),
            "market_correlation_63": x.rolling(63).corr(y),
            "market_r2_63": x.rolling(63).corr(y) ** 2,
            "idiosyncratic_vol_63": (62 / 61 * (x.rolling(63).var() - beta * x.rolling(63).cov(y))) ** 0.5,
            "market_residual_63": x - beta * y,
            "relative_strength_21": ((1 + x) / (1 + y)).rolling(21).apply(np.prod) - 1,
            "market_ret_21": (1 + r.mean(axis=1, skipna=False)).rolling(21).apply(np.prod) - 1,
            "dispersion_21": spread.rolling(21).mean(),
            "dispersion_ratio_5_63": pd.Series(np.log(np.divide(spread.rolling(5).mean(), spread.rolling(63).mean()))),
        }
        for name, column in columns.items():
            expected.setdefault(name, []).append(column)
    for name, columns in expected.items():
        np.testing.assert_allclose(out[name], np.stack(columns, axis=1), rtol=2e-5, atol=1e-7, err_msg=name)
    lagged = [r[a].rolling(63).corr(r.drop(columns=a).mean(axis=1).shift(1)) for a in r]
    np.testing.assert_allclose(out["market_lag_correlation_63"][64:], np.stack(lagged, axis=1)[64:], rtol=2e-5, atol=1e-7)
    every = r.rolling(63).corr().to_numpy().reshape(-1, 5, 5)
    np.testing.assert_allclose(out["average_correlation_63"][63:, 0], (every[63:].sum(axis=(1, 2)) - 5) / 20, rtol=2e-5, atol=1e-7)


def test_missing_returns_are_left_out_of_the_pair_until_half_the_window_lacks() -> None:
    returns = one_factor(np.random.default_rng(8), 200, 3)
    returns[:80, 2] = np.nan  # lists 80 bars after the others
    returns[100::3, 1] = np.nan
    r = pd.DataFrame(returns)
    out = across(panel_of(returns), SPECS["market_beta_63"])["market_beta_63"]
    for a in r:
        x, y = r[a], r.drop(columns=a).mean(axis=1)
        y = y.where(x.notna())
        expected = (x.rolling(63, min_periods=32).cov(y) / y.rolling(63, min_periods=32).var())[63:]
        np.testing.assert_allclose(out[63:, a], expected, rtol=2e-5)
    assert np.flatnonzero(~np.isnan(out[:, 2]))[0] == 80 + 31, "half a window after it listed"


def finrl_turbulence(close: pd.DataFrame, window: int) -> np.ndarray:
    """FinRL's `FeatureEngineer.calculate_turbulence`, but for two things: a year may be short, and its first two values count.

    It sets those to 0 ("avoid large outlier because of the calculation just begins"), as it does all before, where ours is
    undefined; ours is over the number of symbols. Its window of `window` bars holds `window` returns, the bar's not among
    them, as ours does.
    """
    returns = close.pct_change()
    out = np.full(len(returns), np.nan)
    for i in range(window, len(returns)):
        current, history = returns[returns.index == returns.index[i]], returns.iloc[i - window : i]
        history = history.iloc[history.isna().sum().min() :].dropna(axis=1)
        deviation = current[list(history)] - np.mean(history, axis=0)
        out[i] = (deviation.to_numpy() @ np.linalg.pinv(history.cov()) @ deviation.to_numpy().T)[0, 0]
    return out


def test_turbulence_is_finrls_over_the_number_of_symbols() -> None:
    returns = one_factor(np.random.default_rng(9), 120, 6)
    close = pd.DataFrame(np.cumprod(1 + np.nan_to_num(returns), axis=0))
    out = across(panel_of(returns), spec("turbulence", 60))["turbulence_60"][:, 0]
    np.testing.assert_allclose(6 * out[61:], finrl_turbulence(close, 60)[61:], rtol=1e-4)


def test_a_singular_matrix_gives_what_its_pseudo_inverse_says() -> None:
    """A symbol held twice; and more symbols than bars. numpy's pseudo-inverse of the correlation matrix is the reference."""
    rng = np.random.default_rng(10)
    twice = one_factor(rng, 60, 4)[:, [0, 1, 2, 3, 3]]
    wide = one_factor(rng, 30, 25)
    for returns, window in ((twice, 40), (wide, 20)):
        past, now = returns[-1 - window : -1], returns[-1]
        z = (now - past.mean(axis=0)) / past.std(axis=0, ddof=1)
        expected = z @ np.linalg.pinv(np.corrcoef(past.T), rcond=1e-10, hermitian=True) @ z / len(z)
        found = covariance.turbulence(np.ascontiguousarray(returns.T), window)
        np.testing.assert_allclose(found[0, -1], expected, rtol=1e-6)


def test_absorption_equals_numpy_and_its_shift_pandas() -> None:
    returns = one_factor(np.random.default_rng(11), 120, 12)
    returns[30:34, 3] = np.nan
    out = across(panel_of(returns), spec("absorption", 40), spec("absorption_shift", 5, 40))
    for t in (40, 80, 119):
        window = returns[t - 39 : t + 1]
        scale = np.sqrt(39 / ((~np.isnan(window)).sum(axis=0) - 1))  # a missing return counts as the mean, the variance stays
        cov = np.cov((np.nan_to_num(window - np.nanmean(window, axis=0)) * scale).T)
        expected = np.linalg.eigvalsh(cov)[-2:].sum() / np.trace(cov)  # two of twelve: 12 / 5 rounded
        np.testing.assert_allclose(out["absorption_40"][t], expected, rtol=1e-6)
    ratio = pd.Series(out["absorption_40"][:, 0].astype(float))
    shift = np.subtract(ratio.rolling(5).mean(), ratio.rolling(40).mean()) / np.asarray(ratio.rolling(40).std())
    np.testing.assert_allclose(out["absorption_shift_5_40"][:, 0], shift, rtol=1e-3, atol=1e-4)


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def universe() -> Panel:
    return ragged(np.random.default_rng(12))


def f(panel: Panel) -> Panel:
    return CROSS_ASSET.apply({"features": panel.frame, "sectors": SECTORS}, list(SPECS.values()))


def test_it_has_enough_and_every_name_once() -> None:
    names = [s.name for f in CROSS_ASSET.families for s in f.specs()]
    assert len(names) == len(set(names)) >= 30


@pytest.mark.parametrize("days", [0, 1, 70, 300, 301, 302, 303, 520])
def test_the_law(universe: Panel, days: int) -> None:
    t = np.datetime64("2020-01-02T21:00") + np.timedelta64(days, "D")
    assert f(universe).columns == list(SPECS)
    assert_pure(f, universe, t)
    assert_apply(f, universe, t, np.random.default_rng(days))


def test_the_law_where_everybody_may_be_late() -> None:
    """Timestamps of which nothing was known before later ones were, among them."""
    panel = ragged(np.random.default_rng(13), 200, 3, late=0.6, holes=0.4)
    first = panel.frame.group_by("timestamp").agg(pl.col("known_at").min()).sort("timestamp")["known_at"]
    assert (first.diff().dt.total_hours() < 0).sum() > 5
    for days in range(80, 160):
        assert_pure(f, panel, np.datetime64("2020-01-02T21:00") + np.timedelta64(days, "D"))


def test_every_column_is_said_somewhere(universe: Panel) -> None:
    out = f(universe).frame
    assert {n for n in SPECS if np.isnan(out[n].to_numpy()).all()} == set()


@pytest.mark.parametrize("name", SPECS)
def test_a_value_needs_its_look_back_and_no_more(name: str, universe: Panel) -> None:
    """Cut to so many of the market's bars, what follows is the same bit for bit: what an incremental build relies on."""
    whole = CROSS_ASSET.apply({"features": universe.frame, "sectors": SECTORS}, [SPECS[name]]).frame
    times = universe.frame["timestamp"].unique().sort()
    for begin in (SPECS[name].look_back_bars + 3, 530):
        part = universe.frame.filter(pl.col("timestamp") >= times[begin - SPECS[name].look_back_bars])
        cut = CROSS_ASSET.apply({"features": part, "sectors": SECTORS}, [SPECS[name]]).frame
        after = pl.col("timestamp") >= times[begin]
        np.testing.assert_array_equal(cut.filter(after)[name].to_numpy(), whole.filter(after)[name].to_numpy())


@pytest.mark.parametrize("begin", [64, 1000, 2999])
def test_blocks_of_bars_leave_no_trace(begin: int) -> None:
    """Cut elsewhere, so that other bars begin a block and stand at the end of a vector, the bits are the same."""
    rng = np.random.default_rng(begin)
    x = one_factor(rng, 2 * co_movement.BLOCK + 100, 5).T.copy()
    x[:, 1500:1600][rng.random((5, 100)) < 0.3] = np.nan
    group = np.array([0, 0, 1, 0, -1])
    others, part = co_movement.mean_of_others(x, group), x[:, begin - 63 :].copy()
    np.testing.assert_array_equal(co_movement.mean_of_others(part, group), others[:, begin - 63 :])
    others[2:] = rng.normal(0, 0.01, (3, x.shape[1]))
    whole, cut = co_movement.regression(x, others, 63, 32), co_movement.regression(part, others[:, begin - 63 :].copy(), 63, 32)
    assert np.isfinite(whole[:, :, 64:1500]).all()
    np.testing.assert_array_equal(cut[:, :, 63:], whole[:, :, begin:])


def test_with_unbroken_data_it_is_first_defined_where_it_says() -> None:
    rng = np.random.default_rng(14)
    bars, symbols = 520, 7
    columns = {name: rng.normal(0, 0.01, (bars, symbols)) for name in INPUTS}
    columns["ret_1"] = one_factor(rng, bars, symbols)
    for name, first in WARM_UP.items():
        columns[name][:first] = np.nan
    out = across(panel_of(columns.pop("ret_1"), **columns), sectors=list("xxxyyyx"))
    for name, column in out.items():
        defined = ~np.isnan(column)
        assert (defined.argmax(axis=0) == SPECS[name].look_back_bars).all(), name
        assert defined[SPECS[name].look_back_bars :].all(), name


def test_a_late_row_is_left_out_for_good_and_has_no_value() -> None:
    returns = one_factor(np.random.default_rng(15), 100, 4)
    panel = panel_of(returns)
    late = (pl.col("symbol") == "S002") & (pl.col("timestamp") == START + dt.timedelta(days=80))
    delayed = pl.when(late).then(pl.col("known_at").dt.offset_by("6h")).otherwise(pl.col("known_at"))
    without = panel.frame.with_columns(pl.when(late).then(None).otherwise(pl.col("ret_1")).alias("ret_1"))
    seen = across(Panel(panel.frame.with_columns(delayed.alias("known_at"))))
    for name, column in across(Panel(without)).items():
        expected = column.copy()
        expected[80, 2] = np.nan
        np.testing.assert_array_equal(seen[name], expected, err_msg=name)


# --- extremes -------------------------------------------------------------------------------------------------------


def test_one_symbol_alone_has_no_market() -> None:
    out = across(panel_of(one_factor(np.random.default_rng(16), 600, 1)), sectors=["x"])
    said = {name for name, column in out.items() if np.isfinite(column).any()}
    assert said == {"market_ret_1", "market_ret_21", "advancers_1", "advancers_10", "sector_momentum_21", "sector_momentum_63"}


def test_no_rows_and_a_single_one() -> None:
    panel = panel_of(one_factor(np.random.default_rng(17), 2, 3))
    for frame in (panel.frame.clear(), panel.frame[:1]):
        out = CROSS_ASSET.apply({"features": frame, "sectors": SECTORS}, list(SPECS.values())).frame
        assert out.height == frame.height
        assert out.schema["turbulence_252"] == pl.Float32
        assert np.isnan(out.drop(KEYS).to_numpy()).all()


def test_prices_that_do_not_move_say_nothing_and_disturb_nobody() -> None:
    """One symbol halts for good, then all of them: 0/0 is undefined, never infinite."""
    returns = one_factor(np.random.default_rng(18), 700, 4)
    still = np.column_stack([returns, np.where(np.isnan(returns[:, 0]), np.nan, 0.0)])
    out = across(panel_of(still), sectors=list("xxyyy"))
    assert np.isnan(out["market_correlation_63"][:, 4]).all()
    np.testing.assert_array_equal(out["market_beta_63"][63:, 4], 0.0)
    alone = across(panel_of(returns), SPECS["turbulence_252"], SPECS["absorption_252"], SPECS["average_correlation_63"])
    for name, column in alone.items():
        np.testing.assert_array_equal(out[name][:, 0], column[:, 0], err_msg=name)
    for value in (0.0, 0.01):
        same = across(panel_of(np.vstack([np.full((1, 4), np.nan), np.full((599, 4), value)])), sectors=list("xxyy"))
        for name in ("market_beta_63", "market_correlation_252", "turbulence_252", "absorption_252", "average_correlation_63"):
            assert np.isnan(same[name]).all(), name
    assert all(not np.isinf(column).any() for column in out.values())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
def test_returns_of_any_size_do_no_harm(scale: float) -> None:
    """Down to a millionth of usual, up to moves that lose more than everything (which no price does)."""
    returns = scale * one_factor(np.random.default_rng(19), 600, 5)
    returns[400, :2] = 1e10, -1.0
    out = across(panel_of(returns, ret_21=returns, sma_distance_50=returns), sectors=list("xxyyy"))
    assert all(not np.isinf(column).any() for column in out.values())
    plain = across(panel_of(one_factor(np.random.default_rng(19), 600, 5)), SPECS["market_beta_63"])["market_beta_63"]
    np.testing.assert_allclose(out["market_beta_63"][:400], plain[:400], rtol=1e-4)


def test_on_real_bars_the_crashes_are_what_stands_out(real_data: Path) -> None:
    """30 names of the S&P 500, adjusted closes, by calendar year: turbulent while a crash lasts, absorbed for the year after."""
    files = sorted((real_data / "daily" / "pooksoft_daily_adjusted_1999_2021").glob("*.csv"))
    closes = {p.name.split("-")[1]: pd.read_csv(p, index_col="timestamp")["adjusted_close"] for p in files}
    close = pd.DataFrame(closes).sort_index()["2004":]
    out = across(panel_of(close.pct_change(fill_method=None).to_numpy()))
    year = np.array([int(str(day)[:4]) for day in close.index])

    def highest(name: str) -> set[int]:
        mean = {y: float(np.nanmean(out[name][year == y])) for y in range(2006, 2022)}
        return set(sorted(mean, key=mean.__getitem__)[-2:])

    assert highest("turbulence_252") == {2008, 2020}
    assert highest("absorption_252") == {2009, 2020}
    assert 0.9 < np.nanmean(out["market_beta_252"]) < 1.1
