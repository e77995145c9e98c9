"""core_31: by hand, against TA-Lib, invariances, extremes, the laws over the whole set, and the samples made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.features.core_31 import COLUMNS, CORE_31, prepare_training_data
from rlaif_ray.features.family import OF_SCALE
from rlaif_ray.features.series import adjusted
from tests.laws import assert_apply, assert_pure, perturb_future, random_bars

NAMES = [spec.name for spec in COLUMNS]
ROWS = 300


def bars(start: str = "2024-01-01T21:00", step: np.timedelta64 | None = None, **columns: list[float] | np.ndarray) -> Panel:
    """One symbol, daily from a Monday unless told otherwise; what is not given is null (events: none)."""
    n = len(next(iter(columns.values())))
    times = np.datetime64(start, "us") + (np.timedelta64(1, "D") if step is None else step) * np.arange(n)
    given = {"dividend": np.zeros(n), "split": np.ones(n), **columns}
    frame = pl.DataFrame({"symbol": ["A"] * n, "timestamp": times, "known_at": times} | {k: np.asarray(v, float) for k, v in given.items()})
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c not in columns)
    utc = pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)
    return Panel.of(frame.with_columns(utc, pl.col(*PRICE_COLUMNS).fill_nan(None)))


def market(seed: int = 7, rows: int = ROWS) -> Panel:
    """A noisy symbol with splits, dividends and halts that lives to the end."""
    frame = random_bars(np.random.default_rng(seed), rows).frame
    assert not frame["delisted"].any() and (frame["split"] != 1).any() and not frame["tradable"].all()
    return Panel.of(frame)


def core(panel: Panel) -> Panel:
    return CORE_31.apply({"bars": panel.frame}, COLUMNS)


def values(panel: Panel, name: str, *parameters: float) -> np.ndarray:
    """(T,) of one column, with the catalogue's parameters or others."""
    family = next(f for f in CORE_31.families if name in (f.key, *(s.name for s in f.specs())))
    spec = family.specs([parameters])[0] if parameters else next(s for s in COLUMNS if s.name == name)
    return CORE_31.apply({"bars": panel.frame}, [spec]).frame[spec.name].to_numpy()


# --- by hand -------------------------------------------------------------------------------------------------------


def test_it_is_31_columns_of_seven_families_free_of_scale_with_names_of_their_own() -> None:
    assert len(NAMES) == len(set(NAMES)) == 31 and all(n.startswith("core_") for n in NAMES)
    expected = (
        "mom_5 mom_10 mom_20 mom_50 ret_1 ret_2 ret_3 ret_4 ret_5 atr_ratio bb_position bb_width range_position "
        "vol_ratio_5_20 vol_trend vol_spike higher_highs lower_lows swing_position "
        "rsi_norm rsi_slope macd_norm macd_hist adx_norm adx_direction hour_sin hour_cos day_of_week "
        "trend_strength choppiness mean_reversion"
    )
    assert " ".join(n.removeprefix("core_") for n in NAMES) == expected
    assert not {spec.unit for spec in COLUMNS} & OF_SCALE
    assert max(spec.look_back_bars for spec in COLUMNS) == 50


