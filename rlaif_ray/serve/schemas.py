"""What goes over the wire: the request and the answer of `POST /predict`."""

from __future__ import annotations

import datetime as dt
import reprlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Weight = Annotated[float, Field(allow_inf_nan=False)]  # what the account may hold is the run's to say
EXAMPLE = '{"symbols": ["AAPL"]}'
MAX_SYMBOLS = 1000


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictRequest(Wire):
    symbols: tuple[str, ...] = Field(
        min_length=1, max_length=MAX_SYMBOLS, description="Symbols to answer for, each once; the whole run is weighed, these are returned."
    )
    as_of: dt.datetime | None = Field(default=None, description="Moment of the decision with its time zone; default: the last closed bar.")
    holdings: dict[str, Weight] | None = Field(
        default=None,
        description="Fractions of equity held now, below 0 where short; cash is the rest. "
        "Default: what the run itself held then, and the answer says so.",
    )

    @field_validator("as_of", mode="before")
    @classmethod
    def _moment_in_utc(cls, value: Any) -> dt.datetime | None:
        """Text with a zone, nothing else: a bare number may be seconds or milliseconds, a bare date may be anywhere."""
        if value is None:
            return None
        try:
            moment = dt.datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(dt.UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise ValueError(f"as_of is {reprlib.repr(value)}; expected a moment with its time zone, such as '2019-06-03T20:00:00Z'")

    @model_validator(mode="after")
    def _each_once(self) -> PredictRequest:
        twice = next((s for i, s in enumerate(self.symbols) if s in self.symbols[:i]), None)
        if twice is not None:
            raise ValueError(f"symbols name {reprlib.repr(twice)} more than once; expected each once")
        return self


class Estimate(Wire):
    """What one forecaster expects of one symbol. Null where it has seen too little of the symbol."""

    model: str
    target: Literal["return", "volatility"] = Field(
        description="return: simple and cumulative, from the close at as_of; volatility: root of the mean per-bar variance."
    )
    horizon_bars: int
    expected: float | None = Field(description="Median of the forecast distribution.")
    low: float | None
    high: float | None
    coverage: float = Field(description="Share of outcomes that should lie between low and high.")


class Vote(Wire):
    author: str
    stance: Literal["strong_sell", "sell", "hold", "buy", "strong_buy"] | None = Field(description="Null: abstained, see reason.")
    p_up: float | None = Field(description="P(the symbol does better than the universe over the horizon); null: abstained.")
    weight: float | None = Field(description="Share in the manager's verdict; null: abstained, or the manager's own.")
    reason: str
    claims: tuple[str, ...]


class SymbolPrediction(Wire):
    symbol: str
    target_weight: float = Field(description="Fraction of equity to hold from the next fill on; below 0 is short.")
    held_weight: float = Field(description="Fraction of equity held when the decision was made.")
    expected_return: Estimate | None = Field(description="By the last return forecaster of the run's list, over the longest horizon.")
    forecasts: tuple[Estimate, ...]
    votes: tuple[Vote, ...]


class ModelVersion(Wire):
    name: str
    version: str = Field(description="Hash of the code that fitted it.")
    fit_end: dt.datetime = Field(description="Last bar that anything was fitted on.")
    trained_until: dt.datetime = Field(description="Up to when a pretrained part may have seen the world.")
    licence: str


class Prediction(Wire):
    as_of: dt.datetime = Field(description="Moment of the decision: when its bar was known.")
    bar: dt.datetime = Field(description="End of the bar that was decided on.")
    opinions_as_of: dt.datetime = Field(description="When the desk last spoke.")
    model: str
    reason: str
    cash_weight: float
    holdings_from: Literal["request", "run"]
    notes: tuple[str, ...] = Field(description="What a reader of these numbers should know first.")
    predictions: tuple[SymbolPrediction, ...]
    versions: tuple[ModelVersion, ...]
    config_hash: str
    data_version: str


class Health(Wire):
    status: Literal["ok"]
    run: str
    first_as_of: dt.datetime = Field(description="Earliest moment that a model of this run serves.")
    last_bar: dt.datetime
    models: tuple[str, ...]
