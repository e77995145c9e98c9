"""The hidden Markov regime: filtered by hand and as hmmlearn's posterior of every prefix; fitted on training rows, never smoothed."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM
from safetensors.numpy import load, save

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.errors import ConfigError, ModelError
from rlaif_ray.features.fitted import FittedFeature, by_symbol
from rlaif_ray.features.hmm import HiddenMarkov, HiddenMarkovState, filtered, observations, stationary
from rlaif_ray.features.series import adjusted
from tests.laws import assert_apply, assert_fit, assert_pure, moments, random_bars

TRANSITION = np.array([[0.97, 0.02, 0.01], [0.02, 0.96, 0.02], [0.01, 0.02, 0.97]])
DRIFT, SIZE = np.array([-0.004, 0.0, 0.003]), np.array([0.02, 0.004, 0.009])
FEATURE: FittedFeature[HiddenMarkovState] = HiddenMarkov()


def planted(rows: int = 900, seed: int = 0) -> tuple[Panel, np.ndarray]:
    """Bars of a market with three regimes (falling and wild, calm, rising), and the true ones as -1, 0, 1."""
    rng = np.random.default_rng(seed)
    state = np.ones(rows, int)
    for t in range(1, rows):
        state[t] = rng.choice(3, p=TRANSITION[state[t - 1]])
    close = 100 * np.exp(np.cumsum(DRIFT[state] + SIZE[state] * rng.standard_normal(rows)))
    half = 0.5 * SIZE[state] * np.exp(0.3 * rng.standard_normal(rows))
    times = np.datetime64("2015-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(rows)
    prices = {"open": close, "high": close * np.exp(half), "low": close * np.exp(-half), "close": close, "volume": np.ones(rows)}
    frame = pl.DataFrame({"symbol": ["A"] * rows, "timestamp": times, "known_at": times, **prices})
    return Panel.of(frame.with_columns(pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC))), state - 1.0


def model_of(state: HiddenMarkovState, row: int = 0) -> GaussianHMM:
    """hmmlearn's model with the parameters of ours."""
    model = GaussianHMM(state.start.shape[1], "full")
    model.startprob_, model.transmat_ = state.start[row], state.transition[row]
    model.means_, model.covars_ = state.means[row], state.covariances[row]
    return model


# --- by hand -------------------------------------------------------------------------------------------------------


def test_filter_by_hand() -> None:
    """Means 0 and 2, variance 1: the density of x in the first state is e^(2 - 2x) times that in the second.

    At 1 they are equal: one half each, and 0.9/2 + 0.2/2 = 0.55 for the next. At 1 + ln(2)/2 the second is twice as likely: 0.55
    against 2 x 0.45, or 11/29. That makes 0.9 x 11/29 + 0.2 x 18/29 = 27/58 for the third, at 1 again.
    """
    transition, means, variances = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.0], [2.0]]), np.ones((2, 1, 1))
    x = np.array([[1.0], [1.0 + np.log(2) / 2], [1.0]])
    p = filtered(x, np.array([0.5, 0.5]), transition, means, variances)
    np.testing.assert_allclose(p[:, 0], [1 / 2, 11 / 29, 27 / 58], rtol=1e-12)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-14)
    silent = np.array([[np.nan], [1.0], [np.nan], [1e200]])  # nothing yet; one half; no observation; one that no state allows
    np.testing.assert_allclose(filtered(silent, np.array([0.5, 0.5]), transition, means, variances)[:3, 0], [np.nan, 0.5, 0.55])
    assert np.isfinite(filtered(silent, np.array([0.5, 0.5]), transition, means, variances)[3]).all()


def test_stationary_law_by_hand() -> None:
    """0.1 leaves the first state where 0.2 leaves the second: two thirds and one third."""
    np.testing.assert_allclose(stationary(np.array([[0.9, 0.1], [0.2, 0.8]])), [2 / 3, 1 / 3], rtol=1e-12)


# --- parity --------------------------------------------------------------------------------------------------------


def test_the_filter_is_the_posterior_of_every_prefix_at_its_last_row() -> None:
    panel, _ = planted(500)
    state = FEATURE.fit(panel)
    x = observations(adjusted(panel)[0], "range")[1:]
    ours = filtered(x, state.start[0], state.transition[0], state.means[0], state.covariances[0])
    model = model_of(state)
    theirs = np.array([model.predict_proba(x[: t + 1])[-1] for t in range(len(x))])
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    frame = FEATURE.apply(panel, state).frame
    np.testing.assert_allclose(frame.select(FEATURE.names[:3]).to_numpy()[1:], theirs, atol=1e-6)


# --- it learns -----------------------------------------------------------------------------------------------------


def test_planted_regimes_are_found_out_of_sample() -> None:
    panel, truth = planted(1500)
    state = FEATURE.fit(panel, moments(panel)[899])
    found = FEATURE.apply(panel, state).frame["hmm_state"].to_numpy()
    assert (found[900:] == truth[900:]).mean() > 0.9
    assert (np.diff(state.means[0, :, 0]) > 0).all()
    assert np.abs(state.means[0, :, 0] - DRIFT).max() < 0.003


def test_labels_do_not_depend_on_where_the_fit_started() -> None:
    panel, _ = planted(600)
    a, b = (HiddenMarkov(seed=seed).apply(panel, HiddenMarkov(seed=seed).fit(panel)).frame for seed in (0, 1))
    assert (a["hmm_state"].to_numpy() == b["hmm_state"].to_numpy())[1:].mean() > 0.99
    again = FEATURE.fit(panel)
    assert all(np.array_equal(getattr(again, n), getattr(FEATURE.fit(panel), n)) for n in ("transition", "means", "covariances"))


