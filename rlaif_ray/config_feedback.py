"""Knobs of how opinions are judged, what is learnt from it, and how the loop that improves the desk is walked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rlaif_ray.config_data import Section

METRICS = ("score", "net", "vol_scaled", "drawdown", "barrier")


class Heads(Section):
    outcome: float = Field(default=1.0, ge=0)
    """Weight of the reward for the better `feedback.metric`."""
    risk: float = Field(default=0.0, ge=0)
    """Weight of the reward for the smaller drawdown on the way."""
    brevity: float = Field(default=0.0, ge=0)
    """Weight of the reward for the shorter text."""


class Feedback(Section):
    metric: str = "score"
    """What makes the better opinion of a pair: score, net, vol_scaled, drawdown, barrier, or your own as package.module:function."""
    tie: float = Field(default=0.01, gt=0)
    """Difference of the metric below which two opinions make no pair; of the score (nats), the larger of the two that could have come."""
    beta_bars: int = Field(default=252, ge=2)
    """Window of the beta that is taken out of returns before an opinion is judged; 1 until it is full, kept within 0 and 3."""
    volatility_bars: int = Field(default=63, ge=2)
    """Window of the residual volatility that scales P&L and barriers."""
    barrier: float = Field(default=1.0, gt=0)
    """Distance of the profit and the loss barrier, in volatilities of the horizon."""
    weigh_by: Literal["reward_model", "track_record", "equal_weights"] = "reward_model"
    """How the manager of `rlaif pipeline` weighs its analysts; `rlaif improve` compares all three."""
    size: Literal["tiny", "small", "medium", "large"] = "tiny"
    """Of the reward model: some hundred, 0.1, 2 or 50 million parameters a network."""
    members: int = Field(default=5, ge=1)
    """Reward models in the ensemble, each fitted on dates drawn anew."""
    confidence: float = Field(default=1.0, ge=0)
    """Standard deviations of the ensemble that the lower bound lies below its mean."""
    bar: float | None = None
    """Log-odds of beating the climatological forecast that an opinion's lower bound must clear, or the manager abstains; none: never."""
    sees: tuple[Literal["context", "stance", "author", "text"], ...] = ("context", "stance", "author")
    """What of an opinion and its moment the reward model reads."""
    heads: Heads = Heads()
    label_smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    """Share of the labels that are taken to be wrong; none: as measured on the pairs that are learnt from."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the preference pairs."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW."""
    min_pairs: int = Field(default=200, ge=1)
    """Fewer closed pairs than this, and the manager keeps equal weights."""
    temperature: float = Field(default=0.25, gt=0)
    """Softmax temperature from rewards to the manager's weights."""

    @field_validator("sees")
    @classmethod
    def _sees_something(cls, sees: tuple[str, ...]) -> tuple[str, ...]:
        if not sees or len(set(sees)) < len(sees):
            raise ValueError("at least one of context, stance, author and text, each once")
        return sees

    @field_validator("heads")
    @classmethod
    def _some_head(cls, heads: Heads) -> Heads:
        if not heads.outcome + heads.risk + heads.brevity > 0:
            raise ValueError("a weight above 0 for at least one head")
        return heads

    @field_validator("metric")
    @classmethod
    def _a_metric(cls, metric: str) -> str:
        if metric not in METRICS and ":" not in metric:
            raise ValueError(f"one of {', '.join(METRICS)}, or package.module:function")
        return metric

    @model_validator(mode="after")
    def _bar_above_climatology(self) -> Feedback:
        """The climatological forecast takes no position, and nobody falls less from a peak than who has none."""
        if self.bar is not None and (self.metric == "drawdown" or not self.heads.outcome > 0):
            raise ValueError("a bar only where heads.outcome is above 0 and metric is not drawdown; leave bar out")
        return self


class Improve(Section):
    cycles: int = Field(default=3, ge=1)
    """Times that a challenger is fitted and held against the judge in office, each on a block of dates that no one has seen."""
    first: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of the dates that the first challenger learns from."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance, over all cycles together, that a challenger which is no better is kept."""
    thesis: bool = False
    """Seat the thesis policy on the desk beside the rules, taught anew (`thesis.*`) before each block."""
    online: bool = False
    """Let the judges go on learning inside a block, from outcomes that have closed, every `update_bars` bars."""
    update_bars: int = Field(default=21, ge=1)
    """Bars between two updates of an online judge."""
    workers: int = Field(default=1, ge=0)
    """Ray Train workers that the ensemble's members are shared out among; 0: the driver itself."""
