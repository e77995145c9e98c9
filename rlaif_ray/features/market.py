"""A universe's columns as arrays on one line of bars, and what several formulas over them share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from rlaif_ray.features import co_movement, covariance
from rlaif_ray.features.across import columns, moments, sector_codes, symbol_codes
from rlaif_ray.features.family import FeatureSpec, Tables


@dataclass(frozen=True, eq=False)
class Market:
    """Columns of all symbols on the market's bars: the timestamps of all of them together.

    A row that is late (known after another row of its timestamp, or of a later one) is not in them, and a timestamp of
    which nothing was known before a later one was is no bar of the market.
    """

    columns: Mapping[str, np.ndarray]  # name -> (A,T) float64, NaN where a symbol has none
    sectors: np.ndarray  # (A,) int64, -1 unknown
    bars: int  # T
    cells: tuple[np.ndarray, np.ndarray]  # of each row that is not late: its symbol and its bar
    seen: np.ndarray  # (N,) bool: the rows that are not late
    _made: dict[Hashable, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: Tables, specs: Sequence[FeatureSpec]) -> Market:
        """From `features` and `sectors`, with the columns that the specs read."""
        frame = tables["features"]
        symbols, of = symbol_codes(frame)
        bar, bars = _market_bars(frame)
        seen = bar >= 0
        cells = (of[seen], bar[seen])
        dense = {}
        for name, x in columns(frame, specs).items():
            dense[name] = np.full((len(symbols), bars), np.nan)
            dense[name][cells] = x[seen]
        return cls(dense, sector_codes(tables, symbols), bars, cells, seen)

    def on_rows(self, values: np.ndarray) -> np.ndarray:
        """(A,T), or (T,) of the market as a whole, as (N,): NaN on late rows."""
        out = np.full(len(self.seen), np.nan)
        out[self.seen] = np.broadcast_to(values, (len(self.sectors), self.bars))[self.cells]
        return out

    @cached_property
    def returns(self) -> np.ndarray:
        return self.columns["ret_1"]

    @cached_property
    def everyone(self) -> np.ndarray:
        """(A,): all symbols as one group."""
        return np.zeros_like(self.sectors)

    @cached_property
    def others(self) -> np.ndarray:
        """(A,T) the market of each symbol: the mean return of all others."""
        return co_movement.mean_of_others(self.returns, self.everyone)

    @cached_property
    def spread(self) -> np.ndarray:
        """(2,T): mean and standard deviation of the bar's returns over all symbols."""
        return co_movement.spread(self.returns, self.everyone)[:, 0]

    def on_market(self, bars: int) -> np.ndarray:
        """(3,A,T) regression of returns on the market: slope, correlation, standard deviation of the residual."""
        return self._once(("market", bars), lambda: co_movement.regression(self.returns, self.others, bars, _half(bars)))

    def on_sector(self, bars: int) -> np.ndarray:
        """(3,A,T) on the sector's other symbols."""
        others = self._once("sector", lambda: co_movement.mean_of_others(self.returns, self.sectors))
        return self._once(("sector", bars), lambda: co_movement.regression(self.returns, others, bars, _half(bars)))

    def behind_market(self, bars: int) -> np.ndarray:
        """(3,A,T) on the market's bar before."""
        return self._once(("behind", bars), lambda: co_movement.regression(self.returns, _before(self.others), bars, _half(bars)))

    def ahead_of_market(self, bars: int) -> np.ndarray:
        """(3,A,T) of returns a bar earlier, on the market."""
        return self._once(("ahead", bars), lambda: co_movement.regression(_before(self.returns), self.others, bars, _half(bars)))

    def turbulence(self, bars: int) -> np.ndarray:
        """(2,T), see `covariance.turbulence`."""
        return self._once(("turbulence", bars), lambda: covariance.turbulence(self.returns, bars))

    def absorption(self, bars: int) -> np.ndarray:
        """(T,), see `covariance.absorption`."""
        return self._once(("absorption", bars), lambda: covariance.absorption(self.returns, bars))

    def _once(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _market_bars(frame: pl.DataFrame) -> tuple[np.ndarray, int]:
    """For each row (N,) the market's bar that it belongs to, -1 where it is late; and how many bars there are."""
    date, known, dates = moments(frame)
    first = np.full(dates, np.iinfo(np.int64).max)
    np.minimum.at(first, date, known)
    seen = known <= np.minimum.accumulate(first[::-1])[::-1][date]
    is_bar = np.zeros(dates, bool)
    is_bar[date[seen]] = True
    return np.where(seen, (np.cumsum(is_bar) - 1)[date], -1), int(is_bar.sum())


def _before(x: np.ndarray) -> np.ndarray:
    """(A,T) a bar earlier."""
    out = np.full_like(x, np.nan)
    out[:, 1:] = x[:, :-1]
    return out


def _half(bars: int) -> int:
    return (bars + 1) // 2
