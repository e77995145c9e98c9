"""Rule policies: the baselines that every learned policy is measured against, at the same costs and caps.

All but buy-and-hold and the optimiser of a forecast are functions of past prices alone: they offer `weights` in bulk, and
`decide` is its last row on the history that the view can see. Returns are total returns, dividends and splits included.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.stats import norm

from rlaif_ray.core import POLICY_FILE, Cube, Decision, ForecastTable, MarketView, Policy
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import CheckpointError, MissingDataError
from rlaif_ray.execution.simulator import LONG_ONLY
from rlaif_ray.portfolio.allocation import hierarchical_risk_parity, mean_variance, min_variance, shrunk_covariance


class _BulkRule(Protocol):
    name: str
    reason: str

    def weights(self, cube: Cube, rows: slice) -> np.ndarray: ...


class _DecidesInBulk:
    """`decide` as one row of `weights`."""

    def decide(self: _BulkRule, view: MarketView) -> Decision:
        weights = self.weights(view.history(), slice(view.t, view.t + 1))[0]
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), self.reason, self.name)


class BuyAndHold:
    """Equal weight over what is tradable at the first decision, then no trade.

    Dividends stay in cash, later names are not bought, and what a fill was cut by is not asked for again.
    """

    name = "buy_and_hold"

    def decide(self, view: MarketView) -> Decision:
        """A portfolio of cash only is a start; any other is kept as it stands."""
        if view.portfolio.shares.any():
            weights, reason = view.portfolio.weights, "hold what was bought"
        else:
            tradable = view.tradable & np.isfinite(view.portfolio.prices)
            weights, reason = tradable / max(tradable.sum(), 1), "buy every tradable name in equal weight"
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)


class EqualWeight(_DecidesInBulk):
    """The same weight on every listed name, restored at each bar: what an edge is measured over."""

    name = "equal_weight"
    reason = "equal weight on every listed name"

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        return _equal(cube.listed[rows])


class _HeldBetween(_DecidesInBulk):
    """Weights picked on the absolute rows 0, hold, 2*hold, ..., which drift with their prices in between.

    Candidates are the names listed for `lookback` bars; while there are none, equal weight.
    """

    lookback: int
    hold: int

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        listed, growth = cube.listed, np.cumsum(_log_returns(cube), axis=0)
        numbers = np.arange(rows.start, rows.stop)
        picked_at = numbers - numbers % self.hold
        picks = {m: self._picked(listed, growth, m) for m in np.unique(picked_at).tolist()}
        held = np.stack([picks[m] for m in picked_at.tolist()]) * np.exp(growth[numbers] - growth[picked_at]) * listed[numbers]
        return _to_one(held)

    def _picked(self, listed: np.ndarray, growth: np.ndarray, m: int) -> np.ndarray:
        if m >= self.lookback:
            candidates = np.flatnonzero(listed[m] & listed[m - self.lookback])
            picked = np.zeros(listed.shape[1])
            picked[candidates] = self._pick(growth[m - self.lookback : m + 1, candidates])
            if picked.any():
                return picked
        return _equal(listed[m : m + 1])[0]

    def _pick(self, growth: np.ndarray) -> np.ndarray:
        """(C,) weights of the candidates from their cumulative log returns (lookback + 1,C); all 0 for none."""
        raise NotImplementedError


class Momentum(_HeldBetween):
    """The third of the names with the highest past return, the latest month left out; rebalanced monthly.

    Jegadeesh and Titman (1993), "Returns to buying winners and selling losers".

    Parameters
    ----------
    lookback, skip : the return runs from `lookback` bars back to `skip` bars back.
    hold : bars between rebalancings.
    """

    name = "momentum_12_1"
    reason = "the third of the names with the highest return over the past year less its last month"

    def __init__(self, lookback: int = 252, skip: int = 21, hold: int = 21) -> None:
        self.lookback, self.skip, self.hold = lookback, skip, hold

    def _pick(self, growth: np.ndarray) -> np.ndarray:
        return _best_third(growth[-1 - self.skip] - growth[0])


class ShortTermReversal(_HeldBetween):
    """The third of the names with the lowest return over the past `lookback` bars, a week; rebalanced weekly.

    Lehmann (1990), "Fads, martingales, and market efficiency".
    """

    name = "short_term_reversal"
    reason = "the third of the names with the lowest return over the past week"

    def __init__(self, lookback: int = 5, hold: int = 5) -> None:
        self.lookback, self.hold = lookback, hold

    def _pick(self, growth: np.ndarray) -> np.ndarray:
        return _best_third(growth[0] - growth[-1])


class _Optimised(_HeldBetween):
    """Fully invested weights from the returns of the past `lookback` bars; rebalanced monthly. See `portfolio.allocation`.

    A name whose price did not move has no risk to speak of, and is no candidate.

    Parameters
    ----------
    max_weight : cap on one name that the optimum keeps to.
    """

    def __init__(self, lookback: int = 252, hold: int = 21, max_weight: float = 1.0) -> None:
        self.lookback, self.hold, self.max_weight = lookback, hold, max_weight

    def _pick(self, growth: np.ndarray) -> np.ndarray:
        returns = np.expm1(np.diff(growth, axis=0))
        moved = returns.any(axis=0)
        weights = np.zeros(returns.shape[1])
        if moved.any():
            weights[moved] = self._allocate(returns[:, moved])
        return weights

    def _allocate(self, returns: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class MinVariance(_Optimised):
    """The least variance under the shrunk covariance (Ledoit and Wolf 2004)."""

    name = "min_variance"
    reason = "the least variance under the covariance of the past year"

    def _allocate(self, returns: np.ndarray) -> np.ndarray:
        return min_variance(returns, max_weight=self.max_weight)


class HRP(_Optimised):
    """Hierarchical risk parity (Lopez de Prado 2016)."""

    name = "hrp"
    reason = "variance halved down a tree of what moved together over the past year"

    def _allocate(self, returns: np.ndarray) -> np.ndarray:
        return hierarchical_risk_parity(returns, max_weight=self.max_weight)


class InverseVolatility(_DecidesInBulk):
    """Weights in inverse proportion to each name's volatility over the last `window` bars, restored at each bar.

    Names listed for less than `window` bars, or whose price did not move, get nothing; while there are no others, equal weight.
    """

    name = "inverse_volatility"
    reason = "each name in inverse proportion to its volatility over the past quarter"

    def __init__(self, window: int = 63) -> None:
        self.window = window

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        listed, returns = cube.listed, _log_returns(cube)
        numbers = np.arange(rows.start, rows.stop)
        back = np.maximum(numbers[:, None] - np.arange(self.window), 0)  # (T,window), newest first
        mean = sum(returns[back[:, k]] for k in range(self.window)) / self.window
        variance = sum((returns[back[:, k]] - mean) ** 2 for k in range(self.window)) / (self.window - 1)
        known = listed[numbers] & listed[np.maximum(numbers - self.window, 0)] & (numbers >= self.window)[:, None] & (variance > 0)
        inverse = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=known)
        return np.where(known.any(axis=1, keepdims=True), _to_one(inverse), _equal(listed[numbers]))


class ForecastOptimiser:
    """One model's forecast, traded as far as it pays: the baseline that is hard to beat.

    Maximises what the medians promise, less risk around equal weight of the candidates and less what the trades cost, over
    the horizon of the forecast: `portfolio.allocation.mean_variance`. Risk is the shrunk correlation of past returns at
    the volatilities that the forecast's spread tells. A forecast that tells nothing apart is equal weight, hardly traded.

    It decides on the absolute rows 0, horizon, 2*horizon, ..., and whenever it holds nothing, or what it would never ask for:
    shorts, or more than its equity. Else it keeps what it holds.
    Candidates are listed names with a forecast that were listed `lookback` bars ago; while there are none, equal weight.

    Parameters
    ----------
    model : name of a forecaster of returns.
    horizon : bars ahead that are read, and bars between decisions, over which a trade earns its cost.
    cost_per_side : of the traded notional, as the simulator charges it.
    max_weight : cap on one name that it will be traded under.
    risk_aversion : of the utility per bar; the learned policy's reward has the same form.
    """

    def __init__(
        self, model: str, *, horizon: int, cost_per_side: float, max_weight: float = 1.0, lookback: int = 252, risk_aversion: float = 20.0
    ) -> None:  # fmt: skip
        self.name = f"{model}_optimiser"
        self.model, self.horizon, self.lookback = model, horizon, lookback
        self.cost_per_side, self.max_weight, self.risk_aversion = cost_per_side, max_weight, risk_aversion

    def save(self, folder: str | Path) -> None:
        """Nothing is learnt here: its settings are all there is."""
        knobs = {k: v for k, v in vars(self).items() if k != "name"}
        (Path(folder) / POLICY_FILE).write_text(json.dumps({"policy": self.name, "settings": knobs}, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> ForecastOptimiser:
        """The inverse of `save`. Raises `CheckpointError` when the file is missing or does not fit."""
        try:
            return cls(**json.loads((Path(folder) / POLICY_FILE).read_text())["settings"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"no optimiser in {folder}: {error}; expected {POLICY_FILE} with its settings") from error

    def decide(self, view: MarketView) -> Decision:
        """Raises `MissingDataError` where the view has no forecast of the model for its own row."""
        held = view.portfolio.weights
        if view.t % self.horizon and held.any() and LONG_ONLY.allows(held):
            weights, reason = held, f"hold until the next forecast over {self.horizon} bars"
        else:
            weights, reason = self._optimum(view), f"what {self.model} expects over {self.horizon} bars, less risk and trading costs"
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), reason, self.name)

    def _optimum(self, view: MarketView) -> np.ndarray:
        forecast = view.forecasts.get(self.model)
        if forecast is None or forecast.as_of != view.as_of:
            raise MissingDataError(f"{self.name} needs a forecast of {self.model!r} at {view.as_of}; there are {sorted(view.forecasts)}")
        low, median, high = (forecast.at_level(self.horizon, level) for level in (forecast.levels[0], 0.5, forecast.levels[-1]))
        # As wide as a normal distribution of which the outermost levels are these.
        volatility = (high - low) / (2.0 * norm.ppf(forecast.levels[-1]) * np.sqrt(self.horizon))
        past = view.history()
        candidates = past.listed[-1] & past.listed[max(0, view.t - self.lookback)] & (view.t >= self.lookback) & (volatility > 0)
        if not candidates.any():
            return _equal(past.listed[-1:])[0]
        covariance = shrunk_covariance(np.nan_to_num(total_returns(past)[-self.lookback :, candidates]))
        scale = volatility[candidates] / np.sqrt(np.diag(covariance))
        weights = np.zeros(len(candidates))
        weights[candidates] = mean_variance(
            median[candidates] / self.horizon, covariance * np.outer(scale, scale), view.portfolio.weights[candidates],
            risk_aversion=self.risk_aversion, cost_per_side=self.cost_per_side, hold_bars=self.horizon, max_weight=self.max_weight,
            benchmark_A=_equal(candidates[None, candidates])[0],
        )  # fmt: skip
        return weights


class BestVerdicts(_DecidesInBulk):
    """Equal weight on the third of the names of which a desk thinks most, picked when it speaks and left to drift until it speaks again.

    Who is thought as much of as the last of the third is in it too. Where the desk has said nothing of three names or more, equal weight.

    Parameters
    ----------
    as_of : (D,) moments at which it spoke, rising.
    p_up : (D,A) what it said; NaN where it abstained.
    """

    reason = "the third of the names of which the desk thinks most"

    def __init__(self, name: str, as_of: np.ndarray, p_up: np.ndarray) -> None:
        self.name, self._as_of, self._p_up = name, as_of, p_up

    def weights(self, cube: Cube, rows: slice) -> np.ndarray:
        """(T,A) for decision rows."""
        listed, growth = cube.listed, np.cumsum(_log_returns(cube), axis=0)
        numbers = np.arange(rows.start, rows.stop)
        spoken = np.searchsorted(self._as_of, cube.known_at[numbers], side="right") - 1
        spoken_row = np.searchsorted(cube.known_at, self._as_of)
        out = _equal(listed[numbers])
        for d in np.unique(spoken[spoken >= 0]).tolist():
            candidates = np.flatnonzero(listed[spoken_row[d]] & np.isfinite(self._p_up[d]))
            if len(candidates) < 3:
                continue
            picked, held = np.zeros(listed.shape[1]), spoken == d
            said = self._p_up[d, candidates]
            third = -(-len(said) // 3)
            picked[candidates] = said >= np.sort(said)[-third]
            out[held] = _to_one(picked * np.exp(growth[numbers[held]] - growth[spoken_row[d]]) * listed[numbers[held]])
        return out


def forecast_optimiser(cube: Cube, table: ForecastTable, *, cost_per_side: float, max_weight: float) -> ForecastOptimiser:
    """The optimiser of that table's model, over the horizon that is nearest to a week of the cube's bars."""
    horizon = min(table.horizons, key=lambda h: abs(h - cube.bars_per_year / 52))
    year = max(2, round(cube.bars_per_year))
    return ForecastOptimiser(table.model, horizon=horizon, cost_per_side=cost_per_side, max_weight=max_weight, lookback=year)


def baselines(cube: Cube, *, max_weight: float = 1.0) -> list[Policy]:
    """The rules, with their windows of a year, a quarter, a month and a week in the cube's own bars.

    `max_weight` is the cap on one name that they will be traded under: those who optimise know of it.
    """
    year, quarter, month, week = (max(2, round(cube.bars_per_year / k)) for k in (1, 4, 12, 52))
    return [
        BuyAndHold(), EqualWeight(), Momentum(lookback=year, skip=month, hold=month), ShortTermReversal(lookback=week, hold=week),
        InverseVolatility(window=quarter), MinVariance(year, month, max_weight), HRP(year, month, max_weight),
    ]  # fmt: skip


def _log_returns(cube: Cube) -> np.ndarray:
    """(T,A) total log return per bar; 0 where there is none."""
    return np.log1p(np.nan_to_num(total_returns(cube)))


def _equal(chosen: np.ndarray) -> np.ndarray:
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def _best_third(score: np.ndarray) -> np.ndarray:
    """(C,) equal weight on the third with the highest score, rounded up."""
    chosen = np.zeros((1, score.size), bool)
    chosen[0, np.argsort(-score, kind="stable")[: -(-score.size // 3)]] = True
    return _equal(chosen)[0]


def _to_one(positive: np.ndarray) -> np.ndarray:
    """Each row scaled to a sum of 1; a row of zeros stays in cash."""
    total = positive.sum(axis=1, keepdims=True)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
