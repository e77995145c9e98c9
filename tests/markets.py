"""Small markets written out by hand, random ones full of events, and the simulator's rules once more in plain Python."""

from __future__ import annotations

from math import exp, expm1, floor, inf, isfinite, sqrt, trunc
from typing import Any

import numpy as np

from rlaif_ray.core import CLOSE, OPEN, VOLUME, Cube
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Fill, Market, StepResult, step


def daily(closes: Any, opens: Any = None, volumes: Any = 1e6, days: Any = 1, **changes: Any) -> Cube:
    """A daily cube from closes (T,A) or (T,); opens equal closes unless given. `days` from bar to bar (row 0 has none);
    `changes` replaces event arrays."""
    close = np.asarray(closes, np.float64).reshape(len(closes), -1)
    open_ = close if opens is None else np.asarray(opens, np.float64).reshape(close.shape)
    t, a = close.shape
    since = np.cumsum(np.broadcast_to(days, t)) - np.broadcast_to(days, t)[0]
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * since
    volume = np.asarray(volumes, np.float64)
    volume = np.broadcast_to(volume, close.shape) if volume.ndim == 0 else volume.reshape(close.shape)
    high, low = np.fmax(open_, close), np.fmin(open_, close)
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


def one_bar(
    cube: Cube, cash: float, shares: Any, target: Any, costs: CostModel | None = None, row: int = 0, fill: Fill = "next_open", **rules: Any
) -> tuple[Accounts, StepResult]:  # fmt: skip
    """One account over one bar, free of costs unless they are given; `rules` are those of `AccountRules`."""
    accounts = Accounts(np.array([cash], np.float64), np.array([shares], np.float64), np.ones((1, len(shares))))
    targets = np.array([target], np.float64)
    return accounts, step(Market.of(cube, fill), accounts, np.array([row]), targets, costs or CostModel(), AccountRules(**rules))


def stormy(rng: np.random.Generator, rows: int = 30, assets: int = 4, wildness: float = 1.0) -> Cube:
    """Everything that can happen to a name, often: gaps, splits, dividends, halts with and without a price, bars without volume,
    late listings, delistings, weekends. `wildness` scales the moves of prices."""
    shape, chance = (rows, assets), lambda p: rng.random((rows, assets)) < p
    splits = np.where(chance(0.04), rng.choice([2.0, 3.0, 1.5, 0.5, 0.1], shape), 1.0)
    gap = np.where(chance(0.05), rng.choice([0.4, 0.7, 1.4, 2.5], shape) ** min(wildness, 1.0), 1.0)
    moves = gap * np.exp(0.03 * wildness * rng.standard_normal(shape)) / splits
    closes = rng.uniform(5, 200, assets) * np.cumprod(moves, axis=0)
    opens = closes * np.exp(0.02 * wildness * rng.standard_normal(shape))
    volumes = np.where(chance(0.05), 0.0, np.rint(np.exp(rng.normal(10, 1, shape))))
    dividends = np.where(chance(0.05), rng.uniform(0, 0.05, shape) * closes, 0.0)
    late = np.arange(rows)[:, None] < np.where(rng.random(assets) < 0.2, rng.integers(0, rows, assets), 0)
    delisted = np.arange(rows)[:, None] >= np.where(rng.random(assets) < 0.3, rng.integers(1, rows, assets), rows)
    silent = late | delisted & chance(0.7) | chance(0.06)  # a name's price may be told on the day on which it goes
    opens, closes, volumes = (np.where(silent, np.nan, x) for x in (opens, closes, volumes))
    return daily(
        closes, opens, volumes, rng.choice([1, 1, 1, 3, 4], rows), tradable=~silent & ~chance(0.05), splits=splits, dividends=dividends,
        delisted=delisted,
    )  # fmt: skip


