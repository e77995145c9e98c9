"""The desk on Ray: one actor an analyst, asked in batches of dates, each batch within a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import ray

from rlaif_ray.agents import build, records
from rlaif_ray.agents.analysts import opinion_row, view_at
from rlaif_ray.config import Agents
from rlaif_ray.core import Abstention, Analyst, Cube, Opinion

BATCH_ROWS = 64  # dates a call: seconds of work, so that a deadline means something


class Seat:
    """One analyst in its own process."""

    def __init__(self, analyst: Analyst) -> None:
        self._analyst = analyst

    def ready(self) -> str:
        return self._analyst.name

    def opine(self, cube: Cube, rows: np.ndarray) -> pa.Table:
        """Opinions at each row as a `records` table: Arrow travels far lighter than objects."""
        return records.to_arrow(self._analyst.opine([view_at(cube, int(t)) for t in rows]))


def opinion_rows(rows: slice, every_bars: int) -> np.ndarray:
    """Rows at which the desk is asked so that there is an opinion on the table at every decision row of `rows`."""
    return np.arange(opinion_row(rows.start, every_bars), rows.stop, every_bars)


def opine_table(cube_ref: Any, rows: slice, section: Agents, *, analysts: Sequence[Analyst] | None = None) -> pa.Table:
    """Every analyst's word on every symbol, every `section.every_bars` bars, as a `records` table.

    Parameters
    ----------
    cube_ref : reference to a Cube in Ray's object store.
    rows : decision rows, absolute; the first opinions are those on the table at `rows.start`.
    analysts : the desk; default: what the section's roster seats.

    Returns
    -------
    Rows in order of moment, analyst, symbol, whatever arrived first. An analyst that has not answered a batch
    `section.deadline_s` seconds after it was asked abstains on all of it, saying so, and is replaced by a fresh copy.
    """
    analysts = build(section) if analysts is None else analysts
    cube: Cube = ray.get(cube_ref)
    asked_rows = opinion_rows(rows, section.every_bars)
    seats = [_seat(analyst) for analyst in analysts]
    parts: list[pa.Table] = []
    try:
        for start in range(0, len(asked_rows), BATCH_ROWS):
            batch = asked_rows[start : start + BATCH_ROWS]
            refs = [seat.opine.remote(cube_ref, batch) for seat in seats]
            answered, _ = ray.wait(refs, num_returns=len(refs), timeout=section.deadline_s)
            for k, ref in enumerate(refs):
                if ref in answered:
                    parts.append(ray.get(ref))
                else:
                    parts.append(records.to_arrow(_late(analysts[k].name, cube, batch, section)))
                    ray.kill(seats[k])
                    seats[k] = _seat(analysts[k])
    finally:
        for seat in seats:
            ray.kill(seat)
    frame = pl.from_arrow(pa.concat_tables([records.SCHEMA.empty_table(), *parts]))
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("as_of", maintain_order=True).to_arrow().cast(records.SCHEMA)


def _seat(analyst: Analyst) -> Any:
    """A seated analyst whose process is up: starting it is not part of anyone's deadline.

    Opining changes nothing, so a call that died with its worker may simply be made again.
    """
    seat = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)(Seat).remote(analyst)
    ray.get(seat.ready.remote())
    return seat


def _late(name: str, cube: Cube, rows: np.ndarray, section: Agents) -> list[Opinion | Abstention]:
    reason = f"it had not answered after {section.deadline_s:g} s (agents.deadline_s)"
    moments = cube.known_at[rows]
    return [Abstention(name, moment, symbol, section.horizon_bars, reason) for moment in moments for symbol in cube.symbols]
