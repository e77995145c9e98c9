"""What a fill costs, in numbers that a reader can check in their head."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, step
from tests.markets import daily, one_bar

# At row 0 no name has a return yet, so that its volatility is taken to be 0.02, and its mean volume is that of the bar.
SIGMA = 0.02


def test_basis_points():
    costs = CostModel.of_bps(0.5, 1.0, 2.0, impact=0.4, temporary=0.3, permanent=0.2, borrow_bps=1.0)
    assert costs.rate == pytest.approx(0.00035)
    assert (costs.impact, costs.temporary, costs.permanent) == (0.4, 0.3, 0.2)
    assert costs.borrow == pytest.approx(0.0001)
    assert costs == CostModel(0.5 / 1e4, 1.0 / 1e4, 2.0 / 1e4, 0.4, 0.3, 0.2, 1.0 / 1e4)


@pytest.mark.parametrize("name", ["commission", "half_spread", "slippage", "impact", "temporary", "permanent", "borrow"])
@pytest.mark.parametrize("bad", [-1e-4, np.nan, np.inf])
def test_a_cost_is_a_finite_number_of_0_or_more(name, bad):
    with pytest.raises(ConfigError, match=name):
        CostModel(**{name: bad})


def test_costs_take_less_than_all_that_is_traded():
    with pytest.raises(ConfigError, match="less than 1"):
        CostModel(commission=0.5, slippage=0.5)


def test_square_root_impact():
    # 100 of 10,000 shares: the root of 1% is 10%; of a volatility of 2% that is 0.2% of 1,000 USD
    accounts, result = one_bar(daily([10, 10], volumes=1e4), 2000, [0], [0.5], CostModel(impact=1.0))
    assert accounts.shares[0, 0] == 100
    assert accounts.cash[0] == pytest.approx(1000 - 2)
    assert result.cost[0] == pytest.approx(0.001)
    assert result.net[0] == pytest.approx(-0.001)
    # four times the order: eight times the cost
    accounts, _ = one_bar(daily([10, 10], volumes=1e4), 8000, [0], [0.5], CostModel(impact=1.0))
    assert accounts.cash[0] == pytest.approx(4000 - 16)


def test_temporary_impact():
    # 100 of 10,000 shares: 1% of a volatility of 2% is 0.02% of 1,000 USD; four times the order costs sixteen times that
    accounts, _ = one_bar(daily([10, 10], volumes=1e4), 2000, [0], [0.5], CostModel(temporary=1.0))
    assert accounts.cash[0] == pytest.approx(1000 - 0.2)
    accounts, _ = one_bar(daily([10, 10], volumes=1e4), 0, [400], [0.0], CostModel(temporary=1.0))
    assert accounts.cash[0] == pytest.approx(4000 - 3.2)


def test_impact_comes_on_top_of_the_rate_and_is_that_of_the_volume_known_at_the_decision():
    costs = CostModel(commission=0.01, impact=1.0, temporary=1.0)
    accounts, _ = one_bar(daily([10, 10], volumes=[1e4, 1e9]), 2000, [0], [0.5], costs)
    assert accounts.cash[0] == pytest.approx(1000 - 10 - 2 - 0.2)
    # after a split 2 for 1 these are 200 of 20,000 shares
    accounts, _ = one_bar(daily([10, 5], volumes=1e4, splits=[1, 2]), 2000, [0], [0.5], costs)
    assert accounts.shares[0, 0] == 200
    assert accounts.cash[0] == pytest.approx(1000 - 10 - 2 - 0.2)


def test_a_name_without_volume_does_not_trade_where_impact_is_charged():
    cube = daily(np.full((2, 2), 10.0), volumes=[[0, 1e4], [1e4, 1e4]])
    accounts, _ = one_bar(cube, 2000, [0, 0], [0.5, 0.5], CostModel(impact=1e-9))
    assert accounts.shares[0].tolist() == [0, 100]
    accounts, _ = one_bar(cube, 2000, [0, 0], [0.5, 0.5])
    assert accounts.shares[0].tolist() == [100, 100]


def test_permanent_impact_moves_the_price_that_the_path_sees():
    # k q = permanent * 2% * 100 / 10,000 = log 2: the price doubles while the order is filled
    costs = CostModel(permanent=np.log(2) / (SIGMA * 0.01))
    accounts, result = one_bar(daily([10, 10], volumes=1e4), 2000, [0], [0.5], costs)
    assert accounts.factor[0, 0] == pytest.approx(2.0)
    # paid: the integral of 10 * 2 ** (u/100) from 0 to 100 = 1000 / log 2; held: 100 shares at 20
    paid = 1000 / np.log(2)
    assert accounts.cash[0] == pytest.approx(2000 - paid)
    assert result.cost[0] == pytest.approx((paid - 1000) / 2000)
    assert result.net[0] == pytest.approx((2000 - paid) / 2000)
    assert result.turnover[0] == pytest.approx(0.5)
    assert result.weights[0, 0] == pytest.approx(2000 / (4000 - paid))


def test_a_round_trip_through_permanent_impact_gains_nothing():
    market, costs = Market.of(daily(np.full(4, 10.0), volumes=1e4), "next_open"), CostModel(permanent=50.0)
    for long_short, first in ((False, 0.5), (True, 0.5), (True, -0.5)):
        accounts = Accounts.of_cash(1, 1, 2000.0)
        for row, target in enumerate((first, 0.0)):
            step(market, accounts, np.array([row]), np.array([[target]]), costs, AccountRules(long_short))
            assert (accounts.factor[0, 0] == pytest.approx(1.0)) == (row == 1)
        assert accounts.cash[0] == pytest.approx(2000.0)
        assert accounts.shares[0, 0] == 0
    # neither does one in pieces: in by two orders, out by one, all of them at the volatility and the volume of row 0
    accounts = Accounts.of_cash(1, 1, 2000.0)
    for target in (0.2, 0.5, 0.0):
        step(market, accounts, np.array([0]), np.array([[target]]), costs)
    assert accounts.cash[0] == pytest.approx(2000.0)
    assert accounts.factor[0, 0] == pytest.approx(1.0)


def test_purchases_scaled_to_the_cash_cost_what_their_scaled_size_costs():
    # 2,000 USD for 200 shares and the root of 2% of 2%: the scale counts the cost of the whole order, the cost that of what is bought
    accounts, result = one_bar(daily([10, 10], volumes=1e4), 2000, [0], [1.0], CostModel(impact=1.0))
    wanted_cost = 2000 * SIGMA * np.sqrt(0.02)
    scale = 2000 / (2000 + wanted_cost)
    assert accounts.shares[0, 0] == pytest.approx(200 * scale)
    assert result.cost[0] * 2000 == pytest.approx(wanted_cost * scale**1.5)
    assert accounts.cash[0] == pytest.approx(2000 - 2000 * scale - wanted_cost * scale**1.5)
    assert accounts.cash[0] > 0


@pytest.mark.parametrize("costs", [CostModel(impact=1.0), CostModel(temporary=0.5), CostModel(0.5, impact=1.0, permanent=1.0)])
def test_a_sale_costs_no_more_than_it_brings(costs):
    cube = daily([10.0, 10.0, 10.0], volumes=[10.0, 10.0, 10.0])  # a million shares: 100,000 bars' volume
    accounts, result = one_bar(cube, 0.0, [1e6], [0.0], costs)
    assert (accounts.cash[0], accounts.shares[0, 0]) == (0.0, 0.0)
    assert result.cost[0] == pytest.approx(1.0)


def test_borrowed_shares_cost_their_value_for_every_calendar_day():
    # 100 shares short at 10 from Friday to Monday: three days of 0.01% of 1,000 USD
    cube, costs = daily([10, 10], days=[0, 3]), CostModel(borrow=1e-4)
    accounts, result = one_bar(cube, 3000, [-100], [-0.5], costs, long_short=True)
    assert accounts.cash[0] == pytest.approx(3000 - 0.3)
    assert result.cost[0] == pytest.approx(0.3 / 2000)
    assert result.turnover[0] == 0
    # whoever borrows at this fill pays from the next close on
    accounts, result = one_bar(cube, 2000, [0], [-0.5], costs, long_short=True)
    assert result.cost[0] == 0
    accounts, _ = one_bar(cube, 2000, [100], [1 / 3], costs, long_short=True)  # and nobody for what is his own
    assert accounts.cash[0] == pytest.approx(2000)
