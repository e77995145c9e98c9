"""Ray Data says what one process says: the desk's opinions on the past, and what came of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import ray

from rlaif_ray.agents import records
from rlaif_ray.agents.on_ray import opine_table
from rlaif_ray.config import Agents
from rlaif_ray.core import Abstention, Cube, MarketView, Opinion
from rlaif_ray.feedback import closing_on_ray
from rlaif_ray.feedback.closing_on_ray import close_on_ray, rollout
from rlaif_ray.feedback.outcomes import OUTCOME_SCHEMA, judge_records
from rlaif_ray.feedback.yardstick import OutcomeTerms, Yardstick
from tests.desk import ask, desk_cube

pytestmark = pytest.mark.usefixtures("ray_session")
TERMS = OutcomeTerms(0.0002, beta_bars=60, volatility_bars=20, sectors={"S00": "one", "S01": "one", "S02": "two"})


def test_a_rollout_is_the_desks_table_bit_for_bit() -> None:
    cube, section = desk_cube(0, rows=800), Agents(every_bars=5)
    ref, rows = ray.put(cube), slice(12, 790)  # 157 dates: three batches
    assert rollout(ref, rows, section).equals(opine_table(ref, rows, section))


def test_a_rollout_asks_the_analysts_that_it_is_given_and_of_no_rows_says_nothing() -> None:
    class Sure:
        name = "sure"

        def opine(self, views: Sequence[MarketView]) -> list[Opinion | Abstention]:
            return [Opinion("sure", v.as_of, s, 5, 0.9, (), "up", "h") for v in views for s in v.symbols]

    cube = desk_cube(1)
    said = rollout(ray.put(cube), slice(100, 110), Agents(every_bars=5), analysts=[Sure()])
    assert set(said["author"].to_pylist()) == {"sure"} and len(said) == 2 * len(cube.symbols)
    assert rollout(ray.put(cube), slice(100, 100), Agents(every_bars=5)).equals(records.SCHEMA.empty_table())


def mixed(cube: Cube) -> pa.Table:
    """Three horizons, two rounds, quantiles, abstentions, what will stay open, and what can never be judged."""
    said = []
    for k, o in enumerate(ask(cube)):
        h = (1, 5, 20)[k % 3]
        if isinstance(o, Abstention):
            said.append(replace(o, horizon_bars=h))
        else:
            said.append(replace(o, horizon_bars=h, round=k % 2, quantiles=((0.1, -0.02), (0.9, 0.03)) if k % 7 == 0 else ()))
    spoken = next(o for o in said if isinstance(o, Opinion))
    return records.to_arrow([*said, replace(spoken, symbol="NOBODY"), replace(spoken, as_of=spoken.as_of + np.timedelta64(1, "h"))])


def test_outcomes_are_those_of_one_process_in_the_order_of_the_opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_on_ray, "JUDGED_A_CALL", 100)
    cube = desk_cube(2)
    table, yardsticks = mixed(cube), {h: Yardstick.of(cube, h, TERMS) for h in (1, 5, 20)}
    alone = judge_records(table, cube.known_at, cube.symbols, yardsticks)
    ref = ray.put(cube)
    closed = close_on_ray(table, ref, TERMS)
    assert closed.equals(alone) and 0 < len(alone) < len(table)
    assert {"its symbol is not in the market data", "it was given between two decision moments"} <= set(alone["void"].to_pylist())
    blocks = ray.data.from_arrow([table.slice(k, 150) for k in range(0, len(table), 150)])
    assert close_on_ray(blocks, ref, TERMS).equals(alone)


def test_of_no_opinions_nothing_comes() -> None:
    ref, none = ray.put(desk_cube(3, rows=50)), records.SCHEMA.empty_table()
    assert close_on_ray(none, ref, TERMS).equals(OUTCOME_SCHEMA.empty_table())
    assert close_on_ray(ray.data.from_arrow(none), ref, TERMS).equals(OUTCOME_SCHEMA.empty_table())


def test_nothing_that_closed_by_then_moves_when_the_future_does() -> None:
    """Opinions that are open at a cut are missing from the cube's head, and all others fare there as they do in the whole."""
    cube = desk_cube(4)
    table = mixed(cube)
    known, whole = close_on_ray(table, ray.put(cube.head(200)), TERMS), close_on_ray(table, ray.put(cube), TERMS)
    by_then = whole.filter(pa.array(whole["closed_at"].to_numpy() <= cube.known_at[199]))
    assert 0 < len(by_then) < len(whole) and known.equals(by_then)
