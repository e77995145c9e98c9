"""Proper scores by hand and in closed form, their law by simulation, what is usual, and metrics by name."""

from statistics import NormalDist

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.feedback.scoring import METRICS, climatological, climatological_quantiles, crps_gain, log_gain, metric, quantile_score
from tests.desk import planted

NAN = float("nan")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([NormalDist().inv_cdf(x) for x in LEVELS])


# --- what is usual ------------------------------------------------------------------------------------------------


def test_climatology_by_hand_counts_only_what_had_closed() -> None:
    residual = np.array([[0.1], [0.2], [-0.1], [NAN], [0.3], [0.0]])
    # one pseudo-outcome on each side; over 2 bars two outcomes count as one, and that of row t closes at row t + 2
    assert np.allclose(climatological(residual, 2, 1.0)[:, 0], [1 / 2, 1 / 2, 1.5 / 2.5, 2 / 3, 2 / 3.5, 2 / 3.5])


def test_before_anything_has_closed_even_chances_are_usual() -> None:
    assert (climatological(np.full((3, 2), 0.1), 5) == 0.5).all()
    deviation = np.full((3, 1), 0.02)
    assert np.allclose(climatological_quantiles(np.full((3, 1), 0.1), 5, deviation, LEVELS), 0.02 * NORMAL)


def test_usual_quantiles_by_hand() -> None:
    residual = np.array([[0.3], [-0.1], [NAN], [0.2], [9.0]])
    deviation = np.array([[0.1], [0.1], [0.1], [NAN], [0.1]])
    usual = climatological_quantiles(residual, 1, deviation, (0.5,), prior=1.0)[:, 0, 0]
    # closed by row: none; 0.3; 0.3 and -0.1; the same, but no deviation; and 0.2: medians .3, .1, .2, each with one normal median of 0
    assert np.allclose(usual, [0.0, 0.3 / 2, 2 * 0.1 / 3, NAN, 3 * 0.2 / 4], equal_nan=True)


# --- scores by hand -----------------------------------------------------------------------------------------------


def test_log_gain_by_hand() -> None:
    gain = log_gain(np.array([0.8, 0.8, 0.8, NAN, 0.8]), np.array([0.5, 0.6, 0.6, 0.5, 0.5]), np.array([0.01, 0.01, -0.01, 0.01, NAN]))
    assert np.allclose(gain, [np.log(1.6), np.log(0.8 / 0.6), np.log(0.2 / 0.4), NAN, NAN], equal_nan=True)


def test_the_quantile_score_of_a_median_is_its_absolute_error() -> None:
    assert np.allclose(quantile_score(np.array([[0.1], [0.1]]), np.array([0.4, -0.2]), (0.5,)), [0.3, 0.3])


def test_the_quantile_score_tends_to_the_crps_of_a_normal() -> None:
    levels = tuple((np.arange(2000) + 0.5) / 2000)
    quantiles = np.array([NormalDist().inv_cdf(x) for x in levels])
    for y in (-1.3, 0.0, 0.4, 2.5):
        closed = y * (2 * NormalDist().cdf(y) - 1) + 2 * NormalDist().pdf(y) - 1 / np.sqrt(np.pi)  # Gneiting et al. 2005, eq. 5
        assert abs(float(quantile_score(quantiles, np.array(y), levels)) - closed) < 1e-3


def test_the_crps_gain_has_no_unit() -> None:
    said, usual, truth = np.array([[-0.01, 0.01, 0.03]]), np.array([[-0.02, 0.0, 0.02]]), np.array([0.02])
    levels = (0.1, 0.5, 0.9)
    gain, in_cents = (crps_gain(c * said, c * usual, np.array([c * 0.0156]), c * truth, levels) for c in (1.0, 100.0))
    assert gain[0] > 0 and np.allclose(gain, in_cents)


# --- the law ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [0.35, 0.5, 0.55, 0.8])
def test_the_true_probability_maximises_the_expected_log_score(truth: float) -> None:
    rng = np.random.default_rng(0)
    residual = np.where(rng.random(200_000) < truth, 1.0, -1.0)[:, None]
    tilt = truth - 0.5
    beliefs = np.array([truth, 0.5 + tilt / 2, np.clip(0.5 + 2 * tilt, 0.03, 0.97), 0.99, 0.01, truth - 0.05, truth + 0.05])
    mean = log_gain(beliefs, np.full((200_000, 1), truth), residual).mean(axis=0)
    assert mean[0] == 0.0 and (mean[3:] < -0.003).all() and (tilt == 0 or (mean[1:3] < 0).all())


