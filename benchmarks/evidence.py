"""The statistics of every verdict against the libraries that have them: `python -m benchmarks.evidence`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from arch.bootstrap import SPA, StationaryBootstrap

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.backtest.metrics import summary
from rlaif_ray.backtest.significance import block_length, bootstrap_variance
from rlaif_ray.backtest.snooping import superiority
from rlaif_ray.core import Episode

BARS_PER_YEAR = 252.0
FIVE = ("annual_return", "annual_volatility", "sharpe", "max_drawdown", "cvar_95")


def rows(quick: bool) -> list[Row]:
    """Intervals of metrics, and the test of a search; one function a row."""
    return [_metrics_in_one_function(quick), _metrics_one_by_one(quick), _search(quick)]


def _metrics_in_one_function(quick: bool) -> Row:
    """The peer at its best: one resample serves all five metrics, which share what they have in common."""
    return _metrics(quick, "arch, one NumPy function of all five", lambda bootstrap, resamples: bootstrap.apply(five, resamples))


def _metrics_one_by_one(quick: bool) -> Row:
    """The peer as its documentation shows it: one call a metric."""

    def each(bootstrap: StationaryBootstrap, resamples: int) -> np.ndarray:
        return np.stack([bootstrap.apply(metric, resamples)[:, 0] for metric in METRICS], axis=1)

    return _metrics(quick, "arch, one call a metric", each)


def _metrics(quick: bool, peer_name: str, resampled: Callable[[StationaryBootstrap, int], np.ndarray]) -> Row:
    bars, resamples = (2000, 500) if quick else (5000, 2000)
    episode = an_episode(bars)
    block = round(block_length(np.log1p(episode.returns)))

    def ours() -> dict[str, dict[str, float]]:
        return summary(episode, bars_per_year=BARS_PER_YEAR, resamples=resamples, seed=0)

    def peer() -> np.ndarray:
        return np.quantile(resampled(StationaryBootstrap(block, episode.returns, seed=0), resamples), [0.025, 0.975], axis=0)

    found, bounds = ours(), peer()
    low, high = (np.array([found[name][side] for name in FIVE]) for side in ("low", "high"))
    apart = np.abs(np.stack([low, high]) - bounds).max(axis=0) / (high - low)
    assert (apart < 0.15).all(), f"intervals differ by {apart} of their width"
    seconds, peer_seconds = in_turn(ours, peer)
    note = f"Ours has twelve metrics, these five among them, and chooses its block ({block}). Bounds within {apart.max():.0%} of a width."
    name = f"5 metrics x {resamples:,} resamples x {bars:,} bars"
    return Row(name, 1e3 * seconds, peer_name, 1e3 * peer_seconds, peer_seconds / seconds, "ms", 20.0, note)


def _search(quick: bool) -> Row:
    bars, trials, resamples = (1260, 50, 200) if quick else (2520, 200, 500)
    rng = np.random.default_rng(0)
    excess = (rng.standard_t(5, (bars, 1)) + rng.standard_t(5, (bars, trials))) * 0.005
    excess[:, 0] += 0.03 * excess[:, 0].std()
    block = 5
    studentised = excess / np.sqrt(bootstrap_variance(excess, block))

    def ours() -> float:
        return superiority(excess, block=block, resamples=resamples, seed=0).p_value

    def peer() -> float:
        test = SPA(np.zeros(bars), -studentised, block_size=block, reps=resamples, seed=0)
        test.compute()
        return float(np.asarray(test.pvalues)[1])  # lower, consistent, upper

    p_value, theirs = ours(), peer()
    assert abs(p_value - theirs) < 0.1, f"p-values {p_value} and {theirs}"
    seconds, peer_seconds = in_turn(ours, peer)
    note = f"p = {p_value:.3f} and {theirs:.3f} on different resamples (equal on the same ones). Ours has StepM with it."
    name = f"SPA of {trials} trials x {bars:,} bars x {resamples} resamples"
    return Row(name, 1e3 * seconds, "arch.bootstrap.SPA", 1e3 * peer_seconds, peer_seconds / seconds, "ms", None, note)


def five(returns: np.ndarray) -> np.ndarray:
    """`FIVE` of (T,) returns, each step written once."""
    level, spread = np.cumsum(np.log1p(returns)), returns.std(ddof=1) * np.sqrt(BARS_PER_YEAR)
    deepest = (level - np.maximum(np.maximum.accumulate(level), 0)).min()
    worst = int(np.ceil(0.05 * len(returns)))
    yearly = np.expm1(level[-1] * BARS_PER_YEAR / len(level))
    return np.array([
        yearly, spread, returns.mean() * BARS_PER_YEAR / spread, np.expm1(deepest), np.partition(returns, worst - 1)[:worst].mean(),
    ])  # fmt: skip


def annual_return(returns: np.ndarray) -> np.ndarray:
    return np.expm1(np.array([np.log1p(returns).mean() * BARS_PER_YEAR]))


def annual_volatility(returns: np.ndarray) -> np.ndarray:
    return np.array([returns.std(ddof=1) * np.sqrt(BARS_PER_YEAR)])


def sharpe(returns: np.ndarray) -> np.ndarray:
    return np.array([returns.mean() / returns.std(ddof=1) * np.sqrt(BARS_PER_YEAR)])


def max_drawdown(returns: np.ndarray) -> np.ndarray:
    level = np.cumsum(np.log1p(returns))
    return np.expm1(np.array([(level - np.maximum(np.maximum.accumulate(level), 0)).min()]))


def cvar_95(returns: np.ndarray) -> np.ndarray:
    worst = int(np.ceil(0.05 * len(returns)))
    return np.array([np.partition(returns, worst - 1)[:worst].mean()])


METRICS = (annual_return, annual_volatility, sharpe, max_drawdown, cvar_95)


def an_episode(bars: int) -> Episode:
    """Daily returns with fat tails and a little momentum, so that blocks are a few bars long."""
    rng = np.random.default_rng(0)
    returns = 0.0004 + 0.008 * rng.standard_t(5, bars)
    returns[1:] += 0.15 * returns[:-1]
    times = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * np.arange(bars)
    return Episode(times, ("S",), np.ones((bars, 1)), returns, np.zeros(bars), np.full(bars, 0.1), "bench")


if __name__ == "__main__":
    main(rows)
