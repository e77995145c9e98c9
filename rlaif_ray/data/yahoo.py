"""Yahoo's daily bars through `yfinance`: the backup source that needs no key, and promises nothing."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import polars as pl
import requests
from requests.adapters import HTTPAdapter

from rlaif_ray.data.bar_tables import BadRows, standard_prices, timed
from rlaif_ray.data.sessions import DAY
from rlaif_ray.data.spellings import understood
from rlaif_ray.errors import ConfigError, DataError, MissingDataError


class YahooSource:
    """Daily bars of listed symbols, split-adjusted by the vendor.

    Unofficial: Yahoo documents neither the service nor its terms for this use, changes it without notice and limits it by
    rules of its own. Its prices, volumes and dividends are divided by every split up to the day of fetching, so the past is
    rewritten by each split and was never point in time; dividends are not in the prices (`auto_adjust=False`). Names that
    were delisted are gone. Capital gains that funds pay out are left out.

    Parameters
    ----------
    names : symbols as Yahoo spells them (`BRK-B`, `^VIX`, `BTC-USD`).
    start, end : first and last day; None: all there is.
    calendar : exchange that says when sessions close. A session that has not closed yet is left out.
    base_url : where the same service answers, such as a caching proxy; None: Yahoo itself.
    bad_rows : as in `FileSource`.
    """

    price_kind: Literal["split_adjusted"] = "split_adjusted"

    def __init__(
        self, names: Sequence[str], *, start: dt.date | None = None, end: dt.date | None = None, calendar: str = "XNYS",
        base_url: str | None = None, bad_rows: BadRows = "refuse",
    ) -> None:  # fmt: skip
        self.names, self.start, self.end, self.calendar, self.base_url = tuple(names), start, end, calendar, base_url
        self.bad_rows = bad_rows

    def symbols(self) -> list[str]:
        return sorted(set(self.names))

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol in `clean.BAR_SCHEMA`, not yet cleaned.

        Raises `MissingDataError` where Yahoo has none, `DataError` where it does not answer, or not as it used to.
        """
        table = self._history(symbol)
        if not len(table):
            raise MissingDataError(f"Yahoo has no daily bars of {symbol!r}; expected a symbol as Yahoo spells it, such as BRK-B")
        table.insert(0, "Date", table.index.date)
        place = f"Yahoo's {symbol}"
        rows = understood(pl.from_pandas(table.drop(columns="Adj Close")).with_row_index("line", offset=1), place, "row")
        prices = standard_prices(rows, f"{place} row", self.price_kind, refuse=self.bad_rows == "refuse")
        bars = timed(prices, symbol, stamp="date", tz="UTC", calendar=self.calendar)
        return {"bars": bars.filter(pl.col("timestamp") <= dt.datetime.now(dt.UTC))}

    def _history(self, symbol: str) -> Any:
        """The pandas table of `yfinance`: a row a day under Yahoo's names, prices as traded but for splits."""
        yfinance = _need_yfinance()
        yfinance.config.debug.hide_exceptions = False  # or what went wrong comes back as an empty table
        session = None if self.base_url is None else _session_to(self.base_url)
        span: dict[str, Any] = {"period": "max"}
        if self.start is not None or self.end is not None:
            span = {"start": self.start or dt.date(1900, 1, 1), "end": None if self.end is None else self.end + DAY}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the library calls pandas in ways that pandas 4 will end
                return yfinance.Ticker(symbol, session=session).history(interval="1d", auto_adjust=False, actions=True, **span)
        except (yfinance.exceptions.YFException, OSError, ValueError, LookupError, TypeError) as error:
            yfinance.data.YfData.cache_get.cache_clear()  # it remembers answers, bad ones too: another try must ask again
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 404 or isinstance(error, yfinance.exceptions.YFTickerMissingError):
                raise MissingDataError(f"Yahoo has no daily bars of {symbol!r} ({why}); expected a symbol as Yahoo spells it") from None
            raise DataError(f"Yahoo did not answer for {symbol!r} as it used to ({why}); try later, or choose another data.type") from None


def _need_yfinance() -> Any:
    try:
        import yfinance
        import yfinance.data
        import yfinance.exceptions
    except ImportError:
        raise ConfigError("data.type is yahoo, but yfinance is not installed; pip install 'rlaif-ray[yahoo]'") from None
    return yfinance


def _session_to(base_url: str) -> requests.Session:
    session = requests.Session()
    session.mount("https://", _Elsewhere(base_url))
    return session


class _Elsewhere(HTTPAdapter):
    """Asks another host for what was meant for Yahoo."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url.rstrip("/")

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        request.url = self.base_url + request.path_url
        return super().send(request, *args, **options)
