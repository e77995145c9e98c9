"""The HTTP door: FastAPI on Ray Serve. One replica composes the whole prediction, for a hop between deployments costs
more than the prediction itself.
"""

from __future__ import annotations

import time
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from ray import serve
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from rlaif_ray import ray_runtime
from rlaif_ray.errors import DataError
from rlaif_ray.serve.predictor import Predictor
from rlaif_ray.serve.schemas import Health, Prediction, PredictRequest

MAX_BODY_BYTES = 64 * 1024

api = FastAPI(title="rlaif_ray", version="1")


@api.middleware("http")
async def _refuse_large_bodies(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """A body is refused by its declared length, or while it arrives when none is declared."""
    declared = request.headers.get("content-length", "")
    too_large = declared.isdigit() and int(declared) > MAX_BODY_BYTES
    if not too_large and request.method == "POST":
        too_large = len(await request.body()) > MAX_BODY_BYTES
    if too_large:
        return JSONResponse({"detail": f"the body is over {MAX_BODY_BYTES} bytes; ask for fewer symbols a request"}, status_code=413)
    return await call_next(request)


@serve.deployment(max_ongoing_requests=16)
@serve.ingress(api)
class PredictorApp:
    """Holds one `Predictor`. The work is plain numpy and torch, done in FastAPI's thread pool."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._predictor = Predictor.load(Path(run))

    @api.post("/predict")
    def predict(self, request: PredictRequest) -> Prediction:
        try:
            return self._predictor.predict(request.symbols, as_of=request.as_of, holdings=request.holdings)
        except DataError as error:
            raise HTTPException(status_code=422, detail=str(error)) from None

    @api.get("/health")
    def health(self) -> Health:
        return self._predictor.health(self._run)


class AppArgs(BaseModel):
    """Arguments of the application builder, so that `args:` in a Serve config file is validated too."""

    model_config = ConfigDict(extra="forbid")
    run: str
    """Run directory that is served."""


def build_app(args: AppArgs) -> serve.Application:
    return PredictorApp.bind(run=str(Path(args.run).resolve()))


def serve_run(run: str, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a finished run until interrupted. Binds to loopback unless told otherwise; there is no login on this door."""
    Predictor.load(Path(run))  # a run that cannot be served fails here, with one line, before anything starts
    ray_runtime.attach()
    serve.start(http_options=serve.HTTPOptions(host=host, port=port))
    serve.run(build_app(AppArgs(run=run)), name="rlaif", route_prefix="/")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        serve.shutdown()
