"""Symbols compared at one moment: by hand, and blind to what is not known yet."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import KEYS, Panel
from rlaif_ray.errors import DataError
from rlaif_ray.features.catalog import Catalog
from rlaif_ray.features.cross_section import CROSS_SECTION
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.technical import TECHNICAL
from tests.laws import assert_apply, assert_pure, known_by, moments

DAY = dt.datetime(2024, 1, 2, 21, tzinfo=dt.UTC)
SPECS = [s for f in CROSS_SECTION.families for s in f.specs()]
SECTORS = pl.DataFrame({"symbol": ["A", "B", "C", "D"], "sector": ["x", "x", "y", "x"]})


def specs(*names: str) -> list[FeatureSpec]:
    return [s for s in SPECS if s.name in names]


def moment(column: str, **values: float | None) -> pl.DataFrame:
    frame = pl.DataFrame({"symbol": list(values), column: list(values.values())}, schema_overrides={column: pl.Float32})
    return frame.with_columns(timestamp=pl.lit(DAY), known_at=pl.lit(DAY))


def across(frame: pl.DataFrame, wanted: list[FeatureSpec], sectors: pl.DataFrame | None = None) -> pl.DataFrame:
    tables = {"features": Panel.of(frame).frame} | ({} if sectors is None else {"sectors": sectors})
    return CROSS_SECTION.apply(tables, wanted).frame


def random_features(rng: np.random.Generator, dates: int = 60, symbols: int = 9, late: float = 0.1) -> Panel:
    """Columns that are compared, with ties and holes; symbols list later than others, and some rows arrive late."""
    frames = []
    names = sorted({name for s in SPECS for name in s.inputs})
    for k in range(symbols):
        values = np.round(rng.standard_normal((dates, len(names))), 1)
        values[rng.random(values.shape) < 0.1] = np.nan
        stamp = pl.Series("timestamp", [DAY + dt.timedelta(days=i) for i in range(dates)])
        delay = pl.Series(rng.choice([0, 1, 30, 80], dates, p=[1 - late, late / 3, late / 3, late / 3]))
        frame = pl.DataFrame(values.astype(np.float32), schema=names).with_columns(
            symbol=pl.lit(f"S{k}"), timestamp=stamp, known_at=(stamp + pl.duration(hours=1) * delay).cum_max()
        )
        frames.append(frame[5 * (k % 4) :])
    return Panel.of(pl.concat(frames))


def test_excess_and_rank_by_hand() -> None:
    values = {"A": 0.01, "B": 0.04, "C": 0.01, "D": float("nan")}
    out = across(moment("ret_21", **values), SPECS)
    np.testing.assert_allclose(out["ret_21_excess"], [-0.01, 0.02, -0.01, np.nan], rtol=1e-6)
    np.testing.assert_allclose(out["ret_21_rank"], [-0.25, 0.5, -0.25, np.nan])  # ranks 1.5, 3, 1.5 of three
    np.testing.assert_allclose(out["ret_21_zscore"], [-1 / 3**0.5, 2 / 3**0.5, -1 / 3**0.5, np.nan], rtol=1e-6)
    assert out.columns == [*KEYS, "ret_21_excess", "ret_21_rank", "ret_21_zscore", "ret_21_winsorised_3p0", "ret_21_bucket_5"]


def test_winsorised_by_hand() -> None:
    """Median 3, median absolute deviation 1: 100 counts as 3 + 3 x 1.4826 = 7.4478."""
    out = across(moment("vol_21", A=1, B=2, C=3, D=4, E=100), specs("vol_21_winsorised_3p0"))
    clipped = np.array([1, 2, 3, 4, 7.4478])
    np.testing.assert_allclose(out["vol_21_winsorised_3p0"], (clipped - clipped.mean()) / clipped.std(ddof=1), rtol=1e-6)


def test_more_than_half_equal_leaves_nothing_to_clip_at() -> None:
    out = across(moment("vol_21", A=1, B=1, C=1, D=1, E=5), specs("vol_21_winsorised_3p0"))
    np.testing.assert_allclose(out["vol_21_winsorised_3p0"], np.array([-0.8, -0.8, -0.8, -0.8, 3.2]) / 3.2**0.5, rtol=1e-6)


def test_buckets_by_hand() -> None:
    ten = {f"S{i}": float(i) for i in range(10)}
    assert across(moment("ret_21", **ten), specs("ret_21_bucket_5"))["ret_21_bucket_5"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    four = across(moment("ret_21", A=1, B=2, C=3, D=4), specs("ret_21_bucket_5"))
    assert np.isnan(four["ret_21_bucket_5"].to_numpy()).all(), "four symbols do not fill five buckets"


def test_within_the_sector_by_hand() -> None:
    """A, B and D are of one sector; C is alone in the other, and E in none that is known."""
    wanted = specs("ret_21_sector_excess", "ret_21_sector_zscore")
    frame = moment("ret_21", A=0.01, B=0.04, C=0.5, D=0.01, E=0.7)
    out = across(frame, wanted, SECTORS)
    np.testing.assert_allclose(out["ret_21_sector_excess"], [-0.01, 0.02, np.nan, -0.01, np.nan], rtol=1e-6)
    np.testing.assert_allclose(out["ret_21_sector_zscore"], np.array([-1, 2, np.nan, -1, np.nan]) / 3**0.5, rtol=1e-6)
    assert across(frame, wanted).columns == list(KEYS), "nobody said who is in which sector"


def test_a_symbol_in_two_sectors_is_refused() -> None:
    twice = pl.concat([SECTORS, pl.DataFrame({"symbol": ["B"], "sector": ["y"]})])
    with pytest.raises(DataError, match="'B' has 2 sectors"):
        across(moment("ret_21", A=0.01, B=0.04), SPECS, twice)


@pytest.mark.parametrize("values", [{"A": 0.01, "B": None}, {"A": 0.01}, {"A": None, "B": None}])
def test_alone_there_is_nothing_to_compare(values: dict[str, float | None]) -> None:
    out = across(moment("ret_21", **values), SPECS)
    assert np.isnan(out.drop(KEYS).to_numpy()).all()


def test_equal_values_have_a_place_but_no_scores() -> None:
    out = across(moment("ret_21", **dict.fromkeys("ABCDEFG", 0.1)), SPECS)
    assert (out.select("ret_21_excess", "ret_21_rank").to_numpy().astype(float).round(8) == 0).all()
    assert (out["ret_21_bucket_5"] == 2).all()
    assert np.isnan(out.select("ret_21_zscore", "ret_21_winsorised_3p0").to_numpy()).all()


def test_no_rows() -> None:
    frame = pl.concat([moment(name, A=1.0) for name in ("ret_21", "vol_21")], how="diagonal").clear()
    out = across(frame, SPECS, SECTORS)
    assert out.height == 0
    assert out.schema["ret_21_rank"] == out.schema["vol_21_sector_zscore"] == pl.Float32


def test_a_late_row_is_compared_with_others_but_not_they_with_it() -> None:
    late = pl.when(pl.col("symbol") == "C").then(pl.col("known_at").dt.offset_by("1d")).otherwise(pl.col("known_at"))
    out = across(moment("ret_1", A=0.01, B=0.03, C=0.08).with_columns(known_at=late), SPECS)
    np.testing.assert_allclose(out["ret_1_excess"], [-0.01, 0.01, 0.04], rtol=1e-6)


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_equals_a_join_of_every_moment_with_what_was_known(late: float) -> None:
    """The reference spells the rule out: each (timestamp, known_at) joined with the rows known by then."""
    panel = random_features(np.random.default_rng(5), late=late)
    wanted = specs("ret_1_excess", "ret_5_excess", "ret_1_scaled_rank", "ret_5_scaled_rank", "ret_21_rank", "volume_z_21_rank")
    frame = panel.frame.select(*KEYS, pl.col(panel.columns).fill_nan(None).cast(pl.Float64))
    seen = frame.select("timestamp", view="known_at").unique().join(frame, on="timestamp").filter(pl.col("known_at") <= pl.col("view"))
    for s in wanted:
        x = pl.col(s.inputs[0])
        place = x - x.mean() if s.family == "excess" else (x.rank("average") - 1.0) / (x.count() - 1) - 0.5
        seen = seen.with_columns(pl.when(x.count() > 1).then(place).over("timestamp", "view").alias(s.name))
    reference = seen.filter(pl.col("known_at") == pl.col("view")).select(*KEYS, *[s.name for s in wanted]).sort("symbol", "timestamp")
    out = CROSS_SECTION.apply({"features": panel.frame}, wanted).frame
    assert out.select(KEYS).equals(panel.frame.select(KEYS))
    for s in wanted:
        np.testing.assert_allclose(out[s.name], reference[s.name].fill_null(np.nan), rtol=1e-6, atol=1e-7, err_msg=s.name)


@pytest.mark.parametrize("t", [20, 21, 22, 23, 55])
def test_the_law(t: int) -> None:
    panel = random_features(np.random.default_rng(3))
    sectors = pl.DataFrame({"symbol": list(panel.symbols), "sector": [f"{i % 3}" for i in range(len(panel.symbols))]})

    def f(data: Panel) -> Panel:
        return CROSS_SECTION.apply({"features": data.frame, "sectors": sectors}, SPECS)

    assert 0 < known_by(panel, moments(panel)[t]).frame.height < panel.frame.height
    assert f(panel).columns == [s.name for s in SPECS]
    assert_pure(f, panel, t)
    assert_apply(f, panel, t, np.random.default_rng(t))


def test_each_is_defined_from_the_bar_on_that_its_feature_is() -> None:
    first = {s.name: s.look_back_bars for f in TECHNICAL.families for s in f.specs()}
    assert {s.name: s.look_back_bars for s in Catalog().specs("cross_section")} == {s.name: first[s.inputs[0]] for s in SPECS}


def test_a_config_may_compare_other_features() -> None:
    rank = next(f for f in CROSS_SECTION.families if f.key == "rank")
    (other,) = rank.specs([("rsi_7",)])
    assert (other.name, other.inputs) == ("rsi_7_rank", ("rsi_7",))
    assert "rsi_7_rank" in across(moment("rsi_7", A=1, B=2), [other]).columns
