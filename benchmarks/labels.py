"""Labels and their weights against mlfinpy, which has the book's own snippets: `python -m benchmarks.labels`.

mlfinpy runs in an environment of its own (`python -m benchmarks.peers` makes it); without it its rows say "not run".
"""

from __future__ import annotations

import numpy as np

from benchmarks.peers import Peer, in_turn_with, interpreter
from benchmarks.rows import Row, main, own_time
from rlaif_ray.barriers import EventLabels, cusum_events, triple_barrier
from rlaif_ray.features.rolling import ewma_volatility
from rlaif_ray.sample_weights import average_uniqueness

HOLD = 120  # 5-minute bars until the vertical barrier: ten hours


def rows(quick: bool) -> list[Row]:
    """First touches of CUSUM events on 5-minute bars, and the average uniqueness of their labels."""
    bars = 20_000 if quick else 100_000
    return [_triple_barrier(bars), _uniqueness(bars)]


def _triple_barrier(bars: int) -> Row:
    close, events, target, vertical, side = _events(bars)
    name, peer_name, unit, work = f"triple barrier, {bars:,} 5-minute bars", "mlfinpy, get_events", "events/s", len(events)

    def ours() -> EventLabels:
        return triple_barrier(close, events, target, take=2.0, stop=1.5, vertical=vertical, side=side)

    if not interpreter("mlfinpy").exists():
        return Row.not_run(name, work / own_time(ours), peer_name, unit, 500)
    inputs = {"close": close, "events": events, "target": target, "vertical": vertical, "side": side, "take": 2.0, "stop": 1.5}
    with Peer("mlfinpy", "triple_barrier", **inputs) as peer:
        peer.seconds()
        found = ours()
        assert np.array_equal(found.start, peer.found("start")) and np.array_equal(found.end, peer.found("end")), "touches differ"
        seconds, peer_seconds = in_turn_with(ours, peer)
    touched = [f"{np.mean(found.label == label):.0%} {what}" for label, what in ((1, "take"), (-1, "stop"), (0, "vertical"))]
    note = f"{work:,} CUSUM events; the row of every first touch is the same ({', '.join(touched)})."
    return Row(name, work / seconds, peer_name, work / peer_seconds, peer_seconds / seconds, unit, 500, note)


def _uniqueness(bars: int) -> Row:
    close, events, target, vertical, side = _events(bars)
    labels = triple_barrier(close, events, target, take=2.0, stop=1.5, vertical=vertical, side=side)
    name, peer_name, unit, work = f"average uniqueness, {bars:,} 5-minute bars", "mlfinpy", "labels/s", len(labels.start)

    def ours() -> np.ndarray:
        return average_uniqueness(labels.start, labels.end, bars)

    if not interpreter("mlfinpy").exists():
        return Row.not_run(name, work / own_time(ours), peer_name, unit, 100)
    with Peer("mlfinpy", "uniqueness", close=close, start=labels.start, end=labels.end) as peer:
        peer.seconds()
        apart = np.abs(ours() - peer.found("uniqueness")).max()
        assert apart < 1e-12, f"uniqueness differs by {apart}"
        seconds, peer_seconds = in_turn_with(ours, peer)
    note = f"{work:,} labels, {np.mean(labels.end - labels.start):.0f} bars long at the mean; largest difference {apart:.0e}."
    return Row(name, work / seconds, peer_name, work / peer_seconds, peer_seconds / seconds, unit, 100, note)


def _events(bars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Closes (T,); of each CUSUM event (E,): row, volatility over an hour, row of the vertical barrier, side."""
    rng = np.random.default_rng(0)
    returns = rng.standard_t(4, bars) * 0.0007
    close, volatility = 100 * np.exp(np.cumsum(returns)), ewma_volatility(returns, 0.98, 100)
    events = cusum_events(close, 0.004)
    events = events[(events >= 100) & (events + HOLD < bars)]
    return close, events, volatility[events] * np.sqrt(12), events + HOLD, rng.choice([-1.0, 1.0], len(events))


if __name__ == "__main__":
    main(rows)
