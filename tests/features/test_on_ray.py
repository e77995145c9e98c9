"""Ray makes the same features as a loop, writes what is new and nothing else, and reads no symbol that did not change."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import KEYS, PRICE_COLUMNS, Panel
from rlaif_ray.data import builds
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.features import across_on_ray, on_ray
from rlaif_ray.features.catalog import Catalog, feature_set
from rlaif_ray.features.on_ray import Built
from tests.laws import random_bars

CATALOG = Catalog()
OWN, ACROSS = CATALOG.sets
SECTORS = {"S00": "banks", "S01": "mines", "S02": "banks"}


@pytest.fixture
def bars() -> Panel:
    return random_bars(np.random.default_rng(8), 300, 3)


@pytest.fixture
def lake(ray_session: None, tmp_path: Path, bars: Panel) -> Lake:
    lake = Lake(str(tmp_path / "lake"), "test")
    lake.append("bars", bars.frame, "all")
    return lake


def build(lake: Lake, symbols: Sequence[str], catalog: Catalog | None = None, **terms: Any) -> Built:
    return on_ray.build(lake, symbols, catalog, sectors=SECTORS, **terms)


def local(bars: Panel, sets: tuple[str, str] = (OWN, ACROSS)) -> pl.DataFrame:
    """The same in one process."""
    catalog = Catalog(sets)
    parts = [feature_set(sets[0]).apply({"bars": f}, catalog.specs(sets[0])).frame for f in bars.frame.partition_by("symbol")]
    own = Panel.of(pl.concat(parts, how="diagonal")).frame
    tables = {"features": own, "sectors": pl.DataFrame({"symbol": list(SECTORS), "sector": list(SECTORS.values())})}
    return own.join(feature_set(sets[1]).apply(tables, catalog.specs(sets[1])).frame, on=KEYS, maintain_order="left")


def stored(lake: Lake) -> pl.DataFrame:
    own, across = lake.read(f"features_{OWN}"), lake.read(f"features_{ACROSS}")
    return own.join(across, on=KEYS, validate="1:1", maintain_order="left")


def halves(bars: Panel) -> tuple[pl.DataFrame, pl.DataFrame]:
    cut = bars.frame["timestamp"].unique().sort()[200]
    return bars.frame.filter(pl.col("timestamp") <= cut), bars.frame.filter(pl.col("timestamp") > cut)


def restated(bars: Panel, factor: float) -> tuple[pl.DataFrame, dt.datetime]:
    """The hundredth bar of the first symbol said again a month after the end."""
    end = bars.frame["known_at"].max()
    assert isinstance(end, dt.datetime)
    return bars.frame[100:101].with_columns(pl.col("volume") * factor), end + dt.timedelta(days=30)


def test_ray_equals_a_loop_and_a_second_build_reads_nothing(lake: Lake, bars: Panel) -> None:
    first = build(lake, bars.symbols)
    assert stored(lake).equals(local(bars))
    assert first.rows == bars.frame.height and first.added == 2 * first.rows and first.untouched == 0
    assert first.names == CATALOG.names() and first.absent == ()
    shutil.rmtree(Path(lake.uri) / "test" / "bars" / "symbol=S01")  # whoever reads it now fails
    again = build(lake, bars.symbols)
    assert (again.added, again.untouched, again.data_version, again.versions) == (0, 4, first.data_version, first.versions)


def test_new_bars_append_new_rows_of_their_symbols_only(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    before, after = halves(bars)
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", before, "all")
    build(lake, bars.symbols)
    lake.append("bars", after.filter(pl.col("symbol") == "S02"), "S02")
    shutil.rmtree(tmp_path / "test" / "bars" / "symbol=S01")
    built = build(lake, bars.symbols)
    moved = after.filter(pl.col("symbol") == "S02").height
    assert (built.added, built.untouched, built.rewritten) == (2 * moved, 2, ())
    whole = Panel.of(pl.concat([before, after.filter(pl.col("symbol") == "S02")]))
    assert stored(lake).equals(local(whole))


def test_day_by_day_is_the_same_as_at_once(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    before, after = halves(bars)
    lake = Lake(str(tmp_path), "test")
    for day in (before, *after.partition_by("timestamp", maintain_order=True)[:3]):
        lake.append("bars", day, "day")
        built = build(lake, bars.symbols)
    whole = Panel.of(lake.read("bars"))
    assert stored(lake).equals(local(whole))
    fresh = Lake(str(tmp_path), "fresh")
    fresh.append("bars", whole.frame, "all")
    assert build(fresh, bars.symbols).data_version == built.data_version


def test_a_revision_rewrites_its_symbol_and_is_named(lake: Lake, bars: Panel) -> None:
    """Of adjusted histories the latest revision counts, so that stored features do not follow any more."""
    build(lake, bars.symbols, price_kind="split_adjusted")
    row, at = restated(bars, 3.0)
    assert lake.append("bars", row, "S00", revised_at=at) == 1
    built = build(lake, bars.symbols, price_kind="split_adjusted")
    assert built.rewritten == (f"features_{OWN} of S00", f"features_{ACROSS} of *") and built.untouched == 2
    now = local(Panel.of(lake.read("bars")))
    for name in CATALOG.sets:  # a value that is what it was is known since it was
        table = lake.read(f"features_{name}").drop("known_at")
        assert table.equals(now.select(table.columns)), name


def test_a_raw_bar_restated_later_moves_no_feature(lake: Lake, bars: Panel) -> None:
    """What a decision could have seen is the first value; the restated one would hide its bar and all that runs through it."""
    fresh = build(lake, bars.symbols)
    row, at = restated(bars, 2.0)
    assert lake.append("bars", row, "S00", revised_at=at) == 1
    again = build(lake, bars.symbols)
    assert (again.added, again.rewritten, again.data_version) == (0, (), fresh.data_version)
    assert stored(lake).equals(local(bars))


def test_what_a_source_lacks_is_absent_and_named(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    """The first symbol has closes only, and no one has a volume."""
    missing = pl.when(pl.col("symbol") != bars.symbols[0])
    frame = bars.frame.with_columns(*[missing.then(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:3]], volume=pl.lit(None, pl.Float64))
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", frame, "all")
    made = build(lake, bars.symbols)
    table = stored(lake)
    assert set(made.names) == {c for c in table.columns[3:] if table[c].null_count() < table.height}
    assert "volume_z_21_rank" in made.absent and "mfi_14" in made.absent and "natr_14" in made.names
    of_first = table.filter(pl.col("symbol") == bars.symbols[0])
    assert of_first["natr_14"].null_count() == of_first.height and of_first["rsi_14"].is_not_nan().any()


def test_columns_in_units_of_price_mean_nothing_on_adjusted_prices(lake: Lake, bars: Panel) -> None:
    made = build(lake, bars.symbols, Catalog((OWN,)), price_kind="vendor_adjusted")
    assert {"sma_50", "obv"} <= set(made.absent) and "sma_distance_50" in made.names


def test_the_first_symbols_error_is_raised_as_it_is(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    lake = Lake(str(tmp_path), "test")
    bad = pl.when(pl.col("symbol") == "S01").then(-pl.col("close")).otherwise("close")
    lake.append("bars", bars.frame.with_columns(close=bad), "all")
    with pytest.raises(DataError, match="S01: close is -"):
        build(lake, [*bars.symbols, "S99"])
    with pytest.raises(MissingDataError, match="no bars of 'S99'"):
        build(lake, ["S00", "S99"])


def test_other_periods_lie_in_a_table_of_their_own(lake: Lake, bars: Panel) -> None:
    catalog = Catalog((OWN,), {"rsi": ((3,), (9,))})
    made = build(lake, bars.symbols, catalog)
    (table,) = (t for t in made.versions if t != "bars")
    assert table.startswith(f"features_{OWN}_") and {"rsi_3", "rsi_9"} <= set(made.names) and "rsi_14" not in made.names
    build(lake, bars.symbols, Catalog((OWN,)))
    assert "rsi_14" in lake.read(f"features_{OWN}").columns and "rsi_3" in lake.read(table).columns
    with pytest.raises(ConfigError, match="Did you mean 'rsi'"):
        Catalog((OWN,), {"rsj": ((3,),)})


def test_a_set_that_compares_brings_what_it_compares(lake: Lake, bars: Panel) -> None:
    made = build(lake, bars.symbols, Catalog((ACROSS,)))
    assert set(made.versions) == {f"features_{OWN}", f"features_{ACROSS}"}


def test_a_set_without_its_facts_is_refused_before_anything_is_made(lake: Lake, bars: Panel) -> None:
    with pytest.raises(MissingDataError, match=r"'fundamental' reads facts, which .* has not"):
        build(lake, bars.symbols, Catalog((OWN, "fundamental")))
    assert lake.tables() == ["bars"]


def test_spans_of_moments_are_cut_anywhere(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values across symbols come from windows, so that no span needs more than their look-back; here spans are a fifth of it, and
    of every tenth moment one row, of some moments all rows come late."""
    monkeypatch.setattr(across_on_ray, "SPAN_ROWS", 1)
    monkeypatch.setattr(across_on_ray, "FEWEST_LOOK_BACKS", 0.2)
    frame = random_bars(np.random.default_rng(4), 400, 4).frame.filter(~pl.col("delisted"))
    day = pl.col("timestamp").rank("dense")
    late = ((day % 10 == 3) & (pl.col("symbol") == "S01")) | day.is_in([301, 302, 355])
    bars = Panel.of(frame.with_columns(known_at=pl.when(late).then(pl.col("known_at").dt.offset_by("30h")).otherwise("known_at")))
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", bars.frame, "all")
    build(lake, bars.symbols, Catalog(("cross_asset",)))
    across = lake.read("features_cross_asset")
    whole = local(bars, ("technical", "cross_asset")).select(across.columns)
    assert whole["market_beta_252"].is_not_nan().sum() > 300
    assert across.drop("known_at").equals(whole.drop("known_at"))


