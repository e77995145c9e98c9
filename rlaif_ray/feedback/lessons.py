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
    """Every pair that the named metric tells apart by `tie` or more."""
    return pairs(outcomes, tie=tie, metric=named(metric)(outcomes), opinions=opinions)


class LabelNoise:
    """How often labels are wrong, by what the same opinions would have been worth one bar later; see `labellers.timing_noise`.

    `stated` : a share that somebody knows; then nothing is measured.
    """

    def __init__(
        self, outcomes: OutcomeTable, opinions: OpinionTable, cube: Cube, terms: OutcomeTerms, *, tie: float, stated: float | None
    ) -> None:  # fmt: skip
        self._stated, self._tie, self._now = stated, tie, outcomes
        self._later = close(opinions_one_bar_later(opinions, cube), cube, terms) if stated is None else outcomes

    def smoothing(self, rows: slice) -> float:
        """Share of labels to be taken as wrong by who learns from outcomes that close inside `rows`."""
        if self._stated is not None:
            return self._stated
        eps = timing_noise(self._now, self._later, tie=self._tie, rows=rows).eps
        return min(float(np.nan_to_num(eps)), NOISIEST)


def texts_seen(opinions: OpinionTable, sees: Sequence[str]) -> np.ndarray | None:
    """(T,A,K,X) what a judge who sees these things reads of the opinions' texts; None where it reads none."""
    return traits_of(opinions, TRAITS if "text" in sees else ())
