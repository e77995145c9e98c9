"""The known optimum is one: the closed form is what a search finds, the kernel pays it, and the twin's gradient points to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from rlaif_ray.rl.differentiable_market import DifferentiableMarket
from tests.rl.garleanu_pedersen import CASH_USD, GROSS, LAMBDA, SIGMA_BAR, ClosedForm, PredictableMarket

FORMS = [ClosedForm(0.1), ClosedForm(0.02), ClosedForm(0.1, half_lives=(4.0, 20.0))]
ROWS, PATHS, BARS, WARM = 20_000, 100, 200, 50  # paths start in cash; the first bars are not counted
STARTS = np.arange(PATHS) * BARS


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: f"{form.ic}-{form.half_lives}")
def market(request: pytest.FixtureRequest) -> PredictableMarket:
    return PredictableMarket.of(request.param, ROWS, seed=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_search_finds_the_closed_form(form: ClosedForm) -> None:
    best = np.array([form.rate, *form.aim_loadings / form.loadings])
    found = minimize(
        lambda x: -form.utility(x[0], x[1:] * form.loadings) / form.utility(), 1.4 * best, method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000},
    )  # fmt: skip
    np.testing.assert_allclose(found.x, best, rtol=1e-5)
    assert -found.fun == pytest.approx(1.0, abs=1e-9)


def test_the_signal_has_the_information_coefficient_that_was_asked_for(market: PredictableMarket) -> None:
    seen = np.corrcoef(market.expected.ravel(), market.earned.ravel())[0, 1]
    assert seen == pytest.approx(market.form.ic, abs=4 / np.sqrt(market.expected.size))
    assert market.earned.std() == pytest.approx(SIGMA_BAR, rel=0.01)


def test_the_kernel_pays_what_the_closed_form_says(market: PredictableMarket) -> None:
    """To 1e-3 of what the paper's own recursion earns on the same signals, and to its sampling error of the expectation."""
    form, policy = market.form, market.form.policy()
    utilities, weights = market.run(policy, STARTS, BARS)
    held, plain = np.zeros((PATHS, form.assets)), np.empty((BARS, PATHS))
    for k in range(BARS):
        rows, before = STARTS + k, held
        held = policy(market.cube.features[rows], before)
        cost = 0.5 * LAMBDA * form.gamma * SIGMA_BAR**2 * ((held - before) ** 2).sum(axis=1)
        plain[k] = market.utility(held, cost, market.expected[rows])
    assert utilities[WARM:].mean() == pytest.approx(plain[WARM:].mean(), rel=1e-3)
    error = utilities[WARM:].mean(axis=0).std(ddof=1) / np.sqrt(PATHS)
    assert error < 0.03 * form.utility()
    assert utilities[WARM:].mean() == pytest.approx(form.utility(), abs=3 * error)
    assert np.abs(weights[WARM:]).sum(axis=-1).mean() == pytest.approx(GROSS, rel=0.05)
    assert np.abs(weights).max() < market.max_weight


def test_returns_that_came_say_the_same_as_their_means_but_for_noise(market: PredictableMarket) -> None:
    _, weights = market.run(market.form.policy(), STARTS, BARS)
    rows = STARTS + np.arange(BARS)[:, None]
    noise = (market.utility(weights, 0.0, market.earned[rows]) - market.utility(weights, 0.0, market.expected[rows])).ravel()
    assert abs(noise.mean()) < 3 * noise.std() / np.sqrt(noise.size)


@pytest.mark.parametrize(("rate", "aim"), [(0.5, 1.0), (0.8, 1.0), (1.25, 1.0), (2.0, 1.0), (1.0, 0.8), (1.0, 1.2), (1.3, 0.9)])
def test_another_rate_or_aim_is_worth_less_in_the_kernel(market: PredictableMarket, rate: float, aim: float) -> None:
    form = market.form
    best = market.run(form.policy(), STARTS, BARS)[0][WARM:].mean()
    other = market.run(form.policy(rate * form.rate, aim * form.aim_loadings), STARTS, BARS)[0][WARM:].mean()
    expected = form.utility(rate * form.rate, aim * form.aim_loadings) / form.utility()
    assert expected < 0.99
    assert other / best == pytest.approx(expected, abs=0.02)


def test_the_gradient_through_the_twin_points_to_the_optimum(market: PredictableMarket) -> None:
    form, twin = market.form, DifferentiableMarket.of(market.market, market.costs, market.account)
    signals, expected = torch.as_tensor(market.fields, dtype=torch.float64), torch.as_tensor(market.expected)

    def slopes(rate: float, aim: float) -> np.ndarray:
        """Of utility, in units of the best one, to the rate and the aim, in units of the best ones."""
        knobs = torch.tensor([rate, aim], dtype=torch.float64, requires_grad=True)
        starts = torch.as_tensor(STARTS)
        state, held, total = twin.start(torch.zeros(PATHS, form.assets), CASH_USD, starts), torch.zeros(PATHS, form.assets), torch.zeros(())
        for k in range(BARS):
            goal = knobs[1] * (signals[starts + k] @ torch.as_tensor(form.aim_loadings))
            state, bar = twin.bar(state, starts + k, held + knobs[0] * form.rate * (goal - held))
            held = bar.weights
            if k >= WARM:
                total = total + market.utility(held, bar.cost, expected[starts + k]).mean()
        (gradient,) = torch.autograd.grad(total / (BARS - WARM) / form.utility(), knobs)
        return gradient.numpy()

    def closed(rate: float, aim: float) -> np.ndarray:
        def worth(r: float, a: float) -> float:
            return form.utility(r * form.rate, a * form.aim_loadings) / form.utility()

        return np.array([worth(rate + 1e-5, aim) - worth(rate - 1e-5, aim), worth(rate, aim + 1e-5) - worth(rate, aim - 1e-5)]) / 2e-5

    np.testing.assert_allclose(closed(1.0, 1.0), 0.0, atol=1e-6)
    np.testing.assert_allclose(slopes(1.0, 1.0), 0.0, atol=0.03)
    np.testing.assert_allclose(slopes(0.5, 1.5), closed(0.5, 1.5), atol=0.03)
