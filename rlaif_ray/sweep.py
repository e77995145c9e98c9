"""Knobs of the direct policy by Ray Tune, told apart by validation alone.

The sweep stands on the first fold: its validation rows lie before every test block. What was found goes with the last bar that
it was found on, so that a pipeline which runs with it is judged on bars that had no part in finding it, or refuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml

from rlaif_ray import ray_runtime, results
from rlaif_ray.config import Config
from rlaif_ray.config_rl import RL
from rlaif_ray.core import canonical_json
from rlaif_ray.data.stages_on_ray import dataset_of
from rlaif_ray.ledger import Trial, TrialLedger
from rlaif_ray.pipeline import ask_desk, tell
from rlaif_ray.plan import cut_folds, observed, terms_of
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_on_ray import OBJECTIVE, candidates, sweep
from rlaif_ray.runs import Run, seed_for, write_atomically

BEST = "best.yaml"  # the knobs that were found, to be given to --config


def run_sweep(config: Config, run_dir: str | None = None, resume: str | None = None) -> tuple[Run, dict[str, Any]]:
    """`config.sweep.trials` draws of `rl.direct`, in a new run directory or, with `resume`, going on in one.

    Leaves `best.yaml` in it, and every draw in the ledger. Raises what the stages raise; a `ConfigError` or `DataError` before
    they begin leaves no directory.
    """
    with Run.resume(resume, "sweep") if resume is not None else Run.create("sweep", config, run_dir) as run:
        config = run.config
        candidates(config.sweep.space, config.rl.direct)
        ray_runtime.attach()
        dataset, ingested = dataset_of(run)
        cube, ledger = dataset.cube(), TrialLedger(config.lake.uri)
        folds = cut_folds(config, cube)
        fold = folds[0]
        candidates(config.sweep.space, config.rl.direct, fold.train_rows.stop - fold.train_rows.start)
        ledger.verify()
        run.settle()
        cube_ref, terms = ray.put(cube), terms_of(config, cube, dataset.sectors)
        told = tell(run, cube_ref, cube, cube.id, fold, ask_desk(run, cube_ref, cube, folds), terms)
        course = Course.of(cube, fold, told.tables, told.desk, terms, section=config.rl, features=observed(config, cube))

        def search(out: Path) -> None:
            knobs = config.sweep.model_dump()
            found = sweep(course, section=config.rl.direct, **knobs, seed=seed_for(config.seed, "sweep", bits=31), storage=out)
            (out / "sweep.json").write_text(canonical_json(found._asdict()))

        stage = run.stage("sweep", told.keys, config.rl.model_dump(mode="json"), config.sweep.model_dump(mode="json"), terms)
        found = json.loads((stage.get_or(search) / "sweep.json").read_text())
        rows = fold.validation.rows
        first, last = cube.times[rows.start].item(), cube.times[rows.stop - 1].item()
        result = {
            "seed": config.seed, "config_hash": config.hash, "data": results.data_result(cube, dataset, ingested["quality"]),
            "execution": results.execution_result(terms, len(cube.symbols)),
            "validation": {"from": str(first.date()), "to": str(last.date())},
        }  # fmt: skip
        drawn = [trial["knobs"] for trial in (*found["trials"], *found["failed"])]
        ledger.record([_trial(config, knobs, dataset.data_version, f"validation {first}/{last}") for knobs in drawn])  # before it shows
        # Who was stopped early depends on who came first, and so may the best: that does not follow from config, data and seed.
        run.write_result(result if config.sweep.stop_early else result | found)
        until = max(last, config.backtest.chosen_until or last)
        best = {"rl": {"policy": "direct", "direct": found["best"]}, "backtest": {"chosen_until": until}}
        write_atomically(run.path / BEST, yaml.safe_dump(best))
    return run, result | found


def _trial(config: Config, knobs: dict[str, Any], data_version: str, block: str) -> Trial:
    """A draw, known by the config that it stands for: whatever came of it, the best was chosen among so many.

    It was walked on no test block, so it has no returns there: the deflation counts it, and correlates it with nobody.
    """
    rl = config.rl.model_dump() | {"policy": "direct", "direct": config.rl.direct.model_dump() | knobs}
    tried = config.model_copy(update={"rl": RL.model_validate(rl)})
    times, returns = np.empty(0, "datetime64[us]"), np.empty(0)
    return Trial("direct", False, tried.hash, tried.family, config.seed, data_version, block, times, returns, returns)


def summary_text(result: dict[str, Any]) -> str:
    """The trials from the best to the worst, a line each; then those that failed, with why."""
    spans, trials, failed = result["validation"], result["trials"], result["failed"]
    where = f"{spans['from']} to {spans['to']}"
    lines = [f"{len(trials)} trials, told apart on {where} alone; the best of many is flattered, and every draw counts as a try:"]
    for trial in trials:
        worth = f"{1e4 * trial[OBJECTIVE]:+8.3f} bp a bar over equal weight after {trial['checks']:2d} checks"
        lines.append(f"{worth}  {_said(trial['knobs'])}")
    lines += [f"failed: {trial['error']}  {_said(trial['knobs'])}" for trial in failed]
    return "\n".join(lines)


def _said(knobs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(knobs.items()))
