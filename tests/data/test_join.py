import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import UTC
from rlaif_ray.data.asof import join
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, FACT_SCHEMA, MACRO, MENTION_SCHEMA
from rlaif_ray.errors import SchemaError
from rlaif_ray.features.catalog import Catalog
from tests.data.bars import daily


def day(k: float) -> dt.datetime:
    return dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=k)


def facts(*said: tuple[float, float, float | None], symbol: str = "A", name: str = "sales", days: int | None = None) -> pl.DataFrame:
    """(end of the period, day known, value) each; `days`: length of the period."""
    start = [None if days is None else day(end - days).date() for end, _, _ in said]
    rows = [(symbol, day(e), day(k), name, s, "USD", v, None, None) for (e, k, v), s in zip(said, start, strict=True)]
    return pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row")


def moments(*days: float, symbol: str = "A") -> pl.DataFrame:
    return pl.DataFrame({"symbol": [symbol] * len(days), "known_at": [day(k) for k in days]}, schema={"symbol": pl.String, "known_at": UTC})


def seen(table: pl.DataFrame, *days: float, column: str = "sales") -> list[float | None]:
    return join(moments(*days), {"facts": table})[column].to_list()


def test_a_fact_is_seen_from_its_moment_on_and_grows_old() -> None:
    table = facts((10, 40, 1.0), (100, 130, 2.0))
    assert seen(table, 39.9, 40, 129.9, 130) == [None, 1.0, 1.0, 2.0]
    assert seen(table, 39.9, 40, 129.5, 130, column="sales_age_days") == [None, 30.0, 119.5, 30.0]


def test_a_restatement_replaces_what_it_restates_from_its_own_moment() -> None:
    table = facts((10, 40, 1.0), (10, 60, 1.5), (10, 80, 1.0))
    assert seen(table, 40, 59, 60, 79, 80) == [1.0, 1.0, 1.5, 1.5, 1.0]
    assert seen(table, 60, column="sales_age_days") == [50.0]


def test_a_fact_about_an_older_period_that_arrives_late_replaces_nothing_newer() -> None:
    """The period to day 100 is known on day 130; the one to day 10 is filed late, on 140, and restated on 150."""
    table = facts((100, 130, 2.0), (10, 140, 1.0), (10, 150, 1.1), (100, 160, 2.2))
    assert seen(table, 129, 130, 140, 150, 160) == [None, 2.0, 2.0, 2.0, 2.2]


def test_of_periods_that_end_together_the_shortest_counts() -> None:
    year, quarter = facts((100, 130, 40.0), (100, 170, 41.0), days=365), facts((100, 140, 10.0), days=91)
    assert seen(pl.concat([year, quarter]), 130, 140, 170) == [40.0, 10.0, 10.0]
    assert seen(pl.concat([year, quarter, facts((100, 150, 7.0))]), 149, 150) == [10.0, 7.0]  # an instant is shorter still


def test_of_several_units_the_first_known_counts() -> None:
    euro = facts((100, 150, 9.0)).with_columns(unit=pl.lit("EUR"))
    assert seen(pl.concat([euro, facts((10, 40, 1.0), (100, 140, 2.0))]), 40, 140, 150) == [1.0, 2.0, 2.0]


def test_each_symbol_and_name_is_its_own_and_macro_is_everybodys() -> None:
    table = pl.concat([
        facts((1, 2, 1.0)), facts((1, 3, 5.0), name="debt"), facts((1, 2, 9.0), symbol="B"), facts((1, 4, 4.5), symbol=MACRO, name="rate"),
    ])  # fmt: skip
    rows = pl.concat([moments(5, symbol="B"), moments(5, 2), moments(4, symbol="C")]).with_columns(mine=pl.Series([1, 2, 3, 4]))
    found = join(rows, {"facts": table})
    assert found.select(rows.columns).equals(rows)
    assert found["sales"].to_list() == [9.0, 1.0, 1.0, None]
    assert found["debt"].to_list() == [None, 5.0, None, None]
    assert found["rate"].to_list() == [4.5, 4.5, None, 4.5]


def test_rows_of_one_moment_see_the_same() -> None:
    assert seen(facts((1, 2, 1.0), (2, 3, None)), 2, 2, 1, 2, 3, 3) == [1.0, 1.0, None, 1.0, None, None]


def test_tables_of_one_row_a_time_give_their_columns() -> None:
    """A bar of day 1, restated on day 5; the bar of day 3 comes late, on day 4; the one of day 2 later still."""
    keys = {"symbol": ["A"] * 4, "timestamp": [day(1), day(1), day(3), day(2)], "known_at": [day(1), day(5), day(4), day(6)]}
    bars = pl.DataFrame({**keys, "close": [1.0, 1.5, 3.0, 2.0], "session": [day(k).date() for k in (1, 1, 3, 2)]})
    found = join(moments(0, 1, 4, 5, 6), {"bars": bars})
    assert found["close"].to_list() == [None, 1.0, 3.0, 3.0, 3.0]
    assert found["bars_age_days"].to_list() == [None, 0.0, 1.0, 2.0, 3.0]
    assert "timestamp" not in found.columns


def test_documents_are_counted_by_when_they_became_known() -> None:
    said = [("A", day(0), day(1), "x"), ("A", day(0), day(5), "y"), ("A", day(0), day(6), "x"), ("B", day(0), day(0), "x")]
    found = join(moments(0.5, 1, 5, 5.5, 8, 20, 40), {"mentions": pl.DataFrame(said, schema=MENTION_SCHEMA, orient="row")})
    assert found["mentions_1d"].to_list() == [None, 1, 1, 1, 0, 0, 0]
    assert found["mentions_7d"].to_list() == [None, 1, 2, 2, 1, 0, 0]
    assert found["mentions_30d"].to_list() == [None, 1, 2, 2, 2, 2, 0]
    assert found["mentions_age_days"].to_list() == [None, 1, 5, 5.5, 8, 20, 40]


