import json

import numpy as np
import pytest
import torch

from rlaif_ray.config_thesis import FEATURES
from rlaif_ray.config_thesis import Thesis as Knobs
from rlaif_ray.core import Claim
from rlaif_ray.errors import CheckpointError, ConfigError, NotFittedError, SchemaError
from rlaif_ray.feedback.thesis_policy import (
    Calibration,
    Draft,
    ThesisPolicy,
    draw,
    entropy,
    log_odds_between,
    log_probs,
    thesis_of,
)
from rlaif_ray.feedback.thesis_schema import DECISIONS, FAULTS, SIGNS, Rule, Thesis, ThesisForm
from rlaif_ray.feedback.thesis_training import begin
from tests.theses import FORM, TOY, column, drafts_of, made_up

SEEN = {"f_quality": 0.4, "vol": 0.03, "mom10": 0.02, "mom30": 0.01}
SAID = {
    "decision": "buy", "p_up": 0.56, "sections": ("summary", "fundamentals", "risks"), "claims": ("quality", "volatile"), "seen": SEEN
}  # fmt: skip


# --- the form and its rules ---------------------------------------------------------------------------------------


def test_a_rule_is_read_and_never_executed():
    rule = Rule.of("mom10 > 0 and f_sentiment <= -1.5e-1")
    assert rule.terms == (("mom10", ">", 0.0), ("f_sentiment", "<=", -0.15)) and rule.inputs == ("mom10", "f_sentiment")
    assert Rule.of(str(rule)) == rule
    code = "__import__('os').getcwd() > 0"
    for bad in ("", "mom10", "mom10 > mom30", "mom10 > 0 or rsi > 70", code, "mom10 > 0 and", "0 < mom10 < 1", "vol > nan"):
        with pytest.raises(ConfigError, match="expected comparisons"):
            Rule.of(bad)


def test_the_eight_claims_of_the_teacher():
    assert FORM.features == FEATURES
    features = np.array([[0.1, -0.2, 0.3, np.nan, np.nan, 0.019, 0.05, -0.05, 50.0, 1.0]], np.float32)
    true = dict(zip([c.name for c in FORM.claims], FORM.true_claims(features)[0], strict=True))
    assert true == {
        "quality": True, "sentiment": False, "momentum": True, "insiders": False, "volatile": False, "rise_10": True, "rise_30": False,
        "unloved_rise": True,
    }  # fmt: skip
    assert FORM.known_claims(np.isfinite(features))[0].tolist() == [True, True, True, False, True, True, True, True]


def test_a_claim_of_two_features_is_known_only_where_both_are():
    """A false half would settle it, but a thesis states what it saw."""
    features = np.full((2, len(FORM.features)), 1.0, np.float32)
    features[0, column("f_sentiment")], features[1, column("mom10")] = np.nan, np.nan
    last = [c.name for c in FORM.claims].index("unloved_rise")
    assert not FORM.known_claims(np.isfinite(features))[:, last].any() and not FORM.true_claims(features)[:, last].any()


def test_a_form_names_what_there_is():
    plain = Knobs().form.model_dump()
    assert ThesisForm.of(**FORM.to_json()) == FORM == ThesisForm.of(**plain)
    with pytest.raises(ConfigError, match=r"reads no feature 'mom11'.*Did you mean 'mom10'"):
        ThesisForm.of(**{**plain, "claims": [{"name": "x", "says": "mom11 > 0", "supports": 1, "section": "risks"}]})
    with pytest.raises(ConfigError, match="no section 'doubt'"):
        ThesisForm.of(**{**plain, "doubts": "doubt"})
    with pytest.raises(ConfigError, match="each once"):
        ThesisForm.of(**{**plain, "features": (*FEATURES, "rsi")})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"sections": ("summary", "fundamentals")}, FAULTS[0]),
        ({"sections": (*SAID["sections"], "sentiment")}, FAULTS[1]),
        ({"sections": ("summary", "risks")}, FAULTS[2]),
        ({"claims": (*SAID["claims"], "sentiment"), "sections": (*SAID["sections"], "sentiment")}, FAULTS[3]),
        ({"claims": ("volatile",)}, FAULTS[4]),
        ({"claims": ("volatile",), "sections": (*SAID["sections"], "doubts")}, None),
        ({"claims": ("volatile",), "decision": "hold"}, None),
        ({"claims": ("volatile",), "decision": "strong_sell"}, None),
        ({"claims": ("quality", "quality")}, "each once"),
        ({"claims": ("qualty",)}, "expected some of"),
        ({"p_up": 1.0}, "less than 1"),
        ({"seen": {**SEEN, "vol": np.nan}}, "finite"),
        ({"decision": "maybe"}, "strong_sell"),
    ],
)
def test_a_thesis_keeps_to_its_form_or_says_what_is_wrong(change, fault):
    if fault is None:
        assert Thesis.of(FORM, **{**SAID, **change}).decision == {**SAID, **change}["decision"]
    else:
        with pytest.raises(SchemaError, match="not a valid thesis") as refused:
            Thesis.of(FORM, **{**SAID, **change})
        assert fault in str(refused.value) and "\n" not in str(refused.value)


