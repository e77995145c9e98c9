"""The order book, rebuilt exactly from a stream of its changes, and what it says on a regular grid of time.

Time is local: when a message was received, which is when it could be acted upon. A grid cell is (end - every, end]; what is
said of it follows from messages received by its end. Prices are whole numbers of ticks: a price is a key, and keys are
not compared as floats. An empty or crossed book says nothing (NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numba import njit

from rlaif_ray.core import UTC, Panel
from rlaif_ray.errors import ConfigError
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec
from rlaif_ray.features.series import before, on_rows

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
BID, ASK = 0, 1


@dataclass(frozen=True, eq=False)
class BookUpdates:
    """Changes of a book in the order in which they apply: M messages of L levels in all, a level's quantity replacing what stood there.

    Message m has the levels starts[m] to starts[m + 1]; quantity 0 takes a price away. One that `clears` empties the book
    first: a snapshot, or, without levels, a gap in the stream, after which nothing is known.
    """

    times: np.ndarray  # (M,) int64 ns: when it could be applied, never falling
    exchange_times: np.ndarray  # (M,) int64 ns by the exchange's clock; -1 where it does not say
    last_ids: np.ndarray  # (M,) int64: the exchange's number of the last change in it
    clears: np.ndarray  # (M,) bool
    starts: np.ndarray  # (M + 1,) int64
    sides: np.ndarray  # (L,) int8: BID or ASK
    ticks: np.ndarray  # (L,) int64, above 0
    quantities: np.ndarray  # (L,) float64


@dataclass(frozen=True, eq=False)
class Trades:
    """N trades in the order of their receipt."""

    times: np.ndarray  # (N,) int64 ns
    exchange_times: np.ndarray  # (N,) int64 ns
    ticks: np.ndarray  # (N,) int64
    quantities: np.ndarray  # (N,) float64
    signs: np.ndarray  # (N,) int8: +1 where the buyer took, -1 where the seller did


@dataclass(frozen=True, eq=False)
class Quotes:
    """Best prices as the exchange itself says them, apart from the book: a check on it."""

    times: np.ndarray  # (N,) int64 ns
    last_ids: np.ndarray  # (N,) int64
    ticks: np.ndarray  # (N,2) int64: bid, ask
    quantities: np.ndarray  # (N,2) float64


@dataclass(frozen=True, eq=False)
class BookStream:
    """One market as it was heard, until `end` (int64 ns)."""

    tick_size: float
    updates: BookUpdates
    trades: Trades
    quotes: Quotes
    end: int


@dataclass(frozen=True, eq=False)
class BookLevels:
    """The best K levels of each side after every message, best first; tick and quantity 0 where there is none."""

    ticks: np.ndarray  # (M,2,K) int64
    quantities: np.ndarray  # (M,2,K) float64


def rebuild(updates: BookUpdates, depth: int) -> BookLevels:
    """The book after every message, to `depth` levels a side."""
    prices, places = np.unique(updates.ticks, return_inverse=True)
    return BookLevels(*_rebuild(updates.starts, updates.clears, updates.sides, places.astype(np.int64), updates.quantities, prices, depth))


@njit(
    "Tuple((int64[:,:,::1], float64[:,:,::1]))(int64[::1], boolean[::1], int8[::1], int64[::1], float64[::1], int64[::1], int64)",
    **_OPTIONS,
)
def _rebuild(
    starts: np.ndarray, clears: np.ndarray, sides: np.ndarray, places: np.ndarray, quantities: np.ndarray, prices: np.ndarray, depth: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A side is an array over all prices that the stream names, from its best to its worst, and the place of its best."""
    n = prices.size
    book, best, count = np.zeros((2, n)), np.full(2, n), np.zeros(2, np.int64)
    ticks, shown = np.zeros((clears.size, 2, depth), np.int64), np.zeros((clears.size, 2, depth))
    for m in range(clears.size):
        if clears[m]:
            book[:] = 0.0
            best[:] = n
            count[:] = 0
        for j in range(starts[m], starts[m + 1]):
            side = sides[j]
            at = places[j] if side == ASK else n - 1 - places[j]
            count[side] += (quantities[j] > 0.0) - (book[side, at] > 0.0)
            book[side, at] = quantities[j]
            if quantities[j] > 0.0:
                best[side] = min(best[side], at)
            elif at == best[side]:
                while best[side] < n and book[side, best[side]] == 0.0:
                    best[side] += 1
        for side in range(2):
            at = best[side]
            for k in range(min(depth, count[side])):
                while book[side, at] == 0.0:
                    at += 1
                ticks[m, side, k] = prices[at if side == ASK else n - 1 - at]
                shown[m, side, k] = book[side, at]
                at += 1
    return ticks, shown


