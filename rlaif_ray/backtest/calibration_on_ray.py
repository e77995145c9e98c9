"""The study of the gate over a cluster: searches are independent, so each task takes some of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import ray

from rlaif_ray.backtest.calibration import Cell, promotes
from rlaif_ray.runs import seed_for

A_TASK = 25  # searches; seconds of work, so that what Ray adds does not count


def promoted(cells: Sequence[Cell], searches: int, *, resamples: int = 1000, seed: int) -> np.ndarray:
    """(C,searches) bool: what the gate did with each search of each cell.

    A search's seed follows from its own number: how many workers there are, and which comes first, changes nothing.
    """
    spans = [range(start, min(start + A_TASK, searches)) for start in range(0, searches, A_TASK)]
    tasks = [_some.remote(cell, span, resamples, seed) for cell in cells for span in spans]
    done = ray.get(tasks)
    return np.array([np.concatenate(done[c * len(spans) : (c + 1) * len(spans)]) for c in range(len(cells))])


@ray.remote(num_cpus=1)
def _some(cell: Cell, numbers: range, resamples: int, seed: int) -> np.ndarray:
    return np.array([promotes(cell, resamples=resamples, seed=seed_for(seed, f"{cell}/search={n}", bits=32)) for n in numbers])
