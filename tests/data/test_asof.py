import datetime as dt

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import CLOSE, OPEN, VOLUME, Cube, Panel
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.tables import cut
from rlaif_ray.errors import DataError, SchemaError
from tests.data.bars import daily, sessions
from tests.laws import assert_apply, assert_pure, random_bars

FIRST = dt.date(2020, 1, 2)
GRID = sessions(FIRST, 6)


def cube_of(*frames: pl.DataFrame, features: pl.DataFrame | None = None, **facts: pl.DataFrame) -> Cube:
    return build_cube(
        Panel.of(pl.concat(frames)), None if features is None else Panel.of(features), facts, bars_per_year=252.0, price_kind="raw"
    )


def fact(symbol: str, known_at: list[dt.datetime], scores: list[float | None], column: str = "filing_score") -> pl.DataFrame:
    return pl.DataFrame({"symbol": [symbol] * len(scores), "timestamp": known_at, "known_at": known_at, column: scores})


def column(cube: Cube, name: str, symbol: str) -> list[float | None]:
    values = cube.feature(name)[:, cube.symbols.index(symbol)]
    return [None if np.isnan(v) else float(v) for v in values]


def test_two_symbols_on_one_grid() -> None:
    cube = cube_of(daily("B", [5.0, 6.0], first=GRID["session"][1]), daily("A", [1.0, 2.0, 3.0]))
    assert cube.symbols == ("A", "B") and cube.times.tolist() == [t.replace(tzinfo=None) for t in GRID["close"][:3]]
    assert (cube.known_at == cube.times).all()
    np.testing.assert_array_equal(cube.close, [[1, np.nan], [2, 5], [3, 6]])
    np.testing.assert_array_equal(cube.tradable, [[True, False], [True, True], [True, True]])
    assert (cube.splits == 1).all() and (cube.dividends == 0).all() and not cube.delisted.any()
    assert cube.features.shape == (3, 2, 0) and cube.prices.dtype == np.float64


def test_the_decision_waits_for_the_usual_delay() -> None:
    late = daily("A", [1.0, 2.0]).with_columns(pl.col("known_at") + dt.timedelta(seconds=90))
    cube = cube_of(late)
    assert (cube.known_at - cube.times == np.timedelta64(90, "s")).all() and cube.tradable.all()


def test_delisting_lasts() -> None:
    gone = daily("B", [3.0, 3.0], tradable=[True, False], delisted=[False, True]).with_columns(
        pl.when(~pl.col("delisted")).then(c).alias(c) for c in ("open", "high", "low", "close", "volume")
    )
    cube = cube_of(daily("A", [1.0, 2.0, 3.0, 4.0]), gone)
    assert cube.delisted[:, 1].tolist() == [False, True, True, True]
    np.testing.assert_array_equal(cube.close[:, 1], [3, np.nan, np.nan, np.nan])
    assert cube.tradable[:, 1].tolist() == [True, False, False, False]


def test_a_missing_bar_stands_still_untradable() -> None:
    a, b = daily("A", [1.0, 2.0, 3.0, 4.0]), daily("B", [5.0, 6.0, 7.0, 8.0], open=[5.0, 5.5, 6.5, 7.5])
    cube = cube_of(a, b.filter(pl.col("close").is_in([5.0, 8.0])))
    assert cube.close[:, 1].tolist() == [5, 5, 5, 8] and cube.prices[:, 1, OPEN].tolist() == [5, 5, 5, 7.5]
    assert cube.prices[:, 1, VOLUME].tolist() == [100, 0, 0, 100]
    assert cube.tradable[:, 1].tolist() == [True, False, False, True]


def test_a_bar_revised_later_is_not_shown_on_its_row() -> None:
    """The value that stands there now was not known then: the close before stays, and nothing fills at it."""
    revised = daily("B", [5.0, 6.0, 7.0]).with_columns(
        pl.when(pl.col("close") == 6.0).then(dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).otherwise("known_at").alias("known_at")
    )
    cube = cube_of(daily("A", [1.0, 2.0, 3.0]), revised)
    assert (cube.known_at == cube.times).all()
    assert cube.close[:, 1].tolist() == [5, 5, 7] and cube.tradable[:, 1].tolist() == [True, False, True]


