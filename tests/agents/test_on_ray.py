"""The desk on Ray says what it says at home, in one order; who is late is seen to be late."""

import time

import pytest
import ray

from rlaif_ray.agents import build, records
from rlaif_ray.agents.analysts import view_at
from rlaif_ray.agents.on_ray import opine_table, opinion_rows
from rlaif_ray.config import Agents
from rlaif_ray.core import Abstention, Opinion
from tests.desk import desk_cube

pytestmark = pytest.mark.usefixtures("ray_session")


def test_ray_says_what_one_process_says() -> None:
    cube, section = desk_cube(0), Agents()
    rows = slice(12, 60)
    asked = opinion_rows(rows, section.every_bars)
    assert asked.tolist() == list(range(10, 60, 5))
    alone = [o for t in asked for analyst in build(section) for o in analyst.opine([view_at(cube, int(t))])]
    assert records.of_arrow(opine_table(ray.put(cube), rows, section)) == alone


def test_who_misses_the_deadline_abstains_visibly_and_the_others_are_heard() -> None:
    cube, section = desk_cube(1), Agents(roster=("technical",), deadline_s=2.0)

    class Sleeper:
        name = "sleeper"

        def opine(self, views):
            time.sleep(120.0)
            return []

    said = records.of_arrow(opine_table(ray.put(cube), slice(100, 110), section, analysts=[*build(section), Sleeper()]))
    late = [o for o in said if o.author == "sleeper"]
    assert len(late) == 2 * len(cube.symbols)
    assert all(isinstance(o, Abstention) and "2 s (agents.deadline_s)" in o.reason for o in late)
    assert any(isinstance(o, Opinion) for o in said if o.author == "technical")
