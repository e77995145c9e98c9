"""Map and factor files: by hand, on the real ones, and what is refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from rlaif_ray.data.files import FileSource
from rlaif_ray.data.lean_companies import Company, Span, holders, read_companies, read_events, with_events
from rlaif_ray.errors import MissingDataError, SchemaError
from tests.data.bars import daily
from tests.data.lean_files import put_company

D = dt.date


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def test_a_ticker_is_a_companys_up_to_and_including_the_row_of_its_map_file(tmp_path: Path) -> None:
    put_company(tmp_path, "new", ["20200102,old,N", "20200110,old,N", "20501231,new,Q"])
    put_company(tmp_path, "old.1", ["20200201,old,N", "20200301,old,N"])
    new, other = read_companies(tmp_path / "map_files")
    assert new.spans == (Span("old", D(2020, 1, 2), D(2020, 1, 10)), Span("new", D(2020, 1, 11), D(2050, 12, 31)))
    assert (new.first, new.ticker, other.last) == (D(2020, 1, 2), "new", D(2020, 3, 1))
    assert [(s.start, c.name) for s, c in holders([new, other])["old"]] == [(D(2020, 1, 2), "new"), (D(2020, 2, 1), "old.1")]
    assert holders([new, other]).keys() == {"old", "new"}


def test_the_dividend_is_the_step_of_the_factor_times_the_close(tmp_path: Path) -> None:
    """100 USD and a factor that rises from 0.98 to 1: 2 USD. A split 1:2 on the same day makes them 1 USD a new share."""
    path = write(tmp_path / "a.csv", "20200102,0.931,0.5,1", "20200106,0.931,0.5,50", "20200108,0.98,0.5,100", "20501231,1,1,0")
    assert read_events(path).rows() == [(D(2020, 1, 6), 1.0, 2.5), (D(2020, 1, 8), 2.0, 1.0)]


def test_what_rounding_took_from_splits_and_dividends_is_given_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "20140606,1,0.03571430,645.57", "20200828,1,0.25,499.23", "20501231,1,1,0")
    assert read_events(path)["split"].to_list() == [7.0, 4.0]
    odd = write(tmp_path / "b.csv", "20150424,1,0.997307,565.06", "20501231,1,1,0")  # GOOG paid in shares: no ratio of small numbers
    assert read_events(odd)["split"].to_list() == [pytest.approx(1 / 0.997307, rel=1e-12)]
    fine = write(tmp_path / "c.csv", "20201105,0.9967882,1,119.03", "20210204,0.9985079,1,137.39", "20501231,1,1,0")
    assert read_events(fine)["dividend"].to_list() == [0.205, 0.205]


def test_a_later_dividend_scales_all_factors_and_changes_no_earlier_event(tmp_path: Path) -> None:
    before = write(tmp_path / "a.csv", "20120808,0.9,0.5,600", "20121106,0.904,0.5,580", "20140606,0.908,0.5,645", "20501231,1,1,0")
    rows = [(0.9, 0.5, 600), (0.904, 0.5, 580), (0.908, 0.5, 645), (1, 1, 97)]
    days = ("20120808", "20121106", "20140606", "20140806")
    scaled = [f"{d},{p * 0.9951546:.7f},{s},{c}" for d, (p, s, c) in zip(days, rows, strict=True)]
    after = write(tmp_path / "b.csv", *scaled, "20501231,1,1,0")
    assert read_events(after).head(3).equals(read_events(before)) and read_events(after).height == 4


def test_an_event_is_on_the_first_bar_after_its_day_and_none_is_lost_in_a_gap() -> None:
    bars = daily("A", [10.0, 10.0, 10.0, 10.0])  # 2, 3, 6 and 7 January 2020
    days = [D(2019, 12, 31), D(2020, 1, 3), D(2020, 1, 7)]
    events = pl.DataFrame({"before": days, "split": [9.0, 2.0, 9.0], "dividend": [9.0, 0.5, 9.0]})
    marked = with_events(bars, events)
    assert marked["split"].to_list() == [1, 1, 2, 1] and marked["dividend"].to_list() == [0, 0, 0.5, 0]
    # 4 USD a share on the 3rd, 1:2 on the 6th, both without a bar: on the 7th 2 USD a new share, and twice the shares.
    gap = bars.filter(~pl.col("session").is_in([D(2020, 1, 3), D(2020, 1, 6)]))
    both = pl.DataFrame({"before": [D(2020, 1, 2), D(2020, 1, 3)], "split": [1.0, 2.0], "dividend": [4.0, 0.0]})
    assert with_events(gap, both).select("split", "dividend").rows() == [(1, 0), (2, 2)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["20200102,1,1,1", "2020-01-03,1,1,1"], r"factor_files/a.csv line 2: the date is '2020-01-03'; expected yyyyMMdd"),
        (["20200102,1"], r"line 1 has 2 columns; expected 3 or 4"),
        (["20200102,one,1,1"], r"line 1: 'one,1,1' holds no numbers"),
        (["20200102,inf,1,1"], r"line 1: factors are inf and 1.0"),
        (["20200102,0,1,1"], r"factors are 0.0"),
        (["20200102,0.9,1", "20501231,1,1"], r"changes after 2020-01-02, but no close"),
    ],
)
def test_a_factor_file_that_cannot_be_read_names_the_line(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        read_events(write(tmp_path / "factor_files" / "a.csv", *rows))


def test_a_map_file_that_cannot_be_read_names_the_line_and_none_at_all_the_knob(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"map_files does not exist.*data.reference.*null"):
        read_companies(tmp_path / "map_files")
    write(tmp_path / "map_files" / "a.csv", "20200102,a", "20190102,a")
    with pytest.raises(SchemaError, match=r"map_files/a.csv line 2: 2019-01-02 is not after the row before"):
        read_companies(tmp_path / "map_files")
    with pytest.raises(MissingDataError, match=r"b.csv does not exist.*splits and dividends"):
        read_events(tmp_path / "b.csv")


def test_the_real_map_files_know_who_was_who(real_data: Path) -> None:
    companies = {c.name: c for c in read_companies(real_data / "daily" / "lean" / "map_files")}
    assert [s.ticker for s in companies["qqq"].spans] == ["qqq", "qqqq", "qqq"]
    assert companies["fb"].first == D(2012, 5, 18) and companies["uso"].first == D(2006, 4, 10)
    # GOOG was the class A share until 2 April 2014: its history is GOOGL's.
    assert [c.name for _, c in holders(companies.values())["goog"]] == ["googl", "goog"]
    assert isinstance(companies["wm"], Company) and [s.ticker for s in companies["wm"].spans] == ["uw", "wmi", "wm"]


def test_aapls_real_events_are_those_of_another_vendor(real_data: Path) -> None:
    """Two splits and every dividend of 21 years against Alpha Vantage's; by hand 7:1, 4:1, 2.65 and 0.205 USD."""
    events = read_events(real_data / "daily" / "lean" / "factor_files" / "aapl.csv")
    by_day = {row[0]: row[1:] for row in events.iter_rows()}
    assert by_day[D(2014, 6, 6)] == (7.0, 0.0) and by_day[D(2020, 8, 28)] == (4.0, 0.0)
    assert by_day[D(2012, 8, 8)] == (1.0, 2.65) and by_day[D(2020, 11, 5)] == (1.0, 0.205)
    source = FileSource(str(real_data / "daily" / "pooksoft_daily_adjusted_1999_2021"), names=("AAPL",))
    theirs = source.read("AAPL")["bars"].sort("timestamp")
    until = theirs["session"][-1]
    ours = with_events(theirs, events.filter(pl.col("before") < until))
    assert ours["split"].to_list() == pytest.approx(theirs["split"].to_list(), rel=1e-5)  # they have 7.00000700001
    assert ours["dividend"].to_list() == pytest.approx(theirs["dividend"].to_list(), abs=1e-3)
    assert (ours["dividend"] > 0).sum() == 35
