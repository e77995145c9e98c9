"""What the loop found: every turn, and all its blocks together, from the folders that its contests left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray.backtest import metrics
from rlaif_ray.backtest.engine import concatenate
from rlaif_ray.backtest.episodes import read_episode, write_episode
from rlaif_ray.backtest.significance import edge
from rlaif_ray.core import Cube, Episode
from rlaif_ray.feedback.contest import Block, standing
from rlaif_ray.feedback.evidence import paired_gain
from rlaif_ray.feedback.intervals import Interval
from rlaif_ray.folds import Cycle
from rlaif_ray.results import BENCHMARK
from rlaif_ray.runs import seed_for

OFFICE, CHALLENGER, TRACK_RECORD, EQUAL = "in_office", "challenger", "track_record", "equal_weights"
ARMS = (OFFICE, CHALLENGER, TRACK_RECORD, EQUAL)
GAINS = ((OFFICE, EQUAL), (CHALLENGER, EQUAL), (TRACK_RECORD, EQUAL), (CHALLENGER, TRACK_RECORD))
EARNED = ("excess_log_return", "excess_sharpe", "sharpe", "annual_return", "max_drawdown", "turnover", "cost_drag")


def write_block(folder: Path, block: Block, verdicts: Mapping[str, np.ndarray], episodes: Mapping[str, Episode]) -> None:
    """What a contest was judged on, so that the blocks of all turns can be judged together."""
    arrays: dict[str, Any] = {**vars(block), **{f"p_up/{arm}": p_up for arm, p_up in verdicts.items()}}
    np.savez_compressed(folder / "block.npz", **arrays)
    for name, episode in episodes.items():
        write_episode(folder / f"{name}.npz", episode)


def found(cube: Cube, turns: Sequence[Cycle], contests: Sequence[Path], *, resamples: int, seed: int) -> dict[str, Any]:
    """Every turn, each arm over all blocks together, and the gains of one over another, from the contests' folders in order."""
    blocks, episodes = [_read_block(c) for c in contests], {n: [read_episode(c / f"{n}.npz") for c in contests] for n in (*ARMS, BENCHMARK)}
    whole, year = {name: concatenate(parts) for name, parts in episodes.items()}, cube.bars_per_year
    together, verdicts = _joined(blocks)

    def drawn(use: str) -> dict[str, int]:
        return {"resamples": resamples, "seed": seed_for(seed, f"improve/{use}")}

    return {
        "cycles": [
            _turn(cube, turn, contests[k], {a: _earned(episodes[a][k], episodes[BENCHMARK][k], year, **drawn("earned")) for a in ARMS})
            for k, turn in enumerate(turns)
        ],
        "overall": {
            arm: standing(verdicts[arm], together, **drawn("overall"))
            | _earned(whole[arm], whole[BENCHMARK], year, **drawn("earned"))
            for arm in ARMS
        },
        "gains": {f"{a} over {b}": _gain(together, verdicts[a], verdicts[b], **drawn("gains")) for a, b in GAINS},
        "test": {
            "from": _day(cube.times[turns[0].block.start]), "to": _day(cube.times[turns[-1].block.stop - 1]),
            "bars": len(whole[EQUAL].times),
        },
    }


def _turn(cube: Cube, turn: Cycle, folder: Path, earned: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    spans = {"learn": turn.learn, "block": turn.block}
    days = {name: [_day(cube.times[rows.start]), _day(cube.times[rows.stop - 1])] for name, rows in spans.items()}
    said = json.loads((folder / "contest.json").read_text())
    return {"cycle": turn.number, **days, **said, "arms": {arm: said["arms"][arm] | earned[arm] for arm in ARMS}}


def _earned(episode: Episode, benchmark: Episode, bars_per_year: float, *, resamples: int, seed: int) -> dict[str, Any]:
    """What the third of names that an arm thinks most of earned after costs, over equal weight of all."""
    row = metrics.summary(episode, benchmark, bars_per_year=bars_per_year, resamples=resamples, seed=seed)
    claim = edge(episode.returns, benchmark.returns, resamples=resamples, seed=seed)
    a_year = {k: v * bars_per_year for k, v in row["excess_log_return"].items()}
    return {**{name: row[name] for name in EARNED}, "excess_annual_log_return": a_year, "edge": claim.claim}


def _gain(block: Block, p_up: np.ndarray, other: np.ndarray, *, resamples: int, seed: int) -> Interval:
    ours, theirs = block.score(p_up), block.score(other)
    return paired_gain(ours, theirs, block.opened_row, block.horizon_bars, resamples=resamples, seed=seed)


def _joined(blocks: Sequence[tuple[Block, dict[str, np.ndarray]]]) -> tuple[Block, dict[str, np.ndarray]]:
    parts = [b for b, _ in blocks]
    fields = ("opened_row", "residual", "climatology", "spoken")
    whole = {f: np.concatenate([getattr(b, f) for b in parts]) for f in fields}
    return Block(horizon_bars=parts[0].horizon_bars, **whole), {arm: np.concatenate([v[arm] for _, v in blocks]) for arm in ARMS}


def _read_block(folder: Path) -> tuple[Block, dict[str, np.ndarray]]:
    with np.load(folder / "block.npz") as saved:
        fields = {f: saved[f] for f in ("opened_row", "residual", "climatology", "spoken")}
        return Block(horizon_bars=int(saved["horizon_bars"]), **fields), {arm: saved[f"p_up/{arm}"] for arm in ARMS}


def _day(moment: Any) -> str:
    return str(np.datetime64(moment, "D"))
