"""What every analyst owes: claims that cite what was seen, abstentions with a reason, nothing from the future."""

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.agents.analysts import opinion_row, reads, rows_of, view_at
from rlaif_ray.core import Abstention, Cube, Opinion, OpinionTable
from rlaif_ray.errors import ConfigError
from tests.desk import READS, ROSTER, ask, desk_cube
from tests.laws import assert_apply, assert_pure


def test_every_claim_cites_the_value_that_the_cube_shows_then() -> None:
    cube = desk_cube(0)
    opinions = [o for o in ask(cube, 25) if isinstance(o, Opinion)]
    assert {o.author for o in opinions} == set(ROSTER)
    for o in opinions:
        row, a = cube.row(o.as_of), cube.symbols.index(o.symbol)
        assert o.claims
        for claim in o.claims:
            assert claim.value == float(cube.feature(claim.feature)[row, a])


def test_confidence_is_modest_and_only_risk_sets_a_cap() -> None:
    opinions = [o for o in ask(desk_cube(1)) if isinstance(o, Opinion)]
    assert all(0.3 < o.p_up < 0.7 for o in opinions)
    assert {o.author for o in opinions if o.max_weight is not None} == {"risk"}
    assert all(0.07 < (o.max_weight or 0.3) <= 0.3 for o in opinions)


def test_on_prices_alone_fundamental_and_sentiment_abstain_and_say_why() -> None:
    cube = desk_cube(2, names=("ret_5_excess", "vol_21", "rsi_14"))
    said = ask(cube, 10)
    silent = {o.author: o.reason for o in said if isinstance(o, Abstention) and o.author in ("fundamental", "sentiment")}
    assert silent["fundamental"] == "this data set has no filing_score and no filing_age_bars"
    assert silent["sentiment"] == "this data set has no news_score and no news_age_bars"
    assert {o.author for o in said if isinstance(o, Opinion)} == {"technical", "risk"}


def test_before_the_first_filing_and_without_a_price_there_is_nothing_to_say() -> None:
    cube = desk_cube(3)
    first = {(o.author, o.symbol): o for o in ask(cube, 300)}
    assert all(isinstance(o, Abstention) for o in first.values())
    assert "not known yet" in first["fundamental", "S00"].reason  # pyright: ignore[reportAttributeAccessIssue]
    gone = [s for s, d in zip(cube.symbols, cube.delisted[-1], strict=True) if d]
    last = [o for o in ask(cube, 299) if o.as_of == cube.known_at[299]]
    assert all(isinstance(o, Abstention) and o.reason == "it has no price" for o in last if o.symbol in gone)


def test_all_analysts_of_a_moment_were_asked_the_same_from_the_same_evidence() -> None:
    cube = desk_cube(4)
    by_question: dict[tuple[object, str], set[str]] = {}
    for o in ask(cube):
        if isinstance(o, Opinion):
            by_question.setdefault((o.as_of, o.symbol), set()).add(o.prompt_hash)
    assert all(len(hashes) == 1 for hashes in by_question.values())
    assert len(set().union(*by_question.values())) == len(by_question)


def test_noise_after_t_changes_no_opinion_by_t() -> None:
    cube = desk_cube(5)
    assert_pure(lambda c: ask(c), cube, 150)
    assert_apply(lambda c: ask(c), cube, 150, np.random.default_rng(0))


def test_the_law_catches_an_analyst_who_reads_the_next_bar() -> None:
    cube = desk_cube(6)

    def peeking(c: Cube) -> list[Opinion | Abstention]:
        ahead = np.vstack([c.features[1:], c.features[-1:]])
        return ask(replace(c, features=ahead))

    with pytest.raises(AssertionError):
        assert_apply(peeking, cube, 150, np.random.default_rng(0))


def test_the_phase_of_opinions_hangs_on_the_first_row_alone() -> None:
    assert [opinion_row(t, 5) for t in (0, 4, 5, 104)] == [0, 0, 5, 100]
    cube = desk_cube(7)
    whole, short = (OpinionTable.of(ask(c), c.symbols, ROSTER) for c in (cube, cube.head(123)))
    assert np.array_equal(whole.latest(cube.known_at[122]), short.latest(cube.known_at[122]), equal_nan=True)


def test_an_opinion_does_not_depend_on_what_is_held() -> None:
    assert view_at(desk_cube(8), 30).portfolio.equity_usd == 0.0


def test_an_unknown_analyst_is_refused_with_the_nearest_name() -> None:
    assert set(reads(("risk",))) < set(READS)
    with pytest.raises(ConfigError, match="'technical'"):
        rows_of(["technial"])
