"""The rules of the risk controls in compiled code: one path, one bar. `portfolio.limits` binds them to a market.

`observe_path` and `admit_path` are called by an environment's kernel as they are; `observe`, `admit` and `replay` loop over
paths and look for what is wrong before anything is changed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.execution.account import NET
from rlaif_ray.execution.caps import cap_names
from rlaif_ray.portfolio import risk

CONTROLS = ("name_cap", "sector_cap", "turbulence", "drawdown", "daily_loss", "intraday_loss", "target_volatility", "cvar", "var")
"""Bit k of a mask of trips, column k of readings, and term k (its limit; infinite where it is off) belong to control k."""
NAME_CAP, SECTOR_CAP, TURBULENCE, DRAWDOWN, DAILY_LOSS, INTRADAY_LOSS, VOLATILITY, TAIL, VAR = range(9)
COOLDOWN_BARS, TAIL_SHARE, BARS_PER_YEAR = range(9, 12)  # further terms
FLAT = 1 << DRAWDOWN | 1 << INTRADAY_LOSS
PAUSED = 1 << TURBULENCE | 1 << DAILY_LOSS

EQUITY, PEAK, COOLDOWN, OPENED, HIGHEST, LOST, FELL, EXPOSURE, SEEN, SQUARES, WEIGHT, LOSSES = range(12)
"""Columns of a state; the memory of the conformal tail follows where that control is on.

Equity over what the path began with; its peak; bars that the drawdown breaker stays tripped; equity at the last close of the
session before; highest close of the session; whether daily loss and intraday breaker are tripped; exposure left by volatility
target and CVaR; bars that these two have seen; moving average of squared returns, and the sum of its weights.
"""
STARTS, READING = range(2)  # columns of bars (T,2): whether the row opens a session, and its turbulence

VOLATILITY_BARS = 20  # from so many on the volatility target acts
DECAY = 0.5 ** (1 / 20)  # a half-life of 20 bars
VAR_LEVEL = 0.99
LEAST_EXPOSURE = 0.02  # a path that is out of the market tells nothing of its risk
_ROUNDING = 1e-12  # of a sum of weights that is what it should be
_Z, _SHORTFALL = risk.normal_tail(VAR_LEVEL)

_F1, _F2 = types.Array(float64, 1, "C", readonly=True), types.Array(float64, 2, "C", readonly=True)
_I1 = types.Array(int64, 1, "C", readonly=True)
_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FINE, SHAPES = -1, -2  # what `observe`, `admit` and `replay` return; else the first path that is wrong


@njit(types.void(_F1, float64[:, ::1]), **_OPTIONS)
def start_paths(terms, state):  # pragma: no cover
    """Rows of a state (N,S) to the start of a path, in place."""
    state[:] = 0.0
    for n in range(state.shape[0]):
        state[n, EQUITY] = state[n, PEAK] = state[n, OPENED] = state[n, HIGHEST] = state[n, EXPOSURE] = 1.0
        if state.shape[1] > LOSSES:
            risk.conformal_start(state[n, LOSSES:], terms[TAIL_SHARE])


@njit(float64(float64[::1], float64), **_OPTIONS)
def _annual_volatility(state, bars_per_year):  # pragma: no cover
    """Of the returns without the overlays, mean taken as 0; NaN until VOLATILITY_BARS are in."""
    return math.sqrt(state[SQUARES] / state[WEIGHT] * bars_per_year) if state[SEEN] >= VOLATILITY_BARS else np.nan


@njit(types.void(_F1, float64[::1], float64), **_OPTIONS)
def _learn(terms, state, net):  # pragma: no cover
    """The bar's return without the overlays into their estimates, and the exposure that these leave the next decision."""
    exposure = 1.0
    state[SEEN] += 1.0
    state[SQUARES] = DECAY * state[SQUARES] + (1.0 - DECAY) * net * net
    state[WEIGHT] = DECAY * state[WEIGHT] + (1.0 - DECAY)
    reading = _annual_volatility(state, terms[BARS_PER_YEAR])
    if reading > terms[VOLATILITY]:
        exposure = terms[VOLATILITY] / reading
    if state.shape[0] > LOSSES:
        tail = state[LOSSES:]
        risk.conformal_step(tail, -net, terms[TAIL_SHARE])
        if tail[risk.CVAR] > terms[TAIL]:
            exposure = min(exposure, terms[TAIL] / tail[risk.CVAR])
    state[EXPOSURE] = max(exposure, LEAST_EXPOSURE)


