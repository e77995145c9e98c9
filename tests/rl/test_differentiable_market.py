"""The twin is the kernel: the same numbers over storms of events, and gradients that finite differences of the kernel agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, step
from rlaif_ray.rl.differentiable_market import Account, DifferentiableMarket
from tests.markets import daily, random_weights, stormy

CASH_USD = 1e6
ALL_COSTS = CostModel.of_bps(1.0, 3.0, 5.0, impact=0.5, temporary=0.3, permanent=0.2, borrow_bps=2.0)
EACH_COST = (
    ALL_COSTS, replace(ALL_COSTS, permanent=0.0), CostModel(), CostModel.of_bps(1.0, 3.0, 5.0), CostModel(impact=0.8),
    CostModel(temporary=0.5), CostModel(permanent=0.5), CostModel(0.001, borrow=0.0002),
)  # fmt: skip
FREE = AccountRules(maintenance=0.0)  # never liquidated, which the twin leaves out
BOUND = replace(FREE, participation=0.2, cash_interest=0.04)


def tensors(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(x) for x in arrays)


def calm(seed: int, long_short: bool, paths: int = 3, assets: int = 4, bars: int = 12) -> tuple[Market, np.ndarray, np.ndarray]:
    """A market without halts, first rows (N,), and target weights (bars,N,A) that are far from 0 and, without shorts, add up to
    so much that cash does not always reach for it."""
    rng = np.random.default_rng(seed)
    closes = rng.uniform(20, 80, assets) * np.cumprod(1 + 0.02 * rng.standard_normal((40, assets)), axis=0)
    market = Market.of(daily(closes, closes * (1 + 0.01 * rng.standard_normal(closes.shape)), 2e4, 3), "next_open")
    market.book.setflags(write=False)  # as it comes out of Ray's object store
    market.days.setflags(write=False)
    sides = rng.choice([-1.0, 1.0], (bars, paths, assets)) if long_short else 1.0
    return market, rng.integers(0, 20, paths), 0.9995 * rng.dirichlet(np.full(assets, 5.0), (bars, paths)) * sides


@pytest.mark.parametrize("long_short", [False, True])
@pytest.mark.parametrize("account", [FREE, BOUND])
@pytest.mark.parametrize("costs", EACH_COST)
def test_the_twin_is_the_kernel_over_storms_of_events(costs: CostModel, account: AccountRules, long_short: bool) -> None:
    rng = np.random.default_rng(0)
    account = replace(account, long_short=long_short)
    bars, assets, paths = 30, 6, 64
    compared = 0
    for fill in ("next_open", "next_close"):
        market = Market.of(stormy(rng, 2 * bars, assets, wildness=0.3), fill)
        rows = rng.integers(0, bars, paths)
        twin, accounts = DifferentiableMarket.of(market, costs, account), Accounts.of_cash(paths, assets, CASH_USD)
        state = twin.start(torch.zeros(paths, assets), CASH_USD, torch.as_tensor(rows))
        alive = np.ones(paths, bool)
        for k in range(bars - 1):
            targets = random_weights(rng, paths, assets, long_short)
            kernel = step(market, accounts, rows + k, targets, costs, account)
            state, bar = twin.bar(state, *tensors(rows + k, targets))
            alive &= ~kernel.ended
            for name in ("net", "cost", "turnover", "weights"):
                seen, expected = getattr(bar, name).numpy()[alive], getattr(kernel, name)[alive]
                np.testing.assert_allclose(seen, expected, rtol=1e-10, atol=1e-10, err_msg=name)
            np.testing.assert_allclose(state.cash.numpy()[alive], accounts.cash[alive], rtol=1e-10, atol=1e-10 * CASH_USD)
            np.testing.assert_allclose(state.factor.numpy()[alive], accounts.factor[alive], rtol=1e-10)
            compared += int(alive.sum())
            accounts.cash[~alive], accounts.shares[~alive] = CASH_USD, 0.0  # the kernel takes no path that has ended
    assert compared > 0.9 * 2 * (bars - 1) * paths


def test_an_account_starts_with_the_weights_it_is_given_but_for_names_that_have_no_price_yet() -> None:
    market = Market.of(daily([[10.0, np.nan], [11.0, 20.0], [12.0, 21.0]]), "next_open")
    twin = DifferentiableMarket.of(market, CostModel(), FREE)
    state = twin.start(torch.tensor([[0.25, 0.5], [0.25, 0.5]]), torch.tensor([100.0, 200.0]), torch.tensor([0, 1]))
    np.testing.assert_allclose(state.held.numpy(), [[25.0, 0.0], [50.0, 100.0]])
    np.testing.assert_allclose(state.cash.numpy(), [75.0, 50.0])


@pytest.mark.parametrize("long_short", [False, True])
@pytest.mark.parametrize("costs", EACH_COST)
def test_gradients_of_one_bar_are_those_of_finite_differences(costs: CostModel, long_short: bool) -> None:
    market, rows, targets = calm(1, long_short)
    twin = DifferentiableMarket.of(market, costs, replace(BOUND, long_short=long_short, participation=2.0))
    start = twin.start(torch.as_tensor(targets[0]), 1e4, torch.as_tensor(rows))

    def bar(cash: Tensor, held: Tensor, factor: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        state, result = twin.bar(Account(cash, held, factor), torch.as_tensor(rows), weights)
        return (*result, state.cash / 1e4, state.held)

    inputs = [x.clone().requires_grad_() for x in (*start, torch.as_tensor(targets[1]))]
    assert torch.autograd.gradcheck(bar, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cash_usd", [1e4, 3e6])  # 3e6: most trades are cut to their share of the bar's volume
@pytest.mark.parametrize("long_short", [False, True])
def test_the_gradient_over_many_bars_is_that_of_the_kernel(long_short: bool, cash_usd: float) -> None:
    account = replace(BOUND, long_short=long_short)
    market, rows, targets = calm(2, long_short)
    twin = DifferentiableMarket.of(market, ALL_COSTS, account)
    weights = torch.as_tensor(targets).requires_grad_()
    state, wealth = twin.start(torch.zeros(weights.shape[1:]), cash_usd, torch.as_tensor(rows)), torch.zeros(len(rows))
    for k, target in enumerate(weights.unbind()):
        state, bar = twin.bar(state, torch.as_tensor(rows + k), target)
        wealth = wealth + bar.net.log1p()
    wealth.sum().backward()
    assert weights.grad is not None

    def kernel(moved: np.ndarray) -> float:
        accounts = Accounts.of_cash(len(rows), moved.shape[2], cash_usd)
        nets = [step(market, accounts, rows + k, target, ALL_COSTS, account).net for k, target in enumerate(moved)]
        return float(np.log1p(nets).sum())

    assert kernel(targets) == pytest.approx(float(wealth.detach().sum()), abs=1e-10)
    rng = np.random.default_rng(3)
    for _ in range(5):
        way = rng.standard_normal(targets.shape)
        slope = (kernel(targets + 1e-6 * way) - kernel(targets - 1e-6 * way)) / 2e-6
        assert float((weights.grad.numpy() * way).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_a_trade_of_nothing_has_a_finite_gradient() -> None:
    """The square-root law is infinitely steep at 0: no trade at all, in cash, must not turn a policy into NaN."""
    market, rows, _ = calm(4, long_short=True)
    for costs in (*EACH_COST, ALL_COSTS):
        twin = DifferentiableMarket.of(market, costs, replace(BOUND, long_short=True))
        for cash_usd in (CASH_USD, 0.0):  # without a cent, what purchases are scaled by is 0 as well
            held = twin.start(torch.zeros(3, 4), CASH_USD, torch.as_tensor(rows))
            held = held._replace(cash=torch.full_like(held.cash, cash_usd), held=torch.full_like(held.held, 1e4 * (cash_usd == 0)))
            weights = torch.zeros(3, 4, dtype=torch.float64) if cash_usd else torch.full((3, 4), 0.25, dtype=torch.float64)
            state = Account(*(x.clone().requires_grad_() for x in held))
            after, bar = twin.bar(state, torch.as_tensor(rows), weights.requires_grad_())
            (bar.net.sum() + bar.turnover.sum() + after.cash.sum()).backward()
            for x in (weights, state.cash, state.held):
                assert x.grad is not None and torch.isfinite(x.grad).all()


def test_a_name_that_cannot_be_filled_takes_no_gradient_and_keeps_what_is_held() -> None:
    closes = np.full((4, 3), 50.0)
    cube = daily(closes, tradable=[[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]], delisted=[[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    twin = DifferentiableMarket.of(Market.of(cube, "next_open"), CostModel.of_bps(1, 2, 3, impact=0.5), BOUND)
    state = twin.start(torch.tensor([[0.2, 0.2, 0.2]]), 1e3, torch.tensor([0]))
    weights, held = torch.tensor([[0.3, 0.3, 0.3]], dtype=torch.float64).requires_grad_(), state.held.clone().requires_grad_()
    after, _ = twin.bar(state._replace(held=held), torch.tensor([0]), weights)
    (by_weight,) = torch.autograd.grad(after.held.sum(), weights, retain_graph=True)
    assert by_weight[0, 0] == 0 and by_weight[0, 2] == 0 and by_weight[0, 1] > 0
    assert after.held[0, 0] == state.held[0, 0] and after.held[0, 2] == 0
    (by_held,) = torch.autograd.grad(after.held[0, 0], held)
    assert by_held.tolist() == [[1.0, 0.0, 0.0]]


def test_single_precision_stays_near_double() -> None:
    market, rows, targets = calm(6, long_short=True)
    account = replace(BOUND, long_short=True)
    nets = []
    for dtype in (torch.float32, torch.float64):
        twin = DifferentiableMarket.of(market, ALL_COSTS, account, dtype=dtype)
        weights = torch.as_tensor(targets[0]).to(dtype).requires_grad_()
        _, bar = twin.bar(twin.start(torch.zeros(3, 4), 1e5, torch.as_tensor(rows)), torch.as_tensor(rows), weights)
        bar.net.sum().backward()
        assert weights.grad is not None and bar.net.dtype == dtype
        nets.append(torch.cat((bar.net.detach(), weights.grad.flatten())).double().numpy())
    np.testing.assert_allclose(nets[0], nets[1], atol=1e-5)


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda market: DifferentiableMarket.of(market, CostModel(), AccountRules(whole_shares=True)), ConfigError, "whole shares"),
        (lambda market: _bar(market, [8, 9], 4), ExecutionError, "rows run from 8 to 9; expected 0 to 8"),
        (lambda market: _bar(market, [-1, 3], 4), ExecutionError, "rows run from -1 to 3"),
        (lambda market: _bar(market, [0, 1], 3), ExecutionError, r"targets \(2, 3\) do not fit"),
    ],
)
def test_what_has_no_gradient_or_no_bar_is_refused(ask: Callable[[Market], object], error: type[Exception], words: str) -> None:
    market = Market.of(daily(np.full((10, 4), 5.0)), "next_open")
    with pytest.raises(error, match=words):
        ask(market)


def test_a_market_without_volumes_cannot_charge_impact() -> None:
    market = Market.of(daily(np.full((10, 2), 5.0), volumes=np.nan), "next_open")
    with pytest.raises(DataError, match="need volumes"):
        DifferentiableMarket.of(market, CostModel(impact=0.1))


def _bar(market: Market, rows: list[int], assets: int) -> object:
    twin = DifferentiableMarket.of(market, CostModel())
    state = twin.start(torch.zeros(2, 4), CASH_USD, torch.tensor([0, 0]))
    return twin.bar(state, torch.tensor(rows), torch.zeros(2, assets))
