from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlaif_ray.backtest.engine import as_weights, concatenate, decide, run
from rlaif_ray.core import Cube, Decision, Forecast, MarketView, Opinion, Portfolio
from rlaif_ray.errors import DataError, ExecutionError, LookAheadError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import LONG_ONLY
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Controls, Limits
from rlaif_ray.strategies import BuyAndHold, EqualWeight
from tests.laws import assert_apply, random_cube
from tests.markets import daily

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)


class Scripted:
    """Weights written out beforehand; in bulk only where asked."""

    def __init__(self, table: Any, bulk: bool = False) -> None:
        self.name, self.table, self.seen = "scripted", np.asarray(table, np.float64), []
        if bulk:
            self.weights = lambda cube, rows: self.table[rows]

    def decide(self, view: MarketView) -> Decision:
        self.seen.append(view)
        return Decision(view.as_of, dict(zip(view.symbols, self.table[view.t].tolist(), strict=True)), "as written", self.name)


def backtest(policy, cube: Cube, rows: slice, max_weight: float = 1.0, costs: CostModel = COSTS, **said):
    return run(policy, cube, rows, Terms(costs, limits=Limits(max_weight=max_weight), cash_usd=1000.0), **said)


def test_two_bars_by_hand():
    # all in at 10 on row 1 (+20%), half sold at the open of 12 on row 2, the other half loses a quarter by its close
    cube = daily([10, 12, 9], opens=[10, 10, 12])
    episode, decisions = backtest(Scripted([[1.0], [0.5], [0.0]]), cube, slice(0, 2), costs=CostModel())
    assert episode.returns == pytest.approx([0.2, -0.125])
    assert episode.equity == pytest.approx([1.2, 1.05])
    assert episode.weights[:, 0] == pytest.approx([1.0, 450 / 1050])
    assert episode.turnover == pytest.approx([1.0, 0.5])
    assert episode.times.tolist() == cube.times[1:3].tolist()
    assert [d.as_of for d in decisions] == cube.known_at[:2].tolist()
    assert decisions[0].weights == {"A": 1.0}


@pytest.mark.parametrize("max_weight", [1.0, 0.4])
def test_bulk_equals_deciding_row_by_row(max_weight):
    rng = np.random.default_rng(0)
    cube, table = random_cube(rng, 200, 5, 0), rng.dirichlet(np.ones(5), 200)
    one, said = backtest(Scripted(table), cube, slice(20, 150), max_weight)
    bulk, said_in_bulk = backtest(Scripted(table, bulk=True), cube, slice(20, 150), max_weight)
    for name in ("times", "weights", "gross_returns", "costs", "turnover"):
        assert np.array_equal(getattr(one, name), getattr(bulk, name))
    assert [(d.as_of, d.weights) for d in said] == [(d.as_of, d.weights) for d in said_in_bulk]
    assert [d.as_of for d in said_in_bulk[-2:]] == [said_in_bulk[-2].as_of, said_in_bulk[129].as_of] and len(said_in_bulk) == 130
    assert max(max(d.weights.values()) for d in said) <= max_weight


def test_a_path_that_is_worth_nothing_has_ended():
    # short of all it has at 100: the price at 250 is its ruin, and what comes later brings nothing back and trips nothing
    cube = daily([100, 100, 250, 60, 60, 120], days=range(6))
    terms = Terms(CostModel(), account=AccountRules(long_short=True), limits=Limits(drawdown=0.9, cvar=0.5), cash_usd=1000.0)
    one, bulk = Scripted(np.full((6, 1), -1.0)), Scripted(np.full((6, 1), -1.0), bulk=True)
    (seen, said), (in_bulk, said_in_bulk) = (run(policy, cube, slice(0, 5), terms) for policy in (one, bulk))
    for episode in (seen, in_bulk):
        assert episode.returns.tolist() == [0.0, -1.5, 0.0, 0.0, 0.0]
        assert not episode.weights[1:].any() and not episode.turnover[2:].any()
        assert episode.trips == ()
    assert [d.weights for d in said] == [d.weights for d in said_in_bulk] == 2 * [{"A": -1.0}] + 3 * [{"A": 0.0}]
    assert len(one.seen) == 2