def test_events_of_a_row_that_is_not_shown_count_on_the_next() -> None:
    """100 shares at 8; a split in two, 0.25 a new share, then a split in four: 800 shares, 50 USD."""
    b = daily("B", [8.0, 4.0, 1.0], split=[1, 2, 4], dividend=[0, 0.25, 0.0]).with_columns(
        pl.when(pl.col("close") == 4.0).then(dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).otherwise("known_at").alias("known_at")
    )
    cube = cube_of(daily("A", [1.0, 2.0, 3.0]), b)
    assert cube.splits[:, 1].tolist() == [1, 1, 8]
    assert 800 * cube.dividends[2, 1] == 200 * 0.25 and cube.dividends[1, 1] == 0


def test_events_pass_over_several_hidden_rows() -> None:
    hidden = pl.when(pl.col("close").is_in([4.0, 2.0])).then(dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).otherwise("known_at").alias("known_at")
    b = daily("B", [8.0, 4.0, 2.0, 2.5], split=[1, 2, 2, 1], dividend=[0, 1.0, 0.5, 0.25]).with_columns(hidden)
    cube = cube_of(daily("A", [1.0, 2.0, 3.0, 4.0]), b)
    assert cube.splits[:, 1].tolist() == [1, 1, 1, 4]
    # One share: 2 shares earn 1 each, then 4 earn 0.5 each, then 4 earn 0.25 each: 5 USD on 4 shares.
    assert cube.dividends[:, 1].tolist() == [0, 0, 0, 1.25]


def test_a_dividend_on_a_hidden_row_before_the_delisting_is_still_paid() -> None:
    """Who holds at the delisting gets what is left and what was due: the row on which a symbol goes is the last to pay on."""
    b = daily(
        "B", [8.0, 8.0, 8.0], dividend=[0.0, 1.0, 0.0], delisted=[False, False, True], tradable=[True, True, False]
    ).with_columns(
        pl.when(pl.col("dividend") > 0).then(dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).otherwise("known_at").alias("known_at")
    )  # fmt: skip
    cube = cube_of(daily("A", [1.0, 2.0, 3.0, 4.0]), b)
    assert cube.delisted[:, 1].tolist() == [False, False, True, True]
    assert cube.dividends[:, 1].tolist() == [0, 0, 1, 0]


def test_close_only_bars_have_no_open_and_no_volume() -> None:
    bare = daily("A", [1.0, 2.0]).with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "volume"))
    cube = cube_of(bare, bare.with_columns(symbol=pl.lit("B")))
    assert np.isnan(cube.prices[:, :, [OPEN, VOLUME]]).all() and not np.isnan(cube.prices[:, :, CLOSE]).any()


def test_facts_appear_when_known_and_age_in_bars() -> None:
    known = [GRID["close"][1] - dt.timedelta(hours=1), GRID["close"][3] + dt.timedelta(seconds=1)]
    cube = cube_of(daily("A", [1.0] * 6), daily("B", [1.0] * 6), filings=fact("A", known, [0.5, -0.25]))
    assert cube.feature_names == ("filing_score", "filing_age_bars") and cube.features.dtype == np.float32
    assert column(cube, "filing_score", "A") == [None, 0.5, 0.5, 0.5, -0.25, -0.25]
    assert column(cube, "filing_age_bars", "A") == [None, 0, 1, 2, 0, 1]
    assert column(cube, "filing_score", "B") == column(cube, "filing_age_bars", "B") == [None] * 6


def test_a_fact_known_exactly_at_the_decision_is_seen_and_the_last_of_a_bar_wins() -> None:
    known = [GRID["close"][0] - dt.timedelta(days=400), GRID["close"][2] - dt.timedelta(hours=2), GRID["close"][2]]
    cube = cube_of(daily("A", [1.0] * 6), news=fact("A", known, [9.0, 1.0, 2.0], "news_score"))
    assert column(cube, "news_score", "A") == [9, 9, 2, 2, 2, 2]
    assert column(cube, "news_age_bars", "A") == [0, 1, 0, 1, 2, 3]


def test_a_late_filing_is_seen_late() -> None:
    late = pl.DataFrame({"symbol": ["A"], "timestamp": [GRID["close"][0]], "known_at": [GRID["close"][3]], "filing_score": [1.0]})
    assert column(cube_of(daily("A", [1.0] * 6), filings=late), "filing_score", "A") == [None, None, None, 1, 1, 1]