def test_what_another_catalogue_made_meanwhile_is_compared_too(ray_session: None, tmp_path: Path, bars: Panel) -> None:
    before, after = halves(bars)
    lake = Lake(str(tmp_path), "test")
    lake.append("bars", before, "all")
    build(lake, bars.symbols)
    lake.append("bars", after, "all")
    build(lake, bars.symbols, Catalog((OWN,)))
    assert build(lake, bars.symbols).added == after.height and stored(lake).equals(local(bars))


def test_another_universe_says_that_it_rewrites_what_was_compared(lake: Lake, bars: Panel) -> None:
    build(lake, bars.symbols)
    fewer = build(lake, bars.symbols[:2])
    assert fewer.rewritten == (f"features_{ACROSS} of *",) and fewer.added > 0
    again = build(lake, bars.symbols)
    assert again.rewritten == (f"features_{ACROSS} of *",) and stored(lake).equals(local(bars))


def test_a_later_start_compares_nothing_from_before_it(lake: Lake, bars: Panel, tmp_path: Path) -> None:
    start = bars.frame["session"].unique().sort()[150]
    catalog = Catalog(("cross_asset",))
    build(lake, bars.symbols, catalog)
    build(lake, bars.symbols, catalog, start=start)
    fresh = Lake(str(tmp_path / "fresh"), "test")
    fresh.append("bars", bars.frame, "all")
    build(fresh, bars.symbols, catalog, start=start)
    since = pl.col("timestamp") > pl.lit(start).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    assert lake.read("features_cross_asset").filter(since).drop("known_at").equals(fresh.read("features_cross_asset").drop("known_at"))


