"""What a lake has of a symbol, for sources that ask for what is newer."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal

from rlaif_ray.data.lake import Lake


@dataclass(frozen=True)
class LastIn:
    """A source's `since`: the last moment of a symbol in one table, None where it has no row. Picklable.

    Parameters
    ----------
    column : for bars the `timestamp` (a revision is known long after its bar), for mentions of stories `known_at`.
    """

    lake: Lake
    table: str
    column: Literal["timestamp", "known_at"]

    def __call__(self, symbol: str) -> dt.datetime | None:
        if self.table not in self.lake.tables():
            return None
        last: Any = self.lake.read(self.table, [symbol])[self.column].max()
        return last
