"""An object store on loopback that speaks S3's protocol: moto's server, in a process of its own; skipped where it is absent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "lake-bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which `s3://lake-bucket/...` is an empty bucket there."""
    # A program of its own: boto3, which it needs, asks for an older python-dateutil than ours.
    program = shutil.which("moto_server", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        pytest.skip("no S3-compatible server; pipx install 'moto[server]', or have moto_server on the PATH by other means")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words, quiet = [program, "-H", "127.0.0.1", "-p", str(port)], subprocess.DEVNULL
    server = subprocess.Popen(words, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        while not _made(f"{url}/{BUCKET}"):
            assert server.poll() is None, "moto's server ended before it answered"
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }  # fmt: skip
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the program may be a shell that runs another
        server.wait()


def _made(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
