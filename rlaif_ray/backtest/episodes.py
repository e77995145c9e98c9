"""Episodes at rest: one compressed file of arrays each, nothing pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray.core import Episode, Trip

ARRAYS = ("times", "weights", "gross_returns", "costs", "turnover")


def write_episode(path: Path, episode: Episode, **more: np.ndarray) -> None:
    """The arrays of an episode and `more`; of each trip of a control its moment, name, reading and limit."""
    at = np.array([t.at for t in episode.trips], "datetime64[us]")
    read = np.array([(t.reading, t.limit) for t in episode.trips], np.float64).reshape(-1, 2)
    arrays: dict[str, Any] = {f: getattr(episode, f) for f in ARRAYS} | more
    names = np.array([t.control for t in episode.trips], np.str_)
    np.savez_compressed(path, symbols=np.array(episode.symbols), trip_at=at, trip_control=names, trip_read=read, **arrays)


def read_episode(path: Path) -> Episode:
    """The inverse; a file is named for its policy."""
    with np.load(path) as saved:
        trips = zip(saved["trip_at"], saved["trip_control"].tolist(), saved["trip_read"].tolist(), strict=True)
        return Episode(
            symbols=tuple(saved["symbols"].tolist()), policy=path.stem, **{f: saved[f] for f in ARRAYS},
            trips=tuple(Trip(at, control, *read) for at, control, read in trips),
        )  # fmt: skip