def test_returns_by_hand() -> None:
    panel = bars(close=[100.0, 110.0, 99.0, 99.0, 198.0])
    np.testing.assert_allclose(values(panel, "core_ret_1")[1:], [0.1, -0.1, 0.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(values(panel, "core_ret_3")[3:], [0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(values(panel, "core_mom", 2)[2:], [-0.01, -0.1, 1.0], rtol=1e-5)


def test_a_split_and_a_dividend_are_no_move() -> None:
    """2-for-1 with a dividend of 1 a new share: 100 -> 2 x (50 + 1) = 102; 10 shares before are 20 after."""
    panel = bars(close=[100.0, 50.0, 55.0], volume=[10.0, 20.0, 40.0], split=[1.0, 2.0, 1.0], dividend=[0.0, 1.0, 0.0])
    np.testing.assert_allclose(values(panel, "core_ret_1"), [np.nan, 0.02, 0.10], rtol=1e-6)
    np.testing.assert_allclose(values(panel, "core_vol_spike", 1)[1:], [1.0, 2.0])


def test_bands_by_hand() -> None:
    """1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, over 4: deviation sqrt(3.5)."""
    panel, deviation = bars(close=[1.0, 2.0, 3.0, 6.0]), np.sqrt(3.5)
    np.testing.assert_allclose(values(panel, "core_bb_position", 4, 2.0)[3], (6 - (3 - 2 * deviation)) / (4 * deviation), rtol=1e-6)
    np.testing.assert_allclose(values(panel, "core_bb_width", 4, 2.0)[3], 4 * deviation / 3, rtol=1e-6)


def test_volume_by_hand() -> None:
    panel = bars(close=[1.0] * 4, volume=[10.0, 20.0, 30.0, 60.0])
    np.testing.assert_allclose(values(panel, "core_vol_ratio", 2, 4)[3], 45 / 30)
    np.testing.assert_allclose(values(panel, "core_vol_spike", 3)[3], 3.0)
    # slope of 10, 20, 30, 60 on -1.5, -0.5, 0.5, 1.5: (-15 - 10 + 15 + 90) / 5 = 16, over the mean 30
    np.testing.assert_allclose(values(panel, "core_vol_trend", 4)[3], 16 / 30, rtol=1e-6)


def test_structure_by_hand() -> None:
    high = np.array([5.0, 6.0, 9.0, 7.0, 6.0, 8.0, 8.0])
    panel = bars(high=high, low=high - 3, close=high - 1)
    np.testing.assert_allclose(values(panel, "core_higher_highs", 6)[6], 3 / 6)  # 6, 9, 8; an equal high is none
    np.testing.assert_allclose(values(panel, "core_lower_lows", 6)[6], 2 / 6)
    swing = values(panel, "core_swing_position", 2, 7)
    np.testing.assert_allclose(swing[6], (7.0 - 3.0) / (9.0 - 3.0))  # peak 9 between 5, 6 and 7, 6; trough 3 between 6, 4 and 5, 5
    panel = bars(high=[5.0, 6.0, 7.0], low=[3.0, 4.0, 5.0], close=[4.0, 5.0, 6.0])
    np.testing.assert_allclose(values(panel, "core_swing_position", 1, 3)[2], 3 / 4)  # no turn: lowest 3, highest 7
    np.testing.assert_allclose(values(panel, "core_range_position", 3)[2], 3 / 4)


def test_a_swing_is_known_once_the_bars_after_it_are() -> None:
    """Peak 9 on bar 2 with 2 sides: until bar 4 the last swing high is unknown, and the highest stands in."""
    high = np.array([8.0, 6.0, 5.0, 7.0, 5.0, 4.0])
    swing = values(bars(high=high, low=np.array([1.0, 2, 3, 4, 3.5, 3]), close=np.full(6, 3.5)), "core_swing_position", 2, 6)
    np.testing.assert_allclose(swing[5], (3.5 - 1.0) / (7.0 - 1.0))  # confirmed: 7, not the older 8
    first = values(bars(high=high[:5], low=np.array([1.0, 2, 3, 4, 3.5]), close=np.full(5, 3.5)), "core_swing_position", 2, 5)
    np.testing.assert_allclose(first[4], (3.5 - 1.0) / (8.0 - 1.0))


def test_a_last_peak_below_the_last_trough_makes_no_negative_range() -> None:
    """A peak of 10, a jump, and a trough at 18 that no peak has followed yet: 10 is low, 18 is high."""
    high = np.array([9.0, 10.0, 9.0, 21.0, 22.0, 23.0])
    low = np.array([7.0, 8.0, 8.5, 20.0, 18.0, 19.0])
    swing = values(bars(high=high, low=low, close=np.full(6, 20.0)), "core_swing_position", 1, 6)
    np.testing.assert_allclose(swing[5], (20.0 - 10.0) / (18.0 - 10.0))


def test_time_by_hand() -> None:
    """Monday 2024-01-01 18:00 UTC is three quarters of a day; an end at midnight belongs to the day before."""
    panel = bars("2024-01-01T18:00", np.timedelta64(6, "h"), close=[1.0] * 3)  # 18:00, 24:00, 06:00
    np.testing.assert_allclose(values(panel, "core_hour_sin"), [-1.0, 0.0, 1.0], atol=1e-7)
    np.testing.assert_allclose(values(panel, "core_hour_cos"), [0.0, 1.0, 0.0], atol=1e-7)
    np.testing.assert_array_equal(values(panel, "core_day_of_week"), [0.0, 0.0, 1.0])
    week = bars(close=[1.0] * 8)
    np.testing.assert_array_equal(values(week, "core_day_of_week"), [0, 1, 2, 3, 4, 5, 6, 0])
    sixties = bars("1969-12-28T21:00", close=[1.0] * 2)  # Sunday, before the epoch
    np.testing.assert_array_equal(values(sixties, "core_day_of_week"), [6, 0])


def test_regimes_by_hand() -> None:
    line = bars(close=10.0 + np.arange(60), high=10.5 + np.arange(60), low=9.5 + np.arange(60))
    np.testing.assert_allclose(values(line, "core_trend_strength")[-1], 1.0, rtol=1e-6)
    # each true range is 1.5 (from the close before), 14 make 21; from the lowest low to the highest high it is 14
    np.testing.assert_allclose(values(line, "core_choppiness")[-1], np.log(21 / 14) / np.log(14), rtol=1e-6)
    # changes of +-2 that undo each other wholly: x -> -x, so twice the distance from the mean goes in a bar
    np.testing.assert_allclose(values(bars(close=np.tile([9.0, 11.0], 30)), "core_mean_reversion")[-1], 2.0, rtol=1e-6)
    # halving towards 8: 24, 16, 12, 10, 9: half of the distance goes
    np.testing.assert_allclose(values(bars(close=[24.0, 16.0, 12.0, 10.0, 9.0]), "core_mean_reversion", 4)[-1], 0.5, rtol=1e-6)
    x = np.random.default_rng(0).lognormal(size=20)
    fit = np.polyval(np.polyfit(np.arange(20), x, 1), np.arange(20))
    np.testing.assert_allclose(values(bars(close=x), "core_trend_strength")[-1] ** 2, fit.var() / x.var(), rtol=1e-5)


# --- parity --------------------------------------------------------------------------------------------------------

TALIB: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "core_mom_20": lambda h, lo, c: talib.ROCP(c, 20),
    "core_atr_ratio": lambda h, lo, c: talib.NATR(h, lo, c, 14) / 100,
    "core_bb_position": lambda h, lo, c: (c - talib.BBANDS(c, 20)[2]) / np.subtract(*talib.BBANDS(c, 20)[::2]),
    "core_bb_width": lambda h, lo, c: np.subtract(*talib.BBANDS(c, 20)[::2]) / talib.SMA(c, 20),
    "core_range_position": lambda h, lo, c: talib.STOCHF(h, lo, c, 20, 1)[0] / 100,
    "core_rsi_norm": lambda h, lo, c: talib.RSI(c, 14) / 50 - 1,
    "core_rsi_slope": lambda h, lo, c: talib.MOM(talib.RSI(c, 14), 5) / 500,
    "core_macd_hist": lambda h, lo, c: talib.MACD(c, 12, 26, 9)[2] / c,
    "core_adx_norm": lambda h, lo, c: talib.ADX(h, lo, c, 14) / 100,
    "core_adx_direction": lambda h, lo, c: (
        (talib.PLUS_DI(h, lo, c, 14) - talib.MINUS_DI(h, lo, c, 14)) / (talib.PLUS_DI(h, lo, c, 14) + talib.MINUS_DI(h, lo, c, 14))
    ),
    "core_trend_strength": lambda h, lo, c: talib.CORREL(c, np.arange(float(len(c))), 20),
    "core_choppiness": lambda h, lo, c: np.log(talib.SUM(talib.TRANGE(h, lo, c), 14) / (talib.MAX(h, 14) - talib.MIN(lo, 14))) / np.log(14),
}


@pytest.mark.parametrize("name", TALIB)
def test_equals_talib(name: str) -> None:
    """Defined on the same rows, and equal there to what float32 can hold."""
    panel = market()
    s, _ = adjusted(panel)
    np.testing.assert_allclose(values(panel, name), TALIB[name](s.high, s.low, s.close), rtol=1e-5, atol=1e-6)


def test_the_macd_line_is_talibs_wherever_that_says_one() -> None:
    """TA-Lib keeps the line back until its signal is defined, on row 33."""
    panel = market()
    close = adjusted(panel)[0].close
    ours, theirs = values(panel, "core_macd_norm"), talib.MACD(close, 12, 26, 9)[0] / close
    np.testing.assert_allclose(ours[33:], theirs[33:], rtol=1e-5, atol=1e-8)
    ours, theirs = values(panel, "core_macd_norm", 5, 9), talib.MACD(close, 5, 9, 2)[0] / close
    np.testing.assert_allclose(ours[9:], theirs[9:], rtol=1e-4, atol=1e-7)


def test_rolling_ones_equal_polars() -> None:
    panel = market()
    s, _ = adjusted(panel)
    frame = pl.DataFrame({"v": s.volume, "x": s.close, "high": s.high, "low": s.low})
    ratio = frame.select(pl.col("v").rolling_mean(5) / pl.col("v").rolling_mean(20)).to_series()
    spike = frame.select(pl.col("v") / pl.col("v").rolling_mean(20).shift()).to_series()
    highs = frame.select((pl.col("high").diff() > 0).cast(pl.Float64).rolling_mean(10)).to_series()
    for name, expected in {"core_vol_ratio_5_20": ratio, "core_vol_spike": spike, "core_higher_highs": highs}.items():
        np.testing.assert_allclose(values(panel, name), expected.to_numpy(), rtol=1e-5, atol=1e-7, err_msg=name)
    slope = [-np.polyfit(s.close[t - 50 : t], np.diff(s.close[t - 50 : t + 1]), 1)[0] for t in range(50, ROWS)]
    np.testing.assert_allclose(values(panel, "core_mean_reversion")[50:], slope, rtol=1e-4, atol=1e-6)
    trend = [np.polyfit(np.arange(20), s.volume[t - 19 : t + 1], 1)[0] / s.volume[t - 19 : t + 1].mean() for t in range(19, ROWS)]
    np.testing.assert_allclose(values(panel, "core_vol_trend")[19:], trend, rtol=1e-4, atol=1e-7)


def test_equals_the_adx_and_rsi_sheets_of_stockcharts(real_data: Path) -> None:
    """The ADX sheet starts its sums with 14 bars and TA-Lib with 13, which fades; the RSI sheet starts with averages of 0."""
    folder = real_data / "reference" / "ta_stockcharts"
    adx = pl.read_csv(folder / "cs-adx.csv", infer_schema_length=None)
    panel = bars(high=adx["High"].to_numpy(), low=adx["Low"].to_numpy(), close=adx["Close"].to_numpy())
    np.testing.assert_allclose(values(panel, "core_adx_norm")[250:], adx["ADX"].cast(pl.Float64).to_numpy()[250:] / 100, atol=1e-6)
    rsi = pl.read_csv(folder / "cs-rsi.csv", infer_schema_length=None)
    close = rsi["Close"].to_numpy()
    ours = values(bars(close=np.r_[np.full(14, close[0]), close]), "core_rsi_norm")[14:]
    np.testing.assert_allclose(ours[14:], rsi["RSI"].cast(pl.Float64).to_numpy()[14:] / 50 - 1, atol=2e-6)


# --- invariances and extremes --------------------------------------------------------------------------------------


def test_each_is_first_defined_where_its_look_back_says() -> None:
    frame = core(market()).frame
    for spec in COLUMNS:
        assert frame.schema[spec.name] == pl.Float32
        assert np.flatnonzero(np.isfinite(frame[spec.name].to_numpy()))[0] == spec.look_back_bars, spec.name


def test_all_are_free_of_scale_and_blind_to_a_split() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0))
    scaled = frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * 8, pl.col("volume") * 4)
    after = pl.int_range(pl.len()) >= 200
    tenth = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / 8).otherwise(pl.col(c)).alias(c) for c in (*PRICE_COLUMNS[:4], "dividend")],
        pl.when(after).then(pl.col("volume") * 8).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(8.0).otherwise(1.0),
    )
    ours = core(Panel.of(frame)).frame
    assert ours.equals(core(Panel.of(scaled)).frame) and ours.equals(core(Panel.of(tenth)).frame)


