import pickle
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlaif_ray.backtest import engine
from rlaif_ray.core import Cube, Decision, MarketView
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Controls, Limits
from rlaif_ray.rl.env import ROW, PortfolioEnv, PortfolioVectorEnv, Track, excess, random_parts
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.rewards import DRAWDOWN, EXCESS, LOG_RETURN, PARTS, SHARPE, TURNOVER, Reward
from rlaif_ray.strategies import EqualWeight
from tests.laws import perturb_future, random_cube
from tests.markets import daily, random_weights, stormy

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)
ALL_COSTS = CostModel.of_bps(0.5, 1.0, 2.0, impact=0.5, temporary=0.2, permanent=0.1, borrow_bps=1.0)
ANY = ActionSet(0.5)


def track(cube: Cube, rows: slice, fill: Fill = "next_open", costs: CostModel = COSTS, **rest: Any) -> Track:
    return Track.of(cube, np.nan_to_num(cube.features[rows]), rows, fill=fill, costs=costs, **rest)


def environment(t: Track, paths: int = 4, episode_bars: int = 10, **changes: Any) -> PortfolioVectorEnv:
    knobs = {"allowed": ANY, "reward": Reward(risk_aversion=0.0)} | changes
    return PortfolioVectorEnv(t, paths=paths, episode_bars=episode_bars, seed=0, **knobs)


class Scripted:
    name = "scripted"

    def __init__(self, weights: np.ndarray) -> None:
        self.targets = weights

    def decide(self, view: MarketView) -> Decision:
        return Decision(view.as_of, dict(zip(view.symbols, self.targets[view.t].tolist(), strict=True)), "script", self.name)


