from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import Cube, Trip
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.caps import apply_cap
from rlaif_ray.portfolio import risk
from rlaif_ray.portfolio.limit_rules import CONTROLS, EQUITY, EXPOSURE, LOSSES, PEAK, cap_names
from rlaif_ray.portfolio.limits import TURBULENCE_BARS, Controls, Limits, sector_numbers
from rlaif_ray.rl.projection import ActionSet
from tests.markets import daily

EVERYTHING = Limits(0.3, 0.5, 0.15, 5, 0.02, 0.03, 0.9, 0.15, 0.02, 0.9, 0.02)


def flat_market(bars: int, assets: int) -> Cube:
    return daily(np.full((bars, assets), 100.0))


def random_market(bars: int, assets: int, seed: int = 0) -> Cube:
    return daily(100.0 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).standard_normal((bars, assets)), axis=0)))


def hourly(bars: int, a_day: int) -> Cube:
    """Two flat names over sessions of `a_day` hourly bars, the last of which ends at midnight."""
    days, hours = np.divmod(np.arange(bars), a_day)
    times = np.datetime64("2020-01-02", "us") + days * np.timedelta64(1, "D") - (a_day - 1 - hours) * np.timedelta64(1, "h")
    return replace(flat_market(bars, 2), times=times, known_at=times.copy())


def names(mask: int) -> set[str]:
    return {control for k, control in enumerate(CONTROLS) if mask >> k & 1}


def decide(
    controls: Controls, net: list[float], targets: list[float], held: list[float] | None = None
) -> tuple[np.ndarray, list[set[str]]]:
    """(T,A) admitted and T sets of trips: one path that asks for the same at rows 0, 1, ..., with bars `net` in between."""
    state, admitted, trips = controls.start(1), [], []
    asked, holds = np.array([targets]), np.array([targets if held is None else held])
    for row in range(len(net) + 1):
        if row:
            controls.observe(state, np.array([row]), np.array(net[row - 1 : row]))
        weights, mask = controls.admit(state, np.array([row]), holds, asked)
        admitted.append(weights[0])
        trips.append(names(int(mask[0])))
    return np.array(admitted), trips


def test_name_cap_sends_what_is_cut_to_the_others_of_the_side():
    controls = Controls.of(flat_market(3, 4), Limits(max_weight=0.4), {})
    weights, trips = decide(controls, [], [0.6, 0.3, 0.1, 0.0])
    assert weights[0] == pytest.approx([0.4, 0.4, 0.2, 0.0])  # 0.2 of excess makes 0.3 to 0.45, which is over in turn
    assert trips == [{"name_cap"}]
    weights, _ = decide(controls, [], [0.7, 0.1, -0.6, -0.1])
    assert weights[0] == pytest.approx([0.4, 0.4, -0.4, -0.3])
    weights, _ = decide(controls, [], [0.9, 0.0, -1.0, 0.0])
    assert weights[0] == pytest.approx([0.4, 0.0, -0.4, 0.0])


def test_long_only_name_cap_is_that_of_execution():
    rng = np.random.default_rng(0)
    for _ in range(500):
        weights, cap = rng.dirichlet(np.full(7, 0.4)) * rng.choice([1.0, 0.6]), rng.uniform(0.15, 0.6)
        capped = weights.copy()
        assert cap_names(capped, cap) == weights.max()
        assert capped == pytest.approx(apply_cap(weights, cap), abs=1e-15)


def test_a_cap_below_one_over_a_becomes_that():
    weights, _ = decide(Controls.of(flat_market(3, 2), Limits(max_weight=0.1), {}), [], [0.9, 0.1])
    assert weights[0] == pytest.approx([0.5, 0.5])


