"""Direct policies on Ray: members shared out under Ray Train, knobs swept under Ray Tune.

Tracks travel once, through the object store. A worker that dies takes its group down; the group begins again and comes to the
same weights, since nothing but the seeds decides them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from pydantic import ValidationError
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from safetensors.numpy import load_file, save_file

from rlaif_ray.config_rl import RL, Direct
from rlaif_ray.errors import ConfigError, ModelError, did_you_mean
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_network import DirectNetwork
from rlaif_ray.rl.direct_policy import DirectPolicy, network_of
from rlaif_ray.rl.direct_training import CHECKS, HORIZON, fit_network
from rlaif_ray.rl.env import check_room
from rlaif_ray.rl.observation import PORTFOLIO
from rlaif_ray.runs import seed_for
from rlaif_ray.training_on_ray import trained

_PATIENCE, _KEPT = 3, 3  # checks that every trial is given; from then on one in so many goes on at each rung
OBJECTIVE = "validation_log_excess"


class Sweep(NamedTuple):
    """What came of a sweep: the best knobs, all trials that came to an end from the best to the worst, and those that failed."""

    best: dict[str, Any]
    trials: list[dict[str, Any]]  # {"knobs", "validation_log_excess", "checks"}
    failed: list[dict[str, Any]]  # {"knobs", "error"}


def train_direct(
    course: Course, *, section: RL, seed: int, out_dir: str | Path, workers: int | None = None
) -> dict[str, Any]:  # fmt: skip
    """Train `section.members` networks, each by itself, and save their mean as a `DirectPolicy` in `out_dir`.

    Parameters
    ----------
    workers : processes of one CPU each that share the members out; not a bit depends on how many. Default: one a member, as far
        as the cluster has CPUs; 0 is this process (Ray Train's local mode).
    out_dir : on a file system that all nodes see; `train/` in it is used, and gone at the end.

    Returns
    -------
    {"fields": names, "members": [{"seed", "kept_step", "curve": [{"step", "train_utility", "validation_utility",
    "validation_log_excess", "validation_turnover"}]}]}

    Call it from the driver or from a task that holds no CPU: the workers need theirs. Raises what the training raises.
    """
    fields, shape = course.recipe.names, {"hidden": section.direct.hidden, "heads": section.direct.heads}
    check_room(len(course.train.table), section.direct.horizon_bars, HORIZON)  # workers would say so too, but once they have started
    DirectNetwork(len(fields), len(PORTFOLIO), **shape)
    if workers is None:
        workers = max(1, min(section.members, int(ray.cluster_resources().get("CPU", 1))))
    config = {"course": ray.put(course), "section": section, "seed": seed}
    with trained(_train_members, config, workers, Path(out_dir), "the direct policy") as out:
        folders = sorted(out.iterdir())
        networks = [network_of(load_file(folder / "network.safetensors"), len(fields), **shape) for folder in folders]
        members = [json.loads((folder / "member.json").read_text()) for folder in folders]
    DirectPolicy(course.recipe, networks, **shape, allowed=course.allowed, sectors=course.sectors).save(out_dir)
    return {"fields": list(fields), "members": members}


def _train_members(config: dict[str, Any]) -> None:
    """On each training worker: every `workers`-th member, each kept in a folder of its own."""
    torch.set_num_threads(1)
    place = ray.train.get_context()
    course: Any = ray.get(config["course"])
    section: RL = config["section"]
    for member in range(place.get_world_rank(), section.members, place.get_world_size()):
        seed = seed_for(config["seed"], f"member={member}", bits=31)
        trained = fit_network(course.train, course.validation, allowed=course.allowed, **section.direct.model_dump(), seed=seed)
        folder = config["out"] / f"member={member:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained.state, folder / "network.safetensors")
        (folder / "member.json").write_text(json.dumps({"seed": seed, "kept_step": trained.kept_step, "curve": trained.curve}))
    ray.train.report({"members": section.members})


def candidates(space: Mapping[str, Sequence[Any]], section: Direct, rows: int | None = None) -> dict[str, list[Any]]:
    """The values of a space as `section` would hold them.

    Parameters
    ----------
    rows : rows that a trial learns on; None: not known yet.

    Raises `ConfigError` for a knob that there is not, and for a value that it cannot have.
    """
    fine: dict[str, list[Any]] = {}
    for knob, values in space.items():
        if knob not in Direct.model_fields:
            known = ", ".join(Direct.model_fields)
            raise ConfigError(f"the sweep is over {knob!r}; expected knobs of rl.direct: {known}.{did_you_mean(knob, Direct.model_fields)}")
        if not values:
            raise ConfigError(f"--sweep.space.{knob} is empty; expected values to choose from, or leave it out")
        fine[knob] = [_candidate(knob, value, section) for value in values]
    knob = "sweep.space.horizon_bars" if "horizon_bars" in fine else HORIZON
    if rows is not None:
        check_room(rows, max(fine.get("horizon_bars", [section.horizon_bars])), knob)
    return fine


def _candidate(knob: str, value: Any, section: Direct) -> Any:
    try:
        return getattr(Direct(**section.model_dump() | {knob: value}), knob)
    except ValidationError as error:
        raise ConfigError(f"--sweep.space.{knob} has {value!r}; expected: {error.errors()[0]['msg']}") from None


def sweep(
    course: Course, space: Mapping[str, Sequence[Any]], *, section: Direct, trials: int, seed: int, storage: str | Path,
    stop_early: bool = False,
) -> Sweep:  # fmt: skip
    """Try knobs of `section` drawn from `space`, one network a trial, all with one seed; the validation rows alone tell which are best.

    A trial is worth the log return over equal weight on validation of the weights that it keeps, which means the same whatever
    its risk aversion and penalties are. The best of many is flattered by having been chosen: it is no result, and every trial counts
    as one where results are judged, for which the caller hands them to the ledger.

    Parameters
    ----------
    space : values to choose from, by knob; knobs that are not in it stay as they are.
    storage : a folder that all nodes see; `sweep/` in it is used, and gone at the end.
    stop_early : trials that do badly are stopped (ASHA: Li et al. 2020); which ones also depends on who came first. Off, the same
        seed gives the same table.

    Raises what `candidates` does, before any trial starts, and `ModelError` where no trial came to an end.
    """
    values = candidates(space, section, len(course.train.table))
    scratch = Path(storage).absolute() / "sweep"
    shutil.rmtree(scratch, ignore_errors=True)
    scheduler = ASHAScheduler(max_t=CHECKS, grace_period=_PATIENCE, reduction_factor=_KEPT) if stop_early else None
    trial = tune.with_parameters(_try, course=course, section=section, seed=seed)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space={knob: tune.choice(choices) for knob, choices in values.items()},
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE, mode="max", num_samples=trials, scheduler=scheduler, search_alg=BasicVariantGenerator(random_state=seed),
            reuse_actors=True,  # a process takes longer to start than a small trial does
        ),
        run_config=tune.RunConfig(name="direct", storage_path=str(scratch), verbose=0),
    )  # fmt: skip
    grid = tuner.fit()
    table: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for result in (grid[k] for k in range(len(grid))):
        told: dict[str, Any] = dict(result.metrics or {})
        if result.error is not None:
            failed.append({"knobs": result.config, "error": _why(result.error)})
        else:
            table.append({"knobs": result.config, OBJECTIVE: told[OBJECTIVE], "checks": told["training_iteration"]})
    if not table:
        raise ModelError(f"none of {trials} trials came to an end; the first failed with: {failed[0]['error']}")
    table.sort(key=lambda row: -row[OBJECTIVE])
    shutil.rmtree(scratch)
    return Sweep(section.model_dump() | table[0]["knobs"], table, failed)


def _why(error: Exception) -> str:
    """What a trial failed with, in a line: where and in which process is no news of its knobs."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def _try(knobs: dict[str, Any], *, course: Course, section: Direct, seed: int) -> None:
    """One trial; after each check it reports what the weights that it would keep are worth."""
    torch.set_num_threads(1)
    best: list[dict[str, float]] = []

    def told(point: dict[str, float]) -> None:
        if not best or point["validation_utility"] >= best[-1]["validation_utility"]:
            best.append(point)
        tune.report({OBJECTIVE: best[-1][OBJECTIVE]})

    fit_network(course.train, course.validation, allowed=course.allowed, **section.model_dump() | knobs, seed=seed, told=told)
