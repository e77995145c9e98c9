"""FRED on loopback: series/observations by its JSON wire format, output_type 1, with its key, its pages and its refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers.loopback import Answer, Asked, Loopback, saying

FRED_KEY = "0123456789abcdef0123456789abcdef"
Row = tuple[str, str, str]  # realtime_start, date, value


def observations(rows: Sequence[Row], *, count: int | None = None, offset: int = 0) -> dict[str, Any]:
    return {
        "realtime_start": "1776-07-04", "realtime_end": "9999-12-31", "observation_start": "1600-01-01",
        "observation_end": "9999-12-31", "units": "lin", "output_type": 1, "file_type": "json", "order_by": "observation_date",
        "sort_order": "asc", "count": len(rows) if count is None else count, "offset": offset, "limit": 100000,
        "observations": [{"realtime_start": s, "realtime_end": "9999-12-31", "date": d, "value": v} for s, d, v in rows],
    }  # fmt: skip


def fred(series: Mapping[str, Sequence[Row]], most: int = 100_000) -> Loopback:
    """A server of `series` that gives at most `most` observations an answer."""

    def answer(asked: Asked) -> Answer:
        query = asked.query
        if asked.path != "/fred/series/observations":
            return Answer(b"not found", 404, "text/plain")
        if query.get("api_key") != FRED_KEY:
            said = f"Bad Request.  The value {query.get('api_key')} for variable api_key is not registered."
            return saying({"error_code": 400, "error_message": said}, 400)
        if query["series_id"] not in series:
            return saying({"error_code": 400, "error_message": "Bad Request.  The series does not exist."}, 400)
        rows = [r for r in series[query["series_id"]] if query["realtime_start"] <= r[0] <= query["realtime_end"]]
        start = int(query["offset"])
        return saying(observations(rows[start : start + min(most, int(query["limit"]))], count=len(rows), offset=start))

    return Loopback(answer)
