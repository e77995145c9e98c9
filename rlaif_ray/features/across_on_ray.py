"""Sets that compare symbols: the second pass of a build, over dates, from columns that the first has left in the lake."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.builds import EVERYONE, Key, Note
from rlaif_ray.features.across import beside
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


def compare(terms: Terms, name: str, symbols: Sequence[str], own: Sequence[Made], before: Mapping[Key, Note]) -> Made:
    """A set that compares symbols, from the first moment at which any of what it compares is new or another.

    That moment is known where the rows that are there were made from what `before` notes of each symbol: what has changed since
    then this build has changed. Else all moments are made again; rows that say the same are not written.
    """
    catalog, old = terms.catalog, before.get((EVERYONE, terms.catalog.table(name)))
    lacking = {(m.set_name, column) for m in own for column in m.note.absent}
    lacking = {one for one in lacking if all(one[1] in m.note.absent for m in own if m.set_name == one[0])}
    compared = {source: [c for c in columns if (source, c) not in lacking] for source, columns in catalog.compared(name).items()}
    of_these = [m for m in own if m.set_name in compared]
    then = {(m.symbol, m.set_name): before.get((m.symbol, catalog.table(m.set_name))) for m in of_these}
    of_terms = terms.hash(name, sorted(symbols), sorted(terms.sectors.items()))
    new = Note(_contents({(m.symbol, m.set_name): m.note for m in of_these}), of_terms)
    if old is not None and new.stands(old):
        return Made(EVERYONE, name, old, touched=False)
    bounds = min(m.note.first for m in of_these if m.note.first), max(m.note.last for m in of_these if m.note.last)
    moments = _moments(terms, compared, symbols, bounds)
    times = moments["timestamp"]
    changed = [m.first for m in of_these if m.first is not None]
    follows = old is not None and old.terms == new.terms and old.inputs == _contents(then)
    begin = 0 if not follows else times.search_sorted(min(changed)) if changed else len(times)
    spans = _spans(moments, int(begin), catalog.span(name), len(symbols))
    made = spread(spans, partial(_compared, terms, name, symbols, compared, None if old is None else old.last))
    absent = set.intersection(*(set(m.note.absent) for m in made)) if made else set(old.absent if old is not None else ())
    note = replace(new, first=times[0], last=times[-1], absent=tuple(s.name for s in catalog.specs(name) if s.name in absent))
    return Made(EVERYONE, name, note, added=sum(m.added for m in made), rewritten=any(m.rewritten for m in made))


def _contents(notes: Mapping[Key, Note | None]) -> str:
    return content_hash(sorted((*key, n.rows, n.hash) if n is not None else (*key, 0, "") for key, n in notes.items()))


def _moments(
    terms: Terms, compared: Mapping[str, list[str]], symbols: Sequence[str], bounds: tuple[dt.datetime, dt.datetime]
) -> pl.DataFrame:  # fmt: skip
    """When each moment's first and last row became known, in order of time."""
    table = terms.catalog.table(next(iter(compared)))
    rows = terms.lake.read(table, symbols, columns=(), moments=bounds)
    return rows.group_by("timestamp").agg(told=pl.col("known_at").min(), told_whole=pl.col("known_at").max()).sort("timestamp")


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
    terms: Terms, name: str, symbols: Sequence[str], compared: Mapping[str, list[str]], last: dt.datetime | None, span: Span
) -> list[Made]:  # fmt: skip
    """Rows of one span of moments, from features read some moments further back; `last` is where the old note ends."""
    moments = span.read_from, span.read_until
    parts = [terms.lake.read(terms.catalog.table(n), symbols, moments=moments, columns=columns) for n, columns in compared.items()]
    tables = {"features": reduce(beside, parts)}
    if terms.sectors:
        tables["sectors"] = pl.DataFrame({"symbol": list(terms.sectors), "sector": list(terms.sectors.values())})
    rows, absent = terms.compute(name, tables)
    rows = rows.filter(pl.col("timestamp").is_between(span.first, span.last))
    added = terms.append(name, rows, f"{span.first:%Y-%m-%d}")
    newer = rows.filter(pl.col("timestamp") > last).height if last is not None else rows.height
    return [Made(EVERYONE, name, Note("", "", absent=absent), added=added, rewritten=added > newer)]
