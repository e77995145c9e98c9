"""Whether the best of all that was tried beats the benchmark: the search itself is part of the test.

Hansen (2005), "A test for superior predictive ability"; Romano and Wolf (2005), "Stepwise multiple testing as formalized
data snooping". Both read the same resamples, drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_ray.backtest import observations
from rlaif_ray.backtest.significance import block_lengths, bootstrap_variance, stationary_weights
from rlaif_ray.errors import DataError


@dataclass(frozen=True)
class Superiority:
    """The verdict on a search of `trials` series over `bars`.

    `p_value` is Hansen's consistent one for "none beats the benchmark"; `p_values` (K,) say of each column how often the
    best of a search without skill does as well. `best` is the column with the largest mean in standard errors,
    `statistic` that mean, and `critical` what it has to exceed at the level of the test. `superior` are the columns that
    beat the benchmark by StepM, the chance of one false name among them at most the level; `block` is the mean block
    length in bars.
    """

    p_value: float
    p_values: tuple[float, ...]
    statistic: float
    critical: float
    best: int
    superior: tuple[int, ...]
    trials: int
    bars: int
    block: float


def superiority(
    excess: np.ndarray, *, level: float = 0.05, block: float | None = None, resamples: int = 1000, seed: int
) -> Superiority:  # fmt: skip
    """Hansen's SPA test and Romano and Wolf's StepM on log excess returns (T,K) of everything tried.

    Means are studentised by their exact variance under the stationary bootstrap (Hansen 2005, section 3); a series that
    is worse than -sqrt(2 log log T) standard errors is not lifted to 0 under the null, the *consistent* choice. `block`
    None takes the mean of what the series ask for (Politis and White).

    The p-values are those of `arch.bootstrap.SPA` and the set that of `StepM` for the same resamples of *studentised*
    series: `arch` 8 itself divides no mean by its standard error. As there, the statistic is not cut off at 0, which
    Hansen does; it makes a difference only where nothing beats the benchmark.

    Raises `DataError` for numbers that are not finite, a series that never differs from the benchmark by more than a
    constant, or fewer than two blocks of bars.
    """
    x = observations.columns(excess, "the excess returns")
    if not 0 < level < 1 or resamples * level < 1:
        raise DataError(f"level {level:g} with {resamples} resamples; expected a level in (0, 1) that is at least one resample")
    bars, trials = x.shape
    length = observations.block_of(bars, float(block_lengths(x).mean()) if block is None else block, "the excess returns")
    z = x / np.sqrt(bootstrap_variance(x, length) / bars)  # the mean of a column is now in standard errors
    means = z.mean(axis=0)
    centre = np.where(means >= -np.sqrt(2 * np.log(np.log(bars))), means, 0.0)
    weights = stationary_weights(bars, length, resamples, np.random.default_rng(seed))
    simulated = weights @ z / bars - centre
    best = int(means.argmax())
    p_values, critical, superior = _step_down(means, simulated, level)
    return Superiority(p_values[best], p_values, float(means[best]), critical, best, superior, trials, bars, length)


def _step_down(means: np.ndarray, simulated: np.ndarray, level: float) -> tuple[tuple[float, ...], float, tuple[int, ...]]:
    """P-values and critical value of the search, and what StepM rejects: what is found better leaves, and the rest is tested again."""
    highest = simulated.max(axis=1)
    first = critical = float(np.quantile(highest, 1 - level))
    below = np.searchsorted(np.sort(highest), means, side="right")
    p_values = tuple(float(p) for p in (len(highest) - below) / len(highest))
    left = np.ones(len(means), bool)
    while (better := left & (means > critical)).any():
        left &= ~better
        if not left.any():
            break
        critical = np.quantile(simulated[:, left].max(axis=1), 1 - level)
    return p_values, first, tuple(int(k) for k in np.flatnonzero(~left))
