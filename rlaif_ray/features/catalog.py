"""Every feature by name: its inputs, its look-back, what it says, and which of them a policy sees unless told.

Pure data, without TA-Lib, so that knobs can be checked against it cheaply. The formulas are in `technical.py`, under
the same names. Every price feature is free of scale: multiplying all prices or volumes of a symbol by a constant
changes nothing, which is why vendor-adjusted series may be used too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif_ray.errors import MissingDataError, did_you_mean

Kind = Literal["return", "volatility", "volume", "trend", "oscillator", "range", "cross_section", "fact"]


@dataclass(frozen=True)
class FeatureSpec:
    """One feature. `look_back_bars` b: with unbroken data it is first defined on the symbol's row b (counting from 0)."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]  # bar columns; of a cross-sectional feature, the feature that is compared
    look_back_bars: int
    help: str


_C, _CV = ("close",), ("close", "volume")
_HL, _HLC, _OHLC, _HLCV = ("high", "low"), ("high", "low", "close"), ("open", "high", "low", "close"), ("high", "low", "close", "volume")


def _rows(kind: Kind, *rows: tuple[str, tuple[str, ...], int, str]) -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(name, kind, inputs, look_back, text) for name, inputs, look_back, text in rows)


FEATURES: tuple[FeatureSpec, ...] = (
    *_rows("return", *[(f"ret_{n}", _C, n, f"simple total return over {n} bars") for n in (1, 2, 5, 10, 21, 63, 126, 252)]),
    *_rows(
        "return",
        ("momentum_252_21", _C, 252, "return from 252 to 21 bars ago: 12-1 momentum (Jegadeesh and Titman 1993)"),
        *[(f"ret_{n}_scaled", _C, 63, f"{n}-bar log return over its 63-bar volatility x sqrt({n})") for n in (1, 5, 21, 63)],
        ("gap_1", ("open", "close"), 1, "open over the close before, less 1"),
        ("intraday_1", ("open", "close"), 0, "close over open, less 1"),
        ("max_ret_21", _C, 21, "largest 1-bar return of 21 (Bali, Cakici and Whitelaw 2011)"),
        ("min_ret_21", _C, 21, "smallest 1-bar return of 21"),
        ("up_share_21", _C, 21, "share of rising bars among 21"),
    ),
    *_rows("volatility", *[(f"vol_{n}", _C, n, f"standard deviation of {n} log returns, per bar") for n in (5, 21, 63)]),
    *_rows(
        "volatility",
        ("vol_ewma", _C, 21, "RiskMetrics volatility, decay 0.94, started from the first 21 bars"),
        ("downside_vol_21", _C, 21, "root mean square of the falling log returns among 21"),
        ("parkinson_21", _HL, 20, "range volatility, 21 bars (Parkinson 1980)"),
        ("garman_klass_21", _OHLC, 20, "open-high-low-close volatility, 21 bars (Garman and Klass 1980)"),
        ("rogers_satchell_21", _OHLC, 20, "drift-free range volatility, 21 bars (Rogers and Satchell 1991)"),
        ("yang_zhang_21", _OHLC, 21, "overnight, open-close and range volatility, 21 bars (Yang and Zhang 2000)"),
        ("vol_ratio_5_63", _C, 63, "vol_5 over vol_63"),
        ("vol_ratio_21_252", _C, 252, "vol_21 over the 252-bar volatility"),
        ("skew_63", _C, 63, "skewness of 63 log returns"),
        ("kurtosis_63", _C, 63, "excess kurtosis of 63 log returns"),
        ("autocorrelation_21", _C, 22, "correlation of 21 log returns with those a bar earlier"),
        ("natr_14", _HLC, 14, "average true range, percent of the close (Wilder 1978)"),
        ("atr_ratio_14_63", _HLC, 63, "ATR(14) over ATR(63)"),
        ("bollinger_width_20", _C, 19, "Bollinger upper less lower band, over the middle"),
    ),
    *_rows(
        "range",
        ("range_1", _HLC, 0, "high less low, over the close"),
        ("close_location_1", _HLC, 0, "where the close lies between low (-1) and high (1)"),
        ("channel_20", _HLC, 19, "where the close lies between the 20-bar low (0) and high (1) (Donchian)"),
        ("channel_252", _C, 251, "where the close lies between its 252-bar low (0) and high (1)"),
        ("drawdown_252", _C, 251, "close over its 252-bar high, less 1"),
        ("drawup_252", _C, 251, "close over its 252-bar low, less 1"),
        ("ulcer_14", _C, 26, "root mean square of 14 drawdowns from the 14-bar high (Martin 1987)"),
    ),
    *_rows(
        "volume",
        ("volume_z_21", ("volume",), 20, "log volume, standard scores over 21 bars; undefined on a halted bar"),
        ("volume_z_63", ("volume",), 62, "log volume, standard scores over 63 bars; undefined on a halted bar"),
        ("volume_ratio_5_63", ("volume",), 62, "log of mean volume over 5 bars to that over 63"),
        ("dollar_volume_ratio_5_63", _CV, 62, "log of mean close x volume over 5 bars to that over 63"),
        ("pvo_12_26", ("volume",), 25, "percentage volume oscillator: EMA(12) over EMA(26), percent"),
        ("obv_slope_21", _CV, 21, "21-bar change of on-balance volume over the volume of those bars"),
        ("mfi_14", _HLCV, 14, "money flow index"),
        ("cmf_21", _HLCV, 20, "Chaikin money flow, 21 bars"),
        ("adosc_3_10", _HLCV, 9, "Chaikin oscillator over mean volume of 10 bars"),
        ("price_volume_correlation_21", _CV, 21, "correlation of 21 log returns with log volume"),
    ),
    *_rows("trend", *[(f"sma_distance_{n}", _C, n - 1, f"close over its {n}-bar mean, less 1") for n in (5, 10, 20, 30, 50, 60, 200)]),
    *_rows("trend", *[(f"ema_distance_{n}", _C, n - 1, f"close over its EMA({n}), less 1") for n in (12, 26, 50)]),
    *_rows(
        "trend",
        ("dema_distance_20", _C, 38, "close over its double EMA(20), less 1"),
        ("tema_distance_20", _C, 57, "close over its triple EMA(20), less 1"),
        ("wma_distance_20", _C, 19, "close over its linearly weighted 20-bar mean, less 1"),
        ("kama_distance_10", _C, 10, "close over Kaufman's adaptive mean(10, 2, 30), less 1"),
        ("sma_cross_50_200", _C, 199, "50-bar mean over 200-bar mean, less 1"),
        ("macd", _C, 33, "EMA(12) less EMA(26), over the close"),
        ("macd_signal", _C, 33, "EMA(9) of MACD, over the close"),
        ("macd_histogram", _C, 33, "MACD less its signal, over the close"),
        ("ppo_12_26", _C, 25, "EMA(12) over EMA(26), less 1, percent"),
        ("adx_14", _HLC, 27, "average directional index (Wilder 1978)"),
        ("adxr_14", _HLC, 40, "mean of ADX now and 13 bars ago"),
        ("dx_30", _HLC, 30, "directional movement index, 30 bars"),
        ("di_spread_14", _HLC, 14, "+DI less -DI"),
        ("aroon_up_25", _HL, 25, "how lately the 25-bar high was, 0 to 100"),
        ("aroon_down_25", _HL, 25, "how lately the 25-bar low was, 0 to 100"),
        ("aroon_oscillator_25", _HL, 25, "Aroon up less Aroon down"),
        ("trix_15", _C, 43, "1-bar change of the triple EMA(15), percent"),
        ("linear_slope_21", _C, 20, "slope a bar of the line through 21 closes, over the close"),
        ("sar_distance", _HLC, 1, "close over the parabolic stop, less 1 (0.02, 0.2)"),
        ("efficiency_10", _C, 10, "net over summed absolute change of 10 bars (Kaufman)"),
    ),
    *_rows(
        "oscillator",
        ("rsi_2", _C, 2, "relative strength index, 2 bars"),
        ("rsi_14", _C, 14, "relative strength index, 14 bars (Wilder 1978)"),
        ("rsi_30", _C, 30, "relative strength index, 30 bars"),
        ("stochastic_rsi_14", _C, 27, "where RSI(14) lies within its own 14 bars, 0 to 100"),
        ("stochastic_k_14", _HLC, 17, "slow stochastic %K: 14 bars, smoothed over 3 (Lane)"),
        ("stochastic_d_14", _HLC, 17, "3-bar mean of the slow %K"),
        ("williams_r_14", _HLC, 13, "Williams %R, -100 to 0"),
        ("cci_14", _HLC, 13, "commodity channel index, 14 bars"),
        ("cci_20", _HLC, 19, "commodity channel index, 20 bars"),
        ("cci_30", _HLC, 29, "commodity channel index, 30 bars"),
        ("cmo_14", _C, 14, "Chande momentum oscillator, Wilder's smoothing as in TA-Lib"),
        ("roc_12", _C, 12, "rate of change over 12 bars, percent"),
        ("ultimate_7_14_28", _HLC, 28, "ultimate oscillator (Williams 1985)"),
        ("balance_of_power_1", _OHLC, 0, "close less open, over high less low"),
        ("bollinger_b_20", _C, 19, "where the close lies between the Bollinger bands (0 and 1)"),
    ),
    *_rows(
        "cross_section",
        ("ret_1_excess", ("ret_1",), 1, "ret_1 less its mean over the symbols of the moment"),
        ("ret_5_excess", ("ret_5",), 5, "ret_5 less its mean over the symbols of the moment"),
        ("ret_1_scaled_rank", ("ret_1_scaled",), 63, "rank of ret_1_scaled among the symbols of the moment, -0.5 to 0.5"),
        ("ret_5_scaled_rank", ("ret_5_scaled",), 63, "rank of ret_5_scaled among the symbols of the moment, -0.5 to 0.5"),
        ("ret_21_rank", ("ret_21",), 21, "rank of ret_21 among the symbols of the moment, -0.5 to 0.5"),
        ("volume_z_21_rank", ("volume_z_21",), 20, "rank of volume_z_21 among the symbols of the moment, -0.5 to 0.5"),
    ),
    *_rows(
        "fact",
        ("filing_score", ("filing_score",), 0, "score of the last filing that is known"),
        ("filing_age_bars", ("filing_score",), 0, "bars since that filing became known"),
        ("news_score", ("news_score",), 0, "score of the last news that is known"),
        ("news_age_bars", ("news_score",), 0, "bars since that news became known"),
    ),
)

