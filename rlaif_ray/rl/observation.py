"""What a policy sees, as numbers: one recipe, read in bulk for training and from a `MarketView` for decisions, bit for bit alike.

A field is standardised with the mean and deviation of rows that training may use, clipped at 5, and 0 where there is no
data; where data is missing often, a flag says so, because no data is not the average. A constant field is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rlaif_ray.core import Abstention, Cube, ForecastTable, MarketView, OpinionTable
from rlaif_ray.errors import DataError, MissingDataError

CLIP = 5.0
OFTEN = 0.01  # share of missing values in the fitted rows from which a field gets a flag
MEDIAN, LOW, HIGH = 0.5, 0.1, 0.9

Kind = Literal["feature", "forecast", "opinion"]
Sees = Literal["features", "forecasts", "opinions"]


@dataclass(frozen=True)
class Field:
    """One number an asset shows: a feature, a forecast's median or 10-90 spread, or an author's log-odds of p_up."""

    kind: Kind
    source: str  # name of the feature, model or author
    horizon: int = 0  # bars, of a forecast
    stat: Literal["", "median", "spread"] = ""
    mean: float = 0.0
    std: float = 1.0
    flagged: bool = False

    @property
    def name(self) -> str:
        return f"{self.source}[{self.horizon}] {self.stat}" if self.kind == "forecast" else self.source


@dataclass(frozen=True)
class Recipe:
    """Fields in order; the flags of those that have one follow after all of them. D = len(names)."""

    fields: tuple[Field, ...]

    @classmethod
    def fit(
        cls, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, *, features: tuple[str, ...],
        sees: tuple[Sees, ...], block_a: slice, train_rows: slice,
    ) -> Recipe:  # fmt: skip
        """Choose and scale the fields. Features are scaled on block A; forecasts and opinions, which do not exist there, on
        `train_rows`. Nothing after `train_rows` is read. Raises `MissingDataError` when no field has data.
        """
        wanted: list[Field] = []
        if "features" in sees:
            wanted += [Field("feature", name) for name in features]
        if "forecasts" in sees:
            for model, table in sorted(forecasts.items()):
                wanted += [Field("forecast", model, h, stat) for h in table.horizons for stat in ("median", "spread")]
        if "opinions" in sees and desk is not None:
            wanted += [Field("opinion", author) for author in desk.authors]
        fitted = []
        for field in wanted:
            values = _bulk(field, cube, forecasts, desk, block_a if field.kind == "feature" else train_rows)
            known = values[np.isfinite(values)].astype(np.float64)
            if len(known) and known.std() > 1e-9 * max(1.0, abs(known.mean())):
                missing = 1.0 - len(known) / values.size
                fitted.append(
                    Field(field.kind, field.source, field.horizon, field.stat, float(known.mean()), float(known.std()), missing > OFTEN)
                )
        if not fitted:
            names = [f.name for f in wanted]
            raise MissingDataError(f"the policy would see nothing: none of {names} has data; check --rl.sees and --rl.features")
        return cls(tuple(fitted))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields) + tuple(f"{f.name} missing" for f in self.fields if f.flagged)

    def bulk(self, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, rows: slice) -> np.ndarray:
        """(R,A,D) float32 for decision rows `rows`."""
        return self._scaled([_bulk(field, cube, forecasts, desk, rows) for field in self.fields])

    def row(self, view: MarketView) -> np.ndarray:
        """(A,D) float32 at the view's own row."""
        return self._scaled([_row(field, view) for field in self.fields])

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(f) for f in self.fields]

    @classmethod
    def of_json(cls, fields: list[dict[str, Any]]) -> Recipe:
        return cls(tuple(Field(**f) for f in fields))

    def _scaled(self, raw: list[np.ndarray]) -> np.ndarray:
        columns, flags = [], []
        for field, values in zip(self.fields, raw, strict=True):
            scaled = (values.astype(np.float32) - np.float32(field.mean)) / np.float32(field.std)
            missing = np.isnan(scaled)
            columns.append(np.where(missing, np.float32(0), np.clip(scaled, -CLIP, CLIP)))
            if field.flagged:
                flags.append(missing.astype(np.float32))
        return np.stack(columns + flags, axis=-1)


def _bulk(field: Field, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, rows: slice) -> np.ndarray:
    """(R,A) of one field before scaling; NaN where there is none."""
    if field.kind == "feature":
        return cube.feature(field.source)[rows]
    moments = cube.known_at[rows]
    if field.kind == "opinion":
        if desk is None or field.source not in desk.authors:
            raise MissingDataError(f"the policy was trained to hear {field.source!r}, which gave no opinions")
        at = np.searchsorted(desk.as_of, moments, side="right") - 1
        p_up = np.where((at >= 0)[:, None], desk.p_up[np.maximum(at, 0)][:, :, desk.authors.index(field.source)], np.nan)
        return _log_odds(p_up)
    if field.source not in forecasts:
        raise MissingDataError(f"the policy was trained to see forecasts of {field.source!r}; there are those of {sorted(forecasts)}")
    table = forecasts[field.source]
    if table.symbols != cube.symbols:
        raise DataError(f"forecasts of {table.model} are for the symbols {table.symbols}; expected those of the cube, {cube.symbols}")
    at = np.minimum(np.searchsorted(table.as_of, moments), len(table.as_of) - 1)
    quantiles = table.values[at][:, :, table.horizons.index(field.horizon)].astype(np.float64)
    return np.where((table.as_of[at] == moments)[:, None], _stat(field, quantiles, table.levels), np.nan)


def _row(field: Field, view: MarketView) -> np.ndarray:
    """(A,) of one field at the view's row; NaN where there is none."""
    if field.kind == "feature":
        return view.feature(field.source)
    if field.kind == "opinion":
        return _log_odds(_latest(view, field.source))
    for forecast in view.forecasts.values():
        if forecast.model == field.source and forecast.as_of == view.as_of:
            return _stat(field, forecast.quantiles[:, forecast.horizons.index(field.horizon)], forecast.levels)
    return np.full(len(view.symbols), np.nan)


def _latest(view: MarketView, author: str) -> np.ndarray:
    """(A,) p_up of the last date on which anyone on the desk spoke, as `OpinionTable.latest` has it."""
    p_up = np.full(len(view.symbols), np.nan)
    if view.opinions:
        last = max(o.as_of for o in view.opinions)
        for o in view.opinions:
            if o.author == author and o.as_of == last and not isinstance(o, Abstention) and o.symbol in view.symbols:
                p_up[view.symbols.index(o.symbol)] = o.p_up
    return p_up


def _stat(field: Field, quantiles: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(...,Q) -> (...): the median, or how far the 90% quantile lies above the 10% one (or the nearest levels there are)."""
    low, median, high = (int(np.argmin(np.abs(np.asarray(levels) - x))) for x in (LOW, MEDIAN, HIGH))
    return quantiles[..., median] if field.stat == "median" else quantiles[..., high] - quantiles[..., low]


def _log_odds(p_up: np.ndarray) -> np.ndarray:
    return np.log(p_up) - np.log1p(-p_up)
