"""What a run leaves to be served: a folder a fold, each with its models, their manifest and the bar they serve from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray import forecast, policies
from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.core import Cube, Forecaster, ModelRef, Policy, canonical_json
from rlaif_ray.data.cube import Dataset
from rlaif_ray.errors import CheckpointError
from rlaif_ray.execution.simulator import Fill
from rlaif_ray.feedback.weighing import Weigher, load_weigher
from rlaif_ray.folds import Fold
from rlaif_ray.policies import LEARNERS
from rlaif_ray.runs import Run, code_version, write_atomically

FORECAST, FEEDBACK, POLICY, EPISODES, MANIFEST = "forecast", "feedback", "policy", "episodes", "manifest.json"
DATASET, LIVE = "dataset.json", "live"


def keep(
    run: Run, fold: Fold, cube: Cube, dataset: Dataset, stages: Mapping[str, Path], *, models: str, fill: Fill
) -> Path:  # fmt: skip
    """Copy what serves fold `fold` out of its stages into `artefacts/`, and say in a manifest what it is.

    Parameters
    ----------
    stages : committed folders of the fold by stage; `models` is where in `forecast` the fitted forecasters lie.
    fill : where its decisions were filled.

    The manifest is written last: a folder without one is not served.
    """
    out = run.path / "artefacts" / (LIVE if fold.name == LIVE else f"fold={fold.name}")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(stages["forecast"] / models, out / FORECAST)
    shutil.copytree(stages["feedback"], out / FEEDBACK, ignore=shutil.ignore_patterns("*.npz", "record.json"))
    shutil.copytree(stages["rl"] / POLICY, out / POLICY)
    if "backtest" in stages:
        shutil.copytree(stages["backtest"], out / EPISODES, ignore=shutil.ignore_patterns("*.json"))
    fit_end = str(cube.times[fold.last.fit.stop - 1])
    trained, policy = run.config.forecast.ttm.trained_until, run.config.rl.policy
    chosen_until = str(cube.times[fold.validation.rows.stop - 1]) if policy in LEARNERS else fit_end
    refs = [
        ModelRef(name, code_version(), part, run.config.hash, dataset.data_version, fit_end, until)
        for part, name, until in (
            *((FORECAST, n, str(trained) if n == "ttm" and trained else fit_end) for n in run.config.forecast.models),
            (FEEDBACK, "judge", fit_end), (POLICY, policy, chosen_until),
        )
    ]  # fmt: skip
    manifest = {
        "fold": fold.name, "serves_from": str(cube.known_at[fold.last.rows.start]), "first_row": fold.last.rows.start,
        "fit_end": fit_end, "fill": fill, "models": [asdict(r) for r in refs],
        "features": list(cube.feature_names),
        "hashes": {str(f.relative_to(out)): _hash(f.read_bytes()) for f in sorted(out.rglob("*")) if f.is_file()},
    }  # fmt: skip
    write_atomically(out / MANIFEST, canonical_json({**manifest, "hash": _hash(canonical_json(manifest).encode())}))
    return out


@dataclass(frozen=True, eq=False)
class FoldModels:
    """One fold's models, loaded."""

    fold: str
    serves_from: np.datetime64
    first_row: int
    fill: Fill
    forecasters: dict[str, Forecaster]
    judge: Weigher
    policy: Policy
    refs: tuple[ModelRef, ...]
    held: np.ndarray  # (B,A) weights of the run's own portfolio at the close of rows first_row + 1 ...; empty for live
    returns: np.ndarray  # (B,) its net returns on the bars that end there

    @classmethod
    def load(cls, folder: Path) -> FoldModels:
        """Raises `CheckpointError` where a file is missing or is not what the manifest says."""
        manifest = _read_manifest(folder / MANIFEST)
        for name, expected in manifest["hashes"].items():
            if not (folder / name).is_file() or _hash((folder / name).read_bytes()) != expected:
                raise CheckpointError(f"{folder / name} is missing or is not the file that the run wrote; copy the run again, whole")
        policy = policies.load(folder / POLICY)
        file = folder / EPISODES / f"{policy.name}.npz"
        walked = read_episode(file) if file.is_file() else None
        held, returns = (np.empty((0, 0)), np.empty(0)) if walked is None else (walked.weights, walked.returns)
        return cls(
            manifest["fold"], np.datetime64(manifest["serves_from"], "us"), manifest["first_row"], manifest["fill"],
            {path.name: forecast.load(path) for path in sorted((folder / FORECAST).iterdir())}, load_weigher(folder / FEEDBACK), policy,
            tuple(ModelRef(**ref) for ref in manifest["models"]), held, returns,
        )  # fmt: skip


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest holds its own hash: no byte of what is served goes unchecked."""
    try:
        manifest = json.loads(path.read_bytes())
        expected = manifest.pop("hash")
        if _hash(canonical_json(manifest).encode()) == expected:
            return manifest
    except (KeyError, ValueError):
        pass  # no JSON, or another one
    raise CheckpointError(f"{path} is not the file that the run wrote; copy the run again, whole")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def keep_dataset(run: Path, dataset: Dataset) -> None:
    """Where the rows lie that the run was made from, pinned. First of all that is kept; live models are the last."""
    (run / "artefacts").mkdir(exist_ok=True)
    (run / "artefacts" / LIVE / MANIFEST).unlink(missing_ok=True)
    write_atomically(run / "artefacts" / DATASET, dataset.to_json())


def load_dataset(run: Path) -> Dataset:
    path = run / "artefacts" / DATASET
    if not path.is_file():
        raise CheckpointError(f"run {run} has no {DATASET}: it did not finish; go on with rlaif pipeline --resume {run}")
    return Dataset.of_json(path.read_text())


def load_all(run: Path) -> list[FoldModels]:
    """Models of every fold that can be served, by the moment they serve from."""
    folders = [manifest.parent for manifest in sorted((run / "artefacts").glob(f"*/{MANIFEST}"))]
    if run / "artefacts" / LIVE not in folders:  # it is kept last: some of the others may be missing too
        raise CheckpointError(f"run {run} has no artefacts to serve: it did not finish; go on with rlaif pipeline --resume {run}")
    return sorted((FoldModels.load(f) for f in folders), key=lambda models: models.serves_from)
