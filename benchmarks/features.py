"""Features against the libraries that others use, alone and as FinRL uses them: `python -m benchmarks.features`.

stockstats, ta and KunQuant run in environments of their own (`python -m benchmarks.peers` makes them); without them their
rows say "not run". Ours goes from a Panel of bars to a Panel of columns, one symbol at a time: events, halts and late bars
are seen to, and each column is checked and kept in float32. The peers go from arrays or frames to their like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from shutil import which

import numpy as np
import polars as pl
import talib

from benchmarks.peer_work import FACTORS, FINRL
from benchmarks.peers import Peer, in_turn_with, interpreter
from benchmarks.rows import Row, in_turn, main, own_time
from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.features.catalog import Catalog
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.series import adjusted
from rlaif_ray.features.technical import TECHNICAL

CATALOG, WITH_FINRL = Catalog(("technical",)), Catalog(("technical",), {"sma": ((30,), (60,))})
LIKE_FINRL = ("macd_level", "bollinger_upper_20", "bollinger_lower_20", "rsi_30", "cci_30", "dx_30", "sma_30", "sma_60")
LIKE_TA = {"rsi_14": "momentum_rsi", "williams_r_14": "momentum_wr", "aroon_up_25": "trend_aroon_up", "ultimate_7_14_28": "momentum_uo"}
BARS = 3000
TIMES = 10  # that ours runs in a turn of seconds, so that both are timed with warm caches
WARM = 1000  # rows after which the peers' other ways to start an average are forgotten


def rows(quick: bool) -> list[Row]:
    """FinRL's eight indicators by four routes, everything that each library has, and what a compiled engine has too."""
    symbols = 5 if quick else 30
    return [
        _eight_bare(symbols),
        _eight(symbols, "FinRL's own route", "finrl", 100),
        _eight(symbols, "stockstats, one symbol at a time", "stockstats", 12),
        _wide(2000 if quick else 5000),
        _compiled(8 if quick else 32, running=True, target=0.5),
        _compiled(8 if quick else 32, running=False, target=None),
    ]


def _eight_bare(symbols: int) -> Row:
    panels, prices = _market(symbols, BARS)
    specs, size = [WITH_FINRL.spec(n) for n in LIKE_FINRL], symbols * BARS

    def peer() -> list[list[np.ndarray]]:
        return [_talib(*bars) for bars in zip(prices["high"], prices["low"], prices["close"], strict=True)]

    ours = _of(panels, specs)
    apart = _furthest((a, b) for mine, theirs in zip(ours(), peer(), strict=True) for a, b in zip(_columns(mine), theirs, strict=True))
    seconds, peer_seconds = in_turn(ours, peer)
    alone, peer_again = in_turn(_formulas(panels, specs), peer)
    note = f"Largest difference {apart:.0e} of each column's size. Our formulas alone, from arrays to arrays: {peer_again / alone:.2f}."
    return Row(_name(symbols), size / seconds, "TA-Lib, a bare loop", size / peer_seconds, peer_seconds / seconds, "rows/s", 0.6, note)


def _eight(symbols: int, peer_name: str, work: str, target: float) -> Row:
    panels, prices = _market(symbols, BARS)
    ours, size = _of(panels, [WITH_FINRL.spec(n) for n in LIKE_FINRL]), symbols * BARS

    def often() -> None:
        for _ in range(TIMES):
            ours()

    if not interpreter("stockstats").exists():
        return Row.not_run(_name(symbols), size / own_time(ours), peer_name, "rows/s", target)
    with Peer("stockstats", work, **prices) as peer:
        peer.seconds()
        theirs = np.stack([peer.found(n) for n in FINRL], axis=1)  # (A,8,T)
        apart = _furthest((a, b) for mine, eight in zip(ours(), theirs, strict=True) for a, b in zip(_unbiased(mine), eight, strict=True))
        seconds, peer_seconds = in_turn_with(often, peer)
        seconds /= TIMES
    note = f"Largest difference {apart:.0e} of each column's size, after {WARM:,} bars; our bands put on n - 1 instead of n, as theirs are."
    return Row(_name(symbols), size / seconds, peer_name, size / peer_seconds, peer_seconds / seconds, "rows/s", target, note)


def _wide(bars: int) -> Row:
    panels, prices = _market(1, bars)
    specs = CATALOG.specs("technical")
    ours, cells, name, peer_name = _of(panels, specs), bars * len(specs), f"everything, 1 x {bars:,} bars", "ta, add_all_ta_features"
    if not interpreter("ta").exists():
        return Row.not_run(name, cells / own_time(ours), peer_name, "cells/s", 50)
    with Peer("ta", "ta", **prices) as peer:
        peer.seconds()
        mine, columns = ours()[0].frame, int(peer.found("count"))
        apart = _furthest((mine[a].to_numpy(), peer.found(b)) for a, b in LIKE_TA.items())
        seconds, peer_seconds = in_turn_with(ours, peer)
    compared = f"Largest difference of {', '.join(LIKE_TA)}: {apart:.0e} of the column's size."
    note = f"{len(specs)} columns of ours, {columns} of theirs. {compared}"
    speed, peer_speed = cells / seconds, bars * columns / peer_seconds
    return Row(name, speed, peer_name, peer_speed, speed / peer_speed, "cells/s", 50, note)


