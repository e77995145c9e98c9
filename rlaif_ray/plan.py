"""What a run will do, from its config and its data alone: on which terms it trades, what the policy sees, how time is cut.

Told before the first fold works, so that what cannot be done is said while nothing has been done.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rlaif_ray.config import Config
from rlaif_ray.config_execution import IMPACT
from rlaif_ray.config_rl import RL
from rlaif_ray.core import VOLUME, Cube
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import NO_VOLUME, Fill
from rlaif_ray.execution.terms import Terms
from rlaif_ray.features.catalog import DEFAULT_OBSERVATION, Catalog, warmup_bars
from rlaif_ray.feedback.context import LONG
from rlaif_ray.feedback.scoring import metric
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Cycle, Fold, cycles, judged_rows, walk_forward
from rlaif_ray.forecast.on_ray import check_context
from rlaif_ray.policies import LEARNERS
from rlaif_ray.portfolio.limits import TURBULENCE_BARS, Limits
from rlaif_ray.portfolio.risk import LEAST_BARS
from rlaif_ray.rl.direct_training import HORIZON
from rlaif_ray.rl.env import check_room
from rlaif_ray.vault import Vault


def terms_of(config: Config, cube: Cube, sectors: Mapping[str, str]) -> Terms:
    """On which every policy of the run trades; made from the config and the data once.

    Impact is charged where the source has volumes, unless it was set by hand. Raises `DataError` where it was asked for and there are none.
    """
    section = config.execution
    fill: Fill = section.fill if section.fill != "auto" else ("next_open" if cube.has_opens else "next_close")
    costs, account = section.costs, section.account
    volumes = bool(np.nansum(cube.prices[:, :, VOLUME]) > 0)
    if not volumes and (costs.impact or costs.temporary or costs.permanent or account.participation):
        raise DataError(NO_VOLUME)
    rules = AccountRules(
        account.long_short, account.whole_shares, account.participation or math.inf, account.cash_interest, account.maintenance
    )  # fmt: skip
    impact = costs.impact if costs.impact is not None else IMPACT * volumes
    paid = CostModel.of_bps(**costs.model_dump() | {"impact": impact})
    limits = Limits(**section.limits.model_dump())
    if not any(sectors.get(s) for s in cube.symbols):
        limits = replace(limits, max_sector=1.0)  # where no sector is known, none can be capped
    return Terms(paid, fill, rules, limits, dict(sectors), section.initial_cash_usd)


def outcome_terms(config: Config, terms: Terms) -> OutcomeTerms:
    """On which opinions are judged: what a trade costs in this run, and how a residual return is taken."""
    section = config.feedback
    return OutcomeTerms(terms.costs.rate, section.beta_bars, section.volatility_bars, section.barrier, dict(terms.sectors))


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
    if config.rl.policy == "lightgbm_optimiser" and "lightgbm" not in config.forecast.models:
        seen = ", ".join(config.forecast.models)
        raise ConfigError(f"--rl.policy is lightgbm_optimiser and --forecast.models are {seen}; add lightgbm, or choose another policy")
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
    _check_unread(folds[0], cube, section.chosen_until)
    for fold in folds:
        check_context(fold, config.forecast)
        _check_episode(fold, config.rl)
        _check_turbulence(fold, config)
    return folds


def _check_unread(first: Fold, cube: Cube, chosen_until: dt.datetime | None) -> None:
    """That no test block has a bar on which knobs of the config were chosen; the first fold's begins first."""
    begins = cube.times[first.last.rows.start]
    if chosen_until is not None and begins <= np.datetime64(chosen_until):
        raise ConfigError(
            f"the test blocks begin with the bar of {begins.item()}, and knobs were chosen on bars until {chosen_until} "
            f"(--backtest.chosen_until): lower --backtest.test_fraction or bring later bars, or choose the knobs again on earlier ones"
        )


def _check_episode(fold: Fold, section: RL) -> None:
    """That the bars in a row which a learner needs are there; who learns nothing needs none."""
    rows = fold.train_rows.stop - fold.train_rows.start
    match section.policy:
        case "direct":
            check_room(rows, section.direct.horizon_bars, HORIZON)
        case "sac":
            check_room(rows, section.sac.episode_bars)


def _check_turbulence(fold: Fold, config: Config) -> None:
    """That the turbulence pause has readings for a threshold before its first decision, a learner's on validation; gaps may leave fewer."""
    first = fold.validation if config.rl.policy in LEARNERS else fold.last
    needed = TURBULENCE_BARS + 1 + LEAST_BARS  # the first return is on the second row
    if config.execution.limits.turbulence < 1 and first.rows.start < needed:
        raise DataError(
            f"{first.rows.start} bars before the {first.role} rows of fold {fold.name}; the turbulence pause needs {needed}, {LEAST_BARS} "
            f"readings after {TURBULENCE_BARS} bars each: bring more bars, or leave out --execution.limits.turbulence"
        )


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
