"""Judged pairs: two authors on the same symbol, moment and evidence; the better proper score is preferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Opinion, Preference
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.outcomes import OutcomeTable

JUDGE = "closed outcomes"


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs in bulk, as learners read them: indices into an `OpinionTable`; P pairs, in time order."""

    date: np.ndarray  # (P,) index on the T axis
    asset: np.ndarray  # (P,) index on the A axis
    chosen: np.ndarray  # (P,) index on the K axis
    rejected: np.ndarray  # (P,)
    margin: np.ndarray  # (P,) score of the chosen less that of the rejected, nats, > 0
    opened_row: np.ndarray  # (P,) row of the cube
    closed_row: np.ndarray  # (P,) row from which the pair may be learnt from

    def __len__(self) -> int:
        return len(self.date)

    def take(self, which: np.ndarray) -> PairTable:
        """The pairs of a mask or index array."""
        names = ("date", "asset", "chosen", "rejected", "margin", "opened_row", "closed_row")
        return PairTable(*(getattr(self, name)[which] for name in names))

    def inside(self, rows: slice) -> PairTable:
        """Pairs that opened and closed inside `rows` (closing row < stop): all that a fit on those rows may know."""
        return self.take((self.opened_row >= rows.start) & (self.closed_row < rows.stop))


def pairs(outcomes: OutcomeTable, *, tie: float) -> PairTable:
    """Every two authors who both spoke on a symbol at a moment and were judged; score differences below `tie` nats are dropped."""
    if tie <= 0:
        raise DataError(f"tie is {tie}; expected a positive score difference below which two opinions count as equal")
    k = len(outcomes.authors)
    first, second = np.triu_indices(k, 1)
    difference = outcomes.score[:, :, first] - outcomes.score[:, :, second]  # (T,A,K(K-1)/2)
    with np.errstate(invalid="ignore"):
        date, asset, pair = np.nonzero(np.abs(difference) >= tie)
    margin = difference[date, asset, pair]
    chosen = np.where(margin > 0, first[pair], second[pair])
    rejected = np.where(margin > 0, second[pair], first[pair])
    return PairTable(date, asset, chosen, rejected, np.abs(margin), outcomes.opened_row[date], outcomes.closed_row[date])


def preference(
    table: PairTable, index: int, outcomes: OutcomeTable, opinions: Mapping[tuple[np.datetime64, str, str], Opinion]
) -> Preference[Opinion]:  # fmt: skip
    """One pair as a value. `opinions` finds an opinion by (as_of, symbol, author).

    Raises `DataError` when the two did not answer the same question from the same evidence.
    """
    t, symbol = int(table.date[index]), outcomes.symbols[int(table.asset[index])]
    moment = outcomes.as_of[t]
    chosen = opinions[moment, symbol, outcomes.authors[int(table.chosen[index])]]
    rejected = opinions[moment, symbol, outcomes.authors[int(table.rejected[index])]]
    if chosen.prompt_hash != rejected.prompt_hash:
        raise DataError(f"{chosen.author} and {rejected.author} on {symbol} at {moment} saw different evidence; expected one prompt_hash")
    return Preference(symbol, moment, chosen.prompt_hash, chosen, rejected, float(table.margin[index]), JUDGE, outcomes.closed_at[t])
