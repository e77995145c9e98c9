"""Facts in the order in which they were said: what is new, and what is said again."""

from __future__ import annotations

import polars as pl

from rlaif_ray.data.tables import TABLES


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
