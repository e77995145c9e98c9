"""The market as a thesis sees it: ten features of a symbol, and the decision that its outcome would have asked for.

A feature that the data has nothing for is NaN, which the policy masks: it is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlaif_ray.config_thesis import FEATURES
from rlaif_ray.core import Cube
from rlaif_ray.data.events import forward_adjust
from rlaif_ray.data.synthetic import INFORMATION_COEFFICIENT, SyntheticSource
from rlaif_ray.errors import ConfigError, DataError, did_you_mean
from rlaif_ray.features import rolling
from rlaif_ray.feedback.context import FRESH_BARS
from rlaif_ray.feedback.yardstick import Yardstick

PRICE_SUBSET = ("f_momentum", "vol", "mom10", "mom30", "rsi", "volume_ratio")  # what bars alone say

SOURCES: Mapping[str, str] = {
    "f_quality": "filing_score", "f_sentiment": "news_score", "f_insider": "insider_purchase_ratio_90d", "f_value": "earnings_yield",
    "rsi": "rsi_14", "volume_ratio": "volume_ratio_5_63",
}  # fmt: skip
"""The usual column of the cube by feature; the other features are made from its total returns."""

PLANTED = "planted_insider"
VOL_BARS, FAR, NEAR = 21, 252, 21  # of the volatility; 12-1 momentum, Jegadeesh and Titman (1993)
OPEN = -1  # in place of a class: the outcome has not closed, or there is none


def sources_of(columns: Mapping[str, str], planted: bool = False) -> dict[str, str]:
    """The usual columns, with `columns` laid over them; the planted insider in place of what insiders report."""
    return {**SOURCES, **({"f_insider": PLANTED} if planted else {}), **columns}


def thesis_features(cube: Cube, sources: Mapping[str, str] = SOURCES, names: Sequence[str] = FEATURES) -> np.ndarray:
    """(T,A,F) float32, the columns of `names`; NaN where one is not known, or where the symbol is not listed.

    Parameters
    ----------
    sources : column of the cube by feature. A score with an age beside it fades, as in `context.FRESH_BARS`. What is not
        named is made from total returns (f_momentum, vol, mom10, mom30); a column that the cube has not is missing.

    Row t is made from rows up to t. Raises `ConfigError` for a feature that there is not, or that has no source.
    """
    for name in sources:
        if name not in names:
            raise ConfigError(f"no thesis feature {name!r}; expected some of {', '.join(names)}.{did_you_mean(name, names)}")
    index = cube.close * forward_adjust(cube.close, cube.splits, cube.dividends)  # (T,A) what one share with its income has become
    out = np.full((*cube.close.shape, len(names)), np.nan, np.float32)
    for f, name in enumerate(names):
        if name not in sources:
            out[:, :, f] = _made(name, index)
        elif sources[name] in cube.feature_names:
            out[:, :, f] = _faded(cube, sources[name])
    out[~np.isfinite(out) | ~cube.listed[:, :, None]] = np.nan
    return out


def observed_features(features: np.ndarray, names: Sequence[str] = FEATURES) -> tuple[str, ...]:
    """Names of the columns (T,A,F) that hold anything at all: the subset that a table speaks of."""
    return tuple(name for f, name in enumerate(names) if np.isfinite(features[:, :, f]).any())


def decisions(scaled: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """int64 class 0..4, strong sell to strong buy, of outcomes in deviations; `OPEN` where there is none.

    The edges are fixed beforehand, so that no label is fitted: with -1, -0.25, 0.25 and 1 the five classes of a normal
    residual are 16%, 24%, 20%, 24% and 16%.
    """
    return np.where(np.isfinite(scaled), np.digitize(scaled, edges), OPEN)


def scaled_outcomes(yardstick: Yardstick) -> np.ndarray:
    """(T,A) residual return over the horizon in residual deviations known at the row; NaN where it has not closed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = yardstick.residual / yardstick.volatility
    return np.where(np.isfinite(scaled), scaled, np.nan)


def plant_insider(cube: Cube, source: SyntheticSource, coefficient: float, *, seed: int) -> Cube:
    """The cube with a column `planted_insider`: what an insider of the synthetic market would know at the close of each row.

    The score has unit variance and is part the generator's own hidden one (known at close t, it moves bar t + 1), part
    noise, so that its correlation with the next bar's own return is `coefficient`. It comes from the generator's state, not
    from prices that came later.

    Raises `DataError` where the cube is not of this source, `ConfigError` for more than the generator itself knows.
    """
    most = source.signal_strength * INFORMATION_COEFFICIENT
    if abs(coefficient) > most:
        raise ConfigError(f"an insider with a coefficient of {coefficient} knows more than this market plants; expected at most {most:g}")
    if list(cube.symbols) != source.symbols() or len(cube.times) != source.n_bars:
        seen = f"{len(cube.symbols)} symbols and {len(cube.times)} bars"
        raise DataError(f"a cube of {seen} is not the synthetic one's of {source.n_symbols} and {source.n_bars}; leave out start and end")
    share = coefficient / most if most else 0.0
    column = np.full(cube.close.shape, np.nan, np.float32)
    for a, symbol in enumerate(cube.symbols):
        truth = source.truth(symbol)
        flip = np.where(truth.turbulent, -1.0, 1.0)  # in the turbulent state past prices run on instead of reverting
        hidden = (flip * truth.scores[:, 0] + truth.scores[:, 1:].sum(axis=1)) / np.sqrt(truth.scores.shape[1])
        noise = np.random.default_rng([seed, a]).standard_normal(len(hidden))
        column[: len(hidden), a] = share * hidden + np.sqrt(1.0 - share**2) * noise
    features = np.concatenate([cube.features, column[:, :, None]], axis=-1)
    return replace(cube, features=features, feature_names=(*cube.feature_names, PLANTED))


def _made(name: str, index: np.ndarray) -> np.ndarray:
    """(T,A) a feature that total returns alone say."""
    match name:
        case "f_momentum":
            return _growth(index, FAR, NEAR)
        case "mom10":
            return _growth(index, 10)
        case "mom30":
            return _growth(index, 30)
        case "vol":
            return _volatility(index)
        case _:
            raise ConfigError(f"no column is named for the thesis feature {name!r}; set --thesis.columns.{name}")


def _faded(cube: Cube, column: str) -> np.ndarray:
    """(T,A) the column; a score of something that happened fades with its age."""
    value = cube.feature(column)
    stem = column.removesuffix("_score")
    for age, bars in FRESH_BARS.values():
        if age == f"{stem}_age_bars" and age in cube.feature_names:
            return value * np.exp(-cube.feature(age) / np.float32(bars))
    return value


def _growth(index: np.ndarray, far: int, near: int = 0) -> np.ndarray:
    """(T,A) simple return from `far` to `near` bars ago."""
    out = np.full(index.shape, np.nan)
    if len(index) > far:
        with np.errstate(divide="ignore", invalid="ignore"):
            out[far:] = index[far - near : len(index) - near] / index[:-far] - 1.0
    return out


def _volatility(index: np.ndarray) -> np.ndarray:
    """(T,A) standard deviation of `VOL_BARS` log returns, a bar."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.diff(np.log(index), axis=0, prepend=np.nan)
    return np.stack([rolling.deviation(np.ascontiguousarray(x), VOL_BARS) for x in logs.T], axis=1)
