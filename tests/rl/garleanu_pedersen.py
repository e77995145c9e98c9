"""A market whose best policy is known: Garleanu & Pedersen (2013), "Dynamic trading with predictable returns and transaction
costs", Journal of Finance 68(6), built out of the same kernel.

A independent assets, each with K signals f that are AR(1) of unit variance: f' = (1 - phi) f + noise. The return from a fill to
the next has the standard deviation sigma and the mean sigma * b'f, |b| = ic, so that ic is the correlation of the two
(the information coefficient). Holding x costs gamma/2 sigma^2 x^2 of risk a bar, trading dx costs lambda/2 sigma^2 dx^2.

Timing. Open and close of a row are one price. A decision at the close of row t sees f[t] and is filled at row t+1; what it
holds then earns the return from row t+1 to row t+2, whose mean is sigma * b'f[t]. So the paper's t, when a trade is made,
is the fill of the kernel, and its r_{t+1} is the return after it.

Costs. Linear temporary impact alone, with the planes ADV and SIGMA of the market set to constants (USD, a bar): a trade of
dx of equity costs temporary * sigma * dx^2 * equity / adv of equity, the paper's Lambda = lambda * Sigma. Positions add up to
about 1e-3 of equity and prices move by 1e-3 a bar, so that neither equity nor the drift between decision and fill matters.

Utility is the mean over bars, without discount (rho = 0 in the paper): x'mean - gamma/2 x'Sigma x - cost, in fractions of
equity. `expected` are those means; with `earned`, the returns that came, the same sum is noisy and has the same expectation.

To train on it: `replace(Track.of(gp.cube, gp.fields[rows], rows, fill="next_open", costs=gp.costs, account=gp.account,
cash_usd=CASH_USD), market=gp.market)`, for the cube alone would bring its own volumes and volatilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rlaif_ray.core import Cube
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.kernel import ADV, SIGMA
from rlaif_ray.execution.simulator import Accounts, Market, step
from tests.markets import daily

CASH_USD = 1e6
SIGMA_BAR = 1e-3  # of returns, a bar
GROSS = 1e-3  # mean of the sum of |weights| of the best policy
LAMBDA = 20.0  # of the costs, in units of gamma: of the way to its aim, the best policy goes a fifth a bar

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]  # signals (N,A,K), held weights (N,A) -> target weights (N,A)


@dataclass(frozen=True)
class ClosedForm:
    """The best policy, and what any policy of its shape is worth.

    Parameters
    ----------
    ic : information coefficient, the correlation of the mean of the next return with the return.
    half_lives : (K,) bars until half of a signal is gone. The signals weigh the same in the mean.
    """

    ic: float = 0.1
    half_lives: tuple[float, ...] = (8.0,)
    assets: int = 10

    @cached_property
    def decay(self) -> np.ndarray:
        """(K,) phi."""
        return 1.0 - 0.5 ** (1.0 / np.array(self.half_lives))

    @cached_property
    def loadings(self) -> np.ndarray:
        """(K,) b: mean return of one sigma of a signal, in units of sigma."""
        return np.full(len(self.half_lives), self.ic / np.sqrt(len(self.half_lives)))

    @property
    def rate(self) -> float:
        """The part of the way to its aim that the best policy trades in a bar: the paper's a / lambda where Lambda = lambda Sigma."""
        return (np.sqrt(1.0 + 4.0 * LAMBDA) - 1.0) / (2.0 * LAMBDA)

    @cached_property
    def gamma(self) -> float:
        """Risk aversion at which the best policy's gross exposure is `GROSS` on average."""
        square = self._moments(self.rate, self._aim_at(1.0))[1]
        return float(self.assets * np.sqrt(2.0 / np.pi * square) / GROSS)

    @cached_property
    def aim_loadings(self) -> np.ndarray:
        """(K,) aim = loadings'f: what fades sooner counts for less.

        The paper's (gamma Sigma)^-1 B (1 + Phi a/gamma)^-1 f."""
        return self._aim_at(self.gamma)

    def _aim_at(self, gamma: float) -> np.ndarray:
        return self.loadings / (gamma * SIGMA_BAR) / (1.0 + self.decay * self.rate * LAMBDA)

    def policy(self, rate: float | None = None, aim_loadings: np.ndarray | None = None) -> Policy:
        """Trade `rate` of the way to the aim; the best one unless told otherwise."""
        rate = self.rate if rate is None else rate
        loadings = self.aim_loadings if aim_loadings is None else aim_loadings
        return lambda signals, held: held + rate * (signals @ loadings - held)

    def utility(self, rate: float | None = None, aim_loadings: np.ndarray | None = None) -> float:
        """Expected utility a bar, all assets, of `policy(rate, aim_loadings)` in the long run."""
        rate = self.rate if rate is None else rate
        loadings = self.aim_loadings if aim_loadings is None else aim_loadings
        with_signal, square, with_last = self._moments(rate, loadings)
        mean = SIGMA_BAR * self.loadings @ with_signal
        risk = 0.5 * self.gamma * SIGMA_BAR**2 * (square + LAMBDA * 2.0 * (square - with_last))
        return float(self.assets * (mean - risk))

    def _moments(self, rate: float, aim: np.ndarray) -> tuple[np.ndarray, float, float]:
        """E[x f] (K,), E[x^2] and E[x x_before] of one asset's position x = (1-rate) x_before + rate aim'f."""
        stay, persistence = 1.0 - rate, 1.0 - self.decay
        with_signal = rate * aim / (1.0 - stay * persistence)
        before = float(rate * (aim * persistence) @ with_signal)  # E[rate aim'f x_before]
        square = (2.0 * stay * before + rate**2 * float(aim @ aim)) / (1.0 - stay**2)
        return with_signal, square, stay * square + before


