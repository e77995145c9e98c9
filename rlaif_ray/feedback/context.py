"""What the market was like when an opinion was given: the reward model's context, known at the decision moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_ray.core import Cube
from rlaif_ray.data.events import total_returns

CONTEXT = (
    "market_volatility", "market_volatility_trend", "market_trend", "dispersion", "volatility", "momentum", "filing_fresh", "news_fresh",
)  # fmt: skip
SHORT, LONG = 21, 63  # bars
FRESH_BARS = {"filing_fresh": ("filing_age_bars", 20.0), "news_fresh": ("news_age_bars", 5.0)}
_CHUNK = 256  # rows at once, so that memory does not grow with the data


def context_features(cube: Cube, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """(R,A,C) float64 context at each row, from returns of the 63 bars that end there and the age of filings and news.

    Market columns are the same for all symbols. Volatilities are logs, trends are in standard errors. NaN where fewer
    than half of a window's bars are there. Each row is computed from its own window alone, so the past never moves.
    """
    returns = np.vstack([np.full((LONG, len(cube.symbols)), np.nan), total_returns(cube)])
    market = _mean(np.where(np.isfinite(returns), returns, np.nan), axis=1, least=2)  # (T+LONG,) equal weight
    spread = _std(returns, axis=1, least=2)
    rows = np.asarray(rows, np.int64)
    parts = [_block(cube, returns, market, spread, rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, len(cube.symbols), len(CONTEXT)))


def _block(cube: Cube, returns: np.ndarray, market: np.ndarray, spread: np.ndarray, rows: np.ndarray) -> np.ndarray:
    window = rows[:, None] + 1 + np.arange(LONG)  # padded indices of the LONG bars that end at each row
    long, recent = returns[window], returns[window[:, -SHORT:]]  # (R,L,A)
    market_long, market_short = market[window], market[window[:, -SHORT:]]
    volatility = _std(market_short, axis=1, least=SHORT // 2)
    volatility_long = _std(market_long, axis=1, least=LONG // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "market_volatility": np.log(volatility),
            "market_volatility_trend": np.log(volatility / volatility_long),
            "market_trend": _mean(market_long, axis=1, least=LONG // 2) / volatility_long * np.sqrt(LONG),
            "dispersion": np.log(_mean(spread[window[:, -SHORT:]], axis=1, least=SHORT // 2)),
            "volatility": np.log(_std(recent, axis=1, least=SHORT // 2)),
            "momentum": _mean(long, axis=1, least=LONG // 2) / _std(long, axis=1, least=LONG // 2) * np.sqrt(LONG),
        }
    for name, (age, bars) in FRESH_BARS.items():
        known = cube.feature(age)[rows].astype(np.float64) if age in cube.feature_names else np.full((len(rows), len(cube.symbols)), np.nan)
        columns[name] = np.where(np.isnan(known), 0.0, np.exp(-known / bars))
    shape = (len(rows), len(cube.symbols))
    out = np.stack([np.broadcast_to(columns[n] if columns[n].ndim == 2 else columns[n][:, None], shape) for n in CONTEXT], axis=-1)
    return np.where(np.isfinite(out), out, np.nan)


def _mean(x: np.ndarray, axis: int, least: int) -> np.ndarray:
    """Mean over finite entries; NaN where there are fewer than `least`."""
    there = np.isfinite(x)
    count = there.sum(axis=axis)
    return np.where(count >= least, np.where(there, x, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def _std(x: np.ndarray, axis: int, least: int) -> np.ndarray:
    """Population standard deviation over finite entries; NaN where there are fewer than `least`."""
    mean = _mean(x, axis, least)
    return np.sqrt(_mean((x - np.expand_dims(mean, axis)) ** 2, axis, least))
