"""A run on disk: its config, stages committed once, events, result; seeds by name.

A run directory holds config.json, result.json (only what follows from config, data and seed), timing.json and
events.jsonl (when, where, how long), report.html, `stages/<stage>/<key>/` and `artefacts/`. It must lie on a file system
with atomic rename that all nodes see: a local disk on one machine, NFS or the like on a cluster.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from rlaif_ray.config import Config
from rlaif_ray.core import canonical_json, content_hash
from rlaif_ray.errors import ConfigError, DataError, MissingDataError

RUNS = Path("runs")
log = logging.getLogger("rlaif_ray")


def seed_for(root: int, path: str, bits: int = 63) -> int:
    """A seed for one use, e.g. `seed_for(config.seed, "fold=3/rl/member=2/env")`: a hash, so order and worker do not matter.

    `bits` below 63 for libraries that take less (32 for numpy's legacy and transformers' global seeds, 31 for RLlib).
    """
    digest = hashlib.sha256(f"{root}/{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


@cache
def code_version() -> str:
    """Hash of the package's source files: a stage that other code made is not this stage."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """The old file or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


@dataclass(frozen=True)
class Stage:
    """A step whose output depends on its key alone. It exists wholly, under its final name, or not at all."""

    run: Run
    name: str
    key: str

    @property
    def path(self) -> Path:
        """Where the output lies once it is committed."""
        return self.run.path / "stages" / self.name / self.key

    @property
    def done(self) -> bool:
        return self.path.is_dir()

    def get_or(self, compute: Callable[[Path], None]) -> Path:
        """The committed folder; computed first, into a folder that `compute` is handed, where there is none."""
        if self.done:
            self.run.event("stage_reused", stage=self.name, key=self.key)
            return self.path
        started = time.perf_counter()
        partial = self.begin()
        compute(partial)
        return self.commit(partial, seconds=round(time.perf_counter() - started, 3))

    def begin(self) -> Path:
        """A fresh folder to write into, for work that ends elsewhere (a Ray task a fold); then `commit` it."""
        partial = self.path.with_name(f".{self.key}.{uuid.uuid4().hex}.partial")
        partial.mkdir(parents=True)
        self.run.event("stage_begun", stage=self.name, key=self.key)
        return partial

    def commit(self, partial: Path, seconds: float | None = None) -> Path:
        """Give a finished folder its final name, in one step. Where another writer was first, his is kept: it says the same."""
        try:
            partial.rename(self.path)
        except OSError:
            if not self.done:
                raise
            shutil.rmtree(partial)
        self.run.event("stage_committed", stage=self.name, key=self.key, seconds=seconds)
        log.info("%s done", self.name)
        return self.path


