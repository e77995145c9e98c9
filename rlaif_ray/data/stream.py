"""Live minute bars over a websocket: kept whole through lost connections, handed over as finished bars."""

from __future__ import annotations

import datetime as dt
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.aggregate import MINUTE, MINUTE_SCHEMA, aggregate, place
from rlaif_ray.data.credentials import credentials
from rlaif_ray.data.sessions import schedule
from rlaif_ray.data.vendors import Vendor
from rlaif_ray.errors import ConfigError, DataError, SchemaError

LONGEST_PAUSE_S = 30.0
LARGEST_MESSAGE = 1 << 24  # bytes; a minute of the whole market
CLOSING_S = 1.0  # for a goodbye: who fell silent says none
_BAR = ("symbol", "timestamp")

HandOver = Callable[[pl.DataFrame], None]
Repair = Callable[[dt.datetime, dt.datetime], pl.DataFrame]

# At level debug the library writes down every message that it sends, the credentials among them.
_SILENT = logging.getLogger(f"{__name__}.socket")
_SILENT.setLevel(logging.INFO)


class Book:
    """Minute bars that have come, and which bars of `size` they have changed since these were last taken.

    Parameters
    ----------
    size : of a bar, counted from the session's open.
    after : bars that ended by then are left out: not all their minutes may have come.
    """

    def __init__(self, size: dt.timedelta, calendar: str, after: dt.datetime) -> None:
        self.size, self.calendar, self.after = size, calendar, after
        self._placed = place(pl.DataFrame(schema=MINUTE_SCHEMA), size, calendar)
        self._changed = self._placed.select(_BAR)

    def add(self, minutes: pl.DataFrame) -> None:
        """Rows of `MINUTE_SCHEMA`; of two for one minute the later holds. What is known already changes nothing."""
        latest = minutes.unique(("symbol", "start"), keep="last", maintain_order=True)
        placed = place(latest, self.size, self.calendar).filter(pl.col("timestamp") > pl.lit(self.after, UTC))
        fresh = placed.join(self._placed, on=placed.columns, how="anti")
        self._placed = pl.concat([self._placed.join(fresh, on=("symbol", "start"), how="anti"), fresh])
        self._changed = pl.concat([self._changed, fresh.select(_BAR)]).unique()

    def take(self, until: dt.datetime) -> pl.DataFrame:
        """Changed bars that ended by `until`, in `BAR_SCHEMA`, whole. Older sessions than the newest are forgotten then."""
        ended = pl.col("timestamp") <= pl.lit(until, UTC)
        bars = aggregate(self._placed.join(self._changed.filter(ended), on=_BAR, how="semi"))
        self._changed = self._changed.filter(~ended)
        self._placed = self._placed.filter((pl.col("session") == pl.col("session").max()) | ~ended)
        return bars


