"""Technical indicators of one symbol, through TA-Lib and the kernels of `rolling`, on forward-adjusted prices.

Every value at bar t follows from bars up to t, bit for bit whatever comes after. Prices are total-return prices
anchored at the symbol's first bar, so a later split or dividend changes no older value; volume is in shares of that
first bar. Halted bars repeat the last price with volume 0. Recursive indicators (EMA, RSI, ATR, ...) start from the
first bar, as TA-Lib does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import talib

from rlaif_ray.core import KEYS, PRICE_COLUMNS, Panel
from rlaif_ray.data.events import forward_adjust
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features import rolling
from rlaif_ray.features.catalog import TECHNICAL, computable

SMA, EMA = talib.MA_Type.SMA, talib.MA_Type.EMA


@dataclass(frozen=True, eq=False)
class Series:
    """One symbol's adjusted bars as contiguous arrays (T,) float64, without gaps after the first close.

    A column that the source does not have is all NaN; no formula that needs it is called. What several formulas share
    is computed once.
    """

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    @cached_property
    def log_close(self) -> np.ndarray:
        return np.log(self.close)

    @cached_property
    def log_return(self) -> np.ndarray:
        return change(self.log_close, 1)

    @cached_property
    def log_volume(self) -> np.ndarray:
        """NaN where nothing was traded: a halt is no low volume."""
        return np.log(np.where(self.volume > 0, self.volume, np.nan))

    @cached_property
    def moments_21(self) -> np.ndarray:
        return rolling.moments(self.log_return, 21)

    @cached_property
    def moments_63(self) -> np.ndarray:
        return rolling.moments(self.log_return, 63)

    @cached_property
    def macd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return talib.MACD(self.close, 12, 26, 9)

    @cached_property
    def bollinger(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Upper, middle, lower: 20-bar mean and 2 standard deviations."""
        return talib.BBANDS(self.close, 20, 2.0, 2.0)

    @cached_property
    def stochastic(self) -> tuple[np.ndarray, np.ndarray]:
        return talib.STOCH(self.high, self.low, self.close, 14, 3, SMA, 3, SMA)

    @cached_property
    def aroon(self) -> tuple[np.ndarray, np.ndarray]:
        """Down, up."""
        return talib.AROON(self.high, self.low, 25)


def change(x: np.ndarray, bars: int) -> np.ndarray:
    """(T,) x[t] - x[t - bars]; NaN for the first `bars`."""
    out = np.full(len(x), np.nan)
    out[bars:] = x[bars:] - x[:-bars]
    return out


def before(x: np.ndarray, bars: int) -> np.ndarray:
    """(T,) x[t - bars]; NaN for the first `bars`."""
    out = np.full(len(x), np.nan)
    out[bars:] = x[:-bars]
    return out


def apply(panel: Panel, names: Iterable[str] | None = None) -> Panel:
    """Technical features of one symbol's cleaned bars.

    Parameters
    ----------
    panel : bars of ONE symbol: open, high, low, close, volume (null where the source has none), and `split`, `dividend`
        where prices are as traded.
    names : features wanted; default all that the source's columns allow (see `available`).

    Returns
    -------
    Panel with the same rows and float32 columns; NaN during warm-up, where a formula is undefined (0/0 of a price that
    never moves), and where the symbol has no price (before it lists, once it is delisted). A row is known when its bar
    and all bars before it are: one that arrives late delays what follows from it.

    Raises
    ------
    DataError for several symbols, a price that is not positive, or an infinite one; MissingDataError for a feature that
    the source's columns do not allow.
    """
    if len(panel.symbols) > 1:
        raise DataError(f"technical features are computed one symbol at a time; seen {len(panel.symbols)}: {', '.join(panel.symbols)}")
    possible = available(panel)
    wanted = possible if names is None else tuple(names)
    impossible = [n for n in wanted if n not in possible]
    if impossible:
        raise MissingDataError(f"feature {impossible[0]!r} needs columns that these bars lack; available: {', '.join(possible) or 'none'}")
    series, live = adjusted(panel)
    columns = {}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for name in wanted:
            x = np.full(panel.frame.height, np.nan, np.float32)
            if live.any():
                x[live] = FORMULAS[name](series)
            x[~np.isfinite(x)] = np.nan
            columns[name] = x
    keys = panel.frame.select(KEYS).with_columns(pl.col("known_at").cum_max())
    return Panel(keys.with_columns(pl.Series(n, x) for n, x in columns.items()))


