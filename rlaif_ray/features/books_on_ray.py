"""Recorded order-book streams to columns in the lake: one file a task, one commit a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from rlaif_ray.data.lake import Lake
from rlaif_ray.data.order_book import Gaps, read_binance
from rlaif_ray.features.catalog import Catalog
from rlaif_ray.features.order_book import book_panel


def sample_books(lake: Lake, files: Sequence[Path], symbol: str, *, every_ms: int, gaps: Gaps, catalog: Catalog) -> tuple[int, int]:
    """Rows sampled from the streams of one market, and those of them that the lake did not have.

    Parameters
    ----------
    files : on storage that all nodes see; each begins with a snapshot of its own and is a book of its own.
    every_ms : of the grid; each row is known at its end.
    gaps : what a break in the exchange's numbering does (`order_book.read_binance`).
    catalog : whose `order_book` columns are made.

    Raises `DataError` with file and line for what cannot be read.
    """
    done = ray.get([_sampled.remote(lake, file.absolute(), symbol, every_ms, gaps, catalog) for file in files])
    return sum(rows for rows, _ in done), sum(added for _, added in done)


@ray.remote
def _sampled(lake: Lake, file: Path, symbol: str, every_ms: int, gaps: Gaps, catalog: Catalog) -> tuple[int, int]:
    rows = book_panel(read_binance(file, gaps=gaps), symbol, every_ms, catalog.specs("order_book")).frame
    table = f"{catalog.table('order_book')}_{every_ms}ms"  # a grid is a table: rows of two would revise each other
    return rows.height, lake.append(table, rows, file.name) if rows.height else 0
