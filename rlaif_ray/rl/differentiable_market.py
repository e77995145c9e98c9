"""The rules of `execution/simulator.py` once more in torch, so that a policy can be trained through what its trades cost.

This is the one allowed twin of the kernel, held to it by a test: the same bar, the same numbers, with a gradient. Prices,
volumes and events are data and carry none; cash, shares, price factors and targets do.

Left out, because they have no useful gradient: whole shares (refused), the liquidation of an account short of margin, the
bound on the cost of a sale, and the end of a path (equity must stay above 0); on all of them the kernel has the word. Kept
exactly, with a gradient almost everywhere: the cap on participation is a clamp, the pro-rata scaling of purchases a minimum,
and a name that cannot be filled is asked for nothing. The square-root law has an infinite slope at 0, but what is paid is
|q| sqrt(|q|), which has the slope 0 there: `_TINY` under the root keeps the product of the two finite and changes no digit.
"""

from __future__ import annotations

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
    held: Tensor  # (N,A) USD at the close that the data tell, < 0 is short; times `factor` is what it is worth
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
    """Trades as they were done, and their money in USD, (N,) each but for the growth."""

    sold: Tensor
    bought: Tensor
    sale_cost: Tensor
    purchase_cost: Tensor
    growth: Tensor | None  # (N,A) of the prices; None without permanent impact