def test_a_ten_for_one_split_leaves_all_but_rounding() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))
    after = pl.int_range(pl.len()) >= 200
    tenth = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / 10).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        pl.when(after).then(pl.col("volume") * 10).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(10.0).otherwise(1.0),
    )
    a, b = (core(Panel.of(f)).frame.select(NAMES).to_numpy() for f in (frame, tenth))
    free = [i for i, n in enumerate(NAMES) if n not in ("core_higher_highs", "core_lower_lows", "core_swing_position")]  # ties may turn
    np.testing.assert_allclose(a[:, free], b[:, free], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("price", [1e-4, 0.1, 1e6])
def test_a_price_that_never_moves_is_undefined_or_still(price: float) -> None:
    n = 120
    frame = core(bars(**dict.fromkeys(PRICE_COLUMNS[:4], np.full(n, price)), volume=np.full(n, 0.1))).frame
    last = dict(zip(NAMES, frame.select(NAMES).row(-1), strict=True))
    undefined = {n for n, x in last.items() if np.isnan(x)}
    assert undefined == {
        "core_bb_position", "core_range_position", "core_swing_position", "core_rsi_norm", "core_rsi_slope", "core_adx_direction",
        "core_trend_strength", "core_choppiness", "core_mean_reversion",
    }  # fmt: skip
    still = {"core_vol_ratio_5_20": 1.0, "core_vol_spike": 1.0, "core_hour_sin": None, "core_hour_cos": None, "core_day_of_week": None}
    assert all(last[n] == pytest.approx(still.get(n, 0.0), abs=1e-12) for n in last if n not in undefined and still.get(n, 0.0) is not None)


def test_extremes_make_no_infinity() -> None:
    rng, n = np.random.default_rng(3), 200
    for scale in (1e-4, 1e6):
        close = scale * np.exp(np.cumsum(rng.normal(0, 0.02, n)))
        x = core(bars(close=close, high=close * 1.01, low=close * 0.99, volume=rng.integers(1, 9, n))).frame.select(NAMES).to_numpy()
        assert np.isfinite(x[60:]).all()
    silent = core(bars(close=close, high=close, low=close, volume=np.zeros(n))).frame
    assert all(np.isnan(silent[c].to_numpy()).all() for c in ("core_vol_ratio_5_20", "core_vol_trend", "core_vol_spike"))
    shock = np.where(np.arange(n) == 100, 1e300, 1.0)
    assert not np.isinf(core(bars(close=shock, high=shock, low=shock, volume=shock)).frame.select(NAMES).to_numpy()).any()


def test_a_halt_repeats_the_price_and_trades_nothing() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))
    gap = frame.with_columns(
        pl.when(pl.int_range(pl.len()).is_between(200, 230)).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS
    )
    x = core(Panel.of(gap)).frame
    assert (x["core_ret_1"][200:231] == 0).all() and (x["core_vol_spike"][200:220] == 0).all()
    assert np.isnan(x["core_bb_position"].to_numpy()[219:231]).all() and np.isfinite(x["core_bb_position"].to_numpy()[231:]).all()
    assert np.isfinite(x["core_rsi_norm"].to_numpy()[200:]).all()


