from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.backtest.engine import run
from rlaif_ray.backtest.significance import edge
from rlaif_ray.core import Cube, MarketView
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market
from rlaif_ray.execution.terms import Terms
from rlaif_ray.strategies import (
    HRP,
    BestVerdicts,
    BuyAndHold,
    EqualWeight,
    InverseVolatility,
    MinVariance,
    Momentum,
    ShortTermReversal,
    baselines,
)  # fmt: skip
from tests.laws import assert_apply, assert_pure, random_cube
from tests.markets import daily
from tests.oracle import TERMS, market_cube

IN_BULK = [
    EqualWeight(), Momentum(lookback=40, skip=5, hold=7), InverseVolatility(window=20), ShortTermReversal(lookback=5, hold=5),
    MinVariance(lookback=40, hold=21), HRP(lookback=40, hold=21),
]  # fmt: skip


def view_at(cube: Cube, t: int) -> MarketView:
    """A view whose portfolio is cash."""
    return MarketView(cube, t, Market.of(cube, "next_open").portfolio(Accounts.of_cash(1, len(cube.symbols), 1e6), 0, t))


def rows_of(cube: Cube) -> slice:
    return slice(0, len(cube.times))


def late_listing(seed: int, rows: int = 160, assets: int = 7) -> Cube:
    """Random events, and a first name that lists only at row 60."""
    cube = random_cube(np.random.default_rng(seed), rows, assets, 0)
    prices, tradable = cube.prices.copy(), cube.tradable.copy()
    prices[:60, 0], tradable[:60, 0] = np.nan, False
    return replace(cube, prices=prices, tradable=tradable)


def test_equal_weight_leaves_out_what_is_not_listed():
    nan = np.nan
    cube = daily([[10, nan, 10], [10, 5, 10], [nan, 5, nan]], delisted=[[0, 0, 0], [0, 0, 0], [0, 0, 1]])
    weights = EqualWeight().weights(cube, slice(0, 3))
    assert weights[0].tolist() == [0.5, 0, 0.5]
    assert weights[1] == pytest.approx([1 / 3] * 3)
    assert weights[2].tolist() == [0.5, 0.5, 0]  # a halt is no reason to sell, a delisting is


def test_momentum_picks_the_third_that_rose_most_and_leaves_the_last_month_out():
    # after ten bars: A rose 20%, B 10%, C 0%; in the two bars left out C doubled
    closes = np.full((13, 3), 10.0)
    closes[5:, 0], closes[5:, 1], closes[11:, 2] = 12, 11, 20
    rule = Momentum(lookback=12, skip=2, hold=3)
    assert rule.weights(daily(closes), slice(12, 13)).tolist() == [[1, 0, 0]]
    assert rule.weights(daily(closes), slice(11, 12))[0] == pytest.approx([0.25, 0.25, 0.5])  # equal on row 9, then C doubled


def test_momentum_drifts_between_its_rebalancings():
    # equal weight on row 0; by row 2 A has doubled: 2/3 to 1/3; row 3 picks anew
    closes = [[10, 10], [10, 10], [20, 10], [20, 10]]
    weights = Momentum(lookback=10, skip=1, hold=3).weights(daily(closes), slice(0, 4))
    assert weights[2] == pytest.approx([2 / 3, 1 / 3])
    assert weights[3].tolist() == [0.5, 0.5]


def test_momentum_trades_nothing_between_its_rebalancings():
    """But for a bar or two after each, in which the cash that the fill left over (prices moved since the close) is put to work."""
    rng = np.random.default_rng(0)
    cube = daily(100 * np.exp(np.cumsum(rng.normal(0, 0.02, (100, 6)), axis=0)))
    rule = Momentum(lookback=40, skip=5, hold=10)
    episode, _ = run(rule, cube, slice(50, 99), Terms(CostModel.of_bps(0.5, 1, 2), "next_close"))
    since = np.arange(50, 99) % 10
    assert episode.turnover[since == 0].mean() > 0.3
    assert episode.turnover[since == 1].max() < 0.1
    assert episode.turnover[since >= 4].max() < 1e-12


