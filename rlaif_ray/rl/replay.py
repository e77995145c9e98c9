"""The flat replay ring: a transition is its row, what the path had of its own, action and reward; the rest is looked up again.

RLlib's episode buffer spends more time on book-keeping than the networks on learning, and whole observations of many assets
fill memory. The market part of an observation depends on the row alone, so the ring keeps the row and reads the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlaif_ray.rl.env import ROW
from rlaif_ray.rl.observation import OWN, PORTFOLIO, Layout


class Ring:
    """Uniform replay (Lin 1992) over the last `capacity` transitions; `table` (R,A,D+1) float32 holds what each row shows of the market."""

    def __init__(self, capacity: int, table: np.ndarray, seed: int) -> None:
        self.capacity, self.table = capacity, table
        assets = table.shape[1]
        self._layout = Layout(assets, table.shape[2] - 1)
        own = assets * OWN + len(PORTFOLIO)  # listed and held of each asset, and the account's numbers
        self._stored = {
            "rows": np.zeros(capacity, np.int32), "own": np.zeros((capacity, own), np.float32),
            "next_own": np.zeros((capacity, own), np.float32), "actions": np.zeros((capacity, assets), np.float32),
            "rewards": np.zeros(capacity, np.float32), "ended": np.zeros(capacity, np.bool_),
        }  # fmt: skip
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
            own = self._own(np.asarray(episode.get_observations(), np.float32))
            ended = np.zeros(steps, np.bool_)
            ended[-1] = episode.is_terminated
            told = {
                "rows": [info[ROW] for info in episode.get_infos()][:-1], "own": own[:-1], "next_own": own[1:],
                "actions": episode.get_actions(), "rewards": episode.get_rewards(), "ended": ended,
            }  # fmt: skip
            at = (self._at + np.arange(steps)) % self.capacity
            for name, values in told.items():
                self._stored[name][at] = values
            self._at = (self._at + steps) % self.capacity
            self._size = min(self._size + steps, self.capacity)
            added += steps
        return added

    def sample(self, batch: int) -> dict[str, np.ndarray]:
        """`batch` transitions drawn with replacement, observations rebuilt bit for bit."""
        pick = self._rng.integers(0, self._size, batch)
        drawn = {name: values[pick] for name, values in self._stored.items()}
        return {
            Columns.OBS: self._seen(drawn["rows"], drawn["own"]),
            Columns.NEXT_OBS: self._seen(drawn["rows"] + 1, drawn["next_own"]),
            Columns.ACTIONS: drawn["actions"],
            Columns.REWARDS: drawn["rewards"],
            Columns.TERMINATEDS: drawn["ended"],
        }

    def get_state(self) -> dict[str, Any]:
        """All that a later `set_state` needs to draw the same batches."""
        stored = {name: values[: self._size].copy() for name, values in self._stored.items()}
        return {"stored": stored, "size": self._size, "at": self._at, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self._size, self._at = state["size"], state["at"]
        for name, values in state["stored"].items():
            self._stored[name][: self._size] = values
        self._rng.bit_generator.state = state["rng"]

    def _own(self, seen: np.ndarray) -> np.ndarray:
        assets, account = self._layout.split(seen)
        return np.concatenate((assets[..., -OWN:].reshape(len(seen), -1), account), axis=1)

    def _seen(self, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self._layout.size), np.float32)
        assets, account = self._layout.split(out)
        assets[..., :-OWN] = self.table[rows, :, :-1]
        assets[..., -OWN:] = own[:, : -account.shape[1]].reshape(len(rows), -1, OWN)
        account[:] = own[:, -account.shape[1] :]
        return out
