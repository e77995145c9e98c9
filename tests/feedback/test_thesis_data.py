from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.errors import DataError, SchemaError
from rlaif_ray.feedback.thesis_data import CLIP, StandardScaler
from tests.theses import FORM, column, made_up


def test_a_scaler_reads_what_was_observed_and_nothing_else():
    features = np.array([[1.0, np.nan, 5.0], [3.0, np.nan, 5.0], [np.nan, np.nan, 5.0]], np.float32)
    scaler = StandardScaler.fit(features)
    assert scaler.mean.tolist() == [2.0, 0.0, 5.0] and scaler.std.tolist() == [1.0, 1.0, 1.0]
    assert scaler.inputs(features).tolist() == [[-1, 0, 0, 1, 0, 1], [1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1]]
    assert scaler.inputs(features).dtype == np.float32


def test_a_missing_value_is_told_from_an_average_one():
    scaler = StandardScaler(np.array([2.0]), np.array([4.0]))
    assert scaler.inputs(np.array([[2.0], [np.nan], [1e9]])).tolist() == [[0, 1], [0, 0], [CLIP, 1]]


def test_scaled_features_have_mean_zero_and_deviation_one():
    data = made_up(0, days=100)
    x = StandardScaler.fit(data.features).inputs(data.features)[:, : len(FORM.features)]
    for name in ("f_quality", "vol", "rsi"):
        seen = x[np.isfinite(data.features[:, column(name)]), column(name)]
        assert seen.mean() == pytest.approx(0, abs=0.02) and seen.std() == pytest.approx(1, abs=0.02)
    assert not x[:, column("f_insider")].any()


def test_a_masked_claim_is_no_lesson():
    data = made_up(1, days=20, missing=0.3)
    assert not (data.facts.true & ~data.facts.known).any()
    insiders = [c.name for c in FORM.claims].index("insiders")
    assert not data.facts.known[:, insiders].any()
    quality = [c.name for c in FORM.claims].index("quality")
    np.testing.assert_array_equal(data.facts.known[:, quality], np.isfinite(data.features[:, column("f_quality")]))


def test_only_what_has_closed_may_be_learnt_from():
    data = made_up(2, days=30, assets=3)
    closed = data.closed_by(19)
    assert closed.closed_row.max() == 19 and len(closed) == 3 * 15
    assert not len(data.closed_by(4))


def test_examples_are_taken_whole_and_in_order():
    data = made_up(3, days=10, assets=2)
    some = data.take(np.array([5, 1]))
    assert some.row.tolist() == [2, 0] and some.asset.tolist() == [1, 1]
    np.testing.assert_array_equal(some.features, data.features[[5, 1]])
    np.testing.assert_array_equal(some.facts.true, data.facts.true[[5, 1]])
    np.testing.assert_array_equal(some.sections, data.facts.take(np.array([5, 1])).open_sections & data.sections[[5, 1]])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"outcome": [np.nan, 0.0]}, DataError, "cannot be judged"),
        ({"decision": [0, 5]}, DataError, "none of the five"),
        ({"closed_row": [0, 5]}, DataError, "closed_row > row"),
        ({"row": [0]}, SchemaError, r"ThesisData.row has shape \(1,\)"),
        ({"features": np.zeros((2, 3))}, SchemaError, r"expected \(N, 10\)"),
    ],
)
def test_examples_that_cannot_be_are_refused(change, error, says):
    with pytest.raises(error, match=says):
        replace(made_up(0, days=1, assets=2), **{name: np.array(value) for name, value in change.items()})