def test_momentum_counts_dividends_and_splits():
    # A fell from 10 to 5 by a split of 2 and paid 1 a new share: +20%; B rose 10%
    closes = np.array([[10, 10]] * 2 + [[5, 11]] * 3, np.float64)
    splits, dividends = np.ones((5, 2)), np.zeros((5, 2))
    splits[2, 0], dividends[2, 0] = 2, 1
    rule = Momentum(lookback=4, skip=1, hold=1)
    assert rule.weights(daily(closes, splits=splits, dividends=dividends), slice(4, 5)).tolist() == [[1, 0]]


def test_inverse_volatility_by_hand():
    # log returns of +-1% and +-2%: weights 2 to 1; a name that does not move gets nothing
    up = np.tile([1.0, -1.0], 10)
    closes = 10 * np.exp(np.concatenate([np.zeros((1, 3)), np.cumsum(np.stack([up * 0.01, up * 0.02, up * 0], axis=1), axis=0)]))
    weights = InverseVolatility(window=10).weights(daily(closes), slice(5, 15))
    assert weights[-1] == pytest.approx([2 / 3, 1 / 3, 0])
    assert weights[0] == pytest.approx([1 / 3] * 3)  # fewer than ten returns


def test_reversal_buys_the_third_that_fell_most():
    # over the last two bars: A -10%, B 0%, C +10%; picked on row 4 and kept on row 5, when C has fallen
    closes = [[10, 10, 10]] * 3 + [[9, 10, 11], [9, 10, 11], [9, 10, 5]]
    weights = ShortTermReversal(lookback=2, hold=4).weights(daily(closes), slice(3, 6))
    assert weights[0] == pytest.approx([9 / 30, 10 / 30, 11 / 30])  # equal weight on row 0, drifted
    assert weights[1:].tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("rule", [MinVariance, HRP])
