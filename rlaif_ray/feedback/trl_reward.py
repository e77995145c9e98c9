"""The same text reward model, fitted by TRL's `RewardTrainer` in place of our loop: its optimiser loop, logs and sharding.

Network, tokens, loss and order of the sides are ours, so the two differ in which pairs meet in a batch and in nothing else.
Left to itself, TRL drops every pair with a text that is too long and says nothing, and knows neither weights nor doubtful
labels. Here texts come to it as tokens, cut as for our loop, and each pair carries its weight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlaif_ray.errors import ConfigError, ModelError
from rlaif_ray.feedback.opinion_texts import TextPairs
from rlaif_ray.feedback.text_reward import TextRewardModel, TextSettings, bradley_terry, one_thread, optimiser_of


def check_trl(settings: TextSettings, workers: int) -> None:
    """Raises `ConfigError` where TRL is not installed, or the pairs of a batch do not share out evenly among the workers."""
    if find_spec("trl") is None:
        raise ConfigError("the trainer 'trl' needs TRL, which is not installed; pip install 'rlaif_ray[trl]', or use the trainer 'ours'")
    if workers and settings.batch % workers:
        raise ConfigError(f"batch is {settings.batch} pairs for {workers} workers; the trainer 'trl' needs a multiple of {workers}")


def fit_with_trl(model: TextRewardModel, pairs: TextPairs, scratch: Path, *, workers: int = 1) -> TextRewardModel:
    """Fit `model` in place on this process's share of the pairs; call it on each of `workers` processes of a group.

    `scratch` is a folder that TRL may write to. Raises `DataError` without pairs, and what `check_trl` raises.
    """
    with one_thread(), _randomness_restored():
        trainer = trl_trainer(model, pairs, scratch, workers=workers)
        trainer.train()
    model.network = trainer.accelerator.unwrap_model(trainer.model).eval()
    return model


def trl_trainer(model: TextRewardModel, pairs: TextPairs, scratch: Path, *, workers: int = 1) -> Any:
    """A `trl.RewardTrainer` over `pairs`, not yet run, whose loss is weighted and smoothed as ours is."""
    check_trl(model.settings, workers)
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.reward_trainer import RewardTrainer

    class Weighted(RewardTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            weight = inputs.pop("weight")
            outputs: Any = super().compute_loss(model, inputs, return_outputs=True)[1]  # it keeps TRL's own record of the fit
            better, worse = outputs.logits.squeeze(-1).chunk(2)
            loss = bradley_terry(better - worse, weight, smoothing).mean()
            return (loss, outputs) if return_outputs else loss

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["chosen_ids", "rejected_ids", "weight"]

    smoothing = model.settings.label_smoothing
    chosen, rejected = model.read(pairs)
    rows = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected, "weight": pairs.weight / pairs.weight.mean()})
    optimiser = optimiser_of(model.network, model.settings)
    trainer: Any = Weighted(
        model=model.network, args=trl_arguments(model.settings, scratch, workers), train_dataset=rows, processing_class=model.tokenizer,
        data_collator=lambda said: _batch(model, said), optimizers=(optimiser, None),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if len(trainer.train_dataset) != len(pairs):
        raise ModelError(f"trl kept {len(trainer.train_dataset)} of {len(pairs)} pairs; expected all of them")
    return trainer


def trl_arguments(settings: TextSettings, scratch: Path, workers: int) -> Any:
    """A `trl.RewardConfig` that says what `settings` say: on the CPU in float32, no schedule,
    no checkpoints, and nothing reported to anyone."""
    from trl.trainer.reward_config import RewardConfig

    return RewardConfig(
        output_dir=str(scratch), num_train_epochs=settings.epochs, per_device_train_batch_size=settings.batch // workers,
        learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, lr_scheduler_type="constant", max_grad_norm=1.0,
        max_length=None, seed=settings.seed, data_seed=settings.seed, use_cpu=True, bf16=False,
        activation_checkpointing=False, dataloader_pin_memory=False, save_strategy="no", logging_strategy="no", report_to=[],
        disable_tqdm=True,
    )  # fmt: skip


def _batch(model: TextRewardModel, said: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Chosen above rejected, as TRL expects them, of our fixed length."""
    ids, mask = model.padded([*[one["chosen_ids"] for one in said], *[one["rejected_ids"] for one in said]])
    return {"input_ids": ids, "attention_mask": mask, "weight": torch.tensor([one["weight"] for one in said], dtype=torch.float32)}


@contextmanager
def _randomness_restored() -> Iterator[None]:
    """TRL seeds the global generators of Python, numpy and torch; whoever calls finds them as they were."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