def test_sector_cut_is_cash():
    controls = Controls.of(flat_market(3, 4), Limits(max_sector=0.5), {"A": "tech", "B": "tech", "C": "oil"})
    weights, trips = decide(controls, [], [0.5, 0.3, 0.1, 0.1])
    assert weights[0] == pytest.approx([0.3125, 0.1875, 0.1, 0.1])
    assert trips == [{"sector_cap"}]
    weights, trips = decide(controls, [], [0.1, 0.1, 0.1, 0.7])  # who is in no sector is under no sector's cap
    assert weights[0].tolist() == [0.1, 0.1, 0.1, 0.7]
    assert trips == [set()]
    weights, _ = decide(controls, [], [0.5, -0.5, 0.0, 0.0])  # both sides count
    assert weights[0] == pytest.approx([0.25, -0.25, 0.0, 0.0])


@pytest.mark.parametrize("long_short", [False, True])
def test_what_an_action_set_allows_trips_no_cap(long_short):
    rng, sectors = np.random.default_rng(0), {name: f"sector {k % 3}" for k, name in enumerate("ABCDEFGH")}
    controls = Controls.of(flat_market(3, 8), Limits(max_weight=0.25, max_sector=0.3), sectors)
    allowed = ActionSet(0.25, long_short, sector_numbers("ABCDEFGH", sectors), 0.3)
    targets = allowed.targets(rng.uniform(-1, 1, (500, 8)), np.ones((500, 8), bool))
    admitted, trips = controls.admit(controls.start(500), np.zeros(500, np.int64), np.zeros((500, 8)), targets)
    assert not trips.any()
    assert (admitted == targets).all()


def test_a_cut_of_one_side_does_not_leave_the_other_alone_beyond_net_one():
    controls = Controls.of(flat_market(3, 4), Limits(max_sector=0.5), {"A": "tech", "B": "tech", "C": "oil", "D": "gas"})
    weights, _ = decide(controls, [], [-0.4, -0.5, 0.0, 0.0])
    assert weights[0].sum() == pytest.approx(-0.5)
    controls = Controls.of(flat_market(3, 4), Limits(max_weight=0.75), {})
    weights, _ = decide(controls, [], [0.0, 0.9, -0.7, -0.4])  # net -0.2; the long is cut to 0.75: -0.35, still within
    assert weights[0] == pytest.approx([0.0, 0.75, -0.7, -0.4])
    controls = Controls.of(flat_market(3, 6), Limits(max_weight=0.3), {})
    weights, _ = decide(controls, [], [0.7, 0.0, -0.3, -0.3, -0.3, -0.4])
    assert weights[0] == pytest.approx([0.3, 0.0, -0.3, -0.3, -0.3, -0.3])
    controls = Controls.of(flat_market(3, 3), Limits(daily_loss=0.01), {})
    weights, _ = decide(controls, [-0.02], [0.5, -0.7, -0.7], [0.0, -1.0, -1.0])
    assert weights[1] == pytest.approx([0.0, -0.5, -0.5])  # the long may not be bought; net -1.4 is scaled to -1


def test_drawdown_trips_rests_and_starts_anew():
    controls = Controls.of(flat_market(9, 2), Limits(drawdown=0.10, cooldown_bars=3), {})
    weights, trips = decide(controls, [0.25, -0.12, 0.0, 0.0, 0.0, -0.09, -0.05], [0.5, 0.5])
    flat = [row for row, w in enumerate(weights) if not w.any()]
    assert flat == [2, 3, 4, 7]  # 1.25 to 1.10; three bars of rest; 9% is not yet 10; 0.91 * 0.95 of the new peak is
    assert [row for row, t in enumerate(trips) if t == {"drawdown"}] == flat


def test_daily_loss_on_daily_bars_lasts_for_the_next_bar():
    controls = Controls.of(flat_market(5, 2), Limits(daily_loss=0.03, intraday_loss=0.001), {})
    weights, trips = decide(controls, [-0.02, -0.04, 0.01], [0.6, 0.1], [0.4, 0.3])
    assert weights.tolist() == [[0.6, 0.1], [0.6, 0.1], [0.4, 0.1], [0.6, 0.1]]
    assert trips == [set(), set(), {"daily_loss"}, set()]  # and a session of one bar never falls from its own high


