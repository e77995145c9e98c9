"""FRED and ALFRED: economic series with the day on which each figure, and each revision of it, was published."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rlaif_ray.data.facts import A_DAY, A_NUMBER, DAY, all_read, first_said
from rlaif_ray.data.patience import Patience
from rlaif_ray.data.saved import read_json
from rlaif_ray.data.tables import FACT_SCHEMA, MACRO
from rlaif_ray.data.web import Web
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError, did_you_mean

KEY = "FRED_API_KEY"
A_MINUTE = 120  # requests that FRED allows
PAGE, DATES = 100_000, 10_000  # observations and vintage dates an answer, FRED's most
# FRED refuses a span of more than 2,000, which daily series reach in eight years. The one that stands when it begins may count.
VINTAGES = 1_999
_ST_LOUIS = "America/Chicago"
_FIELDS = ("realtime_start", "date", "value")


class FredFolder:
    """A folder of answers of `series/observations` (file_type=json), one a series, named `<series>.json` or `.json.gz`."""

    def __init__(self, path: str) -> None:
        # A worker's current folder is not the driver's.
        self.path = str(Path(path).expanduser().absolute())

    def series(self) -> list[str]:
        """The names of the files. Raises `MissingDataError` where there are none."""
        if not self._files:
            raise MissingDataError(f"{self.path} holds no <series>.json or .json.gz; check facts.path")
        return sorted(self._files)

    def pages(self, series: str) -> list[Mapping[str, Any]]:
        return [read_json(self._files[series])]

    @property
    def _files(self) -> dict[str, Path]:
        paths = [p for p in Path(self.path).glob("*.json*") if p.name.endswith((".json", ".json.gz"))]
        return {p.name.removesuffix(".gz").removesuffix(".json"): p for p in paths}


@dataclass(frozen=True)
class FredApi:
    """FRED's web interface. The key is read from the environment (`FRED_API_KEY`) and shown nowhere.

    Parameters
    ----------
    vintages_from, vintages_until : first and last day of publication asked for.
    timeout_s, bucket_file, clock, sleep : see `patience.Patience`.
    """

    vintages_from: dt.date = dt.date(1776, 7, 4)
    vintages_until: dt.date = dt.date(9999, 12, 31)
    timeout_s: float = 30.0
    url: str = "https://api.stlouisfed.org"
    bucket_file: str | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def pages(self, series: str) -> list[Mapping[str, Any]]:
        """All answers that hold the series. Raises `ConfigError` without a key, `DataError` where FRED refuses."""
        key = os.environ.get(KEY, "")
        if not key:
            raise ConfigError(f"{KEY} is not set in the environment; expected FRED's key of 32 letters and digits, or set facts.path")
        patience = Patience(
            "FRED", f"check the series' name, {KEY} and facts.start", A_MINUTE, 60.0, self.bucket_file, self.timeout_s,
            clock=self.clock, sleep=self.sleep,
        )  # fmt: skip
        web = Web(patience, secrets={"api_key": key})
        found: list[Mapping[str, Any]] = []
        for first, last in self._spans(web, series):
            found += self._listed(web, series, "observations", "observations", first, last, limit=str(PAGE), output_type="1")
        return found

    def _spans(self, web: Web, series: str) -> list[tuple[dt.date, dt.date]]:
        """The days of publication that are asked for, in spans with as many vintages as FRED takes at once."""
        pages = self._listed(web, series, "vintagedates", "vintage_dates", self.vintages_from, self.vintages_until, limit=str(DATES))
        try:
            days = [dt.date.fromisoformat(day) for page in pages for day in page["vintage_dates"]]
        except (TypeError, ValueError) as error:
            raise SchemaError(f"FRED's vintage_dates of {series} hold what is no day ({error}); expected {A_DAY}") from None
        starts = days[VINTAGES::VINTAGES]
        ends = [day - dt.timedelta(days=1) for day in starts]
        return list(zip([self.vintages_from, *starts], [*ends, self.vintages_until], strict=True))

    def _listed(
        self, web: Web, series: str, what: str, holds: str, first: dt.date, last: dt.date, **asked: str
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """All pages of one listing of a series, between two days of publication. Raises `SchemaError` for another wire format."""
        span = {"realtime_start": first.isoformat(), "realtime_end": last.isoformat()}
        pages: list[Mapping[str, Any]] = []
        offset = 0
        while not pages or offset < pages[-1]["count"]:
            page = web.json(
                f"{self.url}/fred/series/{what}", {"series_id": series, "file_type": "json", **span, **asked, "offset": str(offset)}
            )
            if not isinstance(page, dict) or not (isinstance(page.get(holds), list) and isinstance(page.get("count"), int)):
                raise SchemaError(f"FRED's {what} of {series} is {str(page)[:80]}; expected an object with a list of {holds} and a count")
            pages.append(page)
            if not page[holds]:
                break
            offset += len(page[holds])
        return pages


@dataclass(frozen=True)
class FredSource:
    """Economic series as facts of the symbol `MACRO`, named `fred/<series>`.

    Parameters
    ----------
    archive : a folder of answers, or FRED itself.
    names : series to keep; None: all of the folder.
    """

    archive: FredFolder | FredApi
    names: Sequence[str] | None = None

    def symbols(self) -> list[str]:
        return [MACRO]

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`facts` of all series. Raises `MissingDataError` for another symbol than `MACRO`, or a series that is not there."""
        if symbol != MACRO:
            raise MissingDataError(f"FRED has no symbol {symbol!r}; expected {MACRO!r}, which all series belong to")
        return {"facts": pl.concat([vintages(series, self.archive.pages(series)) for series in self._series()])}

    def _series(self) -> Sequence[str]:
        if isinstance(self.archive, FredApi):
            if not self.names:
                raise ConfigError("facts.names is not set; FRED needs the series to fetch, such as UNRATE and CPIAUCSL")
            return self.names
        known = self.archive.series()
        for name in self.names or ():
            if name not in known:
                near = did_you_mean(name, known)
                raise MissingDataError(f"facts.names asks for {name!r}; the folder has {len(known)} other series.{near}")
        return known if self.names is None else self.names


