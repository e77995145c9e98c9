"""Insiders, options and the economy as columns: by hand, by the pandas of vintages, and by the laws."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Panel
from rlaif_ray.data.asof import join
from rlaif_ray.data.tables import FACT_SCHEMA, MACRO
from rlaif_ray.errors import ConfigError
from rlaif_ray.features.positioning import POSITIONING, SERIES
from rlaif_ray.features.positioning import Path as FigurePath
from tests.laws import assert_apply, assert_pure, random_bars

SPECS = tuple(s for family in POSITIONING.families for s in family.specs())
FIRST = dt.datetime(2000, 1, 3, 21, tzinfo=dt.UTC)  # of `random_bars`, a bar a day
DAY = dt.timedelta(days=1)
Row = tuple[float, float, float]  # days after the first bar: of what it is about, of when it was known; and the value


@cache
def bars() -> Panel:
    return Panel(random_bars(np.random.default_rng(0), 300).frame.head(120))


def facts(name: str, rows: Sequence[Row], symbol: str = "S00") -> pl.DataFrame:
    return pl.DataFrame({
        "symbol": [symbol] * len(rows), "timestamp": [FIRST + about * DAY for about, _, _ in rows],
        "known_at": [FIRST + known * DAY for _, known, _ in rows], "name": [name] * len(rows), "started": [None] * len(rows),
        "unit": ["x"] * len(rows), "value": [value for *_, value in rows], "form": ["x"] * len(rows), "source_id": ["x"] * len(rows),
    }, schema=FACT_SCHEMA)  # fmt: skip


def values(told: pl.DataFrame, name: str, panel: Panel | None = None) -> np.ndarray:
    spec = next(s for s in SPECS if s.name == name)
    return POSITIONING.apply({"bars": (panel or bars()).frame, "facts": told}, [spec]).frame[name].to_numpy()


def everything(rng: np.random.Generator) -> pl.DataFrame:
    """All that the set reads, with revisions, at random moments, some at the same one, from long before the first bar on."""
    parts = []
    for name in ("form4/net_shares", "form4/net_usd", *_OPTIONS, *(f"fred/{s}" for s in SERIES)):
        about = rng.choice(np.arange(-200, 150), 140, replace=False)
        again = rng.choice(about, 60)
        about = np.concatenate([about, again])
        known = about + np.round(rng.uniform(0.1, 3 if name.startswith("options") else 20, len(about)), 1)
        rows = [(float(a), float(k), float(v)) for a, k, v in zip(about, known, rng.normal(1, 2, len(about)), strict=True)]
        parts.append(facts(name, rows, MACRO if name.startswith("fred") else "S00").unique(["timestamp", "known_at"], maintain_order=True))
    return pl.concat(parts)


_OPTIONS = tuple(f"options/{f}" for f in ("put_call_volume", "put_call_open_interest", "skew_25d", "atm_iv_30d", "atm_term_slope"))


# --- insiders ------------------------------------------------------------------------------------------------------


def test_net_buying_is_what_each_report_added_by_when_it_was_known() -> None:
    """Day 5: one buys 100 (told on day 7), another sells 30 of it (told on day 40). Day 60: a purchase of 50, amended to 20."""
    told = facts("form4/net_shares", [(5, 7, 100.0), (5, 40, 70.0), (60, 62, 50.0), (60, 65, 20.0)])
    at = [6, 7, 36, 37, 40, 62, 65, 69, 70, 91, 92, 95]
    np.testing.assert_array_equal(
        values(told, "insider_net_shares_30d")[at], [np.nan, 100, 100, 0, -30, 20, -10, -10, 20, 20, -30, 0]
    )
    np.testing.assert_array_equal(values(told, "insider_buys_30d")[at], [0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(values(told, "insider_sells_30d")[[40, 65, 69, 70, 94, 95]], [1, 2, 2, 1, 1, 0])
    np.testing.assert_allclose(values(told, "insider_purchase_ratio_90d")[[6, 7, 40, 65]], [np.nan, 1, 0, 0])
    np.testing.assert_array_equal(values(told, "insider_age_days")[[6, 7, 39]], [np.nan, 0, 32])


def test_shares_are_counted_in_those_of_the_first_bar() -> None:
    """10 for 1 on bar 20: 1,000 shares bought after it are 100 of before. A report after the split on a trade before it: as traded."""
    frame = bars().frame.with_columns(split=pl.when(pl.int_range(pl.len()) == 20).then(10.0).otherwise(1.0))
    told = facts("form4/net_shares", [(10.1, 12, 100.0), (25.1, 26, 1000.0), (19.1, 28, 7.0)])
    x = values(told, "insider_net_shares_90d", Panel.of(frame))
    assert x[[12, 26, 28]].tolist() == [100.0, 200.0, 207.0]


def test_usd_of_trades_with_a_price() -> None:
    told = pl.concat([facts("form4/net_shares", [(5, 7, 100.0), (8, 9, -10.0)]), facts("form4/net_usd", [(5, 7, 2500.0)])])
    assert values(told, "insider_net_usd_30d")[9] == 2500.0 and values(told, "insider_net_shares_30d")[9] == 90.0


# --- options -------------------------------------------------------------------------------------------------------


def test_options_stand_until_the_next_chain_and_change_over_five_days() -> None:
    told = facts("options/skew_25d", [(k, k + 0.2, 0.01 * k) for k in range(0, 30)])
    np.testing.assert_allclose(values(told, "option_skew")[[0, 1, 10, 40]], [np.nan, 0.0, 0.09, 0.29], rtol=1e-6)
    np.testing.assert_allclose(values(told, "option_skew_change_5d")[[5, 6, 10, 31, 40]], [np.nan, 0.05, 0.05, 0.04, 0.0], rtol=1e-5)
    assert np.isnan(values(told, "put_call_volume")).all()
    told = facts("options/put_call_open_interest", [(3, 3.2, 0.8)])
    assert values(told, "options_age_days")[[3, 4, 9]].tolist()[1:] == [1.0, 6.0]


# --- the economy ---------------------------------------------------------------------------------------------------


def test_a_figure_as_it_stood() -> None:
    """May 3.5, revised to 3.6 with June's 3.8; later May becomes 3.9, which is no news of June, but of its change."""
    told = facts("fred/UNRATE", [(0, 5, 3.5), (30, 35, 3.8), (0, 35, 3.6), (0, 50, 3.9)], MACRO)
    np.testing.assert_allclose(values(told, "macro_UNRATE_level")[[4, 5, 35, 50]], [np.nan, 3.5, 3.8, 3.8], rtol=1e-6)
    np.testing.assert_allclose(values(told, "macro_UNRATE_change")[[5, 35, 49, 50]], [np.nan, 0.2, 0.2, -0.1], rtol=1e-5)
    np.testing.assert_allclose(values(told, "macro_UNRATE_age_days")[[5, 34, 35]], [5, 34, 5])


