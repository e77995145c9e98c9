"""Judged pairs: two voices on the same symbol, moment and evidence; the better proper score is preferred.

The climatological forecast is a rival of every opinion. Its score is 0 by definition and it takes no position, so what is
learnt from pairs has a zero: better than what anyone could have said.

Which pairs there are hangs on what was said, and not on what came of it: were only outcomes kept that tell two voices far
apart, one side's could all be dropped, and the worse of the two would be preferred every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numba import float32, float64, int8, int64, njit, types, uint64, void

from rlaif_ray.core import Opinion, OpinionTable, Preference, Voice
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.sample_weights import average_uniqueness

JUDGE = "closed outcomes"
CLIMATOLOGY = -1
KINDS = ("analysts", "origins", "rounds", "samples", "climatology")
HEADS = ("outcome", "risk", "brevity")


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs in bulk, as learners read them: indices into an `OpinionTable`; P pairs, in time order."""

    date: np.ndarray  # (P,) index on the T axis
    asset: np.ndarray  # (P,) index on the A axis
    chosen: np.ndarray  # (P,) index on the K axis; `CLIMATOLOGY` where the forecast that all are held against was better
    rejected: np.ndarray  # (P,)
    margin: np.ndarray  # (P,) metric of the chosen less that of the rejected, > 0
    opened_row: np.ndarray  # (P,) row of the cube
    closed_row: np.ndarray  # (P,) row from which the pair may be learnt from
    weight: np.ndarray  # (P,) in (0, 1]: what a pair says that no other does, for horizons that overlap
    kind: np.ndarray  # (P,) int8 index into `KINDS`
    agrees: np.ndarray  # (P,H) int8, by `HEADS`: +1 the chosen is better there too, -1 worse, 0 equal or not known; climatology
    # is held against in the first alone: who takes no position has no drawdown, and would win the second every time

    def __len__(self) -> int:
        return len(self.date)

    @property
    def rivals(self) -> np.ndarray:
        """(P,) bool: pairs of two voices, without those against the climatological forecast."""
        return self.kind != KINDS.index("climatology")

    def take(self, which: np.ndarray) -> PairTable:
        """The pairs of a mask or index array, with the weights that they have."""
        return PairTable(*(getattr(self, field.name)[which] for field in fields(self)))

    def of_kind(self, *kinds: str) -> PairTable:
        """Pairs of some of `KINDS`."""
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown:
            raise DataError(f"there are no pairs of kind {unknown[0]!r}; expected some of {', '.join(KINDS)}")
        return self.take(np.isin(self.kind, [KINDS.index(kind) for kind in kinds]))

    def inside(self, rows: slice) -> PairTable:
        """Pairs that opened and closed inside `rows` (closing row < stop): all that a fit on those rows may know.

        They are weighed anew, among themselves: whether a pair that closes later is there at all depends on what nobody
        knows yet, so it may not share in the weight of one that closed.
        """
        known = self.take((self.opened_row >= rows.start) & (self.closed_row < rows.stop))
        return replace(known, weight=_uniqueness(known.date, known.asset, known.opened_row, known.closed_row))


def pairs(
    outcomes: OutcomeTable, *, tie: float, metric: Literal["score"] | np.ndarray = "score", opinions: OpinionTable | None = None
) -> PairTable:  # fmt: skip
    """Every two voices who answered one question and were judged, and every voice against the climatological forecast.

    Parameters
    ----------
    tie : two opinions nearer than that are equally good, and make no pair. Of opinions judged by the score of their p_up it
        is the larger of both possible differences that counts, had it gone up and had it gone down: what came of it chooses
        no pairs, and the mean margin keeps the sign of the expected difference. By another metric, or of opinions that said
        quantiles, what the other outcome would have been worth is not known, and the actual difference decides.
    metric : the score, or any (T,A,K) array of which more is better, on a scale where the climatological forecast, which
        takes no position, stands at 0. Only where the outcome has closed is it looked at.
    opinions : what the outcomes judge; tells who is which voice, what each was asked (voices asked differently make no
        pair) and how many words they used. Without it every author is an analyst of their own, and all were asked alike.

    Time and memory grow with T A K^2. Raises `DataError` where opinions or metric do not fit the outcomes.
    """
    if not tie > 0:
        raise DataError(f"tie is {tie}; expected a positive difference of the metric below which two opinions count as equal")
    if opinions is not None and (opinions.authors, opinions.symbols) != (outcomes.authors, outcomes.symbols):
        raise DataError("the opinions are of other authors or symbols than the outcomes; expected the table that they judge")
    if opinions is not None and not np.array_equal(opinions.as_of, outcomes.as_of):
        raise DataError("the opinions were given at other moments than the outcomes judge; expected the table that they judge")
    voices = opinions.voices if opinions is not None and opinions.voices else tuple(map(Voice, outcomes.authors))
    first, second, kinds = _rivals(voices)
    figures = _worth(outcomes, metric), _other(outcomes, metric, opinions), outcomes.drawdown
    worth, other, drawdown = (np.ascontiguousarray(x, np.float64) for x in figures)
    prompts, words = _asked(opinions, worth.shape), _words(opinions, worth.shape)
    size = _count(worth, other, prompts, first, second, tie)
    sides, margin, kind = np.empty((4, size), np.int64), np.empty(size), np.empty(size, np.int8)
    agrees = np.empty((size, len(HEADS)), np.int8)
    _fill(worth, other, prompts, drawdown, words, first, second, kinds, tie, sides, margin, kind, agrees)
    date, asset, chosen, rejected = sides
    opened, closed = outcomes.opened_row[date], outcomes.closed_row[date]
    weight = _uniqueness(date, asset, opened, closed)
    return PairTable(date, asset, chosen, rejected, margin, opened, closed, weight, kind, agrees)


