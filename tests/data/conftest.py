"""A vendor on loopback that several files ask, and its clock."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif_ray.data.alpaca_access import Access
from tests.data.clock import NOW, Clock
from tests.servers.alpaca import KEY, SECRET, AlpacaRest


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaRest]:
    """Alpaca, with the keys that it takes in the environment."""
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
    with AlpacaRest().serving() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def access(vendor: AlpacaRest, clock: Clock, tmp_path: Path) -> Access:
    return Access(vendor.url, bucket_file=str(tmp_path / "bucket"), timeout_s=5.0, clock=clock, sleep=clock.sleep)
