"""Time that passes only by waiting."""

import datetime as dt


class Clock:
    """Seconds since 1970; `sleep` moves it on and keeps what was slept."""

    def __init__(self, moment: str) -> None:
        self.slept: list[float] = []
        self.set(moment)

    def __call__(self) -> float:
        return self.now

    def set(self, moment: str) -> None:
        self.now = dt.datetime.fromisoformat(moment).timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
