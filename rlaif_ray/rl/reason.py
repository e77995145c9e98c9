"""Why a network weighs names as it does, in words: one sentence for every learned policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlaif_ray.rl.observation import Layout

_FEW = {0: "all in cash: no name can be held", 1: "one name can be held"}


def too_few(listed: np.ndarray) -> str:
    """What there is to say where fewer than two names are listed (A,); empty where there are more."""
    return _FEW.get(int(listed.sum()), "")


def tilts(
    symbols: Sequence[str], listed: np.ndarray, weights: np.ndarray, *, names: Sequence[str], seen: Tensor, score: Tensor, long_short: bool
) -> list[str]:  # fmt: skip
    """Largest over- and underweight, and the fields that pushed each: gradient of its score times the input (Shrikumar et al. 2016).

    Parameters
    ----------
    names : (D,) of the fields.
    seen : (1,L) the flat observation, of which `score` (A,) is a function.
    """
    base, against = (0.0, "flat") if long_short else (1.0 / listed.sum(), "equal weight")
    tilt = np.where(listed, weights - base, 0.0)
    top, bottom = int(tilt.argmax()), int(tilt.argmin())
    (slope,) = torch.autograd.grad(score[top] - score[bottom], seen)
    layout = Layout(len(symbols), len(names))
    pushes, values = (layout.split(x)[0][0, :, : layout.fields].numpy() for x in ((slope * seen).detach(), seen.detach()))
    parts = []
    for word, asset in (("over", top), ("under", bottom)):
        strongest = [k for k in np.argsort(-pushes[asset], kind="stable")[:3] if pushes[asset, k] > 0]
        fields = ", ".join(f"{names[k]} {values[asset, k]:+.1f}sd" for k in strongest)
        parts.append(f"{symbols[asset]} {abs(tilt[asset]):.1%} {word} {against}" + (f" ({fields})" if fields else ""))
    return parts
