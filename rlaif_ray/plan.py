"""What a run will do, from its config and its data alone: on which terms it trades, what the policy sees, how time is cut.

Told before the first fold works, so that what cannot be done is said while nothing has been done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif_ray.config import Config
from rlaif_ray.core import Cube
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.features.catalog import DEFAULT_OBSERVATION, Catalog, warmup_bars
from rlaif_ray.feedback.context import LONG
from rlaif_ray.feedback.scoring import metric
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Cycle, Fold, cycles, judged_rows, walk_forward
from rlaif_ray.forecast.on_ray import check_context
from rlaif_ray.rl.env import check_room
from rlaif_ray.vault import Vault


@dataclass(frozen=True)
class Terms:
    """On which every policy of the run trades; made from the config and the data once."""

    costs: CostModel
    fill: Fill
    max_weight: float

    @classmethod
    def of(cls, config: Config, cube: Cube) -> Terms:
        section = config.execution
        fill: Fill = section.fill if section.fill != "auto" else ("next_open" if cube.has_opens else "next_close")
        return cls(CostModel.of_bps(**section.resolved_costs().model_dump()), fill, section.max_weight)


def outcome_terms(config: Config, terms: Terms, sectors: Mapping[str, str]) -> OutcomeTerms:
    """On which opinions are judged: what a trade costs in this run, and how a residual return is taken."""
    section = config.feedback
    return OutcomeTerms(terms.costs.rate, section.beta_bars, section.volatility_bars, section.barrier, dict(sectors))


def catalog_of(config: Config) -> Catalog:
    """The features that a run makes. Raises `ConfigError` for a set or a family that there is not."""
    return Catalog(config.features.sets, config.features.parameters).completed()


def observed(config: Config, cube: Cube) -> tuple[str, ...]:
    """Features that the policy sees: those asked for must be there, of the default set those that are."""
    if config.rl.features:
        return tuple(name for name in config.rl.features if cube.feature(name) is not None)
    return tuple(name for name in DEFAULT_OBSERVATION if name in cube.feature_names)


def cut_folds(config: Config, cube: Cube) -> list[Fold]:
    """The folds, each long enough for what every stage will ask of it: told here, not after the stages before have worked."""
    metric(config.feedback.metric)
    section, vault = config.backtest, vault_of(config, cube)
    cut: dict[str, Any] = {
        "test_fraction": section.test_fraction, "horizon": max(*config.forecast.horizons, config.agents.horizon_bars),
        "vault": vault.row, "opened": vault.opened,
    }  # fmt: skip
    tested = judged_rows(len(cube.times), **cut)
    years = round((tested.stop - tested.start) / cube.bars_per_year)
    try:
        folds = walk_forward(
            len(cube.times), **cut, folds=max(years, 1) if section.folds == "yearly" else section.folds,
            forecaster_fraction=section.forecaster_fraction, inner_windows=section.inner_windows, embargo=section.embargo_bars,
            warmup=warmup_bars(observed(config, cube), catalog_of(config)),
        )  # fmt: skip
    except DataError as error:
        if vault.row is None:
            raise
        raise DataError(f"{error}; {vault.bars} bars from {vault.first} on are a vault, see --backtest.vault_from") from None
    for fold in folds:
        check_context(fold, config.forecast)
        check_room(fold.train_rows.stop - fold.train_rows.start, config.rl.episode_bars)
    return folds


def cut_cycles(config: Config, cube: Cube) -> list[Cycle]:
    """The cycles of the loop that improves the desk; the vault, and all that closes in it, is left out."""
    metric(config.feedback.metric)
    section, vault, horizon = config.improve, vault_of(config, cube), config.agents.horizon_bars
    if vault.opened:
        raise ConfigError("the loop that improves the desk leaves the vault closed; leave out --backtest.vault")
    stop = judged_rows(len(cube.times), test_fraction=1.0, horizon=horizon, vault=vault.row).stop
    rows = slice(max(warmup_bars(observed(config, cube), catalog_of(config)), LONG), stop)
    share, resamples = section.alpha / section.cycles, config.backtest.resamples
    if share * (resamples + 1) < 1:
        raise ConfigError(
            f"{resamples} resamples cannot tell a chance of {share:.2g}, what each of {section.cycles} cycles may spend; raise "
            f"--backtest.resamples to {int(1 / share)} or more"
        )
    every, embargo = config.agents.every_bars, config.backtest.embargo_bars
    return cycles(rows, count=section.cycles, first=section.first, horizon=horizon, every=every, embargo=embargo)


def vault_of(config: Config, cube: Cube) -> Vault:
    """The vault of the run's data, closed unless the config opens it."""
    section = config.backtest
    return Vault.of(
        cube.times, first_day=section.vault_from, asked=section.vault, real=config.data.type != "synthetic",
        bars_per_year=cube.bars_per_year,
    )  # fmt: skip
