"""Kernel, environment, differentiable twin and backtest against FinRL's NumPy environment and set figures: `python -m benchmarks.env`.

Ours trades 30 names long-short at fractional weights; all costs are charged (commission, spread, slippage, three kinds of
impact, borrowing), and the cap on participation, interest, splits, dividends and halts are on. FinRL's trades long-only in
whole shares at one commission, which its check of the cash leaves out, and knows no events; `finrl_env.py` rebuilds it.
Both act at random on 30 assets with 8 features each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from benchmarks.finrl_env import FinrlEnv
from benchmarks.rows import REPEATS, Row, in_turn, main, own_time
from benchmarks.simulator import ACCOUNT, ASSETS, CASH_USD, COSTS, NumpyMarket, long_short, market_cube, stepped
from rlaif_ray.backtest.engine import run
from rlaif_ray.core import CLOSE, Cube
from rlaif_ray.execution.simulator import LONG_ONLY, Accounts, Market, walk
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.rl.differentiable_market import DifferentiableMarket
from rlaif_ray.rl.env import PortfolioEnv, PortfolioVectorEnv, Track
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.strategies import EqualWeight

FEATURES = 8
PATHS = 2048
ALLOWED = ActionSet(max_weight=0.3, long_short=True)
FINRL = "FinRL's NumPy environment, rebuilt"
UNIT = "path-steps/s"
GPU_TARGET = 20e6  # path-steps/s
BACKTEST_MS = 30.0


def rows(quick: bool) -> list[Row]:
    """Path-steps per second of kernel, environment and twin; milliseconds of one backtest."""
    cube = market_cube(bars=1001 if quick else 5001)
    market, finrl, track = Market.of(cube, "next_open"), Finrl(cube, steps=400 if quick else 2000), _track(cube)
    single, batch = (200, 2) if quick else (1000, 6)
    return [
        _kernel(market, finrl, 1, single, 20.0), _kernel(market, finrl, PATHS, batch, 150.0), _walk(market, finrl),
        _single(track, finrl, single), _batch(track, finrl, batch), _twin(market, batch, torch.float64, 1e-9, 0.3),
        _twin(market, batch, torch.float32, 1e-4, None), _twin_on_gpu(market), _backtest(),
    ]  # fmt: skip


class Finrl:
    """The peer over closes without gaps, acting at random; how fast it steps does not depend on what it is compared with."""

    def __init__(self, cube: Cube, steps: int) -> None:
        rng = np.random.default_rng(0)
        prices = np.where(cube.delisted, 0.0, cube.prices[:, :, CLOSE])  # 0 says that a name does not trade
        for t in range(1, len(prices)):
            prices[t] = np.where(np.isnan(prices[t]), prices[t - 1], prices[t])
        prices[np.isnan(prices)] = 0.0
        indicators = rng.normal(size=(len(prices), ASSETS * FEATURES))
        self.env = FinrlEnv(prices, indicators, turbulence=2.0 * rng.chisquare(ASSETS, len(prices)))
        self.actions = rng.uniform(-1.0, 1.0, (steps, ASSETS)).astype(np.float32)
        self._cash_adds_up()

    def __call__(self) -> None:
        self.env.reset()
        for action in self.actions:
            self.env.step(action)

    def _cash_adds_up(self) -> None:
        """What cash changes by is what was traded, less the commission, to float32's precision of the wealth."""
        env = self.env
        env.reset()
        for action in self.actions:
            cash, shares = env.cash, env.shares.astype(np.float64)
            env.step(action)
            usd = (env.shares - shares) * env.prices[env.day]
            apart = abs(env.cash - (cash - usd.sum() - env.commission * np.abs(usd).sum()))
            assert apart < 1e-5 * env.wealth, f"FinRL's cash is {apart} USD from what it traded on day {env.day}"


