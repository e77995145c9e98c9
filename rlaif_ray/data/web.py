"""HTTP GET as vendors want it: a pace, timeouts, retries with jitter, and errors that say what came back."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import requests

from rlaif_ray.data.limiter import Limiter
from rlaif_ray.errors import DataError, MissingDataError

T = TypeVar("T")
_AGAIN = (429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 60.0


class _Torn(Exception):
    """An answer that broke off: worth asking for again."""


@dataclass(frozen=True)
class Web:
    """One vendor's HTTP door. Picklable; connection and pace are made where it is used, one pace a process and vendor.

    Parameters
    ----------
    vendor : name in errors.
    hint : what to turn when the vendor refuses.
    headers : sent with every request.
    secrets : query parameters sent with every request and never shown; errors name an address without its query.
    per_second : requests a second of all threads of one process. Processes do not know of each other: where several read
        from the vendor at once, give each its share.
    timeout_s : to connect, and again between two pieces of the answer.
    retries : further tries after 429, 5xx, a lost connection, a timeout or an answer that broke off.
    backoff_s : mean pause before the first of them; it doubles, with jitter, and `Retry-After` is honoured, both up to 60 s.
    """

    vendor: str
    hint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    per_second: float = 10.0
    timeout_s: float = 30.0
    retries: int = 5
    backoff_s: float = 1.0

    def json(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON at `url`. Raises `MissingDataError` for 404, `DataError` for what cannot be had or is no JSON."""
        return self._get(url, params, self._parsed)

    def content(self, url: str) -> bytes:
        """The bytes at `url`. Raises like `json`."""
        return self._get(url, None, lambda response: response.content)

    def _get(self, url: str, params: Mapping[str, str] | None, read: Callable[[requests.Response], T]) -> T:
        asked, seen = {**self.secrets, **dict(params or {})}, ""
        for attempt in range(1 + self.retries):
            _pace(self.vendor, self.per_second).acquire()
            asked_to_wait = None
            try:
                response = requests.get(url, asked, headers=dict(self.headers), timeout=self.timeout_s)
                if response.status_code not in _AGAIN:
                    self._refuse(response, url)
                    return read(response)
                seen, asked_to_wait = f"HTTP {response.status_code}", response.headers.get("Retry-After")
            except (requests.RequestException, _Torn) as error:
                # The library's own words hold the whole address, and with it the key.
                seen = str(error) if isinstance(error, _Torn) else type(error).__name__
            if attempt < self.retries:
                time.sleep(self._pause_s(attempt, asked_to_wait))
        raise DataError(
            f"{self.vendor} gave nothing usable for {url} in {1 + self.retries} tries, the last was {seen}; expected an answer: "
            f"try later, or {self.hint}"
        )

    def _pause_s(self, attempt: int, asked_to_wait: str | None) -> float:
        pause = self.backoff_s * 2**attempt * random.uniform(0.5, 1.5)
        if asked_to_wait is not None and asked_to_wait.isdigit():  # its other form is a date, which no vendor here sends
            pause = max(pause, float(asked_to_wait))
        return min(pause, _LONGEST_PAUSE_S)

    def _refuse(self, response: requests.Response, url: str) -> None:
        if response.ok:
            return
        kind = MissingDataError if response.status_code == 404 else DataError
        raise kind(f"{self.vendor} answered HTTP {response.status_code} for {url}: {self._said(response)!r}; expected data: {self.hint}")

    def _parsed(self, response: requests.Response) -> Any:
        if response.content.lstrip()[:1] == b"<":
            raise DataError(f"{self.vendor} sent a page where JSON was expected: {self._said(response)!r}; {self.hint}")
        try:
            return json.loads(response.content)
        except ValueError:
            raise _Torn(f"JSON that breaks off after {len(response.content)} bytes") from None

    def _said(self, response: requests.Response) -> str:
        """The first words of an answer, without markup and secrets."""
        text = " ".join(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", response.text).split())
        for secret in self.secrets.values():
            text = text.replace(secret, "***")
        return text[:160]


@cache
def _pace(vendor: str, per_second: float) -> Limiter:
    return Limiter(per_second)
