"""Every document is read once, by tasks or by actors, and what was read before is not read again."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, MENTION_SCHEMA, TEXT_SCHEMA
from rlaif_ray.errors import ConfigError
from rlaif_ray.text import build, build_embedding, made_by, on_ray
from rlaif_ray.text.on_ray import Reader, ReadTexts, read_texts

START = dt.datetime(2020, 1, 20, 12, tzinfo=dt.UTC)
TEXTS = ("Sales beat estimates", "Shares plunge after profit warning", "The bank opens an office", "", "Maker cuts guidance")


def documents(n: int, first: int = 0) -> pl.DataFrame:
    """A story every two days, in several months."""
    at = [START + dt.timedelta(days=2 * k) for k in range(first, n)]
    rows = {
        "id": [f"d{k}" for k in range(first, n)], "timestamp": at, "known_at": at, "kind": "news", "section": None, "source": "wire",
        "title": [f"Story {k}" for k in range(first, n)], "text": [TEXTS[k % len(TEXTS)] for k in range(first, n)], "url": None,
    }  # fmt: skip
    return pl.DataFrame(rows, DOCUMENT_SCHEMA)


def mentions(told: pl.DataFrame, symbol: str, late: dt.timedelta = dt.timedelta(0)) -> pl.DataFrame:
    return told.select(pl.lit(symbol).alias("symbol"), "timestamp", pl.col("known_at") + late, "id").cast(pl.Schema(MENTION_SCHEMA))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Forty stories about AAA; every other one names BBB too, which was found out a day later."""
    lake, told = Lake(str(tmp_path), "test"), documents(40)
    lake.append("documents", told, "all")
    lake.append("mentions", pl.concat([mentions(told, "AAA"), mentions(told.gather_every(2), "BBB", dt.timedelta(days=1))]), "all")
    return lake


def by_hand(told: pl.DataFrame, reader: Reader) -> pl.DataFrame:
    model, embedding = reader.build()
    texts = [f"{title}. {text}" for title, text in told.select("title", "text").iter_rows()]
    score, confidence = model.score(texts)
    return pl.DataFrame({
        "id": told["id"], "score": score, "confidence": confidence, "words": [len(t.split()) for t in texts],
        "vector": pl.Series(embedding.vectors(texts)).arr.to_list(),
    }).cast({"words": pl.Int32}).sort("id")  # fmt: skip


def test_tasks_say_what_a_loop_says_and_a_row_is_known_when_both_are(ray_session: None, lake: Lake) -> None:
    done = read_texts(lake, Reader())
    rows = lake.read("text_lexicon")
    assert done == ReadTexts("text_lexicon", f"{made_by('lexicon')}/hashing", 40, 60, 0)
    assert dict(rows.schema) == TEXT_SCHEMA and set(rows["model"]) == {done.model} and rows.height == 60
    for symbol, told in (("AAA", documents(40)), ("BBB", documents(40).gather_every(2))):
        of = rows.filter(symbol=symbol).sort("id")
        assert of.select("id", "score", "confidence", "words", "vector").equals(by_hand(told, Reader()))
    late = rows["known_at"] - rows["timestamp"]
    assert (late == pl.Series([dt.timedelta(days=int(s == "BBB")) for s in rows["symbol"]])).all()


def test_only_what_was_not_read_is_read(ray_session: None, lake: Lake) -> None:
    read_texts(lake, Reader())
    version = lake.version("text_lexicon")
    assert (read_texts(lake, Reader()).documents, lake.version("text_lexicon")) == (0, version)
    lake.append("documents", documents(50, first=40), "more")
    lake.append("mentions", pl.concat([mentions(documents(52, first=40), "AAA"), mentions(documents(3), "CCC")]), "more")
    done = read_texts(lake, Reader())
    assert (done.documents, done.added, done.waiting) == (13, 13, 2)  # of two mentions the lake has no document yet
    assert lake.read("text_lexicon").filter(symbol="CCC")["id"].to_list() == ["d0", "d1", "d2"]


def test_a_story_that_is_updated_counts_as_it_was_first_told(ray_session: None, lake: Lake) -> None:
    later = documents(1).with_columns(pl.lit("Shares soar").alias("text"), pl.col("known_at") + dt.timedelta(days=90))
    lake.append("documents", later, "update")
    read_texts(lake, Reader())
    first = lake.read("text_lexicon").filter(symbol="AAA", id="d0")
    assert first["known_at"][0] == START and first["score"][0] == by_hand(documents(1), Reader())["score"][0]


def test_a_pass_that_is_cut_off_goes_on_where_it_ended(ray_session: None, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full after one of five commits: what it committed stands, and the next pass reads the rest."""
    monkeypatch.setattr(on_ray, "DOCUMENTS_A_COMMIT", 8)

    class FullAfterOne(Lake):
        def append(self, table: str, frame: pl.DataFrame, shard: str, *, revised_at: dt.datetime | None = None) -> int:
            if table in self.tables():
                raise OSError("no room")
            return super().append(table, frame, shard, revised_at=revised_at)

    with pytest.raises(OSError, match="no room"):
        read_texts(FullAfterOne(lake.uri, lake.dataset), Reader())
    before = lake.read("text_lexicon")["id"].n_unique()
    assert before == 8 and read_texts(lake, Reader()).documents == 32
    assert lake.read("text_lexicon").height == 60


def test_actors_with_a_network_say_what_a_loop_says(ray_session: None, lake: Lake, tiny_finbert: Path) -> None:
    reader = Reader("finbert", str(tiny_finbert), device="cpu", batch=8)
    done = read_texts(lake, reader, actors=1)
    rows = lake.read("text_finbert").filter(symbol="AAA").sort("id")
    assert (done.documents, done.added, done.model) == (40, 60, f"{made_by('finbert', str(tiny_finbert))}/hashing")
    assert rows.select("id", "score", "confidence", "words", "vector").equals(by_hand(documents(40), reader))


def test_missing_weights_are_said_before_anything_is_read(ray_session: None, lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'lexicon'"):
        read_texts(lake, Reader("finbert", str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no classifier"):
        read_texts(lake, Reader("finbert", str(tmp_path / "empty"), device="cpu"), actors=1)


def test_the_reader_is_what_build_builds() -> None:
    model, embedding = Reader().build()
    assert (type(model), type(embedding)) == (type(build("lexicon")), type(build_embedding("hashing")))
    assert np.isfinite(model.score(["word"])[0]).all()
