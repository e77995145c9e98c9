"""Open opinions of a dataset, closed as its bars come: a pass judges what has closed since the last one, and may be cut off anywhere.

All state is in the lake: an opinion is open while it has no outcome there. A pass that is killed leaves whole batches, the next one
takes up what is missing; of two at the same time the later one finds the other's outcomes and adds none again.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from rlaif_ray.core import Cube, Panel, PriceKind
from rlaif_ray.data import opinions as kept
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.decided import bars_as_decided
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.receipts import latest
from rlaif_ray.errors import MissingDataError
from rlaif_ray.feedback.closing_on_ray import closing, in_order
from rlaif_ray.feedback.outcomes import OUTCOME_SCHEMA
from rlaif_ray.feedback.yardstick import OutcomeTerms

OUTCOMES_A_COMMIT = 100_000
PATIENCE = dt.timedelta(days=14)  # ten sessions, after which an ingest takes a symbol as delisted
YEAR = dt.timedelta(days=365.25)
log = logging.getLogger("rlaif_ray")


@dataclass(frozen=True)
class Market:
    """Whose bars judge. `symbols` are the universe that returns are residual to; it must stay the same while opinions are open."""

    lake: Lake
    symbols: tuple[str, ...]
    price_kind: PriceKind
    bars_per_year: float | None = None  # None: measured from the bars
    start: dt.date | None = None

    @classmethod
    def of(cls, lake: Lake) -> Market:
        """All symbols of a dataset, at prices of the kind that its last ingest noted; those of a stream are raw."""
        symbols, ingested = tuple(sorted(lake.files("bars")["symbol"].unique())), latest(lake)
        return cls(lake, symbols, "raw") if ingested is None else cls(lake, symbols, ingested.price_kind, ingested.bars_per_year)

    def settled(self) -> Cube:
        """The bars that there are now, without features, up to the last row that every symbol has reached.

        Symbols come in one commit after another: a row that some have not reached yet would judge with closes that are no
        longer so. Who is delisted, or silent for more than 14 days while others are not, is not waited for.
        """
        bars = bars_as_decided(self.lake, self.symbols, self.price_kind, start=self.start)
        if bars.is_empty():
            raise MissingDataError(f"no bars of {len(self.symbols)} symbols in {self.lake.uri}/{self.lake.dataset}; ingest first")
        ends = bars.group_by("symbol").agg(pl.col("timestamp").max(), gone=pl.col("delisted").any())
        alive = ends.filter(~pl.col("gone") & (pl.col("timestamp") >= pl.col("timestamp").max() - PATIENCE))
        until = (alive if alive.height else ends)["timestamp"]
        reached = bars.filter(pl.col("timestamp") <= (until.min() if alive.height else until.max()))
        return build_cube(Panel.of(reached), bars_per_year=self.bars_per_year or _measured(reached), price_kind=self.price_kind)


@dataclass(frozen=True)
class Tracked:
    """What the lake holds after a pass, and what the pass did."""

    opinions: int  # that can be judged: abstentions are none
    open: int  # whose horizon has not closed inside the bars that there are
    closed: int  # outcomes that this pass added, revisions among them
    void: dict[str, int]  # opinions that can never be judged, by reason
    restated: int  # opinions under whose id something else was said later: the first word counts
    until: str  # moment of the last row judged by


def track(lake: Lake, cube: Cube, terms: OutcomeTerms, *, again: bool = False, batch: int = OUTCOMES_A_COMMIT) -> Tracked:
    """Judge the open opinions whose horizon has closed inside the cube, and add their outcomes to the lake, one commit a batch.

    Parameters
    ----------
    cube : `Market.settled`.
    again : judge those with an outcome too; one that comes out otherwise than before, as after a restated bar, is added as a
        revision that is known from now on.
    batch : outcomes a commit.
    """
    spoken = _closable(kept.to_judge(lake, again=again), cube)
    written = 0
    if len(spoken):
        for outcomes in in_order(closing(spoken, ray.put(cube), terms), OUTCOME_SCHEMA, batch):
            written += kept.keep_outcomes(lake, outcomes, dt.datetime.now(dt.UTC))
            log.info("%d outcomes added", written)
    return _tracked(lake, written, cube)


def _closable(spoken: pa.Table, cube: Cube) -> pa.Table:
    """Those whose horizon ends inside the cube: nothing is started for the others."""
    closed = np.searchsorted(cube.known_at, spoken["as_of"].to_numpy()) + spoken["horizon_bars"].to_numpy()
    return spoken.filter(pa.array(closed < len(cube.known_at)))


def _tracked(lake: Lake, written: int, cube: Cube) -> Tracked:
    judged = kept.standing(lake)
    void = judged.filter(pl.col("void") != "").group_by("void").len().sort("void")
    spoken = kept.count(lake)
    return Tracked(
        spoken, spoken - judged.height, written, dict(void.iter_rows()), kept.restated(lake), f"{cube.known_at[-1]}Z"
    )  # fmt: skip


def follow(
    lake: Lake, one_pass: Callable[[], Tracked], stopped: Callable[[], bool], *, every_s: float, sleep: Callable[[float], Any],
    tell: Callable[[Tracked], None],
) -> None:  # fmt: skip
    """`one_pass` now, and again whenever the lake's bars or opinions have changed, until `stopped()`.

    Parameters
    ----------
    every_s : seconds between two looks at the lake.
    sleep : waits; it may end early.
    tell : is told of every pass that did something, and of the first.
    """
    seen: tuple[int, ...] | None = None
    while not stopped():
        now = tuple(lake.version(t) for t in ("bars", kept.OPINIONS) if t in lake.tables())
        if now != seen:
            done = one_pass()
            if done.closed or seen is None:
                tell(done)
            seen = now
        sleep(every_s)


def take_in(lake: Lake, run: Path) -> int:
    """The opinions that a run's desk gave, into the lake. Returns the rows that were new there.

    Raises `MissingDataError` for a run whose desk has said nothing yet.
    """
    found = (run / "stages").rglob("opinions.parquet")
    files = sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(run).parts))  # committed ones
    if not files:
        raise MissingDataError(f"no opinions in {run}; expected those of its desk: go on with rlaif pipeline --resume {run}")
    at = dt.datetime.now(dt.UTC)
    return sum(kept.keep_opinions(lake, pq.read_table(file), at) for file in files)


def _measured(bars: pl.DataFrame) -> float:
    """Bar ends in a mean year of the span that there is."""
    moments = bars["timestamp"].unique().sort()
    return (len(moments) - 1) / max((moments[-1] - moments[0]) / YEAR, 1e-9)
