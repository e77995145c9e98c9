"""The compiled kernel against the same rules in NumPy, one account at a time: `python -m benchmarks.simulator`."""

from __future__ import annotations

import numpy as np

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.core import CLOSE, Cube
from rlaif_ray.execution import kernel
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, step

ASSETS = 30
COSTS = CostModel.of_bps(0.5, 1.0, 2.0, impact=0.5, temporary=0.1, permanent=0.1, borrow_bps=0.1)
ACCOUNT = AccountRules(long_short=True, participation=0.1, cash_interest=0.03)
CASH_USD = 1e6
PEER = "NumPy reference (same rules, a Python loop over paths)"


def rows(quick: bool) -> list[Row]:
    """Path-steps per second at 1, 64 and 2,048 paths, long-short over 30 assets: all events, costs and caps on."""
    market = Market.of(market_cube(bars=1001 if quick else 5001), "next_open")
    sizes = ((1, 200), (64, 20), (2048, 2)) if quick else ((1, 900), (64, 60), (2048, 6))
    return [_stepping(market, paths, steps) for paths, steps in sizes]


def _stepping(market: Market, paths: int, steps: int) -> Row:
    starts, targets = long_short(market, paths, steps)

    def ours() -> np.ndarray:
        return stepped(market, starts, targets)

    def peer() -> np.ndarray:
        return NumpyMarket(market).stepped(starts, targets)

    apart = np.abs(ours() - peer()).max()
    assert apart < 1e-9, f"kernel and reference differ by {apart}"
    seconds, peer_seconds = in_turn(ours, peer)
    work = paths * steps
    note = f"Largest difference of a return {apart:.0e}."
    return Row(f"kernel, N = {paths:,}", work / seconds, PEER, work / peer_seconds, peer_seconds / seconds, "path-steps/s", None, note)


