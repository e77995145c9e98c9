"""Which features are worth keeping: information, clusters, importance on purged folds, stability. All on the training rows given.

Every rule says what it would keep of pure noise. Rows are (N,), in time order; features x (N,F) may have NaN, the target y may not.
Each answer is a frame with a row a feature, in the order of `names`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from sklearn.base import clone

from rlaif_ray.errors import DataError

Score = Callable[[np.ndarray, np.ndarray], float]  # (predicted, true) -> more is better
Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x, y) -> (F,)


def information(x: np.ndarray, y: np.ndarray, bins: int = 8) -> np.ndarray:
    """(F,) mutual information in nats between each feature and the target, both cut into bins of equal counts.

    The plug-in estimate, sum p(a,b) ln(p(a,b) / (p(a) p(b))) (Cover and Thomas, equation 2.28): it is above 0 for noise too, so
    compare it with a null. Equal values share a bin; a feature's NaNs are a bin of their own, for that it is missing may say
    something.
    """
    of_x, of_y = _binned(x, bins), _binned(y[:, None], bins)[:, 0]
    return _information(of_x, of_y, bins)


def mutual_information(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], *, bins: int = 8, permutations: int = 200, block: int = 1, seed: int = 0
) -> pl.DataFrame:  # fmt: skip
    """Features that tell of the target more than chance does: feature, information, bound, p_value, kept.

    The null: the target's rows in another order. `bound` is the 95th percentile, over the permutations, of the LARGEST
    information among all features (Westfall and Young 1993), and `p_value` the share of the permutations whose largest is as
    large, the true order counted in. Kept is what has p <= 0.05: with noise only, nothing is kept 19 times in 20.

    Parameters
    ----------
    block : rows that stay together when the order changes: at least the bars that a label spans, else labels that overlap
        look as if they told of each other.
    """
    _check(x, y, names)
    rng = np.random.default_rng(seed)
    of_x, of_y = _binned(x, bins), _binned(y[:, None], bins)[:, 0]
    found = _information(of_x, of_y, bins)
    largest = np.array([_information(of_x, of_y[_shuffled(len(y), block, rng)], bins).max() for _ in range(permutations)])
    p = (1 + (largest[None, :] >= found[:, None]).sum(axis=1)) / (1 + permutations)
    bound = np.full(len(names), np.quantile(largest, 0.95))
    return pl.DataFrame({"feature": list(names), "information": found, "bound": bound, "p_value": p, "kept": p <= 0.05})


def correlation_clusters(x: np.ndarray, names: Sequence[str], *, least: float = 0.7) -> pl.DataFrame:
    """Features that say the same: feature, cluster, representative.

    Average linkage on the distance 1 - |Spearman's rho|, cut where two clusters have less than `least` |rho| between them at the
    mean. The representative is the feature with the largest mean |rho| to its cluster, the first of equals. Clusters are numbered as
    their first features come. A pair is compared on the rows that both have; a feature that does not vary stands alone.
    """
    rho = np.abs(_spearman(x))
    number = np.arange(len(names))
    if len(names) > 1:
        number = fcluster(linkage(squareform(1.0 - rho, checks=False), "average"), 1.0 - least + 1e-12, "distance")
    order = {c: i for i, c in enumerate(dict.fromkeys(number.tolist()))}
    cluster = np.array([order[c] for c in number.tolist()])
    represents = np.zeros(len(names), bool)
    for c in range(len(order)):
        members = np.flatnonzero(cluster == c)
        represents[members[np.argmax(np.round(rho[np.ix_(members, members)].mean(axis=1), 12))]] = True
    return pl.DataFrame({"feature": list(names), "cluster": cluster, "representative": represents})


def permutation_importance(
    estimator: Any, x: np.ndarray, y: np.ndarray, names: Sequence[str], folds: Iterable[tuple[np.ndarray, np.ndarray]], score: Score, *,
    repeats: int = 5, block: int = 1, seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """What the score on rows not learnt from loses when a feature's rows there are shuffled: feature, drop, bound, kept.

    Breiman (2001), on purged folds (Lopez de Prado 2018, section 8.3.2). Beside each feature the estimator is given its shadow, the
    same values in another order over all rows (Boruta; Kursa and Rudnicki 2010). Kept is what beats the best of all shadows in EVERY
    fold: of F features of noise, each does with a chance of about (1 / (F + 1)) ** folds. `drop` and `bound` are means over the
    folds, of the feature and of the best shadow. Features that say the same share what they lose: keep one of a cluster.

    Parameters
    ----------
    estimator : scikit-learn's `fit` and `predict`; cloned for each fold. It must take NaN where x has some.
    folds : (training rows, test rows), as from `PurgedKFold(5, label_ends=...).split(x)`.
    score : (predicted, true) -> more is better.
    block : rows of a shadow that stay together: a feature that changes slowly has a shadow that does, too.
    """
    _check(x, y, names)
    rng = np.random.default_rng(seed)
    shadows = np.column_stack([column[_shuffled(len(x), block, rng)] for column in x.T])
    both, drops = np.hstack([x, shadows]), []
    for train, test in folds:
        model: Any = clone(estimator)
        model.fit(both[train], y[train])
        whole = score(model.predict(both[test]), y[test])
        broken = [[_broken(model, both[test], y[test], f, score, rng) for _ in range(repeats)] for f in range(both.shape[1])]
        drops.append(whole - np.mean(broken, axis=1))
    if not drops:
        raise DataError("permutation importance got no folds; expected (training rows, test rows) of one or more")
    real, best = np.array(drops)[:, : len(names)], np.array(drops)[:, len(names) :].max(axis=1)
    kept = (real > np.maximum(best, 0.0)[:, None]).all(axis=0)
    return pl.DataFrame({"feature": list(names), "drop": real.mean(axis=0), "bound": np.full(len(names), best.mean()), "kept": kept})


def stability(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], *, top: int, scores: Scores = information, share: float = 0.9, resamples: int = 100,
    block: int = 1, seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """How often a feature is among the `top` by `scores` on a random half of the rows: feature, share, kept.

    Meinshausen and Buehlmann (2010): kept is what is there in at least `share` of the halves; of F features of noise that bound lets
    by at most top^2 / ((2 share - 1) F) at the mean (their theorem 1).

    Parameters
    ----------
    block : rows that are drawn together; at least the bars that a label spans.
    """
    _check(x, y, names)
    if not (0.5 < share <= 1.0 and 1 <= top <= len(names)):
        raise DataError(f"stability has top {top} and share {share} for {len(names)} features; expected top of 1 to all, 0.5 < share <= 1")
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(names))
    for _ in range(resamples):
        half = np.sort(_shuffled(len(y), block, rng)[: len(y) // 2])
        chosen[np.argsort(-scores(x[half], y[half]), kind="stable")[:top]] += 1.0
    return pl.DataFrame({"feature": list(names), "share": chosen / resamples, "kept": chosen >= share * resamples})


def _broken(model: Any, x: np.ndarray, y: np.ndarray, feature: int, score: Score, rng: np.random.Generator) -> float:
    """The score with one feature's rows shuffled."""
    x = x.copy()
    x[:, feature] = x[rng.permutation(len(x)), feature]
    return score(model.predict(x), y)


