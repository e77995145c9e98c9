"""Microstructure from bars: by hand, spreads recovered from simulated bounces, impact from noiseless regressions, and the laws."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtr

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.features.family import OF_SCALE, FeatureSpec
from rlaif_ray.features.microstructure import MICROSTRUCTURE
from rlaif_ray.features.series import of_bars
from tests.laws import assert_apply, assert_pure, random_bars

SPECS = tuple(s for f in MICROSTRUCTURE.families for s in f.specs())
ROWS = 420


def bars(**columns: list[float] | np.ndarray) -> Panel:
    """One symbol, daily, with the columns given; the others are null."""
    n = len(next(iter(columns.values())))
    times = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(n)
    given = {k: np.asarray(v, float) for k, v in columns.items()}
    frame = pl.DataFrame({"symbol": ["A"] * n, "timestamp": times, "known_at": times} | given)
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in PRICE_COLUMNS if c not in columns)
    return Panel.of(frame.with_columns(pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)))


def flat(close: np.ndarray | list[float], **columns: list[float] | np.ndarray) -> Panel:
    """Bars without a range."""
    return bars(**{"open": close, "high": close, "low": close, "close": close, "volume": np.ones(len(close))} | columns)


def apply(panel: Panel) -> Panel:
    return of_bars({"bars": panel.frame}, SPECS)


def of(panel: Panel, family: str, *row: float) -> np.ndarray:
    """(T,) of one family with its own parameters."""
    wanted = next(f for f in MICROSTRUCTURE.families if f.key == family).specs([row])
    return of_bars({"bars": panel.frame}, wanted).frame[wanted[0].name].to_numpy()


def unbroken(seed: int = 0, rows: int = ROWS) -> Panel:
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))
    open_ = close * np.exp(rng.normal(0, 0.01, rows))
    high = np.maximum(open_, close) * np.exp(rng.exponential(0.01, rows))
    low = np.minimum(open_, close) * np.exp(-rng.exponential(0.01, rows))
    return bars(open=open_, high=high, low=low, close=close, volume=rng.lognormal(10.0, 1.0, rows))


def trades_with_a_spread(spread: float, volatility: float, days: int, seed: int) -> Panel:
    """Days of 390 trades, each at the bid or the ask of a random walk by a coin: what the estimators assume."""
    rng = np.random.default_rng(seed)
    mid = 4.0 + np.cumsum(rng.normal(0, volatility / np.sqrt(390), (days, 390)).ravel()).reshape(days, 390)
    price = np.exp(mid + 0.5 * spread * rng.choice([-1.0, 1.0], mid.shape))
    return bars(open=price[:, 0], high=price.max(1), low=price.min(1), close=price[:, -1], volume=np.ones(days))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_amihud_by_hand_passes_over_bars_that_did_not_trade() -> None:
    """+10% on 1,100 USD and -10% on 990, then a bar without trades: each percent costs 1/11,000 and 1/9,900 of a dollar's return."""
    panel = flat([100.0, 110.0, 99.0, 99.0, 99.0], volume=[1.0, 10.0, 10.0, 0.0, 0.0])
    expected = 1e6 * np.array([np.nan, np.nan, (0.1 / 1100 + 0.1 / 990) / 2, 0.1 / 990, np.nan])
    np.testing.assert_allclose(of(panel, "amihud", 2), expected, rtol=1e-6)


def test_amihud_ratio_is_the_log_of_a_change_in_volume() -> None:
    """Moves of one size on a fourth of the dollars cost four times as much."""
    close = 100.0 * np.exp(0.01 * (np.arange(30) % 2))
    usd = np.where(np.arange(30) < 25, 400.0, 100.0)
    move = np.where(np.arange(1, 30) % 2 == 1, np.expm1(0.01), -np.expm1(-0.01))
    cost = move / usd[1:]
    x = of(flat(close, volume=usd / close), "amihud_ratio", 4, 20)
    np.testing.assert_allclose(x[-1], np.log(cost[-4:].mean() / cost[-20:].mean()), rtol=1e-5)
    assert np.isnan(x[19]) and abs(x[20]) < 1e-6


