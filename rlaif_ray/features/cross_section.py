"""Where a symbol stands among all symbols of the same moment: the second pass, over dates.

What is compared at (symbol, timestamp) are the rows of that timestamp which were known when this row became known; a
row that arrives late joins no one's comparison before it arrived. Symbols without the feature count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from rlaif_ray.core import KEYS, Panel
from rlaif_ray.features.catalog import CROSS_SECTION, computable, spec

_MOMENT = ("timestamp", "view")


def cross_section(features: Panel, names: Iterable[str] = CROSS_SECTION) -> Panel:
    """Cross-sectional features of all symbols.

    Parameters
    ----------
    features : technical features of every symbol in the universe (see `technical.apply`).
    names : wanted; those whose input is not among the columns are left out.

    Returns
    -------
    Panel with the same rows and `known_at`, float32. `_excess`: value less the mean of the moment. `_rank`:
    (rank - 1)/(n - 1) - 0.5, ties share their mean rank; undefined with fewer than two symbols.
    """
    names = computable(names, features.columns)
    inputs = sorted({spec(n).inputs[0] for n in names})
    frame = features.frame.select(*KEYS, pl.col(inputs).fill_nan(None).cast(pl.Float64))
    moments = frame.select("timestamp", view="known_at").unique()
    seen = moments.join(frame, on="timestamp").filter(pl.col("known_at") <= pl.col("view")).sort(*_MOMENT, "symbol")
    seen = seen.with_columns(_expression(n).over(_MOMENT).cast(pl.Float32).fill_null(float("nan")).alias(n) for n in names)
    return Panel(seen.filter(pl.col("known_at") == pl.col("view")).select(*KEYS, *names).sort("symbol", "timestamp"))


def _expression(name: str) -> pl.Expr:
    x = pl.col(spec(name).inputs[0])
    return _KINDS[name.rpartition("_")[2]](x)


def _excess(x: pl.Expr) -> pl.Expr:
    return pl.when(x.count() > 1).then(x - x.mean())


def _rank(x: pl.Expr) -> pl.Expr:
    return pl.when(x.count() > 1).then((x.rank("average") - 1.0) / (x.count() - 1) - 0.5)


_KINDS: dict[str, Callable[[pl.Expr], pl.Expr]] = {"excess": _excess, "rank": _rank}
