"""Binance's raw streams: the exchange's rules by hand, gaps named, the real streams against the exchange's own best quotes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_ray.data.order_book import read_binance, stream_of
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features.order_book import ASK, BID, BookStream, book_panel, rebuild

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
VENUES = {"usdm": (0.1, "pu"), "spot": (0.01, None)}  # tick, and what futures chain by

Levels = dict[str, str]


def line(time: int, message: dict[str, Any]) -> str:
    return f"{START + time} {json.dumps(message, separators=(',', ':'))}"


def snapshot(time: int, last: int, bids: Levels, asks: Levels) -> str:
    return line(time, {"lastUpdateId": last, "bids": list(bids.items()), "asks": list(asks.items())})


def depth(time: int, first: int, last: int, previous: int | None, bids: Levels = {}, asks: Levels = {}) -> str:  # noqa: B006
    """`previous`: of futures; None: spot."""
    own = {} if previous is None else {"pu": previous}
    data = {"e": "depthUpdate", "E": time // 1_000_000, "U": first, "u": last, **own, "b": list(bids.items()), "a": list(asks.items())}
    return line(time, {"stream": "abc@depth@0ms", "data": data})


def trade(time: int, price: str, quantity: str, buyer_waits: bool, **more: Any) -> str:
    return line(time, {"stream": "abc@trade", "data": {"e": "trade", "E": 7, "p": price, "q": quantity, "m": buyer_waits, **more}})


def best(stream: BookStream) -> list[list[int]]:
    """[bid, ask] in ticks after every message."""
    return rebuild(stream.updates, 1).ticks[:, :, 0].tolist()


BIDS, ASKS = {"10.0": "1", "9.8": "2"}, {"10.1": "3", "10.4": "4"}

# --- by hand ---------------------------------------------------------------------------------------------------------


def test_what_is_read_by_hand() -> None:
    """Exact ticks of 0.1, the taker's sign, the exchange's clock, and what a removed level looks like."""
    stream = stream_of([
        snapshot(0, 100, BIDS, ASKS),
        depth(2_000_000, 99, 103, 98, {"10.0": "0.0", "9.9": "0.5"}, {"10.1": "2.5"}),
        trade(2_000_001, "10.1", "0.25", False),
        trade(2_000_002, "9.9", "0.5", True),
        trade(2_000_003, "0", "0", True, X="NA"),
        line(2_000_004, {"stream": "abc@bookTicker", "data": {"u": 103, "b": "9.9", "B": "0.5", "a": "10.1", "A": "2.5"}}),
        line(5_000_000, {"stream": "abc@kline_1m", "data": {}}),
    ])  # fmt: skip
    assert stream.tick_size == 0.1 and stream.end == START + 5_000_000
    u = stream.updates
    assert u.times.tolist() == [START, START + 2_000_000] and u.exchange_times.tolist() == [-1, 2_000_000]
    assert u.clears.tolist() == [True, False] and u.last_ids.tolist() == [100, 103] and u.starts.tolist() == [0, 4, 7]
    assert u.sides.tolist() == [BID, BID, ASK, ASK, BID, BID, ASK]
    assert u.ticks.tolist() == [100, 98, 101, 104, 100, 99, 101] and u.quantities.tolist() == [1.0, 2.0, 3.0, 4.0, 0.0, 0.5, 2.5]
    assert stream.trades.ticks.tolist() == [101, 99] and stream.trades.signs.tolist() == [1, -1]
    assert stream.trades.quantities.tolist() == [0.25, 0.5]
    assert stream.quotes.ticks.tolist() == [[99, 101]] and stream.quotes.quantities.tolist() == [[0.5, 2.5]]
    assert best(stream) == [[100, 101], [99, 101]]


def test_futures_updates_that_came_before_their_snapshot_apply_when_it_comes() -> None:
    """u < 100 is dropped; U <= 100 <= u is the first; the next has pu = its u. None was known as part of a book before."""
    lines = [
        depth(1, 80, 90, 79, {"10.0": "9"}),
        depth(2, 91, 99, 90, {"10.0": "8"}),
        depth(3, 95, 101, 99, {"10.0": "7"}),
        depth(4, 105, 110, 101, {"9.9": "6"}),
        snapshot(5, 100, BIDS, ASKS),
        depth(6, 111, 112, 110, {"10.0": "0"}),
    ]
    u = stream_of(lines).updates
    assert u.last_ids.tolist() == [100, 101, 110, 112]
    assert (u.times - START).tolist() == [5, 5, 5, 6]
    assert best(stream_of(lines)) == [[100, 101], [100, 101], [100, 101], [99, 101]]


def test_futures_drop_below_and_spot_up_to_the_number_of_the_snapshot() -> None:
    """An update that ends at 100 is the first of futures after a snapshot of 100, and is in it already on spot."""
    futures = [snapshot(0, 100, BIDS, ASKS), depth(1, 95, 99, 90), depth(2, 99, 100, 99), depth(3, 105, 106, 100)]
    assert stream_of(futures).updates.last_ids.tolist() == [100, 100, 106]
    spot = [snapshot(0, 100, BIDS, ASKS), depth(1, 95, 100, None), depth(2, 101, 102, None), depth(3, 103, 103, None)]
    assert stream_of(spot).updates.last_ids.tolist() == [100, 102, 103]
    straddling = [snapshot(0, 100, BIDS, ASKS), depth(2, 96, 102, None)]
    assert stream_of(straddling).updates.last_ids.tolist() == [100, 102]


BROKEN = {
    "the first does not straddle (futures)": [depth(1, 101, 110, 99)],
    "the first does not straddle (spot)": [depth(1, 102, 110, None)],
    "futures do not chain": [depth(1, 99, 110, 98), depth(2, 112, 115, 111)],
    "spot does not chain": [depth(1, 101, 110, None), depth(2, 112, 115, None)],
    "said twice": [depth(1, 101, 110, None), depth(2, 101, 110, None)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_gap_is_detected_and_named(name: str) -> None:
    lines = [snapshot(0, 100, BIDS, ASKS), *BROKEN[name]]
    with pytest.raises(DataError, match=rf"tape, line {len(lines)}: goes on from update \d+, the book is at \d+; .*gaps='restart'"):
        stream_of(lines, "tape")


@pytest.mark.parametrize("name", BROKEN)
def test_or_voids_the_book_until_the_next_snapshot(name: str) -> None:
    """What broke the chain goes on from that one, which it straddles; a snapshot of a whole book is passed over."""
    number = 113 if '"u":115' in BROKEN[name][-1] else 108
    again = [snapshot(3, number, {"9.5": "1"}, {"9.6": "1"}), snapshot(4, 120, {"1.0": "1"}, {"2.0": "1"})]
    stream = stream_of([snapshot(0, 100, BIDS, ASKS), *BROKEN[name], *again], gaps="restart")
    u, books = stream.updates, best(stream)
    void = int(np.flatnonzero(u.last_ids == -1)[0])
    assert u.times[void] == START + len(BROKEN[name]) and books[void] == [0, 0]
    assert u.last_ids[void + 1 :].tolist() == [number, number + 2] and (u.times[void + 1 :] == START + 3).all()
    assert books[void + 1 :] == [[95, 96]] * 2


def test_a_snapshot_from_before_the_gap_is_no_way_over_it() -> None:
    """After 110, 111 is lost. A snapshot of 108 does not reach 112; one of 113 does."""
    lines = [snapshot(0, 100, BIDS, ASKS), depth(1, 101, 110, None), depth(2, 112, 115, None), snapshot(3, 108, BIDS, ASKS)]
    stream = stream_of([*lines, snapshot(4, 113, BIDS, ASKS)], gaps="restart")
    assert stream.updates.last_ids.tolist() == [100, 110, -1, 108, -1, 113, 115]
    assert [b == [0, 0] for b in best(stream)] == [False, False, True, False, True, False, False]
    assert (stream.updates.times - START).tolist() == [0, 1, 2, 3, 3, 4, 4]


def test_a_snapshot_that_is_older_than_all_updates_is_no_book() -> None:
    with pytest.raises(DataError, match="line 1: goes on from update 149, the book is at 100"):
        stream_of([depth(0, 150, 160, None), snapshot(1, 100, BIDS, ASKS)])


# --- what cannot be read ---------------------------------------------------------------------------------------------

WHOLE = [snapshot(0, 100, BIDS, ASKS), depth(1, 101, 102, None, {"9.9": "1"}), trade(2, "10.0", "1", True)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*WHOLE, depth(3, 103, 104, None)[:-9]], "tape, line 4: .*JSON"),
        ([*WHOLE[:2], "x" + WHOLE[2]], "line 3: 'x17.*expected a stamp in ns not below the last one"),
        ([*WHOLE, line(0, {})], "line 4: .*expected a stamp in ns not below the last one"),
        ([*WHOLE, f"{START + 5}"], "line 4: .*a space and a message"),
        ([*WHOLE, depth(3, 103, 104, None).replace('"u":104,', "")], r"line 4: a message without one of \['E', 'U', 'u', 'b', 'a'\]"),
        ([*WHOLE, depth(3, 103, 104, None, {"9.9x": "1"})], "line 4: price '9.9x', quantity '1'; expected numbers not below 0"),
        ([*WHOLE, depth(3, 103, 104, None, {"9.9": "-1"})], "line 4: price '9.9', quantity '-1'"),
        ([*WHOLE, depth(3, 103, 104, None, {"9.9": "nan"})], "line 4: price '9.9', quantity 'nan'"),
        ([*WHOLE, trade(3, "9.95", "1", True)], "line 4: price 9.95 is no multiple of 0.1; tell the step by tick_size"),
        ([*WHOLE, trade(3, "10.0", "1", True).replace("abc@", "xyz@")], "streams of abc, xyz; expected one market a file"),
        (WHOLE[1:], "no snapshot; expected one"),
        ([], "tape: empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        stream_of(lines, "tape")


def test_a_step_that_is_told_reads_what_the_first_snapshot_did_not_show() -> None:
    stream = stream_of([*WHOLE, trade(3, "9.95", "1", True)], tick_size=0.05)
    assert stream.trades.ticks.tolist() == [200, 199] and best(stream)[0] == [200, 202]
    with pytest.raises(DataError, match="step of prices is 0;"):
        stream_of(WHOLE, tick_size=0.0)


def test_files_plain_and_packed_and_torn(tmp_path: Path) -> None:
    text = "\n".join(WHOLE) + "\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode()))
    a, b = (read_binance(tmp_path / name) for name in ("a.txt", "a.gz"))
    assert best(a) == best(b) == [[100, 101]] * 2
    (tmp_path / "torn.gz").write_bytes(gzip.compress(text.encode())[:-12])
    with pytest.raises(DataError, match=r"torn\.gz: .*expected text, whole to its end"):
        read_binance(tmp_path / "torn.gz")
    with pytest.raises(MissingDataError, match=r"no order-book stream at .*none\.gz"):
        read_binance(tmp_path / "none.gz")


# --- the real streams ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tape(real_data: Path) -> Callable[[str], list[str]]:
    @cache
    def lines(venue: str) -> list[str]:
        return gzip.decompress((real_data / f"orderbook/hftbacktest/{venue}_btcusdt_20240808.gz").read_bytes()).decode().splitlines()

    return lines


Book = tuple[int, list[tuple[float, float]], list[tuple[float, float]]]


def plain_rebuild(lines: list[str], futures: bool) -> list[Book]:
    """Number, bids and asks, best first, after each update that applies: json, dicts and a sort, as one would write it first.

    Of a tape with one snapshot and without gaps.
    """
    messages = [json.loads(text.split(" ", 1)[1]) for text in lines]
    (whole,) = (m for m in messages if "lastUpdateId" in m)
    bids, asks = ({float(p): float(q) for p, q in whole[side]} for side in ("bids", "asks"))
    after = [(whole["lastUpdateId"], sorted(bids.items(), reverse=True), sorted(asks.items()))]
    for data in (m["data"] for m in messages if "@depth" in m.get("stream", "")):
        if data["u"] < whole["lastUpdateId"] + (not futures):
            continue
        for book, levels in ((bids, data["b"]), (asks, data["a"])):
            for price, quantity in levels:
                if float(quantity):
                    book[float(price)] = float(quantity)
                else:
                    book.pop(float(price), None)
        after.append((data["u"], sorted(bids.items(), reverse=True), sorted(asks.items())))
    return after


@pytest.mark.parametrize("venue", VENUES)
def test_real_books_equal_a_plain_rebuild_to_their_last_level(venue: str, tape: Callable[[str], list[str]]) -> None:
    """Every level of both sides after each of the first messages."""
    lines = tape(venue)[:3000]
    expected, stream = plain_rebuild(lines, venue == "usdm"), stream_of(lines)
    deepest = max(max(len(bids), len(asks)) for _, bids, asks in expected)
    found = rebuild(stream.updates, deepest)
    assert len(expected) == len(found.ticks) > 200 and deepest > 1000 and stream.tick_size == VENUES[venue][0]
    for m, (last, *sides) in enumerate(expected):
        assert stream.updates.last_ids[m] == last
        for side, levels in enumerate(sides):
            prices, quantities = np.array(levels).T
            np.testing.assert_array_equal(found.ticks[m, side, : len(levels)], np.rint(prices / stream.tick_size).astype(np.int64))
            np.testing.assert_array_equal(found.quantities[m, side, : len(levels)], quantities)
            assert not found.quantities[m, side, len(levels) :].any()


@pytest.mark.parametrize(("venue", "aligned"), [("usdm", 629), ("spot", 564)])
def test_the_rebuilt_best_is_what_the_exchange_says_wherever_their_numbers_align(
    venue: str, aligned: int, real_data: Path
) -> None:
    """A quote that bears the number with which an update ends says the book as it was right after it: price and size, both sides."""
    stream = read_binance(real_data / f"orderbook/hftbacktest/{venue}_btcusdt_20240808.gz")
    book = rebuild(stream.updates, 1)
    _, ours, theirs = np.intersect1d(stream.updates.last_ids, stream.quotes.last_ids, return_indices=True)
    assert len(ours) == aligned
    np.testing.assert_array_equal(book.ticks[ours, :, 0], stream.quotes.ticks[theirs])
    np.testing.assert_array_equal(book.quantities[ours, :, 0], stream.quotes.quantities[theirs])
    assert (book.ticks[:, BID, 0] < book.ticks[:, ASK, 0]).all()


@pytest.mark.parametrize("venue", VENUES)
def test_a_line_that_is_lost_is_a_gap(venue: str, tape: Callable[[str], list[str]]) -> None:
    lines = tape(venue)[:4000]
    updates = [k for k, text in enumerate(lines) if "@depth" in text]
    lost, noticed = updates[150], updates[151]
    torn = lines[:lost] + lines[lost + 1 :]
    with pytest.raises(DataError, match=f"line {noticed}: goes on from update"):
        stream_of(torn)
    u = stream_of(torn, gaps="restart").updates
    assert u.last_ids[-1] == -1 and u.times[-1] == int(lines[noticed].split(" ", 1)[0])  # no later snapshot: void to the end
    frame = book_panel(stream_of(torn, gaps="restart"), "BTCUSDT", 100).frame
    mids = np.isfinite(frame["book_mid"].to_numpy())
    assert mids[0] and not mids[-1] and np.isfinite(frame["book_trades"].to_numpy()[-1])


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("t", [300, 1500, 2900])
def test_lines_after_t_change_nothing_known_by_t(venue: str, t: int, tape: Callable[[str], list[str]]) -> None:
    """Cut after line t, or with what follows replaced by other prices and sizes: the same rows up to there, bit for bit."""
    lines = tape(venue)[:3000]
    tick = VENUES[venue][0]
    rng = np.random.default_rng(t)

    def noise(text: str) -> str:
        stamp, message = text.split(" ", 1)
        message = json.loads(message)
        data = message.get("data", {})
        for side in ("b", "a"):
            if isinstance(data.get(side), list):
                data[side] = [[f"{tick * int(rng.integers(500_000, 700_000)):.2f}", f"{rng.exponential():.3f}"] for _ in data[side]]
        if "p" in data:
            data |= {"q": f"{rng.exponential():.3f}", "m": bool(rng.random() < 0.5)}
        return f"{stamp} {json.dumps(message)}".replace('{"stream": "', '{"stream":"')

    changed = lines[:t] + [noise(text) for text in lines[t:]]
    full, cut, other = (book_panel(stream_of(x), "BTCUSDT", 100).frame for x in (lines, lines[:t], changed))
    assert 0 < cut.height < full.height
    assert cut.equals(full.head(cut.height)) and cut.equals(other.head(cut.height)) and not full.equals(other)
