"""Judged pairs as the reward model learns from them: question by question, with what every voice said there.

Axes: P pairs, Q questions (a symbol at a moment), K voices, R rivalries (two voices, or one and climatology), H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from rlaif_ray.core import OpinionTable, content_hash
from rlaif_ray.errors import MissingDataError, did_you_mean
from rlaif_ray.feedback.intervals import clusters_of
from rlaif_ray.feedback.preferences import HEADS, PairTable

OUTCOME = HEADS.index("outcome")


@dataclass(frozen=True, eq=False)
class Asked:
    """The questions (Q) that pairs are about, with what the voices in a pair said there."""

    pairs: PairTable
    date: np.ndarray  # (Q,)
    asset: np.ndarray  # (Q,)
    cluster: np.ndarray  # (Q,) of dates whose outcomes share bars
    of_pair: np.ndarray  # (P,) question of each pair
    p_up: np.ndarray  # (Q,K); NaN where a voice is in no pair
    traits: np.ndarray | None  # (Q,K,X)

    @classmethod
    def of(cls, pairs: PairTable, opinions: OpinionTable, names: tuple[str, ...]) -> Asked:
        _, first, of_pair = np.unique(_keys(pairs), return_index=True, return_inverse=True)
        date, asset = pairs.date[first], pairs.asset[first]
        spoke = np.zeros((len(first), opinions.p_up.shape[-1] + 1), bool)  # climatology marks the last column
        spoke[of_pair, pairs.chosen] = spoke[of_pair, pairs.rejected] = True
        p_up = np.where(spoke[:, :-1], opinions.p_up[date, asset], np.nan)
        traits = traits_of(opinions, names)
        horizon = int((pairs.closed_row - pairs.opened_row).max())
        cluster = clusters_of(pairs.opened_row[first], max(horizon, 1))
        return cls(pairs, date, asset, cluster, of_pair, p_up, None if traits is None else traits[date, asset])

    def scale(self, context: np.ndarray, sees: Sequence[str]) -> dict[str, np.ndarray]:
        """Mean and deviation of every column: contexts over questions, what was said over opinions."""
        said = np.isfinite(self.p_up)
        columns = {"context": context[self.date, self.asset], "stance": stance(self.p_up[said]).T}
        if self.traits is not None:
            columns["text"] = self.traits[said].astype(np.float64)
        out = {}
        for block in (b for b in columns if b in sees):
            out[f"{block}.mean"], out[f"{block}.std"] = _moments(columns[block])
        return out

    def labels(self, heads: Mapping[int, float], label_smoothing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sides (K,R) of every rivalry, and weights (Q,H,R) of what was judged: in all, and for the second side.

        `heads` are weights of some of `HEADS`, by index. A label is wrong with a chance of `label_smoothing`. The outcome of a
        pair counts by its margin, so that the better is who has the higher expected score, and not who is right more often:
        the bold are, and lose more when they are wrong (cost-proportionate weights, Zadrozny et al. 2003). Margins average 1.
        """
        k, q, p = self.p_up.shape[1], len(self.date), self.pairs
        low, high = np.minimum(p.chosen, p.rejected), np.maximum(p.chosen, p.rejected)
        codes, rivalry = np.unique((low + 1) * k + high, return_inverse=True)
        first, second = codes // k - 1, codes % k
        sides = np.zeros((k + 1, len(codes)))  # the last row is that of climatology
        sides[first, np.arange(len(codes))], sides[second, np.arange(len(codes))] = 1.0, -1.0
        total, against = np.zeros((2, q, len(heads), len(codes)))
        for i, (head, worth) in enumerate(heads.items()):
            says = p.agrees[:, head] * np.where(p.chosen == low, 1, -1)  # +1: the first is better in this head
            weight = worth * p.weight * (says != 0) * (p.margin / p.margin.mean() if head == OUTCOME else 1.0)
            wrong = np.where(says > 0, label_smoothing, 1.0 - label_smoothing)
            np.add.at(total[:, i], (self.of_pair, rivalry), weight)
            np.add.at(against[:, i], (self.of_pair, rivalry), weight * wrong)
        return sides[:-1], total, against


def traits_of(opinions: OpinionTable, names: tuple[str, ...]) -> np.ndarray | None:
    """(T,A,K,X) the named traits of the opinions' texts; None where no name is asked for."""
    if not names:
        return None
    missing = [n for n in names if n not in opinions.trait_names]
    if missing or opinions.traits is None:
        hint = did_you_mean(missing[0], opinions.trait_names) if missing else ""
        raise MissingDataError(f"the opinions have no traits {missing or list(names)}; they have {list(opinions.trait_names)}.{hint}")
    return opinions.traits[..., [opinions.trait_names.index(n) for n in names]]


def drawn_dates(seed: int, member: int, clusters: np.ndarray) -> np.ndarray:
    """(Q,) how often a member has drawn each cluster of dates: Poisson with mean 1 (the online bootstrap, Oza and Russell 2001).

    A hash of seed, member and cluster, so that a date has one count in every fit in which its cluster begins where it did.
    """
    with np.errstate(over="ignore"):
        x = clusters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(member_seed(seed, member))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64, Steele et al. 2014
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        uniform = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    below = np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(np.arange(12.0), 1.0)))
    return np.searchsorted(below, uniform, side="right").astype(np.float64)


def member_seed(seed: int, member: int) -> int:
    """63 bits for one member; -1 is what all share."""
    return int(content_hash(["reward model", seed, member]), 16) >> 1


def stance(p_up: np.ndarray) -> np.ndarray:
    """(2,...) logit and its absolute value."""
    logit = np.log(p_up) - np.log1p(-p_up)
    return np.stack([logit, np.abs(logit)])


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (columns,) over finite entries (N, columns); 0 and 1 where there is nothing to tell."""
    there = np.isfinite(x)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, x, 0.0).sum(axis=0) / count
    std = np.sqrt(np.where(there, (x - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(std > 1e-12, std, 1.0)


def _keys(pairs: PairTable) -> np.ndarray:
    """(P,) one number for each question."""
    return pairs.date * (1 + pairs.asset.max(initial=0)) + pairs.asset


def count_questions(pairs: PairTable) -> int:
    return len(np.unique(_keys(pairs)))


def some_questions(pairs: PairTable, count: int, rng: np.random.Generator) -> PairTable:
    """The pairs of at most `count` questions, drawn without replacement."""
    keys = np.unique(_keys(pairs))
    return pairs.take(np.isin(_keys(pairs), rng.choice(keys, min(count, len(keys)), replace=False)))


def together(a: PairTable, b: PairTable) -> PairTable:
    """All pairs of both."""
    return replace(a, **{f.name: np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(a)})
