"""The whole catalogue, generated: names, look-backs, the law over every set, and extreme markets. A set without a case fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import KEYS, PRICE_COLUMNS, Panel
from rlaif_ray.errors import ConfigError, MissingDataError
from rlaif_ray.features.catalog import DEFAULT_OBSERVATION, FACTS, SETS, Catalog, feature_set, warmup_bars
from rlaif_ray.features.family import OF_SCALE, Family, FeatureSet
from rlaif_ray.features.series import before, of_bars
from tests.features import filings
from tests.features.test_positioning import everything
from tests.features.test_sentiment import many
from tests.laws import _assert_same, cutoff, perturb_future, random_bars

ROWS, SYMBOLS = 420, 4
CATALOG = Catalog(SETS)
OWN = [name for name in SETS if not feature_set(name).across and "bars" in feature_set(name).reads]
ACROSS = [name for name in SETS if feature_set(name).across]
Tables = Mapping[str, pl.DataFrame]


def market(seed: int = 5, symbols: int = 1, rows: int = ROWS) -> pl.DataFrame:
    """Random walks with splits, dividends, halts; of several symbols one lists late."""
    frame = random_bars(np.random.default_rng(seed), rows, symbols).frame
    late = (pl.col("symbol") == "S01") & (pl.col("timestamp") < frame["timestamp"].unique().sort()[rows // 5])
    return frame.filter(~late)


def company() -> dict[str, pl.DataFrame]:
    """Bars of a year and a half in the span of a company's filings, under its name."""
    bars = market().with_columns(symbol=pl.lit("A"))
    bars = bars.with_columns(pl.col("timestamp", "known_at", "session").dt.offset_by("6574d"))
    return {"bars": bars, "facts": filings.company(np.random.default_rng(1))}


def compared(set_name: str, bars: pl.DataFrame) -> Tables:
    """The features that a set across symbols compares, and sectors."""
    parts = [feature_set("technical").apply({"bars": f}, CATALOG.specs("technical")).frame for f in bars.partition_by("symbol")]
    features = pl.concat(parts, how="diagonal").sort("symbol", "timestamp")
    columns = [c for of in CATALOG.compared(set_name).values() for c in of]
    symbols = bars["symbol"].unique().sort()
    sectors = pl.DataFrame({"symbol": symbols, "sector": [f"sector {i % 2}" for i in range(len(symbols))]})
    return {"features": features.select(*KEYS, *columns), "sectors": sectors}


def shifted(told: pl.DataFrame) -> pl.DataFrame:
    """Made for the first hundred bars; some of it is now known after bar 255."""
    return told.with_columns(pl.col("timestamp", "known_at").dt.offset_by("200d"))


def read(model: str) -> dict[str, pl.DataFrame]:
    return {"bars": market(), f"text_{model}": shifted(many(np.random.default_rng(2), 400))}


CASES: dict[str, Callable[[], Tables]] = {
    **{name: lambda: {"bars": market()} for name in OWN if feature_set(name).reads == ("bars",)},
    **{name: lambda name=name: compared(name, market(symbols=SYMBOLS)) for name in ACROSS},
    "fundamental": company,
    "sentiment": lambda: read("lexicon"),
    "sentiment_finbert": lambda: read("finbert"),
    "positioning": lambda: {"bars": market(), "facts": shifted(everything(np.random.default_rng(3)))},
}


def said(made: FeatureSet, tables: Tables, specs=None) -> pl.DataFrame:
    return made.apply(tables, CATALOG.specs(made.name) if specs is None else specs).frame


def first(tables: Tables) -> str:
    return next(iter(tables))


# --- what the catalogue says --------------------------------------------------------------------------------------------


def test_over_two_hundred_columns_each_under_one_name_with_what_it_is() -> None:
    assert len(CATALOG.names()) > 200 and len(CATALOG.specs("technical")) >= 100 and len(CATALOG.specs("core_31")) == 31
    assert len(CATALOG.specs("fundamental")) >= 25
    every = [s for name in SETS for s in CATALOG.specs(name)]
    assert [n for n, k in Counter(s.name for s in every).items() if k > 1] == []
    keys = Counter(f.key for name in SETS if name != "sentiment_finbert" for f in feature_set(name).families)
    assert [key for key, k in keys.items() if k > 1] == []
    assert all(s.help and s.look_back_bars >= 0 and s.inputs for s in every)


def test_every_set_has_a_case() -> None:
    assert set(CASES) == {*SETS} - {"order_book"}  # whose law is over messages: test_order_book.py


