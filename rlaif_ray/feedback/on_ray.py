"""RLAIF of a fold: for each of its windows a judge fitted on outcomes closed before it, and the manager that it moves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from rlaif_ray.agents.debate import MANAGER, pool
from rlaif_ray.config import Feedback
from rlaif_ray.core import Cube, OpinionTable
from rlaif_ray.feedback import build
from rlaif_ray.feedback.contest import Block, standing
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.evidence import held_out, paired_gain, track_records
from rlaif_ray.feedback.lessons import LabelNoise, judged_pairs, texts_seen
from rlaif_ray.feedback.outcomes import OutcomeTable, close
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel
from rlaif_ray.feedback.weighing import EqualWeights, Kind, Weigher, fit_weigher
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Fold, Window
from rlaif_ray.runs import seed_for

EMBARGO = 5  # bars between the pairs that the held-out judge learns from and those that it is asked about
WAYS: tuple[Kind, ...] = ("reward_model", "track_record", "equal_weights")


def judge_fold(
    cube_ref: Any, fold: Fold, opinions: OpinionTable, section: Feedback, seed: int, out_dir: str | Path, *, terms: OutcomeTerms,
    resamples: int = 2000,
) -> tuple[OpinionTable, dict[str, Any]]:  # fmt: skip
    """`judge_windows` as one Ray task."""
    return ray.get(judge_task.remote(cube_ref, fold, opinions, section, seed, out_dir, terms=terms, resamples=resamples))


def judge_windows(
    cube: Cube, fold: Fold, opinions: OpinionTable, section: Feedback, seed: int, out_dir: str | Path, *, terms: OutcomeTerms,
    resamples: int = 2000,
) -> tuple[OpinionTable, dict[str, Any]]:  # fmt: skip
    """The manager's verdicts on all window rows of a fold, each window weighed by its own refit, and how good all were.

    Parameters
    ----------
    opinions : the analysts' p_up (T,A,K), given at decision moments of the cube.
    out_dir : where the last window's judge is written (`reward_model.json`, and weights where one was fitted).
    terms : on which opinions are judged.

    Returns
    -------
    The manager's table: one row per window row, p_up (R,A,1) from the opinions on the table then, weighed in the context
    in which they were given. And a record: per window the judge and its held-out accuracy; for the last window each
    analyst's record, the weights, and the manager against equal weights.
    """
    desk = _Desk(cube, opinions, close(opinions, cube, terms), section, terms)
    tables, windows = [], []
    judge: Weigher = EqualWeights(opinions.authors, "no window has been fitted")
    for window in fold.windows:
        judge, said = _fit_window(desk, window, seed, resamples, raters=window is fold.last)
        windows.append(said)
        tables.append(_verdicts_in(window.rows, desk, judge))
    judge.save(out_dir)
    manager = OpinionTable(
        cube.known_at[np.concatenate([np.arange(w.rows.start, w.rows.stop) for w in fold.windows])], opinions.symbols, (MANAGER,),
        np.concatenate(tables)[..., None], opinions.horizon_bars,
    )  # fmt: skip
    drawn = {"resamples": resamples, "seed": seed}
    record = {
        "fold": fold.name, "windows": windows,
        "analysts": track_records(desk.outcomes, opinions.p_up, fold.last.rows, **drawn),
        **_three_ways(desk, fold.last, judge, drawn),
    }  # fmt: skip
    return manager, record


@dataclass(frozen=True, eq=False)
class _Desk:
    """What was said, what came of it, and what of that may be learnt."""

    cube: Cube
    opinions: OpinionTable
    outcomes: OutcomeTable
    section: Feedback
    terms: OutcomeTerms

    @cached_property
    def pairs(self) -> PairTable:
        return judged_pairs(self.outcomes, self.opinions, tie=self.section.tie, metric=self.section.metric)

    @cached_property
    def context(self) -> np.ndarray:
        return context_features(self.cube, self.outcomes.opened_row)

    @cached_property
    def noise(self) -> LabelNoise:
        asked: dict[str, Any] = {"tie": self.section.tie, "metric": self.section.metric, "stated": self.section.label_smoothing}
        return LabelNoise(self.outcomes, self.opinions, self.cube, self.terms, **asked)

    def weights(self, weigher: Weigher, dates: np.ndarray) -> np.ndarray:
        """(D,A,K) on some of the dates."""
        texts = texts_seen(self.opinions, self.section.sees)
        return weigher.weights(self.context[dates], self.opinions.p_up[dates], None if texts is None else texts[dates])

    def verdicts(self, weigher: Weigher, dates: np.ndarray) -> np.ndarray:
        """(D,A) p_up of a manager who weighs so."""
        return pool(self.opinions.p_up[dates], self.weights(weigher, dates))

    def fit(self, kind: Kind, window: Window, seed: int) -> Weigher:
        """From what closed before the window."""
        section, smoothing = self.section, self.noise.smoothing(window.fit) if kind == "reward_model" else 0.0
        settings = build(section, self.opinions.authors, seed=seed, label_smoothing=smoothing)
        return fit_weigher(
            kind, window.fit, self.context, self.opinions, self.outcomes, self.pairs, settings, min_pairs=section.min_pairs
        )  # fmt: skip


def _on_worker(cube: Cube, *args: Any, **keywords: Any) -> tuple[OpinionTable, dict[str, Any]]:
    """`judge_windows` on a worker, on one thread, so that sums come out the same everywhere."""
    torch.set_num_threads(1)
    return judge_windows(cube, *args, **keywords)


judge_task: Any = ray.remote(num_cpus=1)(_on_worker)


def _fit_window(desk: _Desk, window: Window, seed: int, resamples: int, *, raters: bool) -> tuple[Weigher, dict[str, Any]]:
    own = seed_for(seed, f"judge/window={window.name}")
    judge, usable = desk.fit(desk.section.weigh_by, window, own), desk.pairs.inside(window.fit)
    said = {"window": window.name, "role": window.role, "judge": judge.kind, "n_pairs": len(usable), "state_hash": judge.state_hash}
    if not isinstance(judge, RewardModel):
        reason = judge.reason if isinstance(judge, EqualWeights) else "the held-out pairs are the reward model's to judge"
        return judge, {**said, "reason": reason, "held_out": None}
    fair = held_out(
        desk.context, desk.outcomes, desk.opinions, usable, judge.settings, min_pairs=desk.section.min_pairs, resamples=resamples, seed=own,
        raters=raters, smoothing=desk.noise.smoothing, embargo=EMBARGO,
    )  # fmt: skip
    return judge, {**said, "label_smoothing": judge.settings.label_smoothing, "held_out": fair}


def _verdicts_in(rows: slice, desk: _Desk, judge: Weigher) -> np.ndarray:
    """(R,A) the manager's p_up at each row, from the last opinions at or before it; NaN before the first."""
    on_table = np.searchsorted(desk.opinions.as_of, desk.cube.known_at[rows], side="right") - 1
    used, where = np.unique(on_table, return_inverse=True)
    verdict = desk.verdicts(judge, used)
    verdict[used < 0] = np.nan
    return verdict[where]


