"""How often the gate's decision is right: searches without skill that it must not promote, planted skill that it must find.

Shares of simulated searches of 200 trials (`backtest/calibration.py`), over Ray. Beside the share promoted stands the
level of the test or the ideal: what a test that knew the trials to be independent normal ones would find. Not quick, it
also draws the power curves into docs/gate.svg.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from benchmarks.rows import Row, main
from rlaif_ray import ray_runtime
from rlaif_ray.backtest.calibration import TRIALS, Cell
from rlaif_ray.backtest.gate import LEVEL
from rlaif_ray.charts import Series, steps

NULLS, PLANTED = 2000, 200
YEARS, SHARPES = (5, 10, 20), (0.5, 0.75, 1.0, 1.5)
FOUND = 0.85  # of skill with a Sharpe ratio of 1.5 over 10 years
PICTURE = Path(__file__).parents[1] / "docs" / "gate.svg"


def rows(quick: bool) -> list[Row]:
    """Shares of searches that the gate promotes."""
    ray_runtime.attach()
    from rlaif_ray.backtest.calibration_on_ray import promoted  # brings Ray, which reads its environment when it is imported

    part = 10 if quick else 1
    null = float(promoted([Cell(10)], NULLS // part, seed=0).mean())
    cells = [Cell(years, sharpe) for years in YEARS for sharpe in SHARPES]
    shares = promoted(cells, PLANTED // part, seed=1).mean(axis=1)
    ray_runtime.detach()
    if not quick:
        PICTURE.write_text(picture(shares.reshape(len(YEARS), -1)))
    said = f"{NULLS // part:,} searches of {TRIALS}, 10 years."
    out = [Row("promoted without skill", null, "level", LEVEL, LEVEL / max(null, 1e-9), "share", 1.0, said)]
    for cell, share in zip(cells, shares.tolist(), strict=True):
        best = float(ndtr(cell.sharpe * np.sqrt(cell.years) - ndtri(1 - LEVEL / TRIALS)))
        target = FOUND / best if (cell.years, cell.sharpe) == (10, 1.5) else None
        name = f"promoted at Sharpe {cell.sharpe:g} over {cell.years} years"
        out.append(Row(name, share, "ideal", best, share / best, "share", target, f"{PLANTED // part:,} searches."))
    return out


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
