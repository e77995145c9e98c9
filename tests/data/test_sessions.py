import datetime as dt

import polars as pl
import pytest

from rlaif_ray.data.sessions import DAY, bar_ends, bar_size, bars_per_year, local_dates, schedule, trading_hours
from rlaif_ray.errors import ConfigError, DataError, SchemaError


def utc(*at: int) -> dt.datetime:
    return dt.datetime(*at, tzinfo=dt.UTC)


def test_closes_follow_daylight_saving_half_days_and_holidays() -> None:
    closes = dict(schedule("XNYS", dt.date(2019, 7, 1), dt.date(2019, 7, 5)).select("session", "close").rows())
    assert closes[dt.date(2019, 7, 2)] == utc(2019, 7, 2, 20)
    assert closes[dt.date(2019, 7, 3)] == utc(2019, 7, 3, 17)  # half day before the 4th
    assert dt.date(2019, 7, 4) not in closes
    winter = schedule("XNYS", dt.date(2019, 1, 2), dt.date(2019, 1, 2))
    assert winter["close"][0] == utc(2019, 1, 2, 21)


def test_calendar_reaches_back_further_than_its_library_does_by_default() -> None:
    sessions = schedule("XNYS", dt.date(1990, 1, 1), dt.date(1990, 12, 31))
    assert (sessions.height, sessions["session"][0]) == (253, dt.date(1990, 1, 2))


def test_closes_agree_with_the_published_table(real_data) -> None:
    published = pl.read_csv(real_data / "calendar" / "xnys_1990_2023.csv", infer_schema=False)
    day, close = published.columns[0], next(c for c in published.columns if "close" in c)
    theirs = published.select(session=pl.col(day).str.slice(0, 10).str.to_date(), close=pl.col(close).str.slice(0, 16)).filter(
        pl.col("session") < dt.date(2023, 1, 1)
    )
    ours = schedule("XNYS", dt.date(1990, 1, 1), dt.date(2022, 12, 31)).select(
        "session", pl.col("close").dt.strftime("%Y-%m-%dT%H:%M")
    )
    assert ours.equals(theirs)


def test_bars_per_year_is_counted() -> None:
    year = dt.date(2019, 3, 1), dt.date(2019, 4, 1)
    assert bars_per_year("XNYS", DAY, *year) == pytest.approx(252 * 365.25 / 365)
    assert bars_per_year("24/7", DAY, *year) == pytest.approx(365.25)
    # 249 full sessions of 26 quarter hours and three half days of 14 in 2019.
    assert bars_per_year("XNYS", dt.timedelta(minutes=15), *year) == pytest.approx((249 * 26 + 3 * 14) * 365.25 / 365)
    assert bars_per_year("XNYS", dt.timedelta(hours=1), *year) == pytest.approx((249 * 7 + 3 * 4) * 365.25 / 365)


def test_a_break_at_noon_is_no_trading() -> None:
    day = dt.date(2019, 3, 1)
    hours = [utc(2019, 3, 1, 1, 30), utc(2019, 3, 1, 4), utc(2019, 3, 1, 5), utc(2019, 3, 1, 8)]
    assert trading_hours("XHKG", day, day).select("begin", "end").rows() == [tuple(hours[:2]), tuple(hours[2:])]
    ends = bar_ends("XHKG", day, day, dt.timedelta(hours=1), True, True)["timestamp"].to_list()
    assert [f"{end:%H:%M}" for end in ends] == ["02:30", "03:30", "04:00", "06:00", "07:00", "08:00"]
    # 11 half hours a session, 5 where there is only a morning.
    half_hours = bars_per_year("XHKG", dt.timedelta(minutes=30), day, day) * 365 / 365.25
    mornings = schedule("XHKG", dt.date(2019, 1, 1), dt.date(2019, 12, 31)).filter(pl.col("close").dt.hour() == 4).height
    full = schedule("XHKG", dt.date(2019, 1, 1), dt.date(2019, 12, 31)).height - mornings
    assert half_hours == pytest.approx(full * 11 + mornings * 5)


def test_bar_size_is_the_commonest_step_in_any_order() -> None:
    ends = [utc(2019, 1, 4, 15, 0), utc(2019, 1, 4, 14, 45), utc(2019, 1, 4, 15, 15), utc(2019, 1, 7, 14, 45)]
    assert bar_size(pl.Series(ends)) == dt.timedelta(minutes=15)
    assert bar_size(pl.Series([dt.date(2019, 1, 3), dt.date(2019, 1, 4), dt.date(2019, 1, 7), dt.date(2019, 1, 8)])) == DAY
    assert bar_size(pl.Series([utc(2019, 3, 7, 21), utc(2019, 3, 8, 21), utc(2019, 3, 11, 20), utc(2019, 3, 12, 20)])) == DAY


def test_midnight_ends_the_day_before() -> None:
    assert local_dates(pl.Series([utc(2020, 1, 2), utc(2020, 1, 2, 0, 1)]), "24/7").to_list() == [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
    assert local_dates(pl.Series([utc(2020, 1, 3, 1)]), "XNYS").to_list() == [dt.date(2020, 1, 2)]  # 20:00 in New York


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"data.calendar is 'NYSE_'.*XNYS or 24/7"):
        schedule("NYSE_", dt.date(2020, 1, 1), dt.date(2020, 1, 2))
    with pytest.raises(DataError, match="at least 2"):
        bar_size(pl.Series([utc(2020, 1, 1)]))
    with pytest.raises(SchemaError, match="every 7 days"):
        bar_size(pl.Series([dt.date(2020, 1, 3), dt.date(2020, 1, 10), dt.date(2020, 1, 17)]))