def test_roll_by_hand() -> None:
    """A pure bounce of s alternates +s, -s: over four pairs the covariance (n - 1) is -4 s^2 / 3, so the estimate is 4 s / sqrt(3)."""
    panel = flat(np.exp([0.0, 0.01, 0.0, 0.01, 0.0, 0.01]))
    np.testing.assert_allclose(of(panel, "roll_spread", 4), [np.nan] * 5 + [0.04 / np.sqrt(3)], rtol=1e-6)
    trend = flat(np.exp(np.cumsum([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])))  # moves go on: no bounce
    assert of(trend, "roll_spread", 4)[-1] == 0.0


def test_corwin_schultz_two_days_by_hand() -> None:
    """Both days trade from 100 to 101: b = 2 x^2 and g = x^2, and with k = 3 - 2 sqrt(2), whose root is sqrt(2) - 1,

    a = x (2 - sqrt(2) - sqrt(k)) / k = x: the whole range is spread.
    """
    x = np.log(1.01)
    panel = bars(open=[100, 100], high=[101.0, 101.0], low=[100.0, 100.0], close=[100.5, 100.5], volume=[1, 1])
    by_hand = 2.0 * (np.exp(x) - 1.0) / (1.0 + np.exp(x))  # = 0.02 / 2.01: a spread of 1 at a mid of 100.5
    np.testing.assert_allclose(by_hand, 1.0 / 100.5, rtol=1e-12)
    np.testing.assert_allclose(of(panel, "corwin_schultz", 1), [np.nan, by_hand], rtol=1e-6)
    np.testing.assert_allclose(of(panel, "spread_share", 1)[1], by_hand / x, rtol=1e-6)


def test_corwin_schultz_takes_out_the_overnight_gap_and_knows_no_negative_spread() -> None:
    up = 1.2  # the second day lies 20% above the first day's close of 101, its low: shifted down, it spans 101 to 102.01
    gap = bars(open=[100, 121.2], high=[101.0, 102.01 * up], low=[100.0, 101.0 * up], close=[101.0, 122.0], volume=[1, 1])
    x = np.log(1.01)
    k = 3.0 - 2.0 * np.sqrt(2.0)
    a = (2.0 * x - np.sqrt(2.0) * x) / k - 2.0 * x / np.sqrt(k)  # g = (2 x)^2: -1.41 x
    assert a < 0 and of(gap, "corwin_schultz", 1)[1] == 0.0
    inside = bars(open=[100, 121.2], high=[102.0, 101.0 * up], low=[100.0, 100.0 * up], close=[100.0, 120.5], volume=[1, 1])
    own, other = np.log(1.02), np.log(1.01)  # shifted down to the close of 100, the second day lies within the first
    b = own**2 + other**2
    a = (np.sqrt(2 * b) - np.sqrt(b)) / k - own / np.sqrt(k)
    np.testing.assert_allclose(of(inside, "corwin_schultz", 1)[1], 2 * (np.exp(a) - 1) / (1 + np.exp(a)), rtol=1e-6)


def test_abdi_ranaldo_by_hand() -> None:
    """Closes at the ask, 1% above two middles that are the same: 4 x 0.01 x 0.01, whose root is 2%; between two middles: 0."""
    e = np.exp
    panel = bars(open=e([0, 0, 0.0]), high=e([0.02, 0.03, 0.2]), low=e([-0.02, -0.03, 0.0]), close=e([0.01, 0.02, 0.1]), volume=[1, 1, 1])
    np.testing.assert_allclose(of(panel, "abdi_ranaldo", 1), [np.nan, 0.02, 0.0], rtol=1e-5, atol=1e-9)


def test_kyle_and_hasbrouck_recover_a_noiseless_impact() -> None:
    """Each bar moves by lambda x what was bought on it, in units of the window's mean size."""
    rng = np.random.default_rng(1)
    volume = rng.integers(1, 20, 200).astype(float)
    sign = rng.choice([-1.0, 1.0], 200)
    close = np.exp(np.cumsum(np.r_[0.0, (0.0004 * sign * volume)[1:]]))
    means = np.convolve(volume, np.ones(63) / 63, "valid")
    np.testing.assert_allclose(of(flat(close, volume=volume), "kyle_lambda", 63)[63:], 0.0004 * means[1:], rtol=1e-5)
    root = np.sqrt(volume)
    close = np.exp(np.cumsum(np.r_[0.0, (0.0004 * sign * root)[1:]]))
    means = np.convolve(root, np.ones(63) / 63, "valid")
    x = of(flat(close, volume=volume / close), "hasbrouck_lambda", 63)  # dollars, not shares, are the size
    np.testing.assert_allclose(x[63:], 0.0004 * means[1:], rtol=1e-5)