@njit(types.void(_F1, _F2, float64[::1], int64, float64), **_OPTIONS)
def observe_path(terms, bars, state, row, net):  # pragma: no cover
    """One path's bar that ends at the close of `row`; its state (S,) changes in place. Callable from compiled code."""
    before = state[EQUITY]
    now = before * (1.0 + net)
    if not now > 0.0:  # the path is over
        state[EQUITY] = now
        return
    if state[COOLDOWN] == 0.0 and state[FELL] == 0.0:  # a path in cash by rule says nothing of the policy's risk
        _learn(terms, state, net / state[EXPOSURE])
    state[EQUITY] = now

    if state[COOLDOWN] > 0.0:
        state[COOLDOWN] -= 1.0
        if state[COOLDOWN] == 0.0:
            state[PEAK] = now
    else:
        state[PEAK] = max(state[PEAK], now)
        if now < (1.0 - terms[DRAWDOWN]) * state[PEAK]:
            state[COOLDOWN] = terms[COOLDOWN_BARS]

    if bars[row, STARTS] > 0.0:
        state[OPENED], state[HIGHEST], state[LOST], state[FELL] = before, now, 0.0, 0.0
    state[HIGHEST] = max(state[HIGHEST], now)
    if now < (1.0 - terms[DAILY_LOSS]) * state[OPENED]:
        state[LOST] = 1.0
    if now < (1.0 - terms[INTRADAY_LOSS]) * state[HIGHEST]:
        state[FELL] = 1.0


@njit(int64(_F1, _F2, float64[::1], int64, float64[::1]), **_OPTIONS)
def _in_force(terms, bars, state, row, readings):  # pragma: no cover
    """Bits and readings of all controls that do not look at the targets."""
    readings[:] = np.nan
    readings[TURBULENCE] = bars[row, READING]
    readings[DRAWDOWN] = 1.0 - state[EQUITY] / state[PEAK] if terms[DRAWDOWN] < np.inf else np.nan
    readings[DAILY_LOSS] = 1.0 - state[EQUITY] / state[OPENED] if terms[DAILY_LOSS] < np.inf else np.nan
    readings[INTRADAY_LOSS] = 1.0 - state[EQUITY] / state[HIGHEST] if terms[INTRADAY_LOSS] < np.inf else np.nan
    readings[VOLATILITY] = _annual_volatility(state, terms[BARS_PER_YEAR]) if terms[VOLATILITY] < np.inf else np.nan
    readings[TAIL] = state[LOSSES + risk.CVAR] if state.shape[0] > LOSSES else np.nan
    trips = (state[COOLDOWN] > 0.0) << DRAWDOWN | (state[LOST] > 0.0) << DAILY_LOSS | (state[FELL] > 0.0) << INTRADAY_LOSS
    for k in (TURBULENCE, VOLATILITY, TAIL):
        trips |= (readings[k] > terms[k]) << k
    return trips


@njit(float64(float64[::1], _I1, float64), **_OPTIONS)
def cap_sectors(weights, sectors, cap):  # pragma: no cover
    """No sector's sum of |w| above the cap, in place; -1 is no sector. Returns the largest sum that there was."""
    sums, largest = np.zeros(len(weights)), 0.0
    for a in range(len(weights)):
        if sectors[a] >= 0:
            sums[sectors[a]] += abs(weights[a])
            largest = max(largest, sums[sectors[a]])
    if largest > cap * (1.0 + _ROUNDING):
        for a in range(len(weights)):
            if sectors[a] >= 0 and sums[sectors[a]] > cap:
                weights[a] *= cap / sums[sectors[a]]
    return largest


@njit(types.void(_F1, float64[::1]), **_OPTIONS)
def _no_more_than_held(held, weights):  # pragma: no cover
    for a in range(len(weights)):
        if weights[a] > 0.0:
            weights[a] = min(weights[a], max(held[a], 0.0))
        else:
            weights[a] = max(weights[a], min(held[a], 0.0))


@njit(types.void(float64[::1], float64), **_OPTIONS)
def _keep_net(weights, asked):  # pragma: no cover
    """The larger side scaled where controls have moved the net weight beyond [-1, 1] and beyond what was asked for."""
    longs, shorts = 0.0, 0.0
    for w in weights:
        longs += max(w, 0.0)
        shorts += max(-w, 0.0)
    net, side, most = longs - shorts, 1.0, max(NET, asked)
    if net < 0.0:
        net, side, most, longs, shorts = -net, -1.0, max(NET, -asked), shorts, longs
    if net > most + _ROUNDING:
        for a in range(len(weights)):
            if side * weights[a] > 0.0:
                weights[a] *= (most + shorts) / longs


