"""What this many bars and this many trials are worth: the figures that stand beside every verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from rlaif_ray.backtest import observations
from rlaif_ray.backtest.significance import block_length, bootstrap_variance
from rlaif_ray.errors import DataError

ONE_SIDED = float(ndtri(0.95))  # standard errors that a single test at 5% has to pass
TWO_SIDED = float(ndtri(0.975))  # and that a 95% interval above 0 takes


@dataclass(frozen=True)
class Detectable:
    """What a test on these bars would find in `power` of the cases; less may be there and stay unseen.

    `bars` of which `n_effective` are independent; `annual_excess` (log, a year) and annual `sharpe` of the excess.
    """

    bars: int
    n_effective: float
    annual_excess: float
    sharpe: float
    power: float


def effective_observations(series: np.ndarray) -> float:
    """How many independent bars say as much about the mean as these (T,) do; between 1 and T.

    T times the variance over the long-run one (Bartlett 1946), the latter as the stationary bootstrap has it at Politis
    and White's block. Overlapping outcomes of h bars count about T / h.
    """
    x = observations.series(series, "the series")
    long_run = bootstrap_variance(x[:, None], block_length(x))[0]
    return float(np.clip(len(x) * x.var() / long_run, 1.0, len(x)))


def effective_trials(returns: np.ndarray) -> float:
    """How many independent trials the tried series (T,K) are, between 1 and K.

    rho + (1 - rho) K with their mean correlation rho: Bailey and Lopez de Prado (2014), appendix 3.
    """
    x = observations.columns(returns, "the tried returns")
    count = x.shape[1]
    if count == 1:
        return 1.0
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # The mean over all pairs is in the variance of the sum; no (K,K) matrix is needed.
    rho = ((z.sum(axis=1) ** 2).mean() - count) / (count * (count - 1))
    return float(np.clip(rho + (1 - rho) * count, 1.0, count))


def detectable(excess: np.ndarray, *, bars_per_year: float, hurdle: float = ONE_SIDED, power: float = 0.8) -> Detectable:
    """The smallest true excess that a test on bars like these (T,) would find with probability `power`.

    The mean must lie `hurdle` standard errors above 0: the normal's 1.645 for one test, `Superiority.critical` for the
    best of a search. Then (hurdle + z_power) standard errors are needed: Bloom (1995), "Minimum detectable effects".
    """
    x = observations.series(excess, "the excess")
    if not (0 < power < 1 and hurdle > 0):
        raise DataError(f"power {power:g} and hurdle {hurdle:g}; expected a power between 0 and 1 and a hurdle above 0")
    count = effective_observations(x)
    per_bar = (hurdle + ndtri(power)) / np.sqrt(count)  # in standard deviations of the excess
    return Detectable(len(x), count, float(per_bar * x.std() * bars_per_year), float(per_bar * np.sqrt(bars_per_year)), power)
