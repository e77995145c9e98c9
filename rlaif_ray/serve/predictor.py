"""One explained prediction, composed in one process: forecasts, opinions, the manager's verdict, the policy's weights.

The same objects as in the backtest, on the same rows: with the backtest's holdings the answer at a decision bar is the
decision that the backtest traded (a law).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from rlaif_ray import agents, artefacts
from rlaif_ray.agents.analysts import opinion_row, view_at
from rlaif_ray.agents.debate import verdicts
from rlaif_ray.artefacts import FoldModels
from rlaif_ray.backtest.engine import controls_of, decide
from rlaif_ray.config import Config
from rlaif_ray.core import Abstention, Analyst, Cube, Forecast, MarketView, Opinion, Portfolio
from rlaif_ray.data.cube import Dataset
from rlaif_ray.errors import DataError, MissingDataError, did_you_mean
from rlaif_ray.execution.simulator import Market
from rlaif_ray.feedback.weighing import weigh_with
from rlaif_ray.plan import terms_of
from rlaif_ray.runs import Run, code_version
from rlaif_ray.serve.answer import as_text, moment_of, symbol_prediction, version_of
from rlaif_ray.serve.schemas import Health, Prediction

STALE_BARS = 5  # how many bars after the last known one a decision may still be asked for
REMEMBERED = 256  # rows whose forecasts and opinions are kept: most requests are about the same few


class Predictor:
    """Answers from one finished run. No request changes what the next is told, so requests may run side by side."""

    def __init__(self, config: Config, dataset: Dataset, cube: Cube, models: Sequence[FoldModels]) -> None:
        self.config, self.dataset, self.cube, self.models = config, dataset, cube, models
        self.desk: Sequence[Analyst] = agents.build(config.agents)
        self._terms = replace(terms_of(config, cube, dataset.sectors), fill=models[0].fill)
        self._controls = tuple(controls_of(cube, self._terms, m.first_row) for m in models)
        self._last = Market.of(cube, models[0].fill).last
        year = cube.known_at[-1 - min(len(cube.times) - 1, STALE_BARS + int(cube.bars_per_year)) :]
        # So much time as that many bars took at most in the last year, nights, weekends and holidays included.
        self._patience = (year[STALE_BARS:] - year[:-STALE_BARS]).max()
        self._forecasts = lru_cache(REMEMBERED)(self._forecast)
        self._opinions = lru_cache(REMEMBERED)(self._opine)

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
        holdings : fractions of equity held, < 0 is short; None: what the run itself held at that bar.

        Raises `DataError` for an unknown symbol, a moment before the first model serves or long after the last bar, and
        for holdings of what has no price, or that an account of the run cannot come to hold.
        """
        self._known([*symbols, *(holdings or {})])
        self._holdable(holdings or {})
        asked = None if as_of is None else np.datetime64(as_of.astimezone(dt.UTC).replace(tzinfo=None), "us")
        row = self._row(asked)
        fold = self._serving(row)
        models = self.models[fold]
        view = self.view(row, holdings)
        notes = self._notes(asked, row, models) + self._no_book(row, fold, holdings)
        decision = decide(models.policy, view, self._controls[fold], self._terms.account)
        headline = next((n for n in reversed(self.config.forecast.models) if view.forecasts[n].target == "return"), None)
        return Prediction(
            as_of=moment_of(view.as_of), bar=moment_of(self.cube.times[row]), opinions_as_of=moment_of(view.opinions[0].as_of),
            model=f"{decision.model}, {_named(models)}", reason=decision.reason, notes=notes,
            cash_weight=max(0.0, 1.0 - sum(decision.weights.values())), holdings_from="run" if holdings is None else "request",
            predictions=tuple(symbol_prediction(symbol, view, decision, headline) for symbol in symbols),
            versions=tuple(map(version_of, models.refs)), config_hash=self.config.hash, data_version=self.dataset.data_version,
        )  # fmt: skip

    def view(self, row: int, holdings: Mapping[str, float] | None = None, returns: np.ndarray | None = None) -> MarketView:
        """What a policy sees at a row, through the models that serve it.

        `returns` are the account's own net ones until then; None: the run's, whatever is held.
        """
        fold = self._serving(row)
        last = opinion_row(row, every := self.config.agents.every_bars)
        opinions = self._opinions(last, fold) + (self._opinions(last - every, fold) if last >= every else ())
        return MarketView(self.cube, row, self._portfolio(row, fold, holdings, returns), self._forecasts(row, fold), opinions)

    def health(self, run: str) -> Health:
        first, last = moment_of(self.models[0].serves_from), moment_of(self.cube.times[-1])
        return Health(status="ok", run=run, first_as_of=first, last_bar=last, models=tuple(map(_named, self.models)))

    def _known(self, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            if symbol not in self.cube.symbols:
                known = f"{len(self.cube.symbols)} symbols, such as {self.cube.symbols[0]!r}"
                raise MissingDataError(f"unknown symbol {symbol!r}; this run knows {known}.{did_you_mean(symbol, self.cube.symbols)}")

    def _holdable(self, holdings: Mapping[str, float]) -> None:
        """A long-short account may drift beyond what it may ask for, until it is liquidated and its decisions count for nothing."""
        account, gross = self._terms.account, sum(map(abs, holdings.values()))
        if account.long_short:
            if account.maintenance * gross > 1:
                most = f"at most {1 / account.maintenance:.4g}: beyond execution.account.maintenance the account is liquidated"
                raise DataError(f"holdings add up to {gross:.4g} without signs; expected {most}")
        elif not account.allows(np.array([holdings.get(s, 0.0) for s in self.cube.symbols])):
            seen = next((f"of {s} are {w:.6g}" for s, w in holdings.items() if w < 0), f"add up to {gross:.6g}")
            raise DataError(f"holdings {seen}; this run's account is long-only: expected {account.words}")

    def _row(self, asked: np.datetime64 | None) -> int:
        last = len(self.cube.times) - 1
        if asked is None:
            return last
        if asked - self.cube.known_at[last] > self._patience:
            late = f"more than {STALE_BARS} bars after the last known one, {as_text(self.cube.known_at[last])}"
            raise DataError(f"as_of {as_text(asked)} is {late}: the data are stale; run the pipeline on newer bars, or leave out as_of")
        if asked < self.models[0].serves_from:
            first = as_text(self.models[0].serves_from)
            raise DataError(f"no model of this run serves {as_text(asked)}; expected {first} or later: everything before was learnt from")
        return self.cube.row(asked)

    def _serving(self, row: int) -> int:
        """Position of the models with the latest start of service that is not after the row."""
        return int(np.searchsorted([m.serves_from for m in self.models], self.cube.known_at[row], side="right")) - 1

    def _forecast(self, row: int, fold: int) -> dict[str, Forecast]:
        return {name: f.predict(self.cube, [row]).at(self.cube.known_at[row]) for name, f in self.models[fold].forecasters.items()}

    def _opine(self, row: int, fold: int) -> tuple[Opinion | Abstention, ...]:
        view = view_at(self.cube, row)
        spoken = [opinion for analyst in self.desk for opinion in analyst.opine([view])]
        return (*spoken, *verdicts(view, spoken, weigh_with(self.models[fold].judge)))

    def _portfolio(self, row: int, fold: int, holdings: Mapping[str, float] | None, returns: np.ndarray | None) -> Portfolio:
        cash = self.config.execution.initial_cash_usd
        weights = self._run_held(row, fold) if holdings is None else np.array([holdings.get(s, 0.0) for s in self.cube.symbols])
        prices = self._last[row]
        unpriced = [s for s, w, p in zip(self.cube.symbols, weights, prices, strict=True) if w and not p > 0]
        if unpriced:
            raise DataError(f"holdings name {unpriced[0]!r}, which has no price at {as_text(self.cube.known_at[row])}; leave it out")
        shares = np.divide(weights * cash, prices, out=np.zeros_like(prices), where=weights != 0)
        past = self._run_returned(row, fold) if returns is None else returns
        return Portfolio(self.cube.known_at[row], self.cube.symbols, cash * (1.0 - weights.sum()), shares, prices, past)

    def _walked(self, fold: int) -> FoldModels:
        return self.models[fold] if len(self.models[fold].held) else self.models[max(fold - 1, 0)]

    def _run_held(self, row: int, fold: int) -> np.ndarray:
        """(A,) weights of the run's own portfolio at the close of the row: cash at the start of a fold, as in the backtest.

        The live models go on from where the last test block ended.
        """
        walked = self._walked(fold)
        bar = row - walked.first_row - 1
        return walked.held[bar] if 0 <= bar < len(walked.held) else np.zeros(len(self.cube.symbols))

    def _run_returned(self, row: int, fold: int) -> np.ndarray:
        """(k,) what the run's own portfolio returned until the close of the row, since it began."""
        walked = self._walked(fold)
        bars = row - walked.first_row
        return walked.returns[:bars] if 0 <= bars <= len(walked.returns) else np.empty(0)

    def _no_book(self, row: int, fold: int, holdings: Mapping[str, float] | None) -> tuple[str, ...]:
        walked = self._walked(fold)
        if holdings is not None or row - walked.first_row - 1 < len(walked.held):
            return ()
        end = as_text(self.cube.times[walked.first_row + len(walked.held)])
        return (f"The run's own portfolio ends at {end}, before the vault; this answer starts from cash: send holdings.",)

    def _notes(self, asked: np.datetime64 | None, row: int, models: FoldModels) -> tuple[str, ...]:
        now, notes = self.cube.known_at[row], []
        if asked is not None and row == len(self.cube.times) - 1 and asked > now:
            notes.append(f"The last known bar is of {as_text(now)}; whatever came after it is not in this answer.")
        notes += [
            f"CONTAMINATED: {ref.name} may have seen the world up to {ref.trained_until}, after this decision."
            for ref in models.refs
            if np.datetime64(ref.trained_until, "us") > now
        ]
        if self.cube.price_kind == "vendor_adjusted":
            notes.append("Prices were adjusted by their vendor after the fact: not point in time.")
        if any(ref.version != code_version() for ref in models.refs):
            notes.append("Other code fitted the models: weights may differ from the run's backtest; run the pipeline again.")
        return tuple(notes)


def _named(models: FoldModels) -> str:
    return "live" if models.fold == "live" else f"fold {models.fold}"
