import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_ray.data.patience import Patience
from rlaif_ray.data.web import Web
from rlaif_ray.errors import DataError, MissingDataError
from tests.data.clock import Clock
from tests.servers.loopback import BROKEN, CUT_JSON, TOO_FAST, TORN, Answer, Loopback, saying

SECRET = "s3cr3t-key"
Door = Callable[..., Web]


@pytest.fixture
def web(tmp_path: Path, clock: Clock) -> Door:
    """A door with waits that take no time."""

    def door(**knobs: Any) -> Web:
        patience = Patience("Vendor", "turn the knob", 100, 1.0, str(tmp_path / "bucket"), 5.0, clock=clock, sleep=clock.sleep)
        return Web(replace(patience, **knobs), secrets={"key": SECRET})

    return door


def loopback() -> Loopback:
    return Loopback(lambda asked: saying({"path": asked.path, **asked.query}) if asked.path == "/known" else Answer(b"nothing", 404))


def test_an_answer_comes_after_everything_that_can_go_wrong_once(web: Door, clock: Clock) -> None:
    with loopback().serving() as vendor:
        vendor.faults.extend([TOO_FAST, BROKEN, TORN, CUT_JSON])
        assert web().json(f"{vendor.url}/known", {"a": "1"}) == {"path": "/known", "a": "1", "key": SECRET}
        assert len(vendor.asked) == 5 and sum(clock.slept) < 1 + 2 + 4 + 8


def test_no_sooner_than_the_vendor_says(web: Door, clock: Clock) -> None:
    with loopback().serving() as vendor:
        vendor.faults.extend([replace(TOO_FAST, headers={"Retry-After": "17"}), replace(TOO_FAST, headers={"Retry-After": "999"})])
        web().content(f"{vendor.url}/known")
        assert clock.slept == [17.0, 60.0]


def test_what_stays_broken_is_one_clear_line_without_the_key(web: Door) -> None:
    with loopback().serving() as vendor:
        vendor.faults.extend([BROKEN] * 3)
        expected = r"^Vendor gave HTTP 500 'upstream failed' for /known\?a=1, 3 tries in turn; expected an answer: .*turn the knob$"
        with pytest.raises(DataError, match=expected):
            web(attempts=3).json(f"{vendor.url}/known", {"a": "1"})
        vendor.faults.extend([TORN] * 2)
        with pytest.raises(DataError, match=r"gave no whole answer \((ChunkedEncoding|Connection)Error\)"):
            web(attempts=2).json(f"{vendor.url}/known")
        vendor.faults.extend([CUT_JSON] * 2)
        with pytest.raises(DataError, match="gave JSON that breaks off after 17 bytes"):
            web(attempts=2).json(f"{vendor.url}/known")
        url = vendor.url
    with pytest.raises(DataError, match=r"gave no whole answer \(ConnectionError\)") as gone:
        web(attempts=2).json(f"{url}/known")
    assert SECRET not in "".join(traceback.format_exception(gone.value))


def test_a_refusal_is_not_asked_again_and_says_what_the_vendor_said(web: Door) -> None:
    with loopback().serving() as vendor:
        with pytest.raises(MissingDataError, match=r"refused /unknown with HTTP 404 'nothing'; expected 200: turn the knob"):
            web().json(f"{vendor.url}/unknown")
        vendor.faults.append(Answer(f"<p>key {SECRET} is <b>wrong</b></p>".encode(), 403, "text/html"))
        with pytest.raises(DataError, match=r"HTTP 403 'key \*\*\* is wrong'"):
            web().json(f"{vendor.url}/known")
        vendor.faults.append(Answer(b"a" * 155 + SECRET.encode(), 403, "text/html"))
        with pytest.raises(DataError, match=r"HTTP 403 'a{155}\*\*\*'"):
            web().json(f"{vendor.url}/known")
        vendor.faults.append(Answer(b"", 302, "text/html", {"Location": f"{vendor.url}/known"}))
        with pytest.raises(DataError, match="HTTP 302"):
            web().json(f"{vendor.url}/known")
        vendor.faults.append(Answer(b"<html><style>p {}</style><title>Down</title></html>", 200, "text/html"))
        with pytest.raises(DataError, match=r"with content type 'text/html' \('Down'\); expected application/json: turn the knob"):
            web().json(f"{vendor.url}/known")
        assert len(vendor.asked) == 5


def test_doors_of_one_vendor_keep_one_pace(web: Door, clock: Clock) -> None:
    """EDGAR's ten a second, whichever process asks: each of these doors could be another's."""
    one, other, starts = web(requests=10), web(requests=10), []
    with Loopback(lambda asked: saying({})).serving() as vendor:
        for k in range(30):
            (one, other)[k % 2].content(f"{vendor.url}/known")
            starts.append(clock.now)
    times = np.array(starts)
    most = (np.searchsorted(times, times + 1.0 - 1e-6) - np.arange(len(times))).max()
    assert 9 <= most <= 10


def test_a_door_pickles_and_shows_no_secret() -> None:
    door = Web(Patience("Vendor", "turn the knob", 10, 1.0), secrets={"key": SECRET})
    assert pickle.loads(pickle.dumps(door)) == door
    assert SECRET not in repr(door)