def long_short(market: Market, paths: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Random first rows (N,) and target weights (steps,N,A): long one half of the names and short the other, at gross 1."""
    rng = np.random.default_rng(paths)
    starts = rng.integers(0, len(market.days) - 1 - steps, paths)
    return starts, rng.dirichlet(np.ones(ASSETS), (steps, paths)) * np.where(np.arange(ASSETS) % 2, 1.0, -1.0)


def stepped(market: Market, starts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(steps,N) net returns of accounts that start in cash: one call of the kernel a bar."""
    accounts, net = Accounts.of_cash(len(starts), ASSETS, CASH_USD), np.empty(targets.shape[:2])
    for k, row in enumerate(starts + np.arange(len(targets))[:, None]):
        net[k] = step(market, accounts, row, targets[k], COSTS, ACCOUNT).net
    return net


class NumpyMarket:
    """The simulator's rules, but for whole shares and the bound on a sale's cost, over arrays: what one would write without a compiler."""

    def __init__(self, market: Market, costs: CostModel = COSTS, account: AccountRules = ACCOUNT) -> None:
        self.market, self.costs, self.account = market, costs, account

    def stepped(self, starts: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(steps,N) net returns of N accounts that start in cash at rows `starts` (N,), for `targets` (steps,N,A)."""
        net = np.empty(targets.shape[:2])
        for n, start in enumerate(starts):
            cash, shares, factor = CASH_USD, np.zeros(targets.shape[2]), np.ones(targets.shape[2])
            for k, target in enumerate(targets[:, n]):
                cash, shares, factor, net[k, n] = self.step(start + k, cash, shares, factor, target)
        return net

    def step(
        self, t: int, cash: float, shares: np.ndarray, factor: np.ndarray, target: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, float]:
        """Cash, shares, price factors and net return after the bar t -> t+1."""
        now, after = self.market.book[t], self.market.book[t + 1]
        last, split = now[kernel.LAST] * factor, after[kernel.SPLIT]
        equity = cash + shares @ last
        if equity <= 0:
            return cash, shares, factor, 0.0
        called = self.account.long_short and equity < self.account.maintenance * np.abs(shares * last).sum()
        days = self.market.days[t + 1]
        cash *= 1 + self.account.cash_interest * days / 365
        cash += self.costs.borrow * days * np.minimum(shares * last, 0.0).sum()

        wanted = np.divide(target * equity, last, out=np.zeros_like(last), where=last > 0) * split * (not called)
        gone = after[kernel.DELISTED] > 0
        cash += (shares * (split * after[kernel.DIVIDEND] + kernel.DELISTING_RECOVERY * last))[gone].sum()
        shares = np.where(gone, 0.0, shares * split)
        cash += shares @ after[kernel.DIVIDEND]

        filled = (after[kernel.FILLABLE] > 0) & (now[kernel.LAST] > 0) & ((not self.costs.needs_volume) | (now[kernel.ADV] > 0))
        share = self.account.participation
        room = share * after[kernel.VOLUME] if share < np.inf and not called else np.inf
        trade = np.where(filled, np.clip(wanted - shares, -room, room), 0.0)
        price, depth = after[kernel.FILL] * factor, np.where(now[kernel.ADV] > 0, now[kernel.ADV] * split, np.inf)
        sale, bought = np.minimum(trade, 0.0), np.maximum(trade, 0.0)
        cash -= sale @ price + self._cost(sale, price, now[kernel.SIGMA], depth)
        needed = bought @ price + self._cost(bought, price, now[kernel.SIGMA], depth)
        if needed > cash and not called:
            bought *= max(cash, 0.0) / needed
            needed = bought @ price + self._cost(bought, price, now[kernel.SIGMA], depth)
        cash -= needed
        shares = shares + sale + bought
        factor = factor * np.exp(self.costs.permanent * now[kernel.SIGMA] / depth * (sale + bought))
        return cash, shares, factor, (cash + shares @ (after[kernel.LAST] * factor)) / equity - 1

    def _cost(self, trade: np.ndarray, price: np.ndarray, sigma: np.ndarray, depth: np.ndarray) -> float:
        """USD that fills of `trade` (A,) shares cost; what the price moves by is paid as it moves."""
        size, costs = np.abs(trade), self.costs
        fraction = costs.rate + sigma * (costs.impact * np.sqrt(size / depth) + costs.temporary * size / depth)
        paid = (size * price * fraction).sum()
        pull = costs.permanent * sigma / depth
        paid += (price * np.divide(np.expm1(pull * trade) - pull * trade, pull, out=np.zeros_like(pull), where=pull > 0)).sum()
        return float(paid)


def market_cube(bars: int, seed: int = 0) -> Cube:
    """Random walks of 30 assets with splits, dividends, halts without a price, thin days and one delisting."""
    rng = np.random.default_rng(seed)
    shape = (bars, ASSETS)
    splits = np.where(rng.random(shape) < 0.002, 2.0, 1.0)
    shares = np.cumprod(splits, axis=0)  # that one of the first row has become
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0)) / shares
    open_ = close * np.exp(rng.normal(0, 0.005, shape))
    volume = rng.lognormal(np.log(2e4), 1.0, shape) * shares
    prices = np.stack([open_, np.maximum(open_, close), np.minimum(open_, close), close, volume], axis=-1)
    delisted = np.zeros(shape, bool)
    delisted[bars // 2 :, 0] = True
    halted = rng.random(shape) < 0.01
    prices[halted | delisted] = np.nan
    times = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * np.arange(bars)
    return Cube(
        times, times, tuple(f"S{i:02d}" for i in range(ASSETS)), prices, np.zeros((*shape, 0), np.float32), (),
        np.isfinite(prices[:, :, CLOSE]), splits, np.where(rng.random(shape) < 0.01, 0.005 * close, 0.0), delisted, 252.0,
    )  # fmt: skip


if __name__ == "__main__":
    main(rows)
