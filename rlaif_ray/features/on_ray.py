"""Feature sets on the cluster: bars and facts from the lake, one symbol after another, features back to the lake.

What a symbol's features are made of lies in files; where those stand as they stood, the symbol is not read again. Sets that
compare symbols come in a second pass, over dates.
"""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa
import ray

from rlaif_ray.core import KEYS, content_hash
from rlaif_ray.data.bar_tables import PriceKind
from rlaif_ray.data.builds import EVERYONE, Note, inputs_of, keep, notes
from rlaif_ray.data.decided import bars_as_decided
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import MACRO
from rlaif_ray.errors import ConfigError, MissingDataError, RlaifError
from rlaif_ray.features.catalog import Catalog, feature_set
from rlaif_ray.features.family import Tables
from rlaif_ray.runs import code_version

BARS = "bars"
# A commit costs 30 ms; what goes into one lies in memory together, about a kilobyte a row with all sets.
SHARD_SYMBOLS, SHARD_ROWS = 32, 200_000
SPAN_ROWS = 1_000_000  # of all symbols together, that one task compares
FEWEST_LOOK_BACKS = 4.0  # in one span: before each of them one is read that nothing is made of
TASKS_A_CPU = 2  # at least, where there is work for as many: the last to end should not be waited for long
Work = TypeVar("Work")


@dataclass(frozen=True)
class Terms:
    """What every task of a build must know.

    Parameters
    ----------
    versions : Delta versions of the tables that are read, `bars` among them.
    price_kind : what was done to the prices: how restated bars count (`decided.bars_as_decided`), and whether features in
        units of price are made.
    start, end : days of bars that count. Recursive indicators begin at the first of them.
    sectors : by symbol, for features that compare within one.
    """

    lake: Lake
    catalog: Catalog
    versions: Mapping[str, int]
    price_kind: PriceKind = "raw"
    start: dt.date | None = None
    end: dt.date | None = None
    sectors: Mapping[str, str] = field(default_factory=dict)

    def hash(self, set_name: str, *more: Any) -> str:
        """Of all that a set's rows follow from beside the files."""
        columns = [(s.name, s.parameters) for s in self.catalog.specs(set_name)]
        return content_hash([code_version(), columns, self.price_kind, str(self.start), str(self.end), *more])

    def tables(self, symbol: str, set_names: Iterable[str]) -> Tables:
        """What sets read of one symbol, each table once; facts in every revision, everybody's among them."""
        bars = bars_as_decided(self.lake, [symbol], self.price_kind, self.versions[BARS], start=self.start, end=self.end)
        if not bars.height:
            raise MissingDataError(
                f"no bars of {symbol!r} in {self.lake.uri}/{self.lake.dataset} from {self.start} to {self.end}; ingest it first"
            )
        names = {t for name in set_names for t in feature_set(name).reads if t in self.versions and t != BARS}
        facts = {t: self.lake.read(t, (symbol, MACRO), self.versions[t], revision="all", end=self.end) for t in sorted(names)}
        return {BARS: bars, **facts}

    def compute(self, set_name: str, tables: Tables) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """A set's rows under its table's full schema, and the columns that could not be made: they are null."""
        panel = feature_set(set_name).apply(tables, self.catalog.specs(set_name, self.price_kind))
        names = [s.name for s in self.catalog.specs(set_name)]
        absent = tuple(n for n in names if n not in panel.columns)
        return panel.frame.with_columns(pl.lit(None, pl.Float32).alias(n) for n in absent).select(*KEYS, *names), absent

    def append(self, set_name: str, rows: pl.DataFrame, shard: str) -> int:
        return self.lake.append(self.catalog.table(set_name), rows, shard) if rows.height else 0