def test_the_schema_and_the_rules_in_bulk_agree():
    """Drafts at random break every rule at some time; what the schema accepts is what has no fault."""
    rng = np.random.default_rng(0)
    data = made_up(0, days=30, assets=10, missing=0.3)
    s, c = len(FORM.sections), len(FORM.claims)
    draft = Draft(rng.random((len(data), s)) < 0.8, rng.random((len(data), c)) < 0.4, rng.integers(0, 5, len(data)))
    draft.claims[:150] &= data.facts.known[:150]
    draft.sections[:75] &= data.facts.open_sections[:75]
    faults = FORM.faults(*draft, data.facts.known, data.facts.open_sections)
    assert faults.any(axis=0).all() and 0.02 < (~faults.any(axis=1)).mean() < 0.5
    for n, broken in enumerate(faults):
        one = Draft(*(part[n] for part in draft))
        if broken.any():
            with pytest.raises(SchemaError) as refused:
                thesis_of(FORM, data.features[n], one, 0.5)
            assert [fault in str(refused.value) for fault in FAULTS] == broken.tolist()
        else:
            thesis_of(FORM, data.features[n], one, 0.5)


def test_a_thesis_survives_json_and_needs_its_form():
    thesis = Thesis.of(FORM, **SAID)
    assert Thesis.model_validate_json(thesis.model_dump_json(), context=FORM) == thesis
    with pytest.raises(TypeError, match="against a ThesisForm"):
        Thesis.model_validate(SAID)


def test_a_thesis_says_its_evidence_and_reads_as_text():
    thesis = Thesis.of(FORM, **{**SAID, "decision": "sell", "claims": ("quality",), "sections": (*SAID["sections"], "doubts")})
    assert thesis.evidence(FORM) == (Claim("f_quality", 0.4, "quality: f_quality > 0"),)
    assert thesis.narrative(FORM).splitlines() == [
        "summary: sell, P(up) 0.56.",
        "fundamentals: f_quality 0.4, quality (f_quality > 0).",
        "risks: none of note.",
        "doubts: no claim supports the decision to sell; against it: quality.",
    ]


def test_what_the_teacher_writes_is_valid_whatever_is_decided():
    data = made_up(1, days=40, missing=0.4)
    for decision in range(5):
        decided = np.full(len(data), decision)
        assert not FORM.faults(data.sections, data.facts.true, decided, data.facts.known, data.facts.open_sections).any()


# --- the network --------------------------------------------------------------------------------------------------


def a_policy(data=None):
    return begin(made_up(0, days=40) if data is None else data, seed=3)


def test_log_probabilities_add_up_to_one_over_all_theses():
    """Also where a claim cannot be made: it is then certain to be absent. The entropy is that of the same probabilities."""
    policy = ThesisPolicy(TOY, hidden=4, seed=1)
    every = drafts_of(TOY)
    for known in (1.0, 0.0):
        x = torch.tensor([[0.3, -1.2, 1.0, known]]).expand(len(every.decision), -1)
        logits = policy(x)
        log_p = log_probs(logits, every).sum(dim=1)
        p = log_p.exp()
        assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
        assert entropy(logits)[0].item() == pytest.approx(-(p * log_p.clamp(min=-1e3)).sum().item(), abs=1e-5)
        claimed = p[torch.from_numpy(every.claims[:, 0])]
        assert (claimed > 0).all() if known else not claimed.any()


def test_odds_between_two_theses_are_the_difference_of_their_log_probabilities():
    data = made_up(2, days=20)
    policy, generator = a_policy(), torch.Generator().manual_seed(0)
    logits = policy(policy.inputs(data.features))
    first, second = draw(logits, generator), draw(logits, generator)
    apart = log_probs(logits, first).sum(dim=1) - log_probs(logits, second).sum(dim=1)
    torch.testing.assert_close(log_odds_between(logits, first, second), apart, atol=1e-5, rtol=1e-5)


def test_a_sample_is_drawn_with_the_stated_probabilities():
    policy = ThesisPolicy(TOY, hidden=4, seed=1)
    sample = policy.sample(torch.tensor([[0.3, -1.2, 1.0, 1.0]]).expand(40_000, -1), torch.Generator().manual_seed(0))
    every = drafts_of(TOY)
    p = log_probs(policy(torch.tensor([[0.3, -1.2, 1.0, 1.0]]).expand(len(every.decision), -1)), every).sum(dim=1).exp().detach().numpy()
    code = lambda d: d.sections @ [20, 10] + 5 * d.claims[:, 0] + d.decision  # noqa: E731
    share = np.bincount(code(sample.draft), minlength=len(p)) / 40_000
    assert code(every).tolist() == list(range(len(p)))
    assert np.abs(share - p).max() < 5 * np.sqrt(p.max() / 40_000)
    assert sample.log_probs.shape == (40_000, 3) and sample.log_probs.requires_grad