def test_a_belief_that_moves_with_the_truth_beats_every_belief_that_stands_still() -> None:
    """Chances differ from date to date around a base rate of 0.58: who boasts, always buys or is always neutral loses to climatology."""
    rng = np.random.default_rng(1)
    truth = np.clip(0.58 + 0.08 * rng.standard_normal(100_000), 0.2, 0.9)
    residual = np.where(rng.random(100_000) < truth, 1.0, -1.0)
    usual = np.full(100_000, 0.58)
    beliefs = {
        "true": truth, "boasts": np.where(truth > 0.5, 0.99, 0.01), "always buys": np.full_like(truth, 0.9),
        "neutral": np.full_like(truth, 0.5), "doubles": np.clip(0.58 + 2 * (truth - 0.58), 0.02, 0.98), "inverts": 1.16 - truth,
    }  # fmt: skip
    mean = {name: float(log_gain(p, usual, residual).mean()) for name, p in beliefs.items()}
    assert mean["true"] > 0.005
    assert all(mean[name] < 0 for name in ("boasts", "always buys", "neutral", "inverts")) and mean["doubles"] < mean["true"]


@pytest.mark.parametrize(("shift", "width"), [(0.0, 1.0), (0.3, 1.0), (-0.2, 0.7), (0.1, 1.5)])
def test_the_true_quantiles_maximise_the_expected_gain(shift: float, width: float) -> None:
    rng = np.random.default_rng(2)
    truth = shift + width * rng.standard_normal(200_000)
    others = [(shift + 0.2, 1.0), (shift - 0.2, 1.0), (shift, 0.2), (shift, 0.75), (shift, 1.35), (shift, 4.0), (3.0, 1.0)]
    usual = np.broadcast_to(NORMAL, (200_000, 5))

    def mean(at: float, wide: float) -> float:
        return float(crps_gain(np.broadcast_to(at + wide * width * NORMAL, (200_000, 5)), usual, np.ones(200_000), truth, LEVELS).mean())

    best = mean(shift, 1.0)
    assert all(mean(*other) < best - 0.003 for other in others)
    assert best == 0.0 if (shift, width) == (0.0, 1.0) else best > 0.005


def test_a_tilt_gains_about_as_many_deviations_as_its_p_up_gains_nats() -> None:
    rng = np.random.default_rng(3)
    truth = 0.2 + rng.standard_normal(400_000)
    levels = tuple((np.arange(19) + 1) / 20)
    normal = np.array([NormalDist().inv_cdf(x) for x in levels])
    shape = (400_000, 19)
    by_quantiles = crps_gain(np.broadcast_to(0.2 + normal, shape), np.broadcast_to(normal, shape), np.ones(400_000), truth, levels).mean()
    by_p_up = log_gain(np.full(400_000, NormalDist().cdf(0.2)), np.full(400_000, 0.5), truth).mean()
    assert 0.7 < by_quantiles / by_p_up < 1.3


# --- metrics ------------------------------------------------------------------------------------------------------


def shorter_falls(outcomes):
    return -outcomes.drawdown


def wrong_shape(outcomes):
    return outcomes.residual


NOT_A_FUNCTION = 3


def test_metrics_by_name_are_such_that_larger_is_better() -> None:
    outcomes = planted(0, (0.7, 0.5), (0.4, 0.5), dates=20).outcomes
    for name in METRICS:
        assert metric(name)(outcomes).shape == outcomes.score.shape
    assert metric("score")(outcomes) is outcomes.score
    assert np.array_equal(metric("drawdown")(outcomes), -outcomes.drawdown)
    assert np.array_equal(metric("tests.feedback.test_scoring:shorter_falls")(outcomes), metric("drawdown")(outcomes))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scor", "Did you mean 'score'"),
        ("no.such.module:f", "No module named 'no'"),
        (":f", "Empty module name"),
        ("tests.feedback.test_scoring:g", "has no 'g'"),
        ("tests.feedback.test_scoring:NOT_A_FUNCTION", "is of type int"),
    ],
)
def test_a_metric_that_there_is_not_is_a_clear_error(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        metric(name)


def test_a_metric_of_another_shape_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"returned shape \(20, 10\); expected"):
        metric("tests.feedback.test_scoring:wrong_shape")(planted(0, (0.7,), (0.4,), dates=20).outcomes)
