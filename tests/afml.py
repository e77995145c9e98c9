"""The snippets of Lopez de Prado's books in pandas, as they stand there: slow references for our kernels.

AFML: Advances in Financial Machine Learning (2018); MLAM: Machine Learning for Asset Managers (2020).
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def cusum(prices: pd.Series, threshold: float) -> list:
    """AFML 2.4, on log prices."""
    events, up, down = [], 0.0, 0.0
    diff = pd.Series(np.log(prices)).diff()
    for i in diff.index[1:]:
        up, down = max(0.0, up + diff.loc[i]), min(0.0, down + diff.loc[i])
        if down < -threshold:
            down = 0.0
            events.append(i)
        elif up > threshold:
            up = 0.0
            events.append(i)
    return events


def first_touch(close: pd.Series, events: pd.DataFrame, take: float, stop: float) -> pd.DataFrame:
    """AFML 3.2: times of the touches of each barrier, NaN for none; `events` has t1, trgt and side."""
    out = pd.DataFrame({"t1": events["t1"], "sl": np.nan, "pt": np.nan})
    last = events["t1"].fillna(close.index[-1])
    for loc in events.index:
        path = (close.loc[loc : last[loc]] / close.loc[loc] - 1) * events.at[loc, "side"]
        out.at[loc, "sl"] = path[path < -stop * events.at[loc, "trgt"]].index.min() if stop > 0 else np.nan
        out.at[loc, "pt"] = path[path > take * events.at[loc, "trgt"]].index.min() if take > 0 else np.nan
    return out


def concurrent(bars: int, t1: pd.Series) -> pd.Series:
    """AFML 4.1."""
    count = pd.Series(0, index=range(bars))
    for opened, closed in t1.items():
        count.loc[opened:closed] += 1
    return count


def uniqueness(t1: pd.Series, count: pd.Series) -> pd.Series:
    """AFML 4.2."""
    return pd.Series({opened: (1.0 / count.loc[opened:closed]).mean() for opened, closed in t1.items()})


def attribution(close: pd.Series, t1: pd.Series, count: pd.Series) -> pd.Series:
    """AFML 4.10."""
    returns = pd.Series(np.log(close)).diff()
    weights = pd.Series({opened: (returns.loc[opened:closed] / count.loc[opened:closed]).sum() for opened, closed in t1.items()}).abs()
    return weights * len(weights) / weights.sum()


def indicators(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """AFML 4.3: (T,E), 1 where a label covers a bar."""
    rows = np.arange(end.max() + 1)[:, None]
    return ((rows >= start) & (rows <= end)).astype(float)


def draw_chances(covers: np.ndarray, drawn: list[int]) -> np.ndarray:
    """AFML 4.5: the chance of each label to be drawn next."""
    average = []
    for i in range(covers.shape[1]):
        own = covers[:, [*drawn, i]]
        unique = own / own.sum(axis=1).clip(min=1)[:, None]
        average.append(unique[unique[:, -1] > 0, -1].mean())
    return np.array(average) / np.sum(average)


def best_trend(close: np.ndarray, start: int, lengths: range) -> tuple[float, int]:
    """MLAM 5.1 and 5.2: t-value of the slope of the best line from `start`, and its last row."""
    best, end = 0.0, start
    for n in lengths:
        x, y = np.column_stack([np.ones(n), np.arange(n)]), close[start : start + n]
        coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
        variance = ((y - x @ coefficients) ** 2).sum() / (n - 2)
        t_value = coefficients[1] / np.sqrt(variance * np.linalg.inv(x.T @ x)[1, 1])
        if abs(t_value) > abs(best):
            best, end = t_value, start + n - 1
    return best, end
