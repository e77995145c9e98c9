"""The order book rebuilt against dicts and a sort, and the parsing of the raw stream apart from it: `python -m benchmarks.order_book`.

The recorded streams are read where `RLAIF_DATA` (default: `../shared/data` beside the checkout) has them; a synthetic one always.
"""

from __future__ import annotations

import gzip
import heapq
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.data.order_book import stream_of
from rlaif_ray.features.order_book import ASK, BID, BookLevels, BookUpdates, rebuild

DEPTH = 10
DATA = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[2] / "shared" / "data")) / "orderbook" / "hftbacktest"

Messages = list[tuple[bool, list[tuple[int, int, float]]]]  # clears the book; side, tick and quantity of each level
Best = Callable[[dict[int, float], int], Iterable[int]]  # ticks of a side, best first


def rows(quick: bool) -> list[Row]:
    """Best ten levels of both sides after every message, from parsed arrays; and lines to arrays."""
    tapes = {"synthetic": synthetic_lines(2000 if quick else 8000)}
    for name, file in (("Binance futures", "usdm_btcusdt_20240808.gz"), ("Binance spot", "spot_btcusdt_20240808.gz")):
        if (DATA / file).is_file():
            lines = gzip.decompress((DATA / file).read_bytes()).decode().splitlines()
            tapes[name] = lines[:10_000] if quick else lines
    return [row for name, lines in tapes.items() for row in (_rebuilding(name, lines), _parsing(name, lines))]


def _rebuilding(name: str, lines: list[str]) -> Row:
    updates = stream_of(lines).updates
    messages = as_lists(updates)
    ours, expected = rebuild(updates, DEPTH), plain_rebuild(messages, by_sort)
    assert same(ours, expected), "kernel and reference do not give the same best levels after every message"
    assert same(ours, plain_rebuild(messages, by_heap))
    seconds, peer_seconds = in_turn(lambda: rebuild(updates, DEPTH), lambda: plain_rebuild(messages, by_sort))
    _, heap_seconds = in_turn(lambda: None, lambda: plain_rebuild(messages, by_heap))
    count, levels = len(messages), len(updates.ticks)
    note = (
        f"{count:,} messages of {levels / count:.0f} levels, best {DEPTH} a side after each, all equal; "
        f"{levels / seconds / 1e6:.0f} million levels/s; {heap_seconds / seconds:.0f} times a heap in place of the sort."
    )
    peer = "dicts and a sort (Python)"
    return Row(f"rebuild, {name}", count / seconds, peer, count / peer_seconds, peer_seconds / seconds, "messages/s", 20.0, note)


def _parsing(name: str, lines: list[str]) -> Row:
    """All lines: trades and best quotes, too."""
    levels = stream_of(lines).updates.ticks.size
    read = plain_parse(lines)
    assert sum(len(own) for own in read) >= levels > 0  # updates that the snapshot has already are read, and dropped
    seconds, peer_seconds = in_turn(lambda: stream_of(lines), lambda: plain_parse(lines))
    note = "To typed arrays in sequence, checked; the peer makes lists of floats of the book's levels and checks nothing."
    peer = "json.loads and floats (Python)"
    return Row(f"parse, {name}", len(lines) / seconds, peer, len(lines) / peer_seconds, peer_seconds / seconds, "lines/s", None, note)


# --- the peer --------------------------------------------------------------------------------------------------------


def plain_rebuild(messages: Messages, best: Best) -> list[list[list[tuple[int, float]]]]:
    """(tick, quantity) of the best ten bids and asks after every message."""
    books: list[dict[int, float]] = [{}, {}]
    after = []
    for clears, levels in messages:
        if clears:
            books = [{}, {}]
        for side, tick, quantity in levels:
            if quantity > 0.0:
                books[side][tick] = quantity
            else:
                books[side].pop(tick, None)
        after.append([[(tick, books[side][tick]) for tick in best(books[side], side)] for side in (BID, ASK)])
    return after


def by_sort(book: dict[int, float], side: int) -> Iterable[int]:
    return sorted(book, reverse=side == BID)[:DEPTH]


def by_heap(book: dict[int, float], side: int) -> Iterable[int]:
    return heapq.nlargest(DEPTH, book) if side == BID else heapq.nsmallest(DEPTH, book)


def plain_parse(lines: list[str]) -> list[list[tuple[float, float]]]:
    read = []
    for text in lines:
        message = json.loads(text.split(" ", 1)[1])
        data = message.get("data", message)
        sides = [data[side] for side in ("bids", "asks", "b", "a") if isinstance(data.get(side), list)]
        read.append([(float(price), float(quantity)) for levels in sides for price, quantity in levels])
    return read


def as_lists(updates: BookUpdates) -> Messages:
    levels = list(zip(updates.sides.tolist(), updates.ticks.tolist(), updates.quantities.tolist(), strict=True))
    bounds = updates.starts.tolist()
    return [(clears, levels[a:b]) for clears, a, b in zip(updates.clears.tolist(), bounds[:-1], bounds[1:], strict=True)]


def same(ours: BookLevels, expected: list[list[list[tuple[int, float]]]]) -> bool:
    def side_of(m: int, side: int) -> list[tuple[int, float]]:
        there = ours.quantities[m, side] > 0
        return list(zip(ours.ticks[m, side][there].tolist(), ours.quantities[m, side][there].tolist(), strict=True))

    return len(expected) == len(ours.ticks) and all(side_of(m, s) == book[s] for m, book in enumerate(expected) for s in (BID, ASK))


def synthetic_lines(updates: int, seed: int = 0) -> list[str]:
    """A futures stream: 1,000 levels a side, then updates of about 60 levels near a middle that walks."""
    rng = np.random.default_rng(seed)
    middle, stamp, last = 600_000, 1_700_000_000_000_000_000, 1_000
    sizes = rng.exponential(1.0, (2, 1000))
    sides = [[[f"{(middle + sign * (k + 1)) / 10:.1f}", f"{sizes[side, k]:.3f}"] for k in range(1000)] for side, sign in ((0, -1), (1, 1))]
    lines = [f"{stamp} " + json.dumps({"lastUpdateId": last, "E": 1, "bids": sides[0], "asks": sides[1]}, separators=(",", ":"))]
    for _ in range(updates):
        step = int(rng.integers(-3, 4))
        passed = [[f"{t / 10:.1f}", "0"] for t in range(min(middle, middle + step), max(middle, middle + step) + 1)]
        middle += step
        changed = []
        for sign in (-1, 1):
            far, quantity = rng.geometric(0.01, 30), rng.exponential(1.0, 30) * (rng.random(30) < 0.6)
            own = [[f"{(middle + sign * int(k)) / 10:.1f}", f"{q:.3f}"] for k, q in zip(far, quantity, strict=True)]
            changed.append(passed + own)
        stamp += 50_000_000
        data = {"e": "depthUpdate", "E": 2, "U": last + 1, "u": last + 100, "pu": last, "b": changed[0], "a": changed[1]}
        if last == 1_000:
            data["U"] = last  # the first straddles the snapshot
        lines.append(f"{stamp} " + json.dumps({"stream": "abc@depth@0ms", "data": data}, separators=(",", ":")))
        last += 100
    return lines


if __name__ == "__main__":
    main(rows)
