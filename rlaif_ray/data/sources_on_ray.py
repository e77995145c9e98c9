"""Sources that read through Ray Data, and the door to all sources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from rlaif_ray import data
from rlaif_ray.config_data import DataConfig, KafkaData
from rlaif_ray.core import Source
from rlaif_ray.data import kafka
from rlaif_ray.data.bar_tables import Adjustment, BadRows, PriceKind, Stamp
from rlaif_ray.errors import ConfigError, DataError, MissingDataError

_FIELDS = ["topic", "partition", "offset", "value"]


def build(section: DataConfig) -> Source:
    """The source that the `data` section names, Ray's among them."""
    if isinstance(section, KafkaData):
        return KafkaSource(
            section.topics, section.servers, names=section.names, stamp=section.stamp, tz=section.tz, calendar=section.calendar,
            adjustment=section.adjustment, bad_rows=section.bad_rows,
        )  # fmt: skip
    return data.build(section)


class KafkaSource:
    """Bars from the messages that the topics hold when it is first asked, one JSON object a bar.

    The messages are read once, through `ray.data.read_kafka`, a task a partition, and travel to the tasks that read symbols
    with the source: what the topics retain must fit in memory. Later messages are the next ingest's.

    Parameters
    ----------
    topics, servers : names, and brokers as host:port.
    names : keep these symbols.
    stamp, tz, calendar, adjustment, bad_rows : as in `FileSource`.
    """

    def __init__(
        self, topics: Sequence[str], servers: Sequence[str], *, names: Sequence[str] | None = None, stamp: Stamp = "auto",
        tz: str = "America/New_York", calendar: str = "XNYS", adjustment: Adjustment = "auto", bad_rows: BadRows = "refuse",
    ) -> None:  # fmt: skip
        self.topics, self.servers, self.names = list(topics), list(servers), names
        self.tz, self.calendar = tz, calendar
        self.stamp: Stamp = stamp
        self.adjustment: Adjustment = adjustment
        self.bad_rows: BadRows = bad_rows

    def symbols(self) -> list[str]:
        """All symbols that the messages name, sorted. Raises `MissingDataError` for one of `names` that they do not."""
        known = kafka.symbols(self._messages, self._place)
        missing = sorted(set(self.names or ()) - set(known))
        if missing:
            raise MissingDataError(f"data.names asks for {missing}; {self._place} has {len(known)} other symbols")
        return known if self.names is None else sorted(set(self.names))

    @cached_property
    def price_kind(self) -> PriceKind | None:
        """What is known of the prices beforehand; None: the split days will tell."""
        return kafka.price_kind(self._messages, self._place, self.adjustment)

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """`bars` of one symbol; see `kafka.bars`."""
        return {"bars": kafka.bars(
            self._messages, symbol, self._place, stamp=self.stamp, tz=self.tz, calendar=self.calendar, adjustment=self.adjustment,
            bad_rows=self.bad_rows,
        )}  # fmt: skip

    @property
    def _place(self) -> str:
        return f"topic {', '.join(self.topics)}"

    @cached_property
    def _messages(self) -> pl.DataFrame:
        try:
            import ray
            from confluent_kafka import KafkaException  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError:
            raise ConfigError("data.type is kafka, but confluent-kafka is not installed; pip install 'rlaif-ray[kafka]'") from None
        where = f"{self._place} of {', '.join(self.servers)}"
        try:
            # No timeout: a read that ends early would leave out messages, and only log it.
            messages = ray.data.read_kafka(self.topics, bootstrap_servers=self.servers).select_columns(_FIELDS)
            batches: list[Any] = list(messages.iter_batches(batch_size=None, batch_format="pyarrow"))
        except KafkaException as error:
            raise DataError(f"{where} cannot be read ({error}); check data.topics and data.servers") from None
        tables = [kafka.decoded(zip(*(batch[name].to_pylist() for name in _FIELDS), strict=True)) for batch in batches if len(batch)]
        if not tables:
            raise MissingDataError(f"{where} holds no message; expected bars as JSON")
        return pl.concat(tables, how="diagonal")
