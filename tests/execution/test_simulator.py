"""The kernel by hand: fills, splits, dividends, halts, delistings of a long-only account; what it refuses; what it shows of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import CLOSE
from rlaif_ray.errors import DataError, ExecutionError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import ADV, LAST, SIGMA
from rlaif_ray.execution.simulator import Accounts, Market, step, sweep, walk
from tests.markets import daily, one_bar, random_weights, stormy

FREE = CostModel()
ONE_PERCENT = CostModel(commission=0.002, half_spread=0.003, slippage=0.005)


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


# --- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [[np.nan, 0.5], [-0.1, 0.5], [0.6, 0.5], [np.inf, 0.0], [np.inf, -np.inf], [-1e-6, 0.0]])
def test_bad_targets_are_refused_and_nothing_moves(target):
    accounts = Accounts.of_cash(2, 2, 1000.0)
    market = Market.of(daily(np.full((3, 2), 10.0)), "next_open")
    with pytest.raises(ExecutionError, match=r"target weights of entry 1 at row 0 .* expected numbers >= 0 that add up to at most 1"):
        step(market, accounts, np.array([0, 0]), np.array([[0.5, 0.5], target]), FREE)
    assert accounts.cash.tolist() == [1000, 1000]
    assert not accounts.shares.any()


@pytest.mark.parametrize("target", [[np.nan, 0.5], [0.6, 0.5], [-0.6, -0.5], [1.5, -0.6], [-1.2, 0.9], [np.inf, -np.inf]])
def test_bad_targets_of_an_account_that_may_be_short_are_refused(target):
    with pytest.raises(ExecutionError, match=r"target weights of entry 0 at row 0 .*-1 to 1.*at most 2 without signs"):
        one_bar(daily(np.full((2, 2), 10.0)), 1000, [0, 0], target, long_short=True)


def test_targets_at_the_corners_are_not_refused():
    cube = daily(np.full((2, 2), 10.0))
    for target in ([1.5, -0.5], [-1.5, 0.5], [1.0, -1.0], [1.0, 0.0], [0.0, -1.0]):
        accounts, _ = one_bar(cube, 1000, [0, 0], target, long_short=True)
        assert accounts.shares[0] * 10 == pytest.approx([1000 * w for w in target])
    one_bar(cube, 1000, [0, 0], [0.3, 0.7 + 1e-12])  # what rounding adds


@pytest.mark.parametrize("row", [-1, 2])
def test_rows_need_a_next_bar(row):
    with pytest.raises(ExecutionError, match="outside 0 to 1"):
        one_bar(daily([10, 10, 10]), 1000, [0], [0.5], row=row)
    with pytest.raises(ExecutionError, match="outside 0 to 1"):
        walk(Market.of(daily([10, 10, 10]), "next_open"), Accounts.of_cash(1, 1, 1.0), slice(row, row + 1), np.zeros((1, 1)), FREE)


def test_accounts_that_cannot_be_and_wrong_shapes_are_refused():
    for cash, shares in ((-1, [10]), (10, [-0.1]), (np.nan, [0]), (np.inf, [0]), (10, [np.nan]), (10, [np.inf])):
        with pytest.raises(ExecutionError, match=r"path 0 holds .* expected .*none below 0"):
            one_bar(daily([10, 10]), cash, shares, [0.5])
    for cash, shares in ((np.nan, [0]), (np.inf, [0]), (10, [np.nan]), (10, [-np.inf])):
        with pytest.raises(ExecutionError, match="path 0 holds"):
            one_bar(daily([10, 10]), cash, shares, [0.5], long_short=True)
    with pytest.raises(ExecutionError, match="float64"):
        Accounts(np.array([1]), np.array([[1]]), np.ones((1, 1)))
    with pytest.raises(ExecutionError, match="do not fit"):
        one_bar(daily([10, 10]), 10, [0, 0], [0.5, 0.5])
    with pytest.raises(ExecutionError, match="one path"):
        walk(Market.of(daily([10, 10]), "next_open"), Accounts.of_cash(2, 1, 1.0), slice(0, 1), np.zeros((1, 1)), FREE)


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
        ({"dividends": [0, -1]}, "dividend"),
        ({"volumes": [1e6, -1]}, "volume"),
        ({"volumes": [1e6, np.inf]}, "volume"),
    ],
)
def test_a_market_refuses_impossible_prices(change, says):
    with pytest.raises(DataError, match=f"A at 2020-01-02.*{says}"):
        Market.of(daily(**{"closes": [10, 10], "opens": [10, 10]} | change), "next_open")


@pytest.mark.parametrize("volumes", [0.0, np.nan])
def test_impact_and_participation_need_a_source_with_volumes(volumes):
    cube = daily([10, 10], volumes=volumes)
    for knob in ("impact", "temporary", "permanent"):
        with pytest.raises(DataError, match=rf"volumes.*{knob}"):
            one_bar(cube, 1000, [0], [0.5], CostModel(**{knob: 0.1}))
    with pytest.raises(DataError, match=r"volumes.*participation"):
        one_bar(cube, 1000, [0], [0.5], participation=0.1)
    accounts, _ = one_bar(cube, 1000, [0], [0.5], ONE_PERCENT)  # nothing else does
    assert accounts.shares[0, 0] == 50


# --- what the kernel shows of itself ---------------------------------------------------------------------------------------------


def test_a_sweep_equals_walks_one_by_one():
    rng = np.random.default_rng(11)
    market, rows, account = Market.of(stormy(rng, 20, 3), "next_open"), slice(2, 18), AccountRules(cash_interest=0.05)
    targets = np.stack([random_weights(rng, 16, 3, False) for _ in range(5)])
    swept = sweep(market, rows, iter(targets), ONE_PERCENT, account)
    alone = [walk(market, Accounts.of_cash(1, 3, 1.0), rows, weights, ONE_PERCENT, account).net for weights in targets]
    assert np.array_equal(swept, alone)
    with pytest.raises(ExecutionError, match="entry 3"):
        sweep(market, rows, [np.where(np.arange(16)[:, None] == 3, 2.0, targets[0])], FREE)


def test_later_bars_do_not_change_a_step():
    cube, t = stormy(np.random.default_rng(9), rows=60, wildness=0.3), 30
    later = cube.prices.copy()
    later[t + 2 :] *= 1.5
    for row, same in ((t, True), (t + 1, False)):
        results = [one_bar(c, 1e6, [1.0] * 4, [0.2] * 4, row=row)[1] for c in (cube, replace(cube, prices=later))]
        assert (results[0].net == results[1].net).all() == same


def test_what_a_policy_sees_of_its_account():
    cube, t = stormy(np.random.default_rng(9), rows=60), 40
    market, accounts = Market.of(cube, "next_open"), Accounts.of_cash(2, 4, 5.0)
    portfolio = market.portfolio(accounts, 1, t)
    assert portfolio.cash_usd == portfolio.equity_usd == 5.0
    assert portfolio.as_of == cube.known_at[t]
    assert portfolio.returns.shape == (0,)
    known = np.isfinite(cube.prices[t, :, CLOSE])
    assert known.any()
    assert np.array_equal(portfolio.prices[known], cube.prices[t, known, CLOSE])

    accounts.factor[1], accounts.shares[1] = 1.1, 2.0
    seen = market.portfolio(accounts, 1, t, np.array([0.01, -0.02]))
    assert seen.returns.tolist() == [0.01, -0.02]
    assert seen.prices[known] == pytest.approx(1.1 * cube.prices[t, known, CLOSE])  # at the prices that its own trades have made
    assert seen.equity_usd == pytest.approx(accounts.equity(market, np.array([t, t]))[1])
    assert seen.weights == pytest.approx(accounts.weights(market, np.array([t, t]))[1])


def test_volume_and_volatility_of_a_bar_by_hand():
    # a split 2 for 1 at row 2: 100 and 300 old shares are 200 and 600 new ones, and no return is made by it
    book = Market.of(daily([10, 11, 5.5], volumes=[100, 300, 400], splits=[1, 1, 2]), "next_open").book
    assert book[:, ADV, 0].tolist() == [100, 200, (200 + 600 + 400) / 3]
    # returns 10% and 0%: their mean is 5%, each is 5% from it, and the sum of squares is shared by one
    assert book[:, SIGMA, 0] == pytest.approx([0.02, 0.02, np.sqrt(2 * 0.05**2)])
    # a dividend of 1 is return
    book = Market.of(daily([10, 11, 10], dividends=[0, 0, 1]), "next_open").book
    assert book[2, SIGMA, 0] == pytest.approx(np.sqrt(2 * 0.05**2))
    # the 21st bar forgets the first
    book = Market.of(daily(np.full(21, 10.0), volumes=[2e6] + [1e6] * 20), "next_open").book
    assert book[19, ADV, 0] == 1.05e6
    assert book[20, ADV, 0] == 1e6


def test_the_last_close_is_carried_over_halts_and_splits():
    market = Market.of(daily([np.nan, 100, np.nan, 52], splits=[1, 1, 2, 1]), "next_open")
    assert market.book[:, LAST, 0].tolist() == [0, 100, 50, 52]
    assert np.array_equal(market.last[:, 0], [np.nan, 100, 50, 52], equal_nan=True)