def _binned(x: np.ndarray, bins: int) -> np.ndarray:
    """(N,F) int64: the bin of each value among those of its column, `bins` where it is NaN."""
    out = np.full(x.shape, bins)
    for f, column in enumerate(x.T):
        there = ~np.isnan(column)
        if there.any():
            rank = rankdata(column[there], method="average") - 0.5
            out[there, f] = np.minimum((rank * bins / there.sum()).astype(np.int64), bins - 1)
    return out


def _information(of_x: np.ndarray, of_y: np.ndarray, bins: int) -> np.ndarray:
    n = len(of_y)
    share_y = np.bincount(of_y, minlength=bins + 1) / n
    out = np.empty(of_x.shape[1])
    for f in range(of_x.shape[1]):
        joint = np.bincount(of_x[:, f] * (bins + 1) + of_y, minlength=(bins + 1) ** 2).reshape(bins + 1, bins + 1) / n
        apart = joint.sum(axis=1)[:, None] * share_y
        some = joint > 0.0
        out[f] = (joint[some] * np.log(joint[some] / apart[some])).sum()
    return out


def _spearman(x: np.ndarray) -> np.ndarray:
    """(F,F), each pair on the rows that both have; 0 where one does not vary, 1 on the diagonal."""
    width = x.shape[1]
    rho = np.eye(width)
    for a in range(width):
        for b in range(a):
            there = ~(np.isnan(x[:, a]) | np.isnan(x[:, b]))
            u, v = (rankdata(x[there, c]) for c in (a, b))
            u, v = u - u.mean() if len(u) else u, v - v.mean() if len(v) else v
            size = np.sqrt((u @ u) * (v @ v))
            rho[a, b] = rho[b, a] = u @ v / size if size > 0.0 else 0.0
    return np.clip(rho, -1.0, 1.0)


def _shuffled(rows: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) the rows in an order in which blocks of them stay together."""
    if block < 1:
        raise DataError(f"block is {block}; expected 1 row or more")
    blocks = np.array_split(np.arange(rows), range(block, rows, block))
    return np.concatenate([blocks[b] for b in rng.permutation(len(blocks))])


def _check(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    if x.shape != (len(y), len(names)) or not len(y):
        raise DataError(f"features have shape {x.shape}; expected (rows, features) = {(len(y), len(names))}, one row or more")
    if np.isnan(y).any():
        raise DataError(f"the target is NaN on row {int(np.argmax(np.isnan(y)))}; leave out rows whose label has not closed")
