"""The manager's pool by hand, its single form against its bulk form, and what it carries on."""

import numpy as np
import pytest

from rlaif_ray.agents.analysts import view_at
from rlaif_ray.agents.debate import pool, verdicts
from rlaif_ray.core import Abstention, MarketView, Opinion
from rlaif_ray.errors import DataError
from tests.desk import ROSTER, ask, dense, desk_cube

NAN = float("nan")


def test_equal_odds_against_each_other_cancel_and_one_voice_stands_as_it_is() -> None:
    assert pool(np.array([0.6, 0.4]), np.array([1.0, 1.0])) == 0.5
    assert np.isclose(pool(np.array([0.6, NAN]), np.array([0.3, 0.7])), 0.6)


def test_three_to_one_and_one_to_one_with_half_the_weight_each_is_the_root_of_three() -> None:
    # odds 3 and 1: the pooled odds are sqrt(3 * 1)
    assert np.isclose(pool(np.array([0.75, 0.5]), np.array([2.0, 2.0])), np.sqrt(3) / (1 + np.sqrt(3)))


def test_nobody_heard_is_not_neutral() -> None:
    assert np.isnan(pool(np.array([NAN, NAN]), np.array([0.5, 0.5])))
    assert np.isnan(pool(np.array([0.7, NAN]), np.array([0.0, 1.0])))


@pytest.mark.parametrize("bad", [-0.1, NAN])
def test_a_weight_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="weight"):
        pool(np.array([0.6, 0.4]), np.array([1.0, bad]))


def test_one_date_at_a_time_is_the_whole_table_at_once() -> None:
    cube = desk_cube(0)
    table, said = dense(cube), ask(cube)
    uneven = np.array([0.1, 0.2, 0.3, 0.4])

    def weigh(
        view: MarketView, opined_at: np.datetime64, authors: tuple[str, ...], p_up: np.ndarray, traits: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        assert authors == ROSTER
        return np.broadcast_to(uneven, p_up.shape)

    bulk = pool(table.p_up, np.broadcast_to(uneven, table.p_up.shape))
    for t in (0, 3, 20, 59):
        moment = table.as_of[t]
        single = verdicts(view_at(cube, cube.row(moment)), [o for o in said if o.as_of == moment], weigh)
        for a, verdict in enumerate(single):
            if isinstance(verdict, Opinion):
                assert verdict.p_up == bulk[t, a]
            else:
                assert np.isnan(bulk[t, a])


def test_a_verdict_carries_claims_a_cap_and_says_who_moved_it() -> None:
    cube = desk_cube(1)
    moment = cube.known_at[100]
    heard = [o for o in ask(cube) if o.as_of == moment]
    verdict = next(v for v in verdicts(view_at(cube, 100), heard) if isinstance(v, Opinion))
    mine = [o for o in heard if isinstance(o, Opinion) and o.symbol == verdict.symbol]
    assert set(verdict.claims) <= {claim for o in mine for claim in o.claims}
    assert verdict.max_weight == min(o.max_weight for o in mine if o.max_weight is not None)
    assert verdict.prompt_hash == mine[0].prompt_hash and verdict.author == "manager"
    assert np.isclose(sum(verdict.scores.values()), 1.0)
    strongest = max(mine, key=lambda o: abs(np.log(o.p_up / (1 - o.p_up))))
    assert strongest.author in verdict.narrative


def test_when_all_abstain_so_does_the_manager() -> None:
    cube = desk_cube(2, names=())
    said = ask(cube, 100)
    out = verdicts(view_at(cube, 100), [o for o in said if o.as_of == cube.known_at[100]])
    assert all(isinstance(v, Abstention) and v.reason == "every analyst abstained" for v in out)


def test_opinions_of_two_moments_do_not_mix() -> None:
    cube = desk_cube(3)
    with pytest.raises(DataError, match="moments"):
        verdicts(view_at(cube, 10), [o for o in ask(cube) if o.as_of <= cube.known_at[5]])
