"""Technical columns against TA-Lib, polars and StockCharts' sheets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib
from numpy.lib.stride_tricks import sliding_window_view
from talib import abstract

from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.features import rolling
from rlaif_ray.features.candles import PATTERNS
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.series import adjusted
from tests.features.one_symbol import BY_NAME, ROWS, bars, market, plain_market, spec, values

# --- TA-Lib --------------------------------------------------------------------------------------------------------

CANDLES = {
    "engulfing": "CDLENGULFING", "hammer": "CDLHAMMER", "doji": "CDLDOJI", "morning_star": "CDLMORNINGSTAR",
    "evening_star": "CDLEVENINGSTAR", "shooting_star": "CDLSHOOTINGSTAR", "three_white_soldiers": "CDL3WHITESOLDIERS",
    "three_black_crows": "CDL3BLACKCROWS",
}  # fmt: skip


def _look_back(cdl: str) -> int:
    return getattr(abstract, "Function")(cdl).lookback  # noqa: B009 - the stubs of TA-Lib leave it out


def _signs(cdl: str, o: np.ndarray, h: np.ndarray, lo: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.r_[np.full(_look_back(cdl), np.nan), np.sign(getattr(talib, cdl)(o, h, lo, c)[_look_back(cdl) :])]


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
    "macd_level": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[0],
    "macd_signal_level": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[1],
    "macd_histogram_level": lambda o, h, lo, c, v: talib.MACD(c, fastperiod=12, slowperiod=26, signalperiod=9)[2],
    "bollinger_upper_20": lambda o, h, lo, c, v: talib.BBANDS(c, timeperiod=20, nbdevup=2, nbdevdn=2)[0],
    "bollinger_middle_20": lambda o, h, lo, c, v: talib.BBANDS(c, timeperiod=20, nbdevup=2, nbdevdn=2)[1],
    "bollinger_lower_20": lambda o, h, lo, c, v: talib.BBANDS(c, timeperiod=20, nbdevup=2, nbdevdn=2)[2],
    "keltner_upper_20": lambda o, h, lo, c, v: talib.EMA(c, timeperiod=20) + 2 * talib.ATR(h, lo, c, timeperiod=10),
    "keltner_middle_20": lambda o, h, lo, c, v: talib.EMA(c, timeperiod=20),
    "keltner_lower_20": lambda o, h, lo, c, v: talib.EMA(c, timeperiod=20) - 2 * talib.ATR(h, lo, c, timeperiod=10),
    "keltner_width_20": lambda o, h, lo, c, v: 4 * talib.ATR(h, lo, c, timeperiod=10) / talib.EMA(c, timeperiod=20),
    "keltner_position_20": lambda o, h, lo, c, v: (
        0.5 + (c - talib.EMA(c, timeperiod=20)) / (4 * talib.ATR(h, lo, c, timeperiod=10))
    ),
    "donchian_upper_20": lambda o, h, lo, c, v: talib.MAX(h, timeperiod=20),
    "donchian_middle_20": lambda o, h, lo, c, v: talib.MIDPRICE(h, lo, timeperiod=20),
    "donchian_lower_20": lambda o, h, lo, c, v: talib.MIN(lo, timeperiod=20),
    "donchian_width_20": lambda o, h, lo, c, v: (talib.MAX(h, timeperiod=20) - talib.MIN(lo, timeperiod=20)) / talib.SMA(c, timeperiod=20),
    "atr_14": lambda o, h, lo, c, v: talib.ATR(h, lo, c, timeperiod=14),
    "plus_di_14": lambda o, h, lo, c, v: talib.PLUS_DI(h, lo, c, timeperiod=14),
    "minus_di_14": lambda o, h, lo, c, v: talib.MINUS_DI(h, lo, c, timeperiod=14),
    "sar": lambda o, h, lo, c, v: talib.SAR(h, lo, acceleration=0.02, maximum=0.2),
    "stochastic_fast_k_14": lambda o, h, lo, c, v: talib.STOCHF(h, lo, c, fastk_period=14, fastd_period=3)[0],
    "stochastic_fast_d_14": lambda o, h, lo, c, v: talib.STOCHF(h, lo, c, fastk_period=14, fastd_period=3)[1],
    "stochastic_rsi_k_14": lambda o, h, lo, c, v: talib.STOCHRSI(c, timeperiod=14, fastk_period=14, fastd_period=3)[1],
    "stochastic_rsi_d_14": lambda o, h, lo, c, v: talib.SMA(talib.STOCHRSI(c, timeperiod=14, fastk_period=14, fastd_period=3)[1], 3),
    "roc_21": lambda o, h, lo, c, v: talib.ROC(c, timeperiod=21),
    "mom_10": lambda o, h, lo, c, v: talib.MOM(c, timeperiod=10),
    "awesome_5_34": lambda o, h, lo, c, v: (talib.SMA((h + lo) / 2, timeperiod=5) - talib.SMA((h + lo) / 2, timeperiod=34)) / c,
    "bull_power_13": lambda o, h, lo, c, v: (h - talib.EMA(c, timeperiod=13)) / c,
    "bear_power_13": lambda o, h, lo, c, v: (lo - talib.EMA(c, timeperiod=13)) / c,
    "cycle_period": lambda o, h, lo, c, v: talib.HT_DCPERIOD(c),
    "cycle_sine": lambda o, h, lo, c, v: talib.HT_SINE(c)[0],
    "cycle_lead_sine": lambda o, h, lo, c, v: talib.HT_SINE(c)[1],
    "cycle_trend": lambda o, h, lo, c, v: np.r_[np.full(63, np.nan), talib.HT_TRENDMODE(c)[63:]],
    "volume_sma_20": lambda o, h, lo, c, v: talib.SMA(v, timeperiod=20),
    "volume_sma_50": lambda o, h, lo, c, v: talib.SMA(v, timeperiod=50),
    "relative_volume_20": lambda o, h, lo, c, v: v / talib.SMA(v, timeperiod=20),
    "obv": lambda o, h, lo, c, v: talib.OBV(c, v),
    "ad_line": lambda o, h, lo, c, v: talib.AD(h, lo, c, v),
    "force_13": lambda o, h, lo, c, v: talib.EMA(np.r_[np.nan, np.diff(c)] * v, timeperiod=13),
    "vwap_20": lambda o, h, lo, c, v: talib.SUM(talib.TYPPRICE(h, lo, c) * v, timeperiod=20) / talib.SUM(v, timeperiod=20),
    "linear_distance_21": lambda o, h, lo, c, v: c / talib.LINEARREG(c, timeperiod=21) - 1,
    "linear_r2_21": lambda o, h, lo, c, v: talib.CORREL(c, np.arange(float(len(c))), timeperiod=21) ** 2,
    "ichimoku_conversion_9": lambda o, h, lo, c, v: talib.MIDPRICE(h, lo, timeperiod=9),
    "ichimoku_base_26": lambda o, h, lo, c, v: talib.MIDPRICE(h, lo, timeperiod=26),
    "ichimoku_cross": lambda o, h, lo, c, v: talib.MIDPRICE(h, lo, timeperiod=9) / talib.MIDPRICE(h, lo, timeperiod=26) - 1,
    "ichimoku_lagging": lambda o, h, lo, c, v: talib.ROCP(c, timeperiod=26),
    "coppock_10_14_11": lambda o, h, lo, c, v: talib.WMA(talib.ROC(c, timeperiod=14) + talib.ROC(c, timeperiod=11), timeperiod=10),
    "vol_20": lambda o, h, lo, c, v: talib.STDDEV(np.r_[np.nan, np.diff(np.log(c))], timeperiod=20) * np.sqrt(20 / 19),
    "vol_60": lambda o, h, lo, c, v: talib.STDDEV(np.r_[np.nan, np.diff(np.log(c))], timeperiod=60) * np.sqrt(60 / 59),
    **{f"sma_{n}": (lambda o, h, lo, c, v, n=n: talib.SMA(c, timeperiod=n)) for n in (20, 50, 100, 200)},
    **{f"ema_{n}": (lambda o, h, lo, c, v, n=n: talib.EMA(c, timeperiod=n)) for n in (12, 26, 50)},
    **{name: (lambda o, h, lo, c, v, cdl=cdl: _signs(cdl, o, h, lo, c)) for name, cdl in CANDLES.items()},
    **{f"ret_{n}": (lambda o, h, lo, c, v, n=n: talib.ROCP(c, timeperiod=n)) for n in (1, 2, 5, 10, 21, 63, 126, 252)},
    **{
        f"{kind}_distance_{n}": (lambda o, h, lo, c, v, kind=kind, n=n: c / getattr(talib, kind.upper())(c, timeperiod=n) - 1)
        for kind, n in (*[("sma", n) for n in (5, 10, 20, 30, 50, 60, 100, 200)], *[("ema", n) for n in (12, 26, 50)],
                        ("dema", 20), ("tema", 20), ("wma", 20), ("kama", 10))
    },
}  # fmt: skip


def ohlcv(panel: Panel) -> tuple[np.ndarray, ...]:
    return tuple(panel.frame[c].to_numpy().copy() for c in PRICE_COLUMNS)


@pytest.mark.parametrize("name", DIRECT)
def test_equals_talib(name: str) -> None:
    """Defined on the same rows, and equal there to what float32 can hold."""
    panel = plain_market()
    expected = DIRECT[name](*ohlcv(panel))
    np.testing.assert_allclose(values(panel, name), expected, rtol=1e-5, atol=1e-6)


def test_counts_of_candles_equal_a_loop_over_talib() -> None:
    panel = plain_market()
    o, h, lo, c, _ = ohlcv(panel)
    found = np.stack([getattr(talib, cdl)(o, h, lo, c) for cdl in talib.get_function_groups()["Pattern Recognition"]])
    first = max(_look_back(cdl) for cdl in PATTERNS)
    assert len(PATTERNS) == 61 and first == 14
    for kind, seen in {"bullish": found > 0, "bearish": found < 0}.items():
        for bars_ in (1, 5, 10):
            counts = [seen[:, t - bars_ + 1 : t + 1].sum() for t in range(first + bars_ - 1, ROWS)]
            assert max(counts) > 1
            np.testing.assert_array_equal(values(panel, f"candles_{kind}_{bars_}"), [np.nan] * (first + bars_ - 1) + counts)
    net = values(panel, "candles_net_5", "candles_bullish_5", "candles_bearish_5")
    np.testing.assert_array_equal(net[:, 0], net[:, 1] - net[:, 2])


@pytest.mark.parametrize("bars_", [2, 3, 14, 20, 30])
@pytest.mark.parametrize("rows", [31, 60, 61, 421])
def test_our_cci_is_talibs_but_for_the_order_of_its_sums(bars_: int, rows: int) -> None:
    s = adjusted(Panel(market(3, 421).frame.head(rows)))[0]
    np.testing.assert_allclose(spec("cci", bars_).of(s), talib.CCI(s.high, s.low, s.close, bars_), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("window", [4, 5, 21])  # a whole number of four values and not
def test_a_window_is_the_same_to_the_bit_beside_whole_ones_and_beside_one_with_a_gap(window: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 600))
    torn = x.copy()
    torn[[10, 300, 599]] = np.nan
    apart = rolling.mean(torn, window) == rolling.mean(x, window)  # rows whose window holds no gap
    assert 500 < apart.sum() < 600 - window
    for one in (lambda x: rolling.standard_score(x, window), lambda x: rolling.correlation(x, y, window)):
        np.testing.assert_array_equal(one(torn)[apart], one(x)[apart])


@pytest.mark.parametrize("window", [2, 4, 7, 21])
def test_windows_are_summed_in_order_to_the_bit(window: int) -> None:
    x, y = np.random.default_rng(0).normal(100.0, 1.0, (2, 300))
    seen, beside = (sliding_window_view(z, window) for z in (x, y))

    def total(terms: np.ndarray) -> np.ndarray:
        return np.cumsum(terms, axis=1)[:, -1]  # which adds one after the other, as np.sum does not

    centre, middle = total(seen) / window, total(beside) / window
    d, e = seen - centre[:, None], beside - middle[:, None]
    spread = np.sqrt(total(d * d) / (window - 1))
    variance = total(d * d) / window
    skewness, kurtosis = total(d * d * d) / window / (variance * np.sqrt(variance)), total((d * d) * (d * d)) / window / variance**2 - 3.0
    np.testing.assert_array_equal(rolling.mean(x, window)[window - 1 :], centre)
    np.testing.assert_array_equal(rolling.deviation(x, window)[window - 1 :], spread)
    np.testing.assert_array_equal(rolling.moments(x, window)[:, window - 1 :], [centre, spread, skewness, kurtosis])
    np.testing.assert_array_equal(rolling.standard_score(x, window)[window - 1 :], (x[window - 1 :] - centre) / spread)
    together = total(d * e) / np.sqrt(total(d * d) * total(e * e))
    np.testing.assert_array_equal(rolling.correlation(x, y, window)[window - 1 :], together)


# --- polars and plain loops ----------------------------------------------------------------------------------------


def test_moments_and_correlations_equal_polars() -> None:
    panel = market()
    s = adjusted(panel)[0]
    returns = pl.Series(np.diff(np.log(s.close), prepend=np.nan)).fill_nan(None)
    frame = pl.DataFrame({"r": returns, "v": s.log_volume}).with_columns(pl.col("v").fill_nan(None))
    np.testing.assert_allclose(values(panel, "skew_63")[63:], returns.rolling_skew(63).to_numpy()[63:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(panel, "kurtosis_63")[63:], returns.rolling_kurtosis(63).to_numpy()[63:], rtol=1e-4, atol=1e-4)
    lagged = [np.corrcoef(returns[t - 20 : t + 1], returns[t - 21 : t])[0, 1] for t in range(22, ROWS)]
    np.testing.assert_allclose(values(panel, "autocorrelation_21")[22:], lagged, rtol=1e-4, atol=1e-6)
    pairs = [frame[t - 20 : t + 1].drop_nulls().select(pl.corr("r", "v")).item() for t in range(21, ROWS)]
    np.testing.assert_allclose(values(panel, "price_volume_correlation_21")[21:], pairs, rtol=1e-4, atol=1e-6)


def test_scores_and_ranks_equal_plain_loops() -> None:
    panel = plain_market()
    _, h, lo, c, v = ohlcv(panel)
    logs, ret = np.log(v), np.diff(np.log(c), prepend=np.nan)
    scores = [(logs[t] - logs[t - 62 : t + 1].mean()) / logs[t - 62 : t + 1].std(ddof=1) for t in range(62, ROWS)]
    np.testing.assert_allclose(values(panel, "volume_z_63")[62:], scores, rtol=1e-5, atol=1e-6)
    ranks = [100 * (ret[t - 100 : t] < ret[t]).mean() for t in range(101, ROWS)]
    np.testing.assert_allclose(values(panel, "ret_percent_rank_100")[101:], ranks, rtol=1e-5)
    reach = np.maximum(h[1:], c[:-1]) - np.minimum(lo[1:], c[:-1])  # true ranges of the bars from 1 on
    chop = [
        100 * np.log10(reach[t - 14 : t].sum() / (h[t - 13 : t + 1].max() - lo[t - 13 : t + 1].min())) / np.log10(14)
        for t in range(14, ROWS)
    ]
    np.testing.assert_allclose(values(panel, "choppiness_14")[14:], chop, rtol=1e-5)


def test_smoothed_rates_equal_polars() -> None:
    panel = plain_market()
    close = panel.frame["close"]
    rate = {n: 100 * (close / close.shift(n) - 1) for n in (10, 15, 20, 30)}
    expected = sum(w * rate[n].rolling_mean(m) for w, n, m in ((1, 10, 10), (2, 15, 10), (3, 20, 10), (4, 30, 15)))
    assert isinstance(expected, pl.Series)
    np.testing.assert_allclose(values(panel, "kst")[44:], expected.to_numpy()[44:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values(panel, "kst_signal")[52:], expected.rolling_mean(9).to_numpy()[52:], rtol=1e-4, atol=1e-4)


# --- StockCharts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sheet:
    """A column of a sheet in our unit, the rows to compare, what its rounding leaves, and the bars put before for its start.

    Where a sheet starts an average otherwise than TA-Lib, some still bars put before make TA-Lib start as the sheet does.
    """

    file: str
    feature: FeatureSpec
    result: Callable[[pl.DataFrame], pl.Series]
    first: int
    tolerance: float
    still: int = 0  # copies of the first bar
    inside: bool = False  # one bar in the middle of the first: the sheet counts the first bar's own range
    falls: int = 0  # bars that fall as the second does, on its volume: the sheet starts an EMA from one value


def _band(column: str) -> Sheet:
    return Sheet("bbands", BY_NAME[f"bollinger_{column}_20"], lambda f: f[BANDS[column]] / (100 if column == "width" else 1), 19, 1e-5)


BANDS = {"upper": "HighBand", "middle": "MiddleBand", "lower": "LowBand", "width": "WidthBand", "b": "PercentageBand"}
SHEETS: dict[str, Sheet] = {
    "rsi": Sheet("rsi", BY_NAME["rsi_14"], lambda f: f["RSI"], 14, 1e-4, still=14),  # starts both averages at 0
    "adx": Sheet("adx", BY_NAME["adx_14"], lambda f: f["ADX"], 250, 1e-4),  # starts its sums with 14 bars, TA-Lib with 13: it fades
    "plus_di": Sheet("adx", BY_NAME["plus_di_14"], lambda f: f["+DI14"], 250, 1e-4),
    "minus_di": Sheet("adx", BY_NAME["minus_di_14"], lambda f: f["-DI14"], 250, 1e-4),
    "atr": Sheet("atr", BY_NAME["atr_14"], lambda f: f["ATR"], 14, 1e-6, inside=True),
    "natr": Sheet("atr", BY_NAME["natr_14"], lambda f: 100 * f["ATR"] / f["Close"], 14, 1e-5, inside=True),
    "atr2": Sheet("atr2", spec("atr", 10), lambda f: f["ATR"], 10, 1e-6, inside=True),
    "cci": Sheet("cci", BY_NAME["cci_20"], lambda f: f["CCI"], 19, 1e-1),
    "mfi": Sheet("mfi", BY_NAME["mfi_14"], lambda f: f["MFI"], 14, 1e-3),
    "roc": Sheet("roc", BY_NAME["roc_12"], lambda f: f["ROC"], 12, 1e-5),
    "soo fast": Sheet("soo", BY_NAME["stochastic_fast_k_14"], lambda f: f["SO"], 15, 1e-4),
    "soo": Sheet("soo", BY_NAME["stochastic_k_14"], lambda f: f["SO_SIG"], 17, 1e-4),
    "percentr": Sheet("percentr", BY_NAME["williams_r_14"], lambda f: f["Williams_%R"], 13, 1e-4),
    "kama": Sheet("kama", BY_NAME["kama_distance_10"], lambda f: f["Close"] / f["KAMA"] - 1, 10, 1e-6),
    "ultosc": Sheet("ultosc", BY_NAME["ultimate_7_14_28"], lambda f: f["Ult_Osc"], 28, 1e-4),
    # MACD, PPO, PVO: the sheets start each EMA at the first close, TA-Lib at a mean; MACD's signal comes from before the sheet and fades
    "macd": Sheet("macd", BY_NAME["macd_level"], lambda f: f["MACD_line"], 0, 1e-6, still=40),
    "macd signal": Sheet("macd", BY_NAME["macd_signal_level"], lambda f: f["MACD_signal"], 60, 1e-6, still=40),
    "macd histogram": Sheet("macd", BY_NAME["macd_histogram_level"], lambda f: f["MACD_diff"], 60, 1e-6, still=40),
    "ppo": Sheet("ppo", BY_NAME["ppo_12_26"], lambda f: f["PPO"], 0, 1e-6, still=40),
    "pvo": Sheet("pvo", BY_NAME["pvo_12_26"], lambda f: f["PVO"], 0, 1e-5, still=40),
    **{f"bbands {column}": _band(column) for column in BANDS},
    "dc upper": Sheet("dc", BY_NAME["donchian_upper_20"], lambda f: f["upper_band"], 19, 1e-5),
    "dc middle": Sheet("dc", BY_NAME["donchian_middle_20"], lambda f: f["middle_band"], 19, 6e-3),  # two digits
    "dc lower": Sheet("dc", BY_NAME["donchian_lower_20"], lambda f: f["lower_band"], 19, 1e-5),
    "dc width": Sheet("dc", BY_NAME["donchian_width_20"], lambda f: f["dc_band_width"] / 100, 19, 1e-6),
    "dc position": Sheet("dc", BY_NAME["channel_20"], lambda f: f["dc_percentage"], 19, 1e-6),
    "dc2 upper": Sheet("dc2", BY_NAME["donchian_upper_20"], lambda f: f["upper_band"].shift(-1), 19, 1e-5),  # of the bars before
    "dc2 lower": Sheet("dc2", BY_NAME["donchian_lower_20"], lambda f: f["lower_band"].shift(-1), 19, 1e-5),
    "kc middle": Sheet("kc", BY_NAME["keltner_middle_20"], lambda f: f["middle_band"], 0, 1e-5, still=19),
    "kc reach": Sheet("kc", spec("atr", 10), lambda f: (f["upper_band"] - f["lower_band"]) / 4, 10, 1e-6, inside=True),
    "accum": Sheet("accum", BY_NAME["ad_line"], lambda f: f["ADLine"], 0, 2e-1),  # rounds each multiplier to four digits
    "obv": Sheet("obv", BY_NAME["obv"], lambda f: f["OBV"], 1, 1e-6),
    "emv": Sheet("easeofmovement", BY_NAME["emv_14"], lambda f: f["SMA_EMV"], 14, 1e-6),
    "fi": Sheet("fi", BY_NAME["force_13"], lambda f: f["FI"], 1, 1e-2, falls=12),
    "vpt": Sheet("vpt", BY_NAME["vpt"], lambda f: f["unsmoothed vpt"], 1, 1e-3),
    "vwap": Sheet("vwap", spec("vwap", 14), lambda f: f["vwap"], 13, 1e-5),
    "psar": Sheet("psar", BY_NAME["sar"], lambda f: f["psar_up"].fill_null(f["psar_down"]), 8, 1e-5),  # from its first reversal on
    "stc": Sheet("stc", BY_NAME["stc_23_50_10"], lambda f: f["stc"], 0, 1e-4, still=80),
    "stochrsi": Sheet("stochrsi", BY_NAME["stochastic_rsi_14"], lambda f: 100 * f["StochRSI(14)"], 27, 1e-4, still=14),
    "tsi": Sheet("tsi", BY_NAME["tsi_25_13"], lambda f: f["TSI"], 59, 1.2e-2),  # rounds 2/26 and 2/14 to four digits
    "ui": Sheet("ui", BY_NAME["ulcer_14"], lambda f: f["ulcer_index"] / 100, 13, 1e-7, still=13),
    "vortex plus": Sheet("vortex", BY_NAME["vortex_plus_14"], lambda f: f["+VI14"], 14, 1e-6),
    "vortex minus": Sheet("vortex", BY_NAME["vortex_minus_14"], lambda f: f["-VI14"], 14, 1e-6),
    "wma": Sheet("wma", spec("wma_distance", 9), lambda f: f["Close"] / f["WMA"] - 1, 8, 1e-6),
}


def _bars_of(sheet: Sheet, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    wanted = ("open", "high", "low", "close", "volume")
    columns = {c.lower(): frame[c].cast(pl.Float64).to_numpy() for c in frame.columns if c.lower() in wanted}
    if "high" in columns:  # sheets that leave out closes which no window needs, or all of them
        middle = (columns["high"] + columns["low"]) / 2
        columns["close"] = np.where(np.isnan(columns.get("close", np.full(frame.height, np.nan))), middle, columns.get("close", middle))
    if "close" not in columns:  # a sheet of volume alone
        columns["close"] = np.ones(frame.height)
    if sheet.inside:
        middle = (columns["high"][0] + columns["low"][0]) / 2
        columns = {c: np.r_[middle, x] for c, x in columns.items()}
    if sheet.falls:
        step = columns["close"][1] - columns["close"][0]
        before = columns["close"][0] - step * np.arange(sheet.falls, 0, -1)
        volume = np.r_[np.full(sheet.falls + 1, columns["volume"][1]), columns["volume"][1:]]
        return {"close": np.r_[before, columns["close"]], "volume": volume}
    return {c: np.r_[np.full(sheet.still, x[0]), x] for c, x in columns.items()}


@pytest.mark.parametrize("name", SHEETS)
def test_equals_the_sheets_of_stockcharts(real_data: Path, name: str) -> None:
    sheet = SHEETS[name]
    frame = pl.read_csv(real_data / "reference" / "ta_stockcharts" / f"cs-{sheet.file}.csv", infer_schema_length=None)
    ours = values(bars(None, **_bars_of(sheet, frame)), sheet.feature)[-frame.height :][sheet.first :]
    expected = sheet.result(frame).cast(pl.Float64).to_numpy()[sheet.first :]
    there = np.isfinite(expected)
    assert there.sum() >= max(1, len(expected) - 1) and np.isfinite(ours).all()
    np.testing.assert_allclose(ours[there], expected[there], atol=sheet.tolerance, rtol=1e-6)


def test_the_session_vwap_is_the_sheets_while_it_still_sums_from_the_first_bar(real_data: Path) -> None:
    frame = pl.read_csv(real_data / "reference" / "ta_stockcharts" / "cs-vwap.csv")
    columns = {c.lower(): frame[c].to_numpy() for c in ("High", "Low", "Close", "Volume")}
    ours = values(bars([5] * frame.height, **columns), "vwap_session")
    np.testing.assert_allclose(ours[:14], frame["vwap"].to_numpy()[:14], rtol=1e-6)
