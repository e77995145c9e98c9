"""Polygon's stream of stock aggregates on loopback: connected, auth, auth_success, subscribe, success; all JSON."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from websockets.sync.server import ServerConnection

from tests.servers.alpaca import BarSocket, Row

KEY = "polygon-key-0123"


def polygon_socket(refusal: str | None = None) -> BarSocket:
    """`refusal`: a status that is said instead of auth_success."""

    def greet(connection: ServerConnection, say: Callable[[Any], Any]) -> None:
        say([{"ev": "status", "status": "connected", "message": "Connected Successfully"}])
        auth = json.loads(connection.recv())
        assert auth["action"] == "auth"
        if refusal or auth["params"] != KEY:
            say([{"ev": "status", "status": refusal or "auth_failed", "message": "authentication failed"}])
            return connection.close()
        say([{"ev": "status", "status": "auth_success", "message": "authenticated"}])
        wish = json.loads(connection.recv())
        assert wish["action"] == "subscribe"
        say([{"ev": "status", "status": "success", "message": f"subscribed to: {name}"} for name in wish["params"].split(",")])

    return BarSocket(greet)


def live(symbol: str, row: Row) -> Row:
    """A REST row of Alpaca's as Polygon says it."""
    start = int(dt.datetime.fromisoformat(row["t"]).timestamp() * 1000)
    values = {name: row[name] for name in ("o", "h", "l", "c", "v", "vw")}
    return {"ev": "AM", "sym": symbol, "av": 9_470_157, "op": 0.4372, "a": 0.4488, "z": 610, "s": start, "e": start + 60_000} | values
