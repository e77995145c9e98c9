import numpy as np
import pytest

from rlaif_ray.backtest import engine
from rlaif_ray.core import Cube, Decision, MarketView
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.rl.env import ROW, PortfolioVectorEnv, Track, excess
from rlaif_ray.strategies import EqualWeight
from tests.laws import perturb_future, random_cube
from tests.markets import daily

COSTS = CostModel.of_bps(0.5, 1.0, 2.0)


def track(cube: Cube, rows: slice, fill: Fill = "next_open", costs: CostModel = COSTS) -> Track:
    return Track.of(cube, np.nan_to_num(cube.features[rows]), rows, fill=fill, costs=costs)


def environment(t: Track, paths: int = 4, episode_bars: int = 10, **changes: float) -> PortfolioVectorEnv:
    knobs = {"kappa": 3.0, "max_weight": 0.5, "reward_scale": 100.0, "risk_aversion": 0.0} | changes
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
    env = environment(track(cube, slice(0, 3), "next_close", CostModel()), paths=1, episode_bars=2, max_weight=1.0)
    env.reset(options={"cash": True})
    # filled at the close of row 1, so that the rise of row 1 is missed by all and the next bar is flat
    np.testing.assert_allclose(env.step_weights(np.array([[1.0, 0.0]]))[1], 0.0, atol=1e-9)
    cube = daily([[10.0, 20.0], [11.0, 20.0], [11.0, 20.0]], opens=[[10.0, 20.0], [10.0, 20.0], [11.0, 20.0]])
    env = environment(track(cube, slice(0, 3), costs=CostModel()), paths=1, episode_bars=2, max_weight=1.0, risk_aversion=3.0)
    env.reset(options={"cash": True})
    x = np.log(1.1) - np.log(1.05)
    np.testing.assert_allclose(env.step_weights(np.array([[1.0, 0.0]]))[1], 100 * (x - 1.5 * x * x), rtol=1e-6)


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_episode_is_the_backtests(fill: Fill) -> None:
    """Same weights, same bars: returns, holdings and equal weight agree with the engine through splits, halts and delistings."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        cube, rows = random_cube(rng, 120, 6), slice(20, 100)
        targets = rng.dirichlet(np.full(6, 0.5), 120) * rng.uniform(0.5, 1.0, (120, 1))
        episode, _ = engine.run(Scripted(targets), cube, rows, costs=COSTS, fill=fill, max_weight=1.0)
        equal, _ = engine.run(EqualWeight(), cube, rows, costs=COSTS, fill=fill, max_weight=1.0)
        env = environment(track(cube, slice(20, 101), fill), paths=1, episode_bars=80)
        env.reset(options={"cash": True})
        for k in range(80):
            env.step_weights(targets[20 + k : 21 + k])
            np.testing.assert_allclose(env.excess[0], np.log1p(episode.returns[k]) - np.log1p(equal.returns[k]), rtol=0, atol=1e-9)
            np.testing.assert_allclose(env.held[0], episode.weights[k], rtol=0, atol=1e-9)


def test_excess_walks_the_same_bars() -> None:
    cube = random_cube(np.random.default_rng(0), 60, 4)
    t = track(cube, slice(10, 41))
    flat = excess(t, lambda obs: np.zeros((1, 4), np.float32), kappa=3.0, max_weight=1.0)
    np.testing.assert_allclose(flat, np.zeros(30), atol=1e-12)


def test_all_paths_march_and_restart_together() -> None:
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
    assert not reward.any() and not cut.any() and not ended.any()
    assert ((info[ROW] >= 0) & (info[ROW] <= 45 - 1 - 4)).all()
    assert env.observation_space.contains(obs)


def test_observation_ends_with_listed_and_held() -> None:
    cube = daily(np.full((20, 2), 10.0))
    env = environment(track(cube, slice(0, 20), "next_close", CostModel()), paths=1, max_weight=1.0)
    env.reset(options={"cash": True})
    obs = env.step_weights(np.array([[0.25, 0.5]]))[0].reshape(2, -1)
    np.testing.assert_allclose(obs[:, -2:], [[1.0, 0.25], [1.0, 0.5]])


def test_starts_in_cash_at_equal_weight_and_at_random() -> None:
    env = environment(track(random_cube(np.random.default_rng(1), 60, 3), slice(5, 50)), paths=300, max_weight=1.0)
    env.reset()
    cash, equal = (env.held.sum(1) == 0).mean(), (np.ptp(env.held, axis=1) < 1e-12).mean() - (env.held.sum(1) == 0).mean()
    assert 0.2 < cash < 0.47 and 0.2 < equal < 0.47 and (env.held.sum(1) <= 1 + 1e-12).all()


def test_nothing_after_the_rows_is_touched() -> None:
    rng = np.random.default_rng(2)
    cube, rows = random_cube(rng, 80, 4), slice(10, 50)

    def play(c: Cube) -> list[np.ndarray]:
        env, draw, seen = environment(track(c, rows), paths=16, episode_bars=13), np.random.default_rng(0), []
        seen.append(env.reset(seed=1)[0])
        for _ in range(60):
            obs, reward, *_ = env.step(draw.uniform(-1, 1, (16, 4)))
            seen += [obs, reward]
        return seen

    for a, b in zip(play(cube), play(perturb_future(cube, 49, rng)), strict=True):
        assert (a == b).all()


def test_an_episode_longer_than_the_rows_names_the_knob() -> None:
    t = track(random_cube(np.random.default_rng(0), 60, 3), slice(5, 26))
    environment(t, episode_bars=20)
    with pytest.raises(ConfigError, match=r"rl\.episode_bars is 21, but there are 20 bars"):
        environment(t, episode_bars=21)


def test_fields_that_are_not_numbers_are_refused() -> None:
    cube = random_cube(np.random.default_rng(0), 60, 3)
    fields = np.zeros((20, 3, 2), np.float32)
    fields[4, 1, 1] = np.nan
    with pytest.raises(DataError, match="field 1 of S01 at row 14 is nan"):
        Track.of(cube, fields, slice(10, 30), fill="next_open", costs=COSTS)
