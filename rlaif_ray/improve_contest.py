"""A turn's block, heard by every arm: its verdicts, what they earned, and what an arm has learnt by the block's end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import ray
import torch

from rlaif_ray.agents.debate import pool
from rlaif_ray.backtest import engine
from rlaif_ray.config import Config
from rlaif_ray.core import Cube, Episode, OpinionTable
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.contest import Block
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.lessons import judged_pairs, texts_seen
from rlaif_ray.feedback.outcomes import OutcomeTable, close
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel
from rlaif_ray.feedback.weighing import Weigher
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Cycle
from rlaif_ray.strategies import BestVerdicts, EqualWeight


@dataclass(frozen=True, eq=False)
class Heard:
    """What came of a block."""

    block: Block
    verdicts: dict[str, np.ndarray]  # by arm, (D,A)
    episodes: dict[str, Episode]  # by arm, and equal weight of all names
    weighers: dict[str, Weigher]  # as they are at the block's end
    known: dict[str, int]  # first row of which each knows nothing yet


@ray.remote(num_cpus=1)
def hear(
    cube: Cube, turn: Cycle, table: OpinionTable, weighers: Mapping[str, Weigher], known: Mapping[str, int], judged_by: OutcomeTerms,
    terms: Terms, config: Config,
) -> Heard:  # fmt: skip
    """Every arm on the dates of the turn's block at which the desk spoke.

    Judged is what closed inside the block: the bars after it are the next one's, and a decision that hung on them would not be
    made before it begins.

    Parameters
    ----------
    known : by arm, the first row of which its weigher knows nothing.
    """
    torch.set_num_threads(1)
    desk = _Desk(cube, turn, table, close(table, cube, judged_by), config)
    here, outcomes = desk.dates, desk.outcomes
    closed = (outcomes.closed_row[here] < turn.block.stop)[:, None]
    block = Block(
        outcomes.opened_row[here], table.horizon_bars, np.where(closed, outcomes.residual[here], np.nan), outcomes.climatology[here],
        np.isfinite(table.p_up[here]).max(axis=-1),
    )  # fmt: skip
    said = {arm: desk.heard(weigher, known[arm]) for arm, weigher in weighers.items()}
    verdicts = {arm: p_up for arm, (p_up, _, _) in said.items()}
    walked = [EqualWeight(), *(BestVerdicts(arm, table.as_of[here], p_up) for arm, p_up in verdicts.items())]
    episodes = {policy.name: engine.run(policy, cube, turn.block, terms)[0] for policy in walked}
    return Heard(block, verdicts, episodes, {arm: w for arm, (_, w, _) in said.items()}, {arm: row for arm, (_, _, row) in said.items()})


@dataclass(frozen=True, eq=False)
class _Desk:
    """All that was said until the block's end, and what came of it."""

    cube: Cube
    turn: Cycle
    table: OpinionTable
    outcomes: OutcomeTable
    config: Config

    @cached_property
    def dates(self) -> np.ndarray:
        """(D,) of the table that lie in the block."""
        opened = self.outcomes.opened_row
        return np.flatnonzero((opened >= self.turn.block.start) & (opened < self.turn.block.stop))

    @cached_property
    def context(self) -> np.ndarray:
        return context_features(self.cube, self.outcomes.opened_row)

    @cached_property
    def pairs(self) -> PairTable:
        section = self.config.feedback
        return judged_pairs(self.outcomes, self.table, tie=section.tie, metric=section.metric)

    def verdicts(self, weigher: Weigher, dates: np.ndarray) -> np.ndarray:
        """(D,A) the manager's p_up on these dates."""
        p_up, texts = self.table.p_up[dates], texts_seen(self.table, self.config.feedback.sees)
        return pool(p_up, weigher.weights(self.context[dates], p_up, None if texts is None else texts[dates]))

    def heard(self, weigher: Weigher, known: int) -> tuple[np.ndarray, Weigher, int]:
        """(D,A) verdicts on the block's dates, and what has become of the weigher and of what it knows."""
        if self.config.improve.online and isinstance(weigher, RewardModel):
            return self._learning(weigher, known)
        return self.verdicts(weigher, self.dates), weigher, known

    def _learning(self, model: RewardModel, known: int) -> tuple[np.ndarray, RewardModel, int]:
        """(D,A) verdicts of a model that goes on learning every `update_bars` bars from what has closed, and what it has become.

        At each update it knows the outcomes that closed before the row, less the embargo: those before row `known`, which it knew,
        and those that came since.
        """
        opened, embargo, step = self.outcomes.opened_row[self.dates], self.config.backtest.embargo_bars, self.config.improve.update_bars
        out, start = [np.empty((0, len(self.table.symbols)))], self.turn.learn.start
        for row in range(self.turn.block.start, self.turn.block.stop, step):
            closed = self.pairs.inside(slice(start, row - embargo))
            new = closed.take(closed.closed_row >= known)
            if len(new):
                model, known = model.update(self.context, self.table, new, self.pairs.inside(slice(start, known))), row - embargo
            out.append(self.verdicts(model, self.dates[(opened >= row) & (opened < row + step)]))
        return np.concatenate(out), model, known