def test_daily_loss_lasts_until_the_session_ends():
    # rows 0-3 and 4-7 are sessions; the close before the second is at 1.00
    controls = Controls.of(hourly(12, 4), Limits(daily_loss=0.03), {})
    weights, trips = decide(controls, [0.0, 0.0, 0.0, -0.02, -0.02, 0.05, 0.0, 0.0], [0.6, -0.2], [0.4, 0.3])
    assert [row for row, t in enumerate(trips) if t] == [5, 6, 7]  # 0.9604 at row 5; that 1.008 is above again at row 6 changes nothing
    assert weights[6].tolist() == [0.4, 0.0]
    assert weights[8].tolist() == [0.6, -0.2]


def test_intraday_breaker_falls_from_the_sessions_high():
    controls = Controls.of(hourly(12, 4), Limits(intraday_loss=0.03), {})
    weights, trips = decide(controls, [0.0, 0.0, 0.0, -0.05, 0.02, -0.04, 0.0, 0.0], [0.6, 0.2])
    # the second session opens 5% down, which is no fall within it; 0.969 is its high, 0.930 is 4% below
    assert [row for row, t in enumerate(trips) if t == {"intraday_loss"}] == [6, 7]
    assert not weights[6:8].any()
    assert weights[8].tolist() == [0.6, 0.2]


def test_a_bar_that_ends_at_midnight_belongs_to_the_day_before():
    assert Controls.of(hourly(12, 4), Limits(), {}).bars[:, 0].tolist() == [1, 0, 0, 0] * 3


def test_volatility_target_by_hand():
    controls = Controls.of(flat_market(60, 2), Limits(target_volatility=0.10), {})
    weights, trips = decide(controls, [0.01, -0.01] * 10, [0.5, 0.5])
    annual = 0.01 * np.sqrt(252.0)
    assert trips[19] == set()
    assert trips[20] == {"target_volatility"}
    assert weights[20] == pytest.approx([0.5 * 0.10 / annual] * 2)


@pytest.mark.parametrize("limits", [Limits(target_volatility=0.10), Limits(cvar=0.006, cvar_alpha=0.8)])
def test_scalings_reach_their_limit_though_they_read_what_they_scaled(limits):
    """A reading of scaled returns would be scaled itself, and the exposure settle at the root of limit / risk."""
    controls, rng = Controls.of(flat_market(2, 1), limits, {}), np.random.default_rng(0)
    state, exposures, nets = controls.start(1), [], []
    for _ in range(3000):
        weight = controls.admit(state, np.array([1]), np.ones((1, 1)), np.ones((1, 1)))[0][0, 0]
        net = weight * 0.02 * rng.standard_normal()
        controls.observe(state, np.array([1]), np.array([net]))
        exposures.append(weight)
        nets.append(net)
    kept = np.array(nets[300:])
    if limits.cvar:
        assert risk.historical(kept, 0.8).cvar == pytest.approx(0.006, rel=0.05)
    else:
        assert kept.std() * np.sqrt(252.0) == pytest.approx(0.10, rel=0.05)
    assert np.mean(exposures[300:]) < 0.35


def test_cvar_overlay_by_hand():
    controls = Controls.of(flat_market(70, 2), Limits(cvar=0.02, cvar_alpha=0.9), {})
    net = [-0.05 if k % 10 == 9 else 0.01 for k in range(60)]
    weights, trips = decide(controls, net, [0.5, 0.5])
    assert trips[:60] == [set()] * 60
    assert trips[60] == {"cvar"}  # 6 of 60 losses are 0.05; the ceil(61 * 0.9) = 55th smallest is the first of them
    assert weights[60] == pytest.approx([0.5 * 0.02 / 0.05] * 2)


