"""EDGAR's records as tables: which filing became public when, and what each said first about a figure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from rlaif_ray.core import UTC
from rlaif_ray.data.facts import A_DAY, A_NUMBER, DAY, all_read, first_said
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import SchemaError

NEW_YORK = "America/New_York"
FILING_SCHEMA: dict[str, Any] = {
    "accession": pl.String, "form": pl.String, "filed": pl.Date, "document": pl.String, "accepted": UTC, "known_at": UTC,
}  # fmt: skip
_COLUMNS = {"accessionNumber": "accession", "form": "form", "filingDate": "filed", "reportDate": "about", "primaryDocument": "document",
            "acceptanceDateTime": "stamp"}  # fmt: skip

# 17 CFR 232.13: what begins to arrive after 17:30 bears the next business day's date, but for these. The gates stand open a
# little longer here, for what began in time and was accepted late.
_OPENS, _DAY_ENDS, _DAY_SURELY_ENDED, _CLOSES = dt.time(6), dt.time(17, 30), dt.time(18), dt.time(22, 30)
_DATED_UNTIL_CLOSE = r"^(3|4|5|144|SC 13[DG]|SCHEDULE 13[DG]|.*MEF)(/A)?$"


def filings(pages: Iterable[Mapping[str, Any]], lag_days: int) -> pl.DataFrame:
    """The filings of one company (`FILING_SCHEMA`), oldest first, from the column lists of its submissions.

    `accepted` is when EDGAR accepted it, null where that is not said. `known_at` is when the public could read it: at
    acceptance, or, where EDGAR dated it a later day because it came after 17:30, from 06:00 New York of that day, when EDGAR
    gives it out. Without an acceptance it is `lag_days` after the period that the filing is about, and not before the day
    that it bears is over in New York. `document` is the main document's name.

    The submissions end all acceptance times in `Z`, but only some are UTC. Apple's are the clock of New York: 10-Ks at 06:01,
    which as UTC would be of the night, when EDGAR is shut. NVIDIA's are UTC: 8-Ks at 20:21 that bear the same day's date,
    and hundreds that as New York's would be of the night; but its last ones are New York's again, so a company's rows do not
    vouch for each other. A row is therefore read as New York's clock, the later of the two, unless that is ruled out and UTC
    is not: by EDGAR's hours, or by the filing date, which counts only in a company none of whose earlier rows the hours rule out
    as UTC (the SEC moves dates on request: an 8-K of Apple's at 18:55 bears the same day's). What cannot be told is so four or
    five hours late, and never early.
    """
    parts = []
    for page in pages:
        missing = [c for c in _COLUMNS if not isinstance(page, Mapping) or not isinstance(page.get(c), list)]
        if missing:
            raise SchemaError(f"EDGAR's submissions lack {missing} in {str(page)[:80]}; expected its lists of columns")
        lists = {ours: page[theirs] for theirs, ours in _COLUMNS.items()}
        try:
            parts.append(pl.DataFrame(lists, dict.fromkeys(lists, pl.String)).with_columns(pl.col("about", "stamp").replace("", None)))
        except (TypeError, pl.exceptions.ShapeError) as error:
            why = str(error).splitlines()[0]
            raise SchemaError(f"EDGAR's submissions hold columns that are no table of text ({why}); expected lists of one length") from None
    if not parts:
        return pl.DataFrame(schema=FILING_SCHEMA)
    said = pl.concat(parts).unique("accession", keep="first", maintain_order=True)
    table = said.with_columns(
        pl.col("filed", "about").str.to_date(DAY, strict=False),
        pl.col("document").str.split("/").list.last(),  # a folder before it names a style sheet
        pl.col("stamp").str.head(19).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False),
    )  # fmt: skip
    all_read(said, table, "EDGAR's submissions", filed=A_DAY, about=A_DAY, stamp="a time such as 2020-01-31T16:30:00.000Z")
    zones = table.with_columns(
        utc=pl.col("stamp").dt.replace_time_zone("UTC"),
        new_york=pl.col("stamp").dt.replace_time_zone(NEW_YORK, ambiguous="latest", non_existent="null").dt.convert_time_zone("UTC"),
    )
    proven = pl.col("filed").filter(_is_open("new_york") & ~_is_open("utc")).min()
    ruled_out = ~_is_open("new_york") | (~_bears_its_date("new_york") & (pl.col("filed") > proven).fill_null(False).not_())
    told_utc = ruled_out & _is_open("utc") & _bears_its_date("utc")
    accepted = pl.when(told_utc).then("utc").otherwise(pl.coalesce("new_york", "utc"))
    held = pl.max_horizontal("accepted", _new_york("filed", dt.timedelta(hours=6)))
    known_at = pl.when(pl.col("accepted").is_null()).then(_guessed(pl.col("about"), lag_days)).otherwise(held)
    timed = zones.with_columns(accepted=accepted).with_columns(known_at=known_at)
    return timed.select(FILING_SCHEMA.keys()).cast(pl.Schema(FILING_SCHEMA)).sort("filed", "known_at", "accession")


def _is_open(moment: str) -> pl.Expr:
    """Whether EDGAR accepts filings then; it is shut at a null."""
    local = pl.col(moment).dt.convert_time_zone(NEW_YORK)
    return ((local.dt.weekday() <= 5) & local.dt.time().is_between(_OPENS, _CLOSES)).fill_null(False)


def _bears_its_date(moment: str) -> pl.Expr:
    """Whether the date of filing is the one that goes with an acceptance then."""
    local = pl.col(moment).dt.convert_time_zone(NEW_YORK)
    day, time = local.dt.date(), local.dt.time()
    in_time = (time <= _DAY_SURELY_ENDED) | pl.col("form").str.contains(_DATED_UNTIL_CLOSE)
    return (((pl.col("filed") == day) & in_time) | ((pl.col("filed") > day) & (time >= _DAY_ENDS))).fill_null(False)


def _guessed(period_end: pl.Expr, lag_days: int) -> pl.Expr:
    """When a filing was surely public whose acceptance is not known; a null period end tells nothing."""
    return pl.max_horizontal(_after(period_end) + dt.timedelta(days=lag_days), _new_york("filed", dt.timedelta(days=1)))


def _after(day: pl.Expr) -> pl.Expr:
    """The midnight (UTC) after a day."""
    return (day.cast(pl.Datetime("us")) + dt.timedelta(days=1)).dt.replace_time_zone("UTC")


def _new_york(day: str, after_midnight: dt.timedelta) -> pl.Expr:
    return (pl.col(day).cast(pl.Datetime("us")) + after_midnight).dt.replace_time_zone(NEW_YORK).dt.convert_time_zone("UTC")


def company_facts(symbol: str, answer: Mapping[str, Any], filed: pl.DataFrame, lag_days: int) -> pl.DataFrame:
    """What each filing said of a figure that had not been said before (`FACT_SCHEMA`): the first value, then restatements.

    A key is (name, unit, started, timestamp): concept with its taxonomy, unit, and the period. A later filing that repeats the
    value adds no row; one that says another adds one, with its own `known_at`. `timestamp` is the midnight (UTC) after the
    period's last day. Values stand as filed: a split changes what later filings say of earlier earnings a share.

    Parameters
    ----------
    answer : EDGAR's `companyfacts` of the company.
    filed : its `filings`; a figure is known from its filing on. Where the filing is not among them, the figure counts as
        known `lag_days` after its period's end, and not before the day that the filing bears is over in New York.

    Raises `SchemaError` where an entry is not as EDGAR writes them.
    """
    try:
        entries = [
            (f"{taxonomy}/{concept}", unit, e.get("start"), str(e["end"]), str(e["val"]), e["form"], e["accn"], str(e["filed"]))
            for taxonomy, concepts in answer["facts"].items()
            for concept, body in concepts.items()
            for unit, given in body["units"].items()
            for e in given
            if e["val"] is not None
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"company facts of {symbol} are not as EDGAR writes them ({error!r}); expected facts/taxonomy/concept/units"
        ) from None
    names = ("name", "unit", "started", "ended", "value", "form", "source_id", "filed")
    said = pl.DataFrame(entries, dict.fromkeys(names, pl.String), orient="row", strict=False)
    number = pl.col("value").cast(pl.Float64, strict=False)
    facts = said.with_columns(
        pl.col("started", "ended", "filed").str.to_date(DAY, strict=False), pl.when(number.is_finite()).then(number)
    )  # fmt: skip
    all_read(said, facts, f"company facts of {symbol}", started=A_DAY, ended=A_DAY, filed=A_DAY, value=A_NUMBER)
    facts = facts.join(filed.select(source_id="accession", public="known_at"), on="source_id", how="left").with_columns(
        symbol=pl.lit(symbol), timestamp=_after(pl.col("ended")), known_at=pl.coalesce("public", _guessed(pl.col("ended"), lag_days)),
    )  # fmt: skip
    told = first_said(facts.sort("filed", "known_at", "source_id", maintain_order=True))
    return told.select(FACT_SCHEMA.keys()).cast(pl.Schema(FACT_SCHEMA))

