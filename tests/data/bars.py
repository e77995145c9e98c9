"""Small bars by hand for the tests of this folder."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl

from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.sessions import schedule


def sessions(first: dt.date, n: int) -> pl.DataFrame:
    """n NYSE sessions from `first` on."""
    return schedule("XNYS", first, first + dt.timedelta(days=2 * n + 10)).head(n)


def daily(symbol: str, closes: list[float], first: dt.date = dt.date(2020, 1, 2), **columns: list[Any]) -> pl.DataFrame:
    """Bars on consecutive sessions: open = high = low = close, volume 100, unless given."""
    grid = sessions(first, len(closes))
    values: dict[str, Any] = {
        "symbol": [symbol] * len(closes), "timestamp": grid["close"], "known_at": grid["close"], "session": grid["session"],
        **dict.fromkeys(("open", "high", "low", "close"), closes), "volume": [100.0] * len(closes), "dividend": [0.0] * len(closes),
        "split": [1.0] * len(closes), "tradable": [True] * len(closes), "delisted": [False] * len(closes),
    }  # fmt: skip
    return pl.DataFrame(values | columns, schema=BAR_SCHEMA, strict=False)


def write_csv(folder: Path, symbol: str, closes: list[float], first: dt.date = dt.date(2020, 1, 2), name: str | None = None) -> Path:
    """A file of Yahoo's kind: Date, Open, High, Low, Close, Volume."""
    folder.mkdir(exist_ok=True)
    lines = [f"{d},{c},{c + 1},{c - 1},{c},1000" for d, c in zip(sessions(first, len(closes))["session"], closes, strict=True)]
    path = folder / (name or f"{symbol}.csv")
    path.write_text("\n".join(["Date,Open,High,Low,Close,Volume", *lines]) + "\n")
    return path
