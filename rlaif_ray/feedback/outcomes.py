"""Was the opinion right? Closed outcomes, each judged against what anyone could have said from the symbol's own past.

The score is the logarithmic score (Good 1952; Gneiting and Raftery 2007, eq. 3) of the stated probability less that of
the climatological forecast, in nats: proper, so only the true belief maximises its expectation, and 0 for who adds
nothing. What the implied trade earned is kept apart from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Cube, Opinion, OpinionTable, Outcome
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.execution.simulator import DELISTING_RECOVERY

# Pseudo-outcomes on each side of the climatological forecast. With one on each side its own estimation error, about
# 1/(2n) nats after n outcomes, is larger than any analyst's skill, and who always says 0.5 would look clever.
PRIOR = 50.0


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """Outcomes in bulk, beside the `OpinionTable` that they judge. NaN where nothing was said or nothing has closed."""

    as_of: np.ndarray  # (T,) datetime64[us] when the opinions were given
    opened_row: np.ndarray  # (T,) int64 row of the cube
    closed_row: np.ndarray  # (T,) int64 row at whose decision moment the outcome is known; may lie beyond the data
    closed_at: np.ndarray  # (T,) datetime64[us]; NaT where not closed
    symbols: tuple[str, ...]
    authors: tuple[str, ...]
    horizon_bars: int
    residual: np.ndarray  # (T,A) simple return over the horizon less the equal-weight mean
    climatology: np.ndarray  # (T,A) p_up from the symbol's outcomes closed by as_of
    score: np.ndarray  # (T,A,K) nats
    gross: np.ndarray  # (T,A,K) signed residual return of the implied unit position
    cost: np.ndarray  # (T,A,K) of opening and closing it, fraction of the notional
    net: np.ndarray  # (T,A,K)

    @property
    def hit(self) -> np.ndarray:
        """(T,A,K) 1 where the stated direction came true, 0 where not, NaN where none was stated or closed."""
        return np.where(np.isnan(self.gross) | (self.gross == 0), np.nan, self.gross > 0)

    def of(self, opinion: Opinion) -> Outcome:
        """The outcome of one opinion of the table; `MissingDataError` while it is open."""
        t = int(np.searchsorted(self.as_of, opinion.as_of))
        if t >= len(self.as_of) or self.as_of[t] != opinion.as_of or opinion.author not in self.authors:
            raise MissingDataError(f"no outcome for {opinion.author} on {opinion.symbol} at {opinion.as_of}; it is not in this table")
        at = t, self.symbols.index(opinion.symbol), self.authors.index(opinion.author)
        if np.isnan(self.score[at]):
            who = f"{opinion.author} on {opinion.symbol} at {opinion.as_of}"
            raise MissingDataError(f"{who} is open: {self.horizon_bars} bars have not passed, or a price is missing")
        return Outcome(
            opinion.id, opinion.author, opinion.symbol, opinion.as_of, self.closed_at[t], self.horizon_bars, float(self.score[at]),
            float(self.gross[at]), float(self.cost[at]), float(self.net[at]),
        )  # fmt: skip


def close(opinions: OpinionTable, cube: Cube, *, cost_per_side: float) -> OutcomeTable:
    """Judge every opinion whose horizon has closed inside the cube; the others stay open.

    Parameters
    ----------
    opinions : p_up (T,A,K) given at decision moments of the cube's rows, on its symbols. They are also what the climatology
        knows: give the whole record, and pick the rows of interest from what comes back.
    cost_per_side : fraction of the notional paid on each of the two fills of the implied position.

    Raises `DataError` where the table and the cube do not speak of the same symbols and moments.
    """
    if opinions.symbols != cube.symbols:
        raise DataError(f"opinions on {len(opinions.symbols)} symbols meet a cube of {len(cube.symbols)}; expected the same ones, in order")
    opened = np.searchsorted(cube.known_at, opinions.as_of)
    if len(opened) and (opened.max() >= len(cube.times) or (cube.known_at[opened] != opinions.as_of).any()):
        raise DataError("an opinion was given between two decision moments of the cube; expected its as_of to be one of known_at")
    last, h = len(cube.times) - 1, opinions.horizon_bars
    closed = opened + h
    residual = residual_returns(cube, opened, h)
    climatology = climatological(residual, opened, closed, PRIOR)
    score, gross = judge(opinions.p_up, residual, climatology)
    cost = np.where(np.isnan(gross), np.nan, 2.0 * cost_per_side * (opinions.p_up != 0.5))
    closed_at = np.where(closed <= last, cube.known_at[np.minimum(closed, last)], np.datetime64("NaT", "us"))
    return OutcomeTable(
        opinions.as_of, opened, closed, closed_at, opinions.symbols, opinions.authors, h, residual, climatology, score,
        gross, cost, gross - cost,
    )  # fmt: skip


def residual_returns(cube: Cube, rows: np.ndarray, horizon_bars: int) -> np.ndarray:
    """(R,A) simple total return from the close of each row to the close `horizon_bars` later, less the universe's mean.

    The universe is what could be traded at the opening row and had a return since; a symbol that is delisted on the
    way stays in it with what the simulator leaves of it. NaN where the horizon ends beyond the cube or the symbol had
    no price.
    """
    returns = total_returns(cube)
    gone = np.logical_or.accumulate(cube.delisted, axis=0)
    returns[gone] = 0.0
    returns[1:][gone[1:] & ~gone[:-1]] = DELISTING_RECOVERY - 1.0
    t_rows = len(cube.times)
    whole = rows + horizon_bars < t_rows
    growth = np.ones((len(rows), len(cube.symbols)))
    priced = np.isfinite(cube.close[np.minimum(rows, t_rows - 1)])
    for step in range(1, horizon_bars + 1):
        growth *= 1.0 + returns[np.minimum(rows + step, t_rows - 1)]
    total = np.where(whole[:, None] & priced, growth - 1.0, np.nan)
    members = cube.tradable[np.minimum(rows, t_rows - 1)] & np.isfinite(total)
    count = members.sum(axis=1)
    mean = np.where(members, total, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(count[:, None] > 1, total - mean[:, None], np.nan)


def climatological(residual: np.ndarray, opened: np.ndarray, closed: np.ndarray, prior: float) -> np.ndarray:
    """(T,A) for each symbol and opening: (ups + prior) / (outcomes + 2 prior) over the outcomes closed by then."""
    known = np.isfinite(residual)
    ups = np.vstack([np.zeros(residual.shape[1]), np.cumsum(known & (residual > 0), axis=0)])
    counts = np.vstack([np.zeros(residual.shape[1]), np.cumsum(known, axis=0)])
    before = np.searchsorted(closed, opened, side="right")  # closed at or before this opening's decision moment
    return (ups[before] + prior) / (counts[before] + 2.0 * prior)


def judge(p_up: np.ndarray, residual: np.ndarray, climatology: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score in nats and signed residual return, both (T,A,K), of p_up (T,A,K) against residual and climatology (T,A)."""
    up = np.where(np.isnan(residual), np.nan, residual > 0)[..., None]
    won = np.where(up > 0, p_up, 1.0 - p_up)
    usual = np.where(up > 0, climatology[..., None], 1.0 - climatology[..., None])
    score = np.where(np.isnan(up), np.nan, np.log(won) - np.log(usual))
    return score, np.sign(p_up - 0.5) * residual[..., None]
