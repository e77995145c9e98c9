"""An object store on loopback that speaks S3's protocol: moto's server, in a process of its own; skipped where it is absent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

BUCKET = "lake-bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which `s3://lake-bucket/...` is an empty bucket there."""
    if find_spec("moto") is None:
        pytest.skip("no S3-compatible server; pip install 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        while not _made(f"{url}/{BUCKET}"):
            assert server.poll() is None, "moto's server ended before it answered"
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()


def _made(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
