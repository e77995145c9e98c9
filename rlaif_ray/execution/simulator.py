"""The one fill-and-account kernel: environment, backtest, paper and serving all get their answer from here.

Prices are exogenous and accounts are long-only. A decision at the close of row t fills at row t+1. Money is float64.
N paths are stepped at once, each at its own row; the loops over paths and assets run in compiled code.

Order of events on the bar t -> t+1, for each path:

1. equity(t) = cash + shares * last close; target shares = weight * equity(t) / last close.
2. Splits multiply held and target shares; dividends on the shares held over the close are paid into cash.
3. A name delisted at t+1 pays 0.7 of its last close into cash and is gone.
4. Sales at the fill price, then purchases, scaled pro rata so that cash >= 0 after all costs. A name that cannot be
   filled (halt, no price) keeps its shares and is valued at its last known close.
5. equity(t+1) at the close. net = equity(t+1) / equity(t) - 1, cost = costs paid / equity(t), gross = net + cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.core import CLOSE, OPEN, Cube, Portfolio
from rlaif_ray.errors import DataError, ExecutionError
from rlaif_ray.execution.costs import CostModel

Fill = Literal["next_open", "next_close"]

DELISTING_RECOVERY = 0.7  # of the last close; Shumway (1997), "The delisting bias in CRSP data", finds about -30%
WEIGHT_TOLERANCE = 1e-9  # target weights may add up to this much more than 1

_ROW, _TARGET, _BROKE = 1, 2, 3  # what can be wrong with a call

# Arrays that come out of Ray's object store are read-only; a kernel typed for writable ones would refuse them.
_F1, _F2 = types.Array(float64, 1, "C", readonly=True), types.Array(float64, 2, "C", readonly=True)
_I1, _B2 = types.Array(int64, 1, "C", readonly=True), types.Array(boolean, 2, "C", readonly=True)
_MARKET = types.Tuple((_F2, _F2, _B2, _F2, _F2, _B2))


@dataclass(frozen=True, eq=False)
class Market:
    """A cube as the kernel reads it: contiguous (T,A) arrays, checked once. Picklable; may live in Ray's object store."""

    symbols: tuple[str, ...]
    known_at: np.ndarray  # (T,) datetime64[us]
    fill: Fill
    fill_prices: np.ndarray  # (T,A) float64 reference price of a fill at row t
    last: np.ndarray  # (T,A) float64 last known close in shares of row t; NaN before the first trade
    fillable: np.ndarray  # (T,A) bool
    splits: np.ndarray  # (T,A) float64
    dividends: np.ndarray  # (T,A) float64 USD a share
    delisted: np.ndarray  # (T,A) bool

    @classmethod
    def of(cls, cube: Cube, fill: Fill) -> Market:
        """Check the cube's prices and events and lay them out for the kernel.

        Raises `DataError` for a non-positive or infinite price, a split that is not positive, a negative or
        not-a-number dividend, or a tradable bar without the price at which it would be filled or valued.
        """
        if fill not in ("next_open", "next_close"):
            raise DataError(f"fill is {fill!r}; expected 'next_open' or 'next_close' (execution.fill)")
        close = np.ascontiguousarray(cube.prices[:, :, CLOSE])
        fill_prices = close if fill == "next_close" else np.ascontiguousarray(cube.prices[:, :, OPEN])
        fillable = cube.tradable & ~cube.delisted
        for name, column in (("open", fill_prices), ("close", close)):
            _refuse(cube, (column <= 0) | np.isinf(column), f"{name} price that is not positive and finite")
        _refuse(cube, ~((cube.splits > 0) & np.isfinite(cube.splits)), "split ratio that is not positive and finite")
        _refuse(cube, ~((cube.dividends >= 0) & np.isfinite(cube.dividends)), "dividend that is not a finite amount >= 0")
        _refuse(cube, fillable & np.isnan(close), "tradable bar without a close")
        hint = "tradable bar without an open; use execution.fill=next_close for a source without opens"
        _refuse(cube, fillable & np.isnan(fill_prices), hint)
        splits, dividends = (np.ascontiguousarray(x, np.float64) for x in (cube.splits, cube.dividends))
        return cls(
            cube.symbols, cube.known_at, fill, fill_prices, _last_known(close, splits), np.ascontiguousarray(fillable),
            splits, dividends, np.ascontiguousarray(cube.delisted),
        )  # fmt: skip

    def portfolio(self, accounts: Accounts, path: int, row: int) -> Portfolio:
        """What one path holds at the close of `row`, as a policy sees it."""
        return Portfolio(self.known_at[row], self.symbols, float(accounts.cash[path]), accounts.shares[path].copy(), self.last[row])

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """In the order in which the kernel unpacks them."""
        return self.fill_prices, self.last, self.fillable, self.splits, self.dividends, self.delisted


