"""How a thesis policy learns: from the teacher's theses (SFT), then from what its own theses are worth (RFT).

RFT draws two theses an example with rewards R1 and R2 and climbs A (log p1 - log p2) with A = (R1 - R2) / 2: one thesis
has the advantage A and the other its mirror. In expectation that is the gradient of the mean reward (REINFORCE, Williams
1992, each thesis being the other's baseline). Everything is drawn from generators that are seeded here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional

from rlaif_ray.errors import DataError
from rlaif_ray.feedback.thesis_data import StandardScaler, ThesisData
from rlaif_ray.feedback.thesis_policy import Calibration, Draft, Logits, ThesisPolicy, draw, entropy, log_odds, log_odds_between
from rlaif_ray.feedback.thesis_rewards import Rewards, score_theses


@dataclass(frozen=True)
class Sft:
    """Passes and steps of AdamW, and the weights of the three heads' cross-entropies."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    sections: float
    claims: float
    decision: float


@dataclass(frozen=True)
class Rft:
    """Passes and steps of AdamW; weight of the entropy bonus; whether clear cases come first."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    entropy: float
    curriculum: bool


@dataclass(frozen=True)
class History:
    """What was seen on the way: one figure an epoch, and the epoch whose weights were kept."""

    train: tuple[float, ...]  # SFT: mean loss of the epoch's steps, nats; RFT: mean reward of the theses drawn in it
    validation: tuple[float, ...] = ()  # after the epoch, larger is better: SFT minus the loss, RFT the mean reward
    kept: int = 0  # counted from 1; 0: RFT kept the weights that it started from


class Lessons(NamedTuple):
    """The teacher's theses as tensors, one row an example."""

    x: torch.Tensor  # (N,2F) network inputs
    sections: torch.Tensor  # (N,S) float32 0 or 1
    claims: torch.Tensor  # (N,C) float32 0 or 1
    known: torch.Tensor  # (N,C) float32: 0 where a claim's input is missing
    decision: torch.Tensor  # (N,) int64

    @classmethod
    def of(cls, policy: ThesisPolicy, data: ThesisData) -> Lessons:
        sections, true, known = (torch.from_numpy(a.astype(np.float32)) for a in (data.sections, data.facts.true, data.facts.known))
        return cls(policy.inputs(data.features), sections, true, known, torch.from_numpy(data.decision))

    def take(self, index: torch.Tensor) -> Lessons:
        return Lessons(*(column[index] for column in self))

    def batches(self, size: int) -> Iterator[Lessons]:
        return map(Lessons._make, zip(*(column.split(size) for column in self), strict=True))


@dataclass(frozen=True, eq=False)
class Trained:
    policy: ThesisPolicy
    sft: History
    rft: History | None  # None: taught by the teacher only


def train(
    data: ThesisData, *, sft: Sft, rft: Rft | None, rewards: Rewards, hidden: int = 64, seed: int = 0,
    validation: ThesisData | None = None, min_validation: int = 200,
) -> Trained:  # fmt: skip
    """A fitted policy: scaler, SFT, RFT where it is asked for, calibration.

    Parameters
    ----------
    data : the training examples, all of them closed: everything is fitted on these.
    validation : later examples, purged from `data`; they stop SFT and RFT early and calibrate p_up. Without them neither happens.
    min_validation : fewer validation examples than this, and p_up stays as the policy says it.

    Raises `DataError` where `data` is empty.
    """
    policy = begin(data, hidden=hidden, seed=seed)
    taught = fit_sft(policy, data, sft, seed=seed, validation=validation)
    earned = None if rft is None else fit_rft(policy, data, rft, rewards, seed=seed, validation=validation)
    if validation is not None:
        policy.calibration = calibrate(policy.raw_p_up(validation.features), validation.up, min_rows=min_validation)
    return Trained(policy, taught, earned)


def begin(data: ThesisData, *, hidden: int = 64, seed: int = 0) -> ThesisPolicy:
    """A policy with random weights and its scaler fitted on `data`, the training examples. Raises `DataError` where there are none."""
    if not len(data):
        raise DataError("no thesis example has closed inside the training rows; bring more bars or lower --thesis.horizon_bars")
    policy = ThesisPolicy(data.form, hidden=hidden, seed=seed)
    policy.scaler = StandardScaler.fit(data.features)
    return policy


def fit_sft(policy: ThesisPolicy, data: ThesisData, settings: Sft, *, seed: int = 0, validation: ThesisData | None = None) -> History:
    """Teach the policy, in place, to write as the teacher does. With validation examples the epoch with the lowest loss on them is kept."""
    lessons, generator = Lessons.of(policy, data), _generator(seed, 1)
    optimiser = _optimiser(policy, settings.learning_rate, settings.weight_decay)

    def epoch(_: int) -> float:
        total = torch.zeros(())
        for batch in lessons.take(torch.randperm(len(data), generator=generator)).batches(settings.batch):
            loss = sft_loss(policy, batch, settings)
            _descend(optimiser, loss)
            total += loss.detach() * len(batch.x)
        return float(total) / len(data)

    if not validation:  # none, or none that has closed
        return History(tuple(epoch(k) for k in range(settings.epochs)), kept=settings.epochs)
    return _keep_best(policy, epoch, settings.epochs, lambda: -teacher_loss(policy, validation, settings))


