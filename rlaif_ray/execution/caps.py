"""The cap on one name: a rule with the last word over every policy."""

from __future__ import annotations

import numpy as np


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
    if not (weights > cap).any():
        return weights
    rows = weights.reshape(-1, weights.shape[-1]).copy()
    over = (rows > cap).any(axis=1)
    rows[over] = _fill_up(rows[over], cap)
    return rows.reshape(weights.shape)


def _fill_up(weights: np.ndarray, cap: float) -> np.ndarray:
    """Water-filling: each round fixes the names above the cap and scales the others up to the same sum."""
    total = weights.sum(axis=1)
    capped = np.zeros(weights.shape, bool)
    while True:
        over = (weights > cap) & ~capped
        if not over.any():
            return weights
        capped |= over
        free = np.where(capped, 0.0, weights)
        free_sum = free.sum(axis=1)
        room = np.maximum(total - cap * capped.sum(axis=1), 0.0)
        scale = np.divide(room, free_sum, out=np.zeros_like(room), where=free_sum > 0)
        touched = over.any(axis=1, keepdims=True)
        weights = np.where(touched, np.where(capped, cap, free * scale[:, None]), weights)
