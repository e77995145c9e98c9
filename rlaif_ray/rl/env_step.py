"""One bar of N paths of the environment in one compiled call: projection, controls, the simulator's bar, reward, observation.

What a path carries along lies in few arrays, because each array costs a call as much as several assets do.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int64, njit, types

from rlaif_ray.core import RUIN
from rlaif_ray.execution.account import fits
from rlaif_ray.execution.kernel import BOOK, LAST, LINE, TABLE, simulate_bar
from rlaif_ray.portfolio.limit_rules import CONTROLS as NAMES
from rlaif_ray.portfolio.limit_rules import admit_path, observe_path
from rlaif_ray.rl.observation import CLIP, OWN, write_portfolio
from rlaif_ray.rl.projection import project
from rlaif_ray.rl.rewards import EXCESS, LOG_RETURN, PARTS, STATES, TURNOVER, remember

CASH, MULTIPLIER, STATE = range(3)  # of `money` (N, 2+S+C): USD; what this episode's costs are multiplied by; the state of `rewards`
CONTROLS = STATE + STATES  # and that of the risk controls, where there are any
SHARES, FACTOR, HELD, OFFERED = range(4)  # of `holdings` (4,N,A): as in Accounts; weights; 1 where the path may hold the name
AT, BARS, OVER, TRIPS = range(4)  # of `clock` (4,N): table row; bars of this episode; 1 where the next step is a reset; bits of controls
REWARD, RETURN, FIRST_PART = range(3)  # of `told` (N, 2+K): reward; simple net return; the reward's parts
TOLD = FIRST_PART + len(PARTS)
BENCHMARK, TURBULENCE = range(2)  # of `lines` (2,R): equal weight's log return; scaled turbulence
NOT_FINITE, TARGET, BROKE = 1, 2, 3  # what can be wrong with a call

COSTS = 5  # the first of the kernel's terms: what an episode's multiplier changes
ALLOWED = 10  # the kernel's terms come first, then those of `ActionSet`, `Reward`, `Memory` and, where there are any, `Controls`
COEFFICIENTS = ALLOWED + 3
CURVATURE = COEFFICIENTS + len(PARTS)
ETA, VOLATILITY, LIMITS = CURVATURE + 1, CURVATURE + 2, CURVATURE + 3


@njit(error_model="numpy")
def _offence(asked, scores, long_short):  # pragma: no cover
    """What is wrong with scores or weights (A,); 0 for nothing."""
    size = 0.0
    for a in range(asked.shape[0]):
        size += abs(asked[a])
    if not size < np.inf:
        return NOT_FINITE
    return 0 if scores or fits(asked, long_short) else TARGET


@njit(error_model="numpy")
def _show(shown, offered, held, cash, state, turbulence, volatility, obs):  # pragma: no cover
    """Writes the observation of one path, as `observation.Layout` reads it."""
    assets, fields = shown.shape[0], shown.shape[1] - 1
    for a in range(assets):
        at = a * (fields + OWN)
        for d in range(fields):
            obs[at + d] = shown[a, d]
        obs[at + fields] = shown[a, fields] * np.float32(offered[a])
        obs[at + fields + 1] = min(max(held[a], -CLIP), CLIP)
    write_portfolio(cash, state, turbulence, volatility, obs[assets * (fields + OWN) :])


@njit(
    types.UniTuple(int64, 3)(
        BOOK, LINE, types.Array(float32, 3, "C", readonly=True), TABLE, TABLE, TABLE, types.Array(int64, 2, "C", readonly=True), LINE,
        TABLE, boolean, int64, int64, int64[:, ::1], float64[:, ::1], float64[:, :, ::1], float32[:, ::1], float64[:, ::1],
        boolean[:, ::1],
    ),
    cache=True, error_model="numpy",
)  # fmt: skip
def advance(
    book, days, table, lines, sessions, past, sectors, terms, asked, scores, first, episode_bars, clock, money, holdings, obs, told, flags
):  # pragma: no cover
    """A bar of each path, or of one that was over its first observation. Returns (what, where) of the first offence, and how many are over.

    `asked` (N,A) are scores, or target weights. `sessions` and `past` are the bars and returns of `Controls`, `sectors` (2,A)
    those of the action set and of the controls. `obs`, `told` and `flags` (2,N: ended, cut) are written.
    """
    assets, limits, allowed = table.shape[1], terms[LIMITS:], terms[ALLOWED:]
    own, listed, targets, readings = terms.copy(), np.empty(assets), np.empty(assets), np.empty(len(NAMES))
    over = 0
    for n in range(clock.shape[1]):
        row, held, cash, equity = clock[AT, n], holdings[HELD, n], money[n, CASH], money[n, CASH]
        flags[0, n], flags[1, n], told[n], clock[TRIPS, n] = False, False, 0.0, 0
        if clock[OVER, n]:
            clock[OVER, n] = 0
            for a in range(assets):
                equity += holdings[SHARES, n, a] * book[first + row, LAST, a]
        else:
            wrong = _offence(asked[n], scores, terms[5] > 0.0)
            if wrong:
                return wrong, n, over
            if scores:
                for a in range(assets):
                    listed[a] = table[row, a, table.shape[2] - 1] * holdings[OFFERED, n, a]
                project(asked[n], listed, allowed, sectors[0], targets)
            else:
                targets[:] = asked[n]
            if limits.shape[0] > 0:
                risk = money[n, CONTROLS:]
                clock[TRIPS, n] = admit_path(limits, sessions, sectors[1], past, risk, first + row, held, targets, readings)
            for k in range(COSTS):
                own[k] = terms[k] * money[n, MULTIPLIER]
            cash, gross, cost, turnover, equity = simulate_bar(
                book, days, first + row, targets, own, cash, holdings[SHARES, n], holdings[FACTOR, n], held
            )
            net = gross - cost
            if not abs(net) < np.inf:
                return BROKE, n, over
            parts = told[n, FIRST_PART:]
            log_return = np.log(max(1.0 + net, RUIN))
            x = log_return - lines[BENCHMARK, row]
            parts[LOG_RETURN], parts[EXCESS], parts[TURNOVER] = log_return, x, turnover
            remember(money[n, STATE:CONTROLS], net, terms[ETA], terms[VOLATILITY], parts)
            reward = -0.5 * terms[CURVATURE] * x * x
            for k in range(parts.shape[0]):
                reward += terms[COEFFICIENTS + k] * parts[k]
            told[n, REWARD], told[n, RETURN] = reward, net
            row += 1
            if limits.shape[0] > 0:
                observe_path(limits, sessions, money[n, CONTROLS:], first + row, net)
            money[n, CASH], clock[AT, n], clock[BARS, n] = cash, row, clock[BARS, n] + 1
            flags[0, n] = not equity > 0.0
            flags[1, n] = equity > 0.0 and clock[BARS, n] >= episode_bars
            if flags[0, n] or flags[1, n]:
                clock[OVER, n] = 1
                over += 1
        share = cash / equity if equity > 0.0 else 0.0
        _show(table[row], holdings[OFFERED, n], held, share, money[n, STATE:], lines[TURBULENCE, row], terms[VOLATILITY], obs[n])
    return 0, -1, over
