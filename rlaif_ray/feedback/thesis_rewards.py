"""What a thesis is worth: does it keep to its form, are its claims true, and did the symbol go where it decided.

Axes: N theses, R = 3 rewards (validity, evidence, decision).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rlaif_ray.feedback.thesis_data import Facts, ThesisData
from rlaif_ray.feedback.thesis_policy import Draft, ThesisPolicy, draw, likeliest
from rlaif_ray.feedback.thesis_schema import SIGNS, ThesisForm

REWARDS = ("validity", "evidence", "decision")


@dataclass(frozen=True)
class Rewards:
    """Weights of the three rewards; `clip`, in residual volatilities of the horizon, is how far an outcome counts."""

    validity: float
    evidence: float
    decision: float
    clip: float

    def parts(self, form: ThesisForm, draft: Draft, facts: Facts) -> np.ndarray:
        """(N,R) float64 unweighted rewards of one draft for each example.

        validity : 1 for a thesis without faults, else 0.
        evidence : (true claims made - false claims made) / claims that could be checked; 0 where none could. Silence earns 0.
        decision : sign of the decision x outcome, within +-clip: a sell before a fall is right.
        """
        faults = form.faults(draft.sections, draft.claims, draft.decision, facts.known, facts.open_sections)
        made = (draft.claims & facts.known).sum(axis=1)
        true = (draft.claims & facts.true).sum(axis=1)
        return np.stack([
            ~faults.any(axis=1),
            (2 * true - made) / np.maximum(facts.known.sum(axis=1), 1),
            SIGNS[draft.decision] * np.clip(facts.outcome, -self.clip, self.clip),
        ], axis=1)  # fmt: skip

    def total(self, parts: np.ndarray) -> np.ndarray:
        """(N,) weighted sum of `parts` (N,R)."""
        return parts @ np.array([self.validity, self.evidence, self.decision])


@dataclass(frozen=True)
class Scored:
    """How a policy's theses fared, example by example."""

    reward: np.ndarray  # (N,) weighted, mean over the theses that were drawn for the example
    parts: np.ndarray  # (N,R) unweighted, likewise
    valid: float  # share of valid theses


def score_theses(policy: ThesisPolicy, data: ThesisData, rewards: Rewards, *, samples: int = 8, seed: int = 0) -> Scored:
    """Rewards of `samples` theses drawn for each example; with samples = 0 those of the likeliest thesis, which is what the desk gets."""
    with torch.inference_mode():
        logits = policy.logits(data.features)
        generator = torch.Generator().manual_seed(seed)
        drafts = [draw(logits, generator) for _ in range(samples)] if samples else [likeliest(logits)]
    parts = np.mean([rewards.parts(data.form, d, data.facts) for d in drafts], axis=0)
    return Scored(rewards.total(parts), parts, float(parts[:, 0].mean()) if len(parts) else float("nan"))
