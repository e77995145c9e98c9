"""What may be learnt from closed outcomes: pairs by a named metric, how noisy their labels are, what a judge reads of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_ray.core import TRAITS, Cube, OpinionTable
from rlaif_ray.feedback.labellers import opinions_one_bar_later, timing_noise
from rlaif_ray.feedback.outcomes import OutcomeTable, close
from rlaif_ray.feedback.preferences import PairTable, pairs
from rlaif_ray.feedback.reward_questions import traits_of
from rlaif_ray.feedback.scoring import metric as named
from rlaif_ray.feedback.yardstick import OutcomeTerms

NOISIEST = 0.45  # share of wrong labels beyond which a label would say nothing


def judged_pairs(outcomes: OutcomeTable, opinions: OpinionTable, *, tie: float, metric: str) -> PairTable:
    """Every pair that the named metric tells apart by `tie` or more; see `preferences.pairs`."""
    return pairs(outcomes, tie=tie, metric="score" if metric == "score" else named(metric)(outcomes), opinions=opinions)


class LabelNoise:
    """How often labels are wrong, by what the same opinions would have been worth one bar later; see `labellers.timing_noise`.

    Parameters
    ----------
    tie, metric : that the pairs which are learnt from are made by.
    stated : a share that somebody knows; then nothing is measured.
    """

    def __init__(
        self, outcomes: OutcomeTable, opinions: OpinionTable, cube: Cube, terms: OutcomeTerms, *, tie: float, stated: float | None,
        metric: str = "score",
    ) -> None:  # fmt: skip
        self._stated = stated
        if stated is None:
            later = opinions_one_bar_later(opinions, cube)
            self._now = judged_pairs(outcomes, opinions, tie=tie, metric=metric)
            self._later = judged_pairs(close(later, cube, terms), later, tie=tie, metric=metric)

    def smoothing(self, rows: slice) -> float:
        """Share of labels to be taken as wrong by who learns from outcomes that close inside `rows`."""
        if self._stated is not None:
            return self._stated
        eps = timing_noise(self._now, self._later, rows=rows).eps
        return min(float(np.nan_to_num(eps)), NOISIEST)


def texts_seen(opinions: OpinionTable, sees: Sequence[str]) -> np.ndarray | None:
    """(T,A,K,X) what a judge who sees these things reads of the opinions' texts; None where it reads none."""
    return traits_of(opinions, TRAITS if "text" in sees else ())
