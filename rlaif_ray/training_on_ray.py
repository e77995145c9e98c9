"""A Ray Train run of workers that share out what is to be fitted, and leave what came of it in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from rlaif_ray.errors import ModelError, RlaifError

_TRIES = 2  # times that a group which lost a worker begins again


@contextmanager
def trained(loop: Callable[[dict[str, Any]], None], config: dict[str, Any], workers: int, storage: Path, what: str) -> Iterator[Path]:
    """The folder `config["out"]` that the workers wrote to; gone at the end. Nothing of an earlier, broken attempt is resumed.

    Parameters
    ----------
    workers : processes of one CPU each; 0 is this process (Ray Train's local mode).
    storage : on a file system that all nodes see; `train/` in it is used.
    what : is trained, in words.

    Call it from the driver or from a task that holds no CPU: the workers need theirs. Raises what the training raises.
    """
    scratch = storage.absolute() / "train"
    shutil.rmtree(scratch, ignore_errors=True)
    trainer = TorchTrainer(
        loop,
        train_loop_config={**config, "out": scratch / "out"},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="fit", storage_path=str(scratch), failure_config=FailureConfig(max_failures=_TRIES),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )  # fmt: skip
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise raised_by(error, what) from error
    except TrainingFailedError as error:
        raise ModelError(f"training of {what} failed: {error}") from error
    yield scratch / "out"
    shutil.rmtree(scratch)


def raised_by(error: WorkerGroupError, what: str) -> RlaifError:
    """What a worker itself raised on purpose, where it did: that is the line that the user must read."""
    for failure in error.worker_failures.values():
        raised = getattr(failure, "_base_exc", failure)  # Ray Train wraps it, to carry its traceback
        if isinstance(raised, RlaifError):
            return raised
    return ModelError(f"training of {what} failed on {len(error.worker_failures)} worker(s): {error}")