# --- on a grid -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BookSamples:
    """G grid cells: the best K levels at each cell's end, and what went on within it.

    Levels are NaN where the book is empty, crossed or not that deep. What is summed over a cell is NaN where the book was not
    whole from the cell's start on (the first cell, which was not watched from its start; a gap).
    """

    ends: np.ndarray  # (G,) int64 ns
    prices: np.ndarray  # (G,2,K) float64
    quantities: np.ndarray  # (G,2,K) float64
    flow: np.ndarray  # (G,K) float64 shares: order-flow imbalance of each level
    mean_depth: np.ndarray  # (G,K) float64 shares: of a side, over the book at the start and after each message
    variance: np.ndarray  # (G,) float64: squared log moves of the mid, summed
    messages: np.ndarray  # (G,) float64: of the book
    trades: np.ndarray  # (G,) float64
    bought: np.ndarray  # (G,) float64 shares, by who took
    sold: np.ndarray  # (G,) float64 shares
    tick_size: float

    @cached_property
    def mid(self) -> np.ndarray:
        return 0.5 * (self.prices[:, BID, 0] + self.prices[:, ASK, 0])

    @cached_property
    def depth(self) -> np.ndarray:
        """(G,2,K) shares on the best 1, 2, ... K levels."""
        return np.cumsum(self.quantities, axis=2)