class BarStream:
    """Bars of `minutes` from a vendor's stream, at most one hand-over a minute.

    When a connection is lost it is made again (full jitter, up to 30 s), and what began since the stream was last whole is
    asked for from `repair`: once the new subscription stands, and again two minutes later, when that door has what it did
    not have yet. Until the first answer nothing is handed over that ended after the break. A bar that late or corrected
    minutes change is handed over again: the lake makes it a revision. What ended before `since` is left to the ingest.

    Parameters
    ----------
    vendor : see `vendors`.
    symbols : whose bars.
    hand_over : takes finished bars in `clean.BAR_SCHEMA` (known at their end; appends them in one commit).
    repair : (since, until) -> minute bars (`aggregate.MINUTE_SCHEMA`) that began from `since` on and ended by `until`, such as
        `AlpacaSource.minutes`.
    minutes : size of a bar, counted from the session's open.
    since : end of the last bar that was handed over before; None: from now on.
    late_s : seconds after its end at which a minute's bars are taken to be there.
    mute_s : a connection that says nothing for so long, in a session or before it is subscribed, is given up.
    tick_s : seconds between looks at the clock.
    attempts : connections in turn that come to nothing before it is an error.
    clock, sleep : seconds since 1970 and a wait.
    """

    def __init__(
        self, vendor: Vendor, symbols: Sequence[str], hand_over: HandOver, repair: Repair, *, minutes: int = 1, calendar: str = "XNYS",
        since: dt.datetime | None = None, late_s: float = 5.0, mute_s: float = 180.0, tick_s: float = 1.0, attempts: int = 20,
        clock: Callable[[], float] = time.time, sleep: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        self.vendor, self.symbols, self.hand_over, self.repair = vendor, sorted(set(symbols)), hand_over, repair
        self.calendar, self.late, self.mute = calendar, dt.timedelta(seconds=late_s), dt.timedelta(seconds=mute_s)
        self.tick_s, self.attempts, self.clock, self.sleep = tick_s, attempts, clock, sleep
        self._heard_at = self._now()
        self._whole_until = since or self._heard_at
        self._size = minutes * MINUTE
        self._book = Book(self._size, calendar, self._whole_until)
        self._rows: list[dict[str, Any]] = []
        self._handed_at: dt.datetime | None = None

    def run(self, stopped: Callable[[], bool]) -> None:
        """Listen until `stopped()`, then hand over what is finished, whenever the last time was.

        Raises `ConfigError` for missing keys or libraries, `DataError` where the vendor refuses or no connection comes to
        anything; what `hand_over` and `repair` raise passes through.
        """
        try:
            from websockets.exceptions import WebSocketException
        except ImportError as error:
            raise ConfigError(f"the stream needs websockets, which is missing ({error}); pip install 'rlaif-ray[alpaca]'") from None
        keys = credentials(*self.vendor.keys)
        failures = 0
        while not stopped():
            before = self._whole_until
            try:
                self._listen(keys, stopped)
            except (OSError, WebSocketException, json.JSONDecodeError) as error:
                failures = 1 if self._whole_until > before else failures + 1
                if failures >= self.attempts:
                    raise DataError(
                        f"{self.vendor.name}'s stream at {self.vendor.url} broke {failures} times without a word in between, the last by "
                        f"{type(error).__name__} ({error}); expected bars: try again later"
                    ) from None
                # What was under way when the socket fell silent is lost too.
                self._whole_until = min(self._whole_until, self._heard_at - self.late)
                self.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, 2.0**failures)))
        self._give()

    def _listen(self, keys: Sequence[str], stopped: Callable[[], bool]) -> None:
        """One connection, until it breaks or all is to stop."""
        from websockets.sync.client import connect

        with connect(self.vendor.url, max_size=LARGEST_MESSAGE, close_timeout=CLOSING_S, logger=_SILENT) as socket:
            again_at, live, gap = None, False, self._whole_until
            self._heard_at = self._now()
            while not stopped():
                events = _received(socket, self.tick_s)
                now = self._now()
                for event in events:
                    said = self.vendor.answer(event, keys, self.symbols)
                    if said is not None:
                        socket.send(json.dumps(said))
                    if not live and self.vendor.subscribed.items() <= event.items():
                        live, again_at = True, now + 2 * MINUTE
                        self._mend(gap, now)
                    self._note(event)
                if again_at is not None and now >= again_at:
                    again_at = None
                    self._mend(gap, now)
                self._heard_at = now if events else self._heard_at
                self._refuse_silence(live, now)
                if live:
                    self._whole_until = max(gap, now - self.late)
                    if self._handed_at is None or now - self._handed_at >= MINUTE:
                        self._give()

    def _note(self, event: dict[str, Any]) -> None:
        try:
            row = self.vendor.bar(event)
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"{self.vendor.name} gave a bar as {event} ({error!r}); expected a symbol, a time and five numbers") from None
        if row is not None:
            self._rows.append(row)

    def _settle(self) -> None:
        """Put down what has come."""
        self._book.add(pl.DataFrame(self._rows, schema=MINUTE_SCHEMA))
        self._rows = []

    def _mend(self, gap: dt.datetime, now: dt.datetime) -> None:
        """Ask for the minutes of every bar that was not whole at the gap."""
        self._settle()
        self._book.add(self.repair(gap - self._size, now))

    def _give(self) -> None:
        self._settle()
        bars = self._book.take(self._whole_until)
        if bars.height:
            self._handed_at = self._now()
            self.hand_over(bars)

    def _refuse_silence(self, live: bool, now: dt.datetime) -> None:
        if now - self._heard_at <= self.mute:
            return
        today = schedule(self.calendar, now.date(), now.date())
        in_session = today.filter((pl.col("open") + self.mute <= now) & (pl.col("close") >= now)).height > 0
        if in_session or not live:
            raise ConnectionError(f"nothing heard for {(now - self._heard_at).total_seconds():.0f} s")

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.clock(), dt.UTC)


def _received(socket: Any, wait_s: float) -> list[dict[str, Any]]:
    """The events of the next message; none where none comes in time."""
    try:
        said = json.loads(socket.recv(timeout=wait_s))
    except TimeoutError:
        return []
    return said if isinstance(said, list) else [said]
