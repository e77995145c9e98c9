"""Real prices that a library ships, so that the pipeline runs on them without a network."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Literal

import polars as pl

from rlaif_ray.data.clean import BAR_SCHEMA
from rlaif_ray.data.sessions import schedule
from rlaif_ray.errors import MissingDataError, did_you_mean


class Sp500Source:
    """Adjusted closes of 20 S&P 500 stocks, 1990-01-02 to 2022-12-28, as shipped with skfolio.

    Close only: open, high, low and volume are null, and what needs them is absent. Adjusted by the vendor as of 2022:
    not point in time, and the names are those that lived.
    """

    price_kind: Literal["vendor_adjusted"] = "vendor_adjusted"
    calendar = "XNYS"

    def __init__(self) -> None:
        from skfolio.datasets import load_sp500_dataset

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            table = load_sp500_dataset()
        self._closes = pl.from_pandas(table.reset_index()).rename({"Date": "session"}).with_columns(pl.col("session").cast(pl.Date))

    def symbols(self) -> list[str]:
        return sorted(self._closes.columns[1:])

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol, stamped at each session's close."""
        if symbol not in self._closes.columns:
            raise MissingDataError(f"the bundled set has no {symbol!r}.{did_you_mean(symbol, self.symbols())}")
        first, last = dt.date(1990, 1, 1), dt.date(2022, 12, 31)
        bars = self._closes.select("session", close=pl.col(symbol).cast(pl.Float64)).drop_nulls().join(
            schedule(self.calendar, first, last).select("session", timestamp="close"), on="session", how="left", maintain_order="left"
        )  # fmt: skip
        return {"bars": bars.with_columns(
            symbol=pl.lit(symbol), known_at=pl.col("timestamp"), tradable=pl.lit(True), delisted=pl.lit(False),
            dividend=pl.lit(0.0), split=pl.lit(1.0),
            **{c: pl.lit(None, pl.Float64) for c in ("open", "high", "low", "volume")},
        ).select(*BAR_SCHEMA)}  # fmt: skip
