"""Theses as opinions of the desk: the same question, the same bits in bulk, and an abstention wherever there is nothing to stand on."""

from functools import cache

import numpy as np
import pytest
import torch

from rlaif_ray.agents.analysts import prompt_hashes, view_at
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.core import Abstention, Cube, Opinion, OpinionTable
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.thesis_analyst import ThesisAnalyst
from rlaif_ray.feedback.thesis_experiment import Ground, ThesisFold, taught
from rlaif_ray.feedback.thesis_market import thesis_features
from rlaif_ray.feedback.thesis_on_ray import study_of
from rlaif_ray.feedback.thesis_policy import Calibration, ThesisPolicy
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ask, desk_cube
from tests.laws import assert_apply

STUDY = study_of(Thesis.model_validate({"method": "sft", "sft": {"epochs": 3, "batch": 64}}))
CUBE = desk_cube(7, rows=400)
ROWS = (0, 60, 150, 300, 399)


@cache
def trained() -> ThesisPolicy:
    ground = Ground.of(CUBE, STUDY, OutcomeTerms(0.0005))
    policy = taught("sft", ground, ThesisFold("0", slice(40, 250), slice(262, 320), slice(332, 380)), seed=1).policy
    policy.calibration = Calibration()  # that of a policy which has learnt from noise says the same of everyone
    return policy


def analyst(policy: ThesisPolicy | None = None, min_features: int = 3) -> ThesisAnalyst:
    return ThesisAnalyst(policy or trained(), horizon_bars=5, min_features=min_features, prompt_hashes=prompt_hashes)


def said_of(cube: Cube, rows: tuple[int, ...] = ROWS, **how) -> list[Opinion | Abstention]:
    return analyst(**how).opine([view_at(cube, row) for row in rows])


def test_bulk_says_what_opinions_say_bit_for_bit():
    said = said_of(CUBE)
    bulk = analyst().p_up(CUBE, ROWS)
    one_by_one = np.array([o.p_up if isinstance(o, Opinion) else np.nan for o in said]).reshape(bulk.shape)
    np.testing.assert_array_equal(bulk, one_by_one)
    assert np.isfinite(bulk).any() and np.isnan(bulk[0]).all()
    assert analyst().p_up(CUBE, []).shape == (0, 4)


def test_a_thesis_answers_the_question_that_the_rules_were_asked():
    rules = {(o.symbol, o.as_of): o.prompt_hash for o in ask(CUBE) if isinstance(o, Opinion)}
    theses = [o for o in said_of(CUBE, (60, 150, 300)) if isinstance(o, Opinion)]
    assert theses and all(o.prompt_hash == rules[o.symbol, o.as_of] for o in theses if (o.symbol, o.as_of) in rules)
    assert {o.origin for o in theses} == {"thesis"} and {o.author for o in theses} == {"thesis"}
    assert {o.model for o in theses} == {f"thesis-{trained().state_hash}"}


def test_claims_cite_the_values_that_were_seen_and_the_narrative_tells_them():
    features = thesis_features(CUBE)[300]
    for o in said_of(CUBE, (300,)):
        assert isinstance(o, Opinion)
        seen = dict(zip(STUDY.form.features, features[CUBE.symbols.index(o.symbol)].tolist(), strict=True))
        assert all(claim.value == seen[claim.feature] for claim in o.claims)
        assert o.narrative.startswith("summary:")


def test_what_is_missing_is_never_claimed():
    claimed = {claim.feature for o in said_of(CUBE, tuple(range(60, 400, 20))) if isinstance(o, Opinion) for claim in o.claims}
    assert claimed and not claimed & {"f_insider", "f_value"}


def test_theses_are_closed_like_any_opinion():
    table = OpinionTable.of(said_of(CUBE, (60, 150, 300)), CUBE.symbols, ("thesis",))
    outcomes = close(table, CUBE, OutcomeTerms(0.0005))
    assert table.voices[0].origin == "thesis"
    assert (np.isfinite(outcomes.score) == (np.isfinite(table.p_up) & np.isfinite(outcomes.residual)[..., None])).all()


def test_too_little_to_go_by_is_an_abstention_that_counts():
    first, *_ = said_of(CUBE, (15,))
    assert isinstance(first, Abstention) and "features are known; 3 are needed" in first.reason
    assert all(isinstance(o, Abstention) for o in said_of(CUBE, (300,), min_features=11))


def test_who_is_gone_is_not_written_about():
    gone = desk_cube(7, rows=400)
    gone.delisted[200:, 0] = True
    first, *rest = said_of(gone, (300,))
    assert isinstance(first, Abstention) and first.reason == "it has no price"
    assert any(isinstance(o, Opinion) for o in rest)


def test_a_thesis_that_breaks_its_form_is_an_abstention_that_says_which_rule():
    policy = ThesisPolicy(STUDY.form, seed=0)
    policy.scaler = trained().scaler
    with torch.no_grad():
        policy.structure_head.weight.zero_()
        policy.structure_head.bias.fill_(-10.0)
    said = said_of(CUBE, (300,), policy=policy)
    assert all(isinstance(o, Abstention) and "a required section is missing" in o.reason for o in said)
    assert np.isnan(analyst(policy).p_up(CUBE, [300])).all()


def test_theses_do_not_know_the_future():
    every = range(len(CUBE.times))
    assert_apply(lambda c: analyst().p_up(c, every), CUBE, 330, np.random.default_rng(0))
    with pytest.raises(AssertionError):  # the canary: written five bars late
        assert_apply(lambda c: np.roll(analyst().p_up(c, every), -5, axis=0), CUBE, 330, np.random.default_rng(0))