def random_weights(rng: np.random.Generator, n: int, assets: int, long_short: bool) -> np.ndarray:
    """(n,A) targets that an account may have: whole and partly invested, concentrated, flat; long-short ones up to their corners."""
    if not long_short:
        return rng.dirichlet(np.full(assets, 0.3), n) * rng.choice([1.0, 1.0, 0.6, 0.0], (n, 1))
    signs = rng.choice([1.0, 1.0, 0.0, -1.0, -1.0], (n, assets))
    weights = rng.dirichlet(np.full(assets, 0.5), n) * signs * rng.choice([2.0, 1.3, 0.5, 0.0], (n, 1))
    for row in weights:
        side = row > 0 if row.sum() > 0 else row < 0
        over = abs(row.sum()) - 1.0
        if over > 0:
            row[side] *= 1.0 - over / abs(row[side].sum())
    return weights


# --- the rules of one bar, in plain Python -----------------------------------------------------------------------------


def last_close(cube: Cube, row: int, a: int) -> float:
    """The last close at or before `row`, in shares of `row`; 0 before the first."""
    splits = 1.0
    for k in range(row, -1, -1):
        if isfinite(cube.prices[k, a, CLOSE]):
            return float(cube.prices[k, a, CLOSE]) / splits
        splits *= float(cube.splits[k, a])
    return 0.0


def mean_volume(cube: Cube, row: int, a: int) -> float:
    """Mean volume of the last 20 bars up to `row` since the name's first close, in shares of `row`; a bar without trades has none."""
    total, splits = 0.0, 1.0
    born = next((k for k in range(row + 1) if isfinite(cube.prices[k, a, CLOSE])), row)
    rows = range(row, max(row - 20, born - 1), -1)
    for k in rows:
        volume = float(cube.prices[k, a, VOLUME])
        total += volume * splits if isfinite(volume) else 0.0
        splits *= float(cube.splits[k, a])
    return total / len(rows)


def volatility(cube: Cube, row: int, a: int) -> float:
    """Standard deviation of the simple total returns of the last 20 bars up to `row`; 0.02 where fewer than 2 have one."""
    returns = []
    for k in range(max(row - 19, 1), row + 1):
        before, now, split = last_close(cube, k - 1, a), last_close(cube, k, a), float(cube.splits[k, a])
        if before > 0:
            returns.append((now + float(cube.dividends[k, a])) * split / before - 1)
    if len(returns) < 2:
        return 0.02
    mean = sum(returns) / len(returns)
    return sqrt(sum((r - mean) ** 2 for r in returns) / (len(returns) - 1))


def fill_cost(q: float, price: float, sigma: float, adv: float, costs: CostModel) -> tuple[float, float]:
    """USD that trading q shares costs, and the factor by which it moves the path's price for good."""
    size = abs(q)
    if size == 0:
        return 0.0, 1.0
    cost = size * price * costs.rate
    if adv <= 0:
        return cost, 1.0  # nothing but the rate can be on: else the name would not trade
    cost += size * price * (costs.impact * sigma * sqrt(size / adv) + costs.temporary * sigma * size / adv)
    k = costs.permanent * sigma / adv
    if k > 0:
        cost += price * (expm1(k * size) / k - size) if q > 0 else price * (size + expm1(-k * size) / k)
    return cost if q > 0 else min(cost, size * price), exp(k * q)  # nobody pays to be rid of a share