def available(bars: Panel) -> tuple[str, ...]:
    """Names of the technical features that these bars allow: those whose inputs are not wholly empty."""
    frame = bars.frame
    there = [c for c in PRICE_COLUMNS if c in frame.columns and frame[c].null_count() < frame.height]
    return computable(TECHNICAL, there)


def adjusted(panel: Panel) -> tuple[Series, np.ndarray]:
    """Forward-adjusted series over the live rows, and the mask (rows,) of those: from the first close until delisting.

    A null close between live rows is a halt: the last close stands for the whole bar and nothing is traded.
    """
    frame = panel.frame
    raw = {name: _column(frame, name) for name in PRICE_COLUMNS}
    live = np.cumsum(~np.isnan(raw["close"])) > 0
    if "delisted" in frame.columns:
        live &= ~np.logical_or.accumulate(frame["delisted"].fill_null(False).to_numpy())
    raw = {name: x[live] for name, x in raw.items()}
    silent = np.isnan(raw["close"])
    last = np.maximum.accumulate(np.where(silent, 0, np.arange(len(silent))))
    close = raw["close"][last]
    for name in ("open", "high", "low"):
        raw[name] = np.where(np.isnan(raw[name]), close, raw[name]) if not np.isnan(raw[name]).all() else raw[name]
    raw["volume"] = np.where(silent | np.isnan(raw["volume"]), 0.0, raw["volume"])
    raw["close"] = close
    _check(panel, raw)
    split = _column(frame, "split", 1.0)[live]
    split[:1] = 1.0  # an event on the first row lies before the series
    factor = forward_adjust(close, split, _column(frame, "dividend", 0.0)[live])
    prices = {name: np.ascontiguousarray(raw[name] * factor) for name in ("open", "high", "low", "close")}
    return Series(**prices, volume=np.ascontiguousarray(raw["volume"] / np.cumprod(split))), live


def _column(frame: pl.DataFrame, name: str, missing: float = np.nan) -> np.ndarray:
    if name not in frame.columns:
        return np.full(frame.height, missing)
    return frame[name].cast(pl.Float64).fill_null(missing).to_numpy().copy()


def _check(panel: Panel, raw: Mapping[str, np.ndarray]) -> None:
    for name in ("open", "high", "low", "close"):
        x = raw[name]
        bad = np.flatnonzero((x <= 0) | np.isinf(x))
        if len(bad):
            row = f"{panel.symbols[0]}: {name} is {x[bad[0]]} on live row {bad[0]}"
            raise DataError(f"{row}; expected a positive, finite price (clean the bars first)")


# --- formulas ------------------------------------------------------------------------------------------------------


def _scaled_return(bars: int) -> Callable[[Series], np.ndarray]:
    return lambda s: change(s.log_close, bars) / (s.moments_63[1] * np.sqrt(bars))


def _return(bars: int) -> Callable[[Series], np.ndarray]:
    return lambda s: s.close / before(s.close, bars) - 1.0


def _distance(average: Callable[..., np.ndarray], bars: int) -> Callable[[Series], np.ndarray]:
    return lambda s: s.close / average(s.close, bars) - 1.0


def _within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """0 at `low`, 1 at `high`."""
    return (x - low) / (high - low)


def _parkinson(s: Series) -> np.ndarray:
    """Parkinson (1980): variance = mean(ln(H/L)^2) / (4 ln 2)."""
    return np.sqrt(rolling.mean(np.log(s.high / s.low) ** 2, 21) / (4.0 * np.log(2.0)))


def _garman_klass(s: Series) -> np.ndarray:
    """Garman and Klass (1980), their practical form: variance = mean(ln(H/L)^2 / 2 - (2 ln 2 - 1) ln(C/O)^2)."""
    x = 0.5 * np.log(s.high / s.low) ** 2 - (2.0 * np.log(2.0) - 1.0) * np.log(s.close / s.open) ** 2
    return np.sqrt(np.maximum(rolling.mean(x, 21), 0.0))


def _rogers_satchell_terms(s: Series) -> np.ndarray:
    up, down, move = np.log(s.high / s.open), np.log(s.low / s.open), np.log(s.close / s.open)
    return up * (up - move) + down * (down - move)


def _rogers_satchell(s: Series) -> np.ndarray:
    """Rogers and Satchell (1991): variance = mean(u (u - c) + d (d - c)), u, d, c = ln of high, low, close over open."""
    return np.sqrt(np.maximum(rolling.mean(_rogers_satchell_terms(s), 21), 0.0))


