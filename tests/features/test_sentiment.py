"""News, calls and filings as columns: windows by when a text was known, by hand, by a plain reference, and by the laws."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import Panel
from rlaif_ray.data.asof import join
from rlaif_ray.data.documents import DocumentSource
from rlaif_ray.data.tables import MACRO, TEXT_SCHEMA
from rlaif_ray.errors import ConfigError
from rlaif_ray.features.sentiment import SENTIMENT, sentiment
from rlaif_ray.text import build, build_embedding
from tests.laws import assert_apply, assert_pure, random_bars

SPECS = tuple(s for family in SENTIMENT.families for s in family.specs())
FIRST = dt.datetime(2000, 1, 3, 21, tzinfo=dt.UTC)  # of `random_bars`, a bar a day
DAY = dt.timedelta(days=1)
SECTIONS = ((None, "news"), (None, "tweet"), (None, "transcript"), ("7", "10-K"), ("1A", "10-K"), ("I.2", "10-Q"), ("II.1A", "10-Q/A"))


@cache
def bars() -> Panel:
    return Panel(random_bars(np.random.default_rng(0), 300).frame.head(120))


def texts(
    *rows: tuple[float, float], kind: str = "news", section: str | None = None, vectors: list[list[float]] | None = None
) -> pl.DataFrame:  # fmt: skip
    """One a (days after the first bar, score), with a confidence of half the score's magnitude."""
    at = [FIRST + days * DAY for days, _ in rows]
    return pl.DataFrame({
        "symbol": ["S00"] * len(rows), "timestamp": at, "known_at": at, "id": [f"{kind}{section}{k}" for k in range(len(rows))],
        "kind": [kind] * len(rows), "section": [section] * len(rows), "source": ["wire"] * len(rows), "model": ["lexicon:0"] * len(rows),
        "score": [score for _, score in rows], "confidence": [abs(score) / 2 for _, score in rows], "words": [9] * len(rows),
        "vector": vectors or [[1.0, 0.0]] * len(rows),
    }, schema=TEXT_SCHEMA)  # fmt: skip