@dataclass(frozen=True, eq=False)
class PredictableMarket:
    """One draw of the market: R decision rows, cube rows 0 to R-1, and two more to be filled and to earn at."""

    form: ClosedForm
    cube: Cube  # its features are the signals
    market: Market  # the cube's, with constant volume in USD and constant volatility
    costs: CostModel
    account: AccountRules
    expected: np.ndarray  # (R,A) mean, given f[t], of the return from the fill of a decision on row t to the next fill
    earned: np.ndarray  # (R,A) that return

    @classmethod
    def of(cls, form: ClosedForm, rows: int, seed: int) -> PredictableMarket:
        rng = np.random.default_rng(seed)
        signals = _autoregressive(rng, rows, form.assets, form.decay)
        expected = SIGMA_BAR * signals @ form.loadings
        earned = expected + SIGMA_BAR * np.sqrt(1.0 - form.ic**2) * rng.standard_normal(expected.shape)
        closes = 100.0 * np.cumprod(1.0 + np.concatenate((np.zeros((2, form.assets)), earned)), axis=0)
        names = tuple(f"signal_{k}" for k in range(signals.shape[2]))
        features = np.concatenate((signals, np.zeros((2, *signals.shape[1:])))).astype(np.float32)
        cube = replace(daily(closes), features=features, feature_names=names)
        adv_usd = 2.0 * CASH_USD / (LAMBDA * form.gamma * SIGMA_BAR)  # at which temporary = 1 is the paper's Lambda
        plain = Market.of(cube, "next_open")
        market = plain.with_planes({ADV: adv_usd / plain.last, SIGMA: np.full(closes.shape, SIGMA_BAR)})
        return cls(form, cube, market, CostModel(temporary=1.0), AccountRules(long_short=True), expected, earned)

    @property
    def fields(self) -> np.ndarray:
        """(R,A,K) float32, what a policy is shown: the signals."""
        return self.cube.features[: len(self.expected)]

    @property
    def max_weight(self) -> float:
        """A cap for the action set: five standard deviations of what the best policy holds of a name."""
        return 5.0 * GROSS / self.form.assets / np.sqrt(2.0 / np.pi)

    def utility(self, weights: Any, cost: Any, returns: Any) -> Any:
        """(...,) utility of bars, of arrays or tensors alike.

        Parameters
        ----------
        weights : (...,A) held at the close of row t+1, after the fill of the decision on row t.
        cost : (...,) fractions of equity.
        returns : (...,A) rows t of `expected` or `earned`.
        """
        return (weights * returns).sum(-1) - 0.5 * self.form.gamma * SIGMA_BAR**2 * (weights * weights).sum(-1) - cost

    def run(self, policy: Policy, starts: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
        """Utilities (bars,N) by `expected` and weights (bars,N,A) of paths that start in cash on rows `starts` (N,), through the kernel."""
        paths, assets = len(starts), self.form.assets
        accounts, held = Accounts.of_cash(paths, assets, CASH_USD), np.zeros((paths, assets))
        utilities, weights = np.empty((bars, paths)), np.empty((bars, paths, assets))
        for k in range(bars):
            rows = starts + k
            result = step(self.market, accounts, rows, policy(self.cube.features[rows], held), self.costs, self.account)
            held = weights[k] = result.weights
            utilities[k] = self.utility(held, result.cost, self.expected[rows])
        return utilities, weights


def _autoregressive(rng: np.random.Generator, rows: int, assets: int, decay: np.ndarray) -> np.ndarray:
    """(R,A,K) AR(1) signals of unit variance, stationary from the first row."""
    persistence = 1.0 - decay
    signals = rng.standard_normal((rows, assets, len(decay)))
    for t in range(1, rows):
        signals[t] = persistence * signals[t - 1] + np.sqrt(1.0 - persistence**2) * signals[t]
    return signals
