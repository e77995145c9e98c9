"""A made-up desk for thesis policies: ten features, some of them missing, and outcomes of which a planted part can be known."""

from __future__ import annotations

import itertools

import numpy as np

from rlaif_ray.config_thesis import Thesis
from rlaif_ray.feedback.thesis_data import ThesisData
from rlaif_ray.feedback.thesis_policy import Draft
from rlaif_ray.feedback.thesis_rewards import Rewards
from rlaif_ray.feedback.thesis_schema import DECISIONS, ThesisForm
from rlaif_ray.feedback.thesis_training import Rft, Sft

KNOBS = Thesis()
FORM = ThesisForm.of(**KNOBS.form.model_dump())
SFT, RFT = Sft(**KNOBS.sft.model_dump()), Rft(**KNOBS.rft.model_dump())
REWARDS = Rewards(**KNOBS.rewards.model_dump())

# The smallest form that can break every rule: 2 sections, 1 claim, 5 decisions, so 40 theses in all.
TOY = ThesisForm.of(
    ("a", "b"), [{"name": "summary", "about": (), "required": True}, {"name": "doubts", "about": ("a",), "required": False}],
    [{"name": "rise", "says": "b > 0", "supports": 1, "section": "summary"}], "doubts",
)  # fmt: skip


def column(feature: str) -> int:
    return FORM.features.index(feature)


def drafts_of(form: ThesisForm) -> Draft:
    """Every draft that the form allows, valid or not."""
    said = list(itertools.product((False, True), repeat=len(form.sections) + len(form.claims)))
    bits, decision = zip(*itertools.product(said, range(len(DECISIONS))), strict=True)
    flags = np.array(bits)
    return Draft(flags[:, : len(form.sections)], flags[:, len(form.sections) :], np.array(decision))


def made_up(seed: int, days: int = 320, assets: int = 16, skill: float = 0.4, missing: float = 0.1) -> ThesisData:
    """Outcomes are `skill` times a signal in f_sentiment and mom10 plus noise of unit variance; the insider score is never there."""
    rng = np.random.default_rng(seed)
    n = days * assets
    z = rng.normal(size=(n, len(FORM.features)))
    z[:, column("mom30")] = 0.6 * z[:, column("mom10")] + 0.8 * rng.normal(size=n)
    signal = (z[:, column("f_sentiment")] + z[:, column("mom10")]) / np.sqrt(2)
    outcome = skill * signal + np.sqrt(1 - skill**2) * rng.normal(size=n)
    features = z.astype(np.float32)
    features[:, column("vol")] = 0.02 * np.exp(0.4 * z[:, column("vol")])
    features[:, column("rsi")] = 50 + 15 * z[:, column("rsi")]
    features[rng.random(z.shape) < missing] = np.nan
    features[:, column("f_insider")] = np.nan
    row, asset = np.divmod(np.arange(n), assets)
    return ThesisData(FORM, features, np.digitize(outcome, KNOBS.decision_z), outcome, row, asset, row + KNOBS.horizon_bars)
