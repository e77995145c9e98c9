"""Reward models under Ray Train: an ensemble whose members are shared out, and a model of texts on shared batches.

The judged pairs travel once, through the object store. A worker that dies takes its group down; the group begins again and
comes to the same weights, since nothing but the seeds decides them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import ray
import ray.train
from ray.train.torch import prepare_model

from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.training_on_ray import trained

if TYPE_CHECKING:  # transformers is imported where texts are read
    from rlaif_ray.feedback.opinion_texts import TextPairs
    from rlaif_ray.feedback.text_reward import TextRewardModel, TextSettings


def fit_ensemble(
    context: np.ndarray, opinions: OpinionTable, pairs: PairTable, settings: Settings, *, workers: int, storage: Path
) -> RewardModel:  # fmt: skip
    """`RewardModel(settings).fit(context, opinions, pairs)`, its members shared out among `workers` processes of one CPU each.

    Every member is fitted by itself, so that not a bit hangs on how many share the work: torch rounds a stack of networks by how
    many stand in it. The plain fit, which stacks them all, gives the same up to that rounding.

    Parameters
    ----------
    workers : more than there are members are not started; 0 is this process (Ray Train's local mode).
    storage : a folder that all nodes see; `train/` in it is used, and gone at the end.

    Call it from the driver or from a task that holds no CPU: the workers need theirs. Raises what the fit raises.
    """
    workers = min(workers, settings.members)
    config = {"data": ray.put((context, opinions, pairs)), "settings": settings}
    with trained(_fit_members, config, workers, storage, "the reward model") as found:
        return RewardModel.joined([RewardModel.load(folder) for folder in sorted(found.iterdir())])


def fit_text_reward(
    pairs: TextPairs, settings: TextSettings, *, workers: int, storage: Path, trainer: Literal["ours", "trl"] = "ours"
) -> TextRewardModel:  # fmt: skip
    """A text reward model whose batches are shared out among `workers` processes of one CPU each, which average gradients.

    With one worker the result is that of the fit without Ray, bit for bit; with more, up to rounding.

    Parameters
    ----------
    workers : 0 is this process (Ray Train's local mode).
    storage : a folder that all nodes see, as must be `settings.path`; `train/` in it is used, and gone at the end.
    trainer : ours, or TRL's `RewardTrainer`, which takes a batch that is a multiple of the workers.

    Call it from the driver or from a task that holds no CPU. Raises `ConfigError` where the path holds no network, or TRL is
    to be used and is not there.
    """
    from rlaif_ray.feedback.text_reward import TextRewardModel
    from rlaif_ray.feedback.trl_reward import check_trl

    TextRewardModel(settings)  # a worker would say what is wrong too, but only after it has started
    if trainer == "trl":
        check_trl(settings, workers)
    config = {"data": ray.put(pairs), "settings": settings, "trainer": trainer}
    with trained(_fit_texts, config, workers, storage, "the text reward model") as found:
        model = TextRewardModel.load(found)
    model.settings = settings  # whose path stays, unlike that of the folder
    return model


def _fit_members(config: dict[str, Any]) -> None:
    """On each training worker: every `workers`-th member, each kept in a folder of its own."""
    rank, workers = _place()
    settings: Settings = config["settings"]
    context, opinions, pairs = ray.get(config["data"])
    for member in range(rank, settings.members, workers):
        RewardModel(settings).fit(context, opinions, pairs, only=[member]).save(config["out"] / f"member={member:04d}")
    ray.train.report({"pairs": len(pairs), "members": settings.members})


def _fit_texts(config: dict[str, Any]) -> None:
    """On each training worker: its share of every batch. All end with the same weights, and rank 0 saves them."""
    from rlaif_ray.feedback.text_reward import TextRewardModel
    from rlaif_ray.feedback.trl_reward import fit_with_trl

    rank, workers = _place()
    pairs: Any = ray.get(config["data"])
    model = TextRewardModel(config["settings"])
    if config["trainer"] == "trl":
        fit_with_trl(model, pairs, config["out"] / f"rank={rank:03d}", workers=workers)
    else:
        model.fit(pairs, wrap=prepare_model if workers > 1 else None, rank=rank, workers=workers)
    if rank == 0:
        model.save(config["out"])
    ray.train.report({"pairs": len(pairs), "cut": model.n_cut})


def _place() -> tuple[int, int]:
    """Rank of this training worker, and how many there are."""
    context = ray.train.get_context()
    return context.get_world_rank(), context.get_world_size()