def test_a_path_in_cash_by_rule_teaches_nothing():
    controls = Controls.of(flat_market(2, 1), Limits(drawdown=0.10, cooldown_bars=30, target_volatility=0.10), {})
    state = controls.start(1)
    for net in [*[0.01, -0.01] * 15, -0.2]:
        controls.observe(state, np.array([1]), np.array([net]))
    before = state[0, EXPOSURE]
    for _ in range(30):
        controls.observe(state, np.array([1]), np.zeros(1))
    assert before < 1.0
    assert state[0, EXPOSURE] == before
    assert state[0, PEAK] == state[0, EQUITY]  # the rest is over

    controls, net = Controls.of(hourly(24, 24), Limits(intraday_loss=0.10, target_volatility=0.10), {}), [*[0.01, -0.01] * 9, 0.0, -0.2]
    tripped = controls.replay(slice(1, 21), np.array(net))
    later = controls.replay(slice(1, 24), np.array([*net, 0.0, 0.0, 0.0]))
    assert tripped[0, EXPOSURE] == later[0, EXPOSURE] < 1.0


def test_turbulence_stops_purchases_and_nothing_else():
    cube = random_market(TURBULENCE_BARS + 120, 3)
    jump = TURBULENCE_BARS + 110
    prices = cube.prices.copy()
    prices[jump:] *= np.array([1.2, 0.85, 1.1])[:, None]
    cube = replace(cube, prices=prices)
    controls = Controls.of(cube, Limits(turbulence=0.99), {}, slice(0, jump - 5))
    state, held, asked = controls.start(1), np.array([[0.3, 0.4, -0.2]]), np.array([[0.5, 0.1, -0.4]])
    readings = np.empty((1, len(CONTROLS)))
    weights, mask = controls.admit(state, np.array([jump]), held, asked, readings)
    assert weights[0].tolist() == [0.3, 0.1, -0.2]
    assert names(int(mask[0])) == {"turbulence"}
    past = controls.bars[TURBULENCE_BARS + 1 : jump - 5, 1]
    assert readings[0, 2] > 10 * np.quantile(past, 0.99) == 10 * controls.terms[2]
    weights, mask = controls.admit(state, np.array([jump - 1]), held, asked)
    assert (weights == asked).all()
    assert not mask.any()


def test_value_at_risk_scales_down_to_the_limit():
    cube, limit = random_market(400, 3), 0.01
    controls = Controls.of(cube, Limits(var=limit), {})
    state, row, asked = controls.start(1), 350, np.array([[0.9, 0.6, -0.5]])
    weights, mask = controls.admit(state, np.array([row]), np.zeros((1, 3)), asked)
    returns = (cube.close[1:] / cube.close[:-1] - 1.0)[row - 250 : row]
    of = lambda w: np.nanmax([risk.historical(returns @ w, 0.99).var, risk.cornish_fisher(returns @ w, 0.99).var])  # noqa: E731
    assert weights[0] == pytest.approx(asked[0] * limit / of(asked[0]))
    assert of(weights[0]) == pytest.approx(limit)
    assert names(int(mask[0])) == {"var"}
    early, mask = controls.admit(state, np.array([risk.LEAST_BARS - 1]), np.zeros((1, 3)), asked)  # 59 returns: too few to say
    assert (early == asked).all()
    assert not mask.any()


def test_trips_are_told_where_they_begin():
    cube = flat_market(9, 2)
    controls = Controls.of(cube, Limits(max_weight=0.6, drawdown=0.10, cooldown_bars=3), {})
    state, masks, readings = controls.start(1), np.empty(8, np.int64), np.full((8, len(CONTROLS)), np.nan)
    for row, net in enumerate([0.0, 0.25, -0.12, 0.0, 0.0, 0.0, -0.09, -0.05]):
        controls.observe(state, np.array([row]), np.array([net]))
        held, asked = np.array([[0.5, 0.5]]), np.array([[0.7, 0.3] if row == 5 else [0.5, 0.5]])
        _, masks[row : row + 1] = controls.admit(state, np.array([row]), held, asked, readings[row : row + 1])
    told = controls.trips(slice(0, 8), masks, readings)
    assert [(t.at, t.control, t.limit) for t in told] == [
        (cube.known_at[2], "drawdown", 0.10), (cube.known_at[5], "name_cap", 0.6), (cube.known_at[7], "drawdown", 0.10),
    ]  # fmt: skip
    assert [t.reading for t in told] == pytest.approx([0.12, 0.7, 1 - 0.91 * 0.95])
    assert all(isinstance(t, Trip) and isinstance(t.reading, float) for t in told)


