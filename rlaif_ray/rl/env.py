"""The market as a natively vectorised gymnasium environment: N paths at once through one call of the simulator kernel.

An action on row t becomes target weights, filled at row t+1. With x the log return of that bar, net of costs, over that of
equal weight held by the same kernel at the same costs, the reward is reward_scale * (x - risk_aversion/2 * x^2): the one-bar
mean-variance utility of beating equal weight. Episodes are cut, never terminated: a market does not end. All paths march in
step, each from its own random row, so a step costs no loop over paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlaif_ray.core import Cube
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Fill, Market, step, walk
from rlaif_ray.rl.networks import weights_of

ROW = "row"  # key of the info that names the cube row an observation was made at
BOUND = 10.0  # observations are clipped to 5 deviations when they are made; the space says a little more


def observe(table: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Rows of the table (N,A,W) and held weights (N,A) -> flat observations (N, A*(W+1)) float32."""
    return np.concatenate((table, held[:, :, None].astype(np.float32)), axis=2).reshape(len(table), -1)


@dataclass(frozen=True, eq=False)
class Track:
    """A stretch of a market, and what a policy is shown on each of its decision rows."""

    market: Market
    costs: CostModel
    first: int  # cube row of table[0]
    table: np.ndarray  # (R,A,W) float32; the last field is 1 where the name is listed

    @classmethod
    def of(cls, cube: Cube, fields: np.ndarray, rows: slice, *, fill: Fill, costs: CostModel) -> Track:
        """`fields` (R,A,D) float32 as a `Recipe` makes them for the decision rows `rows`. Raises `DataError` on NaN or infinity."""
        bad = np.argwhere(~np.isfinite(fields))
        if len(bad):
            r, a, d = bad[0]
            raise DataError(f"field {d} of {cube.symbols[a]} at row {rows.start + r} is {fields[r, a, d]}; expected a finite number")
        shown = np.concatenate((fields, cube.listed[rows, :, None]), axis=2, dtype=np.float32)
        return cls(Market.of(cube, fill), costs, rows.start, shown)

    @property
    def assets(self) -> int:
        return self.table.shape[1]

    @cached_property
    def benchmark(self) -> np.ndarray:
        """(R-1,) log net return of equal weight over the listed names, from the decision on each row but the last."""
        listed = self.table[:-1, :, -1].astype(np.float64)
        equal = listed / np.maximum(listed.sum(axis=1, keepdims=True), 1.0)
        rows = slice(self.first, self.first + len(equal))
        return np.log1p(walk(self.market, Accounts.of_cash(1, self.assets, 1.0), rows, equal, self.costs).net)

    def log_return(self, accounts: Accounts, rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log net returns (N,) and weights held at the next close (N,A), for decisions on table rows (N,)."""
        result = step(self.market, accounts, rows + self.first, targets, self.costs)
        if not (np.isfinite(result.net) & (result.net > -1.0)).all():
            n = int(np.flatnonzero(~(np.isfinite(result.net) & (result.net > -1.0)))[0])
            raise ExecutionError(f"a path returned {result.net[n]} after row {rows[n] + self.first}; expected a finite return above -1")
        return np.log1p(result.net), result.weights


class PortfolioVectorEnv(VectorEnv):
    """N paths over a `Track`; flat float32 observations (A*(D+2)), actions (A,) in [-1,1].

    Per asset the observation holds the D fields, the listed flag and the held weight. A path starts in cash, at equal
    weight or at random weights, so that the policy learns to trade from any holding. Raises `ConfigError` when an
    episode does not fit into the rows.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  (gymnasium's own spelling)

    def __init__(
        self, track: Track, *, paths: int, episode_bars: int, kappa: float, max_weight: float, reward_scale: float,
        risk_aversion: float, seed: int,
    ) -> None:  # fmt: skip
        check_room(len(track.table), episode_bars)
        self.track, self.num_envs, self.episode_bars = track, paths, episode_bars
        self.kappa, self.max_weight, self.reward_scale, self.risk_aversion = kappa, max_weight, reward_scale, risk_aversion
        assets, width = track.table.shape[1:]
        self.single_observation_space = spaces.Box(-BOUND, BOUND, (assets * (width + 1),), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (assets,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, paths)
        self.action_space = batch_space(self.single_action_space, paths)
        self._rng = np.random.default_rng(seed)
        self._over = True
        self.excess = np.zeros(paths)  # (N,) log return over equal weight of the last bar

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Every path to a new random row and holding; `options={"cash": True}` starts all in cash."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.rows = self._rng.integers(0, len(self.track.table) - self.episode_bars, self.num_envs)
        weights = np.zeros((self.num_envs, self.track.assets)) if (options or {}).get("cash") else self._holdings()
        last = self.track.market.last[self.rows + self.track.first]
        held = np.where(np.isfinite(last), weights, 0.0)
        self.accounts = Accounts(np.maximum(1.0 - held.sum(axis=1), 0.0), held / np.where(np.isfinite(last), last, 1.0))
        self.held = held
        self._bars, self._over = 0, False
        return self._observation(), self._info()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One bar for all paths. After a cut the next step is the reset (gymnasium's NEXT_STEP): its action goes unused."""
        no = np.zeros(self.num_envs, bool)
        if self._over:
            obs, info = self.reset()
            return obs, np.zeros(self.num_envs, np.float32), no, no.copy(), info
        targets = weights_of(actions, self.track.table[self.rows, :, -1] > 0, self.kappa, self.max_weight)
        return self.step_weights(targets)

    def step_weights(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The same bar, for target weights (N,A) given directly."""
        returns, self.held = self.track.log_return(self.accounts, self.rows, targets)
        x = self.excess = returns - self.track.benchmark[self.rows]
        rewards = (self.reward_scale * (x - 0.5 * self.risk_aversion * x * x)).astype(np.float32)
        self.rows = self.rows + 1
        self._bars += 1
        self._over = self._bars >= self.episode_bars
        return self._observation(), rewards, np.zeros(self.num_envs, bool), np.full(self.num_envs, self._over), self._info()

    def _holdings(self) -> np.ndarray:
        """(N,A) a third of the paths each in cash, at equal weight, and at random weights, over listed names."""
        listed = self.track.table[self.rows, :, -1] > 0
        kind = self._rng.integers(0, 3, self.num_envs)
        scores = self._rng.uniform(-1.0, 1.0, listed.shape) * (kind == 2)[:, None]
        return weights_of(scores, listed, self.kappa, self.max_weight) * (kind > 0)[:, None]

    def _observation(self) -> np.ndarray:
        return observe(self.track.table[self.rows], self.held)

    def _info(self) -> dict[str, Any]:
        return {ROW: self.rows.copy(), f"_{ROW}": np.ones(self.num_envs, bool)}


def check_room(rows: int, episode_bars: int) -> None:
    """Raises `ConfigError` where an episode does not fit into decision rows, the last of which only closes a bar."""
    if episode_bars > rows - 1:
        raise ConfigError(f"--rl.episode_bars is {episode_bars}, but there are {rows - 1} bars to train on; lower it or bring more bars")


def excess(track: Track, act: Callable[[np.ndarray], np.ndarray], *, kappa: float, max_weight: float) -> np.ndarray:
    """(R-1,) log net return over equal weight, bar by bar, of one path from cash on the first row to the last.

    `act`: observation (1,A,D+2) float32 -> action (1,A). The same bars as the backtest engine walks, in bulk.
    """
    env = PortfolioVectorEnv(
        track, paths=1, episode_bars=len(track.table) - 1, kappa=kappa, max_weight=max_weight, reward_scale=1.0, risk_aversion=0.0, seed=0
    )
    obs, _ = env.reset(options={"cash": True})
    out = np.empty(env.episode_bars)
    for bar in range(env.episode_bars):
        obs = env.step(act(obs.reshape(1, track.assets, -1)))[0]
        out[bar] = env.excess[0]
    return out