@pytest.mark.parametrize("rows", [0, 1, 2, 20])
def test_short_histories_are_warm_up(rows: int) -> None:
    x = core(Panel(market().frame.head(rows))).frame
    assert x.height == rows
    late = [s.name for s in COLUMNS if s.name in x.columns and s.look_back_bars >= rows]
    assert not rows or (len(late) >= 7 and np.isnan(x.select(late).to_numpy()).all())


def test_closes_alone_give_what_closes_allow() -> None:
    names = core(bars(close=np.linspace(10, 20, 60))).columns
    assert set(NAMES) - set(names) == {
        "core_atr_ratio", "core_range_position", "core_vol_ratio_5_20", "core_vol_trend", "core_vol_spike", "core_higher_highs",
        "core_lower_lows", "core_swing_position", "core_adx_norm", "core_adx_direction", "core_choppiness",
    }  # fmt: skip


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 49, 50, 51, 52, 53, 54, 55, 56, 57, 200, 251])
def test_no_feature_sees_the_future(t: int) -> None:
    assert_pure(core, market(), t)
    assert_apply(core, market(), t, np.random.default_rng(t))


def test_a_bar_that_arrives_late_delays_what_rests_on_it() -> None:
    late = pl.when(pl.int_range(pl.len()) == 200).then(pl.col("known_at").dt.offset_by("20d")).otherwise(pl.col("known_at"))
    panel = Panel.of(market().frame.with_columns(known_at=late))
    assert_apply(core, panel, np.datetime64("2000-01-03T21:00") + np.timedelta64(210, "D"), np.random.default_rng(0))


