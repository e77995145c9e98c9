"""A vendor that fails for one symbol of three, through the whole ingest."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif_ray.data.alpaca import AlpacaSource
from rlaif_ray.data.alpaca_access import Access
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import ingest
from tests.data.clock import Clock
from tests.servers.alpaca import AlpacaRest, days

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def source(vendor: AlpacaRest, access: Access, clock: Clock) -> AlpacaSource:
    for symbol in ("AAPL", "BAD", "MSFT"):
        vendor.bars["1Day", symbol] = days("2026-10-05", 30)
    hasty = replace(access, timeout_s=0.3)
    return AlpacaSource(("AAPL", "BAD", "MSFT"), start=dt.date(2026, 10, 1), access=hasty)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("429", r"gave HTTP 429 'too many requests\.' for .*6 tries"), ("500", "gave HTTP 500 'internal server error' for .*6 tries"),
        ("truncated", r"gave JSON that breaks off after \d+ bytes for .*6 tries"), ("cut", "gave no whole answer .*6 tries"),
        ("closed", r"gave no whole answer \(ConnectionError\) .*6 tries"), ("loop", "page token '7', the second time in one listing"),
        ("html", "content type 'text/html'"), ("null", "expected a JSON object that holds"),
    ],
)  # fmt: skip
def test_who_stays_broken_is_named_and_the_others_come_in(
    vendor: AlpacaRest, source: AlpacaSource, tmp_path: Path, fault: str, says: str
) -> None:
    lake = Lake(str(tmp_path / "lake"), "set")
    vendor.broken["BAD"] = ["", *[fault] * 99]
    done = ingest(source, lake, bad_rows="quarantine")
    assert done.symbols == ("AAPL", "MSFT") and done.rows == 2 * 30 and list(done.failed) == ["BAD"]
    assert re.search(says, done.failed["BAD"]) and "\n" not in done.failed["BAD"]
    assert lake.read("quarantine").select("symbol", "reason").rows() == [("BAD", done.failed["BAD"])]
    assert lake.read("bars")["symbol"].unique().sort().to_list() == ["AAPL", "MSFT"]
    # Mended, it comes in whole, and of the others only what is newer.
    vendor.broken, vendor.asked[:] = {}, []
    assert ingest(source, lake, bad_rows="quarantine").rows == 3 * 30
    asked = {query["symbols"]: query["start"][:10] for path, query in vendor.asked if path.endswith("bars")}
    assert asked == {"AAPL": "2026-11-06", "BAD": "2026-10-01", "MSFT": "2026-11-06"}


def test_what_passes_costs_nothing(vendor: AlpacaRest, source: AlpacaSource, tmp_path: Path) -> None:
    whole = ingest(source, Lake(str(tmp_path / "lake"), "whole"))
    faults = ["429", "500", "truncated", "cut", "closed"]
    vendor.page, vendor.broken["BAD"] = 10, ["mute", "", *faults, "", *faults, ""]
    mended = Lake(str(tmp_path / "lake"), "mended")
    done = ingest(source, mended)
    assert done == whole and not vendor.broken["BAD"]
