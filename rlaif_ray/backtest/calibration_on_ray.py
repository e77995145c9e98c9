"""The study of the gate over a cluster: searches are independent, and so are markets to peek in; each task takes some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import ray

from rlaif_ray.backtest.calibration import Cell, Judged, judge
from rlaif_ray.backtest.peeking import HONEST, PEEKING, caught
from rlaif_ray.runs import seed_for

A_TASK = 25  # searches or markets; seconds of work, so that what Ray adds does not count


def judged(cells: Sequence[Cell], searches: int, *, resamples: int = 1000, seed: int) -> list[list[Judged]]:
    """By cell, what the gate did with each search.

    A search's seed follows from its own number: how many workers there are, and which comes first, changes nothing.
    """
    spans = _spans(searches)
    done = ray.get([_search.remote(cell, span, resamples, seed) for cell in cells for span in spans])
    return [list(chain.from_iterable(done[c * len(spans) : (c + 1) * len(spans)])) for c in range(len(cells))]


def looked_ahead(markets: int, *, seed: int) -> dict[str, int]:
    """On how many of the markets the canaries said of each strategy that it looks ahead, the honest ones included."""
    total = sum(ray.get([_peek.remote(span, seed) for span in _spans(markets)]), Counter())
    return {name: total[name] for name in (*PEEKING, *HONEST)}


def _spans(count: int) -> list[range]:
    return [range(start, min(start + A_TASK, count)) for start in range(0, count, A_TASK)]


@ray.remote(num_cpus=1)
def _search(cell: Cell, numbers: range, resamples: int, seed: int) -> list[Judged]:
    return [judge(cell, resamples=resamples, seed=seed_for(seed, f"{cell}/search={n}", bits=32)) for n in numbers]


@ray.remote(num_cpus=1)
def _peek(numbers: range, seed: int) -> Counter[str]:
    return sum((Counter(caught(PEEKING | HONEST, seed_for(seed, f"market={n}", bits=32)).keys()) for n in numbers), Counter())
