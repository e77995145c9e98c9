"""The desk asked about the past, and its opinions judged by what came: both by Ray Data, in batches, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from rlaif_ray.agents import build, records
from rlaif_ray.agents.analysts import view_at
from rlaif_ray.agents.on_ray import BATCH_ROWS, opinion_rows
from rlaif_ray.config import Agents
from rlaif_ray.core import Analyst, Cube
from rlaif_ray.feedback.outcomes import OUTCOME_SCHEMA, READ, judge_records
from rlaif_ray.feedback.yardstick import OutcomeTerms, Yardstick

JUDGED_A_CALL = 200_000  # opinions; what is made of a yardstick for those who say quantiles is made once a call


def rollout(cube_ref: Any, rows: slice, section: Agents, *, analysts: Sequence[Analyst] | None = None) -> pa.Table:
    """What the desk says over past dates, as a `records` table: that of `agents.on_ray.opine_table`, bit for bit.

    Nobody waits for an opinion on the past, so nobody is late: there is no deadline. Batches of dates are tasks, each of
    which asks a copy of the whole desk; opining changes nothing, so a batch that died with its worker is asked again.

    Parameters
    ----------
    cube_ref : reference to a Cube in Ray's object store.
    rows : decision rows, absolute; the first opinions are those on the table at `rows.start`.
    analysts : the desk; default: what the section's roster seats.
    """
    asked = opinion_rows(rows, section.every_bars)
    batches = [asked[k : k + BATCH_ROWS].tolist() for k in range(0, len(asked), BATCH_ROWS)]
    if not batches:
        return records.SCHEMA.empty_table()
    desk = ray.put(build(section) if analysts is None else tuple(analysts))
    spoken = ray.data.from_items([{"rows": batch} for batch in batches], override_num_blocks=len(batches)).map_batches(
        partial(_ask, box=[cube_ref, desk]), batch_size=1, batch_format="pyarrow"
    )
    return _collected(spoken, records.SCHEMA)


def _ask(batch: Any, box: list[Any]) -> Any:
    """A date after another, in each the analysts in turn."""
    cube: Cube = ray.get(box[0])
    desk: Sequence[Analyst] = ray.get(box[1])
    views = [view_at(cube, row) for rows in batch["rows"].to_pylist() for row in rows]
    return records.to_arrow([said for view in views for analyst in desk for said in analyst.opine([view])])


def close_on_ray(opinions: pa.Table | Dataset, cube_ref: Any, terms: OutcomeTerms) -> pa.Table:
    """Outcomes (`OUTCOME_SCHEMA`) of all opinions whose horizon has closed inside the cube, in the order of the opinions.

    As `outcomes.judge_records` on one machine, bit for bit: abstentions and what is open are left out, what can never be
    judged is there with its reason.

    Parameters
    ----------
    opinions : records (`outcomes.READ` is what is read of them), of any authors and horizons.
    cube_ref : reference to a Cube in Ray's object store.
    """
    return _collected(closing(opinions, cube_ref, terms), OUTCOME_SCHEMA)


def closing(opinions: pa.Table | Dataset, cube_ref: Any, terms: OutcomeTerms) -> Dataset:
    """`close_on_ray` as a dataset that is judged as it is read. A yardstick a horizon is made, each by a task, once for all batches."""
    if isinstance(opinions, Dataset):
        spoken: Any = opinions.materialize()  # it is read twice
        horizons = spoken.unique("horizon_bars") if spoken.count() else []
    else:
        spoken, horizons = ray.data.from_arrow(_slices(opinions.select(READ.names))), opinions["horizon_bars"].unique().to_pylist()
    yardsticks = {int(h): _measure.remote(cube_ref, int(h), terms) for h in sorted(horizons)}
    return spoken.map_batches(
        partial(_judge, cube_box=[cube_ref], refs=yardsticks), batch_size=JUDGED_A_CALL, batch_format="pyarrow", zero_copy_batch=True
    )


def _slices(table: pa.Table) -> list[pa.Table]:
    """A part for each CPU, none beyond what one call judges; at least one, which may be empty."""
    size = min(max(-(-len(table) // _cpus()), 1), JUDGED_A_CALL)
    return [table.slice(k, size) for k in range(0, max(len(table), 1), size)]


@ray.remote(num_cpus=1)
def _measure(cube: Cube, horizon_bars: int, terms: OutcomeTerms) -> Yardstick:
    return Yardstick.of(cube, horizon_bars, terms)


def _judge(batch: Any, cube_box: list[Any], refs: dict[int, Any]) -> Any:
    if not len(batch):
        return OUTCOME_SCHEMA.empty_table()
    cube: Cube = ray.get(cube_box[0])
    mine = {h: refs[h] for h in batch["horizon_bars"].unique().to_pylist()}
    return judge_records(batch, cube.known_at, cube.symbols, dict(zip(mine, ray.get(list(mine.values())), strict=True)))


def _collected(dataset: Dataset, schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *in_order(dataset, schema)])


def in_order(dataset: Dataset, schema: pa.Schema, rows: int | None = None) -> Iterator[pa.Table]:
    """Batches of a dataset in the order of its blocks, `rows` in each (default: a block each), none empty."""
    dataset.context.execution_options.preserve_order = True  # inside a task the driver's settings do not hold
    batch: Any
    for batch in dataset.iter_batches(batch_size=rows, batch_format="pyarrow"):
        if len(batch):
            yield batch.select(schema.names).cast(schema)


def _cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
