"""Who else could have told: raters that see less than the judge, held against it on the same pairs.

What a rater that sees only prices, only length, only stance or only the author gets right is no merit of a judge that
sees all of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.intervals import Interval, clustered_interval, clusters_of
from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.reward_questions import traits_of

LENGTH = "log_words"
# price: the market's state and the side that an opinion takes, so what prices say of that side
RATERS = {"price": ("context", "direction"), "length": ("text",), "stance": ("stance",), "author": ("author",)}


def gaps(values: np.ndarray, pairs: PairTable) -> np.ndarray:
    """(P,) value of the chosen less that of the rejected, from values (P,K) of the voices; climatology's is 0."""
    beside = np.concatenate([values, np.zeros((len(values), 1))], axis=-1)  # where -1 finds it
    at = np.arange(len(pairs))
    return beside[at, pairs.chosen] - beside[at, pairs.rejected]


def right(gap: np.ndarray) -> np.ndarray:
    """(P,) 1 where the chosen is preferred, 0 where not, a half for equals."""
    return (gap > 0) + 0.5 * (gap == 0)


def rewards_on(model: RewardModel, context: np.ndarray, opinions: OpinionTable, pairs: PairTable) -> np.ndarray:
    """(P,K) mean rewards of all voices on the question of each pair."""
    at = pairs.date, pairs.asset
    traits = traits_of(opinions, model.settings.traits)
    return model.rewards(context[at], opinions.p_up[at], None if traits is None else traits[at]).mean


def author_average(outcomes: OutcomeTable, earlier: PairTable) -> np.ndarray:
    """(K,) mean score of each author on the outcomes that the earlier pairs are made of; 0 for who never spoke."""
    known = (outcomes.closed_row <= earlier.closed_row.max()) & (outcomes.opened_row >= earlier.opened_row.min())
    score = outcomes.score[known]
    there = np.isfinite(score)
    return np.where(there, score, 0.0).sum(axis=(0, 1)) / np.maximum(there.sum(axis=(0, 1)), 1)


def narrowed(settings: Settings, rater: str) -> Settings:
    """The same machine with all else masked."""
    return replace(settings, sees=RATERS[rater], traits=(LENGTH,) if rater == "length" else (), bar=None)


def beside_raters(
    ours: np.ndarray, context: np.ndarray, opinions: OpinionTable, earlier: PairTable, later: PairTable, settings: Settings, *,
    horizon_bars: int, resamples: int, seed: int,
) -> dict[str, dict[str, Interval]]:  # fmt: skip
    """Each rater's accuracy on the later pairs after learning from the earlier ones, and by how much ours (P,) is above it.

    The rater of lengths is left out where the opinions have no texts.
    """
    groups = clusters_of(later.opened_row, horizon_bars)
    out = {}
    for rater in RATERS:
        if rater == "length" and (opinions.traits is None or LENGTH not in opinions.trait_names):
            continue
        model = RewardModel(narrowed(settings, rater)).fit(context, opinions, earlier)
        theirs = right(gaps(rewards_on(model, context, opinions, later), later))
        out[rater] = {
            "accuracy": clustered_interval(theirs, groups, resamples=resamples, seed=seed),
            "gain": clustered_interval(ours - theirs, groups, resamples=resamples, seed=seed),
        }
    return out
