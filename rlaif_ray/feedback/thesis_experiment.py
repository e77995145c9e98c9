"""The thesis policy put to the test: short walk-forward folds, and the arms that it is compared with.

SFT and RFT learn from the same examples; SFT on shuffled labels has everything but the truth. All are judged on the same
later days: what their theses are worth, how right their decisions and probabilities are, and what their positions earn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray.backtest.comparison import MeanTest, mean_by_date
from rlaif_ray.backtest.observations import constant
from rlaif_ray.core import Cube
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.scoring import log_gain
from rlaif_ray.feedback.thesis_analyst import written
from rlaif_ray.feedback.thesis_data import ThesisData
from rlaif_ray.feedback.thesis_market import decisions, scaled_outcomes, thesis_features
from rlaif_ray.feedback.thesis_policy import ThesisPolicy
from rlaif_ray.feedback.thesis_rewards import Rewards, score_theses
from rlaif_ray.feedback.thesis_schema import SIGNS, ThesisForm
from rlaif_ray.feedback.thesis_training import Rft, Sft, Trained, train
from rlaif_ray.feedback.yardstick import OutcomeTerms, Yardstick

SFT, RFT, SHUFFLED = "sft", "rft", "shuffled_labels"
SAMPLES = 8  # theses drawn for an example, whose rewards are averaged


@dataclass(frozen=True)
class ThesisFold:
    """Decision rows of one fold, in time order; a label that closes in one part is never learnt from for another."""

    name: str
    learn: slice
    validation: slice
    test: slice


def cut(stop: int, *, folds: int, train_bars: int, test_bars: int, validation: float, horizon: int, embargo: int) -> list[ThesisFold]:
    """`folds` adjoining test blocks that end before row `stop`, each learnt for from the `train_bars` before it.

    A gap of horizon + 1 + embargo rows parts learning from validation, whose share is the last of the training rows, and
    validation from test. Raises `DataError` where there are too few rows.
    """
    gap, kept = horizon + 1 + embargo, int(train_bars * validation)
    first = stop - folds * test_bars - gap - train_bars
    if first < 0 or kept <= 0 or train_bars - kept <= gap:
        raise DataError(
            f"{stop} rows do not hold {folds} folds of {train_bars} rows to learn from, {gap} between and {test_bars} to test on; "
            "bring more bars, or lower --thesis.folds, --thesis.train_bars or --thesis.test_bars"
        )
    out = []
    for k in range(folds):
        test = stop - (folds - k) * test_bars
        end = test - gap
        out.append(ThesisFold(str(k), slice(end - train_bars, end - kept - gap), slice(end - kept, end), slice(test, test + test_bars)))
    return out


@dataclass(frozen=True)
class Study:
    """What is taught and how it is judged."""

    form: ThesisForm
    sft: Sft
    rft: Rft | None  # None: there is no such arm
    rewards: Rewards
    hidden: int
    horizon_bars: int
    decision_z: tuple[float, ...]  # edges of the five decisions, in deviations
    sources: Mapping[str, str]  # column of the cube by feature
    min_features: int  # fewer, and there is no thesis
    min_validation: int  # fewer closed examples, and p_up is not calibrated

    @property
    def arms(self) -> tuple[str, ...]:
        return (SFT, RFT, SHUFFLED) if self.rft else (SFT, SHUFFLED)


@dataclass(frozen=True, eq=False)
class Ground:
    """A market as the study reads it."""

    study: Study
    features: np.ndarray  # (T,A,F) float32
    outcome: np.ndarray  # (T,A) residual return in deviations
    yardstick: Yardstick

    @classmethod
    def of(cls, cube: Cube, study: Study, terms: OutcomeTerms) -> Ground:
        yardstick = Yardstick.of(cube, study.horizon_bars, terms)
        return cls(study, thesis_features(cube, study.sources, study.form.features), scaled_outcomes(yardstick), yardstick)

    def examples(self, rows: slice) -> ThesisData:
        """Every symbol and row with an outcome and enough features to write of, in order of time."""
        known = np.isfinite(self.features[rows]).sum(axis=-1) >= self.study.min_features
        at, asset = np.nonzero(np.isfinite(self.outcome[rows]) & known)
        row = at + rows.start
        outcome = self.outcome[row, asset]
        labels = decisions(outcome, self.study.decision_z)
        return ThesisData(self.study.form, self.features[row, asset], labels, outcome, row, asset, row + self.study.horizon_bars)


def shuffled(data: ThesisData, edges: Sequence[float], seed: int) -> ThesisData:
    """The same examples with each other's outcomes. Asset means come off first: a drift would be no skill, and survive."""
    counts = np.maximum(np.bincount(data.asset), 1)
    own = data.outcome - (np.bincount(data.asset, data.outcome) / counts)[data.asset]
    outcome = own[np.random.default_rng(seed).permutation(len(own))]
    return replace(data, outcome=outcome, decision=decisions(outcome, edges))


