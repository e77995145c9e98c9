"""The flat replay ring: a transition is its row, holdings, action and reward; what was seen is looked up again.

RLlib's episode buffer spends more time on book-keeping than the networks on learning, and whole observations of many assets
fill memory. The market part of an observation depends on the row alone, so the ring keeps the row and reads the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlaif_ray.rl.env import ROW, observe


class Ring:
    """Uniform replay (Lin 1992) over the last `capacity` transitions; `table` (R,A,W) float32 holds what each row shows."""

    def __init__(self, capacity: int, table: np.ndarray, seed: int) -> None:
        self.capacity, self.table = capacity, table
        assets = table.shape[1]
        self._rows = np.zeros(capacity, np.int32)
        self._held = np.zeros((capacity, assets), np.float32)
        self._next_held = np.zeros((capacity, assets), np.float32)
        self._actions = np.zeros((capacity, assets), np.float32)
        self._rewards = np.zeros(capacity, np.float32)
        self._size = self._at = 0
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self._size

    def add(self, episodes: Sequence[SingleAgentEpisode]) -> int:
        """Append every step of RLlib's episode chunks, oldest first; returns how many."""
        added = 0
        for episode in episodes:
            steps = len(episode)
            if not steps:
                continue
            held = np.asarray(episode.get_observations(), np.float32).reshape(steps + 1, self.table.shape[1], -1)[:, :, -1]
            rows = [info[ROW] for info in episode.get_infos()]
            at = (self._at + np.arange(steps)) % self.capacity
            self._rows[at], self._held[at], self._next_held[at] = rows[:-1], held[:-1], held[1:]
            self._actions[at] = episode.get_actions()
            self._rewards[at] = episode.get_rewards()
            self._at = (self._at + steps) % self.capacity
            self._size = min(self._size + steps, self.capacity)
            added += steps
        return added

    def sample(self, batch: int) -> dict[str, np.ndarray]:
        """`batch` transitions drawn with replacement, observations rebuilt bit for bit."""
        pick = self._rng.integers(0, self._size, batch)
        rows = self._rows[pick]
        return {
            Columns.OBS: observe(self.table[rows], self._held[pick]),
            Columns.NEXT_OBS: observe(self.table[rows + 1], self._next_held[pick]),
            Columns.ACTIONS: self._actions[pick],
            Columns.REWARDS: self._rewards[pick],
        }

    def get_state(self) -> dict[str, Any]:
        """All that a later `set_state` needs to draw the same batches."""
        n = self._size
        arrays = {name: getattr(self, name)[:n].copy() for name in ("_rows", "_held", "_next_held", "_actions", "_rewards")}
        return arrays | {"_size": n, "_at": self._at, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        n = self._size = state["_size"]
        self._at = state["_at"]
        for name in ("_rows", "_held", "_next_held", "_actions", "_rewards"):
            getattr(self, name)[:n] = state[name]
        self._rng.bit_generator.state = state["rng"]
