"""Whether a policy looks ahead: put noise where its future was and see whether its decisions move.

The noise is a possible market, so its shape gives nothing away. A decision that depends on nothing later stays as it
was, bit for bit; one that moves has looked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rlaif_ray.core import Cube

Decide = Callable[[Cube, int], Mapping[str, np.ndarray]]  # (cube, row) -> policy -> (A,) target weights decided at that row's close

SAME = 1e-6  # of equity: a served decision and the backtest's differ by rounding alone


def looks_ahead(decide: Decide, cube: Cube, traded: Mapping[int, Mapping[str, np.ndarray]], *, seed: int) -> dict[str, str]:
    """Policies that knew what came after a decision, and how that showed first, in words.

    Taken again at its own row, a decision must be the one that was traded: who decided in bulk on the whole cube, or on
    forecasts that had seen more, shows here. And noise after the row must not move it.

    Parameters
    ----------
    decide : takes the decisions of a row anew, from views that end there.
    traded : row -> policy -> (A,) target weights that the backtest sent to the market.
    """
    found: dict[str, str] = {}
    for row, targets in traded.items():
        before = decide(cube, row)
        after = decide(perturbed(cube, cube.known_at[row], np.random.default_rng([seed, row])), row)
        for policy, weights in before.items():
            apart, moved = (float(np.abs(other - weights).max()) for other in (targets[policy], after[policy]))
            if apart > SAME:
                said = f"what was traded at {cube.times[row]} is up to {apart:.2g} of equity from what is decided on what was known then"
                found.setdefault(policy, said)
            elif moved > 0:
                said = f"noise after {cube.times[row]} moves the decision taken then by up to {moved:.2g} of equity: it knew what came"
                found.setdefault(policy, said)
    return found


def perturbed(cube: Cube, at: np.datetime64, rng: np.random.Generator) -> Cube:
    """The same cube with every row known after `at` replaced by noise of the same shape.

    Times stay, no one comes back from a delisting, and what a source does not have at all (no volume, say) stays absent.
    """
    after = cube.known_at > at
    t, a = int(after.sum()), len(cube.symbols)
    noise = noise_market(rng, t, a)
    gone = cube.delisted[~after].any(axis=0)
    noise["delisted"] |= gone
    noise["tradable"] &= ~gone
    noise["prices"][:, gone] = np.nan
    noise["features"] = 10.0 * rng.standard_normal((t, a, len(cube.feature_names)), np.float32)
    fields = {}
    for name, future in noise.items():
        column = getattr(cube, name).copy()
        if column.dtype.kind == "f":
            future = np.where(np.isnan(column).all(axis=0), np.nan, future)
        column[after] = future
        fields[name] = column
    return Cube(
        cube.times, cube.known_at, cube.symbols, fields["prices"], fields["features"], cube.feature_names, fields["tradable"],
        fields["splits"], fields["dividends"], fields["delisted"], cube.bars_per_year, cube.price_kind,
    )  # fmt: skip


def noise_market(rng: np.random.Generator, rows: int, assets: int, delistings: float = 0.2) -> dict[str, np.ndarray]:
    """Arrays of a `Cube` by name: random walks with low <= open, close <= high, splits, dividends, halts and delistings.

    `delistings` is about the share of symbols that do not live to the end.
    """
    shape = (rows, assets)
    close = 10.0 ** rng.uniform(0, 3, assets) * np.exp(np.cumsum(rng.normal(0, 0.05, shape), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.02, shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.02, shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.02, shape)))
    prices = np.stack([open_, high, low, close, np.floor(rng.lognormal(12, 1, shape))], axis=-1)
    halted = rng.random(shape) < 0.02
    prices[halted] = np.stack([close] * 4 + [np.zeros(shape)], axis=-1)[halted]
    delisted = np.logical_or.accumulate(rng.random(shape) < delistings / max(rows, 1), axis=0)
    prices[delisted] = np.nan
    alive = ~delisted
    return {
        "prices": prices, "tradable": alive & ~halted, "delisted": delisted,
        "splits": np.where(alive & (rng.random(shape) < 0.01), rng.choice([0.5, 2.0, 3.0], shape), 1.0),
        "dividends": np.where(alive & (rng.random(shape) < 0.02), 0.01 * np.nan_to_num(close), 0.0),
    }  # fmt: skip
