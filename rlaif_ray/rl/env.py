"""The market as a natively vectorised gymnasium environment: projection, bar, reward and observation of N paths in one compiled call.

An action on row t becomes target weights (`projection`), filled at row t+1 by the simulator's kernel; what the bar was worth is
said by `rewards`. Each path marches on its own: it is cut after `episode_bars`, or ends when its equity is gone, and starts
again from another random row at the step after that (gymnasium's NEXT_STEP), while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlaif_ray.core import Cube
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import LAST
from rlaif_ray.execution.simulator import LONG_ONLY, Accounts, Fill, Market, need_volume, packed, walk
from rlaif_ray.portfolio.limits import Controls
from rlaif_ray.rl import env_step as bar
from rlaif_ray.rl.observation import Layout
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import EXCESS, USUAL, Memory, Reward

ROW = "row"  # key of the info that names the table row an observation was made at
EXCESS_UTILITY = Reward()
BOUND = 10.0  # observations are clipped to 5 when they are made; the space says a little more


@dataclass(frozen=True, eq=False)
class Track:
    """A stretch of a market, and what a policy is shown on each of its decision rows."""

    market: Market
    costs: CostModel
    first: int  # cube row of table[0]
    table: np.ndarray  # (R,A,D+1) float32; the last field is 1 where the name is listed
    account: AccountRules = LONG_ONLY
    cash_usd: float = 1_000_000.0  # what a path starts with: impact depends on size
    memory: Memory = USUAL
    turbulence: np.ndarray | None = None  # (R,) scaled, as the account's block of the observation shows it; None: 0
    controls: Controls | None = None  # have the last word over what is asked for

    @classmethod
    def of(
        cls, cube: Cube, fields: np.ndarray, rows: slice, *, fill: Fill, costs: CostModel, account: AccountRules = LONG_ONLY,
        cash_usd: float = 1_000_000.0, memory: Memory = USUAL, turbulence: np.ndarray | None = None,
        controls: Controls | None = None,
    ) -> Track:  # fmt: skip
        """`fields` (R,A,D) float32 as a `Recipe` makes them for the decision rows `rows`. Raises `DataError` on NaN or infinity."""
        bad = np.argwhere(~np.isfinite(fields))
        if len(bad):
            r, a, d = bad[0]
            raise DataError(f"field {d} of {cube.symbols[a]} at row {rows.start + r} is {fields[r, a, d]}; expected a finite number")
        shape = (rows.stop - rows.start, len(cube.symbols))
        if fields.shape[:2] != shape or (turbulence is not None and turbulence.shape != shape[:1]):
            raise DataError(f"fields {fields.shape} are for other rows or names than the {shape} of the track")
        shown = np.concatenate((fields, cube.listed[rows, :, None]), axis=2, dtype=np.float32)
        market = Market.of(cube, fill)
        need_volume(market, costs, account)
        return cls(market, costs, rows.start, shown, account, cash_usd, memory, turbulence, controls)

    @property
    def assets(self) -> int:
        return self.table.shape[1]

    @property
    def layout(self) -> Layout:
        return Layout(self.assets, self.table.shape[2] - 1)

    @cached_property
    def benchmark(self) -> np.ndarray:
        """(R-1,) log net return of equal weight over the listed names, from the decision on each row but the last."""
        listed = self.table[:-1, :, -1].astype(np.float64)
        equal = listed / np.maximum(listed.sum(axis=1, keepdims=True), 1.0)
        rows, start = slice(self.first, self.first + len(equal)), Accounts.of_cash(1, self.assets, self.cash_usd)
        return np.log1p(walk(self.market, start, rows, equal, self.costs, self.account).net)

    @cached_property
    def lines(self) -> np.ndarray:
        """(2,R) what the compiled step reads of a row beside the book: equal weight's log return, and turbulence."""
        lines = np.zeros((2, len(self.table)))
        lines[bar.BENCHMARK, :-1] = self.benchmark
        lines[bar.TURBULENCE] = 0.0 if self.turbulence is None else self.turbulence
        return lines


