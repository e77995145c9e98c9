"""What a model of texts reads of an opinion: the question, the same for all who answered it, and the answer.

Who speaks and when is left out: neither is a reason. (A narrative that names its author still does.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Opinion, OpinionTable
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.preferences import CLIMATOLOGY, PairTable

BASE_RATE = "as often as in the past"  # the answer of the climatological forecast


def words_of(names: Sequence[str], values: np.ndarray) -> str:
    """A context in words: names (C,) and values (C,) at three digits; what is not known is left out."""
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values.tolist(), strict=True) if np.isfinite(value))


def question_of(opinion: Opinion, context_words: str) -> str:
    """What was asked, and what the market was like: equal for all who answered it."""
    asked = f"question: {opinion.symbol} against its peers over {opinion.horizon_bars} bars?"
    return f"{asked} context: {context_words}." if context_words else asked


def text_of(opinion: Opinion, context_words: str) -> str:
    """Question, stance and chance, claims with their values, narrative; a text that is too long loses its end."""
    answer = f"answer: {opinion.stance.replace('_', ' ')}, {opinion.p_up:.3f} up."
    claims = "; ".join(f"{c.feature} {c.value:.3g}, {c.statement}" for c in opinion.claims)
    parts = [question_of(opinion, context_words), answer, f"claims: {claims}." if claims else "", opinion.narrative]
    return " ".join(part for part in parts if part)


def base_rate_text(opinion: Opinion, context_words: str) -> str:
    """What the climatological forecast answers to the question that `opinion` answered."""
    return f"{question_of(opinion, context_words)} answer: {BASE_RATE}."


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Judged pairs of texts, each pair on one question; P pairs."""

    chosen: tuple[str, ...]  # (P,)
    rejected: tuple[str, ...]  # (P,)
    weight: np.ndarray  # (P,) > 0

    def __post_init__(self) -> None:
        if not len(self.chosen) == len(self.rejected) == len(self.weight):
            raise DataError(f"{len(self.chosen)} chosen, {len(self.rejected)} rejected texts, {len(self.weight)} weights; expected as many")
        if not (np.isfinite(self.weight) & (self.weight > 0)).all():
            raise DataError("the weight of a pair of texts is not above 0; leave such pairs out")

    def __len__(self) -> int:
        return len(self.chosen)


def text_pairs(
    pairs: PairTable, opinions: OpinionTable, said: Mapping[tuple[np.datetime64, str, str], Opinion], words: Callable[[int, int], str]
) -> TextPairs:  # fmt: skip
    """The texts of judged pairs.

    Parameters
    ----------
    opinions : whose axes the pairs index.
    said : single opinions by (as_of, symbol, author), the author being the name of a column of `opinions`.
    words : the context in words at (index on the T axis, index on the A axis), see `words_of`.

    Raises `DataError` where the text of a pair is not in `said`.
    """

    def text(p: int, side: int, other: int) -> str:
        date, asset = int(pairs.date[p]), int(pairs.asset[p])
        voice = other if side == CLIMATOLOGY else side
        key = opinions.as_of[date], opinions.symbols[asset], opinions.authors[voice]
        if key not in said:
            raise DataError(f"no opinion of {key[2]} on {key[1]} at {key[0]} is at hand; a pair of texts needs both")
        return (base_rate_text if side == CLIMATOLOGY else text_of)(said[key], words(date, asset))

    sides = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    chosen = tuple(text(p, better, worse) for p, (better, worse) in enumerate(sides))
    rejected = tuple(text(p, worse, better) for p, (better, worse) in enumerate(sides))
    return TextPairs(chosen, rejected, pairs.weight.astype(float))
