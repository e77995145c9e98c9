"""Mistakes in a request, each as one line: where, what was seen, what was expected."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif_ray.errors import DataError, did_you_mean
from rlaif_ray.serve.schemas import EXAMPLE, MAX_SYMBOLS, PredictRequest

MAX_BODY_BYTES = 64 * 1024


class BodyLimit:
    """ASGI middleware that stops reading a body at the limit, whatever length was declared."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is over {MAX_BODY_BYTES} bytes; ask for fewer symbols a request")
            return message

        await self._app(scope, counted, send)


async def bad_request(request: Request, error: RequestValidationError) -> JSONResponse:
    found = {each["loc"][:2]: each for each in reversed(error.errors())}  # the first of each field: the rest follows from it
    return _refusal(422, "; ".join(map(told, reversed(found.values()))))


async def bad_data(request: Request, error: DataError) -> JSONResponse:
    return _refusal(422, str(error))


async def bad_http(request: Request, error: AnyHTTPException) -> JSONResponse:
    detail = str(error.detail)
    if error.status_code in (404, 405):
        detail = f"there is no {request.method} {request.url.path}; POST {EXAMPLE} to /predict, or GET /health"
    elif error.status_code == 400:
        detail = f"the body cannot be read as JSON; expected UTF-8 text such as {EXAMPLE}"
    return _refusal(error.status_code, detail, error.headers)


def _refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    # Half a surrogate pair is a legal JSON escape and no legal UTF-8.
    return JSONResponse({"detail": detail.encode(errors="backslashreplace").decode()}, status, headers)


def told(error: Mapping[str, Any]) -> str:
    """One of pydantic's findings in a line."""
    place = ".".join(str(part) for part in error["loc"] if part not in ("body", "[key]"))
    match error["type"]:
        case "json_invalid":
            return f"the body is not JSON at character {place}: {error['ctx']['error']}; expected {EXAMPLE}"
        case "extra_forbidden":
            known = PredictRequest.model_fields
            return f"unknown field {place!r}; expected some of {', '.join(known)}.{did_you_mean(place, known)}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing":
            return f"{place or 'the body'} is missing; expected {EXAMPLE}"
        case "tuple_type" | "too_short" | "too_long":
            return f"{place} is {reprlib.repr(error['input'])}; expected a list of 1 to {MAX_SYMBOLS} names"
        case _ if not place:
            return f"the body is {reprlib.repr(error['input'])}; expected an object such as {EXAMPLE} with content-type: application/json"
        case _:
            wanted = error["msg"].removeprefix("Input should be ")
            return f"{place} is {reprlib.repr(error['input'])}; expected {wanted[0].lower() + wanted[1:]}"
