"""Outcomes by hand, the score's laws by simulation, and what may be known when."""

import numpy as np
import pytest

from rlaif_ray.core import Opinion, OpinionTable
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.feedback.outcomes import climatological, close, judge, residual_returns
from tests.desk import ask, dense, desk_cube
from tests.laws import assert_apply
from tests.markets import daily

NAN = float("nan")


def table(cube, p_up, rows, horizon_bars=1, authors=("a",)) -> OpinionTable:
    return OpinionTable(cube.known_at[rows], cube.symbols, authors, np.asarray(p_up, float), horizon_bars)


def test_two_symbols_by_hand() -> None:
    # A doubles, B stands still: the mean is +50%, so A beats it by 0.5 and B trails by 0.5
    cube = daily([[10, 10], [20, 10], [20, 10]])
    out = close(table(cube, [[[0.8], [0.8]]], [0]), cube, cost_per_side=0.001)
    assert out.residual.tolist() == [[0.5, -0.5]]
    assert np.allclose(out.score[0, :, 0], [np.log(0.8 / 0.5), np.log(0.2 / 0.5)])
    assert np.allclose(out.gross[0, :, 0], [0.5, -0.5]) and np.allclose(out.net[0, :, 0], [0.498, -0.502])
    assert out.closed_row.tolist() == [1] and out.closed_at[0] == cube.known_at[1]


def test_dividends_and_splits_count_as_return() -> None:
    split, paid = np.ones((3, 2)), np.zeros((3, 2))
    split[1, 0], paid[2, 1] = 2.0, 1.0
    cube = daily([[10, 10], [5, 10], [5, 9]], splits=split, dividends=paid)
    assert np.allclose(residual_returns(cube, np.array([0]), 2), 0.0)


def test_a_right_sell_beats_a_wrong_buy_in_score_and_in_money() -> None:
    cube = daily([[10, 10], [8, 10], [8, 10]])
    out = close(table(cube, [[[0.3, 0.7], [NAN, NAN]]], [0], authors=("sells", "buys")), cube, cost_per_side=0.0)
    assert out.score[0, 0, 0] > 0 > out.score[0, 0, 1]
    assert np.allclose(out.gross[0, 0], [0.1, -0.1])
    assert out.hit[0, 0].tolist() == [1.0, 0.0]


def test_costs_eat_a_tiny_right_call_and_leave_its_score_alone() -> None:
    cube = daily([[10000, 10000], [10002, 10000]])
    free, dear = (close(table(cube, [[[0.7], [0.3]]], [0]), cube, cost_per_side=c) for c in (0.0, 0.001))
    assert np.array_equal(free.score, dear.score)
    assert (free.net > 0).all() and (dear.net < 0).all()


def test_a_symbol_that_dies_on_the_way_is_judged_with_what_was_left() -> None:
    gone = np.zeros((4, 2), bool)
    gone[2:, 0] = True
    cube = daily([[10, 10], [10, 10], [NAN, 10], [NAN, 10]], delisted=gone)
    assert np.allclose(residual_returns(cube, np.array([0]), 3), [[-0.15, 0.15]])


def test_what_has_not_closed_is_open_and_says_so() -> None:
    cube = desk_cube(0)
    said = [o for o in ask(cube) if isinstance(o, Opinion)]
    out = close(dense(cube), cube, cost_per_side=0.0)
    assert np.isnan(out.score[out.closed_row > 299]).all() and np.isnat(out.closed_at[out.closed_row > 299]).all()
    assert np.isfinite(out.score[(out.closed_row <= 299) & (out.opened_row > 50)]).any()
    closed, still_open = (next(o for o in said if o.as_of == cube.known_at[row]) for row in (290, 295))
    outcome = out.of(closed)
    assert outcome.closed_at == cube.known_at[295] and outcome.opinion_id == closed.id and outcome.net == outcome.gross - outcome.cost
    with pytest.raises(MissingDataError, match="open"):
        out.of(still_open)