def test_reward_by_hand() -> None:
    """A rises by a tenth, B stays: all in A earns log 1.1, equal weight log 1.05; costs are nil."""
    cube = daily([[10.0, 20.0], [11.0, 20.0], [11.0, 20.0]])
    env = environment(track(cube, slice(0, 3), "next_close", CostModel()), paths=1, episode_bars=2)
    env.reset(options={"cash": True})
    # filled at the close of row 1, so that the rise of row 1 is missed by all and the next bar is flat
    np.testing.assert_allclose(env.step_weights(np.array([[1.0, 0.0]]))[1], 0.0, atol=1e-9)
    cube = daily([[10.0, 20.0], [11.0, 20.0], [11.0, 20.0]], opens=[[10.0, 20.0], [10.0, 20.0], [11.0, 20.0]])
    env = environment(track(cube, slice(0, 3), costs=CostModel()), paths=1, episode_bars=2, reward=Reward(scale=100.0, risk_aversion=3.0))
    env.reset(options={"cash": True})
    x = np.log(1.1) - np.log(1.05)
    _, reward, _, _, info = env.step_weights(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(reward, 100 * (x - 1.5 * x * x), rtol=1e-6)
    np.testing.assert_allclose(info["parts"][0, [LOG_RETURN, EXCESS, DRAWDOWN, TURNOVER]], [np.log(1.1), x, 0.0, 1.0], rtol=1e-9)


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_episode_is_the_backtests(fill: Fill) -> None:
    """Same weights, same bars: returns, holdings and equal weight agree with the engine through splits, halts and delistings."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        cube, rows = random_cube(rng, 120, 6), slice(20, 100)
        targets = rng.dirichlet(np.full(6, 0.5), 120) * rng.uniform(0.5, 1.0, (120, 1))
        terms = Terms(ALL_COSTS, fill, AccountRules(participation=0.05, cash_interest=0.03))
        episode, _ = engine.run(Scripted(targets), cube, rows, terms)
        equal, _ = engine.run(EqualWeight(), cube, rows, terms)
        env = environment(track(cube, slice(20, 101), fill, ALL_COSTS, account=terms.account), paths=1, episode_bars=80)
        env.reset(options={"cash": True})
        for k in range(80):
            env.step_weights(targets[20 + k : 21 + k])
            np.testing.assert_allclose(env.returns[0], episode.returns[k], rtol=0, atol=1e-9)
            np.testing.assert_allclose(env.excess[0], np.log1p(episode.returns[k]) - np.log1p(equal.returns[k]), rtol=0, atol=1e-9)
            np.testing.assert_allclose(env.held[0], episode.weights[k], rtol=0, atol=1e-9)


def test_long_short_episode_is_the_backtests_until_it_ends() -> None:
    """Wild prices: margin is called, paths end. The engine and the environment walk the same bars."""
    ends = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cube = stormy(rng, 40, 4, wildness=6.0)
        targets = random_weights(rng, 40, 4, long_short=True)
        terms = Terms(COSTS, account=AccountRules(long_short=True))
        episode, _ = engine.run(Scripted(targets), cube, slice(0, 38), terms)
        env = environment(track(cube, slice(0, 39), account=terms.account), paths=1, episode_bars=38, allowed=ActionSet(1.0, True))
        env.reset(options={"cash": True})
        for k in range(38):
            _, _, ended, cut, _ = env.step_weights(targets[k : k + 1])
            np.testing.assert_allclose(env.returns[0], episode.returns[k], rtol=0, atol=1e-9)
            assert ended[0] == (episode.returns[k] <= -1.0) and cut[0] == (k == 37 and not ended[0])
            if ended[0]:
                ends += 1
                break
    assert ends >= 3


def test_controls_have_the_last_word_as_in_the_backtest() -> None:
    rng = np.random.default_rng(3)
    cube, limits = random_cube(rng, 120, 6), Limits(max_weight=0.3, drawdown=0.03, cooldown_bars=5, target_volatility=0.1)
    targets = rng.dirichlet(np.full(6, 0.5), 120)
    episode, _ = engine.run(Scripted(targets), cube, slice(20, 100), Terms(COSTS, limits=limits))
    env = environment(track(cube, slice(20, 101), controls=Controls.of(cube, limits, {})), paths=1, episode_bars=80)
    env.reset(options={"cash": True})
    seen = 0
    for k in range(80):
        seen |= int(env.step_weights(targets[20 + k : 21 + k])[-1]["trips"][0])
        np.testing.assert_allclose(env.returns[0], episode.returns[k], rtol=0, atol=1e-9)
    assert seen and {trip.control for trip in episode.trips} >= {"drawdown", "name_cap"}


def test_controls_of_a_path_start_anew_with_it() -> None:
    """Of paths that are reset, none keeps the drawdown that tripped the one before it."""
    cube = daily(np.linspace(100.0, 50.0, 60)[:, None] * np.ones(2))
    env = environment(track(cube, slice(0, 60), controls=Controls.of(cube, Limits(drawdown=0.02, cooldown_bars=50), {})), episode_bars=8)
    env.reset(options={"cash": True})
    for _ in range(2):
        held = [env.step_weights(np.full((4, 2), 0.5)) and env.held.sum() for _ in range(8)]
        assert held[0] > 3.9 and held[-1] == 0.0
        env.step_weights(np.zeros((4, 2)))


def test_excess_walks_the_same_bars() -> None:
    cube = random_cube(np.random.default_rng(0), 60, 4)
    flat = excess(track(cube, slice(10, 41)), lambda obs: np.zeros((1, 4), np.float32), allowed=ActionSet(1.0))
    np.testing.assert_allclose(flat, np.zeros(30), atol=1e-12)


def test_paths_are_cut_and_restart() -> None:
    """gymnasium's NEXT_STEP: the step after a cut is the reset, unpaid, and its action unused."""
    env = environment(track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50)), paths=8, episode_bars=4)
    obs, info = env.reset(seed=3)
    assert obs.shape == env.observation_space.shape and obs.dtype == np.float32
    rng = np.random.default_rng(0)
    for bar in range(1, 5):
        before = info[ROW]
        obs, reward, ended, cut, info = env.step(rng.uniform(-1, 1, (8, 3)))
        assert (info[ROW] == before + 1).all() and not ended.any() and (cut == (bar == 4)).all() and reward.any()
    obs, reward, ended, cut, info = env.step(rng.uniform(-1, 1, (8, 3)))
    assert not reward.any() and not cut.any() and not ended.any() and not info["parts"].any()
    assert ((info[ROW] >= 0) & (info[ROW] <= 45 - 1 - 4)).all()
    assert env.observation_space.contains(obs)


