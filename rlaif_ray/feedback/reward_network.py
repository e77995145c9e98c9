"""The networks of a whole ensemble at once: each member has weights of its own, stacked on the first axis, M.

Axes: M members, N opinions, D inputs, Q questions, K voices, R rivalries (two voices, or one and climatology), H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Size:
    """Widths of the hidden layers, and how many opinions go through them at once."""

    widths: tuple[int, ...]
    rows: int


# With some sixteen inputs: 0.6 thousand, 0.1, 2.1 and 50 million parameters a member.
SIZES = {
    "tiny": Size((32,), 1024), "small": Size((224,) * 3, 1024), "medium": Size((1024,) * 3, 256), "large": Size((4096,) * 4, 64),
}  # fmt: skip


def parameters(inputs: int, size: str, heads: int) -> int:
    """Numbers that one member of an ensemble has."""
    widths = (inputs, *SIZES[size].widths, heads)
    return sum((before + 1) * after for before, after in pairwise(widths))


def draw(inputs: int, size: str, heads: int, seeds: Sequence[int]) -> Weights:
    """One member for each seed, never from the global state: He et al. 2015, eq. 10, uniform; biases and the heads start at zero.

    Zero heads give every opinion a reward of 0: before it has learnt anything, a model weighs all alike.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    widths = (inputs, *SIZES[size].widths)
    weights: Weights = {}
    for layer, (before, after) in enumerate(pairwise(widths)):
        bound = (6.0 / before) ** 0.5
        drawn = [torch.empty(before, after).uniform_(-bound, bound, generator=generator) for generator in generators]
        weights[f"weight{layer}"], weights[f"bias{layer}"] = torch.stack(drawn), torch.zeros(len(seeds), after)
    weights["head"], weights["head_bias"] = torch.zeros(len(seeds), widths[-1], heads), torch.zeros(len(seeds), heads)
    return weights


def forward(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """(M,N,H) rewards of inputs (N,D), which all members share."""
    hidden = x.expand(len(weights["head"]), *x.shape)
    for layer in range(sum(name.startswith("weight") for name in weights)):
        hidden = torch.baddbmm(weights[f"bias{layer}"][:, None], hidden, weights[f"weight{layer}"]).relu()
    return torch.baddbmm(weights["head_bias"][:, None], hidden, weights["head"])


class Scorer:
    """Fitted networks as they are asked: the first layers of all members are one wide product."""

    def __init__(self, state: Mapping[str, np.ndarray], rows: int) -> None:
        weights = {name: torch.from_numpy(value) for name, value in state.items()}
        first = weights["weight0"]
        self.members, self.rows, self.heads = len(first), rows, weights["head"].shape[-1]
        self._wide, self._wide_bias = first.permute(1, 0, 2).flatten(1).contiguous(), weights["bias0"].flatten()
        hidden = [(weights[f"bias{n}"][:, None], weights[f"weight{n}"]) for n in range(1, sum(k.startswith("weight") for k in weights))]
        self._hidden, self._head = hidden, (weights["head_bias"][:, None], weights["head"])
        self._apart = torch.block_diag(*weights["head"])  # of a single hidden layer: all heads are one product too

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(M,N,H) float32 rewards of inputs (N,D). Batches are padded to `rows`: one opinion and a million are scored alike."""
        out = np.empty((self.members, len(x), self.heads), np.float32)
        with torch.inference_mode():
            for start in range(0, len(x), self.rows):
                part = x[start : start + self.rows]
                if len(part) < self.rows:
                    part = np.concatenate([part, np.zeros((self.rows - len(part), x.shape[1]), np.float32)])
                out[:, start : start + self.rows] = self._batch(torch.from_numpy(part)).numpy()[:, : len(x) - start]
        return out

    def _batch(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.addmm(self._wide_bias, x, self._wide).relu_()
        if not self._hidden:
            return (wide @ self._apart).view(len(x), self.members, self.heads).transpose(0, 1) + self._head[0]
        hidden = wide.view(len(x), self.members, -1).transpose(0, 1)
        for bias, weight in self._hidden:
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        return torch.baddbmm(self._head[0], hidden, self._head[1])


@dataclass(frozen=True, eq=False)
class Questions:
    """Judged pairs as networks learn from them: all voices on one question together, for each is in many pairs."""

    x: torch.Tensor  # (Q,K,D) inputs; 0 where a voice is in no pair
    sides: torch.Tensor  # (K,R) +1 and -1 for the two sides of a rivalry; climatology, whose reward is 0, has no row
    total: torch.Tensor  # (Q,H,R) weight of what was judged between them
    against: torch.Tensor  # (Q,H,R) the part of it that says that the second side is better
    counts: torch.Tensor  # (M,Q) how often each member has drawn the question


def descend(
    weights: Weights, seen: Questions, *, epochs: int, batch: int, learning_rate: float, weight_decay: float, seed: int
) -> Weights:  # fmt: skip
    """Minimise every member's weighted loss with one AdamW; batches of `batch` questions come in the same order for all.

    The loss of a gap g = r(first) - r(second) is -total log sigmoid(g) + against g: the negative log-likelihood of
    Bradley and Terry (1952), where `against` of `total` prefer the second. No member's numbers enter another's gradient.
    """
    weights = {name: value.clone().requires_grad_(True) for name, value in weights.items()}
    optimiser = torch.optim.AdamW(_groups(weights, learning_rate), lr=learning_rate, weight_decay=weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(seen.x), generator=generator).split(batch):
            optimiser.zero_grad()
            _loss(weights, seen, index).backward()
            optimiser.step()
    return {name: value.detach() for name, value in weights.items()}


def _loss(weights: Weights, seen: Questions, index: torch.Tensor) -> torch.Tensor:
    """Sum over the members of each one's mean loss a question."""
    x = seen.x[index]
    questions, voices, _ = x.shape
    rewards = forward(weights, x.flatten(0, 1)).unflatten(1, (questions, voices))  # (M,B,K,H)
    gaps = rewards.transpose(2, 3) @ seen.sides  # (M,B,H,R)
    losses = torch.nn.functional.softplus(-gaps) * seen.total[index] + gaps * seen.against[index]
    return (losses.sum(dim=(2, 3)) * seen.counts[:, index]).sum() / questions


def _groups(weights: Weights, learning_rate: float) -> list[dict]:
    """Adam's steps in wide layers are smaller, by 32 over what comes in, so that one learning rate does for all sizes.

    Yang et al. 2021, "Tensor Programs V", table 8: hidden and output weights.
    """
    groups: dict[float, list[torch.Tensor]] = {}
    for name, value in weights.items():
        wide = value.ndim == 3 and name != "weight0"
        groups.setdefault(min(1.0, 32.0 / value.shape[1]) if wide else 1.0, []).append(value)
    return [{"params": values, "lr": learning_rate * share} for share, values in groups.items()]
