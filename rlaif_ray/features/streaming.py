"""One new bar of many symbols through `core_31`: the numbers of the whole history, at the work of one bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from rlaif_ray.core import PRICE_COLUMNS, VOLUME, Panel
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.features import core_steps as steps
from rlaif_ray.features.core_31 import COLUMNS, packed, step_of
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.series import columns_of

STATE = ("counts", "anchors", "buffer", "memory", "lacking", "formulas")


@dataclass(frozen=True, eq=False)
class CoreStream:
    """State of N symbols, updated in place by `push`.

    Windows lie in `buffer`, two look-backs long: bars are written one after another and, once it is full, the last half is moved
    to the front, so that a window is always one stretch of memory. What recursive indicators carry is in `memory`. Symbols are
    independent of each other: one may list, halt or go while the rest trade. Not safe to push to from two threads.

    Build with `warm` (history), `empty` (none) or `of_state` (what `state` gave).
    """

    symbols: tuple[str, ...]  # (N,)
    columns: tuple[FeatureSpec, ...]  # (F,)
    counts: np.ndarray  # (N,4) int64: phase, live bars seen, position in the buffer, time of the last bar
    anchors: np.ndarray  # (N,3) float64: total-return factor, product of splits, last raw close
    buffer: np.ndarray  # (N,6,2W) float64: adjusted bars and their times
    memory: np.ndarray  # (N,M) float64
    lacking: np.ndarray  # (N,F) bool: needs a column that the symbol's history does not have

    @classmethod
    def empty(cls, symbols: Sequence[str], columns: Sequence[FeatureSpec] = COLUMNS) -> CoreStream:
        """Symbols that have not had a bar yet. Raises `ConfigError` for a feature that is not of core_31."""
        n, width = len(symbols), 1 + max((spec.look_back_bars for spec in columns), default=0)
        slots = sum(step_of(spec).slots(*spec.parameters) for spec in columns)
        counts = np.tile(np.array([steps.WAITING, 0, 0, steps.NO_BAR], np.int64), (n, 1))
        anchors = np.tile(np.array([1.0, 1.0, np.nan]), (n, 1))
        return cls(
            tuple(symbols), tuple(columns), counts, anchors, np.zeros((n, 6, 2 * width)), np.zeros((n, slots)),
            np.zeros((n, len(columns)), bool),
        )  # fmt: skip

    @classmethod
    def warm(cls, bars: Panel, columns: Sequence[FeatureSpec] = COLUMNS) -> CoreStream:
        """After all of `bars`: cleaned bars as `series.of_bars` takes them, but of several symbols, each from its first bar on.

        What a symbol's bars lack wholly (volume, say) it is taken to lack for good: the features that need it stay NaN.
        Raises `DataError` for a price that is not positive or is infinite, and `ConfigError` for a feature that is not of core_31.
        """
        stream = cls.empty(bars.symbols, columns)
        for n, part in enumerate(bars.frame.partition_by("symbol", maintain_order=True)):
            raw, times = _filled(part, PRICE_COLUMNS, np.nan), _microseconds(part["timestamp"].dt.replace_time_zone(None).to_numpy())
            split, dividend, gone = (_filled(part, (c,), x)[:, 0] for c, x in (("split", 1.0), ("dividend", 0.0), ("delisted", 0.0)))
            stream._advance(np.full(len(raw), n), raw, times, split, dividend, gone > 0)
            if stream.counts[n, steps.AGE]:
                there = columns_of(part)
                stream.lacking[n] = [not there.issuperset(spec.inputs) for spec in columns]
        return stream

    def push(
        self, prices: np.ndarray, times: np.ndarray, splits: np.ndarray | None = None, dividends: np.ndarray | None = None,
        delisted: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """One bar of each symbol.

        Parameters
        ----------
        prices : (N,5) raw open, high, low, close, volume; a NaN close is a halt, and no bar before the first close.
        times : (N,) datetime64, bar ends, UTC, later than the symbol's last; NaT where the symbol has no bar this time.
        splits, dividends : (N,) shares after / before (none: 1), USD a share (none: 0), as of bars in the lake.
        delisted : (N,) bool: the symbol no longer exists, for good.

        Returns
        -------
        (N,F) float32, equal to the last row of `of_bars` over the symbol's whole history, bit for bit; NaN where undefined,
        and for symbols without a bar. Known when the bar is, and all bars before it are.

        Raises `DataError`, with the state as it was, for arrays of another shape, time that does not rise, a price that is not
        positive, or an infinite one.
        """
        n = len(self.symbols)
        raw, at = np.ascontiguousarray(prices, np.float64), _microseconds(times)
        split = np.ones(n) if splits is None else np.nan_to_num(np.asarray(splits, np.float64), nan=1.0)
        dividend = np.zeros(n) if dividends is None else np.nan_to_num(np.asarray(dividends, np.float64), nan=0.0)
        gone = np.zeros(n, np.bool_) if delisted is None else np.asarray(delisted, np.bool_)
        if raw.shape != (n, 5) or not at.shape == split.shape == dividend.shape == gone.shape == (n,):
            seen = [x.shape for x in (raw, at, split, dividend, gone)]
            raise DataError(f"prices, times, splits, dividends, delisted are {seen}; expected ({n}, 5) and ({n},) for {n} symbols")
        last = self.counts[:, steps.LAST_TIME]
        back = np.flatnonzero((at <= last) & (at != steps.NO_BAR))
        if len(back):
            seen, before = (np.datetime64(int(x[back[0]]), "us") for x in (at, last))
            raise DataError(f"{self.symbols[back[0]]}: a bar that ends {seen} after one that ends {before}; expected later ones only")
        said = self._advance(np.arange(n), raw, at, split, dividend, gone)
        said[self.lacking] = np.nan
        return said

    def state(self) -> dict[str, np.ndarray]:
        """Everything but the symbols' names and what the columns are, which the caller knows: copies, for a file of arrays."""
        own = {name: getattr(self, name).copy() for name in STATE if name != "formulas"}
        return {**own, "formulas": self._formulas()}

    @classmethod
    def of_state(cls, symbols: Sequence[str], state: Mapping[str, np.ndarray], columns: Sequence[FeatureSpec] = COLUMNS) -> CoreStream:
        """The inverse of `state`. Raises `MissingDataError` for an array that is not there, `DataError` for other columns or symbols."""
        absent = [name for name in STATE if name not in state]
        if absent:
            raise MissingDataError(f"the state of a stream lacks {absent}; seen {sorted(state)}, expected {list(STATE)}")
        stream = cls.empty(symbols, columns)
        expected = {**stream.state(), "formulas": stream._formulas()}
        for name in STATE:
            seen, own = state[name], expected[name]
            if (seen.shape, seen.dtype) != (own.shape, own.dtype) or (name == "formulas" and (seen != own).any()):
                raise DataError(
                    f"{name} of the stream's state is {seen.dtype}{seen.shape}; {len(symbols)} symbols and these {len(columns)} columns "
                    f"have another: expected {own.dtype}{own.shape}, of the same formulas and parameters"
                )
            if name != "formulas":
                getattr(stream, name)[...] = seen
        return stream

    def _formulas(self) -> np.ndarray:
        """(F,4) float64: number and parameters of each column."""
        rows = [(step_of(spec).code, *packed(spec.parameters)) for spec in self.columns]
        return np.array(rows, np.float64).reshape(-1, 4)

    @cached_property
    def _plan(self) -> tuple[np.ndarray, ...]:
        """What the kernel takes beside the bars: the columns' formulas, and the state."""
        formulas = self._formulas()
        firsts = np.array([spec.look_back_bars for spec in self.columns], np.int64)
        slots = np.cumsum([0] + [step_of(spec).slots(*spec.parameters) for spec in self.columns], dtype=np.int64)
        numbers, parameters = formulas[:, 0].astype(np.int64), np.ascontiguousarray(formulas[:, 1:])
        return numbers, firsts, parameters, slots, self.counts, self.anchors, self.buffer, self.memory

    def _advance(
        self, symbols: np.ndarray, raw: np.ndarray, times: np.ndarray, split: np.ndarray, dividend: np.ndarray, delisted: np.ndarray
    ) -> np.ndarray:
        """(K,F) values of K bars, one after another: row k is of symbol number `symbols[k]`."""
        bad = (raw[:, :VOLUME] <= 0) | np.isinf(raw[:, :VOLUME])
        bad &= (times != steps.NO_BAR)[:, None]
        if bad.any():
            k, column = np.argwhere(bad)[0]
            seen = f"{self.symbols[symbols[k]]}: {PRICE_COLUMNS[column]} is {raw[k, column]} at {np.datetime64(int(times[k]), 'us')}"
            raise DataError(f"{seen}; expected a positive, finite price (clean the bars first)")
        said = np.empty((len(raw), len(self.columns)), np.float32)
        split, dividend, delisted = (np.ascontiguousarray(x) for x in (split, dividend, delisted))
        steps.advance(symbols, raw, times, split, dividend, delisted, self._plan, said)
        return said


def _microseconds(times: np.ndarray) -> np.ndarray:
    return np.asarray(times, "datetime64[us]").astype(np.int64)


def _filled(frame: pl.DataFrame, names: Sequence[str], missing: float) -> np.ndarray:
    """(T,n) float64, C-contiguous."""
    out = np.full((frame.height, len(names)), missing)
    for i, name in enumerate(names):
        if name in frame.columns:
            out[:, i] = frame[name].cast(pl.Float64).fill_null(missing).to_numpy()
    return out
