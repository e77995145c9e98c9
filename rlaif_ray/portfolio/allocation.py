"""Weights from past returns, or from a forecast and what trading on it costs: skfolio's optimisers in our units.

Long-only. Everything is per bar: expected returns, covariances, and a cost of trading that is spread over the bars for
which what is bought will be held. Returns are simple. One problem of 30 names takes skfolio about 20 ms of CPU.
"""

from __future__ import annotations

import numpy as np
from skfolio.moments import LedoitWolf
from skfolio.optimization import HierarchicalRiskParity, MeanRisk, ObjectiveFunction
from skfolio.prior import BasePrior, EmpiricalPrior, ReturnDistribution

from rlaif_ray.errors import DataError
from rlaif_ray.execution.caps import effective_cap

SCALE = 1e6
"""The utility of a bar is some basis points; times this, the solver's absolute tolerance of 1e-9 says weights to about 1e-5."""


def shrunk_covariance(returns_TA: np.ndarray) -> np.ndarray:
    """(A,A) covariance per bar, shrunk towards a multiple of the identity.

    Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices", eq. 14.
    """
    return LedoitWolf(store_precision=False).fit(_complete(returns_TA)).covariance_


def min_variance(returns_TA: np.ndarray, *, max_weight: float = 1.0) -> np.ndarray:
    """(A,) fully invested weights of the least variance under the shrunk covariance, none above the cap.

    Parameters
    ----------
    returns_TA : (T,A) simple returns a bar, complete; at least two rows.
    max_weight : a cap below 1/A becomes 1/A.
    """
    model = MeanRisk(prior_estimator=_shrunk_prior(), max_weights=effective_cap(max_weight, returns_TA.shape[1]))
    return _clean(model.fit(_complete(returns_TA)).weights_, sum_to_one=True)


def hierarchical_risk_parity(returns_TA: np.ndarray, *, max_weight: float = 1.0) -> np.ndarray:
    """(A,) fully invested weights: variance is halved down a tree of what moves together. One name takes all.

    Lopez de Prado (2016), "Building diversified portfolios that outperform out of sample". Parameters as in `min_variance`.
    """
    assets = returns_TA.shape[1]
    if assets == 1:
        return np.ones(1)  # there is nothing to cluster
    model = HierarchicalRiskParity(prior_estimator=_shrunk_prior(), max_weights=effective_cap(max_weight, assets))
    return _clean(model.fit(_complete(returns_TA)).weights_, sum_to_one=True)


def mean_variance(
    expected_A: np.ndarray, covariance_AA: np.ndarray, previous_A: np.ndarray, *, risk_aversion: float, cost_per_side: float,
    hold_bars: int, max_weight: float = 1.0, benchmark_A: np.ndarray | None = None, fully_invested: bool = True,
) -> np.ndarray:  # fmt: skip
    """(A,) weights w >= 0 that maximise `m'w - risk_aversion/2 (w-b)'C(w-b) - cost_per_side/hold_bars sum|w - previous|`.

    Markowitz (1952), with the linear cost of Boyd et al. (2017), "Multi-period trading via convex optimization", eq. 4.4.
    The cost leaves a region in which nothing is traded: weights come back as `previous` where a trade would not pay.

    Parameters
    ----------
    expected_A, covariance_AA : per bar, of simple returns.
    previous_A : weights held now.
    cost_per_side : of the traded notional, as the simulator charges it.
    hold_bars : bars over which a trade has to earn its cost.
    max_weight : cap on one name; below 1/A it becomes 1/A.
    benchmark_A : b, the weights whose risk is no risk; None is cash.
    fully_invested : weights add up to 1; else to at most 1, and cash, which earns nothing, is the rest.

    Raises `DataError` for numbers that are not finite or do not fit together.
    """
    assets = len(expected_A)
    benchmark = np.zeros(assets) if benchmark_A is None else benchmark_A
    shapes = (covariance_AA.shape, previous_A.shape, benchmark.shape)
    if shapes != ((assets, assets), (assets,), (assets,)) or not all(
        np.isfinite(x).all() for x in (expected_A, covariance_AA, previous_A, benchmark)
    ):
        raise DataError(f"{assets} expected returns with covariance, previous and benchmark of {shapes}; expected finite (A,A), (A,), (A,)")
    model = MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY, risk_aversion=risk_aversion / 2.0,
        prior_estimator=_Given(expected_A, covariance_AA), max_weights=effective_cap(max_weight, assets), target_weights=benchmark,
        budget=1.0 if fully_invested else None, min_budget=None if fully_invested else 0.0, max_budget=None if fully_invested else 1.0,
        transaction_costs=cost_per_side / hold_bars, previous_weights=np.round(previous_A, 12), scale_objective=SCALE,
    )  # fmt: skip
    # Weights are rounded: a remainder of 1e-15 of a name is no position, and the solver chokes on its size.
    # skfolio wants returns beside the moments; only measures that this problem does not use would read them.
    return _clean(model.fit(np.zeros((1, assets))).weights_, sum_to_one=fully_invested)


class _Given(BasePrior):
    """Moments that are known already, in the place where skfolio estimates them."""

    def __init__(self, mu: np.ndarray, covariance: np.ndarray) -> None:
        self.mu, self.covariance = mu, covariance

    def fit(self, X: np.ndarray, y: None = None) -> _Given:
        self.return_distribution_ = ReturnDistribution(mu=self.mu, covariance=self.covariance, returns=X)
        return self


def _shrunk_prior() -> EmpiricalPrior:
    return EmpiricalPrior(covariance_estimator=LedoitWolf(store_precision=False))


def _complete(returns_TA: np.ndarray) -> np.ndarray:
    if returns_TA.ndim != 2 or min(returns_TA.shape) == 0 or len(returns_TA) < 2 or not np.isfinite(returns_TA).all():
        bad = int(np.size(returns_TA) - np.isfinite(returns_TA).sum())
        raise DataError(f"returns of shape {returns_TA.shape}, {bad} of them not finite; expected (T,A), two rows or more, all finite")
    return returns_TA


def _clean(solved: np.ndarray | None, *, sum_to_one: bool) -> np.ndarray:
    """A solver's weights without its rounding: none below 0, and none more than the whole. skfolio raises where it has none."""
    weights = np.maximum(np.asarray(solved, np.float64), 0.0)
    return weights / (weights.sum() if sum_to_one else max(weights.sum(), 1.0))
