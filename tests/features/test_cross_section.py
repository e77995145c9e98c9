"""Symbols compared at one moment: by hand, and blind to what is not known yet."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Panel
from rlaif_ray.features import technical
from rlaif_ray.features.catalog import CROSS_SECTION
from rlaif_ray.features.cross_section import cross_section
from tests.laws import assert_apply, assert_pure, random_bars

DAY = dt.datetime(2024, 1, 2, 21, tzinfo=dt.UTC)


def moment(**ret_1: float) -> pl.DataFrame:
    frame = pl.DataFrame({"symbol": list(ret_1), "ret_1": list(ret_1.values())})
    return frame.with_columns(timestamp=pl.lit(DAY), known_at=pl.lit(DAY), ret_21="ret_1")


def test_excess_and_rank_by_hand() -> None:
    out = cross_section(Panel.of(moment(A=0.01, B=0.04, C=0.01, D=float("nan")))).frame
    np.testing.assert_allclose(out["ret_1_excess"], [-0.01, 0.02, -0.01, np.nan], rtol=1e-6)
    np.testing.assert_allclose(out["ret_21_rank"], [-0.25, 0.5, -0.25, np.nan])  # ranks 1.5, 3, 1.5 of three
    assert out.columns == ["symbol", "timestamp", "known_at", "ret_1_excess", "ret_21_rank"]


def test_alone_there_is_nothing_to_compare() -> None:
    out = cross_section(Panel.of(moment(A=0.01, B=float("nan")))).frame
    assert np.isnan(out.select("ret_1_excess", "ret_21_rank").to_numpy()).all()


def test_a_late_row_is_compared_with_others_but_not_they_with_it() -> None:
    late = pl.when(pl.col("symbol") == "C").then(pl.col("known_at").dt.offset_by("1d")).otherwise(pl.col("known_at"))
    out = cross_section(Panel.of(moment(A=0.01, B=0.03, C=0.08).with_columns(known_at=late))).frame
    np.testing.assert_allclose(out["ret_1_excess"], [-0.01, 0.01, 0.04], rtol=1e-6)


@pytest.mark.parametrize("t", [80, 81, 82, 83, 150])
def test_the_law(t: int) -> None:
    """Symbols that list later or leave must not change the bits of the past either."""
    frames = random_bars(np.random.default_rng(3), 200, 9).frame.partition_by("symbol")
    bars = Panel.of(pl.concat([f[20 * (i % 5) :] for i, f in enumerate(frames)]))

    def both_passes(panel: Panel) -> Panel:
        parts = [technical.apply(Panel(f)).frame for f in panel.frame.partition_by("symbol")]
        return cross_section(Panel.of(pl.concat(parts)))

    assert both_passes(bars).columns == list(CROSS_SECTION)
    assert_pure(both_passes, bars, t)
    assert_apply(both_passes, bars, t, np.random.default_rng(t))
