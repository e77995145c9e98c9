"""The technical set as a whole: by hand, invariances, halts and other extremes, look-backs, and the pure law over each column."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import PRICE_COLUMNS, Panel
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.features.family import OF_SCALE
from rlaif_ray.features.technical import TECHNICAL
from tests.features.one_symbol import BY_NAME, ROWS, SPECS, bars, market, plain_market, spec, technical, values
from tests.laws import assert_apply, assert_pure, random_bars

SWINGS = {"swing_high_5", "swing_low_5", "swing_high_age_5", "swing_low_age_5", "resistance_distance_5", "support_distance_5"}
"""Defined once the market has turned, which no look-back can promise."""

# --- by hand -------------------------------------------------------------------------------------------------------


def test_returns_and_volatility_by_hand() -> None:
    panel = bars(close=np.exp([0.0, 0.01, 0.00, 0.02, 0.01, 0.03]))  # log returns +1, -1, +2, -1, +2 percent
    np.testing.assert_allclose(values(panel, "ret_1")[1:3], [np.expm1(0.01), np.expm1(-0.01)], rtol=1e-6)
    np.testing.assert_allclose(values(panel, "ret_5")[5], np.expm1(0.03), rtol=1e-6)
    # mean 0.6, deviations 0.4 -1.6 1.4 -1.6 1.4, squares sum to 0.16 + 2.56 + 1.96 + 2.56 + 1.96 = 9.2, over 4: 2.3
    np.testing.assert_allclose(values(panel, "vol_5"), [np.nan] * 5 + [0.01 * np.sqrt(2.3)], rtol=1e-6)


def test_range_volatilities_by_hand() -> None:
    """Each bar opens at 100, reaches 102 and 99, closes at 101, and the next opens at 100 again."""
    n = 23
    panel = bars(open=np.full(n, 100.0), high=np.full(n, 102.0), low=np.full(n, 99.0), close=np.full(n, 101.0))
    u, d, c = np.log([1.02, 0.99, 1.01])
    np.testing.assert_allclose(values(panel, "parkinson_21")[-1], (u - d) / np.sqrt(4 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(values(panel, "garman_klass_21")[-1], np.sqrt(0.5 * (u - d) ** 2 - (2 * np.log(2) - 1) * c**2), rtol=1e-6)
    rogers_satchell = u * (u - c) + d * (d - c)
    np.testing.assert_allclose(values(panel, "rogers_satchell_21")[-1], np.sqrt(rogers_satchell), rtol=1e-6)
    k = 0.34 / (1.34 + 22 / 20)  # no overnight and no open-close variance: what is left is (1 - k) Rogers-Satchell
    np.testing.assert_allclose(values(panel, "yang_zhang_21")[-1], np.sqrt((1 - k) * rogers_satchell), rtol=1e-5)


def test_a_total_return_not_a_price_change_is_what_features_see() -> None:
    """2-for-1 on the second bar with a dividend of 1 a new share: 100 -> 2 x (50 + 1) = 102, whatever the chart shows."""
    panel = bars(close=[100.0, 50.0, 55.0], split=[1.0, 2.0, 1.0], dividend=[0.0, 1.0, 0.0])
    np.testing.assert_allclose(values(panel, "ret_1"), [np.nan, 0.02, 0.10], rtol=1e-6)


# --- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2.0, 0.25])
def test_a_split_changes_no_column_at_all(ratio: float) -> None:
    frame = plain_market().frame
    after = pl.int_range(pl.len()) >= 200
    halved = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / ratio).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        pl.when(after).then(pl.col("volume") * ratio).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(ratio).otherwise(1.0),
    )
    assert technical(Panel.of(frame)).frame.equals(technical(Panel.of(halved)).frame)


def test_a_split_of_ten_for_one_moves_no_column_by_more_than_rounding() -> None:
    """Tenths are not exact in binary: what counts or compares (candles, turns of a stop) may tip over where two prices are equal."""
    frame = plain_market().frame
    after = pl.int_range(pl.len()) >= 200
    tenth = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / 10).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        pl.when(after).then(pl.col("volume") * 10).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(10.0).otherwise(1.0),
    )
    a, b = technical(Panel.of(frame)).frame, technical(Panel.of(tenth)).frame
    for s in SPECS:
        x, y = a[s.name].to_numpy(), b[s.name].to_numpy()
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5 * max(1.0, np.nanmax(np.abs(x))), err_msg=s.name)


@pytest.mark.parametrize("factor", [2.0**-20, 8.0, 2.0**13], ids=["prices of 1e-4", "8 times", "prices of 1e6"])
def test_levels_scale_and_all_other_columns_do_not_move(factor: float) -> None:
    frame = plain_market().frame
    scaled = frame.with_columns(pl.col(*PRICE_COLUMNS[:4], "dividend") * factor, pl.col("volume") * factor)
    a, b = technical(Panel.of(frame)).frame, technical(Panel.of(scaled)).frame
    grows = {"price": factor, "shares": factor, "usd": factor * factor}
    for s in SPECS:
        size = grows.get(s.unit, 1.0)
        assert (s.unit in OF_SCALE) == (s.unit in grows)
        np.testing.assert_allclose(b[s.name].to_numpy() / size, a[s.name].to_numpy(), rtol=1e-5, atol=1e-6, err_msg=s.name)


def test_a_months_gap_in_time_is_one_bar_like_any_other() -> None:
    frame = market().frame
    late = pl.int_range(pl.len()) >= 200
    later = [pl.when(late).then(pl.col(c).dt.offset_by("31d")).otherwise(pl.col(c)).alias(c) for c in ("timestamp", "known_at", "session")]
    names = [s.name for s in SPECS]
    a, b = technical(Panel.of(frame)).frame, technical(Panel.of(frame.with_columns(later))).frame
    assert a.select(names).equals(b.select(names))


# --- extremes ------------------------------------------------------------------------------------------------------


def test_halts_repeat_the_price_and_leave_volume_scores_undefined() -> None:
    frame = market().frame
    halted = pl.int_range(pl.len()).is_between(300, 302)
    gap = frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    x = values(Panel.of(gap), "ret_1", "range_1", "volume_z_21", "rsi_14", "ret_5")
    np.testing.assert_array_equal(x[300:303, :2], 0.0)
    assert np.isnan(x[300:303, 2]).all() and np.isfinite(x[303:310, 2]).sum() >= 5
    assert np.isfinite(x[300:, 3:]).all()


def test_a_halt_of_months_leaves_every_column_defined_again_after_its_look_back() -> None:
    frame = plain_market().frame
    halted = pl.int_range(pl.len()).is_between(100, 160)
    gap = technical(Panel.of(frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS))).frame
    for s in SPECS:
        x = gap[s.name].to_numpy()
        assert not np.isinf(x).any() and np.isfinite(x[max(s.look_back_bars, 161 + min(s.look_back_bars, ROWS - 165)) :]).any(), s.name


STILL = {  # of a price that never moves; the cycle columns say what TA-Lib makes of its own rounding
    "rsi_14": 0.0, "cmo_14": 0.0, "stochastic_k_14": 0.0, "stochastic_rsi_14": 0.0, "williams_r_14": 0.0, "ultimate_7_14_28": 0.0,
    "adx_14": 0.0, "plus_di_14": 0.0, "aroon_up_25": 100.0, "aroon_down_25": 100.0, "mfi_14": 0.0, "roc_12": 0.0, "fisher_10": 0.0,
    "stc_23_50_10": 0.0, "cci_20": 0.0, "cci_30": 0.0, "bollinger_width_20": 0.0, "donchian_width_20": 0.0, "natr_14": 0.0,
    "balance_of_power_1": 0.0, "vol_21": 0.0, "ret_1": 0.0, "drawdown_252": 0.0, "ulcer_14": 0.0, "doji": 1.0, "engulfing": 0.0,
    "supertrend_direction": -1.0, "supertrend_distance": 0.0, "sar_distance": 0.0, "ret_percent_rank_100": 0.0, "emv_14": 0.0,
    "force_13": 0.0, "obv_slope_21": 0.0, "cmf_21": 0.0,
}  # fmt: skip
NEVER_STILL = {  # 0/0 without movement
    "ret_1_scaled", "ret_5_scaled", "ret_21_scaled", "ret_63_scaled", "vol_ratio_5_63", "vol_ratio_21_252", "skew_63", "kurtosis_63",
    "autocorrelation_21", "atr_ratio_14_63", "close_location_1", "channel_20", "channel_252", "bollinger_b_20", "keltner_position_20",
    "volume_z_21", "volume_z_63", "price_volume_correlation_21", "vortex_plus_14", "vortex_minus_14", "linear_r2_21", "efficiency_10",
    "choppiness_14", "mass_9_25", "tsi_25_13", *SWINGS,
}  # fmt: skip
NEVER_WITHOUT_VOLUME = {
    "relative_volume_20", "volume_ratio_5_63", "dollar_volume_ratio_5_63", "obv_slope_21", "cmf_21", "adosc_3_10", "force_ratio_13",
    "vwap_session", "vwap_session_distance", "vwap_20", "vwap_distance_20", "volume_z_21", "volume_z_63", "price_volume_correlation_21",
}  # fmt: skip


@pytest.mark.parametrize("price", [100.0, 33.3, 1e-4, 1e6])
def test_a_price_that_never_moves_has_these_values(price: float) -> None:
    x = np.full(300, price)
    made = technical(bars(open=x, high=x, low=x, close=x, volume=np.full(300, 1100.0))).frame
    assert {s.name for s in SPECS if np.isnan(made[s.name][-1])} == NEVER_STILL
    for name, value in STILL.items():
        assert made[name][-1] == pytest.approx(value, abs=1e-6), name
    for s in SPECS:  # once defined, or never, it stays so
        whole = made[s.name].to_numpy()[s.look_back_bars :]
        assert np.isfinite(whole).all() or np.isnan(whole).all(), s.name


def test_without_volume_what_rests_on_prices_alone_stays() -> None:
    panel = Panel.of(plain_market().frame.with_columns(volume=pl.lit(0.0)))
    made = technical(panel).frame
    undefined = {s.name for s in SPECS if np.isnan(made[s.name].to_numpy()).all()}
    assert undefined == NEVER_WITHOUT_VOLUME
    assert made["emv_14"][-1] == 0.0 and made["obv"][-1] == 0.0 and made["mfi_14"][-1] == 0.0


@pytest.mark.parametrize("rows", [0, 1, 2, 22, 30])
def test_short_histories_are_all_warm_up(rows: int) -> None:
    made = technical(Panel(plain_market().frame.head(rows))).frame
    assert made.height == rows and set(made.columns) >= ({s.name for s in SPECS} if rows else set())
    for s in SPECS if rows else ():
        x = made[s.name].to_numpy()
        assert np.isnan(x[: s.look_back_bars]).all() and (rows <= s.look_back_bars or s.name in SWINGS or np.isfinite(x[-1])), s.name


def test_nothing_is_said_before_listing_and_after_delisting() -> None:
    frame = market().frame.with_columns(delisted=pl.int_range(pl.len()) >= 400)
    dead = pl.col("delisted") | (pl.int_range(pl.len()) < 10)
    frame = frame.with_columns(pl.when(dead).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    made = technical(Panel.of(frame)).frame
    for s in SPECS:
        x = made[s.name].to_numpy()
        assert np.isnan(x[: 10 + s.look_back_bars]).all() and np.isnan(x[400:]).all(), s.name
    x = values(Panel.of(frame), "ret_1")
    assert np.isfinite(x[11:400]).all()


def test_close_only_sources_get_what_closes_allow() -> None:
    made = set(technical(bars(close=np.linspace(10, 20, 60))).columns)
    assert made == {s.name for s in SPECS if s.inputs == ("close",)}
    assert {"ret_1", "rsi_14", "macd", "vol_21", "drawdown_252", "bollinger_upper_20"} <= made


def test_bad_input_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"A: close is -1\.0 on live row 2"):
        technical(bars(close=[1.0, 2.0, -1.0]))
    with pytest.raises(DataError, match=r"A: high is inf on live row 1"):
        technical(bars(close=[1.0, 2.0, 3.0], high=[1.0, np.inf, 3.0]))
    with pytest.raises(DataError, match="one symbol at a time; seen 2"):
        technical(random_bars(np.random.default_rng(0), 50, 2))


def test_a_column_that_travels_leaves_the_others_behind() -> None:
    column = technical(market()).frame["rsi_14"].to_arrow()
    assert column.get_total_buffer_size() == 4 * ROWS
    assert len(pickle.dumps(column)) < 4 * ROWS + 1000


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_columns_and_families_have_names_of_their_own_and_say_what_they_are() -> None:
    assert len(BY_NAME) == len(SPECS) >= 200
    keys = [f.key for f in TECHNICAL.families]
    assert len(set(keys)) == len(keys)
    for s in SPECS:
        assert s.help and "{" not in s.help and set(s.inputs) <= set(PRICE_COLUMNS), s.name


def test_each_column_is_first_defined_where_its_look_back_says() -> None:
    made = technical(plain_market()).frame
    for s in SPECS:
        first = np.flatnonzero(np.isfinite(made[s.name].to_numpy()))[0]
        assert made.schema[s.name] == pl.Float32
        assert first >= s.look_back_bars if s.name in SWINGS else first == s.look_back_bars, s.name


def test_look_backs_follow_other_parameters() -> None:
    panel = plain_market()
    for family in TECHNICAL.families:
        if not family.parameters or family.key.split("_")[0] in ("swing", "resistance", "support", "candles"):
            continue
        other = tuple(v + 1 + i if isinstance(v, int) else v for i, v in enumerate(family.rows[0]))
        s = family.specs([other])[0]
        first = np.flatnonzero(np.isfinite(values(panel, s)))[0]
        assert first == s.look_back_bars, (s.name, first)


def test_other_parameters_make_other_columns_under_names_that_say_so() -> None:
    assert spec("rsi", 7).name == "rsi_7" and spec("macd", 5, 35, 5).name == "macd_5_35_5"
    assert spec("rsi", 7).look_back_bars == 7 and spec("macd", 5, 35, 5).look_back_bars == 38
    with pytest.raises(ConfigError, match=r"features\.parameters\.rsi has \[0\]"):
        spec("rsi", 0)


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [62, 63, 64, 65, 66, 67, 68, 69, 70, 255, 333])
def test_no_column_sees_the_future(t: int) -> None:
    """Eight lengths in a row, so that no vector width hides a difference in how a tail is computed."""
    assert_pure(technical, market(), t)
    assert_apply(technical, market(), t, np.random.default_rng(t))


def test_a_bar_that_arrives_late_delays_what_rests_on_it() -> None:
    late = pl.when(pl.int_range(pl.len()) == 300).then(pl.col("known_at").dt.offset_by("20d")).otherwise(pl.col("known_at"))
    panel = Panel.of(market().frame.with_columns(known_at=late))
    known = technical(panel).frame["known_at"]
    assert (known[300:321] == panel.frame["known_at"][300]).all() and (known[321:] == panel.frame["known_at"][321:]).all()
    assert_apply(technical, panel, np.datetime64("2000-01-03T21:00") + np.timedelta64(310, "D"), np.random.default_rng(0))
