"""A vendor's web interface that we ask ourselves: JSON and documents by GET."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests

from rlaif_ray.data.patience import Patience, T, as_json


@dataclass(frozen=True)
class Web:
    """One vendor's door. Picklable; the connection is made where it is used.

    Parameters
    ----------
    patience : pace, time limit and tries.
    headers : sent with every request.
    secrets : query parameters sent with every request and never shown.
    """

    patience: Patience
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def json(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON at `url`. Raises `MissingDataError` for 404, `DataError` for what cannot be had or is no JSON."""
        return self._get(url, dict(params or {}), as_json)

    def content(self, url: str) -> bytes:
        """The bytes at `url`. Raises like `json`."""
        return self._get(url, {}, lambda response: response.content)

    def _get(self, url: str, params: dict[str, str], read: Callable[[requests.Response], T]) -> T:
        def send() -> requests.Response:
            return requests.get(
                url, {**self.secrets, **params}, headers=dict(self.headers), timeout=self.patience.timeout_s, allow_redirects=False
            )

        asked = f"{urlsplit(url).path}{'?' * bool(params)}{urlencode(params)}"[:200]
        return replace(self.patience, hidden=tuple(self.secrets.values())).ask(asked, send, read)
