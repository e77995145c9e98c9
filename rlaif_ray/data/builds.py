"""What was made of which files: notes in the lake, so that what stands on files that stand as they stood is not made again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from rlaif_ray.core import content_hash
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import BUILD_SCHEMA, MACRO
from rlaif_ray.errors import DataError

BUILDS = "builds"
EVERYONE = "*"  # the symbol of what was made of all of them together
Key = tuple[str, str]  # symbol, table


@dataclass(frozen=True)
class Note:
    """One table of one symbol, as a build left it.

    `inputs` names the files (of what compares symbols: the notes of what it compares), `terms` all else that the rows follow from;
    then their number, the times of the first and the last, their hash, and the columns that could not be made.
    """

    inputs: str
    terms: str
    rows: int = 0
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    hash: str = ""
    absent: tuple[str, ...] = ()

    def stands(self, before: Note | None) -> bool:
        """Whether what was made before is what would be made now."""
        return before is not None and (before.inputs, before.terms) == (self.inputs, self.terms)


CONTESTED = Note("", "two builds at once")  # stands for nothing


def notes(lake: Lake) -> dict[Key, Note]:
    """What the last builds noted of tables that are there."""
    there = set(lake.tables())
    if BUILDS not in there:
        return {}
    rows = lake.read(BUILDS).filter(pl.col("name").is_in(there)).iter_rows(named=True)
    fields = ("inputs", "terms", "rows", "first", "last", "hash")
    return {(row["symbol"], row["name"]): Note(**{f: row[f] for f in fields}, absent=tuple(row["absent"])) for row in rows}


def keep(lake: Lake, made: Mapping[Key, Note], before: Mapping[Key, Note], at: dt.datetime) -> None:
    """All that a build made, in one commit, if nobody noted anything else of it since `before`.

    Else it is noted that nothing stands, so that the next build makes it again. Raises `DataError`.
    """
    now = notes(lake)
    contested = [key for key, new in made.items() if now.get(key) not in (before.get(key), new)]
    kept = {**made, **dict.fromkeys(contested, CONTESTED)}
    rows = [{"symbol": s, "timestamp": at, "known_at": at, "name": table, **vars(n)} for (s, table), n in kept.items()]
    if rows:
        lake.append(BUILDS, pl.DataFrame(rows, schema=BUILD_SCHEMA), "build", revised_at=at)
    if contested:
        symbol, table = contested[0]
        raise DataError(
            f"{lake.uri}/{lake.dataset}: another build made {table} of {symbol} meanwhile, from something else; expected one build of a "
            f"dataset at a time: build again"
        )


def inputs_of(lake: Lake, versions: Mapping[str, int], symbols: Iterable[str]) -> dict[str, str]:
    """For each symbol a name of the files that its rows (and everybody's) lie in. Reads the tables' logs and no rows."""
    files = {table: _by_symbol(lake, table, version) for table, version in sorted(versions.items())}
    return {s: content_hash([(table, of.get(s, []), of.get(MACRO, [])) for table, of in files.items()]) for s in symbols}


def _by_symbol(lake: Lake, table: str, version: int) -> dict[str, list[str]]:
    grouped = lake.files(table, version).group_by("symbol").agg(pl.col("path").sort())
    return {symbol: list(paths) for symbol, paths in grouped.iter_rows()}
