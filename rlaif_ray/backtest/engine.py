"""The walk of one policy through a run of bars, by the same kernel that the environment uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from rlaif_ray.backtest.controlled import ControlledAccount, trips_of
from rlaif_ray.backtest.episodes import ARRAYS
from rlaif_ray.core import Abstention, Cube, Decision, Episode, Forecast, MarketView, Opinion, Policy
from rlaif_ray.errors import DataError, ExecutionError, did_you_mean
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.simulator import LONG_ONLY, Market, StepResult
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Controls

ForecastsAt = Callable[[int], Mapping[str, Forecast]]
OpinionsAt = Callable[[int], Sequence[Opinion | Abstention]]


def run(
    policy: Policy, cube: Cube, rows: slice, terms: Terms, *, forecasts_at: ForecastsAt | None = None, opinions_at: OpinionsAt | None = None
) -> tuple[Episode, Sequence[Decision]]:  # fmt: skip
    """Start in cash, decide at the close of each row of `rows`, fill on the bar after it.

    A policy that offers `weights(cube, rows) -> (T,A)` is asked once, in bulk; any other sees a `MarketView` with its
    own portfolio at every row. A law holds both to the same result. The controls have the last word over both.

    Parameters
    ----------
    rows : decision rows; the last at most T-2, for its fill needs one more bar.
    forecasts_at, opinions_at : what was said by the decision moment of an absolute row.

    Returns
    -------
    The episode, whose bar k ends at row rows[k] + 1, and the decisions as they were sent to the market, after the controls.

    A path that is worth nothing has ended: nobody is asked any more, and nothing is traded.

    Raises `DataError` for rows outside the cube and `ExecutionError` for a decision that is no set of weights.
    """
    t = len(cube.times)
    if not 0 <= rows.start < rows.stop <= t - 1:
        raise DataError(f"decision rows {rows.start} to {rows.stop - 1}; expected 0 to {t - 2}: a fill needs the next bar of the cube")
    controls = controls_of(cube, terms, rows.start)
    account = ControlledAccount(Market.of(cube, terms.fill), controls, terms)
    bulk = getattr(policy, "weights", None)
    if bulk is not None:
        asked = _valid(policy.name, cube.symbols, cube.known_at[rows], bulk(cube, rows), terms.account)
        walked = [account.advance(rows.start, asked)]
        decisions: Sequence[Decision] = _InBulk(policy, cube, rows, walked[0].targets)
    else:
        walked, decisions = [], []
        for row in range(rows.start, rows.stop):
            if walked and walked[-1].result.ended[-1]:
                nothing = dict.fromkeys(cube.symbols, 0.0)
                decision, asked = Decision(cube.known_at[row], nothing, "no equity is left", policy.name), np.zeros(len(nothing))
            else:
                said = (forecasts_at(row) if forecasts_at else None, opinions_at(row) if opinions_at else ())
                decision, asked = _decided(policy, MarketView(cube, row, account.portfolio(row), *said), terms.account)
            walked.append(account.advance(row, asked[None]))
            decisions.append(_after(decision, cube.symbols, asked, walked[-1].targets[0]))
    result = StepResult.joined([w.result for w in walked])
    times, trips = cube.times[rows.start + 1 : rows.stop + 1], trips_of(controls, rows, walked)
    return Episode(times, cube.symbols, result.weights, result.gross, result.cost, result.turnover, policy.name, trips), decisions


def controls_of(cube: Cube, terms: Terms, first: int) -> Controls:
    """The controls of an account that begins at row `first`; what they are fitted on lies before it."""
    return Controls.of(cube, terms.limits, terms.sectors, slice(0, first))


def decide(policy: Policy, view: MarketView, controls: Controls, account: AccountRules) -> Decision:
    """What the policy decides on a view, after the controls: the decision that a backtest trades and a server answers.

    The controls know the account by its own past returns, which the view's portfolio carries.
    """
    decision, asked = _decided(policy, view, account)
    past = view.portfolio.returns
    state = controls.replay(slice(view.t + 1 - len(past), view.t + 1), past)
    admitted, _ = controls.admit(state, np.array([view.t]), view.portfolio.weights[None], asked[None])
    return _after(decision, view.symbols, asked, admitted[0])


def as_weights(decision: Decision, symbols: Sequence[str], account: AccountRules = LONG_ONLY) -> np.ndarray:
    """(A,) float64 in the order of `symbols`; a symbol that the decision leaves out has none.

    Raises `ExecutionError` for an unknown symbol and for weights that the account may not hold.
    """
    unknown = sorted(set(decision.weights).difference(symbols))
    if unknown:
        hint = did_you_mean(unknown[0], symbols)
        raise ExecutionError(f"{decision.model} gave a weight to {unknown[0]!r} at {decision.as_of}; expected symbols of the market.{hint}")
    weights = [decision.weights.get(s, 0.0) for s in symbols]
    if all(w >= 0 for w in weights) and sum(weights) <= 1:  # plainly good, which NumPy takes ten times as long to say of a few
        return np.array(weights, np.float64)
    return _valid(decision.model, symbols, [decision.as_of], np.array([weights], np.float64), account)[0]


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
    parts: dict[str, Any] = {f: np.concatenate([getattr(e, f) for e in episodes]) for f in ARRAYS}
    if not (np.diff(parts["times"]) > np.timedelta64(0)).all():
        raise DataError(f"the episodes of {first.policy} overlap or are not in time order")
    trips = tuple(trip for e in episodes for trip in e.trips)
    return Episode(symbols=first.symbols, policy=first.policy, trips=trips, **parts)


def _decided(policy: Policy, view: MarketView, account: AccountRules) -> tuple[Decision, np.ndarray]:
    """The decision and its weights (A,), before the controls."""
    decision = policy.decide(view)
    if decision.as_of != view.as_of:
        raise ExecutionError(f"{policy.name} decided as of {decision.as_of}; expected the view's own moment {view.as_of}")
    return decision, as_weights(decision, view.symbols, account)


def _after(decision: Decision, symbols: Sequence[str], asked: np.ndarray, admitted: np.ndarray) -> Decision:
    """The decision with what the controls left of it."""
    if np.array_equal(asked, admitted):
        return decision
    return replace(decision, weights=dict(zip(symbols, admitted.tolist(), strict=True)))


def _valid(
    name: str, symbols: Sequence[str], moments: Sequence[np.datetime64] | np.ndarray, weights: np.ndarray, account: AccountRules
) -> np.ndarray:  # fmt: skip
    """Weights (T,A) as float64, or an `ExecutionError` that says who broke which rule and when."""
    weights = np.asarray(weights, np.float64)
    expected = (len(moments), len(symbols))
    if weights.shape != expected:
        raise ExecutionError(f"{name} gave weights of shape {weights.shape}; expected (T,A) = {expected}")
    bad = np.flatnonzero(~account.allows(weights))
    if len(bad):
        row = weights[bad[0]]
        wrong = np.flatnonzero(~np.isfinite(row) if account.long_short else ~(row >= 0))
        seen = f"{symbols[wrong[0]]}: {row[wrong[0]]:.6g}" if len(wrong) else f"{row.sum():.10g} in all"
        raise ExecutionError(f"{name} decided weights of {seen} at {moments[bad[0]]}; expected {account.words}")
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
