"""What peers do for a bench: runs in their own environments, where nothing of ours is installed.

`python peer_work.py WORK FOLDER` reads FOLDER/inputs/*.npy and obeys standard input: at `run` it does the work once more
and says the CPU seconds that it took, at `save NAME` it says where it wrote that part of what the last run found.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
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


def fracdiff(x: Inputs) -> Callable[[], Found]:
    """mlfinpy's fractional difference in a window of fixed width."""
    library: Any = import_module("mlfinpy.util.frac_diff")
    series = pd.DataFrame({"x": x["x"]})

    def work() -> Found:
        found = library.frac_diff_ffd(series, float(x["order"]), float(x["threshold"]))
        return {"x": lambda: found["x"]}

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


PRICES = ("open", "high", "low", "close", "volume")
FINRL = ("macd", "boll_ub", "boll_lb", "rsi_30", "cci_30", "dx_30", "close_30_sma", "close_60_sma")
"""FinRL's indicators (finrl/config.py), by their names in stockstats."""


def stockstats(x: Inputs) -> Callable[[], Found]:
    """FinRL's indicators of prices (A,T), one symbol's frame at a time; each (A,T)."""
    retype: Any = import_module("stockstats").StockDataFrame.retype
    frames = _frames(x)

    def work() -> Found:
        found = [retype(f.copy())[list(FINRL)] for f in frames]
        return {n: lambda n=n: np.stack([f[n] for f in found]) for n in FINRL}

    return work


def finrl(x: Inputs) -> Callable[[], Found]:
    """The same by FinRL's own route, FeatureEngineer.add_technical_indicator (finrl/meta/preprocessor/preprocessors.py), step by step."""
    retype: Any = import_module("stockstats").StockDataFrame.retype
    dates = pd.date_range("2000-01-03", periods=x["close"].shape[1], freq="B").strftime("%Y-%m-%d")
    frames = [f.assign(date=dates, tic=f"S{i:03d}") for i, f in enumerate(_frames(x))]
    data = pd.concat(frames).sort_values(["date", "tic"], ignore_index=True)  # as its downloader leaves them

    def work() -> Found:
        df: Any = data.copy().sort_values(by=["tic", "date"])
        stock = retype(df.copy())
        tickers = stock.tic.unique()
        for indicator in FINRL:
            column = pd.DataFrame()
            for ticker in tickers:
                part = pd.DataFrame(stock[stock.tic == ticker][indicator])
                part["tic"] = ticker
                part["date"] = df[df.tic == ticker]["date"].to_list()
                column = pd.concat([column, part], axis=0, ignore_index=True)
            df = df.merge(column[["tic", "date", indicator]], on=["tic", "date"], how="left")
        df = df.sort_values(by=["date", "tic"])
        return {n: lambda n=n: df[n].to_numpy().reshape(len(dates), -1).T for n in FINRL}

    return work


def ta(x: Inputs) -> Callable[[], Found]:
    """Everything that ta has on the prices of one symbol (1,T); each column (T,), and their `count`."""
    library: Any = import_module("ta")
    (frame,) = _frames(x)

    def work() -> Found:
        found = library.add_all_ta_features(frame.copy(), *PRICES)
        return {"count": lambda: len(found.columns) - len(PRICES)} | {n: lambda n=n: found[n] for n in found.columns}

    return work


def kunquant(x: Inputs) -> Callable[[], Found]:
    """`FACTORS` of prices (A,T), A a multiple of 8, in doubles and in the layout that KunQuant is fastest with; each (A,T).

    Statistics of windows from `running` sums, or each window afresh. Generated, compiled for this processor and loaded
    before the work begins.
    """
    ops, op, stage, driver = (import_module(f"KunQuant.{n}") for n in ("ops", "Op", "Stage", "Driver"))
    compiler, runner = import_module("KunQuant.jit.cfake"), import_module("KunQuant.runner.KunRunner")
    builder = op.Builder()
    with builder:
        bars = SimpleNamespace(**{n: op.Input(n) for n in PRICES})
        bars.log_return, bars.log_volume = _log_change(ops, bars.close, bars.close), ops.Log(bars.volume)
        for name, factor in FACTORS.items():
            op.Output(factor(ops, bars), name)
    running = {"no_fast_stat": "no_warn" if x["running"] else True}  # its default for doubles, and its choice for precision
    cpu = Path("/proc/cpuinfo")
    lanes = 8 if cpu.exists() and "avx512f" in cpu.read_text() else 4  # symbols to a register
    config = driver.KunCompilerConfig(partition_factor=8, dtype="double", blocking_len=lanes, options=running)
    library = compiler.compileit([("factors", stage.Function(builder.ops), config)], "factors", compiler.CppCompilerConfig())
    symbols, rows = x["close"].shape
    blocks = {n: np.ascontiguousarray(x[n].reshape(-1, lanes, rows).swapaxes(1, 2)) for n in PRICES}
    executor = runner.createSingleThreadExecutor()

    def work() -> Found:
        found = runner.runGraph(executor, library.getModule("factors"), blocks, 0, rows)
        return {n: lambda n=n: found[n].swapaxes(1, 2).reshape(symbols, rows) for n in FACTORS}

    return work


