from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from rlaif_ray.errors import DataError
from rlaif_ray.portfolio import risk

METHODS = (risk.historical, risk.cornish_fisher)


def regimes(bars: int, seed: int = 0) -> np.ndarray:
    """(T,) Student-t(4) returns whose volatility is 1% and 3% in turns of 500 bars."""
    rng = np.random.default_rng(seed)
    return rng.standard_t(4, bars) / np.sqrt(2.0) * np.where(np.arange(bars) // 500 % 2 == 0, 0.01, 0.03)


def test_of_a_hundred_losses_the_worst_five_are_beyond():
    returns = -np.random.default_rng(0).permutation(np.arange(1, 101)) / 100.0
    assert risk.historical(returns, 0.95) == pytest.approx((0.95, (0.96 + 0.97 + 0.98 + 0.99 + 1.00) / 5))
    assert risk.historical(returns, 0.99) == pytest.approx((0.99, 1.0))


def test_a_level_that_cuts_through_a_bar_counts_part_of_it():
    # the worst 1.6 of four bars: all of the loss of 0.4, and 0.6 of that of 0.3
    assert risk.historical(-np.array([0.1, 0.4, 0.2, 0.3]), 0.6) == pytest.approx((0.3, (0.4 + 0.6 * 0.3) / 1.6))
    assert risk.historical(-np.array([0.1, 0.4, 0.2, 0.3]), 0.9) == pytest.approx((0.4, 0.4))


def test_a_normal_shape_gives_the_normal_law():
    shape = np.sqrt(3.0) * np.array([-1.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # mean 0, variance 1, skewness 0, kurtosis 3
    returns = 0.001 + 0.01 * shape
    by_hand = 2.3263478740408408 * 0.01 - 0.001, norm.pdf(2.3263478740408408) / 0.01 * 0.01 - 0.001
    assert risk.cornish_fisher(returns, 0.99) == pytest.approx(by_hand)


def test_normal_returns_give_the_normal_law():
    returns = 0.0005 + 0.01 * np.random.default_rng(0).standard_normal(400_000)
    closed = 0.01 * norm.ppf(0.95) - 0.0005, 0.01 * norm.pdf(norm.ppf(0.95)) / 0.05 - 0.0005
    assert risk.historical(returns, 0.95) == pytest.approx(closed, rel=0.01)


def test_cornish_fisher_is_the_tail_of_its_own_expansion():
    returns = 0.01 * (np.random.default_rng(1).gamma(8.0, size=2000) - 8.0) / np.sqrt(8.0) * -1.0
    z_scores = (-returns - (-returns).mean()) / returns.std()
    s, k = (z_scores**3).mean(), (z_scores**4).mean() - 3.0

    def expanded(z: float) -> float:
        return z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36

    z = float(norm.ppf(0.975))
    beyond = quad(lambda x: expanded(x) * norm.pdf(x), z, 12.0)[0] / 0.025
    expected = -returns.mean() + returns.std() * expanded(z), -returns.mean() + returns.std() * beyond
    assert risk.cornish_fisher(returns, 0.975) == pytest.approx(expected, rel=1e-7)
    assert risk.cornish_fisher(returns, 0.975).var > z * returns.std() - returns.mean()  # losses are skewed to the bad side


def test_cornish_fisher_says_nothing_beyond_its_domain():
    crash = np.append(0.01 * np.random.default_rng(0).standard_normal(249), -0.5)
    assert np.isnan(risk.cornish_fisher(crash, 0.99)).all()
    assert risk.cornish_fisher(np.full(250, 0.002), 0.99) == pytest.approx((-0.002, -0.002))  # always the same: no shape, no tail


@pytest.mark.parametrize("method", METHODS)
def test_laws_of_tail_risks(method):
    rng, said = np.random.default_rng(2), 0
    for _ in range(300):
        returns = rng.standard_t(rng.integers(3, 30), rng.integers(5, 400)) * 0.01
        level = rng.uniform(0.6, 0.995)
        one, two = method(returns, level), method(2.0 * returns, level)
        if not np.isnan(one.var):
            said += 1
            assert one.cvar >= one.var - 1e-12
            assert two == pytest.approx(tuple(2.0 * x for x in one))
            assert method(returns + 0.01, level) == pytest.approx(tuple(x - 0.01 for x in one))
    assert said > 50


def conform(losses: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(T,) quantile and CVaR that stood before each loss came."""
    memory = np.empty(risk.MEMORY)
    risk.conformal_start(memory, share)
    stood = np.empty((2, len(losses)))
    for t, loss in enumerate(losses):
        stood[:, t] = memory[risk.QUANTILE], memory[risk.CVAR]
        risk.conformal_step(memory, loss, share)
    return stood[0], stood[1]


def test_the_conformal_memory_is_the_rule_written_plainly():
    losses, share = -regimes(900), 0.05
    quantiles, tails = conform(losses, share)
    assert np.isnan(quantiles[: risk.LEAST_BARS]).all()
    miss = share
    for t in range(risk.LEAST_BARS, len(losses)):
        ranked = np.sort(losses[max(0, t - risk.WINDOW_BARS) : t])
        rank = int(np.ceil((len(ranked) + 1) * (1 - miss) - 1e-9))
        assert quantiles[t] == (np.inf if rank > len(ranked) else ranked[rank - 1])
        assert tails[t] == pytest.approx(ranked[min(rank, len(ranked)) - 1 :].mean())
        miss += risk.STEP * (share - (losses[t] > quantiles[t]))


def test_exceedances_are_near_nominal_through_regimes_of_volatility():
    losses, share = -regimes(4000), 0.05
    quantiles, _ = conform(losses, share)
    missed = (losses > quantiles)[risk.LEAST_BARS :]
    assert abs(missed.mean() - share) < 0.005
    plain = [losses[t] > np.quantile(losses[t - 250 : t], 1 - share, method="higher") for t in range(250, len(losses))]
    by_year = [abs(np.mean(x[k : k + 250]) - share) for x in (missed, plain) for k in range(0, 3500, 250)]
    assert np.mean(by_year[:14]) < 0.75 * np.mean(by_year[14:])  # a rolling quantile is right on average, and wrong for years


@pytest.mark.parametrize("losses", [np.arange(3000.0), -np.arange(3000.0), np.zeros(3000), np.tile([0.0, 1.0], 1500)])
def test_exceedances_keep_their_bound_whatever_the_losses_do(losses):
    share = 0.05
    quantiles, _ = conform(losses, share)
    missed = (losses > quantiles)[risk.LEAST_BARS :]
    assert abs(missed.mean() - share) <= (1 - share + risk.STEP) / (risk.STEP * len(missed))


def test_bad_input():
    with pytest.raises(DataError, match="1 of them not finite"):
        risk.historical(np.array([0.1, np.nan]), 0.95)
    with pytest.raises(DataError, match="expected \\(T,\\)"):
        risk.cornish_fisher(np.empty(0), 0.95)
    with pytest.raises(DataError, match="level"):
        risk.cornish_fisher(np.zeros(3), 95.0)
