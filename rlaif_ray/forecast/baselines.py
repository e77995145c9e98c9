"""Three forecasters that anyone can work out by hand; what cannot beat them has learnt nothing.

All read total returns (dividends and splits included) up to the decision row. Returns are modelled as log returns with
Student-t(5) innovations, as in Zumbach, "The RiskMetrics 2006 methodology" (2007), so no quantile falls below -100%.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.signal import lfilter
from scipy.stats import t as student_t

from rlaif_ray.core import Cube, ForecastTable, Target, content_hash
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import DataError, NotFittedError
from rlaif_ray.labels import MIN_VARIANCE, closed_inside, forward_log_volatility, log_returns

DECAY = 0.94  # RiskMetrics technical document (1996), table 5.8, daily data
WARMUP_BARS = 20  # returns that a symbol must have shown before its volatility is believed
DRIFT_BARS = 252  # returns that the mean is taken over; expanding until there are so many
TAIL_DEGREES = 5.0
MANIFEST = "forecaster.json"


def ewma_volatility(log_returns_TA: np.ndarray, decay: float = DECAY, warmup_bars: int = WARMUP_BARS) -> np.ndarray:
    """(T,A) per-bar volatility known at the close of row t: root of the exponentially weighted mean of squared returns.

    Weights are normalised, so a young series is not biased to zero, and a bar without a return leaves the mean as it was.
    NaN until a symbol has shown `warmup_bars` returns, and where it has none at t. RiskMetrics (1996), eq. 5.1.
    """
    seen = np.isfinite(log_returns_TA)
    squares = np.where(seen, log_returns_TA, 0.0) ** 2
    total = lfilter([1.0 - decay], [1.0, -decay], squares, axis=0)
    weight = lfilter([1.0 - decay], [1.0, -decay], seen.astype(np.float64), axis=0)
    known = seen & (np.cumsum(seen, axis=0) >= warmup_bars)
    variance = np.divide(total, weight, out=np.full(squares.shape, np.nan), where=known)
    return np.sqrt(np.maximum(variance, MIN_VARIANCE))


def mean_log_return(log_returns_TA: np.ndarray, bars: int = DRIFT_BARS, warmup_bars: int = WARMUP_BARS) -> np.ndarray:
    """(T,A) mean of the last `bars` log returns known at row t (fewer at the start); NaN before `warmup_bars` of them."""
    seen = np.isfinite(log_returns_TA)
    total, count = np.cumsum(np.where(seen, log_returns_TA, 0.0), axis=0), np.cumsum(seen, axis=0)
    total[bars:], count[bars:] = total[bars:] - total[:-bars], count[bars:] - count[:-bars]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=seen & (count >= warmup_bars))


def standard_quantiles(levels: Sequence[float]) -> np.ndarray:
    """(Q,) quantiles of a Student-t with 5 degrees of freedom, scaled to unit variance; exactly 0 at the median."""
    quantiles = student_t.ppf(np.asarray(levels), TAIL_DEGREES) * np.sqrt((TAIL_DEGREES - 2.0) / TAIL_DEGREES)
    return np.where(np.asarray(levels) == 0.5, 0.0, quantiles)


class _Baseline:
    """What the three share: nothing to learn unless `fit` says so, and a state that is JSON."""

    name: ClassVar[str]
    target: Target = "return"

    def __init__(self, *, horizons: Sequence[int], levels: Sequence[float]) -> None:
        self.horizons, self.levels = tuple(horizons), tuple(levels)

    def fit(self, cube: Cube, rows: slice) -> None:
        """Nothing to learn: what the forecast needs is known at its own row."""

    def save(self, directory: Path) -> None:
        """Write the state as JSON."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST).write_text(json.dumps({"name": self.name, **self.state}, indent=1))

    @property
    def state(self) -> dict[str, Any]:
        """Keywords that build this forecaster again, learnt ones included."""
        return {"horizons": list(self.horizons), "levels": list(self.levels)}

    @property
    def parameter_hash(self) -> str:
        return content_hash(self.state)

    def _table(self, cube: Cube, rows: Sequence[int], values: np.ndarray) -> ForecastTable:
        return ForecastTable(
            cube.known_at[np.asarray(rows)], self.target, cube.symbols, self.horizons, self.levels, values.astype(np.float32), self.name
        )


class Naive(_Baseline):
    """The price stays: median 0, spread sqrt(h) times the EWMA volatility known at the row."""

    name = "naive"

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        """Quantiles of the cumulative simple return; (T,A,H,Q), NaN where a symbol is too young or has no bar."""
        logs = log_returns(total_returns(cube))
        picked = np.asarray(rows)
        steps = np.asarray(self.horizons, np.float64)[:, None]
        spread = ewma_volatility(logs)[picked][:, :, None, None] * (np.sqrt(steps) * standard_quantiles(self.levels))
        return self._table(cube, rows, np.expm1(self._centre(logs)[picked][:, :, None, None] * steps + spread))

    def _centre(self, log_returns_TA: np.ndarray) -> np.ndarray:
        return np.zeros(log_returns_TA.shape)


class Drift(Naive):
    """The past year's mean log return goes on; spread as in `Naive`."""

    name = "drift"

    def _centre(self, log_returns_TA: np.ndarray) -> np.ndarray:
        return mean_log_return(log_returns_TA)


class EWMAVolatility(_Baseline):
    """RiskMetrics volatility, with quantiles from its own past errors: log volatility to come minus log EWMA volatility.

    The errors are those whose label closed inside the rows of `fit`, all symbols together, one distribution a horizon.
    """

    name = "ewma_volatility"
    target: Target = "log_volatility"

    def __init__(
        self, *, horizons: Sequence[int], levels: Sequence[float], error_quantiles: Sequence[Sequence[float]] | None = None
    ) -> None:
        super().__init__(horizons=horizons, levels=levels)
        self._errors_HQ = None if error_quantiles is None else np.asarray(error_quantiles, np.float64)

    @property
    def state(self) -> dict[str, Any]:
        return {**super().state, "error_quantiles": None if self._errors_HQ is None else self._errors_HQ.tolist()}

    def fit(self, cube: Cube, rows: slice) -> None:
        """Quantiles of the errors made inside `rows`. Raises `DataError` where no label closes there."""
        returns = total_returns(cube)
        labels = forward_log_volatility(returns, self.horizons)
        centre = np.log(ewma_volatility(log_returns(returns)))
        errors = []
        for j, h in enumerate(self.horizons):
            error = (labels[:, :, j] - centre)[closed_inside(len(labels), h, rows)]
            error = error[np.isfinite(error)]
            if not error.size:
                raise DataError(
                    f"no {h}-bar volatility closes on rows {rows.start} to {rows.stop - 1} of {len(labels)}; expected at least one after "
                    f"{WARMUP_BARS} returns: bring more bars or lower --forecast.horizons"
                )
            errors.append(np.quantile(error, self.levels))
        self._errors_HQ = np.array(errors)

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        """Quantiles of half the log of the mean per-bar variance over the next h bars; (T,A,H,Q)."""
        if self._errors_HQ is None:
            raise NotFittedError("ewma_volatility has seen no errors yet; call fit before predict")
        centre = np.log(ewma_volatility(log_returns(total_returns(cube))))
        return self._table(cube, rows, centre[np.asarray(rows)][:, :, None, None] + self._errors_HQ)
