"""The door as a user meets it: `rlaif serve` in a process of its own, asked over HTTP on loopback."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif_ray import cli
from rlaif_ray.serve.predictor import Predictor
from rlaif_ray.serve.refusals import MAX_BODY_BYTES

JSON = {"content-type": "application/json"}
AS_OF = {"as_of": "2024-07-13T12:00:00Z"}  # a Saturday in the first test block


class Door:
    """A server and how to ask it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON answer; a `body` that is no text or bytes is sent as JSON, one that is an iterator in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, JSON if headers is None else headers, encode_chunked=isinstance(body, Iterator))
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return answer.status, said

    def refused(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        status, said = self.ask("POST", "/predict", body, headers)
        assert set(said) == {"detail"} and isinstance(said["detail"], str) and "\n" not in said["detail"]
        return status, said["detail"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def door(tiny_run: Path) -> Iterator[Door]:
    port = free_port()
    words = [sys.executable, "-m", "rlaif_ray.cli", "serve", "--run", str(tiny_run), "--port", str(port)]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"serving {tiny_run.resolve()} at http://127.0.0.1:{port}" in line, process.communicate(timeout=60)
        yield Door(process, port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_health_says_what_is_served(door: Door, tiny_run: Path) -> None:
    status, said = door.ask("GET", "/health")
    assert (status, said["status"], said["run"], said["models"]) == (200, "ok", str(tiny_run.resolve()), ["fold 0", "live"])


def test_the_answer_over_http_is_the_predictor_s(door: Door, predictor: Predictor) -> None:
    symbols = list(predictor.cube.symbols)
    requests: list[dict[str, Any]] = [{}, AS_OF, {"holdings": {}}, {**AS_OF, "holdings": {symbols[0]: 0.5, symbols[1]: 0.5}}]
    for request in requests:
        status, said = door.ask("POST", "/predict", {"symbols": symbols, **request})
        assert status == 200, said
        moment = dt.datetime.fromisoformat(request["as_of"]) if "as_of" in request else None
        expected = predictor.predict(symbols, as_of=moment, holdings=request.get("holdings"))
        assert said == expected.model_dump(mode="json")
        assert sum(p["target_weight"] for p in said["predictions"]) + said["cash_weight"] == pytest.approx(1.0)


REFUSED = [
    ({"symbols": ["S0O0"]}, "unknown symbol 'S0O0'; this run knows 5 symbols, such as 'S000'. Did you mean 'S00"),
    ({"symbols": ["S000"], "holdings": {"XX": 0.7}}, "unknown symbol 'XX'"),
    ({"symbols": []}, "symbols is []; expected a list of 1 to 1000 names"),
    ({"symbols": "S000"}, "symbols is 'S000'; expected a list"),
    ({"symbols": [1]}, "symbols.0 is 1; expected a valid string"),
    ({"symbols": ["S000", "S000"]}, "symbols name 'S000' more than once; expected each once"),
    ({}, "symbols is missing"),
    ({"symbols": ["S000"], "symbol": 1}, "unknown field 'symbol'; expected some of symbols, as_of, holdings. Did you mean 'symbols'?"),
    ({"symbols": ["S000"], "as_of": "2024-07-13T12:00:00"}, "expected a moment with its time zone, such as"),
    ({"symbols": ["S000"], "as_of": 1690000000}, "as_of is 1690000000; expected a moment"),
    ({"symbols": ["S000"], "as_of": "0001-01-01T00:00:00+14:00"}, "as_of is '0001-01-01T00:00:00+14:00'; expected a moment"),
    ({"symbols": ["S000"], "as_of": "2001-01-01T00:00:00Z"}, "no model of this run serves 2001-01-01T00:00:00Z; expected 20"),
    ({"symbols": ["S000"], "as_of": "2035-01-01T00:00:00Z"}, "the data are stale; run the pipeline on newer bars"),
    ({"symbols": ["S000"], "holdings": {"S000": float("nan")}}, "holdings.S000 is nan; expected a finite number"),
    ({"symbols": ["S000"], "holdings": {"S000": -0.5}}, "holdings of S000 are -0.5; this run's account is long-only: expected numbers"),
    ({"symbols": ["S000"], "holdings": {"S000": 0.7, "S001": 0.6}}, "holdings add up to 1.3; this run's account is long-only: expected"),
    ('{"symbols": ["S000"', "the body is not JSON at character"),
    ("", "the body is missing"),
    ("[1]", "the body is [1]; expected an object such as"),
    ('{"symbols": ["\\ud800"]}', "unknown symbol '\\ud800'"),
]


@pytest.mark.parametrize(("body", "expected"), REFUSED, ids=[expected[:40] for _, expected in REFUSED])
def test_every_mistake_is_one_line_that_says_what_to_do(door: Door, body: Any, expected: str) -> None:
    status, detail = door.refused(body)
    assert status == 422 and expected in detail


def test_what_is_no_text_no_json_or_no_route_is_told_so_too(door: Door) -> None:
    assert door.refused(b"\xff\xfe{")[0] == 400
    assert door.refused("[" * 60_000)[0] == 400
    assert "with content-type: application/json" in door.refused('{"symbols": ["S000"]}', {})[1]
    for method, path, status in (("GET", "/predict", 405), ("POST", "/health", 405), ("GET", "/nope", 404)):
        seen, said = door.ask(method, path)
        assert seen == status and f"there is no {method} {path}; POST" in said["detail"]


def test_a_large_body_is_refused_whether_or_not_it_says_so(door: Door) -> None:
    large = "x" * (MAX_BODY_BYTES + 1)
    assert door.refused(large)[0] == door.refused(iter([large.encode()]))[0] == 413
    assert "ask for fewer symbols" in door.refused(large)[1]


def test_a_port_that_is_taken_is_the_user_s_to_change(door: Door, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--run", str(tiny_run), "--port", str(door.port)]) == 2
    assert f"error: cannot listen on 127.0.0.1 port {door.port}" in capsys.readouterr().err


def test_it_ends_cleanly_when_told_to(door: Door) -> None:
    """Last, for it takes the server down."""
    door.process.send_signal(signal.SIGTERM)
    out, err = door.process.communicate(timeout=60)
    assert door.process.returncode == 0 and "Traceback" not in out + err
    with pytest.raises(ConnectionRefusedError):
        door.ask("GET", "/health")
