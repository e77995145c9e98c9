"""Intervals that respect dates: what happens while outcomes share bars is one draw, however many opinions there were."""

from __future__ import annotations

import numpy as np

Interval = dict[str, float]


WIDE = 4  # horizons in a cluster of dates that overlap: only those within one of its edge share bars with the next cluster


def clusters_of(rows: np.ndarray, horizon_bars: int) -> np.ndarray:
    """(N,) number of the cluster of each date, whose outcomes count as one draw; `rows` (N,) of their openings, in any order.

    Dates a horizon or more from their neighbours share no bars and are each a draw. Where openings are nearer, neighbours
    share bars wherever they are cut: clusters are `WIDE` horizons long there, so that little of one is in the next (blocks
    longer than the dependence, Kuensch 1989).
    """
    dates, where = np.unique(rows, return_inverse=True)
    if not len(dates):
        return np.zeros(0, np.int64)
    begins = np.concatenate([[True], np.diff(dates) >= horizon_bars])  # no bar is shared across
    run = dates[np.maximum.accumulate(np.where(begins, np.arange(len(dates)), 0))]
    wide = WIDE * horizon_bars
    return (np.maximum(run, dates // wide * wide) // horizon_bars)[where]


def clustered_interval(values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int) -> Interval:
    """Mean of `values` (N,) with its 95% interval from resampling whole clusters (N,) with replacement.

    The cluster bootstrap (Davison and Hinkley 1997, section 3.8). NaN values are left out; fewer than two clusters have no interval.
    """
    there = np.isfinite(values)
    values, clusters = values[there], clusters[there]
    if not len(values):
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    totals, counts = _by_cluster(values, clusters)
    value = float(totals.sum() / counts.sum())
    if len(totals) < 2:
        return {"value": value, "low": np.nan, "high": np.nan}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(totals), np.full(len(totals), 1.0 / len(totals)), size=resamples)
    means = (drawn @ totals) / (drawn @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def standard_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Of the mean of finite `values` (N,), from the totals of clusters (Liang and Zeger 1986); NaN with fewer than two clusters."""
    there = np.isfinite(values)
    if not there.any():
        return np.nan
    totals, counts = _by_cluster(values[there], clusters[there])
    groups, n = len(totals), counts.sum()
    if groups < 2:
        return np.nan
    apart = totals - counts * totals.sum() / n
    return float(np.sqrt((apart**2).sum() * groups / (groups - 1)) / n)


def effective(values: np.ndarray, clusters: np.ndarray) -> float:
    """How many independent values say as much about the mean as these (N,): their variance over that of their clustered mean.

    Between 1 and the number of values (Kish 1965, section 5.4); NaN where no clusters tell.
    """
    there = np.isfinite(values)
    error = standard_error(values, clusters)
    if np.isnan(error):
        return np.nan
    n = int(there.sum())
    return float(np.clip(values[there].var() / error**2, 1.0, n)) if error > 0 else float(n)


def _by_cluster(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, where = np.unique(clusters, return_inverse=True)
    return np.bincount(where, values), np.bincount(where)
