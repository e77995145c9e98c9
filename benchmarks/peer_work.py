"""What peers do for a bench: runs in their own environments, where nothing of ours is installed.

`python peer_work.py WORK FOLDER` reads FOLDER/inputs/*.npy; for each line on standard input it does the work once more,
writes what it found to FOLDER/<name>.npy and says the CPU seconds that it took.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Inputs = dict[str, np.ndarray]
Found = dict[str, Any]


def triple_barrier(x: Inputs) -> Callable[[], Found]:
    """mlfinpy's first touches of given events; ends as rows."""
    labeling: Any = import_module("mlfinpy.labeling.labeling")
    close, rows = _bars(x["close"])
    events = close.index[x["events"]]
    target = pd.Series(x["target"], index=events)
    side = pd.Series(x["side"], index=events)
    vertical = pd.Series(close.index[x["vertical"]], index=events)

    def work() -> Found:
        found = labeling.get_events(close, events, [float(x["take"]), float(x["stop"])], target, 0.0, 1, vertical, side, verbose=False)
        return {"start": rows[found.index], "end": rows[found["t1"]]}

    return work


def uniqueness(x: Inputs) -> Callable[[], Found]:
    """mlfinpy's average uniqueness of given labels."""
    concurrent: Any = import_module("mlfinpy.sampling.concurrent")
    close, _ = _bars(x["close"])
    events = pd.DataFrame({"t1": close.index[x["end"]]}, index=close.index[x["start"]])
    return lambda: {"uniqueness": concurrent.get_av_uniqueness_from_triple_barrier(events, close, 1, verbose=False)["tW"]}


def _bars(close: np.ndarray) -> tuple[pd.Series, pd.Series]:
    """Prices every five minutes, and the row of each moment."""
    index = pd.date_range("2000-01-03", periods=len(close), freq="5min")
    return pd.Series(close, index=index), pd.Series(np.arange(len(close)), index=index)


WORKS = {work.__name__: work for work in (triple_barrier, uniqueness)}


def main(name: str, folder: Path) -> None:
    """Standard output carries seconds and nothing else: what a peer prints goes to standard error."""
    warnings.simplefilter("ignore")
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = WORKS[name]({file.stem: np.load(file) for file in (folder / "inputs").iterdir()})
    for _ in sys.stdin:
        start = time.process_time()
        found = work()
        seconds = time.process_time() - start
        for key, values in found.items():
            np.save(folder / f"{key}.npy", np.asarray(values))
        print(seconds, file=say, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