def some_state(controls: Controls, paths: int, rng: np.random.Generator, bars: int = 90) -> np.ndarray:
    state = controls.start(paths)
    for row in range(bars):
        controls.observe(state, np.full(paths, 300 + row), 0.008 * rng.standard_normal(paths))
    return state


def test_laws_over_random_targets():
    """Whatever is asked for: caps hold, gross does not grow, net stays within bounds, and what is paused does not grow."""
    rng = np.random.default_rng(3)
    cube = random_market(400, 8)
    sectors = {s: "xyz"[k % 3] for k, s in enumerate(cube.symbols)}
    seen: set[str] = set()
    for trial in range(60):
        on = {k: v for k, v in vars(EVERYTHING).items() if rng.random() < 0.5}
        limits = Limits(**on)
        controls = Controls.of(cube, limits, sectors, slice(250, 390))
        state, paths = some_state(controls, 50, rng), 50
        rows = rng.integers(300, 399, paths)
        held, asked = (feasible(rng, paths, long_short=trial % 2 == 0) for _ in range(2))
        before = state.copy()
        weights, masks = controls.admit(state, rows, held, asked)
        assert (state == before).all()
        gross, net = np.abs(weights).sum(axis=1), weights.sum(axis=1)
        codes = np.array([0, 1, 2] * 3)[:8]
        by_sector = np.stack([np.abs(weights[:, codes == k]).sum(axis=1) for k in range(3)])
        assert (np.abs(weights) <= (limits.max_weight if limits.max_weight < 1 else 2.0)).all()
        assert (by_sector <= (limits.max_sector if limits.max_sector < 1 else 2.0) + 1e-12).all()
        assert (gross <= np.abs(asked).sum(axis=1) + 1e-12).all()
        assert (np.abs(net) <= 1 + 2e-12).all()
        assert (weights * asked >= 0).all()
        for n in range(paths):
            tripped = names(int(masks[n]))
            seen |= tripped
            if tripped & {"turbulence", "daily_loss"}:
                assert (np.abs(weights[n]) <= np.abs(held[n])).all()
            if tripped & {"drawdown", "intraday_loss"}:
                assert not weights[n].any()
            if not tripped:
                assert (weights[n] == asked[n]).all()
    assert seen == set(CONTROLS) - {"intraday_loss"}  # which daily bars never trip


def feasible(rng: np.random.Generator, paths: int, *, long_short: bool) -> np.ndarray:
    if not long_short:
        return rng.dirichlet(np.full(8, 0.5), paths) * rng.uniform(0.3, 1.0, (paths, 1))
    weights = rng.standard_normal((paths, 8)) * (rng.random((paths, 8)) < 0.7)
    weights *= rng.uniform(0.3, 2.0, (paths, 1)) / np.maximum(np.abs(weights).sum(axis=1, keepdims=True), 1e-9)
    net = weights.sum(axis=1, keepdims=True)
    return weights / np.maximum(np.abs(net), 1.0)


def test_paths_do_not_see_each_other_and_replay_is_observe_bit_for_bit():
    rng = np.random.default_rng(4)
    controls = Controls.of(random_market(500, 8), EVERYTHING, dict.fromkeys("ABCDEFGH", "x"), slice(250, 390))
    net = 0.012 * rng.standard_normal((5, 400))
    state = controls.start(5)
    for k in range(400):
        controls.observe(state, np.full(5, 50 + k), net[:, k])
    for n in range(5):
        assert controls.replay(slice(50, 450), net[n]).tobytes() == state[n].tobytes()
    held, asked = feasible(rng, 5, long_short=True), feasible(rng, 5, long_short=True)
    together, masks = controls.admit(state, np.full(5, 449), held, asked)
    for n in range(5):
        one = slice(n, n + 1)
        alone, mask = pickle.loads(pickle.dumps(controls)).admit(state[one], np.array([449]), held[one], asked[one])
        assert (alone[0] == together[n]).all()
        assert mask[0] == masks[n]


