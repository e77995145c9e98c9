"""How often the best in one half of the past is below the middle of the field in the other.

Bailey, Borwein, Lopez de Prado and Zhu (2017, preprint 2015), "The probability of backtest overfitting": combinatorially
symmetric cross-validation (CSCV).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlaif_ray.backtest import observations
from rlaif_ray.errors import DataError

ROUNDING = 1e-12


@dataclass(frozen=True)
class Overfitting:
    """What CSCV says of a search.

    Parameters
    ----------
    pbo : probability that the best in sample is in the lower half out of sample: the share of logits at or below 0.
    loss : probability that it loses out of sample.
    slope : of its out-of-sample Sharpe ratio on its in-sample one; below 0, a better past foretold a worse future.
    logits : (C,) of the relative rank out of sample, one a combination; 0 is the median.
    in_sample, out_of_sample : (C,) Sharpe ratios per bar of the series chosen.
    """

    pbo: float
    loss: float
    slope: float
    logits: np.ndarray
    in_sample: np.ndarray
    out_of_sample: np.ndarray


def backtest_overfitting(returns: np.ndarray, *, blocks: int = 16) -> Overfitting:
    """CSCV over the tried series (T,K), K > 1, by their Sharpe ratios; section 2 of the paper.

    The bars are cut into an even number of equal `blocks` (the oldest bars that do not fill one are left out); every
    choice of half of them is one past, the rest its future: 12,870 combinations of 16. Series with equal ratios share the
    mean of their ranks.

    Raises `DataError` where a series is constant over one of the halves.
    """
    x = observations.columns(returns, "the tried returns")
    if x.shape[1] < 2:
        raise DataError("one series was tried; expected at least two to choose from")
    if blocks < 2 or blocks % 2 or blocks > 20:
        raise DataError(f"{blocks} blocks; expected an even number from 2 to 20")
    if len(x) < 2 * blocks:
        raise DataError(f"{len(x)} bars for {blocks} blocks; expected at least two bars a block: take fewer blocks")
    chosen = np.zeros((len(halves := list(combinations(range(blocks), blocks // 2))), blocks))
    chosen[np.arange(len(halves))[:, None], halves] = 1.0
    past = _sharpe(x, chosen)
    future = past[::-1]  # the combinations come in an order in which the mirrored one is the complement
    each, best = np.arange(len(chosen)), past.argmax(axis=1)
    ours = future[each, best]
    below, equal = (future < ours[:, None]).sum(axis=1), (future == ours[:, None]).sum(axis=1)
    rank = (below + (equal + 1) / 2) / (x.shape[1] + 1)
    logits, seen = np.log(rank / (1 - rank)), past[each, best]
    spread = seen - seen.mean()
    slope = float(spread @ ours / (spread @ spread)) if np.ptp(seen) > ROUNDING else 0.0
    return Overfitting(float((logits <= ROUNDING).mean()), float((ours < 0).mean()), slope, logits, seen, ours)


def _sharpe(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(C,K) Sharpe ratio of each series over each choice of blocks, from sums over blocks about the series' own mean."""
    blocks = chosen.shape[1]
    size = len(x) // blocks
    mean = x.mean(axis=0)
    parts = (x - mean)[len(x) - size * blocks :].reshape(blocks, size, -1)
    bars = size * blocks // 2
    first, second = chosen @ parts.sum(axis=1) / bars, chosen @ (parts**2).sum(axis=1) / bars
    variance = second - first**2
    if (still := np.argwhere(variance <= ROUNDING * np.maximum(second, mean**2))).size:
        raise DataError(f"series {still[0][1]} is constant over half of the {blocks} blocks; nothing can be inferred from it: leave it out")
    return (first + mean) / np.sqrt(variance * bars / (bars - 1))
