"""The rules of `execution/simulator.py` once more in torch, so that a policy can be trained through what its trades cost.

This is the one allowed twin of the kernel, held to it by a test: the same bar, the same numbers, with a gradient. Prices,
volumes and events are data and carry none; cash, shares, price factors and targets do.

Left out, because they have no useful gradient: whole shares (refused), the liquidation of an account short of margin, and the
end of a path (equity must stay above 0; the kernel has the word on both). Kept exactly, with a gradient almost everywhere: the
cap on participation is a clamp, the pro-rata scaling of purchases a minimum, and a name that cannot be filled is asked for
nothing. The square-root law has an infinite slope at 0, but what is paid is |q| sqrt(|q|), which has the slope 0 there: `_TINY`
under the root keeps the product of the two finite and changes no digit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlaif_ray.errors import ConfigError, ExecutionError
from rlaif_ray.execution import kernel
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import DELISTING_RECOVERY
from rlaif_ray.execution.simulator import LONG_ONLY, Market, need_volume

_TINY = 1e-30  # USD; float32 can say it, and no sum of money that matters is within 14 digits of it


class Account(NamedTuple):
    """N paths at the close of their rows."""

    cash: Tensor  # (N,) USD
    shares: Tensor  # (N,A); < 0 is short
    factor: Tensor  # (N,A) on prices; not read, and 1, without permanent impact

    def detached(self) -> Account:
        """The same holdings, with no memory of how they came to be: where a truncated horizon is cut."""
        return Account(*(x.detach() for x in self))


class BarResult(NamedTuple):
    """What the bar t -> t+1 brought each path; the kernel's `StepResult`."""

    net: Tensor  # (N,) equity(close t+1) / equity(close t) - 1
    cost: Tensor  # (N,) costs of trading and of borrowing / equity at close t
    turnover: Tensor  # (N,) traded notional / equity at close t
    weights: Tensor  # (N,A) held at close t+1


class _Fills(NamedTuple):
    """Trades as they were done, and their money in USD."""

    cash: Tensor  # (N,) what is left
    trades: Tensor  # (N,A) shares
    factor: Tensor  # (N,A)
    cost: Tensor  # (N,)
    turnover: Tensor  # (N,)


