"""Alpaca's data service on loopback: REST and websocket by their wire formats, and whatever can go wrong, on demand."""

import datetime as dt
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from rlaif_ray.data.sessions import schedule

KEY, SECRET = "PKTESTKEY0123456789", "s3cr3t/that+nobody=sees"
Row = dict[str, Any]


def bar(start: str, price: float, volume: float = 100.0) -> Row:
    """A bar that begins at `start` (UTC): opens at the price, closes half a dollar above it."""
    return {"t": start, "o": price, "h": price + 1, "l": price - 1, "c": price + 0.5, "v": volume, "n": 3, "vw": price + 0.2}


def minute(hhmm: str, price: float, day: str = "2026-11-20", volume: float = 100.0) -> Row:
    return bar(f"{day}T{hhmm}:00Z", price, volume)


def midnight(day: dt.date) -> str:
    """As the vendor stamps a day: midnight in New York, in UTC."""
    return dt.datetime.combine(day, dt.time(), ZoneInfo("America/New_York")).astimezone(dt.UTC).strftime("%FT%TZ")


def days(first: str, n: int, price: float = 100.0) -> list[Row]:
    start = dt.date.fromisoformat(first)
    sessions = schedule("XNYS", start, start + dt.timedelta(days=2 * n + 10))["session"][:n]
    return [bar(midnight(day), price + k) for k, day in enumerate(sessions)]


def split(symbol: str, day: str, new: float, old: float) -> Row:
    return {"id": "1", "symbol": symbol, "cusip": "c", "new_rate": new, "old_rate": old, "process_date": day, "ex_date": day}


def dividend(symbol: str, ex: str, paid: str, rate: float) -> Row:
    return {
        "id": "2", "symbol": symbol, "cusip": "c", "rate": rate, "special": False, "foreign": False, "process_date": paid,
        "ex_date": ex, "payable_date": paid,
    }  # fmt: skip


def story(number: int, created: str, updated: str | None = None, **fields: Any) -> Row:
    return {
        "id": number, "headline": f"Headline {number}", "author": "A", "created_at": created, "updated_at": updated or created,
        "summary": "", "content": f"<p>Body &amp; soul of {number}.</p>", "url": None, "images": [], "symbols": ["AAPL"],
        "source": "benzinga",
    } | fields  # fmt: skip


