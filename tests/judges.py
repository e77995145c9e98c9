"""A judge whose taste, favour for a place and noise are planted, so that tests know what must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Opinion, content_hash


@dataclass
class ScriptedJudge:
    """P(first better) = sigmoid((worth(first) - worth(second)) / scale) + bias, the other way round in `noise` of all answers.

    Whether an answer is wrong follows from the seed, the two opinions and their order alone: asked again it says the same.
    """

    worth: Callable[[Opinion], float]
    bias: float = 0.0  # added to the probability of what is shown first
    noise: float = 0.0
    scale: float = 1.0
    seed: int = 0
    name: str = "scripted"

    def compare(self, first: Opinion, second: Opinion) -> float:
        sure = 1.0 / (1.0 + np.exp(-(self.worth(first) - self.worth(second)) / self.scale))
        drawn = int(content_hash((self.seed, first.id, second.id)), 16) / 16**16
        return float(np.clip((1.0 - sure if drawn < self.noise else sure) + self.bias, 0.0, 1.0))