BY_NAME: dict[str, FeatureSpec] = {spec.name: spec for spec in FEATURES}
TECHNICAL: tuple[str, ...] = tuple(s.name for s in FEATURES if s.kind not in ("cross_section", "fact"))
CROSS_SECTION: tuple[str, ...] = tuple(s.name for s in FEATURES if s.kind == "cross_section")

DEFAULT_OBSERVATION: tuple[str, ...] = (
    "ret_1_scaled",
    "ret_5_scaled_rank",
    "ret_21_scaled",
    "ret_63_scaled",
    "rsi_14",
    "bollinger_b_20",
    "volume_z_63",
    "volume_ratio_5_63",
    "vol_21",
    "atr_ratio_14_63",
    "filing_score",
    "filing_age_bars",
    "news_score",
    "news_age_bars",
)
"""What a policy sees unless told otherwise, where the source has the inputs; all defined after 63 bars (facts: once one is known)."""


def spec(name: str) -> FeatureSpec:
    """The feature of that name. Raises `MissingDataError` with the nearest name."""
    if name not in BY_NAME:
        raise MissingDataError(f"no feature {name!r} among the {len(FEATURES)} of the catalogue.{did_you_mean(name, BY_NAME)}")
    return BY_NAME[name]


def warmup_bars(names: Iterable[str] | None = None) -> int:
    """Leading rows of a symbol on which some of `names` (None: of all) are not yet defined."""
    return max((s.look_back_bars for s in (FEATURES if names is None else map(spec, names))), default=0)


def computable(names: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` whose inputs are all among `columns`, in the order given."""
    return tuple(n for n in names if set(spec(n).inputs) <= set(columns))