def _kernel(market: Market, finrl: Finrl, paths: int, steps: int, target: float) -> Row:
    """One call of the kernel for each bar."""
    starts, targets = long_short(market, paths, steps)

    def ours() -> np.ndarray:
        return stepped(market, starts, targets)

    few, bars = slice(0, 8), slice(0, 50)
    apart = np.abs(ours()[bars, few] - NumpyMarket(market).stepped(starts[few], targets[bars, few])).max()
    assert apart < 1e-9, f"kernel and reference differ by {apart}"
    note = f"One call a bar. Returns within {apart:.0e} of the same rules in NumPy."
    return _against(finrl, f"kernel, N = {paths:,}", ours, paths * steps, target, note)


def _walk(market: Market, finrl: Finrl) -> Row:
    steps = len(market.days) - 2
    starts, targets = long_short(market, 1, steps)
    bars = slice(int(starts[0]), int(starts[0]) + steps)

    def ours() -> np.ndarray:
        return walk(market, Accounts.of_cash(1, ASSETS, CASH_USD), bars, targets[:, 0], COSTS, ACCOUNT).net

    assert (ours() == stepped(market, starts, targets)[:, 0]).all(), "a walk is not its steps"
    return _against(finrl, f"kernel, one path over {steps:,} bars", ours, steps, None, "One call for all bars; the same numbers.")


def _against(finrl: Finrl, name: str, ours: Callable[[], object], work: int, target: float | None, note: str) -> Row:
    seconds, peer_seconds = in_turn(ours, finrl)
    mine, theirs = work / seconds, len(finrl.actions) / peer_seconds
    return Row(name, mine, FINRL, theirs, mine / theirs, UNIT, target, note)


def _track(cube: Cube) -> Track:
    fields = np.random.default_rng(0).normal(size=(len(cube.times), ASSETS, FEATURES)).astype(np.float32).clip(-5, 5)
    whole = slice(0, len(fields))
    return Track.of(cube, fields, whole, fill="next_open", costs=COSTS, account=ACCOUNT, cash_usd=CASH_USD)


def _single(track: Track, finrl: Finrl, steps: int) -> Row:
    """One account, one action at a time, through gymnasium's single environment."""
    env = PortfolioEnv(track, episode_bars=steps, allowed=ALLOWED)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, ASSETS)).astype(np.float32)

    def ours() -> np.ndarray:
        env.reset(seed=0, options={"cash": True})
        net = np.empty(steps)
        for k, action in enumerate(actions):
            env.step(action)
            net[k] = env.paths.returns[0]
        return net

    apart = _from_the_kernel(track, env.paths, ours()[:, None], actions[:, None])
    note = f"Projection, bar, reward and observation. Returns within {apart:.0e} of the kernel's."
    return _against(finrl, "env.step, N = 1", ours, steps, 8.0, note)


def _batch(track: Track, finrl: Finrl, steps: int) -> Row:
    env = PortfolioVectorEnv(track, paths=PATHS, episode_bars=steps, allowed=ALLOWED)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, PATHS, ASSETS)).astype(np.float32)

    def ours() -> np.ndarray:
        env.reset(seed=0, options={"cash": True})
        net = np.empty((steps, PATHS))
        for k, action in enumerate(actions):
            env.step(action)
            net[k] = env.returns
        return net

    apart = _from_the_kernel(track, env, ours(), actions)
    note = f"One call a bar. Returns within {apart:.0e} of the kernel's."
    return _against(finrl, f"env.step, N = {PATHS:,}", ours, steps * PATHS, None, note)


def _from_the_kernel(track: Track, env: PortfolioVectorEnv, net: np.ndarray, actions: np.ndarray) -> float:
    """How far the environment's returns (steps,N) are from those of the kernel for the weights that the actions ask for."""
    starts = env.rows - len(net)
    targets = np.stack([ALLOWED.targets(action, track.table[starts + k, :, -1] > 0) for k, action in enumerate(actions)])
    apart = float(np.abs(net - stepped(track.market, starts, targets)).max())
    assert apart < 1e-9, f"environment and kernel differ by {apart}"
    return apart