# --- training data -------------------------------------------------------------------------------------------------


def test_training_data_by_hand() -> None:
    """Closes 100, 110, 99, 99, 198: over 2 bars -1 %, -10 %, +100 %, and two rows whose label has not closed."""
    panel = bars(close=[100.0, 110.0, 99.0, 99.0, 198.0])
    time = [spec for spec in COLUMNS if spec.kind == "time"]
    data = prepare_training_data(panel, 2, 0.05, time)
    assert data.labels.tolist() == [0, -1, 1] and data.labels.dtype == np.int8
    assert data.features.dtype == np.float32 and data.features[:, 2].tolist() == [0.0, 1.0, 2.0]
    assert data.symbols.tolist() == ["A"] * 3 and data.names == ("core_hour_sin", "core_hour_cos", "core_day_of_week")
    np.testing.assert_array_equal(data.closed_at - data.times, np.timedelta64(2, "D"))
    np.testing.assert_array_equal(data.known_at, data.times)
    one_back = [spec for spec in COLUMNS if spec.name == "core_ret_1"]
    assert prepare_training_data(panel, 2, 0.05, one_back).labels.tolist() == [-1, 1], "a row without its features is no sample"


def test_training_data_of_several_symbols_are_those_of_each() -> None:
    panel = random_bars(np.random.default_rng(11), 160, 3)
    both = prepare_training_data(panel, 5, 0.01)
    assert both.features.shape == (len(both.labels), 31) and np.isfinite(both.features).all() and set(both.labels.tolist()) == {-1, 0, 1}
    for symbol in panel.symbols:
        own = prepare_training_data(Panel(panel.frame.filter(symbol=symbol)), 5, 0.01)
        for name in ("features", "labels", "times", "closed_at"):
            np.testing.assert_array_equal(getattr(both, name)[both.symbols == symbol], getattr(own, name))


