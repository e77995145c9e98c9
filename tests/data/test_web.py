import pickle
import traceback

import pytest

from rlaif_ray.data.web import Web
from rlaif_ray.errors import DataError, MissingDataError
from tests.servers.loopback import BROKEN, CUT_JSON, TOO_FAST, TORN, Answer, Loopback, saying

SECRET = "s3cr3t-key"


def web(retries: int = 4, **knobs) -> Web:
    return Web("Vendor", "turn the knob", secrets={"key": SECRET}, per_second=1000, timeout_s=5, retries=retries, backoff_s=0.001, **knobs)


def loopback() -> Loopback:
    return Loopback(lambda asked: saying({"path": asked.path, **asked.query}) if asked.path == "/known" else Answer(b"nothing", 404))


def test_an_answer_comes_after_everything_that_can_go_wrong_once() -> None:
    with loopback().serving() as vendor:
        vendor.faults.extend([TOO_FAST, BROKEN, TORN, CUT_JSON])
        assert web().json(f"{vendor.url}/known", {"a": "1"}) == {"path": "/known", "a": "1", "key": SECRET}
        assert len(vendor.asked) == 5


def test_what_stays_broken_is_one_clear_line_without_the_key() -> None:
    with loopback().serving() as vendor:
        vendor.faults.extend([BROKEN] * 3)
        expected = r"^Vendor gave nothing usable for http\S+/known in 3 tries, the last was HTTP 500.*turn the knob$"
        with pytest.raises(DataError, match=expected):
            web(retries=2).json(f"{vendor.url}/known")
        vendor.faults.extend([TORN] * 2)
        with pytest.raises(DataError, match=r"the last was (ChunkedEncoding|Connection)Error"):
            web(retries=1).json(f"{vendor.url}/known")
        vendor.faults.extend([CUT_JSON] * 2)
        with pytest.raises(DataError, match="the last was JSON that breaks off after 17 bytes"):
            web(retries=1).json(f"{vendor.url}/known")
        url = vendor.url
    with pytest.raises(DataError, match="the last was ConnectionError") as gone:
        web(retries=1).json(f"{url}/known")
    assert SECRET not in "".join(traceback.format_exception(gone.value))


def test_a_refusal_is_not_asked_again_and_says_what_the_vendor_said() -> None:
    with loopback().serving() as vendor:
        with pytest.raises(MissingDataError, match=r"HTTP 404 .*/unknown: 'nothing'; expected data: turn the knob"):
            web().json(f"{vendor.url}/unknown")
        vendor.faults.append(Answer(f"<p>key {SECRET} is <b>wrong</b></p>".encode(), 403, "text/html"))
        with pytest.raises(DataError, match=r"HTTP 403 .*'key \*\*\* is wrong'"):
            web().json(f"{vendor.url}/known")
        vendor.faults.append(Answer(b"<html><style>p {}</style><title>Down</title></html>", 200, "text/html"))
        with pytest.raises(DataError, match=r"sent a page where JSON was expected: 'Down'; turn the knob"):
            web().json(f"{vendor.url}/known")
        assert len(vendor.asked) == 3


def test_a_door_pickles_and_shows_no_secret() -> None:
    assert pickle.loads(pickle.dumps(web())) == web()
    assert SECRET not in repr(web())