def test_pastor_stambaugh_recovers_a_noiseless_reversal() -> None:
    """r_(t+1) = 0.001 - 0.1 r_t - 0.002 sign(r_t) v_t, v in units of its mean over the window."""
    rng = np.random.default_rng(2)
    usd, r = rng.uniform(0.5, 4.0, 150), np.zeros(150)
    r[1] = 0.01
    for t in range(1, 149):
        r[t + 1] = 0.001 - 0.1 * r[t] - 0.002 * np.sign(r[t]) * usd[t]
    close = np.exp(np.cumsum(r))
    x = of(flat(close, volume=usd / close), "pastor_stambaugh", 63)
    means = np.convolve(usd, np.ones(63) / 63, "valid")  # of the bars whose reversal is seen: one before
    np.testing.assert_allclose(x[64:], -0.002 * means[1:-1], rtol=1e-3)


def test_zero_shares_and_fht_by_hand() -> None:
    """Returns 0, +1%, 0, -1%: half are zero, deviation sqrt(2/3) percent, and Phi^-1(0.75) = 0.67449."""
    panel = flat(np.exp([0.0, 0.0, 0.01, 0.01, 0.0]), volume=[0.0, 1.0, 1.0, 0.0, 2.0])
    assert of(panel, "zero_return_share", 4)[-1] == 0.5
    np.testing.assert_array_equal(of(panel, "zero_volume_share", 4), [np.nan, np.nan, np.nan, 0.5, 0.25])
    np.testing.assert_allclose(of(panel, "fht_spread", 4)[-1], 2 * 0.01 * np.sqrt(2 / 3) * 0.6744898, rtol=1e-6)


def test_volume_variation_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1."""
    np.testing.assert_allclose(of(flat(np.ones(3), volume=[1.0, 2.0, 3.0]), "volume_variation", 3)[-1], 0.5)


def test_bulk_classification_and_vpin_buckets_by_hand() -> None:
    """Returns +a, -a, +a, -a with deviation a sqrt(4/3): Phi(+-0.866), so each bar leans +-w, w = 2 Phi(0.866) - 1.

    Volumes 3, 1, 2, 2 make two buckets of 4: 3 - 1 leans 2 w, 2 - 2 leans 0: VPIN = 2 w / 8. With 4, 1, 1, 2 the first bar
    fills a bucket and the rest lean -1 + 1 - 2: (4 + 2) w / 8. With 1, 5, 1, 1 the second bar is split into 3 and 2: 1 - 3
    and -2 + 1 - 1: (2 + 2) w / 8. With 8 at once two buckets lean 4 each.
    """
    close = np.exp([0.0, 0.01, 0.0, 0.01, 0.0])
    w = 2.0 * ndtr(np.sqrt(0.75)) - 1.0
    for volume, vpin, net in (([3, 1, 2, 2], 2, 2), ([4, 1, 1, 2], 6, 2), ([1, 5, 1, 1], 4, -4), ([0, 8, 0, 0], 8, -8)):
        panel = flat(close, volume=[9.0, *map(float, volume)])
        np.testing.assert_allclose(of(panel, "vpin", 2, 4), [np.nan] * 4 + [vpin * w / 8], rtol=1e-6)
        np.testing.assert_allclose(of(panel, "order_imbalance", 4)[-1], net * w / 8, rtol=1e-6)


def test_vpin_equals_a_plain_volume_clock() -> None:
    """The window's volume cut into lots of one share each, which a bucket is filled with in order."""
    rng = np.random.default_rng(3)
    buckets, window, rows = 5, 20, 60
    close, volume = np.exp(np.cumsum(rng.normal(0, 0.02, rows))), rng.integers(0, 12, rows).astype(float)
    found = of(flat(close, volume=volume), "vpin", buckets, window)
    r = np.diff(np.log(close), prepend=np.nan)
    for t in range(window, rows):
        at = slice(t - window + 1, t + 1)
        lean = 2.0 * ndtr(r[at] / r[at].std(ddof=1)) - 1.0
        lots = np.repeat(np.repeat(lean, volume[at].astype(int)), buckets)  # each share in as many parts as there are buckets
        np.testing.assert_allclose(found[t], np.abs(lots.reshape(buckets, -1).sum(1)).sum() / lots.size, rtol=1e-5)


