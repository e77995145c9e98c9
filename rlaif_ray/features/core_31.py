"""core_31: a small set for serving and for quick models, 31 columns of seven families, all free of scale.

Each formula is a step of `core_steps` from one bar to the next, so that a history and a stream (`streaming.CoreStream`) go
through the same arithmetic and say the same, bit for bit. Recursive indicators start from the first bar, as TA-Lib does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Panel
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.features import core_steps as steps
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Parameter
from rlaif_ray.features.series import Series, adjusted, before, columns_of, of_bars
from rlaif_ray.labels import closes_at, forward_returns


@dataclass(frozen=True)
class Step:
    """A formula of `core_steps` by its number; how many bars before it is defined; how many numbers it keeps from bar to bar."""

    code: int
    look_back: Callable[..., int]
    slots: Callable[..., int] = lambda *_: 0

    def __call__(self, s: Series, *parameters: Parameter) -> np.ndarray:
        bars = np.stack([s.open, s.high, s.low, s.close, s.volume, s.times.astype(np.int64).astype(np.float64)])
        return steps.over(self.code, bars, self.look_back(*parameters), packed(parameters), self.slots(*parameters))


def packed(parameters: Sequence[Parameter]) -> np.ndarray:
    """(3,) float64: how a kernel takes them."""
    values = np.zeros(3)
    values[: len(parameters)] = parameters
    return values


def step_of(spec: FeatureSpec) -> Step:
    """Raises `ConfigError` for a feature of another set."""
    if not isinstance(spec.formula, Step):
        raise ConfigError(f"feature {spec.name!r} is none of core_31; expected columns of core_31: only they have a streaming form")
    return spec.formula


C, HLC, V = ("close",), ("high", "low", "close"), ("volume",)


def _momentum() -> tuple[Family, ...]:
    own, lagged = Step(steps.MOMENTUM, lambda n: n), Step(steps.RETURN, lambda k: k)
    return (
        Family("core_mom_{bars}", own, C, own.look_back, "ratio", "return", "Return over {bars} bars: close / close {bars} bars ago - 1.",
               ("bars",), ((5,), (10,), (20,), (50,))),
        Family("core_ret_{lag}", lagged, C, lagged.look_back, "ratio", "return", "Return of one bar: {lag} counting back from the newest.",
               ("lag",), ((1,), (2,), (3,), (4,), (5,))),
    )  # fmt: skip


def _volatility() -> tuple[Family, ...]:
    atr = Step(steps.ATR_RATIO, lambda n: n, lambda n: 1)
    position, width = (Step(code, lambda n, _: n - 1) for code in (steps.BAND_POSITION, steps.BAND_WIDTH))
    within = Step(steps.RANGE_POSITION, lambda n: n - 1)
    bollinger = "Bollinger (2001)"
    return (
        Family("core_atr_ratio", atr, HLC, atr.look_back, "ratio", "volatility", "Average true range of {bars} bars over the close.",
               ("bars",), ((14,),), "Wilder (1978), ATR"),
        Family("core_bb_position", position, C, position.look_back, "ratio", "oscillator",
               "Close in the Bollinger bands ({bars} bars, {deviations} deviations): 0 lower, 1 upper, outside beyond.",
               ("bars", "deviations"), ((20, 2.0),), f"{bollinger}, %b"),
        Family("core_bb_width", width, C, width.look_back, "ratio", "volatility",
               "Width of the Bollinger bands ({bars} bars, {deviations} deviations) over their middle.",
               ("bars", "deviations"), ((20, 2.0),), f"{bollinger}, BandWidth"),
        Family("core_range_position", within, HLC, within.look_back, "ratio", "range",
               "Close between the lowest low (0) and the highest high (1) of {bars} bars.", ("bars",), ((20,),), "Lane's raw %K / 100"),
    )  # fmt: skip


def _volume() -> tuple[Family, ...]:
    ratio = Step(steps.VOLUME_RATIO, lambda short, long: max(short, long) - 1)
    trend, spike = Step(steps.VOLUME_TREND, lambda n: n - 1), Step(steps.VOLUME_SPIKE, lambda n: n)
    return (
        Family("core_vol_ratio_{short}_{long}", ratio, V, ratio.look_back, "ratio", "volume",
               "Mean volume of {short} bars over that of {long}; a halt trades 0.", ("short", "long"), ((5, 20),)),
        Family("core_vol_trend", trend, V, trend.look_back, "rate", "volume",
               "Least-squares slope of volume over {bars} bars, a bar, over their mean.", ("bars",), ((20,),)),
        Family("core_vol_spike", spike, V, spike.look_back, "ratio", "volume", "Volume over the mean of the {bars} bars before it.",
               ("bars",), ((20,),)),
    )  # fmt: skip


def _structure() -> tuple[Family, ...]:
    highs, lows = Step(steps.HIGHER_HIGHS, lambda n: n), Step(steps.LOWER_LOWS, lambda n: n)
    swing = Step(steps.SWING_POSITION, lambda _, n: n - 1)
    return (
        Family("core_higher_highs", highs, ("high", "close"), highs.look_back, "ratio", "structure",
               "Share of the last {bars} bars whose high is above the bar's before.", ("bars",), ((10,),)),
        Family("core_lower_lows", lows, ("low", "close"), lows.look_back, "ratio", "structure",
               "Share of the last {bars} bars whose low is below the bar's before.", ("bars",), ((10,),)),
        Family("core_swing_position", swing, HLC, swing.look_back, "ratio", "structure",
               "Close between the last swing low (0) and high (1): beyond {sides} bars on both sides, within {bars}, else the extreme.",
               ("sides", "bars"), ((2, 20),), "Williams (1995), fractals"),
    )  # fmt: skip


def _indicator() -> tuple[Family, ...]:
    strength, slope = Step(steps.RSI_NORM, lambda n: n, lambda n: 2), Step(steps.RSI_SLOPE, lambda n, k: n + k, lambda n, k: 2 + k)
    line = Step(steps.MACD_NORM, lambda fast, slow: max(fast, slow) - 1, lambda *_: 2)
    histogram = Step(steps.MACD_HISTOGRAM, lambda fast, slow, signal: max(fast, slow) + signal - 2, lambda *_: 3)
    adx, direction = Step(steps.ADX_NORM, lambda n: 2 * n - 1, lambda n: 3), Step(steps.ADX_DIRECTION, lambda n: n, lambda n: 2)
    wilder, appel = "Wilder (1978)", "Appel (1979)"
    return (
        Family("core_rsi_norm", strength, C, strength.look_back, "score", "oscillator", "RSI of {bars} bars from -1 (0) to 1 (100).",
               ("bars",), ((14,),), f"{wilder}, RSI"),
        Family("core_rsi_slope", slope, C, slope.look_back, "rate", "oscillator",
               "Change of RSI / 100 ({bars} bars) over {lag} bars, a bar.", ("bars", "lag"), ((14, 5),), f"{wilder}, RSI"),
        Family("core_macd_norm", line, C, line.look_back, "ratio", "trend", "MACD line ({fast}, {slow}) over the close.",
               ("fast", "slow"), ((12, 26),), appel),
        Family("core_macd_hist", histogram, C, histogram.look_back, "ratio", "trend",
               "MACD line less its signal ({fast}, {slow}, {signal}), over the close.", ("fast", "slow", "signal"), ((12, 26, 9),), appel),
        Family("core_adx_norm", adx, HLC, adx.look_back, "ratio", "trend", "ADX of {bars} bars / 100: how one-sided moves are, 0 to 1.",
               ("bars",), ((14,),), f"{wilder}, ADX"),
        Family("core_adx_direction", direction, HLC, direction.look_back, "score", "trend",
               "(+DI - -DI) / (+DI + -DI) of {bars} bars: -1 all down, 1 all up.", ("bars",), ((14,),), f"{wilder}, DI"),
    )  # fmt: skip


def _time() -> tuple[Family, ...]:
    sine, cosine, day = (Step(code, lambda: 0) for code in (steps.HOUR_SIN, steps.HOUR_COS, steps.DAY_OF_WEEK))
    hour = "of the time of day (UTC) at which the bar ends, 24 hours a turn; of daily bars the session's close"
    return (
        Family("core_hour_sin", sine, C, sine.look_back, "score", "time", f"Sine {hour}."),
        Family("core_hour_cos", cosine, C, cosine.look_back, "score", "time", f"Cosine {hour}."),
        Family("core_day_of_week", day, C, day.look_back, "days", "time", "Day (UTC) in which the bar ends: 0 Monday to 6 Sunday."),
    )


def _regime() -> tuple[Family, ...]:
    trend, choppy = Step(steps.TREND_STRENGTH, lambda n: n - 1), Step(steps.CHOPPINESS, lambda n: n)
    reversion = Step(steps.MEAN_REVERSION, lambda n: n)
    return (
        Family("core_trend_strength", trend, C, trend.look_back, "score", "regime",
               "Correlation of the close with time over {bars} bars: -1 falls, 1 rises in a straight line.", ("bars",), ((20,),),
               "Ehlers (2020), Correlation as a trend indicator"),
        Family("core_choppiness", choppy, HLC, choppy.look_back, "ratio", "regime",
               "Choppiness index / 100: log of the true ranges' sum over the whole range of {bars} bars, base {bars}.", ("bars",), ((14,),),
               "Dreiss, Choppiness Index"),
        Family("core_mean_reversion", reversion, C, reversion.look_back, "rate", "regime",
               "Share of the distance from the mean that goes in a bar: minus the slope of {bars} changes on the closes before.",
               ("bars",), ((50,),), "Chan (2013) ch. 2, Ornstein-Uhlenbeck"),
    )  # fmt: skip


CORE_31 = FeatureSet("core_31", _momentum() + _volatility() + _volume() + _structure() + _indicator() + _time() + _regime(), of_bars)
COLUMNS: tuple[FeatureSpec, ...] = tuple(spec for family in CORE_31.families for spec in family.specs())
"""The 31 columns with the catalogue's parameters, in their order."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Samples with closed labels, by symbol and time. One may be learnt from by what is fitted at or after its `closed_at`."""

    names: tuple[str, ...]  # (F,)
    features: np.ndarray  # (N,F) float32, all finite
    labels: np.ndarray  # (N,) int8: 1 above the threshold, -1 below minus it, else 0
    symbols: np.ndarray  # (N,) str
    times: np.ndarray  # (N,) datetime64[us]: end of the bar that the features are of
    known_at: np.ndarray  # (N,) datetime64[us]: when they were known
    closed_at: np.ndarray  # (N,) datetime64[us]: when the label was