def test_the_future_changes_nothing():
    cube, rng = random_market(400, 4), np.random.default_rng(5)
    limits = Limits(turbulence=0.9, var=0.01, daily_loss=0.03)
    noise = cube.prices.copy()
    noise[350:] *= np.exp(0.1 * rng.standard_normal((50, 4, 1)))
    one, two = (Controls.of(c, limits, {}, slice(0, 350)) for c in (cube, replace(cube, prices=noise)))
    assert one.terms.tobytes() == two.terms.tobytes()
    assert one.bars[:350].tobytes() == two.bars[:350].tobytes()
    assert one.returns[:350].tobytes() == two.returns[:350].tobytes()


def test_without_limits_nothing_happens():
    controls = Controls.of(random_market(400, 8), Limits(), {})
    rng = np.random.default_rng(6)
    asked = feasible(rng, 20, long_short=True)
    weights, trips = controls.admit(some_state(controls, 20, rng), np.full(20, 390), np.zeros((20, 8)), asked)
    assert weights.tobytes() == asked.tobytes()
    assert weights is not asked
    assert not trips.any()
    assert controls.start(3).shape == (3, LOSSES)  # no memory for a control that is off


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"max_weight": 0.0}, "max_weight"), ({"drawdown": 1.5}, "drawdown"), ({"turbulence": float("nan")}, "turbulence"),
        ({"cvar": -0.1}, "cvar"), ({"target_volatility": float("inf")}, "target_volatility"), ({"cooldown_bars": 0}, "cooldown_bars"),
        ({"cvar_alpha": 1.0}, "cvar_alpha"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be(wrong, what):
    with pytest.raises(ConfigError, match=what):
        Limits(**wrong)


def test_markets_that_do_not_fit_the_limits():
    cube = random_market(400, 3)
    with pytest.raises(DataError, match="none of the 3 symbols"):
        Controls.of(cube, Limits(max_sector=0.5), {"AAPL": "tech"})
    with pytest.raises(ConfigError, match="without fit rows"):
        Controls.of(cube, Limits(turbulence=0.9), {})
    with pytest.raises(DataError, match="hold 47 readings"):
        Controls.of(cube, Limits(turbulence=0.9), {}, slice(0, 300))


def test_bad_numbers_are_refused_and_change_nothing():
    controls = Controls.of(flat_market(5, 2), Limits(max_weight=0.5), {})
    state, rows, fine = controls.start(2), np.array([1, 2]), np.full((2, 2), 0.5)
    bad = np.array([[0.5, 0.5], [0.5, np.nan]])
    with pytest.raises(ExecutionError, match="weight of B is nan in path 1 at row 2"):
        controls.admit(state, rows, fine, bad)
    with pytest.raises(ExecutionError, match="weight of B is nan in path 1 at row 2"):
        controls.admit(state, rows, bad, fine)
    with pytest.raises(ExecutionError, match="net return is inf in path 1 at row 2"):
        controls.observe(state, rows, np.array([0.01, np.inf]))
    with pytest.raises(ExecutionError, match="at row 5; expected one in 0 to 4"):
        controls.observe(state, np.array([1, 5]), np.zeros(2))
    with pytest.raises(ExecutionError, match="do not fit"):
        controls.observe(state, rows, np.zeros(3))
    with pytest.raises(ExecutionError, match="do not fit"):
        controls.admit(state, rows, fine[:, :1], fine)
    with pytest.raises(ExecutionError, match="do not fit"):
        controls.admit(state, rows, fine[0], fine[0])
    with pytest.raises(ExecutionError, match="net return is nan in path 1 at row 3"):
        controls.replay(slice(2, 5), np.array([0.0, np.nan, 0.0]))
    assert (state == controls.start(2)).all()