# --- parity and what the sources promise -----------------------------------------------------------------------------


def test_roll_and_kyle_equal_numpy() -> None:
    panel = unbroken()
    r, volume = np.diff(panel.frame["close"].log().to_numpy(), prepend=np.nan), panel.frame["volume"].to_numpy()
    for t in (64, 200, ROWS - 1):
        now, before = r[t - 62 : t + 1], r[t - 63 : t]
        if t > 64:
            np.testing.assert_allclose(of(panel, "roll_spread", 63)[t], 2 * np.sqrt(max(0.0, -np.cov(now, before)[0, 1])), rtol=1e-5)
        size = volume[t - 62 : t + 1]
        slope = np.polyfit(np.sign(now) * size, now, 1)[0]
        np.testing.assert_allclose(of(panel, "kyle_lambda", 63)[t], slope * size.mean(), rtol=1e-5)


def test_edge_equals_the_published_steps() -> None:
    """Written again from the paper's definitions, over the last 21 pairs of bars."""
    panel = unbroken(4)
    o, h, lo, c = (np.log(panel.frame[x].to_numpy()[-22:]) for x in ("open", "high", "low", "close"))
    m = (h + lo) / 2
    o, h, lo, m, c1, h1, l1, m1 = o[1:], h[1:], lo[1:], m[1:], c[:-1], h[:-1], lo[:-1], m[:-1]
    tau = (h != lo) | (lo != c1)
    po, pc, pt = np.mean((o != h) & tau) + np.mean((o != lo) & tau), np.mean((c1 != h1) & tau) + np.mean((c1 != l1) & tau), tau.mean()

    def centred(x: np.ndarray) -> np.ndarray:
        return x - tau * x.mean() / pt

    x1 = -4 / po * centred(m - o) * (o - m1) - 4 / pc * centred(m - c1) * (c1 - m1)
    x2 = -4 / po * centred(m - o) * (o - c1) - 4 / pc * centred(o - c1) * (c1 - m1)
    squared = (x2.var() * x1.mean() + x1.var() * x2.mean()) / (x1.var() + x2.var())
    np.testing.assert_allclose(of(panel, "edge_spread", 21)[-1], np.sqrt(abs(squared)), rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "spread", "within"),
    [("roll_spread", 0.02, 0.1), ("edge_spread", 0.01, 0.1), ("abdi_ranaldo", 0.02, 0.2), ("corwin_schultz", 0.02, 0.2)],
)
def test_a_simulated_bounce_gives_its_spread(family: str, spread: float, within: float) -> None:
    """Over 4,000 days of 390 trades."""
    panel = trades_with_a_spread(spread, 0.01, 4001, 0)
    found = of(panel, family, 3999)[-1]
    assert abs(found / spread - 1.0) < within


# --- laws and extremes -----------------------------------------------------------------------------------------------