def _yang_zhang(s: Series) -> np.ndarray:
    """Yang and Zhang (2000) eq. 7: var(ln(O/C before)) + k var(ln(C/O)) + (1 - k) Rogers-Satchell, k = 0.34/(1.34 + (n+1)/(n-1))."""
    n = 21
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    overnight = rolling.moments(np.log(s.open) - before(s.log_close, 1), n)[1] ** 2
    intraday = rolling.moments(np.log(s.close / s.open), n)[1] ** 2
    return np.sqrt(overnight + k * intraday + (1.0 - k) * np.maximum(rolling.mean(_rogers_satchell_terms(s), n), 0.0))


def _correlation(x: np.ndarray, y: np.ndarray, window: int, first: int) -> np.ndarray:
    """Rolling correlation of what there is from row `first` on, where the first pair can be whole."""
    return np.concatenate([np.full(min(first, len(x)), np.nan), rolling.correlation(x[first:], y[first:], window)])


def _ulcer(s: Series) -> np.ndarray:
    """Martin (1987): root mean square drawdown from the 14-bar high, over 14 bars."""
    return np.sqrt(rolling.mean((s.close / talib.MAX(s.close, 14) - 1.0) ** 2, 14))


def _close_location(s: Series) -> np.ndarray:
    return (2.0 * s.close - s.high - s.low) / (s.high - s.low)


def _money_flow(s: Series) -> np.ndarray:
    """Chaikin: volume placed by the close within its range, over volume; a bar without range counts 0 (as in TA-Lib's AD)."""
    flow = np.where(s.high > s.low, _close_location(s), 0.0) * s.volume
    return rolling.mean(flow, 21) / rolling.mean(s.volume, 21)


def _obv_slope(s: Series) -> np.ndarray:
    return change(talib.OBV(s.close, s.volume), 21) / (21.0 * rolling.mean(s.volume, 21))


