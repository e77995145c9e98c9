import numpy as np
import pytest

from rlaif_ray.errors import ConfigError, DataError, ModelError
from rlaif_ray.rl.rewards import DOWNSIDE, DRAWDOWN, FALL, MEAN, PARTS, SHARPE, SORTINO, SQUARE, STATES, Memory, Reward, remember


def walked(returns: np.ndarray, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """States (T+1,S) and parts (T,K) of one path."""
    states, parts = [memory.start], np.zeros((len(returns), len(PARTS)))
    for net, part in zip(returns, parts, strict=True):
        states.append(states[-1].copy())
        remember(states[-1], net, memory.eta, memory.volatility, part)
    return np.array(states), parts


def test_by_hand() -> None:
    """From mean 0, square 4e-4, downside 2e-4, a loss of 2% at eta 0.1."""
    states, parts = walked(np.array([-0.02]), Memory(0.1, 0.02))
    np.testing.assert_allclose(states[0], [0.0, 4e-4, 2e-4, 0.0])
    np.testing.assert_allclose(states[1], [-0.002, 4e-4, 2.2e-4, 0.02])
    assert parts[0, SHARPE] == pytest.approx(-0.1)  # eta * B * dA / B^1.5 = 0.1 * -0.02 / 0.02
    assert parts[0, SORTINO] == pytest.approx(0.1 * -0.02 / np.sqrt(2e-4))
    assert parts[0, DRAWDOWN] == pytest.approx(0.02)


def test_increments_of_the_drawdown_add_up_to_it() -> None:
    returns = 0.02 * np.random.default_rng(0).standard_normal(500)
    states, parts = walked(returns, Memory())
    equity = np.concatenate(([1.0], np.cumprod(1.0 + returns)))
    drawdown = 1.0 - equity / np.maximum.accumulate(equity)
    np.testing.assert_allclose(parts[:, DRAWDOWN].cumsum(), drawdown[1:], atol=1e-12)
    np.testing.assert_allclose(states[:, FALL], drawdown, atol=1e-12)


def test_increments_of_the_ratios_add_up_to_their_change() -> None:
    """To first order in eta: what is left falls with it."""
    rng, left = np.random.default_rng(1), []
    for eta in (1e-2, 1e-3):
        returns = 0.002 + 0.01 * rng.standard_normal(round(3 / eta))
        states, parts = walked(returns, Memory(eta, 0.01))
        sharpe = states[:, MEAN] / np.sqrt(states[:, SQUARE] - states[:, MEAN] ** 2)
        sortino = states[:, MEAN] / np.sqrt(states[:, DOWNSIDE])
        assert sharpe[-1] - sharpe[0] > 0.05 and sortino[-1] - sortino[0] > 0.1
        left.append([abs(parts[:, SHARPE].sum() - sharpe[-1] + sharpe[0]), abs(parts[:, SORTINO].sum() - sortino[-1] + sortino[0])])
    assert (np.array(left[1]) < 0.01).all() and (np.array(left[1]) < 0.3 * np.array(left[0])).all()


def test_state_is_a_function_of_the_returns_alone() -> None:
    returns = 0.02 * np.random.default_rng(2).standard_normal(300)
    memory = Memory(0.05, 0.02)
    states, _ = walked(returns, memory)
    for k in (0, 1, 17, 300):
        assert (memory.after(returns[:k]) == states[k]).all()
    assert memory.start.shape == (STATES,)


def test_a_path_in_cash_stays_finite() -> None:
    """Its moments fall to nothing: the ratios divide by a quarter of the usual volatility and no less."""
    states, parts = walked(np.concatenate((np.zeros(2000), [0.05, -0.05])), Memory())
    assert np.isfinite(parts).all() and np.abs(parts).max() < 5.0 and (states >= 0)[:, [SQUARE, DOWNSIDE, FALL]].all()


@pytest.mark.parametrize(
    ("kind", "reward"),
    [
        ("log_return", 1.0), ("differential_sharpe", 3.0), ("differential_sortino", 4.0), ("drawdown", -5.0),
        ("excess_utility", 2.0 - 0.5 * 20.0 * 4.0), ("weighted_raw", 0.4 * 1.0 + 0.3 * 3.0 - 0.2 * 5.0 - 0.1 * 6.0),
        ("weighted", 0.4 * 1.0 / 2.0 + 0.3 * 3.0 / 2.0 - 0.2 * 5.0 / 2.0 - 0.1 * 6.0 / 2.0),
    ],
)  # fmt: skip
def test_kinds_by_hand(kind, reward: float) -> None:
    parts = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    coefficients = Reward(kind, scale=10.0, risk_aversion=20.0, deviations=(2.0,) * 6).coefficients
    assert coefficients[:-1] @ parts - 0.5 * coefficients[-1] * 4.0 == pytest.approx(10.0 * reward)


def test_what_is_no_reward_is_refused() -> None:
    with pytest.raises(ConfigError, match="reward 'profit' is unknown; expected one of excess_utility, log_return"):
        Reward("profit")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="a callable goes with 'learned' alone"):
        Reward("learned")
    with pytest.raises(ConfigError, match="a callable goes with 'learned' alone"):
        Reward("log_return", learned=lambda parts, returns: returns)
    with pytest.raises(ModelError, match="the learned reward gave"):
        Reward("learned", learned=lambda parts, returns: returns * np.nan).ask(np.zeros((2, 6)), np.zeros(2))
    with pytest.raises(DataError, match="sharpe does not vary"):
        Reward("weighted").fitted(np.random.default_rng(0).random((9, 6)) * [1, 1, 0, 1, 1, 1])
    with pytest.raises(ConfigError, match=r"eta is 1\.5"):
        Memory(eta=1.5)
    with pytest.raises(ConfigError, match=r"usual volatility is 0\.0"):
        Memory(volatility=0.0)