@pytest.mark.parametrize("name", SETS)
def test_other_periods_make_other_columns(name: str) -> None:
    """Whatever has a parameter takes another row of them, under its own name and into its own table."""
    with_periods = [f for f in feature_set(name).families if any(not isinstance(x, str) for x in f.rows[0])]
    assert with_periods or not any(f.parameters for f in feature_set(name).families)
    for family in with_periods:
        other = tuple(x if isinstance(x, str) else x + 1 if isinstance(x, int) else x * 1.25 for x in family.rows[0])
        catalog = Catalog((name,), {family.key: (other,)})
        (made,) = (s for s in catalog.specs(name) if s.family == family.key)
        assert made.parameters == other and made.name not in {s.name for s in family.specs(family.rows[:1])}, family.key
        assert catalog.table(name) != CATALOG.table(name)


def test_parameters_of_another_shape_are_refused() -> None:
    for rows in (((),), ((14, 3),), (("14",),), ((0,),), ((-3,),), ((1.5,),), ((True,),)):
        with pytest.raises(ConfigError, match=r"features.parameters.rsi has .*expected \['bars'\] like"):
            Catalog(("technical",), {"rsi": rows})


def test_parameters_that_make_no_column_are_refused() -> None:
    catalog = Catalog(("technical",), {"rsi": ((1,),)})
    with pytest.raises(ConfigError, match=r"rsi_1 cannot be made .*other values of features.parameters.rsi than \[1\]"):
        feature_set("technical").apply({"bars": market()}, [catalog.spec("rsi_1")])
    with pytest.raises(ConfigError, match="gives 'fracdiff_0p3' twice"):
        Catalog(("fracdiff",), {"fracdiff": ((0.3, 1e-4), (0.3, 1e-3))})
    with pytest.raises(ConfigError, match="name one twice"):
        Catalog(("technical", "technical"))
    with pytest.raises(ConfigError, match=r"cross_section compares 'rsi_14', which features\.parameters leaves out"):
        Catalog(parameters={"rsi": ((7,),)}).compared("cross_section")


def test_any_column_can_be_compared_and_is_first_defined_when_it_is() -> None:
    catalog = Catalog(("cross_section", "fundamental"), {"rank": (("price_to_book",), ("vol_percentile_21_252",), ("ret_5",))})
    assert [s.look_back_bars for s in catalog.specs("cross_section") if s.family == "rank"] == [0, 272, 5]
    assert catalog.completed().sets == ("technical", "regime", "fundamental", "cross_section") and catalog.span("cross_section") == 0


def test_names_that_are_none() -> None:
    with pytest.raises(MissingDataError, match="Did you mean 'rsi_14'"):
        CATALOG.spec("rsi14")
    with pytest.raises(ConfigError, match="Did you mean 'technical'"):
        feature_set("tecnical")
    assert set(DEFAULT_OBSERVATION) <= {*Catalog().names(), *FACTS} and warmup_bars(DEFAULT_OBSERVATION) == 63


WAITING = {"swing_high", "swing_low", "swing_high_age", "swing_low_age", "resistance_distance", "support_distance"}
"""Defined once the market has turned: their look-back is the earliest row."""


@pytest.mark.parametrize("name", [n for n in OWN if feature_set(n).reads == ("bars",)])
def test_each_column_is_first_defined_where_its_look_back_says(name: str) -> None:
    frame = said(feature_set(name), {"bars": market(rows=800).with_columns(tradable=True, volume=pl.col("volume").clip(1.0))})
    wrong = {}
    for s in (s for s in CATALOG.specs(name) if s.family not in WAITING):
        defined = np.flatnonzero(np.isfinite(frame[s.name].to_numpy()))
        if not len(defined) or defined[0] != s.look_back_bars:
            wrong[s.name] = (defined[:1].tolist(), s.look_back_bars)
    assert wrong == {} and set(frame.dtypes[3:]) == {pl.Float32}


# --- the law ------------------------------------------------------------------------------------------------------------


def known(tables: Tables, at: np.datetime64) -> dict[str, pl.DataFrame]:
    """What every table had said by then; who is in which sector is no row of time."""
    return {n: Panel(f).as_of(at).frame if "known_at" in f.columns else f for n, f in tables.items()}


