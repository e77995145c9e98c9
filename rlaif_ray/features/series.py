"""One symbol's bars as arrays on one scale, and the features that are formulas over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import polars as pl
import talib
from numba import njit, types

from rlaif_ray.core import KEYS, PRICE_COLUMNS, Panel
from rlaif_ray.errors import DataError
from rlaif_ray.features.family import FeatureSpec, Tables

Made = TypeVar("Made")
SMA, EMA = talib.MA_Type.SMA, talib.MA_Type.EMA


@dataclass(frozen=True, eq=False)
class Series:
    """One symbol's adjusted bars as contiguous arrays (T,) float64, without gaps after the first close.

    Prices are total-return prices anchored at the symbol's first bar, so a later split or dividend changes no older value;
    volume is in shares of that first bar. Halted bars repeat the last price with volume 0. A column that the source does
    not have is all NaN; no formula that needs it is called. What several formulas share is computed once.
    """

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    ends: pl.Series  # (T,) bar ends
    days: pl.Series | None  # (T,) trading days

    @cached_property
    def times(self) -> np.ndarray:
        """(T,) datetime64[us]: bar ends, UTC."""
        return self.ends.to_numpy().copy()

    @cached_property
    def sessions(self) -> np.ndarray:
        """(T,) int64: the trading day that the bar belongs to, as a number that rises."""
        if self.days is None:  # without a calendar, the day that the bar's last microsecond is in
            return (self.times.view(np.int64) - 1) // np.int64(86_400_000_000)
        return self.days.to_numpy().astype(np.int64)

    @cached_property
    def _made(self) -> dict[tuple[Any, ...], Any]:
        return {}

    def shared(self, function: Callable[..., Made], *parameters: int | float) -> Made:
        """function(self, *parameters), computed once for all the formulas that ask for it with the same parameters."""
        key = (function, *parameters)
        if key not in self._made:
            self._made[key] = function(self, *parameters)
        return self._made[key]

    @cached_property
    def log_close(self) -> np.ndarray:
        return np.log(self.close)

    @cached_property
    def log_return(self) -> np.ndarray:
        return change(self.log_close, 1)

    @cached_property
    def log_volume(self) -> np.ndarray:
        """NaN where nothing was traded: a halt is no low volume."""
        return np.log(np.where(self.volume > 0, self.volume, np.nan))

    @cached_property
    def log_range(self) -> np.ndarray:
        """ln of high over low."""
        return np.log(self.high / self.low)

    @cached_property
    def log_body(self) -> np.ndarray:
        """ln of close over open."""
        return np.log(self.close / self.open)

    @cached_property
    def typical(self) -> np.ndarray:
        return (self.high + self.low + self.close) / 3.0


def change(x: np.ndarray, bars: int) -> np.ndarray:
    """(T,) x[t] - x[t - bars]; NaN for the first `bars`."""
    out = np.empty(len(x))
    out[:bars] = np.nan
    np.subtract(x[bars:], x[:-bars], out=out[bars:])
    return out


def before(x: np.ndarray, bars: int) -> np.ndarray:
    """(T,) x[t - bars]; NaN for the first `bars`."""
    out = np.empty(len(x))
    out[:bars] = np.nan
    out[bars:] = x[:-bars]
    return out


def of_bars(tables: Tables, specs: Sequence[FeatureSpec]) -> Panel:
    """Formulas over `Series`, of one symbol's cleaned bars.

    Parameters
    ----------
    tables : `bars` of ONE symbol: open, high, low, close, volume (null where the source has none), and `split`, `dividend`
        where prices are as traded.
    specs : features wanted; those whose columns the bars lack are left out.

    Returns
    -------
    Panel with the same rows and float32 columns; NaN during warm-up, where a formula is undefined (0/0 of a price that
    never moves), and where the symbol has no price (before it lists, once it is delisted). A row is known when its bar
    and all bars before it are: one that arrives late delays what follows from it.

    Raises `DataError` for several symbols, a price that is not positive, or an infinite one.
    """
    panel = Panel(tables["bars"])
    bars = panel.frame
    symbol = bars.get_column("symbol")
    if bars.height and symbol[0] != symbol[-1]:  # a Panel is sorted by symbol
        raise DataError(f"these features are computed one symbol at a time; seen {len(panel.symbols)}: {', '.join(panel.symbols)}")
    there = columns_of(bars)
    wanted = [s for s in specs if there.issuperset(s.inputs)]
    series, live = adjusted(panel)
    lives = len(series.close) > 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = {s.name: s.of(series) if lives else np.empty(0) for s in wanted}
    return on_rows(bars, columns, live)


def columns_of(bars: pl.DataFrame) -> set[str]:
    """The price columns that are not wholly empty."""
    there, rows = set(bars.columns), bars.height
    return {c for c in PRICE_COLUMNS if c in there and bars.get_column(c).null_count() < rows}


def on_rows(bars: pl.DataFrame, columns: Mapping[str, np.ndarray], live: np.ndarray | None = None) -> Panel:
    """A Panel on the rows of one symbol's bars: float32, NaN for what is not finite and off the live rows; `known_at` never falls."""
    symbol, timestamp, known_at = map(bars.get_column, KEYS)  # no expressions: one costs more than what it computes on one symbol
    if not known_at.is_sorted():
        known_at = known_at.cum_max()
    if live is not None and np.count_nonzero(live) == len(live):
        live = None
    stored = [_stored(x, live) for x in columns.values()]
    made = [pl.Series(name, x) for name, x in zip(columns, stored, strict=True)]
    return Panel(symbol.to_frame().hstack([timestamp, known_at, *made]))