@pytest.mark.parametrize("t", [100, 101, 102, 103, 140])
def test_no_sample_whose_label_had_closed_hears_what_came_later(t: int) -> None:
    panel = random_bars(np.random.default_rng(12), 160, 2)
    at = np.unique(panel.frame["known_at"].dt.replace_time_zone(None).to_numpy())[t]
    a, b = (prepare_training_data(p, 5, 0.01) for p in (panel, perturb_future(panel, t, np.random.default_rng(t))))
    known, still = a.closed_at <= at, b.closed_at <= at
    assert known.any() and not known.all()
    for name in ("features", "labels", "symbols", "times", "known_at", "closed_at"):
        np.testing.assert_array_equal(getattr(a, name)[known], getattr(b, name)[still], err_msg=name)


def test_training_data_of_nothing_and_of_too_little() -> None:
    assert prepare_training_data(Panel(market().frame.head(0)), 5, 0.01).features.shape == (0, 31)
    assert prepare_training_data(Panel(market().frame.head(52)), 5, 0.01).labels.shape == (0,)
    with pytest.raises(ConfigError, match="horizon 0"):
        prepare_training_data(market(), 0, 0.01)
    with pytest.raises(MissingDataError, match="lack high, low, volume"):
        prepare_training_data(bars(close=np.linspace(10, 20, 80)), 5, 0.01)
    two = random_bars(np.random.default_rng(12), 80, 2).frame
    silent = two.with_columns(pl.when(pl.col("symbol") == "S01").then(None).otherwise(pl.col("volume")).alias("volume"))
    with pytest.raises(DataError, match="S01 lacks columns"):
        prepare_training_data(Panel.of(silent), 5, 0.01)