def _three_ways(desk: _Desk, window: Window, judge: Weigher, drawn: dict[str, Any]) -> dict[str, Any]:
    """The manager on the last window's dates beside one who goes by track records, and one to whom all are alike."""
    opened, rows = desk.outcomes.opened_row, window.rows
    dates = np.flatnonzero((opened >= rows.start) & (opened < rows.stop))
    p_up = desk.opinions.p_up[dates]
    block = Block(
        opened[dates], desk.opinions.horizon_bars, desk.outcomes.residual[dates], desk.outcomes.climatology[dates],
        np.isfinite(p_up).max(axis=-1, initial=False),
    )  # fmt: skip
    ways = {MANAGER: judge, **{kind: desk.fit(kind, window, 0) for kind in WAYS[1:]}}
    verdicts = {name: desk.verdicts(weigher, dates) for name, weigher in ways.items()}
    ours, equal = block.score(verdicts[MANAGER]), block.score(verdicts["equal_weights"])
    given = desk.weights(judge, dates)
    return {
        "weights": {author: _spread(given[..., k][np.isfinite(p_up[..., k])]) for k, author in enumerate(desk.opinions.authors)},
        "ways": {name: standing(said, block, **drawn) for name, said in verdicts.items()},
        "gain_over_equal_weights": paired_gain(ours, equal, block.opened_row, block.horizon_bars, **drawn),
    }


def _spread(given: np.ndarray) -> dict[str, float] | None:
    """Of the weights that an author was given."""
    return dict(zip(("low", "median", "high"), np.quantile(given, [0.05, 0.5, 0.95]).tolist(), strict=True)) if len(given) else None
