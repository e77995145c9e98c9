"""Messages of a Kafka topic, one JSON object a bar, as one symbol's bars."""

from __future__ import annotations

import json
from collections.abc import Iterable

import polars as pl

from rlaif_ray.data.bar_tables import Adjustment, BadRows, PriceKind, Stamp, declared_kind, standard_prices, timed
from rlaif_ray.data.spellings import SPELLINGS, as_text, recognise, understood
from rlaif_ray.errors import SchemaError

UNIT = "partition:offset"


def decoded(messages: Iterable[tuple[str, int, int, bytes | None]]) -> pl.DataFrame:
    """Messages (topic, partition, offset, value) -> a row each: their fields as text, and `line`, where each stands.

    Raises `SchemaError` for a message that is no JSON object, by its topic, partition and offset.
    """
    rows: list[dict[str, object]] = []
    for topic, partition, offset, value in messages:
        line = f"{partition}:{offset}"
        try:
            bar = json.loads(value or b"")
        except ValueError:
            bar = None
        if not isinstance(bar, dict):
            raise SchemaError(f"topic {topic} {UNIT} {line} holds {(value or b'')[:40]!r}; expected one JSON object a bar")
        rows.append({**bar, "line": line})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return as_text(names, [[row.get(name) for name in names] for row in rows])


def symbols(table: pl.DataFrame, place: str) -> list[str]:
    """The symbols of decoded messages, sorted. Raises `SchemaError` where no field, or not every message, names one."""
    found = recognise([c for c in table.columns if c != "line"], place).get("symbol")
    if found is None:
        raise SchemaError(f"{place} names no symbol in {table.columns}; expected a field such as {', '.join(SPELLINGS['symbol'])}")
    nameless = table.filter(pl.col(found).is_null())
    if nameless.height:
        raise SchemaError(f"{place} {UNIT} {nameless['line'][0]} names no symbol in {found!r}; expected one in each message")
    return sorted(table[found].str.strip_chars().unique())


def price_kind(table: pl.DataFrame, place: str, adjustment: Adjustment) -> PriceKind | None:
    """What is known of the prices beforehand; None: the split days will tell."""
    return declared_kind(recognise([c for c in table.columns if c != "line"], place), adjustment)


def bars(
    table: pl.DataFrame, symbol: str, place: str, *, stamp: Stamp, tz: str, calendar: str, adjustment: Adjustment,
    bad_rows: BadRows = "refuse",
) -> pl.DataFrame:  # fmt: skip
    """One symbol's bars in `clean.BAR_SCHEMA` from decoded messages, not yet cleaned.

    A bar that was delivered twice is there twice: `clean` drops the second, and refuses one that says something else.
    """
    rows = understood(table, place, UNIT, symbol)
    prices = standard_prices(rows, f"{place} {UNIT}", price_kind(table, place, adjustment), refuse=bad_rows == "refuse")
    return timed(prices, symbol, stamp=stamp, tz=tz, calendar=calendar)
