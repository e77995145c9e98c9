"""Facts and documents through Ray into the lake: nothing twice, nothing lost for one that cannot be read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from rlaif_ray.data.facts_on_ray import take_facts
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import DOCUMENT_SCHEMA, FACT_SCHEMA, MENTION_SCHEMA
from rlaif_ray.errors import DataError

pytestmark = pytest.mark.usefixtures("ray_session")
DAY = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)


class Stories:
    """A figure of each symbol, and one story that names all of them, which some heard of later."""

    def symbols(self) -> list[str]:
        return ["A", "B", "BAD"]

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        if symbol == "BAD":
            raise DataError("BAD: a figure that is no number")
        heard = DAY + dt.timedelta(hours={"A": 5, "B": 3}[symbol])
        fact = {"symbol": symbol, "timestamp": DAY, "known_at": DAY, "name": "x/sales", "unit": "USD", "value": 1.0}
        story = {"id": "1", "timestamp": DAY, "known_at": heard, "kind": "news", "source": "wire", "text": "A buys B"}
        return {
            "facts": pl.DataFrame([fact], FACT_SCHEMA), "documents": pl.DataFrame([story], DOCUMENT_SCHEMA),
            "mentions": pl.DataFrame([{"symbol": symbol, "timestamp": DAY, "known_at": heard, "id": "1"}], MENTION_SCHEMA),
        }  # fmt: skip


def test_a_story_of_two_symbols_is_one_document_and_who_cannot_be_read_is_named(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "set")
    done = take_facts(Stories(), lake)
    assert done.added == {"facts": 2, "documents": 1, "mentions": 2}
    assert done.failed == {"BAD": "BAD: a figure that is no number"}
    assert lake.read("documents")["known_at"].to_list() == [DAY + dt.timedelta(hours=3)]
    assert sum(take_facts(Stories(), lake).added.values()) == 0
