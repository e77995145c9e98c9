"""Sets that compare symbols: the second pass of a build, over dates, from columns that the first has left in the lake."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl

from rlaif_ray.core import KEYS, content_hash
from rlaif_ray.data.builds import EVERYONE, Note, inputs_of
from rlaif_ray.features.spread_on_ray import Made, Terms, spread, tasks

SPAN_ROWS = 1_000_000  # of all symbols together, that one task compares
FEWEST_LOOK_BACKS = 4.0  # in one span: before each of them one is read that nothing is made of


@dataclass(frozen=True)
class Span:
    """Moments that one task makes, and those that it reads for them."""

    read_from: dt.datetime
    first: dt.datetime
    last: dt.datetime
    read_until: dt.datetime


def compare(terms: Terms, name: str, symbols: Sequence[str], own: Iterable[Made], before: Mapping[tuple[str, str], Note]) -> Made:
    """A set that compares symbols, from the first moment at which any of what it compares is new or another."""
    lake, catalog, old = terms.lake, terms.catalog, before.get((EVERYONE, terms.catalog.table(name)))
    compared = catalog.compared(name)
    versions = {catalog.table(source): lake.version(catalog.table(source)) for source in compared}
    inputs = content_hash(sorted(inputs_of(lake, versions, symbols).items()))
    new = Note(inputs, terms.hash(name, sorted(symbols), sorted(terms.sectors.items())))
    if old is not None and new.stands(old):
        return Made(EVERYONE, name, old, touched=False)
    moments = lake.ask(min(versions), lambda rows: _moments(rows.filter(pl.col("symbol").is_in(symbols)))).sort("timestamp")
    times = moments["timestamp"]
    changed = [m.first for m in own if m.set_name in compared and m.first is not None]
    again = old is None or old.terms != new.terms
    begin = 0 if again else times.search_sorted(min(changed)) if changed else len(times)
    spans = _spans(moments, int(begin), max(s.look_back_bars for s in catalog.specs(name)), len(symbols))
    last = old.last if old is not None and not again else None
    made = spread(spans, partial(_compared, terms, name, symbols, versions, last))
    absent = set.intersection(*(set(m.note.absent) for m in made)) if made else set(old.absent if old is not None else ())
    note = replace(new, last=times[-1], absent=tuple(s.name for s in catalog.specs(name) if s.name in absent))
    return Made(EVERYONE, name, note, added=sum(m.added for m in made), rewritten=any(m.rewritten for m in made))


def _moments(rows: pl.LazyFrame) -> pl.LazyFrame:
    """When each moment's first and last row became known."""
    return rows.group_by("timestamp").agg(told=pl.col("known_at").min(), told_whole=pl.col("known_at").max())


def _spans(moments: pl.DataFrame, begin: int, look_back: int, symbols: int) -> list[Span]:
    """The moments from `begin` on, in spans: for every CPU some, but none so short that most of what it reads lies before it.

    A moment of which nothing was known before a later one is no bar of the market, and no window counts it; which ones those
    are is seen by reading on until all that was known by the end of a span is read.
    """
    times, told, whole = moments["timestamp"], moments["told"].to_physical().to_numpy(), moments["told_whole"].to_physical().to_numpy()
    later = np.append(np.minimum.accumulate(told[::-1])[::-1][1:], np.iinfo(np.int64).max)
    bars = np.flatnonzero(told <= later)  # the last is always one
    step = max(1, int(FEWEST_LOOK_BACKS * look_back), min(SPAN_ROWS // max(symbols, 1), (len(times) - begin) // tasks() + 1))
    spans = []
    for first in range(begin, len(times), step):
        last = min(first + step, len(times)) - 1
        read_from = bars[max(0, np.searchsorted(bars, first) - look_back)]
        read_until = last + int(np.flatnonzero(told[last:] <= whole[first : last + 1].max())[-1])
        spans.append(Span(times[min(first, int(read_from))], times[first], times[last], times[read_until]))
    return spans


def _compared(
    terms: Terms, name: str, symbols: Sequence[str], versions: Mapping[str, int], last: dt.datetime | None, span: Span
) -> list[Made]:  # fmt: skip
    """Rows of one span of moments, from features read some moments further back; `last` is where the old note ends."""
    features: pl.DataFrame | None = None
    for source, columns in terms.catalog.compared(name).items():
        table = terms.catalog.table(source)
        part = terms.lake.read(table, symbols, versions[table], moments=(span.read_from, span.read_until), columns=columns)
        features = part if features is None else features.join(part, on=KEYS, validate="1:1", maintain_order="left")
    assert features is not None
    tables = {"features": features.select(c for c in features.columns if features[c].null_count() < features.height)}
    if terms.sectors:
        tables["sectors"] = pl.DataFrame({"symbol": list(terms.sectors), "sector": list(terms.sectors.values())})
    rows, absent = terms.compute(name, tables)
    rows = rows.filter(pl.col("timestamp").is_between(span.first, span.last))
    added = terms.append(name, rows, f"{span.first:%Y-%m-%d}")
    newer = rows.filter(pl.col("timestamp") > last).height if last is not None else rows.height
    return [Made(EVERYONE, name, Note("", "", absent=absent), added=added, rewritten=added > newer)]
