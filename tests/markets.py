"""Small markets written out by hand, and the simulator's rules once more in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif_ray.core import CLOSE, OPEN, Cube


def daily(closes: Any, opens: Any = None, **changes: Any) -> Cube:
    """A daily cube from closes (T,A) or (T,); opens equal closes unless given. `changes` replaces event arrays."""
    close = np.asarray(closes, np.float64).reshape(len(closes), -1)
    open_ = close if opens is None else np.asarray(opens, np.float64).reshape(close.shape)
    t, a = close.shape
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(t)
    high, low, volume = np.fmax(open_, close), np.fmin(open_, close), np.full(close.shape, 1e6)
    events: dict[str, np.ndarray] = {
        "tradable": np.isfinite(close), "splits": np.ones((t, a)), "dividends": np.zeros((t, a)), "delisted": np.zeros((t, a), bool)
    }  # fmt: skip
    for name, value in changes.items():
        events[name] = np.asarray(value, events[name].dtype).reshape(t, a)
    return Cube(
        times, times.copy(), tuple("ABCDEFGHIJ"[:a]) if a <= 10 else tuple(f"S{i:03d}" for i in range(a)),
        np.stack([open_, high, low, close, volume], axis=-1), np.zeros((t, a, 0), np.float32), (),
        events["tradable"], events["splits"], events["dividends"], events["delisted"], 252.0,
    )  # fmt: skip


def reference_step(cube: Cube, fill: str, t: int, cash: float, shares: list[float], target: list[float], rate: float) -> dict[str, Any]:
    """One account over one bar, one rule after the other, as DESIGN section 5 says them: slow and plain on purpose."""
    assets = range(len(shares))
    column = OPEN if fill == "next_open" else CLOSE

    def last(row: int, a: int) -> float:
        """The last close at or before `row`, in shares of `row`."""
        splits = 1.0
        for k in range(row, -1, -1):
            if np.isfinite(cube.prices[k, a, CLOSE]):
                return float(cube.prices[k, a, CLOSE]) / splits
            splits *= float(cube.splits[k, a])
        return 0.0

    equity = cash + sum(shares[a] * last(t, a) for a in assets)
    wanted = [target[a] * equity / last(t, a) if last(t, a) > 0 else 0.0 for a in assets]
    shares = list(shares)

    for a in assets:
        shares[a] *= float(cube.splits[t + 1, a])
        wanted[a] *= float(cube.splits[t + 1, a])
        cash += shares[a] * float(cube.dividends[t + 1, a])

    for a in assets:
        if cube.delisted[t + 1, a]:
            cash += shares[a] * last(t, a) / float(cube.splits[t + 1, a]) * 0.7
            shares[a] = 0.0

    filled = [a for a in assets if cube.tradable[t + 1, a] and not cube.delisted[t + 1, a] and last(t, a) > 0]
    price = [float(cube.prices[t + 1, a, column]) for a in assets]
    traded = costs = 0.0
    for a in filled:
        if wanted[a] < shares[a]:
            notional = (shares[a] - wanted[a]) * price[a]
            cash += notional - notional * rate
            traded, costs, shares[a] = traded + notional, costs + notional * rate, wanted[a]

    buys = {a: wanted[a] - shares[a] for a in filled if wanted[a] > shares[a]}
    needed = sum(n * price[a] for a, n in buys.items()) * (1 + rate)
    part = min(1.0, cash / needed) if needed > 0 else 1.0
    for a, n in buys.items():
        notional = n * part * price[a]
        cash -= notional + notional * rate
        traded, costs, shares[a] = traded + notional, costs + notional * rate, shares[a] + n * part

    after = cash + sum(shares[a] * last(t + 1, a) for a in assets)
    return {
        "cash": cash, "shares": shares, "equity": after, "net": after / equity - 1, "cost": costs / equity, "turnover": traded / equity,
        "weights": [shares[a] * last(t + 1, a) / after for a in assets],
    }  # fmt: skip
