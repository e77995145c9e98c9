"""A database as a source of bars: one query, asked once a symbol.

`ray.data.read_sql` is not used: it reads a query whole, in one task, on databases that cannot hash a row (SQLite and
PostgreSQL among them), where the tasks of `ingest`, a symbol each, read side by side and hold one symbol at a time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from rlaif_ray.data.bar_tables import Adjustment, BadRows, PriceKind, Stamp, declared_kind, standard_prices, timed
from rlaif_ray.data.spellings import SPELLINGS, as_text, recognise, understood
from rlaif_ray.errors import ConfigError, DataError, MissingDataError, SchemaError, did_you_mean

PLACE = "data.query"


class SqlSource:
    """Bars from whatever SQLAlchemy reaches: PostgreSQL, SQLite, and others by their drivers.

    Parameters
    ----------
    query : SELECT that gives one row a bar, with a symbol, a time and prices in columns of the usual spellings. It is asked
        as a subquery for one symbol at a time, so an index on that column is worth having.
    url_variable : environment variable that holds the SQLAlchemy URL, password and all; it is read where the query runs, and
        never shown.
    names : keep these symbols.
    stamp, tz, calendar, adjustment, bad_rows : as in `FileSource`.
    """

    def __init__(
        self, query: str, *, url_variable: str = "RLAIF_SQL_URL", names: Sequence[str] | None = None, stamp: Stamp = "auto",
        tz: str = "America/New_York", calendar: str = "XNYS", adjustment: Adjustment = "auto", bad_rows: BadRows = "refuse",
    ) -> None:  # fmt: skip
        self.query, self.url_variable, self.names = query.strip().rstrip(";"), url_variable, names
        self.tz, self.calendar = tz, calendar
        self.stamp: Stamp = stamp
        self.adjustment: Adjustment = adjustment
        self.bad_rows = bad_rows

    def symbols(self) -> list[str]:
        """All symbols of the query, sorted. Raises `MissingDataError` for one of `names` that it has not."""
        column = self._quoted(self._columns["symbol"])
        _, found = self._ask(f"SELECT DISTINCT {column} FROM ({self.query}) AS bars")
        known = sorted(str(symbol).strip() for (symbol,) in found if symbol is not None)
        if self.names is None:
            return known
        for name in self.names:
            if name not in known:
                raise MissingDataError(f"data.names asks for {name!r}; {PLACE} has {len(known)} other symbols.{did_you_mean(name, known)}")
        return sorted(set(self.names))

    @cached_property
    def price_kind(self) -> PriceKind | None:
        """What is known of the prices beforehand; None: the split days will tell."""
        return declared_kind(self._columns, self.adjustment)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol in `clean.BAR_SCHEMA`, not yet cleaned. Raises `DataError` (or below) with row and value."""
        column = self._quoted(self._columns["symbol"])
        names, rows = self._ask(f"SELECT * FROM ({self.query}) AS bars WHERE {column} = :symbol", symbol=symbol)
        table = understood(as_text(names, rows).with_row_index("line", offset=1), PLACE, f"{symbol} row", symbol)
        prices = standard_prices(table, f"{PLACE} {symbol} row", self.price_kind, refuse=self.bad_rows == "refuse")
        return {"bars": timed(prices, symbol, stamp=self.stamp, tz=self.tz, calendar=self.calendar)}

    @cached_property
    def _columns(self) -> dict[str, str]:
        names, _ = self._ask(f"SELECT * FROM ({self.query}) AS bars WHERE 1 = 0")
        found = recognise(names, PLACE)
        if "symbol" not in found:
            raise SchemaError(f"{PLACE} gives no symbol column among {names}; expected one of {', '.join(SPELLINGS['symbol'])}")
        return found

    def _quoted(self, column: str) -> str:
        return self._engine().dialect.identifier_preparer.quote_identifier(column)

    def _ask(self, statement: str, **bound: str) -> tuple[list[str], list[Any]]:
        """Names of the columns, and the rows."""
        sqlalchemy = _need_sqlalchemy()
        try:
            with self._engine().connect() as connection:
                result = connection.execute(sqlalchemy.text(statement), bound)
                return list(result.keys()), list(result.fetchall())
        except sqlalchemy.exc.SQLAlchemyError as error:
            # The driver's own words: those of SQLAlchemy repeat the statement and what was bound.
            why = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())[:200]
            raise DataError(f"the database refused {PLACE} ({why}); check the query and ${self.url_variable}") from None

    def _engine(self) -> Any:
        sqlalchemy = _need_sqlalchemy()
        url = os.environ.get(self.url_variable)
        such = "expected a SQLAlchemy URL such as postgresql+psycopg://user@host/name"
        if not url:
            raise ConfigError(f"${self.url_variable} is not set; {such}")
        try:
            return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise ConfigError(f"${self.url_variable} has another form; {such}") from None
        except ImportError as error:
            why = f"names a driver that is not installed ({error.name}); pip install 'rlaif-ray[sql]', or the driver"
            raise ConfigError(f"${self.url_variable} {why}") from None


def _need_sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise ConfigError("data.type is sql, but sqlalchemy is not installed; pip install 'rlaif-ray[sql]'") from None
    return sqlalchemy
