"""A run's folds, walk-forward with the nested rule: one small case written out in full, then what must hold of every case."""

import itertools

import pytest

from rlaif_ray.errors import DataError
from rlaif_ray.folds import Fold, Window, cycles, walk_forward

SMALL = {"folds": 2, "test_fraction": 0.4, "forecaster_fraction": 0.5, "inner_windows": 2, "horizon": 2, "embargo": 1, "warmup": 10}


def test_a_small_case_written_out():
    """101 rows: rows 0..99 can be judged (a fill at t+1). Two test blocks of 20 rows: 60..79 and 80..99. Gap: 2 + 1 + 1 = 4.

    Fold 0 may learn before row 60. Its span is rows 10..55 (60 - 4 = 56), 46 rows: block A 10..32, block B 33..55. The last
    fifth of B's 23 rows (4 rows) would be validation, 52..55, too short to hold a label beyond the gap: hence 201 rows below.
    """
    with pytest.raises(DataError, match="46 training bars are too few for fold 0"):
        walk_forward(101, **SMALL)

    # 201 rows, 200 judged; test blocks of 40 rows: 120..159, 160..199.
    first, second, live = walk_forward(201, **SMALL)
    # Fold 0: span 10..115 (106 rows), A 10..62, B 63..115 (53 rows), validation the last 10 of B: 106..115.
    # Training windows share B before validation less the gap: 63..101, in two: 63..81 (19 rows) and 82..101.
    # Each is spoken about by models that were fitted on labels closed before it, less the embargo of 1.
    assert first == Fold(
        name="0",
        block_a=slice(10, 62),
        windows=(
            Window("train", fit=slice(10, 62), rows=slice(63, 82)),
            Window("train", fit=slice(10, 81), rows=slice(82, 102)),
            Window("validation", fit=slice(10, 105), rows=slice(106, 116)),
            Window("test", fit=slice(10, 119), rows=slice(120, 160)),
        ),
    )
    # Fold 1: span 10..155 (146 rows), A 10..82, B 83..155 (73 rows), validation 142..155, training 83..137 in two.
    assert second == Fold(
        name="1",
        block_a=slice(10, 82),
        windows=(
            Window("train", fit=slice(10, 82), rows=slice(83, 110)),
            Window("train", fit=slice(10, 109), rows=slice(110, 138)),
            Window("validation", fit=slice(10, 141), rows=slice(142, 156)),
            Window("test", fit=slice(10, 159), rows=slice(160, 200)),
        ),
    )
    # Live: everything up to the last bar may be learnt from; no embargo, for nothing is judged; it decides on row 200.
    assert live.name == "live"
    assert live.last == Window("live", fit=slice(10, 201), rows=slice(200, 201))
    assert (first.train_rows, first.validation.rows, first.last.role) == (slice(63, 102), slice(106, 116), "test")


CASES = [
    {**SMALL, "n_rows": n, "folds": folds, "horizon": horizon, "embargo": embargo, "inner_windows": windows, "test_fraction": fraction}
    for n, folds, horizon, embargo, windows, fraction in itertools.product((900, 1501), (1, 2, 5), (1, 5, 20), (0, 5), (1, 3), (0.3, 0.5))
]


@pytest.mark.parametrize("folds", [walk_forward(**case) for case in CASES if case["horizon"] < 20 or case["n_rows"] > 1000])
def test_test_blocks_adjoin_and_end_one_row_before_the_last(folds):
    tests = [fold.last.rows for fold in folds[:-1]]
    assert all(a.stop == b.start for a, b in itertools.pairwise(tests))
    assert len({rows.stop - rows.start for rows in tests}) == 1


def test_what_judges_is_parted_from_what_learns():
    """In every case: labels used for fitting close before the rows, less the embargo; decisions that a stage learns on are a
    whole gap before validation, and validation a whole gap before the test."""
    for case in CASES:
        try:
            folds = walk_forward(**case)
        except DataError:
            continue
        for fold in folds:
            judged = fold.last.role == "test"
            embargo = case["embargo"] if judged else 0
            gap = case["horizon"] + 1 + embargo
            for window in fold.windows:
                assert window.fit.start == case["warmup"]
                assert window.role == "live" or window.fit.stop <= window.rows.start - embargo
                assert window.rows.start < window.rows.stop <= case["n_rows"]
            assert fold.block_a.stop <= fold.train_rows.start - embargo
            assert fold.train_rows.stop + gap <= fold.validation.rows.start
            if judged:
                assert fold.validation.rows.stop + gap <= fold.last.rows.start
                assert fold.last.rows.stop <= case["n_rows"] - 1
            trains = [w for w in fold.windows if w.role == "train"]
            assert len(trains) == case["inner_windows"]
            assert all(a.rows.stop == b.rows.start and a.fit.stop < b.fit.stop for a, b in itertools.pairwise(trains))


def test_more_folds_than_rows_to_test_is_refused():
    with pytest.raises(DataError, match=r"--backtest\.folds"):
        walk_forward(300, **{**SMALL, "folds": 200})


def test_later_folds_see_more_and_never_less():
    folds = walk_forward(1500, **{**SMALL, "folds": 4})
    for earlier, later in itertools.pairwise(folds):
        assert earlier.block_a.stop < later.block_a.stop
        assert earlier.last.fit.stop <= later.last.fit.stop


def test_live_decides_on_the_last_row_and_learns_up_to_it():
    live = walk_forward(1500, **SMALL)[-1]
    assert live.last.rows == slice(1499, 1500)
    assert live.last.fit.stop == 1500
    assert live.validation.rows.stop <= 1499


def test_cycles_adjoin_and_each_learns_from_all_before_it_less_the_embargo() -> None:
    turns = cycles(slice(100, 1100), count=3, first=0.4, horizon=5, every=5, embargo=7)
    assert [t.block for t in turns] == [slice(500, 700), slice(700, 900), slice(900, 1100)]
    assert [t.learn for t in turns] == [slice(100, 493), slice(100, 693), slice(100, 893)]
    assert [t.name for t in turns] == ["cycle=1", "cycle=2", "cycle=3"]


def test_cycles_too_short_to_hold_twenty_outcomes_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 blocks of 60 .* needs 105, for twenty outcomes"):
        cycles(slice(0, 300), count=3, first=0.4, horizon=5, every=1, embargo=0)
