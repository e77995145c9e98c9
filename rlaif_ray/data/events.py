"""Splits and dividends: total returns, the forward-adjusted series, and what a vendor had done to prices before.

A split of ratio s on bar k turns one share held at the close of k-1 into s shares before the open of k; a dividend d
on bar k pays d USD for each share as traded on bar k, to who held at the close of k-1. So the total return of bar k is

    TR[k] / TR[k-1] = split[k] * (close[k] + dividend[k]) / close[k-1]

which is what an account that reinvests at the close of k earns. Pure and causal: a later event never changes an earlier
value.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from rlaif_ray.core import Cube
from rlaif_ray.errors import DataError

SMALLEST_SPLIT = 0.05  # |log ratio| of a split whose jump stands out from a day's noise
DISAGREEMENT = 0.2  # share of split days that may speak against the rest


def forward_adjust(close: np.ndarray, split: np.ndarray, dividend: np.ndarray) -> np.ndarray:
    """Total-return factor anchored at the first bar: `adjusted close = close * factor`.

    Parameters
    ----------
    close, split, dividend : (T,) or (T,A) float64, raw USD a share, shares after/before, USD a share.

    Returns
    -------
    The same shape; the first row is 1 (events on it lie before the series). Where the close is NaN only the split counts.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        step = np.where(np.isfinite(close), split * (close + dividend) / close, split)
    step[:1] = 1.0
    return np.cumprod(step, axis=0)


def total_returns(cube: Cube) -> np.ndarray:
    """(T,A) float64 simple total return of each bar, close t-1 to close t; NaN on row 0, before listing, from delisting on."""
    returns = np.full(cube.close.shape, np.nan)
    returns[1:] = cube.splits[1:] * (cube.close[1:] + cube.dividends[1:]) / cube.close[:-1] - 1.0
    return returns


def as_first_told(revisions: pl.DataFrame) -> pl.DataFrame:
    """Bars in their first revisions, one row a (symbol, timestamp).

    A split or dividend that a later revision adds to a bar counts on the first bar that was known no earlier than the event:
    until then nobody could have booked it. A dividend is a share as traded on its own bar, so splits in between divide it.

    Parameters
    ----------
    revisions : bars with `known_at`, `split` and `dividend`, all revisions, sorted by symbol, timestamp and order of knowledge.
    """
    bars = revisions.unique(("symbol", "timestamp"), keep="first", maintain_order=True)
    if bars.height == revisions.height:
        return bars
    before = pl.col("split", "dividend").shift().over("symbol", "timestamp").name.suffix(":before")
    told = revisions.with_columns(before).filter(
        (pl.col("split") != pl.col("split:before")) | (pl.col("dividend") != pl.col("dividend:before"))
    )
    splits = bars.select("symbol", "timestamp", "known_at", splits=pl.col("split").cum_prod().over("symbol")).with_row_index("row")
    told = told.join(splits.select("symbol", "timestamp", was="splits"), on=["symbol", "timestamp"]).sort("known_at")
    counts = told.join_asof(
        splits.drop("timestamp").sort("known_at"), on="known_at", by="symbol", strategy="forward", check_sortedness=False
    ).drop_nulls("row").group_by("row").agg(
        factor=(pl.col("split") / pl.col("split:before")).product(),
        more=((pl.col("dividend") - pl.col("dividend:before")) * pl.col("was") / pl.col("splits")).sum(),
    )  # fmt: skip
    late = bars.with_row_index("row").join(counts, on="row", how="left", maintain_order="left")
    return late.with_columns(
        split=pl.col("split") * pl.col("factor").fill_null(1.0), dividend=pl.col("dividend") + pl.col("more").fill_null(0.0)
    ).select(revisions.columns)


def split_evidence(close: np.ndarray, split: np.ndarray) -> tuple[int, int]:
    """(split days, those on which the close itself jumped by the ratio): n of n says raw prices, 0 of n split-adjusted.

    On each split day the smaller of two moves is taken for the true one: with the ratio applied, and without.
    """
    ratio = np.log(split[1:])
    move = np.diff(np.log(close))
    days = np.abs(ratio) >= SMALLEST_SPLIT
    jumped = np.abs(move + ratio) < np.abs(move)
    return int(days.sum()), int((days & jumped).sum())


def price_kind(days: int, jumps: int) -> str:
    """`raw` or `split_adjusted`, from the split days of a whole set. Without any the prices are taken as they are: raw.

    Raises `DataError` where the days contradict each other.
    """
    minority = min(jumps, days - jumps)
    if minority > max(1, DISAGREEMENT * days):
        raise DataError(
            f"closes jump by the ratio on {jumps} of {days} split days; expected all (raw) or none (split_adjusted): set data.adjustment"
        )
    return "raw" if 2 * jumps >= days else "split_adjusted"
