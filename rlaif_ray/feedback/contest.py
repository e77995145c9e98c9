"""Several ways of weighing one desk on dates that none of them has seen: how good each is, and whether a challenger stays.

An arm that abstains where the desk spoke adds nothing to the climatological forecast: it scores 0 there, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr
from scipy.stats import rankdata

from rlaif_ray.backtest.comparison import mean_by_date
from rlaif_ray.backtest.snooping import superiority
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.evidence import paired_gain
from rlaif_ray.feedback.intervals import Interval, clustered_interval, clusters_of
from rlaif_ray.feedback.outcomes import judge

LEAST_NAMES = 5  # a rank correlation over fewer says nothing


@dataclass(frozen=True, eq=False)
class Block:
    """Dates on which arms are held against each other; D of them."""

    opened_row: np.ndarray  # (D,) row of the cube
    horizon_bars: int
    residual: np.ndarray  # (D,A)
    climatology: np.ndarray  # (D,A)
    spoken: np.ndarray  # (D,A) bool: somebody on the desk said something

    @property
    def judged(self) -> np.ndarray:
        """(D,A) bool: spoken of, and closed."""
        return self.spoken & np.isfinite(self.residual)

    def score(self, p_up: np.ndarray) -> np.ndarray:
        """(D,A) score of an arm's p_up (D,A), 0 where it abstained; NaN where nothing is judged."""
        score = judge(p_up[..., None], self.residual, self.climatology)[0][..., 0]
        return np.where(self.judged, np.where(np.isfinite(p_up), score, 0.0), np.nan)


def rank_ic(p_up: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """(D,) Spearman correlation over the names of each date; NaN with fewer than five, or where all said the same."""
    out = np.full(len(p_up), np.nan)
    for d in range(len(p_up)):
        there = np.isfinite(p_up[d]) & np.isfinite(residual[d])
        if there.sum() >= LEAST_NAMES and np.ptp(p_up[d, there]) > 0 and np.ptp(residual[d, there]) > 0:
            out[d] = np.corrcoef(rankdata(p_up[d, there]), rankdata(residual[d, there]))[0, 1]
    return out


def standing(p_up: np.ndarray, block: Block, *, resamples: int, seed: int) -> dict[str, Any]:
    """How an arm did: mean score, hit rate and rank IC a date with intervals, how often it spoke and abstained."""
    groups = clusters_of(block.opened_row, block.horizon_bars)
    each = np.repeat(groups, p_up.shape[1])
    leaning = block.judged & np.isfinite(p_up) & (p_up != 0.5) & (block.residual != 0)
    hit = np.where(leaning, (p_up > 0.5) == (block.residual > 0), np.nan)

    def mean(values: np.ndarray, clusters: np.ndarray) -> Interval:
        return clustered_interval(values.reshape(-1), clusters, resamples=resamples, seed=seed)

    return {
        "n_judged": int(block.judged.sum()),
        "n_abstained": int((block.judged & ~np.isfinite(p_up)).sum()),
        "score": mean(block.score(p_up), each),
        "hit_rate": mean(hit, each),
        "rank_ic": mean(rank_ic(np.where(block.judged, p_up, np.nan), block.residual), groups),
    }


@dataclass(frozen=True)
class Challenge:
    """Whether a challenger takes over, and on what evidence."""

    gain: Mapping[str, float]  # mean score over the one in office, nats, with its 95% interval
    p_value: float | None  # None: nothing to test
    alpha: float  # what this cycle may spend
    kept: bool
    reason: str


def challenge(challenger: np.ndarray, office: np.ndarray, block: Block, *, alpha: float, resamples: int, seed: int) -> Challenge:
    """Hold a challenger's verdicts (D,A) against those of the judge in office on a block that neither has seen.

    The gain of a date is the mean score difference over its names. It takes over if the one-sided p-value of the mean
    gain (`p_value_of`) is at most `alpha`. Each cycle has a fresh block and spends its own share, so the chance that any of
    them keeps what is no better is at most the sum of the shares (Bonferroni; Lan and DeMets 1983 of looks at one stream).
    """
    ours, theirs = block.score(challenger), block.score(office)
    gain = paired_gain(ours, theirs, block.opened_row, block.horizon_bars, resamples=resamples, seed=seed)
    there = np.isfinite(ours - theirs)
    dates = there.any(axis=1)
    by_date = np.where(there, ours - theirs, 0.0).sum(axis=1)[dates] / there.sum(axis=1)[dates]
    if not by_date.any():
        return Challenge(gain, None, alpha, False, "nothing to test: both weigh the desk alike on every date")
    try:
        p_value = p_value_of(by_date, block.opened_row[dates], block.horizon_bars, resamples=resamples, seed=seed)
    except DataError as error:
        return Challenge(gain, None, alpha, False, f"nothing to test: {error}")
    kept = p_value <= alpha
    said = f"gain {gain['value']:+.5f} nats an opinion, p {p_value:.3f} against a share of {alpha:.4f}"
    return Challenge(gain, p_value, alpha, kept, f"{'kept' if kept else 'not kept'}: {said}")


def p_value_of(by_date: np.ndarray, opened_row: np.ndarray, horizon_bars: int, *, resamples: int, seed: int) -> float:
    """One-sided p-value of the mean of (D,) gains: the larger of the stationary bootstrap's and of Student's t.

    The bootstrap (`backtest.snooping.superiority` of one series) knows skew and dependence, but not that it knows a few dates
    only; Student's t with the long-run variance of outcomes that overlap (`backtest.comparison`) does. A p-value by
    resampling is never below 1 / (resamples + 1). Raises `DataError` for too few dates, or gains that are all alike.
    """
    drawn = superiority(by_date[:, None], resamples=resamples, seed=seed).p_value
    apart = int(np.diff(opened_row).min(initial=horizon_bars))
    found = mean_by_date(by_date, np.arange(len(by_date)), horizon=max(1, -(-horizon_bars // max(apart, 1))))
    return max((1.0 + drawn * resamples) / (1.0 + resamples), float(stdtr(found.times - 1, -found.statistic)))
