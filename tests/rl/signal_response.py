"""How what a policy earns answers to the strength of the planted signal: the folds of `signal-test`, without a lake and without Ray.

A market of known signal, LightGBM's forecasts out of sample, the direct policy trained on them in this process, and both it and
the optimiser of the same forecasts walked through the same test blocks on the same terms as the pipeline's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rlaif_ray.agents.analysts import reads
from rlaif_ray.backtest.engine import concatenate, run
from rlaif_ray.backtest.on_ray import STRONG, forecasts_at
from rlaif_ray.backtest.significance import edge
from rlaif_ray.config import Config, load_config
from rlaif_ray.core import Cube, Episode, ForecastTable, Panel, Policy
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.sessions import bars_per_year
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.execution.terms import Terms
from rlaif_ray.features.across import beside
from rlaif_ray.features.catalog import DEFAULT_OBSERVATION, feature_set
from rlaif_ray.folds import Fold
from rlaif_ray.forecast.trees import LightGBM
from rlaif_ray.plan import catalog_of, cut_folds, observed, terms_of
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_policy import DirectPolicy, network_of
from rlaif_ray.rl.direct_training import fit_network
from rlaif_ray.runs import seed_for
from rlaif_ray.strategies import EqualWeight, forecast_optimiser

RESAMPLES = 2000


class Response(NamedTuple):
    """What a policy earned over equal weight on all test blocks, in log returns a year with the 95% interval, and what it traded."""

    excess: float
    low: float
    high: float
    claim: bool
    turnover: float  # of equity, a bar


@dataclass(frozen=True, eq=False)
class Told:
    """A market, its folds, and what LightGBM said out of sample on all decision rows of each: all but the learner."""

    config: Config
    cube: Cube
    terms: Terms
    folds: list[Fold]  # those that are tested
    forecasts: list[ForecastTable]

    @classmethod
    def of(cls, seed: int, strength: float, **knobs: str) -> Told:
        """`knobs`: dotted ones of the config, with __ for each dot."""
        named = {k.replace("__", "."): v for k, v in knobs.items()} | {"seed": str(seed), "forecast.models": f"[{STRONG}]"}
        config = load_config("signal-test", None, named | {"data.seed": str(seed), "data.signal_strength": str(strength)})
        cube = cube_of(config)
        folds = [f for f in cut_folds(config, cube) if f.last.role == "test"]
        return cls(config, cube, terms_of(config, cube, {}), folds, [_forecasts(config, cube, fold) for fold in folds])

    def respond(self, **direct: Any) -> dict[str, Response]:
        """By policy; `direct`: other knobs of the direct policy than the config's. The same seed and knobs give the same numbers."""
        walked: dict[str, list[Episode]] = {}
        for fold, table in zip(self.folds, self.forecasts, strict=True):
            for policy in (EqualWeight(), self._optimiser(table), self._learnt(fold, table, direct)):
                walked.setdefault(policy.name, []).append(self._walk(policy, fold, table))
        whole = {name: concatenate(parts) for name, parts in walked.items()}
        benchmark, year = whole.pop(EqualWeight.name), self.cube.bars_per_year
        found = {}
        for name, episode in whole.items():
            won = edge(episode.returns, benchmark.returns, resamples=RESAMPLES, seed=seed_for(self.config.seed, f"bootstrap/{name}"))
            found[name] = Response(won.value * year, won.low * year, won.high * year, won.claim, float(episode.turnover.mean()))
        return found

    def _optimiser(self, table: ForecastTable) -> Policy:
        return forecast_optimiser(self.cube, table, cost_per_side=self.terms.costs.rate, max_weight=self.terms.limits.max_weight)

    def _learnt(self, fold: Fold, table: ForecastTable, knobs: Mapping[str, Any]) -> DirectPolicy:
        """Trained as `direct_on_ray.train_direct` does it on its workers, its seeds among it."""
        section, seed = self.config.rl, seed_for(self.config.seed, f"fold={fold.name}")
        direct = section.direct.model_copy(update=dict(knobs))
        course = Course.of(
            self.cube, fold, {STRONG: table}, None, self.terms, section=section, features=observed(self.config, self.cube)
        )  # fmt: skip
        shape: dict[str, Any] = {"hidden": direct.hidden, "heads": direct.heads}
        networks = []
        for member in range(section.members):
            drawn = seed_for(seed, f"member={member}", bits=31)
            trained = fit_network(course.train, course.validation, allowed=course.allowed, **direct.model_dump(), seed=drawn)
            networks.append(network_of(trained.state, len(course.recipe.names), **shape))
        return DirectPolicy(course.recipe, networks, **shape, allowed=course.allowed, sectors=course.sectors)

    def _walk(self, policy: Policy, fold: Fold, table: ForecastTable) -> Episode:
        known_at = self.cube.known_at
        return run(policy, self.cube, fold.last.rows, self.terms, forecasts_at=lambda t: forecasts_at({STRONG: table}, known_at[t]))[0]


def cube_of(config: Config) -> Cube:
    """The synthetic market of a config with the features that its run would read."""
    section: Any = config.data
    source = SyntheticSource(section.n_symbols, section.n_bars, section.bar, section.seed, section.signal_strength)
    tables = [source.read(symbol) for symbol in source.symbols()]
    facts = {name: pl.concat([t[name] for t in tables]) for name in ("filings", "news")}
    wanted, catalog = {*DEFAULT_OBSERVATION, *reads(config.agents.roster)}, catalog_of(config)
    across = [s for s in catalog.specs("cross_section") if s.name in wanted]
    needed = wanted | {name for s in across for name in s.inputs}
    own = [s for s in catalog.specs("technical") if s.name in needed]
    alone = pl.concat([feature_set("technical").apply({"bars": t["bars"]}, own).frame for t in tables])
    compared = feature_set("cross_section").apply({"features": alone}, across).frame
    shown = beside(alone, compared)
    features = Panel.of(shown.select(c for c in shown.columns if c in wanted or c in ("symbol", "timestamp", "known_at")))
    bars = Panel.of(pl.concat([t["bars"] for t in tables]))
    first, last = bars.frame["session"].min(), bars.frame["session"].max()
    assert isinstance(first, dt.date) and isinstance(last, dt.date)
    rate = bars_per_year("XNYS", dt.timedelta(days=1), first, last)
    return build_cube(bars, features, facts, bars_per_year=rate, price_kind="raw")


def _forecasts(config: Config, cube: Cube, fold: Fold) -> ForecastTable:
    """Each window by trees grown on the rows that had closed before it."""
    section, parts = config.forecast, []
    trees = LightGBM(
        horizons=section.horizons, levels=section.levels, **section.trees.model_dump(),
        seed=seed_for(config.seed, f"fold={fold.name}/forecast/{STRONG}"),
    )  # fmt: skip
    for window in fold.windows:
        trees.fit(cube, window.fit)
        parts.append(trees.predict(cube, range(window.rows.start, window.rows.stop)))
    as_of, values = np.concatenate([p.as_of for p in parts]), np.concatenate([p.values for p in parts])
    return ForecastTable(as_of, trees.target, cube.symbols, trees.horizons, trees.levels, values, trees.name)
