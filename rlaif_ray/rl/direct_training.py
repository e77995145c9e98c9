"""Policy gradient through the market: costs and fills are known functions, so the gradient of a path's utility is exact.

N paths walk the training rows in the twin of the simulator. Each step goes on for `horizon_bars` from where the paths are, and
the gradient of what these bars brought reaches back to the first of them: what is bought on one bar is still held, and paid
for, on the next (truncated backpropagation through time; prices are exogenous: Moody & Saffell 2001). Now and then a path
starts again from another row and another holding, so that all kinds of accounts are seen, old ones and new ones.

Which weights are kept is told by the validation rows alone, walked by the real kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from numba import boolean, float32, float64, njit, types
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rlaif_ray.core import RUIN
from rlaif_ray.errors import ModelError
from rlaif_ray.execution.caps import effective_cap
from rlaif_ray.rl.differentiable_market import Account, DifferentiableMarket
from rlaif_ray.rl.direct_network import DirectNetwork, choose
from rlaif_ray.rl.env import PortfolioVectorEnv, Track, check_room
from rlaif_ray.rl.observation import PORTFOLIO, write_portfolio
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import PARTS, remember

Utility = Callable[[Tensor, Tensor], Tensor]  # net simple returns (N,), log returns of equal weight (N,) -> (N,), about percents

HORIZON = "rl.direct.horizon_bars"  # the knob
CHECKS = 10  # times that the network is judged on validation during its budget
LIFE_BARS = 256  # of a path on average, before it starts again
SCALE = 100.0  # utilities are percents: a clipped gradient and AdamW's epsilon are no numbers of a log return's size
_WARM_UP, _AVERAGED = 0.05, 0.1  # shares of the steps: over which the learning rate rises, and over which weights are averaged
_CLIP = 1.0  # largest norm of a gradient


class Trained(NamedTuple):
    """The weights that did best on validation (of equals the later), and how it went."""

    state: dict[str, np.ndarray]
    kept_step: int
    curve: list[dict[str, float]]  # step, training utility, validation utility and log return over equal weight, turnover


def excess_utility(risk_aversion: float) -> Utility:
    """x - risk_aversion/2 x^2 of the log return x over equal weight, in percent: the one-bar mean-variance utility of beating it.

    A bar on which a path ends counts as one that has lost all but `RUIN`.
    """

    def utility(net: Tensor, benchmark: Tensor) -> Tensor:
        x = torch.log1p(net.clamp(min=RUIN - 1.0)) - benchmark
        return SCALE * (x - 0.5 * risk_aversion * x * x)

    return utility


def fit_network(
    track: Track, validation: Track, *, allowed: ActionSet, hidden: tuple[int, ...] = (64, 64), heads: int = 2, steps: int = 1000,
    paths: int = 64, horizon_bars: int = 16, learning_rate: float = 3e-3, weight_decay: float = 1e-2, input_noise: float = 0.5,
    entropy: float = 0.0, turnover: float = 0.0, risk_aversion: float = 20.0, seed: int = 0,
    utility: Utility | None = None, told: Callable[[dict[str, float]], object] | None = None,
) -> Trained:  # fmt: skip
    """Train one network on the rows of `track`. The same seed gives the same bits.

    Parameters
    ----------
    validation : rows of the same market that nothing is learnt from.
    allowed : the weights that the policy may ask for.
    paths : N.
    horizon_bars : bars that a gradient reaches back through.
    input_noise : deviation of the noise on fields while learning (`networks.noisy` has why).
    entropy : in log returns a bar and nat, of the softmax of the scores: draws them together, where the projection has no gradient too.
    turnover : in log returns, of what is traded beyond what it costs.
    utility : of a bar; default `excess_utility(risk_aversion)`. Its mean less these two is what is maximised.
    told : called with each point of the curve.

    Raises `ConfigError` where a horizon does not fit into the rows and `ModelError` where training diverges.
    """
    check_room(len(track.table), horizon_bars, HORIZON)
    utility = utility or excess_utility(risk_aversion)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DirectNetwork(track.table.shape[2] - 1, len(PORTFOLIO), hidden=hidden, heads=heads)
        walkers = _Walkers(track, paths, allowed, np.random.default_rng(seed))
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
        # one noisy step more or less: an average of the last ones is nearer to the optimum (Polyak & Juditsky 1992)
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1.0 - 1.0 / max(1.0, _AVERAGED * steps)))
        curve: list[dict[str, float]] = []
        kept, kept_step = {}, 0
        for step in range(1, steps + 1):
            gain, drag = walkers.advance(network, horizon_bars, utility, input_noise, entropy, turnover)
            optimiser.zero_grad()
            (drag - gain).backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            if not bool(torch.isfinite(norm)):
                raise ModelError(f"training diverged at step {step}; lower --rl.direct.learning_rate, or look at the prices of the source")
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
            if step * CHECKS // steps > (step - 1) * CHECKS // steps:
                judged = judge(cast(DirectNetwork, average.module), validation, allowed, utility)
                point = {"step": step, "train_utility": float(gain.detach()), **judged}
                if all(point["validation_utility"] >= p["validation_utility"] for p in curve):
                    kept = {k: v.numpy().copy() for k, v in average.module.state_dict().items()}
                    kept_step = step
                curve.append(point)
                if told is not None:
                    told(point)
    return Trained(kept, kept_step, curve)


def _rate(step: int, steps: int) -> float:
    """Of the learning rate: rises over the first steps, then falls to nothing along half a cosine."""
    return min(1.0, (step + 1) / (_WARM_UP * steps)) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


@torch.no_grad()
def judge(network: DirectNetwork, track: Track, allowed: ActionSet, utility: Utility) -> dict[str, float]:
    """Means a bar of one path from cash through all of the track, by the real kernel and under the track's controls."""
    env = PortfolioVectorEnv(track, paths=1, episode_bars=len(track.table) - 1, allowed=allowed)
    obs, _ = env.reset(options={"cash": True})
    table = torch.tensor(track.table)
    fields, listed = table[..., :-1], table[..., -1]
    code = network.encode(fields, listed)
    seen, ended = [], False
    while not ended and len(seen) < env.episode_bars:
        row, own = len(seen), torch.from_numpy(track.layout.split(obs)[1])
        targets = choose(network, allowed, code[row : row + 1], listed[row : row + 1], torch.from_numpy(env.held), own).targets
        obs, _, over, _, _ = env.step_weights(targets.numpy())
        ended = bool(over[0])
        seen.append((env.returns[0], env.excess[0], env.parts[0, PARTS.index("turnover")]))
    net, excess, traded = np.array(seen).T
    gained = utility(torch.from_numpy(net), torch.from_numpy(track.benchmark[: len(net)])).mean()
    return {"validation_utility": float(gained), "validation_log_excess": float(excess.mean()), "validation_turnover": float(traded.mean())}


