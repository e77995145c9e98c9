"""Facts in the order in which they were said: what is new, and what is said again."""

from __future__ import annotations

import polars as pl

from rlaif_ray.data.tables import TABLES
from rlaif_ray.errors import SchemaError

DAY = "%Y-%m-%d"
A_DAY, A_NUMBER = "a day such as 2020-01-31", "a number"


def first_said(facts: pl.DataFrame) -> pl.DataFrame:
    """Rows that say something new of their key, its first value and then every other one, in the order of keys and `known_at`.

    Parameters
    ----------
    facts : the table's key columns, `known_at` and `value`, in the order in which they were said.

    What is said of a period that is not over (plans, slips of a year) counts as known when it is. Where a later row is known
    no later than an earlier one, the earlier one never stood alone and is left out.
    """
    key = TABLES["facts"].keys
    moment = pl.max_horizontal("known_at", "timestamp").reverse().cum_min().reverse().over(key)
    told = facts.with_columns(known_at=moment).unique((*key, "known_at"), keep="last", maintain_order=True)
    return told.filter(pl.col("value").ne_missing(pl.col("value").shift(1).over(key))).sort(*key, "known_at")


def all_read(said: pl.DataFrame, read: pl.DataFrame, of: str, **expected: str) -> None:
    """Raise `SchemaError` with the first cell of the columns `expected` that is something as it was said, and nothing as it was read."""
    for name, what in expected.items():
        lost = (read[name].is_null() & said[name].is_not_null()).arg_true()
        if len(lost):
            raise SchemaError(f"{of}: {name} is {said[name][lost[0]]!r} in {said.row(lost[0])}; expected {what}")
