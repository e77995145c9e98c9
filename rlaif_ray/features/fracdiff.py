"""Fractional differences of log prices: as much memory kept as stationarity allows (Lopez de Prado 2018, chapter 5).

The window has a fixed width, so that every value weighs the same number of bars. Prices are relative to the symbol's first bar: the
weights of a window do not sum to 0, and the unit of the price would stay in what they make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numba import njit
from statsmodels.tsa.stattools import adfuller

from rlaif_ray.core import Panel
from rlaif_ray.errors import ConfigError
from rlaif_ray.features.family import Family, FeatureSet
from rlaif_ray.features.fitted import State, by_symbol, training
from rlaif_ray.features.series import Series, of_bars

_BLOCK = 1024  # rows whose sums stay in the nearest cache


def weights(order: float, threshold: float) -> np.ndarray:
    """(L,) w_0 = 1, w_k = -w_(k-1) (order - k + 1) / k, of the bar itself, the one before, ...; as long as |w| is not below `threshold`.

    Lopez de Prado (2018), sections 5.4.2 and 5.5. Raises `ConfigError` for an order that is negative or above 2, and for a threshold
    that is not within (0, 1).
    """
    if not (0.0 <= order <= 2.0 and 0.0 < threshold < 1.0):
        raise ConfigError(f"fracdiff has order {order} and threshold {threshold}; expected 0 <= order <= 2 and 0 < threshold < 1")
    return _weights(float(order), float(threshold))


@njit("float64[::1](float64, float64)", cache=True, error_model="numpy", nogil=True)
def _weights(order: float, threshold: float) -> np.ndarray:
    w = np.ones(64)
    for k in range(1, 1_000_000_000):
        following = -w[k - 1] * (order - k + 1) / k
        if abs(following) < threshold:
            return w[:k].copy()
        if k == w.size:
            w = np.concatenate((w, np.empty(k)))
        w[k] = following
    return w


@njit("float64[::1](float64[::1], float64[::1])", cache=True, error_model="numpy", nogil=True)
def fixed_width(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(T,) sum over k of w[k] x[t - k], k = 0, 1, ...: NaN until the window is full, and with a NaN in it.

    The bits of a row depend on its own window alone.
    """
    out = np.full(x.size, np.nan)
    for first in range(w.size - 1, x.size, _BLOCK):  # many rows at a time, four weights at a time: each row still adds up in order
        rows = min(_BLOCK, x.size - first)
        total = out[first : first + rows]
        total[:] = 0.0
        k = 0
        while k + 4 <= w.size:
            a, b, c, d = w[k], w[k + 1], w[k + 2], w[k + 3]
            past = x[first - k - 3 : first - k + rows]
            for i in range(rows):
                total[i] = (((total[i] + a * past[i + 3]) + b * past[i + 2]) + c * past[i + 1]) + d * past[i]
            k += 4
        for j in range(k, w.size):
            last, past = w[j], x[first - j : first - j + rows]
            for i in range(rows):
                total[i] += last * past[i]
    return out


def fractional(s: Series, order: float, threshold: float) -> np.ndarray:
    """(T,) fractional difference of log(close / first close)."""
    return fixed_width(s.log_close - s.log_close[:1], weights(order, threshold))


FRACDIFF = FeatureSet(
    "fracdiff",
    (
        Family(
            "fracdiff_{order}", fractional, ("close",), lambda order, threshold: len(weights(order, threshold)) - 1, "ratio", "level",
            "fractional difference of order {order:g} of the log price since the first bar, weights from {threshold:g} up",
            ("order", "threshold"), ((0.3, 1e-4), (0.4, 1e-4), (0.5, 1e-4), (0.6, 1e-4), (0.8, 1e-4)),
            "Lopez de Prado (2018), section 5.5",
        ),
    ),
    of_bars,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class OrderState(State):
    """The order of each symbol, NaN where none will do, and the p-value of its test."""

    order: np.ndarray  # (A,)
    p_value: np.ndarray  # (A,)
    threshold: float


@dataclass(frozen=True)
class MinimalOrder:
    """`fracdiff_minimal`: the fractional difference of the least order that makes the training rows stationary.

    Orders 0, `step`, 2 `step`, ... 1 are tried in turn; the first is taken whose augmented Dickey-Fuller test (constant, one lag,
    as in the book's snippet 5.4) rejects a unit root at `level`. Later rows are differenced by it whatever they would say.

    Parameters
    ----------
    threshold : least weight of the window.
    least_rows : an order whose window leaves fewer training rows is not tried.
    """

    level: float = 0.05
    step: float = 0.05
    threshold: float = 1e-4
    least_rows: int = 100

    @property
    def names(self) -> tuple[str, ...]:
        return ("fracdiff_minimal",)

    def fit(self, panel: Panel, fit_end: np.datetime64 | None = None) -> OrderState:
        """From bars known at `fit_end`."""
        series, end = training(panel, fit_end)
        found = np.array([self._order(s) for s in series.values()]).reshape(-1, 2)
        return OrderState(end, tuple(series), found[:, 0].copy(), found[:, 1].copy(), self.threshold)

    def apply(self, panel: Panel, state: OrderState) -> Panel:
        """`panel` begins where the one that was fitted on did: prices are relative to its first bar."""
        orders = dict(zip(state.symbols, state.order.tolist(), strict=True))

        def columns(symbol: str, series: Series) -> list[np.ndarray] | None:
            order = orders.get(symbol, np.nan)
            return None if np.isnan(order) else [fractional(series, order, state.threshold)]

        return by_symbol(panel, self.names, columns)

    def _order(self, series: Series) -> tuple[float, float]:
        """(order, p-value)."""
        for number in range(round(1.0 / self.step) + 1):
            order = min(number * self.step, 1.0)
            x = fractional(series, order, self.threshold) if len(series.close) else np.empty(0)
            x = x[~np.isnan(x)]
            if len(x) < self.least_rows or np.ptp(x) == 0.0:  # a price that never moves has no order
                continue
            test: Any = adfuller(x, maxlag=1, regression="c", autolag=cast(Any, None), result_object=True)
            if test.pvalue < self.level:
                return order, float(test.pvalue)
        return np.nan, np.nan
