"""The strong baseline: by hand where nothing is expected, better than equal weight where much is, and blind to the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.backtest.engine import run
from rlaif_ray.backtest.on_ray import forecasts_at
from rlaif_ray.core import Cube, Decision, Episode, Forecast, ForecastTable, MarketView, Portfolio
from rlaif_ray.errors import MissingDataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market
from rlaif_ray.execution.terms import Terms
from rlaif_ray.forecast.baselines import Naive
from rlaif_ray.forecast.trees import LightGBM
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.strategies import EqualWeight, ForecastOptimiser, forecast_optimiser
from tests.laws import assert_apply, random_cube
from tests.markets import daily

GRID = {"horizons": (1, 5), "levels": (0.1, 0.5, 0.9)}
COSTS = CostModel.of_bps(0.5, 1.0, 2.0)


def market(seed: int = 0, rows: int = 300, assets: int = 5) -> Cube:
    rng = np.random.default_rng(seed)
    return daily(100 * np.exp(np.cumsum(rng.normal(0, 0.015, (rows, assets)), axis=0)))


def optimiser(cost_per_side: float = COSTS.rate, **knobs) -> ForecastOptimiser:
    return ForecastOptimiser("naive", horizon=5, cost_per_side=cost_per_side, **{"lookback": 60, **knobs})


def walked(cube: Cube, policy, tables: dict[str, ForecastTable], rows: slice) -> tuple[Episode, Sequence[Decision]]:
    def said(t: int) -> dict[str, Forecast]:
        return forecasts_at(tables, cube.known_at[t])

    return run(policy, cube, rows, Terms(COSTS, "next_close"), forecasts_at=said)


def naive(cube: Cube) -> dict[str, ForecastTable]:
    return {"naive": Naive(**GRID).predict(cube, range(len(cube.times)))}


def tilted(cube: Cube, expected: np.ndarray) -> dict[str, ForecastTable]:
    """The naive forecast, moved by what is expected a bar (T,A)."""
    table = naive(cube)["naive"]
    moved = table.values + (expected[:, :, None] * table.horizons)[..., None]
    return {"naive": replace(table, values=moved.astype(np.float32))}


def test_a_forecast_that_tells_nothing_apart_is_equal_weight_hardly_traded() -> None:
    cube = market()
    episode, decisions = walked(cube, optimiser(), naive(cube), slice(100, 200))
    assert list(decisions[0].weights.values()) == pytest.approx([0.2] * 5, abs=1e-4)
    restored, _ = walked(cube, EqualWeight(), {}, slice(100, 200))
    assert episode.turnover[1:].sum() < 0.2 * restored.turnover[1:].sum()
    assert np.abs(episode.weights - 0.2).max() < 0.1


def test_it_decides_every_horizon_on_absolute_rows_and_keeps_what_it_holds_between() -> None:
    cube = market()
    expected = np.random.default_rng(1).normal(0, 0.002, cube.close.shape)
    episode, decisions = walked(cube, optimiser(), tilted(cube, expected), slice(103, 160))
    since = np.arange(103, 160) % 5
    assert "expects over 5 bars" in decisions[0].reason  # in cash it does not wait
    assert {d.reason.split()[0] for d, k in zip(decisions[1:], since[1:], strict=True) if k} == {"hold"}
    assert episode.turnover[1:][since[1:] == 0].min() > 0.1
    assert np.median(episode.turnover[since == 3]) < 1e-9


@pytest.mark.parametrize("weights", [[0.5, -0.2, 0, 0, 0], [1.2, 0.4, 0, 0, 0]])
def test_shorts_and_debts_that_it_is_handed_are_not_kept(weights: list[float]) -> None:
    cube = market()
    close, held = cube.close[103], np.array(weights)
    portfolio = Portfolio(cube.known_at[103], cube.symbols, 1.0 - held.sum(), held / close, close)
    decision = optimiser().decide(MarketView(cube, 103, portfolio, forecasts_at(naive(cube), cube.known_at[103])))
    assert "expects over 5 bars" in decision.reason and list(decision.weights.values()) == pytest.approx([0.2] * 5, abs=0.1)


def test_it_earns_what_the_forecast_knows() -> None:
    """The table knows a tenth of the standard deviation of what comes over 5 bars."""
    cube = market(rows=500, assets=8)
    truth = np.zeros(cube.close.shape)
    truth[:-6] = (np.log(cube.close[6:]) - np.log(cube.close[1:-5])) / 5
    noise = np.random.default_rng(2).normal(0, truth.std(), truth.shape)
    knows, _ = walked(cube, optimiser(), tilted(cube, 0.1 * truth + 0.1 * noise), slice(100, 490))
    equal, _ = walked(cube, EqualWeight(), {}, slice(100, 490))
    guesses, _ = walked(cube, optimiser(), tilted(cube, 0.2 * noise), slice(100, 490))
    assert np.log1p(knows.returns).mean() - np.log1p(equal.returns).mean() > 0.0005
    assert np.log1p(guesses.returns).mean() - np.log1p(equal.returns).mean() < 0.0003


def test_what_costs_more_is_traded_less() -> None:
    cube = market()
    tables = tilted(cube, np.random.default_rng(3).normal(0, 0.001, cube.close.shape))
    turnover = [walked(cube, optimiser(rate), tables, slice(100, 200))[0].turnover.sum() for rate in (0.0, 0.002, 0.01)]
    assert turnover[0] > turnover[1] > turnover[2] and turnover[0] > 3 * turnover[2]


def test_names_too_young_and_gone_get_nothing() -> None:
    cube = market()
    prices, delisted = cube.prices.copy(), np.zeros(cube.close.shape, bool)
    prices[:80, 0], prices[95:, 1] = np.nan, np.nan
    delisted[95:, 1] = True
    cube = replace(cube, prices=prices, tradable=np.isfinite(prices[:, :, 3]), delisted=delisted)

    def weights(t: int, **knobs) -> list[float]:
        cash = Market.of(cube, "next_close").portfolio(Accounts.of_cash(1, 5, 1e6), 0, t)
        return list(optimiser(**knobs).decide(MarketView(cube, t, cash, forecasts_at(naive(cube), cube.known_at[t]))).weights.values())

    assert weights(100) == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3], abs=1e-4)
    assert weights(40) == pytest.approx([0, 0.25, 0.25, 0.25, 0.25])  # no one has 60 bars yet
    assert max(weights(145, max_weight=0.3)) <= 0.3 + 1e-8


def test_the_future_changes_no_decision() -> None:
    cube = random_cube(np.random.default_rng(4), rows=230, assets=5)
    forecaster = LightGBM(**GRID, trees=20, min_rows=20)
    forecaster.fit(cube, slice(0, 150))

    def decisions(seen: Cube) -> Sequence[Decision]:
        table = forecaster.predict(seen, range(160, 220))
        policy = forecast_optimiser(replace(seen, bars_per_year=252.0), table, cost_per_side=COSTS.rate, max_weight=0.4)
        policy.lookback = 60
        return run(
            policy, seen, slice(160, 220), Terms(COSTS, limits=Limits(max_weight=0.4)),
            forecasts_at=lambda t: forecasts_at({"lightgbm": table}, seen.known_at[t]),
        )[1]  # fmt: skip

    for t in (170, 200):
        assert_apply(decisions, cube, t, np.random.default_rng(t))


def test_the_horizon_is_the_one_nearest_to_a_week() -> None:
    cube = market()
    table = naive(cube)["naive"]
    found = forecast_optimiser(cube, table, cost_per_side=0.001, max_weight=0.3)
    assert (found.name, found.horizon, found.lookback, found.cost_per_side, found.max_weight) == ("naive_optimiser", 5, 252, 0.001, 0.3)
    assert forecast_optimiser(replace(cube, bars_per_year=52.0), table, cost_per_side=0.0, max_weight=1.0).horizon == 1


def test_a_view_without_the_forecast_is_refused() -> None:
    cube = market()
    with pytest.raises(MissingDataError, match="needs a forecast of 'naive'"):
        run(optimiser(), cube, slice(100, 110), Terms(COSTS, "next_close"))
