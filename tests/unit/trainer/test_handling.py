"""One record at a time: retry, reject, stop, and acknowledge last."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord
from faststream.kafka.message import KafkaMessage

from services.adapters.broker.memory import MemoryBroker, MemoryDelivery, MemoryProducer
from services.adapters.broker.patience import Patience
from services.adapters.clock import FakeClock
from services.adapters.metrics import Metrics
from services.domain.errors import (
    CorruptModel,
    ImageTooLarge,
    LoupeError,
    MalformedRecord,
    PoisonShareExceeded,
    StopProcess,
    StoreUnavailable,
)
from services.domain.topics import RECORD_LIMIT_BYTES
from services.trainer.handling import MAX_TRIES, RecordHandler
from services.wire.dead_letter import decode_dead_letter
from services.wire.record import OutRecord, Record

RECORD = Record("loupe.labels", 0, 5, b"plates", b"value", (("h", b"\xff"),), 1000)


class ScriptedStep:
    """Raises what the script says, call by call, then succeeds."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.calls = 0
        self.given_up: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def handle(self, record: Record) -> None:
        self.calls += 1
        self.before()
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error

    def give_up(self, record: Record, error: LoupeError) -> None:
        self.given_up.append(error.message)


class Told:
    """A Kafka message that remembers whether it was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged = 0

    async def commit(self) -> None:
        self.acknowledged += 1

    def seek(self, partition: object, offset: int) -> None:
        raise AssertionError("a record is never rewound")


def handler_of(step: ScriptedStep, broker: MemoryBroker, stopped: list[StopProcess]) -> RecordHandler:
    return RecordHandler(
        step, MemoryProducer(broker), Patience(), Metrics(), FakeClock(), max_poison_ratio=0.5,
        on_stop=stopped.append,
    )  # fmt: skip


def deliver(handler: RecordHandler) -> int:
    """Give the handler a message as FastStream does; return how often it was acknowledged."""
    from faststream.kafka.message import KafkaAckableMessage

    told = Told()
    raw = ConsumerRecord("loupe.labels", 0, 5, 1000, 0, b"plates", b"value", None, 6, 5, (("h", b"\xff"),))
    message: KafkaMessage = KafkaAckableMessage(raw_message=raw, body=b"value", consumer=told)
    asyncio.run(handler(message))
    return told.acknowledged


def test_a_handled_record_is_acknowledged_once() -> None:
    step = ScriptedStep()
    assert deliver(handler_of(step, MemoryBroker(), [])) == 1
    assert step.calls == 1


def test_a_neighbour_that_is_away_is_waited_for() -> None:
    step = ScriptedStep(StoreUnavailable("away"), StoreUnavailable("away"))
    broker = MemoryBroker()
    assert deliver(handler_of(step, broker, [])) == 1
    assert step.calls == 3
    assert broker.records("loupe.labels.dlq") == []


def test_a_refused_record_is_quarantined_as_it_came_and_then_acknowledged() -> None:
    step, broker = ScriptedStep(MalformedRecord("no label")), MemoryBroker()
    assert deliver(handler_of(step, broker, [])) == 1
    (found,) = broker.records("loupe.labels.dlq")
    letter = decode_dead_letter(found)
    assert (letter.cause, letter.reason, letter.tries) == ("MalformedRecord", "no label", 1)
    assert (letter.original.value, letter.original.headers, letter.position.offset) == (
        RECORD.value, RECORD.headers, 5,
    )  # fmt: skip
    assert step.given_up == ["no label"]


class FullProducer(MemoryProducer):
    """Refuses, as Kafka does, what is too large together with its headers."""

    def send(self, record: OutRecord) -> MemoryDelivery:
        size_bytes = len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
        if size_bytes > RECORD_LIMIT_BYTES:
            raise ImageTooLarge("Too large.", size_bytes=size_bytes)
        return super().send(record)


def test_a_refused_record_that_leaves_no_room_for_its_cause_does_not_stop_the_topic() -> None:
    step, broker = ScriptedStep(MalformedRecord("no label")), MemoryBroker()
    stopped: list[StopProcess] = []
    handler = RecordHandler(
        step, FullProducer(broker), Patience(), Metrics(), FakeClock(), max_poison_ratio=0.5,
        on_stop=stopped.append,
    )  # fmt: skip
    handler.handle(replace(RECORD, value=b"x" * (RECORD_LIMIT_BYTES - 100)))
    letter = decode_dead_letter(broker.records("loupe.labels.dlq")[0])
    assert (letter.cause, letter.is_whole, letter.position.offset) == ("MalformedRecord", False, 5)


def test_an_unforeseen_error_is_tried_three_times_and_then_quarantined() -> None:
    step, broker = ScriptedStep(*[ZeroDivisionError("oops")] * 5), MemoryBroker()
    assert deliver(handler_of(step, broker, [])) == 1
    letter = decode_dead_letter(broker.records("loupe.labels.dlq")[0])
    assert (step.calls, letter.tries) == (MAX_TRIES, MAX_TRIES)
    assert letter.reason == "Unforeseen ZeroDivisionError: oops"


def test_an_error_of_the_stop_branch_stops_without_acknowledging() -> None:
    stopped: list[StopProcess] = []
    step = ScriptedStep(CorruptModel("broken"))
    handler = handler_of(step, MemoryBroker(), stopped)
    assert deliver(handler) == 0
    assert [error.message for error in stopped] == ["broken"]
    assert deliver(handler) == 0  # nor is any later record handled
    assert step.calls == 1


def test_a_flood_of_refusals_stops_the_process() -> None:
    step = ScriptedStep(*[MalformedRecord("no label")] * 50)
    stopped: list[StopProcess] = []
    handler = handler_of(step, MemoryBroker(), stopped)
    acknowledged = sum(deliver(handler) for _ in range(50))
    assert isinstance(stopped[0], PoisonShareExceeded)
    # 20 records are the least that a share is taken of; the last of them stops the process.
    assert acknowledged == 19


def test_a_stopping_process_leaves_the_record_for_the_next() -> None:
    step = ScriptedStep(*[StoreUnavailable("away")] * 99)
    handler = handler_of(step, MemoryBroker(), [])
    patience = handler._patience
    step.before = patience.is_stopping.set
    assert deliver(handler) == 0


@pytest.mark.parametrize("error", [MalformedRecord("no label"), None])
def test_the_dead_letter_is_counted(error: Exception | None) -> None:
    metrics = Metrics()
    handler = RecordHandler(
        ScriptedStep(error), MemoryProducer(MemoryBroker()), Patience(), metrics, FakeClock(),
        max_poison_ratio=0.5, on_stop=lambda _: None,
    )  # fmt: skip
    handler.handle(RECORD)
    assert (b'cause="MalformedRecord",topic="loupe.labels"} 1.0' in metrics.page()) is (error is not None)
