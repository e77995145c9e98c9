"""A vendor's live bars into the lake: from where the lake ends, cleaned of what cannot be right, a commit a hand-over."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.clean import sift
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.quarantine import set_apart
from rlaif_ray.data.stream import BarStream
from rlaif_ray.data.terms import refuse_other_latency, refuse_other_size
from rlaif_ray.data.vendors import Vendor
from rlaif_ray.errors import DataError

LONGEST_GAP = dt.timedelta(days=7)  # what is asked for again in one go
_LOG = logging.getLogger(__name__)


@dataclass
class IntoLake:
    """Takes finished bars: appends them in one commit, sets those that cannot be right apart, and says so.

    Parameters
    ----------
    latency_s : seconds from a bar's end until it is known; one a dataset, as of `ingest`.
    clock : seconds since 1970; from then on a bar that is handed over again, changed, is known.
    ends : symbol -> up to where its bars are the ingest's: a stream, which knows no dividends, would take theirs away.

    `rows` : that were new so far.
    """

    lake: Lake
    latency_s: float
    clock: Callable[[], float]
    ends: Mapping[str, dt.datetime]
    rows: int = 0

    def __call__(self, bars: pl.DataFrame) -> None:
        there = pl.col("symbol").replace_strict(self.ends, default=None, return_dtype=UTC)
        bars = bars.filter(there.is_null() | (pl.col("timestamp") > there))
        if bars.is_empty():
            return
        known = bars.with_columns(pl.col("known_at") + dt.timedelta(seconds=self.latency_s))
        sifted = [sift(of_symbol) for of_symbol in known.partition_by("symbol", maintain_order=True)]
        good, apart = (pl.concat(parts) for parts in zip(*sifted, strict=True))
        at = dt.datetime.fromtimestamp(self.clock(), dt.UTC)
        added = self.lake.append("bars", good, "live", revised_at=at) if good.height else 0
        if apart.height:
            self.lake.append("quarantine", set_apart(apart), "live")
        self.rows += added
        until = f"{bars['timestamp'].max():%Y-%m-%d %H:%M} UTC"
        _LOG.info("%d bars until %s, %d new, %d set apart", bars.height, until, added, apart.height)


def listen(
    source: AlpacaSource, vendor: Vendor, lake: Lake, stopped: Callable[[], bool], *, latency_s: float = 0.0, tick_s: float = 1.0,
    sleep: Callable[[float], object],
) -> int:  # fmt: skip
    """Bars of the source's names and size from `vendor`'s stream to the lake until `stopped()`. Returns the rows that were new.

    What the lake lacks since the last bar of each name, and what a lost connection leaves out, comes from the source's REST door.

    Parameters
    ----------
    vendor : whose websocket; it may be another than the source's.
    sleep : waits before a connection is made again.

    Raises `DataError` where the lake has bars of another size or those of a name end more than 7 days ago, `ConfigError` where its bars
    are known at another latency, else as `BarStream.run`.
    """
    symbols, minutes, clock = source.symbols(), source.bar_minutes, source.access.clock
    now = dt.datetime.fromtimestamp(clock(), dt.UTC)
    refuse_other_size(lake, dt.timedelta(minutes=minutes))
    refuse_other_latency(lake, symbols, dt.timedelta(seconds=latency_s).total_seconds())
    ends = _ends(lake, symbols, now)
    last = min(ends.values(), default=None)
    keeper = IntoLake(lake, latency_s, clock, ends)
    _LOG.info("%s: bars of %s after %s", vendor.name, ", ".join(symbols), f"{last or now:%Y-%m-%d %H:%M} UTC")
    BarStream(
        vendor, symbols, keeper, source.minutes, minutes=minutes, calendar=source.calendar, since=last, tick_s=tick_s, clock=clock,
        sleep=sleep,
    ).run(stopped)  # fmt: skip
    return keeper.rows


def _ends(lake: Lake, symbols: Sequence[str], now: dt.datetime) -> dict[str, dt.datetime]:
    """The last bar end of each of `symbols` that the lake has; a stream can go on from all of them."""
    if "bars" not in lake.tables():
        return {}
    named = pl.col("symbol").is_in(list(symbols))
    ends = dict(lake.ask(
        "bars", lambda bars: bars.filter(named).group_by("symbol").agg(pl.col("timestamp").max()).sort("timestamp", "symbol")
    ).iter_rows())  # fmt: skip
    old = [symbol for symbol, end in ends.items() if now - end > LONGEST_GAP]
    if old:
        names = ", ".join(old[:5]) + f" and {len(old) - 5} more" * (len(old) > 5)
        raise DataError(
            f"the bars of {names} in {lake.uri}/{lake.dataset} end too early, those of {old[0]} at {ends[old[0]]:%Y-%m-%d %H:%M} UTC; "
            f"expected an end within the last {LONGEST_GAP.days} days: take in what is missing first, with rlaif ingest, or leave what "
            f"has ended out of data.names"
        )
    return ends
