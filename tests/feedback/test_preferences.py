"""Pairs by hand: who wins, what ties, what may be used when."""

import numpy as np
import pytest

from rlaif_ray.core import Opinion
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import pairs, preference
from tests.desk import ask, dense, desk_cube


@pytest.fixture(scope="module")
def judged():
    cube = desk_cube(0)
    out = close(dense(cube), cube, cost_per_side=0.0)
    return ask(cube), out, pairs(out, tie=0.01)


def test_every_two_who_spoke_make_a_pair_won_by_the_better_score(judged) -> None:
    _, out, table = judged
    chosen, rejected = (out.score[table.date, table.asset, k] for k in (table.chosen, table.rejected))
    assert np.allclose(chosen - rejected, table.margin) and (table.margin >= 0.01).all()
    spoke = np.isfinite(out.score).sum(axis=-1)
    assert 0.8 * (spoke * (spoke - 1) / 2).sum() < len(table) <= (spoke * (spoke - 1) / 2).sum()
    assert (np.diff(table.opened_row) >= 0).all()


def test_ties_are_dropped_by_the_stated_threshold(judged) -> None:
    _, out, table = judged
    assert len(pairs(out, tie=0.1)) == int((table.margin >= 0.1).sum()) < len(table)
    with pytest.raises(DataError, match="tie"):
        pairs(out, tie=0.0)


def test_a_pair_that_closes_after_the_cut_never_enters(judged) -> None:
    """The canary: opened at row 145, closing at row 150; a fit that ends before row 150 must not have it."""
    _, _, table = judged
    assert 145 in table.inside(slice(0, 151)).opened_row
    assert 145 not in table.inside(slice(0, 150)).opened_row
    assert table.inside(slice(20, 150)).opened_row.min() >= 20


def test_the_value_form_shares_its_question_and_negates_when_swapped(judged) -> None:
    said, out, table = judged
    by_key = {(o.as_of, o.symbol, o.author): o for o in said if isinstance(o, Opinion)}
    pair = preference(table, 7, out, by_key)
    assert pair.chosen.prompt_hash == pair.rejected.prompt_hash == pair.prompt_hash
    assert pair.margin == table.margin[7] > 0 and pair.closed_at == out.of(pair.chosen).closed_at
    swapped = pair.swapped()
    assert (swapped.chosen, swapped.rejected, swapped.margin) == (pair.rejected, pair.chosen, -pair.margin)
    assert swapped.swapped() == pair
