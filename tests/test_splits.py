"""Splitters on twelve rows by hand, against skfolio and scikit-learn where they overlap, and by the law of the purge."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from skfolio.model_selection import CombinatorialPurgedCV
from skfolio.model_selection import WalkForward as PeerWalkForward
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score

from rlaif_ray.errors import DataError
from rlaif_ray.splits import CombinatorialPurged, PurgedKFold, WalkForward, label_end_rows

TWELVE = np.zeros((12, 1))
Lists = list[tuple[list[int], list[int]]]


def lists(splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> Lists:
    return [(train.tolist(), test.tolist()) for train, test in splits]


def test_walk_forward_on_twelve_rows() -> None:
    """Four rows to train on, three to test on; a label closes one row later, so row 4 has not closed before row 5."""
    rolling = WalkForward(4, 3, label_ends=1)
    assert lists(rolling.split(TWELVE)) == [([0, 1, 2, 3], [5, 6, 7]), ([3, 4, 5, 6], [8, 9, 10])]
    expanding = WalkForward(4, 3, label_ends=1, expanding=True, embargo=1)
    assert lists(expanding.split(TWELVE)) == [([0, 1, 2, 3], [6, 7, 8]), ([0, 1, 2, 3, 4, 5, 6], [9, 10, 11])]
    assert rolling.get_n_splits(TWELVE) == expanding.get_n_splits(TWELVE) == 2


def test_walk_forward_waits_for_each_label_by_itself() -> None:
    """Row 1 closes late, at row 6: the first three closed labels are those of rows 0, 2 and 3, by row 4."""
    ends = [0, 6, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert lists(WalkForward(3, 4, label_ends=ends).split(TWELVE)) == [([0, 2, 3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9, 10, 11])]


def test_five_years_and_one_and_the_other_usual_sizes_are_one_line() -> None:
    years = WalkForward.of_years(5, 1, bars_per_year=252.0, label_ends=5)
    assert [(len(a), len(b), b[0]) for a, b in years.split(np.zeros(1800))] == [(1260, 252, 1265), (1260, 252, 1517)]
    days = WalkForward(320, 120, label_ends=1)
    assert [(len(a), len(b), b[0]) for a, b in days.split(np.zeros(600))] == [(320, 120, 321), (320, 120, 441)]


def test_purged_k_fold_on_twelve_rows() -> None:
    """Blocks 0-3, 4-7, 8-11; labels close two rows later. Beside 4-7: rows 2 and 3 close inside it; its own close by row 9;
    row 10 is under embargo."""
    split = PurgedKFold(3, label_ends=2, embargo=1)
    assert lists(split.split(TWELVE)) == [
        ([7, 8, 9, 10, 11], [0, 1, 2, 3]),
        ([0, 1, 11], [4, 5, 6, 7]),
        ([0, 1, 2, 3, 4, 5], [8, 9, 10, 11]),
    ]
    assert split.paths.tolist() == [[0, 1, 2]]
    assert split.get_n_splits() == 3


def test_purged_k_fold_by_session_keeps_a_session_whole() -> None:
    """Twelve rows of six sessions (two names a day); three blocks of two sessions; labels close one session later."""
    sessions = np.repeat(np.arange("2020-01-01", "2020-01-07", dtype="datetime64[D]"), 2)
    expected = [([6, 7, 8, 9, 10, 11], [0, 1, 2, 3]), ([0, 1, 10, 11], [4, 5, 6, 7]), ([0, 1, 2, 3, 4, 5], [8, 9, 10, 11])]
    assert lists(PurgedKFold(3, label_ends=1).split(TWELVE, groups=sessions)) == expected
    last_row_of_the_next_session = np.minimum(np.arange(12) // 2 * 2 + 3, 12)
    assert lists(PurgedKFold(3, label_ends=last_row_of_the_next_session).split(TWELVE, groups=sessions)) == expected
    walk = WalkForward(2, 2, label_ends=1)
    assert lists(walk.split(TWELVE, groups=sessions)) == [([0, 1, 2, 3], [6, 7, 8, 9])]


def test_combinatorial_paths_by_hand() -> None:
    """Four groups of three rows, two tested: six splits, three paths, each group once on each (chapter 12.3)."""
    split = CombinatorialPurged(4, 2, label_ends=0)
    assert split.tested.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert split.paths.tolist() == [[0, 0, 1, 2], [1, 3, 3, 4], [2, 4, 5, 5]]
    assert [block.tolist() for block in split.blocks(TWELVE)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert lists(split.split(TWELVE))[3] == ([0, 1, 2, 9, 10, 11], [3, 4, 5, 6, 7, 8])


@pytest.mark.parametrize(("n", "k", "paths"), [(6, 2, 5), (10, 2, 9), (10, 8, 36), (5, 1, 1)])
def test_every_split_and_group_lies_on_one_path(n: int, k: int, paths: int) -> None:
    split = CombinatorialPurged(n, k, label_ends=0)
    assert split.paths.shape == (paths, n)
    used = [(int(number), group) for path in split.paths for group, number in enumerate(path)]
    assert sorted(used) == [(number, int(group)) for number, tested in enumerate(split.tested) for group in tested]


@pytest.mark.parametrize("rows", [120, 127, 2520])
@pytest.mark.parametrize(("purge", "embargo"), [(0, 0), (1, 0), (3, 2), (0, 4)])
def test_combinatorial_index_sets_are_skfolios(rows: int, purge: int, embargo: int) -> None:
    """CPCV(10,2): training rows, test rows and paths, one by one."""
    peer, ours = CombinatorialPurgedCV(10, 2, purge, embargo), CombinatorialPurged(10, 2, label_ends=purge, embargo=embargo)
    x = np.zeros((rows, 2))
    theirs = [(train.tolist(), np.concatenate(tests).tolist()) for train, tests in peer.split(x)]
    assert len(theirs) == ours.get_n_splits() == 45
    assert lists(ours.split(x)) == theirs
    assert np.array_equal(ours.paths.T, peer.recombined_paths)


@pytest.mark.parametrize(("train", "test", "purge"), [(50, 10, 0), (320, 120, 5), (1260, 252, 21)])
@pytest.mark.parametrize("expanding", [False, True])
def test_walk_forward_index_sets_are_skfolios(train: int, test: int, purge: int, expanding: bool) -> None:
    x = np.zeros((2520, 2))
    ours = WalkForward(train, test, label_ends=purge, expanding=expanding)
    peer = PeerWalkForward(test, train, purged_size=purge, expand_train=expanding)
    assert lists(ours.split(x)) == lists(peer.split(x))
    assert ours.get_n_splits(x) == peer.get_n_splits(x)


def test_without_labels_that_reach_out_it_is_scikit_learns_k_fold() -> None:
    assert lists(PurgedKFold(5, label_ends=0).split(np.zeros(100))) == lists(KFold(5).split(np.zeros(100)))


def test_scikit_learn_takes_a_splitter_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    for split in (PurgedKFold(5, label_ends=3, embargo=2), WalkForward(60, 20, label_ends=3), CombinatorialPurged(6, 2, label_ends=3)):
        scores = cross_val_score(Ridge(), x, x[:, 0], cv=split)
        assert len(scores) == split.get_n_splits(x) and scores.min() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_no_label_that_is_learnt_from_shares_a_bar_with_one_that_is_tested(seed: int) -> None:
    """Label spans of random length: closed intervals of training and test rows never meet, and no row is in both."""
    rng = np.random.default_rng(seed)
    rows = np.arange(300)
    ends = rows + rng.integers(0, 12, 300)
    combined = CombinatorialPurged(6, 2, label_ends=ends, embargo=3)
    for split in (combined, PurgedKFold(5, label_ends=ends), WalkForward(80, 30, label_ends=ends)):
        for train, test in split.split(rows):
            for block in runs(test):
                assert ((ends[train] < block[0]) | (train > ends[block].max())).all()
    for train, test in combined.split(rows):
        after = [ends[block].max() + 1 + k for block in runs(test) for k in range(3)]
        assert not np.isin(train, after).any()


def runs(rows: np.ndarray) -> list[np.ndarray]:
    """Rows without a gap between them, apart from the next such."""
    return np.split(rows, 1 + np.flatnonzero(np.diff(rows) > 1))


def test_a_label_closes_at_the_last_event_that_is_not_after_it() -> None:
    times = np.array(["2020-01-01", "2020-01-02", "2020-01-02", "2020-01-05"], "datetime64[s]")
    ends = np.array(["2020-01-04", "2020-01-02", "2020-01-05", "2020-01-09"], "datetime64[s]")
    assert label_end_rows(times, ends).tolist() == [2, 2, 3, 3]
    with pytest.raises(DataError, match="row 1 has none"):
        label_end_rows(times, np.where([False, True, False, False], np.datetime64("NaT"), ends))
    with pytest.raises(DataError, match="3 ends for 4 rows"):
        label_end_rows(times, ends[:3])
    with pytest.raises(DataError, match="label of row 3 ends at 2020-01-01"):
        label_end_rows(times, times[[0, 1, 2, 0]])
    with pytest.raises(DataError, match="backwards at row 1; sort"):
        label_end_rows(times[::-1], ends)


UNENDED = [0.0, 1.0, float("nan"), *range(3, 12)]


@pytest.mark.parametrize(
    ("split", "groups", "says"),
    [
        (PurgedKFold(3, label_ends=UNENDED), None, "labels without end times: row 2 has none"),
        (WalkForward(3, 2, label_ends=np.arange(11)), None, r"labels without end times: label_ends has shape \(11,\) for 12 rows"),
        (PurgedKFold(3, label_ends=[0, 0, *range(2, 12)]), None, "the label of row 1 ends at row 0, before it"),
        (PurgedKFold(3, label_ends=0), [1, 1, 0, *[2] * 9], "groups are unsorted or overlap: 0 at row 2 follows 1"),
        (PurgedKFold(3, label_ends=0), [0, 0, 1, 0, *[2] * 8], "groups are unsorted or overlap: 0 at row 3 follows 1"),
        (PurgedKFold(3, label_ends=0), [0] * 11, r"groups have shape \(11,\) for 12 rows"),
        (PurgedKFold(3, label_ends=0), [0] * 6 + [1] * 6, "2 groups do not fill 3 groups"),
        (CombinatorialPurged(13, 2, label_ends=0), None, "12 rows do not fill 13 groups"),
        (CombinatorialPurged(3, 2, label_ends=8), None, "split 0 has nothing to learn from"),
        (WalkForward(9, 3, label_ends=1), None, "12 rows do not hold 9 to train on"),
        (WalkForward(20, 3, label_ends=1), None, "12 rows do not hold 20 to train on"),
    ],
)
def test_bad_input_is_one_clear_line(split: PurgedKFold | WalkForward, groups: list[int] | None, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        list(itertools.chain.from_iterable(split.split(TWELVE, groups=groups)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "sizes", "says"),
    [
        (CombinatorialPurged, (3, 3), "n_test_groups is 3 of 3"), (CombinatorialPurged, (1, 1), "n_groups is 1"),
        (CombinatorialPurged, (4, 0), "n_test_groups is 0"), (WalkForward, (0, 1), "train is 0"), (WalkForward, (1, -1), "test is -1"),
    ],
)  # fmt: skip
def test_sizes_that_split_nothing_are_refused(kind: type[CombinatorialPurged | WalkForward], sizes: tuple[int, int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        kind(*sizes, label_ends=0)