def test_the_view_carries_the_real_portfolio_and_what_was_said():
    rng = np.random.default_rng(1)
    cube, table = random_cube(rng, 50, 3, 0), rng.dirichlet(np.ones(3), 50)
    policy = Scripted(table)
    forecast = Forecast(cube.known_at[5], "return", cube.symbols, (1,), (0.5,), np.zeros((3, 1, 1)), "naive")
    opinion = Opinion("risk", cube.known_at[5], "S00", 5, 0.6, (), "", "hash")
    episode, _ = backtest(policy, cube, slice(5, 30), forecasts_at=lambda t: {"return": forecast}, opinions_at=lambda t: (opinion,))
    assert policy.seen[0].portfolio.weights.tolist() == [0, 0, 0]
    for k, view in enumerate(policy.seen[1:]):
        assert view.portfolio.as_of == view.as_of == cube.known_at[6 + k]
        assert view.portfolio.weights == pytest.approx(episode.weights[k], abs=1e-12)
        assert view.portfolio.equity_usd == pytest.approx(1000 * episode.equity[k])
        assert view.forecasts == {"return": forecast}
        assert view.opinions == (opinion,)
    with pytest.raises(LookAheadError):
        backtest(policy, cube, slice(3, 5), opinions_at=lambda t: (opinion,))


def test_what_comes_later_changes_no_earlier_bar():
    cube = random_cube(np.random.default_rng(2), 120, 4, 0)

    def equity(cube: Cube) -> np.ndarray:
        out = np.full(len(cube.times), np.nan)
        for policy in (BuyAndHold(), EqualWeight()):
            episode, _ = backtest(policy, cube, slice(0, len(cube.times) - 1), 0.4)
            out[1:] = np.nan_to_num(out[1:]) + episode.equity
        return out

    for t in (10, 60, 110):
        assert_apply(equity, cube, t, np.random.default_rng(t))


def test_rows_that_cannot_be_filled_are_refused():
    cube = daily([10, 11, 12])
    for rows in (slice(0, 3), slice(-1, 1), slice(1, 1)):
        with pytest.raises(DataError, match="expected 0 to 1"):
            backtest(EqualWeight(), cube, rows)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize(("row", "says"), [([np.nan, 0], "A: nan"), ([-0.1, 0.2], "A: -0.1"), ([0.7, 0.4], "1.1 in all")])
def test_what_is_no_set_of_weights_is_refused(bulk, row, says):
    cube = daily(np.full((4, 2), 10.0))
    with pytest.raises(ExecutionError, match=f"scripted decided weights of {says} at 2020-01-02.*expected"):
        backtest(Scripted([[0.5, 0.5], row, row, row], bulk), cube, slice(0, 3))


def test_other_wrong_decisions():
    cube = daily(np.full((4, 2), 10.0))
    view = MarketView(cube, 1, None)  # type: ignore[arg-type]
    with pytest.raises(ExecutionError, match=r"gave a weight to 'a' .* expected symbols of the market"):
        as_weights(Decision(view.as_of, {"a": 0.5}, "", "m"), cube.symbols)
    assert as_weights(Decision(view.as_of, {"B": 0.5}, "", "m"), cube.symbols).tolist() == [0, 0.5]
    with pytest.raises(ExecutionError, match="shape"):
        backtest(Scripted(np.ones((4, 3)) / 3, bulk=True), cube, slice(0, 3))

    class Late(Scripted):
        def decide(self, view: MarketView) -> Decision:
            return replace(super().decide(view), as_of=cube.known_at[3])

    with pytest.raises(ExecutionError, match="expected the view's own moment"):
        decide(Late(np.full((4, 2), 0.5)), view, Controls.of(cube, Limits(), {}), LONG_ONLY)


def test_a_decision_is_what_the_cap_leaves_of_it():
    cube = daily(np.full((4, 3), 10.0))
    holds = Portfolio(cube.known_at[0], cube.symbols, 1.0, np.zeros(3), np.full(3, 10.0))
    controls = Controls.of(cube, Limits(max_weight=0.5), {})
    decision = decide(Scripted(np.tile([0.6, 0.3, 0.1], (4, 1))), MarketView(cube, 0, holds), controls, LONG_ONLY)
    assert decision.weights == pytest.approx({"A": 0.5, "B": 0.375, "C": 0.125})
    assert decision.reason == "as written"


def test_folds_are_joined_in_order():
    cube = random_cube(np.random.default_rng(3), 60, 3, 0)
    first, second = (backtest(EqualWeight(), cube, rows)[0] for rows in (slice(0, 30), slice(30, 59)))
    joined = concatenate([first, second])
    assert joined.equity[-1] == pytest.approx(first.equity[-1] * second.equity[-1])
    assert joined.times.tolist() == cube.times[1:].tolist()
    other = replace(second, policy="x")
    for wrong, says in (([second, first], "overlap"), ([first, first], "overlap"), ([], "no episodes"), ([first, other], "cannot follow")):
        with pytest.raises(DataError, match=says):
            concatenate(wrong)