@dataclass(frozen=True, eq=False)
class DifferentiableMarket:
    """A market, its costs and the rules of an account in torch.

    Parameters
    ----------
    planes : what a decision on each row of [0, T-2] meets, (T-1,A) by name; only what the costs and rules need.
    days : (T-1,) calendar days until the next row.
    softness : 0 is exact. Above it, |x| of a trade worth x of equity becomes sqrt(x^2 + softness^2) - softness in costs and
        turnover, so that the slope of a proportional cost does not jump where a policy does not trade: it costs less than the
        kernel's, by softness at most for each name. Cash flows stay exact.
    """

    planes: Mapping[str, Tensor]
    days: Tensor
    costs: CostModel
    account: AccountRules
    softness: float = 0.0

    @classmethod
    def of(
        cls, market: Market, costs: CostModel, account: AccountRules = LONG_ONLY, device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64, softness: float = 0.0,
    ) -> DifferentiableMarket:  # fmt: skip
        """Lay a market out for torch. `ConfigError` for whole shares or a bad softness, `DataError` where volumes are missing."""
        if account.whole_shares:
            raise ConfigError("whole shares have no gradient; train with whole_shares off and let the simulator round")
        if not (math.isfinite(softness) and softness >= 0):
            raise ConfigError(f"softness is {softness}; expected a fraction of equity, 0 or more")
        need_volume(market, costs, account)
        planes = {name: torch.tensor(plane, device=device, dtype=dtype) for name, plane in _planes(market, costs, account).items()}
        return cls(planes, torch.tensor(market.days[1:], device=device, dtype=dtype), costs, account, softness)

    def start(self, weights: Tensor, cash_usd: float | Tensor, rows: Tensor) -> Account:
        """N accounts worth `cash_usd` (a number or (N,)) that hold `weights` (N,A) at the close of `rows` (N,) int64.

        A weight on a name that has never traded stays in cash, as in the kernel.
        """
        last, known = self.planes["last"][rows], self.planes["known"][rows] > 0
        weights = weights.to(last.dtype)
        equity = torch.as_tensor(cash_usd, device=last.device, dtype=last.dtype).expand(len(rows))
        shares = torch.where(known, weights * equity[:, None], 0.0) / last
        return Account(equity - (shares * last).sum(1), shares, torch.ones_like(shares))

    def bar(self, state: Account, rows: Tensor, targets: Tensor) -> tuple[Account, BarResult]:
        """One decision of each of N paths: decided at the close of rows[n], filled at rows[n] + 1.

        Parameters
        ----------
        state : the accounts at the close of `rows`; a new one is returned, this one stays.
        rows : (N,) int64 in [0, T-2].
        targets : (N,A) fractions of equity within the rules of the account, as a projection makes them: not checked here.
        """
        self._check(state, rows, targets)
        moves = self.costs.permanent > 0

        def at(plane: str) -> Tensor:
            return self.planes[plane].index_select(0, rows)

        price = at("last") * state.factor if moves else at("last")
        value = state.shares * price
        equity = state.cash + value.sum(1)
        cash, fee = self._financed(state.cash, value, rows)
        cash = cash + (state.shares * at("income")).sum(1)
        trades = (targets.to(price.dtype) * equity[:, None] / price - state.shares) * at("dealt")
        if "settled" in self.planes:  # a part of the income where no path moves its prices
            cash = cash + (state.shares * at("settled") * state.factor).sum(1)
        if "room" in self.planes:
            room = at("room")
            trades = trades.clamp(-room, room)

        done = self._filled(cash, trades, equity, state.factor, rows)
        shares = torch.addcmul(done.trades, state.shares, at("kept"))
        value = shares * at("next")
        value = value * done.factor if moves else value
        after = done.cash + value.sum(1)
        result = BarResult(after / equity - 1.0, (done.cost + fee) / equity, done.turnover / equity, value / after[:, None])
        return Account(done.cash, shares, done.factor), result

    def _financed(self, cash: Tensor, value: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Cash (N,) after interest and the fee on borrowed shares, and that fee (N,)."""
        interest, fee = self.account.cash_interest, torch.zeros_like(cash)
        if interest:
            cash = cash + cash * interest * self.days[rows] / 365.0
        if self.account.long_short and self.costs.borrow:
            fee = -self.costs.borrow * self.days[rows] * value.clamp(max=0.0).sum(1)
        return cash - fee, fee

    def _filled(self, cash: Tensor, trades: Tensor, equity: Tensor, factor: Tensor, rows: Tensor) -> _Fills:
        """Sales, then purchases as far as cash (N,) reaches.

        A purchase scaled by s costs s times as much at a rate, s^1.5 times by the square-root law and s^2 times by the linear
        one: sums over names are enough to know it. Only permanent impact must be taken anew at the scaled size.
        """
        moves = self.costs.permanent > 0
        notional = trades * self.planes["fill"].index_select(0, rows)
        buys = notional.detach().sign().clamp_(min=0.0)
        size = self._size(notional, equity)  # USD at the price that this path has not moved
        usd = size * factor if moves else size

        def split(cost: Tensor) -> tuple[Tensor, Tensor]:
            """Sums (N,) over the sales and over the purchases."""
            bought = (cost * buys).sum(1)
            return cost.sum(1) - bought, bought

        charged_sold, charged_bought = sold, bought = split(usd)
        if self.softness:
            sold, bought = split((notional * factor).abs())
        sale_cost, linear = self.costs.rate * charged_sold, self.costs.rate * charged_bought
        root = square = moved = torch.zeros_like(cash)
        if self.costs.impact:
            sales, root = split(usd * (size + _TINY).sqrt() * self.planes["impact"].index_select(0, rows))
            sale_cost = sale_cost + sales
        if self.costs.temporary:
            sales, square = split(usd * size * self.planes["temporary"].index_select(0, rows))
            sale_cost = sale_cost + sales
        if moves:
            pull, unit = (self.planes[name].index_select(0, rows) for name in ("permanent", "fill_per_k"))
            unit = unit * factor
            sales, moved = split(_moved(trades * pull, unit)[0])
            sale_cost = sale_cost + sales

        cash = cash + sold - sale_cost
        needed = bought + linear + root + square + moved
        scale = (torch.minimum(needed, cash.clamp(min=0.0)) + _TINY) / (needed + _TINY)
        trades = torch.addcmul(trades, trades * buys, (scale - 1.0)[:, None])
        if moves:
            again, grown = _moved(trades * pull, unit)
            moved, factor = (again * buys).sum(1), factor * grown
        cost = scale * (linear + scale.sqrt() * root + scale * square) + moved
        return _Fills(cash - scale * bought - cost, trades, factor, sale_cost + cost, charged_sold + scale * charged_bought)

    def _size(self, notional: Tensor, equity: Tensor) -> Tensor:
        if self.softness == 0.0:
            return notional.abs()
        width = (self.softness * equity)[:, None]
        return (notional * notional + width * width + _TINY).sqrt() - width

    def _check(self, state: Account, rows: Tensor, targets: Tensor) -> None:
        bars, assets = self.planes["last"].shape
        if state.shares.shape != targets.shape or targets.shape != (len(rows), assets):
            seen = f"rows {tuple(rows.shape)} and targets {tuple(targets.shape)}"
            raise ExecutionError(f"{seen} do not fit accounts of {tuple(state.shares.shape)} and a market of {assets} symbols")
        first, last = (int(x) for x in torch.aminmax(rows)) if len(rows) else (0, 0)
        if first < 0 or last >= bars:
            raise ExecutionError(f"decision rows run from {first} to {last}; expected 0 to {bars - 1}: a fill needs the next bar")


def _moved(path: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """What is paid as the price moves along `path` = k q: p ((exp(k q) - 1) / k - q) with `unit` = p / k; and exp(k q)."""
    growth = path.expm1()
    return (growth - path) * unit, growth + 1.0


def _planes(market: Market, costs: CostModel, account: AccountRules) -> dict[str, np.ndarray]:
    """What the decision on row t meets on the bar t -> t+1, (T-1,A) each; 0 in what concerns trades where a name cannot be filled."""
    now, after = market.book[:-1], market.book[1:]
    last, split, alive = now[:, kernel.LAST], after[:, kernel.SPLIT], after[:, kernel.DELISTED] == 0
    can = (after[:, kernel.FILLABLE] > 0) & alive & (last > 0)
    if costs.needs_volume:
        can = can & (now[:, kernel.ADV] > 0)
    settled = np.where(alive, 0.0, DELISTING_RECOVERY * last)
    adv = np.where(can & (now[:, kernel.ADV] > 0), now[:, kernel.ADV] * split, 1.0)
    sigma = np.where(can, now[:, kernel.SIGMA], 0.0)
    fill = np.where(can, after[:, kernel.FILL], 0.0)
    planes = {
        "known": last > 0, "last": np.where(last > 0, last, 1.0),  # 1: to divide by; nobody holds a name that never traded
        "next": after[:, kernel.LAST], "fill": fill,
        "kept": np.where(alive, split, 0.0), "dealt": np.where(can, split, 0.0),  # shares after the bar's events, of one held before
        "income": split * after[:, kernel.DIVIDEND],
    }  # fmt: skip
    if costs.permanent > 0:
        k = costs.permanent * sigma / adv
        planes |= {"settled": settled} if settled.any() else {}
        planes |= {"permanent": k, "fill_per_k": np.divide(fill, k, out=np.zeros_like(k), where=k > 0)}
    else:
        planes["income"] = planes["income"] + settled
    if account.participation < np.inf:
        planes["room"] = account.participation * after[:, kernel.VOLUME]
    depth = np.where(can, adv * fill, 1.0)  # USD at the price that the path has not moved
    if costs.impact > 0:
        planes["impact"] = costs.impact * sigma / np.sqrt(depth)
    if costs.temporary > 0:
        planes["temporary"] = costs.temporary * sigma / depth
    return planes