def prepare_training_data(panel: Panel, horizon: int, threshold: float, columns: Sequence[FeatureSpec] = COLUMNS) -> TrainingData:
    """Samples of core_31 and the direction of what followed.

    Parameters
    ----------
    panel : cleaned bars of one or several symbols.
    horizon : bars from the close of a row to that which its label closes on.
    threshold : simple total return over them beyond which the label is 1 or -1.

    Rows whose features are not all defined, or whose label has not closed by the last bar, are left out; so are the last
    `horizon` bars before a delisting. Raises `ConfigError` for a horizon under 1 or a negative threshold, `MissingDataError` for
    columns that the bars lack.
    """
    if horizon < 1 or not threshold >= 0.0:
        raise ConfigError(f"horizon {horizon}, threshold {threshold}; expected 1 bar or more and a return of 0 or more")
    lacking = {c for spec in columns for c in spec.inputs} - columns_of(panel.frame)
    if lacking and panel.frame.height:
        raise MissingDataError(f"the bars lack {', '.join(sorted(lacking))}; core_31 needs them: leave out the columns made of them")
    symbols = [_samples(Panel(part), horizon, threshold, columns) for part in panel.frame.partition_by("symbol", maintain_order=True)]
    empty = np.empty((0, len(columns)), np.float32), *(np.empty(0, t) for t in ("i1", "U1", "M8[us]", "M8[us]", "M8[us]"))
    parts = [np.concatenate(p) for p in zip(empty, *symbols, strict=True)]
    return TrainingData(tuple(spec.name for spec in columns), *parts)