class PortfolioVectorEnv(VectorEnv):
    """N paths over a `Track`; flat float32 observations (`Track.layout`), actions (A,) in [-1,1].

    A path starts in cash, at equal weight or at random weights, so that the policy learns to trade from any holding. Raises
    `ConfigError` when an episode does not fit into the rows, and `ExecutionError` for actions that are no numbers.

    Parameters
    ----------
    allowed : the weights that an action may ask for.
    cost_range : an episode's costs are multiplied by a number drawn from it, evenly in its logarithm.
    subset : share of the names that an episode offers; the others are shown as not listed. The benchmark holds them all: what
        it brings depends on no action, so that it moves no optimum.

    `info` holds `row` (N,), `parts` (N,K) of the reward by the names of `rewards.PARTS`, and, where there are controls, `trips` (N,).
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012  (gymnasium's own spelling)

    def __init__(
        self, track: Track, *, paths: int, episode_bars: int, allowed: ActionSet, reward: Reward = EXCESS_UTILITY,
        cost_range: tuple[float, float] = (1.0, 1.0), subset: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        check_room(len(track.table), episode_bars)
        if episode_bars < 1:
            raise ConfigError(f"an episode of {episode_bars} bars over {len(track.table)} rows; expected a bar at least: bring more rows")
        if allowed.long_short and not track.account.long_short:
            raise ConfigError("actions ask for shorts that the account may not hold; set --execution.account.long_short, or ask for longs")
        if not 0.0 < cost_range[0] <= cost_range[1] < np.inf:
            raise ConfigError(f"costs are multiplied by {cost_range[0]} to {cost_range[1]}; expected numbers above 0 that rise")
        if not 0.0 < subset <= 1.0:
            raise ConfigError(f"an episode offers {subset} of the names; expected a share in (0, 1]")
        self.track, self.num_envs, self.episode_bars, self.allowed, self.reward = track, paths, episode_bars, allowed, reward
        self.cost_range, self.subset = cost_range, subset
        assets = track.assets
        self.single_observation_space = spaces.Box(-BOUND, BOUND, (track.layout.size,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (assets,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, paths)
        self.action_space = batch_space(self.single_action_space, paths)
        self._rng = np.random.default_rng(seed)
        controls = track.controls
        self._terms = np.concatenate((
            packed(track.costs, track.account), allowed.packed(assets), reward.coefficients, [track.memory.eta, track.memory.volatility],
            controls.terms if controls else (),
        ))  # fmt: skip
        nothing = np.full(assets, -1)
        self._sectors = np.stack((allowed.numbers(assets) if allowed.sectors else nothing, controls.sectors if controls else nothing))
        self._market = (
            track.market.book, track.market.days, track.table, track.lines, controls.bars if controls else np.empty((0, 2)),
            controls.returns if controls else np.empty((0, assets)),
        )  # fmt: skip
        self._start_state = np.concatenate((track.memory.start, controls.start(1)[0] if controls else ()))
        self._clock, self._money = np.zeros((4, paths), np.int64), np.zeros((paths, bar.STATE + len(self._start_state)))
        self._holdings, self._told = np.zeros((4, paths, assets)), np.zeros((paths, bar.TOLD))
        self._clock[bar.OVER] = 1
        self.waiting = paths  # how many paths the next step resets
        self._all, self._shape, self._width, self._first = np.ones(paths, bool), (paths, assets), track.layout.size, track.first

    @property
    def rows(self) -> np.ndarray:
        """(N,) table rows that the paths are at."""
        return self._clock[bar.AT]

    @property
    def trips(self) -> np.ndarray:
        """(N,) bits of the controls that were in force on the last decision, see `Controls.admit`."""
        return self._clock[bar.TRIPS]

    @property
    def held(self) -> np.ndarray:
        """(N,A) weights held."""
        return self._holdings[bar.HELD]

    @property
    def parts(self) -> np.ndarray:
        """(N,K) of the last bar's reward."""
        return self._told[:, bar.FIRST_PART:]

    @property
    def excess(self) -> np.ndarray:
        """(N,) log net return over equal weight of the last bar."""
        return self._told[:, bar.FIRST_PART + EXCESS]

    @property
    def returns(self) -> np.ndarray:
        """(N,) simple net return of the last bar."""
        return self._told[:, bar.RETURN]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Every path to a new random row and holding; `options={"cash": True}` starts all in cash."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._clock[bar.OVER] = 1
        self._begin(np.arange(self.num_envs), cash=bool((options or {}).get("cash")))
        obs, _, _, _, info = self._advance(self.held, False)
        return obs, info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One bar of every path, or the reset of those that were over: their action goes unused."""
        return self._advance(actions, True)

    def step_weights(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The same for target weights (N,A) given directly, within the rules of the account. Raises `ExecutionError` where they are not."""
        return self._advance(targets, False)

    def _advance(self, asked: np.ndarray, scores: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        obs, told, flags = self.advance(asked, scores)
        info = {ROW: self.rows.copy(), "_row": self._all, "parts": told[:, bar.FIRST_PART :], "_parts": self._all}
        if self.track.controls is not None:
            info.update(trips=self.trips.copy(), _trips=self._all)
        return obs, told[:, bar.REWARD], flags[0], flags[1], info

    def advance(self, asked: np.ndarray, scores: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One bar for scores, or for weights, (N,A): observations, and `told` and `flags` as `env_step` writes them."""
        if asked.shape != self._shape:
            raise ExecutionError(f"actions have the shape {asked.shape}; expected (N,A) = {self._shape}")
        if self.waiting:
            self._begin(np.flatnonzero(self._clock[bar.OVER]))
        paths = self.num_envs
        obs, told, flags = np.empty((paths, self._width), np.float32), np.empty((paths, bar.TOLD)), np.empty((2, paths), np.bool_)
        what, where, self.waiting = bar.advance(
            *self._market, self._sectors, self._terms, np.ascontiguousarray(asked, np.float64), scores, self._first, self.episode_bars,
            self._clock, self._money, self._holdings, obs, told, flags,
        )  # fmt: skip
        if what:
            raise ExecutionError(self._offence(what, where, asked))
        if self.reward.learned is not None:
            learned = self.reward.ask(told[:, bar.FIRST_PART :], told[:, bar.RETURN])
            told[:, bar.REWARD] = np.where(self._clock[bar.BARS] > 0, learned, 0.0)  # a reset is not paid
        self._told = told
        return obs, told, flags

    def _offence(self, what: int, n: int, asked: np.ndarray) -> str:
        row, names = self._clock[bar.AT, n] + self.track.first, self.track.market.symbols
        if what == bar.NOT_FINITE:
            a = int(np.argmax(~np.isfinite(asked[n])))
            return f"path {n} was told {asked[n, a]} for {names[a]} at row {row}; expected a finite number; did training diverge?"
        if what == bar.TARGET:
            seen = f"add up to {asked[n].sum():.10g} ({np.abs(asked[n]).sum():.10g} without signs, the least is {asked[n].min():.6g})"
            return f"target weights of path {n} at row {row} {seen}; expected {self.track.account.words}"
        return f"path {n} came to no finite return after row {row}; expected one; do the prices of the source jump?"

    def _begin(self, which: np.ndarray, cash: bool = False) -> None:
        """New episodes for paths (k,): row, names on offer, costs, holdings."""
        rng, track, k = self._rng, self.track, len(which)
        self.waiting = 0
        rows = rng.integers(0, len(track.table) - self.episode_bars, k)
        self._clock[bar.AT, which], self._clock[bar.BARS, which] = rows, 0
        offered = np.ones((k, track.assets), bool)
        if self.subset < 1.0:
            count = max(1, round(self.subset * track.assets))
            late = track.table[rows, :, -1] == 0  # offered only where too few are there already
            offered = (rng.random(offered.shape) + late).argsort(axis=1).argsort(axis=1) < count
        self._money[which, bar.MULTIPLIER] = np.exp(rng.uniform(np.log(self.cost_range[0]), np.log(self.cost_range[1]), k))
        last = track.market.book[rows + track.first, LAST]
        weights = np.zeros(offered.shape) if cash else self._some_holdings(offered & (track.table[rows, :, -1] > 0) & (last > 0))
        shares = weights * track.cash_usd / np.where(last > 0, last, 1.0)
        if track.account.whole_shares:
            shares = np.trunc(shares)
        values = shares * last
        self._money[which, bar.CASH] = track.cash_usd - values.sum(axis=1)
        self._money[which, bar.STATE :] = self._start_state
        for plane, part in ((bar.SHARES, shares), (bar.FACTOR, 1.0), (bar.HELD, values / track.cash_usd), (bar.OFFERED, offered)):
            self._holdings[plane, which] = part

    def _some_holdings(self, listed: np.ndarray) -> np.ndarray:
        """(k,A) a third of the paths each in cash, at equal weight, and at random weights, over listed names."""
        kind = self._rng.integers(0, 3, len(listed))
        scores = self._rng.uniform(-1.0, 1.0, listed.shape)
        equal = ActionSet(self.allowed.max_weight, False, self.allowed.sectors, self.allowed.max_sector)
        weights = np.where((kind == 1)[:, None], equal.targets(np.zeros(listed.shape), listed), self.allowed.targets(scores, listed))
        return np.where((kind > 0)[:, None], weights, 0.0)


class PortfolioEnv(gym.Env):
    """One path of a `PortfolioVectorEnv`, in the form of a single environment; the same knobs but `paths`."""

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium's own spelling)

    def __init__(self, track: Track, **knobs: Any) -> None:
        self.paths = PortfolioVectorEnv(track, paths=1, **knobs)
        self.observation_space, self.action_space = self.paths.single_observation_space, self.paths.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        obs, info = self.paths.reset(seed=seed, options=options)
        return obs[0], {key: values[0] for key, values in info.items() if not key.startswith("_")}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One bar. Raises `ExecutionError` after an episode's last: `reset` comes next."""
        paths = self.paths
        if paths.waiting:
            raise ExecutionError("the episode is over; expected a reset before the next step")
        obs, told, flags = paths.advance(action[None], True)
        info = {ROW: paths.rows.item(), "parts": told[0, bar.FIRST_PART :]}
        if paths.track.controls is not None:
            info["trips"] = paths.trips.item()
        return obs[0], told.item(bar.REWARD), flags.item(0), flags.item(1), info


def check_room(rows: int, episode_bars: int, knob: str = "rl.sac.episode_bars") -> None:
    """Raises `ConfigError` where an episode does not fit into decision rows, the last of which only closes a bar."""
    if episode_bars > rows - 1:
        raise ConfigError(f"--{knob} is {episode_bars}, but there are {rows - 1} bars to train on; lower it or bring more bars")


def excess(track: Track, act: Callable[[np.ndarray], np.ndarray], *, allowed: ActionSet) -> np.ndarray:
    """(R-1,) log net return over equal weight, bar by bar, of one path from cash on the first row to the last (or to its end).

    `act`: flat observation (1,L) float32 -> action (1,A). The same bars as the backtest engine walks, in bulk.
    """
    env = PortfolioVectorEnv(track, paths=1, episode_bars=len(track.table) - 1, allowed=allowed)
    obs, _ = env.reset(options={"cash": True})
    out = np.empty(env.episode_bars)
    for k in range(env.episode_bars):
        obs, _, ended, _, _ = env.step(act(obs))
        out[k] = env.excess[0]
        if ended[0]:
            return out[: k + 1]
    return out


def random_parts(track: Track, *, allowed: ActionSet, episode_bars: int, paths: int = 64, seed: int = 0) -> np.ndarray:
    """(paths * episode_bars, K) parts of the reward of a policy that asks for uniform scores: what `Reward.fitted` takes."""
    env = PortfolioVectorEnv(track, paths=paths, episode_bars=episode_bars, allowed=allowed, seed=seed)
    env.reset()
    rng = np.random.default_rng(seed)
    bars = [env.step(rng.uniform(-1.0, 1.0, (paths, track.assets)))[-1]["parts"] for _ in range(episode_bars)]
    return np.concatenate(bars)
