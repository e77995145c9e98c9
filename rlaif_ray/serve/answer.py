"""What was seen and decided, put into the words of the answer. Figures that explain are rounded; weights are not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np

from rlaif_ray.agents.debate import MANAGER
from rlaif_ray.core import Abstention, Decision, Forecast, MarketView, ModelRef, Opinion
from rlaif_ray.serve.schemas import Estimate, ModelVersion, SymbolPrediction, Vote


def symbol_prediction(symbol: str, view: MarketView, decision: Decision, headline: str | None) -> SymbolPrediction:
    """One symbol's part of a decision; `headline` is the forecaster whose longest horizon stands above the others."""
    a = view.symbols.index(symbol)
    forecasts = {name: estimates(forecast, a) for name, forecast in view.forecasts.items()}
    said = [o for o in view.opinions if o.symbol == symbol and o.as_of == view.opinions[0].as_of]  # not the word before
    return SymbolPrediction(
        symbol=symbol, target_weight=decision.weights.get(symbol, 0.0), held_weight=float(view.portfolio.weights[a]),
        expected_return=None if headline is None else forecasts[headline][-1],
        forecasts=tuple(e for each in forecasts.values() for e in each), votes=votes(said),
    )  # fmt: skip


def estimates(forecast: Forecast, a: int) -> list[Estimate]:
    """Of asset `a`, one a horizon: the median between the outermost quantiles."""
    low, high = min(forecast.levels), max(forecast.levels)
    is_return = forecast.target == "return"

    def figure(horizon: int, level: float) -> float | None:
        value = float(forecast.at_level(horizon, level)[a])
        return _rounded(value if is_return else np.exp(value)) if np.isfinite(value) else None

    return [
        Estimate(
            model=forecast.model, target="return" if is_return else "volatility", horizon_bars=h, expected=figure(h, 0.5),
            low=figure(h, low), high=figure(h, high), coverage=_rounded(high - low),
        )
        for h in forecast.horizons
    ]  # fmt: skip


def votes(opinions: Sequence[Opinion | Abstention]) -> tuple[Vote, ...]:
    """Who said what on one symbol, with each analyst's share in the manager's verdict."""
    manager = next((o for o in opinions if o.author == MANAGER and isinstance(o, Opinion)), None)
    share = {} if manager is None else manager.scores
    out = []
    for o in opinions:
        if isinstance(o, Abstention):
            out.append(Vote(author=o.author, stance=None, p_up=None, weight=None, reason=o.reason, claims=()))
        else:
            weight = share.get(f"weight/{o.author}")
            out.append(Vote(
                author=o.author, stance=o.stance, p_up=_rounded(o.p_up), weight=None if weight is None else _rounded(weight),
                reason=o.narrative, claims=tuple(claim.statement for claim in o.claims),
            ))  # fmt: skip
    return tuple(out)


def version_of(ref: ModelRef) -> ModelVersion:
    return ModelVersion(
        name=ref.name, version=ref.version, fit_end=moment_of(np.datetime64(ref.fit_end)), licence=ref.licence,
        trained_until=moment_of(np.datetime64(ref.trained_until)),
    )  # fmt: skip


def moment_of(value: np.datetime64) -> dt.datetime:
    moment = value.astype("datetime64[us]").item()
    assert isinstance(moment, dt.datetime)
    return moment.replace(tzinfo=dt.UTC)


def as_text(value: np.datetime64) -> str:
    """A moment as the wire has it."""
    return moment_of(value).isoformat().replace("+00:00", "Z")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
