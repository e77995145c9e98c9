"""Technical features: by hand, against TA-Lib and StockCharts' sheets, invariances, and the pure law over each one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features import catalog, technical
from tests.laws import assert_apply, assert_pure, random_bars

ROWS = 420


def bars(**columns: list[float] | np.ndarray) -> Panel:
    """One symbol, daily; what is not given is null (events: none)."""
    n = len(next(iter(columns.values())))
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(n)
    given = {"dividend": np.zeros(n), "split": np.ones(n), **columns}
    frame = pl.DataFrame({"symbol": ["A"] * n, "timestamp": times, "known_at": times} | {k: np.asarray(v, float) for k, v in given.items()})
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c not in columns)
    utc = pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)
    return Panel.of(frame.with_columns(utc, pl.col(*PRICE_COLUMNS).fill_nan(None)))


def market(seed: int = 5, rows: int = ROWS) -> Panel:
    """A noisy symbol with splits, dividends and halts that lives to the end."""
    frame = random_bars(np.random.default_rng(seed), rows).frame
    assert not frame["delisted"].any() and (frame["split"] != 1).any() and not frame["tradable"].all()
    return Panel.of(frame)


def values(panel: Panel, *names: str) -> np.ndarray:
    """(T,) of one feature, or (T,n)."""
    frame = technical.apply(panel, names).frame
    return frame[names[0]].to_numpy() if len(names) == 1 else frame.select(names).to_numpy()


# --- by hand -------------------------------------------------------------------------------------------------------


def test_returns_and_volatility_by_hand() -> None:
    panel = bars(close=np.exp([0.0, 0.01, 0.00, 0.02, 0.01, 0.03]))  # log returns +1, -1, +2, -1, +2 percent
    np.testing.assert_allclose(values(panel, "ret_1")[1:3], [np.expm1(0.01), np.expm1(-0.01)], rtol=1e-6)
    np.testing.assert_allclose(values(panel, "ret_5")[5], np.expm1(0.03), rtol=1e-6)
    # mean 0.6, deviations 0.4 -1.6 1.4 -1.6 1.4, squares sum to 0.16 + 2.56 + 1.96 + 2.56 + 1.96 = 9.2, over 4: 2.3
    np.testing.assert_allclose(values(panel, "vol_5"), [np.nan] * 5 + [0.01 * np.sqrt(2.3)], rtol=1e-6)


def test_range_volatilities_by_hand() -> None:
    """Each bar opens at 100, reaches 102 and 99, closes at 101, and the next opens at 100 again."""
    n = 23
    panel = bars(open=np.full(n, 100.0), high=np.full(n, 102.0), low=np.full(n, 99.0), close=np.full(n, 101.0))
    u, d, c = np.log([1.02, 0.99, 1.01])
    np.testing.assert_allclose(values(panel, "parkinson_21")[-1], (u - d) / np.sqrt(4 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(values(panel, "garman_klass_21")[-1], np.sqrt(0.5 * (u - d) ** 2 - (2 * np.log(2) - 1) * c**2), rtol=1e-6)
    rogers_satchell = u * (u - c) + d * (d - c)
    np.testing.assert_allclose(values(panel, "rogers_satchell_21")[-1], np.sqrt(rogers_satchell), rtol=1e-6)
    k = 0.34 / (1.34 + 22 / 20)  # no overnight and no open-close variance: what is left is (1 - k) Rogers-Satchell
    np.testing.assert_allclose(values(panel, "yang_zhang_21")[-1], np.sqrt((1 - k) * rogers_satchell), rtol=1e-5)


def test_a_total_return_not_a_price_change_is_what_features_see() -> None:
    """2-for-1 on the second bar with a dividend of 1 a new share: 100 -> 2 x (50 + 1) = 102, whatever the chart shows."""
    panel = bars(close=[100.0, 50.0, 55.0], split=[1.0, 2.0, 1.0], dividend=[0.0, 1.0, 0.0])
    np.testing.assert_allclose(values(panel, "ret_1"), [np.nan, 0.02, 0.10], rtol=1e-6)


def test_a_split_changes_no_feature_at_all() -> None:
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))
    after = pl.int_range(pl.len()) >= 200
    halved = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / 2).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        pl.when(after).then(pl.col("volume") * 2).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(2.0).otherwise(1.0),
    )
    a, b = technical.apply(Panel.of(frame)).frame, technical.apply(Panel.of(halved)).frame
    assert a.equals(b)


def test_features_are_free_of_scale() -> None:
    frame = market().frame
    scaled = frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * 8, pl.col("volume") * 4)
    a, b = technical.apply(Panel.of(frame)).frame, technical.apply(Panel.of(scaled)).frame
    for name in catalog.TECHNICAL:
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_halts_repeat_the_price_and_leave_volume_scores_undefined() -> None:
    frame = market().frame
    halted = pl.int_range(pl.len()).is_between(300, 302)
    gap = frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    x = values(Panel.of(gap), "ret_1", "range_1", "volume_z_21", "rsi_14", "ret_5")
    np.testing.assert_array_equal(x[300:303, :2], 0.0)
    assert np.isnan(x[300:303, 2]).all() and np.isfinite(x[303:310, 2]).sum() >= 5
    assert np.isfinite(x[300:, 3:]).all()


def test_nothing_is_said_before_listing_and_after_delisting() -> None:
    frame = market().frame.with_columns(delisted=pl.int_range(pl.len()) >= 400)
    dead = pl.col("delisted") | (pl.int_range(pl.len()) < 10)
    frame = frame.with_columns(pl.when(dead).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    x = values(Panel.of(frame), "ret_1", "vol_5", "rsi_14")
    assert np.isnan(x[:11, 0]).all() and np.isfinite(x[11:400, 0]).all() and np.isnan(x[400:]).all()


def test_close_only_sources_get_what_closes_allow() -> None:
    panel = bars(close=np.linspace(10, 20, 60))
    names = technical.available(panel)
    assert {"ret_1", "rsi_14", "macd", "vol_21", "drawdown_252"} <= set(names)
    assert not {"atr_ratio_14_63", "volume_z_21", "gap_1", "parkinson_21"} & set(names)
    assert technical.apply(panel).columns == list(names)
    with pytest.raises(MissingDataError, match="atr_ratio_14_63"):
        technical.apply(panel, ["atr_ratio_14_63"])


def test_bad_input_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"close is -1\.0 on live row 2"):
        technical.apply(bars(close=[1.0, 2.0, -1.0]))
    with pytest.raises(DataError, match="one symbol at a time"):
        technical.apply(random_bars(np.random.default_rng(0), 50, 2))


@pytest.mark.parametrize("rows", [0, 1, 2, 22, 30])
def test_short_histories_are_all_warm_up(rows: int) -> None:
    panel = Panel(market().frame.head(rows))
    x = technical.apply(panel, catalog.TECHNICAL if rows else ())
    assert x.frame.height == rows
    assert all(np.isnan(x.frame[n].to_numpy()).all() for n in x.columns if catalog.spec(n).look_back_bars >= rows)


# --- parity --------------------------------------------------------------------------------------------------------

DIRECT: dict[str, Callable[..., np.ndarray]] = {
    "rsi_2": lambda o, h, lo, c, v: talib.RSI(c, 2),
    "rsi_14": lambda o, h, lo, c, v: talib.RSI(c, 14),
    "rsi_30": lambda o, h, lo, c, v: talib.RSI(c, 30),
    "stochastic_rsi_14": lambda o, h, lo, c, v: talib.STOCHRSI(c, timeperiod=14, fastk_period=14, fastd_period=1)[0],
    "stochastic_k_14": lambda o, h, lo, c, v: talib.STOCH(h, lo, c, fastk_period=14, slowk_period=3, slowd_period=3)[0],
    "stochastic_d_14": lambda o, h, lo, c, v: talib.STOCH(h, lo, c, fastk_period=14, slowk_period=3, slowd_period=3)[1],
    "williams_r_14": lambda o, h, lo, c, v: talib.WILLR(h, lo, c, timeperiod=14),
    "cci_14": lambda o, h, lo, c, v: talib.CCI(h, lo, c, timeperiod=14),
    "cci_20": lambda o, h, lo, c, v: talib.CCI(h, lo, c, timeperiod=20),
    "cci_30": lambda o, h, lo, c, v: talib.CCI(h, lo, c, timeperiod=30),
    "cmo_14": lambda o, h, lo, c, v: talib.CMO(c, timeperiod=14),
    "roc_12": lambda o, h, lo, c, v: talib.ROC(c, timeperiod=12),
    "ultimate_7_14_28": lambda o, h, lo, c, v: talib.ULTOSC(h, lo, c, timeperiod1=7, timeperiod2=14, timeperiod3=28),
    "balance_of_power_1": lambda o, h, lo, c, v: talib.BOP(o, h, lo, c),
    "natr_14": lambda o, h, lo, c, v: talib.NATR(h, lo, c, timeperiod=14),
    "atr_ratio_14_63": lambda o, h, lo, c, v: talib.ATR(h, lo, c, timeperiod=14) / talib.ATR(h, lo, c, timeperiod=63),
    "adx_14": lambda o, h, lo, c, v: talib.ADX(h, lo, c, timeperiod=14),
    "adxr_14": lambda o, h, lo, c, v: talib.ADXR(h, lo, c, timeperiod=14),
    "dx_30": lambda o, h, lo, c, v: talib.DX(h, lo, c, timeperiod=30),
    "di_spread_14": lambda o, h, lo, c, v: talib.PLUS_DI(h, lo, c, timeperiod=14) - talib.MINUS_DI(h, lo, c, timeperiod=14),
    "aroon_down_25": lambda o, h, lo, c, v: talib.AROON(h, lo, timeperiod=25)[0],
    "aroon_up_25": lambda o, h, lo, c, v: talib.AROON(h, lo, timeperiod=25)[1],
    "aroon_oscillator_25": lambda o, h, lo, c, v: talib.AROONOSC(h, lo, timeperiod=25),
    "trix_15": lambda o, h, lo, c, v: talib.TRIX(c, timeperiod=15),
    "ppo_12_26": lambda o, h, lo, c, v: talib.PPO(c, fastperiod=12, slowperiod=26, matype=talib.MA_Type.EMA),
    "pvo_12_26": lambda o, h, lo, c, v: talib.PPO(v, fastperiod=12, slowperiod=26, matype=talib.MA_Type.EMA),
    "macd": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[0] / c,
    "macd_signal": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[1] / c,
    "macd_histogram": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[2] / c,
    "mfi_14": lambda o, h, lo, c, v: talib.MFI(h, lo, c, v, timeperiod=14),
    "adosc_3_10": lambda o, h, lo, c, v: talib.ADOSC(h, lo, c, v, fastperiod=3, slowperiod=10) / talib.SMA(v, timeperiod=10),
    "cmf_21": lambda o, h, lo, c, v: talib.SUM(np.diff(talib.AD(h, lo, c, v), prepend=0.0), timeperiod=21) / talib.SUM(v, timeperiod=21),
    "obv_slope_21": lambda o, h, lo, c, v: talib.MOM(talib.OBV(c, v), timeperiod=21) / talib.SUM(v, timeperiod=21),
    "linear_slope_21": lambda o, h, lo, c, v: talib.LINEARREG_SLOPE(c, timeperiod=21) / c,
    "sar_distance": lambda o, h, lo, c, v: c / talib.SAR(h, lo, acceleration=0.02, maximum=0.2) - 1,
    "bollinger_b_20": lambda o, h, lo, c, v: (c - talib.BBANDS(c, timeperiod=20)[2]) / np.subtract(*talib.BBANDS(c, timeperiod=20)[::2]),
    "bollinger_width_20": lambda o, h, lo, c, v: np.subtract(*talib.BBANDS(c, timeperiod=20)[::2]) / talib.SMA(c, timeperiod=20),
    "sma_cross_50_200": lambda o, h, lo, c, v: talib.SMA(c, timeperiod=50) / talib.SMA(c, timeperiod=200) - 1,
    "drawdown_252": lambda o, h, lo, c, v: c / talib.MAX(c, timeperiod=252) - 1,
    "drawup_252": lambda o, h, lo, c, v: c / talib.MIN(c, timeperiod=252) - 1,
    "channel_20": lambda o, h, lo, c, v: talib.STOCHF(h, lo, c, fastk_period=20, fastd_period=1)[0] / 100,
    "vol_5": lambda o, h, lo, c, v: talib.STDDEV(np.r_[np.nan, np.diff(np.log(c))], timeperiod=5) * np.sqrt(5 / 4),
    "vol_21": lambda o, h, lo, c, v: talib.STDDEV(np.r_[np.nan, np.diff(np.log(c))], timeperiod=21) * np.sqrt(21 / 20),
    "vol_63": lambda o, h, lo, c, v: talib.STDDEV(np.r_[np.nan, np.diff(np.log(c))], timeperiod=63) * np.sqrt(63 / 62),
    **{f"ret_{n}": (lambda o, h, lo, c, v, n=n: talib.ROCP(c, timeperiod=n)) for n in (1, 2, 5, 10, 21, 63, 126, 252)},
    **{
        f"{kind}_distance_{n}": (lambda o, h, lo, c, v, kind=kind, n=n: c / getattr(talib, kind.upper())(c, timeperiod=n) - 1)
        for kind, n in (*[("sma", n) for n in (5, 10, 20, 30, 50, 60, 200)], *[("ema", n) for n in (12, 26, 50)],
                        ("dema", 20), ("tema", 20), ("wma", 20), ("kama", 10))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECT)
def test_equals_talib(name: str) -> None:
    """Defined on the same rows, and equal there to what float32 can hold."""
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))
    frame = frame.with_columns(pl.col("volume").clip(1.0))  # a halt is another test's matter
    expected = DIRECT[name](*(frame[c].to_numpy().copy() for c in PRICE_COLUMNS))
    np.testing.assert_allclose(values(Panel.of(frame), name), expected, rtol=1e-5, atol=1e-6)


def test_moments_and_correlations_equal_polars() -> None:
    panel = market()
    close = technical.adjusted(panel)[0].close
    returns = pl.Series(np.diff(np.log(close), prepend=np.nan)).fill_nan(None)
    frame = pl.DataFrame({"r": returns, "v": technical.adjusted(panel)[0].log_volume}).with_columns(pl.col("v").fill_nan(None))
    np.testing.assert_allclose(values(panel, "skew_63")[63:], returns.rolling_skew(63).to_numpy()[63:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(panel, "kurtosis_63")[63:], returns.rolling_kurtosis(63).to_numpy()[63:], rtol=1e-4, atol=1e-4)
    lagged = [np.corrcoef(returns[t - 20 : t + 1], returns[t - 21 : t])[0, 1] for t in range(22, ROWS)]
    np.testing.assert_allclose(values(panel, "autocorrelation_21")[22:], lagged, rtol=1e-4, atol=1e-6)
    pairs = [frame[t - 20 : t + 1].drop_nulls().select(pl.corr("r", "v")).item() for t in range(21, ROWS)]
    np.testing.assert_allclose(values(panel, "price_volume_correlation_21")[21:], pairs, rtol=1e-4, atol=1e-6)


# The sheet, our feature, its result in our unit, the rows to compare, and the tolerance that its seeding or rounding leaves.
# ADX: the sheet starts its sums with 14 bars, TA-Lib with 13. MACD: the sheet starts each EMA at the first close, TA-Lib
# at a mean. Both fade away. ATR: the sheet counts the first bar's own range; a bar inside it put before makes TA-Lib do so.
# RSI: the sheet starts both averages at 0; 14 still bars put before make TA-Lib do so.
SHEETS: dict[str, tuple[str, Callable[[pl.DataFrame], pl.Series], slice, float]] = {
    "rsi": ("rsi_14", lambda f: f["RSI"], slice(14, None), 1e-4),
    "adx": ("adx_14", lambda f: f["ADX"], slice(250, None), 1e-4),
    "atr": ("natr_14", lambda f: 100 * f["ATR"] / f["Close"], slice(14, None), 1e-5),
    "cci": ("cci_20", lambda f: f["CCI"], slice(19, None), 1e-1),
    "mfi": ("mfi_14", lambda f: f["MFI"], slice(14, None), 1e-3),
    "roc": ("roc_12", lambda f: f["ROC"], slice(12, None), 1e-5),
    "soo": ("stochastic_k_14", lambda f: f["SO_SIG"], slice(17, None), 1e-4),
    "percentr": ("williams_r_14", lambda f: f["Williams_%R"], slice(13, None), 1e-4),
    "kama": ("kama_distance_10", lambda f: f["Close"] / f["KAMA"] - 1, slice(10, None), 1e-6),
    "ultosc": ("ultimate_7_14_28", lambda f: f["Ult_Osc"], slice(28, None), 1e-4),
    "macd": ("macd", lambda f: f["MACD_line"] / f["Close"], slice(110, None), 1e-5),
}


@pytest.mark.parametrize("name", SHEETS)
def test_equals_the_sheets_of_stockcharts(real_data: Path, name: str) -> None:
    feature, result, rows, tolerance = SHEETS[name]
    frame = pl.read_csv(real_data / "reference" / "ta_stockcharts" / f"cs-{name}.csv", infer_schema_length=None)
    columns = {c.lower(): frame[c].to_numpy() for c in frame.columns if c in ("Open", "High", "Low", "Close", "Volume")}
    if "high" in columns:  # two sheets leave out closes that no window needs
        columns["close"] = np.where(np.isnan(columns["close"]), (columns["high"] + columns["low"]) / 2, columns["close"])
    if name == "atr":
        middle = (columns["high"][0] + columns["low"][0]) / 2
        columns = {c: np.r_[middle, x] for c, x in columns.items()}
    if name == "rsi":
        columns = {"close": np.r_[np.full(14, columns["close"][0]), columns["close"]]}
    ours = values(bars(**columns), feature)[-frame.height :]
    expected = result(frame).cast(pl.Float64).to_numpy()
    assert len(expected[rows]) and np.isfinite(expected[rows]).all()
    np.testing.assert_allclose(ours[rows], expected[rows], atol=tolerance, rtol=1e-6)


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_the_catalogue_and_the_formulas_are_the_same_names() -> None:
    assert set(catalog.TECHNICAL) == set(technical.FORMULAS)
    assert len(catalog.BY_NAME) == len(catalog.FEATURES)
    assert len(catalog.TECHNICAL) >= 40 + 16
    assert set(catalog.DEFAULT_OBSERVATION) <= set(catalog.BY_NAME)
    assert catalog.warmup_bars() == 252 and catalog.warmup_bars(catalog.DEFAULT_OBSERVATION) == 63
    with pytest.raises(MissingDataError, match="Did you mean 'rsi_14'"):
        catalog.warmup_bars(["rsi14"])


def test_each_feature_is_first_defined_where_its_look_back_says() -> None:
    frame = technical.apply(Panel.of(market().frame.with_columns(tradable=True, volume=pl.col("volume").clip(1.0)))).frame
    for name in catalog.TECHNICAL:
        defined = np.flatnonzero(np.isfinite(frame[name].to_numpy()))
        assert frame.schema[name] == pl.Float32
        assert defined[0] == catalog.spec(name).look_back_bars, name


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [62, 63, 64, 65, 66, 67, 68, 69, 70, 255, 333])
def test_no_feature_sees_the_future(t: int) -> None:
    """Eight lengths in a row, so that no vector width hides a difference in how a tail is computed."""
    assert_pure(technical.apply, market(), t)
    assert_apply(technical.apply, market(), t, np.random.default_rng(t))


def test_a_bar_that_arrives_late_delays_what_rests_on_it() -> None:
    late = pl.when(pl.int_range(pl.len()) == 300).then(pl.col("known_at").dt.offset_by("20d")).otherwise(pl.col("known_at"))
    panel = Panel.of(market().frame.with_columns(known_at=late))
    known = technical.apply(panel, ["rsi_14"]).frame["known_at"]
    assert (known[300:321] == panel.frame["known_at"][300]).all() and (known[321:] == panel.frame["known_at"][321:]).all()
    assert_apply(technical.apply, panel, np.datetime64("2000-01-03T21:00") + np.timedelta64(310, "D"), np.random.default_rng(0))
