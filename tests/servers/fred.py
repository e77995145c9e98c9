"""FRED on loopback: a series' observations (output_type 1) and vintage dates by their JSON wire formats, with key, pages and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers.loopback import Answer, Asked, Loopback, saying

FRED_KEY = "0123456789abcdef0123456789abcdef"
MOST_VINTAGES = 2000
Row = tuple[str, str, str]  # realtime_start, date, value


def observations(rows: Sequence[Row], *, count: int | None = None, offset: int = 0) -> dict[str, Any]:
    return {
        "realtime_start": "1776-07-04", "realtime_end": "9999-12-31", "observation_start": "1600-01-01",
        "observation_end": "9999-12-31", "units": "lin", "output_type": 1, "file_type": "json", "order_by": "observation_date",
        "sort_order": "asc", "count": len(rows) if count is None else count, "offset": offset, "limit": 100000,
        "observations": [{"realtime_start": s, "realtime_end": "9999-12-31", "date": d, "value": v} for s, d, v in rows],
    }  # fmt: skip


def vintage_dates(days: Sequence[str], *, count: int, offset: int) -> dict[str, Any]:
    return {
        "realtime_start": "1776-07-04", "realtime_end": "9999-12-31", "order_by": "vintage_date", "sort_order": "asc", "count": count,
        "offset": offset, "limit": 10000, "vintage_dates": list(days),
    }  # fmt: skip


def fred(series: Mapping[str, Sequence[Row]], most: int = 100_000) -> Loopback:
    """A server of `series` that gives at most `most` observations or dates an answer."""

    def answer(asked: Asked) -> Answer:
        query, what = asked.query, asked.path.removeprefix("/fred/series/")
        if what not in ("observations", "vintagedates"):
            return Answer(b"not found", 404, "text/plain")
        if query.get("api_key") != FRED_KEY:
            return refusal(f"The value {query.get('api_key')} for variable api_key is not registered.")
        if query["series_id"] not in series:
            return refusal("The series does not exist.")
        first, last = query["realtime_start"], query["realtime_end"]
        rows, start = series[query["series_id"]], int(query["offset"])
        days = sorted({said for said, *_ in rows if first <= said <= last})
        end = start + min(most, int(query["limit"]))
        if what == "vintagedates":
            return saying(vintage_dates(days[start:end], count=len(days), offset=start))
        if len(days) > MOST_VINTAGES:
            return refusal(
                f"There are {len(days)} vintage dates in the specified real-time period: {first} to {last}.  This exceeds the maximum "
                f"number of vintage dates allowed for this file type ({MOST_VINTAGES})."
            )
        found = standing(rows, first, last)
        return saying(observations(found[start:end], count=len(found), offset=start))

    return Loopback(answer)


def standing(rows: Sequence[Row], first: str, last: str) -> list[Row]:
    """What stood when the span began, as if said on its first day, and what was said in it."""
    before = {date: (first, date, value) for said, date, value in sorted(rows) if said <= first}
    return sorted([*before.values(), *(row for row in rows if first < row[0] <= last)], key=lambda row: (row[1], row[0]))


def refusal(why: str) -> Answer:
    return saying({"error_code": 400, "error_message": f"Bad Request.  {why}"}, 400)
