"""The order book: the same as a dict and a sort after every message; columns by hand on a grid; nothing from after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.features.family import OF_SCALE
from rlaif_ray.features.order_book import ASK, BID, ORDER_BOOK, BookStream, BookUpdates, Quotes, Trades, book_panel, rebuild, sample

SPECS = tuple(s for f in ORDER_BOOK.families for s in f.specs())
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND  # a whole number of seconds

Level = tuple[int, int, float]  # side, tick, quantity
Message = tuple[int, bool, list[Level]]  # time, clears, levels


def updates_of(messages: list[Message]) -> BookUpdates:
    levels = [level for *_, own in messages for level in own]
    side, tick, quantity = zip(*levels, strict=True) if levels else ((), (), ())
    return BookUpdates(
        np.array([time for time, *_ in messages], np.int64), np.full(len(messages), -1), np.arange(len(messages)),
        np.array([clears for _, clears, _ in messages], bool), np.cumsum([0, *(len(own) for *_, own in messages)]),
        np.array(side, np.int8), np.array(tick, np.int64), np.array(quantity, float),
    )  # fmt: skip


def stream_of(messages: list[Message], trades: list[tuple[int, float, int]] = [], seconds: float = 4.0, tick: float = 0.5) -> BookStream:  # noqa: B006
    """Trades: time, quantity, sign. Heard for some seconds from START on."""
    times, quantities, signs = zip(*trades, strict=True) if trades else ((), (), ())
    none = np.empty(0, np.int64)
    heard = Trades(np.array(times, np.int64), np.full(len(times), -1), np.full(len(times), 200), np.array(quantities, float),
                   np.array(signs, np.int8))  # fmt: skip
    return BookStream(tick, updates_of(messages), heard, Quotes(none, none, none, none), START + round(seconds * SECOND))


def plain_books(messages: list[Message]) -> list[list[list[tuple[int, float]]]]:
    """After every message, bids and asks from best to worst: dicts, sorted."""
    books: list[dict[int, float]] = [{}, {}]
    after = []
    for _, clears, levels in messages:
        if clears:
            books = [{}, {}]
        for side, tick, quantity in levels:
            if quantity > 0:
                books[side][tick] = quantity
            else:
                books[side].pop(tick, None)
        after.append([sorted(books[BID].items(), reverse=True), sorted(books[ASK].items())])
    return after


def random_messages(rng: np.random.Generator, count: int, crossing: bool = False) -> list[Message]:
    """Levels set and taken away anywhere, the best among them, as the middle moves; prices that come again; snapshots, gaps.

    Not `crossing`: what the middle has passed is taken away in the same message.
    """
    messages: list[Message] = []
    time, standing = START, set()
    for m in range(count):
        time += int(rng.exponential(0.05 * SECOND))
        clears = m == 0 or rng.random() < 0.01
        standing = set() if clears else standing
        middle = int(50 + 20 * np.sin(m / 50))
        passed = [] if crossing else sorted((side, t) for side, t in standing if (t > middle if side == BID else t <= middle))
        levels = [(side, t, 0.0) for side, t in passed]
        for _ in range(60 if clears and rng.random() < 0.7 else int(rng.integers(0, 12))):
            side, far = int(rng.integers(2)), int(rng.exponential(10))
            tick = max(1, middle - far) if side == BID else middle + 1 + far
            levels.append((side, tick, float(np.round(rng.exponential(2.0), 3)) if rng.random() < 0.7 else 0.0))
        standing = (standing | {(s, t) for s, t, q in levels if q > 0}) - {(s, t) for s, t, q in levels if q == 0}
        messages.append((time, clears, levels))
    return messages


def column(stream: BookStream, name: str, every_ms: int = 1000) -> np.ndarray:
    return book_panel(stream, "B", every_ms).frame[name].to_numpy()


# --- the book --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_same_book_after_every_message_as_dicts_and_a_sort(seed: int) -> None:
    messages = random_messages(np.random.default_rng(seed), 1500, crossing=seed % 2 == 1)
    expected = plain_books(messages)
    deepest = max(len(side) for book in expected for side in book)
    for depth in (1, 3, deepest):
        found = rebuild(updates_of(messages), depth)
        for m, book in enumerate(expected):
            for side in (BID, ASK):
                there = found.quantities[m, side] > 0
                shown = list(zip(found.ticks[m, side][there].tolist(), found.quantities[m, side][there].tolist(), strict=True))
                assert shown == book[side][:depth]
                assert not found.ticks[m, side][~there].any()
    assert deepest > 10 and any(not book[BID] or not book[ASK] for book in expected)  # sides were empty, too


def test_an_update_by_hand() -> None:
    """Best bid taken away, a better ask put in, a price that is not there removed: as on the exchange's page."""
    book = rebuild(updates_of([
        (START, True, [(BID, 100, 1.0), (BID, 99, 2.0), (ASK, 102, 3.0)]),
        (START, False, [(BID, 100, 0.0), (ASK, 101, 0.5), (BID, 50, 0.0)]),
        (START, True, []),
    ]), 2)  # fmt: skip
    assert book.ticks.tolist() == [[[100, 99], [102, 0]], [[99, 0], [101, 102]], [[0, 0], [0, 0]]]
    assert book.quantities.tolist() == [[[1.0, 2.0], [3.0, 0.0]], [[2.0, 0.0], [0.5, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]


# --- columns by hand -------------------------------------------------------------------------------------------------

DAY = [
    (START + 1, True, [(BID, 199, 3.0), (BID, 198, 5.0), (ASK, 201, 1.0), (ASK, 203, 7.0)]),
    (START + SECOND + 1, False, [(BID, 199, 4.0)]),  # one more is bid for
    (START + 2 * SECOND, False, [(ASK, 200, 2.0)]),  # at the very end of the second cell: a better offer of 2
    (START + 3 * SECOND, False, [(ASK, 200, 0.0), (ASK, 201, 0.0), (BID, 199, 1.0)]),  # both offers go, 3 of the bids too
]  # fmt: skip
TRADES = [(START + 2, 9.0, 1), (START + SECOND, 9.0, 1), (START + SECOND + 1, 2.0, 1), (START + 2 * SECOND, 1.0, -1)]


def test_levels_by_hand() -> None:
    """Bids 99.5 x 3, 99 x 5; asks 100.5 x 1, 101.5 x 7; a tick is 0.5."""
    first = book_panel(stream_of(DAY), "B").frame.row(0, named=True)
    expected = {
        "book_spread_ticks": 2.0, "book_spread_bps": 100.0, "book_mid": 100.0, "book_microprice": (99.5 * 1 + 100.5 * 3) / 4,
        "book_microprice_bps": 25.0, "book_bid_depth_1": 3.0, "book_ask_depth_1": 1.0, "book_imbalance_1": 0.5,
    }  # fmt: skip
    assert {n: first[n] for n in expected} == pytest.approx(expected, rel=1e-6)
    assert np.isnan(first["book_bid_depth_5"]) and np.isnan(first["book_imbalance_5"])  # the book is two levels deep
    two = sample(stream_of(DAY), 1000, 2)
    assert two.depth[0].tolist() == [[3.0, 8.0], [1.0, 8.0]]


def test_flow_by_hand() -> None:
    """Cont, Kukanov and Stoikov (2014): +1 as the bid grows by 1; -2 as an offer of 2 undercuts; then, the ask back from 200 to
    203, +2 that are gone, and -3 of bids: -1. Depth: (3+1, 4+1, 4+2)/2 are 2, 2.5 and 3 in the second cell, on average 2.5; (4+2,
    1+7)/2 are 3 and 4 in the third."""
    stream = stream_of(DAY)
    np.testing.assert_array_equal(column(stream, "book_ofi_shares_1"), [np.nan, 1.0 - 2.0, 2.0 - 3.0, 0.0])
    np.testing.assert_allclose(column(stream, "book_ofi_1"), [np.nan, -1 / 2.5, -1 / 3.5, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(column(stream, "book_messages"), [np.nan, 2.0, 1.0, 0.0])
    second = sample(stream, 1000, 2).flow[:, 1]  # 198 x 5 stays; 203 x 7, then 201 x 1: -1 in cell two; then no second ask
    np.testing.assert_array_equal(second, [np.nan, -1.0, np.nan, np.nan])


def test_returns_and_variance_of_the_mid_by_hand() -> None:
    """100 (ticks 199, 201), 100, 99.75 (199, 200), 100.5 (199, 203)."""
    moves = np.log([99.75 / 100.0, 100.5 / 99.75])
    np.testing.assert_allclose(column(stream_of(DAY), "book_return"), [np.nan, *moves, 0.0], rtol=1e-5)
    np.testing.assert_allclose(column(stream_of(DAY), "book_variance"), [np.nan, *moves**2, 0.0], rtol=1e-5)
    there_and_back = [DAY[0], (START + SECOND + 1, False, [(ASK, 200, 2.0)]), (START + SECOND + 2, False, [(ASK, 200, 0.0)])]
    np.testing.assert_allclose(column(stream_of(there_and_back), "book_variance")[1], 2 * moves[0] ** 2, rtol=1e-5)


def test_trades_by_hand_belong_to_the_cell_that_ends_with_them() -> None:
    """The first cell was not watched from its start; the second bought 2 and, at its very end, sold 1."""
    stream = stream_of(DAY, TRADES)
    np.testing.assert_array_equal(column(stream, "book_trades"), [np.nan, 2.0, 0.0, 0.0])
    np.testing.assert_array_equal(column(stream, "book_volume"), [np.nan, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(column(stream, "book_trade_imbalance"), [np.nan, 1 / 3, np.nan, np.nan], rtol=1e-6)


def test_slope_equals_a_regression_by_numpy() -> None:
    rng = np.random.default_rng(7)
    bids, asks = 1000 - np.cumsum(rng.integers(1, 4, 5)), 1000 + np.cumsum(rng.integers(1, 4, 5))
    sizes = rng.uniform(1, 5, (2, 5))
    levels = [(side, int(t), float(q)) for side, ticks in ((BID, bids), (ASK, asks)) for t, q in zip(ticks, sizes[side], strict=True)]
    mid = (bids[0] + asks[0]) / 2
    slopes = [np.polyfit(1e4 * np.abs(t / mid - 1), np.cumsum(q) / q.sum(), 1)[0] for t, q in zip((bids, asks), sizes, strict=True)]
    np.testing.assert_allclose(column(stream_of([(START + 1, True, levels)]), "book_slope_5")[0], np.mean(slopes), rtol=1e-5)


def test_a_quiet_cell_keeps_the_book_and_has_no_flow() -> None:
    frame = book_panel(stream_of(DAY[:1], seconds=3.0), "B").frame
    assert frame["book_mid"].to_list() == [100.0] * 3
    assert frame["book_ofi_1"].to_list()[1:] == [0.0, 0.0] and frame["book_variance"].to_list()[1:] == [0.0, 0.0]


# --- grid and time ---------------------------------------------------------------------------------------------------


def test_the_grid_lies_on_whole_steps_and_ends_with_the_stream() -> None:
    frame = book_panel(stream_of(DAY, seconds=3.6), "B", 500).frame
    micros = frame["timestamp"].dt.epoch("us").to_numpy()
    np.testing.assert_array_equal(micros, START // 1000 + 500_000 * np.arange(1, 8))
    assert frame["known_at"].equals(frame["timestamp"].alias("known_at")) and frame["symbol"].unique().to_list() == ["B"]


def test_a_message_one_nanosecond_after_the_end_belongs_to_the_next_cell() -> None:
    late = [DAY[0], (START + 2 * SECOND + 1, False, [(BID, 200, 1.0)])]
    assert column(stream_of(late), "book_mid").tolist() == [100.0, 100.0, 100.25, 100.25]


@pytest.mark.parametrize("seed", range(3))
def test_messages_after_the_end_of_a_cell_change_nothing_in_it(seed: int) -> None:
    """Cut the stream at t, or go on with other messages and trades: every row known by t is the same, bit for bit."""
    rng = np.random.default_rng(seed)
    messages, others = random_messages(rng, 400), random_messages(np.random.default_rng(99), 400)
    trades = [(START + int(x * SECOND), float(rng.exponential()), int(rng.choice([-1, 1]))) for x in np.sort(rng.uniform(0, 25, 200))]
    full = book_panel(stream_of(messages, trades, 25.0), "B", 250).frame
    assert all(np.isfinite(full[s.name].to_numpy()).sum() > 10 for s in SPECS)
    for after in (0.3, 1.0, 7.77, 18.25):
        t = START + round(after * SECOND)
        heard = [m for m in messages if m[0] <= t], [x for x in trades if x[0] <= t]
        cut = book_panel(stream_of(*heard, after), "B", 250).frame
        noise = [m for m in others if m[0] > t], [(x[0], 5.0, 1) for x in trades if x[0] > t]
        changed = book_panel(stream_of(heard[0] + noise[0], heard[1] + noise[1], 25.0), "B", 250).frame
        assert cut.height == int(after * 4)
        assert cut.equals(full.head(cut.height)) and cut.equals(changed.head(cut.height))
        assert not full.equals(changed)


# --- what says nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((True, []), id="gap"),
        pytest.param((False, [(BID, 199, 0.0), (BID, 198, 0.0)]), id="no bids"),
        pytest.param((False, [(BID, 201, 1.0)]), id="locked"),
        pytest.param((False, [(BID, 205, 1.0)]), id="crossed"),
    ],
)
def test_an_empty_or_crossed_book_says_nothing_and_its_flow_neither_until_a_cell_is_whole(broken: tuple[bool, list[Level]]) -> None:
    whole = DAY[0][2]
    stream = stream_of([DAY[0], (START + SECOND + 1, *broken), (START + 2 * SECOND + 1, True, whole)], TRADES)
    assert np.isfinite(column(stream, "book_mid")).tolist() == [True, False, True, True]
    for name in ("book_ofi_1", "book_variance", "book_return"):
        assert np.isfinite(column(stream, name)).tolist() == [False, False, False, True]
    assert column(stream, "book_trades")[1] == 2.0  # trades are no part of the book


def test_look_back_is_exact_on_a_deep_book() -> None:
    deep = [(side, 1000 + (k + 1) * (1 if side == ASK else -1), 1.0 + k) for side in (BID, ASK) for k in range(10)]
    stream = stream_of([(START + 1, True, deep)], [(START + s * SECOND + 5, 1.0, 1) for s in range(4)])
    frame = book_panel(stream, "B").frame
    for s in SPECS:
        assert np.isfinite(frame[s.name].to_numpy()).tolist() == [row >= s.look_back_bars for row in range(4)], s.name


def test_only_what_says_so_is_of_scale() -> None:
    """Ten times the tick and the quantities."""
    messages = random_messages(np.random.default_rng(1), 300)
    stream = stream_of(messages, TRADES, 12.0)
    large = replace(
        stream, tick_size=5.0, updates=replace(stream.updates, quantities=10 * stream.updates.quantities),
        trades=replace(stream.trades, quantities=10 * stream.trades.quantities),
    )  # fmt: skip
    a, b = book_panel(stream, "B").frame, book_panel(large, "B").frame
    for s in SPECS:
        x = a[s.name].to_numpy()
        assert np.isfinite(x).any(), s.name
        np.testing.assert_allclose(b[s.name].to_numpy(), x * (10.0 if s.unit in OF_SCALE else 1.0), rtol=1e-5, atol=1e-6, err_msg=s.name)


def test_names_and_depths_that_are_asked_for() -> None:
    names = [s.name for s in SPECS]
    assert len(set(names)) == len(names) == 28 and all(n.startswith("book_") for n in names)
    (wanted,) = next(f for f in ORDER_BOOK.families if f.key == "book_imbalance").specs([(2,)])
    panel = book_panel(stream_of(DAY), "B", specs=[wanted])
    assert panel.columns == ["book_imbalance_2"] and panel.frame["book_imbalance_2"][0] == 0.0


def test_no_messages_no_rows_and_no_grid_below_a_millisecond() -> None:
    assert book_panel(stream_of([]), "B").frame.height == 0
    assert book_panel(stream_of(DAY[:1], seconds=0.5), "B").frame.height == 0
    with pytest.raises(ConfigError, match="every_ms is 0"):
        book_panel(stream_of(DAY), "B", 0)