def test_climatology_by_hand_counts_only_what_had_closed() -> None:
    residual = np.array([[0.1], [0.2], [-0.1], [0.3]])
    opened = np.array([0, 5, 10, 15])
    # one pseudo-outcome on each side; horizon 7: at row 10 the first has closed, at row 15 the second too (row 12)
    assert np.allclose(climatological(residual, opened, opened + 7, 1.0)[:, 0], [1 / 2, 1 / 2, 2 / 3, 3 / 4])


@pytest.mark.parametrize("truth", [0.35, 0.5, 0.55, 0.8])
def test_the_true_belief_maximises_the_expected_score(truth: float) -> None:
    """A law by simulation: boasting, flattening and always saying the same all lose to saying what is true."""
    rng = np.random.default_rng(0)
    residual = np.where(rng.random((200_000, 1)) < truth, 1.0, -1.0)
    tilt = truth - 0.5
    beliefs = np.array([truth, 0.5 + tilt / 2, np.clip(0.5 + 2 * tilt, 0.03, 0.97), 0.99, 0.01, truth - 0.05, truth + 0.05])
    score, _ = judge(np.broadcast_to(beliefs, (200_000, 1, len(beliefs))), residual, np.full((200_000, 1), 0.5))
    mean = score.mean(axis=(0, 1))
    assert mean[0] >= mean.max() - 1e-12


def test_who_always_says_what_is_usual_scores_nothing() -> None:
    cube = desk_cube(1)
    rows = np.arange(0, 290, 5)
    neutral = close(table(cube, np.full((len(rows), 4, 1), 0.5), rows, 5), cube, cost_per_side=0.0)
    said = close(table(cube, neutral.climatology[..., None], rows, 5), cube, cost_per_side=0.0)
    assert np.allclose(said.score[np.isfinite(said.score)], 0.0)
    assert np.isnan(neutral.hit).all()


def test_noise_after_t_changes_nothing_that_had_closed_by_t() -> None:
    def closed_scores(cube):
        out = close(dense(cube), cube, cost_per_side=0.0)
        by_row = np.full((len(cube.times), *out.score.shape[1:]), NAN)
        inside = out.closed_row < len(cube.times)
        by_row[out.closed_row[inside]] = out.score[inside]
        return by_row

    cube = desk_cube(2)
    assert_apply(closed_scores, cube, 150, np.random.default_rng(0))


def test_the_law_catches_outcomes_laid_at_their_opening() -> None:
    def too_early(cube):
        out = close(dense(cube), cube, cost_per_side=0.0)
        by_row = np.full((len(cube.times), *out.score.shape[1:]), NAN)
        by_row[out.opened_row] = out.score
        return by_row

    with pytest.raises(AssertionError):
        assert_apply(too_early, desk_cube(2), 150, np.random.default_rng(0))


def test_what_had_closed_by_a_row_is_what_closes_on_the_cube_as_it_stood() -> None:
    cube = desk_cube(3)
    whole, then = close(dense(cube), cube, cost_per_side=0.0), close(dense(cube.head(201)), cube.head(201), cost_per_side=0.0)
    closed = then.closed_row <= 200
    assert np.array_equal(whole.score[: len(closed)][closed], then.score[closed], equal_nan=True) and np.isnan(then.score[~closed]).all()
    assert np.array_equal(whole.climatology[: len(closed)], then.climatology)


def test_opinions_from_another_market_are_refused() -> None:
    cube = desk_cube(4)
    between = OpinionTable(cube.known_at[:1] + np.timedelta64(1, "h"), cube.symbols, ("a",), np.full((1, 4, 1), 0.6), 5)
    with pytest.raises(DataError, match="between two decision moments"):
        close(between, cube, cost_per_side=0.0)
    with pytest.raises(DataError, match="symbols"):
        close(OpinionTable(cube.known_at[:1], ("X",), ("a",), np.full((1, 1, 1), 0.6), 5), cube, cost_per_side=0.0)
