"""Peers whose pins conflict with ours, each in a virtual environment of its own: `python -m benchmarks.peers` installs them.

They lie under $RLAIF_PEERS (default benchmarks/.peers). A peer works in a process of its own, on the inputs that ours
gets, and runs in turn with ours: one run at a time, at our word, timed by its own CPU clock after a warm run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import TracebackType

import numpy as np

from benchmarks.rows import REPEATS

PINS = {
    "mlfinpy": ("mlfinpy==0.1.2", "scikit-learn<1.8"),  # which it imports without asking for it
    "vectorbt": ("vectorbt==1.2.0",),
    "backtesting": ("backtesting==0.6.6",),
    "stockstats": ("stockstats==0.6.10",),
    "ta": ("ta==0.11.0",),
    "kunquant": ("KunQuant==0.1.12", "pandas"),  # which the other peers bring along
}
HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("RLAIF_PEERS", HERE / ".peers"))
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


def install() -> None:
    """What is there already stays; a peer that cannot be installed is said, and its rows then say "not run"."""
    for name, pins in PINS.items():
        python = interpreter(name)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER / name)], check=True)
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins], check=False)
        print(f"{pins[0]}: {'installed' if done.returncode == 0 else 'cannot be installed here'}")


def interpreter(name: str) -> Path:
    """Of the peer's environment, whether or not it has been made."""
    return FOLDER / name / "bin" / "python"


class Peer:
    """A function of `peer_work.py` that runs in its peer's environment on given arrays; `with` starts and ends it."""

    def __init__(self, name: str, work: str, **inputs: np.ndarray | float) -> None:
        self._name, self._work, self._inputs = name, work, inputs

    def __enter__(self) -> Peer:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "inputs").mkdir()
        for name, value in self._inputs.items():
            np.save(folder / "inputs" / f"{name}.npy", value)
        command = [str(interpreter(self._name)), str(HERE / "peer_work.py"), self._work, str(folder)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | ONE_THREAD
        with (folder / "stderr").open("w") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            self._process = subprocess.Popen(command, text=True, env=environment, **pipes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def seconds(self) -> float:
        """CPU seconds of one more run."""
        return float(self._ask("run"))

    def found(self, name: str) -> np.ndarray:
        """An output of the last run, read from disk as it is needed."""
        return np.load(self._ask(f"save {name}"), mmap_mode="r")

    def _ask(self, what: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if not said:
            raise RuntimeError(f"{self._work} ended early:\n{(Path(self._folder.name) / 'stderr').read_text()[-2000:]}")
        return said


def in_turn_with(ours: Callable[[], object], peer: Peer) -> tuple[float, float]:
    """Median CPU seconds of each, run A B A B; the peer has had its warm run, for its outputs were compared."""
    ours()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        ours()
        seconds[0].append(time.process_time() - start)
        seconds[1].append(peer.seconds())
    return median(seconds[0]), median(seconds[1])


if __name__ == "__main__":
    install()