@dataclass(frozen=True)
class Made:
    """One table of one symbol (or of all), and what the build did to it.

    `first` : time of its first row that is new or another; `problem` : why there is none.
    """

    symbol: str
    set_name: str
    note: Note
    touched: bool = True
    added: int = 0
    rewritten: bool = False
    first: dt.datetime | None = None
    problem: RlaifError | None = None


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
    catalog = (Catalog() if catalog is None else catalog).completed()
    terms = Terms(lake, catalog, _versions(lake, catalog, bars_version), price_kind, start, end, sectors or {})
    before = notes(lake)
    own = _own(terms, symbols, before)
    made = [*own, *(_across(terms, n, symbols, own, before) for n in catalog.sets if feature_set(n).across)]
    keep(lake, {(m.symbol, catalog.table(m.set_name)): m.note for m in made if m.touched}, dt.datetime.now(dt.UTC))
    lacking = {name: set.intersection(*(set(m.note.absent) for m in made if m.set_name == name)) for name in catalog.sets}
    absent = {column for columns in lacking.values() for column in columns}
    return Built(
        tuple(n for n in catalog.names() if n not in absent), tuple(n for n in catalog.names() if n in absent),
        sum(m.note.rows for m in own), sum(m.added for m in made), sum(not m.touched for m in made),
        tuple(f"{catalog.table(m.set_name)} of {m.symbol}" for m in made if m.rewritten),
        content_hash([sorted((m.symbol, m.set_name, m.note.hash) for m in own), catalog.names()]),
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
                f"the set {name!r} reads {' and '.join(reads)}, and {lake.uri}/{lake.dataset} has neither; expected what "
                f"`rlaif ingest --facts.type` takes in (and `rlaif score-text` scores): take it in first, or leave the set out"
            )
        versions |= {t: lake.version(t) for t in reads if t in there}
    return versions


def _spread(work: Sequence[Work], do: Callable[[Work], list[Made]]) -> list[Made]:
    """Each piece of work in a task of its own; raises the first error by order of the work, not of time."""
    if not work:
        return []
    blocks = ray.data.from_items([{"work": pickle.dumps(w)} for w in work], override_num_blocks=len(work))

    def one(batch: pa.Table) -> pa.Table:
        return pa.table({"made": [pickle.dumps(do(pickle.loads(batch["work"][0].as_py())))]})

    rows = blocks.map_batches(one, batch_size=1, batch_format="pyarrow").take_all()
    made = [m for row in rows for m in pickle.loads(row["made"])]
    for problem in (m.problem for m in made):
        if problem is not None:
            raise problem
    return made


def _tasks() -> int:
    return TASKS_A_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))


# --- pass one: the sets of one symbol -------------------------------------------------------------------------------

Wanted = tuple[str, Note, Note | None]  # a set, the note of its inputs and terms now, and that of the last build
Shard = list[tuple[str, list[Wanted]]]


def _own(terms: Terms, symbols: Sequence[str], before: Mapping[tuple[str, str], Note]) -> list[Made]:
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
    return standing + _spread(_shards(terms, todo), partial(make, terms))


def _shards(terms: Terms, todo: Mapping[str, list[Wanted]]) -> list[Shard]:
    """Symbols that follow each other: 32 at most, of 200,000 bars together at most or a single one; work for every CPU."""
    rows = dict(terms.lake.files(BARS, terms.versions[BARS]).group_by("symbol").agg(pl.col("rows").sum()).iter_rows())
    most = min(SHARD_ROWS, sum(rows.get(symbol, 0) for symbol in todo) / _tasks() + 1)
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
    note = replace(one.note, rows=rows.height, last=rows["timestamp"][-1], hash=content_hash(hashes))
    first = fresh["timestamp"][0] if fresh.height else None
    return replace(one, note=note, first=first, rewritten=old is not None and not follows), fresh


