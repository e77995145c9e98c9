"""Backtests against vectorbt (many parameters at once) and backtesting.py (one, bar by bar): `python -m benchmarks.backtests`.

Both run in environments of their own (`python -m benchmarks.peers` makes them); without them their rows say "not run".

The bars have no pause between them: each opens where the last one closed. There alone do the three agree on what an
order is: ours sizes at the close that it decided on and fills at the next open, theirs put all cash in at the fill.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from benchmarks.peers import Peer, in_turn_with, interpreter
from benchmarks.rows import Row, main, own_time, peak_mb
from rlaif_ray.backtest.engine import run
from rlaif_ray.core import Cube, Decision, Episode, MarketView
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Market, sweep
from rlaif_ray.execution.terms import Terms

FEES = CostModel(commission=0.001)
FAST, SLOW = 10, 30  # windows of the single backtest


def rows(quick: bool) -> list[Row]:
    """A sweep of moving-average windows; one crossing of moving averages, decided in bulk and on a view at every bar."""
    bars = 2_148 if quick else 20_000
    return [_sweep(30 if quick else 100), _event_style(InBulk(), "decided in bulk", bars), _event_style(OnViews(), "on views", bars)]


def _sweep(longest: int) -> Row:
    """vectorbt's DMAC example: all pairs of windows 2 to 100 on three markets are 14,553 backtests."""
    bars, windows = 2183, np.arange(2, longest + 1)
    closes = np.stack([_closes(bars, seed) for seed in range(3)], axis=1)
    paths = 3 * len(windows) * (len(windows) - 1) // 2
    name, peer_name, unit, work = f"sweep, {paths:,} x {bars:,} bars", "vectorbt, from_signals", "path-bars/s", paths * bars

    def ours() -> np.ndarray:
        return _dmac(closes, windows)

    if not interpreter("vectorbt").exists():
        return Row.not_run(name, work / own_time(ours), peer_name, unit, 1)
    with Peer("vectorbt", "sweep", close=closes, windows=windows, fees=FEES.rate) as peer:
        peer.seconds()
        theirs, mine = peer.found("equity"), ours()
        apart = max(float(np.abs(a / b[1:] - 1).max()) for a, b in zip(mine, theirs, strict=True))
        assert apart < 1e-9, f"equity differs by {apart} of its size"
        seconds, peer_seconds = in_turn_with(ours, peer)
    note = (
        f"From prices to the equity of every path; their signals shifted one bar, filled at the open; fees alone. "
        f"Equity differs by {apart:.0e} at most. Peak memory of a process that does ours: {peak_mb(_dmac, closes, windows):.0f} MB."
    )
    return Row(name, work / seconds, peer_name, work / peer_seconds, peer_seconds / seconds, unit, 1, note)


def _dmac(closes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """(N,T-1) equity of every pair of windows on every market: in it from the bar at which the faster mean crosses above."""
    bars = len(closes)
    swept = []
    for close in closes.T:
        means = np.stack([_mean(close, w) for w in windows])
        market = Market.of(_cube(close), "next_open")
        swept.append(sweep(market, slice(0, bars - 1), _positions(means[:, :-1]), FEES))
    equity = np.concatenate(swept)
    equity += 1.0
    return np.cumprod(equity, axis=1, out=equity)


def _positions(means: np.ndarray) -> Iterator[np.ndarray]:
    """(T,1) weights of each pair; a mean that starts above has not crossed."""
    for fast, slow in combinations(range(len(means)), 2):
        crossed = np.logical_or.accumulate(means[fast] < means[slow])
        yield ((means[fast] > means[slow]) & crossed).astype(np.float64)[:, None]


class OnViews:
    """All in while the faster mean is above the slower; asked at every bar, on a view of it."""

    name = "sma_cross"

    def decide(self, view: MarketView) -> Decision:
        return Decision(view.as_of, {view.symbols[0]: float(view.feature("sma_gap")[0] > 0)}, "the faster mean is above", self.name)


class InBulk(OnViews):
    """The same, for all bars at once: what an engine that finds `weights` asks for."""

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        return (cube.feature("sma_gap")[rows] > 0).astype(np.float64)


def _event_style(policy: OnViews, how: str, bars: int) -> Row:
    close = _closes(bars, seed=0)
    name, peer_name, unit = f"one backtest {how}, {bars:,} bars", "backtesting.py", "bars/s"

    def ours() -> Episode:
        gap = _mean(close, FAST) - _mean(close, SLOW)
        gap[:SLOW] = np.nan  # backtesting.py decides first on the bar after both means are there
        return run(policy, _cube(close, gap), slice(0, bars - 1), Terms(FEES))[0]

    if not interpreter("backtesting").exists():
        return Row.not_run(name, bars / own_time(ours), peer_name, unit, 5)
    with Peer("backtesting", "sma_cross", close=close, fast=FAST, slow=SLOW, fees=FEES.rate) as peer:
        peer.seconds()
        apart = float(np.abs(ours().equity / peer.found("equity")[1:] - 1).max())
        assert apart < 1e-9, f"equity differs by {apart} of its size"
        seconds, peer_seconds = in_turn_with(ours, peer)
        trades = len(peer.found("entries"))
    note = f"From prices to episode; {trades} trades, equity differs by {apart:.0e} at most. Theirs includes its table of statistics."
    note += " Ours fills bar by bar in the kernel, and says decisions when they are asked for." if isinstance(policy, InBulk) else ""
    return Row(name, bars / seconds, peer_name, bars / peer_seconds, peer_seconds / seconds, unit, 5, note)


def _closes(bars: int, seed: int) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0005, 0.02, bars)))


def _mean(close: np.ndarray, window: int) -> np.ndarray:
    """(T,) mean of the last `window` closes; NaN until there are as many."""
    total = np.cumsum(close)
    total[window:] -= total[:-window].copy()
    total[: window - 1] = np.nan
    return total / window


def _cube(close: np.ndarray, gap: np.ndarray | None = None) -> Cube:
    """One name whose bars open where the last one closed; `gap` as its feature."""
    bars = len(close)
    opened = np.concatenate([close[:1], close[:-1]])
    prices = np.stack([opened, np.maximum(opened, close), np.minimum(opened, close), close, np.full(bars, 1e6)], axis=1)[:, None]
    times = np.datetime64("2000-01-03T00:00", "us") + np.timedelta64(1, "D") * np.arange(bars)
    features = np.zeros((bars, 1, 1), np.float32) if gap is None else gap.astype(np.float32).reshape(bars, 1, 1)
    true, one = np.ones((bars, 1), bool), np.ones((bars, 1))
    return Cube(times, times, ("X",), prices, features, ("sma_gap",), true, one, 0 * one, ~true, 365.0)


if __name__ == "__main__":
    main(rows)
