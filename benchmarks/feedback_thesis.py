"""A training step of the thesis policy against a bare torch loop over the same network and batches.

The bare loop is torch's own: `nn.Sequential`, `torch.distributions` for the draws, and the fused AdamW that ours takes too. Both start
from the same weights; losses are compared before times. The rewards of RFT are one function, which both loops call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn import functional

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.feedback.thesis_data import ThesisData
from rlaif_ray.feedback.thesis_policy import Draft, Logits, ThesisPolicy, draw
from rlaif_ray.feedback.thesis_rewards import Rewards
from rlaif_ray.feedback.thesis_schema import DECISIONS, ThesisForm
from rlaif_ray.feedback.thesis_training import Lessons, Rft, Sft, begin, fit_rft, fit_sft, rft_loss, sft_loss

KNOBS = Thesis()
TARGET = 0.9
PEER = "bare torch loop, same network and batches"
ASSETS, DAYS = 30, 256  # a fold's training days less its validation


def rows(quick: bool) -> list[Row]:
    """Steps a second of SFT and of RFT, an epoch each."""
    torch.set_num_threads(1)
    data = _examples(ASSETS * (DAYS // 8 if quick else DAYS))
    return [_sft_row(data), _rft_row(data)]


class Bare(NamedTuple):
    encoder: nn.Sequential
    heads: tuple[nn.Linear, nn.Linear, nn.Linear]

    @classmethod
    def of(cls, policy: ThesisPolicy) -> Bare:
        """The same layers with copies of the policy's weights."""
        form, hidden = policy.form, policy.hidden
        encoder = nn.Sequential(nn.Linear(2 * len(form.features), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        encoder.load_state_dict(policy.encoder.state_dict())
        heads = tuple(nn.Linear(hidden, n) for n in (len(form.sections), len(form.claims), len(DECISIONS)))
        for head, ours in zip(heads, (policy.structure_head, policy.claims_head, policy.decision_head), strict=True):
            head.load_state_dict(ours.state_dict())
        return cls(encoder, heads)  # pyright: ignore[reportArgumentType]

    def __call__(self, x: torch.Tensor) -> Logits:
        h = self.encoder(x)
        return Logits(*(head(h) for head in self.heads))

    def optimiser(self, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
        parameters = [p for layer in (self.encoder, *self.heads) for p in layer.parameters()]
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def _sft_row(data: ThesisData) -> Row:
    settings = Sft(**{**KNOBS.sft.model_dump(), "epochs": 1})
    policy = begin(data)
    lessons, net = Lessons.of(policy, data), Bare.of(policy)
    apart = abs(_bare_sft_loss(net, lessons).item() - sft_loss(policy, lessons, settings).item())
    assert apart < 1e-5, f"the losses of both loops differ by {apart}"
    optimiser = net.optimiser(settings.learning_rate, settings.weight_decay)

    def bare() -> None:
        for index in torch.randperm(len(data)).split(settings.batch):
            optimiser.zero_grad()
            _bare_sft_loss(net, Lessons(*(column[index] for column in lessons))).backward()
            optimiser.step()

    return _row("SFT", len(data), settings.batch, lambda: fit_sft(policy, data, settings), bare)


def _bare_sft_loss(net: Bare, lessons: Lessons) -> torch.Tensor:
    """No claim is masked here: the examples have every feature."""
    logits = net(lessons.x)
    return (
        functional.binary_cross_entropy_with_logits(logits.sections, lessons.sections)
        + functional.binary_cross_entropy_with_logits(logits.claims, lessons.claims)
        + functional.cross_entropy(logits.decision, lessons.decision)
    )


def _rft_row(data: ThesisData) -> Row:
    settings, rewards = Rft(**{**KNOBS.rft.model_dump(), "epochs": 1}), Rewards(**KNOBS.rewards.model_dump())
    policy = begin(data)
    x, facts, net = policy.inputs(data.features), data.facts, Bare.of(policy)
    logits, generator = net(x), torch.Generator().manual_seed(0)
    pair, gap = (draw(logits, generator), draw(logits, generator)), np.random.default_rng(0).normal(size=len(data))
    heads = _distributions(logits)
    first, second = (tuple(torch.from_numpy(part).float() for part in draft) for draft in pair)
    theirs = _bare_rft_loss(heads, first, second, gap, settings.entropy)
    apart = abs(theirs.item() - rft_loss(policy(x), *pair, gap, settings.entropy).item())
    assert apart < 1e-4, f"the losses of both loops differ by {apart}"
    optimiser = net.optimiser(settings.learning_rate, settings.weight_decay)

    def bare() -> None:
        for index in torch.randperm(len(data)).split(settings.batch):
            here = facts.take(index.numpy())
            heads = _distributions(net(x[index]))
            first, second = (tuple(head.sample() for head in heads) for _ in range(2))
            worth = [rewards.total(rewards.parts(data.form, _draft(drawn), here)) for drawn in (first, second)]
            optimiser.zero_grad()
            _bare_rft_loss(heads, first, second, worth[0] - worth[1], settings.entropy).backward()
            optimiser.step()

    return _row("RFT", len(data), settings.batch, lambda: fit_rft(policy, data, settings, rewards), bare)


Drawn = tuple[torch.Tensor, ...]


def _distributions(logits: Logits) -> tuple[Distribution, ...]:
    return Bernoulli(logits=logits.sections), Bernoulli(logits=logits.claims), Categorical(logits=logits.decision)


def _draft(drawn: Drawn) -> Draft:
    return Draft(drawn[0].bool().numpy(), drawn[1].bool().numpy(), drawn[2].numpy())


def _bare_rft_loss(heads: tuple[Distribution, ...], first: Drawn, second: Drawn, gap: np.ndarray, bonus: float) -> torch.Tensor:
    def log_prob(drawn: Drawn) -> torch.Tensor:
        parts = [head.log_prob(value) for head, value in zip(heads, drawn, strict=True)]
        return parts[0].sum(1) + parts[1].sum(1) + parts[2]

    spread = heads[0].entropy().sum(1) + heads[1].entropy().sum(1) + heads[2].entropy()
    advantage = torch.from_numpy(0.5 * gap).float()
    return -(advantage * (log_prob(first) - log_prob(second))).mean() - bonus * spread.mean()


def _row(name: str, examples: int, batch: int, ours: Callable[[], object], bare: Callable[[], object]) -> Row:
    steps = -(-examples // batch)
    seconds = in_turn(ours, bare)
    rates = [steps / s for s in seconds]
    note = f"{examples:,} examples, {batch} a step; hidden {KNOBS.hidden}. Losses equal before the first step."
    return Row(f"thesis policy, {name}", rates[0], PEER, rates[1], rates[0] / rates[1], "steps/s", TARGET, note)


def _examples(n: int) -> ThesisData:
    """Noise: what is timed does not depend on it. Every feature is there, so that the bare loop needs no masks."""
    rng = np.random.default_rng(0)
    form = ThesisForm.of(**KNOBS.form.model_dump())
    features, outcome = rng.normal(size=(n, len(form.features))).astype(np.float32), rng.normal(size=n)
    row, asset = np.divmod(np.arange(n), ASSETS)
    return ThesisData(form, features, np.digitize(outcome, KNOBS.decision_z), outcome, row, asset, row + KNOBS.horizon_bars)


if __name__ == "__main__":
    main(rows)
