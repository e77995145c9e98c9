"""Markets without skill, and with a known one, to count how often the gate's decision is right.

A search is simulated whole: correlated assets with fat tails and moving volatility, `TRIALS` tilts around equal weight
made from a few shared signals (so they resemble each other, as what people try does), a strong rule among them,
and, where there is skill, one tilt whose excess over the stronger benchmark has a known Sharpe ratio. All returns are net
of the costs that the gate holds a result to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from rlaif_ray.backtest import stress
from rlaif_ray.backtest.gate import HELD_TO_BPS, LEVEL, Case, vetoes
from rlaif_ray.backtest.snooping import superiority

BARS_PER_YEAR = 252
TRIALS, ASSETS, SIGNALS = 200, 30, 12
TAIL_DEGREES = 4.0
STRONG_SHARPE = 0.5  # of the stronger benchmark over equal weight, where there is skill in the market at all


@dataclass(frozen=True)
class Cell:
    """One point of the study: a search over `years`, whose planted trial has this annual Sharpe ratio; 0 plants none."""

    years: int
    sharpe: float = 0.0


@dataclass(frozen=True, eq=False)
class Search:
    """Excess over equal weight on T bars. A planted trial is column 0; what is traded is drawn apart from the returns."""

    tried: np.ndarray  # (T,K)
    late: np.ndarray  # (T,K) of the same tilts taken one bar later
    strong: np.ndarray  # (T,) of the strong rule
    market: np.ndarray  # (T,) simple return of equal weight


@dataclass(frozen=True)
class Judged:
    """What the gate makes of what a search brings to it: of each of its tests, and which vetoes fire, counted apart."""

    over_equal: bool
    over_strong: bool
    fired: tuple[str, ...]

    @property
    def superior(self) -> bool:
        return self.over_equal and self.over_strong


def judge(cell: Cell, *, resamples: int = 1000, seed: int) -> Judged:
    """The gate on the trial with the highest Sharpe ratio over equal weight or, where skill was planted, on that.

    The decision is `gate.judge`'s: StepM must name it against equal weight and against the strong rule. Its vetoes are
    those that follow from returns: one bar late, one regime.
    """
    found = search(cell, np.random.default_rng(seed))
    tried, over_strong = found.tried, found.tried - found.strong[:, None]
    own = int((tried.mean(axis=0) / tried.std(axis=0)).argmax()) if cell.sharpe == 0 else 0
    case = Case(
        "own", BARS_PER_YEAR, {"equal_weight": tried}, {"equal_weight": own}, TRIALS,
        stress.regimes(found.market, bars_per_year=BARS_PER_YEAR), {HELD_TO_BPS: tried[:, own]}, {"one bar late": found.late[:, own]},
    )  # fmt: skip
    over = [own in superiority(x, level=LEVEL, resamples=resamples, seed=seed).superior for x in (tried, over_strong)]
    return Judged(over[0], over[1], tuple(v.name for v in vetoes(case) if v.fired))


def search(cell: Cell, rng: np.random.Generator) -> Search:
    """One search; nothing but what is planted has skill, and what is planted does not fade within a bar."""
    bars = cell.years * BARS_PER_YEAR
    returns = _returns(rng, bars)
    active = _signals(rng, bars)  # (SIGNALS,T,ASSETS), each row sums to 0: tilts away from equal weight
    lasting = rng.normal(0, 1, (ASSETS, TRIALS + 1))
    lasting -= lasting.mean(axis=0)
    mixed = rng.normal(0, 1, (SIGNALS, TRIALS + 1)) * rng.choice([0.2, 1.0], (SIGNALS, TRIALS + 1))

    def excess(tilts: np.ndarray) -> np.ndarray:
        return np.einsum("mta,ta->tm", tilts, returns) @ mixed / np.sqrt(SIGNALS) + returns @ lasting / ASSETS * 0.5

    late = np.concatenate([np.zeros_like(active[:, :1]), active[:, :-1]], axis=1)
    tried, delayed = excess(active), excess(late)
    strong = tried[:, -1].copy()
    tried, delayed = tried[:, :-1].copy(), delayed[:, :-1].copy()
    if cell.sharpe:
        year = np.sqrt(BARS_PER_YEAR)
        gap = tried[:, 0] - strong  # its deviation is the unit of the planted ratio; a drift leaves it as it is
        rule = STRONG_SHARPE / year * strong.std()
        planted = rule + cell.sharpe / year * gap.std()
        strong += rule
        tried[:, 0] += planted
        delayed[:, 0] += planted
    return Search(tried, delayed, strong, returns.mean(axis=1))


def _returns(rng: np.random.Generator, bars: int) -> np.ndarray:
    """(T,A) simple returns of mean 0: one factor, Student-t shocks, log-volatility that reverts within a quarter."""
    scale = np.sqrt((TAIL_DEGREES - 2) / TAIL_DEGREES)
    volatility = np.exp(lfilter([1.0], [1.0, -0.985], rng.normal(0, 0.06, bars)))
    factor = 0.009 * rng.standard_t(TAIL_DEGREES, bars) * scale
    own = 0.014 * rng.standard_t(TAIL_DEGREES, (bars, ASSETS)) * scale
    beta = rng.uniform(0.6, 1.4, ASSETS)
    return volatility[:, None] * (factor[:, None] * beta + own)


def _signals(rng: np.random.Generator, bars: int) -> np.ndarray:
    """(SIGNALS,T,ASSETS) persistent cross-sectional tilts of unit size over A, each bar's adding up to 0."""
    memory = rng.choice([0.5, 0.9, 0.98], SIGNALS)
    out = np.empty((SIGNALS, bars, ASSETS))
    for m in range(SIGNALS):
        out[m] = lfilter([np.sqrt(1 - memory[m] ** 2)], [1.0, -memory[m]], rng.standard_normal((bars, ASSETS)), axis=0)
    return (out - out.mean(axis=-1, keepdims=True)) / ASSETS
