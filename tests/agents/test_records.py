"""Opinions as Arrow, and back as they were."""

from rlaif_ray.agents import records
from tests.desk import ask, desk_cube


def test_what_comes_back_is_what_went_in() -> None:
    said = ask(desk_cube(0))
    assert records.of_arrow(records.to_arrow(said)) == said
    assert records.of_arrow(records.to_arrow([])) == []
