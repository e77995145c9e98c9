"""Columns made fit for a learner: bounds against outliers and a common scale, both fitted on training rows, and what fills a gap.

Fitted values are frozen arrays that carry `fit_end`: only rows known by then were seen. They are computed per fold and kept beside
its artefacts (`to_arrays`, `of_arrays`), never in the lake. All symbols are pooled. NaN stays NaN: filling is its own step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from scipy.special import ndtri

from rlaif_ray.core import Panel
from rlaif_ray.errors import ConfigError, MissingDataError, SchemaError, did_you_mean
from rlaif_ray.features.family import FeatureSpec

Method = Literal["zscore", "robust", "rank_gauss"]
Meta = dict[str, Any]  # JSON-able
GAUSSIAN_MAD = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""
KNOTS = 1001


@dataclass(frozen=True, eq=False)
class Bounds:
    """Values beyond which a column is clipped. Fit with `winsorised` or `within_mad`."""

    names: tuple[str, ...]  # (F,)
    fit_end: np.datetime64
    low: np.ndarray  # (F,) float64; -inf: no bound
    high: np.ndarray  # (F,) float64

    @classmethod
    def winsorised(cls, panel: Panel, names: Sequence[str], fit_end: np.datetime64, share: float = 0.01) -> Bounds:
        """At the quantiles `share` and 1 - `share` of the rows known by `fit_end` (Tukey 1962).

        Raises `ConfigError` for a share outside [0, 0.5), `MissingDataError` for a column without a value by then.
        """
        if not 0.0 <= share < 0.5:
            raise ConfigError(f"winsorise share is {share}; expected 0 to under 0.5 at each end")
        low, high = _pairs([np.quantile(x, (share, 1.0 - share)) for x in _training(panel, names, fit_end)])
        return cls(tuple(names), _moment(fit_end), low, high)

    @classmethod
    def within_mad(cls, panel: Panel, names: Sequence[str], fit_end: np.datetime64, deviations: float = 5.0) -> Bounds:
        """At median +- deviations x 1.4826 x median absolute deviation (Hampel 1974), of the rows known by `fit_end`.

        A column of which over half is one value has no such deviation and no bounds. Raises as `winsorised`, for deviations that
        are not above 0.
        """
        if not deviations > 0.0:
            raise ConfigError(f"MAD deviations are {deviations}; expected above 0")
        centre, mad = _pairs([_median_and_mad(x) for x in _training(panel, names, fit_end)])
        reach = np.where(mad > 0.0, deviations * mad, np.inf)
        return cls(tuple(names), _moment(fit_end), centre - reach, centre + reach)

    def apply(self, panel: Panel) -> Panel:
        """The panel with these columns clipped, as float32. Raises `MissingDataError` for one that is not there."""
        columns = _columns(panel, self.names)
        return _with(panel, {n: np.clip(x, a, b) for n, x, a, b in zip(self.names, columns, self.low, self.high, strict=True)})

    def to_arrays(self) -> tuple[dict[str, np.ndarray], Meta]:
        return {"low": self.low, "high": self.high}, _meta(self.names, self.fit_end)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Bounds:
        """The inverse of `to_arrays`. Raises `SchemaError` for arrays that do not fit the names."""
        names, fit_end = _named(meta)
        return cls(names, fit_end, *_shaped(arrays, {"low": (len(names),), "high": (len(names),)}))


@dataclass(frozen=True, eq=False)
class Normalisation:
    """A common scale for columns.

    - `zscore`: (x - mean) / standard deviation;
    - `robust`: (x - median) / (1.4826 x median absolute deviation), or, where over half of a column is one value, over its
      standard deviation;
    - `rank_gauss`: the normal quantile of x's rank among the fitted values, by 1001 knots with straight lines between; ranks end
      half a value inside 0 and 1, so that new extremes are as far out as the old ones.

    A column that was constant gives 0 at that value, and elsewhere, but for `rank_gauss`, the distance from it.
    """

    names: tuple[str, ...]  # (F,)
    method: Method
    fit_end: np.datetime64
    centre: np.ndarray  # (F,) float64
    scale: np.ndarray  # (F,) float64, above 0
    knots: np.ndarray  # (F,K) float64, rising: quantiles at even levels; K is 0 but for rank_gauss
    counts: np.ndarray  # (F,) int64: values that were fitted

    @classmethod
    def fit(cls, panel: Panel, names: Sequence[str], fit_end: np.datetime64, method: Method = "zscore") -> Normalisation:
        """From the finite values of rows known by `fit_end`. Raises `ConfigError` for another method, `MissingDataError` for a
        column without a value by then.
        """
        method = _method(method)
        training = list(_training(panel, names, fit_end))
        centre, scale = _pairs([_centre_and_scale(x, method) for x in training])
        levels = np.linspace(0.0, 1.0, KNOTS if method == "rank_gauss" else 0)
        knots = np.array([np.quantile(x, levels) for x in training]).reshape(len(training), len(levels))
        return cls(tuple(names), method, _moment(fit_end), centre, scale, knots, np.array([len(x) for x in training], np.int64))

    def apply(self, panel: Panel) -> Panel:
        """The panel with these columns on the common scale, as float32. Raises `MissingDataError` for one that is not there."""
        columns = _columns(panel, self.names)
        if self.method == "rank_gauss":
            fitted = zip(self.names, columns, self.knots, self.counts, strict=True)
            return _with(panel, {n: _normal_scores(x, knots, count) for n, x, knots, count in fitted})
        return _with(panel, {n: (x - m) / s for n, x, m, s in zip(self.names, columns, self.centre, self.scale, strict=True)})

    def to_arrays(self) -> tuple[dict[str, np.ndarray], Meta]:
        """For a file of arrays, and for JSON beside it."""
        arrays = {name: getattr(self, name) for name in ("centre", "scale", "knots", "counts")}
        return arrays, {**_meta(self.names, self.fit_end), "method": self.method}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Normalisation:
        """The inverse of `to_arrays`. Raises `SchemaError` for arrays that do not fit the names."""
        names, fit_end = _named(meta)
        f, method = len(names), _method(meta.get("method"))
        shapes = {"centre": (f,), "scale": (f,), "knots": (f, KNOTS if method == "rank_gauss" else 0), "counts": (f,)}
        return cls(names, method, fit_end, *_shaped(arrays, shapes))


def fill(panel: Panel, specs: Sequence[FeatureSpec]) -> Panel:
    """Gaps as each feature's `missing` says: `undefined` stays NaN, `zero` is 0, `carry` is the symbol's last value before.

    Where something is carried, a row is known when all rows of its symbol before it are. Raises `MissingDataError` for a column
    that is not there.
    """
    _columns(panel, [spec.name for spec in specs])
    zero, carry = ([spec.name for spec in specs if spec.missing == rule] for rule in ("zero", "carry"))
    filled = [pl.col(n).fill_nan(None).fill_null(0.0) for n in zero]
    filled += [pl.col(n).fill_nan(None).forward_fill().over("symbol").fill_null(np.nan) for n in carry]
    known_at = pl.col("known_at").cum_max().over("symbol") if carry else pl.col("known_at")
    return Panel(panel.frame.with_columns(known_at, *filled))


def _method(name: Any) -> Method:
    if name not in get_args(Method):
        known = get_args(Method)
        raise ConfigError(f"no normalisation {name!r}; expected one of {', '.join(known)}.{did_you_mean(str(name), known)}")
    return name


def _centre_and_scale(x: np.ndarray, method: Method) -> tuple[float, float]:
    if np.ptp(x) == 0.0:
        return float(x[0]), 1.0
    if method == "zscore":
        return float(x.mean()), float(x.std())
    centre, mad = _median_and_mad(x)
    return centre, mad or float(x.std())


def _pairs(rows: Sequence[Any]) -> np.ndarray:
    """(2,F)"""
    return np.array(rows, np.float64).reshape(-1, 2).T.copy()


def _median_and_mad(x: np.ndarray) -> tuple[float, float]:
    """The latter times 1.4826."""
    centre = np.median(x)
    return float(centre), float(GAUSSIAN_MAD * np.median(np.abs(x - centre)))


def _normal_scores(x: np.ndarray, knots: np.ndarray, count: int) -> np.ndarray:
    """Where several knots are equal, the rank is the middle of theirs."""
    levels = np.linspace(0.0, 1.0, len(knots))
    rank = 0.5 * (np.interp(x, knots, levels) - np.interp(-x, -knots[::-1], -levels[::-1]))
    return ndtri(np.clip(rank, 0.5 / count, 1.0 - 0.5 / count))


def _columns(panel: Panel, names: Sequence[str]) -> list[np.ndarray]:
    """(T,) float64 each, NaN for null."""
    absent = [n for n in names if n not in panel.columns]
    if absent:
        raise MissingDataError(f"no column {absent[0]!r} among {len(panel.columns)}.{did_you_mean(absent[0], panel.columns)}")
    return [panel.frame[n].cast(pl.Float64).fill_null(np.nan).to_numpy() for n in names]


def _training(panel: Panel, names: Sequence[str], fit_end: np.datetime64) -> Iterator[np.ndarray]:
    """The finite values of each column on rows known by `fit_end`."""
    for name, x in zip(names, _columns(panel.as_of(fit_end), names), strict=True):
        finite = x[np.isfinite(x)]
        if not len(finite):
            raise MissingDataError(f"{name} has no value known by {fit_end}; expected some to fit on: leave it out, or fit on more rows")
        yield finite


def _with(panel: Panel, columns: Mapping[str, np.ndarray]) -> Panel:
    """As float32, NaN for what is beyond it."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = {n: x.astype(np.float32) for n, x in columns.items()}
    return Panel(panel.frame.with_columns(pl.Series(n, np.where(np.isfinite(x), x, np.float32(np.nan))) for n, x in stored.items()))


def _moment(at: np.datetime64) -> np.datetime64:
    return at.astype("datetime64[us]")


def _meta(names: Sequence[str], fit_end: np.datetime64) -> Meta:
    return {"names": list(names), "fit_end": str(fit_end)}


def _named(meta: Mapping[str, Any]) -> tuple[tuple[str, ...], np.datetime64]:
    if not {"names", "fit_end"} <= set(meta):
        raise SchemaError(f"what was fitted comes with {sorted(meta)}; expected its names and fit_end, as `to_arrays` gave them")
    return tuple(meta["names"]), np.datetime64(meta["fit_end"], "us")


def _shaped(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[np.ndarray]:
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            raise SchemaError(f"{name} is {arrays[name].shape if name in arrays else 'absent'}; expected an array {shape}")
        yield arrays[name]
