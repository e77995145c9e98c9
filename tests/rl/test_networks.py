import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlaif_ray.rl.networks import Actor, Critic, layout_of, noisy
from rlaif_ray.rl.observation import PORTFOLIO
from rlaif_ray.rl.projection import ActionSet

B, A, D = 3, 5, 4
ANY = ActionSet(1.0)


def parts(assets: int = A, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What the assets show (B,A,D+2), and the account (B,P)."""
    g = torch.Generator().manual_seed(seed)
    shown = torch.randn(B, assets, D + 2, generator=g)
    shown[..., -2], shown[..., -1] = 1.0, 1.0 / assets
    return shown, torch.randn(B, len(PORTFOLIO), generator=g)


def flat(shown: torch.Tensor, account: torch.Tensor) -> torch.Tensor:
    return torch.cat((shown.reshape(len(shown), -1), account), dim=1)


def observation(assets: int = A, seed: int = 0) -> torch.Tensor:
    return flat(*parts(assets, seed))


def test_order_of_assets_does_not_matter() -> None:
    torch.manual_seed(0)
    actor, critic = Actor(D, (16, 16)), Critic(D, (16, 16), ANY)
    (shown, account), actions, order = parts(), torch.rand(B, A) * 2 - 1, torch.tensor([3, 0, 4, 1, 2])
    obs, reordered = flat(shown, account), flat(shown[:, order], account)
    torch.testing.assert_close(actor.best(reordered), actor.best(obs)[:, order])
    torch.testing.assert_close(critic(reordered, actions[:, order]), critic(obs, actions))


def test_a_name_that_is_not_listed_changes_nothing() -> None:
    torch.manual_seed(0)
    actor, critic = Actor(D, (16, 16)), Critic(D, (16, 16), ANY)
    (shown, account), actions = parts(), torch.rand(B, A) * 2 - 1
    obs, more = flat(shown, account), torch.cat((shown, torch.randn(B, 1, D + 2)), dim=1)
    more[:, -1, -2:] = 0.0
    gone = flat(more, account)
    torch.testing.assert_close(actor.best(gone)[:, :A], actor.best(obs))
    torch.testing.assert_close(critic(gone, torch.cat((actions, torch.ones(B, 1)), dim=1)), critic(obs, actions))


def test_size_does_not_grow_with_the_assets() -> None:
    actor = Actor(D, (16, 16))
    assert actor.best(observation(2)).shape == (B, 2)
    assert actor.best(observation(50)).shape == (B, 50)


def test_log_density_is_that_of_the_squashed_normal() -> None:
    torch.manual_seed(1)
    actor, (shown, account) = Actor(D, (16, 16)), parts()
    shown[0, 2, -2] = 0.0
    obs = flat(shown, account)
    actions, logp = actor.sample(obs)
    mean, log_std = actor(obs)
    exact = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()]).log_prob(actions) * shown[..., -2]
    torch.testing.assert_close(logp, exact.sum(1), rtol=1e-3, atol=1e-3)


def test_critic_can_say_what_a_trade_costs() -> None:
    """Its value depends on what is held: the same weights are worth less from further away once it has learnt so."""
    torch.manual_seed(0)
    critic = Critic(D, (32, 32), ANY)
    optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(400):
        (shown, account), actions = parts(seed=int(torch.randint(1 << 30, ()))), torch.rand(B, A) * 2 - 1
        shown[..., -1] = torch.softmax(torch.randn(B, A), dim=1)
        obs = flat(shown, account)
        cost = (ANY.soft(actions, shown[..., -2]) - shown[..., -1]).abs().sum(1)
        loss = (critic(obs, actions) + cost).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_noise_spares_what_is_listed_and_held_and_the_account(scale: float) -> None:
    obs = observation()
    before = obs.clone()
    seen = noisy(obs, scale, D)
    (shown, account), (noised, same) = (layout_of(x, D).split(x) for x in (obs, seen))
    assert torch.equal(noised[..., -2:], shown[..., -2:]) and torch.equal(account, same) and torch.equal(obs, before)
    assert torch.equal(noised[..., :D], shown[..., :D]) == (scale == 0.0)


def test_the_account_is_seen() -> None:
    torch.manual_seed(0)
    actor, critic, (shown, account) = Actor(D, (16, 16)), Critic(D, (16, 16), ANY), parts()
    obs, other = flat(shown, account), flat(shown, account + 1.0)
    assert not torch.allclose(actor.best(obs), actor.best(other))
    assert not torch.allclose(critic(obs, torch.zeros(B, A)), critic(other, torch.zeros(B, A)))