def _samples(bars: Panel, horizon: int, threshold: float, columns: Sequence[FeatureSpec]) -> tuple[np.ndarray, ...]:
    """Of one symbol, in the order of the fields of `TrainingData`."""
    names = [spec.name for spec in columns]
    computed = of_bars({"bars": bars.frame}, columns).frame
    series, live = adjusted(bars)
    if live.any() and set(names) - set(computed.columns):
        raise DataError(f"{bars.symbols[0]} lacks columns that other symbols have; expected open, high, low, close and volume of each")
    ends = closes_at(len(series.close), (horizon,))[:, 0]
    forward = forward_returns((series.close / before(series.close, 1) - 1.0)[:, None], (horizon,))[:, 0, 0]
    known_at, times = (computed[c].dt.replace_time_zone(None).to_numpy().astype("M8[us]")[live] for c in ("known_at", "timestamp"))
    x = computed.select(names).to_numpy()[live] if live.any() else np.empty((0, len(names)), np.float32)
    kept = np.isfinite(x).all(axis=1) & (ends >= 0) & np.isfinite(forward)
    label = (forward > threshold).astype(np.int8) - (forward < -threshold).astype(np.int8)
    symbol = np.full(int(kept.sum()), bars.symbols[0] if bars.symbols else "")
    return x[kept], label[kept], symbol, times[kept], known_at[kept], known_at[ends[kept]]