def vintages(series: str, pages: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """One row a value and the day of its publication (`FACT_SCHEMA`), from answers of `series/observations`, output_type 1.

    `timestamp` is the midnight (UTC) after the observation's date. `known_at` is the end of the vintage's day in St. Louis:
    FRED dates its vintages by its own calendar and does not say the hour; the figure was out by then, and may not have been
    a minute before. `.` is no value: what stood before it stands on. FRED says of a figure that stood when the span began
    that it was published on the span's first day: so it counts as known, unless an answer about an earlier span says it too.

    Raises `SchemaError` for another wire format, `DataError` where observations are missing from the answers.
    """
    rows: list[tuple[str, ...]] = []
    count, unit = 0, "lin"
    for page in pages:
        kind = page.get("output_type", 1) if isinstance(page, Mapping) else None
        if kind != 1 or not isinstance(page.get("observations"), list) or not isinstance(page.get("count", 0), int):
            raise SchemaError(
                f"FRED's {series} is {str(page)[:80]} with output_type {kind}; expected an answer of series/observations with "
                f"file_type=json and output_type=1"
            )
        try:
            rows += [tuple(str(row[field]) for field in _FIELDS) for row in page["observations"]]
        except (KeyError, TypeError) as error:
            raise SchemaError(f"an observation of FRED's {series} has no {error}; expected {', '.join(_FIELDS)}") from None
        count += 0 if page.get("offset") else page.get("count", len(page["observations"]))
        unit = str(page.get("units", unit))
    if len(rows) != count:
        raise DataError(f"FRED's {series} holds {len(rows)} of {count} observations; expected all: ask with limit={PAGE}")
    seen = pl.DataFrame(rows, dict.fromkeys(_FIELDS, pl.String), orient="row").filter(pl.col("value") != ".")
    number = pl.col("value").cast(pl.Float64, strict=False)
    read = seen.with_columns(
        pl.col("realtime_start", "date").str.to_datetime(DAY, time_unit="us", strict=False), pl.when(number.is_finite()).then(number),
        source_id="realtime_start",
    )  # fmt: skip
    all_read(seen, read, f"FRED's {series}", realtime_start=A_DAY, date=A_DAY, value=A_NUMBER)
    day = dt.timedelta(days=1)
    midnight = (pl.col("realtime_start") + day).dt.replace_time_zone(_ST_LOUIS)
    said = read.sort("realtime_start").select(
        symbol=pl.lit(MACRO), timestamp=(pl.col("date") + day).dt.replace_time_zone("UTC"),
        known_at=midnight.dt.convert_time_zone("UTC"), name=pl.lit(f"fred/{series}"), started=pl.lit(None, pl.Date), unit=pl.lit(unit),
        value="value", form=pl.lit("vintage"), source_id="source_id",
    ).cast(pl.Schema(FACT_SCHEMA))  # fmt: skip
    return first_said(said)
