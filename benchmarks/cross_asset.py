"""Windows over a whole universe against pandas and FinRL's loop, one thread: `python -m benchmarks.cross_asset`."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.rows import Row, in_turn, main, own_time
from rlaif_ray.core import KEYS, Panel
from rlaif_ray.features import co_movement, covariance
from rlaif_ray.features.cross_asset import CROSS_ASSET
from rlaif_ray.features.cross_section import CROSS_SECTION
from rlaif_ray.features.family import FeatureSet

WINDOW = 63
YEAR = 252
PANDAS = "pandas: rolling cov, var and corr, a symbol at a time"
FINRL = "FinRL's calculate_turbulence, rebuilt"


def rows(quick: bool) -> list[Row]:
    """Beta and correlation with the market, average correlation, turbulence, and whole sets from panel to panel."""
    bars = 500 if quick else 3000
    whole = (30,) if quick else (30, 100)
    return [
        *(_beta_and_correlation(bars, symbols) for symbols in (30, 100)),
        _average_correlation(bars // 2, 30),
        _turbulence(400 if quick else 1000),
        *(_whole_set(s, 600 if quick else 2000, symbols) for symbols in whole for s in (CROSS_ASSET, CROSS_SECTION)),
    ]


def _beta_and_correlation(bars: int, symbols: int) -> Row:
    returns = factor_returns(bars, symbols)
    frame, everyone = pd.DataFrame(returns), np.zeros(symbols, np.int64)
    dense = np.ascontiguousarray(returns.T)

    def ours() -> np.ndarray:
        return co_movement.regression(dense, co_movement.mean_of_others(dense, everyone), WINDOW, WINDOW // 2 + 1)[:2]

    def peer() -> np.ndarray:
        total, count, out = frame.sum(axis=1), frame.count(axis=1), []
        for a in frame:
            x = frame[a]
            market = (total - x) / (count - 1)
            out.append((x.rolling(WINDOW).cov(market) / market.rolling(WINDOW).var(), x.rolling(WINDOW).corr(market)))
        return np.array(out).swapaxes(0, 1)

    apart = np.nanmax(np.abs(ours() - peer()))
    assert apart < 1e-9, f"ours and pandas differ by {apart}"
    seconds, peer_seconds = in_turn(ours, peer)
    cells = 2 * bars * symbols
    note = f"Market: mean of the other symbols. Largest difference {apart:.0e}."
    name = f"beta and correlation, {symbols} x {bars:,}, window {WINDOW}"
    return Row(name, cells / seconds, PANDAS, cells / peer_seconds, peer_seconds / seconds, "values/s", 50.0, note)


def _average_correlation(bars: int, symbols: int) -> Row:
    returns = factor_returns(bars, symbols)
    frame, dense = pd.DataFrame(returns), np.ascontiguousarray(returns.T)

    def ours() -> np.ndarray:
        return covariance.average_correlation(dense, WINDOW)

    def peer() -> np.ndarray:
        every = frame.rolling(WINDOW).corr().to_numpy().reshape(bars, symbols, symbols)
        return (every.sum(axis=(1, 2)) - symbols) / (symbols * (symbols - 1))

    apart = np.nanmax(np.abs(ours() - peer()))
    assert apart < 1e-9, f"ours and pandas differ by {apart}"
    seconds, peer_seconds = in_turn(ours, peer)
    note = f"Pandas makes every pair; ours needs none of them. Largest difference {apart:.0e}."
    name = f"average correlation of all pairs, {symbols} x {bars:,}, window {WINDOW}"
    return Row(name, bars / seconds, "pandas: rolling corr", bars / peer_seconds, peer_seconds / seconds, "dates/s", 50.0, note)


def _turbulence(bars: int) -> Row:
    returns = factor_returns(bars, 30)
    close = pd.DataFrame(np.cumprod(1.0 + np.nan_to_num(returns), axis=0))
    dense = close.pct_change().to_numpy().T.copy()

    def ours() -> np.ndarray:
        return covariance.turbulence(dense, YEAR)[0] * 30

    def peer() -> np.ndarray:
        return finrl_turbulence(close)

    both = slice(YEAR + 3, None)  # FinRL says 0 of its first two
    apart = np.max(np.abs(ours()[both] / peer()[both] - 1.0))
    assert apart < 1e-7, f"ours and FinRL's differ by {apart}, relatively"
    seconds, peer_seconds = in_turn(ours, peer)
    dates = bars - YEAR
    note = f"Ours says it over the number of symbols. Largest relative difference {apart:.0e}."
    name = f"turbulence, 30 symbols, window {YEAR}"
    return Row(name, dates / seconds, FINRL, dates / peer_seconds, peer_seconds / seconds, "dates/s", None, note)


def finrl_turbulence(close: pd.DataFrame) -> np.ndarray:
    """`FeatureEngineer.calculate_turbulence` from its pivot of closes on: boolean masks, `cov`, `pinv`, date by date."""
    returns = close.pct_change()
    dates = returns.index
    turbulence, count = [0.0] * YEAR, 0
    for i in range(YEAR, len(dates)):
        current = returns[returns.index == dates[i]]
        history = returns[(returns.index < dates[i]) & (returns.index >= dates[i - YEAR])]
        kept = history.iloc[history.isna().sum().min() :].dropna(axis=1)
        deviation = (current[list(kept)] - np.mean(kept, axis=0)).to_numpy()
        squared = deviation.dot(np.linalg.pinv(kept.cov())).dot(deviation.T)
        count += int(squared[0, 0] > 0)
        turbulence.append(squared[0, 0] if squared[0, 0] > 0 and count > 2 else 0.0)
    return np.array(turbulence)


def _whole_set(made: FeatureSet, bars: int, symbols: int) -> Row:
    specs = [s for f in made.families for s in f.specs()]
    tables = {
        "features": features(sorted({name for s in specs for name in s.inputs}), bars, symbols).frame,
        "sectors": pl.DataFrame({"symbol": [f"S{a:03d}" for a in range(symbols)], "sector": [f"{a % 11}" for a in range(symbols)]}),
    }
    columns = len(made.apply(tables, specs).columns)
    seconds = own_time(lambda: made.apply(tables, specs))
    name = f"{made.name}, {columns} columns, {symbols} x {bars:,}"
    note = "Panel in, Panel out; no peer has these columns."
    return Row(name, columns * bars * symbols / seconds, "none", float("nan"), float("nan"), "values/s", None, note)


def factor_returns(bars: int, symbols: int) -> np.ndarray:
    """(T,A) returns of one factor and noise; the first bar has none."""
    rng = np.random.default_rng(symbols)
    returns = rng.normal(0.0003, 0.01, (bars, 1)) * rng.uniform(0.5, 1.5, symbols) + rng.normal(0, 0.01, (bars, symbols))
    returns[0] = np.nan
    return returns


def features(names: list[str], bars: int, symbols: int) -> Panel:
    """Columns of that name for every symbol: returns and noise."""
    rng = np.random.default_rng(1)
    columns = {n: rng.standard_normal((symbols, bars)).astype(np.float32) for n in names}
    columns["ret_1"] = np.ascontiguousarray(factor_returns(bars, symbols).T).astype(np.float32)
    stamps = [dt.datetime(2000, 1, 3, 21, tzinfo=dt.UTC) + dt.timedelta(days=i) for i in range(bars)]
    keys = {"symbol": np.repeat([f"S{a:03d}" for a in range(symbols)], bars), "timestamp": stamps * symbols}
    frame = pl.DataFrame(keys | {n: x.ravel() for n, x in columns.items()}).with_columns(known_at="timestamp")
    return Panel.of(frame.select(*KEYS, *columns))


if __name__ == "__main__":
    main(rows)
