"""Figures of option chains: by hand on a handful of contracts, on the real GOOG chains, and what is refused."""

from __future__ import annotations

import datetime as dt
import math
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlaif_ray.config_data import LeanOptionFacts
from rlaif_ray.data import build_facts
from rlaif_ray.data.options import CHAIN_SCHEMA, LeanOptionSource, figures, read_chain
from rlaif_ray.data.tables import FACT_SCHEMA
from rlaif_ray.errors import DataError, MissingDataError, SchemaError

DAY = dt.date(2020, 1, 2)
HEADER = "#expiry,strike,right,open,high,low,close,volume,open_interest,implied_volatility,delta,gamma,vega,theta,rho"


def contract(days: int, strike: float, right: str, iv: float | None = None, delta: float | None = None, **more: Any) -> dict[str, Any]:
    return {"expiry": DAY + dt.timedelta(days=days), "strike": strike, "right": right, "implied_volatility": iv, "delta": delta, **more}


def chain(*contracts: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(contracts), schema=CHAIN_SCHEMA)


def both(days: int, strike: float, iv: float) -> list[dict[str, Any]]:
    return [contract(days, strike, right, iv) for right in "CP"]


def test_puts_over_calls() -> None:
    """30 + 15 puts over 60 calls; open interest of 10 over 40, of the contracts that say one."""
    rows = [contract(20, 100, "C", volume=60, open_interest=40), contract(20, 100, "P", volume=30, open_interest=10),
            contract(50, 90, "P", volume=15)]  # fmt: skip
    assert figures(chain(*rows), DAY, None) == {"put_call_volume": 0.75, "put_call_open_interest": 0.25}


def test_no_calls_or_no_puts_is_no_ratio() -> None:
    assert figures(chain(contract(20, 100, "P", volume=5)), DAY, None) == {}
    assert figures(chain(contract(20, 100, "P", volume=5), contract(20, 100, "C", volume=0)), DAY, None) == {}
    assert figures(chain(contract(20, 100, "P", volume=0), contract(20, 100, "C", volume=5)), DAY, None) == {"put_call_volume": 0.0}
    assert figures(chain(), DAY, 100.0) == {}


def test_the_volatility_at_the_money_lies_between_strikes_and_between_expiries_in_variance() -> None:
    """Spot 101 lies a quarter of the way from 100 (0.20, the mean of 0.18 and 0.22) to 104 (0.24): 0.21 at 20 days; 0.21 at 40 too."""
    near = [contract(20, 100, "C", 0.18), contract(20, 100, "P", 0.22), *both(20, 104, 0.24)]
    flat = figures(chain(*near, *both(40, 101, 0.21)), DAY, 101.0)
    assert flat == {"atm_iv_30d": pytest.approx(0.21, rel=1e-12)}
    # Variances of 0.04 * 20 and 0.16 * 40 have their mean at 30 days.
    steep = figures(chain(*both(20, 101, 0.2), *both(40, 101, 0.4)), DAY, 101.0)
    assert steep == {"atm_iv_30d": pytest.approx(math.sqrt((0.04 * 20 + 0.16 * 40) / 2 / 30))}


def test_the_slope_is_three_months_less_one() -> None:
    expiries = [*both(30, 100, 0.2), *both(90, 100, 0.26)]
    assert figures(chain(*expiries), DAY, 100.0) == {"atm_iv_30d": pytest.approx(0.2), "atm_term_slope": pytest.approx(0.06)}


def test_the_skew_is_a_put_less_a_call_of_the_same_delta() -> None:
    """The put at -0.25 lies half way from 0.30 to 0.28, the call has 0.21 itself."""
    rows = [contract(30, 90, "P", 0.30, -0.20), contract(30, 94, "P", 0.28, -0.30), contract(30, 110, "C", 0.21, 0.25)]
    assert figures(chain(*rows), DAY, None) == {"skew_25d": pytest.approx(0.08)}


