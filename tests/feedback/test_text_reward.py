"""A model of texts finds the word that marks the better, finds nothing where there is none, and TRL's trainer fits the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, RobertaConfig, RobertaModel

from rlaif_ray.core import Claim, Opinion
from rlaif_ray.errors import CheckpointError, ConfigError, DataError, NotFittedError
from rlaif_ray.feedback.opinion_texts import TextPairs, base_rate_text, text_of, text_pairs, words_of
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import CLIMATOLOGY, pairs
from rlaif_ray.feedback.text_reward import TextRewardModel, TextSettings, bradley_terry
from rlaif_ray.feedback.trl_reward import fit_with_trl, trl_trainer
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ROSTER, ask, dense, desk_cube
from tests.feedback.texts import marked, tiny_encoder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TextSettings:
    path = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    return TextSettings(path, length=16, epochs=4, batch=32, learning_rate=2e-3)


def accuracy(model: TextRewardModel, held_out: TextPairs) -> float:
    return float((model.rewards(held_out.chosen) > model.rewards(held_out.rejected)).mean())


# --- texts ---


def test_a_text_says_question_stance_claims_and_narrative_but_not_who_or_when() -> None:
    opinion = Opinion(
        "risk", np.datetime64("2020-01-02T21:00", "us"), "ACME", 5, 0.6412,
        (Claim("vol_21", 0.031234, "calm"), Claim("rsi_14", 71.0, "high")), "Earnings beat.", "p",
    )  # fmt: skip
    context = words_of(("trend", "age", "volatility"), np.array([1.2345, np.nan, 0.02]))
    question = "question: ACME against its peers over 5 bars? context: trend 1.23, volatility 0.02."
    said = "answer: strong buy, 0.641 up. claims: vol_21 0.0312, calm; rsi_14 71, high. Earnings beat."
    assert text_of(opinion, context) == f"{question} {said}"
    assert base_rate_text(opinion, context) == f"{question} answer: as often as in the past."
    other = replace(opinion, author="news", as_of=np.datetime64("2021-01-04T21:00", "us"))
    assert text_of(other, context) == text_of(opinion, context)


def test_both_texts_of_a_judged_pair_answer_one_question() -> None:
    cube = desk_cube(0, 200)
    opinions = dense(cube)
    outcomes = close(opinions, cube, OutcomeTerms(cost_per_side=0.0005))
    table = pairs(outcomes, tie=0.01)
    said: dict[Any, Opinion] = {(o.as_of, o.symbol, o.author): o for o in ask(cube) if isinstance(o, Opinion)}
    both = text_pairs(table, opinions, said, lambda date, asset: f"date {date}, asset {asset}")
    assert len(both) == len(table) > 100
    anchored = np.flatnonzero(np.minimum(table.chosen, table.rejected) == CLIMATOLOGY)
    assert len(anchored) and len(anchored) < len(table)
    for p, (chosen, rejected) in enumerate(zip(both.chosen, both.rejected, strict=True)):
        question = chosen.split(" answer: ")[0]
        assert question == rejected.split(" answer: ")[0]
        assert question.endswith(f"context: date {table.date[p]}, asset {table.asset[p]}.")
        assert (table.chosen[p] == CLIMATOLOGY) == chosen.endswith("answer: as often as in the past.")
        if table.chosen[p] != CLIMATOLOGY:
            key = opinions.as_of[table.date[p]], opinions.symbols[table.asset[p]], ROSTER[table.chosen[p]]
            assert said[key].narrative in chosen
    with pytest.raises(DataError, match="a pair of texts needs both"):
        text_pairs(table, opinions, dict(list(said.items())[:1]), lambda date, asset: "")


def test_a_pair_without_weight_is_refused() -> None:
    with pytest.raises(DataError, match="not above 0"):
        TextPairs(("a",), ("b",), np.zeros(1))
    with pytest.raises(DataError, match="expected as many"):
        TextPairs(("a",), (), np.ones(1))


# --- the model ---


def test_the_loss_is_that_of_bradley_and_terry_by_hand() -> None:
    """A gap of log 3 is a chance of 3/4; one label in ten is wrong."""
    loss = bradley_terry(torch.tensor([np.log(3.0)], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64), 0.1)
    assert loss.item() == pytest.approx(-2.0 * (0.9 * np.log(0.75) + 0.1 * np.log(0.25)))


def test_it_finds_the_planted_word_on_unseen_texts(settings: TextSettings) -> None:
    model = TextRewardModel(settings).fit(marked(1, 400))
    assert accuracy(model, marked(2, 400)) > 0.95


def test_a_weight_decides_between_pairs_that_contradict_each_other(settings: TextSettings) -> None:
    right, wrong = marked(1, 200), marked(2, 200)
    both = TextPairs(right.chosen + wrong.rejected, right.rejected + wrong.chosen, np.repeat([1.0, 0.1], 200))
    assert accuracy(TextRewardModel(settings).fit(both), marked(3, 100)) > 0.95
    turned = TextPairs(both.chosen, both.rejected, both.weight[::-1].copy())
    assert accuracy(TextRewardModel(settings).fit(turned), marked(3, 100)) < 0.05


def test_in_noise_it_finds_nothing(settings: TextSettings) -> None:
    """Half of all labels are wrong, of those that it learns from and those held out: 4 x 500 fair coins, 4 deviations."""
    rate = [accuracy(TextRewardModel(settings).fit(marked(s, 200, wrong=0.5)), marked(90 + s, 500, wrong=0.5)) for s in range(4)]
    assert abs(np.mean(rate) - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_labels_that_may_be_wrong_make_it_less_sure(settings: TextSettings) -> None:
    """Where one label in five may be wrong, no gap says more than log 4."""
    settings, held_out = replace(settings, epochs=20), marked(2, 100)
    sure, smooth = (TextRewardModel(replace(settings, label_smoothing=s)).fit(marked(1, 100)) for s in (0.0, 0.2))
    gaps = [np.mean(m.rewards(held_out.chosen) - m.rewards(held_out.rejected)) for m in (sure, smooth)]
    assert gaps[0] > 2 * np.log(4.0) and gaps[1] == pytest.approx(np.log(4.0), rel=0.25)


def test_the_same_pairs_give_the_same_bits_and_leave_the_global_generators_alone(settings: TextSettings) -> None:
    before = torch.get_rng_state()
    first, again = (TextRewardModel(settings).fit(marked(1, 100)) for _ in range(2))
    assert first.state_hash == again.state_hash
    assert first.state_hash != TextRewardModel(replace(settings, seed=1)).fit(marked(1, 100)).state_hash
    assert torch.equal(before, torch.get_rng_state())


def test_a_worker_without_a_share_of_the_last_batch_takes_part_in_it(settings: TextSettings) -> None:
    """33 pairs in batches of 32: the second of two workers has none of the last, and must still step where all step."""
    model = TextRewardModel(settings).fit(marked(1, 33), rank=1, workers=2)
    assert np.isfinite(model.rewards(marked(2, 20).chosen)).all()


def test_one_text_is_scored_as_among_a_hundred(settings: TextSettings) -> None:
    model, texts = TextRewardModel(settings).fit(marked(1, 50)), marked(2, 100).chosen
    alone = np.concatenate([model.rewards([text]) for text in texts])
    np.testing.assert_array_equal(alone, model.rewards(texts))
    assert model.rewards([]).shape == (0,)


def test_a_text_that_is_too_long_loses_its_end_and_is_counted(settings: TextSettings) -> None:
    model = TextRewardModel(settings)
    long = " ".join(["steel"] * 40)
    model.fit(TextPairs((f"proven {long}", "proven"), (f"hoped {long}", "hoped"), np.ones(2)))
    assert (model.n_pairs, model.n_cut) == (2, 2)
    same = model.rewards([f"proven {long}", f"proven {long} today"])
    assert same[0] == same[1]


def test_it_survives_the_disk_and_a_change_to_it_is_seen(settings: TextSettings, tmp_path: Path) -> None:
    model, texts = TextRewardModel(settings).fit(marked(1, 100)), marked(2, 50).chosen
    model.save(tmp_path / "kept")
    found = TextRewardModel.load(tmp_path / "kept")
    np.testing.assert_array_equal(found.rewards(texts), model.rewards(texts))
    assert found.n_pairs == 100 and "encoder" not in (tmp_path / "kept" / "text_reward.json").read_text()

    other = TextRewardModel(settings).fit(marked(3, 100)).save(tmp_path / "other")
    about = json.loads((tmp_path / "kept" / "text_reward.json").read_text())
    other.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="from different runs"):
        TextRewardModel.load(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cut short"):
        TextRewardModel.load(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"expected text_reward\.json"):
        TextRewardModel.load(tmp_path)


def test_what_is_wrong_with_a_path_is_said_in_one_line(settings: TextSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path of the text reward model.*is no folder"):
        TextRewardModel(replace(settings, path=str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match=r"path of the text reward model.*holds no network"):
        TextRewardModel(replace(settings, path=str(tmp_path)))
    with pytest.raises(ConfigError, match="reads 64 at most: lower length"):
        TextRewardModel(replace(settings, length=65))
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.5"):
        replace(settings, label_smoothing=0.5)
    with pytest.raises(NotFittedError, match="no pairs"):
        TextRewardModel(settings).rewards(["proven"])
    with pytest.raises(DataError, match="no pairs of texts"):
        TextRewardModel(settings).fit(TextPairs((), (), np.empty(0)))


def test_a_classifier_of_three_gets_a_new_head_and_other_encoders_do_too(settings: TextSettings, tmp_path: Path) -> None:
    three = TextRewardModel(replace(settings, path=tiny_encoder(tmp_path / "three", head=3))).fit(marked(1, 400))
    assert accuracy(three, marked(2, 200)) > 0.95

    tokenizer = BertTokenizer(str(Path(settings.path) / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(tmp_path / "roberta")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaModel(RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=66, pad_token_id=0,
        )).save_pretrained(tmp_path / "roberta")  # fmt: skip
    roberta = TextRewardModel(replace(settings, path=str(tmp_path / "roberta"))).fit(marked(1, 400))
    assert accuracy(roberta, marked(2, 200)) > 0.95


# --- TRL ---


@pytest.mark.slow  # TRL and what it brings set environment variables, which native threads of Ray may be reading
def test_trl_steps_as_our_loop_does_where_all_pairs_are_one_batch(settings: TextSettings, tmp_path: Path) -> None:
    """The first step to the bit. After five, gaps to rounding: the level of rewards, which no pair tells, is Adam's to wander."""
    settings, held_out = replace(settings, epochs=1, batch=64, label_smoothing=0.1), marked(2, 100)
    ours, theirs = TextRewardModel(settings).fit(marked(1, 50)), fit_with_trl(TextRewardModel(settings), marked(1, 50), tmp_path)
    assert theirs.state_hash == ours.state_hash and theirs.n_pairs == 50
    settings = replace(settings, epochs=5)
    ours, theirs = TextRewardModel(settings).fit(marked(1, 50)), fit_with_trl(TextRewardModel(settings), marked(1, 50), tmp_path)
    gaps = [m.rewards(held_out.chosen) - m.rewards(held_out.rejected) for m in (ours, theirs)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-5)


@pytest.mark.slow
def test_trl_finds_the_planted_word_again_the_same_and_leaves_the_global_generators_alone(settings: TextSettings, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # pyright: ignore
    first, again = (fit_with_trl(TextRewardModel(settings), marked(1, 300), tmp_path) for _ in range(2))
    assert accuracy(first, marked(2, 200)) > 0.95 and first.state_hash == again.state_hash
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # pyright: ignore
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


@pytest.mark.slow
def test_trl_keeps_the_pairs_that_it_would_drop_in_silence(settings: TextSettings, tmp_path: Path) -> None:
    """Its own way with texts of over 15 tokens is to leave their pairs out; ours are cut and counted."""
    chosen, rejected = (tuple(f"{text} {'steel ' * 20}" for text in side) for side in (marked(1, 8).chosen, marked(1, 8).rejected))
    long = TextPairs(chosen, rejected, np.ones(8))
    model = TextRewardModel(settings)
    assert len(trl_trainer(model, long, tmp_path).train_dataset) == 8
    assert model.n_cut == 16
    with pytest.raises(ConfigError, match="multiple of 3"):
        trl_trainer(model, long, tmp_path, workers=3)
