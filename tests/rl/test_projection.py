import itertools
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from rlaif_ray.errors import ConfigError, ExecutionError
from rlaif_ray.execution.caps import effective_cap
from rlaif_ray.rl.projection import ActionSet

SECTORS = (0, 0, 1, 1)
SETS = [
    ActionSet(cap, long_short, sectors, max_sector)
    for cap in (0.3, 0.5, 1.0)
    for long_short in (False, True)
    for sectors, max_sector in (((), 1.0), (SECTORS, 0.6), (SECTORS, 0.5), ((0, -1, -1, 0), 0.5))
]


def asked(allowed: ActionSet, weights: np.ndarray) -> np.ndarray:
    """The scores that ask for these weights when all names are listed."""
    cap = effective_cap(allowed.max_weight, weights.shape[1])
    return (weights - (0.0 if allowed.long_short else min(1.0 / weights.shape[1], cap))) / cap


def feasible(allowed: ActionSet, weights: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """(N,) bool."""
    cap, size = effective_cap(allowed.max_weight, weights.shape[1]), np.abs(weights)
    ok = (size <= cap + tolerance).all(1) & (np.abs(weights.sum(1)) <= 1 + tolerance) & (size.sum(1) <= 2 + tolerance)
    if not allowed.long_short:
        ok &= (weights >= -tolerance).all(1)
    for sector in set(allowed.sectors) - {-1}:
        ok &= size[:, np.array(allowed.sectors) == sector].sum(1) <= allowed.max_sector + tolerance
    return ok


@lru_cache
def corners(allowed: ActionSet) -> np.ndarray:
    """Every vertex of the set of four names: feasible points at which as many independent constraints bind as there are names."""
    signs = np.array(list(itertools.product((-1, 1), repeat=4))) if allowed.long_short else np.ones((1, 4))
    cap, one = effective_cap(allowed.max_weight, 4), np.ones((1, 4))
    groups = [(np.eye(4), cap), (-np.eye(4), cap if allowed.long_short else 0.0), (one, 1.0), (-one, 1.0), (signs, 2.0)]
    groups += [(signs * (np.array(allowed.sectors) == s), allowed.max_sector) for s in set(allowed.sectors) - {-1}]
    faces = np.unique(np.vstack([np.column_stack((normals, np.full(len(normals), limit))) for normals, limit in groups]), axis=0)
    fours = faces[np.array(list(itertools.combinations(range(len(faces)), 4)))]
    fours = fours[np.abs(np.linalg.det(fours[:, :, :4])) > 1e-9]
    found = np.linalg.solve(fours[:, :, :4], fours[:, :, 4:])[:, :, 0]
    points = np.unique(np.round(found, 12) + 0.0, axis=0)
    return points[feasible(allowed, points, 1e-9)]


@pytest.mark.parametrize("allowed", SETS, ids=str)
def test_every_corner_is_reached(allowed: ActionSet) -> None:
    points = corners(allowed)
    assert len(points) >= 5
    scores = asked(allowed, points)
    assert np.abs(scores).max() <= 1 + 1e-12
    np.testing.assert_allclose(allowed.targets(scores, np.ones(points.shape, bool)), points, atol=1e-11)


@pytest.mark.parametrize("allowed", SETS, ids=str)
def test_what_is_allowed_stays_as_it_is(allowed: ActionSet) -> None:
    points = corners(allowed)
    mixed = np.random.default_rng(0).dirichlet(np.ones(len(points)), 500) @ points
    np.testing.assert_allclose(allowed.targets(asked(allowed, mixed), np.ones(mixed.shape, bool)), mixed, atol=1e-12)


@pytest.mark.parametrize("allowed", SETS, ids=str)
@pytest.mark.parametrize("scale", [0.3, 1.0, 50.0])
def test_any_scores_are_made_feasible_and_torch_says_the_same(allowed: ActionSet, scale: float) -> None:
    rng = np.random.default_rng(1)
    scores, listed = scale * rng.standard_normal((2000, 4)), rng.random((2000, 4)) < 0.8
    scores[:200] = np.round(scores[:200] * 4) / 4  # ties
    weights = allowed.targets(scores, listed)
    assert feasible(allowed, weights).all() and not weights[~listed].any()
    soft = allowed.soft(torch.from_numpy(scores), torch.from_numpy(listed))
    np.testing.assert_allclose(soft.numpy(), weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("long_short", [False, True])
def test_of_many_names_too(long_short: bool) -> None:
    rng = np.random.default_rng(2)
    allowed = ActionSet(0.05, long_short, tuple(rng.integers(-1, 11, 200).tolist()), 0.15)
    scores, listed = np.tanh(rng.standard_normal((300, 200)) * rng.uniform(0, 3, (300, 1))), rng.random((300, 200)) < 0.9
    weights = allowed.targets(scores, listed)
    assert feasible(allowed, weights).all()
    soft = allowed.soft(torch.from_numpy(scores), torch.from_numpy(listed).double())
    np.testing.assert_allclose(soft.numpy(), weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cap", [0.3, 0.5, 1.0])
def test_long_only_is_the_nearest_point(cap: float) -> None:
    rng = np.random.default_rng(3)
    for scores in rng.uniform(-1, 1, (10, 5)):
        ask = min(0.2, cap) + cap * scores
        best = minimize(
            lambda w, ask=ask: ((w - ask) ** 2).sum(), np.full(5, 0.1), jac=lambda w, ask=ask: 2 * (w - ask), bounds=[(0, cap)] * 5,
            constraints={"type": "ineq", "fun": lambda w: 1 - w.sum()}, method="SLSQP", options={"ftol": 1e-14},
        )  # fmt: skip
        np.testing.assert_allclose(ActionSet(cap).targets(scores[None], np.ones((1, 5), bool))[0], best.x, atol=1e-6)


def test_by_hand() -> None:
    """Asked 1.2, 0.8 and -0.1 of two thirds and more: 0.2 above the level each until the sum is 1."""
    allowed, all_listed = ActionSet(1.0), np.ones((1, 3), bool)
    scores = np.array([[1.2, 0.8, -0.1]]) - 1 / 3
    np.testing.assert_allclose(allowed.targets(scores, all_listed), [[0.7, 0.3, 0.0]], atol=1e-12)
    np.testing.assert_allclose(ActionSet(0.5).targets(2 * scores, all_listed), [[0.5, 0.5, 0.0]], atol=1e-12)
    short = ActionSet(1.0, long_short=True)
    np.testing.assert_allclose(short.targets(np.array([[1.0, -1.0, 0.6]]), all_listed), [[0.8, -0.8, 0.4]], atol=1e-12)
    np.testing.assert_allclose(short.targets(np.array([[1.0, 0.5, -0.2]]), all_listed), [[0.8, 0.4, -0.2]], atol=1e-12)


def test_zero_is_equal_weight_or_flat() -> None:
    listed = np.array([[True, True, True, False], [True, False, False, False], [False] * 4])
    equal = ActionSet(1.0).targets(np.zeros((3, 4)), listed)
    np.testing.assert_array_equal(equal, [[1 / 3, 1 / 3, 1 / 3, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(ActionSet(0.5).targets(np.zeros((3, 4)), listed)[1], [0.5, 0, 0, 0])
    np.testing.assert_array_equal(ActionSet(1.0, long_short=True).targets(np.zeros((3, 4)), listed), np.zeros((3, 4)))


@pytest.mark.parametrize("allowed", SETS, ids=str)
def test_gradient_is_that_of_finite_differences(allowed: ActionSet) -> None:
    """Off the kinks, which one row in some hundreds comes within the step of: the weights are piecewise smooth in the scores."""
    g = torch.Generator().manual_seed(0)
    scores = (torch.rand(40, 4, dtype=torch.float64, generator=g) * 2 - 1).requires_grad_(True)
    listed = (torch.rand(40, 4, generator=g) < 0.9).double()
    assert torch.autograd.gradcheck(lambda s: allowed.soft(s, listed), (scores,), eps=1e-7, atol=1e-6)


def test_of_float32_scores() -> None:
    scores = torch.rand(64, 30) * 2 - 1
    soft = ActionSet(0.3).soft(scores, torch.ones(64, 30))
    assert soft.dtype == torch.float32
    np.testing.assert_allclose(soft.numpy(), ActionSet(0.3).targets(scores.numpy(), np.ones((64, 30), bool)), atol=1e-6)


def test_what_is_no_set_or_no_score_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_weight is 1.5; expected a fraction of equity in \(0, 1\]"):
        ActionSet(1.5)
    with pytest.raises(ConfigError, match="sectors of 2 assets; expected those of all 3"):
        ActionSet(0.5, False, (0, 1), 0.5).targets(np.zeros((1, 3)), np.ones((1, 3), bool))
    with pytest.raises(ConfigError, match="sector numbers"):
        ActionSet(0.5, False, (0, -2), 0.5)
    with pytest.raises(ExecutionError, match="score 1 of path 0 is nan"):
        ActionSet(0.5).targets(np.array([[0.0, np.nan]]), np.ones((1, 2), bool))