def test_only_the_path_that_ended_starts_again() -> None:
    """A triples: who is short of it has nothing left, twice, from row 0 each time; the other goes on to its cut."""
    closes = np.full((12, 2), 10.0)
    closes[4:, 0] = 30.0
    t = track(daily(closes), slice(0, 12), "next_close", CostModel(), account=AccountRules(long_short=True, maintenance=0.0))
    env = environment(t, paths=2, episode_bars=11, allowed=ActionSet(1.0, True))
    env.reset(options={"cash": True})
    targets = np.array([[-1.0, 0.0], [0.0, 0.5]])
    for row in range(1, 12):
        _, reward, ended, cut, info = env.step_weights(targets)
        assert ended.tolist() == [row in (4, 9), False] and info[ROW][1] == row
        assert cut[1] == (row == 11)
        if row == 4:
            assert reward[0] < -600 and np.isfinite(reward[0])
        if row == 5:
            assert info[ROW][0] == 0 and reward[0] == 0.0 and not info["parts"][0].any()


def test_observation_of_assets_and_account() -> None:
    cube = daily(np.full((20, 2), 10.0))
    t = track(cube, slice(0, 20), "next_close", CostModel(), turbulence=np.arange(20, dtype=np.float32) / 10)
    env = environment(t, paths=1, allowed=ActionSet(1.0))
    obs, _ = env.reset(options={"cash": True})
    assets, account = t.layout.split(obs)
    np.testing.assert_allclose(assets[0], [[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(account[0], [1.0, 0.0, env.rows[0] / 10, 0.0, 1.0, np.sqrt(0.5)], rtol=1e-6)
    obs, _, _, _, info = env.step_weights(np.array([[0.25, 0.5]]))
    assets, account = t.layout.split(obs)
    np.testing.assert_allclose(assets[0], [[1.0, 0.25], [1.0, 0.5]])
    np.testing.assert_allclose(account[0, :3], [0.25, 0.0, info[ROW][0] / 10], rtol=1e-6)


def test_starts_in_cash_at_equal_weight_and_at_random() -> None:
    env = environment(track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50)), paths=300, allowed=ActionSet(1.0))
    env.reset()
    cash = (env.held.sum(1) == 0).mean()
    equal = (np.ptp(env.held, axis=1) < 1e-12).mean() - cash
    assert 0.2 < cash < 0.47 and 0.2 < equal < 0.47 and (env.held.sum(1) <= 1 + 1e-12).all()


def test_costs_are_drawn_for_each_episode() -> None:
    """Turning all over costs the rate times what was drawn, between half and double."""
    cube = daily(np.full((40, 2), 10.0))
    env = environment(track(cube, slice(0, 40), costs=CostModel(commission=0.01)), paths=200, cost_range=(0.5, 2.0))
    env.reset(options={"cash": True})
    env.step_weights(np.tile([0.5, 0.0], (200, 1)))
    paid = -env.returns / 0.005
    assert 0.5 <= paid.min() < 0.6 and 1.8 < paid.max() <= 2.0 and 0.9 < np.median(paid) < 1.1
    with pytest.raises(ConfigError, match=r"multiplied by 2\.0 to 1\.0"):
        environment(track(cube, slice(0, 40)), cost_range=(2.0, 1.0))


def test_an_episode_may_offer_some_of_the_names() -> None:
    """What is not on offer is shown as not listed, and not bought however it is scored."""
    env = environment(track(random_cube(np.random.default_rng(1), 60, 8), slice(5, 50)), paths=50, allowed=ActionSet(1.0), subset=0.5)
    obs, _ = env.reset()
    offered = env.track.layout.split(obs)[0][:, :, -2]
    assert (offered.sum(1) <= 4).all() and len(np.unique(offered, axis=0)) > 10 and not env.held[offered == 0].any()
    env.step(np.ones((50, 8)))
    assert not env.held[offered == 0].any() and env.held.sum() > 40


def test_an_episode_offers_names_that_are_there_before_names_that_are_not_yet() -> None:
    closes = np.full((60, 8), 50.0)
    closes[:, :5] = np.nan
    cube = replace(daily(closes), features=np.zeros((60, 8, 2), np.float32), feature_names=("x", "y"))
    env = environment(track(cube, slice(5, 50)), paths=50, allowed=ActionSet(1.0), subset=0.5)
    obs, _ = env.reset()
    assert (env.track.layout.split(obs)[0][:, :, -2].sum(1) == 3).all()


def test_account_starts_with_its_cash_and_impact_depends_on_it() -> None:
    cube = daily(np.full((20, 2), 10.0), volumes=1e6)
    costs = CostModel(impact=1.0)
    lost = []
    for cash in (1e4, 1e6):
        env = environment(track(cube, slice(0, 20), costs=costs, cash_usd=cash), paths=1)
        env.reset(options={"cash": True})
        env.step_weights(np.array([[0.5, 0.0]]))
        lost.append(-env.returns[0])
    assert lost[1] == pytest.approx(10 * lost[0], rel=1e-3)  # the square root of a hundred times the shares


def test_nothing_after_the_rows_is_touched() -> None:
    rng = np.random.default_rng(2)
    cube, rows = random_cube(rng, 80, 4), slice(10, 50)

    def play(c: Cube) -> list[np.ndarray]:
        env, draw, seen = environment(track(c, rows, costs=ALL_COSTS), paths=16, episode_bars=13), np.random.default_rng(0), []
        seen.append(env.reset(seed=1)[0])
        for _ in range(60):
            obs, reward, *_ = env.step(draw.uniform(-1, 1, (16, 4)))
            seen += [obs, reward]
        return seen

    for a, b in zip(play(cube), play(perturb_future(cube, 49, rng)), strict=True):
        assert (a == b).all()


def test_many_paths_are_as_many_single_ones() -> None:
    """Fused and batched, or one by one by scores and by the weights that they ask for: the same bits."""
    cube = random_cube(np.random.default_rng(4), 60, 5)
    t, rng = track(cube, slice(0, 60), costs=ALL_COSTS), np.random.default_rng(0)
    many = environment(t, paths=6, episode_bars=50)
    many.reset(seed=1)
    alone = [environment(t, paths=1, episode_bars=50) for _ in range(6)]
    for n, env in enumerate(alone):
        env.reset()
        for mine, theirs in ((env._clock, many._clock), (env._money.T, many._money.T), (env._holdings, many._holdings)):
            mine[:, 0] = theirs[:, n]
    for _ in range(30):
        actions = rng.uniform(-1, 1, (6, 5))
        listed = many._holdings[3] * t.table[many.rows, :, -1] > 0
        obs, reward, *_ = many.step(actions)
        for n, env in enumerate(alone):
            by_score = n % 2 == 0
            answer = env.step(actions[n : n + 1]) if by_score else env.step_weights(ANY.targets(actions[n : n + 1], listed[n : n + 1]))
            assert (answer[0][0] == obs[n]).all() and answer[1][0] == reward[n]


def test_learned_reward_is_asked_with_parts_and_returns() -> None:
    def learned(parts: np.ndarray, returns: np.ndarray) -> np.ndarray:
        return 1.0 + parts[:, TURNOVER] + 2.0 * returns

    t = track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50))
    env = environment(t, episode_bars=1, reward=Reward("learned", 1.0, learned=learned))
    env.reset()
    _, reward, _, _, info = env.step(np.ones((4, 3)))
    np.testing.assert_allclose(reward, 1.0 + info["parts"][:, TURNOVER] + 2.0 * env.returns)
    assert not env.step(np.ones((4, 3)))[1].any()  # a reset is not paid


