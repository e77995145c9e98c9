"""Replays under harder terms, by hand."""

from __future__ import annotations

import numpy as np

from rlaif_ray.backtest.engine import run
from rlaif_ray.backtest.stress import among, late, regimes, replay, with_delistings
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import DELISTED, FILLABLE
from rlaif_ray.execution.simulator import Accounts, Market, walk
from rlaif_ray.execution.terms import Terms
from rlaif_ray.strategies import BuyAndHold, EqualWeight
from tests.laws import random_cube
from tests.markets import daily

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
TERMS = Terms(COSTS)


def test_a_replay_on_the_same_terms_is_the_episode() -> None:
    cube, rows = random_cube(np.random.default_rng(1), rows=120, assets=5), slice(20, 119)
    episode, decisions = run(EqualWeight(), cube, rows, TERMS)
    targets = np.array([[d.weights[s] for s in cube.symbols] for d in decisions])
    assert np.array_equal(replay(Market.of(cube, "next_open"), rows, targets, TERMS), episode.returns)


def test_dearer_trades_leave_less() -> None:
    cube, rows = random_cube(np.random.default_rng(2), rows=200, assets=4), slice(0, 199)
    targets = np.random.default_rng(0).dirichlet(np.ones(4), 199)
    market = Market.of(cube, "next_open")
    grown = [np.log1p(replay(market, rows, targets, Terms(CostModel(slippage=bps / 1e4)))).sum() for bps in (0, 5, 25, 50)]
    assert grown == sorted(grown, reverse=True) and grown[0] > grown[-1]


def test_late_by_hand() -> None:
    held = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert late(held).tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def test_what_has_drifted_beyond_what_may_be_held_is_asked_for_as_far_as_it_may_be() -> None:
    """Long at 1.4 and short at 0.6, both lose a quarter: equity halves, and shorts weigh more than before."""
    prices = np.array([[10.0, 10.0], [10.0, 10.0], [7.5, 12.5], [7.5, 12.5], [7.5, 12.5]])
    market, rows = Market.of(daily(prices), "next_close"), slice(0, 4)
    terms = Terms(fill="next_close", account=AccountRules(long_short=True))
    result = walk(market, Accounts.of_cash(1, 2, 1.0), rows, np.tile([1.4, -0.6], (4, 1)), terms.costs, terms.account)
    np.testing.assert_allclose(result.weights[1], [1.05 / 0.5, -0.75 / 0.5])  # 3.6 without signs
    asked = late(result.weights)
    np.testing.assert_allclose(asked[:3], [[0.0, 0.0], [1.4, -0.6], [2.1 * 2 / 3.6, -1.5 * 2 / 3.6]])
    assert terms.account.allows(asked).all() and np.isfinite(replay(market, rows, asked, terms)).all()


def test_who_buys_once_and_holds_still_trades_once_when_late() -> None:
    cube, rows = random_cube(np.random.default_rng(4), rows=120, assets=5), slice(20, 119)
    cube.prices[...] = np.nan_to_num(cube.prices, nan=10.0)
    cube.tradable[...], cube.delisted[...], cube.splits[...], cube.dividends[...] = True, False, 1.0, 0.0
    episode, _ = run(BuyAndHold(), cube, rows, TERMS)
    market = Market.of(cube, "next_open")
    moved = walk(market, Accounts.of_cash(1, 5, 1.0), rows, late(episode.weights), COSTS)
    assert (episode.turnover[1:] < 1e-9).all()
    # What an open that had jumped left unbought, the next one buys.
    assert moved.turnover[0] == 0 and moved.turnover[1] > 0.9 and moved.turnover[2] < 0.02 and (moved.turnover[3:] < 1e-9).all()


def test_members_alone_by_hand() -> None:
    """What non-members held goes to the members in proportion; cash stays cash; nobody left is all cash."""
    targets = np.array([[0.2, 0.2, 0.4], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    members = np.array([[True, False, True], [True, True, True], [False, False, True]])
    np.testing.assert_allclose(among(targets, members), [[0.8 * 0.2 / 0.6, 0, 0.8 * 0.4 / 0.6], [0.5, 0.5, 0], [0, 0, 0]], atol=1e-15)


def test_members_alone_of_a_long_short_book_by_hand() -> None:
    """Each side goes to its own members; a side without one is in cash, and the other then no larger than may be held."""
    targets = np.array([[0.8, 0.2, -0.3, -0.3], [1.2, 0.3, -0.5, 0.0], [0.2, 0.0, -0.4, -0.2]])
    members = np.array([[True, False, True, False], [True, True, False, True], [False, True, True, True]])
    np.testing.assert_allclose(among(targets, members), [[1.0, 0.0, -0.6, 0.0], [0.8, 0.2, 0.0, 0.0], [0.0, 0.0, -0.4, -0.2]], atol=1e-15)


def test_the_dead_pay_what_the_simulator_pays_and_are_not_bought_again() -> None:
    flat = random_cube(np.random.default_rng(3), rows=60, assets=4)
    flat.prices[...] = 10.0
    flat.splits[...], flat.dividends[...] = 1.0, 0.0
    flat.tradable[...], flat.delisted[...] = True, False
    market, rows = Market.of(flat, "next_open"), slice(0, 59)
    stressed = with_delistings(market, rows, bars_per_year=252, seed=0, rate=252.0 / 2)  # each bar is the last for half of them
    gone = stressed.book[:, DELISTED] > 0
    assert gone.sum() == 2 and gone.any(axis=0).sum() == 2
    returns = replay(stressed, rows, np.full((59, 4), 0.25), Terms())
    # Each takes 30% of a quarter with it, of what equity was then; at flat prices nothing else moves.
    deaths = len(np.unique(np.argwhere(gone)[:, 0]))
    assert np.isclose(np.prod(1 + returns), (1 - 0.075) ** 2 if deaths == 2 else 1 - 0.15, rtol=1e-12)
    assert not stressed.book[-1, FILLABLE, gone.any(axis=0)].any()
    again = with_delistings(market, rows, bars_per_year=252, seed=0, rate=126.0)
    assert np.array_equal(again.book, stressed.book)


def test_regimes_by_hand_and_blind_to_what_comes() -> None:
    returns = np.r_[np.full(40, 0.001), np.full(8, -0.05), np.full(12, 0.2)]  # a year of 8 bars, a quarter of 2
    states = regimes(returns, bars_per_year=8)
    assert set(states[:40]) == {"rising, calm"}
    assert states[41] == "falling, rough" and states[-1] == "rising, rough"
    assert np.array_equal(regimes(returns[:45], bars_per_year=8), states[:45])
