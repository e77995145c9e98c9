"""HTTP for vendors' clients that have no patience: a time limit, a turn, tries, and a clear word at the end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from requests import PreparedRequest, Response, exceptions
from requests.adapters import HTTPAdapter

from rlaif_ray.data.allowance import TokenBucket
from rlaif_ray.errors import DataError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_BROKEN = (exceptions.ChunkedEncodingError, exceptions.ConnectionError, exceptions.ContentDecodingError, exceptions.Timeout)


class PatientAdapter(HTTPAdapter):
    """Mounted on a `requests.Session`, it answers with whole JSON objects or raises one `DataError`.

    What may pass (429, 5xx, a closed or silent socket, JSON that breaks off) is tried again after a pause drawn from
    [0, 1 s * 2^k) ("full jitter", AWS Architecture Blog 2015), and no sooner than the vendor says. What will not pass (any other
    4xx, another content type than JSON, a page token that comes twice in one listing) is raised at once.

    Parameters
    ----------
    vendor : its name, for messages.
    holds : the key that every answer must have, with an object or a list.
    bucket : says when it is our turn; every try takes one.
    timeout_s : seconds to connect, and between two pieces of an answer.
    attempts : tries a request.
    clock, sleep : seconds since 1970 and a wait.
    """

    def __init__(
        self, vendor: str, holds: str, bucket: TokenBucket, *, timeout_s: float = 30.0, attempts: int = 6,
        clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        super().__init__(max_retries=0)
        self.vendor, self.holds, self.bucket = vendor, holds, bucket
        self.timeout_s, self.attempts, self.clock, self.sleep = timeout_s, attempts, clock, sleep
        self._tokens: set[str] = set()

    def send(self, request: PreparedRequest, *_: Any, **options: Any) -> Response:
        seen = ""
        for attempt in range(self.attempts):
            self.bucket.wait()
            told_s = 0.0
            try:
                options["timeout"] = self.timeout_s
                response = super().send(request, **options)
                body = response.content  # all of it: a socket that closes half-way shows here
            except _BROKEN as error:
                seen = f"no whole answer ({type(error).__name__})"
            else:
                if response.status_code == 429 or response.status_code >= 500:
                    seen, told_s = f"HTTP {response.status_code} {_said(response)!r}", self._told_s(response)
                else:
                    page = self._page(request, response, body)
                    if page is not None:
                        self._refuse_loop(request, page)
                        return response
                    seen = f"JSON that breaks off after {len(body)} bytes"
            if attempt + 1 < self.attempts:
                self.sleep(max(told_s, random.uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))))
        raise DataError(
            f"{self.vendor} gave {seen} for {_asked(request)}, {self.attempts} tries in turn; expected JSON: try again later, "
            f"or ask less often with requests_per_minute"
        )

    def _page(self, request: PreparedRequest, response: Response, body: bytes) -> dict[str, Any] | None:
        """The object in an answer; None where the JSON is not whole."""
        if response.status_code >= 300:
            raise DataError(
                f"{self.vendor} refused {_asked(request)} with HTTP {response.status_code} {_said(response)!r}; expected 200: "
                f"check the keys, what they are subscribed to, and the names asked for"
            )
        kind = response.headers.get("content-type", "nothing")
        if "json" not in kind:
            raise DataError(
                f"{self.vendor} answered {_asked(request)} with content type {kind!r} ({_start(body)!r}); expected application/json: "
                f"check the address and what stands between"
            )
        try:
            page = json.loads(body)
        except ValueError:
            return None
        if not isinstance(page, dict) or not isinstance(page.get(self.holds), (dict, list)):
            raise DataError(
                f"{self.vendor} answered {_asked(request)} with {_start(body)!r}; expected a JSON object that holds {self.holds!r}"
            )
        return page

    def _refuse_loop(self, request: PreparedRequest, page: dict[str, Any]) -> None:
        if "page_token" not in parse_qs(urlsplit(str(request.url)).query):
            self._tokens = set()
        token = page.get("next_page_token")
        if token in self._tokens:
            raise DataError(
                f"{self.vendor} gave page token {token!r} twice in one listing of {_asked(request)}; expected each once: "
                f"try again later, or ask for a shorter span"
            )
        if token is not None:
            self._tokens.add(token)

    def _told_s(self, response: Response) -> float:
        """Seconds that the vendor asks us to wait, up to a minute."""
        after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
        seconds = float(after) if after.isdecimal() else float(reset) - self.clock() if reset.isdecimal() else 0.0
        return min(max(seconds, 0.0), LONGEST_PAUSE_S)


def _asked(request: PreparedRequest) -> str:
    """Path and query of a request; keys stand in its headers only."""
    parts = urlsplit(str(request.url))
    return f"{parts.path}?{parts.query}"[:200]


def _said(response: Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return _start(response.content)
    return str(body.get("message", body) if isinstance(body, dict) else body)[:120]


def _start(body: bytes) -> str:
    return " ".join(body[:80].decode("utf-8", "replace").split())
