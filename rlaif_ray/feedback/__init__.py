"""Closed outcomes judge opinions, judged pairs train the reward model, the reward model moves the desk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_ray.config import Feedback

if TYPE_CHECKING:
    from rlaif_ray.feedback.reward_model import Settings


def build(section: Feedback, authors: tuple[str, ...], *, seed: int) -> Settings:
    """What a reward model over these authors is made from."""
    from rlaif_ray.feedback.context import CONTEXT
    from rlaif_ray.feedback.reward_model import Settings

    return Settings(
        authors, CONTEXT, hidden=section.hidden, epochs=section.epochs, learning_rate=section.learning_rate,
        weight_decay=section.weight_decay, temperature=section.temperature, seed=seed,
    )  # fmt: skip
