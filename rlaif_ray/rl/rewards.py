"""What a bar is worth to a learner: parts that add up over a path to what is wanted of it, and the state that they depend on.

A ratio or a drawdown belongs to a whole path; a learner needs its increment, bar by bar, and must see the state that the
increment depends on, or the reward is not a function of what it sees and does. The state of a path is a function of its own
net returns and nothing else, so that training, backtest and serving have the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numba import float64, njit, types

from rlaif_ray.errors import ConfigError, DataError, ModelError

PARTS = ("log_return", "excess", "sharpe", "sortino", "drawdown", "turnover")
LOG_RETURN, EXCESS, SHARPE, SORTINO, DRAWDOWN, TURNOVER = range(6)
MEAN, SQUARE, DOWNSIDE, FALL = range(4)  # moments of net returns, and how far below its peak a path is
STATES = 4

Kind = Literal[
    "excess_utility", "log_return", "differential_sharpe", "differential_sortino", "drawdown", "weighted", "weighted_raw", "learned"
]  # fmt: skip
Learned = Callable[[np.ndarray, np.ndarray], np.ndarray]  # parts (N,K), net returns (N,) -> rewards (N,)

SINGLE = {"log_return": LOG_RETURN, "differential_sharpe": SHARPE, "differential_sortino": SORTINO, "drawdown": DRAWDOWN}
BLEND = {LOG_RETURN: 0.4, SHARPE: 0.3, DRAWDOWN: -0.2, TURNOVER: -0.1}  # of the weighted kinds
LEAST = 0.25  # share of the usual volatility below which a ratio divides by no less: a path in cash has none


@dataclass(frozen=True)
class Memory:
    """What a path remembers of its net returns: the exponentially weighted moments of Moody & Saffell (2001, section II) and its drawdown.

    `eta` is the weight of the newest bar. A path begins as one whose returns had mean 0 and `volatility` (a bar): without a
    past a ratio is not defined.
    """

    eta: float = 0.02
    volatility: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.eta < 1.0:
            raise ConfigError(f"eta is {self.eta}; expected a weight of the newest bar between 0 and 1")
        if not 0.0 < self.volatility < np.inf:
            raise ConfigError(f"the usual volatility is {self.volatility} a bar; expected a number above 0; do the prices move?")

    @property
    def start(self) -> np.ndarray:
        """(S,) of a path without a past."""
        return np.array([0.0, self.volatility**2, 0.5 * self.volatility**2, 0.0])

    def after(self, returns: np.ndarray) -> np.ndarray:
        """(S,) after net simple returns (k,) since the path began."""
        state = self.start
        _remember_all(state, np.ascontiguousarray(returns, np.float64), self.eta, self.volatility)
        return state


USUAL = Memory()


@dataclass(frozen=True)
class Reward:
    """The reward of a bar: `scale` times a sum of parts, or whatever `learned` makes of them.

    Parts, each of one bar: log net return; its excess over equal weight; eta times the differential Sharpe ratio D_t, and the
    same of the ratio to downside deviation (Moody & Saffell 2001, "Learning to trade via direct reinforcement", section II),
    which add up to the change of the ratio where eta is small; the change of the drawdown, which adds up to it; turnover.

    Kinds: `excess_utility` is x - risk_aversion/2 x^2 of the excess x, the one-bar mean-variance utility of beating equal
    weight; `drawdown` is minus its change. `weighted` is 0.4 log return + 0.3 Sharpe - 0.2 drawdown - 0.1 turnover, each over
    its `deviations`, so that the weights mean something (about 1 a bar: `scale` 1 will do); `weighted_raw` leaves them as
    they are, where the largest part speaks alone.
    """

    kind: Kind = "excess_utility"
    scale: float = 100.0
    risk_aversion: float = 20.0
    deviations: tuple[float, ...] = (1.0,) * len(PARTS)
    learned: Learned | None = None

    def __post_init__(self) -> None:
        if (self.kind == "learned") != (self.learned is not None):
            raise ConfigError(f"the reward is {self.kind!r} and learned is {self.learned}; a callable goes with 'learned' alone")
        self.coefficients  # noqa: B018  (says at once that a kind is unknown)

    @property
    def coefficients(self) -> np.ndarray:
        """(K+1,) of the parts, and of -x^2/2 of the excess."""
        out = np.zeros(len(PARTS) + 1)
        match self.kind:
            case "excess_utility":
                out[EXCESS], out[-1] = 1.0, self.risk_aversion
            case "weighted" | "weighted_raw":
                for part, weight in BLEND.items():
                    out[part] = weight / (self.deviations[part] if self.kind == "weighted" else 1.0)
            case "log_return" | "differential_sharpe" | "differential_sortino" | "drawdown":
                out[SINGLE[self.kind]] = -1.0 if self.kind == "drawdown" else 1.0
            case "learned":
                pass
            case _:
                raise ConfigError(f"reward {self.kind!r} is unknown; expected one of {', '.join(Kind.__args__)}")
        return out * self.scale

    def fitted(self, parts: np.ndarray) -> Reward:
        """The same reward with the `deviations` of parts (M,K), those of a random policy on training rows.

        Of a random policy, for it alone trades as much as a learner does at first: equal weight's turnover hardly varies.
        """
        deviations = parts.std(axis=0)
        for part in BLEND:
            if not deviations[part] > 0.0:
                raise DataError(f"{PARTS[part]} does not vary over {len(parts)} bars of a random policy; expected prices that move")
        return replace(self, deviations=tuple(deviations.tolist()))

    def ask(self, parts: np.ndarray, returns: np.ndarray) -> np.ndarray:
        """(N,) of `learned`, checked."""
        assert self.learned is not None
        rewards = self.scale * np.asarray(self.learned(parts, returns), np.float64)
        if rewards.shape != returns.shape or not np.isfinite(rewards).all():
            raise ModelError(f"the learned reward gave {rewards.shape} of {rewards[:3]}...; expected finite numbers {returns.shape}")
        return rewards


@njit(error_model="numpy")
def remember(state, net, eta, volatility, parts):  # pragma: no cover
    """Takes one net return into a path's state (S,) in place, and writes the parts that follow from it (K,)."""
    mean, square, downside = state[MEAN], state[SQUARE], state[DOWNSIDE]
    least = (LEAST * volatility) ** 2
    variance = max(square - mean * mean, least)
    mean_step, square_step = net - mean, net * net - square
    parts[SHARPE] = eta * (square * mean_step - 0.5 * mean * square_step) / (variance * np.sqrt(variance))
    below = max(downside, least)
    downside_step = min(net, 0.0) ** 2 - downside
    parts[SORTINO] = eta * (mean_step - 0.5 * mean * downside_step / below) / np.sqrt(below)
    state[MEAN] = mean + eta * mean_step
    state[SQUARE] = square + eta * square_step
    state[DOWNSIDE] = downside + eta * downside_step
    fall = max(1.0 - (1.0 - state[FALL]) * (1.0 + net), 0.0)
    parts[DRAWDOWN] = fall - state[FALL]
    state[FALL] = fall


@njit(types.void(float64[::1], types.Array(float64, 1, "C", readonly=True), float64, float64), cache=True)
def _remember_all(state, returns, eta, volatility):  # pragma: no cover
    parts = np.empty(len(PARTS))
    for k in range(returns.shape[0]):
        remember(state, returns[k], eta, volatility, parts)
