"""A loopback server that speaks Yahoo's v8 chart JSON as `yfinance` asks for it, and fails on demand."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
Fault = Literal["429", "500", "truncated", "closed", "html", "no_quotes"]


@dataclass
class Chart:
    """What the server knows of a symbol: (day, open, high, low, close, volume), cash and (numerator, denominator) by day."""

    rows: Sequence[tuple[dt.date, float | None, float | None, float | None, float | None, int | None]]
    dividends: dict[dt.date, float] = field(default_factory=dict)
    splits: dict[dt.date, tuple[int, int]] = field(default_factory=dict)

    def json(self, symbol: str) -> dict[str, Any]:
        columns = list(zip(*self.rows, strict=True))
        quote = dict(zip(("open", "high", "low", "close", "volume"), map(list, columns[1:]), strict=True))
        meta = {
            "symbol": symbol, "currency": "USD", "instrumentType": "EQUITY", "exchangeTimezoneName": "America/New_York", "timezone": "EST",
            "gmtoffset": -18000, "priceHint": 2, "dataGranularity": "1d", "validRanges": ["1d", "1mo", "max"],
            "firstTradeDate": _open(self.rows[0][0]), "regularMarketTime": _open(self.rows[-1][0]),
            "regularMarketPrice": self.rows[-1][4],
        }  # fmt: skip
        events = {
            "dividends": {str(_open(d)): {"amount": cash, "date": _open(d)} for d, cash in self.dividends.items()},
            "splits": {
                str(_open(d)): {"date": _open(d), "numerator": n, "denominator": m, "splitRatio": f"{n}:{m}"}
                for d, (n, m) in self.splits.items()
            },
        }  # fmt: skip
        result = {
            "meta": meta, "timestamp": [_open(d) for d in columns[0]], "events": events,
            "indicators": {"quote": [quote], "adjclose": [{"adjclose": quote["close"]}]},
        }  # fmt: skip
        return {"chart": {"result": [result], "error": None}}


@dataclass
class YahooServer:
    """`url` to ask, `charts` to serve, the `fault` of every chart while it is set, and what was `asked` (paths with queries)."""

    url: str
    charts: dict[str, Chart] = field(default_factory=dict)
    fault: Fault | None = None
    asked: list[str] = field(default_factory=list)


@contextmanager
def yahoo_server() -> Iterator[YahooServer]:
    state = YahooServer("")

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            path = urlsplit(self.path).path
            if path.startswith("/v8/finance/chart/"):
                self._chart(path.rpartition("/")[2])
            elif path == "/v1/test/getcrumb":
                self._send(200, b"crumb", "text/plain")
            else:
                self._send(404, b"", "text/plain")

        def _chart(self, symbol: str) -> None:
            if state.fault == "closed":
                self.close_connection = True
                return
            if state.fault in ("429", "500"):
                return self._send(int(state.fault), b"Too Many Requests", "text/plain")
            if state.fault == "html":
                return self._send(200, b"<html>Will be right back</html>", "text/html")
            if symbol not in state.charts:
                error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
                return self._send(404, json.dumps({"chart": {"result": None, "error": error}}).encode())
            whole = state.charts[symbol].json(symbol)
            if state.fault == "no_quotes":
                del whole["chart"]["result"][0]["indicators"]
            body = json.dumps(whole).encode()
            self._send(200, body[: len(body) // 2] if state.fault == "truncated" else body)

        def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _open(day: dt.date) -> int:
    """Yahoo stamps a daily bar at the session's open."""
    return int(dt.datetime.combine(day, dt.time(9, 30), NEW_YORK).timestamp())
