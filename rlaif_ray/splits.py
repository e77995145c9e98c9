"""Splitters in time: walk-forward, purged k-fold and combinatorial purged cross-validation; scikit-learn's splitter API.

Lopez de Prado, Advances in Financial Machine Learning (2018), chapters 7 and 12. What is learnt from never shares a bar
with what is tested: labels are purged by the row at which they close. The folds of a run, with the nested rule, are
`folds.walk_forward`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from rlaif_ray.errors import DataError

Groups = np.ndarray | Sequence[Any] | None
LabelEnds = int | np.ndarray | Sequence[float]


def label_end_rows(times: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(T,) int64: for every row the last row that is not after the moment at which its label closes.

    Rows may be events rather than bars: then most labels close between two of them.

    Parameters
    ----------
    times : (T,) datetime64, the moment of each row, not falling.
    ends : (T,) datetime64, when the row's label closes.

    Raises `DataError` for a label without an end (NaT), one that ends before its row, and times that go backwards.
    """
    times, ends = np.asarray(times), np.asarray(ends)
    if (times[1:] < times[:-1]).any():
        raise DataError(f"times go backwards at row {1 + int(np.argmax(times[1:] < times[:-1]))}; sort the rows by time")
    if ends.shape != times.shape or np.isnat(ends).any():
        seen = f"{len(ends)} ends for {len(times)} rows" if ends.shape != times.shape else f"row {int(np.argmax(np.isnat(ends)))} has none"
        raise DataError(f"labels without end times: {seen}; expected when the label of every row closes, else leave the row out")
    if (ends < times).any():
        row = int(np.argmax(ends < times))
        raise DataError(f"the label of row {row} ends at {ends[row]}, before it; expected {times[row]} or later")
    return np.searchsorted(times, ends, side="right") - 1


