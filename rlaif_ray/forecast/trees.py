"""Gradient-boosted trees over the cross-section: which names will do better than the others of their date, and by how much.

One LightGBM model a horizon (Ke et al. 2017), on rows of (date, symbol) pooled over dates, after Gu, Kelly and Xiu (2020),
"Empirical asset pricing via machine learning". Inputs are ranks among the names of the date, the target is in units of
the volatility known then: a market that rises or shakes as a whole teaches nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from scipy.stats import rankdata

from rlaif_ray.core import Cube, ForecastTable, Target, content_hash
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import CheckpointError, DataError, NotFittedError
from rlaif_ray.forecast.baselines import MANIFEST, WARMUP_BARS, ewma_volatility
from rlaif_ray.labels import closed_inside, forward_sums, log_returns

CLIP = 5.0  # volatilities: one crash must not be what a leaf learns
PATIENCE = 30  # trees without gain on the held-out rows after which no more are grown


def ranks(features_TAF: np.ndarray) -> np.ndarray:
    """(T,A,F) float32 rank of each value among the names of its row, -0.5 to 0.5, ties sharing their mean; NaN where it is NaN
    or alone. What `features.cross_section` does to a panel, for a whole cube.
    """
    known = np.isfinite(features_TAF)
    count = known.sum(axis=1, keepdims=True)
    order = rankdata(np.where(known, features_TAF, np.inf), axis=1)  # the unknown come last, and move no rank before them
    return np.where(known & (count > 1), (order - 1.0) / np.maximum(count - 1, 1) - 0.5, np.nan).astype(np.float32)


def least_bars(horizons: Sequence[int], held_out: float) -> int:
    """Bars that a fit needs so that a volatility is known on a row whose labels close before the held-out rows begin."""
    longest = max(horizons)
    return math.ceil((WARMUP_BARS + longest + 1) / (1.0 - held_out)) + longest


class LightGBM:
    """Forecasts the log return of each name over that of the mean of its date; median = trees' score times volatility.

    The last `held_out` share of the fitted rows, purged, says how many trees are grown and how wrong they are: quantiles
    come from the errors there, taken both ways, so that a drift of those rows is no part of the forecast. Then the trees
    are grown again on all rows.

    Parameters
    ----------
    trees : the most that are grown; fewer where the held-out rows gain nothing for 30 of them.
    leaves, min_rows : leaves a tree, and rows (date, symbol) a leaf.
    held_out : share of the fitted rows, the last ones.
    """

    name = "lightgbm"
    target: Target = "return"

    def __init__(
        self, *, horizons: Sequence[int], levels: Sequence[float], trees: int = 300, leaves: int = 15, learning_rate: float = 0.03,
        min_rows: int = 100, held_out: float = 0.2, seed: int = 0,
    ) -> None:  # fmt: skip
        self.horizons, self.levels = tuple(horizons), tuple(levels)
        self.trees, self.leaves, self.learning_rate, self.min_rows = trees, leaves, learning_rate, min_rows
        self.held_out, self.seed = held_out, seed
        self._boosters: tuple[lgb.Booster, ...] = ()
        self._errors_HQ = np.empty((0, 0))

    def fit(self, cube: Cube, rows: slice) -> None:
        """Learn from labels that close inside `rows`. Raises `DataError` where there are too few, or no features."""
        self.learn(cube, np.flatnonzero(closed_inside(len(cube.times), max(self.horizons), rows)))

    def learn(self, cube: Cube, rows: np.ndarray) -> None:
        """The same from any rising decision rows, each of whose labels over the longest horizon may be read."""
        if not cube.feature_names:
            raise DataError("the cube has no features for lightgbm to learn from; expected one or more: see --rl.features")
        first_held = rows[-max(1, int(self.held_out * len(rows)))] if len(rows) else 0
        learnt, held = rows[rows + max(self.horizons) < first_held], rows[rows >= first_held]
        inputs, logs = ranks(cube.features), log_returns(total_returns(cube))
        sums, volatility = forward_sums(logs, self.horizons), ewma_volatility(logs)
        models, errors = [], []
        for j, horizon in enumerate(self.horizons):
            came = sums[:, :, j] / (volatility * np.sqrt(horizon))
            if not (np.isfinite(came[learnt]).any() and np.isfinite(came[held]).any()):
                raise DataError(
                    f"{len(rows)} rows do not hold {horizon}-bar labels both to learn from and to hold out; lightgbm needs "
                    f"{least_bars(self.horizons, self.held_out)} bars: bring more, or lower --forecast.horizons"
                )
            beaten = np.clip(_over_the_mean(sums[:, :, j]) / (volatility * np.sqrt(horizon)), -CLIP, CLIP)
            model, score = self._boost(inputs, beaten, learnt, held, rows)
            error = (came[held] - score)[np.isfinite(came[held])]
            models.append(model)
            errors.append(np.quantile(np.concatenate([error, -error]), self.levels))
        self._take(models, np.array(errors))

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        """Quantiles of the cumulative simple return; (T,A,H,Q), NaN where a symbol is too young or has no bar."""
        if not self._boosters:
            raise NotFittedError("lightgbm has grown no trees yet; call fit before predict")
        picked = np.asarray(rows)
        inputs, volatility = ranks(cube.features[picked]), ewma_volatility(log_returns(total_returns(cube)))[picked]
        values = np.empty((*volatility.shape, len(self.horizons), len(self.levels)), np.float32)
        for j, (horizon, booster) in enumerate(zip(self.horizons, self._boosters, strict=True)):
            scaled = _scores(booster, inputs)[:, :, None] + self._errors_HQ[j]
            values[:, :, j] = np.expm1(scaled * volatility[:, :, None] * np.sqrt(horizon))
        return ForecastTable(cube.known_at[picked], self.target, cube.symbols, self.horizons, self.levels, values, self.name)

    def save(self, directory: Path) -> None:
        """Knobs and errors as JSON, the trees in LightGBM's own text form: one file a horizon."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST).write_text(json.dumps({"name": self.name, **self._knobs, "errors": self._errors_HQ.tolist()}, indent=1))
        for horizon, booster in zip(self.horizons, self._boosters, strict=True):
            (directory / f"{horizon}.txt").write_text(booster.model_to_string())

    @classmethod
    def load(cls, directory: Path) -> LightGBM:
        """The inverse of `save`. Raises `CheckpointError` where a horizon's trees are missing."""
        state = json.loads((directory / MANIFEST).read_text())
        del state["name"]
        errors = np.array(state.pop("errors"))
        forecaster = cls(**state)
        files = [directory / f"{horizon}.txt" for horizon in forecaster.horizons]
        if missing := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(f"no {missing[0]} in {directory}; expected the trees of each of the horizons {forecaster.horizons}")
        forecaster._take([file.read_text() for file in files], errors)
        return forecaster

    @property
    def parameter_hash(self) -> str:
        return content_hash([self._knobs, self._errors_HQ, [b.model_to_string() for b in self._boosters]])

    @property
    def _knobs(self) -> dict[str, Any]:
        names = ("horizons", "levels", "trees", "leaves", "learning_rate", "min_rows", "held_out", "seed")
        return {name: getattr(self, name) for name in names}

    def _take(self, models: Sequence[str], errors: np.ndarray) -> None:
        """From their text, whether just grown or loaded: what is served is what was tested."""
        self._boosters, self._errors_HQ = tuple(lgb.Booster(model_str=text) for text in models), errors

    def _boost(
        self, inputs: np.ndarray, target: np.ndarray, learnt: np.ndarray, held: np.ndarray, rows: np.ndarray
    ) -> tuple[str, np.ndarray]:  # fmt: skip
        """The trees as text, and what as many, grown without the held-out rows, said there: (rows held out, A)."""
        knobs = {
            "objective": "l2", "num_leaves": self.leaves, "learning_rate": self.learning_rate, "min_data_in_leaf": self.min_rows,
            "seed": self.seed % 2**31, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
        }  # fmt: skip

        def data(at: np.ndarray, reference: lgb.Dataset | None = None) -> lgb.Dataset:
            known = np.isfinite(target[at])
            return lgb.Dataset(inputs[at][known], target[at][known], reference=reference, params=knobs)

        train, stop = data(learnt), lgb.early_stopping(PATIENCE, verbose=False)
        trial = lgb.train(knobs, train, self.trees, valid_sets=[data(held, train)], callbacks=[stop])
        return lgb.train(knobs, data(rows), trial.best_iteration).model_to_string(), _scores(trial, inputs[held])


def _over_the_mean(values_TA: np.ndarray) -> np.ndarray:
    """(T,A) less the mean of the names of the row."""
    known = np.isfinite(values_TA)
    return values_TA - np.where(known, values_TA, 0.0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)


def _scores(booster: lgb.Booster, inputs_TAF: np.ndarray) -> np.ndarray:
    """(T,A) what the trees say."""
    flat = inputs_TAF.reshape(-1, inputs_TAF.shape[-1])
    return np.asarray(booster.predict(flat, num_threads=1), np.float64).reshape(inputs_TAF.shape[:2])
