"""Ends of frames as records, and the guard against floods of poison."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serve.judging import End, Item, Refused
from serve.publishing import PoisonWatch, Publisher
from services.adapters.broker.memory import MemoryBroker, MemoryDelivery, MemoryProducer
from services.adapters.clock import FakeClock
from services.domain.errors import (
    BrokerUnavailable,
    HashMismatch,
    ImageTooLarge,
    PoisonShareExceeded,
    UnreadableImage,
)
from services.domain.hosting import Route
from services.domain.ledger import EntryKind, ShedReason
from services.domain.topics import FRAMES_DLQ, INSPECTIONS, LEDGER, RECORD_LIMIT_BYTES
from services.wire.dead_letter import decode_dead_letter
from services.wire.frame import decode_frame
from services.wire.inspection import decode_inspection
from services.wire.ledger import decode_ledger_entry
from services.wire.record import OutRecord
from tests.unit.serve.fakes import frame_record, verdict


def item(index: int, image: bytes = b"good", camera: str = "cam-1") -> Item:
    record = frame_record(index, image, camera=camera)
    return Item(record, decode_frame(record), Route("*", "plates"))


def publisher(broker: MemoryBroker) -> Publisher:
    return Publisher(MemoryProducer(broker), FakeClock(), lambda _: True)


def test_verdicts_go_out_in_order_with_their_wait() -> None:
    broker = MemoryBroker(partitions=1)
    batch = [item(index) for index in range(5)]
    publisher(broker).publish(batch, [verdict(one.frame) for one in batch], 12.5)
    found = [decode_inspection(record.value) for record in broker.records(INSPECTIONS.name)]
    assert [one.frame_id for one in found] == [one.frame.frame_id for one in batch]
    assert found[0].stage_ms["produce"] == pytest.approx(12.5)


def test_a_dead_letter_keeps_the_original() -> None:
    broker = MemoryBroker()
    one = item(7, b"\x00broken")
    publisher(broker).publish([one], [Refused(UnreadableImage("It is damaged."), tries=3)], 0)
    (record,) = broker.records(FRAMES_DLQ.name)
    letter = decode_dead_letter(record)
    assert letter.original == one.record
    assert (letter.cause, letter.reason, letter.tries) == ("UnreadableImage", "It is damaged.", 3)
    assert (letter.frame_id, letter.camera) == (str(one.frame.frame_id), "cam-1")


class FullProducer(MemoryProducer):
    """Refuses, as Kafka does, what is too large together with its headers."""

    def send(self, record: OutRecord) -> MemoryDelivery:
        headers_bytes = sum(len(name) + len(value) for name, value in record.headers)
        return super().send(
            OutRecord(record.topic, record.key, record.value + b"x" * headers_bytes, record.headers)
        )


def test_a_dead_letter_too_large_for_a_record_goes_without_bytes_and_says_so() -> None:
    broker = MemoryBroker()
    one = item(0, b"x" * (RECORD_LIMIT_BYTES - 100))
    out = Publisher(FullProducer(broker), FakeClock(), lambda _: True)
    out.publish([one], [Refused(UnreadableImage("It is damaged."))], 0)
    (record,) = broker.records(FRAMES_DLQ.name)
    assert decode_dead_letter(record).cause == "UnreadableImage"
    assert b"too large" in dict(record.headers)["dlq_bytes"]


def test_a_dead_letter_whose_headers_are_too_large_goes_with_ours_only() -> None:
    broker = MemoryBroker()
    plain = item(0, b"")
    one = replace(plain, record=replace(plain.record, headers=(("x", b"y" * (RECORD_LIMIT_BYTES - 100)),)))
    out = Publisher(FullProducer(broker), FakeClock(), lambda _: True)
    out.publish([one], [Refused(UnreadableImage("It is empty."))], 0)
    (record,) = broker.records(FRAMES_DLQ.name)
    assert decode_dead_letter(record).position == one.record.position


class StrictProducer(MemoryProducer):
    """Refuses everything for its size."""

    def send(self, record: OutRecord) -> MemoryDelivery:
        raise ImageTooLarge(f"{len(record.value)} bytes are too much.")


def test_a_broker_that_takes_no_record_at_all_stops_the_stream_instead_of_being_asked_for_ever() -> None:
    one = item(0)
    with pytest.raises(ImageTooLarge):
        Publisher(StrictProducer(MemoryBroker()), FakeClock(), lambda _: True).publish(
            [one], [verdict(one.frame)], 0
        )


def test_headers_that_are_called_as_ours_cannot_mislead() -> None:
    broker = MemoryBroker()
    plain = item(7)
    one = replace(plain, record=replace(plain.record, headers=(("dlq_offset", b"99"), ("dlq_cause", b"no"))))
    publisher(broker).publish([one], [Refused(UnreadableImage("It is damaged."))], 0)
    letter = decode_dead_letter(broker.records(FRAMES_DLQ.name)[0])
    assert (letter.position.offset, letter.cause) == (7, "UnreadableImage")


def test_shed_frames_are_declared_together_by_camera_and_reason() -> None:
    broker = MemoryBroker(partitions=1)
    batch = [item(0), item(1, camera="cam-2"), item(2)]
    publisher(broker).publish(batch, [ShedReason.NO_ROUTE] * 3, 0)
    entries = [decode_ledger_entry(record.value) for record in broker.records(LEDGER.name)]
    assert [(entry.camera, entry.offsets) for entry in entries] == [("cam-1", (0, 2)), ("cam-2", (1,))]
    assert entries[0].frame_ids == (batch[0].frame.frame_id, batch[2].frame.frame_id)
    assert {(entry.kind, entry.reason) for entry in entries} == {(EntryKind.SHED, ShedReason.NO_ROUTE)}


def test_a_declaration_repeated_has_the_same_id() -> None:
    broker = MemoryBroker(partitions=1)
    for _ in range(2):
        publisher(broker).publish([item(0)], [ShedReason.DEADLINE], 0)
    first, second = (decode_ledger_entry(record.value) for record in broker.records(LEDGER.name))
    assert first.entry_id == second.entry_id


class FlakyProducer(MemoryProducer):
    """Gives up on the first flushes."""

    failures = 2

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002 - the Protocol's
        self.failures -= 1
        if self.failures >= 0:
            raise BrokerUnavailable("away")


def test_a_batch_is_published_again_until_it_is_acknowledged() -> None:
    broker = MemoryBroker()
    one = item(0)
    Publisher(FlakyProducer(broker), FakeClock(), lambda _: True).publish([one], [verdict(one.frame)], 0)
    assert len(broker.records(INSPECTIONS.name)) == 3


def test_publishing_ends_with_the_process() -> None:
    one = item(0)
    out = Publisher(FlakyProducer(MemoryBroker()), FakeClock(), lambda _: False)
    with pytest.raises(BrokerUnavailable):
        out.publish([one], [verdict(one.frame)], 0)


REFUSED = Refused(UnreadableImage("bad"))


def note(watch: PoisonWatch, *ends: End) -> None:
    watch.note([item(offset) for offset in range(len(ends))], ends)


def test_a_burst_of_bad_images_does_not_stop_the_stream() -> None:
    watch = PoisonWatch(window=1000, least=200, share_ratio=0.5)
    for _ in range(199):
        note(watch, REFUSED)


def test_nor_do_many_among_more_good_ones() -> None:
    watch = PoisonWatch(window=1000, least=200, share_ratio=0.5)
    for index in range(3000):
        note(watch, REFUSED if index % 2 else ShedReason.DEADLINE)


def test_a_flood_of_bad_images_stops_it_and_the_cause_is_named_with_an_example() -> None:
    watch = PoisonWatch(window=1000, least=200, share_ratio=0.5)
    note(watch, *[ShedReason.DEADLINE] * 150, *[Refused(HashMismatch("other"))] * 60)
    note(watch, *[REFUSED] * 139)
    with pytest.raises(PoisonShareExceeded, match="200 of the last 350") as told:
        note(watch, REFUSED)
    assert "Most often: UnreadableImage (140), for example loupe.frames:0:0;" in told.value.message
    assert "`loupe dlq list --cause UnreadableImage`" in told.value.message