def _log_change(k: Any, new: Any, old: Any) -> Any:
    """ln of `new` over the `old` of a bar ago."""
    return k.Log(new) - k.Log(k.BackRef(old, 1))


def _within(x: Any, low: Any, high: Any) -> Any:
    return (x - low) / (high - low)


def _score(k: Any, x: Any, n: int) -> Any:
    return (x - k.WindowedAvg(x, n)) / k.WindowedStddev(x, n)


def _location(x: Any) -> Any:
    return (2.0 * x.close - x.high - x.low) / (x.high - x.low)


def _bands(k: Any, x: Any, n: int) -> Any:
    """Middle, and two standard deviations (n)."""
    return k.WindowedAvg(x.close, n), k.WindowedStddev(x.close, n) * (2.0 * math.sqrt((n - 1) / n))


def _bollinger_width(k: Any, x: Any) -> Any:
    middle, off = _bands(k, x, 20)
    return 2.0 * off / middle


def _bollinger_b(k: Any, x: Any) -> Any:
    middle, off = _bands(k, x, 20)
    return _within(x.close, middle - off, middle + off)


def _range(k: Any, x: Any) -> Any:
    return k.Log(x.high / x.low)


def _body(k: Any, x: Any) -> Any:
    return k.Log(x.close / x.open)


def _rogers_satchell(k: Any, x: Any) -> Any:
    up, down, body = k.Log(x.high / x.open), k.Log(x.low / x.open), _body(k, x)
    return k.WindowedAvg(up * (up - body) + down * (down - body), 21)


def _garman_klass(k: Any, x: Any) -> Any:
    terms = 0.5 * _range(k, x) * _range(k, x) - (2.0 * math.log(2.0) - 1.0) * _body(k, x) * _body(k, x)
    return k.Sqrt(k.WindowedAvg(terms, 21))


def _yang_zhang(k: Any, x: Any) -> Any:
    weight = 0.34 / (1.34 + 22 / 20)
    overnight, body = k.WindowedVar(_log_change(k, x.open, x.close), 21), k.WindowedVar(_body(k, x), 21)
    return k.Sqrt(overnight + weight * body + (1.0 - weight) * _rogers_satchell(k, x))


def _ulcer(k: Any, x: Any) -> Any:
    down = x.close / k.WindowedMax(x.close, 14) - 1.0
    return k.Sqrt(k.WindowedAvg(down * down, 14))


def _mean_ratio(k: Any, x: Any) -> Any:
    return k.Log(k.WindowedAvg(x, 5) / k.WindowedAvg(x, 63))


def _efficiency(k: Any, x: Any) -> Any:
    return k.Abs(x.close - k.BackRef(x.close, 10)) / k.WindowedSum(k.Abs(x.close - k.BackRef(x.close, 1)), 10)


