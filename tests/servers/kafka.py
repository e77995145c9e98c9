"""A broker on loopback that speaks Kafka's protocol: the mock cluster that librdkafka brings along; skipped without the client."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class KafkaBroker:
    """`address` as host:port, and who writes to it."""

    address: str
    producer: Any

    def send(self, topic: str, *values: bytes) -> None:
        for value in values:
            self.producer.produce(topic, value)
        assert self.producer.flush(10) == 0


@contextmanager
def kafka_broker() -> Iterator[KafkaBroker]:
    """The broker lives as long as the producer that it belongs to."""
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="no Kafka client; pip install 'rlaif_ray[kafka]'")
    producer = confluent_kafka.Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 3})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    yield KafkaBroker(f"{broker.host}:{broker.port}", producer)