def _twin(market: Market, steps: int, dtype: torch.dtype, near: float, target: float | None) -> Row:
    """Forward alone, on one thread."""
    torch.set_num_threads(1)
    starts, targets = long_short(market, PATHS, steps)
    twin = DifferentiableMarket.of(market, COSTS, ACCOUNT, dtype=dtype)
    starts_, targets_ = torch.as_tensor(starts), torch.as_tensor(targets, dtype=dtype)

    def ours() -> np.ndarray:
        with torch.no_grad():
            return _through(twin, starts_, targets_).numpy()

    def kernel() -> np.ndarray:
        return stepped(market, starts, targets)

    apart = np.abs(ours() - kernel()).max()
    assert apart < near, f"twin and kernel differ by {apart}"
    seconds, kernel_seconds = in_turn(ours, kernel)
    work, with_gradient = PATHS * steps, own_time(lambda: _through(twin, starts_, targets_.clone().requires_grad_()).sum().backward())
    note = f"Returns within {apart:.0e}. {work / with_gradient:,.0f} with the gradient of every target."
    name = f"twin on the CPU in {str(dtype).removeprefix('torch.')}, N = {PATHS:,}"
    return Row(name, work / seconds, "the kernel", work / kernel_seconds, kernel_seconds / seconds, UNIT, target, note)


def _twin_on_gpu(market: Market) -> Row:
    """float32, 2^17 paths, forward alone; wall time, for the GPU works while the CPU waits."""
    name, peer = "twin on CUDA, N = 131,072", "set figure"
    if not torch.cuda.is_available():
        return Row(name, math.nan, peer, GPU_TARGET, math.nan, UNIT, 1.0, "No GPU here.")
    paths, steps = 131_072, 8
    twin = DifferentiableMarket.of(market, COSTS, ACCOUNT, device="cuda", dtype=torch.float32)
    starts = torch.randint(0, len(market.days) - 1 - steps, (paths,), device="cuda")
    signs = torch.where(torch.arange(ASSETS, device="cuda") % 2 == 1, 1.0, -1.0)
    targets = torch.rand(steps, paths, ASSETS, device="cuda") * signs / ASSETS

    def ours() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.no_grad():
            _through(twin, starts, targets)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    ours()
    rate = paths * steps / median(ours() for _ in range(REPEATS))
    note = f"float32, forward, wall time; {torch.cuda.get_device_name()}."
    return Row(name, rate, peer, GPU_TARGET, rate / GPU_TARGET, UNIT, 1.0, note)


def _through(twin: DifferentiableMarket, starts: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(steps,N) net returns of accounts that start in cash."""
    state, net = twin.start(torch.zeros_like(targets[0]), CASH_USD, starts), []
    for k, target in enumerate(targets):
        state, result = twin.bar(state, starts + k, target)
        net.append(result.net)
    return torch.stack(net)


def _backtest() -> Row:
    """From a cube to an episode: market checks, policy, controls, fills with all costs, decisions."""
    cube, policy = market_cube(bars=5001), EqualWeight()
    rows = slice(0, len(cube.times) - 1)
    terms = Terms(COSTS, "next_open", LONG_ONLY, Limits(max_weight=0.3), cash_usd=CASH_USD)

    def ours() -> np.ndarray:
        return run(policy, cube, rows, terms)[0].returns

    reference = NumpyMarket(Market.of(cube, "next_open"), account=LONG_ONLY)
    apart = np.abs(ours() - reference.stepped(np.zeros(1, np.int64), policy.weights(cube, rows)[:, None])[:, 0]).max()
    assert apart < 1e-9, f"backtest and reference differ by {apart}"
    ms = 1e3 * own_time(ours)
    note = f"Equal weight, from cube to episode, all costs; Market.of alone {1e3 * own_time(lambda: Market.of(cube, 'next_open')):.0f} ms."
    note += f" Returns within {apart:.0e} of the same rules in NumPy."
    return Row(f"backtest, 5,000 bars x {ASSETS}", ms, "set figure", BACKTEST_MS, BACKTEST_MS / ms, "ms", 1.0, note)


if __name__ == "__main__":
    main(rows)