def taught(arm: str, ground: Ground, fold: ThesisFold, *, seed: int) -> Trained:
    """The arm's policy, from the fold's learning and validation rows and nothing later."""
    study = ground.study
    learn, validation = ground.examples(fold.learn), ground.examples(fold.validation)
    if arm == SHUFFLED:
        learn, validation = (shuffled(part, study.decision_z, seed + k) for k, part in enumerate((learn, validation)))
    return train(
        learn, sft=study.sft, rft=study.rft if arm == RFT else None, rewards=study.rewards, hidden=study.hidden, seed=seed,
        validation=validation, min_validation=study.min_validation,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Exam:
    """How one arm fared on one test block, example by example (N), and the sides that it took (R rows, A symbols)."""

    row: np.ndarray  # (N,) decision row
    reward: np.ndarray  # (N,) mean over the theses drawn
    parts: np.ndarray  # (N,3) of `REWARDS`, unweighted
    right: np.ndarray  # (N,) bool: the likeliest decision is the outcome's class
    usual: np.ndarray  # (N,) bool: so is the class that was the most frequent while learning
    spoken: np.ndarray  # (N,) bool: the likeliest thesis is valid; else the analyst abstains
    score: np.ndarray  # (N,) nats over the climatological forecast; NaN where it abstains
    sides: np.ndarray  # (R,A) -1, 0, 1; NaN where nothing was said

    def save(self, file: Path) -> None:
        np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Exam:
        with np.load(file) as saved:
            return cls(**{f.name: saved[f.name] for f in fields(cls)})


def examined(policy: ThesisPolicy, ground: Ground, fold: ThesisFold, *, seed: int) -> Exam:
    """The policy's theses on the fold's test rows."""
    study, rows = ground.study, fold.test
    data = ground.examples(rows)
    told = [written(policy, ground.features[row], study.min_features) for row in range(rows.start, rows.stop)]
    decided, p_up, said = (np.stack(x) for x in zip(*((w.draft.decision, w.p_up, w.known & ~w.faulty) for w in told), strict=True))
    at = data.row - rows.start, data.asset
    scored = score_theses(policy, data, study.rewards, samples=SAMPLES, seed=seed)
    frequent = np.bincount(ground.examples(fold.learn).decision, minlength=len(SIGNS)).argmax()
    gain = log_gain(p_up[at], ground.yardstick.climatology[data.row, data.asset], ground.yardstick.residual[data.row, data.asset])
    return Exam(
        data.row, scored.reward, scored.parts, decided[at] == data.decision, data.decision == frequent, said[at],
        np.where(said[at], gain, np.nan), np.where(said, SIGNS[decided], np.nan),
    )  # fmt: skip


def figures(blocks: Sequence[Exam], horizon: int) -> dict[str, Any]:
    """Means over the examples of all blocks, with intervals by date: rows of one date, and dates that share bars, are not independent."""
    row, reward, parts, right, usual, spoken, score = (
        np.concatenate([getattr(b, name) for b in blocks]) for name in ("row", "reward", "parts", "right", "usual", "spoken", "score")
    )
    return {
        "examples": len(row), "days": len(np.unique(row)), "reward": _mean(reward, row, horizon), "validity": float(parts[:, 0].mean()),
        "evidence": float(parts[:, 1].mean()), "decision": _mean(parts[:, 2], row, horizon),
        "valid_likeliest": float(spoken.mean()), "accuracy": _mean(right.astype(np.float64), row, horizon),
        "accuracy_of_most_frequent": float(usual.mean()), "score": _mean(score, row, horizon),
    }  # fmt: skip


def paired(blocks: Sequence[Exam], others: Sequence[Exam], horizon: int) -> dict[str, Any]:
    """Reward and decision reward of the first less the second on the same examples, tested by date."""
    row = np.concatenate([b.row for b in blocks])
    gap = np.concatenate([b.reward - o.reward for b, o in zip(blocks, others, strict=True)])
    decided = np.concatenate([b.parts[:, 2] - o.parts[:, 2] for b, o in zip(blocks, others, strict=True)])
    return {"reward": _mean(gap, row, horizon), "decision": _mean(decided, row, horizon)}


def learnt(trained: Trained) -> dict[str, Any]:
    """The course of the training, and the loss of SFT's second epoch over the last one's: of the steps, and after it on validation rows."""
    return {
        "sft": asdict(trained.sft), "rft": None if trained.rft is None else asdict(trained.rft),
        "second_over_last": {"steps": _second_over_last(trained.sft.train), "validation": _second_over_last(trained.sft.validation)},
        "calibration": asdict(trained.policy.calibration), "state_hash": trained.policy.state_hash,
    }  # fmt: skip


def _second_over_last(losses: Sequence[float]) -> float | None:
    return losses[1] / losses[-1] if len(losses) > 1 else None


def _mean(values: np.ndarray, dates: np.ndarray, horizon: int) -> dict[str, float | None]:
    """Mean, interval and p-value of what there is; the mean alone where the dates are too few, or alike, for a test."""
    there = np.isfinite(values)
    values, dates = values[there], dates[there]
    plain: dict[str, float | None] = dict.fromkeys(("mean", "low", "high", "p_value"))
    if not len(values):
        return plain
    plain["mean"] = float(values.mean())
    if len(np.unique(dates)) < 2 * max(horizon, 10) or constant(values[:, None])[0]:
        return plain
    found: MeanTest = mean_by_date(values, dates, horizon=horizon)
    return {"mean": found.mean, "low": found.low, "high": found.high, "p_value": found.p_value}
