"""What a table does not say yet: which rows of a frame are new, which revise, and from when on."""

from __future__ import annotations

import datetime as dt

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.tables import Table

REVISION = "revision"


def news(stored: pl.DataFrame, frame: pl.DataFrame, kind: Table, revised_at: dt.datetime | None) -> pl.DataFrame:
    """Rows of `frame` that `stored` does not say yet, with their revision numbers.

    Parameters
    ----------
    stored : all revisions of the keys that `frame` touches, with `revision`.
    frame : rows without `revision`, once a key (tables with `versions`: once a key and `known_at`).
    revised_at : from when on a revision is known that does not say so itself; None: its `known_at` stays as given.
    """
    if not stored.height and not kind.versions:
        return frame.with_columns(pl.lit(0, pl.Int32).alias(REVISION))
    pick = _unsaid_versions if kind.versions else _changed
    values = [c for c in frame.columns if c not in (*kind.keys, "known_at")]
    return pick(stored, frame, kind.keys, values, revised_at).select(*frame.columns, pl.col(REVISION).cast(pl.Int32))


def _changed(
    stored: pl.DataFrame, frame: pl.DataFrame, keys: tuple[str, ...], values: list[str], revised_at: dt.datetime | None
) -> pl.DataFrame:  # fmt: skip
    """The frame says what holds now: it is held against the last that the table says of a key.

    A revision is known no earlier than what it revises, whatever it says itself.
    """
    last = stored.sort("known_at", REVISION).unique(subset=keys, keep="last")
    both = frame.join(last, on=keys, how="left", suffix=":old", maintain_order="left", nulls_equal=True)
    new = pl.col(REVISION).is_null()
    changed = pl.any_horizontal(pl.lit(False), *[pl.col(c).ne_missing(pl.col(f"{c}:old")) for c in values])
    told_later = pl.col("known_at") > pl.col("known_at:old")
    moment = pl.max_horizontal(pl.col("known_at") if revised_at is None else pl.lit(revised_at, UTC), "known_at:old")
    return both.filter(new | changed).with_columns(
        pl.when(new | told_later).then("known_at").otherwise(moment).alias("known_at"), pl.col(REVISION).fill_null(-1) + 1
    )  # fmt: skip


def _unsaid_versions(
    stored: pl.DataFrame, frame: pl.DataFrame, keys: tuple[str, ...], values: list[str], revised_at: dt.datetime | None
) -> pl.DataFrame:  # fmt: skip
    """The frame tells all versions of a key, each with its moment: those that say no more than the one before are left out.

    Where the source says something else of a moment than the table does, what was served stands. If it is the newest that
    the source has, it is a revision known at `revised_at`.
    """
    said = stored.group_by(*keys, *values).agg(until=pl.col("known_at").max())
    both = pl.concat([stored.with_columns(told=pl.lit(False)), frame.with_columns(told=pl.lit(True))], how="diagonal")
    both = both.sort(*keys, "known_at", "told", REVISION)
    of_key = _alike(keys, 1)
    judged = both.with_columns(
        again=of_key & _alike(values, 1), clash=of_key & _alike(["known_at"], 1), newest=~_alike(keys, -1),
        number=pl.col(REVISION).max().over(keys).fill_null(-1),
    )  # fmt: skip
    fresh = judged.filter(pl.col("told") & ~pl.col("again") & (~pl.col("clash") | pl.col("newest")))
    fresh = fresh.join(said, on=[*keys, *values], how="left", nulls_equal=True, maintain_order="left")
    fresh = fresh.filter(pl.col("until").is_null() | (pl.col("until") < pl.col("known_at")))
    moment = pl.col("known_at") if revised_at is None else pl.lit(revised_at, UTC)
    return fresh.with_columns(
        pl.when("clash").then(moment).otherwise("known_at").alias("known_at"),
        (pl.col("number") + pl.int_range(1, pl.len() + 1).over(keys)).alias(REVISION),
    )


def _alike(columns: tuple[str, ...] | list[str], step: int) -> pl.Expr:
    """Whether a row agrees with the one `step` before it in all `columns`; nulls agree, the edge of the frame does not."""
    edge = pl.int_range(pl.len()).shift(step).is_null()
    return ~edge & pl.all_horizontal(pl.lit(True), *[pl.col(c).eq_missing(pl.col(c).shift(step)) for c in columns])
