"""Under Ray Train a reward model is what it is without: whoever fits a member, and whoever dies."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from rlaif_ray.core import OpinionTable
from rlaif_ray.errors import ConfigError, DataError, ModelError
from rlaif_ray.feedback.preferences import CLIMATOLOGY, HEADS, PairTable
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.reward_network import parameters
from rlaif_ray.feedback.reward_training_on_ray import fit_ensemble, fit_text_reward
from rlaif_ray.feedback.text_reward import TextRewardModel, TextSettings
from rlaif_ray.feedback.trl_reward import fit_with_trl
from rlaif_ray.training_on_ray import raised_by
from tests.feedback.texts import marked, tiny_encoder

SETTINGS = Settings(("A", "B", "C"), ("trend", "volatility"), members=5, epochs=3, heads=(1.0, 0.5, 0.0), label_smoothing=0.1, seed=3)


@dataclass(frozen=True, eq=False)
class Judged:
    """Opinions, and pairs of them that are better or worse by chance, with the climatological forecast among the rivals."""

    context: np.ndarray
    opinions: OpinionTable
    pairs: PairTable

    @classmethod
    def of(cls, seed: int, dates: int = 60, assets: int = 3, count: int = 900) -> Judged:
        rng = np.random.default_rng(seed)
        as_of = np.datetime64("2020-01-01T21:00", "us") + np.arange(dates) * np.timedelta64(1, "D")
        p_up = rng.uniform(0.2, 0.8, (dates, assets, 3))
        opinions = OpinionTable(as_of, tuple(f"S{a}" for a in range(assets)), SETTINGS.authors, p_up, 5)
        date, chosen = np.sort(rng.integers(0, dates, count)), rng.integers(0, 3, count)
        rejected = np.where(rng.random(count) < 0.2, CLIMATOLOGY, (chosen + rng.integers(1, 3, count)) % 3)
        agrees = rng.integers(-1, 2, (count, len(HEADS))).astype(np.int8)
        agrees[:, 0] = 1
        pairs = PairTable(
            date=date, asset=rng.integers(0, assets, count), chosen=chosen, rejected=rejected, margin=rng.random(count), opened_row=date,
            closed_row=date + 5, weight=rng.uniform(0.2, 1.0, count), kind=np.zeros(count, np.int8), agrees=agrees,
        )  # fmt: skip
        return cls(rng.standard_normal((dates, assets, 2)), opinions, pairs)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TextSettings:
    path = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    return TextSettings(path, length=16, epochs=2, batch=32, learning_rate=2e-3)


def gaps(model: TextRewardModel) -> np.ndarray:
    held_out = marked(2, 100)
    return model.rewards(held_out.chosen) - model.rewards(held_out.rejected)


# --- the ensemble ---


def one_by_one(data: Judged, settings: Settings = SETTINGS) -> RewardModel:
    members = range(settings.members)
    return RewardModel.joined([RewardModel(settings).fit(data.context, data.opinions, data.pairs, only=[m]) for m in members])


def test_ray_train_in_this_process_fits_as_without_it(ray_session: None, tmp_path: Path) -> None:
    """Member by member to the bit, and as the plain fit of all at once to its rounding."""
    data = Judged.of(1)
    fitted = fit_ensemble(data.context, data.opinions, data.pairs, SETTINGS, workers=0, storage=tmp_path)
    assert fitted.state_hash == one_by_one(data).state_hash and fitted.n_pairs == 900 and fitted.anchored
    plain = RewardModel(SETTINGS).fit(data.context, data.opinions, data.pairs)
    stacked, single = (m.by_member(data.context, data.opinions.p_up) for m in (plain, fitted))
    assert stacked.std() > 0.01
    np.testing.assert_allclose(single, stacked, atol=1e-6)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no pairs to learn from"):
        fit_ensemble(data.context, data.opinions, data.pairs.take(np.arange(0)), SETTINGS, workers=0, storage=tmp_path)


@pytest.mark.slow
def test_one_worker_and_two_fit_the_same_ensemble(ray_session: None, tmp_path: Path) -> None:
    data = Judged.of(1)
    for workers in (1, 2):
        fitted = fit_ensemble(data.context, data.opinions, data.pairs, SETTINGS, workers=workers, storage=tmp_path)
        assert fitted.state_hash == one_by_one(data).state_hash
    with pytest.raises(DataError, match="no pairs to learn from"):  # said by a worker
        fit_ensemble(data.context, data.opinions, data.pairs.take(np.arange(0)), SETTINGS, workers=2, storage=tmp_path)


@dataclass(frozen=True, eq=False)
class DeadlyOnce:
    """An array that kills the first process which unpacks it, as the kernel does when memory runs out."""

    array: np.ndarray
    mark: Path

    def __reduce__(self) -> tuple[Any, tuple[np.ndarray, Path]]:
        return unpack_or_die, (self.array, self.mark)


def unpack_or_die(array: np.ndarray, mark: Path) -> np.ndarray:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return array


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_time_and_changes_nothing(ray_session: None, tmp_path: Path) -> None:
    data, context = Judged.of(1), DeadlyOnce(Judged.of(1).context, tmp_path / "killed")
    fitted = fit_ensemble(context, data.opinions, data.pairs, SETTINGS, workers=2, storage=tmp_path / "store")  # pyright: ignore
    assert context.mark.exists()
    assert fitted.state_hash == one_by_one(data).state_hash


def test_what_a_worker_raised_on_purpose_is_what_the_user_reads() -> None:
    line = DataError("no pairs")
    assert raised_by(WorkerGroupError("rank 0", {0: UserExceptionWithTraceback(line, "Traceback ...")}), "it") is line
    lost = raised_by(WorkerGroupError("rank 0 died", {0: RuntimeError("killed")}), "the reward model")
    assert isinstance(lost, ModelError) and "training of the reward model failed on 1 worker(s)" in str(lost)


@pytest.mark.slow
def test_fifty_million_parameters_fit_and_score_on_a_cpu() -> None:
    """One member; some seventy steps, and it tells most of the pairs that it learnt from; one opinion is scored as among many."""
    data, settings = Judged.of(2, count=300), replace(SETTINGS, size="large", members=1, epochs=6, batch=16)
    assert 45e6 < parameters(7, "large", 2) < 55e6
    model = RewardModel(settings).fit(data.context, data.opinions, data.pairs)
    rewards = model.rewards(data.context, data.opinions.p_up).mean
    alone = model.rewards(data.context[5, 1], data.opinions.p_up[5, 1]).mean
    assert np.isfinite(rewards).all()
    anchored = np.concatenate([rewards, np.zeros((*rewards.shape[:2], 1))], axis=2)  # climatology, -1, is the last
    better, worse = (anchored[data.pairs.date, data.pairs.asset, side] for side in (data.pairs.chosen, data.pairs.rejected))
    assert (better > worse).mean() > 0.6
    np.testing.assert_array_equal(alone, rewards[5, 1])


# --- texts ---


@pytest.mark.parametrize("trainer", ["ours", pytest.param("trl", marks=pytest.mark.slow)])
def test_in_this_process_texts_are_learnt_as_without_ray(ray_session: None, tmp_path: Path, settings: TextSettings, trainer: Any) -> None:
    pairs, plain = marked(1, 200), TextRewardModel(settings)
    plain = plain.fit(pairs) if trainer == "ours" else fit_with_trl(plain, pairs, tmp_path / "scratch")
    fitted = fit_text_reward(pairs, settings, workers=0, storage=tmp_path / "store", trainer=trainer)
    assert fitted.state_hash == plain.state_hash and fitted.settings == settings
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "count"), [("ours", 129), ("trl", 128)])
def test_texts_are_learnt_by_one_worker_as_by_none_and_by_two_up_to_rounding(
    ray_session: None, tmp_path: Path, settings: TextSettings, trainer: Any, count: int
) -> None:  # fmt: skip
    """Rounding grows from step to step: it is held to 1e-5 after five steps. TRL fills up a last batch that does not share out."""
    pairs = marked(1, count)
    settings = replace(settings, epochs=1, label_smoothing=0.1)
    plain = TextRewardModel(settings)
    plain = plain.fit(pairs) if trainer == "ours" else fit_with_trl(plain, pairs, tmp_path / "scratch")
    one, two = (fit_text_reward(pairs, settings, workers=w, storage=tmp_path / "store", trainer=trainer) for w in (1, 2))
    assert one.state_hash == plain.state_hash
    assert two.n_pairs == count and np.abs(gaps(plain)).mean() > 1e-3
    np.testing.assert_allclose(gaps(two), gaps(plain), atol=1e-5)


@pytest.mark.slow
def test_an_encoder_of_fifty_million_parameters_builds_learns_and_scores(settings: TextSettings, tmp_path: Path) -> None:
    shape = {"hidden_size": 640, "num_hidden_layers": 10, "num_attention_heads": 10, "intermediate_size": 2560}
    path = tiny_encoder(tmp_path / "large", **shape)
    model = TextRewardModel(replace(settings, path=path, epochs=1, batch=4, learning_rate=1e-4))
    assert 45e6 < model.n_parameters < 55e6
    before = gaps(fit_nothing(model))
    assert not np.array_equal(gaps(model.fit(marked(1, 12))), before)


def fit_nothing(model: TextRewardModel) -> TextRewardModel:
    """Counts pairs without a step, so that the new head may be asked."""
    model.read(marked(1, 1))
    return model


def test_a_path_without_a_network_is_said_before_any_worker_starts(ray_session: None, tmp_path: Path, settings: TextSettings) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        fit_text_reward(marked(1, 8), replace(settings, path=str(tmp_path / "nothing")), workers=2, storage=tmp_path)
    with pytest.raises(ConfigError, match="multiple of 3"):
        fit_text_reward(marked(1, 8), settings, workers=3, storage=tmp_path, trainer="trl")
    assert not list(tmp_path.iterdir())
