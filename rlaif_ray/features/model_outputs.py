"""What a model said, as columns for the next one: forecast quantiles, their width, tilt and asymmetry, and a projected embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rlaif_ray.core import UTC, ForecastTable, Panel
from rlaif_ray.errors import ConfigError, MissingDataError, SchemaError

LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Projection:
    """A Gaussian random projection to `width` numbers: distances between embeddings stay as they are, nearly, and nothing is fitted.

    Johnson and Lindenstrauss (1984): entries N(0, 1/width), drawn from `seed` for the embeddings' own size, so that the same
    model's embeddings are always projected alike. Distances are off by the share sqrt(2 / width), one standard deviation.
    """

    width: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"an embedding is projected to {self.width} columns; expected 1 or more")

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """(...,E) -> (...,width) float32."""
        size = embeddings.shape[-1]
        matrix = np.random.default_rng((self.seed, size, self.width)).normal(0.0, self.width**-0.5, (size, self.width))
        out = np.zeros((*embeddings.shape[:-1], self.width))
        for e in range(size):  # one by one, and not as a product of matrices, whose bits depend on how many rows stand beside a row
            out += embeddings[..., e, None].astype(np.float64) * matrix[e]
        return out.astype(np.float32)


def columns(
    table: ForecastTable, levels: Sequence[float] = LEVELS, *, embeddings: np.ndarray | None = None, projection: Projection | None = None
) -> Panel:  # fmt: skip
    """Each symbol's forecasts at each moment, known at the moment that they were made at.

    Parameters
    ----------
    table : forecasts (T,A,H,Q) of one model and target.
    levels : quantiles wanted, of those that the table has. The outermost two, q and 1 - q, make the width.
    embeddings : (T,A,E), what the model makes of each symbol before it forecasts.
    projection : how they become columns (default: `Projection()`).

    Returns
    -------
    Panel, timestamp and `known_at` both `as_of`, float32; for each horizon h, after `{model}_{target}_{h}_`:

    - `q10`, `q2p5`: the quantile at level 0.1, at 0.025;
    - `width`: the upper quantile less the lower;
    - `tilt`: the median over the width, a forecast in units of its own uncertainty;
    - `asymmetry`: (upper + lower - 2 median) / width, in [-1, 1] (Kelly's skewness where the levels are 0.1 and 0.9).

    and `{model}_{target}_embedding_{i}`. NaN where the model said nothing; tilt and asymmetry also where the width is 0.

    Raises `MissingDataError` for a level that the table has not, `ConfigError` for levels that do not lie about the median,
    `SchemaError` for embeddings of another shape.
    """
    wanted = tuple(sorted(levels))
    for level in wanted:
        if level not in table.levels:
            raise MissingDataError(f"{table.model} has no quantile at {level}; it has {list(table.levels)}: choose among them")
    if len(wanted) < 3 or 0.5 not in wanted or not np.isclose(wanted[0] + wanted[-1], 1.0):
        raise ConfigError(f"model output levels are {list(wanted)}; expected 0.5 among them, and outermost ones that sum to 1")
    stem = "".join(c if c.isalnum() else "_" for c in table.model) + f"_{table.target}"
    made: dict[str, np.ndarray] = {}
    for h, horizon in enumerate(table.horizons):
        by_level = {level: table.values[:, :, h, table.levels.index(level)].astype(np.float64) for level in wanted}
        made |= {f"{stem}_{horizon}_{name}": x for name, x in _of_quantiles(by_level).items()}
    if embeddings is not None:
        if embeddings.shape[:-1] != table.values.shape[:2]:
            raise SchemaError(f"embeddings have shape {embeddings.shape}; expected (T,A,E) with (T,A) = {table.values.shape[:2]}")
        projected = (projection or Projection()).apply(embeddings)
        made |= {f"{stem}_embedding_{i}": projected[..., i] for i in range(projected.shape[-1])}
    return _panel(table, made)


def _of_quantiles(q: Mapping[float, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns (T,A) from quantiles (T,A) by level, rising."""
    lower, upper, median = q[min(q)], q[max(q)], q[0.5]
    width = upper - lower
    some = np.where(width > 0.0, width, np.nan)
    named = {f"q{100 * level:g}".replace(".", "p"): x for level, x in q.items()}
    return {**named, "width": width, "tilt": median / some, "asymmetry": (upper + lower - 2.0 * median) / some}


def _panel(table: ForecastTable, made: Mapping[str, np.ndarray]) -> Panel:
    times, assets = (grid.ravel() for grid in np.indices(table.values.shape[:2]))
    keys = {"symbol": np.asarray(table.symbols)[assets].tolist(), "timestamp": table.as_of[times], "known_at": table.as_of[times]}
    frame = pl.DataFrame({**keys, **{name: x.ravel().astype(np.float32) for name, x in made.items()}})
    return Panel.of(frame.with_columns(pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)))
