"""The compiled kernel against the same rules in NumPy, one account at a time: `python -m benchmarks.simulator`."""

from __future__ import annotations

import numpy as np

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.backtest.engine import run
from rlaif_ray.core import CLOSE, OPEN, Cube
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import DELISTING_RECOVERY, Accounts, Market, step
from rlaif_ray.strategies import EqualWeight

ASSETS = 30
COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
PEER = "NumPy reference (same rules, a Python loop over paths)"


def rows(quick: bool) -> list[Row]:
    """Path-steps per second at 1, 64 and 2,048 paths, and one backtest from policy to episode; 30 assets, all events and costs."""
    cube = market_cube(bars=1001 if quick else 5001)
    sizes = ((1, 200), (64, 20), (2048, 2)) if quick else ((1, 900), (64, 60), (2048, 6))
    return [*(_stepping(cube, paths, steps) for paths, steps in sizes), _backtest(cube)]


def _stepping(cube: Cube, paths: int, steps: int) -> Row:
    market, reference = Market.of(cube, "next_open"), NumpyMarket(cube)
    rng = np.random.default_rng(paths)
    starts = rng.integers(0, len(cube.times) - 1 - steps, paths)
    targets = rng.dirichlet(np.ones(ASSETS), (steps, paths))

    def ours() -> np.ndarray:
        accounts = Accounts.of_cash(paths, ASSETS, 1e6)
        return np.stack([step(market, accounts, starts + k, targets[k], COSTS).net for k in range(steps)])

    def peer() -> np.ndarray:
        cash, shares, net = np.full(paths, 1e6), np.zeros((paths, ASSETS)), np.empty((steps, paths))
        for k in range(steps):
            for n in range(paths):
                cash[n], shares[n], net[k, n] = reference.step(starts[n] + k, cash[n], shares[n], targets[k, n], COSTS.rate)
        return net

    apart = np.abs(ours() - peer()).max()
    assert apart < 1e-9, f"kernel and reference differ by {apart}"
    seconds, peer_seconds = in_turn(ours, peer)
    work = paths * steps
    note = f"Largest difference of a return {apart:.0e}."
    return Row(f"kernel, N = {paths:,}", work / seconds, PEER, work / peer_seconds, peer_seconds / seconds, "path-steps/s", None, note)


def _backtest(cube: Cube) -> Row:
    reference, bars = NumpyMarket(cube), len(cube.times) - 1
    policy, rows = EqualWeight(), slice(0, bars)

    def ours() -> np.ndarray:
        return run(policy, cube, rows, costs=COSTS, fill="next_open", max_weight=0.3)[0].returns

    def peer() -> np.ndarray:
        cash, shares, net = 1e6, np.zeros(ASSETS), np.empty(bars)
        for t, target in enumerate(policy.weights(cube, rows)):
            cash, shares, net[t] = reference.step(t, cash, shares, target, COSTS.rate)
        return net

    apart = np.abs(ours() - peer()).max()
    assert apart < 1e-9, f"backtest and reference differ by {apart}"
    seconds, peer_seconds = in_turn(ours, peer)
    note = "Market checks, policy, cap, decisions and episode included."
    name = f"equal-weight backtest, {bars:,} bars x {ASSETS}"
    return Row(name, 1e3 * seconds, PEER, 1e3 * peer_seconds, peer_seconds / seconds, "ms", None, note)


class NumpyMarket:
    """The simulator's rules over arrays of assets: what one would write without a compiler."""

    def __init__(self, cube: Cube) -> None:
        self.price, self.last = cube.prices[:, :, OPEN], cube.prices[:, :, CLOSE].copy()
        for t in range(1, len(self.last)):
            self.last[t] = np.where(np.isnan(self.last[t]), self.last[t - 1] / cube.splits[t], self.last[t])
        self.fillable, self.delisted = cube.tradable & ~cube.delisted, cube.delisted
        self.splits, self.dividends = cube.splits, cube.dividends

    def step(self, t: int, cash: float, shares: np.ndarray, target: np.ndarray, rate: float) -> tuple[float, np.ndarray, float]:
        """Cash, shares and net return after the bar t -> t+1."""
        last, after = np.nan_to_num(self.last[t]), np.nan_to_num(self.last[t + 1])
        equity = cash + shares @ last
        wanted = np.divide(target * equity, last, out=np.zeros_like(last), where=last > 0) * self.splits[t + 1]
        gone = self.delisted[t + 1]
        cash += DELISTING_RECOVERY * (shares * last)[gone].sum()
        shares = shares * self.splits[t + 1]
        cash += shares @ self.dividends[t + 1]
        shares[gone] = 0.0

        filled = self.fillable[t + 1] & (last > 0)
        trade = np.where(filled, wanted - shares, 0.0)
        usd = np.where(filled, trade * np.nan_to_num(self.price[t + 1]), 0.0)
        sold, needed = -usd[usd < 0].sum(), usd[usd > 0].sum() * (1 + rate)
        cash += sold * (1 - rate)
        part = min(1.0, cash / needed) if needed > 0 else 1.0
        cash -= needed * part
        shares = shares + np.where(trade > 0, trade * part, trade)
        return cash, shares, (cash + shares @ after) / equity - 1


def market_cube(bars: int, seed: int = 0) -> Cube:
    """Random walks of 30 assets with splits, dividends, halts without a price and one delisting."""
    rng = np.random.default_rng(seed)
    shape = (bars, ASSETS)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.005, shape))
    prices = np.stack([open_, np.maximum(open_, close), np.minimum(open_, close), close, np.full(shape, 1e6)], axis=-1)
    delisted = np.zeros(shape, bool)
    delisted[bars // 2 :, 0] = True
    halted = rng.random(shape) < 0.01
    prices[halted | delisted] = np.nan
    times = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * np.arange(bars)
    return Cube(
        times, times, tuple(f"S{i:02d}" for i in range(ASSETS)), prices, np.zeros((*shape, 0), np.float32), (),
        np.isfinite(prices[:, :, CLOSE]), np.where(rng.random(shape) < 0.002, 2.0, 1.0), np.where(rng.random(shape) < 0.01, 0.5, 0.0),
        delisted, 252.0,
    )  # fmt: skip


if __name__ == "__main__":
    main(rows)
