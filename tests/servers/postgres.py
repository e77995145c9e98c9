"""A real PostgreSQL from the Debian package, on loopback, for one test; skipped where there is none, or no driver."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDERS = ("/usr/lib/postgresql",)  # Debian: a folder a version


@dataclass(frozen=True)
class PostgresServer:
    """`url` for SQLAlchemy."""

    url: str

    def run(self, *statements: str) -> None:
        import sqlalchemy

        with sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool).begin() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="no PostgreSQL driver; pip install 'rlaif_ray[sql]'")
    binaries = _binaries()
    user = None if os.getuid() else "postgres"  # PostgreSQL does not run as root
    data = folder / "postgres"
    data.mkdir()
    if user is not None:
        if user not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("runs as root, and there is no user postgres to run PostgreSQL as")
        shutil.chown(data, user)
        for parent in folder.parents[:3]:  # the temporary folders of pytest are their owner's alone
            os.chmod(parent, 0o755)
        os.chmod(folder, 0o755)
    subprocess.run([binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-N"], check=True, capture_output=True, user=user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-l", data / "log", "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, user=user)
    try:
        yield PostgresServer(f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres")
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, user=user)


def _binaries() -> Path:
    found = sorted(path.parent for folder in FOLDERS for path in Path(folder).glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; install Debian's package to run this test")
    return found[-1]