class Run:
    """A run directory. One process writes it at a time; anyone may read.

    As a context manager it writes timing.json and lets go at the end; where the user's mistake (bad knob, bad data)
    stopped a new run before it was settled, it removes the directory instead: nothing half-written is left.
    """

    def __init__(self, path: Path, config: Config, verb: str) -> None:
        self.path, self.config, self.verb = path, config, verb
        self._provisional = False
        self._release: Callable[[], object] = lambda: None

    @classmethod
    def create(cls, verb: str, config: Config, run_dir: str | Path | None = None) -> Run:
        """A new run in `run_dir`, which must be absent or empty; default `runs/<verb>-<UTC time>`."""
        path = Path(run_dir) if run_dir is not None else _fresh(verb)
        if "://" in str(run_dir):
            raise ConfigError(f"--run-dir {run_dir} is a URI; expected a folder that all nodes see (the lake alone may be a bucket)")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(f"--run-dir {path} is not empty; choose another, or go on from it with --resume {path}")
        except OSError as error:
            raise ConfigError(f"--run-dir {path}: {error.strerror}; expected a folder that can be written") from None
        run = cls(path, config, verb)
        run._lock()
        run._provisional = True
        write_atomically(path / "config.json", canonical_json({"verb": verb, "config": config.model_dump(mode="json")}))
        run.event("created", code_version=code_version())
        return run

    @classmethod
    def open(cls, path: str | Path, verb: str | None = None) -> Run:
        """An existing run, to read; of that verb, where one is named."""
        path = Path(path)
        file = path / "config.json"
        if not file.is_file():
            raise MissingDataError(f"{path} is not a run: it has no config.json; give the directory that a run printed as its last line")
        try:
            saved = json.loads(file.read_text(encoding="utf-8"))
            run = cls(path, Config.model_validate(saved["config"]), saved["verb"])
        except ValidationError as error:
            knob = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise ConfigError(f"{file} was written by other code: knob {knob} is not one of ours; use the version that made it") from None
        except (ValueError, KeyError, TypeError):
            raise MissingDataError(f"{path} is not a run: its config.json is not ours; give the directory that a run printed") from None
        if verb is not None and run.verb != verb:
            raise ConfigError(f"{path} is a run of `rlaif {run.verb}`; expected one of `rlaif {verb}`")
        return run

    @classmethod
    def resume(cls, path: str | Path, verb: str) -> Run:
        """An existing run of that verb, to go on with: committed stages stay, what a killed process left half-written goes."""
        run = cls.open(Path(path).resolve(), verb)  # a link such as runs/latest may soon mean another run
        run._lock()
        for partial in run.path.rglob(".*.partial"):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()
        run.event("resumed", code_version=code_version())
        return run

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (ConfigError, DataError)) and self._provisional:
            shutil.rmtree(self.path)
        else:
            self.event("ended" if error is None else "failed", error=None if error is None else type(error).__name__)
            write_atomically(self.path / "timing.json", canonical_json(self.timing()))
        self.close()

    def settle(self) -> None:
        """The config fits the data: from now on a mistake leaves what was done. Before, resuming could not mend it."""
        self._provisional = False

    def close(self) -> None:
        """Let another process write."""
        self._release()

    def _lock(self) -> None:
        """Become the one writer, until `close` or the process dies, however it dies: kill -9 leaves no stale lock."""
        lock = os.open(self.path / ".lock", os.O_CREAT | os.O_WRONLY)
        self._release = weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(f"another process is writing the run {self.path}; wait for it, or stop it, before --resume") from None

    def stage(self, name: str, *inputs: Any) -> Stage:
        """The stage of that name whose output follows from `inputs`: config slices, seeds and content hashes of what it reads.

        The name may have slashes (`forecast/fold=0`). Equal name, inputs and code give the same key, and the same folder.
        """
        return Stage(self, name, content_hash([code_version(), name, *inputs]))

    def event(self, kind: str, **fields: Any) -> None:
        """One line in events.jsonl: what happened, when, where. Nothing in it goes into result.json."""
        record = {"at": dt.datetime.now(dt.UTC).isoformat(), "host": socket.gethostname(), "event": kind, **fields}
        with (self.path / "events.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")

    def timing(self) -> dict[str, float]:
        """Wall seconds of each stage that was measured, from the events; where a stage ran twice, the last time stands."""
        done = committed((self.path / "events.jsonl").read_text().splitlines())
        return {e["stage"]: e["seconds"] for e in done if e["seconds"] is not None}

    def write_result(self, result: dict[str, Any]) -> Path:
        """result.json: the caller puts in only what follows from config, data content and seed.

        Where a pipeline's run lies in the default place, `runs/latest` now points to it: what is served, validated and tracked.
        """
        file = self.path / "result.json"
        write_atomically(file, canonical_json(result))
        folder = self.path.resolve()
        if self.verb == "pipeline" and folder.parent == RUNS.resolve():
            link = RUNS / f".{uuid.uuid4().hex}.partial"
            link.symlink_to(folder.name)
            os.replace(link, RUNS / "latest")
        return file

    def read_result(self) -> dict[str, Any]:
        file = self.path / "result.json"
        if not file.is_file():
            raise MissingDataError(f"run {self.path} has no result.json: it did not finish; go on with --resume {self.path}")
        return json.loads(file.read_text())


def committed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The stages that lines of events.jsonl say were committed. A torn line is passed over: events are news, not state."""
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("event") == "stage_committed":
                yield event


def _fresh(verb: str) -> Path:
    """A name that no run has yet: by the second, then numbered."""
    base = f"{verb}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"
    names = (RUNS / (base if n == 1 else f"{base}-{n}") for n in range(1, 1000))
    return next(path for path in names if not path.exists())
