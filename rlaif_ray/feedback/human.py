"""What people think of two opinions: kept apart, with who said it and where, until somebody else has looked at it.

A label is quarantined from the moment that it is given. It leaves when a second person accepts it, and may be learnt from
only from then on. Labels and reviews are added and never changed: who changes their mind says so in a new one, and of what
one person said of two opinions only the last counts.

The loop does not learn from released labels by itself yet: `preferences_of` hands them, as preferences, to who does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from rlaif_ray.core import Opinion, Preference, content_hash
from rlaif_ray.errors import DataError, MissingDataError

Verdict = Literal["accept", "reject"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MARGIN = 1.0  # a person says which is better, not by how much

_MOMENT = pa.timestamp("us", "UTC")
# At rest; `timestamp` and `known_at` are both the moment at which it was said.
HUMAN_SCHEMA = pa.schema([
    ("id", pa.string()), ("symbol", pa.string()), ("timestamp", _MOMENT), ("known_at", _MOMENT), ("as_of", _MOMENT),
    ("prompt_hash", pa.string()), ("chosen", pa.string()), ("rejected", pa.string()), ("by", pa.string()), ("channel", pa.string()),
    ("note", pa.string()),
])  # fmt: skip
REVIEW_SCHEMA = pa.schema([
    ("id", pa.string()), ("timestamp", _MOMENT), ("known_at", _MOMENT), ("label", pa.string()), ("by", pa.string()),
    ("verdict", pa.string()), ("reason", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class HumanLabel:
    """A person's word that one opinion is better than another on the same question."""

    given_at: np.datetime64  # UTC
    by: str
    channel: str  # where it was said: a form, a command line, a review meeting
    symbol: str
    as_of: np.datetime64  # of both opinions
    prompt_hash: str  # of the question that both answer
    chosen: str  # id of the opinion, as the caller names opinions
    rejected: str
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("given_at", "as_of"):  # one unit, so that equal moments hash alike
            object.__setattr__(self, name, _moment(getattr(self, name), f"{name} of a label"))
        if not (self.by.strip() and self.channel.strip()):
            raise DataError(f"a label by {self.by!r} through {self.channel!r}; expected who gave it and where: `by` and `channel`")
        if self.chosen == self.rejected:
            raise DataError(f"{self.by} prefers opinion {self.chosen} to itself; expected two opinions")
        if self.given_at < self.as_of:
            raise DataError(f"{self.by} judged at {self.given_at} opinions of {self.as_of}, which are later; expected given_at >= as_of")

    @cached_property
    def id(self) -> str:
        return content_hash(self)


@dataclass(frozen=True)
class Review:
    """A second person's word on a label."""

    label: str  # id of a `HumanLabel`
    at: np.datetime64  # UTC
    by: str
    verdict: Verdict
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _moment(self.at, "moment of a review"))
        if not self.by.strip():
            raise DataError(f"a review of label {self.label} by {self.by!r}; expected who reviewed it")
        if self.verdict not in VERDICTS:
            raise DataError(f"{self.by} reviews label {self.label} with {self.verdict!r}; expected one of {', '.join(VERDICTS)}")

    @cached_property
    def id(self) -> str:
        return content_hash(self)


@dataclass(frozen=True)
class Released:
    """A label that may be learnt from, and the review that let it out."""

    label: HumanLabel
    review: Review

    @property
    def usable_from(self) -> np.datetime64:
        return self.review.at


@dataclass(frozen=True)
class Release:
    """What has left the quarantine by a moment, and why the rest has not: every label and review is in one place."""

    labels: tuple[Released, ...]  # by the moment of release
    held: Mapping[str, str]  # label id -> why it stays
    ignored: Mapping[str, str]  # review id -> why it does not count


def released(labels: Sequence[HumanLabel], reviews: Sequence[Review], *, as_of: np.datetime64) -> Release:
    """Labels whose last review by `as_of` is somebody else's acceptance, and that are the last word of who gave them.

    Of labels by one person on the same two opinions, whichever they prefer, the last given by `as_of` counts, reviewed or
    not: who has changed their mind no longer says what they said before. (At one moment the larger id is the last.)

    Reviews after `as_of` do not count yet, whatever they say: a fit that ends at `as_of` could not have known them. Of
    reviews at the same moment a rejection is the last. Raises `DataError` for a label or a review that is there twice.
    """
    known = {label.id: label for label in labels}
    for name, ids in (("label", [x.id for x in labels]), ("review", [x.id for x in reviews])):
        twice = [x for x, n in Counter(ids).items() if n > 1]
        if twice:
            raise DataError(f"{name} {twice[0]} is there {ids.count(twice[0])} times; expected every {name} once")
    ignored: dict[str, str] = {}
    last: dict[str, Review] = {}
    for review in sorted(reviews, key=lambda r: (r.at, r.verdict == "reject", r.id)):
        why = _why_ignored(review, known.get(review.label), as_of)
        if why:
            ignored[review.id] = why
        else:
            last[review.label] = review
    word = _last_words(labels, as_of)
    held = {label.id: why for label in labels if (why := _why_held(label, last.get(label.id), word, as_of))}
    free = [Released(label, last[label.id]) for label in labels if label.id not in held]
    return Release(tuple(sorted(free, key=lambda r: (r.usable_from, r.label.id))), held, ignored)


def _person(by: str) -> str:
    return by.strip().casefold()