FACTORS: dict[str, Callable[[Any, Any], Any]] = {
    **{f"ret_{n}": lambda k, x, n=n: x.close / k.BackRef(x.close, n) - 1.0 for n in (1, 2, 5, 10, 21, 63, 126, 252)},
    "momentum_252_21": lambda k, x: k.BackRef(x.close, 21) / k.BackRef(x.close, 252) - 1.0,
    **{
        f"ret_{n}_scaled": lambda k, x, n=n: k.Log(x.close / k.BackRef(x.close, n)) / (k.WindowedStddev(x.log_return, 63) * math.sqrt(n))
        for n in (1, 5, 21, 63)
    },
    "gap_1": lambda k, x: x.open / k.BackRef(x.close, 1) - 1.0,
    "intraday_1": lambda k, x: x.close / x.open - 1.0,
    "max_ret_21": lambda k, x: k.Exp(k.WindowedMax(x.log_return, 21)) - 1.0,
    "min_ret_21": lambda k, x: k.Exp(k.WindowedMin(x.log_return, 21)) - 1.0,
    **{f"vol_{n}": lambda k, x, n=n: k.WindowedStddev(x.log_return, n) for n in (5, 21, 63)},
    "parkinson_21": lambda k, x: k.Sqrt(k.WindowedAvg(_range(k, x) * _range(k, x), 21) / (4.0 * math.log(2.0))),
    "garman_klass_21": _garman_klass,
    "rogers_satchell_21": lambda k, x: k.Sqrt(_rogers_satchell(k, x)),
    "yang_zhang_21": _yang_zhang,
    "vol_ratio_5_63": lambda k, x: k.WindowedStddev(x.log_return, 5) / k.WindowedStddev(x.log_return, 63),
    "vol_ratio_21_252": lambda k, x: k.WindowedStddev(x.log_return, 21) / k.WindowedStddev(x.log_return, 252),
    "skew_63": lambda k, x: k.WindowedSkew(x.log_return, 63) * (61 / math.sqrt(63 * 62)),  # from the unbiased one to that of the sample
    "kurtosis_63": lambda k, x: (k.WindowedKurt(x.log_return, 63) * (61 * 60 / 62) - 6.0) / 64.0,
    "autocorrelation_21": lambda k, x: k.WindowedCorrelation(x.log_return, 21, k.BackRef(x.log_return, 1)),
    "range_1": lambda k, x: (x.high - x.low) / x.close,
    "close_location_1": lambda k, x: _location(x),
    "channel_20": lambda k, x: _within(x.close, k.WindowedMin(x.low, 20), k.WindowedMax(x.high, 20)),
    "channel_252": lambda k, x: _within(x.close, k.WindowedMin(x.close, 252), k.WindowedMax(x.close, 252)),
    "drawdown_252": lambda k, x: x.close / k.WindowedMax(x.close, 252) - 1.0,
    "drawup_252": lambda k, x: x.close / k.WindowedMin(x.close, 252) - 1.0,
    "ulcer_14": _ulcer,
    "bollinger_width_20": _bollinger_width,
    "bollinger_b_20": _bollinger_b,
    "volume_z_21": lambda k, x: _score(k, x.log_volume, 21),
    "volume_z_63": lambda k, x: _score(k, x.log_volume, 63),
    "volume_ratio_5_63": lambda k, x: _mean_ratio(k, x.volume),
    "dollar_volume_ratio_5_63": lambda k, x: _mean_ratio(k, x.close * x.volume),
    "cmf_21": lambda k, x: k.WindowedSum(_location(x) * x.volume, 21) / k.WindowedSum(x.volume, 21),
    "price_volume_correlation_21": lambda k, x: k.WindowedCorrelation(x.log_return, 21, x.log_volume),
    **{f"sma_distance_{n}": lambda k, x, n=n: x.close / k.WindowedAvg(x.close, n) - 1.0 for n in (5, 10, 20, 30, 50, 60, 200)},
    "wma_distance_20": lambda k, x: x.close / k.DecayLinear(x.close, 20) - 1.0,
    "sma_cross_50_200": lambda k, x: k.WindowedAvg(x.close, 50) / k.WindowedAvg(x.close, 200) - 1.0,
    "linear_slope_21": lambda k, x: k.WindowedLinearRegressionSlope(x.close, 21) / x.close,
    "efficiency_10": _efficiency,
    "williams_r_14": lambda k, x: 100.0 * _within(x.close, k.WindowedMax(x.high, 14), k.WindowedMin(x.low, 14)) * -1.0,
    "roc_12": lambda k, x: 100.0 * (x.close / k.BackRef(x.close, 12) - 1.0),
    "balance_of_power_1": lambda k, x: (x.close - x.open) / (x.high - x.low),
}
"""Columns of ours that KunQuant's operators (k) can say too, by our names; x has prices, log returns and log volume."""


def _frames(x: Inputs) -> list[pd.DataFrame]:
    """Prices (A,T), a frame a symbol."""
    return [pd.DataFrame({n: x[n][i] for n in PRICES}) for i in range(len(x["close"]))]


def _bars(close: np.ndarray) -> tuple[pd.Series, pd.Series]:
    """Prices every five minutes, and the row of each moment."""
    index = pd.date_range("2000-01-03", periods=len(close), freq="5min")
    return pd.Series(close, index=index), pd.Series(np.arange(len(close)), index=index)


WORKS = {work.__name__: work for work in (triple_barrier, uniqueness, fracdiff, sweep, sma_cross, stockstats, finrl, ta, kunquant)}


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
