"""The manager: pools the desk's opinions into one, each with a weight that may depend on the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlaif_ray.core import TRAITS, Abstention, MarketView, Opinion, traits_of
from rlaif_ray.errors import DataError

MANAGER = "manager"
CARRIED = 2  # authors whose claims the manager repeats

# (view, moment of the opinions, voices (K,), p_up (A,K), traits (A,K,X)) -> weights (A,K), at least 0 for who spoke
Weigh = Callable[[MarketView, np.datetime64, tuple[str, ...], np.ndarray, np.ndarray], np.ndarray]


def equal_weights(
    view: MarketView, opined_at: np.datetime64, authors: tuple[str, ...], p_up: np.ndarray, traits: np.ndarray
) -> np.ndarray:  # fmt: skip
    """(A,K) the same for everyone who spoke."""
    return np.isfinite(p_up).astype(np.float64)


def pool(p_up: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-odds pool over the last axis: sigmoid(sum_k w_k logit p_k), weights renormalised over who spoke.

    The logarithmic opinion pool (Genest and Zidek 1986, section 3.2). p_up and weights (..., K) -> (...); NaN where
    nobody with a weight spoke. Raises `DataError` on a weight that is negative or not a number.
    """
    spoke = np.isfinite(p_up)
    if not (weights[spoke] >= 0).all():
        raise DataError("a manager's weight is negative or not a number; expected weights of at least 0 for who spoke")
    total, logit = np.zeros(p_up.shape[:-1]), np.zeros(p_up.shape[:-1])
    for k in range(p_up.shape[-1]):  # in a fixed order, so that one opinion and a table of them pool alike, bit for bit
        p = np.where(spoke[..., k], p_up[..., k], 0.5)
        w = np.where(spoke[..., k], weights[..., k], 0.0)
        logit = logit + w * (np.log(p) - np.log1p(-p))
        total = total + w
    return np.where(total > 0, 1.0 / (1.0 + np.exp(-logit / np.where(total > 0, total, 1.0))), np.nan)


def verdicts(view: MarketView, opinions: Sequence[Opinion | Abstention], weigh: Weigh = equal_weights) -> list[Opinion | Abstention]:
    """The manager's word on each symbol at the view's moment, from the opinions on the table (all of one earlier or equal moment).

    It carries the claims of the two who moved it most, and the tightest cap that anyone set. Where all abstain, or
    nobody has a weight, so does it.
    """
    if not opinions:
        raise DataError(f"the manager has no opinions to pool at {view.as_of}; expected the desk's last ones, abstentions included")
    moments, horizons = {o.as_of for o in opinions}, {o.horizon_bars for o in opinions}
    if len(moments) > 1 or len(horizons) > 1:
        raise DataError(f"the manager was given opinions of {len(moments)} moments and {len(horizons)} horizons; expected one of each")
    authors = tuple(dict.fromkeys(o.voice.name if isinstance(o, Opinion) else o.author for o in opinions))
    rows = {s: a for a, s in enumerate(view.symbols)}
    said: dict[tuple[int, int], Opinion] = {
        (rows[o.symbol], authors.index(o.voice.name)): o for o in opinions if isinstance(o, Opinion)
    }  # fmt: skip
    p_up = np.full((len(rows), len(authors)), np.nan)
    traits = np.full((*p_up.shape, len(TRAITS)), np.nan, np.float32)
    for at, opinion in said.items():
        p_up[at], traits[at] = opinion.p_up, traits_of(opinion.narrative, len(opinion.claims))
    weights = np.where(np.isfinite(p_up), weigh(view, moments.pop(), authors, p_up, traits), 0.0)
    pooled, horizon = pool(p_up, weights), horizons.pop()
    out: list[Opinion | Abstention] = []
    for a, symbol in enumerate(view.symbols):
        heard = [(said[a, k], float(weights[a, k])) for k in range(len(authors)) if (a, k) in said]
        if np.isnan(pooled[a]):
            reason = "no opinion clears the bar" if heard else "every analyst abstained"
            out.append(Abstention(MANAGER, view.as_of, symbol, horizon, reason))
        else:
            out.append(_verdict(view.as_of, symbol, float(pooled[a]), heard))
    return out


def _verdict(as_of: np.datetime64, symbol: str, p_up: float, heard: list[tuple[Opinion, float]]) -> Opinion:
    total = sum(w for _, w in heard)
    moved = sorted(heard, key=lambda h: -h[1] * abs(np.log(h[0].p_up) - np.log1p(-h[0].p_up)))[:CARRIED]
    with_it = [o for o, _ in moved if (o.p_up - 0.5) * (p_up - 0.5) >= 0]
    carried = " and ".join(f"{o.author} (weight {w / total:.2f}, p {o.p_up:.3f})" for o, w in moved if o in with_it)
    against = " and ".join(f"{o.author} (weight {w / total:.2f}, p {o.p_up:.3f})" for o, w in moved if o not in with_it)
    narrative = f"p {p_up:.3f} on {symbol}: carried by {carried or 'no one alone'}" + (f", against {against}" if against else "")
    caps = [o.max_weight for o, _ in heard if o.max_weight is not None]
    claims = tuple(claim for o, _ in moved for claim in o.claims)
    weights = {f"weight/{o.author}": w / total for o, w in heard}
    first = moved[0][0]
    return Opinion(
        MANAGER, as_of, symbol, first.horizon_bars, p_up, claims, narrative, first.prompt_hash, min(caps) if caps else None, weights
    )  # fmt: skip
