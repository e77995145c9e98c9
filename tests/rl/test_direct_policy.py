import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlaif_ray.backtest import engine
from rlaif_ray.core import Cube, MarketView, Portfolio
from rlaif_ray.errors import CheckpointError, ConfigError, MissingDataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Market, step
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Limits, sector_numbers
from rlaif_ray.rl.direct_network import Choice, DirectNetwork, choose
from rlaif_ray.rl.direct_policy import DirectPolicy
from rlaif_ray.rl.direct_training import excess_utility, judge
from rlaif_ray.rl.env import Track
from rlaif_ray.rl.observation import Recipe
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.strategies import EqualWeight
from tests.laws import assert_apply, random_cube
from tests.markets import daily

SHAPE = {"hidden": (8, 8), "heads": 2}
TERMS = Terms(costs=CostModel.of_bps(0.5, 1.0, 2.0), limits=Limits(max_weight=0.5))
ROWS = slice(60, 100)
LONG, BOTH = ActionSet(0.3), ActionSet(0.3, long_short=True)


def network(seed: int = 0, fields: int = 3, gate: float = 0.0, band: float = -5.0) -> DirectNetwork:
    """Random weights that matter: the head starts at zero, so that an untrained network would say nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = DirectNetwork(fields, 6, **SHAPE)  # pyright: ignore[reportArgumentType]
        torch.nn.init.normal_(made.head.weight, std=0.5)
        with torch.no_grad():
            made.head.bias.copy_(torch.tensor([0.0, gate, band]))
    return made


def seen(seed: int = 0, batch: int = 4, assets: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fields, listed, held, account; every third name is not listed and shows noise all the same."""
    g = torch.Generator().manual_seed(seed)
    listed = (torch.arange(assets) % 3 != 2).float().expand(batch, assets)
    held = torch.rand(batch, assets, generator=g, dtype=torch.float64) * listed
    return torch.randn(batch, assets, 3, generator=g), listed, 0.2 * held / held.amax(1, keepdim=True), torch.randn(batch, 6, generator=g)


def chosen(net: DirectNetwork, allowed: ActionSet, fields: Tensor, listed: Tensor, held: Tensor, account: Tensor) -> Choice:
    return choose(net, allowed, net.encode(fields, listed), listed, held, account)


# --- the network ---


@pytest.mark.parametrize("allowed", [LONG, BOTH, ActionSet(0.3, sectors=(0, 0, 1, 1, 2, 2, 2), max_sector=0.4)])
def test_permuted_assets_get_permuted_weights(allowed: ActionSet) -> None:
    fields, listed, held, account = seen()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    moved = replace(allowed, sectors=tuple(allowed.sectors[int(k)] for k in order)) if allowed.sectors else allowed
    plain = chosen(network(), allowed, fields, listed, held, account).targets
    shuffled = chosen(network(), moved, fields[:, order], listed[:, order], held[:, order], account).targets
    assert plain.std() > 0.02
    torch.testing.assert_close(shuffled, plain[:, order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("allowed", [LONG, BOTH])
def test_what_unlisted_names_show_moves_no_bit(allowed: ActionSet) -> None:
    fields, listed, held, account = seen()
    other = torch.where(listed[..., None] > 0, fields, 50.0 * torch.randn_like(fields))
    one, two = (chosen(network(), allowed, f, listed, held, account).targets for f in (fields, other))
    assert torch.equal(one, two) and not one[listed == 0].any()


@pytest.mark.parametrize("allowed", [LONG, BOTH])
def test_names_that_are_not_there_count_as_names_that_are_not_listed(allowed: ActionSet) -> None:
    """The cap is above 1/A of both: a subset decides as the whole does that cannot hold the rest."""
    fields, listed, held, account = seen()
    there = listed[0] > 0
    whole = chosen(network(), allowed, fields, listed, held, account).targets[:, there]
    part = chosen(network(), allowed, fields[:, there], listed[:, there], held[:, there], account).targets
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=0)


def test_its_weights_are_allowed_and_the_first_are_equal() -> None:
    fields, listed, held, account = seen()
    for allowed in (LONG, BOTH):
        weights = chosen(network(), allowed, fields, listed, held, account).targets
        scores = (weights - (0.0 if allowed.long_short else 0.2)) / 0.3
        again = torch.from_numpy(allowed.targets(scores.detach().numpy(), listed.numpy() > 0))
        torch.testing.assert_close(again, weights, atol=1e-12, rtol=0)  # the projection is the identity there
    fresh = DirectNetwork(3, 6, hidden=(8,), heads=1)
    aim = chosen(fresh, ActionSet(0.3), fields, listed, torch.zeros_like(held), account).targets
    assert ((aim - 0.1)[listed > 0].abs() < 0.01).all()  # half the way from cash to 1/5, less the band


def test_to_hold_is_one_of_the_answers() -> None:
    """Within a band of 5 caps nothing is asked for but what is held, to the last bits: no cost comes of it in the kernel."""
    fields, _, _, account = seen(assets=6)
    listed = torch.ones(4, 6)
    market = Market.of(daily(np.full((3, 6), 50.0)), "next_open")
    for allowed, sign in ((LONG, 1.0), (BOTH, -1.0)):
        held = torch.rand(4, 6, dtype=torch.float64) / 7.0 * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, sign], dtype=torch.float64)
        targets = chosen(network(band=5.0), allowed, fields, listed, held, account).targets.detach()
        torch.testing.assert_close(targets, held, atol=1e-15, rtol=0)
        if not allowed.long_short:
            accounts = Accounts(1e6 * (1.0 - held.sum(1)).numpy(), (1e6 * held / 50.0).numpy(), np.ones((4, 6)))
            assert step(market, accounts, np.zeros(4, np.int64), targets.numpy(), TERMS.costs).turnover.max() < 1e-14