def teacher_loss(policy: ThesisPolicy, data: ThesisData, settings: Sft) -> float:
    """The loss of SFT over all of `data`, as the policy stands."""
    with torch.inference_mode():
        return float(sft_loss(policy, Lessons.of(policy, data), settings))


def sft_loss(policy: ThesisPolicy, lessons: Lessons, settings: Sft) -> torch.Tensor:
    """Weighted sum of the heads' mean cross-entropies, nats; claims that cannot be known count neither above nor below the line."""
    logits = policy(lessons.x)
    sections = functional.binary_cross_entropy_with_logits(logits.sections, lessons.sections)
    claims = functional.binary_cross_entropy_with_logits(logits.claims, lessons.claims, weight=lessons.known, reduction="sum")
    decision = functional.cross_entropy(logits.decision, lessons.decision)
    return settings.sections * sections + settings.claims * claims / lessons.known.sum().clamp(min=1.0) + settings.decision * decision


def fit_rft(
    policy: ThesisPolicy, data: ThesisData, settings: Rft, rewards: Rewards, *, seed: int = 0, validation: ThesisData | None = None
) -> History:  # fmt: skip
    """Go on, in place, towards theses that are worth more. With validation examples the weights that earn most on them are kept.

    With `curriculum` the first epochs see only the examples with the largest outcomes: a share that grows from one fifth to all of
    them over the first half of the epochs.
    """
    x, facts, generator = policy.inputs(data.features), data.facts, _generator(seed, 2)
    optimiser = _optimiser(policy, settings.learning_rate, settings.weight_decay)
    clearest = torch.from_numpy(np.argsort(-np.abs(data.outcome), kind="stable"))

    def epoch(k: int) -> float:
        share = min(1.0, 0.2 + 1.6 * k / settings.epochs) if settings.curriculum else 1.0
        seen = clearest[: max(1, round(share * len(data)))] if share < 1.0 else torch.arange(len(data))
        earned = 0.0
        for index in seen[torch.randperm(len(seen), generator=generator)].split(settings.batch):
            logits, here = policy(x[index]), facts.take(index.numpy())
            pair = draw(logits, generator), draw(logits, generator)
            first, second = (rewards.total(rewards.parts(data.form, draft, here)) for draft in pair)
            _descend(optimiser, rft_loss(logits, *pair, first - second, settings.entropy))
            earned += float((first + second).sum()) / 2
        return earned / len(seen)

    if not validation:  # none, or none that has closed
        return History(tuple(epoch(k) for k in range(settings.epochs)), kept=settings.epochs)
    return _keep_best(policy, epoch, settings.epochs, lambda: float(score_theses(policy, validation, rewards).reward.mean()), start=True)


def rft_loss(logits: Logits, first: Draft, second: Draft, gap: np.ndarray, bonus: float) -> torch.Tensor:
    """-mean of A (log p(first) - log p(second)), A = gap / 2, less the entropy bonus.

    Parameters
    ----------
    first, second : two theses drawn from the same `logits`.
    gap : (N,) reward of the first less that of the second.
    """
    advantage = torch.from_numpy(0.5 * gap).float()
    return -(advantage * log_odds_between(logits, first, second)).mean() - bonus * entropy(logits).mean()


def calibrate(p_up: np.ndarray, up: np.ndarray, *, min_rows: int = 200) -> Calibration:
    """Platt's sigmoid on the log-odds of p_up (N,), fitted by maximum likelihood to what went up (N,) on validation rows.

    The slope is bounded below by 0. Targets are Platt's: (n_up + 1) / (n_up + 2) and 1 / (n_down + 2), so that no side is ever certain.
    """
    if len(p_up) < min_rows:
        return Calibration(rows=len(p_up), reason=f"{len(p_up)} validation examples had closed; at least {min_rows} are needed")
    z, n_up = log_odds(p_up), int(up.sum())
    target = np.where(up, (n_up + 1) / (n_up + 2), 1 / (len(up) - n_up + 2))

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        s = theta[0] * z + theta[1]
        miss = 1.0 / (1.0 + np.exp(-s)) - target
        return float(np.mean(np.logaddexp(0.0, s) - target * s)), np.array([np.mean(miss * z), np.mean(miss)])

    slope, bias = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]).x
    return Calibration(float(slope), float(bias), len(p_up), reason="")


def _keep_best(
    policy: ThesisPolicy, epoch: Callable[[int], float], epochs: int, quality: Callable[[], float], *, start: bool = False
) -> History:  # fmt: skip
    """Walk all epochs, then set the policy to the weights after the best of them; with `start`, those before the first stand too."""
    best, kept, weights = (quality(), 0, copy.deepcopy(policy.state_dict())) if start else (-np.inf, 0, {})
    train, seen = [], []
    for k in range(epochs):
        train.append(epoch(k))
        seen.append(quality())
        if seen[-1] > best:
            best, kept, weights = seen[-1], k + 1, copy.deepcopy(policy.state_dict())
    policy.load_state_dict(weights)
    return History(tuple(train), tuple(seen), kept)


def _descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _optimiser(policy: ThesisPolicy, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


def _generator(seed: int, stage: int) -> torch.Generator:
    """Stages draw from streams of their own."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, stage]).generate_state(1)[0]))