def test_parts_of_a_random_policy_scale_the_weighted_reward() -> None:
    t = track(random_cube(np.random.default_rng(1), 200, 5), slice(5, 190))
    parts = random_parts(t, allowed=ANY, episode_bars=20)
    assert parts.shape == (64 * 20, len(PARTS)) and np.isfinite(parts).all()
    fitted = Reward("weighted", scale=1.0).fitted(parts)
    weighed = parts / np.array(fitted.deviations)
    np.testing.assert_allclose(weighed[:, [LOG_RETURN, SHARPE, DRAWDOWN, TURNOVER]].std(axis=0), 1.0)
    env = environment(t, paths=1, episode_bars=20, reward=fitted)
    env.reset()
    reward, parts = env.step(np.ones((1, 5)))[1], env.parts[0] / np.array(fitted.deviations)
    by_hand = 0.4 * parts[LOG_RETURN] + 0.3 * parts[SHARPE] - 0.2 * parts[DRAWDOWN] - 0.1 * parts[TURNOVER]
    assert reward[0] == pytest.approx(by_hand)


def test_single_view_passes_gymnasiums_checks() -> None:
    t = track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(PortfolioEnv(t, episode_bars=10, allowed=ANY, seed=0), skip_render_check=True)


def test_single_view_is_one_path() -> None:
    t = track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50))
    one, many = PortfolioEnv(t, episode_bars=3, allowed=ANY), PortfolioVectorEnv(t, paths=1, episode_bars=3, allowed=ANY)
    assert (one.reset(seed=4)[0] == many.reset(seed=4)[0][0]).all()
    for bar in range(3):
        mine, theirs = one.step(np.ones(3)), many.step(np.ones((1, 3)))
        assert (mine[0] == theirs[0][0]).all() and mine[1] == theirs[1][0] and mine[3] is (bar == 2)
        assert mine[4][ROW] == theirs[4][ROW][0] and mine[4]["parts"].shape == (len(PARTS),)
    with pytest.raises(ExecutionError, match="the episode is over"):
        one.step(np.ones(3))


