"""From scores to target weights: the Euclidean projection onto what an account may hold, compiled and in torch.

With c the cap on one name and n the number of listed names, a score a in [-1, 1] asks for the weight min(1/n, c) + c*a of a
long-only account and c*a of a long-short one; what is asked for is moved to the nearest weights that are allowed. What is
allowed stays as it is, so that scores reach the whole set, every corner of it too, and 0 is equal weight (long-only) or flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import boolean, float64, int64, njit, types
from torch import Tensor

from rlaif_ray.errors import ConfigError, ExecutionError
from rlaif_ray.execution.account import GROSS, NET, SUMS
from rlaif_ray.execution.caps import effective_cap

_F1, _F2 = types.Array(float64, 1, "C", readonly=True), types.Array(float64, 2, "C", readonly=True)
_I1, _B2 = types.Array(int64, 1, "C", readonly=True), types.Array(boolean, 2, "C", readonly=True)


@dataclass(frozen=True)
class ActionSet:
    """The weights that a policy may ask for.

    Long-only: 0 <= w <= c and sum w <= 1, reached by w = clip(x - tau, 0, c) with the smallest tau >= 0 that keeps the sum
    (the Euclidean projection; Duchi et al. 2008, section 3, with a cap). Long-short: |w| <= c, then a soft threshold to
    sum |w| <= 2 (their section 4), then longs or shorts are scaled to a net within [-1, 1]. A sector above `max_sector` of
    sum |w| is scaled down to it and the rest is cash; of long-short weights before the net is, which that could move.

    Parameters
    ----------
    max_weight : cap on one name; below 1/A it becomes 1/A.
    sectors : (A,) number of each asset's sector, -1 where it is in none; empty: no sectors.
    """

    max_weight: float = 1.0
    long_short: bool = False
    sectors: tuple[int, ...] = ()
    max_sector: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_weight", "max_sector"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a fraction of equity in (0, 1]")
        if any(s < -1 for s in self.sectors):
            raise ConfigError(f"sector numbers are {self.sectors}; expected one of -1 (none) and up for each asset")

    def targets(self, actions: np.ndarray, listed: np.ndarray) -> np.ndarray:
        """Scores (N,A), of names that are `listed` (N,A) bool -> weights (N,A) float64, 0 for the others. All finite scores will do."""
        scores = np.ascontiguousarray(actions, np.float64)
        out = np.empty(scores.shape)
        _project_all(scores, np.ascontiguousarray(listed, np.bool_), self.packed(scores.shape[1]), self.numbers(scores.shape[1]), out)
        if not np.isfinite(scores).all():
            n, a = np.argwhere(~np.isfinite(scores))[0]
            raise ExecutionError(f"score {a} of path {n} is {scores[n, a]}; expected finite numbers in [-1, 1]; did training diverge?")
        return out

    def soft(self, scores: Tensor, listed: Tensor) -> Tensor:
        """The numbers of `targets` in torch, differentiable almost everywhere: (B,A), (B,A) -> (B,A). `listed` holds 0 and 1."""
        assets = scores.shape[1]
        listed, cap = listed.to(scores.dtype), effective_cap(self.max_weight, assets)
        if self.long_short:
            weights = _soft_threshold((cap * scores).clamp(-cap, cap) * listed)
            return _within_net(self._within_sectors(weights))
        share = (1.0 / listed.sum(1, keepdim=True).clamp(min=1.0)).clamp(max=cap)
        return self._within_sectors(_onto_capped_simplex((share + cap * scores) * listed, cap))

    def _within_sectors(self, weights: Tensor) -> Tensor:
        if not self.sectors or self.max_sector >= 1.0:
            return weights
        numbers = torch.as_tensor(self.numbers(weights.shape[1]), device=weights.device) + 1
        held = weights.new_zeros(len(weights), int(numbers.max()) + 1).index_add(1, numbers, weights.abs())
        scale = self.max_sector / held.clamp(min=self.max_sector)
        return torch.where(numbers > 0, weights * scale[:, numbers], weights)

    def packed(self, assets: int) -> np.ndarray:
        """(3,) what `project` reads of this set for that many assets."""
        return np.array([effective_cap(self.max_weight, assets), float(self.long_short), self.max_sector])

    def numbers(self, assets: int) -> np.ndarray:
        """(A,) int64 sectors as `project` reads them; (0,) for none."""
        if self.sectors and len(self.sectors) != assets:
            raise ConfigError(f"there are sectors of {len(self.sectors)} assets; expected those of all {assets}")
        return np.array(self.sectors, np.int64)


@njit(error_model="numpy")
def project(scores, listed, terms, sectors, out):  # pragma: no cover
    """One path: scores (A,), listed (A,) true or 1, `packed` terms and `numbers` of an `ActionSet` -> weights in `out` (A,) float64."""
    cap, long_short, max_sector = terms[0], terms[1] > 0.0, terms[2]
    assets, names = out.shape[0], 0
    for a in range(assets):
        names += 1 if listed[a] else 0
    share = 0.0 if long_short else min(1.0 / max(names, 1), cap)
    for a in range(assets):
        out[a] = share + cap * scores[a] if listed[a] else 0.0
    if long_short:
        for a in range(assets):
            out[a] = min(max(out[a], -cap), cap)
        level = _threshold(out)
        if level > 0.0:
            for a in range(assets):
                out[a] = np.copysign(max(abs(out[a]) - level, 0.0), out[a])
    else:
        level = _water_level(out, cap)
        for a in range(assets):
            out[a] = min(max(out[a] - level, 0.0), cap)
    if sectors.shape[0] > 0 and max_sector < 1.0:
        held = np.zeros(sectors.max() + 2)  # the last: in no sector
        for a in range(assets):
            held[sectors[a]] += abs(out[a])
        for a in range(assets):
            if sectors[a] >= 0 and held[sectors[a]] > max_sector:
                out[a] *= max_sector / held[sectors[a]]
    if long_short:
        longs, shorts = 0.0, 0.0
        for a in range(assets):
            longs += max(out[a], 0.0)
            shorts += max(-out[a], 0.0)
        for a in range(assets):
            if longs > NET + shorts and out[a] > 0.0:
                out[a] *= (NET + shorts) / longs
            elif shorts > NET + longs and out[a] < 0.0:
                out[a] *= (NET + longs) / shorts


@njit(error_model="numpy", fastmath=SUMS)
def _water_level(x, cap):  # pragma: no cover
    """Smallest tau >= 0 with sum clip(x - tau, 0, cap) <= 1: Newton on a piecewise linear function, kept within a bracket.

    On each piece the root follows from the names on it alone, so that the last step, which moves to no other piece, is exact.
    """
    low, high, tau = 0.0, 0.0, 0.0
    for a in range(x.shape[0]):
        high = max(high, x[a])
    for _ in range(128):
        free, fixed, total = 0.0, 0.0, 0.0
        for a in range(x.shape[0]):
            above = min(max(x[a] - tau, 0.0), cap)
            is_free = 0.0 < above < cap
            free += 1.0 if is_free else 0.0
            fixed += x[a] if is_free else above
            total += above
        if total <= 1.0:
            high = tau
            if tau == 0.0:
                return 0.0
        else:
            low = tau
        root = (fixed - 1.0) / free if free > 0.0 else -1.0
        if root == tau:
            return tau
        tau = root if low < root < high else 0.5 * (low + high)
        if tau in (low, high):  # nothing lies between: the bracket is one bit wide
            return high
    return high


@njit(error_model="numpy", fastmath=SUMS)
def _threshold(x):  # pragma: no cover
    """Smallest tau >= 0 with sum max(|x| - tau, 0) <= 2. The sum is convex in tau: Newton from 0 rises to the root, piece by piece."""
    tau = 0.0
    while True:
        free, total = 0.0, 0.0
        for a in range(x.shape[0]):
            size = abs(x[a])
            free += 1.0 if size > tau else 0.0
            total += size if size > tau else 0.0
        root = (total - GROSS) / free if free > 0.0 else 0.0
        if not root > tau:
            return tau
        tau = root


@njit(types.void(_F2, _B2, _F1, _I1, float64[:, ::1]), cache=True, error_model="numpy")
def _project_all(scores, listed, terms, sectors, out):  # pragma: no cover
    for n in range(scores.shape[0]):
        project(scores[n], listed[n], terms, sectors, out[n])


def _onto_capped_simplex(x: Tensor, cap: float) -> Tensor:
    """(B,A) -> (B,A). The piece on which the level lies is found by sorting; on it the level is a mean of x, which has a gradient."""
    with torch.no_grad():
        kinks, order = torch.cat((x, x - cap), dim=1).sort(dim=1, descending=True)
        slopes = torch.where(order < x.shape[1], 1.0, -1.0).to(x.dtype).cumsum(1)  # names strictly between 0 and the cap below a kink
        sums = (slopes[:, :-1] * (kinks[:, :-1] - kinks[:, 1:])).cumsum(1)  # of the weights at the level of each later kink
        below = kinks[:, 1:].gather(1, (sums >= 1.0).to(torch.int8).argmax(1, keepdim=True))
        over = x.clamp(0.0, cap).sum(1, keepdim=True) > 1.0
        capped = x - cap > below
        free = (x > below) & ~capped
        capped_sum = (cap * capped.to(x.dtype)).sum(1, keepdim=True)
    level = (torch.where(free, x, 0.0).sum(1, keepdim=True) + capped_sum - 1.0) / free.sum(1, keepdim=True).clamp(min=1)
    return (x - torch.where(over, level, 0.0)).clamp(0.0, cap)


def _soft_threshold(x: Tensor) -> Tensor:
    """(B,A) -> (B,A) with sum |w| <= 2."""
    size = x.abs()
    with torch.no_grad():
        sums = size.sort(dim=1, descending=True).values.cumsum(1) - GROSS
        level = (sums / torch.arange(1, x.shape[1] + 1, device=x.device)).amax(1, keepdim=True)
        free = size > level
    exact = (torch.where(free, size, 0.0).sum(1, keepdim=True) - GROSS) / free.sum(1, keepdim=True).clamp(min=1)
    return torch.where(level > 0.0, x.sign() * (size - exact).clamp(min=0.0), x)


def _within_net(weights: Tensor) -> Tensor:
    """(B,A) -> (B,A) with |sum w| <= 1: the larger side is scaled."""
    longs, shorts = weights.clamp(min=0.0).sum(1, keepdim=True), (-weights).clamp(min=0.0).sum(1, keepdim=True)
    up = torch.where(longs > NET + shorts, (NET + shorts) / longs.clamp(min=NET), 1.0)
    down = torch.where(shorts > NET + longs, (NET + longs) / shorts.clamp(min=NET), 1.0)
    return weights * torch.where(weights > 0.0, up, down)