class AlpacaRest(ThreadingHTTPServer):
    """Serves what lies in `bars` ((timeframe, symbol) -> rows), `actions` (kind -> rows) and `news`.

    Each request takes the next of `faults` first: `429`, `500`, `truncated` (JSON that breaks off), `cut` (fewer bytes than
    announced), `closed` (no answer), `mute` (no answer, socket open), `html`, `array`, `null`, `loop` (bars with the same page
    token each time). Requests that name a symbol of `broken` take the next of its faults.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Rest)
        self.bars: dict[tuple[str, str], list[Row]] = {}
        self.actions: dict[str, list[Row]] = {}
        self.news: list[Row] = []
        self.faults: list[str] = []
        self.broken: dict[str, list[str]] = {}
        self.page = 10_000
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator["AlpacaRest"]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self.shutdown()
            self.server_close()
            thread.join()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == "/v2/stocks/bars":
            wanted = query["symbols"].split(",")
            start, end = (dt.datetime.fromisoformat(query[k]) for k in ("start", "end"))
            stored = [(s, row) for s in sorted(wanted) for row in self.bars.get((query["timeframe"], s), [])]
            found = [(s, row) for s, row in stored if start <= _at(row["t"]) <= end]
            page, token = self._page(found, query)
            rows: dict[str, list[Row]] = {}
            for symbol, row in page:
                rows.setdefault(symbol, []).append(row)
            return 200, {"bars": rows, "next_page_token": token}
        if path == "/v1/corporate-actions":
            kinds, names = query["types"].split(","), query["symbols"].split(",")
            found = [
                (kind, row) for kind, rows in sorted(self.actions.items()) for row in rows
                if kind.removesuffix("s") in kinds and row["symbol"] in names and query["start"] <= row["process_date"] <= query["end"]
            ]  # fmt: skip
            page, token = self._page(found, query)
            actions: dict[str, list[Row]] = {}
            for kind, row in page:
                actions.setdefault(kind, []).append(row)
            return 200, {"corporate_actions": actions, "next_page_token": token}
        if path == "/v1beta1/news":
            start, end = (dt.datetime.fromisoformat(query[k]) for k in ("start", "end"))
            named = [s for s in self.news if query["symbols"] in s["symbols"]]
            found = sorted((s for s in named if start <= _at(s["updated_at"]) <= end), key=_updated)
            page, token = self._page(found, query)
            bare = {} if query.get("include_content") == "True" else {"content": ""}
            return 200, {"news": [s | bare for s in page], "next_page_token": token}
        return 404, {"code": 40410000, "message": "not found"}

    def _page(self, found: Sequence[Any], query: dict[str, str]) -> tuple[Sequence[Any], str | None]:
        first = int(query.get("page_token", "0"))
        last = first + min(self.page, int(query["limit"]))
        return found[first:last], str(last) if last < len(found) else None


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AlpacaRest

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.server.asked.append((parts.path, query))
        if (self.headers.get("APCA-API-KEY-ID"), self.headers.get("APCA-API-SECRET-KEY")) != (KEY, SECRET):
            return self._send(403, b'{"message": "forbidden."}')
        faults = self.server.broken.get(query.get("symbols", ""), self.server.faults)
        fault = faults.pop(0) if faults else ""
        if fault in ("closed", "mute"):
            if fault == "mute":
                self.server.released.wait()
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        status, value = self.server.answer(parts.path, query)
        if fault == "loop" and "bars" in value:
            value["next_page_token"] = "7"
        body = json.dumps(value).encode()
        match fault:
            case "429":
                limits = {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795177830"}
                return self._send(429, b'{"code": 42910000, "message": "too many requests."}', headers=limits)
            case "500":
                return self._send(500, b'{"message": "internal server error"}')
            case "html":
                return self._send(200, b"<html><body>Please log in</body></html>", kind="text/html")
            case "array" | "null":
                return self._send(200, b"[]" if fault == "array" else b'{"bars": null, "next_page_token": null}')
            case "truncated":
                return self._send(200, body[: len(body) // 2])
            case "cut":
                return self._send(200, body, promised=len(body) + 10)
        self._send(status, body)

    def _send(self, status: int, body: bytes, *, kind: str = "application/json", promised: int | None = None, headers: Any = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(promised or len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = promised is not None


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _updated(row: Row) -> str:
    return row["updated_at"]


class BarSocket:
    """A websocket vendor that greets each connection and then follows the next of `scripts`; the last one is held open.

    A script is a list of steps: rows (sent as one message), `drop` (the socket breaks off), `bye` (a proper close), `garbage`, or a
    callable (run on the server).
    """

    def __init__(self, greet: Callable[[ServerConnection, Callable[[Any], Any]], None]) -> None:
        self.greet = greet
        self.scripts: list[list[Any]] = []
        self.connections = 0
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator["BarSocket"]:
        with serve(self._follow, "127.0.0.1", 0, close_timeout=0.05) as server:
            self.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def _follow(self, connection: ServerConnection) -> None:
        self.connections += 1
        packed = connection.request is not None and connection.request.headers.get("Content-Type") == "application/msgpack"
        say = (lambda value: connection.send(_packed(value))) if packed else (lambda value: connection.send(json.dumps(value)))
        try:
            self.greet(connection, say)
            for step in self.scripts.pop(0) if self.scripts else []:
                if callable(step):
                    step()
                elif step == "drop":
                    return connection.socket.shutdown(socket.SHUT_RDWR)
                elif step == "bye":
                    return connection.close()
                elif step == "garbage":
                    connection.send("[{not json")
                else:
                    say(step)
            connection.recv()  # until the other side goes
        except ConnectionClosed:
            pass


def alpaca_socket() -> BarSocket:
    """Alpaca's stream: connected, auth, authenticated, subscribe, subscription; JSON, or msgpack where the client asks for it."""

    def greet(connection: ServerConnection, say: Callable[[Any], Any]) -> None:
        say([{"T": "success", "msg": "connected"}])
        auth = _understood(connection.recv())
        if (auth["action"], auth["key"], auth["secret"]) != ("auth", KEY, SECRET):
            say([{"T": "error", "code": 402, "msg": "auth failed"}])
            return connection.close()
        say([{"T": "success", "msg": "authenticated"}])
        wish = _understood(connection.recv())
        assert wish.pop("action") == "subscribe"
        say([{"T": "subscription", "trades": [], "quotes": [], "bars": [], "updatedBars": []} | wish])

    return BarSocket(greet)


def live(symbol: str, row: Row, kind: str = "b") -> Row:
    """A REST row as the stream says it."""
    return {"T": kind, "S": symbol} | row


def _understood(message: str | bytes) -> dict[str, Any]:
    return json.loads(message) if isinstance(message, str) else msgpack.unpackb(message)


def _packed(rows: list[Row]) -> bytes:
    stamped = [row | {"t": msgpack.Timestamp.from_datetime(_at(row["t"]))} if "t" in row else row for row in rows]
    packed = msgpack.packb(stamped)
    assert packed is not None
    return packed