def preference(
    table: PairTable, index: int, outcomes: OutcomeTable, opinions: Mapping[tuple[np.datetime64, str, str], Opinion]
) -> Preference[Opinion]:  # fmt: skip
    """One pair of two voices as a value. `opinions` finds an opinion by (as_of, symbol, name of its voice).

    Raises `DataError` for a pair against the climatological forecast, which is nobody's opinion, and when the two did not
    answer the same question from the same evidence.
    """
    t, symbol = int(table.date[index]), outcomes.symbols[int(table.asset[index])]
    moment = outcomes.as_of[t]
    sides = int(table.chosen[index]), int(table.rejected[index])
    if CLIMATOLOGY in sides:
        raise DataError(f"pair {index}, {symbol} at {moment}, is against the climatological forecast: no opinion; take `rivals` first")
    chosen, rejected = (opinions[moment, symbol, outcomes.authors[side]] for side in sides)
    if chosen.prompt_hash != rejected.prompt_hash:
        names = f"{chosen.voice.name} and {rejected.voice.name}"
        raise DataError(f"{names} on {symbol} at {moment} saw different evidence; expected one prompt_hash")
    return Preference(symbol, moment, chosen.prompt_hash, chosen, rejected, float(table.margin[index]), JUDGE, outcomes.closed_at[t])


def _worth(outcomes: OutcomeTable, metric: Literal["score"] | np.ndarray) -> np.ndarray:
    """(T,A,K) of which more is better; NaN where nothing has closed, whatever a metric of its own says there."""
    if isinstance(metric, str):
        return outcomes.score
    if metric.shape != outcomes.score.shape:
        raise DataError(f"the metric has shape {metric.shape}; expected (T,A,K) = {outcomes.score.shape} as the outcomes have")
    return np.where(np.isfinite(outcomes.score) & np.isfinite(metric), metric, np.nan)


def _other(outcomes: OutcomeTable, metric: Literal["score"] | np.ndarray, opinions: OpinionTable | None) -> np.ndarray:
    """(T,A,K) score of each p_up had the outcome been the other one; NaN where that is not known.

    What was said is read from the score: p = u exp(score) of what came, u being what climatology said of it.
    """
    if not isinstance(metric, str):
        return np.full(outcomes.score.shape, np.nan)
    usual = np.where(outcomes.residual > 0, outcomes.climatology, 1.0 - outcomes.climatology)[..., None]
    missed = 1.0 - usual * np.exp(outcomes.score)
    known = missed > 0
    if opinions is not None and opinions.quantiles is not None:
        known &= ~np.isfinite(opinions.quantiles).all(axis=-1)
    return np.where(known, np.log(np.where(known, missed, 1.0)) - np.log(1.0 - usual), np.nan)