def test_a_track_from_the_object_store_is_read_only() -> None:
    t = pickle.loads(pickle.dumps(track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50))))
    for array in (t.table, t.market.book, t.market.days):
        array.setflags(write=False)
    env = environment(t)
    env.reset()
    assert np.isfinite(env.step(np.zeros((4, 3)))[0]).all()


def test_an_episode_longer_than_the_rows_names_the_knob() -> None:
    t = track(random_cube(np.random.default_rng(0), 60, 3), slice(5, 26))
    environment(t, episode_bars=20)
    with pytest.raises(ConfigError, match=r"rl\.sac\.episode_bars is 21, but there are 20 bars"):
        environment(t, episode_bars=21)


def test_fields_that_are_not_numbers_are_refused() -> None:
    cube = random_cube(np.random.default_rng(0), 60, 3)
    fields = np.zeros((20, 3, 2), np.float32)
    with pytest.raises(DataError, match="other rows or names"):
        Track.of(cube, fields, slice(10, 31), fill="next_open", costs=COSTS)
    fields[4, 1, 1] = np.nan
    with pytest.raises(DataError, match="field 1 of S01 at row 14 is nan"):
        Track.of(cube, fields, slice(10, 30), fill="next_open", costs=COSTS)
    prices = cube.prices.copy()
    prices[12, 1, 3] = -1.0
    with pytest.raises(DataError, match=r"S01 .* close price that is not positive"):
        Track.of(replace(cube, prices=prices), np.zeros((20, 3, 2), np.float32), slice(10, 30), fill="next_open", costs=COSTS)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([0.7, 0.4, 0.0], r"add up to 1.1 .*numbers >= 0 that add up to at most 1"), ([-0.1, 0.4, 0.0], r"least is -0.1\)"),
        ([np.nan, 0.4, 0.0], "was told nan for S00 at row"), ([0.1, np.inf, 0.0], "was told inf for S01"),
    ],
)  # fmt: skip
def test_weights_that_break_the_rules_are_refused(bad: list[float], said: str) -> None:
    env = environment(track(random_cube(np.random.default_rng(0), 60, 3), slice(5, 50)), paths=2)
    env.reset()
    with pytest.raises(ExecutionError, match=said):
        env.step_weights(np.array([[0.5, 0.2, 0.1], bad]))


def test_scores_that_do_not_fit_are_refused() -> None:
    t = track(random_cube(np.random.default_rng(0), 60, 3), slice(5, 50))
    env = environment(t, paths=2)
    env.reset()
    with pytest.raises(ExecutionError, match=r"was told nan for S02 .* did training diverge"):
        env.step(np.array([[0.0, 0.0, np.nan], [0.0, 0.0, 0.0]]))
    with pytest.raises(ExecutionError, match=r"shape \(2, 4\); expected \(N,A\) = \(2, 3\)"):
        env.step(np.zeros((2, 4)))
    with pytest.raises(ConfigError, match=r"shorts that the account may not hold; set --execution\.account\.long_short"):
        environment(t, allowed=ActionSet(0.5, long_short=True))
    with pytest.raises(ConfigError, match=r"offers 0\.0 of the names"):
        environment(t, subset=0.0)
