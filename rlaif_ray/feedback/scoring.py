"""Proper scores of what was said, the climatological forecast that they are held against, and metrics to compare by.

A score is proper when only the true belief maximises its expectation (Gneiting and Raftery 2007). Here it is always the
improvement over the climatological forecast: what anyone could have said from the symbol's own closed outcomes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.errors import ConfigError, did_you_mean

# Pseudo-outcomes on each side of the climatological p_up. With one on each side its own estimation error, about
# 1/(2n) nats after n outcomes, is larger than any analyst's skill, and who always says 0.5 would look clever.
PRIOR = 50.0
# Pseudo-outcomes from a normal distribution in the climatological quantiles: a sample's tails need about as many.
NORMAL_PRIOR = 20.0
EIGHTIES = (0.1, 0.9)  # levels whose distance is the climatological forecast's spread ...
NORMAL_EIGHTY = 2.563103  # ... and that distance for a normal distribution of deviation 1

Metric = Callable[[Any], np.ndarray]  # OutcomeTable -> (T,A,K), larger is better, NaN where it says nothing


# --- the climatological forecast ----------------------------------------------------------------------------------


def climatological(residual: np.ndarray, horizon_bars: int, prior: float = PRIOR) -> np.ndarray:
    """(T,A) share of rises among the symbol's outcomes closed by each row, with `prior` outcomes added on each side.

    Outcomes of adjoining rows share bars: `horizon_bars` of them count as one.

    Parameters
    ----------
    residual : (T,A) of each opening row, closing `horizon_bars` later; NaN where there is none.
    """
    known = np.isfinite(residual)
    ups = np.cumsum(known & (residual > 0), axis=0) / horizon_bars
    counts = np.cumsum(known, axis=0) / horizon_bars
    before = np.zeros((2, *residual.shape))
    before[0, horizon_bars:], before[1, horizon_bars:] = ups[:-horizon_bars], counts[:-horizon_bars]
    return (before[0] + prior) / (before[1] + 2.0 * prior)


def climatological_quantiles(
    residual: np.ndarray, horizon_bars: int, deviation: np.ndarray, levels: tuple[float, ...], prior: float = NORMAL_PRIOR
) -> np.ndarray:  # fmt: skip
    """(T,A,Q) quantiles of the symbol's outcomes closed by each row, drawn towards a normal distribution around 0.

    Level by level the mean of both quantiles, the sample's weighed by its outcomes (`horizon_bars` of them count as one)
    and the normal's by `prior`; quantiles averaged so never cross (Vincent 1912; Ratcliff 1979).

    Parameters
    ----------
    deviation : (T,A) of the normal distribution, known at the row; NaN where it is not, and the quantiles are NaN then.
    """
    normal = np.array([NormalDist().inv_cdf(level) for level in levels])
    there = np.isfinite(residual)
    return _expanding_quantiles(residual, there, horizon_bars, deviation, np.asarray(levels, np.float64), normal, prior)


# --- scores -------------------------------------------------------------------------------------------------------


def log_gain(p_up: np.ndarray, climatology: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Logarithmic score of p_up less that of the climatological one, in nats (Good 1952). Broadcasts; NaN where one is NaN."""
    up = residual > 0
    won = np.where(up, p_up, 1.0 - p_up)
    usual = np.where(up, climatology, 1.0 - climatology)
    return np.where(np.isnan(residual), np.nan, np.log(won) - np.log(usual))