FORMULAS: dict[str, Callable[[Series], np.ndarray]] = {
    **{f"ret_{n}": _return(n) for n in (1, 2, 5, 10, 21, 63, 126, 252)},
    "momentum_252_21": lambda s: before(s.close, 21) / before(s.close, 252) - 1.0,
    **{f"ret_{n}_scaled": _scaled_return(n) for n in (1, 5, 21, 63)},
    "gap_1": lambda s: s.open / before(s.close, 1) - 1.0,
    "intraday_1": lambda s: s.close / s.open - 1.0,
    "max_ret_21": lambda s: np.expm1(talib.MAX(s.log_return, 21)),
    "min_ret_21": lambda s: np.expm1(talib.MIN(s.log_return, 21)),
    "up_share_21": lambda s: rolling.mean(np.where(np.isnan(s.log_return), np.nan, s.log_return > 0), 21),
    "vol_5": lambda s: rolling.moments(s.log_return, 5)[1],
    "vol_21": lambda s: s.moments_21[1],
    "vol_63": lambda s: s.moments_63[1],
    "vol_ewma": lambda s: rolling.ewma_volatility(s.log_return, 0.94, 21),
    "downside_vol_21": lambda s: np.sqrt(rolling.mean(np.minimum(s.log_return, 0.0) ** 2, 21)),
    "parkinson_21": _parkinson,
    "garman_klass_21": _garman_klass,
    "rogers_satchell_21": _rogers_satchell,
    "yang_zhang_21": _yang_zhang,
    "vol_ratio_5_63": lambda s: rolling.moments(s.log_return, 5)[1] / s.moments_63[1],
    "vol_ratio_21_252": lambda s: s.moments_21[1] / rolling.moments(s.log_return, 252)[1],
    "skew_63": lambda s: s.moments_63[2],
    "kurtosis_63": lambda s: s.moments_63[3],
    "autocorrelation_21": lambda s: _correlation(s.log_return, before(s.log_return, 1), 21, first=2),
    "natr_14": lambda s: talib.NATR(s.high, s.low, s.close, 14),
    "atr_ratio_14_63": lambda s: talib.ATR(s.high, s.low, s.close, 14) / talib.ATR(s.high, s.low, s.close, 63),
    "bollinger_width_20": lambda s: (s.bollinger[0] - s.bollinger[2]) / s.bollinger[1],
    "range_1": lambda s: (s.high - s.low) / s.close,
    "close_location_1": _close_location,
    "channel_20": lambda s: _within(s.close, talib.MIN(s.low, 20), talib.MAX(s.high, 20)),
    "channel_252": lambda s: _within(s.close, talib.MIN(s.close, 252), talib.MAX(s.close, 252)),
    "drawdown_252": lambda s: s.close / talib.MAX(s.close, 252) - 1.0,
    "drawup_252": lambda s: s.close / talib.MIN(s.close, 252) - 1.0,
    "ulcer_14": _ulcer,
    "volume_z_21": lambda s: rolling.standard_score(s.log_volume, 21),
    "volume_z_63": lambda s: rolling.standard_score(s.log_volume, 63),
    "volume_ratio_5_63": lambda s: np.log(rolling.mean(s.volume, 5) / rolling.mean(s.volume, 63)),
    "dollar_volume_ratio_5_63": lambda s: np.log(rolling.mean(s.close * s.volume, 5) / rolling.mean(s.close * s.volume, 63)),
    "pvo_12_26": lambda s: talib.PPO(s.volume, 12, 26, EMA),
    "obv_slope_21": _obv_slope,
    "mfi_14": lambda s: talib.MFI(s.high, s.low, s.close, s.volume, 14),
    "cmf_21": _money_flow,
    "adosc_3_10": lambda s: talib.ADOSC(s.high, s.low, s.close, s.volume, 3, 10) / rolling.mean(s.volume, 10),
    "price_volume_correlation_21": lambda s: _correlation(s.log_return, s.log_volume, 21, first=1),
    **{f"sma_distance_{n}": _distance(talib.SMA, n) for n in (5, 10, 20, 30, 50, 60, 200)},
    **{f"ema_distance_{n}": _distance(talib.EMA, n) for n in (12, 26, 50)},
    "dema_distance_20": _distance(talib.DEMA, 20),
    "tema_distance_20": _distance(talib.TEMA, 20),
    "wma_distance_20": _distance(talib.WMA, 20),
    "kama_distance_10": _distance(talib.KAMA, 10),
    "sma_cross_50_200": lambda s: talib.SMA(s.close, 50) / talib.SMA(s.close, 200) - 1.0,
    "macd": lambda s: s.macd[0] / s.close,
    "macd_signal": lambda s: s.macd[1] / s.close,
    "macd_histogram": lambda s: s.macd[2] / s.close,
    "ppo_12_26": lambda s: talib.PPO(s.close, 12, 26, EMA),
    "adx_14": lambda s: talib.ADX(s.high, s.low, s.close, 14),
    "adxr_14": lambda s: talib.ADXR(s.high, s.low, s.close, 14),
    "dx_30": lambda s: talib.DX(s.high, s.low, s.close, 30),
    "di_spread_14": lambda s: talib.PLUS_DI(s.high, s.low, s.close, 14) - talib.MINUS_DI(s.high, s.low, s.close, 14),
    "aroon_up_25": lambda s: s.aroon[1],
    "aroon_down_25": lambda s: s.aroon[0],
    "aroon_oscillator_25": lambda s: s.aroon[1] - s.aroon[0],
    "trix_15": lambda s: talib.TRIX(s.close, 15),
    "linear_slope_21": lambda s: talib.LINEARREG_SLOPE(s.close, 21) / s.close,
    "sar_distance": lambda s: s.close / talib.SAR(s.high, s.low, 0.02, 0.2) - 1.0,
    "efficiency_10": lambda s: np.abs(change(s.close, 10)) / (10.0 * rolling.mean(np.abs(change(s.close, 1)), 10)),
    "rsi_2": lambda s: talib.RSI(s.close, 2),
    "rsi_14": lambda s: talib.RSI(s.close, 14),
    "rsi_30": lambda s: talib.RSI(s.close, 30),
    "stochastic_rsi_14": lambda s: talib.STOCHRSI(s.close, 14, 14, 1, SMA)[0],
    "stochastic_k_14": lambda s: s.stochastic[0],
    "stochastic_d_14": lambda s: s.stochastic[1],
    "williams_r_14": lambda s: talib.WILLR(s.high, s.low, s.close, 14),
    "cci_14": lambda s: talib.CCI(s.high, s.low, s.close, 14),
    "cci_20": lambda s: talib.CCI(s.high, s.low, s.close, 20),
    "cci_30": lambda s: talib.CCI(s.high, s.low, s.close, 30),
    "cmo_14": lambda s: talib.CMO(s.close, 14),
    "roc_12": lambda s: talib.ROC(s.close, 12),
    "ultimate_7_14_28": lambda s: talib.ULTOSC(s.high, s.low, s.close, 7, 14, 28),
    "balance_of_power_1": lambda s: talib.BOP(s.open, s.high, s.low, s.close),
    "bollinger_b_20": lambda s: _within(s.close, s.bollinger[2], s.bollinger[0]),
}
