"""Closed outcomes judge opinions, judged pairs train the reward model, the reward model moves the desk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_ray.config_feedback import Feedback

if TYPE_CHECKING:
    from rlaif_ray.feedback.reward_model import Settings


def build(section: Feedback, authors: tuple[str, ...], *, seed: int, label_smoothing: float = 0.0) -> Settings:
    """What a reward model over these authors is made from. `label_smoothing`: share of labels taken to be wrong, as estimated."""
    from rlaif_ray.core import TRAITS
    from rlaif_ray.feedback.context import CONTEXT
    from rlaif_ray.feedback.preferences import HEADS
    from rlaif_ray.feedback.reward_model import Settings

    return Settings(
        authors, CONTEXT, traits=TRAITS if "text" in section.sees else (), size=section.size, members=section.members, sees=section.sees,
        heads=tuple(getattr(section.heads, head) for head in HEADS), epochs=section.epochs, learning_rate=section.learning_rate,
        weight_decay=section.weight_decay, label_smoothing=label_smoothing, temperature=section.temperature,
        confidence=section.confidence, bar=section.bar, seed=seed,
    )  # fmt: skip