def _stored(x: np.ndarray, live: np.ndarray | None) -> np.ndarray:
    """(rows,) float32 of x on the live rows, NaN elsewhere and for what is not finite; in memory of its own."""
    made = np.empty(len(x), np.float32)
    _without_infinity(np.ascontiguousarray(x, np.float64), made)
    if live is None:
        return made
    out = np.full(len(live), np.nan, np.float32)
    out[live] = made
    return out


@njit(types.void(types.Array(types.float64, 1, "C", readonly=True), types.float32[::1]), cache=True, nogil=True)
def _without_infinity(x: np.ndarray, out: np.ndarray) -> None:
    for t in range(x.size):
        value = np.float32(x[t])
        out[t] = np.float32(np.nan) if abs(value) == np.inf else value


def adjusted(panel: Panel) -> tuple[Series, np.ndarray]:
    """Forward-adjusted series over the live rows, and the mask (rows,) of those: from the first close until delisting.

    A null close between live rows is a halt: the last close stands for the whole bar and nothing is traded.
    """
    frame = panel.frame
    there = set(frame.columns)
    columns = [_values(frame.get_column(c), missing) if c in there else np.full(frame.height, missing) for c, missing in _READ]
    close, last = columns[3], frame.height
    first = 0
    if last and np.isnan(close[0]):
        known = np.flatnonzero(~np.isnan(close))
        first = int(known[0]) if len(known) else last
    if "delisted" in there and (gone := frame.get_column("delisted")).any():
        last = max(first, gone.fill_null(False).arg_max() or 0)
    out, bad, row, price = _adjust(*[x[first:last] for x in columns])
    if bad >= 0:
        seen = f"{panel.symbols[0]}: {PRICE_COLUMNS[bad]} is {price} on live row {row}"
        raise DataError(f"{seen}; expected a positive, finite price (clean the bars first)")
    live = np.zeros(frame.height, bool)
    live[first:last] = True
    rows = frame if last - first == frame.height else frame.slice(first, last - first)
    days = rows.get_column("session") if "session" in there else None
    return Series(out[0], out[1], out[2], out[3], out[4], rows.get_column("timestamp"), days), live


def _values(column: pl.Series, missing: float) -> np.ndarray:
    if missing == missing and column.null_count():  # a null price is NaN without our help
        column = column.fill_null(missing)
    return np.ascontiguousarray(column.to_numpy(), np.float64)


_READ = (*[(name, np.nan) for name in PRICE_COLUMNS], ("split", 1.0), ("dividend", 0.0))
_LENT = types.Array(types.float64, 1, "C", readonly=True)


@njit(
    types.Tuple((types.float64[:, ::1], types.int64, types.int64, types.float64))(*[_LENT] * 7), cache=True, nogil=True, error_model="numpy"
)
def _adjust(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, split: np.ndarray, dividend: np.ndarray
) -> tuple[np.ndarray, int, int, float]:
    """(5,T) adjusted open, high, low, close and volume; then the column, row and value of the first impossible price, or -1.

    An event on the first row lies before the series.
    """
    rows = close.size
    out, factor, held = np.empty((5, rows)), np.empty(rows), np.empty(rows)
    filled, traded = out[3], out[4]
    last, total, shares = np.nan, 1.0, 1.0
    for t in range(rows):
        last = last / split[t] if np.isnan(close[t]) else close[t]
        if (split[t] != 1.0 or dividend[t] != 0.0) and t > 0:  # as `data.events.forward_adjust` has it
            total *= split[t] * (last + dividend[t]) / last
            shares *= split[t]
        factor[t], held[t], filled[t] = total, shares, last
    for t in range(rows):
        traded[t] = (0.0 if np.isnan(close[t] + volume[t]) else volume[t]) / held[t]
    wrong = 0
    for i, x in enumerate((open, high, low, close)):  # the close last: the others' gaps are filled from it
        made, there = out[i], 0
        for t in range(rows):
            there += x[t] == x[t]
            wrong += (x[t] <= 0.0) | (x[t] == np.inf)
        if 0 < there < rows:
            for t in range(rows):
                made[t] = (filled[t] if np.isnan(x[t]) else x[t]) * factor[t]
        else:
            for t in range(rows):
                made[t] = x[t] * factor[t]
    if wrong:
        for i, x in enumerate((open, high, low, close)):
            for t in range(rows):
                if x[t] <= 0.0 or x[t] == np.inf:
                    return out, i, t, x[t]
    return out, -1, -1, np.nan