def test_the_calm_get_more_and_the_young_and_the_still_nothing(rule):
    """A moves half as much as B, unrelated to it; C never moves and D is young."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.01, (301, 4)) * [1, 2, 0, 1]
    closes = 100 * np.exp(np.cumsum(steps, axis=0))
    closes[:100, 3] = np.nan
    weights = rule(lookback=250, hold=50).weights(daily(closes), slice(300, 301))[0]
    assert weights == pytest.approx([0.8, 0.2, 0, 0], abs=0.05)
    capped = rule(lookback=250, hold=50, max_weight=0.6).weights(daily(closes), slice(300, 301))[0]
    assert capped == pytest.approx([0.6, 0.4, 0, 0], abs=1e-6)


@pytest.mark.parametrize("rule", IN_BULK, ids=lambda r: r.name)
def test_deciding_equals_bulk_and_weights_add_up(rule):
    cube = late_listing(1)
    bulk = rule.weights(cube, rows_of(cube))
    assert (bulk >= 0).all()
    assert bulk.sum(axis=1) == pytest.approx(np.ones(len(bulk)))
    assert np.array_equal(rule.weights(cube, slice(33, 120)), bulk[33:120])
    for t in range(0, len(bulk), 7):
        decision = rule.decide(view_at(cube, t))
        assert np.array_equal(list(decision.weights.values()), bulk[t])
        assert (decision.model, decision.reason) == (rule.name, rule.reason)


@pytest.mark.parametrize("rule", IN_BULK, ids=lambda r: r.name)
def test_the_future_changes_nothing(rule):
    cube = late_listing(2)
    for t in (10, 59, 100, 150):
        assert_pure(lambda c: rule.weights(c, rows_of(c)), cube, t)
        assert_apply(lambda c: rule.weights(c, rows_of(c)), cube, t, np.random.default_rng(t))


def test_buy_and_hold_buys_once():
    cube = daily([[10, 20, np.nan], [11, 20, 5], [12, 10, 5], [12, 10, 5]])
    episode, decisions = run(BuyAndHold(), cube, slice(0, 3), Terms(CostModel(0.001), "next_close"))
    assert decisions[0].weights == {"A": 0.5, "B": 0.5, "C": 0}
    assert episode.turnover[1:].max() < 1e-12
    shares = np.array([1 / 10, 1 / 20])
    assert episode.weights[2, :2] == pytest.approx(shares * [12, 10] / (shares @ [12, 10]))
    assert decisions[2].reason == "hold what was bought"
    for t in (0, 1):
        assert BuyAndHold().decide(view_at(cube, t)).weights["C"] == t / 3


def test_buy_and_hold_goes_without_what_a_fill_was_cut_by():
    cube = daily([[10, 20]] * 4, volumes=[[1e3, 1e6]] * 4)
    terms = Terms(fill="next_close", account=AccountRules(participation=0.1), cash_usd=10_000.0)
    episode, _ = run(BuyAndHold(), cube, slice(0, 3), terms)
    assert episode.weights[:, 0].tolist() == [0.1] * 3  # 100 shares of 500
    assert episode.weights[:, 1].tolist() == [0.5] * 3


def test_windows_follow_the_bar_size():
    cube = late_listing(3)
    assert [p.name for p in baselines(cube)] == [
        "buy_and_hold", "equal_weight", "momentum_12_1", "short_term_reversal", "inverse_volatility", "min_variance", "hrp"
    ]  # fmt: skip
    for per_year, (year, month, week, quarter) in ((251.8, (252, 21, 5, 63)), (6546.0, (6546, 546, 126, 1636))):
        _, _, momentum, reversal, volatility, *optimised = baselines(replace(cube, bars_per_year=per_year), max_weight=0.3)
        assert vars(momentum) == {"lookback": year, "skip": month, "hold": month}
        assert (vars(reversal), vars(volatility)) == ({"lookback": week, "hold": week}, {"window": quarter})
        assert [vars(p) for p in optimised] == [{"lookback": year, "hold": month, "max_weight": 0.3}] * 2


def test_no_rule_claims_an_edge_where_there_is_none():
    """Each rule, counted by itself, on 20 synthetic markets without a signal: at most 2 claims. Those who optimise: test_claims."""
    claims: dict[str, int] = {}
    for seed in range(20):
        cube = market_cube(SyntheticSource(n_symbols=8, n_bars=1000, bar="1d", seed=seed, signal_strength=0.0, drift=0.0))
        rows = slice(260, 999)
        rules = [p for p in baselines(cube) if not isinstance(p, (MinVariance, HRP))]
        found = {p.name: run(p, cube, rows, TERMS)[0].returns for p in rules}
        for name in found:
            claims[name] = claims.get(name, 0) + edge(found[name], found["equal_weight"], seed=seed).claim
    assert max(claims.values()) <= 2, claims


def verdicts_on(cube: Cube) -> BestVerdicts:
    rows = np.arange(20, len(cube.times), 10)
    p_up = np.random.default_rng(5).uniform(0.4, 0.6, (len(rows), len(cube.symbols)))
    p_up[3] = np.nan  # nobody said anything
    p_up[4, 2:] = np.nan  # of two names only
    return BestVerdicts("desk", cube.known_at[rows], p_up)


def test_the_best_verdicts_are_held_until_the_desk_speaks_again() -> None:
    cube = daily(np.cumprod(np.array([[1.0, 1.0, 1.0]] + [[1.0, 1.1, 1.0]] * 9), axis=0))
    desk = BestVerdicts("desk", cube.known_at[[2, 6]], np.array([[0.4, 0.6, 0.5], [0.6, 0.4, 0.5]]))
    assert np.allclose(desk.weights(cube, slice(0, 10))[:, 1], [1 / 3] * 2 + [1.0] * 4 + [0.0] * 4)


def test_the_best_verdicts_in_bulk_are_those_row_by_row_and_silence_is_equal_weight() -> None:
    cube = late_listing(3)
    desk = verdicts_on(cube)
    bulk = desk.weights(cube, rows_of(cube))
    for t in (5, 20, 33, 55, 64, 95, 159):
        assert np.array_equal([desk.decide(view_at(cube, t)).weights[s] for s in cube.symbols], bulk[t])
    listed = cube.listed / cube.listed.sum(axis=1, keepdims=True)
    assert np.allclose(bulk[:20], listed[:20]) and np.allclose(bulk[50:70], listed[50:70])
    assert (np.count_nonzero(bulk[70:80], axis=1) <= 3).all() and np.allclose(bulk.sum(axis=1), 1.0)
