"""How a process gets onto Ray: the only `ray.init`, and the environment that driver and workers share.

Bit-identical results need one thread a process, whoever starts it, and Ray Data needs telling that the machine is small.
`set_environment` runs before numpy, polars or torch are imported (they read it once); `attach` hands the same to workers.
"""

from __future__ import annotations

import hashlib
import logging
import os
from importlib.metadata import distributions
from pathlib import Path

from rlaif_ray.errors import ConfigError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")

ENVIRONMENT: dict[str, str] = {
    **dict.fromkeys(ONE_THREAD, "1"),
    # Ray Data 2.60 starts up to 32 actors to read Parquet footers, for any read: 10 s on two cores.
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's new one prints a banner on standard output, whatever verbosity is asked for
    "TOKENIZERS_PARALLELISM": "false",
}


def set_environment() -> dict[str, str]:
    """Set what is not set already, and return the whole as workers must have it. Call before heavy imports."""
    wanted = dict(ENVIRONMENT)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlaif_ray" / "numba" / kernels_digest(Path(__file__).parent)
    if _writable(cache):
        # Compiled kernels outlive the checkout: a submitted job runs from a fresh copy each time.
        wanted["NUMBA_CACHE_DIR"] = str(cache)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS"):
        # Ray's own default for a cluster started here, but it reads the mode when it is imported, not when it starts.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return {name: os.environ[name] for name in wanted}


def kernels_digest(package: Path) -> str:
    """Of all files that hold kernels: numba compiles one anew when its own file has changed, but not when one that it calls has."""
    texts = (file.read_bytes() for file in sorted(package.rglob("*.py")))
    return hashlib.sha256(b"".join(text for text in texts if b"njit" in text)).hexdigest()[:16]


def attach(*, num_cpus: int | None = None, object_store_bytes: int | None = None, dashboard: bool = False) -> None:
    """Connect to the cluster that RAY_ADDRESS names (`ray job submit` sets it), else start one on this machine.

    Parameters
    ----------
    num_cpus, object_store_bytes : of a cluster started here; a cluster that exists has its own.
    dashboard : serve Ray's dashboard from a cluster started here.

    A second call in one process changes nothing. Blocks keep their order, so results do not follow arrival.
    """
    env = set_environment()
    refuse_two_faiss()
    import ray
    from ray.data import DataContext
    from ray.util.debug import log_once

    if not ray.is_initialized():
        runtime_env = {"env_vars": env}
        if os.environ.get("RAY_ADDRESS"):
            # A submitted job may have set some of these variables; they are in our environment, so the values agree.
            os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
            ray.init(address="auto", runtime_env=runtime_env, logging_level=logging.WARNING, log_to_driver=False)
        else:
            # "local", not the default: that would join whatever cluster someone else has running on this machine.
            # Folds, actors and trainers are many processes that mostly wait; on two cores Ray would warn of them on the terminal.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "4")
            ray.init(
                address="local", num_cpus=num_cpus, object_store_memory=object_store_bytes, include_dashboard=dashboard,
                runtime_env=runtime_env, logging_level=logging.WARNING, log_to_driver=False,
            )  # fmt: skip
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    log_once("ray_data_progress_manager_disabled")  # that the bars are off is no news: it counts as said
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def detach() -> None:
    """Leave Ray; a cluster started here ends. Harmless where none is attached."""
    import ray

    ray.shutdown()


def refuse_two_faiss() -> None:
    """Both extras `rag` and `rag-gpu` provide the module `faiss`; installed together, files of one lie over the other's.

    Raises `ConfigError`.
    """
    builds = [name for name in ("faiss-cpu", "faiss-gpu") if any(distributions(name=name))]
    if len(builds) > 1:
        raise ConfigError(f"{' and '.join(builds)} are both installed and overwrite each other's files; pip uninstall both, then one again")


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
