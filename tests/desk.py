"""Markets that a desk of analysts can be asked about, and opinions whose skill is planted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlaif_ray.agents import analysts, build
from rlaif_ray.config import Agents
from rlaif_ray.core import Abstention, Cube, Opinion, OpinionTable
from rlaif_ray.feedback.outcomes import OutcomeTable, judge
from rlaif_ray.feedback.scoring import climatological
from tests.laws import random_cube

ROSTER = Agents().roster
READS = analysts.reads(ROSTER)


def desk_cube(seed: int, rows: int = 300, assets: int = 4, names: tuple[str, ...] = READS) -> Cube:
    """A random market whose features bear the names that the analysts read, in plausible ranges; unrelated to its prices."""
    rng = np.random.default_rng(seed)
    cube = random_cube(rng, rows, assets, 0)
    shape = rows, assets
    columns = {
        "filing_score": rng.standard_normal(shape), "filing_age_bars": rng.integers(0, 90, shape),
        "news_score": rng.standard_normal(shape), "news_age_bars": rng.integers(0, 20, shape),
        "ret_5_excess": 0.04 * rng.standard_normal(shape), "vol_21": rng.uniform(0.01, 0.04, shape),
        "rsi_14": rng.uniform(20, 80, shape), "volume_z_21": rng.standard_normal(shape), "drawdown_252": -rng.uniform(0, 0.4, shape),
    }  # fmt: skip
    features = np.stack([columns[n] for n in names], axis=-1).astype(np.float32) if names else np.empty((*shape, 0), np.float32)
    features[: rows // 20] = np.nan
    return replace(cube, features=features, feature_names=names)


def ask(cube: Cube, every_bars: int = 5, roster: tuple[str, ...] = ROSTER) -> list[Opinion | Abstention]:
    """What the desk says on every `every_bars`-th row."""
    section = Agents(roster=roster)  # pyright: ignore[reportArgumentType]
    views = [analysts.view_at(cube, row) for row in range(0, len(cube.times), every_bars)]
    return [said for analyst in build(section) for said in analyst.opine(views)]


def dense(cube: Cube, every_bars: int = 5) -> OpinionTable:
    return OpinionTable.of(ask(cube, every_bars), cube.symbols, ROSTER)


@dataclass(frozen=True)
class Planted:
    """Opinions whose chance of being right is known: context (T,A,1) is +1 in a trend and -1 in a chop, with noise."""

    context: np.ndarray
    p_up: np.ndarray
    outcomes: OutcomeTable


def planted(seed: int, right_in_trend: tuple[float, ...], right_in_chop: tuple[float, ...], dates: int = 400, assets: int = 10) -> Planted:
    """Each author names a side with modest confidence and is right as often as stated, by regime (dates in spells of 10)."""
    rng = np.random.default_rng(seed)
    trend = np.repeat(rng.random(dates // 10) < 0.5, 10)
    up = rng.random((dates, assets)) < 0.5
    chance = np.where(trend[:, None, None], right_in_trend, right_in_chop)
    says_up = (rng.random((dates, assets, len(right_in_trend))) < chance) == up[..., None]
    p_up = np.where(says_up, 0.5, -0.5) * rng.uniform(0.1, 0.3, says_up.shape) + 0.5
    residual = np.where(up, 0.01, -0.01) * rng.uniform(0.5, 1.5, up.shape)
    opened = 5 * np.arange(dates)
    climatology = climatological(residual, 1)  # dates do not share bars
    score, gross = judge(p_up, residual, climatology)
    moments = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * opened
    authors = tuple("ABCDEFG"[: len(right_in_trend)])
    cost, symbols = np.full(gross.shape, 0.0007), tuple(f"S{i}" for i in range(assets))
    closed_at, net = moments + np.timedelta64(5, "D"), gross - cost
    outcomes = OutcomeTable(
        moments, opened, opened + 5, closed_at, symbols, authors, 5, residual, climatology, score, gross, cost, net,
        net / 0.01, np.maximum(-gross, 0.0), np.sign(gross), np.zeros(residual.shape, np.int8),
    )  # fmt: skip
    context = np.where(trend, 1.0, -1.0)[:, None, None] + 0.3 * rng.standard_normal((dates, assets, 1))
    return Planted(context, p_up, outcomes)
