"""One fold on Ray: every window by its own refit, the same tables again, and models that serve what was tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray

from rlaif_ray.config import TTM, ForecastSection
from rlaif_ray.core import ForecastTable
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.folds import Fold, walk_forward
from rlaif_ray.forecast import build, load
from rlaif_ray.forecast.on_ray import forecast_fold, read_tables, write_tables
from rlaif_ray.runs import seed_for
from tests.laws import perturb_future, random_cube

SECTION = ForecastSection(horizons=(1, 3), levels=(0.1, 0.5, 0.9), ttm=TTM(context=32, steps=3, refit_steps=2, batch=16))
CUBE = random_cube(np.random.default_rng(1), 500, 3)


def fold() -> Fold:
    return walk_forward(
        500, folds=1, test_fraction=0.3, forecaster_fraction=0.5, inner_windows=2, horizon=3, embargo=2, warmup=40
    )[0]  # fmt: skip


@ray.remote(num_cpus=0)
def in_a_task(box: list, section: ForecastSection, storage: Path) -> dict[str, ForecastTable]:
    return forecast_fold(box[0], fold(), section, seed=5, storage=storage)


def test_a_fold_is_forecast_window_by_window_and_again_the_same(ray_session: None, tmp_path: Path) -> None:
    """Two tasks side by side on two CPUs say the same; so do the same windows without Ray."""
    ref = ray.put(CUBE)
    tables, again = ray.get([in_a_task.remote([ref], SECTION, tmp_path / name) for name in ("a", "b")])
    rows = np.concatenate([np.arange(w.rows.start, w.rows.stop) for w in fold().windows])
    assert tuple(tables) == SECTION.models
    for name, table in tables.items():
        np.testing.assert_array_equal(table.as_of, CUBE.known_at[rows])
        assert table.symbols == CUBE.symbols and table.id == again[name].id

    local = build(SECTION, "ttm", seed=seed_for(5, f"fold={fold().name}/forecast/ttm"))
    parts = []
    for window in fold().windows:
        local.fit(CUBE, window.fit)
        parts.append(local.predict(CUBE, range(window.rows.start, window.rows.stop)).values)
    np.testing.assert_array_equal(np.concatenate(parts), tables["ttm"].values)

    last = range(fold().last.rows.start, fold().last.rows.stop)
    for name in SECTION.models:
        served = load(tmp_path / "a" / "models" / name).predict(CUBE, last)
        np.testing.assert_array_equal(served.values, tables[name].values[-len(last) :])
    assert sorted(p.name for p in (tmp_path / "a" / "windows" / "ttm").iterdir()) == sorted(w.name for w in fold().windows)
    assert not (tmp_path / "a" / "train").exists()


def test_too_few_bars_for_the_context_are_the_users_to_mend(ray_session: None, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"models": ("ttm",), "ttm": TTM(context=480, steps=1, refit_steps=1)})
    with pytest.raises(DataError, match="ttm needs over 483"):
        forecast_fold(ray.put(CUBE), fold(), section, seed=5, storage=tmp_path)



def test_no_window_is_spoken_for_by_what_came_after_its_fit(ray_session: None, tmp_path: Path) -> None:
    """Noise on all rows after the second window's fit: the first two windows' models are as they were."""
    section = SECTION.model_copy(update={"models": ("naive", "drift", "ewma_volatility")})
    noisy = perturb_future(CUBE, fold().windows[1].fit.stop - 1, np.random.default_rng(3))
    for name, cube in (("true", CUBE), ("noisy", noisy)):
        forecast_fold(ray.put(cube), fold(), section, seed=5, storage=tmp_path / name)
    same = []
    for window in fold().windows:
        states = [(tmp_path / n / "windows" / "ewma_volatility" / window.name / "forecaster.json").read_text() for n in ("true", "noisy")]
        same.append(states[0] == states[1])
    assert same == [True, True, False, False]


def test_tables_survive_the_disk(tmp_path: Path) -> None:
    tables = {"naive": build(SECTION, "naive").predict(CUBE, range(0, 500, 7))}
    write_tables(tables, tmp_path)
    assert read_tables(tmp_path)["naive"].id == tables["naive"].id
    with pytest.raises(MissingDataError, match="one Parquet file a model"):
        read_tables(tmp_path / "nothing")
