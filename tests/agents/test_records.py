"""Opinions go to disk and come back as they were."""

from pathlib import Path

import numpy as np

from rlaif_ray.agents import records
from rlaif_ray.core import OpinionTable
from tests.desk import ROSTER, ask, desk_cube


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    said = ask(desk_cube(0))
    records.write(records.to_arrow(said), tmp_path / "a" / "opinions.parquet")
    back = records.of_arrow(records.read(tmp_path / "a" / "opinions.parquet"))
    assert back == said


def test_the_dense_form_is_that_of_the_values() -> None:
    cube = desk_cube(1)
    said = ask(cube)
    ours, theirs = records.dense(records.to_arrow(said), cube.symbols, ROSTER), OpinionTable.of(said, cube.symbols, ROSTER)
    assert np.array_equal(ours.as_of, theirs.as_of) and ours.horizon_bars == theirs.horizon_bars
    assert np.array_equal(ours.p_up, theirs.p_up, equal_nan=True)


def test_on_the_table_are_the_opinions_of_the_last_date() -> None:
    cube = desk_cube(2)
    said = ask(cube)
    table = records.to_arrow(said)
    assert records.at(table, cube.known_at[104]) == [o for o in said if o.as_of == cube.known_at[100]]
    assert records.at(table, cube.known_at[0] - 1) == []
    assert records.of_arrow(records.to_arrow([])) == []
