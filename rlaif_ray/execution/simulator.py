"""The one fill-and-account kernel: environment, backtest, paper and serving all get their answer from here.

Prices are exogenous but for the permanent impact of a path's own trades. A decision at the close of row t fills at row t+1.
Money is float64. N paths are stepped at once, each at its own row; loops over paths and assets are compiled (`execution.kernel`).

Order of events on the bar t -> t+1, for each path (prices are times the path's own factor, which only permanent impact moves):

1. equity(t) = cash + shares * last close. Not above 0: the path has ended and nothing happens. An account that may be short
   and has less equity than `maintenance` of its gross exposure is liquidated: targets become 0, whatever was decided.
2. Interest on cash and the fee on borrowed shares, for the calendar days until t+1.
3. Target shares = weight * equity(t) / last close. Splits multiply held and target shares; dividends on the shares held over
   the close are paid into cash, or out of it by who is short. A name delisted at t+1 is settled at 0.7 of its last close.
4. Sales at the fill price, each for no less than nothing, then purchases, scaled pro rata so that cash >= 0 after all costs
   (but in a liquidation). A name that cannot be filled (halt, no price, no volume where impact is charged) keeps its shares
   and is valued at its last close.
5. equity(t+1) at the close; where it is not above 0, nothing is held any more and what is owed stays as cash.
   net = equity(t+1) / equity(t) - 1, cost = (costs of trading + borrow fee) / equity(t), gross = net + cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np

from rlaif_ray.core import CLOSE, OPEN, Cube, Portfolio
from rlaif_ray.core import VOLUME as CUBE_VOLUME
from rlaif_ray.errors import DataError, ExecutionError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import (
    BROKE,
    DELISTED,
    DIVIDEND,
    FILL,
    FILLABLE,
    LAST,
    PLANES,
    ROW,
    SPLIT,
    VOLUME,
    carry_forward,
    run,
)  # fmt: skip

Fill = Literal["next_open", "next_close"]

LONG_ONLY = AccountRules()
NO_VOLUME = (
    "impact and the participation cap need volumes, and the source has none; leave out --execution.costs.impact, temporary and permanent "
    "and --execution.account.participation"
)


@dataclass(frozen=True, eq=False)
class Market:
    """A cube as the kernel reads it: what it needs of a row lies together. Picklable; may live in Ray's object store."""

    symbols: tuple[str, ...]
    known_at: np.ndarray  # (T,) datetime64[us]
    fill: Fill
    book: np.ndarray  # (T,K,A) float64, planes FILL to VOLUME
    days: np.ndarray  # (T,) float64 calendar days since the row before; 0 for the first

    @classmethod
    def of(cls, cube: Cube, fill: Fill) -> Market:
        """Check the cube's prices and events and lay them out for the kernel.

        Raises `DataError` for a non-positive or infinite price, a split that is not positive, a dividend or a volume that is
        no finite amount >= 0, or a tradable bar without the price at which it would be filled or valued.
        """
        if fill not in ("next_open", "next_close"):
            raise DataError(f"fill is {fill!r}; expected 'next_open' or 'next_close' (execution.fill)")
        close, volume = cube.prices[:, :, CLOSE], cube.prices[:, :, CUBE_VOLUME]
        fills = close if fill == "next_close" else cube.prices[:, :, OPEN]
        fillable = cube.tradable & ~cube.delisted
        for name, column in (("open", fills), ("close", close)):
            _refuse(cube, (column <= 0) | np.isinf(column), f"{name} price that is not positive and finite")
        _refuse(cube, ~((cube.splits > 0) & np.isfinite(cube.splits)), "split ratio that is not positive and finite")
        _refuse(cube, ~((cube.dividends >= 0) & np.isfinite(cube.dividends)), "dividend that is not a finite amount >= 0")
        _refuse(cube, (volume < 0) | np.isinf(volume), "volume that is not a finite number >= 0")
        _refuse(cube, fillable & np.isnan(close), "tradable bar without a close")
        hint = "tradable bar without an open; use execution.fill=next_close for a source without opens"
        _refuse(cube, fillable & np.isnan(fills), hint)
        book = np.empty((len(close), PLANES, close.shape[1]))
        book[:, FILL], book[:, VOLUME] = np.where(fillable, fills, 0.0), np.nan_to_num(volume)
        book[:, SPLIT], book[:, DIVIDEND], book[:, FILLABLE], book[:, DELISTED] = cube.splits, cube.dividends, fillable, cube.delisted
        carry_forward(np.ascontiguousarray(close), book)
        days = np.diff(cube.times, prepend=cube.times[:1]) / np.timedelta64(1, "D")
        return cls(cube.symbols, cube.known_at, fill, book, days)

    @cached_property
    def last(self) -> np.ndarray:
        """(T,A) last known close in shares of row t; NaN before the first trade."""
        last = self.book[:, LAST]
        return np.where(last > 0, last, np.nan)

    @cached_property
    def has_volume(self) -> bool:
        return bool(self.book[:, VOLUME].any())

    def with_planes(self, planes: Mapping[int, np.ndarray]) -> Market:
        """The same market but for some planes (T,A): `{DELISTED: ..., FILLABLE: ...}`."""
        book = self.book.copy()
        for plane, values in planes.items():
            book[:, plane] = values
        return replace(self, book=book)

    def portfolio(self, accounts: Accounts, path: int, row: int, returns: np.ndarray | None = None) -> Portfolio:
        """What one path holds at the close of `row`, as a policy sees it; `returns` are its own net ones until then."""
        prices = np.where(self.book[row, LAST] > 0, self.book[row, LAST] * accounts.factor[path], np.nan)
        past = np.empty(0) if returns is None else returns
        return Portfolio(self.known_at[row], self.symbols, float(accounts.cash[path]), accounts.shares[path].copy(), prices, past)


