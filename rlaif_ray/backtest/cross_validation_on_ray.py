"""The strong baseline over many histories: LightGBM and its optimiser under combinatorial purged cross-validation.

One Ray task a split: trees are grown on the rows that the split leaves to learn from, and what they forecast is traded on
the blocks that it tests. Stitched, each path is the whole span once, no bar of it decided by trees that had learnt from it.
Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 12: the spread over paths is what one walk forward
hides. On most paths the trees know what came after the block; a diagnostic, therefore, and no track record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from rlaif_ray.backtest import engine
from rlaif_ray.backtest.on_ray import forecasts_at
from rlaif_ray.config import ForecastSection
from rlaif_ray.core import Cube, Forecast, Policy
from rlaif_ray.errors import DataError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.forecast.trees import LightGBM
from rlaif_ray.runs import seed_for
from rlaif_ray.splits import CombinatorialPurged
from rlaif_ray.strategies import EqualWeight, forecast_optimiser


@dataclass(frozen=True, eq=False)
class Paths:
    """Simple net returns a bar. Every block starts from cash, the optimiser's and equal weight's alike."""

    times: np.ndarray  # (T,) bar ends
    optimiser: np.ndarray  # (P,T)
    equal_weight: np.ndarray  # (T,)


def cross_validate(
    cube_ref: Any, rows: slice, section: ForecastSection, *, n_groups: int = 10, n_test_groups: int = 2, embargo: int, terms: Terms,
    seed: int,
) -> Paths:  # fmt: skip
    """Every split of `rows`, one task of one CPU each; P = n_test_groups / n_groups of their number.

    Parameters
    ----------
    cube_ref : Ray reference to the Cube.
    rows : decision rows, on which features are defined; the last at most T-2. No bar after the fill of the last one is read.
    section : horizons, levels and the knobs of the trees. The longest horizon is what is purged.
    embargo : bars left out after each tested block.
    seed : root seed; each split derives its own.

    Raises `DataError` where the rows do not fill the groups or leave too little to learn from.
    """
    cube: Cube = ray.get(cube_ref)
    if not 0 <= rows.start < rows.stop < len(cube.times):
        raise DataError(f"decision rows {rows.start} to {rows.stop - 1}; expected 0 to {len(cube.times) - 2}: a fill needs the next bar")
    numbers, longest = np.arange(rows.start, rows.stop), max(section.horizons)
    splitter = CombinatorialPurged(n_groups, n_test_groups, label_ends=longest, embargo=embargo)
    blocks = [slice(int(numbers[b[0]]), int(numbers[b[-1]]) + 1) for b in splitter.blocks(numbers)]
    knobs = {"horizons": section.horizons, "levels": section.levels, **section.trees.model_dump()}
    tasks = []
    for k, ((learnt, _), tested) in enumerate(zip(splitter.split(numbers), splitter.tested, strict=True)):
        closed = numbers[learnt[learnt + longest <= len(numbers)]]
        seeded = {**knobs, "seed": seed_for(seed, f"cpcv/split={k}")}
        tasks.append(_walk_split.remote(cube_ref, closed, [blocks[g] for g in tested], seeded, terms))
    told = [dict(zip(tested.tolist(), parts, strict=True)) for tested, parts in zip(splitter.tested, ray.get(tasks), strict=True)]
    optimiser = [np.concatenate([told[split][group][0] for group, split in enumerate(path)]) for path in splitter.paths]
    equal = np.concatenate([told[split][group][1] for group, split in enumerate(splitter.paths[0])])
    return Paths(cube.times[numbers + 1], np.stack(optimiser), equal)


# Ray's stubs know positional parameters only.
@ray.remote(num_cpus=1)  # pyright: ignore[reportCallIssue, reportArgumentType]
def _walk_split(
    cube: Cube, learnt: np.ndarray, blocks: list[slice], knobs: dict[str, Any], terms: Terms
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Net returns of the optimiser and of equal weight on each tested block."""
    forecaster = LightGBM(**knobs)
    forecaster.learn(cube, learnt)
    return [_walk_block(cube, block, forecaster, terms) for block in blocks]


def _walk_block(cube: Cube, block: slice, forecaster: LightGBM, terms: Terms) -> tuple[np.ndarray, np.ndarray]:
    table = forecaster.predict(cube, range(block.start, block.stop))
    optimiser = forecast_optimiser(cube, table, cost_per_side=terms.costs.rate, max_weight=terms.limits.max_weight)

    def said(t: int) -> dict[str, Forecast]:
        return forecasts_at({table.model: table}, cube.known_at[t])

    def net(policy: Policy) -> np.ndarray:
        return engine.run(policy, cube, block, terms, forecasts_at=said)[0].returns

    return net(optimiser), net(EqualWeight())
