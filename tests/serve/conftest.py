"""One predictor of the tiny run for all tests of the door: it takes seconds to load and no request changes it."""

from pathlib import Path

import pytest

from rlaif_ray.serve.predictor import Predictor


@pytest.fixture(scope="session")
def predictor(tiny_run: Path) -> Predictor:
    return Predictor.load(tiny_run)
