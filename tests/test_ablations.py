"""At its own scale a stage that alone carries a planted score earns with it: without the stage the excess return falls.

Each test makes six runs of minutes and stands for itself: `pytest -m slow tests/test_ablations.py::<test>`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlaif_ray.features.catalog import DEFAULT_OBSERVATION
from tests.test_signal import SEEDS, edge

FROM_VOLUME = ("volume_z_63", "volume_ratio_5_63")
FROM_BARS = tuple(name for name in DEFAULT_OBSERVATION if not name.startswith(("filing", "news")))


def mean_excess(folder: Path, *, features: tuple[str, ...], sees: str) -> float:
    """Of the learned policy over equal weight, log return per bar, mean over the seeds."""
    knobs = {"rl__features": f"[{', '.join(features)}]", "rl__sees": sees}
    return float(np.mean([edge(folder / str(seed), seed=str(seed), data__seed=str(seed), **knobs)["value"] for seed in SEEDS]))


@pytest.mark.slow
def test_filings_and_news_reach_the_policy_through_opinions(ray_session: None, tmp_path: Path) -> None:
    heard = mean_excess(tmp_path / "heard", features=FROM_BARS, sees="[features, forecasts, opinions]")
    deaf = mean_excess(tmp_path / "deaf", features=FROM_BARS, sees="[features, forecasts]")
    assert heard > deaf, (heard, deaf)


@pytest.mark.slow
def test_the_reversal_reaches_the_policy_through_forecasts(ray_session: None, tmp_path: Path) -> None:
    told = mean_excess(tmp_path / "told", features=FROM_VOLUME, sees="[features, forecasts]")
    untold = mean_excess(tmp_path / "untold", features=FROM_VOLUME, sees="[features]")
    assert told > untold, (told, untold)
