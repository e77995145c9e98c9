"""What a thesis policy learns from: features, the teacher's thesis, and how the symbol then fared.

Missing features are NaN here. The network reads each feature scaled, 0 where it is missing, and beside it whether it was
there: a missing value is never mistaken for an average one. Axes: N examples, F features, S sections, C claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rlaif_ray.errors import DataError, SchemaError
from rlaif_ray.feedback.thesis_schema import DECISIONS, ThesisForm

CLIP = 5.0  # standard deviations: a broken ratio must not own a batch


@dataclass(frozen=True, eq=False)
class StandardScaler:
    """Mean and deviation of each feature over the values that were observed."""

    mean: np.ndarray  # (F,) float64
    std: np.ndarray  # (F,) float64, > 0

    @classmethod
    def fit(cls, features: np.ndarray) -> StandardScaler:
        """From training rows (N,F). A feature that was never observed, or never moved, has deviation 1."""
        there = np.isfinite(features)
        values, count = np.where(there, features, 0.0).astype(np.float64), np.maximum(there.sum(axis=0), 1)
        mean = values.sum(axis=0) / count
        std = np.sqrt(np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count)
        return cls(mean, np.where(std > 1e-9 * np.maximum(np.abs(mean), 1.0), std, 1.0))

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """(N,2F) float32 network inputs of features (N,F): scaled within +-5, 0 where missing; then 1 where observed, else 0."""
        there = np.isfinite(features)
        scaled = np.clip((np.where(there, features, self.mean) - self.mean) / self.std, -CLIP, CLIP)
        return np.concatenate([scaled, there], axis=1).astype(np.float32)


class Facts(NamedTuple):
    """What a thesis on each example is held against, by its rewards."""

    true: np.ndarray  # (N,C) bool: what could be claimed truly; False where it cannot be known
    known: np.ndarray  # (N,C) bool: every input of the claim is there. The rest is masked in the loss and absent from the thesis
    open_sections: np.ndarray  # (N,S) bool: there is something that the section can tell of
    outcome: np.ndarray  # (N,) float64

    def take(self, index: np.ndarray) -> Facts:
        return Facts(*(column[index] for column in self))


@dataclass(frozen=True, eq=False)
class ThesisData:
    """Examples, one a row: a symbol at a moment, its decision and outcome. `row` and `asset` are the index into a cube.

    An example may be learnt from only after `closed_row`: see `closed_by`.
    """

    form: ThesisForm
    features: np.ndarray  # (N,F) float32, NaN where missing
    decision: np.ndarray  # (N,) int64 of DECISIONS: what the outcome says would have been right
    outcome: np.ndarray  # (N,) float64 residual return over the horizon, in residual volatilities of the horizon
    row: np.ndarray  # (N,) int64 decision row
    asset: np.ndarray  # (N,) int64
    closed_row: np.ndarray  # (N,) int64 row at whose close the outcome is known

    def __post_init__(self) -> None:
        n = len(self.features)
        if self.features.shape != (n, len(self.form.features)):
            raise SchemaError(f"thesis features have shape {self.features.shape}; expected (N, {len(self.form.features)})")
        for name in ("decision", "outcome", "row", "asset", "closed_row"):
            if getattr(self, name).shape != (n,):
                raise SchemaError(f"ThesisData.{name} has shape {getattr(self, name).shape}; expected ({n},), one for each example")
        if not np.isfinite(self.outcome).all() or not np.isin(self.decision, np.arange(len(DECISIONS))).all():
            raise DataError("an example's outcome is not finite, or its decision is none of the five; leave out what cannot be judged")
        if (self.closed_row <= self.row).any():
            raise DataError("an example closes at or before the row that it is decided on; expected closed_row > row")

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: np.ndarray) -> ThesisData:
        """The examples at `index`, integers or bools, in that order."""
        columns = (self.features, self.decision, self.outcome, self.row, self.asset, self.closed_row)
        return ThesisData(self.form, *(column[index] for column in columns))

    def closed_by(self, row: int) -> ThesisData:
        """The examples whose outcomes are known at the close of `row`: what may be learnt from then."""
        return self.take(self.closed_row <= row)

    @cached_property
    def facts(self) -> Facts:
        observed = np.isfinite(self.features)
        known, open_sections = self.form.known_claims(observed), self.form.open_sections(observed)
        return Facts(self.form.true_claims(self.features), known, open_sections, self.outcome)

    @cached_property
    def sections(self) -> np.ndarray:
        """(N,S) bool: what the teacher writes. It claims all that is true (`facts.true`)."""
        return self.form.teacher_sections(self.features)

    @cached_property
    def up(self) -> np.ndarray:
        """(N,) bool: the outcome was positive."""
        return self.outcome > 0
