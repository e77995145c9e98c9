from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlaif_ray.backtest.overfitting import backtest_overfitting
from rlaif_ray.errors import DataError

NOISE = np.tile([0.01, -0.01], 60)  # mean 0 over any whole number of pairs


def test_the_best_half_that_is_the_worst_other_half_by_hand():
    """Two blocks: each series earns in one of them alone, so the best of either half is the worse one in the other."""
    early = NOISE + np.repeat([0.005, -0.005], 60)
    found = backtest_overfitting(np.stack([early, -early], axis=1), blocks=2)
    assert found.pbo == 1.0
    assert found.loss == 1.0
    assert found.logits == pytest.approx(np.log([1 / 2, 1 / 2]))  # rank 1 of 2: 1/3 against 2/3
    assert found.in_sample == pytest.approx(-found.out_of_sample)
    assert found.in_sample == pytest.approx(0.005 / (0.01 * np.sqrt(60 / 59)))


def test_a_series_that_always_wins_is_not_overfitted():
    steady = np.stack([NOISE + k * 0.001 for k in range(3)], axis=1)
    found = backtest_overfitting(steady, blocks=6)
    assert (found.pbo, found.loss) == (0.0, 0.0)
    assert len(found.logits) == 20
    assert found.logits == pytest.approx(np.log(np.full(20, 3 / 1)))  # rank 3 of 3: 3/4 against 1/4


def test_equal_series_rank_in_the_middle():
    found = backtest_overfitting(np.stack([NOISE + 0.001] * 4, axis=1), blocks=4)
    assert found.logits == pytest.approx(np.zeros(6))
    assert found.pbo == 1.0  # the median is no better than half of the field


def test_the_procedure_of_the_paper_written_out():
    rng = np.random.default_rng(0)
    x = rng.standard_t(4, (83, 7)) * 0.01 + rng.normal(0, 0.002, 7)
    found = backtest_overfitting(x, blocks=6)
    parts = np.split(x[-78:], 6)  # five bars are left over
    for c, half in enumerate(combinations(range(6), 3)):
        past = np.concatenate([parts[i] for i in half])
        future = np.concatenate([parts[i] for i in range(6) if i not in half])
        best = np.argmax(past.mean(axis=0) / past.std(axis=0, ddof=1))
        sharpe = future.mean(axis=0) / future.std(axis=0, ddof=1)
        rank = np.sum(sharpe <= sharpe[best]) / 8
        assert found.logits[c] == pytest.approx(np.log(rank / (1 - rank)))
        assert found.out_of_sample[c] == pytest.approx(sharpe[best])
    assert found.pbo == np.mean(found.logits <= 0)
    assert found.loss == np.mean(found.out_of_sample < 0)
    assert found.slope == pytest.approx(np.polyfit(found.in_sample, found.out_of_sample, 1)[0])


def test_noise_is_overfitted_half_the_time_and_skill_is_not():
    rng = np.random.default_rng(1)
    noise = [backtest_overfitting(rng.normal(size=(200, 20)), blocks=8).pbo for _ in range(100)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.08)
    skilled = rng.normal(size=(1000, 20))
    skilled[:, 3] += 0.3
    found = backtest_overfitting(skilled)
    assert found.pbo < 0.01
    assert len(found.logits) == 12_870


def test_order_and_size_of_trials_change_nothing():
    x = np.random.default_rng(2).normal(size=(160, 9))
    found, order = backtest_overfitting(x, blocks=8), np.random.default_rng(3).permutation(9)
    assert backtest_overfitting(x[:, order], blocks=8).logits == pytest.approx(found.logits)
    assert backtest_overfitting(x * np.geomspace(0.1, 10, 9), blocks=8).logits == pytest.approx(found.logits)


def test_degradation_shows_where_the_sum_of_both_halves_is_fixed():
    """Noise with its mean taken out: what is won in one half is lost in the other."""
    x = np.random.default_rng(4).normal(size=(320, 30))
    found = backtest_overfitting(x - x.mean(axis=0), blocks=10)
    assert found.slope < -0.5
    assert found.pbo > 0.9


def test_what_cannot_be_cut_or_ranked_is_refused():
    x = np.random.default_rng(5).normal(size=(64, 3))
    idle = x.copy()
    idle[:32, 1] = 0.0
    for bad, blocks, message in (
        (x[:, :1], 4, "at least two to choose from"),
        (x, 5, "even number"),
        (x, 0, "even number"),
        (x, 22, "even number"),
        (x[:30], 16, "take fewer blocks"),
        (idle, 4, "series 1 is constant over half"),
        (np.where(x > 2, np.nan, x), 4, "finite"),
        (np.zeros((64, 3)), 4, "constant"),
    ):
        with pytest.raises(DataError, match=message):
            backtest_overfitting(bad, blocks=blocks)
