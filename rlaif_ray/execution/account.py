"""What an account may do: borrow shares or not, deal in parts of a share or not, and how much of a bar's volume it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import boolean, float64, njit, types

from rlaif_ray.errors import ConfigError

GROSS = 2.0  # most that long and short weights of a long-short account add up to; Regulation T lets stocks be held at 2 to 1
NET = 1.0  # most that they add up to with their signs, and least
WEIGHT_TOLERANCE = 1e-9  # target weights may add up to this much more than they may
SUMS = {"reassoc", "contract", "nsz"}  # sums may be taken four at a time; nothing else of float arithmetic is given up
# of kernels that make no array: without counts of references a bar takes a third less
COMPILED: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": SUMS, "_nrt": False}


@dataclass(frozen=True)
class AccountRules:
    """Rules of one account, the same in training, backtest and trading.

    A long-only account holds weights >= 0 that add up to at most 1; a long-short one holds sum |w| <= 2 and -1 <= sum w <= 1.
    """

    long_short: bool = False
    whole_shares: bool = False
    participation: float = math.inf  # most that a fill takes of the bar's volume, a fraction; the remainder is cancelled
    cash_interest: float = 0.0  # a year, simple, actual/365, on cash; a debit pays it
    maintenance: float = 0.3  # equity below this share of gross exposure is liquidated at the next fill, where shares can be borrowed

    def __post_init__(self) -> None:
        if not self.participation > 0:
            raise ConfigError(f"participation is {self.participation}; expected a fraction of the bar's volume, above 0")
        if not (math.isfinite(self.cash_interest) and -1 < self.cash_interest < 1):
            raise ConfigError(f"cash interest is {self.cash_interest} a year; expected a fraction between -1 and 1 (0.03 is 3%)")
        if not 0 <= self.maintenance < 1:
            raise ConfigError(f"maintenance is {self.maintenance}; expected a share of gross exposure in [0, 1)")

    def allows(self, weights: np.ndarray) -> np.ndarray:
        """(...,) bool: weights (...,A) that the account may hold; not-a-number never is."""
        rows = np.ascontiguousarray(weights, np.float64).reshape(-1, weights.shape[-1])
        return _each_fits(rows, self.long_short).reshape(weights.shape[:-1])

    @property
    def words(self) -> str:
        """What it may hold, as an error says it."""
        if self.long_short:
            return f"numbers that add up to -{NET:g} to {NET:g}, and to at most {GROSS:g} without signs"
        return f"numbers >= 0 that add up to at most {NET:g}"


@njit(boolean(types.Array(float64, 1, "C", readonly=True), boolean), **COMPILED)
def fits(weights, long_short):  # pragma: no cover
    """Whether the account may hold weights (A,): the rule of `AccountRules.allows` in the kernels."""
    total, size, lowest = 0.0, 0.0, 0.0
    for w in weights:
        total += w
        size += abs(w)
        lowest = min(lowest, w)
    least, most = (-NET, GROSS) if long_short else (0.0, NET)
    within = least - WEIGHT_TOLERANCE <= total <= NET + WEIGHT_TOLERANCE and size <= most + WEIGHT_TOLERANCE
    return within and (long_short or lowest >= 0.0)


@njit(boolean[::1](types.Array(float64, 2, "C", readonly=True), boolean), cache=True)
def _each_fits(rows, long_short):  # pragma: no cover
    told = np.empty(len(rows), np.bool_)
    for n in range(len(rows)):
        told[n] = fits(rows[n], long_short)
    return told
