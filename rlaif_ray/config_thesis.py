"""Knobs of the thesis policy: what a thesis is made of, how it is taught, and how it is put to the test."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rlaif_ray.config_data import Section

FEATURES = ("f_quality", "f_sentiment", "f_momentum", "f_insider", "f_value", "vol", "mom10", "mom30", "rsi", "volume_ratio")
Share = Annotated[float, Field(gt=0, lt=1)]


class ThesisSection(Section):
    name: str
    """Heading."""
    about: tuple[str, ...] = ()
    """Features that it tells of; it cannot be written while all of them are missing. None: it can always be written."""
    required: bool = False
    """A thesis without it is not valid."""


class ThesisClaim(Section):
    name: str
    """What the claim is called."""
    says: str
    """When it is true: comparisons of a feature with a number, joined by `and`, such as mom10 > 0 and f_sentiment < 0."""
    supports: Literal[-1, 0, 1]
    """The side that it speaks for: 1 buying, -1 selling, 0 neither."""
    section: str
    """Where it is told."""


class ThesisForm(Section):
    features: tuple[str, ...] = FEATURES
    """What the policy reads of a symbol, in this order."""
    sections: tuple[ThesisSection, ...] = (
        ThesisSection(name="summary", required=True),
        ThesisSection(name="fundamentals", about=("f_quality", "f_value", "f_insider")),
        ThesisSection(name="sentiment", about=("f_sentiment",)),
        ThesisSection(name="technicals", about=("f_momentum", "mom10", "mom30", "rsi", "volume_ratio")),
        ThesisSection(name="risks", required=True),
        ThesisSection(name="doubts"),
    )
    """What a thesis may be divided into."""
    claims: tuple[ThesisClaim, ...] = (
        ThesisClaim(name="quality", says="f_quality > 0", supports=1, section="fundamentals"),
        ThesisClaim(name="sentiment", says="f_sentiment > 0", supports=1, section="sentiment"),
        ThesisClaim(name="momentum", says="f_momentum > 0", supports=1, section="technicals"),
        ThesisClaim(name="insiders", says="f_insider > 0", supports=1, section="fundamentals"),
        ThesisClaim(name="volatile", says="vol > 0.02", supports=-1, section="risks"),
        ThesisClaim(name="rise_10", says="mom10 > 0", supports=1, section="technicals"),
        ThesisClaim(name="rise_30", says="mom30 > 0", supports=1, section="technicals"),
        ThesisClaim(name="unloved_rise", says="mom10 > 0 and f_sentiment < 0", supports=-1, section="technicals"),
    )
    """What a thesis may claim, each checked against the features."""
    doubts: str = "doubts"
    """The section that a decision needs which no claim supports: there it says so."""


class ThesisRewards(Section):
    validity: float = Field(default=1.0, ge=0)
    """Weight of keeping to the form: 1 or 0."""
    evidence: float = Field(default=1.0, ge=0)
    """Weight of the evidence: true claims made less false ones, over those that could be checked."""
    decision: float = Field(default=1.0, ge=0)
    """Weight of the decision: its sign times the outcome."""
    clip: float = Field(default=2.0, gt=0)
    """Outcomes, in residual volatilities of the horizon, count up to here: one jump must not own a batch."""


class ThesisSft(Section):
    epochs: int = Field(default=20, ge=1)
    """Passes over the teacher's theses."""
    batch: int = Field(default=16, ge=1)
    """Examples a step."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """AdamW."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW."""
    sections: float = Field(default=1.0, ge=0)
    """Weight of the sections' cross-entropy."""
    claims: float = Field(default=1.0, ge=0)
    """Weight of the claims' cross-entropy."""
    decision: float = Field(default=1.0, ge=0)
    """Weight of the decision's cross-entropy."""


class ThesisRft(Section):
    epochs: int = Field(default=20, ge=1)
    """Passes over the examples, two theses drawn for each."""
    batch: int = Field(default=256, ge=1)
    """Examples a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW."""
    entropy: float = Field(default=0.01, ge=0)
    """Weight of the entropy bonus."""
    curriculum: bool = False
    """Clear cases first: only the examples with the largest outcomes, a share that grows to all of them over the first half."""


class Thesis(Section):
    """The sections `form`, `sft`, `rft` and `rewards` are, by `model_dump`, the keywords of the classes of `feedback` that they set."""

    method: Literal["sft", "rft"] = "rft"
    """Taught by the teacher's theses only, or then also by the rewards of its own."""
    form: ThesisForm = ThesisForm()
    hidden: int = Field(default=64, ge=1)
    """Width of both layers of the encoder."""
    sft: ThesisSft = ThesisSft()
    rft: ThesisRft = ThesisRft()
    rewards: ThesisRewards = ThesisRewards()
    horizon_bars: int = Field(default=5, ge=1)
    """Bars over which a decision is judged."""
    decision_z: tuple[float, float, float, float] = (-1.0, -0.25, 0.25, 1.0)
    """Outcomes, in residual volatilities of the horizon, that part strong_sell, sell, hold, buy and strong_buy from each other."""
    columns: dict[str, str] = Field(default={})
    """Feature -> column of the cube, where it is not the usual one."""
    planted_insider: Annotated[float, Field(gt=-1, lt=1)] | None = None
    """Information coefficient of a made-up f_insider, for synthetic markets only; none: the insider score is missing."""
    min_features: int = Field(default=3, ge=1)
    """Fewer features than this, and the thesis analyst abstains."""
    folds: int = Field(default=3, ge=1)
    """Walk-forward folds."""
    train_bars: int = Field(default=320, ge=20)
    """Bars that a fold learns from."""
    test_bars: int = Field(default=120, ge=1)
    """Bars that it is then tested on."""
    validation: Share = 0.2
    """Last part of the training bars, kept for early stopping and calibration."""
    min_validation: int = Field(default=200, ge=1)
    """Fewer closed examples than this in the validation part, and p_up is left as the policy says it."""

    @field_validator("decision_z")
    @classmethod
    def _rising(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError("four edges that rise")
        return edges