def _rivals(voices: tuple[Voice, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of both sides and kind of all rivalries (R,): every two voices, then every voice against climatology."""
    first, second = np.triu_indices(len(voices), 1)
    kinds = [_kind(voices[i], voices[j]) for i, j in zip(first, second, strict=True)] + ["climatology"] * len(voices)
    against = np.full(len(voices), CLIMATOLOGY)
    codes = np.array([KINDS.index(kind) for kind in kinds], np.int8)
    return np.concatenate([first, np.arange(len(voices))]), np.concatenate([second, against]), codes


def _kind(a: Voice, b: Voice) -> str:
    if a.origin != b.origin:
        return "origins"
    if a.author != b.author:
        return "analysts"
    return "rounds" if a.round != b.round else "samples"


def _asked(opinions: OpinionTable | None, shape: tuple[int, ...]) -> np.ndarray:
    """(T,A,K) uint64 what each was asked; all the same where it is not said."""
    if opinions is None or opinions.prompts is None:
        return np.zeros(shape, np.uint64)
    return np.ascontiguousarray(opinions.prompts)


def _words(opinions: OpinionTable | None, shape: tuple[int, ...]) -> np.ndarray:
    """(T,A,K) float32 log of the number of words; all the same where there are no texts."""
    if opinions is None or opinions.traits is None or "log_words" not in opinions.trait_names:
        return np.zeros(shape, np.float32)
    return np.ascontiguousarray(opinions.traits[..., opinions.trait_names.index("log_words")])


def _uniqueness(date: np.ndarray, asset: np.ndarray, opened_row: np.ndarray, closed_row: np.ndarray) -> np.ndarray:
    """(P,) average uniqueness of each pair's horizon among those of its symbol's other dates (see `sample_weights`).

    The horizon's bars are those after the opening row up to the closing one. All pairs of a symbol and date share one.
    """
    if not len(date):
        return np.zeros(0)
    opened, closed = np.zeros((2, date.max() + 1), np.int64)
    opened[date], closed[date] = opened_row, closed_row
    there = np.zeros((len(opened), asset.max() + 1), bool)
    there[date, asset] = True
    weight = np.ones(there.shape)
    for a in np.flatnonzero(there.any(axis=0)):
        dates = np.flatnonzero(there[:, a])
        start = opened[dates].min()
        weight[dates, a] = average_uniqueness(opened[dates] + 1 - start, closed[dates] - start, int(closed[dates].max() - start) + 1)
    return weight[date, asset]


# --- kernels ------------------------------------------------------------------------------------------------------

_WORTH, _PROMPTS, _WORDS = (types.Array(kind, 3, "C", readonly=True) for kind in (float64, uint64, float32))
_COLUMNS, _KINDS = (types.Array(kind, 1, "C", readonly=True) for kind in (int64, int8))


@njit(float64(_WORTH, _WORTH, _PROMPTS, int64, int64, int64, int64, float64), cache=True)
def _gap(worth, other, prompts, t, a, i, j, tie):  # pragma: no cover
    """By how much voice i is better than j; 0 where neither outcome tells them apart by `tie`, or they make no pair."""
    if j == CLIMATOLOGY:
        gap, otherwise = worth[t, a, i], other[t, a, i]
    elif prompts[t, a, i] == prompts[t, a, j]:
        gap, otherwise = worth[t, a, i] - worth[t, a, j], other[t, a, i] - other[t, a, j]
    else:
        gap, otherwise = 0.0, 0.0
    return gap if abs(gap) >= tie or (abs(gap) > 0.0 and abs(otherwise) >= tie) else 0.0


@njit(int64(_WORTH, _WORTH, _PROMPTS, _COLUMNS, _COLUMNS, float64), cache=True)
def _count(worth, other, prompts, first, second, tie):  # pragma: no cover
    """Pairs that `_fill` will find."""
    found = 0
    for t in range(worth.shape[0]):
        for a in range(worth.shape[1]):
            for r in range(len(first)):
                found += _gap(worth, other, prompts, t, a, first[r], second[r], tie) != 0.0
    return found


@njit(
    void(
        _WORTH, _WORTH, _PROMPTS, _WORTH, _WORDS, _COLUMNS, _COLUMNS, _KINDS, float64, int64[:, ::1], float64[::1], int8[::1],
        int8[:, ::1],
    ),
    cache=True,
)  # fmt: skip
def _fill(worth, other, prompts, drawdown, words, first, second, kinds, tie, sides, margin, kind, agrees):  # pragma: no cover
    """Date, asset, chosen and rejected, margin, kind and heads. Climatology has neither a position nor a text to compare."""
    p = 0
    for t in range(worth.shape[0]):
        for a in range(worth.shape[1]):
            for r in range(len(first)):
                i, j = first[r], second[r]
                gap = _gap(worth, other, prompts, t, a, i, j, tie)
                if gap == 0.0:
                    continue
                way = 1 if gap > 0.0 else -1
                risk = 0.0 if j == CLIMATOLOGY else drawdown[t, a, j] - drawdown[t, a, i]
                length = 0.0 if j == CLIMATOLOGY else words[t, a, j] - words[t, a, i]
                sides[0, p], sides[1, p] = t, a
                sides[2, p], sides[3, p] = (i, j) if way > 0 else (j, i)
                margin[p], kind[p] = abs(gap), kinds[r]
                agrees[p, 0] = 1
                agrees[p, 1] = way * ((risk > 0.0) - (risk < 0.0))
                agrees[p, 2] = way * ((length > 0.0) - (length < 0.0))
                p += 1