def test_what_a_figure_needs_is_there_or_the_figure_is_not() -> None:
    wide = [*both(30, 80, 0.2), *both(30, 120, 0.2)]  # no strike within 5% of the spot
    assert figures(chain(*wide), DAY, 100.0) == {}
    assert figures(chain(*both(30, 100, 0.2)), DAY, None) == {}  # no spot
    assert figures(chain(*both(30, 98, 0.2)), DAY, 100.0) == {}  # no strike above it
    assert figures(chain(*both(10, 100, 0.2), *both(25, 100, 0.2)), DAY, 100.0) == {}  # no expiry after 30 days
    assert figures(chain(*both(30, 100, 0.0)), DAY, 100.0) == {}  # a volatility that could not be solved for
    far = [contract(30, 90, "P", 0.30, -0.10), contract(30, 94, "P", 0.28, -0.40), contract(30, 110, "C", 0.21, 0.25)]
    assert figures(chain(*far), DAY, None) == {}  # no delta near 0.25
    assert figures(chain(*both(0, 100, 0.9), *both(30, 100, 0.2)), DAY, 100.0) == {"atm_iv_30d": pytest.approx(0.2)}  # expires today


def put(folder: Path, *rows: str, day: str = "20200102", header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{day}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_a_days_chain_is_known_at_the_midnight_that_ends_it(tmp_path: Path) -> None:
    rows = (",,,1,1,1,100,7,,,,,,,", "20200201,100,C,1,1,1,1,4,,0.2,0.5,,,,", "20200201,100,P,1,1,1,1,2,,0.2,-0.5,,,,")
    put(tmp_path / "goog", *rows)
    facts = LeanOptionSource(str(tmp_path)).read("GOOG")["facts"]
    assert facts.schema == pl.Schema(FACT_SCHEMA)
    assert facts.select("name", "value", "unit", "started").rows() == [
        ("options/put_call_volume", 0.5, "ratio", DAY), ("options/atm_iv_30d", pytest.approx(0.2), "annual volatility", None),
    ]  # fmt: skip
    assert facts["timestamp"].unique().to_list() == [dt.datetime(2020, 1, 2, 21, tzinfo=dt.UTC)]
    assert facts["known_at"].unique().to_list() == [dt.datetime(2020, 1, 3, 5, tzinfo=dt.UTC)]


def test_a_later_chain_changes_no_earlier_fact(tmp_path: Path) -> None:
    rows = (",,,1,1,1,100,7,,,,,,,", "20200201,100,C,1,1,1,1,4,9,0.2,0.5,,,,", "20200201,100,P,1,1,1,1,2,3,0.2,-0.5,,,,")
    put(tmp_path / "goog", *rows)
    before = LeanOptionSource(str(tmp_path)).read("GOOG")["facts"]
    put(tmp_path / "goog", *(r.replace("0.2", "0.9") for r in rows), day="20200103")
    after = LeanOptionSource(str(tmp_path)).read("GOOG")["facts"]
    assert after.height > before.height and after.filter(pl.col("known_at") <= before["known_at"].max()).equals(before)


def test_contracts_by_their_osi_name(tmp_path: Path) -> None:
    header = "#symbol_id,symbol_value,open,high,low,close,volume,open_interest,implied_volatility,delta,gamma,vega,theta,rho"
    rows = ("GOOCV VP83T1ZUHROL,GOOG,1,1,1,100,7,,,,,,,", "x,GOOG  200201C00100000,1,1,1,1,4,,0.2,0.5,,,,",
            "x,GOOG  200201P00100000,1,1,1,1,2,,0.2,-0.5,,,,")  # fmt: skip
    facts = LeanOptionSource(str(put(tmp_path, *rows, header=header)), names=("GOOG",)).read("GOOG")["facts"]
    assert facts["value"].to_list() == [0.5, pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("20200201,100,C,1,1,1,1,four,,0.2,0.5,,,,", r"20200102.csv line 2: volume is 'four'; expected a number"),
        ("20200201,100,C,1,1,1,1,inf,,0.2,0.5,,,,", r"line 2: volume is 'inf'; expected a number"),
        ("soon,100,C,1,1,1,1,4,,0.2,0.5,,,,", r"line 2: expiry is 'soon'; expected yyyyMMdd"),
        ("20200201,100,X,1,1,1,1,4,,0.2,0.5,,,,", r"line 2: strike 100.0, right 'X'; expected a strike and C or P"),
        ("20200201,,C,1,1,1,1,4,,0.2,0.5,,,,", r"line 2: strike None, right 'C'"),
        ("20200201,100,C,1,1,1,1,4,,0.2,0.5,,,,,,,", r"cannot be read as a table"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says) as caught:
        LeanOptionSource(str(put(tmp_path, row)), names=("GOOG",)).read("GOOG")
    assert "\n" not in str(caught.value)


def test_other_bad_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere does not exist"):
        LeanOptionSource(str(tmp_path / "nowhere")).symbols()
    with pytest.raises(MissingDataError, match=r"holds no <underlying>/<yyyyMMdd>.csv"):
        LeanOptionSource(str(tmp_path)).symbols()
    put(tmp_path / "goog")
    assert LeanOptionSource(str(tmp_path)).symbols() == ["GOOG"]
    assert LeanOptionSource(str(tmp_path)).read("GOOG")["facts"].height == 0
    with pytest.raises(MissingDataError, match=r"no chains of 'GOGO'.*Did you mean 'GOOG'"):
        LeanOptionSource(str(tmp_path), names=("GOGO",)).symbols()
    with pytest.raises(MissingDataError, match=r"does not say which.*facts.names"):
        LeanOptionSource(str(tmp_path / "goog")).symbols()
    put(tmp_path / "x", header="#expiry,strike")
    with pytest.raises(SchemaError, match=r"no column 'right'"):
        LeanOptionSource(str(tmp_path / "x"), names=("X",)).read("X")
    put(tmp_path / "z", day="20201340")
    with pytest.raises(SchemaError, match=r"20201340\.csv is named by no day"):
        LeanOptionSource(str(tmp_path / "z"), names=("Z",)).read("Z")
    put(tmp_path / "y", day="20200104")
    with pytest.raises(DataError, match=r"day without a session"):
        LeanOptionSource(str(tmp_path / "y"), names=("Y",)).read("Y")


def test_the_real_goog_chains(real_data: Path) -> None:
    """Seven days of 2015. Ratios are checked against sums over the file's lines; volatilities are the vendor's, and wild."""
    folder = real_data / "intraday" / "lean" / "option_universes_goog"
    source = build_facts(LeanOptionFacts(type="lean_options", path=str(folder), names=("GOOG",)))
    facts = source.read("GOOG")["facts"]
    assert facts["timestamp"].n_unique() == 7 and facts.height == 7 * 5 - 3
    rows = [line.split(",") for line in (folder / "20151224.csv").read_text().splitlines()[2:]]
    on_the_eve = facts.filter(pl.col("timestamp") == dt.datetime(2015, 12, 24, 18, tzinfo=dt.UTC))  # a half day
    values = dict(on_the_eve.select("name", "value").iter_rows())
    for name, column in (("volume", 7), ("open_interest", 8)):
        puts, calls = (sum(float(r[column] or 0) for r in rows if r[2] == right) for right in "PC")
        assert values[f"options/put_call_{name}"] == pytest.approx(puts / calls, rel=1e-12)
    assert 0.1 < values["options/atm_iv_30d"] < 1 and on_the_eve["known_at"][0] == dt.datetime(2015, 12, 25, 5, tzinfo=dt.UTC)
    # The chain of the 22nd has one expiry, in two days: no volatility 30 days ahead can be told from it.
    first = facts.filter(pl.col("timestamp").dt.day() == 22)
    assert first["name"].to_list() == ["options/put_call_volume", "options/put_call_open_interest"]


def test_a_real_chain_holds_the_volume_of_its_own_day(real_data: Path) -> None:
    """Of the contracts traded on 24 December, far more have that day's volume in its own chain than in its neighbours'."""
    lean = real_data / "intraday" / "lean"
    traded = {}
    with zipfile.ZipFile(lean / "option_minute" / "goog" / "20151224_trade_american.zip") as archive:
        for member in archive.namelist():
            *_, right, strike, expiry = member.removesuffix(".csv").split("_")
            volume = sum(float(line.split(",")[5]) for line in archive.read(member).decode().splitlines())
            traded[expiry, float(strike) / 10_000, right[0].upper()] = volume
    agree = {}
    for day in ("20151223", "20151224", "20151228"):
        contracts, _ = read_chain(lean / "option_universes_goog" / f"{day}.csv")
        said = {(f"{e:%Y%m%d}", s, r): v for e, s, r, v in contracts.select("expiry", "strike", "right", "volume").iter_rows()}
        agree[day] = sum(said.get(key) == volume for key, volume in traded.items())
    assert agree == {"20151223": 11, "20151224": 76, "20151228": 9}