def test_two_states_of_closes_only() -> None:
    panel, _ = planted(1200)
    closes = Panel.of(panel.frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c != "close"))
    feature = HiddenMarkov(states=2, observed="volatility")
    frame = feature.apply(closes, feature.fit(closes)).frame
    assert feature.names == ("hmm_bear", "hmm_bull", "hmm_state") and set(frame["hmm_state"].drop_nans()) == {-1.0, 1.0}
    assert np.argmax(np.isfinite(frame["hmm_bear"].to_numpy())) == 21
    assert np.isnan(HiddenMarkov().fit(closes).start).all()  # without a range


# --- laws ----------------------------------------------------------------------------------------------------------


def test_the_fit_sees_training_rows_only_and_the_rest_follows_from_it() -> None:
    panel = random_bars(np.random.default_rng(5), 700, 2)
    feature = HiddenMarkov(restarts=2)
    end = moments(panel)[450]
    state = feature.fit(panel, end)
    assert state.fit_end == end and np.isfinite(state.means).all()
    assert_fit(lambda p: feature.fit(p, end), panel, end, np.random.default_rng(0))
    for t in (0, 200, 450, 698):
        assert_apply(lambda p: feature.apply(p, state), panel, t, np.random.default_rng(t))
        assert_pure(lambda p: feature.apply(p, state), panel, t)


def test_a_smoothed_model_is_caught() -> None:
    panel, _ = planted(400)
    state = FEATURE.fit(panel)

    def smoothed(p: Panel) -> Panel:
        return by_symbol(p, ["bull"], lambda _, s: [np.r_[np.nan, model_of(state).predict_proba(observations(s, "range")[1:])[:, 2]]])

    with pytest.raises(AssertionError, match="changed what was computed up to it"):
        assert_pure(smoothed, panel, 300)


def test_a_model_fitted_on_all_rows_is_caught() -> None:
    panel = random_bars(np.random.default_rng(3), 400)
    with pytest.raises(AssertionError, match="the fit saw past its end"):
        assert_fit(lambda p: HiddenMarkov(restarts=1).fit(p).means, panel, 300, np.random.default_rng(0))


# --- extremes ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_fitted_is_undefined() -> None:
    panel, _ = planted(600)
    flat = panel.frame.with_columns(pl.lit("FLAT").alias("symbol"), *[pl.lit(5.0).alias(c) for c in PRICE_COLUMNS])
    short, late = (panel.frame.with_columns(pl.lit(s).alias("symbol")) for s in ("SHORT", "LATE"))
    known = Panel.of(pl.concat([panel.frame, flat, short.head(100)]))
    state = HiddenMarkov(restarts=1).fit(known)
    assert np.isnan(state.start).all(axis=1).tolist() == [False, True, True]
    out = FEATURE.apply(Panel.of(pl.concat([known.frame, late])), state).frame
    assert out.filter(pl.col("hmm_bull").is_not_nan())["symbol"].unique().to_list() == ["A"]
    assert FEATURE.apply(Panel(panel.frame.head(0)), state).columns == list(FEATURE.names)


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_halts_and_scale(scale: float) -> None:
    panel, _ = planted(400)
    state = HiddenMarkov(restarts=1).fit(panel)
    halted = pl.int_range(pl.len()).is_between(200, 209)
    frame = panel.frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c) * scale).alias(c) for c in PRICE_COLUMNS)
    p = FEATURE.apply(Panel.of(frame), state).frame.select(FEATURE.names[:3]).to_numpy().astype(float)
    assert np.isfinite(p[1:]).all()
    np.testing.assert_allclose(p[200], p[199] @ state.transition[0], atol=1e-6)
    np.testing.assert_allclose(p[209], p[199] @ np.linalg.matrix_power(state.transition[0], 10), atol=1e-6)


def test_what_does_not_converge_says_so_in_one_line() -> None:
    panel, _ = planted(400)
    with pytest.raises(ModelError, match=r"A: none of 2 hidden Markov fits of 3 states converged within 2 iterations; .* raise iterations"):
        HiddenMarkov(restarts=2, iterations=2).fit(panel)
    with pytest.raises(ConfigError, match="has 5 states"):
        HiddenMarkov(states=5)
    with pytest.raises(ModelError, match="has 2 states; expected 3"):
        FEATURE.apply(panel, HiddenMarkov(states=2, restarts=1).fit(panel))


def test_a_last_bar_like_no_other_leaves_every_state_a_way_out() -> None:
    """A state that holds the last row alone has never been left."""
    panel, _ = planted(400)
    last = pl.int_range(pl.len()) == 399
    wild = panel.frame.with_columns(pl.when(last).then(pl.col(c) * 1e4).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "close"))
    state = HiddenMarkov(restarts=2).fit(Panel.of(wild))
    assert (state.transition > 0).all() and (state.start > 0).all()
    np.testing.assert_allclose(state.transition.sum(axis=2), 1.0, rtol=1e-12)


def test_a_state_comes_back_from_safetensors_and_json() -> None:
    panel, _ = planted(400)
    state = HiddenMarkov(restarts=1).fit(panel)
    arrays, words = state.to_arrays()
    again = HiddenMarkovState.of_arrays(load(save(arrays)), json.loads(json.dumps(words)))
    assert (again.symbols, again.fit_end, again.observed) == (("A",), state.fit_end, "range")
    assert FEATURE.apply(panel, again).frame.equals(FEATURE.apply(panel, state).frame)