def sample(stream: BookStream, every_ms: int, depth: int) -> BookSamples:
    """The book at every whole multiple of `every_ms` (since 1970) from its first message on until the stream's end."""
    every, updates, trades = every_ms * 1_000_000, stream.updates, stream.trades
    after = stream.end // every + 1
    first = -(-int(updates.times[0]) // every) if len(updates.times) else after
    ends = every * np.arange(first, after, dtype=np.int64)
    levels = rebuild(updates, depth)
    bounds = np.concatenate([[0], np.searchsorted(updates.times, ends, side="right")]).astype(np.int64)
    whole = (levels.ticks[:, BID, 0] > 0) & (levels.ticks[:, ASK, 0] > levels.ticks[:, BID, 0])
    quantities = np.where(whole[:, None, None] & (levels.quantities > 0), levels.quantities, np.nan)
    flow, mean_depth, variance = _cells(levels.ticks, quantities, bounds)

    last = bounds[1:] - 1  # the first cell ends at or after the first message
    cell = np.searchsorted(ends, trades.times, side="left")  # of each trade: the first end at or after it
    within = (trades.times > ends[0] - every) & (cell < len(ends)) if len(ends) else np.zeros(len(trades.times), bool)
    size, sign = trades.quantities[within], trades.signs[within]

    def over_cells(weights: np.ndarray) -> np.ndarray:
        total = np.bincount(cell[within], weights, minlength=len(ends)).astype(float)
        total[:1] = np.nan
        return total

    messages = np.diff(bounds).astype(float)
    messages[:1] = np.nan
    at_end = quantities[last]
    return BookSamples(
        ends, np.where(np.isnan(at_end), np.nan, stream.tick_size * levels.ticks[last]), at_end, flow, mean_depth, variance, messages,
        over_cells(np.ones(len(size))), over_cells(size * (sign > 0)), over_cells(size * (sign < 0)), stream.tick_size,
    )  # fmt: skip


@njit("float64(int64[:,:,::1], float64[:,:,::1], int64)", **_OPTIONS)
def _log_mid(ticks: np.ndarray, quantities: np.ndarray, m: int) -> float:
    return np.nan if np.isnan(quantities[m, BID, 0]) else np.log(0.5 * (ticks[m, BID, 0] + ticks[m, ASK, 0]))


@njit("Tuple((float64[:,::1], float64[:,::1], float64[::1]))(int64[:,:,::1], float64[:,:,::1], int64[::1])", **_OPTIONS)
def _cells(ticks: np.ndarray, quantities: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flow and mean depth (G,K) and variance (G,) of the messages bounds[g] to bounds[g + 1], from the book before them on.

    Flow: Cont, Kukanov and Stoikov (2014) eq. 2-3, on each level as Xu, Gould and Howison (2019): what a side's level gained
    where its price is as good as before or better, less what it had where the price is as good or worse; bid less ask.
    """
    cells, depth = bounds.size - 1, ticks.shape[2]
    flow, mean_depth, variance = np.full((cells, depth), np.nan), np.full((cells, depth), np.nan), np.full(cells, np.nan)
    for g in range(cells):
        start = bounds[g] - 1
        if start < 0:
            continue
        for k in range(depth):
            total, deep = 0.0, 0.5 * (quantities[start, BID, k] + quantities[start, ASK, k])
            for m in range(start + 1, bounds[g + 1]):
                new_bid, old_bid, new_ask, old_ask = ticks[m, BID, k], ticks[m - 1, BID, k], ticks[m, ASK, k], ticks[m - 1, ASK, k]
                deep += 0.5 * (quantities[m, BID, k] + quantities[m, ASK, k])
                if new_bid >= old_bid:
                    total += quantities[m, BID, k]
                if new_bid <= old_bid:
                    total -= quantities[m - 1, BID, k]
                if new_ask <= old_ask:
                    total -= quantities[m, ASK, k]
                if new_ask >= old_ask:
                    total += quantities[m - 1, ASK, k]
            flow[g, k] = total if not np.isnan(deep) else np.nan  # `deep` has every level that was looked at
            mean_depth[g, k] = deep / (bounds[g + 1] - start)
        moves, last = 0.0, _log_mid(ticks, quantities, start)
        for m in range(start + 1, bounds[g + 1]):
            now = _log_mid(ticks, quantities, m)
            moves += (now - last) ** 2
            last = now
        variance[g] = moves if not np.isnan(last) else np.nan
    return flow, mean_depth, variance


# --- formulas --------------------------------------------------------------------------------------------------------


def _depth(side: int) -> Callable[[BookSamples, int], np.ndarray]:
    return lambda b, levels: b.depth[:, side, levels - 1]


def _imbalance(b: BookSamples, levels: int) -> np.ndarray:
    bid, ask = b.depth[:, BID, levels - 1], b.depth[:, ASK, levels - 1]
    return (bid - ask) / (bid + ask)


def _spread_bps(b: BookSamples) -> np.ndarray:
    return 1e4 * (b.prices[:, ASK, 0] - b.prices[:, BID, 0]) / b.mid


def _microprice(b: BookSamples) -> np.ndarray:
    """The mid weighted by the other side's size: (ask x bid size + bid x ask size) / both; his first guess, not his limit."""
    bid, ask = b.quantities[:, BID, 0], b.quantities[:, ASK, 0]
    return (b.prices[:, ASK, 0] * bid + b.prices[:, BID, 0] * ask) / (bid + ask)


def _slope(b: BookSamples, levels: int) -> np.ndarray:
    """Mean of both sides' slopes of the share of the depth of `levels` that lies up to a level on its distance from the mid in bps."""
    distance = 1e4 * np.abs(b.prices[:, :, :levels] / b.mid[:, None, None] - 1.0)
    share = b.depth[:, :, :levels] / b.depth[:, :, levels - 1 : levels]
    dx = distance - np.cumsum(distance, axis=2)[:, :, -1:] / levels
    slopes = np.cumsum(dx * share, axis=2)[:, :, -1] / np.cumsum(dx * dx, axis=2)[:, :, -1]
    return 0.5 * (slopes[:, BID] + slopes[:, ASK])


def _flow(b: BookSamples, levels: int) -> np.ndarray:
    return np.cumsum(b.flow[:, :levels], axis=1)[:, -1]


def _trade_imbalance(b: BookSamples) -> np.ndarray:
    return (b.bought - b.sold) / (b.bought + b.sold)


def _return(b: BookSamples) -> np.ndarray:
    return np.log(b.mid / before(b.mid, 1))


_LEVELS, _BOOK, _TRADES = ((1,), (5,), (10,)), ("book",), ("trades",)

BOOK_FAMILIES: tuple[Family, ...] = (
    Family("book_spread_ticks", lambda b: np.rint((b.prices[:, ASK, 0] - b.prices[:, BID, 0]) / b.tick_size), _BOOK, 0, "count", "book",
           "best ask less best bid in ticks"),
    Family("book_spread_bps", _spread_bps, _BOOK, 0, "bps", "book", "best ask less best bid, in basis points of the mid"),
    Family("book_mid", lambda b: b.mid, _BOOK, 0, "price", "book", "middle of best bid and best ask"),
    Family("book_microprice", _microprice, _BOOK, 0, "price", "book", "mid weighted by the other side's best size",
           source="Stoikov (2018), weighted mid"),
    Family("book_microprice_bps", lambda b: 1e4 * (_microprice(b) / b.mid - 1.0), _BOOK, 0, "bps", "book",
           "microprice less mid, in basis points of the mid", source="Stoikov (2018), weighted mid"),
    Family("book_bid_depth_{levels}", _depth(BID), _BOOK, 0, "shares", "book", "bid for on the best {levels} levels", ("levels",), _LEVELS),
    Family("book_ask_depth_{levels}", _depth(ASK), _BOOK, 0, "shares", "book", "offered on the best {levels} levels", ("levels",), _LEVELS),
    Family("book_imbalance_{levels}", _imbalance, _BOOK, 0, "ratio", "book", "bid less ask depth over both, best {levels} levels",
           ("levels",), _LEVELS, "Cao, Hansch and Wang (2009)"),
    Family("book_slope_{levels}", _slope, _BOOK, 0, "ratio", "book",
           "share of the depth of {levels} levels that a basis point from the mid adds, mean of both sides", ("levels",), ((5,), (10,)),
           "Ghysels and Nguyen (2019)"),
    Family("book_ofi_{levels}", lambda b, levels: _flow(b, levels) / np.cumsum(b.mean_depth[:, :levels], axis=1)[:, -1], _BOOK, 1, "ratio",
           "book", "order-flow imbalance of the cell over mean depth, best {levels} levels", ("levels",), _LEVELS,
           "Cont, Kukanov and Stoikov (2014) eq. 3; Xu, Gould and Howison (2019)"),
    Family("book_ofi_shares_{levels}", _flow, _BOOK, 1, "shares", "book", "order-flow imbalance of the cell, best {levels} levels",
           ("levels",), _LEVELS, "Cont, Kukanov and Stoikov (2014) eq. 3; Xu, Gould and Howison (2019)"),
    Family("book_return", _return, _BOOK, 1, "ratio", "return", "log return of the mid over the cell"),
    Family("book_variance", lambda b: b.variance, _BOOK, 1, "ratio", "volatility",
           "realised variance of the cell: squared log moves of the mid from message to message", source="Andersen et al. (2003)"),
    Family("book_messages", lambda b: b.messages, _BOOK, 1, "count", "book", "changes of the book received in the cell"),
    Family("book_trades", lambda b: b.trades, _TRADES, 1, "count", "book", "trades received in the cell"),
    Family("book_volume", lambda b: b.bought + b.sold, _TRADES, 1, "shares", "book", "traded in the cell"),
    Family("book_trade_imbalance", _trade_imbalance, _TRADES, 1, "ratio", "book",
           "bought less sold, by who took, over both; undefined where nothing was traded", missing="zero"),
)  # fmt: skip
"""Columns of a book on a grid, of `BookSamples`; `look_back` counts cells from the one in which the book became whole."""


def book_panel(stream: BookStream, symbol: str, every_ms: int = 1000, specs: Sequence[FeatureSpec] | None = None) -> Panel:
    """Columns of one market's book, a row for every whole multiple of `every_ms` that the stream was heard through.

    Parameters
    ----------
    specs : of the set `ORDER_BOOK`; default: all, with their own parameters.

    Returns
    -------
    Panel of float32 columns; `known_at` is the cell's end: nothing in a row was received later. The first row is that in whose
    cell the first message of the book (its snapshot) was received.

    Raises `ConfigError` for a grid below 1 ms.
    """
    if every_ms < 1:
        raise ConfigError(f"every_ms is {every_ms}; expected whole milliseconds, at least 1")
    specs = [s for f in BOOK_FAMILIES for s in f.specs()] if specs is None else specs
    deepest = max((int(levels) for s in specs for levels in s.parameters), default=1)  # no family has another parameter
    samples = sample(stream, every_ms, deepest)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {s.name: s.of(samples) for s in specs}
    times = pl.Series("timestamp", samples.ends // 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(UTC)
    keys = pl.DataFrame({"symbol": pl.Series([symbol] * len(times), dtype=pl.String), "timestamp": times, "known_at": times})
    return on_rows(keys, columns)


ORDER_BOOK = FeatureSet("order_book", BOOK_FAMILIES, book_panel, reads=("stream",))