def test_the_gate_says_how_much_of_the_way_is_traded() -> None:
    fields, listed, held, account = seen()
    net, tight = network(), -30.0
    with torch.no_grad():
        net.head.weight[1:] = 0.0  # gate and band are those of the bias
    moves = []
    for gate in (-20.0, 0.0, 20.0):
        with torch.no_grad():
            net.head.bias.copy_(torch.tensor([0.0, gate, tight]))
        moves.append(chosen(net, BOTH, fields, listed, held, account).targets - held)
    assert moves[2].abs().max() > 0.1
    torch.testing.assert_close(moves[0], torch.zeros_like(held), atol=1e-8, rtol=0)
    torch.testing.assert_close(moves[1], 0.5 * moves[2], atol=1e-8, rtol=0)


def test_every_parameter_has_a_gradient() -> None:
    fields, listed, held, account = seen()
    net = network()
    (chosen(net, LONG, fields, listed, held, account).targets * torch.randn(7)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"3 heads do not divide the last hidden width, 8.*rl\.direct\.heads"):
        DirectNetwork(3, 6, hidden=(8,), heads=3)


# --- the policy ---


def policy(cube: Cube, members: int = 1, max_sector: float = 1.0, sectors: dict[str, str] | None = None) -> DirectPolicy:
    recipe = Recipe.fit(cube, {}, None, features=cube.feature_names, sees=("features",), block_a=slice(0, 30), train_rows=slice(30, 60))
    networks = [network(m, len(recipe.names)) for m in range(members)]
    return DirectPolicy(recipe, networks, **SHAPE, allowed=ActionSet(0.5, max_sector=max_sector), sectors=sectors)  # pyright: ignore


def walk(p: DirectPolicy, cube: Cube):
    return engine.run(p, cube, ROWS, TERMS)


def test_saved_and_loaded_decides_the_same(tmp_path: Path) -> None:
    cube = random_cube(np.random.default_rng(0), 120, 5)
    made = policy(cube, members=2, max_sector=0.6, sectors={"S00": "x", "S01": "x", "S02": "y"})
    made.save(tmp_path)
    assert not list(tmp_path.glob("*.p*k*l"))
    assert walk(DirectPolicy.load(tmp_path), cube)[1] == walk(made, cube)[1]


def test_backtest_is_what_it_was_judged_by() -> None:
    """The policy in the engine, from views, and its network in the environment, from tracks, earn the same."""
    cube = random_cube(np.random.default_rng(1), 120, 5)
    p = policy(cube)
    episode, _ = walk(p, cube)
    equal, _ = engine.run(EqualWeight(), cube, ROWS, replace(TERMS, limits=Limits()))
    rows = slice(ROWS.start, ROWS.stop + 1)
    track = Track.of(cube, p.recipe.bulk(cube, {}, None, rows), rows, fill="next_open", costs=TERMS.costs, memory=p.recipe.memory)
    judged = judge(p.networks[0], track, p.allowed, excess_utility(0.0))
    assert episode.turnover.mean() > 0.05
    # what is held comes by two float64 sums, which can round to neighbouring float32 inputs
    excess = np.log1p(episode.returns) - np.log1p(equal.returns)
    assert judged["validation_log_excess"] == pytest.approx(excess.mean(), abs=1e-6)
    assert judged["validation_utility"] == pytest.approx(100 * excess.mean(), abs=1e-4)
    assert judged["validation_turnover"] == pytest.approx(episode.turnover.mean(), abs=1e-6)


