"""Opinions and what came of them, in the lake: each opinion as it was first said, each outcome once.

An opinion's `timestamp` is the moment that it was given as of; so is its outcome's, which is known from the moment that its
horizon closed. Nothing is changed: who says something else under the same id, or an outcome that comes out otherwise
(a bar was restated), is a revision with the moment of its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rlaif_ray.agents import records
from rlaif_ray.core import UTC, Opinion
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.revisions import REVISION
from rlaif_ray.errors import DataError, MissingDataError, SchemaError
from rlaif_ray.feedback.outcomes import IDENTITY, OUTCOME_SCHEMA, READ, opinion_ids

OPINIONS, OUTCOMES = "opinions", "outcomes"


def keep_opinions(lake: Lake, said: pa.Table, at: dt.datetime) -> int:
    """Take in what analysts said, in one commit; what is there already is skipped. Returns the rows added.

    Parameters
    ----------
    said : `agents.records.SCHEMA`, in any order; rows that are there twice count once. Abstentions are kept too, and never judged.
    at : when it is taken in. Who says something else under an id that is there is known to have done so from then on.

    Raises `SchemaError` for other columns, `DataError` for a p_up that is no probability, or two words under one id.
    """
    absent = [name for name in records.SCHEMA.names if name not in said.column_names]
    if absent:
        raise SchemaError(f"opinions without {absent}; expected the columns {records.SCHEMA.names}")
    said = said.select(records.SCHEMA.names).cast(records.SCHEMA)
    frame = _frame(said).with_columns(id=pl.Series(_ids(said), dtype=pl.String)).unique(maintain_order=True)
    wrong = frame.filter(pl.col("p_up").is_not_null() & ~((pl.col("p_up") > 0) & (pl.col("p_up") < 1)))
    if wrong.height:
        who = wrong.row(0, named=True)
        raise DataError(
            f"{who['author']} on {who['symbol']} at {who['as_of']} says p_up {who['p_up']}; expected strictly between 0 and 1, or none"
        )
    twice = frame.filter(pl.col("id").is_duplicated())
    if twice.height:
        who = twice.row(0, named=True)
        raise DataError(
            f"{who['author']} says two things on {who['symbol']} at {who['as_of']}; expected one, or numbered rounds or samples"
        )
    moment = pl.col("as_of").dt.replace_time_zone("UTC").cast(UTC)
    # A rule says the same whenever it is asked. What a model says of the past today was not known then.
    ruled = pl.col("origin").fill_null("rules") == "rules"
    known = pl.when(ruled).then(moment).otherwise(pl.max_horizontal(moment, pl.lit(at, UTC)))
    rows = frame.with_columns(timestamp=moment, known_at=known).select("id", "symbol", "timestamp", "known_at", *_REST)
    return lake.append(OPINIONS, rows, f"{rows.height} opinions", revised_at=at)


_REST = [name for name in records.SCHEMA.names if name not in ("as_of", "symbol")]


def opinions(lake: Lake, ids: Collection[str]) -> dict[str, Opinion]:
    """Opinions by id, each as it was first said. Raises `MissingDataError` for an id that is not there."""
    found = _by_id(lake, pl.col("id").is_in(sorted(ids))) if ids else {}
    lost = sorted(set(ids) - set(found))
    if lost:
        raise MissingDataError(
            f"no opinion {lost[0]} in {lake.uri}/{lake.dataset}; expected an id that `rlaif feedback list --symbol NAME` shows"
        )
    return found


def opinions_on(lake: Lake, symbol: str, as_of: dt.datetime | None = None) -> dict[str, Opinion]:
    """What was said on a symbol, at one moment or ever, by id, in order of time."""
    return _by_id(lake, (pl.col("symbol") == symbol) & (pl.lit(True) if as_of is None else pl.col("timestamp") == pl.lit(as_of, UTC)))


def _by_id(lake: Lake, which: pl.Expr) -> dict[str, Opinion]:
    frame = _first(lake, which & pl.col("p_up").is_not_null(), ["id", *records.SCHEMA.names])
    said = records.of_arrow(frame.drop("id").to_arrow().cast(records.SCHEMA))
    return {key: o for key, o in zip(frame["id"], said, strict=True) if isinstance(o, Opinion)}


def to_judge(lake: Lake, *, again: bool = False) -> pa.Table:
    """Opinions that have no outcome yet (`again`: all), in order of time, as `feedback.outcomes.judge_records` reads them."""
    frame = _first(lake, pl.col("p_up").is_not_null(), ["id", *READ.names])
    if not again:
        frame = frame.filter(~pl.col("id").is_in(_closed(lake).implode()))
    return frame.drop("id").to_arrow().cast(READ)


def count(lake: Lake) -> int:
    """Opinions that there are; an abstention is none."""
    if OPINIONS not in lake.tables():
        return 0
    return int(lake.ask(OPINIONS, lambda rows: rows.filter((pl.col(REVISION) == 0) & pl.col("p_up").is_not_null()).select(pl.len())).item())


def restated(lake: Lake) -> int:
    """Opinions under whose id something else was said later; the first word is the one that counts."""
    if OPINIONS not in lake.tables():
        return 0
    return int(lake.ask(OPINIONS, lambda rows: rows.filter(pl.col(REVISION) > 0).select(pl.col("id").n_unique())).item())


def keep_outcomes(lake: Lake, outcomes: pa.Table, at: dt.datetime) -> int:
    """Add outcomes (`OUTCOME_SCHEMA`) in one commit. Returns the rows added.

    The same outcome again is skipped, however late and in whatever order it comes; one that says something else becomes a
    revision that is known from `at` on.
    """
    frame = _frame(outcomes.select(OUTCOME_SCHEMA.names).cast(OUTCOME_SCHEMA)).unique(maintain_order=True)
    moments = pl.col("opened_at", "closed_at").dt.replace_time_zone("UTC").cast(UTC)
    rows = frame.with_columns(moments).rename({"opened_at": "timestamp"}).with_columns(known_at="closed_at")
    return lake.append(OUTCOMES, rows, f"{rows.height} outcomes", revised_at=at)


def outcomes(lake: Lake, as_of: dt.datetime | None = None) -> pa.Table:
    """`OUTCOME_SCHEMA` in order of `opened_at`: what was known at `as_of` (default: now), each in its last revision by then."""
    if OUTCOMES not in lake.tables():
        return OUTCOME_SCHEMA.empty_table()
    rows = lake.read(OUTCOMES, as_of=as_of).rename({"timestamp": "opened_at"})
    naive = pl.col("opened_at", "closed_at").dt.replace_time_zone(None)
    return rows.with_columns(naive).select(OUTCOME_SCHEMA.names).to_arrow().cast(OUTCOME_SCHEMA)


def standing(lake: Lake) -> pl.DataFrame:
    """`opinion_id` and `void` of every opinion that has an outcome, in its last revision."""
    if OUTCOMES not in lake.tables():
        return pl.DataFrame(schema={"opinion_id": pl.String, "void": pl.String})
    return lake.read(OUTCOMES, columns=["void"]).select("opinion_id", "void")


def _first(lake: Lake, which: pl.Expr, columns: list[str]) -> pl.DataFrame:
    """First words of the opinions asked for, in order of time and id, with `as_of` as records have it; none where there is no table."""
    if OPINIONS not in lake.tables():
        return pl.DataFrame(schema={"id": pl.String, **_frame(records.SCHEMA.empty_table()).schema}).select(columns)
    as_of = pl.col("timestamp").dt.replace_time_zone(None).alias("as_of")
    return lake.ask(
        OPINIONS, lambda rows: rows.filter((pl.col(REVISION) == 0) & which).sort("timestamp", "id").with_columns(as_of).select(columns)
    )  # fmt: skip


def _closed(lake: Lake) -> pl.Series:
    """Ids of the opinions that have an outcome."""
    if OUTCOMES not in lake.tables():
        return pl.Series(dtype=pl.String)
    return lake.ask(OUTCOMES, lambda rows: rows.select(pl.col("opinion_id").unique()))["opinion_id"]


def _ids(said: pa.Table) -> list[str]:
    """An abstention answered no question that it could be known by, in no round: it is known by who abstained, on what and when."""
    columns = {name: said[name] for name in IDENTITY}
    for name, nothing in (("round", 0), ("sample", 0), ("prompt_hash", "")):
        columns[name] = pc.fill_null(columns[name], pa.scalar(nothing, said.schema.field(name).type))
    return opinion_ids(pa.table(columns)).to_pylist()


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
