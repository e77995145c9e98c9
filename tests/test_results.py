"""Results by hand: what the report says of a desk is what its own records say."""

import numpy as np
import pytest

from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.evidence import track_records
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Window
from rlaif_ray.results import desk_result
from tests.desk import ask, dense, desk_cube


def test_the_desk_is_judged_by_all_that_had_closed_before_the_test_blocks() -> None:
    """A manager who repeats the risk analyst has the same record, and both that of the whole history, on the test rows."""
    cube = desk_cube(0, rows=500)
    opinions = dense(cube)
    windows = [Window("test", slice(0, start - 5), slice(start, start + 100)) for start in (300, 400)]
    managers = []
    for window in windows:
        said = np.stack([opinions.latest(moment) for moment in cube.known_at[window.rows]])
        managers.append(OpinionTable(cube.known_at[window.rows], cube.symbols, ("manager",), said[..., 3:], opinions.horizon_bars))
    got = desk_result(cube, ask(cube), opinions, managers, windows, terms=OutcomeTerms(0.0003), resamples=100, seed=0)
    whole = track_records(close(opinions, cube, OutcomeTerms(0.0003)), opinions.p_up, slice(300, 500), resamples=100, seed=0)
    for author in opinions.authors:
        assert got[author]["score"] == pytest.approx(whole[author]["score"]) and got[author]["n_opinions"] == whole[author]["n_opinions"]
    assert got["manager"]["score"] == pytest.approx(got["risk"]["score"]) and got["manager"]["n_opinions"] == got["risk"]["n_opinions"] > 0
    assert got["manager"]["reason"] is None