def test_columns_of_two_sets_are_compared_whatever_their_rows_were_known_with(lake: Lake, bars: Panel) -> None:
    """After a revision a set keeps the moment of rows that stayed as they were, another does not."""
    catalog = Catalog((OWN, "core_31", ACROSS), {"excess": (("ret_1",), ("core_mom_50",))})
    build(lake, bars.symbols, catalog, price_kind="split_adjusted")
    row, at = restated(bars, 1.0)
    lake.append("bars", row.with_columns(pl.col("close") * 1.1, pl.col("high") * 1.1), "S00", revised_at=at)
    build(lake, bars.symbols, catalog, price_kind="split_adjusted")
    fresh = Lake(str(Path(lake.uri) / "fresh"), "test")
    fresh.append("bars", lake.read("bars"), "all")
    build(fresh, bars.symbols, catalog, price_kind="split_adjusted")
    table = catalog.table(ACROSS)
    assert lake.read(table).drop("known_at").equals(fresh.read(table).drop("known_at"))


def test_a_table_that_was_taken_away_is_made_again(lake: Lake, bars: Panel) -> None:
    build(lake, bars.symbols)
    for name in CATALOG.sets:
        shutil.rmtree(Path(lake.uri) / "test" / f"features_{name}")
        assert build(lake, bars.symbols).untouched < 4 and stored(lake).equals(local(bars))


def test_two_builds_at_once_leave_no_note_that_lies(lake: Lake, bars: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second, of fewer symbols, ends between the rows of the first and its notes."""

    def meanwhile(*given: Any) -> None:
        monkeypatch.setattr(on_ray, "keep", builds.keep)
        build(lake, bars.symbols[:2])
        builds.keep(*given)

    monkeypatch.setattr(on_ray, "keep", meanwhile)
    with pytest.raises(DataError, match=r"another build made features_\w+ of .* meanwhile, .*one build of a dataset at a time"):
        build(lake, bars.symbols)
    build(lake, bars.symbols)
    assert stored(lake).equals(local(bars))


def test_no_symbols_make_no_features(lake: Lake) -> None:
    with pytest.raises(MissingDataError, match="no symbols to make features of"):
        build(lake, [])


FOUR_NODES = """
import sys
from rlaif_ray import ray_runtime
ray_runtime.set_environment()
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(3):
    cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
import os
os.environ["RAY_ADDRESS"] = cluster.address
ray_runtime.attach()
assert len(ray.nodes()) == 4
from rlaif_ray.data.lake import Lake
from rlaif_ray.features import across_on_ray
from rlaif_ray.features.on_ray import build
across_on_ray.FEWEST_LOOK_BACKS = 0.2  # else one node has it all
lake = Lake(sys.argv[1], "test")
sectors = {"S00": "banks", "S01": "mines", "S02": "banks"}
print(build(lake, sorted(lake.files("bars")["symbol"].unique()), sectors=sectors).data_version)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_four_nodes_make_the_same_tables(lake: Lake, bars: Panel, tmp_path: Path) -> None:
    elsewhere = Lake(str(tmp_path / "four"), "test")
    elsewhere.append("bars", bars.frame, "all")
    (tmp_path / "four.py").write_text(FOUR_NODES)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(tmp_path / "four.py"), elsewhere.uri]
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == build(lake, bars.symbols).data_version
    assert stored(elsewhere).equals(stored(lake))
