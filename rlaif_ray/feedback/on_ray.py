"""RLAIF of a fold: for each of its windows a judge fitted on outcomes closed before it, and the manager that it moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from rlaif_ray.agents.debate import MANAGER, pool
from rlaif_ray.config import Feedback
from rlaif_ray.core import Cube, OpinionTable
from rlaif_ray.feedback import build
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.evidence import clustered_interval, clusters_of, held_out, track_records
from rlaif_ray.feedback.outcomes import OutcomeTable, close
from rlaif_ray.feedback.preferences import PairTable, pairs
from rlaif_ray.feedback.reward_model import EqualWeights, Judge, fit_judge
from rlaif_ray.folds import Fold, Window
from rlaif_ray.runs import seed_for

EQUAL = "equal_weights"
Weights = Callable[[np.ndarray, np.ndarray], np.ndarray]  # context (...,C), p_up (...,K) -> (...,K)


def judge_fold(
    cube_ref: Any, fold: Fold, opinions: OpinionTable, section: Feedback, seed: int, out_dir: str | Path, *, cost_per_side: float,
    resamples: int = 2000,
) -> tuple[OpinionTable, dict[str, Any]]:  # fmt: skip
    """`judge_windows` as one Ray task."""
    return ray.get(judge_task.remote(cube_ref, fold, opinions, section, seed, out_dir, cost_per_side=cost_per_side, resamples=resamples))


def judge_windows(
    cube: Cube, fold: Fold, opinions: OpinionTable, section: Feedback, seed: int, out_dir: str | Path, *, cost_per_side: float,
    resamples: int = 2000,
) -> tuple[OpinionTable, dict[str, Any]]:  # fmt: skip
    """The manager's verdicts on all window rows of a fold, each window weighed by its own refit, and how good all were.

    Parameters
    ----------
    opinions : the analysts' p_up (T,A,K), given at decision moments of the cube.
    out_dir : where the last window's judge is written (`reward_model.json`, and weights where one was fitted).
    cost_per_side : fraction of the notional that one fill of an implied position costs.

    Returns
    -------
    The manager's table: one row per window row, p_up (R,A,1) from the opinions on the table then, weighed in the context
    in which they were given. And a record: per window the judge and its held-out accuracy; for the last window each
    analyst's record, the weights, and the manager against equal weights.
    """
    outcomes = close(opinions, cube, cost_per_side=cost_per_side)
    judged = pairs(outcomes, tie=section.tie)
    context = context_features(cube, outcomes.opened_row)
    tables, windows = [], []
    judge: Judge = EqualWeights(opinions.authors, 0, section.min_pairs)
    for window in fold.windows:
        judge, said = _fit_window(window, context, opinions, outcomes, judged, section, seed, resamples)
        windows.append(said)
        tables.append(_verdicts_in(window.rows, cube, context, opinions, judge.weights))
    judge.save(out_dir)
    manager = OpinionTable(
        cube.known_at[np.concatenate([np.arange(w.rows.start, w.rows.stop) for w in fold.windows])], opinions.symbols, (MANAGER,),
        np.concatenate(tables)[..., None], opinions.horizon_bars,
    )  # fmt: skip
    last = fold.last.rows
    record = {
        "fold": fold.name, "windows": windows,
        "analysts": track_records(outcomes, opinions.p_up, last, resamples=resamples, seed=seed),
        **_against_equal(last, cube, context, opinions, judge, cost_per_side, resamples, seed),
    }  # fmt: skip
    return manager, record


def _on_worker(cube: Cube, *args: Any, **keywords: Any) -> tuple[OpinionTable, dict[str, Any]]:
    """`judge_windows` on a worker, on one thread, so that sums come out the same everywhere."""
    torch.set_num_threads(1)
    return judge_windows(cube, *args, **keywords)


judge_task: Any = ray.remote(num_cpus=1)(_on_worker)


def _fit_window(
    window: Window, context: np.ndarray, opinions: OpinionTable, outcomes: OutcomeTable, judged: PairTable, section: Feedback,
    seed: int, resamples: int,
) -> tuple[Judge, dict[str, Any]]:  # fmt: skip
    usable = judged.inside(window.fit)
    settings = build(section, opinions.authors, seed=seed_for(seed, f"judge/window={window.name}"))
    judge = fit_judge(context, opinions.p_up, usable, settings, min_pairs=section.min_pairs)
    said = {"window": window.name, "role": window.role, "judge": judge.kind, "n_pairs": len(usable)}
    if isinstance(judge, EqualWeights):
        return judge, {**said, "reason": judge.reason, "held_out": None}
    fair = held_out(
        context, outcomes, opinions.p_up, usable, settings, min_pairs=section.min_pairs, resamples=resamples, seed=settings.seed
    )  # fmt: skip
    return judge, {**said, "state_hash": judge.state_hash, "held_out": fair}


def _verdicts_in(rows: slice, cube: Cube, context: np.ndarray, opinions: OpinionTable, weigh: Weights) -> np.ndarray:
    """(R,A) the manager's p_up at each row, from the last opinions at or before it; NaN before the first."""
    on_table = np.searchsorted(opinions.as_of, cube.known_at[rows], side="right") - 1
    used, where = np.unique(on_table, return_inverse=True)
    p_up = opinions.p_up[used]
    verdict = pool(p_up, weigh(context[used], p_up))
    verdict[used < 0] = np.nan
    return verdict[where]


def _against_equal(
    rows: slice, cube: Cube, context: np.ndarray, opinions: OpinionTable, judge: Judge, cost_per_side: float, resamples: int, seed: int
) -> dict[str, Any]:  # fmt: skip
    """The manager and its equal-weights twin over the opinions that opened in `rows`: weights, records and their difference.

    Both are closed with all opinions before `rows` too, for these make the climatology that the analysts are judged by.
    """
    weights = judge.weights(context, opinions.p_up)
    both = np.stack([pool(opinions.p_up, weights), pool(opinions.p_up, np.isfinite(opinions.p_up).astype(np.float64))], axis=-1)
    table = OpinionTable(opinions.as_of, opinions.symbols, (MANAGER, EQUAL), both, opinions.horizon_bars)
    outcomes = close(table, cube, cost_per_side=cost_per_side)
    inside = (outcomes.opened_row >= rows.start) & (outcomes.opened_row < rows.stop)
    gain = (outcomes.score[inside, :, 0] - outcomes.score[inside, :, 1]).reshape(-1)
    groups = np.repeat(clusters_of(outcomes.opened_row[inside], opinions.horizon_bars), len(opinions.symbols))
    spread = {}
    for k, author in enumerate(opinions.authors):
        given = weights[inside, :, k][np.isfinite(opinions.p_up[inside, :, k])]
        names = ("low", "median", "high")
        spread[author] = dict(zip(names, np.quantile(given, [0.05, 0.5, 0.95]).tolist(), strict=True)) if len(given) else None
    return {
        "weights": spread,
        "manager": track_records(outcomes, both, rows, resamples=resamples, seed=seed),
        "gain_over_equal_weights": clustered_interval(gain, groups, resamples=resamples, seed=seed),
    }
