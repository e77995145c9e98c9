"""Binance's raw order-book streams as they were received: snapshot, depth updates, trades and best quotes, a JSON line each.

A line is a local stamp in ns, a space, and the message of a combined stream (`{"stream": ..., "data": ...}`) or of the
snapshot request (`{"lastUpdateId": ...}`). Other streams are passed over. Parsing is Polars'; putting the updates in
sequence follows the exchange's page "How to manage a local order book correctly", whose rules differ for spot and futures.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features.order_book import ASK, BID, BookStream, BookUpdates, Quotes, Trades

Gaps = Literal["refuse", "restart"]

_LEVELS = pl.List(pl.List(pl.String))
_DEPTH = {"E": pl.Int64, "U": pl.Int64, "u": pl.Int64, "pu": pl.Int64, "b": _LEVELS, "a": _LEVELS}
_SNAPSHOT = {"lastUpdateId": pl.Int64, "E": pl.Int64, "bids": _LEVELS, "asks": _LEVELS}
_TRADE = {"E": pl.Int64, "p": pl.String, "q": pl.String, "m": pl.Boolean}
_QUOTE = {"u": pl.Int64, "b": pl.String, "B": pl.String, "a": pl.String, "A": pl.String}
_DECIMALS = 8  # that a price can have


def read_binance(path: str | Path, *, gaps: Gaps = "refuse", tick_size: float | None = None) -> BookStream:
    """A recorded stream of one market, packed (`.gz`) or plain.

    Parameters
    ----------
    gaps : what a break in the exchange's numbering does. `refuse`: a `DataError` that names the line. `restart`: the book is
        void from the moment the break was noticed until the next snapshot.
    tick_size : smallest step of prices; default: the largest number of which all prices of the first snapshot are multiples.

    Raises `MissingDataError` where there is no file, `DataError` with file and line for what cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"no order-book stream at {path}; expected a file of stamped JSON lines, plain or .gz")
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected text, whole to its end (record it again, or cut it at its last whole line)") from error
    return stream_of(text.splitlines(), str(path), gaps=gaps, tick_size=tick_size)


def stream_of(lines: Sequence[str], where: str = "stream", *, gaps: Gaps = "refuse", tick_size: float | None = None) -> BookStream:
    """The same, of lines at hand; `where` is what messages call them."""
    heard = _stamped(lines, where)
    depth, trades, quotes, snapshots = (heard.filter(kind=kind) for kind in ("depth", "trade", "bookTicker", "snapshot"))
    snapshots = _decoded(snapshots, _SNAPSHOT, where, optional=("E",)).rename({"bids": "b", "asks": "a", "lastUpdateId": "u"})
    updates = _decoded(depth, _DEPTH, where, "data", optional=("pu",))
    messages = pl.concat([updates, snapshots], how="diagonal").with_columns(snapshot=pl.col("U").is_null()).sort("line")
    levels = pl.concat([_exploded(messages, side, name) for side, name in ((BID, "b"), (ASK, "a"))]).pipe(_priced, where, "p", "q")
    levels = levels.sort("message", maintain_order=True)
    trades = _decoded(trades, _TRADE, where, "data").pipe(_priced, where, "p", "q").filter(pl.col("p") > 0)  # X: NA has no price
    quotes = _decoded(quotes, _QUOTE, where, "data").pipe(_priced, where, "b", "B").pipe(_priced, where, "a", "A")

    step = _step(messages, levels, where) if tick_size is None else round(tick_size * 10**_DECIMALS)
    if step < 1:
        raise DataError(f"{where}: the step of prices is {step / 10**_DECIMALS:g}; expected one above 0, tell it by tick_size")
    applied, times, clears = _sequence(messages, where, gaps)
    counts = np.bincount(levels["message"].to_numpy(), minlength=messages.height + 1)  # the last has none: a void
    starts = np.concatenate([[0], np.cumsum(counts[applied])]).astype(np.int64)
    pick = np.arange(starts[-1]) + np.repeat((np.cumsum(counts) - counts)[applied] - starts[:-1], counts[applied])
    return BookStream(
        step / 10**_DECIMALS,
        BookUpdates(
            times, np.append(_nanoseconds(messages), -1)[applied], np.append(messages["u"].to_numpy(), -1)[applied], clears, starts,
            levels["side"].to_numpy()[pick], _ticks(levels, "p", step, where)[pick], levels["q"].to_numpy()[pick],
        ),
        Trades(
            trades["time"].to_numpy(), _nanoseconds(trades), _ticks(trades, "p", step, where), trades["q"].to_numpy(),
            np.where(trades["m"].to_numpy(), -1, 1).astype(np.int8),
        ),
        Quotes(
            quotes["time"].to_numpy(), quotes["u"].to_numpy(), np.stack([_ticks(quotes, name, step, where) for name in "ba"], 1),
            quotes.select("B", "A").to_numpy(),
        ),
        heard["time"][-1],
    )  # fmt: skip


