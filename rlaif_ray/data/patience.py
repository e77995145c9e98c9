"""HTTP with patience: a turn, a time limit, tries, and one clear word at the end."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response
from requests.adapters import HTTPAdapter

from rlaif_ray.data.allowance import TokenBucket, own_file
from rlaif_ray.errors import DataError, MissingDataError

T = TypeVar("T")
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Torn(Exception):
    """An answer that broke off: worth asking for again."""


class Unusable(Exception):
    """An answer that will be the same the next time. `args`: what it was, and what was expected."""


@dataclass(frozen=True)
class Patience:
    """How one vendor is asked. Picklable.

    What may pass (429, 5xx, a closed or silent socket, an answer that breaks off) is tried again after a pause drawn from
    [0, 1 s * 2^k) ("full jitter", AWS Architecture Blog 2015), and no sooner than the vendor says, up to a minute. What will
    not pass (any other status, an answer that cannot be used) is raised at once.

    Parameters
    ----------
    vendor : its name, for messages.
    hint : what to turn when it refuses.
    requests, window_s : what it allows, over all who share `bucket_file`; every try counts. See `TokenBucket`.
    bucket_file : None: one in the temporary folder of each machine.
    timeout_s : seconds to connect, and between two pieces of an answer.
    attempts : tries a request.
    hidden : texts that no message shows.
    clock, sleep : seconds since 1970 and a wait.
    """

    vendor: str
    hint: str
    requests: int
    window_s: float
    bucket_file: str | None = None
    timeout_s: float = 30.0
    attempts: int = 6
    hidden: tuple[str, ...] = field(default=(), repr=False)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def ask(self, asked: str, send: Callable[[], Response], read: Callable[[Response], T]) -> T:
        """What `read` makes of the first answer that is whole.

        Parameters
        ----------
        asked : names the request in messages, without keys.
        send : makes it, within `timeout_s`.
        read : takes the whole answer in, so that a socket that closes half-way shows; raises `Torn` or `Unusable` for one that it
            cannot use.

        Raises `MissingDataError` for 404, `DataError` for anything else that cannot be had.
        """
        file = self.bucket_file or own_file(f"{self.vendor.lower()}.bucket")
        bucket, seen = TokenBucket(self.requests, file, window_s=self.window_s, clock=self.clock, sleep=self.sleep), ""
        for attempt in range(self.attempts):
            bucket.wait()
            told_s = 0.0
            try:
                response = send()
                if response.status_code != 429 and response.status_code < 500:
                    self._refuse(response, asked)
                    return read(response)
                seen, told_s = f"HTTP {response.status_code} {self._said(response)!r}", self._told_s(response)
            except RequestException as error:
                seen = f"no whole answer ({type(error).__name__})"  # its own words hold the whole address, and with it a key
            except Torn as error:
                seen = str(error)
            except Unusable as error:
                what, expected = error.args
                raise DataError(f"{self.vendor} answered {asked} with {self._shown(what)}; expected {expected}: {self.hint}") from None
            if attempt + 1 < self.attempts:
                self.sleep(max(told_s, random.uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))))
        raise DataError(
            f"{self.vendor} gave {seen} for {asked}, {self.attempts} tries in turn; expected an answer: try again later, or {self.hint}"
        )

    def _refuse(self, response: Response, asked: str) -> None:
        if response.status_code >= 300:
            kind = MissingDataError if response.status_code == 404 else DataError
            said = self._said(response)
            raise kind(f"{self.vendor} refused {asked} with HTTP {response.status_code} {said!r}; expected 200: {self.hint}")

    def _said(self, response: Response) -> str:
        """The vendor's words of an error, without markup and keys."""
        try:
            body = json.loads(response.content)
        except ValueError:
            return self._shown(words(response))
        told = next((body[key] for key in ("message", "error_message") if key in body), body) if isinstance(body, dict) else body
        return self._shown(str(told))

    def _shown(self, text: str) -> str:
        for hidden in self.hidden:
            text = text.replace(hidden, "***")
        return text[:160]  # cut last: half a key would not be found

    def _told_s(self, response: Response) -> float:
        """Seconds that the vendor asks us to wait, up to a minute."""
        after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
        seconds = float(after) if after.isdecimal() else float(reset) - self.clock() if reset.isdecimal() else 0.0
        return min(max(seconds, 0.0), LONGEST_PAUSE_S)


class PatientAdapter(HTTPAdapter):
    """Mounted on the `requests.Session` of a vendor's client that has no patience of its own.

    `check` raises `Torn` or `Unusable` for an answer to a request that it finds wanting.
    """

    def __init__(self, patience: Patience, check: Callable[[PreparedRequest, Response], None]) -> None:
        super().__init__(max_retries=0)
        self.patience, self.check = patience, check

    def send(self, request: PreparedRequest, *_: Any, **options: Any) -> Response:
        parts = urlsplit(str(request.url))
        options["timeout"] = self.patience.timeout_s

        def read(response: Response) -> Response:
            self.check(request, response)
            return response

        return self.patience.ask(f"{parts.path}?{parts.query}"[:200], lambda: super(PatientAdapter, self).send(request, **options), read)


def as_json(response: Response) -> Any:
    """The value in an answer. Raises `Unusable` for another content type, `Torn` for JSON that is not whole."""
    kind = response.headers.get("content-type", "nothing")
    if "json" not in kind:
        raise Unusable(f"content type {kind!r} ({words(response)!r})", "application/json")
    try:
        return json.loads(response.content)
    except ValueError:
        raise Torn(f"JSON that breaks off after {len(response.content)} bytes") from None


def words(response: Response) -> str:
    """What an answer says, without markup."""
    text = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", response.content.decode("utf-8", "replace"))
    return " ".join(text.split())
