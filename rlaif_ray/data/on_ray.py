"""Ingest: every symbol read and cleaned by its own Ray task; of files that hold many, some symbols by one.

Refusing what is bad, nothing is written until all of them are good; setting it apart, what is good is written and what
is not is named. What is read waits in Ray's object store, which spills to disk: a source may be larger than memory.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from rlaif_ray.core import Source
from rlaif_ray.data.bar_tables import BadRows
from rlaif_ray.data.intake import OfMany, Report, Stored, Whole, append_bars, gaps_left, read_clean, source_tables, version_of
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.quarantine import not_read
from rlaif_ray.data.receipts import Ingest, record, recorded, request
from rlaif_ray.data.resume import Resume, Span, bars_before
from rlaif_ray.data.sessions import bars_per_year
from rlaif_ray.data.terms import refuse_other_latency, refuse_other_size
from rlaif_ray.errors import DataError, MissingDataError, RlaifError

TRIES = 3  # of a symbol whose source cannot be reached
# A commit costs 30 ms, and its rows lie in memory together, 110 bytes each.
SHARD_SYMBOLS, SHARD_ROWS = 32, 500_000


def ingest(
    source: Source, lake: Lake, *, start: dt.date | None = None, end: dt.date | None = None, latency_s: float = 0.0,
    bad_rows: BadRows = "refuse", least: int = 2,
) -> Ingest:  # fmt: skip
    """Read, check, clean and append a source's tables to the lake, one Ray task a symbol.

    Parameters
    ----------
    source : with `calendar` and `price_kind` if it knows them; else XNYS, and the set's split days tell. Where it has a
        `fingerprint` and the lake already holds what came of that, nothing is read. One that is `resume.Extensible` is asked for
        what is newer than what the lake has of it; all that is said is about both together.
    start, end : first and last day kept. Symbols without two bars between them are left out, and `quality` says so.
    latency_s : seconds from a bar's end until it is known.
    bad_rows : `refuse` raises the first symbol's error before anything is written; `quarantine` sets rows that cannot be right
        apart in a table of that name, leaves out symbols that cannot be used, and names them in `failed`.
    least : symbols that there must be: 2 for a portfolio, 1 where they are only kept.

    A symbol whose bars end more than 10 sessions before the set's stands still for ten and is taken as delisted on the
    eleventh: a row without prices says so (`quality`: `ends_early`), and the simulator closes the position at a loss. One
    that ends less early is a halt. So the set says the same whether it comes at once or day by day. Prices that are not raw
    have their splits in them, so their `split` column becomes 1.

    Raises `DataError` for fewer than `least` symbols, or two bar sizes in the source or between it and the dataset; `ConfigError`
    for another latency than the dataset's.
    """
    asked = request(source, start, end, latency_s, bad_rows)  # before anything is read: what changes meanwhile is not yet taken in
    if (done := recorded(lake, asked)) is not None:
        _need(least, done.symbols, "what came in before has", "check data.path and data.names")
        return done
    symbols = sorted(source.symbols())
    _need(least, symbols, "the source has", "check data.path and data.names")
    resume = Resume.of(source, lake)
    refs = _asked(source, lake, symbols, {} if resume is None else resume.held, (start, end, latency_s, bad_rows))
    reports: dict[str, dict[str, Any] | RlaifError] = {s: or_why(s, summary) for s, (summary, _) in refs.items()}
    failed = {s: str(r) for s, r in reports.items() if isinstance(r, RlaifError)}
    if bad_rows == "refuse":
        _raise_first(reports)
    good = {s: report for s, report in reports.items() if not isinstance(report, RlaifError)}
    kept = [s for s in good if good[s]["rows"]]
    _need(least, kept, f"between {start} and {end} there is", "check data.start and data.end" if not failed else f"{failed}")
    whole = Whole.of(source, {s: good[s] for s in kept})
    refuse_other_size(lake, whole.bar)
    refuse_other_latency(lake, kept, min(good[s]["delay_s"] for s in kept))

    fetched_at = dt.datetime.now(dt.UTC)
    if failed:
        lake.append("quarantine", not_read(failed, fetched_at), "failed")
    stored, lost = _committed(lake, {s: refs.pop(s)[1] for s in kept}, good, whole, fetched_at, start, end)
    if lost and (bad_rows == "refuse" or not stored):
        _raise_first(lost)
    failed |= {symbol: f"{symbol} did not come in whole: {error}" for symbol, error in lost.items()}
    kept, good = [s for s in kept if s not in lost], {s: report for s, report in good.items() if s not in lost}
    if resume is not None:
        resume.note(kept, fetched_at)
    first = min(good[s]["first_session"] for s in kept)
    done = Ingest(
        tuple(kept), sum(good[s]["rows"] for s in kept), _public(good, gaps_left(stored)),
        version_of(stored), whole.kind, whole.bar.total_seconds(),
        bars_per_year(whole.calendar, whole.bar, first, whole.last), {table: lake.version(table) for table in source_tables(lake)}, failed,
    )  # fmt: skip
    if not failed:
        record(lake, asked, done, fetched_at, start, end)
    return done


def _asked(source: Source, lake: Lake, symbols: Sequence[str], held: Mapping[str, Span], terms: tuple[Any, ...]) -> dict[str, Any]:
    """For each symbol what will hold its report, and what its tables."""
    shared, together = ray.put(source), source.together if isinstance(source, OfMany) else 1
    refs: dict[str, Any] = {}
    for group in (symbols[k : k + together] for k in range(0, len(symbols), together)):
        read: Any = _read_symbols.options(num_returns=2 * len(group)).remote(shared, lake, {s: held.get(s) for s in group}, *terms)
        refs |= dict(zip(group, zip(read[::2], read[1::2], strict=True), strict=True))
    return refs


def _committed(
    lake: Lake, tables: Mapping[str, Any], reports: dict[str, Report], whole: Whole, at: dt.datetime, *span: dt.date | None
) -> tuple[list[Stored], dict[str, RlaifError]]:  # fmt: skip
    """What the lake says after each shard; symbols whose shard could not be committed, and why. Completes `reports`."""
    shards = _shards(list(tables), reports)
    commits = [_commit.remote(lake, {s: tables[s] for s in shard}, {s: reports[s] for s in shard}, whole, at, *span) for shard in shards]
    stored: list[Stored] = []
    lost: dict[str, RlaifError] = {}
    for shard, commit in zip(shards, commits, strict=True):
        said = or_why(f"the shard {shard[0]} to {shard[-1]}", commit)
        if isinstance(said, RlaifError):
            lost |= dict.fromkeys(shard, said)
        else:
            reports |= said[0]
            stored.append(said[1])
    return stored, lost


def or_why(symbol: str, ref: Any) -> Any:
    """What a task of a symbol (or some) says; the error, where it is one of ours or Ray's own tries were used up."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RlaifError):
            return error.cause
        if not isinstance(error.cause, OSError):
            raise
        return MissingDataError(f"{symbol} could not be read in {TRIES} tries ({error.cause}); check the source")
    except (WorkerCrashedError, OutOfMemoryError) as error:
        return MissingDataError(f"{symbol} brought its worker down in {TRIES} tries ({_line(error)}); expected files that fit into memory")