def test_what_cannot_be_joined() -> None:
    with pytest.raises(SchemaError, match="'documents' has no symbol"):
        join(moments(1), {"documents": pl.DataFrame(schema=DOCUMENT_SCHEMA)})
    scores = pl.DataFrame({"symbol": ["A"], "timestamp": [day(0)], "known_at": [day(0)], "x": [1.0]})
    with pytest.raises(SchemaError, match=r"columns \['x'\] come from two of the tables \['features_a', 'features_b'\]"):
        join(moments(1), {"features_a": scores, "features_b": scores})
    assert join(moments(1), {"facts": pl.DataFrame(schema=FACT_SCHEMA)}).equals(moments(1))
    assert join(moments(), {"facts": facts((1, 2, 1.0)), "features_a": scores}).columns == [
        "symbol", "known_at", "sales", "sales_age_days", "x", "features_a_age_days",
    ]  # fmt: skip


def test_a_dataset_joins_what_it_pinned(tmp_path: Path) -> None:
    """Bars, scores, facts and mentions of a lake in one call; what came in after the pin is not seen."""
    lake = Lake(str(tmp_path), "set")
    bars = pl.concat([daily("A", [1.0, 2.0, 3.0]), daily("B", [5.0, 6.0, 7.0])])
    end = bars["timestamp"][1]
    news = pl.DataFrame({"symbol": ["A"], "timestamp": [day(0)], "known_at": [day(0)], "news_score": [0.5]})
    news = news.cast({"known_at": UTC, "timestamp": UTC})
    table = pl.concat([facts((-10, -5, 1.0), (-10, 1.5, 2.0)), facts((-9, -8, 4.5), symbol=MACRO, name="rate")])
    named = pl.DataFrame([("B", day(0), day(0), "x")], schema=MENTION_SCHEMA, orient="row")
    document = pl.DataFrame([("x", day(0), day(0), "news", None, "wire", None, "text", None)], schema=DOCUMENT_SCHEMA, orient="row")
    tables = {"bars": bars, "news": news, "facts": table, "mentions": named, "documents": document}
    for name, frame in tables.items():
        lake.append(name, frame, "0")
    pinned = {name: lake.version(name) for name in tables}
    lake.append("facts", facts((-10, 1.6, 99.0)), "0")
    dataset = Dataset(lake, pinned, ("A", "B"), {}, Catalog(), (), (), "raw", 252.0, None, None, "")
    rows = pl.DataFrame({"symbol": ["B", "A", "A"], "known_at": [end, day(1), end]}, schema={"symbol": pl.String, "known_at": UTC})
    found = dataset.join(rows)
    assert found.select("symbol", "known_at").equals(rows)
    assert found["close"].to_list() == [6.0, None, 2.0] and found["sales"].to_list() == [None, 1.0, 2.0]
    assert found["rate"].to_list() == [4.5] * 3 and found["news_score"].to_list() == [None, 0.5, 0.5]
    assert found["mentions_7d"].to_list() == [1, None, None]


def random_facts(rng: np.random.Generator, n: int) -> pl.DataFrame:
    """Periods and names of three symbols, known 0 to 60 days late, some restated, some with another length."""
    end, late, symbol = rng.integers(0, 300, n), rng.integers(0, 60, n), rng.choice(["A", "B", MACRO], n)
    return pl.DataFrame({
        "symbol": symbol, "timestamp": [day(int(e)) for e in end],
        "known_at": [day(int(e + k)) for e, k in zip(end, late, strict=True)],
        "name": np.where(symbol == MACRO, "rate", rng.choice(["x", "y"], n)),
        "started": [None if r < 0.3 else day(int(e) - (90 if r < 0.7 else 360)).date() for e, r in zip(end, rng.random(n), strict=True)],
        "unit": ["USD"] * n, "value": rng.standard_normal(n), "form": [None] * n, "source_id": [None] * n,
    }, schema=FACT_SCHEMA)  # fmt: skip


def by_hand(table: pl.DataFrame, symbol: str, moment: dt.datetime, name: str) -> float | None:
    """The rule, row by row."""
    known = table.filter((pl.col("symbol") == symbol) & (pl.col("name") == name) & (pl.col("known_at") <= moment))
    if not known.height:
        return None
    order = known.with_row_index().with_columns(pl.col("started").fill_null(dt.date.max)).sort("timestamp", "started", "known_at", "index")
    return order["value"][-1]


@pytest.mark.parametrize("seed", range(5))
def test_the_join_is_the_rule_and_the_future_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_facts(rng, 300)
    rows = pl.concat([moments(*rng.uniform(0, 360, 40).round(), symbol=s) for s in "AB"]).sample(fraction=1.0, shuffle=True, seed=seed)
    found = join(rows, {"facts": table.filter(pl.col("symbol") != MACRO)})
    for name in ("x", "y"):
        assert found[name].to_list() == [by_hand(table, s, at, name) for s, at in rows.iter_rows()]
    cut = day(180)
    noise = pl.when(pl.col("known_at") > cut).then(pl.Series(rng.standard_normal(300))).otherwise("value").alias("value")
    before = pl.col("known_at") <= cut
    expected = join(rows, {"facts": table}).filter(before)
    for perturbed in (table.filter(before), table.with_columns(noise), pl.concat([table, random_facts(rng, 300).filter(~before)])):
        assert join(rows, {"facts": perturbed}).filter(before).equals(expected)
