"""What an account may do, by hand: short sales, margin, parts of the volume, whole shares, interest, the end."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, step, walk
from tests.markets import daily, one_bar

SHORT = AccountRules(long_short=True)


@pytest.mark.parametrize(
    "bad",
    [{"participation": x} for x in (0.0, -1.0, np.nan)] + [{"cash_interest": x} for x in (np.nan, np.inf)]
    + [{"maintenance": x} for x in (-0.1, np.nan)],
)  # fmt: skip
def test_rules_that_cannot_be(bad):
    with pytest.raises(ConfigError, match=next(iter(bad)).split("_")[-1]):
        AccountRules(**bad)


def test_what_an_account_may_hold():
    long_only = np.array([[0.5, 0.5], [0.0, 0.0], [0.3, 0.7 + 1e-12], [0.6, 0.5], [-0.1, 0.5], [np.nan, 0.5], [np.inf, 0.0]])
    assert AccountRules().allows(long_only).tolist() == [True, True, True, False, False, False, False]
    assert SHORT.allows(np.array([[1.5, -0.5], [-1.5, 0.5], [1.0, -1.0], [0.0, -1.0]])).all()
    assert not SHORT.allows(np.array([[1.6, -0.6], [0.6, 0.5], [-0.6, -0.5], [np.nan, 0.0], [-np.inf, 0.0]])).any()


# --- short ------------------------------------------------------------------------------------------------------------


def test_a_short_sale_brings_cash_and_loses_what_the_price_gains():
    accounts, result = one_bar(daily([10, 11], opens=[10, 10]), 1000, [0], [-0.5], CostModel(commission=0.01), long_short=True)
    assert accounts.shares[0, 0] == -50
    assert accounts.cash[0] == pytest.approx(1000 + 500 - 5)
    assert result.net[0] == pytest.approx((1495 - 550) / 1000 - 1)
    assert result.weights[0, 0] == pytest.approx(-550 / 945)
    assert result.turnover[0] == pytest.approx(0.5)


def test_longs_beyond_the_equity_are_paid_by_shorts():
    accounts, result = one_bar(daily([[10, 20], [11, 20]], opens=[[10, 20], [10, 20]]), 1000, [0, 0], [1.5, -0.5], long_short=True)
    assert accounts.shares[0].tolist() == [150, -25]
    assert accounts.cash[0] == 0
    assert result.net[0] == pytest.approx(0.15)


def test_a_dividend_is_paid_by_who_is_short():
    accounts, result = one_bar(daily([100, 98], dividends=[0, 2]), 3000, [-10], [-0.5], long_short=True)
    assert accounts.cash[0] == pytest.approx(3000 - 20 - (1000 / 100 - 10) * 98)
    assert result.net[0] == pytest.approx(0.0)  # the price fell by it


def test_a_split_doubles_what_is_owed():
    accounts, result = one_bar(daily([100, 50], splits=[1, 2]), 3000, [-10], [-0.5], long_short=True)
    assert accounts.shares[0, 0] == -20
    assert result.net[0] == 0
    assert result.turnover[0] == 0


def test_who_is_short_of_a_delisted_name_pays_seven_tenths():
    cube = daily([[100, 10], [np.nan, 10]], delisted=[[0, 0], [1, 0]])
    accounts, result = one_bar(cube, 2000, [-10, 0], [-0.5, 0.0], CostModel(commission=0.01), long_short=True)
    assert accounts.shares[0].tolist() == [0, 0]
    assert accounts.cash[0] == pytest.approx(2000 - 700)
    assert result.net[0] == pytest.approx(0.3)
    assert result.cost[0] == 0
    # and a last dividend on the day on which it goes
    cube = daily([100, np.nan], delisted=[0, 1], dividends=[0, 5])
    accounts, _ = one_bar(cube, 2000, [-10], [-0.5], long_short=True)
    assert accounts.cash[0] == pytest.approx(2000 - 700 - 50)


def test_a_halt_keeps_a_short_open():
    cube = daily([[10, 10], [np.nan, 10]], tradable=[[1, 1], [0, 1]])
    accounts, result = one_bar(cube, 2000, [-100, 0], [0.0, 0.5], long_short=True)
    assert accounts.shares[0].tolist() == [-100, 50]
    assert result.weights[0] == pytest.approx([-1.0, 0.5])


# --- margin ---------------------------------------------------------------------------------------------------------------


def test_an_account_below_its_margin_is_liquidated_at_the_next_open():
    cube = daily([10, 11], opens=[10, 12])
    accounts, result = one_bar(cube, 1290, [-100], [-0.5], long_short=True)  # 290 of 1,000 USD is less than 30%
    assert accounts.shares[0, 0] == 0
    assert accounts.cash[0] == pytest.approx(90)
    assert result.net[0] == pytest.approx(90 / 290 - 1)
    assert not result.ended[0]
    accounts, _ = one_bar(cube, 1310, [-100], [-0.5], long_short=True)  # 310 is not: it does what was decided
    assert accounts.shares[0, 0] == pytest.approx(-15.5)
    accounts, _ = one_bar(cube, 1290, [-100], [-0.5], long_short=True, maintenance=0.2)
    assert accounts.shares[0, 0] == pytest.approx(-14.5)


def test_long_positions_on_margin_are_liquidated_too():
    accounts, _ = one_bar(daily([10, 10]), -800, [100], [1.0], long_short=True)  # 200 of 1,000 USD
    assert accounts.shares[0, 0] == 0
    assert accounts.cash[0] == pytest.approx(200)


def test_a_liquidation_waits_for_no_volume_and_no_cash_but_for_a_halt():
    cube = daily([10, 14], opens=[10, 14], volumes=[1e6, 5])
    accounts, result = one_bar(cube, 1290, [-100], [-0.5], long_short=True, participation=0.1)
    assert accounts.shares[0, 0] == 0
    assert accounts.cash[0] == pytest.approx(1290 - 1400)
    assert result.ended[0]
    assert result.net[0] == pytest.approx(-110 / 290 - 1)
    assert result.weights[0, 0] == 0
    accounts, result = one_bar(daily([10, np.nan]), 1290, [-100], [-0.5], long_short=True)
    assert accounts.shares[0, 0] == -100
    assert not result.ended[0]


def test_debts_that_no_purchase_is_meant_for_stay_as_they_are():
    """Nothing is bought and cash is below 0: there is nothing to scale."""
    cube = daily([10, 10], tradable=[1, 0])
    accounts, result = one_bar(cube, -100, [30], [0.5], long_short=True)
    assert accounts.cash[0] == -100
    assert accounts.shares[0, 0] == 30
    assert result.net[0] == 0
    accounts, result = one_bar(daily([10, 10]), -100, [30], [1.0], CostModel(commission=0.99), long_short=True)
    assert accounts.cash[0] == pytest.approx(-99)  # 10 shares sold bring 100 USD less 99
    assert result.net[0] == pytest.approx(-99 / 200)


def test_nothing_is_bought_on_debt():
    cube = daily([[10, 10], [10, 10]], tradable=[[1, 1], [0, 1]])
    accounts, _ = one_bar(cube, -100, [30, 0], [0.0, 0.5], long_short=True)  # A was to pay for B and is halted
    assert accounts.shares[0].tolist() == [30, 0]
    assert accounts.cash[0] == -100


# --- how much, in which pieces ---------------------------------------------------------------------------------------------


def test_a_fill_takes_its_part_of_the_bars_volume_and_the_rest_is_cancelled():
    cube = daily([10, 10, 10], volumes=[1e6, 200, 1e6])
    accounts, result = one_bar(cube, 1000, [0], [0.5], participation=0.1)
    assert accounts.shares[0, 0] == 20  # of 50
    assert accounts.cash[0] == 800
    assert result.turnover[0] == pytest.approx(0.2)
    accounts, _ = one_bar(cube, 0, [100], [0.0], participation=0.1)
    assert accounts.shares[0, 0] == 80
    accounts, _ = one_bar(cube, 800, [20], [0.2], row=1, participation=0.1)
    assert accounts.shares[0, 0] == 20  # nothing waits from the bar before


def test_nothing_is_filled_of_a_bar_without_volume():
    accounts, _ = one_bar(daily([10, 10], volumes=[1e6, 0]), 1000, [0], [0.5], participation=0.1)
    assert accounts.shares[0, 0] == 0
    accounts, _ = one_bar(daily([10, 10], volumes=[1e6, 0]), 1000, [0], [0.5])
    assert accounts.shares[0, 0] == 50


def test_whole_shares():
    accounts, _ = one_bar(daily([30, 30]), 1000, [0], [0.5], whole_shares=True)
    assert accounts.shares[0, 0] == 16  # 16.7
    accounts, _ = one_bar(daily([30, 30]), 1000, [0], [-0.5], whole_shares=True, long_short=True)
    assert accounts.shares[0, 0] == -16  # towards 0
    accounts, _ = one_bar(daily([10, 10], volumes=[1e6, 205]), 1000, [0], [0.5], whole_shares=True, participation=0.1)
    assert accounts.shares[0, 0] == 20  # 20.5
    # opens 10% up: 1,000 USD buys 10/11 of 50 + 50 shares, 45.45 of each
    accounts, _ = one_bar(daily([[10, 10], [11, 11]]), 1000, [0, 0], [0.5, 0.5], whole_shares=True)
    assert accounts.shares[0].tolist() == [45, 45]
    assert accounts.cash[0] == pytest.approx(10)
    # a split 3 for 2 leaves 4.5 shares, of which the half is sold
    accounts, _ = one_bar(daily([30, 20], splits=[1, 1.5]), 0, [3], [1.0], whole_shares=True)
    assert accounts.shares[0, 0] == 4
    assert accounts.cash[0] == pytest.approx(10)


@pytest.mark.parametrize("account", [AccountRules(whole_shares=True), AccountRules(long_short=True, whole_shares=True)])
def test_whole_shares_that_are_asked_for_again_are_kept(account):
    rng, signs = np.random.default_rng(0), np.array([1.0, 1.0, -1.0, 1.0, 1.0] if account.long_short else np.ones(5))
    market = Market.of(daily(100 * np.exp(np.cumsum(rng.normal(0, 0.02, (60, 5)), axis=0))), "next_open")
    accounts = Accounts.of_cash(1, 5, 1e6)
    step(market, accounts, np.array([0]), (rng.dirichlet(np.ones(5)) * signs)[None], CostModel(), account)
    bought = accounts.shares.copy()
    for row in range(1, 59):
        step(market, accounts, np.array([row]), accounts.weights(market, np.array([row])), CostModel(), account)
        assert (accounts.shares == bought).all()


def test_interest_on_cash_for_calendar_days():
    cube = daily([10, 10], days=[0, 3])
    accounts, result = one_bar(cube, 36_500, [0], [0.0], cash_interest=0.01)
    assert accounts.cash[0] == pytest.approx(36_503)  # 1 USD a day
    assert result.net[0] == pytest.approx(3 / 36_500)
    assert result.cost[0] == 0
    accounts, _ = one_bar(cube, -36_500, [36_500], [1.0], CostModel(), long_short=True, cash_interest=0.01)  # a debit pays it
    assert accounts.cash[0] + 10 * accounts.shares[0, 0] == pytest.approx(9 * 36_500 - 3)


# --- the end -----------------------------------------------------------------------------------------------------------------


def test_a_path_without_equity_has_ended_and_nothing_happens_to_it():
    market = Market.of(daily([10, 10, 40, 5, 5, 50]), "next_open")  # at 5 its shares would have been worth having been short of
    accounts, targets = Accounts.of_cash(2, 1, 1000.0), np.array([[-1.0], [0.5]])
    ended, net = [], []
    for row in range(5):  # the second path goes on beside it
        result = step(market, accounts, np.array([row, row]), targets, CostModel(borrow=0.01), SHORT)
        ended.append(result.ended.tolist())
        net.append(float(result.net[0]))
    assert ended == [[False, False]] + 4 * [[True, False]]
    assert net == pytest.approx([0, -3 - 0.01, 0, 0, 0])  # 100 shares at 40, and a day's fee of 1,000 USD
    for name in ("gross", "cost", "turnover", "net"):
        assert getattr(result, name)[0] == 0
    assert result.weights[0, 0] == 0
    assert (accounts.cash[0], accounts.shares[0, 0]) == (-2010, 0)  # what it owes stays

    walked = Accounts.of_cash(1, 1, 1000.0)
    whole = walk(market, walked, slice(0, 5), np.full((5, 1), -1.0), CostModel(borrow=0.01), SHORT)
    assert whole.net.tolist() == net
    assert whole.ended.tolist() == [False, True, True, True, True]
    assert (walked.cash[0], walked.shares[0, 0]) == (-2010, 0)


def test_an_account_that_starts_without_equity_has_ended():
    for cash in (0.0, -5.0):
        accounts, result = one_bar(daily([10, 10]), cash, [0], [0.5], long_short=True)
        assert result.ended[0]
        assert (result.net[0], accounts.cash[0], accounts.shares[0, 0]) == (0, cash, 0)
