"""Features against the libraries that FinRL and many notebooks use: `python -m benchmarks.features`.

The peers, stockstats and ta, are used where they are installed (`pip install stockstats ta`); else their rows say "not run".
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.rows import Row, in_turn, main, own_time
from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.features import technical
from rlaif_ray.features.catalog import TECHNICAL

FINRL = ["macd", "boll_ub", "boll_lb", "rsi_30", "cci_30", "dx_30", "close_30_sma", "close_60_sma"]
OURS = ["macd", "bollinger_width_20", "sma_distance_20", "rsi_30", "cci_30", "dx_30", "sma_distance_30", "sma_distance_60"]
WARM = 1000  # rows after which the peers' other ways to start an average are forgotten


def rows(quick: bool) -> list[Row]:
    """Rows per second: FinRL's eight indicators on 30 symbols, and everything that each library has on one."""
    return [_eight(5 if quick else 30, 3000), _wide(2000 if quick else 5000)]


def _eight(symbols: int, bars: int) -> Row:
    name, peer_name = f"8 FinRL indicators, {symbols} x {bars:,} bars", "stockstats, one symbol at a time"
    panels, frames = _market(symbols, bars)

    def ours() -> list[Panel]:
        return [technical.apply(p, OURS) for p in panels]

    if not importlib.util.find_spec("stockstats"):
        return Row.not_run(name, symbols * bars / own_time(ours), peer_name, "rows/s", None)
    retype: Any = importlib.import_module("stockstats").StockDataFrame.retype

    def peer() -> list[pd.DataFrame]:
        return [pd.DataFrame(retype(f.copy())[FINRL]) for f in frames]

    apart = max(_apart_eight(f, p, q) for f, p, q in zip(frames, ours(), peer(), strict=True))
    assert apart <= 1e-6, f"ours and stockstats differ by {apart} of the value's size"
    note = f"Largest difference {apart:.0e} of each column's size, after {WARM:,} bars; stockstats' bands put on n instead of n - 1."
    seconds, peer_seconds = in_turn(ours, peer)
    work = symbols * bars
    return Row(name, work / seconds, peer_name, work / peer_seconds, peer_seconds / seconds, "rows/s", None, note)


def _wide(bars: int) -> Row:
    name, peer_name = f"everything, 1 x {bars:,} bars", "ta, add_all_ta_features"
    panels, frames = _market(1, bars)

    def ours() -> Panel:
        return technical.apply(panels[0])

    if not importlib.util.find_spec("ta"):
        return Row.not_run(name, bars * len(TECHNICAL) / own_time(ours), peer_name, "cells/s", None)
    ta = importlib.import_module("ta")

    def peer() -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about ta's chained assignments
            return ta.add_all_ta_features(frames[0].copy(), *PRICE_COLUMNS)

    theirs, mine = peer(), ours().frame
    pairs = {"rsi_14": "momentum_rsi", "williams_r_14": "momentum_wr", "aroon_up_25": "trend_aroon_up", "ultimate_7_14_28": "momentum_uo"}
    apart = max(_apart(mine[a].to_numpy(), theirs[b].to_numpy()) for a, b in pairs.items())
    assert apart <= 1e-6, f"ours and ta differ by {apart} of the value's size"
    columns = len(theirs.columns) - len(frames[0].columns)
    seconds, peer_seconds = in_turn(ours, peer)
    compared = f"Largest difference of {', '.join(pairs)}: {apart:.0e} of the column's size."
    note = f"{len(TECHNICAL)} columns of ours, {columns} of theirs. {compared}"
    cells, peer_cells = bars * len(TECHNICAL) / seconds, bars * columns / peer_seconds
    return Row(name, cells, peer_name, peer_cells, cells / peer_cells, "cells/s", None, note)


def _apart_eight(frame: pd.DataFrame, ours: Panel, peer: pd.DataFrame) -> float:
    """The largest difference of our scale-free columns, turned back into prices, over the size of each of stockstats'."""
    close, x = frame["close"].to_numpy(), {n: ours.frame[n].to_numpy().astype(float) for n in OURS}
    middle = close / (1 + x["sma_distance_20"])
    band = middle * x["bollinger_width_20"] / 2 * np.sqrt(20 / 19)
    back = [
        x["macd"] * close, middle + band, middle - band, x["rsi_30"], x["cci_30"], x["dx_30"],
        close / (1 + x["sma_distance_30"]), close / (1 + x["sma_distance_60"]),
    ]  # fmt: skip
    return max(_apart(a, peer[n].to_numpy()) for a, n in zip(back, FINRL, strict=True))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a[WARM:] - b[WARM:]).max() / np.abs(b[WARM:]).max())


def _market(symbols: int, bars: int) -> tuple[list[Panel], list[pd.DataFrame]]:
    """Synthetic bars without events and halts, which no peer knows of."""
    source = SyntheticSource(max(symbols, 2) + 1, bars, seed=1)
    panels = []
    for symbol in source.symbols()[:symbols]:
        frame = source.read(symbol)["bars"]
        adjusted, _ = technical.adjusted(Panel.of(frame))
        columns = {n: getattr(adjusted, n) for n in PRICE_COLUMNS}
        noise = np.random.default_rng(0).uniform(1.0, 1.001, frame.height)  # a halted bar gets a range and a volume
        columns |= {"high": columns["high"] * noise, "low": columns["low"] / noise, "volume": columns["volume"] + 1.0}
        frame = frame.with_columns(pl.Series(n, x) for n, x in columns.items())
        panels.append(Panel.of(frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))))
    return panels, [p.frame.select(PRICE_COLUMNS).to_pandas() for p in panels]


if __name__ == "__main__":
    main(rows)
