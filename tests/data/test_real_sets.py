"""Every real set that is lent to us, read as it lies there; skipped where it is absent."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import VOLUME, Cube, Panel
from rlaif_ray.data.asof import build_cube
from rlaif_ray.data.bundled import Sp500Source
from rlaif_ray.data.clean import clean
from rlaif_ray.data.events import forward_adjust, total_returns
from rlaif_ray.data.files import FileSource
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.lean import LeanSource
from rlaif_ray.data.on_ray import ingest
from rlaif_ray.data.receipts import Ingest
from rlaif_ray.errors import DataError, MissingDataError


def through(source: FileSource | LeanSource | Sp500Source, folder: Path, **knobs: Any) -> tuple[Ingest, Cube]:
    lake = Lake(str(folder), "real")
    done = ingest(source, lake, **knobs)
    bars = Panel.of(lake.read("bars", done.symbols, done.versions["bars"]))
    return done, build_cube(bars, bars_per_year=done.bars_per_year, price_kind=done.price_kind)


def total(done: Ingest, count: str) -> int:
    return sum(q[count] for q in done.quality.values())


def test_pooksoft_is_raw_and_its_total_returns_are_the_vendors(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    path = real_data / "daily" / "pooksoft_daily_adjusted_1999_2021"
    done, cube = through(FileSource(str(path)), tmp_path)
    assert len(done.symbols) == 30 and "T" in done.symbols and done.price_kind == "raw"
    assert cube.close.shape == (5402, 30) and done.rows == 150_621
    assert [total(done, c) for c in ("gaps_filled", "halts", "duplicates_dropped", "violations")] == [0, 0, 0, 0]
    assert total(done, "split_days") == total(done, "split_jumps") == 33
    assert np.isnan(cube.close[0, done.symbols.index("FB")]) and not cube.tradable[0, done.symbols.index("FB")]
    # The vendor adjusts backwards, we forwards: the returns must be the same but for a dividend's few basis points.
    a = done.symbols.index("AAPL")
    theirs = pl.read_csv(path / "DA-AAPL-T-2021-04-21.csv")["adjusted_close"].to_numpy()
    ours = cube.close[:, a] * forward_adjust(cube.close[:, a], cube.splits[:, a], cube.dividends[:, a])
    np.testing.assert_allclose(np.diff(np.log(ours)), np.diff(np.log(theirs)), atol=2e-4)
    returns = total_returns(cube)
    assert np.nanmin(returns) > -0.6 and np.nanmax(returns) < 0.6  # a split left in would show as -0.75 or +3


def test_nasdaq100_is_split_adjusted_already(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    done, cube = through(FileSource(str(real_data / "daily" / "nasdaq100_2020_2023")), tmp_path)
    assert len(done.symbols) == 101 and done.price_kind == "split_adjusted"
    assert (total(done, "split_days"), total(done, "split_jumps")) == (21, 0)
    assert (cube.splits == 1).all() and (cube.dividends > 0).any()
    assert abs(np.nan_to_num(total_returns(cube)[:, done.symbols.index("TSLA")])).max() < 0.25
    listed = cube.close[:, done.symbols.index("GEHC")]
    first = int(np.argmax(np.isfinite(listed)))
    assert str(cube.times[first])[:10] == "2022-12-15" and not cube.tradable[:first, done.symbols.index("GEHC")].any()
    halted = np.argwhere(~cube.tradable & np.isfinite(cube.close))
    assert [(str(cube.times[t])[:10], cube.symbols[a]) for t, a in halted] == [("2023-06-09", "BIIB")]


def test_stocknet_has_an_adjusted_close_only(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    path = real_data / "daily" / "stocknet_46tickers_2012_2017"
    done, cube = through(FileSource(str(path)), tmp_path, start=dt.date(2013, 1, 1), end=dt.date(2014, 12, 31))
    assert len(done.symbols) == 46 and "BRK-A" in done.symbols and done.price_kind == "vendor_adjusted"
    assert str(cube.times[0])[:10] == "2013-01-02" and str(cube.times[-1])[:10] == "2014-12-31"
    theirs = pl.read_csv(path / "AAPL.csv").filter(pl.col("Date").is_between(pl.lit("2013-01-01"), pl.lit("2014-12-31")))
    np.testing.assert_allclose(cube.close[:, done.symbols.index("AAPL")], theirs["Adj Close"].to_numpy(), rtol=1e-12)
    assert (cube.splits == 1).all() and (cube.dividends == 0).all()


def test_intraday_stamps_at_the_end_in_new_york_newest_first(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    folder = real_data / "intraday" / "eqker_feb2019"
    done, cube = through(FileSource(str(folder / "*_15min.csv"), stamp="end"), tmp_path)
    assert len(done.symbols) == 12 and done.bar_s == 900 and cube.close.shape == (780, 12)
    assert [str(t)[:16] for t in (cube.times[0], cube.times[-1])] == ["2019-01-04T14:45", "2019-02-15T21:00"]
    assert cube.prices[-1, done.symbols.index("AAPL"), VOLUME] == 2_365_821
    assert 6_000 < done.bars_per_year < 6_600
    with pytest.raises(DataError, match=r"set data\.stamp to end"):
        FileSource(str(folder / "*_1min.csv")).read("AAPL")
    with pytest.raises(MissingDataError, match=r"differ in more than one part.*glob"):
        FileSource(str(folder)).symbols()


def test_minute_bars_that_lack_some_minutes(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    done, cube = through(FileSource(str(real_data / "intraday" / "eqker_feb2019" / "*_1min.csv"), stamp="end"), tmp_path)
    assert done.bar_s == 60 and len(cube.times) == 1950 and 90_000 < done.bars_per_year < 100_000
    # VIX starts a minute after the others, which is no gap; all else that is missing lies inside.
    assert total(done, "gaps_filled") == 67 and total(done, "gaps_left") == 0 and done.rows == 12 * 1950 - 1
    assert np.isfinite(cube.close[1:]).all()


def test_leans_days_are_raw_with_a_gap_where_a_ticker_is_missing(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    done, cube = through(LeanSource(str(real_data / "daily" / "lean" / "daily")), tmp_path)
    assert len(done.symbols) == 14 and done.price_kind == "raw" and done.rows == 61_983 and len(cube.times) == 5849
    assert total(done, "split_days") == total(done, "split_jumps") == 17
    # EEM lacks a session; QQQ was QQQQ from December 2004 to March 2011, and nobody sent that file.
    assert {s: q["gaps_filled"] for s, q in done.quality.items() if q["gaps_filled"]} == {"EEM": 1, "QQQ": 1588}
    facebook = done.symbols.index("FB")
    assert str(cube.times[np.isfinite(cube.close[:, facebook])][0])[:10] == "2012-05-18"
    assert np.nanmin(total_returns(cube)[:, done.symbols.index("AAPL")]) > -0.52  # -51.9% on 2000-09-29; a split left in: -0.86


def test_one_symbol_is_no_portfolio(real_data: Path, ray_session: None, tmp_path: Path) -> None:
    path = str(real_data / "reference" / "skender_quotes" / "default.csv")
    with pytest.raises(DataError, match=r"one symbol only \('default'\); expected at least 2"):
        ingest(FileSource(path), Lake(str(tmp_path), "one"))
    bars, quality = clean(FileSource(path).read("default")["bars"], calendar="XNYS")
    assert bars.height == quality["rows"] == 502 and quality["gaps_filled"] == 0


def test_the_bundled_set_is_close_only_and_vendor_adjusted(ray_session: None, tmp_path: Path) -> None:
    done, cube = through(Sp500Source(), tmp_path)
    assert len(done.symbols) == 20 and done.price_kind == "vendor_adjusted" and cube.close.shape == (8313, 20)
    assert np.isfinite(cube.close).all() and np.isnan(cube.prices[:, :, :3]).all() and np.isnan(cube.prices[:, :, VOLUME]).all()
    assert cube.tradable.all() and done.bars_per_year == pytest.approx(252, abs=0.5)
    with pytest.raises(MissingDataError, match="no 'APPL'"):
        Sp500Source().read("APPL")
