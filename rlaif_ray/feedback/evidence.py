"""How good the judge and the analysts were on dates that nothing was fitted on, with intervals that respect dates."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel, Settings, fit_judge

Interval = dict[str, float]
HELD_OUT = 0.2  # share of the dates, the latest


def clusters_of(rows: np.ndarray, horizon_bars: int) -> np.ndarray:
    """Dates whose outcomes share bars are one cluster: what happens in it counts as one draw."""
    return rows // horizon_bars


def clustered_interval(values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """Mean of `values` (N,) with its 95% interval from resampling whole clusters (N,) with replacement.

    The cluster bootstrap (Davison and Hinkley 1997, section 3.8). NaN values are left out; fewer than two clusters have no interval.
    """
    there = np.isfinite(values)
    values, clusters = values[there], clusters[there]
    if not len(values):
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    _, where = np.unique(clusters, return_inverse=True)
    totals, counts = np.bincount(where, values), np.bincount(where)
    value = float(totals.sum() / counts.sum())
    if len(totals) < 2:
        return {"value": value, "low": np.nan, "high": np.nan}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(totals), np.full(len(totals), 1.0 / len(totals)), size=resamples)
    means = (drawn @ totals) / (drawn @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def split_held_out(pairs: PairTable, share: float = HELD_OUT) -> tuple[PairTable, PairTable]:
    """(earlier, later) pairs: the last `share` of the dates are held out, and what closes in them is purged from the rest."""
    dates = np.unique(pairs.opened_row)
    if len(dates) < 2:
        return pairs, pairs.take(np.zeros(len(pairs), bool))
    first = dates[min(int(np.ceil(len(dates) * (1.0 - share))), len(dates) - 1)]
    return pairs.take(pairs.closed_row < first), pairs.take(pairs.opened_row >= first)


def held_out(
    context: np.ndarray, outcomes: OutcomeTable, p_up: np.ndarray, pairs: PairTable, settings: Settings, *, min_pairs: int,
    resamples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy on later dates of a judge fitted on the earlier ones, beside an author-average baseline.

    The baseline prefers the author whose mean score was higher on the earlier pairs' outcomes. `gain` is accuracy less
    that of the baseline on the same pairs. None where there are too few pairs to fit or to judge.
    """
    earlier, later = split_held_out(pairs)
    if len(earlier) < min_pairs or not len(later):
        return {"n_pairs": len(later), "accuracy": None, "author_average": None, "gain": None}
    judge = fit_judge(context, p_up, earlier, settings, min_pairs=min_pairs)
    assert isinstance(judge, RewardModel)
    ours = _right(judge.rewards(context[later.date, later.asset], p_up[later.date, later.asset]), later)
    known = (outcomes.closed_row <= earlier.closed_row.max()) & (outcomes.opened_row >= earlier.opened_row.min())
    average = _author_mean(outcomes.score[known])
    theirs = _right(np.broadcast_to(average, (len(later), len(average))), later)
    groups = clusters_of(later.opened_row, outcomes.horizon_bars)
    names = {"accuracy": ours, "author_average": theirs, "gain": ours - theirs}
    out: dict[str, Any] = {name: clustered_interval(x, groups, resamples=resamples, seed=seed) for name, x in names.items()}
    return {"n_pairs": len(later), **out}


def track_records(outcomes: OutcomeTable, p_up: np.ndarray, rows: slice, *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each author over the opinions that opened in `rows`: how many, abstentions, mean score and hit rate with intervals."""
    chosen = (outcomes.opened_row >= rows.start) & (outcomes.opened_row < rows.stop)
    groups = np.repeat(clusters_of(outcomes.opened_row[chosen], outcomes.horizon_bars), len(outcomes.symbols))
    out = {}
    for k, author in enumerate(outcomes.authors):
        said = np.isfinite(p_up[chosen, :, k])
        score, hit, net = (x[chosen, :, k].reshape(-1) for x in (outcomes.score, outcomes.hit, outcomes.net))
        out[author] = {
            "n_opinions": int(said.sum()), "n_abstentions": int((~said).sum()), "n_closed": int(np.isfinite(score).sum()),
            "score": clustered_interval(score, groups, resamples=resamples, seed=seed),
            "hit_rate": clustered_interval(hit, groups, resamples=resamples, seed=seed),
            "net": clustered_interval(net, groups, resamples=resamples, seed=seed),
        }  # fmt: skip
    return out


def _right(rewards: np.ndarray, pairs: PairTable) -> np.ndarray:
    """(P,) 1 where the chosen has the higher reward (P,K), 0 where not, a half for equals."""
    at = np.arange(len(pairs))
    gap = rewards[at, pairs.chosen] - rewards[at, pairs.rejected]
    return (gap > 0) + 0.5 * (gap == 0)


def _author_mean(score: np.ndarray) -> np.ndarray:
    """(K,) mean over all finite scores (T,A,K); 0, no better than climatology, for who never spoke."""
    there = np.isfinite(score)
    return np.where(there, score, 0.0).sum(axis=(0, 1)) / np.maximum(there.sum(axis=(0, 1)), 1)
