"""Whether one forecast is better than another: losses side by side, with the dependence that overlapping horizons bring.

Diebold and Mariano (1995) with Harvey, Leybourne and Newbold (1997); Clark and West (2007); Hansen, Lunde and Nason
(2011); and the mean of a panel statistic, clustered by date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from arch.bootstrap import MCS
from scipy.special import stdtr, stdtrit
from statsmodels.stats.sandwich_covariance import S_hac_simple, weights_bartlett, weights_uniform

from rlaif_ray.backtest import observations
from rlaif_ray.backtest.significance import LEVEL, block_lengths
from rlaif_ray.errors import DataError


@dataclass(frozen=True)
class MeanTest:
    """A mean with its 95% interval, its t statistic and p-value against 0, from `times` points in time."""

    mean: float
    low: float
    high: float
    statistic: float
    p_value: float
    times: int


@dataclass(frozen=True)
class ConfidenceSet:
    """The columns that may be the best (`included`), and the largest level at which each still is (`p_values`, (K,))."""

    included: tuple[int, ...]
    p_values: np.ndarray


@dataclass(frozen=True)
class Standing:
    """Where one forecaster stands among several: its loss against the first one's, and whether it may be the best of all."""

    gap: MeanTest | None  # of its loss minus the first one's, as a share of the latter's mean; below 0 it is better; None for the first
    may_be_best: bool
    p_value: float  # the largest level at which it still may be


def standings(losses: Mapping[str, np.ndarray], *, horizon: int, seed: int) -> dict[str, Standing]:
    """Every forecaster against the first, and in the Model Confidence Set of all.

    `losses` are (T,A), NaN where a forecast is missing; only what all of them forecast counts, and the mean of a date is
    one observation. Raises `DataError` where too little is left.
    """
    panel = np.stack(list(losses.values()), axis=-1)  # (T,A,K)
    shared = np.isfinite(panel).all(axis=-1, keepdims=True)
    counted = shared.sum(axis=1)  # (T,1)
    dates = np.flatnonzero(counted)
    by_date = np.where(shared, panel, 0.0).sum(axis=1)[dates] / counted[dates]
    best, scaled = confidence_set(by_date, seed=seed), by_date / by_date[:, 0].mean()
    gaps = [None, *(diebold_mariano(scaled[:, k], scaled[:, 0], horizon=horizon) for k in range(1, len(losses)))]
    return {name: Standing(gaps[k], k in best.included, float(best.p_values[k])) for k, name in enumerate(losses)}


def diebold_mariano(loss: np.ndarray, other: np.ndarray, *, horizon: int = 1) -> MeanTest:
    """Mean of loss - other, (T,) each, and the two-sided p-value of equal accuracy; below 0, the first forecasts better.

    Diebold and Mariano (1995), S1, with the correction and the t distribution of Harvey, Leybourne and Newbold (1997),
    eq. 9. `horizon` is the number of bars that one forecast looks ahead.
    """
    observations.same_shape(loss, other, "the losses")
    return _mean_of(observations.series(np.subtract(loss, other), "the loss difference"), horizon)


def clark_west(target: np.ndarray, nested: np.ndarray, larger: np.ndarray, *, horizon: int = 1) -> MeanTest:
    """Whether a model forecasts better than one that it contains; p-value one-sided, small where the larger is better.

    Clark and West (2007), MSPE-adjusted: the squared errors of the larger model are freed of the noise of estimating
    parameters that are 0 under the null. All are (T,); the mean is that of the adjusted difference.
    """
    observations.same_shape(target, nested, "target and nested forecast")
    observations.same_shape(target, larger, "target and larger forecast")
    y, small, large = (np.asarray(x, np.float64) for x in (target, nested, larger))
    adjusted = (y - small) ** 2 - ((y - large) ** 2 - (small - large) ** 2)
    found = _mean_of(observations.series(adjusted, "the adjusted difference"), horizon)
    return MeanTest(found.mean, found.low, found.high, found.statistic, float(stdtr(found.times - 1, -found.statistic)), found.times)


def mean_by_date(values: np.ndarray, dates: np.ndarray, *, horizon: int = 1) -> MeanTest:
    """Mean over all rows of a panel, (N,) each, with the uncertainty of its dates: rows of one date are one observation.

    Clusters by date (Liang and Zeger 1986), and over the dates that outcomes of `horizon` bars share (Driscoll and Kraay
    1998): the sums by date of what is left of the mean are a time series, whose long-run variance is the mean's.
    """
    observations.same_shape(values, dates, "values and dates")
    x = observations.series(values, "the panel")
    _, group, counts = np.unique(dates, return_inverse=True, return_counts=True)
    mean = x.mean()
    left = np.bincount(group, weights=x - mean) * len(counts) / len(x)
    return _mean_of(observations.series(left + mean, "the panel by date"), horizon)


def confidence_set(
    losses: np.ndarray, *, level: float = 0.05, block: int | None = None, resamples: int = 1000, seed: int
) -> ConfidenceSet:  # fmt: skip
    """The models among (T,K) losses, K > 1, that hold the best with probability 1 - level: Hansen, Lunde and Nason (2011).

    `arch.bootstrap.MCS` with the range statistic T_R and the stationary bootstrap; `block` None takes the
    longest that the losses' distances from their mean ask for (Politis and White).
    """
    x = observations.columns(losses, "the losses")
    if x.shape[1] < 2:
        raise DataError("the losses are of one model; expected at least two to compare")
    if len(np.unique(x, axis=1).T) < x.shape[1]:
        raise DataError("two models have the same losses in every bar; expected different ones: leave one out")
    if block is None:
        apart = x - x.mean(axis=1, keepdims=True)
        block = int(np.ceil(block_lengths(apart[:, ~observations.constant(apart)]).max()))
    block = int(observations.block_of(len(x), block, "the losses"))
    found = MCS(x, level, reps=resamples, block_size=block, method="R", bootstrap="stationary", seed=np.random.default_rng(seed))
    found.compute()
    p_values = found.pvalues["Pvalue"].sort_index().to_numpy(np.float64)
    return ConfidenceSet(tuple(int(k) for k in np.flatnonzero(p_values > level)), p_values)


def _mean_of(series: np.ndarray, horizon: int) -> MeanTest:
    """Student's t with the long-run variance of overlapping horizons and the correction for few observations."""
    n = len(series)
    if not 1 <= horizon <= n / 2:
        raise DataError(f"{n} points in time and a horizon of {horizon}; expected a horizon from 1 to half of them: test for longer")
    mean = series.mean()
    few = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    error = np.sqrt(_overlapping_variance(series - mean, horizon) / n / few)
    statistic, reach = mean / error, stdtrit(n - 1, (1 + LEVEL) / 2) * error
    p_value = 2 * stdtr(n - 1, -abs(statistic))
    return MeanTest(float(mean), float(mean - reach), float(mean + reach), float(statistic), float(p_value), n)


def _overlapping_variance(centred: np.ndarray, horizon: int) -> float:
    """Variance of sqrt(T) times the mean, with the autocovariances of the lags that overlap (Hansen and Hodrick 1980).

    Their sum may be negative by chance; then with Newey and West's weights (1987), whose sum never is.
    """
    for weights in (weights_uniform, weights_bartlett):
        variance = float(S_hac_simple(centred, nlags=horizon - 1, weights_func=weights).squeeze()) / len(centred)
        if variance > 0:
            return variance
    raise DataError("the series has no long-run variance; expected numbers that vary over time")
