from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.execution.caps import apply_cap, effective_cap


def test_what_is_cut_goes_to_the_others_in_proportion():
    assert apply_cap(np.array([0.6, 0.3, 0.1]), 0.5) == pytest.approx([0.5, 0.375, 0.125])


def test_a_name_lifted_over_the_cap_is_cut_in_turn():
    # 0.3 of excess lifts 0.35 beyond 0.4 as well; the last two take the rest, 2 to 1
    assert apply_cap(np.array([0.5, 0.38, 0.08, 0.04]), 0.4) == pytest.approx([0.4, 0.4, 0.4 / 3, 0.2 / 3])


def test_cash_where_no_other_name_has_weight():
    assert apply_cap(np.array([1.0, 0.0, 0.0]), 0.4).tolist() == [0.4, 0, 0]
    assert apply_cap(np.array([0.5, 0.5, 0.0, 0.0]), 0.3).tolist() == [0.3, 0.3, 0, 0]


def test_a_cap_below_one_over_a_becomes_that():
    assert effective_cap(0.1, 4) == 0.25
    assert apply_cap(np.array([0.7, 0.1, 0.1, 0.1]), 0.1) == pytest.approx([0.25] * 4)


def test_laws():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(6, 0.3), (50, 20)) * rng.choice([1.0, 0.5], (50, 20, 1))
    capped = apply_cap(weights, 0.3)
    total = weights.sum(axis=-1)
    assert (capped <= 0.3 + 1e-15).all()
    assert (capped >= 0).all()
    room = np.minimum(total, 0.3 * (weights > 0).sum(axis=-1))
    assert capped.sum(axis=-1) == pytest.approx(room)
    assert apply_cap(capped, 0.3) == pytest.approx(capped)
    before, after = (w[..., :, None] - w[..., None, :] for w in (weights, capped))
    assert (before * after >= -1e-12).all()  # the order of the names is kept
    within = weights.max(axis=-1) <= 0.3
    assert np.array_equal(capped[within], weights[within])
    one_by_one = np.array([[apply_cap(w, 0.3) for w in row] for row in weights])
    assert np.array_equal(one_by_one, capped)