def test_a_surprise_by_hand() -> None:
    """Changes of the first releases: 1, 2, 3, then 4: (4 - 2) / 1 = 2. A revision in between moves the figure, not the surprise."""
    rows: list[Row] = [(0, 1, 10.0), (10, 11, 11.0), (20, 21, 13.0), (30, 31, 16.0), (20, 35, 15.0), (40, 41, 20.0), (40, 44, 21.0)]
    path = FigurePath.of(facts("fred/UNRATE", rows, MACRO))
    np.testing.assert_array_equal(path.change, [np.nan, 1, 2, 3, 1, 4, 5])
    np.testing.assert_array_equal(path.released, [False, True, True, True, False, True, False])
    np.testing.assert_allclose(path.surprise(3), [np.nan, np.nan, np.nan, np.nan, np.nan, 2.0, 2.0])


def test_a_history_that_is_told_at_once_is_no_release() -> None:
    """The first vintage brings years of figures; only what comes after it was ever news. Without spread there is no score."""
    history: list[Row] = [(-30.0 * k, 1, 5.0 + k) for k in range(1, 40)]
    path = FigurePath.of(facts("fred/UNRATE", [*history, (0, 10, 5.0), (30, 40, 5.0)], MACRO))
    assert path.known.shape == (3,) and path.released.tolist() == [False, True, True] and path.value.tolist() == [6.0, 5.0, 5.0]
    same = FigurePath.of(facts("fred/UNRATE", [(k, k + 1, 1.0 * k) for k in range(20)], MACRO))
    assert np.isnan(same.surprise(5)).all()


