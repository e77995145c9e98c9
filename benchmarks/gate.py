"""How often the gate is right: searches without skill that it must not promote, planted skill and peekers that it must find.

Shares of simulated searches of 200 trials (`backtest/calibration.py`), over Ray. Beside the share promoted stands the
level of the test or the ideal: what a test that knew the trials to be independent normal ones would find. What is
promoted is StepM's doing; the vetoes that follow from returns are counted apart. Not quick, it also draws the power
curves into docs/gate.svg.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from benchmarks.rows import Row, main
from rlaif_ray import ray_runtime
from rlaif_ray.backtest.calibration import TRIALS, Cell, Judged
from rlaif_ray.backtest.gate import LEVEL
from rlaif_ray.backtest.peeking import HONEST, PEEKING
from rlaif_ray.charts import Series, steps

NULLS = {5: 500, 10: 2000, 20: 500}  # searches without skill by years
PLANTED, MARKETS = 200, 500
YEARS, SHARPES = (5, 10, 20), (0.5, 0.75, 1.0, 1.5)
FOUND = 0.85  # of skill with a Sharpe ratio of 1.5 over 10 years
WORKERS = 2
PICTURE = Path(__file__).parents[1] / "docs" / "gate.svg"


def rows(quick: bool) -> list[Row]:
    """Shares of searches that the gate promotes, of peekers that it catches, and what a second worker brings."""
    part = 10 if quick else 1
    ray_runtime.attach(num_cpus=WORKERS)
    from rlaif_ray.backtest.calibration_on_ray import judged, looked_ahead  # brings Ray, which reads its environment when imported

    nulls = {years: judged([Cell(years)], count // part, seed=0)[0] for years, count in NULLS.items()}
    cells = [Cell(years, sharpe) for years in YEARS for sharpe in SHARPES]
    planted = judged(cells, PLANTED // part, seed=1)
    peeked = looked_ahead(MARKETS // part, seed=2)
    spread = _seconds(400 // part)
    ray_runtime.detach()
    ray_runtime.attach(num_cpus=1)
    alone = _seconds(400 // part)
    ray_runtime.detach()
    if not quick:
        shares = np.array([np.mean([j.superior for j in found]) for found in planted])
        PICTURE.write_text(picture(shares.reshape(len(YEARS), -1)))
    out = [_without_skill(years, found) for years, found in nulls.items()]
    out += [_with_skill(cell, found) for cell, found in zip(cells, planted, strict=True)]
    return [*out, *_peekers(peeked, MARKETS // part), Row(
        f"{400 // part} searches over {WORKERS} workers (s)", spread, "over one", alone, alone / spread, "s", None,
        f"Wall time on warm workers; {alone / spread / WORKERS:.0%} of {WORKERS} times as fast.",
    )]  # fmt: skip


def _seconds(searches: int) -> float:
    """Wall seconds of so many searches on workers that have already taken some."""
    from rlaif_ray.backtest.calibration_on_ray import A_TASK, judged

    judged([Cell(5)], WORKERS * A_TASK, resamples=100, seed=3)
    start = time.perf_counter()
    judged([Cell(5)], searches, seed=4)
    return time.perf_counter() - start


def _without_skill(years: int, found: Sequence[Judged]) -> Row:
    null = float(np.mean([j.superior for j in found]))
    alone = " and ".join(
        f"{np.mean([getattr(j, test) for j in found]):.1%} over {name}"
        for test, name in (("over_equal", "equal weight"), ("over_strong", "the rule"))
    )
    name = f"promoted without skill, {years} years"
    note = f"{len(found):,} searches of {TRIALS}. Each test alone: {alone}. {_vetoed(found)}"
    return Row(name, null, "level", LEVEL, LEVEL / max(null, 0.5 / len(found)), "share", 1.0, note)


def _with_skill(cell: Cell, found: Sequence[Judged]) -> Row:
    share = float(np.mean([j.superior for j in found]))
    best = float(ndtr(cell.sharpe * np.sqrt(cell.years) - ndtri(1 - LEVEL / TRIALS)))
    target = FOUND / best if (cell.years, cell.sharpe) == (10, 1.5) else None
    name = f"promoted at Sharpe {cell.sharpe:g} over {cell.years} years"
    return Row(name, share, "ideal", best, share / best, "share", target, f"{len(found):,} searches. {_vetoed(found)}")


def _vetoed(found: Sequence[Judged]) -> str:
    superior = [j for j in found if j.superior]
    fired = Counter(name for j in superior for name in j.fired)
    by_name = ", ".join(f"{name} {count}" for name, count in sorted(fired.items())) or "none"
    return f"Vetoes on the {len(superior)} promoted: {by_name}."


def _peekers(seen: dict[str, int], markets: int) -> list[Row]:
    caught = sum(seen[name] for name in PEEKING) / len(PEEKING) / markets
    blamed = sum(seen[name] for name in HONEST) / len(HONEST) / markets
    said = f"{markets} markets each: " + ", ".join(f"{name} {seen[name]}" for name in PEEKING)
    return [
        Row("peekers caught", caught, "all", 1.0, caught, "share", 1.0, f"{said}. Honest twins blamed: {blamed:.1%} of the time."),
    ]


def picture(shares: np.ndarray) -> str:
    """The power curves as an SVG that needs no page around it."""
    lines = [Series(f"{years} years", f"c{k}", shares[k]) for k, years in enumerate(YEARS)]
    drawn = steps([f"Sharpe {s:g}" for s in SHARPES], lines, title="Share of planted skill that the gate promotes")
    colours = ("#0b5fa5", "#c77700", "#5b8c2a")
    style = "".join(f".line.c{k}{{stroke:{c}}}.dot.c{k}{{fill:{c}}}" for k, c in enumerate(colours))
    style += "text{font:11px sans-serif;fill:#5d6670}.line{fill:none;stroke-width:1.7}.grid{stroke:#d9dce0}.zero{stroke:#5d6670;fill:none}"
    key = "".join(
        f'<text x="{70 + 90 * k}" y="40" style="fill:{c};font-weight:600">{years} years</text>'
        for k, (years, c) in enumerate(zip(YEARS, colours, strict=True))
    )
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "</svg>", f'<style>{style}</style>{key}</svg>'
    ).replace(">", '><rect width="100%" height="100%" fill="#fcfcfb"/>', 1)


if __name__ == "__main__":
    main(rows)
