"""What peers do for a bench: runs in their own environments, where nothing of ours is installed.

`python peer_work.py WORK FOLDER` reads FOLDER/inputs/*.npy and obeys standard input: at `run` it does the work once more
and says the CPU seconds that it took, at `save NAME` it says where it wrote that part of what the last run found.
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
Found = dict[str, Callable[[], Any]]  # what is not part of the work is done when it is asked for


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
        return {"start": lambda: rows[found.index], "end": lambda: rows[found["t1"]]}

    return work


def uniqueness(x: Inputs) -> Callable[[], Found]:
    """mlfinpy's average uniqueness of given labels."""
    concurrent: Any = import_module("mlfinpy.sampling.concurrent")
    close, _ = _bars(x["close"])
    events = pd.DataFrame({"t1": close.index[x["end"]]}, index=close.index[x["start"]])

    def work() -> Found:
        found = concurrent.get_av_uniqueness_from_triple_barrier(events, close, 1, verbose=False)
        return {"uniqueness": lambda: found["tW"]}

    return work


def sweep(x: Inputs) -> Callable[[], Found]:
    """vectorbt's DMAC example on closes (T,A): each signal acts at the open of the bar after it, the last close."""
    vectorbt: Any = import_module("vectorbt")
    close = pd.DataFrame(x["close"], index=pd.date_range("2000-01-03", periods=len(x["close"]), freq="D"))
    opened = close.shift(1).fillna(close.iloc[0])

    def work() -> Found:
        fast, slow = vectorbt.MA.run_combs(close, window=x["windows"], r=2, short_names=["fast", "slow"])
        entries, exits = fast.ma_crossed_above(slow).vbt.fshift(1), fast.ma_crossed_below(slow).vbt.fshift(1)
        portfolio = vectorbt.Portfolio.from_signals(close, entries, exits, price=opened, fees=float(x["fees"]), init_cash=1.0, freq="1D")
        portfolio.total_return()
        markets = len(close.columns)  # their paths go market by market within each pair of windows; ours the other way round
        return {"equity": lambda: portfolio.value().to_numpy().T.reshape(-1, markets, len(close)).swapaxes(0, 1).reshape(-1, len(close))}

    return work


def sma_cross(x: Inputs) -> Callable[[], Found]:
    """backtesting.py, all in while the faster mean is above the slower; so much cash that whole shares are as good as parts."""
    backtesting: Any = import_module("backtesting")
    close, cash = pd.Series(x["close"], index=pd.date_range("2000-01-03", periods=len(x["close"]), freq="D")), 1e15
    opened = close.shift(1).fillna(close.iloc[0])
    frame = pd.DataFrame({"Open": opened, "High": np.maximum(opened, close), "Low": np.minimum(opened, close), "Close": close})

    def mean(values: Any, window: int) -> Any:
        return pd.Series(values).rolling(window).mean()

    class Cross(backtesting.Strategy):
        def init(self) -> None:
            self.fast, self.slow = (self.I(mean, self.data.Close, int(x[n])) for n in ("fast", "slow"))

        def next(self) -> None:
            if self.fast[-1] > self.slow[-1]:
                if not self.position:
                    self.buy()
            elif self.position:
                self.position.close()

    def work() -> Found:
        found = backtesting.Backtest(frame, Cross, cash=cash, commission=float(x["fees"])).run()
        return {"equity": lambda: found["_equity_curve"]["Equity"] / cash, "entries": lambda: found["_trades"]["EntryBar"]}

    return work


def _bars(close: np.ndarray) -> tuple[pd.Series, pd.Series]:
    """Prices every five minutes, and the row of each moment."""
    index = pd.date_range("2000-01-03", periods=len(close), freq="5min")
    return pd.Series(close, index=index), pd.Series(np.arange(len(close)), index=index)


WORKS = {work.__name__: work for work in (triple_barrier, uniqueness, sweep, sma_cross)}


def main(name: str, folder: Path) -> None:
    """Standard output carries seconds and nothing else: what a peer prints goes to standard error."""
    warnings.simplefilter("ignore")
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = WORKS[name]({file.stem: np.load(file) for file in (folder / "inputs").iterdir()})
    found: Found = {}
    for line in sys.stdin:
        what, _, key = line.strip().partition(" ")
        if what == "run":
            start = time.process_time()
            found = work()
            print(time.process_time() - start, file=say, flush=True)
        else:
            np.save(folder / f"{key}.npy", np.asarray(found[key]()))
            print(folder / f"{key}.npy", file=say, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