def quantile_score(quantiles: np.ndarray, truth: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(...) twice the mean pinball loss of quantiles (...,Q) at truth (...): the smaller the better, in units of the truth.

    It tends to the CRPS as the levels fill (0, 1) (Laio and Tamea 2007, eq. 6), and is proper for any set of levels.
    """
    error = truth[..., None] - quantiles
    q = np.asarray(levels, np.float64)
    total = np.zeros(error.shape[:-1])
    for k in range(len(levels)):  # one after the other: a sum's rounding must not hang on the shape of the array
        total = total + np.maximum(q[k] * error[..., k], (q[k] - 1.0) * error[..., k])
    return 2.0 * total / len(levels)


def crps_gain(
    quantiles: np.ndarray, usual: np.ndarray, spread: np.ndarray, truth: np.ndarray, levels: tuple[float, ...]
) -> np.ndarray:  # fmt: skip
    """(...) by how much the quantile score of `quantiles` (...,Q) is less than that of `usual` (...,Q), in units of `spread` (...).

    A spread that is known when the forecast is made leaves the score proper. In deviations of what is usual, a tilt of
    the distribution gains about what the p_up that it implies gains in nats.
    """
    return (quantile_score(usual, truth, levels) - quantile_score(quantiles, truth, levels)) / spread


# --- what the better of two outcomes is ---------------------------------------------------------------------------

METRICS: dict[str, Metric] = {
    "score": lambda outcomes: outcomes.score,
    "net": lambda outcomes: outcomes.net,
    "vol_scaled": lambda outcomes: outcomes.vol_scaled,
    "drawdown": lambda outcomes: 0.0 - outcomes.drawdown,
    "barrier": lambda outcomes: outcomes.barrier,
}


def metric(name: str) -> Metric:
    """What makes the better outcome, by name: one of `METRICS`, or your own as `package.module:function`.

    Your own takes an `OutcomeTable` and returns (T,A,K) float64, larger is better, NaN where it says nothing.
    Raises `ConfigError` for a name that there is not and, once it is called, for an answer of another shape.
    """
    if ":" not in name:
        if name not in METRICS:
            seen = f"no metric {name!r}; expected one of {', '.join(METRICS)}, or package.module:function"
            raise ConfigError(f"{seen}.{did_you_mean(name, METRICS)}")
        return METRICS[name]
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"metric {name!r}: {error}; expected package.module:function, importable on every worker") from error
    except AttributeError:
        raise ConfigError(f"metric {name!r}: {module} has no {function!r}; expected a function of an OutcomeTable") from None
    if not callable(found):
        raise ConfigError(f"metric {name!r} is of type {type(found).__name__}; expected a function of an OutcomeTable")

    def checked(outcomes: Any) -> np.ndarray:
        values = np.asarray(found(outcomes), np.float64)
        if values.shape != outcomes.score.shape:
            raise ConfigError(f"metric {name!r} returned shape {values.shape}; expected (T,A,K) = {outcomes.score.shape}")
        return values

    return checked


# --- kernels ------------------------------------------------------------------------------------------------------


_F2, _F1 = types.Array(float64, 2, "C", readonly=True), types.Array(float64, 1, "C", readonly=True)
_B2 = types.Array(boolean, 2, "C", readonly=True)


@njit(int64(int64[::1], int64, int64), cache=True)
def _kth(tree, top, k):  # pragma: no cover
    """Place of the k-th (from 0) that the tree counts; `top` is the largest power of two among its places."""
    at, step = 0, top
    while step > 0:
        if at + step < tree.shape[0] and tree[at + step] <= k:
            at += step
            k -= tree[at]
        step //= 2
    return at


@njit(float64[:, :, ::1](_F2, _B2, int64, _F2, _F1, _F1, float64), cache=True)
def _expanding_quantiles(residual, there, horizon, deviation, levels, normal, prior):  # pragma: no cover
    """A symbol's closed outcomes are counted in a tree over the order of all (Fenwick 1994), in which the k-th of those that
    are in it is found; what is not in it yet moves nothing. The sample's quantiles lie on lines between its outcomes."""
    t_all, assets = residual.shape
    out = np.full((t_all, assets, levels.shape[0]), np.nan)
    top = 1
    while 2 * top <= t_all:
        top *= 2
    for a in range(assets):
        rows = np.flatnonzero(there[:, a])
        values = residual[:, a][rows] + 0.0
        order = np.argsort(values)
        in_order, place = values[order], np.zeros(t_all, np.int64)
        place[rows[order]] = np.arange(rows.shape[0])
        tree, n = np.zeros(t_all + 1, np.int64), 0
        for t in range(t_all):
            if t >= horizon and there[t - horizon, a]:
                k = place[t - horizon] + 1
                while k <= t_all:
                    tree[k] += 1
                    k += k & -k
                n += 1
            weight = n / horizon
            for q in range(levels.shape[0]):
                value = prior * normal[q] * deviation[t, a]
                if n > 0:
                    at = levels[q] * (n - 1)
                    low = in_order[_kth(tree, top, int(at))]
                    high = in_order[_kth(tree, top, min(int(at) + 1, n - 1))]
                    value += weight * (low + (at - int(at)) * (high - low))
                out[t, a, q] = value / (weight + prior)
    return out