def _line(error: RayError) -> str:
    return " ".join(str(error).split())[:120]


# Ray's stubs know less than its decorator.
@ray.remote(max_retries=TRIES - 1, retry_exceptions=[OSError])  # pyright: ignore[reportArgumentType]
def _read_symbols(
    source: Source, lake: Lake, held: dict[str, Span | None], start: dt.date | None, end: dt.date | None, latency_s: float,
    bad_rows: BadRows,
) -> list[Any]:  # fmt: skip
    """For each symbol in turn a small report (or the error, so that the driver raises the first by symbol) and the clean tables."""
    said: list[Any] = []
    if isinstance(source, OfMany) and len(held) > 1:
        try:
            source = source.among(list(held))
        except RlaifError as error:
            return [error, {}] * len(held)
    for symbol, span in held.items():
        stored = None if span is None else bars_before(lake, symbol, span)
        report, tables = read_clean(source, symbol, stored, start, end, latency_s, bad_rows)
        said += [report, {name: table.to_arrow() for name, table in tables.items()}]
    return said


@ray.remote(max_retries=TRIES - 1)
def _commit(
    lake: Lake, tables: dict[str, Any], reports: dict[str, Report], whole: Whole, at: dt.datetime, start: dt.date | None,
    end: dt.date | None,
) -> tuple[dict[str, Report], Stored]:  # fmt: skip
    """A shard of symbols into the lake, and what the lake says of them then. Once more after a lost worker: what is there is skipped."""
    clean: dict[str, Any] = dict(zip(tables, ray.get(list(tables.values())), strict=True))
    read = {s: {name: pl.DataFrame(pl.from_arrow(table)) for name, table in named.items()} for s, named in clean.items()}
    append_bars(lake, read, reports, whole, at)
    return reports, Stored.of(lake, list(read), start, end)


def _shards(symbols: Sequence[str], reports: Mapping[str, Report]) -> list[list[str]]:
    """Symbols that follow each other: 32 of them at most, of 500,000 bars together at most or a single one."""
    shards: list[list[str]] = [[]]
    rows = 0
    for symbol in symbols:
        rows += reports[symbol]["rows"]
        if shards[-1] and (rows > SHARD_ROWS or len(shards[-1]) == SHARD_SYMBOLS):
            shards.append([])
            rows = reports[symbol]["rows"]
        shards[-1].append(symbol)
    return shards


def _public(reports: Mapping[str, Report], missing: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Reports in plain JSON types, with the bars that each symbol lacks while others have one."""
    private = ("first_session", "last_session", "delay_s", "bar_s")
    public = {s: {k: v for k, v in r.items() if k not in private} for s, r in reports.items()}
    return {s: r | {"gaps_left": missing[s]} if s in missing else r for s, r in public.items()}


def _need(least: int, symbols: Sequence[str], where: str, knobs: str) -> None:
    if len(symbols) < least:
        why = ", a portfolio needs a choice" if least > 1 else ""
        found = f"one symbol only ({symbols[0]!r})" if symbols else "no symbol"
        raise (DataError if symbols else MissingDataError)(f"{where} {found}; expected at least {least}{why}: {knobs}")


def _raise_first(reports: Mapping[str, Any]) -> None:
    errors = [r for r in reports.values() if isinstance(r, RlaifError)]
    if errors:
        more = f" ({len(errors) - 1} more of {len(reports)} symbols have errors)" if len(errors) > 1 else ""
        raise type(errors[0])(f"{errors[0]}{more}")
