"""What websocket vendors of minute bars say and understand.

A vendor is two small functions over JSON events: what to say to one, and which bar it holds. Wire formats:
docs.alpaca.markets/docs/real-time-stock-pricing-data and massive.com/docs/websocket/stocks/aggregates-per-minute (until
2025 polygon.io).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_ray.errors import ConfigError, DataError, did_you_mean

Event = Mapping[str, Any]
_ALPACA = "wss://stream.data.alpaca.markets/v2"
_ON_TIME = ("iex", "sip")  # delayed_sip has a stream too, 15 minutes after the bars that we would make of it
_PRICES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Vendor:
    """One vendor's stream.

    Parameters
    ----------
    name, url : its name, for messages, and where it listens.
    keys : environment variables that hold the credentials, in the order that `answer` takes them.
    answer : (event, credentials, symbols) -> what to say to it, if anything. Raises `ConnectionError` for what may pass with
        another connection, `DataError` for what will not.
    bar : event -> a row of `aggregate.MINUTE_SCHEMA`, if it holds one.
    subscribed : what an event holds that says that bars will come from now on.
    """

    name: str
    url: str
    keys: tuple[str, ...]
    answer: Callable[[Event, Sequence[str], Sequence[str]], dict[str, Any] | None]
    bar: Callable[[Event], dict[str, Any] | None]
    subscribed: Mapping[str, str]


def named(name: str, feed: str, url: str | None = None) -> Vendor:
    """A vendor by its name, at its own address or another. Raises `ConfigError` for an unknown one, or a feed that is not on time.

    `feed` : of Alpaca's; its minutes are streamed, or fill the gaps of another vendor's stream.
    """
    if name not in ("alpaca", "polygon"):
        raise ConfigError(f"--vendor is {name!r}; expected alpaca or polygon.{did_you_mean(name, ('alpaca', 'polygon'))}")
    if feed not in _ON_TIME:
        raise ConfigError(f"data.feed is {feed!r}, which does not give minutes as they are made; expected one of {', '.join(_ON_TIME)}")
    if name == "polygon":
        return polygon() if url is None else polygon(url)
    return alpaca(url or f"{_ALPACA}/{feed}")


def alpaca(url: str = f"{_ALPACA}/iex") -> Vendor:
    """Alpaca's minute bars, and those that late trades have changed. The feed is the last part of the address."""
    keys = ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")
    return Vendor("Alpaca", url, keys, _alpaca_answer, _alpaca_bar, {"T": "subscription"})


def polygon(url: str = "wss://socket.massive.com/stocks") -> Vendor:
    """Polygon's (now Massive's) aggregates a minute."""
    return Vendor("Polygon", url, ("POLYGON_API_KEY",), _polygon_answer, _polygon_bar, {"ev": "status", "status": "success"})


def _alpaca_answer(event: Event, keys: Sequence[str], symbols: Sequence[str]) -> dict[str, Any] | None:
    match event:
        case {"T": "success", "msg": "connected"}:
            return {"action": "auth", "key": keys[0], "secret": keys[1]}
        case {"T": "success", "msg": "authenticated"}:
            return {"action": "subscribe", "bars": list(symbols), "updatedBars": list(symbols)}
        # 406: the connection that broke still counts; 407: we were too slow; 500: an error of theirs.
        case {"T": "error", "code": 406 | 407 | 500, "msg": said}:
            raise ConnectionError(f"error {event['code']} {said!r}")
        case {"T": "error"}:
            raise DataError(
                f"Alpaca's stream refused with {event.get('code')} {event.get('msg')!r}; expected bars: check the keys, what they "
                f"are subscribed to, and the number of symbols"
            )
    return None


def _alpaca_bar(event: Event) -> dict[str, Any] | None:
    if event.get("T") not in ("b", "u"):
        return None
    values = {name: float(event[name[0]]) for name in _PRICES}
    return {"symbol": event["S"], "start": dt.datetime.fromisoformat(event["t"])} | values


def _polygon_answer(event: Event, keys: Sequence[str], symbols: Sequence[str]) -> dict[str, Any] | None:
    match event:
        case {"ev": "status", "status": "connected"}:
            return {"action": "auth", "params": keys[0]}
        case {"ev": "status", "status": "auth_success"}:
            return {"action": "subscribe", "params": ",".join(f"AM.{symbol}" for symbol in symbols)}
        case {"ev": "status", "status": "max_connections", "message": said}:
            raise ConnectionError(f"max_connections {said!r}")
        case {"ev": "status", "status": "auth_failed" | "auth_timeout" | "error" | "not_authorized" as status}:
            raise DataError(
                f"Polygon's stream refused with {status} {event.get('message')!r}; expected bars: check the key and what it is "
                f"subscribed to"
            )
    return None


def _polygon_bar(event: Event) -> dict[str, Any] | None:
    if event.get("ev") != "AM":
        return None
    values = {name: float(event[name[0]]) for name in _PRICES}
    return {"symbol": event["sym"], "start": dt.datetime.fromtimestamp(event["s"] / 1000, dt.UTC)} | values