def with_noise(tables: Tables, at: np.datetime64, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """Everything known later replaced; facts, of which many share a moment, by figures of others."""
    noisy = {}
    for name, frame in tables.items():
        if "known_at" not in frame.columns:
            noisy[name] = frame
        elif name in ("bars", "features"):
            noisy[name] = perturb_future(Panel(frame), at, rng).frame
        else:
            late = pl.col("known_at") > pl.lit(at).dt.replace_time_zone("UTC")
            floats = [c for c, t in frame.schema.items() if t.is_float()]
            noise = {c: pl.Series(100.0 * rng.standard_normal(frame.height), dtype=frame.schema[c]) for c in floats}
            noisy[name] = frame.with_columns(pl.when(late).then(x).otherwise(c).alias(c) for c, x in noise.items())
            assert frame.filter(late).height and not noisy[name].equals(frame)
    return noisy


def assert_blind(made: FeatureSet, tables: Tables, t: int, specs=None) -> None:
    """Neither leaving out what is known after row t, nor noise in its place, changes a bit of what was said by then."""
    at = cutoff(Panel(tables[first(tables)]), t)

    def by_then(given: Tables) -> pl.DataFrame:
        return Panel(said(made, given, specs)).as_of(at).frame

    full, noisy = by_then(tables), by_then(with_noise(tables, at, np.random.default_rng(t)))
    assert full.height
    _assert_same(by_then(known(tables, at)), full, f"{made.name}: what comes after {at} changed what was said by then")
    _assert_same(noisy, full, f"{made.name}: noise after {at} changed what was said by then")


@pytest.mark.parametrize("name", CASES)
def test_no_column_of_any_set_sees_the_future(name: str) -> None:
    """Eight lengths in a row, so that no vector width hides a difference in how a tail is computed."""
    tables = CASES[name]()
    for t in (255, 256, 257, 258, 259, 260, 261, 262, 340):
        assert_blind(feature_set(name), tables, t)


CANARIES = {
    "centred window": lambda s: (before(s.close, 2) + np.r_[s.close[2:], np.nan, np.nan]) / s.close,
    "scaled by all rows": lambda s: s.close / s.close.max(),
    "filled backwards": lambda s: np.where(s.volume > 0, s.close, np.r_[s.close[1:], np.nan]),
    "tomorrow's open": lambda s: np.r_[s.open[1:], np.nan] / s.close,
}


@pytest.mark.parametrize("leak", CANARIES)
def test_a_planted_leak_is_caught(leak: str) -> None:
    family = Family("canary", CANARIES[leak], ("close",), 2, "ratio", "trend", "sees tomorrow")
    made = FeatureSet("canary", (family,), of_bars)
    halted = market().with_columns(volume=pl.when(pl.int_range(pl.len()) == 256).then(0.0).otherwise("volume"))
    with pytest.raises(AssertionError, match=r"canary: .* changed what was said by then"):
        assert_blind(made, {"bars": halted}, 256, family.specs())


# --- extreme markets ----------------------------------------------------------------------------------------------------


def priced(frame: pl.DataFrame, factor: pl.Expr | float) -> pl.DataFrame:
    return frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * factor)


def still(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(*[pl.lit(20.0).alias(c) for c in PRICE_COLUMNS[:4]], dividend=pl.lit(0.0), split=pl.lit(1.0))


def without_a_month(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(~pl.int_range(pl.len()).over("symbol").is_between(300, 330))


def split_ten(frame: pl.DataFrame) -> pl.DataFrame:
    after = pl.int_range(pl.len()).over("symbol") >= 300
    prices = [pl.when(after).then(pl.col(c) / 10).otherwise(c).alias(c) for c in PRICE_COLUMNS[:4]]
    return frame.with_columns(*prices, split=pl.when(pl.int_range(pl.len()).over("symbol") == 300).then(10.0).otherwise(pl.col("split")))


EXTREMES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "holes": lambda f: f.with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 3).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS
    ),
    "one price": still,
    "no volume": lambda f: f.with_columns(volume=pl.lit(0.0)),
    "neither": lambda f: still(f).with_columns(volume=pl.lit(0.0)),
    "one row": lambda f: f.group_by("symbol", maintain_order=True).head(1),
    "no row": lambda f: f.head(0),
    "a month's gap": without_a_month,
    "a 10:1 split": split_ten,
    "prices of 1e-4": lambda f: priced(f, 1e-4 / pl.col("close").mean()),
    "prices of 1e6": lambda f: priced(f, 1e6 / pl.col("close").mean()),
}


@pytest.mark.parametrize("extreme", EXTREMES)
def test_no_extreme_market_breaks_a_column_or_makes_it_infinite(extreme: str) -> None:
    for name in OWN:
        tables = CASES[name]()
        frame = said(feature_set(name), {**tables, "bars": EXTREMES[extreme](tables["bars"])})
        assert_finite_or_undefined(frame, name)
    bars = EXTREMES[extreme](market(symbols=SYMBOLS))
    if bars.height:
        for name in ACROSS:
            assert_finite_or_undefined(said(feature_set(name), compared(name, bars)), name)


def assert_finite_or_undefined(frame: pl.DataFrame, name: str) -> None:
    infinite = [c for c in frame.columns[3:] if frame[c].is_infinite().any()]
    assert infinite == [], name


@pytest.mark.parametrize("factor", [1e-3, 8.0])
def test_prices_in_another_currency_move_only_what_is_in_units_of_price(factor: float) -> None:
    for name in (n for n in OWN if feature_set(n).reads == ("bars",)):
        bars, specs = market(), CATALOG.specs(name)
        a, b = said(feature_set(name), {"bars": bars}), said(feature_set(name), {"bars": priced(bars, factor)})
        moved = {s.name for s in specs if not np.allclose(a[s.name], b[s.name], rtol=2e-3, atol=1e-4, equal_nan=True)}
        assert moved <= {s.name for s in specs if s.unit in OF_SCALE}, name
