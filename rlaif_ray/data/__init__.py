"""Where prices, filings and news come from, how they are made clean, and the lake they go to."""

from __future__ import annotations

from rlaif_ray.config import DataConfig, FileData, Sp500Data, SyntheticData
from rlaif_ray.core import Source


def build(section: DataConfig) -> Source:
    """The source that the `data` section names."""
    match section:
        case FileData():
            from rlaif_ray.data.files import FileSource

            return FileSource(
                section.path, kind=section.type, symbol_pattern=section.symbol_pattern, names=section.names, stamp=section.stamp,
                tz=section.tz, calendar=section.calendar, adjustment=section.adjustment, bad_rows=section.bad_rows,
            )  # fmt: skip
        case Sp500Data():
            from rlaif_ray.data.bundled import Sp500Source

            return Sp500Source()
        case SyntheticData():
            from rlaif_ray.data.synthetic import SyntheticSource

            return SyntheticSource(
                section.n_symbols, section.n_bars, section.bar, section.seed, section.signal_strength, section.drift
            )  # fmt: skip
