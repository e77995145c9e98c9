"""Where a symbol stands among all symbols of the same moment.

What is compared at (symbol, timestamp) are the rows of that timestamp which were known when this row became known; a
row that arrives late joins no one's comparison before it arrived. Symbols without the feature count for nothing, and
nothing is compared with fewer than two. Lay in the order in which they became known, the rows that one is compared with
are those before it and beside it: no join is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from rlaif_ray.core import Panel
from rlaif_ray.features.across import allowed, columns, moments, on_given_rows, sector_codes, symbol_codes
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Parameter, Tables, Unit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
Row = tuple[Parameter, ...]
_FLAT = 1e-24  # spread over size, squared, below which numbers are equal but for their rounding
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, eq=False)
class Moments:
    """Rows in the order of timestamp, `known_at` and symbol, cut into views: rows of one timestamp that became known together."""

    columns: Mapping[str, np.ndarray]  # name -> (N,) float64
    sectors: np.ndarray  # (N,) int64, -1 unknown
    views: np.ndarray  # (V,3) int64: where the timestamp begins, where the view does, where it ends

    @cached_property
    def everyone(self) -> np.ndarray:
        """(N,): all symbols as one group."""
        return np.zeros_like(self.sectors)

    def deviations(self, feature: str, groups: np.ndarray | None = None) -> np.ndarray:
        """(2,N): value less the mean of its group, and that over the group's standard deviation (n - 1); None: all are one group."""
        return _deviations(self.columns[feature], self.everyone if groups is None else groups, self.views)

    def ranks(self, feature: str) -> np.ndarray:
        """(2,N): rank from 0, ties sharing their mean, and the number of symbols that have one."""
        return _ranks(self.columns[feature], self.views)


