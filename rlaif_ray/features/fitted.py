"""What fitted features share: a state that is learnt from training rows alone, a symbol at a time, and how it is written down.

The lake has no fitted columns: they are fitted and applied for each fold, beside its models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import polars as pl

from rlaif_ray.core import Panel
from rlaif_ray.errors import CheckpointError, MissingDataError
from rlaif_ray.features.series import Series, adjusted, on_rows


@dataclass(frozen=True, eq=False)
class State:
    """What a feature has learnt. Subclasses add arrays, whose first axis is that of `symbols`, and plain values."""

    fit_end: np.datetime64  # us: nothing known later was learnt from
    symbols: tuple[str, ...]  # (A,)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays by name, as safetensors takes them, and all the rest, as JSON takes it."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        words = {n: v for n, v in values.items() if not isinstance(v, np.ndarray)}
        return {n: v for n, v in values.items() if n not in words}, words | {"fit_end": str(self.fit_end), "symbols": list(self.symbols)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], words: Mapping[str, Any]) -> Self:
        """The inverse of `to_arrays`. Raises `CheckpointError` where the names are those of another state."""
        expected = {f.name for f in fields(cls)}
        if arrays.keys() | words.keys() != expected:
            raise CheckpointError(f"a {cls.__name__} has {sorted(expected)}; seen {sorted(arrays.keys() | words.keys())}; fit it again")
        times = {"fit_end": np.datetime64(words["fit_end"], "us"), "symbols": tuple(words["symbols"])}
        return cls(**{**arrays, **words, **times})


S = TypeVar("S", bound=State)


class FittedFeature(Protocol[S]):
    """Columns that need a fit. Picklable; the state is all that `apply` goes by."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that `apply` makes."""
        ...

    def fit(self, panel: Panel, fit_end: np.datetime64 | None = None) -> S:
        """Learn from cleaned bars known at `fit_end` (default: all of them are training rows) and nothing else."""
        ...

    def apply(self, panel: Panel, state: S) -> Panel:
        """The columns, as float32 on the rows of `panel`: those up to t make the values at t. NaN for a symbol not fitted."""
        ...


def training(panel: Panel, fit_end: np.datetime64 | None) -> tuple[dict[str, Series], np.datetime64]:
    """Each symbol's series as known at `fit_end`, and that moment (default: when the last row became known).

    Raises `MissingDataError` where nothing was known by then.
    """
    known = panel if fit_end is None else panel.as_of(fit_end)
    last = known.frame["known_at"].dt.replace_time_zone(None).max()
    if last is None:
        raise MissingDataError(f"no row is known at {fit_end}; expected training rows: a later fit_end, or an earlier start")
    end = np.datetime64(last, "us") if fit_end is None else fit_end.astype("datetime64[us]")  # type: ignore[call-overload]
    return {symbol: series for symbol, _, series, _ in _each(known)}, end


def by_symbol(panel: Panel, names: Sequence[str], columns: Callable[[str, Series], Sequence[np.ndarray] | None]) -> Panel:
    """A Panel on the rows of bars of any number of symbols: `columns(symbol, series)` (T,) each, or None where it is undefined."""
    made = []
    for symbol, frame, series, live in _each(panel):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = columns(symbol, series) if live.any() else None
        nothing = np.full(int(live.sum()), np.nan)
        made.append(on_rows(frame, dict(zip(names, [nothing] * len(names) if values is None else values, strict=True)), live).frame)
    return Panel(pl.concat(made)) if made else on_rows(panel.frame, dict.fromkeys(names, np.empty(0)))


def _each(panel: Panel) -> Iterator[tuple[str, pl.DataFrame, Series, np.ndarray]]:
    for frame in panel.frame.partition_by("symbol", maintain_order=True):
        yield frame["symbol"][0], frame, *adjusted(Panel(frame))
