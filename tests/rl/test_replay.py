import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlaif_ray.rl.env import ROW
from rlaif_ray.rl.observation import OWN, Layout
from rlaif_ray.rl.replay import Ring

A, D = 2, 3
TABLE = np.random.default_rng(0).standard_normal((50, A, D + 1)).astype(np.float32)


def episode(first: int, steps: int, seed: int, ended: bool = False) -> SingleAgentEpisode:
    """A chunk as RLlib's EnvRunner hands it over; its reward is its row."""
    rng, layout = np.random.default_rng(seed), Layout(A, D)
    rows = np.arange(first, first + steps + 1)
    seen = rng.random((steps + 1, layout.size)).astype(np.float32)
    layout.split(seen)[0][..., :-OWN] = TABLE[rows, :, :-1]
    chunk = SingleAgentEpisode()
    chunk.add_env_reset(seen[0], infos={ROW: rows[0]})
    for k in range(steps):
        action = rng.uniform(-1, 1, A).astype(np.float32)
        chunk.add_env_step(seen[k + 1], action, float(rows[k]), infos={ROW: rows[k + 1]}, terminated=ended and k == steps - 1)
    return chunk.to_numpy()


def test_what_was_seen_is_rebuilt_bit_for_bit() -> None:
    chunks = [episode(3, 4, 0, ended=True), episode(20, 1, 1), SingleAgentEpisode()]
    ring = Ring(10, TABLE, seed=0)
    assert ring.add(chunks) == 5 == len(ring)
    seen = {}
    for chunk in chunks[:2]:
        for k, row in enumerate(chunk.get_rewards().tolist()):
            seen[row] = chunk.get_observations(k), chunk.get_observations(k + 1), chunk.get_actions(k)
    batch = ring.sample(64)
    assert {3.0, 4.0, 5.0, 6.0, 20.0} == set(batch[Columns.REWARDS].tolist())
    for n, reward in enumerate(batch[Columns.REWARDS].tolist()):
        for key, value in zip((Columns.OBS, Columns.NEXT_OBS, Columns.ACTIONS), seen[reward], strict=True):
            assert (batch[key][n] == value).all()
    assert (batch[Columns.TERMINATEDS] == (batch[Columns.REWARDS] == 6.0)).all()


def test_the_oldest_give_way() -> None:
    ring = Ring(4, TABLE, seed=0)
    ring.add([episode(0, 3, 0), episode(10, 3, 1)])
    assert len(ring) == 4
    assert set(ring.sample(200)[Columns.REWARDS].tolist()) == {2.0, 10.0, 11.0, 12.0}


def test_a_copy_draws_the_same() -> None:
    ring, other = Ring(8, TABLE, seed=0), Ring(8, TABLE, seed=9)
    ring.add([episode(0, 6, 0)])
    ring.sample(5)
    other.set_state(ring.get_state())
    a, b = ring.sample(32), other.sample(32)
    assert all((a[k] == b[k]).all() for k in a)
