"""Markets without skill, and with a known one, to count how often the gate's decision is right.

A search is simulated whole: correlated assets with fat tails and moving volatility, `TRIALS` tilts around equal weight
made from a few shared signals (so they resemble each other, as what people try does), a strong rule among them,
and, where there is skill, one tilt whose excess over the stronger benchmark has a known Sharpe ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from rlaif_ray.backtest.gate import LEVEL
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


def promotes(cell: Cell, *, resamples: int = 1000, seed: int) -> bool:
    """Whether the gate's decision promotes what the search brings to it: the best of all tried, or the one with skill.

    Brought forward is the trial with the highest Sharpe ratio over equal weight; with a planted one, that. The decision
    is `gate.judge`'s: StepM must name it against equal weight and against the strong rule.
    """
    over_equal, strong = search(cell, np.random.default_rng(seed))
    own = int((over_equal.mean(axis=0) / over_equal.std(axis=0)).argmax()) if cell.sharpe == 0 else 0
    over_strong = over_equal - strong[:, None]
    return all(own in superiority(x, level=LEVEL, resamples=resamples, seed=seed).superior for x in (over_equal, over_strong))


def search(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(T,K) excess over equal weight of every trial, and (T,) that of the strong rule; the planted trial is column 0.

    What is traded is drawn apart from the returns, so nothing but the plant has skill.
    """
    bars = cell.years * BARS_PER_YEAR
    returns = _returns(rng, bars)
    active = _signals(rng, bars)  # (SIGNALS,T,ASSETS), each row sums to 0: tilts away from equal weight
    earned = np.einsum("mta,ta->tm", active, returns)
    lasting = rng.normal(0, 1, (ASSETS, TRIALS + 1))
    lasting -= lasting.mean(axis=0)
    mixed = rng.normal(0, 1, (SIGNALS, TRIALS + 1)) * rng.choice([0.2, 1.0], (SIGNALS, TRIALS + 1))
    excess = earned @ mixed / np.sqrt(SIGNALS) + returns @ lasting / ASSETS * 0.5
    strong, tried = excess[:, -1].copy(), excess[:, :-1].copy()
    if cell.sharpe:
        year = np.sqrt(BARS_PER_YEAR)
        gap = tried[:, 0] - strong  # its deviation is the unit of the planted ratio; a drift leaves it as it is
        rule = STRONG_SHARPE / year * strong.std()
        strong += rule
        tried[:, 0] += rule + cell.sharpe / year * gap.std()
    return tried, strong


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
