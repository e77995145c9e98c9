"""A policy network whose size is free of the number of assets: one encoder for all, attention among the listed, a trade for each.

What an asset shows is encoded by itself, looks at the other listed names (multi-head attention: Vaswani et al. 2017; without
positions it commutes with any reordering), and is read once more together with the weight held and the account's own numbers.
Three numbers an asset come out: the score of the weight to aim at, how much of the way there is traded now (the gate), and
how far from the aim a holding must be before anything is (the band). Proportional costs make such a band (Davis & Norman
1990), quadratic ones a constant rate of trading towards the aim (Garleanu & Pedersen 2013); to hold is one of the answers.
Axes: B batch, A assets, D fields, P numbers of the account, E width of the code.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlaif_ray.errors import ConfigError
from rlaif_ray.execution.caps import effective_cap
from rlaif_ray.rl.projection import ActionSet

_NO_BAND = -5.0  # at the start all trade: softplus of it is 0.7% of the cap


class Intent(NamedTuple):
    """What a network wants of each asset, (B,A) each; weights and bands in units of `ActionSet.max_weight`."""

    score: Tensor  # of the aim
    gate: Tensor  # in (0, 1), share of the way that is traded now
    band: Tensor  # >= 0


class DirectNetwork(nn.Module):
    """Fields (B,A,D) of an observation, and what is held, to an `Intent`.

    Parameters
    ----------
    fields, portfolio : D and P.
    hidden : widths of the shared encoder; the last is that of the attention and of the head too.
    heads : of the attention; they divide the last width.
    """

    def __init__(self, fields: int, portfolio: int, *, hidden: tuple[int, ...], heads: int) -> None:
        super().__init__()
        width = hidden[-1]
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide the last hidden width, {width}; change --rl.direct.heads or --rl.direct.hidden")
        self.heads = heads
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((fields, *hidden)))
        self.norm = nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.account = nn.Linear(1 + portfolio, width, bias=False)
        self.head = nn.Linear(width, 3)
        nn.init.zeros_(self.head.weight)  # the first aim is equal weight, or flat: everywhere the projection has a gradient
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, 0.0, _NO_BAND]))

    def encode(self, fields: Tensor, listed: Tensor) -> Tensor:
        """(B,A,D), (B,A) of 0 and 1 -> (B,A,E): all that does not depend on the account, so that a whole horizon is encoded at once."""
        h = fields
        for layer in self.encoder:
            h = torch.relu(layer(h))
        b, a, width = h.shape
        query, key, value = self.ask(self.norm(h)).view(b, a, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        near = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads) + (listed - 1.0)[:, None, None, :] * 1e9
        seen = (torch.softmax(near, dim=-1) @ value).transpose(1, 2).reshape(b, a, width)
        return h + self.answer(seen)

    def forward(self, code: Tensor, held: Tensor, portfolio: Tensor) -> Intent:
        """Code (B,A,E), held weights (B,A) in units of `ActionSet.max_weight`, the account's numbers (B,P)."""
        account = torch.cat((held[..., None], portfolio[:, None].expand(-1, held.shape[1], -1)), dim=-1)
        score, gate, band = self.head(torch.relu(code + self.account(account))).unbind(-1)
        return Intent(score, torch.sigmoid(gate), nn.functional.softplus(band))


class Choice(NamedTuple):
    """What it comes to, (B,A) each."""

    targets: Tensor  # float64 weights, within the action set
    score: Tensor


def choose(
    network: DirectNetwork, allowed: ActionSet, code: Tensor, listed: Tensor, held: Tensor, portfolio: Tensor
) -> Choice:  # fmt: skip
    """Target weights: from what is held (B,A) float64 towards the aim, as far as gate and band say, within what is allowed.

    Weights are float64 throughout: a holding that stays inside its band is asked for again to the last bits, and is not traded.
    """
    unit, cap, listed = allowed.max_weight, effective_cap(allowed.max_weight, held.shape[1]), listed.double()
    intent = network(code, (held / unit).float(), portfolio)
    way = allowed.soft(intent.score.double() * (unit / cap), listed) - held
    trade = intent.gate * torch.sign(way) * torch.relu(way.abs() - unit * intent.band)
    flat = torch.zeros_like(listed[:, :1]) if allowed.long_short else (1.0 / listed.sum(1, keepdim=True).clamp(min=1.0)).clamp(max=cap)
    return Choice(allowed.soft((held + trade - flat) / cap, listed), intent.score)
