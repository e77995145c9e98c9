"""What people think of two opinions, in the lake: labels in quarantine and reviews of them, each kept as it was given."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from rlaif_ray.core import Opinion, Preference
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.opinions import opinions
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.feedback.human import (
    HUMAN_SCHEMA,
    REVIEW_SCHEMA,
    HumanLabel,
    Review,
    labels_of_arrow,
    labels_to_arrow,
    preferences_of,
    released,
    reviews_of_arrow,
    reviews_to_arrow,
)

LABELS, REVIEWS = "human_labels", "human_reviews"


def add_label(
    lake: Lake, chosen: str, rejected: str, *, by: str, channel: str, note: str, given_at: np.datetime64
) -> HumanLabel:  # fmt: skip
    """Put a person's word on two opinions of the lake into quarantine. What they are about is read from the opinions.

    Raises `MissingDataError` for an opinion that is not there, `DataError` for two that do not answer one question.
    """
    found = opinions(lake, {chosen, rejected})
    first, second = found[chosen], found[rejected]
    asked = [(o.symbol, o.as_of, o.prompt_hash) for o in (first, second)]
    if asked[0] != asked[1]:
        said = " and ".join(f"{o.author} on {o.symbol} at {o.as_of}" for o in (first, second))
        raise DataError(f"{said} do not answer one question from one evidence; expected two opinions with one prompt_hash")
    label = HumanLabel(given_at, by, channel, first.symbol, first.as_of, first.prompt_hash, chosen, rejected, note)
    _append(lake, LABELS, labels_to_arrow([label]))
    return label


def add_review(lake: Lake, review: Review) -> None:
    """Add a second person's word. Raises `MissingDataError` for an unknown label, `DataError` for a review by who gave it."""
    label = next((label for label in labels(lake) if label.id == review.label), None)
    if label is None:
        raise MissingDataError(f"no label {review.label} in {lake.uri}/{lake.dataset}; expected an id that `rlaif feedback list` shows")
    if label.by.strip().casefold() == review.by.strip().casefold():
        raise DataError(f"{review.by} gave label {label.id}; expected a review by somebody else")
    _append(lake, REVIEWS, reviews_to_arrow([review]))


def labels(lake: Lake) -> list[HumanLabel]:
    """All that were ever given, in order of time."""
    return labels_of_arrow(_read(lake, LABELS, HUMAN_SCHEMA))


def reviews(lake: Lake) -> list[Review]:
    """All that were ever made, in order of time."""
    return reviews_of_arrow(_read(lake, REVIEWS, REVIEW_SCHEMA))


def human_preferences(lake: Lake, as_of: np.datetime64) -> list[Preference[Opinion]]:
    """What had left the quarantine by `as_of`, as preferences: all of it that may be learnt from then."""
    free = released(labels(lake), reviews(lake), as_of=as_of).labels
    return preferences_of(free, opinions(lake, {x for one in free for x in (one.label.chosen, one.label.rejected)}))


def _append(lake: Lake, table: str, rows: pa.Table) -> None:
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    lake.append(table, frame, frame["by"][0])


def _read(lake: Lake, table: str, schema: pa.Schema) -> pa.Table:
    return lake.read(table).select(schema.names).to_arrow().cast(schema) if table in lake.tables() else schema.empty_table()
