"""Bars as a decision at each of them could have seen them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from rlaif_ray.data.bar_tables import PriceKind
from rlaif_ray.data.events import as_first_told
from rlaif_ray.data.lake import Lake


def bars_as_decided(
    lake: Lake, symbols: Sequence[str], price_kind: PriceKind, version: int | None = None, *, start: dt.date | None = None,
    end: dt.date | None = None,
) -> pl.DataFrame:  # fmt: skip
    """One row a bar, as `Lake.read` gives them.

    A raw bar is what was first known: one restated years later would be unknown at its own moment, and so would every
    indicator that runs through it; only a split or dividend that is told later must not be lost (`events.as_first_told`).
    Adjusted histories are rewritten by each event and were never point in time: of them the latest revision counts.
    """
    if price_kind != "raw":
        return lake.read("bars", symbols, version, start=start, end=end)
    return as_first_told(lake.read("bars", symbols, version, revision="all", start=start, end=end))
