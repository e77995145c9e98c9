"""The kernel by hand, against plain Python, and by its laws."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import CLOSE, OPEN, Cube
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Fill, Market, StepResult, step, sweep, walk
from tests.laws import random_cube
from tests.markets import daily, reference_step

FREE = CostModel()
ONE_PERCENT = CostModel(commission=0.002, half_spread=0.003, slippage=0.005)


def one_bar(
    cube: Cube, cash: float, shares: Sequence[float], target: Sequence[float], costs: CostModel = FREE, row: int = 0,
    fill: Fill = "next_open",
) -> tuple[Accounts, StepResult]:  # fmt: skip
    accounts = Accounts(np.array([cash], np.float64), np.array([shares], np.float64))
    return accounts, step(Market.of(cube, fill), accounts, np.array([row]), np.array([target], np.float64), costs)


def test_one_buy_with_costs():
    # 1,000 USD at close 10: half of it is 50 shares; at the open of 10 they cost 500 and 1% of it; the close is 11
    accounts, result = one_bar(daily([10, 11], opens=[10, 10]), 1000, [0], [0.5], ONE_PERCENT)
    assert accounts.cash[0] == pytest.approx(1000 - 500 - 5)
    assert accounts.shares[0, 0] == 50
    assert result.net[0] == pytest.approx(0.045)
    assert result.cost[0] == pytest.approx(0.005)
    assert result.gross[0] == pytest.approx(0.050)
    assert result.turnover[0] == pytest.approx(0.5)
    assert result.weights[0, 0] == pytest.approx(550 / 1045)


def test_shares_are_sized_at_the_decision_close_and_not_at_the_fill():
    accounts, _ = one_bar(daily([10, 12], opens=[10, 20]), 1000, [0], [0.2])
    assert accounts.shares[0, 0] == 20  # 200 USD at 10, though each is paid with 20
    assert accounts.cash[0] == 600


def test_fill_at_the_next_close():
    accounts, result = one_bar(daily([10, 12], opens=[np.nan, np.nan]), 1000, [0], [0.5], fill="next_close")
    assert accounts.cash[0] == 1000 - 50 * 12
    assert result.net[0] == 0.0


def test_a_split_doubles_shares_and_targets_and_trades_nothing():
    cube = daily([100, 51], opens=[100, 50], splits=[1, 2])
    accounts, result = one_bar(cube, 0, [10], [1.0], ONE_PERCENT)
    assert accounts.shares[0, 0] == 20
    assert result.turnover[0] == 0
    assert result.net[0] == pytest.approx(0.02)


def test_a_dividend_is_paid_in_cash_on_shares_held_over_the_close():
    accounts, result = one_bar(daily([100, 98], dividends=[0, 2]), 0, [10], [1.0], ONE_PERCENT)
    assert accounts.cash[0] == 20
    assert result.net[0] == pytest.approx(0.0)
    # bought on the ex-day: nothing
    accounts, _ = one_bar(daily([100, 98], dividends=[0, 2]), 1000, [0], [0.98])
    assert accounts.cash[0] == pytest.approx(1000 - 9.8 * 98)


def test_a_dividend_on_a_split_day_is_paid_on_the_new_shares():
    accounts, result = one_bar(daily([100, 49], splits=[1, 2], dividends=[0, 1]), 0, [10], [1.0])
    assert accounts.cash[0] == 20
    assert result.net[0] == pytest.approx(0.0)


def test_a_halt_fills_nothing_and_the_weight_drifts():
    cube = daily([[10, 10], [np.nan, 20], [8, 20]], tradable=[[1, 1], [0, 1], [1, 1]])
    accounts, result = one_bar(cube, 0, [50, 50], [0.0, 0.5])
    assert accounts.shares[0].tolist() == [50, 50]
    assert result.weights[0] == pytest.approx([500 / 1500, 1000 / 1500])  # valued at its last close of 10
    accounts, result = one_bar(cube, 0, [50, 50], [0.0, 0.5], row=1)
    assert accounts.shares[0].tolist() == [0, 37.5]  # trades again at 8
    assert result.net[0] == pytest.approx((50 * 8 + 50 * 20) / 1500 - 1)


def test_a_split_during_a_halt_changes_no_value():
    cube = daily([100, np.nan, 52], splits=[1, 2, 1])
    _, result = one_bar(cube, 0, [10], [1.0])
    assert result.net[0] == 0.0
    _, result = one_bar(cube, 0, [20], [1.0], row=1)
    assert result.net[0] == pytest.approx(0.04)


def test_a_delisted_name_pays_seven_tenths_without_costs():
    cube = daily([[100, 10], [np.nan, 10]], delisted=[[0, 0], [1, 0]])
    accounts, result = one_bar(cube, 0, [5, 50], [0.5, 0.5], ONE_PERCENT)
    assert accounts.shares[0].tolist() == [0, 50]
    assert accounts.cash[0] == pytest.approx(350)
    assert result.net[0] == pytest.approx(-0.15)
    assert result.cost[0] == 0


def test_purchases_are_scaled_so_that_cash_pays_for_them():
    # opens 10% above the closes: 1,000 USD cannot buy 50 + 50 shares at 11 and 1%
    accounts, result = one_bar(daily([[10, 10], [11, 11]]), 1000, [0, 0], [0.5, 0.5], ONE_PERCENT)
    bought = 1000 / (11 * 1.01) / 2
    assert accounts.cash[0] == 0
    assert accounts.shares[0] == pytest.approx([bought, bought])
    assert result.turnover[0] == pytest.approx(1 / 1.01)


def test_sales_pay_for_purchases_on_the_same_bar():
    accounts, result = one_bar(daily([[10, 20], [10, 20]]), 0, [100, 0], [0.0, 1.0], ONE_PERCENT)
    assert accounts.cash[0] == 0
    assert accounts.shares[0] == pytest.approx([0, 990 / (20 * 1.01)])
    assert result.net[0] == pytest.approx(-result.cost[0])


def test_weight_on_a_name_that_never_traded_stays_in_cash():
    accounts, _ = one_bar(daily([[10, np.nan], [10, 5]]), 1000, [0, 0], [0.5, 0.5])
    assert accounts.cash[0] == 500
    assert accounts.shares[0].tolist() == [50, 0]


@pytest.mark.parametrize("target", [[np.nan, 0.5], [-0.1, 0.5], [0.6, 0.5], [np.inf, 0.0]])
def test_bad_targets_are_refused_and_nothing_moves(target):
    accounts = Accounts.of_cash(2, 2, 1000.0)
    market = Market.of(daily(np.full((3, 2), 10.0)), "next_open")
    with pytest.raises(ExecutionError, match="target weights of entry 1 at row 0"):
        step(market, accounts, np.array([0, 0]), np.array([[0.5, 0.5], target]), FREE)
    assert accounts.cash.tolist() == [1000, 1000]
    assert not accounts.shares.any()


@pytest.mark.parametrize("row", [-1, 2])
def test_rows_need_a_next_bar(row):
    with pytest.raises(ExecutionError, match="outside 0 to 1"):
        one_bar(daily([10, 10, 10]), 1000, [0], [0.5], row=row)


def test_accounts_without_money_and_wrong_shapes_are_refused():
    for cash, shares in ((0, [0]), (-1, [10]), (10, [-0.1]), (np.nan, [0])):
        with pytest.raises(ExecutionError, match="positive equity"):
            one_bar(daily([10, 10]), cash, shares, [0.5])
    with pytest.raises(ExecutionError, match="float64"):
        Accounts(np.array([1]), np.array([[1]]))
    with pytest.raises(ExecutionError, match="do not fit"):
        one_bar(daily([10, 10]), 10, [0, 0], [0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"closes": [10, 0]}, "close price that is not positive"),
        ({"closes": [10, np.inf]}, "close price that is not positive"),
        ({"opens": [10, -1]}, "open price that is not positive"),
        ({"opens": [10, np.nan]}, "without an open; use execution.fill=next_close"),
        ({"closes": [10, np.nan], "tradable": [1, 1]}, "tradable bar without a close"),
        ({"splits": [1, 0]}, "split ratio"),
        ({"dividends": [0, np.nan]}, "dividend"),
    ],
)
def test_a_market_refuses_impossible_prices(change, says):
    with pytest.raises(DataError, match=f"A at 2020-01-02.*{says}"):
        Market.of(daily(**{"closes": [10, 10], "opens": [10, 10]} | change), "next_open")


def test_costs():
    assert CostModel.of_bps(0.5, 1.0, 2.0).rate == pytest.approx(0.00035)
    for bad in (-1e-4, np.nan, np.inf, 1.0):
        with pytest.raises(ConfigError):
            CostModel(commission=bad)


def lively(seed: int, rows: int = 120, assets: int = 6) -> Cube:
    """A random market with all events, a name that lists late, and halts without any price."""
    rng = np.random.default_rng(seed)
    cube = random_cube(rng, rows, assets, 0)
    prices, tradable = cube.prices.copy(), cube.tradable.copy()
    prices[: rows // 4, 0], tradable[: rows // 4, 0] = np.nan, False
    silent = rng.random((rows, assets)) < 0.03
    prices[silent], tradable[silent] = np.nan, False
    return replace(cube, prices=prices, tradable=tradable)


def random_targets(rng: np.random.Generator, n: int, assets: int) -> np.ndarray:
    """Fully invested, partly invested and concentrated ones."""
    return rng.dirichlet(np.full(assets, 0.3), n) * rng.choice([1.0, 1.0, 0.6, 0.0], (n, 1))


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_the_kernel_equals_plain_python(fill):
    rng = np.random.default_rng(7)
    for seed in range(4):
        cube, paths = lively(seed), 5
        market, accounts = Market.of(cube, fill), Accounts.of_cash(paths, 6, 1e6)
        plain: list[tuple[float, list[float]]] = [(1e6, [0.0] * 6) for _ in range(paths)]
        for t in range(len(cube.times) - 1):
            targets = random_targets(rng, paths, 6)
            result = step(market, accounts, np.full(paths, t), targets, ONE_PERCENT)
            for n, (cash, shares) in enumerate(plain):
                expected = reference_step(cube, fill, t, cash, shares, targets[n].tolist(), ONE_PERCENT.rate)
                plain[n] = (expected["cash"], expected["shares"])
                assert accounts.cash[n] == pytest.approx(expected["cash"], abs=1e-6)
                assert accounts.equity(market, np.full(paths, t + 1))[n] == pytest.approx(expected["equity"], abs=1e-6)
                assert accounts.shares[n] == pytest.approx(expected["shares"], rel=1e-9, abs=1e-12)
                for name in ("net", "cost", "turnover"):
                    assert getattr(result, name)[n] == pytest.approx(expected[name], abs=1e-12)
                assert result.weights[n] == pytest.approx(expected["weights"], abs=1e-12)


def test_cash_is_conserved():
    """Equity changes by price moves, dividends and delistings less costs, over 200,000 random steps."""
    rng = np.random.default_rng(1)
    cube, paths, largest = lively(11, rows=1001, assets=8), 200, 0.0
    market, accounts = Market.of(cube, "next_open"), Accounts.of_cash(200, 8, 1e6)
    for t in range(1000):
        before, equity = accounts.shares.copy(), accounts.equity(market, np.full(paths, t))
        result = step(market, accounts, np.full(paths, t), random_targets(rng, paths, 8), ONE_PERCENT)
        split, dividend, gone = cube.splits[t + 1], cube.dividends[t + 1], cube.delisted[t + 1]
        old, new = np.nan_to_num(market.last[t]) / split, np.nan_to_num(market.last[t + 1])
        at_fill = np.where(market.fillable[t + 1], cube.prices[t + 1, :, OPEN], new)
        moved = before * split * (at_fill - old) + accounts.shares * (new - at_fill)
        earned = np.where(gone, -0.3 * before * split * old, moved) + before * split * dividend
        after = accounts.equity(market, np.full(paths, t + 1))
        largest = max(largest, np.abs(after - equity - earned.sum(axis=1) + result.cost * equity).max())
        assert np.allclose(after, equity * (1 + result.gross - result.cost), rtol=1e-13, atol=0)
        assert (accounts.cash >= 0).all()
        assert (accounts.shares >= 0).all()
        assert (result.cost >= 0).all()
        assert (result.weights >= 0).all()
        assert (result.weights.sum(axis=1) <= 1 + 1e-12).all()
        assert np.allclose(accounts.weights(market, np.full(paths, t + 1)), result.weights, rtol=0, atol=1e-12)
    assert largest < 1e-6


def test_many_paths_equal_one_and_a_walk_equals_steps():
    rng, cube = np.random.default_rng(3), lively(5)
    market, targets = Market.of(cube, "next_open"), random_targets(rng, 100, 6)
    alone, among = Accounts.of_cash(1, 6, 1e6), Accounts.of_cash(4, 6, 1e6)
    walked = Accounts.of_cash(1, 6, 1e6)
    whole = walk(market, walked, slice(10, 110), targets, ONE_PERCENT)
    for k in range(100):
        single = step(market, alone, np.array([10 + k]), targets[k : k + 1], ONE_PERCENT)
        others = np.concatenate([random_targets(rng, 3, 6), targets[k : k + 1]])
        many = step(market, among, np.array([k, 2, 5, 10 + k]), others, ONE_PERCENT)
        for name in ("gross", "cost", "turnover", "weights"):
            assert np.array_equal(getattr(single, name)[0], getattr(many, name)[3])
            assert np.array_equal(getattr(single, name)[0], getattr(whole, name)[k])
    assert np.array_equal(alone.shares, walked.shares)
    assert alone.cash == walked.cash == among.cash[3]
    with pytest.raises(ExecutionError, match="one path"):
        walk(market, among, slice(0, 1), targets[:1], FREE)


def test_a_sweep_equals_walks_one_by_one():
    rng = np.random.default_rng(11)
    cube = random_cube(rng, 20, 3)
    market, rows, targets = Market.of(cube, "next_open"), slice(2, 18), rng.dirichlet(np.ones(4), (5, 16))[:, :, :3]
    swept = sweep(market, rows, iter(targets), ONE_PERCENT)
    alone = [walk(market, Accounts.of_cash(1, 3, 1.0), rows, weights, ONE_PERCENT).net for weights in targets]
    assert np.array_equal(swept, alone)
    with pytest.raises(ExecutionError, match="entry 3"):
        sweep(market, rows, [np.where(np.arange(16)[:, None] == 3, 2.0, targets[0])], FREE)


def test_a_market_that_comes_out_of_an_object_store_is_read_only_and_works():
    market = pickle.loads(pickle.dumps(Market.of(lively(2), "next_open")))
    targets = np.full((1, 6), 1 / 6)
    for array in (*market.arrays, targets):
        array.setflags(write=False)
    step(market, Accounts.of_cash(1, 6, 1e6), np.array([3]), targets, FREE)


def test_later_bars_do_not_change_a_step():
    cube, t = lively(9), 60
    later = cube.prices.copy()
    later[t + 2 :] *= 1.5
    for row, same in ((t, True), (t + 1, False)):
        results = [one_bar(c, 1e6, [1.0] * 6, [0.1] * 6, row=row)[1] for c in (cube, replace(cube, prices=later))]
        assert (results[0].net == results[1].net).all() == same
    portfolio = Market.of(cube, "next_open").portfolio(Accounts.of_cash(1, 6, 5.0), 0, t)
    assert portfolio.cash_usd == portfolio.equity_usd == 5.0
    assert portfolio.as_of == cube.known_at[t]
    known = np.isfinite(cube.prices[t, :, CLOSE])
    assert np.array_equal(portfolio.prices[known], cube.prices[t, known, CLOSE])