def test_a_claim_whose_input_is_missing_is_never_made_and_never_counts():
    data = made_up(4, days=60, missing=0.3)
    policy, generator = a_policy(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        policy.claims_head.bias.add_(50.0)  # it would say everything
    x = policy.inputs(data.features)
    for draft in (policy.predict(data.features)[0], policy.sample(x, generator).draft):
        assert not (draft.claims & ~data.facts.known).any() and draft.claims[data.facts.known].mean() > 0.99
    insiders = [c.name for c in FORM.claims].index("insiders")  # never known here
    before = policy.sample(x, torch.Generator().manual_seed(1))
    with torch.no_grad():
        policy.claims_head.weight[insiders].add_(7.0)
    after = policy.sample(x, torch.Generator().manual_seed(1))
    assert torch.equal(before.log_probs, after.log_probs) and torch.equal(before.entropy, after.entropy)
    (after.log_probs.sum() + after.entropy.sum()).backward()
    gradient = policy.claims_head.weight.grad
    assert gradient is not None and not gradient[insiders].any() and gradient.abs().sum(dim=1).gt(0).sum() == len(FORM.claims) - 1


def test_p_up_is_the_chance_of_buying_and_half_of_holding():
    policy = a_policy()
    with torch.no_grad():
        policy.decision_head.weight.zero_()
        policy.decision_head.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]).log())
    draft, said = policy.predict(np.zeros((3, len(FORM.features)), np.float32))
    np.testing.assert_allclose(said, 0.25 + 0.15 + 0.3 / 2, rtol=1e-6)
    assert [DECISIONS[d] for d in draft.decision] == ["hold"] * 3 and SIGNS.tolist() == [-1, -1, 0, 1, 1]
    with torch.no_grad():
        policy.decision_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1e3]))
    assert 0.999 < policy.predict(np.zeros((1, len(FORM.features)), np.float32))[1][0] < 1.0


def test_one_thesis_alone_has_the_bits_that_it_has_among_many():
    data = made_up(5, days=50)
    policy = a_policy()
    draft, said = policy.predict(data.features)
    for n in (0, 1, 255, 256, 799):
        alone, p = policy.predict(data.features[n : n + 1])
        assert p[0] == said[n] and all((a[0] == b[n]).all() for a, b in zip(alone, draft, strict=True))
    assert policy.predict(data.features[:0])[1].shape == (0,)


def test_a_generated_thesis_is_validated():
    data = made_up(6, days=5)
    policy, seen = a_policy(), {"valid": 0, "refused": 0}
    for features in data.features:
        try:
            thesis = policy.generate_thesis(features, torch.Generator().manual_seed(0))
            assert thesis.seen.keys() == {name for name, value in zip(FORM.features, features, strict=True) if np.isfinite(value)}
            seen["valid"] += 1
        except SchemaError as error:
            assert any(fault in str(error) for fault in FAULTS)
            seen["refused"] += 1
    assert seen["refused"] > seen["valid"]  # nobody taught it


def test_initial_weights_come_from_the_seed_and_nowhere_else():
    state = torch.random.get_rng_state()
    hashes = [begin(made_up(0, days=20), seed=seed).state_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2] and torch.equal(state, torch.random.get_rng_state())


def test_a_policy_is_saved_and_loaded_whole(tmp_path):
    data = made_up(7, days=20)
    policy = a_policy()
    policy.calibration = Calibration(0.5, -0.1, 300, "")
    policy.save(tmp_path)
    again = ThesisPolicy.load(tmp_path)
    assert again.state_hash == policy.state_hash and again.form == policy.form
    assert (again.predict(data.features)[1] == policy.predict(data.features)[1]).all()
    about = json.loads((tmp_path / "thesis.json").read_text())
    (tmp_path / "thesis.json").write_text(json.dumps({**about, "calibration": {**about["calibration"], "slope": 0.6}}))
    with pytest.raises(CheckpointError, match="does not hash"):
        ThesisPolicy.load(tmp_path)
    (tmp_path / "thesis.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no thesis policy"):
        ThesisPolicy.load(tmp_path)


def test_a_policy_without_a_scaler_says_nothing(tmp_path):
    policy = ThesisPolicy(FORM)
    for use in (lambda: policy.predict(np.zeros((1, len(FORM.features)))), lambda: policy.save(tmp_path), lambda: policy.state_hash):
        with pytest.raises(NotFittedError):
            use()