def many(rng: np.random.Generator, n: int, days: float = 150.0, width: int = 8) -> pl.DataFrame:
    """Texts of all kinds at random moments, some of them at the same one, from long before the first bar on."""
    at = [FIRST + float(d) * DAY for d in np.round(rng.uniform(-days, days, n), 1)]
    vectors = rng.standard_normal((n, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:: max(1, n // 5)] = 0.0
    of = [SECTIONS[min(int(k), 6)] for k in rng.integers(0, 12, n) % 7]
    return pl.DataFrame({
        "symbol": ["S00"] * n, "timestamp": at, "known_at": at, "id": [f"d{k}" for k in rng.permutation(n)], "kind": [k for _, k in of],
        "section": [s for s, _ in of], "source": ["wire"] * n, "model": ["lexicon:0"] * n, "score": rng.uniform(-1, 1, n),
        "confidence": rng.uniform(0, 1, n), "words": rng.integers(1, 99, n), "vector": vectors.tolist(),
    }, schema=TEXT_SCHEMA)  # fmt: skip


def values(told: pl.DataFrame, name: str, panel: Panel | None = None) -> np.ndarray:
    spec = next(s for s in SPECS if s.name == name)
    return SENTIMENT.apply({"bars": (panel or bars()).frame, "text_lexicon": told}, [spec]).frame[name].to_numpy()


# --- by hand -------------------------------------------------------------------------------------------------------


def test_a_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    """Known with bar 10: counted on bar 10 for the first time, on bar 17 not any more."""
    count, mean = (values(texts((10, 0.5)), f"news_lexicon_{what}_7d") for what in ("count", "mean"))
    assert (count == 1.0).nonzero()[0].tolist() == list(range(10, 17))
    assert np.isfinite(mean).nonzero()[0].tolist() == list(range(10, 17)) and (mean[10:17] == 0.5).all()


def test_aggregates_by_hand() -> None:
    """Scores 0.8, -0.4 and -0.02 within a week; confidences 0.4, 0.2 and 0.01."""
    told = texts((8, 0.8), (9, -0.4), (9.5, -0.02))
    at = {name: values(told, f"news_lexicon_{name}")[10] for name in (
        "mean_7d", "weighted_7d", "strongest_7d", "negative_7d", "dispersion_7d", "trend_7d_30d", "age_days", "decayed_1d",
    )}  # fmt: skip
    assert at["mean_7d"] == pytest.approx(0.38 / 3)
    assert at["weighted_7d"] == pytest.approx((0.32 - 0.08 - 0.0002) / 0.61)
    assert at["strongest_7d"] == pytest.approx(0.8) and at["negative_7d"] == pytest.approx(1 / 3)
    assert at["dispersion_7d"] == pytest.approx(np.std([0.8, -0.4, -0.02], ddof=1))
    assert at["trend_7d_30d"] == 0.0 and at["age_days"] == 0.5
    weights = np.array([0.25, 0.5, 0.5**0.5])
    assert at["decayed_1d"] == pytest.approx(weights @ [0.8, -0.4, -0.02] / weights.sum())
    assert values(told, "news_lexicon_trend_7d_30d")[15] == pytest.approx(-0.21 - 0.38 / 3)  # the first is out of the week
    assert values(texts((8, -0.8), (9, 0.8)), "news_lexicon_strongest_7d")[10] == pytest.approx(0.8)  # of two the later


def test_texts_that_the_model_knows_no_word_of_have_no_weight() -> None:
    told = texts((8, 0.0), (9, 0.0))
    assert np.isnan(values(told, "news_lexicon_weighted_7d")).all() and values(told, "news_lexicon_mean_7d")[10] == 0.0


def test_abnormal_volume_by_hand() -> None:
    """A story every other day for 40 days, then four on one: usual is half a story a day."""
    told = texts(*[(k, 0.1) for k in range(0, 40, 2)], *[(40.0 - k / 100, 0.1) for k in range(4)])
    x = values(told, "news_lexicon_abnormal_1d_30d")
    assert np.isnan(x[:31]).all() and np.isfinite(x[31:]).all()
    assert x[40] == pytest.approx(np.log(5 / 1.5))
    assert x[39] == pytest.approx(np.log(1 / 1.5)) and x[38] == pytest.approx(np.log(2 / 1.5))


def test_novelty_by_hand() -> None:
    """First of its kind: 1. Said again: 0. At a right angle: 1. Half-way: 1 - sqrt(1/2). Again after a month: 1."""
    half = np.sqrt(0.5)
    told = texts(*[(d, 0.1) for d in (1, 10, 20, 30, 90)], vectors=[[1, 0], [1, 0], [0, 1], [half, half], [1, 0]])
    x = values(told, "news_lexicon_novelty_7d_30d")
    np.testing.assert_allclose(x[[1, 10, 20, 30, 90]], [1, 0, 1, 1 - half, 1], atol=1e-6)
    empty = texts((1, 0.1), vectors=[[0.0, 0.0]])
    assert np.isnan(values(empty, "news_lexicon_novelty_7d_30d")).all()


def test_calls_and_filings_stand_until_the_next_and_change_from_the_one_before() -> None:
    told = pl.concat([
        texts((5, 0.3), (50, -0.1), kind="transcript"), texts((10, 0.2), kind="10-K", section="7"),
        texts((40, -0.3), (70, 0.1), kind="10-Q", section="I.2"), texts((90, 0.6), kind="10-K/A", section="7"),
        texts((20, -0.9), kind="10-K", section="1A"), texts((30, 0.9), kind="8-K", section="2.02"),
    ])  # fmt: skip
    at = [4, 5, 49, 50, 110]
    np.testing.assert_allclose(values(told, "call_lexicon_tone")[at], [np.nan, 0.3, 0.3, -0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(values(told, "call_lexicon_tone_change")[at], [np.nan, np.nan, np.nan, -0.4, -0.4], rtol=1e-6)
    np.testing.assert_allclose(values(told, "call_lexicon_age_days")[at], [np.nan, 0, 44, 0, 60])
    at = [9, 10, 40, 70, 90]
    np.testing.assert_allclose(values(told, "filing_lexicon_discussion_tone")[at], [np.nan, 0.2, -0.3, 0.1, 0.6], rtol=1e-6)
    change = values(told, "filing_lexicon_discussion_tone_change")[at]
    np.testing.assert_allclose(change, [np.nan, np.nan, np.nan, 0.4, 0.4], rtol=1e-5)  # of like with like
    assert values(told, "filing_lexicon_risk_tone")[119] == np.float32(-0.9)
    assert (values(told, "news_lexicon_count_30d") == 0).all()  # none of these is news


def test_a_text_counts_once_as_it_was_first_known_by_the_last_model() -> None:
    first = texts((10, 0.5))
    again = first.with_columns(pl.col("known_at") + 30 * DAY, score=pl.lit(-0.5, pl.Float32))
    rescored = first.with_columns(score=pl.lit(0.7, pl.Float32), model=pl.lit("lexicon:1"))
    everybodys = texts((10, -1.0)).with_columns(symbol=pl.lit(MACRO))
    told = pl.concat([first, rescored, again, everybodys])
    assert values(told, "news_lexicon_count_30d")[10] == 1.0 and values(told, "news_lexicon_mean_30d")[10] == np.float32(0.7)
    assert values(told, "news_lexicon_count_30d")[45] == 0.0


# --- parity, extremes ----------------------------------------------------------------------------------------------


def test_equals_a_plain_reference() -> None:
    told = many(np.random.default_rng(3), 400)
    news = told.filter(pl.col("kind").is_in(["news", "tweet"])).sort("known_at", "id")
    rows = bars().frame["known_at"]
    for t in range(0, 120, 7):
        for days in (1, 7, 30):
            seen = news.filter(pl.col("known_at") <= rows[t], pl.col("known_at") > rows[t] - days * DAY)
            score, weight = (seen[c].cast(pl.Float64).to_numpy() for c in ("score", "confidence"))
            assert values(told, f"news_lexicon_count_{days}d")[t] == seen.height
            means = (score.mean(), score @ weight / weight.sum()) if seen.height else (np.nan, np.nan)
            for name, x in zip(("mean", "weighted"), means, strict=True):
                np.testing.assert_allclose(values(told, f"news_lexicon_{name}_{days}d")[t], x, rtol=1e-5)
    vectors = np.array(news["vector"].to_list())
    novelty = []
    for k, at in enumerate(news["known_at"]):
        near = [vectors[k] @ vectors[j] for j in range(k) if news["known_at"][j] >= at - 30 * DAY]
        novelty.append(np.nan if not vectors[k].any() else 1 - np.clip(max(near, default=0.0), 0, 1))
    seen = [k for k, at in enumerate(news["known_at"]) if rows[60] - 7 * DAY < at <= rows[60]]
    np.testing.assert_allclose(values(told, "news_lexicon_novelty_7d_30d")[60], np.nanmean([novelty[k] for k in seen]), rtol=1e-4)


def test_real_tweets_are_counted_as_the_as_of_join_counts_them(real_data: Path) -> None:
    """And what the lexicon says of them is a mean of scores that a loop finds again."""
    source = DocumentSource(str(real_data / "text" / "stocknet_tweets"), names=["XOM"], tz="UTC")
    read, model = source.read("XOM"), build("lexicon")
    documents = read["documents"].head(2000)
    score, confidence = model.score(documents["text"].to_list())
    told = documents.select(
        pl.lit("XOM").alias("symbol"), "timestamp", "known_at", "id", "kind", "section", "source", pl.lit("lexicon").alias("model"),
        pl.Series("score", score), pl.Series("confidence", confidence), pl.lit(1, pl.Int32).alias("words"),
        pl.Series("vector", build_embedding("hashing").vectors(documents["text"].to_list()).tolist(), pl.List(pl.Float32)),
    )  # fmt: skip
    first, last = (np.datetime64(told["known_at"][k].replace(tzinfo=None), "us") for k in (0, -1))
    at = pl.Series(np.arange(first - np.timedelta64(2, "D"), last, np.timedelta64(1, "D"))).dt.replace_time_zone("UTC")
    rows = pl.DataFrame({"symbol": "XOM", "timestamp": at, "known_at": at})
    joined = join(rows, {"mentions": read["mentions"].filter(pl.col("id").is_in(told["id"].implode()))})
    for days in (1, 7, 30):
        np.testing.assert_array_equal(values(told, f"news_lexicon_count_{days}d", Panel(rows)), joined[f"mentions_{days}d"].fill_null(0))
    week = told.filter(pl.col("known_at").is_between(at[100] - 7 * DAY, at[100], closed="right"))
    np.testing.assert_allclose(values(told, "news_lexicon_mean_7d", Panel(rows))[100], week["score"].to_numpy().mean(), rtol=1e-5)


def test_every_column_is_defined_from_the_first_row_on_where_texts_are_old_enough() -> None:
    rng = np.random.default_rng(4)
    frame = SENTIMENT.apply({"bars": bars().frame, "text_lexicon": many(rng, 4000)}, SPECS).frame
    assert frame.columns[3:] == [s.name for s in SPECS] and len(SPECS) == 33
    for spec in SPECS:
        assert frame.schema[spec.name] == pl.Float32
        assert np.flatnonzero(np.isfinite(frame[spec.name].to_numpy()))[0] == spec.look_back_bars == 0, spec.name


@pytest.mark.parametrize("rows", [0, 1, 120])
def test_no_texts_is_not_neutral(rows: int) -> None:
    frame = SENTIMENT.apply({"bars": bars().frame.head(rows), "text_lexicon": texts()}, SPECS).frame
    assert frame.height == rows
    for spec in SPECS:
        x = frame[spec.name].to_numpy()
        assert (x == 0).all() if "_count_" in spec.name else np.isnan(x).all(), spec.name
    assert SENTIMENT.apply({"bars": bars().frame}, SPECS).columns == []  # no table, no columns


def test_broken_texts_make_no_infinity() -> None:
    """Scores and vectors that are missing, NaN or of another width; thousands at one moment; a month without any."""
    told = many(np.random.default_rng(5), 300)
    n = pl.int_range(pl.len())
    told = told.with_columns(
        score=pl.when(n % 10 == 0).then(None).when(n % 10 == 1).then(np.nan).otherwise("score"),
        confidence=pl.when(n % 7 == 0).then(None).when(n % 7 == 1).then(np.nan).otherwise("confidence"),
        vector=pl.when(n % 5 == 0).then(None).when(n % 5 == 1).then(pl.lit([1.0], pl.List(pl.Float32))).otherwise("vector"),
        known_at=pl.when(n > 200).then(pl.lit(FIRST + 20 * DAY)).otherwise("known_at"),
        kind=pl.when(n % 11 == 0).then(None).otherwise("kind"),
    ).cast(pl.Schema(TEXT_SCHEMA))  # fmt: skip
    frame = SENTIMENT.apply({"bars": bars().frame, "text_lexicon": told}, SPECS).frame
    for spec in SPECS:
        x = frame[spec.name].to_numpy()
        assert not np.isinf(x).any()
        if spec.unit == "score" and "change" not in spec.name and "trend" not in spec.name:
            assert np.nanmax(np.abs(x)) <= (np.sqrt(2) if "dispersion" in spec.name else 1.0), spec.name
    assert np.isfinite(frame["news_lexicon_novelty_30d_30d"].to_numpy()).any()


def test_another_model_is_another_set_with_its_own_columns_and_table() -> None:
    other = sentiment("finbert")
    specs = tuple(s for family in other.families for s in family.specs())
    assert (other.name, other.reads) == ("sentiment_finbert", ("bars", "text_finbert"))
    assert [s.name for s in specs] == [s.name.replace("lexicon", "finbert") for s in SPECS] and specs[0].inputs == ("text_finbert",)
    frame = other.apply({"bars": bars().frame, "text_finbert": texts((10, 0.5))}, specs).frame
    assert frame["news_finbert_mean_7d"][10] == 0.5
    with pytest.raises(ConfigError, match=r"news_lexicon_mean_1d is of the model 'lexicon'; this set reads text_finbert"):
        other.apply({"bars": bars().frame, "text_finbert": texts()}, SPECS)


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 1, 30, 31, 32, 33, 77])
def test_no_column_sees_later_bars(t: int) -> None:
    told = many(np.random.default_rng(6), 500)

    def f(panel: Panel) -> Panel:
        return SENTIMENT.apply({"bars": panel.frame, "text_lexicon": told}, SPECS)

    assert_pure(f, bars(), t)
    assert_apply(f, bars(), t, np.random.default_rng(t))


@pytest.mark.parametrize("t", [0, 1, 30, 31, 32, 33, 77])
def test_no_column_sees_later_texts(t: int) -> None:
    """Texts known after row t are taken away, or others put in their place: more of them, on the same ids, of another width."""
    told, at = many(np.random.default_rng(7), 500), bars().frame["known_at"][t]
    known, later = told.filter(pl.col("known_at") <= at), told.filter(pl.col("known_at") > at)
    noise = many(np.random.default_rng(t), 900, width=5).filter(pl.col("known_at") > at)
    noise = noise.with_columns(id=pl.when(pl.int_range(pl.len()) % 3 == 0).then("id").otherwise(pl.format("n{}", "id")))

    def seen(frame: pl.DataFrame) -> pl.DataFrame:
        return SENTIMENT.apply({"bars": bars().frame, "text_lexicon": frame}, SPECS).frame.head(t + 1)

    said = seen(known)
    assert later.height and np.isfinite(said["news_lexicon_novelty_30d_30d"].to_numpy()).any()
    assert seen(told).equals(said) and seen(pl.concat([known, noise])).equals(said)


def test_a_bar_that_arrives_late_sees_what_was_known_by_then() -> None:
    late = pl.when(pl.int_range(pl.len()) == 10).then(pl.col("known_at") + 5 * DAY).otherwise("known_at")
    panel = Panel.of(bars().frame.with_columns(known_at=late))
    assert values(texts((12, 0.5)), "news_lexicon_count_7d", panel)[9:12].tolist() == [0.0, 1.0, 1.0]
