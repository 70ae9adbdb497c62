"""When the producer replaces the library's; `tests/integration/test_broker_outage.py` has the real one."""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.wire.record import OutRecord

RECORD = OutRecord("loupe.events", b"camera", b"value")


class Library:
    """Stands for kafka-python's producer."""

    def __init__(self) -> None:
        self.futures: list[Any] = []

    def send(self, *_: object, **__: object) -> Any:
        self.futures.append(Future())
        return self.futures[-1]

    def close(self, timeout: float) -> None:
        """Keep what it holds; the test says when it is given up."""


class Renewing(KafkaBrokerProducer):
    """Opens libraries that only count."""

    def __init__(self) -> None:
        self.opened: list[Library] = []
        super().__init__("127.0.0.1:1")

    def _open(self) -> Library:
        self.opened.append(Library())
        return self.opened[-1]


def test_what_a_replaced_producer_gives_up_does_not_replace_the_next_one() -> None:
    producer = Renewing()
    producer.send(RECORD)
    producer.send(RECORD)
    first, second = producer.opened[0].futures
    first.failure(KafkaTimeoutError("given up"))
    producer.send(RECORD)
    assert len(producer.opened) == 2
    second.failure(KafkaTimeoutError("closed with it on its way"))
    producer.send(RECORD)
    assert len(producer.opened) == 2
