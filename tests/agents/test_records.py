"""Opinions as Arrow, and back as they were."""

from dataclasses import fields, replace

import numpy as np

from rlaif_ray.agents import records
from rlaif_ray.core import Opinion, OpinionTable
from tests.desk import ROSTER, ask, desk_cube


def test_what_comes_back_is_what_went_in() -> None:
    said = ask(desk_cube(0))
    assert records.of_arrow(records.to_arrow(said)) == said
    assert records.of_arrow(records.to_arrow([])) == []


def test_a_record_in_bulk_is_its_opinions_one_by_one() -> None:
    """Rounds, samples and quantiles with it: every voice is a column of its own."""
    cube = desk_cube(0, rows=60)
    said = ask(cube)
    again = [
        replace(o, author="risk", origin="thesis", sample=1, quantiles=((0.25, -0.01), (0.75, 0.02 * o.p_up)))
        for o in said if isinstance(o, Opinion) and o.author == "technical"
    ]  # fmt: skip
    table, names = [*said, *again], (*ROSTER, "risk/sample=1")
    one, bulk = OpinionTable.of(table, cube.symbols, names), records.dense(records.to_arrow(table), cube.symbols, names)
    assert np.isfinite(bulk.p_up[..., -1]).any() and bulk.levels == (0.25, 0.75) and bulk.voices[-1].origin == "thesis"
    for field in fields(OpinionTable):
        a, b = getattr(one, field.name), getattr(bulk, field.name)
        assert np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else np.all(a == b), field.name
