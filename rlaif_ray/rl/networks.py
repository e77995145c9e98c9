"""Permutation-equivariant actor and critics: one small relu net shared by all assets, its size free of their number.

Layers mix each asset's own state with the mean state of the listed names (Deep Sets: Zaheer et al. 2017, eq. 4); the account's
own numbers are shown to every asset. The critic is a sum over assets of weight times a learned worth, which is the shape of
the reward sum_i w_i r_i - costs; a flat MLP would have to find that shape from noise. Axes: B batch, A assets, D fields an asset
sees, L = A (D+2) + P numbers of a flat observation (`observation.Layout`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from rlaif_ray.rl.observation import OWN, PORTFOLIO, Layout
from rlaif_ray.rl.projection import ActionSet

LOG_STD = (-4.0, 0.5)


def layout_of(obs: Tensor, fields: int) -> Layout:
    """Of flat observations (B,L) of D fields, however many assets there are."""
    return Layout((obs.shape[1] - len(PORTFOLIO)) // (fields + OWN), fields)


def noisy(obs: Tensor, scale: float, fields: int) -> Tensor:
    """Gaussian noise on the assets' fields of flat observations (B,L), not on what is held or listed, nor on the account's numbers.

    A few hundred bars are seen thousands of times each: without it the nets learn them by heart. Noise on the inputs is a
    penalty on slopes and curvature (Bishop 1995; as augmentation in RL: Laskin et al. 2020).
    """
    if not scale:
        return obs
    out = obs.clone()
    shown = layout_of(obs, fields).split(out)[0][..., :fields]
    shown += torch.randn_like(shown) * scale
    return out


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


def _shown(obs: Tensor, fields: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat (B,L) -> what each asset sees (B,A,D+2+P), listed (B,A), held (B,A)."""
    assets, account = layout_of(obs, fields).split(obs)
    everything = torch.cat((assets, account.unsqueeze(1).expand(-1, assets.shape[1], -1)), dim=-1)
    return everything, assets[..., -2], assets[..., -1]


class Actor(nn.Module):
    """Squashed Gaussian over per-asset scores (Haarnoja et al. 2018, appendix C), of flat observations with D `fields` an asset."""

    def __init__(self, fields: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.fields = fields
        self.net = AssetNet(fields + OWN + len(PORTFOLIO), hidden, 2)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs (B,L) -> mean (B,A) before the tanh, log standard deviation (B,A)."""
        shown, listed, _ = _shown(obs, self.fields)
        mean, spread = self.net(shown, listed).unbind(-1)
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
        return torch.tanh(raw), (density * _shown(obs, self.fields)[1]).sum(1)

    def best(self, obs: Tensor) -> Tensor:
        """The deterministic action (B,A)."""
        return torch.tanh(self(obs)[0])


class Critic(nn.Module):
    """Q(obs, action) = sum_i w_i u_i + mean_i v_i, with (u_i, v_i) from asset i's fields, target weight and trade, and the pool.

    The weights are those that the action asks for within the `allowed` set: what the market would trade.
    """

    def __init__(self, fields: int, hidden: tuple[int, ...], allowed: ActionSet) -> None:
        super().__init__()
        self.fields, self.allowed = fields, allowed
        self.net = AssetNet(fields + OWN + len(PORTFOLIO) + 2, hidden, 2)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """obs (B,L), actions (B,A) -> (B,)."""
        shown, listed, held = _shown(obs, self.fields)
        weights = self.allowed.soft(actions, listed)
        names = listed.sum(1, keepdim=True).clamp(min=1.0)
        # in units of an equal share, so that the same net serves eight names and five hundred
        trade = torch.stack((weights * names, (weights - held).abs() * names), dim=-1)
        worth, rest = self.net(torch.cat((shown, trade), dim=-1), listed).unbind(-1)
        return (weights * worth).sum(1) + (rest * listed).sum(1) / names.squeeze(1)
