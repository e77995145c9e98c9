"""Bull, bear or sideways by a hidden Markov model: fitted on training rows, then filtered bar by bar, never smoothed.

A smoothed probability, or the path of Viterbi, says of bar t what the bars after it made clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from hmmlearn.hmm import GaussianHMM
from numba import njit

from rlaif_ray.core import Panel
from rlaif_ray.errors import ConfigError, ModelError
from rlaif_ray.features import rolling
from rlaif_ray.features.fitted import State, by_symbol, training
from rlaif_ray.features.series import Series

LABELS = {2: ("bear", "bull"), 3: ("bear", "sideways", "bull")}
_PSEUDO_COUNT = 0.1  # of every transition: none is impossible, and a state of one row, the last, still has a way out
Observed = Literal["range", "volatility"]


@dataclass(frozen=True, eq=False)
class HiddenMarkovState(State):
    """Parameters of each symbol's model, states by rising mean return; NaN for a symbol that could not be fitted."""

    start: np.ndarray  # (A,K): the stationary law of the transitions, for where a history begins says nothing
    transition: np.ndarray  # (A,K,K): from, to
    means: np.ndarray  # (A,K,2): of log return and log range (or volatility)
    covariances: np.ndarray  # (A,K,2,2)
    observed: str


@dataclass(frozen=True)
class HiddenMarkov:
    """P(bear), P(sideways), P(bull) given all bars so far, and the likeliest of them as -1, 0, 1 (two states: -1, 1).

    Gaussian observations with full covariances: the log return of each bar with its log range, which is nearly normal
    (Alizadeh, Brandt and Diebold 2002), or with the log of 21-bar volatility where a source has closes only. Fitted by EM
    (hmmlearn), symbol by symbol, on standardised observations; bars without one (halts) are left out of the fit, and in the
    filter let the state drift by its transitions. The likeliest of `restarts` fits is taken. Filter: Hamilton (1989).

    Parameters
    ----------
    states : 2 or 3.
    observed : beside the return: `range`, or `volatility` (of closes).
    restarts : EM from as many starting points, drawn from `seed`.
    iterations, tolerance : EM ends when it gains less than `tolerance` in log likelihood, and has failed after `iterations`.
    least_rows : a symbol with fewer observations, or one that hardly moves, is undefined.
    """

    states: int = 3
    observed: Observed = "range"
    restarts: int = 5
    iterations: int = 1000
    tolerance: float = 0.01
    least_rows: int = 252
    seed: int = 0

    def __post_init__(self) -> None:
        if self.states not in LABELS:
            raise ConfigError(f"a hidden Markov regime has {self.states} states; expected one of {list(LABELS)}")

    @property
    def names(self) -> tuple[str, ...]:
        return (*(f"hmm_{label}" for label in LABELS[self.states]), "hmm_state")

    def fit(self, panel: Panel, fit_end: np.datetime64 | None = None) -> HiddenMarkovState:
        """From bars known at `fit_end`. Raises `ModelError` for a symbol on which no start converges."""
        series, end = training(panel, fit_end)
        found = [self._fit(symbol, s) for symbol, s in series.items()]
        start, transition, means, covariances = (np.stack(parts) for parts in zip(*found, strict=True))
        return HiddenMarkovState(end, tuple(series), start, transition, means, covariances, self.observed)

    def apply(self, panel: Panel, state: HiddenMarkovState) -> Panel:
        """Filtered from the symbol's first bar in `panel` on. Raises `ModelError` for a state of another number of states."""
        if state.start.shape[1] != self.states:
            raise ModelError(f"the fitted model has {state.start.shape[1]} states; expected {self.states}: fit it again")
        values = np.linspace(-1.0, 1.0, self.states)

        def columns(symbol: str, series: Series) -> list[np.ndarray] | None:
            if symbol not in state.symbols or np.isnan(state.start[state.symbols.index(symbol)]).any():
                return None
            a = state.symbols.index(symbol)
            x = observations(series, state.observed)
            p = filtered(x, state.start[a], state.transition[a], state.means[a], state.covariances[a])
            return [*p.T, np.where(np.isnan(p[:, 0]), np.nan, values[p.argmax(axis=1)])]

        return by_symbol(panel, self.names, columns)

    def _fit(self, symbol: str, series: Series) -> tuple[np.ndarray, ...]:
        """Start (K,), transition (K,K), means (K,2), covariances (K,2,2)."""
        k = self.states
        x = observations(series, self.observed)
        x = x[~np.isnan(x).any(axis=1)]
        if len(x) < self.least_rows or len(np.unique(x, axis=0)) < self.least_rows // 2:
            return tuple(np.full(shape, np.nan) for shape in ((k,), (k, k), (k, 2), (k, 2, 2)))
        centre, scale = x.mean(axis=0), x.std(axis=0)  # hmmlearn's priors are made for numbers of the order of 1
        tried = [self._em((x - centre) / scale, int(seed)) for seed in np.random.SeedSequence(self.seed).generate_state(self.restarts)]
        converged = [(likelihood, model) for likelihood, model in tried if model is not None]
        if not converged:
            what = f"{symbol}: none of {self.restarts} hidden Markov fits of {k} states converged within {self.iterations} iterations"
            raise ModelError(f"{what}; expected a gain below {self.tolerance}: raise iterations or tolerance, or take fewer states")
        model = max(converged, key=lambda pair: pair[0])[1]
        order = np.argsort(model.means_[:, 0], kind="stable")
        transition = model.transmat_[np.ix_(order, order)]
        spread = np.asarray(model.covars_)[order] * np.outer(scale, scale)
        return stationary(transition), transition, centre + scale * model.means_[order], spread

    def _em(self, x: np.ndarray, seed: int) -> tuple[float, GaussianHMM | None]:
        options = {"n_iter": self.iterations, "tol": self.tolerance, "transmat_prior": 1.0 + _PSEUDO_COUNT}
        model = GaussianHMM(self.states, "full", random_state=seed, **options).fit(x)
        history = list(model.monitor_.history)
        done = len(history) > 1 and history[-1] - history[-2] < self.tolerance  # its own flag is set at the last iteration, too
        return history[-1], model if done else None