def test_names_units_and_number() -> None:
    names = [s.name for s in SPECS]
    assert len(set(names)) == len(names) == 21
    assert [s.name for s in SPECS if s.unit in OF_SCALE] == ["amihud_21"]
    assert all(s.source and s.help for s in SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_look_back_is_exact(spec: FeatureSpec) -> None:
    defined = np.isfinite(apply(unbroken()).frame[spec.name].to_numpy())
    assert not defined[: spec.look_back_bars].any() and defined[spec.look_back_bars :].all()


@pytest.mark.parametrize("t", [0, 1, 22, 64, 251, 300, ROWS - 1])
def test_what_comes_after_changes_nothing(t: int) -> None:
    panel = random_bars(np.random.default_rng(5), ROWS)
    assert_pure(apply, panel, t)
    assert_apply(apply, panel, t, np.random.default_rng(t))


def test_free_of_scale_but_for_what_says_so() -> None:
    frame = unbroken().frame
    scaled = Panel.of(frame.with_columns(pl.col(*PRICE_COLUMNS[:4]) * 8, pl.col("volume") * 4))
    a, b = apply(Panel(frame)).frame, apply(scaled).frame
    for s in SPECS:
        factor = 32.0 if s.unit in OF_SCALE else 1.0
        np.testing.assert_allclose(a[s.name].to_numpy(), factor * b[s.name].to_numpy(), rtol=2e-4, atol=1e-7, err_msg=s.name)


@pytest.mark.parametrize(("ratio", "apart"), [(8.0, 0.0), (10.0, 1e-4)])
def test_a_split_changes_nothing(ratio: float, apart: float) -> None:
    """8 for 1 divides without rounding: the same bits. 10 for 1 leaves the last bit of prices to chance."""
    frame = unbroken().frame.with_columns(split=pl.lit(1.0))
    after = pl.int_range(pl.len()) >= 200
    divided = frame.with_columns(
        *[pl.when(after).then(pl.col(c) / ratio).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS[:4]],
        pl.when(after).then(pl.col("volume") * ratio).otherwise(pl.col("volume")).alias("volume"),
        split=pl.when(pl.int_range(pl.len()) == 200).then(ratio).otherwise(1.0),
    )
    a, b = apply(Panel(frame)).frame, apply(Panel(divided)).frame
    for s in SPECS:
        np.testing.assert_allclose(b[s.name].to_numpy(), a[s.name].to_numpy(), rtol=apart, atol=0.0, err_msg=s.name)


def test_a_price_that_never_moves_has_no_spread_and_no_impact() -> None:
    x = apply(flat(np.full(300, 0.07), volume=np.full(300, 3.0))).frame
    last = {s.name: x[s.name][-1] for s in SPECS}
    zero = {n for n, v in last.items() if v == 0.0}
    none = {n for n, v in last.items() if np.isnan(v)}
    assert zero == {"amihud_21", "roll_spread_21", "roll_spread_63", "corwin_schultz_21", "corwin_schultz_63", "abdi_ranaldo_21",
                    "abdi_ranaldo_63", "zero_volume_share_63", "volume_variation_63"}  # fmt: skip
    assert last["zero_return_share_63"] == 1.0
    assert none == set(last) - zero - {"zero_return_share_63"}  # 0/0: what moves it, which way, and how often, nobody knows


def test_nothing_traded_leaves_impact_and_flow_undefined() -> None:
    panel = unbroken()
    x = apply(Panel(panel.frame.with_columns(volume=pl.lit(0.0)))).frame
    of_volume = {"amihud_21", "amihud_ratio_21_252", "kyle_lambda_63", "hasbrouck_lambda_63", "pastor_stambaugh_63", "volume_variation_63",
                 "order_imbalance_21", "order_imbalance_63", "vpin_50_250"}  # fmt: skip
    assert {s.name for s in SPECS if np.isnan(x[s.name][-1])} == of_volume
    assert x["zero_volume_share_63"][-1] == 1.0


def test_constant_volume_in_a_steady_trend_is_no_regression() -> None:
    """Signed volume is one number: its variance is rounding, and a slope on that would be noise."""
    x = apply(flat(100.0 * np.exp(0.01 * np.arange(300)), volume=np.full(300, 0.1))).frame
    assert np.isnan(x["kyle_lambda_63"][-1]) and np.isnan(x["pastor_stambaugh_63"][-1])


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_extreme_prices_are_finite(scale: float) -> None:
    frame = unbroken().frame.with_columns(pl.col(*PRICE_COLUMNS[:4]) * scale / 50.0)
    x = apply(Panel(frame)).frame
    assert all(np.isfinite(x[s.name].to_numpy()[s.look_back_bars :]).all() for s in SPECS)


@pytest.mark.parametrize("rows", [0, 1, 2, 22])
def test_short_histories_are_all_warm_up(rows: int) -> None:
    x = of_bars({"bars": unbroken().frame.head(rows)}, SPECS if rows else ()).frame
    assert x.height == rows
    assert all(np.isnan(x[s.name].to_numpy()[: s.look_back_bars]).all() for s in SPECS if s.name in x.columns)


def test_halts_and_a_month_without_bars_leave_no_infinity() -> None:
    frame = unbroken().frame
    halted = pl.int_range(pl.len()).is_between(300, 325)
    frame = frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    frame = frame.filter(~pl.int_range(pl.len()).is_between(340, 360))
    x = apply(Panel(frame)).frame
    assert not any(np.isinf(x[s.name].to_numpy()).any() for s in SPECS)
    assert np.isnan(x["amihud_21"][321]) and np.isfinite(x["amihud_21"][338])  # over half of the bars did not trade; then they do


def test_closes_alone_give_what_closes_allow() -> None:
    x = apply(bars(close=np.linspace(10.0, 20.0, 80)))
    assert x.columns == ["roll_spread_21", "roll_spread_63", "zero_return_share_63", "fht_spread_63"]
