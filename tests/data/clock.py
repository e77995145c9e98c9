"""Time that passes only by waiting."""

import datetime as dt

NOW = "2026-11-20T21:30:00Z"  # a Friday, half an hour after the close


class Clock:
    """Seconds since 1970; `sleep` moves it on and keeps what was slept; `looks` counts the looks at it."""

    def __init__(self, moment: str) -> None:
        self.slept: list[float] = []
        self.looks = 0
        self.set(moment)

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    def set(self, moment: str) -> None:
        self.now = dt.datetime.fromisoformat(moment).timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