class _Walkers:
    """N accounts on the rows of a track, in the differentiable market."""

    def __init__(self, track: Track, paths: int, allowed: ActionSet, rng: np.random.Generator) -> None:
        self.track, self.allowed, self.rng = track, allowed, rng
        whole = replace(track.account, whole_shares=False)  # which have no gradient: learnt in parts of a share, judged in whole ones
        self.market = DifferentiableMarket.of(track.market, track.costs, whole)
        table = torch.tensor(track.table)
        self.fields, self.listed = table[..., :-1], table[..., -1].contiguous()
        self.benchmark = torch.tensor(track.benchmark)
        self.rows = torch.zeros(paths, dtype=torch.int64)  # of the table
        self.held = torch.zeros(paths, track.assets, dtype=torch.float64)
        self.account = Account(torch.zeros(paths, dtype=torch.float64), self.held, torch.ones_like(self.held))
        self.memory = np.tile(track.memory.start, (paths, 1))
        self.own = np.empty((paths, len(PORTFOLIO)), np.float32)
        self.old = np.zeros(paths, bool)  # none is on its way yet

    def advance(
        self, network: DirectNetwork, bars: int, utility: Utility, input_noise: float, entropy: float, turnover: float
    ) -> tuple[Tensor, Tensor]:
        """Mean utility of the next `bars` bars of all paths, and what is taken from it for turnover and lack of entropy."""
        self._restart(bars)
        rows = self.rows[:, None] + torch.arange(bars)
        listed, fields = self.listed[rows], self.fields[rows]
        fields = fields + input_noise * torch.randn_like(fields)
        code = network.encode(fields.flatten(0, 1), listed.flatten(0, 1)).unflatten(0, rows.shape)
        gain, drag = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for bar in range(bars):
            choice = choose(network, self.allowed, code[:, bar], listed[:, bar], self.held, torch.from_numpy(self.own.copy()))
            self.account, result = self.market.bar(self.account, self.rows + self.track.first, choice.targets)
            gain = gain + utility(result.net, self.benchmark[self.rows]).mean()
            drag = drag + SCALE * (turnover * result.turnover.mean() - entropy * _entropy(choice.score, listed[:, bar]))
            self.held, self.rows = result.weights, self.rows + 1
            self._show(result.net.detach().numpy(), True)
            self._bury(result.net.detach() <= -1.0)
        self.account, self.held = self.account.detached(), self.held.detach()
        return gain / bars, drag / bars

    def _restart(self, bars: int) -> None:
        """New rows and holdings for paths that have come to the end of the rows, or to their own."""
        paths, last = len(self.old), len(self.track.table) - 1 - bars
        new = ~self.old | (self.rows.numpy() > last) | (self.rng.random(paths) < bars / LIFE_BARS)
        which, rows = torch.from_numpy(new), torch.from_numpy(self.rng.integers(0, last + 1, paths))
        self.rows = torch.where(which, rows, self.rows)
        # a third each in cash, at equal weight (long-short: flat) and at random weights, as in the environment
        kind, cap = self.rng.integers(0, 3, (paths, 1)), self.allowed.max_weight
        widest = cap / effective_cap(cap, self.held.shape[1])
        scores = self.rng.uniform(-widest, widest, self.held.shape) * (kind == 2)
        held = np.where(kind > 0, self.allowed.targets(scores, self.listed[rows].numpy() > 0), 0.0)
        begun = self.market.start(torch.from_numpy(held), self.track.cash_usd, rows + self.track.first)
        cash, owned, factor = self.account
        each = which[:, None]
        self.account = Account(
            torch.where(which, begun.cash, cash), torch.where(each, begun.held, owned), torch.where(each, begun.factor, factor)
        )  # fmt: skip
        self.held = torch.where(each, torch.from_numpy(held), self.held)
        self.memory[new] = self.track.memory.start
        self.old[:] = True
        self._show(np.zeros(paths), False)

    def _bury(self, over: Tensor) -> None:
        """Paths (N,) bool that are worth nothing go on with new money, without a past."""
        if not bool(over.any()):
            return
        each, (cash, held, factor) = over[:, None], self.account
        self.account = Account(
            torch.where(over, self.track.cash_usd, cash), torch.where(each, 0.0, held), torch.where(each, 1.0, factor)
        )  # fmt: skip
        self.held = torch.where(each, 0.0, self.held)
        self.memory[over.numpy()] = self.track.memory.start

    def _show(self, net: np.ndarray, moved: bool) -> None:
        """The account's own numbers. They are data to the gradient: what a bar does to a drawdown is not what it is taken for."""
        cash, turbulence = 1.0 - self.held.detach().sum(1).numpy(), np.zeros(len(net))
        if self.track.turbulence is not None:
            turbulence = self.track.turbulence[self.rows.numpy()].astype(np.float64)
        memory = self.track.memory
        _own_numbers(np.ascontiguousarray(net), cash, turbulence, moved, memory.eta, memory.volatility, self.memory, self.own)


def _entropy(score: Tensor, listed: Tensor) -> Tensor:
    log_share = torch.log_softmax(score + (listed - 1.0) * 1e9, dim=1)
    return -(log_share.exp() * log_share * listed).sum(1).mean()


@njit(
    types.void(float64[::1], float64[::1], float64[::1], boolean, float64, float64, float64[:, ::1], float32[:, ::1]),
    cache=True, error_model="numpy",
)  # fmt: skip
def _own_numbers(net, cash, turbulence, moved, eta, volatility, memory, out):  # pragma: no cover
    """What N paths see of their own accounts, into `out` (N,P); where they have moved, after `memory` (N,S) has taken in their returns."""
    parts = np.empty(len(PARTS))
    for n in range(out.shape[0]):
        if moved:
            remember(memory[n], net[n], eta, volatility, parts)
        write_portfolio(cash[n], memory[n], turbulence[n], volatility, out[n])