@dataclass(eq=False)
class Accounts:
    """Cash and shares of N paths; `step` changes them in place."""

    cash: np.ndarray  # (N,) float64 USD
    shares: np.ndarray  # (N,A) float64

    def __post_init__(self) -> None:
        for array, axes in ((self.cash, 1), (self.shares, 2)):
            if array.dtype != np.float64 or array.ndim != axes or not array.flags.c_contiguous or len(array) != len(self.cash):
                seen = f"cash {self.cash.dtype}{self.cash.shape}, shares {self.shares.dtype}{self.shares.shape}"
                raise ExecutionError(f"accounts are {seen}; expected contiguous float64 arrays (N,) and (N,A)")

    @classmethod
    def of_cash(cls, paths: int, assets: int, cash_usd: float) -> Accounts:
        """N accounts that hold nothing but cash."""
        return cls(np.full(paths, cash_usd, np.float64), np.zeros((paths, assets)))

    def equity(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """(N,) USD at the close of each path's row."""
        return self.cash + np.where(self.shares > 0, self.shares * market.last[rows], 0.0).sum(axis=1)

    def weights(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """(N,A) fractions of equity at the close of each path's row; cash is the rest."""
        return np.where(self.shares > 0, self.shares * market.last[rows], 0.0) / self.equity(market, rows)[:, None]


@dataclass(frozen=True, eq=False)
class StepResult:
    """What the bar t -> t+1 brought. First axis: N paths for `step`, T bars for `walk`."""

    gross: np.ndarray  # (N,) simple return before this bar's costs
    cost: np.ndarray  # (N,) costs / equity at close t
    turnover: np.ndarray  # (N,) traded notional / equity at close t
    weights: np.ndarray  # (N,A) held at close t+1

    @property
    def net(self) -> np.ndarray:
        """(N,) equity(close t+1) / equity(close t) - 1."""
        return self.gross - self.cost


def step(market: Market, accounts: Accounts, rows: np.ndarray, targets: np.ndarray, costs: CostModel) -> StepResult:
    """Answer one decision of each of N paths: decided at the close of rows[n], filled at rows[n] + 1.

    Parameters
    ----------
    accounts : N paths over A assets, changed in place; untouched when an error is raised.
    rows : (N,) int64 decision rows in [0, T-2].
    targets : (N,A) float64 fractions of equity, >= 0, each row adding up to at most 1. Weight on a name that has
        never traded stays in cash.

    Raises `ExecutionError` for targets, rows or accounts that break these rules.
    """
    n, a = accounts.shares.shape
    rows, targets = _checked(market, accounts, rows, targets, (n, a))
    gross, cost, turnover, weights = np.empty(n), np.empty(n), np.empty(n), np.empty((n, a))
    _run(market.arrays, rows, targets, 1, costs.rate, accounts.cash, accounts.shares, gross, cost, turnover, weights)
    return StepResult(gross, cost, turnover, weights)


def walk(market: Market, accounts: Accounts, rows: slice, targets: np.ndarray, costs: CostModel) -> StepResult:
    """Answer a whole run of decisions of one path: the same numbers as `step` bar by bar, in one call.

    Parameters
    ----------
    accounts : one path (N = 1), changed in place.
    rows : consecutive decision rows, all in [0, T-2].
    targets : (T,A) float64, one row of weights for each decision.
    """
    numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
    if accounts.shares.shape[0] != 1:
        raise ExecutionError(f"walk takes one path; seen {accounts.shares.shape[0]} (step moves many at once)")
    t, a = len(numbers), accounts.shares.shape[1]
    numbers, targets = _checked(market, accounts, numbers, targets, (t, a))
    gross, cost, turnover, weights = np.empty(t), np.empty(t), np.empty(t), np.empty((t, a))
    _run(market.arrays, numbers, targets, 0, costs.rate, accounts.cash, accounts.shares, gross, cost, turnover, weights)
    return StepResult(gross, cost, turnover, weights)


def sweep(market: Market, rows: slice, targets: Iterable[np.ndarray], costs: CostModel) -> np.ndarray:
    """(N,T) net returns of N paths that each start in cash: `walk` over many sets of decisions, their returns alone kept.

    Parameters
    ----------
    rows : consecutive decision rows, all in [0, T-2].
    targets : N arrays (T,A) float64, one a path, taken one by one: a generator holds no more than one of them.
    """
    assets = len(market.symbols)
    paths = [walk(market, Accounts.of_cash(1, assets, 1.0), rows, weights, costs).net for weights in targets]
    return np.stack(paths) if paths else np.empty((0, rows.stop - rows.start))


def _checked(
    market: Market, accounts: Accounts, rows: np.ndarray, targets: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and targets in the kernel's types, or an `ExecutionError` that names the first offence."""
    rows, targets = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(targets, np.float64)
    if targets.shape != shape or rows.shape != shape[:1] or shape[1] != len(market.symbols):
        raise ExecutionError(
            f"rows {rows.shape} and targets {targets.shape} do not fit accounts of {shape} and a market of {len(market.symbols)} symbols"
        )
    what, n = _first_offence(market.last, rows, targets, accounts.cash, accounts.shares)
    if what == _ROW:
        raise ExecutionError(f"decision row {rows[n]} is outside 0 to {len(market.last) - 2}: a fill needs the next bar")
    if what == _TARGET:
        first = int(np.argmax(~(targets[n] >= 0)))  # 0 where all are numbers >= 0 and only the sum is too large
        seen = f"add up to {targets[n].sum():.10g} ({market.symbols[first]}: {targets[n, first]:.6g})"
        raise ExecutionError(f"target weights of entry {n} at row {rows[n]} {seen}; expected numbers >= 0 that add up to at most 1")
    if what == _BROKE:
        seen = f"{accounts.cash[n]} USD and shares of {accounts.shares[n]}"
        raise ExecutionError(f"path {n} holds {seen} at row {rows[n]}; expected none below 0 and a positive equity")
    return rows, targets


def _refuse(cube: Cube, bad: np.ndarray, what: str) -> None:
    if bad.any():
        t, a = np.argwhere(bad)[0]
        raise DataError(f"{cube.symbols[a]} at {cube.times[t]} has a {what}; {int(bad.sum())} such in all. Clean the source first")


@njit(types.UniTuple(int64, 2)(_F2, _I1, _F2, _F1, _F2), cache=True)
def _first_offence(last, rows, targets, cash, shares):  # pragma: no cover
    """(what, where) of the first rule that is broken; (0, -1) for none."""
    for n in range(rows.shape[0]):
        if rows[n] < 0 or rows[n] > last.shape[0] - 2:
            return _ROW, n
        total = 0.0
        for a in range(targets.shape[1]):
            if not targets[n, a] >= 0.0:
                return _TARGET, n
            total += targets[n, a]
        if total > 1.0 + WEIGHT_TOLERANCE:
            return _TARGET, n
    for n in range(min(cash.shape[0], rows.shape[0])):
        equity = cash[n] if cash[n] >= 0.0 else np.nan
        for a in range(shares.shape[1]):
            if shares[n, a] != 0.0:
                equity += shares[n, a] * last[rows[n], a] if shares[n, a] > 0.0 else np.nan
        if not 0.0 < equity < np.inf:
            return _BROKE, n
    return 0, -1


@njit(float64[:, ::1](_F2, _F2), cache=True)
def _last_known(close, splits):  # pragma: no cover
    """Close carried forward; a split while there is no price changes what a share is."""
    last = np.empty_like(close)
    for a in range(close.shape[1]):
        known = np.nan
        for t in range(close.shape[0]):
            known = known / splits[t, a] if np.isnan(close[t, a]) else close[t, a]
            last[t, a] = known
    return last


# Inlined, because a call that passes the market's arrays takes longer than a bar of one asset does.
@njit(types.UniTuple(float64, 4)(_MARKET, int64, _F1, float64, float64, float64[::1], float64[::1]), cache=True, inline="always")
def _bar(market, t, target, rate, cash, held, weights):  # pragma: no cover
    """One path over the bar t -> t+1; `held` and `weights` (A,) are written. Returns cash, gross, cost, turnover."""
    fill_prices, last, fillable, splits, dividends, delisted = market
    assets = held.shape[0]
    equity = cash
    for a in range(assets):
        if held[a] > 0.0:
            equity += held[a] * last[t, a]

    traded, wanted_usd = 0.0, 0.0
    for a in range(assets):
        purchase = 0.0
        if delisted[t + 1, a]:
            if held[a] > 0.0:
                cash += held[a] * (splits[t + 1, a] * dividends[t + 1, a] + DELISTING_RECOVERY * last[t, a])
            held[a] = 0.0
        else:
            held[a] *= splits[t + 1, a]
            cash += held[a] * dividends[t + 1, a]
            if fillable[t + 1, a] and last[t, a] > 0.0:
                wanted = target[a] * equity / last[t, a] * splits[t + 1, a]
                notional = (wanted - held[a]) * fill_prices[t + 1, a]
                if notional < 0.0:
                    cash -= notional * (1.0 - rate)
                    traded -= notional
                    held[a] = wanted
                else:
                    purchase = wanted - held[a]
                    wanted_usd += notional
        weights[a] = purchase  # kept here until the sales of all names are in

    scale = 1.0
    if wanted_usd * (1.0 + rate) > cash:
        scale = cash / (wanted_usd * (1.0 + rate))
        cash = 0.0
    else:
        cash -= wanted_usd * (1.0 + rate)
    traded += wanted_usd * scale

    after = cash
    for a in range(assets):
        held[a] += weights[a] * scale
        weights[a] = held[a] * last[t + 1, a] if held[a] > 0.0 else 0.0
        after += weights[a]
    for a in range(assets):
        weights[a] /= after
    cost = traded * rate / equity
    return cash, after / equity - 1.0 + cost, cost, traded / equity


@njit(
    types.void(_MARKET, _I1, _F2, int64, float64, float64[::1], float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[:, ::1]),
    cache=True,
)
def _run(market, rows, targets, stride, rate, cash, shares, gross, cost, turnover, weights):  # pragma: no cover
    """Entry n belongs to path n (stride 1), or all entries to one path (stride 0)."""
    for n in range(rows.shape[0]):
        path = n * stride
        cash[path], gross[n], cost[n], turnover[n] = _bar(market, rows[n], targets[n], rate, cash[path], shares[path], weights[n])