@dataclass(frozen=True, eq=False)
class DifferentiableMarket:
    """A market, its costs and the rules of an account in torch.

    Parameters
    ----------
    names, planes : what a decision on each row of [0, T-2] meets, (F,T-1,A) as told by `_planes`; only what the costs and rules need.
    known : (T-1,A) bool, has traded by then.
    days : (T-1,) calendar days until the next row.
    """

    names: tuple[str, ...]
    planes: Tensor
    known: Tensor
    days: Tensor
    costs: CostModel
    account: AccountRules

    @classmethod
    def of(
        cls, market: Market, costs: CostModel, account: AccountRules = LONG_ONLY, device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> DifferentiableMarket:  # fmt: skip
        """Lay a market out for torch. `ConfigError` for whole shares, `DataError` where volumes are missing."""
        if account.whole_shares:
            raise ConfigError("whole shares have no gradient; train with whole_shares off and let the simulator round")
        need_volume(market, costs, account)
        planes = _planes(market, costs, account)
        stacked = torch.tensor(np.stack(list(planes.values())), device=device, dtype=dtype)
        known = torch.tensor(market.book[:-1, kernel.LAST] > 0, device=device)
        return cls(tuple(planes), stacked, known, torch.tensor(market.days[1:], device=device, dtype=dtype), costs, account)

    def start(self, weights: Tensor, cash_usd: float | Tensor, rows: Tensor) -> Account:
        """N accounts worth `cash_usd` (a number or (N,)) that hold `weights` (N,A) at the close of `rows` (N,) int64.

        A weight on a name that has never traded stays in cash, as in the kernel.
        """
        equity = torch.as_tensor(cash_usd, device=self.planes.device, dtype=self.planes.dtype).expand(len(rows))
        held = torch.where(self.known[rows], weights.to(equity.dtype) * equity[:, None], 0.0)
        return Account(equity - held.sum(1), held, torch.ones_like(held))

    def bar(self, state: Account, rows: Tensor, targets: Tensor) -> tuple[Account, BarResult]:
        """One decision of each of N paths: decided at the close of rows[n], filled at rows[n] + 1.

        Parameters
        ----------
        state : the accounts at the close of `rows`; a new one is returned, this one stays.
        rows : (N,) int64 in [0, T-2].
        targets : (N,A) fractions of equity within the rules of the account, as a projection makes them: not checked here.
        """
        self._check(state, rows, targets)
        moves, at = self.costs.permanent > 0, self._met(rows)
        value = state.held * state.factor if moves else state.held
        equity = state.cash + value.sum(1)
        cash, fee = self._financed(state.cash, value, rows)
        cash = cash + (state.held * at["income"]).sum(1)
        if "settled" in at:  # a part of the income where no path moves its prices
            cash = cash + (value * at["settled"]).sum(1)
        wanted = targets.to(value.dtype) * equity[:, None]
        trades = ((wanted / state.factor if moves else wanted) - state.held).mul_(at["dealt"])
        if "room" in at:
            trades = trades.clamp(-at["room"], at["room"])

        done = self._filled(trades, state.factor, at)
        cash, needed = cash + done.sold - done.sale_cost, done.bought + done.purchase_cost
        if bool((needed > cash).any()):  # purchases go as far as the cash reaches
            scale = (torch.minimum(needed, cash.clamp(min=0.0)) + _TINY) / (needed + _TINY)
            trades = torch.where(trades > 0, trades * scale[:, None], trades)
            done = self._filled(trades, state.factor, at)
        cash = cash - done.bought - done.purchase_cost

        held = (state.held + trades).mul_(at["close"])
        factor = state.factor if done.growth is None else state.factor * done.growth
        value = held * factor if moves else held
        after, cost = cash + value.sum(1), done.sale_cost + done.purchase_cost + fee
        turnover = (done.sold + done.bought) / equity
        return Account(cash, held, factor), BarResult(after / equity - 1.0, cost / equity, turnover, value / after[:, None])

    def _met(self, rows: Tensor) -> dict[str, Tensor]:
        """Each plane at `rows`, (N,A) by name: one gather for all of them."""
        planes, bars, assets = self.planes.shape
        each = torch.arange(0, planes * bars, bars, device=rows.device)[:, None] + rows
        met = self.planes.view(-1, assets).index_select(0, each.view(-1)).view(planes, len(rows), assets)
        return dict(zip(self.names, met.unbind(), strict=True))

    def _financed(self, cash: Tensor, value: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Cash (N,) after interest and the fee on borrowed shares, and that fee (N,)."""
        interest, fee = self.account.cash_interest, torch.zeros_like(cash)
        if interest:
            cash = cash + cash * interest * self.days[rows] / 365.0
        if self.account.long_short and self.costs.borrow:
            fee = -self.costs.borrow * self.days[rows] * value.clamp(max=0.0).sum(1)
        return cash - fee, fee

    def _filled(self, trades: Tensor, factor: Tensor, at: Mapping[str, Tensor]) -> _Fills:
        """What trades of (N,A) USD at the last close bring and cost at the fill; what moves the price is paid as it moves."""
        costs, growth = self.costs, None
        notional = trades * at["fill"]  # USD at the price that this path has not moved
        size = notional.abs()
        usd, signed = (size * factor, notional * factor) if costs.permanent else (size, notional)
        share: Tensor | float = costs.rate  # of the notional
        if costs.temporary:
            share = size * at["temporary"] + share
        if costs.impact:
            share = ((size + _TINY).sqrt() * at["impact"]).add_(share)
        cost = usd * share
        if costs.permanent:  # p ((exp(k q) - 1) / k - q) with k q the path, and p / k the unit at the price not moved
            path = trades * at["path"]
            grown = path.expm1()
            cost, growth = ((grown - path).mul_(at["unit"]) * factor).add_(cost), grown + 1.0
        bought, purchase_cost = signed.clamp(min=0.0).sum(1), (cost * trades.detach().sign().clamp_(min=0.0)).sum(1)
        return _Fills(bought - signed.sum(1), bought, cost.sum(1) - purchase_cost, purchase_cost, growth)

    def _check(self, state: Account, rows: Tensor, targets: Tensor) -> None:
        bars, assets = self.known.shape
        if state.held.shape != targets.shape or targets.shape != (len(rows), assets):
            seen = f"rows {tuple(rows.shape)} and targets {tuple(targets.shape)}"
            raise ExecutionError(f"{seen} do not fit accounts of {tuple(state.held.shape)} and a market of {assets} symbols")
        first, last = (int(x) for x in torch.aminmax(rows)) if len(rows) else (0, 0)
        if first < 0 or last >= bars:
            raise ExecutionError(f"decision rows run from {first} to {last}; expected 0 to {bars - 1}: a fill needs the next bar")


def _planes(market: Market, costs: CostModel, account: AccountRules) -> dict[str, np.ndarray]:
    """What the decision on row t meets on the bar t -> t+1, (T-1,A) each; 0 in what concerns trades where a name cannot be filled."""
    now, after = market.book[:-1], market.book[1:]
    last, split, alive = now[:, kernel.LAST], after[:, kernel.SPLIT], after[:, kernel.DELISTED] == 0
    can = (after[:, kernel.FILLABLE] > 0) & alive & (last > 0)
    if costs.needs_volume:
        can = can & (now[:, kernel.ADV] > 0)
    share = np.where(last > 0, last, 1.0) / split  # USD at the last close; 1: to divide by, nobody holds a name that never traded
    adv = np.where(can & (now[:, kernel.ADV] > 0), now[:, kernel.ADV] * split, 1.0)
    sigma, fill = np.where(can, now[:, kernel.SIGMA], 0.0), np.where(can, after[:, kernel.FILL], 0.0)
    settled = np.where(alive, 0.0, DELISTING_RECOVERY * (last > 0))
    planes = {
        "fill": fill / share, "close": np.where(alive, after[:, kernel.LAST] / share, 0.0),  # in units of the last close
        "dealt": can, "income": after[:, kernel.DIVIDEND] / share,
    }  # fmt: skip
    if costs.permanent > 0:
        k = costs.permanent * sigma / adv
        planes |= {"settled": settled} if settled.any() else {}
        planes |= {"path": k / share, "unit": np.divide(fill, k, out=np.zeros_like(k), where=k > 0)}
    else:
        planes["income"] = planes["income"] + settled
    if account.participation < np.inf:
        planes["room"] = account.participation * after[:, kernel.VOLUME] * share
    depth = np.where(can, adv * fill, 1.0)  # USD at the price that the path has not moved
    if costs.impact > 0:
        planes["impact"] = costs.impact * sigma / np.sqrt(depth)
    if costs.temporary > 0:
        planes["temporary"] = costs.temporary * sigma / depth
    return planes