def reference_step(
    cube: Cube, fill: str, t: int, cash: float, shares: list[float], factor: list[float], target: list[float], costs: CostModel,
    account: AccountRules = AccountRules(),  # noqa: B008  (a frozen value)
) -> dict[str, Any]:  # fmt: skip
    """One account over the bar t -> t+1, one rule after the other, slow and plain on purpose. `factor`: the path's own on prices."""
    names, price_column = range(len(shares)), OPEN if fill == "next_open" else CLOSE
    shares, factor, target = list(shares), list(factor), list(target)
    split, dividend = cube.splits[t + 1].tolist(), cube.dividends[t + 1].tolist()
    known = [last_close(cube, t, a) * factor[a] for a in names]

    # 0. what the account is worth; one that is worth nothing has ended; one with too little margin is closed
    equity = cash + sum(shares[a] * known[a] for a in names)
    if equity <= 0:
        zeros = [0.0] * len(shares)
        same = {"cash": cash, "shares": shares, "factor": factor}
        return same | {"equity": equity, "gross": 0.0, "net": 0.0, "cost": 0.0, "turnover": 0.0, "weights": zeros, "ended": True}
    liquidated = account.long_short and equity < account.maintenance * sum(abs(shares[a] * known[a]) for a in names)
    if liquidated:
        target = [0.0] * len(shares)

    # 1. interest on cash, the fee on borrowed shares
    days = (cube.times[t + 1] - cube.times[t]) / np.timedelta64(1, "D")
    cash += cash * account.cash_interest * days / 365
    paid = costs.borrow * days * sum(abs(shares[a] * known[a]) for a in names if shares[a] < 0)
    cash -= paid

    # 2. what is wanted, in shares of the next bar; splits, dividends; 3. delistings
    wanted = [target[a] * equity / known[a] * split[a] if known[a] > 0 else 0.0 for a in names]
    if account.whole_shares:
        wanted = [float(round(w)) if abs(w - round(w)) <= 1e-9 * max(1.0, abs(w)) else float(trunc(w)) for w in wanted]
    for a in names:
        shares[a] *= split[a]
        cash += shares[a] * dividend[a]
        if cube.delisted[t + 1, a]:
            cash += shares[a] / split[a] * 0.7 * known[a]
            shares[a] = 0.0

    # 4. orders: halts, volumes, and how much of a bar's volume one may take
    orders: dict[int, float] = {}
    price = [float(cube.prices[t + 1, a, price_column]) * factor[a] for a in names]
    adv = [mean_volume(cube, t, a) * split[a] for a in names]
    sigma = [volatility(cube, t, a) for a in names]
    for a in names:
        halted = not cube.tradable[t + 1, a] or bool(cube.delisted[t + 1, a])
        if halted or known[a] == 0 or (costs.impact + costs.temporary + costs.permanent > 0 and adv[a] == 0):
            continue
        most = inf
        if account.participation < inf and not liquidated:
            most = account.participation * float(cube.prices[t + 1, a, VOLUME])
            most = float(floor(most)) if account.whole_shares else most
        orders[a] = min(max(wanted[a] - shares[a], -most), most)

    # sales first; then purchases, all of them scaled alike where cash does not reach
    traded = 0.0

    def trade(a: int, q: float) -> None:
        nonlocal cash, traded, paid
        cost, moved = fill_cost(q, price[a], sigma[a], adv[a], costs)
        cash -= q * price[a] + cost
        traded, paid = traded + abs(q) * price[a], paid + cost
        shares[a], factor[a] = shares[a] + q, factor[a] * moved

    purchases = {a: q for a, q in orders.items() if q > 0}
    for a, q in orders.items():
        if q < 0:
            trade(a, q)
    needed = sum(q * price[a] + fill_cost(q, price[a], sigma[a], adv[a], costs)[0] for a, q in purchases.items())
    scarce = needed > max(cash, 0.0) and not liquidated
    scale = max(cash, 0.0) / needed if scarce else 1.0
    for a, q in purchases.items():
        trade(a, float(floor(scale * q)) if scarce and account.whole_shares else scale * q)

    # 5. the next close
    values = [shares[a] * last_close(cube, t + 1, a) * factor[a] for a in names]
    after = cash + sum(values)
    if after <= 0:  # over: what it owes stays, and nothing is held
        cash, shares = after, [0.0] * len(shares)
    return {
        "cash": cash, "shares": shares, "factor": factor, "equity": after, "gross": after / equity - 1 + paid / equity,
        "net": after / equity - 1, "cost": paid / equity, "turnover": traded / equity,
        "weights": [v / after if after > 0 else 0.0 for v in values], "ended": after <= 0,
    }  # fmt: skip