# --- sequence --------------------------------------------------------------------------------------------------------


class _Sequence:
    """Which messages apply, in which order and from when on.

    The first update after a snapshot must straddle its number; older ones are dropped; then each goes on where the last
    ended: futures by `pu` = the last `u`, spot by `U` = the last `u` + 1. Updates that come before their snapshot apply when
    it comes. A snapshot of a book that is whole says less than the book and is passed over.
    """

    def __init__(self, messages: pl.DataFrame, where: str, gaps: Gaps) -> None:
        self.rows, self.void = messages.select("line", "U", "u", "pu").rows(), messages.height
        self.where, self.gaps = where, gaps
        self.order: list[tuple[int, int, bool]] = []  # message, time, clears
        self.held: list[int] = []
        self.live, self.fresh, self.last = False, False, 0

    def snapshot(self, m: int, time: int) -> None:
        if self.live:
            return
        self.order.append((m, time, True))
        self.live, self.fresh, self.last = True, True, self.rows[m][2]
        held, self.held = self.held, []
        for earlier in held:
            self.update(earlier, time)

    def update(self, m: int, time: int) -> None:
        if not self.live:
            self.held.append(m)
            return
        line, first, last, previous = self.rows[m]
        expected = self.last + (previous is None)
        if self.fresh and last < expected:
            return
        follows = first <= expected if self.fresh else (first if previous is None else previous) == expected
        if follows:
            self.order.append((m, time, False))
            self.fresh, self.last = False, last
        elif self.gaps == "refuse":
            seen = f"goes on from update {first - 1 if previous is None else previous}, the book is at {self.last}"
            raise DataError(f"{self.where}, line {line}: {seen}; messages are missing between: gaps='restart' waits for the next snapshot")
        else:
            self.order.append((self.void, time, True))
            self.live, self.held = False, [m]


