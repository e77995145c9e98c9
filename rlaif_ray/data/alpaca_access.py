"""How Alpaca is reached: keys, the SDK's clients, patience, and spans of time to ask for."""

from __future__ import annotations

import datetime as dt
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from requests import PreparedRequest, Response

from rlaif_ray.data.credentials import credentials
from rlaif_ray.data.patience import Patience, PatientAdapter, Unusable, as_json, words
from rlaif_ray.data.sessions import DAY
from rlaif_ray.errors import ConfigError

KEYS = ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")
TEN_YEARS = 3652  # days
Kind = Literal["bars", "news", "corporate_actions"]


@dataclass(frozen=True)
class Access:
    """How to reach the vendor. Picklable; keys are read where a client is made.

    Parameters
    ----------
    url : another address than the vendor's, such as a sandbox.
    requests_per_minute : what the account allows.
    bucket_file : shared by all who share the account; None: one in the temporary folder of each machine.
    timeout_s, attempts, clock, sleep : see `patience.Patience`.
    """

    url: str | None = None
    requests_per_minute: int = 200
    bucket_file: str | None = None
    timeout_s: float = 30.0
    attempts: int = 6
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    @contextmanager
    def client(self, kind: Kind) -> Iterator[Any]:
        """The SDK's client for one kind of data, with raw answers and patience. Raises `ConfigError` for missing keys or SDK."""
        data = sdk()
        actions = data.historical.corporate_actions.CorporateActionsClient
        clients = {"bars": data.StockHistoricalDataClient, "news": data.NewsClient, "corporate_actions": actions}
        client = clients[kind](*credentials(*KEYS), raw_data=True, url_override=self.url)
        patience = Patience(
            "Alpaca", "check the keys, what they are subscribed to, the names asked for, and requests_per_minute",
            self.requests_per_minute, 60.0, self.bucket_file, self.timeout_s, self.attempts, clock=self.clock, sleep=self.sleep,
        )  # fmt: skip
        adapter = PatientAdapter(patience, _Pages(kind).check)
        # The SDK has no time limit, tries only two statuses again after a fixed pause, and takes no argument for either.
        client._session.mount("https://", adapter)
        client._session.mount("http://", adapter)
        client._retry_codes = []
        with client._session:
            yield client

    def need(self) -> None:
        """Raise `ConfigError` where keys or SDK are missing, before a worker is asked."""
        credentials(*KEYS)
        sdk()

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.clock(), dt.UTC)

    def first_day(self, start: dt.date | None, days: int | None) -> dt.date:
        """`start`, or so many days ago, or ten years ago. Raises `ConfigError` where both are given."""
        if start is not None and days is not None:
            raise ConfigError(f"data.start is {start} and data.days {days}; expected one of them")
        return start or (self.now() - dt.timedelta(days=TEN_YEARS if days is None else days)).date()

    def until(self, end: dt.date | None) -> dt.datetime:
        """Now, or the midnight (UTC, past every close) that ends the last day."""
        return self.now() if end is None else min(self.now(), dt.datetime.combine(end + DAY, dt.time(), dt.UTC))


THE_VENDOR = Access()


def spans(first: dt.date, until: dt.datetime, size: dt.timedelta) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """From the start of a day (UTC) to `until`, cut into spans that share no second: requests include both their ends."""
    start = dt.datetime.combine(first, dt.time(), dt.UTC)
    while start < until:
        end = min(start + size, until)
        yield start, end
        start = end + dt.timedelta(seconds=1)


class _Pages:
    """The pages of one client's listings: each an object that holds its `kind`, each with a token of its own."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self._tokens = kind, set[str]()

    def check(self, request: PreparedRequest, response: Response) -> None:
        page = as_json(response)
        if not isinstance(page, dict) or not isinstance(page.get(self.kind), (dict, list)):
            raise Unusable(repr(words(response)), f"a JSON object that holds {self.kind!r}")
        if "page_token" not in parse_qs(urlsplit(str(request.url)).query):
            self._tokens = set()
        token = page.get("next_page_token")
        if token in self._tokens:
            raise Unusable(f"page token {token!r}, the second time in one listing", "each once")
        if token is not None:
            self._tokens.add(token)


def sdk() -> Any:
    """The SDK's module of market data. Raises `ConfigError` that names the extra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it loads the old client of websockets, which nothing here uses
            data = import_module("alpaca.data")
            import_module("alpaca.data.historical.corporate_actions")  # the one part that it does not load itself
    except ImportError as error:
        raise ConfigError(f"Alpaca's data need alpaca-py, which is missing ({error}); pip install 'rlaif-ray[alpaca]'") from None
    return data
