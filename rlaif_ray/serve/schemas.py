"""What goes over the wire: the request and the answer of `POST /predict`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Weight = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictRequest(Wire):
    symbols: tuple[str, ...] = Field(
        min_length=1, max_length=1000, description="Symbols to answer for; all are weighed, these are returned."
    )
    as_of: dt.datetime | None = Field(default=None, description="Moment of the decision with its time zone; default: the last closed bar.")
    holdings: dict[str, Weight] | None = Field(
        default=None,
        description="Fractions of equity held now, cash is the rest; default: what the run itself held then, and the answer says so.",
    )

    @field_validator("as_of")
    @classmethod
    def _with_zone(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("as_of needs a time zone, for example 2019-06-03T20:00:00Z")
        return value

    @model_validator(mode="after")
    def _at_most_all(self) -> PredictRequest:
        if self.holdings is not None and sum(self.holdings.values()) > 1.0 + 1e-9:
            raise ValueError(f"holdings sum to {sum(self.holdings.values()):.4f}; expected at most 1, cash is the rest")
        return self


class Interval(Wire):
    horizon_bars: int
    expected_return: float | None = Field(description="Median of the cumulative simple return from the close at as_of.")
    low: float | None = Field(description="10% quantile.")
    high: float | None = Field(description="90% quantile.")
    model: str


class Vote(Wire):
    author: str
    p_up: float | None = Field(description="P(residual return over the horizon > 0); null: abstained.")
    weight: float | None = Field(description="Share in the manager's verdict.")
    reason: str
    claims: tuple[str, ...]


class SymbolPrediction(Wire):
    symbol: str
    target_weight: float
    held_weight: float
    forecasts: tuple[Interval, ...]
    votes: tuple[Vote, ...]


class ModelVersion(Wire):
    name: str
    version: str
    fit_end: str
    trained_until: str


class Prediction(Wire):
    as_of: dt.datetime
    bar: dt.datetime
    model: str
    reason: str
    cash_weight: float
    holdings_from: str = Field(description="'request' or 'run'.")
    predictions: tuple[SymbolPrediction, ...]
    versions: tuple[ModelVersion, ...]
    config_hash: str
    data_version: str


class Health(Wire):
    status: str
    run: str
    last_bar: dt.datetime
    models: tuple[str, ...]
