"""Ray makes the same features as a loop, writes them once, and says what a source does not allow."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features import catalog, on_ray, technical
from rlaif_ray.features.cross_section import cross_section
from tests.laws import random_bars


@pytest.fixture
def bars() -> Panel:
    return random_bars(np.random.default_rng(8), 300, 3)


def local(bars: Panel) -> Panel:
    """The same in one process."""
    own = Panel.of(pl.concat([technical.apply(Panel(f)).frame for f in bars.frame.partition_by("symbol")], how="diagonal"))
    return Panel.of(own.frame.join(cross_section(own).frame, on=["symbol", "timestamp", "known_at"]))


def stored(lake: Lake) -> pl.DataFrame:
    own, across = lake.read(on_ray.TABLE), lake.read(on_ray.ACROSS)
    return own.join(across, on=["symbol", "timestamp", "known_at"], validate="1:1")


def test_ray_equals_local_and_a_second_pass_adds_nothing(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", bars.frame, "all")
    first = on_ray.compute(lake, bars.symbols)
    again = on_ray.compute(lake, bars.symbols, bars_version=lake.version("bars"))
    assert stored(lake).equals(local(bars).frame)
    assert first.rows == bars.frame.height and first.added == 2 * first.rows and again.added == 0
    assert first.names == catalog.TECHNICAL + catalog.CROSS_SECTION and first.absent == ()
    assert (again.data_version, again.names) == (first.data_version, first.names)


def test_new_bars_append_new_rows_only(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    lake = Lake(str(tmp_path), "test")
    cut = bars.frame["timestamp"].unique().sort()[200]
    lake.append("bars", bars.frame.filter(pl.col("timestamp") <= cut), "all")
    on_ray.compute(lake, bars.symbols)
    lake.append("bars", bars.frame, "all")
    assert on_ray.compute(lake, bars.symbols).added == 2 * bars.frame.filter(pl.col("timestamp") > cut).height
    assert stored(lake).equals(local(bars).frame)


def test_what_a_source_lacks_is_absent_and_named(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    """The first symbol has closes only, and no one has a volume."""
    missing = pl.when(pl.col("symbol") != bars.symbols[0])
    frame = bars.frame.with_columns(*[missing.then(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:3]], volume=pl.lit(None, pl.Float64))
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", frame, "all")
    made = on_ray.compute(lake, bars.symbols)
    frame = stored(lake)
    assert set(made.names) == {c for c in frame.columns[3:] if frame[c].null_count() < frame.height}
    assert "volume_z_21_rank" in made.absent and "mfi_14" in made.absent and "natr_14" in made.names
    of_first = frame.filter(pl.col("symbol") == bars.symbols[0])
    assert of_first["natr_14"].null_count() == of_first.height and of_first["rsi_14"].is_not_nan().any()


def test_the_first_symbols_error_is_raised_as_it_is(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    lake = Lake(str(tmp_path), "test")
    bad = pl.when(pl.col("symbol") == "S01").then(-pl.col("close")).otherwise("close")
    lake.append("bars", bars.frame.with_columns(close=bad), "all")
    with pytest.raises(DataError, match="S01: close is -"):
        on_ray.compute(lake, [*bars.symbols, "S99"])
    with pytest.raises(MissingDataError, match="no bars of 'S99'"):
        on_ray.compute(lake, ["S00", "S99"])


def test_a_bar_restated_later_freezes_no_feature(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    """What a decision could have seen is the first value; the restated one would hide its bar and all that runs through it."""
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", bars.frame, "all")
    fresh = on_ray.compute(lake, bars.symbols)
    later = bars.frame["known_at"].max()
    assert isinstance(later, dt.datetime)
    restated = bars.frame[100:101].with_columns(pl.col("volume") * 2.0)
    assert lake.append("bars", restated, "all", revised_at=later + dt.timedelta(days=30)) == 1
    again = on_ray.compute(lake, bars.symbols)
    assert (again.added, again.data_version) == (0, fresh.data_version)
    assert stored(lake).equals(local(bars).frame)
