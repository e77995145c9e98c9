"""Walk-forward folds with the nested rule: each stage learns only from out-of-sample outputs of the stages before it.

Lopez de Prado, Advances in Financial Machine Learning (2018), ch. 7 for purge and embargo. A fold's training span is
block A (the forecaster alone), then block B, cut into expanding inner windows; the last fifth of B is validation. For
every window everything fitted is refitted on rows that had closed before it. A gap of `horizon + 1 + embargo` rows
parts what learns from what judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rlaif_ray.errors import DataError

Role = Literal["train", "validation", "test", "live"]


@dataclass(frozen=True)
class Window:
    """Decision rows, and the rows that models which speak about them may be fitted on (features and labels both)."""

    role: Role
    fit: slice  # a label is usable iff the row at which it closes lies inside
    rows: slice  # decision rows

    @property
    def name(self) -> str:
        return f"{self.role}-{self.rows.start}"


@dataclass(frozen=True)
class Fold:
    name: str  # "0", "1", ... or "live"
    block_a: slice  # rows of block A: normalisation is fitted here
    windows: tuple[Window, ...]  # training windows, then validation, then test (or live), in time order

    @property
    def train_rows(self) -> slice:
        """Decision rows that the policy learns on: the training windows, end to end."""
        train = [w for w in self.windows if w.role == "train"]
        return slice(train[0].rows.start, train[-1].rows.stop)

    @property
    def validation(self) -> Window:
        return self.windows[-2]

    @property
    def last(self) -> Window:
        """The test block, or the open end of the live fold."""
        return self.windows[-1]


def walk_forward(
    n_rows: int, *, folds: int, test_fraction: float, forecaster_fraction: float, inner_windows: int, horizon: int,
    embargo: int, warmup: int, vault: int | None = None, opened: bool = False,
) -> list[Fold]:  # fmt: skip
    """`folds` expanding folds with adjoining test blocks at the end of what may be judged, then the live fold.

    Parameters
    ----------
    n_rows : rows of the cube; the last decision that can be judged is on row n_rows - 2.
    test_fraction, vault, opened : see `judged_rows`.
    forecaster_fraction : share of the training span in block A.
    horizon : the longest label horizon of any stage, in bars.
    warmup : leading rows on which features are not yet defined; nothing is fitted or decided there.

    Raises `DataError` when a block would be too short to hold one label.
    """
    tested = judged_rows(n_rows, test_fraction=test_fraction, horizon=horizon, vault=vault, opened=opened)
    test_size = (tested.stop - tested.start) // folds
    if test_size == 0:
        raise DataError(f"{n_rows} rows do not fill {folds} test blocks; bring more bars, or lower --backtest.folds")
    first_test = tested.stop - test_size * folds
    built = []
    for k in range(folds):
        start = first_test + k * test_size
        test = slice(start, start + test_size)
        built.append(_fold(str(k), warmup, start, test, "test", forecaster_fraction, inner_windows, horizon, embargo))
    last = slice(n_rows - 1, n_rows)
    built.append(_fold("live", warmup, n_rows, last, "live", forecaster_fraction, inner_windows, horizon, 0))
    return built


def judged_rows(n_rows: int, *, test_fraction: float, horizon: int, vault: int | None = None, opened: bool = False) -> slice:
    """Decision rows that are judged: a decision on row t is, by what happens from row t + 1 on.

    Parameters
    ----------
    test_fraction : share of what may be judged, its end.
    vault : the first vaulted row; None: there is none. Closed, it keeps out every decision with a label that closes in it;
        opened, decisions are judged that are filled in it, and no other.
    """
    if vault is not None and opened:
        return slice(max(vault - 1, 0), n_rows - 1)
    stop = n_rows - 1 if vault is None else max(vault - horizon, 0)
    return slice(stop - int(stop * test_fraction), stop)


def _fold(
    name: str, warmup: int, cut: int, last_rows: slice, role: Role, forecaster_fraction: float, inner_windows: int, horizon: int,
    embargo: int,
) -> Fold:  # fmt: skip
    """Everything before row `cut` may be learnt from; the live fold needs no embargo, for nothing is judged in it."""
    gap = horizon + 1 + embargo
    span = cut - gap - warmup
    b_start = warmup + int(span * forecaster_fraction)
    b_stop = cut - gap
    validation_start = b_stop - (b_stop - b_start) // 5
    train_stop = validation_start - gap
    width = (train_stop - b_start) // inner_windows
    if b_start - warmup <= gap or width <= gap or b_stop - validation_start <= gap:
        raise DataError(
            f"{max(span, 0)} training bars are too few for fold {name}: a block of at least {gap + 1} bars is needed for the "
            f"forecaster, each of {inner_windows} inner windows and validation; bring more bars, or lower --backtest.folds, "
            f"--backtest.test_fraction or --forecast.horizons"
        )
    starts = [b_start + i * width for i in range(inner_windows)] + [train_stop]
    windows = [Window("train", slice(warmup, a - embargo), slice(a, b)) for a, b in pairwise(starts)]
    windows.append(Window("validation", slice(warmup, validation_start - embargo), slice(validation_start, b_stop)))
    windows.append(Window(role, slice(warmup, cut - embargo), last_rows))
    return Fold(name, slice(warmup, b_start - embargo), tuple(windows))


@dataclass(frozen=True)
class Cycle:
    """One turn of the loop that improves a desk: learn from what is behind, be judged on what no turn has seen."""

    number: int  # from 1
    learn: slice  # an outcome may be learnt from iff its opinion was given, and it closed, inside
    block: slice  # decision rows on which the challenger is held against the judge in office

    @property
    def name(self) -> str:
        return f"cycle={self.number}"


def cycles(rows: slice, *, count: int, first: float, horizon: int, every: int, embargo: int) -> list[Cycle]:
    """`count` adjoining blocks at the end of `rows`, each with all before it, less the embargo, to learn from.

    Parameters
    ----------
    first : share of the rows before the first block.
    horizon, every : bars until an opinion closes, and between two opinions.

    Raises `DataError` where a block would not hold twenty outcomes after one another, or there is nothing to learn from.
    """
    start = rows.start + int((rows.stop - rows.start) * first)
    width = (rows.stop - start) // count
    least = 21 * max(horizon, every)
    if width < least or start - rows.start - embargo < least:
        raise DataError(
            f"{rows.stop - rows.start} rows make {count} blocks of {width} after a first {start - rows.start}; each needs {least}, for "
            "twenty outcomes one after the other: bring more bars, or lower --improve.cycles, --agents.horizon_bars or every_bars"
        )
    begins = [start + k * width for k in range(count)]
    return [Cycle(k + 1, slice(rows.start, b - embargo), slice(b, b + width)) for k, b in enumerate(begins)]