@dataclass(eq=False)
class Accounts:
    """Cash and shares of N paths, and what their own trades did to the prices that they see; `step` changes them in place."""

    cash: np.ndarray  # (N,) float64 USD
    shares: np.ndarray  # (N,A) float64, < 0 is short
    factor: np.ndarray  # (N,A) float64 on prices; 1 but for permanent impact

    def __post_init__(self) -> None:
        for array, axes in ((self.cash, 1), (self.shares, 2), (self.factor, 2)):
            if array.dtype != np.float64 or array.ndim != axes or not array.flags.c_contiguous or len(array) != len(self.cash):
                seen = f"cash {self.cash.dtype}{self.cash.shape}, shares {self.shares.dtype}{self.shares.shape}"
                raise ExecutionError(f"accounts are {seen}; expected contiguous float64 arrays (N,) and (N,A)")

    @classmethod
    def of_cash(cls, paths: int, assets: int, cash_usd: float) -> Accounts:
        """N accounts that hold nothing but cash."""
        return cls(np.full(paths, cash_usd, np.float64), np.zeros((paths, assets)), np.ones((paths, assets)))

    def equity(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """(N,) USD at the close of each path's row."""
        return self.cash + self._values(market, rows).sum(axis=1)

    def weights(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """(N,A) fractions of equity at the close of each path's row; cash is the rest."""
        return self._values(market, rows) / self.equity(market, rows)[:, None]

    def _values(self, market: Market, rows: np.ndarray) -> np.ndarray:
        return self.shares * market.book[rows, LAST] * self.factor


class StepResult(NamedTuple):
    """What the bar t -> t+1 brought. First axis: N paths for `step`, T bars for `walk`."""

    gross: np.ndarray  # (N,) simple return before this bar's costs
    cost: np.ndarray  # (N,) costs of trading and of borrowing / equity at close t
    turnover: np.ndarray  # (N,) traded notional / equity at close t
    weights: np.ndarray  # (N,A) held at close t+1
    ended: np.ndarray  # (N,) bool: equity was not above 0 at close t+1

    @property
    def net(self) -> np.ndarray:
        """(N,) equity(close t+1) / equity(close t) - 1."""
        return self.gross - self.cost

    @classmethod
    def joined(cls, bars: Sequence[StepResult]) -> StepResult:
        """Steps of one path, one after the other, as a walk would have told them."""
        return cls(*(np.concatenate([getattr(bar, f) for bar in bars]) for f in cls._fields))


def step(
    market: Market, accounts: Accounts, rows: np.ndarray, targets: np.ndarray, costs: CostModel, account: AccountRules = LONG_ONLY
) -> StepResult:  # fmt: skip
    """Answer one decision of each of N paths: decided at the close of rows[n], filled at rows[n] + 1.

    Parameters
    ----------
    accounts : N paths over A assets, changed in place; untouched when an error is raised.
    rows : (N,) int64 decision rows in [0, T-2].
    targets : (N,A) float64 fractions of equity within the rules of the account. Weight on a name that has never traded
        stays in cash.

    Raises `ExecutionError` for targets, rows or accounts that break these rules.
    """
    return _answer(market, accounts, rows, targets, 1, costs, account)


def walk(
    market: Market, accounts: Accounts, rows: slice, targets: np.ndarray, costs: CostModel, account: AccountRules = LONG_ONLY
) -> StepResult:  # fmt: skip
    """Answer a whole run of decisions of one path: the same numbers as `step` bar by bar, in one call.

    Parameters
    ----------
    accounts : one path (N = 1), changed in place.
    rows : consecutive decision rows, all in [0, T-2].
    targets : (T,A) float64, one row of weights for each decision.
    """
    if accounts.shares.shape[0] != 1:
        raise ExecutionError(f"walk takes one path; seen {accounts.shares.shape[0]} (step moves many at once)")
    return _answer(market, accounts, np.arange(rows.start, rows.stop, dtype=np.int64), targets, 0, costs, account)


def sweep(
    market: Market, rows: slice, targets: Iterable[np.ndarray], costs: CostModel, account: AccountRules = LONG_ONLY,
    cash_usd: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """(N,T) net returns of N paths that each start in cash: `walk` over many sets of decisions, their returns alone kept.

    Parameters
    ----------
    rows : consecutive decision rows, all in [0, T-2].
    targets : N arrays (T,A) float64, one a path, taken one by one: a generator holds no more than one of them.
    """
    assets = len(market.symbols)
    paths = [walk(market, Accounts.of_cash(1, assets, cash_usd), rows, weights, costs, account).net for weights in targets]
    return np.stack(paths) if paths else np.empty((0, rows.stop - rows.start))


@lru_cache(64)
def packed(costs: CostModel, account: AccountRules) -> np.ndarray:
    """Costs and rules as the compiled kernel reads them; not to be written to."""
    terms = np.array([
        costs.rate, costs.impact, costs.temporary, costs.permanent, costs.borrow, account.long_short, account.whole_shares,
        account.participation, account.cash_interest, account.maintenance,
    ], np.float64)  # fmt: skip
    terms.setflags(write=False)
    return terms


def need_volume(market: Market, costs: CostModel, account: AccountRules) -> None:
    """Raises `DataError` where a rule asks for volumes that the source does not have."""
    if (costs.needs_volume or account.participation < np.inf) and not market.has_volume:
        raise DataError(NO_VOLUME)


def _answer(
    market: Market, accounts: Accounts, rows: np.ndarray, targets: np.ndarray, stride: int, costs: CostModel, account: AccountRules
) -> StepResult:  # fmt: skip
    """Entry n belongs to path n (stride 1), or all entries to one path (stride 0)."""
    rows, targets = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(targets, np.float64)
    n, a = len(rows), accounts.shares.shape[1]
    if targets.shape != (n, a) or rows.ndim != 1 or a != len(market.symbols) or (stride and n != len(accounts.cash)):
        raise ExecutionError(
            f"rows {rows.shape} and targets {targets.shape} do not fit accounts of {accounts.shares.shape} and a market of "
            f"{len(market.symbols)} symbols"
        )
    if not market.has_volume:
        need_volume(market, costs, account)
    figures, weights, ended = np.empty((3, n)), np.empty((n, a)), np.empty(n, np.bool_)
    what, where = run(
        market.book, market.days, rows, targets, stride, packed(costs, account), accounts.cash, accounts.shares, accounts.factor, figures,
        weights, ended,
    )  # fmt: skip
    if what:
        raise ExecutionError(_offence(what, where, market, accounts, rows, targets, account))
    return StepResult(figures[0], figures[1], figures[2], weights, ended)


def _offence(
    what: int, n: int, market: Market, accounts: Accounts, rows: np.ndarray, targets: np.ndarray, account: AccountRules
) -> str:  # fmt: skip
    """The first offence of a call, in words."""
    if what == ROW:
        return f"decision row {rows[n]} is outside 0 to {len(market.book) - 2}: a fill needs the next bar"
    if what == BROKE:
        seen = f"{accounts.cash[n]} USD and shares of {accounts.shares[n]}"
        return f"path {n} holds {seen} at row {rows[n]}; expected finite numbers{'' if account.long_short else ', none below 0'}"
    bad = ~np.isfinite(targets[n]) if account.long_short else ~(targets[n] >= 0)
    first = int(np.argmax(bad))  # 0 where each by itself may be and only their sum may not
    with np.errstate(invalid="ignore"):
        seen = f"add up to {targets[n].sum():.10g} ({market.symbols[first]}: {targets[n, first]:.6g})"
        seen += f", {np.abs(targets[n]).sum():.10g} without signs" if account.long_short else ""
    return f"target weights of entry {n} at row {rows[n]} {seen}; expected {account.words}"


def _refuse(cube: Cube, bad: np.ndarray, what: str) -> None:
    if bad.any():
        t, a = np.argwhere(bad)[0]
        raise DataError(f"{cube.symbols[a]} at {cube.times[t]} has a {what}; {int(bad.sum())} such in all. Clean the source first")