def test_members_vote_by_mean() -> None:
    cube = random_cube(np.random.default_rng(2), 120, 5)
    both = policy(cube, members=2)
    alone = [DirectPolicy(both.recipe, [n], **SHAPE, allowed=both.allowed) for n in both.networks]  # pyright: ignore[reportArgumentType]
    first = [walk(p, cube)[1][0].weights for p in (both, *alone)]
    for symbol in cube.symbols:
        assert first[0][symbol] == pytest.approx((first[1][symbol] + first[2][symbol]) / 2)


def test_decisions_do_not_see_the_future() -> None:
    cube, rng = random_cube(np.random.default_rng(3), 120, 5), np.random.default_rng(0)
    p = policy(cube)
    assert_apply(lambda c: walk(p, c)[1], cube, 80, rng)


def test_reason_gives_the_names_and_what_pushed_them() -> None:
    decision = walk(policy(random_cube(np.random.default_rng(4), 120, 5)), random_cube(np.random.default_rng(4), 120, 5))[1][5]
    top = max(decision.weights, key=decision.weights.__getitem__)
    assert decision.reason.startswith("trades ") and f"; {top} " in decision.reason
    assert "over equal weight" in decision.reason and "under equal weight" in decision.reason
    assert "sd" in decision.reason and ("x0" in decision.reason or "x1" in decision.reason)


def test_delisted_names_get_nothing() -> None:
    cube = random_cube(np.random.default_rng(5), 120, 4)
    gone = np.zeros((120, 4), bool)
    gone[70:, 2] = True
    prices, tradable = cube.prices.copy(), cube.tradable.copy()
    prices[70:, 2], tradable[70:, 2] = np.nan, False
    cube = replace(cube, prices=prices, tradable=tradable, delisted=gone)
    decisions = walk(policy(cube), cube)[1]
    assert all(d.weights["S02"] == 0.0 for d in decisions[10:]) and max(d.weights["S02"] for d in decisions[:10]) > 0.01


def test_a_sector_is_held_to_its_cap_in_any_universe() -> None:
    cube = random_cube(np.random.default_rng(6), 120, 5)
    sectors = {"S00": "x", "S01": "x", "S02": "x", "S03": "y", "elsewhere": "z"}
    sums = [sum(d.weights[s] for s in ("S00", "S01", "S02")) for d in walk(policy(cube, max_sector=0.3, sectors=sectors), cube)[1]]
    free = [sum(d.weights[s] for s in ("S00", "S01", "S02")) for d in walk(policy(cube), cube)[1]]
    assert max(sums) == pytest.approx(0.3) and max(free) > 0.4
    assert sector_numbers(cube.symbols, sectors) == (0, 0, 0, 1, -1) and sector_numbers(("A",), sectors) == ()


def test_it_decides_in_a_universe_that_it_has_never_seen() -> None:
    p = policy(random_cube(np.random.default_rng(7), 120, 5))
    for assets in (1, 3, 40):
        decision = walk(p, random_cube(np.random.default_rng(8), 120, assets))[1][0]
        assert len(decision.weights) == assets and sum(decision.weights.values()) <= 1 + 1e-9


def test_a_market_without_its_fields_is_refused_by_name() -> None:
    cube = random_cube(np.random.default_rng(9), 120, 5)
    p, other = policy(cube), replace(cube, feature_names=("x0", "vix"))
    empty = Portfolio(other.known_at[60], other.symbols, 1e6, np.zeros(5), other.close[60])
    with pytest.raises(MissingDataError, match="no feature 'x1'"):
        p.decide(MarketView(other, 60, empty))


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no policy in .*policy\.json"):
        DirectPolicy.load(tmp_path / "nowhere")
    policy(random_cube(np.random.default_rng(0), 120, 5)).save(tmp_path)
    manifest = json.loads((tmp_path / "policy.json").read_text())
    assert manifest["policy"] == "direct"
    (tmp_path / "policy.json").write_text(json.dumps(manifest | {"hidden": [16, 16]}))
    with pytest.raises(CheckpointError, match="no policy in"):
        DirectPolicy.load(tmp_path)


def test_weights_that_are_not_finite_are_refused() -> None:
    p, broken = policy(random_cube(np.random.default_rng(0), 120, 5)), network(fields=2)
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(CheckpointError, match=r"network 0 has weights that are not finite.*learning_rate"):
        DirectPolicy(p.recipe, [broken], **SHAPE, allowed=p.allowed)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match="at least one trained network"):
        DirectPolicy(p.recipe, [], **SHAPE, allowed=p.allowed)  # pyright: ignore[reportArgumentType]
