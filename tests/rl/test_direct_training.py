from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rlaif_ray.core import Cube
from rlaif_ray.errors import ConfigError, ModelError
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.rl.direct_policy import network_of
from rlaif_ray.rl.direct_training import CHECKS, Trained, _own_numbers, excess_utility, fit_network, judge
from rlaif_ray.rl.env import PortfolioVectorEnv
from rlaif_ray.rl.projection import ActionSet
from tests.laws import assert_fit, parameter_hash
from tests.markets import daily
from tests.rl.toys import toy, track

ALLOWED = ActionSet(0.5)
SMALL: dict[str, Any] = {"allowed": ALLOWED, "hidden": (16, 16), "heads": 2, "steps": 20, "paths": 16, "horizon_bars": 4}
TRAIN, VALIDATION, TEST = slice(0, 350), slice(355, 450), slice(455, 900)


def fitted(cube: Cube, seed: int = 0, validation: slice = VALIDATION, **changes: Any) -> Trained:
    knobs: dict[str, Any] = SMALL | changes | {"seed": seed}
    return fit_network(track(cube, TRAIN), track(cube, validation), **knobs)


def test_same_seed_same_bits_and_nobody_elses_dice_are_thrown() -> None:
    cube = toy(signal=0.3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (fitted(cube, seed=s) for s in (3, 3, 4))
    assert parameter_hash(one.state) == parameter_hash(two.state) != parameter_hash(other.state)
    assert one.curve == two.curve != other.curve
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_after_the_training_rows_moves_a_weight() -> None:
    """Nor does what was shown for validation: it chooses among weights and makes none."""
    cube, rng = toy(signal=0.3, rows=500), np.random.default_rng(0)

    def last(c: Cube) -> Any:  # of a budget of one check, where there is nothing to choose
        fields = np.clip(c.features[TRAIN], -5, 5)
        shown = replace(track(cube, TRAIN), table=np.concatenate((fields, c.listed[TRAIN, :, None]), axis=2, dtype=np.float32))
        knobs: dict[str, Any] = SMALL | {"steps": 1, "seed": 0}
        return fit_network(replace(shown, market=track(c, TRAIN).market), track(c, VALIDATION), **knobs).state

    assert_fit(last, cube, TRAIN.stop, rng)


def test_kept_is_what_did_best_on_validation_and_of_equals_the_later() -> None:
    cube = toy(signal=0.3)
    told: list[dict[str, float]] = []
    trained = fitted(cube, told=told.append)
    assert [p["step"] for p in trained.curve] == [2 * k for k in range(1, CHECKS + 1)] and told == trained.curve
    best = max(trained.curve, key=lambda p: (p["validation_utility"], p["step"]))
    assert trained.kept_step == best["step"]
    again = judge(network_of(trained.state, 3, hidden=(16, 16), heads=2), track(cube, VALIDATION), ALLOWED, excess_utility(20.0))
    assert again == {k: best[k] for k in again}
    nothing = fitted(cube, utility=lambda net, benchmark: 0.0 * net)
    assert nothing.kept_step == 20


def test_what_a_walker_sees_of_its_account_is_what_the_environment_shows() -> None:
    cube = toy(signal=0.0)
    walked = track(cube, slice(0, 50))
    env = PortfolioVectorEnv(walked, paths=3, episode_bars=40, allowed=ALLOWED, seed=1)
    obs, _ = env.reset()
    memory, own, net = np.tile(walked.memory.start, (3, 1)), np.empty((3, 6), np.float32), np.zeros(3)
    rng, dull = np.random.default_rng(0), np.zeros(3)
    for bar in range(20):
        cash = 1.0 - env.held.sum(axis=1)
        _own_numbers(net, cash, dull, bar > 0, walked.memory.eta, walked.memory.volatility, memory, own)
        np.testing.assert_allclose(own, walked.layout.split(obs)[1], rtol=1e-6, atol=1e-6)
        obs, *_ = env.step(rng.uniform(-1, 1, (3, 5)))
        net = env.returns.copy()
    assert own[:, 1].max() > 1e-3  # a drawdown was seen


def test_penalties_do_what_they_say() -> None:
    """Turnover that is taxed goes down, and scores that are paid for being alike stay so: a hundredfold signal to be ignored."""
    cube = toy(signal=1.0)
    knobs: list[dict[str, Any]] = [{}, {"turnover": 0.05}, {"entropy": 1.0}]
    plain, taxed, even = (fitted(cube, steps=40, learning_rate=1e-2, **more).curve[-1]["validation_turnover"] for more in knobs)
    assert plain > 0.2 and taxed < 0.25 * plain and even < 0.25 * plain


def test_an_account_of_whole_shares_learns_in_parts_of_them_and_is_judged_in_whole_ones() -> None:
    cube, whole = toy(signal=0.3), AccountRules(whole_shares=True)
    parts, judged = track(cube, TRAIN), replace(track(cube, VALIDATION), cash_usd=1e3)  # at some 100 USD a share
    free = fit_network(parts, judged, **SMALL)
    bound = fit_network(replace(parts, account=whole), replace(judged, account=whole), **SMALL)
    learnt, judged_by = ([[p[key] for p in trained.curve] for trained in (free, bound)] for key in ("train_utility", "validation_utility"))
    assert learnt[0] == pytest.approx(learnt[1], abs=1e-3)  # but for what equal weight earns
    assert judged_by[0] != pytest.approx(judged_by[1], abs=1e-3)


def test_paths_that_are_ruined_go_on_with_new_money() -> None:
    """Every tenth bar a name that is half of what is short becomes worth ten times as much."""
    rng = np.random.default_rng(0)
    closes = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((500, 5)), axis=0)
    closes[10::10, 0] *= 30.0
    cube = replace(daily(closes), features=rng.standard_normal((500, 5, 3)).astype(np.float32), feature_names=("z", "x", "y"))
    shorts = AccountRules(long_short=True)
    train, validation = (replace(track(cube, rows), account=shorts) for rows in (TRAIN, VALIDATION))
    knobs: dict[str, Any] = SMALL | {"allowed": ActionSet(0.5, long_short=True)}
    trained = fit_network(train, validation, **knobs)
    assert all(np.isfinite(list(point.values())).all() for point in trained.curve)
    assert min(p["train_utility"] for p in trained.curve) < -50.0  # some were