def _about(label: HumanLabel) -> tuple[str, frozenset[str]]:
    """Who said it and of which two opinions, whichever of them is preferred."""
    return _person(label.by), frozenset((label.chosen, label.rejected))


def _last_words(labels: Iterable[HumanLabel], as_of: np.datetime64) -> dict[tuple[str, frozenset[str]], HumanLabel]:
    """By person and two opinions, the last label given by `as_of`."""
    return {_about(x): x for x in sorted(labels, key=lambda x: (x.given_at, x.id)) if x.given_at <= as_of}


def _why_ignored(review: Review, label: HumanLabel | None, as_of: np.datetime64) -> str:
    if label is None:
        return f"there is no label {review.label}"
    if _person(review.by) == _person(label.by):
        return f"{review.by} gave the label; expected a review by somebody else"
    if review.at < label.given_at:
        return f"it was made at {review.at}, before the label was given at {label.given_at}"
    return f"it is of {review.at}, after {as_of}" if review.at > as_of else ""


def _why_held(
    label: HumanLabel, review: Review | None, word: Mapping[tuple[str, frozenset[str]], HumanLabel], as_of: np.datetime64
) -> str:  # fmt: skip
    if label.given_at > as_of:
        return f"given at {label.given_at}, after {as_of}"
    if review is None:
        return "nobody else has reviewed it"
    if review.verdict == "reject":
        return f"rejected by {review.by}: {review.reason or 'no reason given'}"
    last = word[_about(label)]
    return "" if last == label else f"superseded by {last.id}, given by {last.by} at {last.given_at}"


def preferences_of(released: Iterable[Released], opinions: Mapping[str, Opinion]) -> list[Preference[Opinion]]:
    """Released labels as preferences, in their order. `opinions` finds an opinion by its id.

    The judge is `human:<who gave the label>`, `closed_at` the moment of the review. Raises `MissingDataError` for an
    opinion that is not there and `DataError` where the label and its opinions are not about one question.
    """
    out = []
    for one in released:
        label = one.label
        chosen, rejected = (_opinion(label, side, opinions) for side in (label.chosen, label.rejected))
        out.append(Preference(label.symbol, label.as_of, label.prompt_hash, chosen, rejected, MARGIN, f"human:{label.by}", one.usable_from))
    return out


def _opinion(label: HumanLabel, opinion_id: str, opinions: Mapping[str, Opinion]) -> Opinion:
    if opinion_id not in opinions:
        raise MissingDataError(f"label {label.id} by {label.by} is about opinion {opinion_id}, which is not among {len(opinions)} opinions")
    opinion = opinions[opinion_id]
    seen = opinion.symbol, opinion.as_of, opinion.prompt_hash
    asked = label.symbol, label.as_of, label.prompt_hash
    if seen != asked:
        raise DataError(f"label {label.id} by {label.by} is about {asked}, its opinion {opinion_id} about {seen}; expected one question")
    return opinion


def labels_to_arrow(labels: Sequence[HumanLabel]) -> pa.Table:
    """Rows of `HUMAN_SCHEMA`, in the order given."""
    return _table(HUMAN_SCHEMA, [
        (x.id, x.symbol, x.given_at, x.given_at, x.as_of, x.prompt_hash, x.chosen, x.rejected, x.by, x.channel, x.note) for x in labels
    ])  # fmt: skip


def labels_of_arrow(table: pa.Table) -> list[HumanLabel]:
    """The inverse of `labels_to_arrow`. Raises `DataError` for a row that does not say what its id was made from."""
    return [
        _as_stored(HumanLabel(
            row["timestamp"], row["by"], row["channel"], row["symbol"], row["as_of"], row["prompt_hash"], row["chosen"],
            row["rejected"], row["note"],
        ), row["id"])
        for row in _rows(table)
    ]  # fmt: skip


def reviews_to_arrow(reviews: Sequence[Review]) -> pa.Table:
    """Rows of `REVIEW_SCHEMA`, in the order given."""
    return _table(REVIEW_SCHEMA, [(x.id, x.at, x.at, x.label, x.by, x.verdict, x.reason) for x in reviews])


def reviews_of_arrow(table: pa.Table) -> list[Review]:
    """The inverse of `reviews_to_arrow`. Raises `DataError` for a row that does not say what its id was made from."""
    return [_as_stored(Review(r["label"], r["timestamp"], r["by"], r["verdict"], r["reason"]), r["id"]) for r in _rows(table)]


def _table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([_column(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def _column(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    return pa.array(np.array(values, "datetime64[us]") if dtype == _MOMENT else values, dtype)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with their moments as numpy's: UTC, whatever they were stored in."""
    moments = {f.name: table[f.name].to_numpy().astype("datetime64[us]") for f in table.schema if pa.types.is_timestamp(f.type)}
    return [{**row, **{name: at[i] for name, at in moments.items()}} for i, row in enumerate(table.to_pylist())]


def _as_stored(value: Any, stored: str) -> Any:
    if value.id != stored:
        raise DataError(f"a {type(value).__name__} by {value.by} is stored as {stored} but says what hashes to {value.id}: it was changed")
    return value


def _moment(at: np.datetime64, what: str) -> np.datetime64:
    """In microseconds; a moment that is none is refused."""
    if not isinstance(at, np.datetime64) or np.isnat(at):
        raise DataError(f"the {what} is {at!r}; expected a numpy datetime64 in UTC")
    return at.astype("datetime64[us]")