def test_features_lie_on_their_bars_and_are_shown_when_known() -> None:
    known = [GRID["close"][0], GRID["close"][2], GRID["close"][2]]
    keys = {"symbol": ["A"] * 3, "timestamp": GRID["close"][:3], "known_at": known}
    features = pl.DataFrame({**keys, "x": [1.0, 2.0, 3.0], "y": [None, 5.0, 6.0]})
    stranger = features.with_columns(symbol=pl.lit("Z"))
    cube = cube_of(daily("A", [1.0] * 4), daily("B", [1.0] * 4), features=pl.concat([features, stranger]))
    assert cube.feature_names == ("x", "y")
    assert column(cube, "x", "A") == [1, 1, 3, 3] and column(cube, "y", "A") == [None, None, 6, 6]
    assert column(cube, "x", "B") == [None] * 4


def test_what_a_cube_cannot_be_built_of() -> None:
    bars = daily("A", [1.0, 2.0])
    with pytest.raises(SchemaError, match=r"\['split'\] are missing"):
        cube_of(bars.drop("split"))
    with pytest.raises(DataError, match="there are none"):
        cube_of(bars.clear())


def test_cut_keeps_the_days_named() -> None:
    bars = daily("A", [1.0, 2.0, 3.0, 4.0])
    days = bars["session"]
    assert cut(bars, days[1], days[2])["close"].to_list() == [2.0, 3.0]
    assert cut(bars, None, None).equals(bars)
    facts = fact("A", [*GRID["close"][:2], dt.datetime(2020, 1, 4, tzinfo=dt.UTC), GRID["close"][2]], [1.0, 2.0, 2.5, 3.0])
    assert cut(facts, days[1], days[1])["filing_score"].to_list() == [1.0, 2.0, 2.5]  # an older one may still be the latest


def facts_of(rng: np.random.Generator, bars: Panel, name: str) -> Panel:
    """A score every few bars, known somewhat after its event."""
    rows = bars.frame.select("symbol", "timestamp", "known_at").filter(pl.Series(rng.random(bars.frame.height) < 0.1))
    late = pl.Series(rng.integers(0, 10 * 86_400, rows.height)).cast(pl.Duration("us")) * 1_000_000
    return Panel.of(rows.with_columns(pl.col("known_at") + late, pl.Series(name, rng.standard_normal(rows.height))))


@pytest.mark.parametrize("t", [60, 151, 290])
def test_what_becomes_known_later_changes_no_earlier_row(t: int) -> None:
    rng = np.random.default_rng(t)
    bars = random_bars(rng, rows=300, assets=4)
    features = Panel.of(bars.frame.select("symbol", "timestamp", "known_at", x=pl.col("close").log(), y=pl.col("volume")))
    filings = facts_of(rng, bars, "filing_score")
    at = np.unique(bars.frame["known_at"].dt.replace_time_zone(None).to_numpy())[t].astype("datetime64[us]")
    knobs = {"bars_per_year": 252.0, "price_kind": "raw"}

    def of_bars(given: Panel) -> Cube:
        return build_cube(given, features, {"filings": filings.frame}, **knobs)

    def of_features(given: Panel) -> Cube:
        return build_cube(bars, given, {}, **knobs)

    def of_facts(given: Panel) -> Cube:
        return build_cube(bars, None, {"filings": given.frame}, **knobs)

    for make, data in ((of_bars, bars), (of_features, features), (of_facts, filings)):
        assert_pure(make, data, at)
        assert_apply(make, data, at, rng)
    gappy = Panel.of(bars.frame.filter(pl.Series(rng.random(bars.frame.height) > 0.2)))
    assert_pure(of_bars, gappy, at)


def test_joining_on_the_event_instead_of_on_knowledge_is_caught() -> None:
    rng = np.random.default_rng(5)
    bars = random_bars(rng, rows=200, assets=2)
    filings = facts_of(rng, bars, "filing_score")

    def cheating(given: Panel) -> Cube:
        early = given.frame.with_columns(known_at="timestamp")
        return build_cube(bars, None, {"filings": early}, bars_per_year=252.0, price_kind="raw")

    at = bars.frame["known_at"].dt.replace_time_zone(None).to_numpy()[100].astype("datetime64[us]")
    with pytest.raises(AssertionError):
        assert_apply(cheating, filings, at, rng)
