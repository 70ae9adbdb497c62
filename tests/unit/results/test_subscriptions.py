"""FastStream's side: what is committed, and what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import CommitFailedError
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.message import KafkaAckableMessage, KafkaMessage

from services.adapters.broker.faststream import leave_whole, parse_without_headers, records_of
from services.domain.errors import DatabaseUnavailable, PoisonShareExceeded, StopProcess
from services.domain.topics import INSPECTIONS
from services.results.settings import ResultsSettings
from services.results.subscriptions import Stopping, on_batch_of, subscribe
from services.wire.record import Record
from tests.unit.results.builders import frame, verdict, verdict_records
from tests.unit.results.conftest import Bench

GARBAGE = (("ce_id", b"\xff\xfe"), ("content-type", b"application/json"), ("none", None))


def raw(offset: int) -> Any:
    return ConsumerRecord(
        topic="loupe.inspections", partition=0, offset=offset, timestamp=5, timestamp_type=0, key=b"cam-1",
        value=b"\xff", checksum=None, serialized_key_size=5, serialized_value_size=1, headers=GARBAGE,
    )  # fmt: skip


@dataclass
class Committed:
    """Stands in for aiokafka's consumer; counts commits."""

    commits: int = 0
    error: Exception | None = None

    async def commit(self) -> None:
        if self.error:
            raise self.error
        self.commits += 1


@dataclass
class Ended:
    """Remembers what stopped the process."""

    errors: list[StopProcess] = field(default_factory=list)

    def stopping(self) -> Stopping:
        return Stopping(threading.Event(), self.errors.append)


def run(handle: Callable[[Sequence[Record]], None], stopping: Stopping, consumer: Committed) -> None:
    async def one_batch() -> None:
        message = KafkaAckableMessage(raw_message=(raw(0), raw(1)), body=[], consumer=consumer)
        await on_batch_of(handle, stopping)(message)

    asyncio.run(one_batch())


def nothing(records: Sequence[Record]) -> None:
    """Handle a batch."""


def failing(error: Exception) -> Callable[[Sequence[Record]], None]:
    def handle(records: Sequence[Record]) -> None:
        raise error

    return handle


def test_a_batch_is_committed_after_it_was_handled() -> None:
    consumer = Committed()
    handled: list[int] = []

    def handle(records: Sequence[Record]) -> None:
        assert consumer.commits == 0
        handled.extend(record.offset for record in records)

    run(handle, Ended().stopping(), consumer)
    assert handled == [0, 1]
    assert consumer.commits == 1


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (DatabaseUnavailable("Away, and the process is stopping."), False),
        (PoisonShareExceeded("Too much."), True),
        (RuntimeError("A fault of ours."), True),
    ],
)
def test_a_batch_that_failed_is_never_committed(error: Exception, stops: bool) -> None:
    consumer, ended = Committed(), Ended()
    run(failing(error), ended.stopping(), consumer)
    assert consumer.commits == 0
    assert bool(ended.errors) is stops


def test_while_stopping_nothing_is_handled_or_committed() -> None:
    consumer, stopping = Committed(), Ended().stopping()
    stopping.has_begun.set()
    run(failing(AssertionError("handled")), stopping, consumer)
    assert consumer.commits == 0


def test_a_commit_that_fails_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    ended = Ended()
    run(nothing, ended.stopping(), Committed(error=CommitFailedError()))
    assert "may come again" in caplog.text
    assert ended.errors == []


def test_headers_that_are_no_text_do_not_disturb() -> None:
    broker = KafkaBroker(apply_types=False)
    seen: list[Record] = []

    async def handler(message: KafkaMessage) -> None:
        seen.extend(records_of(message))

    # Kept in our own order: the broker's is that of a set.
    one, many = (
        broker.subscriber(name, batch=batch, parser=parse_without_headers, decoder=leave_whole)
        for name, batch in (("one", False), ("many", True))
    )
    one(handler)
    many(handler)

    async def feed() -> None:
        async with TestKafkaBroker(broker):
            await one.process_message(raw(7))
            await many.process_message((raw(8), raw(9)))

    asyncio.run(feed())
    assert [record.offset for record in seen] == [7, 8, 9]
    assert seen[0].headers == (("ce_id", b"\xff\xfe"), ("content-type", b"application/json"), ("none", b""))
    assert seen[0].timestamp_ms == 5


def test_each_topic_reaches_its_step(bench: Bench) -> None:
    broker, ended = KafkaBroker(apply_types=False), Ended()
    subscribe(broker, bench.pipeline, ResultsSettings(), ended.stopping())

    async def feed() -> None:
        async with TestKafkaBroker(broker):
            (record,) = verdict_records(verdict(frame(1)))
            await broker.publish_batch(record.value, topic=INSPECTIONS.name)

    asyncio.run(feed())
    assert ended.errors == []
    assert len(bench.broker.records("loupe.events")) == 1
