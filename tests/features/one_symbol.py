"""One symbol's bars for the tests of the technical set, and what the set makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.features.catalog import Catalog
from rlaif_ray.features.family import FeatureSpec, Parameter
from rlaif_ray.features.technical import TECHNICAL
from tests.laws import random_bars

SPECS = Catalog(("technical",)).specs("technical")
BY_NAME = {spec.name: spec for spec in SPECS}
ROWS = 420


def bars(sessions: Sequence[int] | None = None, **columns: Sequence[float] | np.ndarray) -> Panel:
    """Daily, or of the sessions given as day numbers; what is not given is null (events: none)."""
    n = len(next(iter(columns.values())))
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(n)
    given = {"dividend": np.zeros(n), "split": np.ones(n), **columns}
    frame = pl.DataFrame({"symbol": ["A"] * n, "timestamp": times, "known_at": times} | {k: np.asarray(v, float) for k, v in given.items()})
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c not in columns)
    if sessions is not None:
        frame = frame.with_columns(session=pl.Series(sessions, dtype=pl.Int32).cast(pl.Date))
    utc = pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)
    return Panel.of(frame.with_columns(utc, pl.col(*PRICE_COLUMNS).fill_nan(None)))


def market(seed: int = 5, rows: int = ROWS) -> Panel:
    """A noisy symbol with splits, dividends and halts that lives to the end."""
    frame = random_bars(np.random.default_rng(seed), rows).frame
    assert not frame["delisted"].any() and (frame["split"] != 1).any() and not frame["tradable"].all()
    return Panel.of(frame)


def plain_market() -> Panel:
    """The same without events and halts."""
    frame = market().frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0), tradable=pl.lit(True))
    return Panel.of(frame.with_columns(pl.col("volume").clip(1.0)))


def technical(panel: Panel, specs: Sequence[FeatureSpec] = SPECS) -> Panel:
    return TECHNICAL.apply({"bars": panel.frame}, specs)


def spec(key: str, *parameters: Parameter) -> FeatureSpec:
    """A family's column with other parameters than the catalogue's."""
    return next(f for f in TECHNICAL.families if f.key == key).specs([parameters])[0]


def values(panel: Panel, *wanted: str | FeatureSpec) -> np.ndarray:
    """(T,) of one feature, or (T,n)."""
    specs = [BY_NAME[w] if isinstance(w, str) else w for w in wanted]
    made = technical(panel, specs).frame
    return made[specs[0].name].to_numpy() if len(specs) == 1 else made.select(s.name for s in specs).to_numpy()