class WalkForward:
    """Train on a run of rows, test on the next, move on by one test block; scikit-learn's splitter API.

    A row may be learnt from once its label has closed, strictly before the test block less the embargo. Of those rows the
    last `train` are taken (rolling) or all (expanding), so a longer label moves the first test block and not the length.
    What is left over at the end is too short for a test block and is not tested.

    Parameters
    ----------
    train, test : rows a block; five years and one: `WalkForward.of_years(5, 1, bars_per_year=252.0, ...)`.
    expanding : keep all rows behind the first training block too.
    label_ends : the row at which the label of each row closes, (T,), not before its own row (past the last: not closed yet);
        or one number of bars for all.
    embargo : rows left out between training and test, beyond the purge.

    With `groups` (say, the session of each row of a panel) every size counts groups and a group is never cut; its label closes
    when the last of its rows' labels does. Equal to skfolio's `WalkForward` where labels have one length (`purged_size`).
    """

    def __init__(self, train: int, test: int, *, label_ends: LabelEnds, expanding: bool = False, embargo: int = 0) -> None:
        _at_least(1, train=train, test=test)
        _at_least(0, embargo=embargo)
        self.train, self.test, self.label_ends, self.expanding, self.embargo = train, test, label_ends, expanding, embargo

    @classmethod
    def of_years(
        cls, train: float, test: float, *, bars_per_year: float, label_ends: LabelEnds, expanding: bool = False, embargo: int = 0
    ) -> WalkForward:  # fmt: skip
        """Sizes in years of `bars_per_year` bars (`Cube.bars_per_year`), to the nearest bar."""
        sizes = round(train * bars_per_year), round(test * bars_per_year)
        return cls(*sizes, label_ends=label_ends, expanding=expanding, embargo=embargo)

    def split(self, X: Any, y: Any = None, groups: Groups = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, test rows) of each split, in time order. Raises `DataError` where not even one test block fits."""
        line = _Line.of(len(X), groups, self.label_ends)
        for start in self._starts(line):
            closed = np.flatnonzero(line.ends[:start] < start - self.embargo)
            chosen = closed if self.expanding else closed[-self.train :]
            yield line.rows(chosen), line.rows(np.arange(start, start + self.test))

    def get_n_splits(self, X: Any, y: Any = None, groups: Groups = None) -> int:
        return len(self._starts(_Line.of(len(X), groups, self.label_ends)))

    def _starts(self, line: _Line) -> range:
        """First place of every test block: the first is where `train` labels have closed."""
        n = len(line.ends)
        first = int(np.sort(line.ends)[self.train - 1]) + 1 + self.embargo if self.train <= n else n
        if first + self.test > n:
            raise DataError(
                f"{n} {line.unit} do not hold {self.train} to train on, whose labels close {self.embargo} before {self.test} to test on; "
                f"bring more, or shorter blocks"
            )
        return range(first, n - self.test + 1, self.test)


class CombinatorialPurged:
    """Combinatorial purged cross-validation: every choice of `n_test_groups` of `n_groups` blocks of time is tested once.

    Lopez de Prado (2018), chapters 7 and 12. A row is learnt from iff its label's span, from its row to the row at which
    the label closes, meets no test block's (whose span ends with its last label) and it is not among the `embargo` rows
    after one. Blocks are of `n // n_groups` rows, the last takes the rest; these and the index sets are skfolio's
    (`CombinatorialPurgedCV`, whose `purged_size` is a label of that many bars).

    Parameters
    ----------
    label_ends, embargo : as in `WalkForward`; with `groups` in `split` every size counts groups.
    """

    def __init__(self, n_groups: int, n_test_groups: int, *, label_ends: LabelEnds, embargo: int = 0) -> None:
        _at_least(2, n_groups=n_groups)
        _at_least(1, n_test_groups=n_test_groups)
        _at_least(0, embargo=embargo)
        if n_test_groups >= n_groups:
            raise DataError(f"n_test_groups is {n_test_groups} of {n_groups}; expected fewer, for something must be learnt from")
        self.n_groups, self.n_test_groups, self.label_ends, self.embargo = n_groups, n_test_groups, label_ends, embargo

    @property
    def tested(self) -> np.ndarray:
        """(S,k) int64: the groups that each split tests, in the order of the splits."""
        return np.array(list(combinations(range(self.n_groups), self.n_test_groups)))

    @property
    def paths(self) -> np.ndarray:
        """(phi,N) int64, phi = C(N,k) k / N: on path p, group g is predicted by what split `paths[p, g]` has learnt.

        Every (split, tested group) lies on one path; rows of the groups: `blocks`. Chapter 12.3.
        """
        return np.stack([np.flatnonzero((self.tested == group).any(axis=1)) for group in range(self.n_groups)], axis=1)

    def blocks(self, X: Any, groups: Groups = None) -> list[np.ndarray]:
        """The rows of each of the N groups."""
        line = _Line.of(len(X), groups, 0)
        return [line.rows(np.arange(a, b)) for a, b in self._bounds(line)]

    def split(self, X: Any, y: Any = None, groups: Groups = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, test rows) of each split. Raises `DataError` where the purge leaves nothing to learn from."""
        line = _Line.of(len(X), groups, self.label_ends)
        places, bounds = np.arange(len(line.ends)), self._bounds(line)
        out_NT = np.empty((self.n_groups, len(places)), bool)
        for group, (a, b) in enumerate(bounds):
            closed = line.ends[a:b].max()
            out_NT[group] = (line.ends >= a) & (places <= closed + self.embargo)
        for number, chosen in enumerate(self.tested):
            train = np.flatnonzero(~out_NT[chosen].any(axis=0))
            if not len(train):
                raise DataError(f"split {number} has nothing to learn from; expected shorter labels, a smaller embargo or fewer groups")
            yield line.rows(train), line.rows(np.concatenate([np.arange(*bounds[group]) for group in chosen]))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Groups = None) -> int:
        return math.comb(self.n_groups, self.n_test_groups)

    def _bounds(self, line: _Line) -> list[tuple[int, int]]:
        n = len(line.ends)
        if n < self.n_groups:
            raise DataError(f"{n} {line.unit} do not fill {self.n_groups} groups; bring more, or ask for fewer groups")
        starts = [k * (n // self.n_groups) for k in range(self.n_groups)]
        return list(pairwise([*starts, n]))


class PurgedKFold(CombinatorialPurged):
    """Purged k-fold, Lopez de Prado (2018), section 7.4: each block of time is tested once, learnt from both sides.

    The combinatorial form with one test group, whose one path is every row once. `split(X, groups=sessions)` keeps the
    rows of a session together.
    """

    def __init__(self, n_splits: int, *, label_ends: LabelEnds, embargo: int = 0) -> None:
        super().__init__(n_splits, 1, label_ends=label_ends, embargo=embargo)


@dataclass(frozen=True, eq=False)
class _Line:
    """Places in time that are kept whole: rows, or groups of rows. `ends` (P,) int64: the place at which a label closes."""

    unit: str
    ends: np.ndarray
    place: np.ndarray  # (T,) of each row

    @classmethod
    def of(cls, n_rows: int, groups: Groups, label_ends: LabelEnds) -> _Line:
        rows = np.arange(n_rows)
        if groups is None:
            return cls("rows", rows + label_ends if isinstance(label_ends, int) else _row_ends(label_ends, n_rows), rows)
        place = _places(np.asarray(groups), n_rows)
        count = int(place[-1]) + 1 if n_rows else 0
        if isinstance(label_ends, int):
            return cls("groups", np.arange(count) + label_ends, place)
        closing = _row_ends(label_ends, n_rows)
        at = np.where(closing < n_rows, place[np.minimum(closing, n_rows - 1)], count)
        ends = np.zeros(count, np.int64)
        np.maximum.at(ends, place, at)
        return cls("groups", ends, place)

    def rows(self, places: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(self.place, places))


def _row_ends(label_ends: np.ndarray | Sequence[float], n_rows: int) -> np.ndarray:
    ends = np.asarray(label_ends, np.float64)
    if ends.shape != (n_rows,):
        raise DataError(f"labels without end times: label_ends has shape {ends.shape} for {n_rows} rows; expected ({n_rows},)")
    if not np.isfinite(ends).all():
        row = int(np.argmin(np.isfinite(ends)))
        raise DataError(f"labels without end times: row {row} has none; leave out rows whose label never closes")
    early = ends < np.arange(n_rows)
    if early.any():
        row = int(np.argmax(early))
        raise DataError(f"the label of row {row} ends at row {ends[row]:g}, before it; expected {row} or later")
    return ends.astype(np.int64)


def _places(groups: np.ndarray, n_rows: int) -> np.ndarray:
    """(T,) int64: 0 for the rows of the first group, 1 for the next."""
    if groups.shape != (n_rows,):
        raise DataError(f"groups have shape {groups.shape} for {n_rows} rows; expected ({n_rows},)")
    falling = groups[1:] < groups[:-1]
    if falling.any():
        row = 1 + int(np.argmax(falling))
        raise DataError(f"groups are unsorted or overlap: {groups[row]} at row {row} follows {groups[row - 1]}; sort the rows by group")
    return np.concatenate([[0], np.cumsum(groups[1:] != groups[:-1])])[:n_rows]


def _at_least(least: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < least:
            raise DataError(f"{name} is {size}; expected {least} or more")