def _sequence(messages: pl.DataFrame, where: str, gaps: Gaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Messages as rows of the table (its height: a void), when they apply, and whether they clear the book first."""
    sequence = _Sequence(messages, where, gaps)
    for m, (time, is_snapshot) in enumerate(messages.select("time", "snapshot").rows()):
        (sequence.snapshot if is_snapshot else sequence.update)(m, time)
    order, times, clears = zip(*sequence.order, strict=True) if sequence.order else ((), (), ())
    return np.array(order, np.int64), np.array(times, np.int64), np.array(clears, bool)


# --- parsing ---------------------------------------------------------------------------------------------------------


def _stamped(lines: Sequence[str], where: str) -> pl.DataFrame:
    """line (from 1), time, kind, text. Raises where a stamp is none, falls, or several markets speak."""
    if not lines:
        raise DataError(f"{where}: empty; expected stamped messages")
    split = pl.col("text").str.splitn(" ", 2)
    frame = pl.DataFrame({"text": pl.Series(lines, dtype=pl.String)}).with_row_index("line", 1).with_columns(
        time=split.struct[0].cast(pl.Int64, strict=False), text=split.struct[1]
    ).with_columns(stream=pl.col("text").str.extract_groups(r'^\{"stream":"(?<market>[^"@]+)@(?<kind>\w+)'))  # fmt: skip
    bad = frame.filter(pl.col("time").is_null() | pl.col("text").is_null() | (pl.col("time") < pl.col("time").shift(1)))
    if bad.height:
        line, text = bad["line"][0], lines[bad["line"][0] - 1]
        raise DataError(f"{where}, line {line}: {text[:60]!r}; expected a stamp in ns not below the last one, a space and a message")
    markets = frame["stream"].struct.field("market").drop_nulls().unique().sort()
    if len(markets) > 1:
        raise DataError(f"{where}: streams of {', '.join(markets)}; expected one market a file")
    snapshot = pl.when(pl.col("text").str.starts_with('{"lastUpdateId"')).then(pl.lit("snapshot"))
    return frame.select("line", "time", "text", kind=snapshot.otherwise(pl.col("stream").struct.field("kind")))


def _decoded(frame: pl.DataFrame, fields: dict[str, Any], where: str, inside: str = "", optional: Sequence[str] = ()) -> pl.DataFrame:
    """line, time and the fields of each message. Raises with the first line that is no JSON, or lacks a field."""
    shape = pl.Struct(fields)
    whole = pl.col("text").str.json_decode(pl.Struct({inside: shape}) if inside else shape).alias("message")
    inner = pl.col("message").struct.field(inside).alias("message") if inside else pl.col("message")
    try:
        read = frame.select("line", "time", whole).select("line", "time", inner).unnest("message")
    except pl.exceptions.ComputeError as error:
        raise DataError(f"{where}, line {_unreadable(frame, whole)}: {str(error).splitlines()[0]}; expected {list(fields)}") from error
    lacking = read.filter(pl.any_horizontal(pl.col(f).is_null() for f in fields if f not in optional))
    if lacking.height:
        raise DataError(f"{where}, line {lacking['line'][0]}: a message without one of {[f for f in fields if f not in optional]}")
    return read


def _unreadable(frame: pl.DataFrame, expression: pl.Expr) -> int:
    """The first line that cannot be decoded, found by halves."""
    while frame.height > 1:
        half = frame.head(frame.height // 2)
        try:
            half.select(expression)
            frame = frame.slice(half.height)
        except pl.exceptions.ComputeError:
            frame = half
    return frame["line"][0]


def _exploded(messages: pl.DataFrame, side: int, name: str) -> pl.DataFrame:
    """message, line, side, p, q: a row a level, in the message's order."""
    rows = messages.with_row_index("message").select("message", "line", pl.lit(side, pl.Int8).alias("side"), level=name)
    rows = rows.filter(pl.col("level").list.len() > 0).explode("level")
    price, quantity = (pl.col("level").list.get(i, null_on_oob=True) for i in range(2))
    return rows.select("message", "line", "side", p=price, q=quantity)


def _priced(frame: pl.DataFrame, where: str, price: str, quantity: str) -> pl.DataFrame:
    """Text as prices in 10^-8, exactly (no float lies between), and quantities. Raises with the first that is none."""
    read = frame.with_columns(
        pl.col(price).cast(pl.Decimal(38, _DECIMALS), strict=False).to_physical().cast(pl.Int64, strict=False),
        pl.col(quantity).cast(pl.Float64, strict=False),
    )
    bad = ~((read[price] >= 0) & read[quantity].is_finite() & (read[quantity] >= 0)).fill_null(False)
    if bad.any():
        row = frame.filter(bad).row(0, named=True)
        raise DataError(f"{where}, line {row['line']}: price {row[price]!r}, quantity {row[quantity]!r}; expected numbers not below 0")
    return read


def _step(messages: pl.DataFrame, levels: pl.DataFrame, where: str) -> int:
    """The largest number of which all prices of the first snapshot are multiples: nothing that came later has a say."""
    if not messages["snapshot"].any():
        raise DataError(f"{where}: no snapshot; expected one (changes alone are no book), or the step of prices by tick_size")
    first = levels.filter(pl.col("message") == messages["snapshot"].arg_max())
    return int(np.gcd.reduce(first["p"].to_numpy()))


def _ticks(frame: pl.DataFrame, name: str, step: int, where: str) -> np.ndarray:
    off = frame.filter(pl.col(name) % step != 0)
    if off.height:
        price, line = off[name][0] / 10**_DECIMALS, off["line"][0]
        raise DataError(f"{where}, line {line}: price {price:g} is no multiple of {step / 10**_DECIMALS:g}; tell the step by tick_size")
    return frame[name].to_numpy() // step


def _nanoseconds(frame: pl.DataFrame) -> np.ndarray:
    """The exchange's own time; -1 where it does not say."""
    return (frame["E"] * 1_000_000).fill_null(-1).to_numpy()
