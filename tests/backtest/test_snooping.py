from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap, StepM

from rlaif_ray.backtest.significance import bootstrap_variance, stationary_indices
from rlaif_ray.backtest.snooping import superiority
from rlaif_ray.errors import DataError


class Replayed(StationaryBootstrap):
    """arch's bootstrap on resamples that are given to it."""

    def __init__(self, indices: np.ndarray, block: int, columns: np.ndarray) -> None:
        super().__init__(block, columns, seed=0)
        self.given = iter(indices)

    def update_indices(self) -> np.ndarray:
        return next(self.given)


def market(rng: np.random.Generator, bars: int, trials: int, edges: tuple[float, ...] = ()) -> np.ndarray:
    """Correlated fat-tailed excess returns of very different sizes; `edges` are Sharpe ratios per bar of the first series."""
    z = (rng.standard_t(5, (bars, 1)) + rng.standard_t(5, (bars, trials))) / np.sqrt(2 * 5 / 3)
    z[:, : len(edges)] += edges
    return z * 0.01 * np.geomspace(0.2, 5, trials)


EDGES = [(), (0.15,), (0.1, 0.2, 0.12, -0.3, -0.2), (0.3, 0.25, 0.08), (0.05,)]


@pytest.mark.parametrize(("seed", "edges"), list(enumerate(EDGES)))
def test_p_value_and_superior_set_are_archs_for_the_same_resamples(seed, edges):
    """On studentised columns, since arch divides no mean by its standard error."""
    bars, block, resamples = 300, 4, 400
    x = market(np.random.default_rng(seed), bars, 12, edges)
    found = superiority(x, block=block, resamples=resamples, seed=seed)
    scaled = x / np.sqrt(bootstrap_variance(x, block))
    indices = stationary_indices(bars, block, resamples, np.random.default_rng(seed))
    spa = SPA(np.zeros(bars), -scaled, block_size=block, reps=resamples)
    spa.bootstrap = Replayed(indices, block, scaled)
    spa.compute()
    assert found.p_value == spa.pvalues["consistent"]
    assert found.critical == pytest.approx(spa.critical_values()["consistent"] * np.sqrt(bars))
    assert spa._loss_diff_var == pytest.approx(np.ones(12))
    steps = StepM(np.zeros(bars), -scaled, size=0.05, block_size=block, reps=resamples)
    steps.spa.bootstrap = Replayed(indices, block, scaled)
    steps.compute()
    assert found.superior == tuple(steps.superior_models)


def test_the_better_ones_are_found_and_the_rest_is_not_named():
    x = market(np.random.default_rng(5), 1000, 20, (0.2, 0.15, 0.0, -0.1))
    found = superiority(x, seed=0)
    assert found.p_value < 0.01
    assert found.superior == (0, 1)
    assert found.best == 0
    assert found.statistic > found.critical
    assert (found.trials, found.bars) == (20, 1000)
    all_better = superiority(market(np.random.default_rng(6), 1000, 3, (0.3, 0.3, 0.3)), seed=0)
    assert all_better.superior == (0, 1, 2)


def test_stepping_down_finds_what_one_step_does_not():
    """Many clear winners leave, so the bar for the last one falls from the best of 30 to the best of 6."""
    x = market(np.random.default_rng(1), 1000, 30, (*[0.4] * 24, 0.08))
    found = superiority(x, resamples=2000, seed=0)
    mean = x.mean(axis=0) / np.sqrt(bootstrap_variance(x, found.block) / 1000)
    assert set(np.flatnonzero(mean > found.critical)) == set(range(24))
    assert found.superior == tuple(range(25))


def test_order_size_and_copies_of_trials_change_nothing():
    x = market(np.random.default_rng(7), 400, 15, (0.1,))
    found = superiority(x, block=3, seed=1)
    order = np.random.default_rng(0).permutation(15)
    permuted = superiority(x[:, order], block=3, seed=1)
    assert permuted.p_value == found.p_value
    assert order[permuted.best] == found.best
    assert {order[k] for k in permuted.superior} == set(found.superior)
    assert superiority(x * np.geomspace(1, 50, 15), block=3, seed=1).p_value == found.p_value
    assert superiority(np.concatenate([x, x], axis=1), block=3, seed=1).p_value == found.p_value


def test_a_trial_that_is_not_the_best_never_lowers_the_p_value():
    rng = np.random.default_rng(9)
    x = market(rng, 400, 10, (0.1,))
    p_values = [superiority(x[:, :k], block=3, seed=1).p_value for k in range(1, 11)]
    worthless = np.concatenate([x, rng.normal(-0.002, 0.01, (400, 50))], axis=1)
    p_values.append(superiority(worthless, block=3, seed=1).p_value)
    assert p_values == sorted(p_values)


def test_lifting_the_best_never_raises_the_p_value():
    x = market(np.random.default_rng(10), 400, 10)
    best = superiority(x, block=3, seed=1).best
    p_values = []
    for k in range(8):
        lifted = x.copy()
        lifted[:, best] += k * 0.02 * x[:, best].std()
        p_values.append(superiority(lifted, block=3, seed=1).p_value)
    assert p_values == sorted(p_values, reverse=True)
    assert p_values[0] > 0.2 > p_values[-1]


def test_the_best_of_a_hundred_without_skill_is_rarely_promoted():
    """200 markets of 100 correlated null trials over 400 bars: at most 5% + two standard errors."""
    rng = np.random.default_rng(11)
    found = np.array([superiority(market(rng, 400, 100), resamples=200, seed=k).p_value for k in range(200)])
    assert np.mean(found <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(found <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_a_search_that_cannot_be_judged_is_refused():
    x = market(np.random.default_rng(12), 100, 4)
    for level, message in ((np.nan, "holds nan in bar 0 of series 2"), (0.0, "constant in series 2"), (0.1, "constant in series 2")):
        bad = x.copy()
        bad[:, 2] = level
        with pytest.raises(DataError, match=message):
            superiority(bad, seed=0)
    for bad in (x[:, 0], x[:10], x[:, :0]):
        with pytest.raises(DataError):
            superiority(bad, seed=0)
    for block in (51, 0.5):
        with pytest.raises(DataError, match="shorten it"):
            superiority(x, block=block, seed=0)
    for level, resamples in ((0.0, 1000), (0.05, 10)):
        with pytest.raises(DataError, match="at least one resample"):
            superiority(x, level=level, resamples=resamples, seed=0)
