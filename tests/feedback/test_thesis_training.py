from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from rlaif_ray.backtest.comparison import mean_by_date
from rlaif_ray.core import Cube
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.thesis_data import ThesisData
from rlaif_ray.feedback.thesis_policy import Draft, ThesisPolicy, log_odds, log_probs
from rlaif_ray.feedback.thesis_rewards import Rewards, score_theses
from rlaif_ray.feedback.thesis_schema import DECISIONS
from rlaif_ray.feedback.thesis_training import (
    Lessons,
    Rft,
    Sft,
    begin,
    calibrate,
    fit_rft,
    fit_sft,
    rft_loss,
    sft_loss,
    teacher_loss,
    train,
)
from tests.desk import desk_cube
from tests.laws import assert_fit
from tests.theses import FORM, KNOBS, REWARDS, RFT, SFT, TOY, drafts_of, made_up

FEW = {"epochs": 4, "batch": 32}


# --- rewards ------------------------------------------------------------------------------------------------------


def toy_data(b: float = 1.0, outcome: float = 0.5) -> ThesisData:
    one = np.array([0])
    return ThesisData(TOY, np.array([[0.3, b]], np.float32), np.array([3]), np.array([outcome]), one, one, one + 1)


def test_rewards_by_hand():
    every, data = drafts_of(TOY), toy_data().take(np.zeros(40, np.int64))
    parts = REWARDS.parts(TOY, every, data.facts)
    worth = {(*s, *c, DECISIONS[d]): tuple(p) for s, c, d, p in zip(every.sections, every.claims, every.decision, parts, strict=True)}
    assert worth[True, False, True, "buy"] == (1, 1, 0.5)  # valid, its one claim is true, the symbol rose
    assert worth[True, False, True, "strong_sell"] == (0, 1, -0.5)  # no claim for selling, and no doubts
    assert worth[True, True, True, "sell"] == (1, 1, -0.5)
    assert worth[True, False, False, "hold"] == (1, 0, 0)  # silence earns nothing
    assert worth[False, False, True, "strong_buy"] == (0, 1, 0.5)
    fallen = REWARDS.parts(TOY, every, toy_data(b=-1.0, outcome=-9.0).take(np.zeros(40, np.int64)).facts)
    assert fallen[every.claims[:, 0], 1].tolist() == [-1] * 20  # the claim is false
    assert fallen[every.decision == DECISIONS.index("sell"), 2].tolist() == [REWARDS.clip] * 8  # a right sell earns
    assert Rewards(1.0, 10.0, 100.0, 2.0).total(np.array([[1, 0.5, -0.25]])).tolist() == [1 + 5 - 25]


def test_what_cannot_be_known_earns_nothing():
    every, data = drafts_of(TOY), toy_data(b=np.nan).take(np.zeros(40, np.int64))
    parts = REWARDS.parts(TOY, every, data.facts)
    assert not parts[:, 1].any() and not parts[every.claims[:, 0], 0].any()


# --- gradients ----------------------------------------------------------------------------------------------------


def flat(parameters):
    return torch.cat([p.reshape(-1) for p in parameters])


def difference_quotients(policy: ThesisPolicy, f, step: float = 1e-5) -> torch.Tensor:
    found = []
    with torch.no_grad():
        for parameter in policy.parameters():
            for entry in parameter.reshape(-1).split(1):
                entry += step
                up = f()
                entry -= 2 * step
                found.append((up - f()) / (2 * step))
                entry += step
    return torch.stack(found)


@pytest.mark.parametrize("b", [1.0, np.nan])
def test_the_ranked_surrogate_climbs_the_exact_expected_reward(b):
    """All 40 x 40 pairs of theses are written out with their probabilities; the reward's gradient is by finite differences."""
    policy = ThesisPolicy(TOY, hidden=3, seed=2).double()
    every, data = drafts_of(TOY), toy_data(b)
    x = torch.tensor([[0.4, 0.0 if np.isnan(b) else b, 1.0, float(not np.isnan(b))]], dtype=torch.float64)
    worth = REWARDS.total(REWARDS.parts(TOY, every, data.take(np.zeros(40, np.int64)).facts))

    def chances():
        return log_probs(policy(x.expand(40, -1)), every).sum(dim=1).exp()

    wanted = difference_quotients(policy, lambda: chances() @ torch.from_numpy(worth))
    i, j = (k.reshape(-1) for k in np.indices((40, 40)))
    first, second = (Draft(*(part[k] for part in every)) for k in (i, j))
    p = chances().detach().numpy()
    # The loss is a mean over pairs that were drawn; here each stands as often as it would be drawn.
    gap = (worth[i] - worth[j]) * p[i] * p[j] * len(i)
    rft_loss(policy(x.expand(len(i), -1)), first, second, gap, bonus=0.0).backward()
    climbed = -flat(p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.parameters())
    assert wanted.abs().max() > 0.05
    torch.testing.assert_close(climbed, wanted, atol=1e-6, rtol=1e-5)


