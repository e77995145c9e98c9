"""Knobs of the direct policy by Ray Tune, told apart by validation alone.

The sweep stands on the first fold: its validation rows lie before every test block, so that a pipeline which runs with the
knobs that were found is judged on rows that had no part in finding them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray
import yaml

from rlaif_ray import ray_runtime, results
from rlaif_ray.config import Config
from rlaif_ray.core import canonical_json
from rlaif_ray.data.stages_on_ray import dataset_of
from rlaif_ray.pipeline import ask_desk, tell
from rlaif_ray.plan import cut_folds, observed, terms_of
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_on_ray import OBJECTIVE, sweep
from rlaif_ray.runs import Run, seed_for, write_atomically

BEST = "best.yaml"  # the knobs that were found, to be given to --config


def run_sweep(config: Config, run_dir: str | None = None, resume: str | None = None) -> tuple[Run, dict[str, Any]]:
    """`config.sweep.trials` draws of `rl.direct`, in a new run directory or, with `resume`, going on in one.

    Leaves `best.yaml` in it. Raises what the stages raise; a `ConfigError` or `DataError` before they begin leaves no directory.
    """
    with Run.resume(resume, "sweep") if resume is not None else Run.create("sweep", config, run_dir) as run:
        config = run.config
        ray_runtime.attach()
        dataset, ingested = dataset_of(run)
        cube = dataset.cube()
        folds = cut_folds(config, cube)
        run.settle()
        cube_ref, fold, terms = ray.put(cube), folds[0], terms_of(config, cube, dataset.sectors)
        told = tell(run, cube_ref, cube, cube.id, fold, ask_desk(run, cube_ref, cube, folds), terms)
        course = Course.of(cube, fold, told.tables, told.desk, terms, section=config.rl, features=observed(config, cube))

        def search(out: Path) -> None:
            knobs = config.sweep.model_dump()
            found = sweep(course, section=config.rl.direct, **knobs, seed=seed_for(config.seed, "sweep", bits=31), storage=out)
            (out / "sweep.json").write_text(canonical_json(found._asdict()))

        stage = run.stage("sweep", told.keys, config.rl.model_dump(mode="json"), config.sweep.model_dump(mode="json"), terms)
        found = json.loads((stage.get_or(search) / "sweep.json").read_text())
        rows = fold.validation.rows
        result = {
            "seed": config.seed, "config_hash": config.hash, "data": results.data_result(cube, dataset, ingested["quality"]),
            "execution": results.execution_result(terms, len(cube.symbols)),
            "validation": {"from": str(cube.times[rows.start])[:10], "to": str(cube.times[rows.stop - 1])[:10]}, **found,
        }  # fmt: skip
        run.write_result(result)
        write_atomically(run.path / BEST, yaml.safe_dump({"rl": {"policy": "direct", "direct": found["best"]}}))
    return run, result


def summary_text(result: dict[str, Any]) -> str:
    """The trials from the best to the worst, a line each."""
    spans = result["validation"]
    lines = [f"{len(result['trials'])} trials, told apart on {spans['from']} to {spans['to']} alone; the best of many is flattered:"]
    for trial in result["trials"]:
        knobs = ", ".join(f"{name} {value}" for name, value in sorted(trial["knobs"].items()))
        lines.append(f"{1e4 * trial[OBJECTIVE]:+8.3f} bp a bar over equal weight after {trial['checks']:2d} checks  {knobs}")
    return "\n".join(lines)
