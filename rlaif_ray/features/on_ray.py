"""Feature sets on the cluster: bars and facts from the lake, one symbol after another, features back to the lake.

What a symbol's features are made of lies in files; where those stand as they stood, the symbol is not read again. Sets that
compare symbols come in a second pass, over dates (`across_on_ray.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.bar_tables import PriceKind
from rlaif_ray.data.builds import Key, Note, inputs_of, keep, notes
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import ConfigError, MissingDataError, RlaifError
from rlaif_ray.features.across_on_ray import compare
from rlaif_ray.features.catalog import Catalog, feature_set
from rlaif_ray.features.spread_on_ray import BARS, Made, Terms, spread, tasks

# A commit costs 30 ms; what goes into one lies in memory together, about a kilobyte a row with all sets.
SHARD_SYMBOLS, SHARD_ROWS = 32, 200_000


@dataclass(frozen=True)
class Built:
    """What a build made, over all sets."""

    names: tuple[str, ...]  # features that at least one symbol has, in the catalogue's order
    absent: tuple[str, ...]  # features that the lake has no inputs for
    rows: int  # of the sets of one symbol
    added: int  # rows that the lake did not have yet
    untouched: int  # tables of a symbol that nothing was read for
    rewritten: tuple[str, ...]  # "<table> of <symbol>": stored rows did not follow any more from the bars and facts
    data_version: str  # hash of the features' content
    versions: dict[str, int]  # of the tables that hold them, and of those beside `bars` that were read: where, not what


def build(
    lake: Lake, symbols: Sequence[str], catalog: Catalog | None = None, *, bars_version: int | None = None, price_kind: PriceKind = "raw",
    start: dt.date | None = None, end: dt.date | None = None, sectors: Mapping[str, str] | None = None,
) -> Built:  # fmt: skip
    """Compute the sets of a catalogue and append what is new to the lake, a table a set.

    Pass one makes the sets of one symbol from its bars and facts; pass two compares the symbols at each moment. A table has
    one fixed schema, the catalogue's: what a symbol's bars do not allow is null there. A symbol whose files, terms and code
    are those of the last build is not read. Of the others the whole history is computed, in memory; where the rows that the
    lake has still follow from it only newer ones are written, else what differs is appended as a revision, and named.

    Parameters
    ----------
    symbols : the universe; it is what features across symbols compare with.
    catalog : sets and parameters; a set whose columns another compares comes in by itself.
    bars_version : Delta version of `bars` to read; None: the newest. The others: see `Terms`.

    Raises the first symbol's error: `MissingDataError` where there are no bars, or none of the tables that a set reads beside
    them; `DataError` for an impossible price.
    """
    if not symbols:
        raise MissingDataError(f"no symbols to make features of in {lake.uri}/{lake.dataset}; expected at least one: ingest bars first")
    catalog = (Catalog() if catalog is None else catalog).completed()
    terms = Terms(lake, catalog, _versions(lake, catalog, bars_version), price_kind, start, end, sectors or {})
    before = notes(lake)
    own = _own(terms, symbols, before)
    made = [*own, *(compare(terms, n, symbols, own, before) for n in catalog.sets if feature_set(n).across)]
    keep(lake, {(m.symbol, catalog.table(m.set_name)): m.note for m in made if m.touched}, before, dt.datetime.now(dt.UTC))
    lacking = {name: set.intersection(*(set(m.note.absent) for m in made if m.set_name == name)) for name in catalog.sets}
    absent = {column for columns in lacking.values() for column in columns}
    return Built(
        tuple(n for n in catalog.names() if n not in absent), tuple(n for n in catalog.names() if n in absent),
        sum(m.note.rows for m in own), sum(m.added for m in made), sum(not m.touched for m in made),
        tuple(f"{catalog.table(m.set_name)} of {m.symbol}" for m in made if m.rewritten),
        content_hash([sorted((m.symbol, m.set_name, m.note.hash) for m in own), catalog.names(), sorted(terms.sectors.items())]),
        {**{t: v for t, v in terms.versions.items() if t != BARS}, **{t: lake.version(t) for t in map(catalog.table, catalog.sets)}},
    )  # fmt: skip


def _versions(lake: Lake, catalog: Catalog, bars_version: int | None) -> dict[str, int]:
    there, versions = set(lake.tables()), {BARS: lake.version(BARS) if bars_version is None else bars_version}
    for name in (n for n in catalog.sets if not feature_set(n).across):
        if BARS not in feature_set(name).reads:
            raise ConfigError(f"the set {name!r} is not made from bars but from recorded streams: rlaif sample-book makes it; leave it out")
        reads = [t for t in feature_set(name).reads if t != BARS]
        if reads and not there & set(reads):
            raise MissingDataError(
                f"the set {name!r} reads {' or '.join(reads)}, which {lake.uri}/{lake.dataset} has not; expected what `rlaif ingest "
                f"--facts.type` takes in and `rlaif score-text --text.model` scores: take it in first, or leave the set out"
            )
        versions |= {t: lake.version(t) for t in reads if t in there}
    return versions


# --- pass one: the sets of one symbol -------------------------------------------------------------------------------

Wanted = tuple[str, Note, Note | None]  # a set, the note of its inputs and terms now, and that of the last build
Shard = list[tuple[str, list[Wanted]]]


def _own(terms: Terms, symbols: Sequence[str], before: Mapping[Key, Note]) -> list[Made]:
    """Every set of every symbol: as it stands, or made anew where its inputs do not stand as they stood."""
    standing: list[Made] = []
    todo: dict[str, list[Wanted]] = {}
    for name in (n for n in terms.catalog.sets if not feature_set(n).across):
        reads = {t: terms.versions[t] for t in feature_set(name).reads if t in terms.versions}
        of_terms = terms.hash(name)
        for symbol, inputs in inputs_of(terms.lake, reads, symbols).items():
            new, old = Note(inputs, of_terms), before.get((symbol, terms.catalog.table(name)))
            if old is not None and new.stands(old):
                standing.append(Made(symbol, name, old, touched=False))
            else:
                todo.setdefault(symbol, []).append((name, new, old))
    return standing + spread(_shards(terms, todo), partial(make, terms))


def _shards(terms: Terms, todo: Mapping[str, list[Wanted]]) -> list[Shard]:
    """Symbols that follow each other: 32 at most, of 200,000 bars together at most or a single one; work for every CPU."""
    if not todo:
        return []
    rows = dict(terms.lake.files(BARS, terms.versions[BARS]).group_by("symbol").agg(pl.col("rows").sum()).iter_rows())
    most = min(SHARD_ROWS, sum(rows.get(symbol, 0) for symbol in todo) / tasks() + 1)
    shards: list[Shard] = []
    held = 0
    for symbol, wanted in todo.items():
        held += rows.get(symbol, 0)
        if not shards or held > most or len(shards[-1]) == SHARD_SYMBOLS:
            shards.append([])
            held = rows.get(symbol, 0)
        shards[-1].append((symbol, wanted))
    return shards


def make(terms: Terms, shard: Shard) -> list[Made]:
    """One symbol after another is read and computed; then what is new goes to the lake, one commit a set."""
    made: list[Made] = []
    fresh: dict[str, list[pl.DataFrame]] = {}
    for symbol, wanted in shard:
        try:
            tables = terms.tables(symbol, [name for name, _, _ in wanted])
            for name, new, old in wanted:
                rows, absent = terms.compute(name, tables)
                one, rows = _held_against(old, Made(symbol, name, replace(new, absent=absent)), rows)
                if one.rewritten:
                    one = _revised(terms, one, rows, old)
                else:
                    fresh.setdefault(name, []).append(rows)
                made.append(one)
        except RlaifError as error:
            made.append(Made(symbol, wanted[0][0], wanted[0][1], problem=error))
    added = sum(terms.append(name, pl.concat(parts), shard[0][0]) for name, parts in fresh.items())
    return [replace(made[0], added=made[0].added + added), *made[1:]]


def _held_against(old: Note | None, one: Made, rows: pl.DataFrame) -> tuple[Made, pl.DataFrame]:
    """With its note whole; and those rows that are newer than the old note's, or all where the old ones do not follow any more."""
    hashes = rows.hash_rows(seed=0).to_numpy()
    follows = old is not None and old.rows <= len(hashes) and content_hash(hashes[: old.rows]) == old.hash
    fresh = rows[old.rows :] if old is not None and follows else rows
    times = rows["timestamp"]
    note = replace(one.note, rows=rows.height, first=times[0], last=times[-1], hash=content_hash(hashes))
    first = fresh["timestamp"][0] if fresh.height else None
    return replace(one, note=note, first=first, rewritten=old is not None and not follows), fresh


def _revised(terms: Terms, one: Made, rows: pl.DataFrame, old: Note | None) -> Made:
    """Rewritten only where the lake says so: an end that lies further back takes no row away."""
    added = terms.append(one.set_name, rows, one.symbol)
    newer = rows.filter(pl.col("timestamp") > old.last).height if old is not None and old.last is not None else 0
    return replace(one, added=added, rewritten=added > newer)