def _compiled(symbols: int, running: bool, target: float | None) -> Row:
    panels, prices = _market(symbols, BARS)
    specs = [CATALOG.spec(n) for n in FACTORS]
    ours, cells, name = _of(panels, specs), symbols * BARS * len(specs), f"{len(specs)} factors, {symbols} x {BARS:,} bars"
    peer_name = f"KunQuant, {'running sums' if running else 'each window afresh'}"
    if not (interpreter("kunquant").exists() and which("g++")):  # it compiles what it runs
        return Row.not_run(name, cells / own_time(ours), peer_name, "cells/s", target)
    with Peer("kunquant", "kunquant", running=running, **prices) as peer:
        peer.seconds()
        mine = ours()
        apart = max(_furthest(zip((p.frame[n].to_numpy() for p in mine), peer.found(n), strict=True)) for n in FACTORS)
        seconds, peer_seconds = in_turn_with(ours, peer)
        alone, peer_again = in_turn_with(_formulas(panels, specs), peer)
    note = (
        f"Largest difference {apart:.0e} of each column's size, after {WARM:,} bars. Theirs: doubles, symbols side by side, from "
        f"arrays in its own layout to arrays, compiled before; ours sum afresh. Our formulas alone: {peer_again / alone:.2f}."
    )
    return Row(name, cells / seconds, peer_name, cells / peer_seconds, peer_seconds / seconds, "cells/s", target, note)


def _of(panels: Sequence[Panel], specs: Sequence[FeatureSpec]) -> Callable[[], list[Panel]]:
    return lambda: [TECHNICAL.apply({"bars": p.frame}, specs) for p in panels]


def _formulas(panels: Sequence[Panel], specs: Sequence[FeatureSpec]) -> Callable[[], list[list[np.ndarray]]]:
    """The formulas alone, on arrays that are already there."""
    series = [adjusted(p)[0] for p in panels]

    def work() -> list[list[np.ndarray]]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return [[spec.of(fresh) for spec in specs] for fresh in map(replace, series)]  # nothing shared from the run before

    return work


def _talib(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> list[np.ndarray]:
    """FinRL's indicators of one symbol, in the order of `FINRL`."""
    macd, _, _ = talib.MACD(close, 12, 26, 9)
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    rsi, cci, dx = talib.RSI(close, 30), talib.CCI(high, low, close, 30), talib.DX(high, low, close, 30)
    return [macd, upper, lower, rsi, cci, dx, talib.SMA(close, 30), talib.SMA(close, 60)]


def _columns(ours: Panel) -> list[np.ndarray]:
    """FinRL's indicators as ours are, in the order of `FINRL`."""
    return [ours.frame[n].to_numpy().astype(float) for n in LIKE_FINRL]


def _unbiased(ours: Panel) -> list[np.ndarray]:
    """The same with Bollinger's bands on standard deviations of n - 1, as stockstats has them."""
    macd, upper, lower, *others = _columns(ours)
    middle, band = (upper + lower) / 2, (upper - lower) / 2 * np.sqrt(20 / 19)
    return [macd, middle + band, middle - band, *others]


def _furthest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest difference of a pair of columns (T,), over the second's size, once both are warm; what differs is not timed."""
    apart = max(float(np.abs(a[WARM:] - b[WARM:]).max() / np.abs(b[WARM:]).max()) for a, b in pairs)
    assert apart <= 1e-6, f"ours and the peer differ by {apart} of the value's size"
    return apart


def _name(symbols: int) -> str:
    return f"8 FinRL indicators, {symbols} x {BARS:,} bars"


def _market(symbols: int, bars: int) -> tuple[list[Panel], Mapping[str, np.ndarray]]:
    """Synthetic bars without events and halts, which no peer knows of; as panels, and as arrays (A,T)."""
    source = SyntheticSource(max(symbols, 2) + 1, bars, seed=1)
    panels = []
    for symbol in source.symbols()[:symbols]:
        frame = source.read(symbol)["bars"]
        series, _ = adjusted(Panel.of(frame))
        columns = {n: getattr(series, n) for n in PRICE_COLUMNS}
        noise = np.random.default_rng(0).uniform(1.0, 1.001, frame.height)  # a halted bar gets a range and a volume
        columns |= {"high": columns["high"] * noise, "low": columns["low"] / noise, "volume": columns["volume"] + 1.0}
        frame = frame.with_columns(pl.Series(n, x) for n, x in columns.items())
        panels.append(Panel.of(frame.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0))))
    return panels, {n: np.stack([p.frame[n].to_numpy() for p in panels]) for n in PRICE_COLUMNS}


if __name__ == "__main__":
    main(rows)
