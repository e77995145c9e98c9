"""How many requests a vendor allows a minute, over all processes of a machine."""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rlaif_ray.errors import ConfigError


class TokenBucket:
    """At most `requests` in any `window_s`, a tenth of them at once, the rest evenly.

    The next free turn stands in a small file under a lock: all who name the same file share one allowance, whatever process
    they are. A turn is reserved under the lock and waited for outside it (the generic cell rate algorithm, ITU-T I.371).

    Parameters
    ----------
    requests : allowed in a window, at least 10.
    file : shared by who shares the allowance; on a cluster a file that all nodes reach.
    window_s : seconds.
    clock, sleep : seconds since 1970 and a wait; the same clock for all who share the file.
    """

    def __init__(
        self, requests: int, file: str, *, window_s: float = 60.0, clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        if requests < 10:
            raise ConfigError(f"a limit of {requests} requests in {window_s:g} s; expected at least 10")
        self.requests, self.file, self.window_s, self.clock, self.sleep = requests, file, window_s, clock, sleep

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        pause = self._reserve()
        if pause > 0:
            self.sleep(pause)

    def _reserve(self) -> float:
        """Seconds until the turn that is now the caller's."""
        burst = self.requests // 10
        # A burst and what drips in over one window make the allowance together.
        interval = self.window_s / (self.requests - burst)
        with os.fdopen(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            stored = file.read(8)
            now = self.clock()
            turn = max(struct.unpack("d", stored)[0], now) if len(stored) == 8 else now
            file.seek(0)
            file.write(struct.pack("d", turn + interval))
        return max(0.0, turn - now - (burst - 1) * interval)


def own_file(name: str) -> str:
    """A file of that name in the user's own part of the machine's temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"rlaif-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder / name)
