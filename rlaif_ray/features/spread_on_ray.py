"""What the tasks of a build must know, what they answer, and how work is spread over the cluster.

The cluster is joined when there is work for it: a build that finds everything as it stands needs none.
"""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa
import ray

from rlaif_ray import ray_runtime
from rlaif_ray.core import KEYS, content_hash
from rlaif_ray.data.bar_tables import PriceKind
from rlaif_ray.data.builds import Note
from rlaif_ray.data.decided import bars_as_decided
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import MACRO
from rlaif_ray.errors import MissingDataError, RlaifError
from rlaif_ray.features.catalog import Catalog, feature_set
from rlaif_ray.features.family import Tables
from rlaif_ray.runs import code_version

BARS = "bars"
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


def spread(work: Sequence[Work], do: Callable[[Work], list[Made]]) -> list[Made]:
    """Each piece of work in a task of its own; raises the first error by order of the work, not of time."""
    if not work:
        return []
    ray_runtime.attach()
    blocks = ray.data.from_items([{"work": pickle.dumps(w)} for w in work], override_num_blocks=len(work))

    def one(batch: pa.Table) -> pa.Table:
        return pa.table({"made": [pickle.dumps(do(pickle.loads(batch["work"][0].as_py())))]})

    rows = blocks.map_batches(one, batch_size=1, batch_format="pyarrow").take_all()
    made = [m for row in rows for m in pickle.loads(row["made"])]
    for problem in (m.problem for m in made):
        if problem is not None:
            raise problem
    return made


def tasks() -> int:
    """How many pieces of work there should be at least, where there is enough of it."""
    ray_runtime.attach()
    return TASKS_A_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
