import numpy as np
import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlaif_ray.rl.networks import Actor, Critic, noisy, soft_weights, weights_of

B, A, D = 3, 5, 6


def observation(assets: int = A, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(B, assets, D, generator=g)
    obs[..., -2], obs[..., -1] = 1.0, 1.0 / assets
    return obs


def test_weights_by_hand() -> None:
    listed = np.array([[True, True, True], [False, True, True]])
    weights = weights_of(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), listed, np.log(2.0), 1.0)
    np.testing.assert_allclose(weights, [[0.25, 0.25, 0.5], [0.0, 0.5, 0.5]])


def test_weights_are_capped_and_no_name_is_all_cash() -> None:
    weights = weights_of(np.array([[1.0, -1.0, -1.0], [0.3, 0.2, 0.1]]), np.array([[True] * 3, [False] * 3]), 5.0, 0.4)
    np.testing.assert_allclose(weights, [[0.4, 0.3, 0.3], [0.0, 0.0, 0.0]])


def test_soft_weights_are_the_uncapped_weights() -> None:
    actions, listed = np.array([[0.5, -0.5, 0.9, 0.1]]), np.array([[True, True, False, True]])
    soft = soft_weights(torch.tensor(actions), torch.tensor(listed, dtype=torch.float64), 3.0)
    np.testing.assert_allclose(soft.numpy(), weights_of(actions, listed, 3.0, 1.0), atol=1e-12)


def test_order_of_assets_does_not_matter() -> None:
    torch.manual_seed(0)
    actor, critic = Actor(D, (16, 16)), Critic(D, (16, 16), 4.0)
    obs, actions, order = observation(), torch.rand(B, A) * 2 - 1, torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(actor.best(obs[:, order]), actor.best(obs)[:, order])
    torch.testing.assert_close(critic(obs[:, order], actions[:, order]), critic(obs, actions))


def test_a_name_that_is_not_listed_changes_nothing() -> None:
    torch.manual_seed(0)
    actor, critic = Actor(D, (16, 16)), Critic(D, (16, 16), 4.0)
    obs, actions = observation(), torch.rand(B, A) * 2 - 1
    gone = torch.cat((obs, torch.randn(B, 1, D)), dim=1)
    gone[:, -1, -2:] = 0.0
    torch.testing.assert_close(actor.best(gone)[:, :A], actor.best(obs))
    torch.testing.assert_close(critic(gone, torch.cat((actions, torch.ones(B, 1)), dim=1)), critic(obs, actions))


def test_size_does_not_grow_with_the_assets() -> None:
    actor = Actor(D, (16, 16))
    assert actor.best(observation(2)).shape == (B, 2)
    assert actor.best(observation(50)).shape == (B, 50)


def test_log_density_is_that_of_the_squashed_normal() -> None:
    torch.manual_seed(1)
    actor, obs = Actor(D, (16, 16)), observation()
    obs[0, 2, -2] = 0.0
    actions, logp = actor.sample(obs)
    mean, log_std = actor(obs)
    exact = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()]).log_prob(actions) * obs[..., -2]
    torch.testing.assert_close(logp, exact.sum(1), rtol=1e-3, atol=1e-3)


def test_critic_can_say_what_a_trade_costs() -> None:
    """Its value depends on what is held: the same weights are worth less from further away once it has learnt so."""
    torch.manual_seed(0)
    critic = Critic(D, (32, 32), 2.0)
    optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(400):
        obs, actions = observation(seed=int(torch.randint(1 << 30, ()))), torch.rand(B, A) * 2 - 1
        obs[..., -1] = torch.softmax(torch.randn(B, A), dim=1)
        cost = (soft_weights(actions, obs[..., -2], 2.0) - obs[..., -1]).abs().sum(1)
        loss = (critic(obs, actions) + cost).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_noise_spares_what_is_listed_and_held(scale: float) -> None:
    obs = observation()
    seen = noisy(obs, scale)
    assert torch.equal(seen[..., -2:], obs[..., -2:])
    assert torch.equal(seen, obs) == (scale == 0.0)