def test_the_entropy_bonus_climbs_the_exact_entropy():
    policy, every = ThesisPolicy(TOY, hidden=3, seed=2).double(), drafts_of(TOY)
    x = torch.tensor([[0.4, 1.0, 1.0, 1.0]], dtype=torch.float64)

    def spread():
        log_p = log_probs(policy(x.expand(40, -1)), every).sum(dim=1)
        return -(log_p.exp() * log_p).sum()

    same = Draft(*(part[:1] for part in every))
    rft_loss(policy(x), same, same, np.zeros(1), bonus=0.7).backward()
    climbed = -flat(p.grad for p in policy.parameters())
    torch.testing.assert_close(climbed, 0.7 * difference_quotients(policy, spread), atol=1e-8, rtol=1e-5)


def test_the_gradient_of_the_teachers_loss_is_that_of_finite_differences():
    data = made_up(0, days=2, assets=4, missing=0.3)
    policy = begin(data, hidden=3).double()
    lessons = Lessons(*(t.double() if t.is_floating_point() else t for t in Lessons.of(policy, data)))
    settings = replace(SFT, sections=0.5, claims=2.0)
    sft_loss(policy, lessons, settings).backward()
    climbed = flat(p.grad for p in policy.parameters())
    torch.testing.assert_close(climbed, difference_quotients(policy, lambda: sft_loss(policy, lessons, settings)), atol=1e-8, rtol=1e-5)


def test_a_claim_that_cannot_be_known_changes_no_loss():
    data = made_up(1, days=10, missing=0.3)
    policy = begin(data)
    insiders = [c.name for c in FORM.claims].index("insiders")
    before = teacher_loss(policy, data, SFT)
    with torch.no_grad():
        policy.claims_head.weight[insiders].add_(3.0)
        policy.claims_head.bias[insiders].sub_(9.0)
    assert teacher_loss(policy, data, SFT) == before
    sft_loss(policy, Lessons.of(policy, data), SFT).backward()
    gradient = policy.claims_head.weight.grad
    assert gradient is not None and not gradient[insiders].any() and gradient.any()


# --- the laws of time and chance ----------------------------------------------------------------------------------


def examples(cube: Cube, horizon: int = 5) -> ThesisData:
    """Theses on a random cube: four of the ten features are there, the outcome is what the close did."""
    from rlaif_ray.core import CLOSE

    close = np.log(cube.prices[:, :, CLOSE])
    outcome = np.full(close.shape, np.nan)
    outcome[:-horizon] = (close[horizon:] - close[:-horizon]) / (0.02 * np.sqrt(horizon))
    features = np.full((*close.shape, len(FORM.features)), np.nan, np.float32)
    for name, source in (("f_quality", "filing_score"), ("f_sentiment", "news_score"), ("rsi", "rsi_14"), ("vol", "vol_21")):
        features[:, :, FORM.features.index(name)] = cube.feature(source)
    row, asset = np.nonzero(np.isfinite(outcome))
    z = outcome[row, asset]
    return ThesisData(FORM, features[row, asset], np.digitize(z, KNOBS.decision_z), z, row, asset, row + horizon)


def all_of_it(data: ThesisData, end: int) -> tuple[str, ...]:
    """Hashes of scaler, weights and calibration, taught and ranked, from what had closed by row `end`."""
    closed = data.closed_by(end)
    cut = closed.row <= end - 60
    done = train(
        closed.take(cut & (closed.closed_row <= end - 60)), sft=replace(SFT, **FEW), rft=replace(RFT, epochs=2), rewards=REWARDS,
        validation=closed.take(~cut), min_validation=50,
    )  # fmt: skip
    assert not done.policy.calibration.reason
    return done.policy.state_hash, str(done.sft), str(done.rft)


