"""What a learner of a fold is given: what it sees, what it may ask for, rows to learn from and rows to be chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif_ray.core import Cube, ForecastTable, OpinionTable
from rlaif_ray.execution.terms import Terms
from rlaif_ray.folds import Fold
from rlaif_ray.portfolio.limits import Controls, sector_numbers
from rlaif_ray.rl.env import Track
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.rl.projection import ActionSet


@dataclass(frozen=True, eq=False)
class Course:
    """One fold's rows as tracks. Picklable; the tracks may live in Ray's object store."""

    recipe: Recipe
    allowed: ActionSet
    train: Track
    validation: Track  # under the controls that will have the last word
    sectors: Mapping[str, str]

    @classmethod
    def of(
        cls, cube: Cube, fold: Fold, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, terms: Terms, *, section: Any,
        features: tuple[str, ...],
    ) -> Course:  # fmt: skip
        """Fit the recipe on what training may read, and lay out the fold's training and validation rows.

        Learners train without the controls that stop trading: a path in cash by rule teaches nothing. What may be asked for is
        within the caps; the controls have the last word on validation, and when the policy is traded.

        Parameters
        ----------
        forecasts, desk : out of sample on those rows.
        section : `sees` and `returns_window`, what of it all the policy sees.
        """
        recipe = Recipe.fit(
            cube, forecasts, desk, features=features, sees=section.sees, returns_window=section.returns_window, block_a=fold.block_a,
            train_rows=fold.train_rows,
        )  # fmt: skip
        limits = terms.limits
        allowed = ActionSet(
            limits.max_weight, terms.account.long_short, sector_numbers(cube.symbols, terms.sectors), limits.max_sector
        )  # fmt: skip

        def track(rows: slice, controls: Controls | None) -> Track:
            return Track.of(
                cube, recipe.bulk(cube, forecasts, desk, rows), rows, fill=terms.fill, costs=terms.costs, account=terms.account,
                cash_usd=terms.cash_usd, memory=recipe.memory, turbulence=recipe.bulk_turbulence(cube, rows), controls=controls,
            )  # fmt: skip

        validation = fold.validation.rows
        controls = Controls.of(cube, limits, terms.sectors, slice(0, validation.start))
        return cls(recipe, allowed, track(fold.train_rows, None), track(validation, controls), terms.sectors)