def _revised(terms: Terms, one: Made, rows: pl.DataFrame, old: Note | None) -> Made:
    """Rewritten only where the lake says so: an end that lies further back takes no row away."""
    added = terms.append(one.set_name, rows, one.symbol)
    newer = rows.filter(pl.col("timestamp") > old.last).height if old is not None and old.last is not None else 0
    return replace(one, added=added, rewritten=added > newer)


# --- pass two: sets across symbols ----------------------------------------------------------------------------------

Span = tuple[dt.datetime, dt.datetime, dt.datetime]  # the moment to read from, and the first and last that are made


def _across(terms: Terms, name: str, symbols: Sequence[str], own: Iterable[Made], before: Mapping[tuple[str, str], Note]) -> Made:
    """A set that compares symbols, from the first moment at which any of what it compares is new or another."""
    lake, catalog, old = terms.lake, terms.catalog, before.get((EVERYONE, terms.catalog.table(name)))
    compared = catalog.compared(name)
    versions = {catalog.table(source): lake.version(catalog.table(source)) for source in compared}
    inputs = content_hash(sorted(inputs_of(lake, versions, symbols).items()))
    new = Note(inputs, terms.hash(name, sorted(symbols), sorted(terms.sectors.items())))
    if old is not None and new.stands(old):
        return Made(EVERYONE, name, old, touched=False)
    moments = lake.ask(min(versions), lambda rows: rows.filter(pl.col("symbol").is_in(symbols)).select("timestamp").unique())
    times = moments["timestamp"].sort()
    changed = [m.first for m in own if m.set_name in compared and m.first is not None]
    again = old is None or old.terms != new.terms
    begin = 0 if again else times.search_sorted(min(changed)) if changed else len(times)
    spans = _spans(times, int(begin), max(s.look_back_bars for s in catalog.specs(name)), len(symbols))
    last = old.last if old is not None and not again else None
    made = _spread(spans, partial(_compared, terms, name, symbols, versions, last))
    absent = set.intersection(*(set(m.note.absent) for m in made)) if made else set(old.absent if old is not None else ())
    note = replace(new, last=times[-1], absent=tuple(s.name for s in catalog.specs(name) if s.name in absent))
    return Made(EVERYONE, name, note, added=sum(m.added for m in made), rewritten=any(m.rewritten for m in made))


def _spans(times: pl.Series, begin: int, look_back: int, symbols: int) -> list[Span]:
    """For every CPU some, but none so short that most of what it reads lies before it."""
    step = max(1, int(FEWEST_LOOK_BACKS * look_back), min(SPAN_ROWS // max(symbols, 1), (len(times) - begin) // _tasks() + 1))
    return [(times[max(0, k - look_back)], times[k], times[min(k + step, len(times)) - 1]) for k in range(begin, len(times), step)]


def _compared(
    terms: Terms, name: str, symbols: Sequence[str], versions: Mapping[str, int], last: dt.datetime | None, span: Span
) -> list[Made]:  # fmt: skip
    """Rows of one span of moments, from features read some moments further back; `last` is where the old note ends."""
    read_from, first, until = span
    features: pl.DataFrame | None = None
    for source, columns in terms.catalog.compared(name).items():
        table = terms.catalog.table(source)
        part = terms.lake.read(table, symbols, versions[table], moments=(read_from, until), columns=columns)
        features = part if features is None else features.join(part, on=KEYS, validate="1:1", maintain_order="left")
    assert features is not None
    tables = {"features": features.select(c for c in features.columns if features[c].null_count() < features.height)}
    if terms.sectors:
        tables["sectors"] = pl.DataFrame({"symbol": list(terms.sectors), "sector": list(terms.sectors.values())})
    rows, absent = terms.compute(name, tables)
    rows = rows.filter(pl.col("timestamp") >= first)
    added = terms.append(name, rows, f"{first:%Y-%m-%d}")
    newer = rows.filter(pl.col("timestamp") > last).height if last is not None else rows.height
    return [Made(EVERYONE, name, Note("", "", absent=absent), added=added, rewritten=added > newer)]
