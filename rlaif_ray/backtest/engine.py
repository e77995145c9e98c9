"""The walk of one policy through a run of bars, by the same kernel that the environment uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from rlaif_ray.core import Abstention, Cube, Decision, Episode, Forecast, MarketView, Opinion, Policy
from rlaif_ray.errors import DataError, ExecutionError, did_you_mean
from rlaif_ray.execution.caps import apply_cap
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import WEIGHT_TOLERANCE, Accounts, Fill, Market, StepResult, step, walk

ForecastsAt = Callable[[int], Mapping[str, Forecast]]
OpinionsAt = Callable[[int], Sequence[Opinion | Abstention]]


def run(
    policy: Policy, cube: Cube, rows: slice, *, costs: CostModel, fill: Fill, max_weight: float, initial_cash_usd: float = 1_000_000.0,
    forecasts_at: ForecastsAt | None = None, opinions_at: OpinionsAt | None = None,
) -> tuple[Episode, Sequence[Decision]]:  # fmt: skip
    """Start in cash, decide at the close of each row of `rows`, fill on the bar after it.

    A policy that offers `weights(cube, rows) -> (T,A)` is asked once, in bulk; any other sees a `MarketView` with its
    own portfolio at every row. A law holds both to the same result.

    Parameters
    ----------
    rows : decision rows; the last at most T-2, for its fill needs one more bar.
    max_weight : cap on one name, applied to what every policy decides; below 1/A it becomes 1/A.
    forecasts_at, opinions_at : what was said by the decision moment of an absolute row.

    Returns
    -------
    The episode, whose bar k ends at row rows[k] + 1, and the decisions as they were sent to the market, after the cap.

    Raises `DataError` for rows outside the cube and `ExecutionError` for a decision that is no set of weights.
    """
    t, assets = len(cube.times), len(cube.symbols)
    if not 0 <= rows.start < rows.stop <= t - 1:
        raise DataError(f"decision rows {rows.start} to {rows.stop - 1}; expected 0 to {t - 2}: a fill needs the next bar of the cube")
    market, accounts = Market.of(cube, fill), Accounts.of_cash(1, assets, initial_cash_usd)
    bulk = getattr(policy, "weights", None)
    if bulk is not None:
        targets = apply_cap(_valid(policy.name, cube.symbols, cube.known_at[rows], bulk(cube, rows)), max_weight)
        decisions = _InBulk(policy, cube, rows, targets)
        result = walk(market, accounts, rows, targets, costs)
    else:
        decisions, results = [], []
        for row in range(rows.start, rows.stop):
            said = (forecasts_at(row) if forecasts_at else None, opinions_at(row) if opinions_at else ())
            view = MarketView(cube, row, market.portfolio(accounts, 0, row), *said)
            decision, targets = _decided(policy, view, max_weight)
            decisions.append(decision)
            results.append(step(market, accounts, np.array([row]), targets[None], costs))
        result = StepResult(*(np.concatenate([getattr(r, f) for r in results]) for f in ("gross", "cost", "turnover", "weights")))
    times = cube.times[rows.start + 1 : rows.stop + 1]
    return Episode(times, cube.symbols, result.weights, result.gross, result.cost, result.turnover, policy.name), decisions


def decide(policy: Policy, view: MarketView, *, max_weight: float) -> Decision:
    """What the policy decides on a view, checked and capped: the decision that a backtest trades and a server answers."""
    return _decided(policy, view, max_weight)[0]


def as_weights(decision: Decision, symbols: Sequence[str]) -> np.ndarray:
    """(A,) float64 in the order of `symbols`; a symbol that the decision leaves out has none.

    Raises `ExecutionError` for an unknown symbol and for weights that are not numbers >= 0 adding up to at most 1.
    """
    unknown = sorted(set(decision.weights).difference(symbols))
    if unknown:
        hint = did_you_mean(unknown[0], symbols)
        raise ExecutionError(f"{decision.model} gave a weight to {unknown[0]!r} at {decision.as_of}; expected symbols of the market.{hint}")
    weights = [decision.weights.get(s, 0.0) for s in symbols]
    if all(w >= 0 for w in weights) and sum(weights) <= 1:  # plainly good, which NumPy takes ten times as long to say of a few
        return np.array(weights, np.float64)
    return _valid(decision.model, symbols, [decision.as_of], np.array([weights], np.float64))[0]


def concatenate(episodes: Sequence[Episode]) -> Episode:
    """Episodes of one policy over adjoining folds, as one: equity runs on, and each fold starts from cash again.

    Raises `DataError` where policy or symbols differ or the times do not rise.
    """
    if not episodes:
        raise DataError("no episodes to join; expected at least one")
    first = episodes[0]
    for other in episodes[1:]:
        if (other.policy, other.symbols) != (first.policy, first.symbols):
            seen = f"{other.policy} over {len(other.symbols)} symbols"
            raise DataError(f"an episode of {seen} cannot follow {first.policy} over {len(first.symbols)}; expected the same")
    parts = {f: np.concatenate([getattr(e, f) for e in episodes]) for f in ("times", "weights", "gross_returns", "costs", "turnover")}
    if not (np.diff(parts["times"]) > np.timedelta64(0)).all():
        raise DataError(f"the episodes of {first.policy} overlap or are not in time order")
    return Episode(symbols=first.symbols, policy=first.policy, **parts)


def _decided(policy: Policy, view: MarketView, max_weight: float) -> tuple[Decision, np.ndarray]:
    """The decision and its weights (A,), both after the cap."""
    decision = policy.decide(view)
    if decision.as_of != view.as_of:
        raise ExecutionError(f"{policy.name} decided as of {decision.as_of}; expected the view's own moment {view.as_of}")
    weights = as_weights(decision, view.symbols)
    capped = apply_cap(weights, max_weight)
    if capped is weights:
        return decision, weights
    return replace(decision, weights=dict(zip(view.symbols, capped.tolist(), strict=True))), capped


def _valid(name: str, symbols: Sequence[str], moments: Sequence[np.datetime64] | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (T,A) as float64, or an `ExecutionError` that says who broke which rule and when."""
    weights = np.asarray(weights, np.float64)
    expected = (len(moments), len(symbols))
    if weights.shape != expected:
        raise ExecutionError(f"{name} gave weights of shape {weights.shape}; expected (T,A) = {expected}")
    bad = np.flatnonzero(~(weights >= 0).all(axis=1) | (weights.sum(axis=1) > 1 + WEIGHT_TOLERANCE))
    if len(bad):
        row = weights[bad[0]]
        wrong = np.flatnonzero(~(row >= 0))
        seen = f"{symbols[wrong[0]]}: {row[wrong[0]]:.6g}" if len(wrong) else f"{row.sum():.10g} in all"
        raise ExecutionError(f"{name} decided weights of {seen} at {moments[bad[0]]}; expected numbers >= 0 that add up to at most 1")
    return weights


class _InBulk(Sequence[Decision]):
    """Weights decided in bulk, said one by one as they are asked for; their reason is the policy's own, for no view was looked at."""

    def __init__(self, policy: Policy, cube: Cube, rows: slice, weights: np.ndarray) -> None:
        self._model, self._reason = policy.name, getattr(policy, "reason", policy.name)
        self._moments, self._symbols, self._weights = cube.known_at[rows], cube.symbols, weights.copy()  # which may be the policy's own

    def __len__(self) -> int:
        return len(self._weights)

    @overload
    def __getitem__(self, k: int) -> Decision: ...
    @overload
    def __getitem__(self, k: slice) -> list[Decision]: ...
    def __getitem__(self, k: int | slice) -> Decision | list[Decision]:
        if isinstance(k, slice):
            return [self[i] for i in range(len(self))[k]]
        weights = dict(zip(self._symbols, self._weights[k].tolist(), strict=True))
        return Decision(self._moments[k], weights, self._reason, self._model)