def test_noise_after_the_end_of_the_fit_changes_no_parameter():
    assert_fit(lambda cube: all_of_it(examples(cube), 200), desk_cube(0), 200, np.random.default_rng(1))


@pytest.mark.parametrize("planted", ["a scaler fitted on all rows", "an outcome that had not closed", "calibration on later rows"])
def test_a_fit_that_sees_past_its_end_is_caught(planted):
    def fit(cube: Cube) -> str:
        data = examples(cube)
        closed = data.take(data.row <= 200) if planted.startswith("an outcome") else data.closed_by(200)
        policy = begin(data if planted.startswith("a scaler") else closed)
        fit_sft(policy, closed, replace(SFT, epochs=1))
        if planted.startswith("calibration"):
            policy.calibration = calibrate(policy.raw_p_up(data.features), data.up)
        return policy.state_hash

    with pytest.raises(AssertionError, match="saw past its end"):
        assert_fit(fit, desk_cube(0), 200, np.random.default_rng(1))


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before():
    data, held = made_up(2, days=40), made_up(3, days=20)
    settings = {"sft": replace(SFT, **FEW), "rft": replace(RFT, epochs=2), "rewards": REWARDS, "validation": held, "min_validation": 50}
    first = train(data, seed=1, **settings)
    torch.manual_seed(99)
    torch.rand(7)
    assert train(data, seed=1, **settings).policy.state_hash == first.policy.state_hash
    assert train(data, seed=2, **settings).policy.state_hash != first.policy.state_hash


def test_validation_examples_choose_weights_and_teach_none():
    """With them the epoch that does best on them is kept; without them the last. What training sees is the same."""
    data, held = made_up(4, days=12), made_up(5, days=20)
    settings = replace(SFT, epochs=20, weight_decay=0.0)  # learns its few examples by heart
    watched, alone = begin(data), begin(data)
    history, rest = fit_sft(watched, data, settings, validation=held), fit_sft(alone, data, settings)
    assert history.train == rest.train and rest.kept == 20 and rest.validation == ()
    assert history.kept == 1 + int(np.argmax(history.validation)) < 20
    assert teacher_loss(watched, held, settings) == -max(history.validation) < teacher_loss(alone, held, settings)
    ruined = replace(RFT, epochs=2, learning_rate=3.0)  # steps so long that every epoch makes it worse
    before = watched.state_hash
    assert fit_rft(watched, data, ruined, REWARDS, validation=held).kept == 0 and watched.state_hash == before


def test_a_curriculum_begins_with_the_clear_cases():
    data = made_up(6, days=40)
    unclear = np.abs(data.outcome) < np.quantile(np.abs(data.outcome), 0.75)
    blank = replace(data, features=np.where(unclear[:, None], 0.0, data.features).astype(np.float32))
    hashes = {}
    for curriculum in (True, False):
        for name, examples in (("whole", data), ("blank", blank)):
            policy = begin(data)
            fit_rft(policy, examples, replace(RFT, epochs=1, curriculum=curriculum), REWARDS)
            hashes[curriculum, name] = policy.state_hash
    assert hashes[True, "whole"] == hashes[True, "blank"]
    assert hashes[False, "whole"] != hashes[False, "blank"]


def test_nothing_to_learn_from_is_said():
    with pytest.raises(DataError, match="no thesis example has closed"):
        begin(made_up(0, days=10).closed_by(0))
    empty = made_up(1, days=10).take(np.zeros(0, np.int64))
    done = train(made_up(0, days=10), sft=replace(SFT, epochs=2), rft=None, rewards=REWARDS, validation=empty)
    assert done.rft is None and done.sft.kept == 2 and done.policy.calibration.reason.startswith("0 validation examples")


# --- it learns, and not on noise ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught():
    """Both experiments on a planted market: the policy after SFT, and after RFT on top of it."""
    data, held = made_up(1, days=256), made_up(2, days=64)
    return [train(data, sft=replace(SFT, epochs=4), rft=rft, rewards=REWARDS, validation=held) for rft in (None, replace(RFT, epochs=6))]


