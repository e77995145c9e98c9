"""The cap on one name: a rule with the last word over every policy."""

from __future__ import annotations

import numpy as np
from numba import float64, njit, types


def effective_cap(cap: float, assets: int) -> float:
    """A cap below 1/A could never be fully invested: it becomes 1/A."""
    return max(cap, 1.0 / assets)


def apply_cap(weights: np.ndarray, cap: float) -> np.ndarray:
    """Weights (..., A) with no name above the cap; what is cut goes to the uncapped names in proportion to their weight.

    The sum of each row stays as it was, unless every name that has any weight is at the cap: then the rest is cash.
    A cap below 1/A becomes 1/A. Returns float64; rows that keep the cap come back bit for bit, and where all of them
    do, float64 weights come back themselves.
    """
    weights = np.asarray(weights, np.float64)
    cap = effective_cap(cap, weights.shape[-1])
    if not (np.abs(weights) > cap).any():
        return weights
    rows = weights.reshape(-1, weights.shape[-1]).copy()
    _cap_rows(rows, cap)
    return rows.reshape(weights.shape)


@njit(float64(float64[::1], float64), cache=True, error_model="numpy", nogil=True)
def cap_names(weights, cap):  # pragma: no cover
    """No |w| of weights (A,) above the cap, in place, longs and shorts each by themselves. Returns the largest |w| that there was.

    Water-filling: each round fixes the names at the cap and scales the others up to the same sum.
    """
    largest = 0.0
    for w in weights:
        largest = max(largest, abs(w))
    if largest <= cap:
        return largest
    for side in (1.0, -1.0):
        total = 0.0
        for w in weights:
            total += max(side * w, 0.0)
        over = True
        while over:
            over, capped, free = False, 0, 0.0
            for a in range(len(weights)):
                if side * weights[a] >= cap:
                    over = over or side * weights[a] > cap
                    weights[a] = side * cap
                    capped += 1
                elif side * weights[a] > 0.0:
                    free += side * weights[a]
            if over and free > 0.0:
                scale = max(total - cap * capped, 0.0) / free
                for a in range(len(weights)):
                    if 0.0 < side * weights[a] < cap:
                        weights[a] *= scale
    return largest


@njit(types.void(float64[:, ::1], float64), cache=True)
def _cap_rows(rows, cap):  # pragma: no cover
    for n in range(len(rows)):
        cap_names(rows[n], cap)
