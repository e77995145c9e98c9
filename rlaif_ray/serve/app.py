"""The HTTP door: FastAPI on Ray Serve. One replica composes the whole prediction, for a hop between deployments costs
more than the prediction itself.
"""
# No `from __future__ import annotations` here: Serve pickles the class below by value, and FastAPI reads its annotations
# on the replica, where the names that they are made of would be gone.

import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from rlaif_ray import ray_runtime
from rlaif_ray.errors import ConfigError, DataError
from rlaif_ray.runs import Run
from rlaif_ray.serve import refusals
from rlaif_ray.serve.predictor import Predictor
from rlaif_ray.serve.schemas import Health, Prediction, PredictRequest

APPLICATION = "rlaif"

api = FastAPI(
    title="rlaif_ray", version="1", middleware=[Middleware(refusals.BodyLimit)],
    exception_handlers={
        RequestValidationError: refusals.bad_request, DataError: refusals.bad_data, HTTPException: refusals.bad_http
    },
)  # fmt: skip


@serve.deployment(max_ongoing_requests=16, logging_config=LoggingConfig(enable_access_log=False))
@serve.ingress(api)
class PredictorApp:
    """Holds one `Predictor`. Plain `def` handlers run in FastAPI's thread pool, so none holds up the replica's event loop."""

    def __init__(self, run: str) -> None:
        torch.set_num_threads(1)  # as in the backtest: sums in another order are other bits
        self._run = run
        self._predictor = Predictor.load(Path(run))

    @api.post("/predict")
    def predict(self, request: PredictRequest) -> Prediction:
        return self._predictor.predict(request.symbols, as_of=request.as_of, holdings=request.holdings)

    @api.get("/health")
    def health(self) -> Health:
        return self._predictor.health(self._run)


class AppArgs(BaseModel):
    """Arguments of the application builder, so that `args:` in a Serve config file is validated too."""

    model_config = ConfigDict(extra="forbid")
    run: str
    """Run directory that is served, as the nodes see it; a link (`runs/latest`) is followed once, when the application is built."""


def build_app(args: AppArgs) -> serve.Application:
    run = Run.open(Path(args.run).resolve(), "pipeline")  # what is no run fails here, at once, and not on a replica that is tried again
    return PredictorApp.bind(run=str(run.path))


def serve_run(run: str, *, host: str = "127.0.0.1", port: int = 8000, ready: Callable[[str], None]) -> None:
    """Serve a finished run until interrupted or terminated; `ready` is told the address.

    Binds to loopback unless told otherwise; there is no login on this door. What cannot be served fails with one line
    before anything starts: `MissingDataError` or `CheckpointError` for the run, `ConfigError` for the address.
    """
    _must_be_free(host, port)
    Predictor.load(Path(run))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray_runtime.attach()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own aborts; this one is Ctrl-C by another name
    try:
        serve.start(http_options=serve.HTTPOptions(host=host, port=port))
        serve.run(build_app(AppArgs(run=run)), name=APPLICATION, route_prefix="/")
        ready(f"http://{host}:{port}")
        while True:
            signal.pause()
    except KeyboardInterrupt:
        serve.delete(APPLICATION)
    finally:
        ray_runtime.detach()


def _must_be_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or --host") from None