def test_theses_of_a_taught_policy_are_valid_and_those_of_an_untaught_one_are_not(taught):
    unseen = made_up(3, days=60)
    assert score_theses(begin(unseen), unseen, REWARDS).valid < 0.2
    for done in taught:
        assert score_theses(done.policy, unseen, REWARDS).valid > 0.9
        assert score_theses(done.policy, unseen, REWARDS, samples=0).valid > 0.9
    for features in unseen.features[:20]:
        assert taught[1].policy.generate_thesis(features).seen


def test_rft_raises_the_mean_reward_on_days_that_it_never_saw(taught):
    unseen = made_up(3, days=60)
    sft, rft = (score_theses(done.policy, unseen, REWARDS) for done in taught)
    gain = mean_by_date(rft.reward - sft.reward, unseen.row)
    assert gain.low > 0.05
    decision = mean_by_date(rft.parts[:, 2], unseen.row)
    assert decision.low > 0.15  # an always-right sign would earn 0.8; the planted part allows about 0.3


def test_calibrated_p_up_beats_the_base_rate_on_days_that_it_never_saw(taught):
    unseen = made_up(3, days=60)
    for done in taught:
        p = done.policy.predict(unseen.features)[1]
        gain = np.where(unseen.up, np.log(p / 0.5), np.log((1 - p) / 0.5))
        assert not done.policy.calibration.reason and mean_by_date(gain, unseen.row).low > 0


def test_noise_teaches_no_decision():
    data, held, unseen = (made_up(seed, days=days, skill=0.0) for seed, days in ((7, 128), (8, 40), (9, 120)))
    done = train(data, sft=replace(SFT, epochs=4), rft=replace(RFT, epochs=4), rewards=REWARDS, validation=held)
    decision = mean_by_date(score_theses(done.policy, unseen, REWARDS).parts[:, 2], unseen.row)
    assert decision.low < 0 < decision.high
    p = done.policy.predict(unseen.features)[1]
    assert mean_by_date(np.where(unseen.up, np.log(p / 0.5), np.log((1 - p) / 0.5)), unseen.row).low < 0
    assert np.abs(p - 0.5).mean() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 5])
def test_two_epochs_of_sft_come_within_a_twentieth_of_twenty(seed):
    """On a desk of 30 symbols and 256 days, the size of a fold of the synthetic market."""
    data = made_up(seed, days=256, assets=30)
    losses = []
    for epochs in (2, 20):
        policy = begin(data)
        fit_sft(policy, data, replace(SFT, epochs=epochs))
        losses.append(teacher_loss(policy, data, SFT))
    assert losses[0] <= 1.05 * losses[1]


# --- calibration --------------------------------------------------------------------------------------------------


def planted_belief(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and what then happened with those odds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.0, n)
    return z, rng.random(n) < 1 / (1 + np.exp(-z))


def test_calibration_undoes_what_was_too_bold_and_shifted():
    z, up = planted_belief(20_000, 0)
    said = 1 / (1 + np.exp(-(3 * z + 1)))
    found = calibrate(said, up)
    assert found.slope == pytest.approx(1 / 3, abs=0.03) and found.bias == pytest.approx(-1 / 3, abs=0.06) and found.rows == 20_000
    np.testing.assert_allclose(log_odds(found(said)), z, atol=0.15)


def test_calibration_keeps_the_order_or_gives_it_up():
    z, up = planted_belief(2_000, 1)
    said = 1 / (1 + np.exp(-z))
    rising = np.sort(said)
    assert (np.diff(calibrate(said, up)(rising)) > 0).all()
    backwards = calibrate(said, ~up)
    assert backwards.slope == 0.0 and np.ptp(backwards(rising)) == 0.0


def test_calibration_says_where_there_was_too_little_to_fit_and_changes_nothing():
    z, up = planted_belief(199, 2)
    said = 1 / (1 + np.exp(-z))
    left = calibrate(said, up, min_rows=200)
    assert left.reason == "199 validation examples had closed; at least 200 are needed"
    np.testing.assert_array_equal(left(said), said)
    one_sided = calibrate(said, np.ones(199, bool), min_rows=10)
    assert one_sided(said).min() > 0.5 and one_sided(said).max() < 1


def test_the_knobs_are_the_keywords_of_what_they_set():
    assert list(KNOBS.sft.model_dump()) == [f.name for f in fields(Sft)]
    assert list(KNOBS.rft.model_dump()) == [f.name for f in fields(Rft)]
    assert list(KNOBS.rewards.model_dump()) == [f.name for f in fields(Rewards)]
