"""One new bar of 30 symbols through core_31, against computing the window it needs again: `python -m benchmarks.streaming`."""

from __future__ import annotations

import numpy as np
import polars as pl

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.features.core_31 import CORE_31
from rlaif_ray.features.streaming import CoreStream

SYMBOLS = 30
SPECS = tuple(s for f in CORE_31.families for s in f.specs())
WINDOW = 1 + max(s.look_back_bars for s in SPECS)
PEER = f"core_31 over the last {WINDOW} bars of each"


def rows(quick: bool) -> list[Row]:
    """Bars of all symbols per second, from prices to 31 columns, the state kept."""
    history, new = 400, 20 if quick else 200
    source = SyntheticSource(SYMBOLS + 10, history + new, seed=1)
    read = (source.read(s)["bars"] for s in source.symbols())
    frames = [f for f in read if f.height == history + new and f["close"].null_count() == 0][:SYMBOLS]
    names = [f["symbol"][0] for f in frames]
    bars = np.stack([f.select(PRICE_COLUMNS).to_numpy() for f in frames], axis=1)  # (T,N,5)
    times = np.stack([f["timestamp"].dt.replace_time_zone(None).to_numpy() for f in frames], axis=1)
    splits, dividends = (np.stack([f[c].to_numpy() for f in frames], axis=1) for c in ("split", "dividend"))
    warm = Panel.of(pl.concat([f.head(history) for f in frames]))
    whole = [CORE_31.apply({"bars": f}, SPECS).frame.select(s.name for s in SPECS).to_numpy() for f in frames]

    def stream(start: CoreStream) -> np.ndarray:
        return np.stack([start.push(bars[t], times[t], splits[t], dividends[t]) for t in range(history, history + new)])

    said = stream(CoreStream.warm(warm))
    assert np.array_equal(said, np.stack([w[history:] for w in whole], axis=1), equal_nan=True), "the stream says something else"
    starts = iter([CoreStream.warm(warm) for _ in range(7)])
    windows = [[f.slice(t + 1 - WINDOW, WINDOW) for f in frames] for t in range(history, history + 5)]

    def again() -> list[Panel]:
        return [CORE_31.apply({"bars": window}, SPECS) for at in windows for window in at]

    seconds, peer_seconds = in_turn(lambda: stream(next(starts)), again)
    ours, theirs = seconds / new, peer_seconds / len(windows)
    note = (
        f"{len(names)} symbols, {1e3 * ours:.3f} ms a bar against {1e3 * theirs:.1f} ms; equal to the whole history to the bit, which the "
        f"window alone is not: what is recursive begins anew in it."
    )
    return [Row("one new bar, core_31", 1.0 / ours, PEER, 1.0 / theirs, theirs / ours, "bars of all/s", 20.0, note)]


if __name__ == "__main__":
    main(rows)
