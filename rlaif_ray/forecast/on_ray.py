"""Forecasts of one fold: each window is spoken for by forecasters refitted on the rows that had closed before it.

Baselines are fitted where this is called. The Tiny Time Mixer takes one Ray Train run a fold, whose worker fits the
windows in turn (each going on from the last: a run costs about ten seconds to start) and forecasts each before it sees
the next, so the rows come back from the same process that learnt.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import ray.train
from ray.train import Checkpoint, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer, prepare_model

from rlaif_ray.config import ForecastSection
from rlaif_ray.core import Cube, ForecastTable
from rlaif_ray.errors import DataError, MissingDataError, ModelError
from rlaif_ray.folds import Fold, Window
from rlaif_ray.forecast import StoredForecaster, build, need_ttm
from rlaif_ray.forecast.trees import least_bars
from rlaif_ray.runs import seed_for
from rlaif_ray.training_on_ray import raised_by


def forecast_fold(
    cube_ref: Any, fold: Fold, section: ForecastSection, *, seed: int, storage: Path, workers: int = 1
) -> dict[str, ForecastTable]:  # fmt: skip
    """Tables by model name; rows are all decision rows of the fold's windows, in order.

    Parameters
    ----------
    cube_ref : Ray reference to the Cube. Passed as an argument of a task, Ray hands over the Cube itself, which is taken too, but
        put into the object store once more: pass the reference inside a list or mapping instead.
    seed : root seed; that of each model is derived from it, by the fold's and the model's name.
    storage : a folder that all nodes see. It ends up holding `models/<name>/`, fitted for the fold's last window (test or
        live), for `forecast.load`, and `windows/<name>/<window>/`, the same for each window. What an earlier, broken attempt
        left there goes first, so nothing is silently resumed.
    workers : training processes of one CPU each; several average their gradients (DDP).

    Call it from a task that holds no CPU (`@ray.remote(num_cpus=0)`), or from the driver: a caller that held a CPU while the
    training worker waits for one could starve the folds beside it. Raises `DataError` where the bars are too few for the context.
    """
    cube_ref = ray.put(cube_ref) if isinstance(cube_ref, Cube) else cube_ref
    storage = storage.absolute()
    for folder in ("windows", "models", "train"):
        shutil.rmtree(storage / folder, ignore_errors=True)
    tables = {}
    for name in section.models:
        windows, own = storage / "windows" / name, seed_for(seed, f"fold={fold.name}/forecast/{name}")
        if name == "ttm":
            tables[name] = _train(cube_ref, fold, section, own, storage / "train", windows, workers)
        else:
            tables[name] = _walk(build(section, name, seed=own), ray.get(cube_ref), fold.windows, windows)
        shutil.copytree(windows / fold.last.name, storage / "models" / name)
    return tables


def check_context(fold: Fold, section: ForecastSection) -> None:
    """Of the models that are to run: `ConfigError` where an extra is missing, `DataError` where the first fit is too short."""
    first = fold.windows[0].fit
    bars, needed = first.stop - first.start, least_bars(section.horizons, section.trees.held_out)
    if "lightgbm" in section.models and bars < needed:
        raise DataError(
            f"{bars} bars for the first fit of fold {fold.name}; lightgbm needs {needed}: bring more bars or lower --forecast.horizons"
        )
    if "ttm" not in section.models:
        return
    need_ttm()
    needed = section.ttm.context + section.horizons[-1]
    if first.stop <= needed:
        raise DataError(
            f"{first.stop} bars before the first forecast of fold {fold.name}; ttm needs over {needed}, {section.ttm.context} of context "
            f"and {section.horizons[-1]} of label: bring more bars or lower --forecast.ttm.context"
        )


def write_tables(tables: Mapping[str, ForecastTable], directory: Path) -> None:
    """One Parquet file a model, in the long form."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table.to_arrow(), directory / f"{name}.parquet", compression="zstd")


def read_tables(directory: Path) -> dict[str, ForecastTable]:
    """The inverse of `write_tables`, in order of name. Raises `MissingDataError` where there is none."""
    files = sorted(directory.glob("*.parquet"))
    if not files:
        raise MissingDataError(f"no forecast tables in {directory}; expected one Parquet file a model")
    return {file.stem: ForecastTable.of_arrow(pq.read_table(file)) for file in files}


def _walk(
    forecaster: StoredForecaster, cube: Cube, windows: Sequence[Window], directory: Path, **sharing: Any
) -> ForecastTable:  # fmt: skip
    """Fit, forecast and save window by window; `sharing` goes to `fit`."""
    parts = []
    for window in windows:
        forecaster.fit(cube, window.fit, **sharing)
        parts.append(forecaster.predict(cube, range(window.rows.start, window.rows.stop)))
        forecaster.save(directory / window.name)
    first = parts[0]
    as_of, values = np.concatenate([p.as_of for p in parts]), np.concatenate([p.values for p in parts])
    return ForecastTable(as_of, first.target, first.symbols, first.horizons, first.levels, values, first.model)


def _train(
    cube_ref: Any, fold: Fold, section: ForecastSection, seed: int, scratch: Path, windows: Path, workers: int
) -> ForecastTable:  # fmt: skip
    """One Ray Train run for the whole fold; its checkpoint becomes `windows`, and nothing else of it is kept."""
    check_context(fold, section)  # the worker would say so too, but only after it has started, twice
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={"cube": cube_ref, "windows": fold.windows, "section": section, "seed": seed},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"fold-{fold.name}-{seed:x}", storage_path=str(scratch), failure_config=FailureConfig(max_failures=1),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )  # fmt: skip
    try:
        checkpoint = trainer.fit().checkpoint
    except WorkerGroupError as error:
        raise raised_by(error, "ttm") from error
    except TrainingFailedError as error:
        raise ModelError(f"training of ttm for fold {fold.name} failed: {error}") from error
    if checkpoint is None:
        raise ModelError(f"training of ttm for fold {fold.name} ended without a checkpoint; expected one at its end")
    with checkpoint.as_directory() as found:
        shutil.copytree(found, windows)
    shutil.rmtree(scratch)
    table = read_tables(windows)["ttm"]
    (windows / "ttm.parquet").unlink()
    return table


def _train_loop(config: dict[str, Any]) -> None:
    """On each training worker. All hold the same seed and draw the same batches; rank 0 forecasts and saves.

    Nothing is resumed: a worker that is restarted begins again and comes to the same weights.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    section, seed = config["section"], config["seed"]
    forecaster = build(section, "ttm", seed=seed)
    cube: Any = ray.get(config["cube"])
    sharing = {"wrap": prepare_model if workers > 1 else None, "rank": rank, "workers": workers}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        table = _walk(forecaster, cube, config["windows"], directory, **sharing)
        if rank == 0:
            write_tables({"ttm": table}, directory)
        ray.train.report({"windows": len(config["windows"])}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)
