"""A pace that all threads of a process keep together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rlaif_ray.errors import ConfigError


class Limiter:
    """A token bucket that holds one token: starts lie at least 1 / `per_second` apart.

    A fuller bucket would let a burst through on top of the refill, and vendors count any second that they like.

    Parameters
    ----------
    per_second : starts a second, above 0.
    clock, sleep : seconds that only go forward, and how to wait for some.
    """

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:  # fmt: skip
        if not per_second > 0:
            raise ConfigError(f"a limit of {per_second} requests a second; expected more than 0")
        self._gap, self._clock, self._sleep = 1.0 / per_second, clock, sleep
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def acquire(self) -> None:
        """Return when it is this caller's turn."""
        with self._lock:  # held to take a place in the row, not while waiting for it
            now = self._clock()
            turn = max(now, self._free_at)
            self._free_at = turn + self._gap
        if turn > now:
            self._sleep(turn - now)
