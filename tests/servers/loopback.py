"""A vendor on loopback: a real HTTP server that says what it is told to, and first whatever has gone wrong."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None  # a longer Content-Length than the body has: the connection breaks off


def saying(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status)


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Loopback:
    """`answer` speaks for the vendor; what lies in `faults` is answered first, one a request; `asked` is what came."""

    answer: Callable[[Asked], Answer]
    faults: deque[Answer] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[Loopback]:
        vendor = self

        class Door(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = Asked(parts.path, dict(parse_qsl(parts.query)), dict(self.headers))
                vendor.asked.append(asked)
                answer = vendor.faults.popleft() if vendor.faults else vendor.answer(asked)
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(answer.promised or len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


TOO_FAST = Answer(b"<html>Request Rate Threshold Exceeded</html>", 429, "text/html", {"Retry-After": "0"})
BROKEN = Answer(b"upstream failed", 500, "text/plain")
TORN = Answer(b'{"filings": {"rec', promised=5000)  # fewer bytes than promised
CUT_JSON = Answer(b'{"filings": {"rec')  # as many as promised, and still half a value