def observations(series: Series, observed: str) -> np.ndarray:
    """(T,2): log return, and the log of the log range, or of 21-bar volatility; a row with something undefined is all NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.log(np.log(series.high / series.low) if observed == "range" else rolling.deviation(series.log_return, 21))
    x = np.column_stack([series.log_return, size])
    x[~np.isfinite(x).all(axis=1)] = np.nan
    return x


def stationary(transition: np.ndarray) -> np.ndarray:
    """(K,) the law that `transition` (K,K) leaves as it is."""
    k = len(transition)
    equations = np.vstack([transition.T - np.eye(k), np.ones(k)])
    law = np.maximum(np.linalg.lstsq(equations, np.r_[np.zeros(k), 1.0], rcond=None)[0], 0.0)
    return law / law.sum()


def filtered(x: np.ndarray, start: np.ndarray, transition: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(T,K) P(state at t | x up to t) of a Gaussian hidden Markov model: the forward recursion, rescaled at every step.

    A row of x (T,F) with a NaN is no observation: what was known before drifts by the transitions. NaN before the first.
    Source: Hamilton (1989); Rabiner (1989), equations 19 to 21.
    """
    whitening = np.linalg.inv(np.linalg.cholesky(covariances))
    log_norm = np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1) - 0.5 * x.shape[1] * np.log(2.0 * np.pi)
    parts = (x, start, transition, means, whitening, log_norm)
    return _forward(*(np.ascontiguousarray(part, np.float64) for part in parts))


@njit(
    "float64[:,::1](float64[:,::1], float64[::1], float64[:,::1], float64[:,::1], float64[:,:,::1], float64[::1])",
    cache=True, error_model="numpy", nogil=True,
)  # fmt: skip
def _forward(
    x: np.ndarray, start: np.ndarray, transition: np.ndarray, means: np.ndarray, whitening: np.ndarray, log_norm: np.ndarray
) -> np.ndarray:  # fmt: skip
    rows, width = x.shape
    k = start.size
    out = np.full((rows, k), np.nan)
    known, predicted = np.empty(k), np.empty(k)
    begun = False
    for t in range(rows):
        missing = False
        for f in range(width):
            missing = missing or np.isnan(x[t, f])
        if missing and not begun:
            continue
        for j in range(k):
            predicted[j] = np.log(start[j])
            if begun:
                total = 0.0
                for i in range(k):
                    total += known[i] * transition[i, j]
                predicted[j] = np.log(total)
            out[t, j] = predicted[j]
            if not missing:
                distance = 0.0
                for f in range(width):
                    d = 0.0
                    for g in range(f + 1):
                        d += whitening[j, f, g] * (x[t, g] - means[j, g])
                    distance += d * d
                out[t, j] += log_norm[j] - 0.5 * distance
        if out[t].max() == -np.inf:  # what no state allows says nothing
            out[t] = predicted
        top = out[t].max()
        known[:] = np.exp(out[t] - top)
        known /= known.sum()
        out[t] = known
        begun = True
    return out
