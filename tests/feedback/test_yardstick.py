"""What opinions are measured by: by hand, against plain loops over one position at a time, and what may be known when."""

import numpy as np
import pytest

from rlaif_ray.feedback.scoring import climatological_quantiles
from rlaif_ray.feedback.yardstick import ALONE, CLOSED, NO_PRICE, OPEN, OutcomeTerms, Yardstick
from tests.laws import assert_apply, assert_pure, random_cube
from tests.markets import daily

NAN = float("nan")
FREE = OutcomeTerms(0.0)


def halting_cube(seed: int, rows: int = 200, assets: int = 5):
    """A random market in which some names are halted without a price, some list late and some die."""
    cube = random_cube(np.random.default_rng(seed), rows, assets, 0)
    rng = np.random.default_rng([seed, 1])
    cube.prices[rng.random((rows, assets)) < 0.03] = NAN
    cube.prices[: rows // 4, 0] = NAN
    cube.tradable[...] &= np.isfinite(cube.close)
    return cube


# --- by hand ------------------------------------------------------------------------------------------------------


def test_beta_times_the_universe_is_taken_out() -> None:
    # B stands still for two bars, so A moves twice as much as the mean of both: beta 2, and B's is 0
    cube = daily([[100, 100], [110, 100], [99, 100], [118.8, 100], [118.8, 120]])
    by = Yardstick.of(cube, 1, OutcomeTerms(0.0, beta_bars=2, volatility_bars=2))
    assert np.allclose(by.residual[2], [0.2 - 2 * 0.1, 0.0])
    # at row 3 the bars of rows 2 and 3 say the same betas; now B rises by 20% and the universe by 10%
    assert np.allclose(by.residual[3], [0.0 - 2 * 0.1, 0.2])


def test_the_other_members_of_the_sector_are_taken_out() -> None:
    cube = daily([[10, 10, 10, 10, 10], [14, 12, 10, 10, 9]])
    sectors = {"A": "chips", "B": "chips", "C": "banks", "D": "banks"}
    alone, within = (Yardstick.of(cube, 1, OutcomeTerms(0.0, sectors=s)).residual[0] for s in ({}, sectors))
    assert np.allclose(alone, [0.3, 0.1, -0.1, -0.1, -0.2])  # less the mean, 0.1
    assert np.allclose(within, [0.3 - 0.1, 0.1 - 0.3, 0.0, 0.0, -0.2])  # who has no sector keeps what it had


def test_the_way_of_both_positions_by_hand() -> None:
    # A against a B that stands still: half of A's return is residual. From row 2: +0.1, -0.05, +0.05
    cube = daily([[10, 10], [11, 10], [10, 10], [12, 10], [9, 10], [11, 10]])
    near, far = (Yardstick.of(cube, 3, OutcomeTerms(0.0, volatility_bars=2, barrier=b)) for b in (1.0, 1.5))
    a_bar = np.sqrt((0.05**2 + (0.5 / 11) ** 2) / 2)
    assert np.allclose(near.residual[2], [0.05, -0.05])
    assert np.allclose(near.volatility[2, 0], a_bar * np.sqrt(3))
    assert np.allclose(near.drawdown[:, 2, 0], [0.1, 0.15])  # the short: 0 to +0.1; the long: +0.1 to -0.05
    assert near.barrier[2].tolist() == [1.0, -1.0] and far.barrier[2].tolist() == [0.0, 0.0]


def test_what_has_no_price_no_company_or_no_end_yet_says_so() -> None:
    gone = np.zeros((4, 3), bool)
    gone[1:, 2] = True
    cube = daily([[10, NAN, 10], [10, 10, NAN], [11, NAN, NAN], [12, 10, NAN]], delisted=gone)
    by = Yardstick.of(cube, 2, FREE)
    assert by.void.tolist() == [[CLOSED, NO_PRICE, CLOSED], [CLOSED, CLOSED, NO_PRICE], [OPEN, NO_PRICE, NO_PRICE], [OPEN, OPEN, NO_PRICE]]
    assert np.isfinite(by.residual).tolist() == (by.void == CLOSED).tolist()
    lonely = daily([[10, NAN], [10, 10], [10, 10]])
    assert Yardstick.of(lonely, 1, FREE).void[0].tolist() == [ALONE, NO_PRICE]


def test_a_halt_leaves_the_last_price_standing_through_splits_and_dividends() -> None:
    # B is halted on row 1; on it two shares become one and a dollar is paid on that one: 20 kept and 1 paid for 20, then 22
    split, paid = np.ones((3, 2)), np.zeros((3, 2))
    split[1, 1], paid[1, 1] = 0.5, 1.0
    cube = daily([[10, 10], [10, NAN], [10, 22]], splits=split, dividends=paid)
    one, two = (Yardstick.of(cube, h, FREE).residual[0, 1] for h in (1, 2))
    assert np.isclose(one, 0.05 / 2) and np.isclose(two, (1.05 * 1.1 - 1) / 2)


def test_of_a_delisted_name_the_simulator_leaves_seven_tenths() -> None:
    gone = np.zeros((4, 2), bool)
    gone[2:, 0] = True
    cube = daily([[10, 10], [20, 10], [NAN, 10], [NAN, 10]], delisted=gone)
    assert np.allclose(Yardstick.of(cube, 3, FREE).residual[0], [0.2, -0.2])  # 10 -> 20 -> 14: +40% against 0


def test_prices_that_stand_still_have_no_scale() -> None:
    by = Yardstick.of(daily(np.full((40, 3), 10.0)), 5, OutcomeTerms(0.0, volatility_bars=10))
    assert np.isnan(by.volatility).all() and np.isnan(by.barrier).all() and (by.drawdown[:, :35] == 0).all()
    assert np.isnan(by.usual((0.5,))[0]).all()


def test_a_short_on_a_mirrored_path_equals_a_long() -> None:
    cube = random_cube(np.random.default_rng(3), 150, 2, 0)  # of two names at beta 1, each is the other's mirror
    by = Yardstick.of(cube, 10, OutcomeTerms(0.0, beta_bars=1000))
    both = np.isfinite(by.residual).all(axis=1)
    assert both.any() and np.allclose(by.residual[both, 0], -by.residual[both, 1])
    assert np.allclose(by.drawdown[1, both, 0], by.drawdown[0, both, 1])
    known = both & np.isfinite(by.barrier).all(axis=1)
    assert known.any() and np.array_equal(by.barrier[known, 0], -by.barrier[known, 1])


# --- against loops ------------------------------------------------------------------------------------------------


def worth(cube, row: int, asset: int, horizon: int) -> list[float]:
    """What a holding worth 1 at a row is worth on each of the next bars, one event after the other."""
    shares, cash, last = 1.0 / cube.close[row, asset], 0.0, cube.close[row, asset]
    out = []
    for k in range(row + 1, row + horizon + 1):
        shares, last = shares * cube.splits[k, asset], last / cube.splits[k, asset]
        paid = shares * cube.dividends[k, asset]
        if cube.delisted[k, asset]:
            cash, shares = cash + 0.7 * shares * last + paid, 0.0
        elif np.isfinite(cube.close[k, asset]):
            last = cube.close[k, asset]
        shares = shares + (paid / last if shares else 0.0)  # total return: what is paid is held on
        out.append(cash + shares * last)
    return out


def reference(cube, row: int, asset: int, horizon: int, beta: float, sectors: dict[str, str]) -> list[float]:
    """The residual value of a long position on each bar of its way."""
    names = range(len(cube.symbols))
    priced = [a for a in names if np.isfinite(cube.close[row, a]) and not cube.delisted[row, a]]
    worths = {a: worth(cube, row, a, horizon) for a in priced}
    sector = sectors.get(cube.symbols[asset])
    peers = [a for a in priced if sector and a != asset and sectors.get(cube.symbols[a]) == sector]
    way = []
    for k in range(horizon):
        market = np.mean([worths[a][k] - 1 for a in priced if cube.tradable[row, a]])
        left = {a: worths[a][k] - 1 - beta * market for a in priced}
        way.append(left[asset] - (np.mean([left[a] for a in peers]) if peers else 0.0))
    return way


@pytest.mark.parametrize(("seed", "horizon"), [(0, 1), (1, 5), (2, 20), (3, 60)])
@pytest.mark.parametrize("sectors", [{}, {"S00": "x", "S01": "x", "S02": "y", "S03": "x"}])
def test_the_kernel_walks_as_a_plain_loop_does(seed: int, horizon: int, sectors: dict[str, str]) -> None:
    cube = halting_cube(seed)
    by = Yardstick.of(cube, horizon, OutcomeTerms(0.0, beta_bars=10_000, sectors=sectors))
    checked = 0
    for row, asset in np.argwhere(by.void == CLOSED)[::7]:
        way = np.array([0.0, *reference(cube, row, asset, horizon, 1.0, sectors)])
        assert np.isclose(by.residual[row, asset], way[-1], rtol=1e-9, atol=1e-12)
        falls = [np.max(np.maximum.accumulate(x) - x) for x in (-way, way)]
        assert np.allclose(by.drawdown[:, row, asset], falls, rtol=1e-9, atol=1e-12)
        if np.isfinite(by.volatility[row, asset]):
            touched = way[np.abs(way) >= by.volatility[row, asset]]
            assert by.barrier[row, asset] == (np.sign(touched[0]) if len(touched) else 0.0)
        checked += 1
    assert checked > 40


def test_beta_and_volatility_are_those_of_a_plain_loop() -> None:
    cube, terms = halting_cube(4), OutcomeTerms(0.0, beta_bars=60, volatility_bars=20)
    by = Yardstick.of(cube, 1, terms)
    returns = cube.splits[1:] * (cube.close[1:] + cube.dividends[1:]) / cube.close[:-1] - 1
    returns = np.vstack([np.full((1, 5), NAN), returns])
    members = np.isfinite(returns) & cube.tradable
    market = np.array([np.mean(r[m]) if m.any() else NAN for r, m in zip(returns, members, strict=True)])

    def beta(t: int, a: int) -> float:
        x, y = market[max(0, t - 59) : t + 1], returns[max(0, t - 59) : t + 1, a]
        both = np.isfinite(x) & np.isfinite(y)
        return float(np.clip(np.polyfit(x[both], y[both], 1)[0], 0.0, 3.0)) if t >= 59 and both.sum() >= 30 else 1.0

    for t, a in [(150, 1), (150, 0), (199, 2), (25, 3), (80, 0)]:
        left = [(returns[k, a] - beta(max(k - 1, 0), a) * market[k]) ** 2 for k in range(t - 19, t + 1)]
        there = np.isfinite(left)
        expected = np.sqrt(np.mean(np.array(left)[there])) if there.sum() >= 10 else NAN
        assert np.isclose(by.volatility[t, a], expected, equal_nan=True)


def test_the_usual_quantiles_are_those_of_the_closed_outcomes_drawn_to_a_normal() -> None:
    by, levels = Yardstick.of(halting_cube(5), 5, OutcomeTerms(0.0, volatility_bars=20)), (0.1, 0.5, 0.9)
    usual, spread = by.usual(levels)
    normal = np.array([-1.2815515655, 0.0, 1.2815515655])
    for t, a in [(60, 1), (120, 2), (199, 3)]:
        closed = by.residual[: t - 4, a]
        closed = closed[np.isfinite(closed)]
        n = len(closed) / 5
        expected = (n * np.quantile(closed, levels) + 20 * normal * by.volatility[t, a]) / (n + 20)
        assert np.allclose(usual[t, a], expected)
        assert np.isclose(spread[t, a], (expected[2] - expected[0]) / (2 * 1.2815515655))
    known = np.isfinite(usual)
    assert known.any() and (np.diff(usual, axis=-1)[known.all(axis=-1)] > 0).all()
    assert by.usual(levels)[0] is usual  # made once


# --- what may be known when ---------------------------------------------------------------------------------------


def known_at_the_row(cube):
    by = Yardstick.of(cube, 5, OutcomeTerms(0.0, beta_bars=60, volatility_bars=20))
    quantiles, spread = by.usual((0.25, 0.5, 0.75))
    return {"climatology": by.climatology, "volatility": by.volatility, "quantiles": quantiles, "spread": spread}


def laid_at_the_closing(cube):
    by = Yardstick.of(cube, 5, OutcomeTerms(0.0, beta_bars=60, volatility_bars=20, sectors={"S00": "x", "S01": "x"}))
    values = np.stack([by.residual, *by.drawdown, by.barrier, np.where(by.void == OPEN, NAN, by.void)], axis=-1)
    return np.concatenate([np.full_like(values[:5], NAN), values[:-5]])


@pytest.mark.parametrize("what", [known_at_the_row, laid_at_the_closing])
@pytest.mark.parametrize("row", [90, 150])
def test_noise_after_t_moves_nothing_that_was_known_by_t(what, row: int) -> None:
    for seed in (6, 7):
        assert_apply(what, halting_cube(seed), row, np.random.default_rng(seed))
        assert_pure(what, halting_cube(seed), row)


def test_the_law_catches_quantiles_that_count_outcomes_before_they_close() -> None:
    def too_early(cube):
        by = Yardstick.of(cube, 5, OutcomeTerms(0.0))
        return climatological_quantiles(by.residual, 1, by.volatility, (0.5,))

    with pytest.raises(AssertionError):
        assert_apply(too_early, halting_cube(6), 150, np.random.default_rng(0))


def test_the_law_catches_a_volatility_of_the_bars_to_come() -> None:
    def too_early(cube):
        return np.vstack([Yardstick.of(cube, 5, OutcomeTerms(0.0)).volatility[1:], np.full((1, 5), NAN)])

    with pytest.raises(AssertionError):
        assert_pure(too_early, halting_cube(6), 150)
