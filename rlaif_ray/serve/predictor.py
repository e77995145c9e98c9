"""One explained prediction, composed in one process: forecasts, opinions, the manager's verdict, the policy's weights.

The same objects as in the backtest, on the same rows: with the backtest's holdings the answer at a decision bar is the
decision that the backtest traded (a law).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlaif_ray import agents, artefacts
from rlaif_ray.agents.analysts import opinion_row, view_at
from rlaif_ray.agents.debate import MANAGER, verdicts
from rlaif_ray.artefacts import FoldModels
from rlaif_ray.backtest.engine import decide
from rlaif_ray.config import Config
from rlaif_ray.core import Abstention, Cube, Decision, Forecast, MarketView, Opinion, Portfolio
from rlaif_ray.data.cube import Dataset
from rlaif_ray.errors import DataError, MissingDataError, did_you_mean
from rlaif_ray.execution.simulator import Market
from rlaif_ray.feedback.reward_model import weigh_with
from rlaif_ray.runs import Run
from rlaif_ray.serve.schemas import Health, Interval, ModelVersion, Prediction, SymbolPrediction, Vote

STALE_BARS = 5  # how many bars after the last known one a decision may still be asked for


class Predictor:
    """Answers from one finished run. No request changes it, so requests may run side by side."""

    def __init__(self, config: Config, dataset: Dataset, cube: Cube, models: Sequence[FoldModels]) -> None:
        self.config, self.dataset, self.cube, self.models = config, dataset, cube, models
        self._last = Market.of(cube, models[0].fill).last
        self._desk = agents.build(config.agents)

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """From a run directory. Raises `MissingDataError` or `CheckpointError` for one that did not finish."""
        run, models = Run.open(path), artefacts.load_all(path)
        dataset = artefacts.load_dataset(path)
        return cls(run.config, dataset, dataset.cube(), models)

    def predict(
        self, symbols: Sequence[str], *, as_of: dt.datetime | None = None, holdings: Mapping[str, float] | None = None
    ) -> Prediction:  # fmt: skip
        """The decision at the last bar known at `as_of`, told for `symbols`.

        Parameters
        ----------
        as_of : a moment with its zone; None: the last closed bar.
        holdings : fractions of equity held; None: what the run itself held at that bar.

        Raises `DataError` for an unknown symbol, a moment before the first model serves or long after the last bar, and
        for holdings of what has no price.
        """
        self._known([*symbols, *(holdings or {})])
        row = self._row(as_of)
        models = self._serving(row)
        forecasts = {name: f.predict(self.cube, [row]).at(self.cube.known_at[row]) for name, f in models.forecasters.items()}
        opinions = self._opinions(row, models)
        view = MarketView(self.cube, row, self._portfolio(row, models, holdings), forecasts, opinions)
        decision = decide(models.policy, view, max_weight=models.max_weight)
        return Prediction(
            as_of=_moment(view.as_of), bar=_moment(self.cube.times[row]), model=f"{decision.model} of {_named(models)}", reason=decision.reason,
            cash_weight=1.0 - sum(decision.weights.values()), holdings_from="run" if holdings is None else "request",
            predictions=tuple(self._told(symbol, view, decision) for symbol in symbols),
            versions=tuple(ModelVersion(**{k: getattr(r, k) for k in ModelVersion.model_fields}) for r in models.refs),
            config_hash=self.config.hash, data_version=self.dataset.data_version,
        )  # fmt: skip

    def health(self, run: str) -> Health:
        return Health(status="ok", run=run, last_bar=_moment(self.cube.times[-1]), models=tuple(_named(m) for m in self.models))

    def _known(self, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            if symbol not in self.cube.symbols:
                hint = did_you_mean(symbol, self.cube.symbols)
                known = f"{len(self.cube.symbols)}, such as {self.cube.symbols[0]!r}"
                raise MissingDataError(f"unknown symbol {symbol!r}; this run knows {known}.{hint}")

    def _row(self, as_of: dt.datetime | None) -> int:
        if as_of is None:
            return len(self.cube.times) - 1
        moment = np.datetime64(as_of.astimezone(dt.UTC).replace(tzinfo=None), "us")
        row = self.cube.row(moment)
        bar = np.timedelta64(int(365.25 * 86400 / self.cube.bars_per_year), "s")
        if row == len(self.cube.times) - 1 and moment - self.cube.known_at[row] > STALE_BARS * bar:
            late = f"over {STALE_BARS} bars after the last known one, {self.cube.known_at[row]}"
            raise DataError(f"as_of {moment} is {late}: the data are stale; run the pipeline on newer bars")
        return row

    def _serving(self, row: int) -> FoldModels:
        """The models with the latest start of service that is not after the row."""
        started = [m for m in self.models if m.serves_from <= self.cube.known_at[row]]
        if not started:
            first = self.models[0].serves_from
            raise DataError(f"no model of this run serves {self.cube.known_at[row]}: the first serves from {first}; ask for a later as_of")
        return started[-1]

    def _opinions(self, row: int, models: FoldModels) -> tuple[Opinion | Abstention, ...]:
        view = view_at(self.cube, opinion_row(row, self.config.agents.every_bars))
        said = [opinion for analyst in self._desk for opinion in analyst.opine([view])]
        return (*said, *verdicts(view, said, weigh_with(models.judge)))

    def _portfolio(self, row: int, models: FoldModels, holdings: Mapping[str, float] | None) -> Portfolio:
        cash = self.config.execution.initial_cash_usd
        weights = self._run_held(row, models) if holdings is None else np.array([holdings.get(s, 0.0) for s in self.cube.symbols])
        prices = self._last[row]
        unpriced = [s for s, w, p in zip(self.cube.symbols, weights, prices, strict=True) if w > 0 and not p > 0]
        if unpriced:
            raise DataError(f"holdings name {unpriced[0]!r}, which has no price by {self.cube.known_at[row]}; leave it out")
        shares = np.divide(weights * cash, prices, out=np.zeros_like(prices), where=weights > 0)
        return Portfolio(self.cube.known_at[row], self.cube.symbols, cash * (1.0 - weights.sum()), shares, prices)

    def _run_held(self, row: int, models: FoldModels) -> np.ndarray:
        """(A,) weights of the run's own portfolio at the close of the row: cash at the start of a fold, as in the backtest.

        The live models go on from where the last test block ended.
        """
        episode = models if len(models.held) else self.models[self.models.index(models) - 1]
        bar = row - episode.first_row - 1
        return episode.held[bar] if 0 <= bar < len(episode.held) else np.zeros(len(self.cube.symbols))

    def _told(self, symbol: str, view: MarketView, decision: Decision) -> SymbolPrediction:
        a = view.symbols.index(symbol)
        return SymbolPrediction(
            symbol=symbol, target_weight=decision.weights.get(symbol, 0.0), held_weight=float(view.portfolio.weights[a]),
            forecasts=tuple(i for f in view.forecasts.values() if f.target == "return" for i in _intervals(f, a)),
            votes=_votes([o for o in view.opinions if o.symbol == symbol]),
        )  # fmt: skip


def _intervals(forecast: Forecast, a: int) -> list[Interval]:
    def number(horizon: int, level: float) -> float | None:
        value = float(forecast.at_level(horizon, level)[a])
        return value if np.isfinite(value) else None

    low, high = min(forecast.levels), max(forecast.levels)
    return [
        Interval(horizon_bars=h, expected_return=number(h, 0.5), low=number(h, low), high=number(h, high), model=forecast.model)
        for h in forecast.horizons
    ]  # fmt: skip


def _votes(opinions: Sequence[Opinion | Abstention]) -> tuple[Vote, ...]:
    manager = next((o for o in opinions if o.author == MANAGER and isinstance(o, Opinion)), None)
    share = {} if manager is None else manager.scores
    votes = []
    for o in opinions:
        if isinstance(o, Abstention):
            votes.append(Vote(author=o.author, p_up=None, weight=None, reason=o.reason, claims=()))
        else:
            claims = tuple(c.statement for c in o.claims)
            votes.append(Vote(author=o.author, p_up=o.p_up, weight=share.get(f"weight/{o.author}"), reason=o.narrative, claims=claims))
    return tuple(votes)


def _named(models: FoldModels) -> str:
    return "live" if models.fold == "live" else f"fold {models.fold}"


def _moment(value: np.datetime64) -> dt.datetime:
    moment = value.astype("datetime64[us]").item()
    assert isinstance(moment, dt.datetime)
    return moment.replace(tzinfo=dt.UTC)
