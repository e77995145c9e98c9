"""One account under risk controls, walked through a run of bars in compiled code: controls first, then the simulator's answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.core import Portfolio, Trip
from rlaif_ray.errors import ExecutionError
from rlaif_ray.execution.kernel import BOOK, LINE, ROWS, TABLE, simulate_bar
from rlaif_ray.execution.simulator import Accounts, Market, StepResult, need_volume, packed
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limit_rules import CONTROLS, admit_path, observe_path
from rlaif_ray.portfolio.limits import Controls


@dataclass(frozen=True, eq=False)
class Walked:
    """Bars of one path: what was traded to after the controls, what came of it, and what the controls read."""

    targets: np.ndarray  # (T,A) decided weights after the controls
    result: StepResult
    trips: np.ndarray  # (T,) int64, a bit a control
    readings: np.ndarray  # (T,C) float64 what each control read


class ControlledAccount:
    """Cash, shares and the state of the controls of one path; every call goes on from the last.

    A decision is taken at a row's close: the controls see it, the simulator fills it on the next bar, and the controls learn
    what that bar returned. Row by row or many rows at once, the numbers are the same, bit for bit.
    """

    def __init__(self, market: Market, controls: Controls, terms: Terms) -> None:
        need_volume(market, terms.costs, terms.account)
        self.market, self.controls = market, controls
        self.accounts = Accounts.of_cash(1, len(market.symbols), terms.cash_usd)
        self._terms, self._state, self._held = packed(terms.costs, terms.account), controls.start(1), np.zeros(len(market.symbols))
        self._returns = [np.empty(0)]

    @property
    def returns(self) -> np.ndarray:
        """(k,) net returns so far."""
        self._returns = [np.concatenate(self._returns)]
        return self._returns[0]

    def portfolio(self, row: int) -> Portfolio:
        """What it holds at the close of `row`, and what it has returned until then."""
        return self.market.portfolio(self.accounts, 0, row, self.returns)

    def advance(self, first: int, targets: np.ndarray) -> Walked:
        """Decisions (T,A), which are weights that the account may hold, on the rows from `first` on.

        Raises `ExecutionError` where a row has no next bar to be filled on.
        """
        t, a = targets.shape
        if not 0 <= first <= first + t < len(self.market.book):
            last = len(self.market.book) - 2
            raise ExecutionError(f"decision rows {first} to {first + t - 1}; expected 0 to {last}: a fill needs the next bar")
        admitted, figures, weights = np.array(targets, np.float64, order="C"), np.empty((3, t)), np.empty((t, a))
        ended, trips, readings = np.empty(t, np.bool_), np.empty(t, np.int64), np.empty((t, len(CONTROLS)))
        books, market = self.accounts, self.market
        books.cash[0] = _advance(
            market.book, market.days, first, self._terms, *self.controls.arrays, self._state[0], books.cash[0], books.shares[0],
            books.factor[0], self._held, admitted, figures, weights, ended, trips, readings,
        )  # fmt: skip
        result = StepResult(figures[0], figures[1], figures[2], weights, ended)
        self._returns.append(result.net)
        return Walked(admitted, result, trips, readings)


def trips_of(controls: Controls, rows: slice, walked: list[Walked]) -> tuple[Trip, ...]:
    """Where each control began to bind over a run of rows."""
    return controls.trips(rows, np.concatenate([w.trips for w in walked]), np.concatenate([w.readings for w in walked]))


@njit(
    float64(
        BOOK, LINE, int64, LINE, LINE, TABLE, ROWS, TABLE, float64[::1], float64, float64[::1], float64[::1], float64[::1],
        float64[:, ::1], float64[:, ::1], float64[:, ::1], types.Array(boolean, 1, "C"), int64[::1], float64[:, ::1],
    ),
    cache=True,
)  # fmt: skip
def _advance(
    book, days, first, terms, limits, bars, sectors, returns, state, cash, shares, factor, held, targets, figures, weights, ended, trips,
    readings,
):  # pragma: no cover  # fmt: skip
    """Cash after the last bar; everything else of the path is changed in place."""
    for k in range(targets.shape[0]):
        row = first + k
        trips[k] = admit_path(limits, bars, sectors, returns, state, row, held, targets[k], readings[k])
        cash, figures[0, k], figures[1, k], figures[2, k], equity = simulate_bar(
            book, days, row, targets[k], terms, cash, shares, factor, weights[k]
        )
        ended[k] = not equity > 0.0
        observe_path(limits, bars, state, row + 1, figures[0, k] - figures[1, k])
        held[:] = weights[k]
    return cash