@njit(float64(_F2, int64, float64[::1]), **_OPTIONS)
def _value_at_risk(returns, row, weights):  # pragma: no cover
    """Of the weights over the last rows up to `row`; NaN where there are too few. Row 0 has no return."""
    first = max(row - risk.WINDOW_BARS + 1, 1)
    losses = np.zeros(row - first + 1)
    if len(losses) < risk.LEAST_BARS:
        return np.nan
    for t in range(len(losses)):
        for a in range(len(weights)):
            losses[t] -= weights[a] * returns[first + t, a]
    seen = risk.historical_tail(np.sort(losses), VAR_LEVEL)[0]
    expanded = risk.cornish_fisher_tail(losses, _Z, _SHORTFALL)[0]
    return expanded if expanded > seen else seen


@njit(int64(_F1, _F2, _I1, _F2, float64[::1], int64, _F1, float64[::1], float64[::1]), **_OPTIONS)
def admit_path(terms, bars, sectors, returns, state, row, held, weights, readings):  # pragma: no cover
    """One path's decision at the close of `row`: the weights (A,) in place, the readings (9,), and the mask of trips.

    Callable from compiled code, which sees to finite weights and a row that is there.
    """
    if not state[EQUITY] > 0.0:  # the path is over: there is nothing left to control
        weights[:] = 0.0
        readings[:] = np.nan
        return 0
    trips = _in_force(terms, bars, state, row, readings)
    if trips & FLAT:
        weights[:] = 0.0
        return trips
    asked = weights.sum()
    readings[NAME_CAP] = cap_names(weights, terms[NAME_CAP])
    if terms[SECTOR_CAP] < np.inf:
        readings[SECTOR_CAP] = cap_sectors(weights, sectors, terms[SECTOR_CAP])
    if state[EXPOSURE] < 1.0:
        weights *= state[EXPOSURE]
    if trips & PAUSED:
        _no_more_than_held(held, weights)
    _keep_net(weights, asked)
    if terms[VAR] < np.inf:
        readings[VAR] = _value_at_risk(returns, row, weights)
        if readings[VAR] > terms[VAR]:
            weights *= terms[VAR] / readings[VAR]
    for k in (NAME_CAP, SECTOR_CAP, VAR):
        trips |= (readings[k] > terms[k] * (1.0 + _ROUNDING)) << k
    return trips


@njit(boolean(_F1), **_OPTIONS)
def _finite(values):  # pragma: no cover
    total = 0.0
    for x in values:
        total += x - x  # NaN unless x is finite
    return total == 0.0


@njit(int64(_F1, _F2, float64[:, ::1], _I1, _F1), **_OPTIONS)
def observe(terms, bars, state, rows, net):  # pragma: no cover
    if not len(state) == len(rows) == len(net):
        return SHAPES
    for n in range(len(rows)):
        if not (0 <= rows[n] < len(bars) and np.isfinite(net[n])):
            return n
    for n in range(len(rows)):
        observe_path(terms, bars, state[n], rows[n], net[n])
    return FINE


@njit(int64(_F1, _F2, float64[:, ::1], _I1, _F1), **_OPTIONS)
def replay(terms, bars, state, rows, net):  # pragma: no cover
    if len(rows) != len(net):
        return SHAPES
    for n in range(len(rows)):
        if not (0 <= rows[n] < len(bars) and np.isfinite(net[n])):
            return n
        observe_path(terms, bars, state[0], rows[n], net[n])
    return FINE


@njit(int64(_F1, _F2, _I1, _F2, float64[:, ::1], _I1, _F2, float64[:, ::1], int64[::1], float64[:, ::1]), **_OPTIONS)
def admit(terms, bars, sectors, returns, state, rows, held, weights, trips, readings):  # pragma: no cover
    paths, assets = len(rows), len(sectors)
    if not (len(state) == paths and held.shape == weights.shape == (paths, assets) and readings.shape == (paths, len(CONTROLS))):
        return SHAPES
    for n in range(paths):
        if not (0 <= rows[n] < len(bars) and _finite(weights[n]) and _finite(held[n])):
            return n
        trips[n] = admit_path(terms, bars, sectors, returns, state[n], rows[n], held[n], weights[n], readings[n])
    return FINE
