"""What all tests share: one thread everywhere, one Ray session, and the real data where it is."""

import os
from collections.abc import Iterator
from pathlib import Path

from rlaif_ray import ray_runtime

# Before numpy, polars and torch are imported: they read their thread counts once. Off, so that no test writes a token
# into the home folder; the session has no dashboard and listens on loopback.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # there is no network in tests
os.environ.pop("RAY_ADDRESS", None)
ray_runtime.set_environment()

import pytest  # noqa: E402
import torch  # noqa: E402

from tests.servers.alpaca import KEY, SECRET  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that need one: two logical CPUs, a 200 MB object store."""
    with pytest.MonkeyPatch.context() as environment:  # workers keep the one that Ray starts in: the keys of our own vendor
        environment.setenv("ALPACA_API_KEY", KEY)
        environment.setenv("ALPACA_SECRET_KEY", SECRET)
        ray_runtime.attach(num_cpus=2, object_store_bytes=200_000_000)
    yield
    ray_runtime.detach()


@pytest.fixture(scope="session")
def tiny_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the whole pipeline on the tiny synthetic market; nobody changes it."""
    from rlaif_ray.config import load_config
    from rlaif_ray.pipeline import run_pipeline
    from tests.tiny import knobs

    root = tmp_path_factory.mktemp("tiny")
    run, _ = run_pipeline(load_config("smoke", None, knobs(root / "lake")), str(root / "run"))
    return run.path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real market data: $RLAIF_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RLAIF_DATA to a folder that holds it")
    return folder