def test_knobs_that_cannot_be_and_training_that_diverges() -> None:
    cube = toy(signal=0.3)
    with pytest.raises(ConfigError, match=r"^--rl\.direct\.horizon_bars is 350, but there are 349 bars"):
        fitted(cube, horizon_bars=350)
    with pytest.raises(ModelError, match=r"diverged at step \d+; lower --rl\.direct\.learning_rate"):
        fitted(cube, learning_rate=1e30)
    with pytest.raises(ConfigError, match="an episode of 0 bars over 1 rows"):
        fitted(cube, validation=slice(400, 401))
    with pytest.raises(ModelError, match="diverged at step 1"):
        fitted(cube, utility=lambda net, benchmark: net * torch.nan)


def edge(trained: Trained, cube: Cube) -> float:
    """Log return over equal weight on unseen rows, in basis points a bar."""
    network = network_of(trained.state, 3, hidden=(32, 32), heads=2)
    return 1e4 * judge(network, track(cube, TEST), ALLOWED, excess_utility(0.0))["validation_log_excess"]


LEARNS: dict[str, Any] = {"hidden": (32, 32), "steps": 120, "paths": 32, "horizon_bars": 8}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_learns_a_planted_signal(seed: int) -> None:
    """Who knew what is planted would earn some 25 basis points a bar before costs of 4; a standard error is 2."""
    cube = toy(signal=0.3, seed=seed)
    assert edge(fitted(cube, seed=seed, **LEARNS), cube) > 14.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_claims_nothing_on_noise(seed: int) -> None:
    cube = toy(signal=0.0, seed=seed)
    assert edge(fitted(cube, seed=seed, **LEARNS), cube) < 4.0
