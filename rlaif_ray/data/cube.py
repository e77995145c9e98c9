"""A run's data: lake tables at pinned versions, what they are, and the one cube made from them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from rlaif_ray.core import KEYS, Cube, Panel, canonical_json
from rlaif_ray.data.asof import PriceKind, build_cube, join
from rlaif_ray.data.decided import bars_as_decided
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.tables import MACRO, table
from rlaif_ray.features.across import beside
from rlaif_ray.features.catalog import Catalog, feature_set

BARS, FACTS = "bars", ("filings", "news")


@dataclass(frozen=True)
class Dataset:
    """Where a run's rows lie and what they are. `versions` and `lake` locate; everything else follows from the content."""

    lake: Lake
    versions: dict[str, int]
    symbols: tuple[str, ...]
    sectors: dict[str, str]  # by symbol, where they are known
    catalog: Catalog  # which sets there are, and under which names
    features: tuple[str, ...]  # their columns that the run reads
    absent: tuple[str, ...]  # features that the source has no inputs for
    price_kind: PriceKind
    bars_per_year: float
    start: dt.date | None
    end: dt.date | None
    data_version: str

    def cube(self) -> Cube:
        """Bars, features, and filings and news as of each bar, at the pinned versions."""
        return self._cube(self._bars(), [self._features(name, columns) for name, columns in self._read().items()], self._facts())

    def cube_as_of(self, at: np.datetime64) -> Cube:
        """The cube that would have been made at `at`: features computed anew, from nothing but what was known by then."""
        known = pl.col("known_at") <= pl.lit(at.astype("datetime64[us]")).dt.replace_time_zone("UTC")
        bars = self._bars().as_of(at)
        own: dict[str, pl.DataFrame] = {}
        for name in (n for n in self.catalog.sets if not feature_set(n).across):
            made, specs = feature_set(name), self.catalog.specs(name, self.price_kind)
            parts = []
            for frame in bars.frame.partition_by("symbol", maintain_order=True):
                facts = {
                    t: self.lake.read(t, (frame["symbol"][0], MACRO), self.versions[t], revision="all", end=self.end).filter(known)
                    for t in made.reads if t != BARS and t in self.versions
                }  # fmt: skip
                parts.append(made.apply({BARS: frame, **facts}, specs).frame)
            own[name] = pl.concat(parts, how="diagonal")
        alone = reduce(beside, own.values())
        across = [feature_set(n) for n in self._read() if feature_set(n).across]
        sectors = {"sectors": pl.DataFrame({"symbol": list(self.sectors), "sector": list(self.sectors.values())})} if self.sectors else {}
        compared = [s.apply({"features": alone, **sectors}, self.catalog.specs(s.name)).frame for s in across]
        facts = {t: frame.filter(known) for t, frame in self._facts().items()}
        return self._cube(bars, [Panel(frame) for frame in (*own.values(), *compared)], facts)

    def join(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`asof.join` of all pinned tables that have symbols onto rows of (symbol, known_at), one symbol in memory at a time."""
        names = [t for t in self.versions if "symbol" in table(t).keys]
        parts = []
        for (symbol,), part in rows.with_row_index(":row").partition_by("symbol", as_dict=True, maintain_order=True).items():
            tables = {t: self.lake.read(t, (str(symbol), MACRO), self.versions[t], revision="all", end=self.end) for t in names}
            parts.append(join(part, tables))
        return pl.concat(parts, how="diagonal").sort(":row").drop(":row")

    def _cube(self, bars: Panel, tables: Sequence[Panel], facts: dict[str, pl.DataFrame]) -> Cube:
        columns = [table.frame.pipe(_only, self.features) for table in tables]
        features = Panel.of(reduce(beside, columns)) if columns else None
        return build_cube(bars, features, facts, bars_per_year=self.bars_per_year, price_kind=self.price_kind)

    def _read(self) -> dict[str, list[str]]:
        """The sets that the run reads columns of, and which."""
        columns = {n: [s.name for s in self.catalog.specs(n) if s.name in self.features] for n in self.catalog.sets}
        return {name: wanted for name, wanted in columns.items() if wanted}

    def _bars(self) -> Panel:
        return Panel.of(bars_as_decided(self.lake, self.symbols, self.price_kind, self.versions[BARS], start=self.start, end=self.end))

    def _features(self, set_name: str, columns: Sequence[str]) -> Panel:
        table = self.catalog.table(set_name)
        return Panel.of(self.lake.read(table, self.symbols, self.versions[table], start=self.start, end=self.end, columns=columns))

    def _facts(self) -> dict[str, pl.DataFrame]:
        """Every revision of the scores that there are."""
        pinned = {t: self.versions[t] for t in FACTS if t in self.versions}
        return {t: self.lake.read(t, self.symbols, v, revision="all", end=self.end) for t, v in pinned.items()}

    def to_json(self) -> str:
        return canonical_json({**asdict(self), "catalog": asdict(self.catalog), "start": str(self.start or ""), "end": str(self.end or "")})

    @classmethod
    def of_json(cls, text: str) -> Dataset:
        fields: dict[str, Any] = json.loads(text)
        days = {k: dt.date.fromisoformat(fields[k]) if fields[k] else None for k in ("start", "end")}
        names = {k: tuple(fields[k]) for k in ("symbols", "features", "absent")}
        catalog = Catalog(tuple(fields["catalog"]["sets"]), fields["catalog"]["parameters"])
        return cls(**{**fields, **days, **names, "lake": Lake(**fields["lake"]), "catalog": catalog})


def _only(frame: pl.DataFrame, wanted: Iterable[str]) -> pl.DataFrame:
    return frame.select(*KEYS, *[c for c in frame.columns if c in set(wanted)])