def test_figures_and_ages_are_those_of_the_as_of_join() -> None:
    """Two ways of saying what stood: the cube's join of facts, and a path of moments."""
    told = everything(np.random.default_rng(5))
    joined = join(bars().frame.select("symbol", "known_at"), {"facts": told})
    pairs = {
        "option_skew": "options/skew_25d", "implied_volatility": "options/atm_iv_30d", "implied_term_slope": "options/atm_term_slope",
        "put_call_volume": "options/put_call_volume", "options_age_days": "options/put_call_open_interest_age_days",
        **{f"macro_{s}_level": f"fred/{s}" for s in SERIES}, **{f"macro_{s}_age_days": f"fred/{s}_age_days" for s in SERIES},
    }  # fmt: skip
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(values(told, ours), joined[theirs].to_numpy(), rtol=1e-6, err_msg=ours)


# --- the set -------------------------------------------------------------------------------------------------------


def test_every_column_is_defined_from_the_first_row_on_where_facts_are_old_enough() -> None:
    frame = POSITIONING.apply({"bars": bars().frame, "facts": everything(np.random.default_rng(1))}, SPECS).frame
    assert frame.columns[3:] == [s.name for s in SPECS] and len(SPECS) == 41
    for spec in SPECS:
        x = frame[spec.name].to_numpy()
        assert x.dtype == np.float32 and not np.isinf(x).any()
        assert np.flatnonzero(np.isfinite(x))[0] == spec.look_back_bars == 0, spec.name


@pytest.mark.parametrize("rows", [0, 1, 120])
def test_no_facts_is_not_neutral(rows: int) -> None:
    frame = POSITIONING.apply({"bars": bars().frame.head(rows), "facts": facts("x", [])}, SPECS).frame
    for spec in SPECS:
        x = frame[spec.name].to_numpy()
        assert len(x) == rows and ((x == 0).all() if spec.unit == "count" else np.isnan(x).all()), spec.name
    assert POSITIONING.apply({"bars": bars().frame}, SPECS).columns == []  # no table, no columns


def test_broken_facts_make_no_infinity() -> None:
    n = pl.int_range(pl.len())
    told = everything(np.random.default_rng(2)).with_columns(
        value=pl.when(n % 9 == 0).then(None).when(n % 9 == 1).then(np.nan).when(n % 9 == 2).then(np.inf).when(n % 9 == 3).then(1e300)
        .otherwise("value")
    )  # fmt: skip
    frame = POSITIONING.apply({"bars": bars().frame, "facts": told}, SPECS).frame
    assert not any(np.isinf(frame[s.name].to_numpy()).any() for s in SPECS)


def test_what_does_not_exist_is_said() -> None:
    family = next(f for f in POSITIONING.families if f.name == "put_call_{measure}")
    with pytest.raises(ConfigError, match="no put/call ratio by 'delta'"):
        POSITIONING.apply({"bars": bars().frame, "facts": facts("x", [])}, family.specs([("delta",)]))


@pytest.mark.parametrize("t", [0, 1, 30, 31, 32, 33, 77])
def test_no_column_sees_later_bars(t: int) -> None:
    told = everything(np.random.default_rng(3))

    def f(panel: Panel) -> Panel:
        return POSITIONING.apply({"bars": panel.frame, "facts": told}, SPECS)

    assert_pure(f, bars(), t)
    assert_apply(f, bars(), t, np.random.default_rng(t))


@pytest.mark.parametrize("t", [0, 1, 30, 31, 32, 33, 77])
def test_no_column_sees_later_facts(t: int) -> None:
    """Facts known after row t are taken away, or others put in their place, about the same days and about others."""
    told, at = everything(np.random.default_rng(4)), bars().frame["known_at"][t]
    known, noise = told.filter(pl.col("known_at") <= at), everything(np.random.default_rng(t)).filter(pl.col("known_at") > at)

    def seen(frame: pl.DataFrame) -> pl.DataFrame:
        return POSITIONING.apply({"bars": bars().frame, "facts": frame}, SPECS).frame.head(t + 1)

    said = seen(known)
    assert noise.height and seen(told).equals(said) and seen(pl.concat([known, noise])).equals(said)
