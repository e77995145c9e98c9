import threading

import pytest

from rlaif_ray.data.limiter import Limiter
from rlaif_ray.errors import ConfigError


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_ten_a_second_are_a_tenth_of_a_second_apart() -> None:
    clock = Clock()
    limiter = Limiter(10, clock, clock.sleep)
    starts = []
    for _ in range(5):
        limiter.acquire()
        starts.append(clock.now)
    assert starts == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])
    clock.now = 200.0  # a pause saves nothing up: no burst after it
    limiter.acquire()
    limiter.acquire()
    assert clock.now == pytest.approx(200.1)


def test_threads_that_ask_at_once_get_a_place_each() -> None:
    waits, lock = [], threading.Lock()

    def note(seconds: float) -> None:
        with lock:
            waits.append(seconds)

    limiter = Limiter(10, lambda: 100.0, note)  # a clock that stands still: every wait is the place in the row
    threads = [threading.Thread(target=limiter.acquire) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([0.1 * place for place in range(1, 20)])


def test_a_pace_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected more than 0"):
        Limiter(0)
