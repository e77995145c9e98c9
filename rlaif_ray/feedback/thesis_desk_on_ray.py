"""The thesis policy on the desk: taught on what had closed before a row, and seated beside the rules from that row on."""

from __future__ import annotations

from typing import Any

import ray
import torch

from rlaif_ray.agents.analysts import prompt_hashes
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.core import Cube
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.thesis_analyst import ThesisAnalyst
from rlaif_ray.feedback.thesis_experiment import RFT, SFT, Ground, Study, ThesisFold, taught
from rlaif_ray.feedback.thesis_on_ray import study_of
from rlaif_ray.feedback.thesis_policy import ThesisPolicy
from rlaif_ray.feedback.yardstick import OutcomeTerms


def seated(policy: ThesisPolicy, section: Thesis) -> ThesisAnalyst:
    """A taught policy as an analyst who answers the questions that the rules are asked."""
    study = study_of(section)
    return ThesisAnalyst(
        policy, horizon_bars=study.horizon_bars, min_features=study.min_features, prompt_hashes=prompt_hashes, sources=study.sources
    )


def teach(cube_ref: Any, learn: slice, section: Thesis, terms: OutcomeTerms, *, seed: int) -> ThesisPolicy:
    """A policy that knows the last `section.train_bars` rows of `learn`, whose outcomes closed inside it, as one Ray task."""
    return ray.get(_taught.remote(cube_ref, span(learn, section), study_of(section), terms, RFT if section.method == RFT else SFT, seed))


def span(learn: slice, section: Thesis) -> ThesisFold:
    """What of these rows is learnt from, and what is kept for early stopping and calibration; nothing closes outside.

    Raises `DataError` where there are too few.
    """
    gap, stop = section.horizon_bars + 1, learn.stop - section.horizon_bars
    start = max(learn.start, stop - section.train_bars)
    kept = int((stop - start) * section.validation)
    if kept < 1 or stop - kept - gap <= start:
        raise DataError(
            f"{learn.stop - learn.start} rows are too few to teach a thesis policy; bring more bars, or leave out --improve.thesis"
        )
    return ThesisFold("desk", slice(start, stop - kept - gap), slice(stop - kept, stop), slice(stop, stop))


@ray.remote(num_cpus=1)
def _taught(cube: Cube, fold: ThesisFold, study: Study, terms: OutcomeTerms, arm: str, seed: int) -> ThesisPolicy:
    torch.set_num_threads(1)
    return taught(arm, Ground.of(cube.head(fold.validation.stop + study.horizon_bars), study, terms), fold, seed=seed).policy
