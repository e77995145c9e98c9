"""Permutation-equivariant actor and critics: one small relu net shared by all assets, its size free of their number.

Layers mix each asset's own state with the mean state of the listed names (Deep Sets: Zaheer et al. 2017, eq. 4). The
critic is a sum over assets of weight times a learned worth, which is the shape of the reward sum_i w_i r_i - costs; a flat
MLP would have to find that shape from noise. Axes: B batch, A assets, D fields an asset sees (the last two: listed, held).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from rlaif_ray.execution.caps import apply_cap

LOG_STD = (-4.0, 0.5)
EXTRA_FIELDS = 2  # listed flag and held weight close every asset's row of the observation


def weights_of(actions: np.ndarray, listed: np.ndarray, kappa: float, max_weight: float) -> np.ndarray:
    """Actions (N,A) in [-1,1] -> target weights (N,A) float64: a softmax over the listed names, capped. No name listed: all cash."""
    scores = np.where(listed, kappa * np.asarray(actions, np.float64), -np.inf)
    best = scores.max(axis=1, keepdims=True)
    raised = np.exp(scores - np.where(np.isfinite(best), best, 0.0))
    total = raised.sum(axis=1, keepdims=True)
    return apply_cap(np.divide(raised, total, out=np.zeros_like(raised), where=total > 0), max_weight)


def soft_weights(actions: Tensor, listed: Tensor, kappa: float) -> Tensor:
    """The differentiable part of `weights_of`, (B,A): what the critic reasons about. The cap binds in the market only."""
    return torch.softmax(kappa * actions + (listed - 1.0) * 1e9, dim=1) * listed


def noisy(obs: Tensor, scale: float) -> Tensor:
    """Gaussian noise on the fields of the observation, not on what is held or listed.

    A few hundred bars are seen thousands of times each: without it the nets learn them by heart. Noise on the inputs is a
    penalty on slopes and curvature (Bishop 1995; as augmentation in RL: Laskin et al. 2020).
    """
    if not scale:
        return obs
    noise = torch.randn_like(obs[..., :-EXTRA_FIELDS]) * scale
    return torch.cat((obs[..., :-EXTRA_FIELDS] + noise, obs[..., -EXTRA_FIELDS:]), dim=-1)


class AssetNet(nn.Module):
    """(B,A,inputs) and a mask (B,A) -> (B,A,outputs); reordering the assets reorders the outputs and changes nothing else."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden[0])
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(hidden))
        self.pooled = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(hidden))
        self.head = nn.Linear(hidden[-1], outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        share = (mask / mask.sum(1, keepdim=True).clamp(min=1.0)).unsqueeze(1)  # (B,1,A)
        h = torch.relu(self.first(x))
        for own, pooled in zip(self.own, self.pooled, strict=True):
            h = torch.relu(own(h) + pooled(torch.bmm(share, h)))
        return self.head(h)


class Actor(nn.Module):
    """Squashed Gaussian over per-asset scores (Haarnoja et al. 2018, appendix C)."""

    def __init__(self, fields: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = AssetNet(fields, hidden, 2)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs (B,A,D) -> mean (B,A) before the tanh, log standard deviation (B,A)."""
        mean, spread = self.net(obs, obs[..., -2]).unbind(-1)
        low, high = LOG_STD
        return mean, low + 0.5 * (high - low) * (torch.tanh(spread) + 1.0)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised actions (B,A) and their log density (B,), over the listed names only."""
        mean, log_std = self(obs)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(x)^2), in the form that does not underflow
        density = density - 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (density * obs[..., -2]).sum(1)

    def best(self, obs: Tensor) -> Tensor:
        """The deterministic action (B,A)."""
        return torch.tanh(self(obs)[0])


class Critic(nn.Module):
    """Q(obs, action) = sum_i w_i u_i + mean_i v_i, with (u_i, v_i) from asset i's fields, target weight and trade, and the pool."""

    def __init__(self, fields: int, hidden: tuple[int, ...], kappa: float) -> None:
        super().__init__()
        self.kappa = kappa
        self.net = AssetNet(fields + 2, hidden, 2)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """obs (B,A,D), actions (B,A) -> (B,)."""
        listed, held = obs[..., -2], obs[..., -1]
        weights = soft_weights(actions, listed, self.kappa)
        names = listed.sum(1, keepdim=True).clamp(min=1.0)
        # in units of an equal share, so that the same net serves eight names and five hundred
        trade = torch.stack((weights * names, (weights - held).abs() * names), dim=-1)
        worth, rest = self.net(torch.cat((obs, trade), dim=-1), listed).unbind(-1)
        return (weights * worth).sum(1) + (rest * listed).sum(1) / names.squeeze(1)
