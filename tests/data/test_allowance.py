import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.data.allowance import TokenBucket
from rlaif_ray.errors import ConfigError
from tests.data.clock import Clock


def test_a_tenth_goes_at_once_and_the_rest_one_by_one(tmp_path: Path) -> None:
    clock = Clock("2026-11-20T15:00:00Z")
    bucket = TokenBucket(20, str(tmp_path / "b"), clock=clock, sleep=clock.sleep)
    for _ in range(4):
        bucket.wait()
    # 20 a minute: 2 at once, then 18 in 60 s.
    assert clock.slept == pytest.approx([60 / 18, 60 / 18], rel=1e-6)


def test_no_minute_has_more_than_the_allowance_whatever_the_pattern(tmp_path: Path) -> None:
    clock = Clock("2026-11-20T15:00:00Z")
    buckets = [TokenBucket(200, str(tmp_path / "b"), clock=clock, sleep=clock.sleep) for _ in range(3)]
    rng, starts = np.random.default_rng(0), []
    for k in range(1500):
        clock.now += float(rng.choice([0.0, 0.0, 0.001, 0.5, 40.0], p=[0.5, 0.3, 0.15, 0.045, 0.005]))
        buckets[k % 3].wait()
        starts.append(clock.now)
    times = np.array(starts)
    most = (np.searchsorted(times, times + 60.0 - 1e-6) - np.arange(len(times))).max()
    assert 195 <= most <= 200


def _reserve(file: str, turns: int) -> float:
    bucket = TokenBucket(1000, file, clock=lambda: 1000.0, sleep=lambda s: None)
    return max(bucket._reserve() for _ in range(turns))


def test_processes_share_one_allowance(tmp_path: Path) -> None:
    file = str(tmp_path / "b")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        longest = max(pool.starmap(_reserve, [(file, 100)] * 4))
    assert longest == pytest.approx((400 - 100) * 60 / 900)  # the last of 400 turns, 100 of them free


def test_too_small_an_allowance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a limit of 9 requests in 60 s; expected at least 10"):
        TokenBucket(9, str(tmp_path / "b"))