def apply(tables: Tables, specs: Sequence[FeatureSpec]) -> Panel:
    """Cross-sectional features of all symbols.

    Parameters
    ----------
    tables : `features`: the columns that the specs name, of every symbol of the universe, sorted by symbol and timestamp,
        NaN where undefined; `sectors` (symbol, sector), where there are any: who is in which, always.
    specs : wanted; those whose inputs are not there are left out.

    Returns
    -------
    Panel with the same rows and `known_at`, float32.
    """
    frame = tables["features"]
    wanted = allowed(tables, specs, (_sector_excess, _sector_zscore))
    symbols, of = symbol_codes(frame)
    order, views = _by_moment(*moments(frame))
    compared = Moments({name: x[order] for name, x in columns(frame, wanted).items()}, sector_codes(tables, symbols)[of[order]], views)

    def on_rows(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        out[order] = x
        return out

    return on_given_rows(frame, ((s.name, on_rows(s.of(compared))) for s in wanted))


# --- formulas: (moments, the feature compared, its look-back, ...) -> (N,) ---------------------------------------------


def _excess(m: Moments, feature: str) -> np.ndarray:
    return m.deviations(feature)[0]


def _zscore(m: Moments, feature: str) -> np.ndarray:
    return m.deviations(feature)[1]


def _sector_excess(m: Moments, feature: str) -> np.ndarray:
    return m.deviations(feature, m.sectors)[0]


def _sector_zscore(m: Moments, feature: str) -> np.ndarray:
    return m.deviations(feature, m.sectors)[1]


def _rank(m: Moments, feature: str) -> np.ndarray:
    rank, count = m.ranks(feature)
    return rank / (count - 1.0) - 0.5


def _bucket(m: Moments, feature: str, buckets: int) -> np.ndarray:
    rank, count = m.ranks(feature)
    return np.where(count >= buckets, np.floor(buckets * (rank + 0.5) / count), np.nan)


def _winsorised(m: Moments, feature: str, deviations: float) -> np.ndarray:
    return _clipped_score(m.columns[feature], deviations, m.views)


# --- kernels --------------------------------------------------------------------------------------------------------


@njit("Tuple((int64[::1], int64[:,::1]))(int64[::1], int64[::1], int64)", **_OPTIONS)
def _by_moment(date: np.ndarray, known: np.ndarray, dates: int) -> tuple[np.ndarray, np.ndarray]:
    """Order (N,) of the rows by date, moment and symbol, and the views (V,3): a counting sort, as rows come sorted by symbol."""
    ends = np.zeros(dates + 1, np.int64)
    for d in date:
        ends[d + 1] += 1
    ends = np.cumsum(ends)
    free, order = ends.copy(), np.empty(date.size, np.int64)
    for i in range(date.size):
        order[free[date[i]]] = i
        free[date[i]] += 1
    views, v = np.empty((date.size, 3), np.int64), 0
    for d in range(dates):
        for i in range(ends[d] + 1, ends[d + 1]):  # insertion keeps symbols in order and costs nothing where no row is late
            row, k = order[i], i
            while k > ends[d] and known[order[k - 1]] > known[row]:
                order[k] = order[k - 1]
                k -= 1
            order[k] = row
        start = ends[d]
        for end in range(ends[d] + 1, ends[d + 1] + 1):
            if end == ends[d + 1] or known[order[end]] != known[order[start]]:
                views[v, 0], views[v, 1], views[v, 2] = ends[d], start, end
                start = end
                v += 1
    return order, views[:v].copy()


@njit("float64[:,::1](float64[::1], int64[::1], int64[:,::1])", **_OPTIONS)
def _deviations(x: np.ndarray, group: np.ndarray, views: np.ndarray) -> np.ndarray:
    out = np.full((2, x.size), np.nan)
    groups = 0
    for g in group:
        groups = max(groups, g + 1)
    count, mean, squares, size = np.empty(groups), np.empty(groups), np.empty(groups), np.empty(groups)
    for v in range(len(views)):
        first, start, end = views[v, 0], views[v, 1], views[v, 2]
        count[:], mean[:], squares[:], size[:] = 0.0, 0.0, 0.0, 0.0
        for i in range(first, end):
            if group[i] >= 0 and not np.isnan(x[i]):
                count[group[i]] += 1.0
                mean[group[i]] += x[i]
        mean /= count
        for i in range(first, end):
            if group[i] >= 0 and not np.isnan(x[i]):
                squares[group[i]] += (x[i] - mean[group[i]]) ** 2
                size[group[i]] += x[i] * x[i]
        for i in range(start, end):
            g = group[i]
            if g >= 0 and count[g] > 1.0:
                out[0, i] = x[i] - mean[g]
                if squares[g] > _FLAT * size[g]:
                    out[1, i] = out[0, i] / np.sqrt(squares[g] / (count[g] - 1.0))
    return out


@njit("float64[:,::1](float64[::1], int64[:,::1])", **_OPTIONS)
def _ranks(x: np.ndarray, views: np.ndarray) -> np.ndarray:
    out = np.full((2, x.size), np.nan)
    for v in range(len(views)):
        first, start, end = views[v, 0], views[v, 1], views[v, 2]
        there = first + np.flatnonzero(~np.isnan(x[first:end]))
        if there.size < 2:
            continue
        there = there[np.argsort(x[there])]
        i = 0
        while i < there.size:
            j = i
            while j + 1 < there.size and x[there[j + 1]] == x[there[i]]:
                j += 1
            for k in range(i, j + 1):
                if there[k] >= start:
                    out[0, there[k]] = 0.5 * (i + j)
                    out[1, there[k]] = there.size
            i = j + 1
    return out


@njit("float64[::1](float64[::1], float64, int64[:,::1])", **_OPTIONS)
def _clipped_score(x: np.ndarray, deviations: float, views: np.ndarray) -> np.ndarray:
    """Standard scores after clipping at the median +- so many 1.4826 MADs; unclipped where over half are equal (no MAD)."""
    out = np.full(x.size, np.nan)
    for v in range(len(views)):
        first, start, end = views[v, 0], views[v, 1], views[v, 2]
        values = x[first:end]
        values = values[~np.isnan(values)]
        if values.size < 2:
            continue
        centre = np.median(values)
        reach = deviations * _MAD_TO_SIGMA * np.median(np.abs(values - centre))
        low, high = (centre - reach, centre + reach) if reach > 0.0 else (-np.inf, np.inf)
        total, squares, size = 0.0, 0.0, 0.0
        for value in values:
            total += min(max(value, low), high)
        mean = total / values.size
        for value in values:
            clipped = min(max(value, low), high)
            squares += (clipped - mean) ** 2
            size += clipped * clipped
        if squares > _FLAT * size:
            for i in range(start, end):
                if not np.isnan(x[i]):
                    out[i] = (min(max(x[i], low), high) - mean) / np.sqrt(squares / (values.size - 1))
    return out


# --- the catalogue's rows: what is compared, which is defined from its own look-back on -----------------------------------


def _family(name: str, formula: Callable[..., np.ndarray], unit: Unit, text: str, *rows: Row, more: tuple[str, ...] = ()) -> Family:
    return Family(name, formula, ("{feature}",), 0, unit, "cross_section", text, ("feature", *more), rows)


CROSS_SECTION = FeatureSet(
    "cross_section",
    (
        _family(
            "{feature}_excess", _excess, "ratio", "{feature} less its mean over the symbols of the moment",
            ("ret_1",), ("ret_5",), ("ret_21",),
        ),
        _family(
            "{feature}_rank", _rank, "rank", "rank of {feature} among the symbols of the moment, -0.5 to 0.5",
            ("ret_1_scaled",), ("ret_5_scaled",), ("ret_21",), ("volume_z_21",), ("ret_63_scaled",), ("momentum_252_21",), ("max_ret_21",),
            ("drawdown_252",), ("vol_21",), ("rsi_14",), ("volume_ratio_5_63",),
        ),
        _family(
            "{feature}_zscore", _zscore, "score", "{feature} in standard deviations from its mean over the symbols of the moment",
            ("ret_1_scaled",), ("ret_21",), ("momentum_252_21",), ("vol_21",), ("volume_z_21",),
        ),
        _family(
            "{feature}_winsorised_{deviations}", _winsorised, "score",
            "{feature}_zscore, after clipping at the moment's median +- {deviations} x 1.4826 median absolute deviations",
            ("ret_1", 3.0), ("ret_21", 3.0), ("momentum_252_21", 3.0), ("vol_21", 3.0), more=("deviations",),
        ),
        _family(
            "{feature}_bucket_{buckets}", _bucket, "rank",
            "which of {buckets} equal parts of the symbols {feature} puts it in, 0 the lowest",
            ("ret_21", 5), ("momentum_252_21", 5), ("vol_21", 5), more=("buckets",),
        ),
        _family(
            "{feature}_sector_excess", _sector_excess, "ratio", "{feature} less its mean over the sector's symbols of the moment",
            ("ret_1",), ("ret_5",), ("ret_21",), ("momentum_252_21",),
        ),
        _family(
            "{feature}_sector_zscore", _sector_zscore, "score", "{feature} in standard deviations from its mean over the sector's symbols",
            ("ret_21",), ("momentum_252_21",), ("vol_21",),
        ),
    ),
    apply,
    reads=("features",),
    across=True,
)  # fmt: skip
