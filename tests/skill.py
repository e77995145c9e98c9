"""Worlds whose opinions have a known chance of being right: by regime, by kind of reasoning and by the quality of its claims."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.outcomes import OutcomeTable, judge
from rlaif_ray.feedback.preferences import PairTable, pairs
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.scoring import climatological

AUTHORS = ("A", "B", "C")
IN_TREND, IN_CHOP = (0.70, 0.50, 0.45), (0.45, 0.50, 0.70)
COIN = (0.5, 0.5, 0.5)
HORIZON = 5  # bars; dates do not share any


@dataclass(frozen=True, eq=False)
class World:
    """T dates, A names, K authors. Context is the regime, +1 in a trend and -1 in a chop, seen with noise, and a column of noise."""

    context: np.ndarray  # (T,A,2)
    opinions: OpinionTable
    outcomes: OutcomeTable
    pairs: PairTable
    chance: np.ndarray  # (T,A,K) of being right: what the generator knows and nobody else
    good: np.ndarray  # (T,A,K) bool: the claims are good ones

    def split(self, dates: int) -> tuple[PairTable, PairTable]:
        """Pairs of the first `dates`, and of the others."""
        return self.pairs.take(self.pairs.date < dates), self.pairs.take(self.pairs.date >= dates)


def settings(world: World, *, masked: bool = False, **others) -> Settings:
    """A model that reads all, or all but who speaks."""
    sees = ("context", "stance", "text") if masked else ("context", "stance", "author", "text")
    return Settings(AUTHORS, ("regime", "noise"), world.opinions.trait_names, sees=sees, **others)


def skill(
    seed: int, *, dates: int = 400, names: int = 25, in_trend: tuple[float, ...] = IN_TREND, in_chop: tuple[float, ...] = IN_CHOP,
    quality: float = 0.05, wandering: bool = False, bold: tuple[float, ...] = (0.1, 0.1, 0.1),
) -> World:  # fmt: skip
    """Everyone names a side and is right as often as stated, shifted by the quality of their claims.

    Parameters
    ----------
    quality : that a good claim adds to the chance of being right, and a poor one takes from it. A trait tells which it is.
    wandering : the skills change hands with every question. Traits tell what kind of reasoning it is, so that nothing is
        known by who speaks and all by what is said.
    bold : distance of each author's p_up from a half.
    """
    rng = np.random.default_rng(seed)
    shape = dates, names, len(AUTHORS)
    trend = np.repeat(rng.random(-(-dates // 10)) < 0.5, 10)[:dates]
    kind = np.broadcast_to(np.arange(3), shape)
    if wandering:
        kind = rng.permuted(kind, axis=-1)
    good = rng.random(shape) < 0.5
    chance = np.where(trend[:, None, None], np.array(in_trend)[kind], np.array(in_chop)[kind]) + np.where(good, quality, -quality)
    up = rng.random((dates, names)) < 0.5
    says_up = (rng.random(shape) < chance) == up[..., None]
    p_up = np.where(says_up, 0.5 + np.array(bold), 0.5 - np.array(bold))
    traits = {"quality": np.where(good, 1.0, -1.0)}
    if wandering:
        traits |= {"follows": kind == 0, "fades": kind == 2}
    residual = np.where(up, 0.01, -0.01) * rng.uniform(0.5, 1.5, up.shape)
    moments = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * HORIZON * np.arange(dates)
    symbols = tuple(f"S{i}" for i in range(names))
    opinions = OpinionTable(
        moments, symbols, AUTHORS, p_up, HORIZON, traits=np.stack(list(traits.values()), axis=-1).astype(np.float32),
        trait_names=tuple(traits),
    )  # fmt: skip
    outcomes = closed(opinions, residual)
    context = np.stack([np.where(trend, 1.0, -1.0)[:, None] + 0.3 * rng.standard_normal(up.shape), rng.standard_normal(up.shape)], axis=-1)
    return World(context, opinions, outcomes, pairs(outcomes, tie=0.01), chance, good)


def closed(opinions: OpinionTable, residual: np.ndarray) -> OutcomeTable:
    """Outcomes of opinions on residual returns (T,A) that are given."""
    climatology = climatological(residual, 1)
    score, gross = judge(opinions.p_up, residual, climatology)
    opened, cost = HORIZON * np.arange(len(residual)), np.full(gross.shape, 0.0007)
    return OutcomeTable(
        opinions.as_of, opened, opened + HORIZON, opinions.as_of + np.timedelta64(HORIZON, "D"), opinions.symbols, opinions.authors,
        HORIZON, residual, climatology, score, gross, cost, gross - cost, (gross - cost) / 0.01, np.maximum(-gross, 0.0),
        np.sign(gross), np.zeros(residual.shape, np.int8),
    )  # fmt: skip


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def verdict_scores(world: World, model: RewardModel, dates: slice) -> tuple[np.ndarray, np.ndarray]:
    """(T,A) scores of the weighed verdict and of its equal-weights twin on some dates."""
    from rlaif_ray.agents.debate import pool

    o, out = world.opinions, world.outcomes
    traits = None if o.traits is None else o.traits[dates]
    weights = model.weights(world.context[dates], o.p_up[dates], traits)
    both = np.stack([pool(o.p_up[dates], w) for w in (weights, np.ones_like(weights))], axis=-1)
    score, _ = judge(both, out.residual[dates], out.climatology[dates])
    return score[..., 0], score[..., 1]
