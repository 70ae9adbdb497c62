"""The ingester on a broker in memory and a clock that tests turn."""

from __future__ import annotations

from datetime import timedelta
from threading import Event

import pytest

from services.adapters.broker import Producer
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.adapters.object_store.store import memory_store
from services.domain.errors import BadRequest
from services.domain.frame import Frame, ingester_frame_id
from services.domain.ledger import EntryKind, LedgerEntry, ShedReason, ids_of_ranges
from services.domain.topics import FRAMES, INLINE_LIMIT_BYTES, LEDGER
from services.ingest.in_flight import Limits
from services.ingest.pipeline import CameraSpec, Ingester, Progress, run_cameras
from services.ingest.sources import Shot, Source, Unreadable
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from tests.unit.ingest.stage import FlakyProducer, ListSource, TurningStop, shot


def film(
    source: Source, producer: Producer, clock: FakeClock, *, fps: float = 10.0, count: int | None = None
) -> Progress:
    spec = CameraSpec("cam-1", source, fps, count=count)
    ingester = Ingester(spec, producer, clock, limits=Limits(stop_timeout_s=5))
    return ingester.run(TurningStop(clock, lambda: ingester._in_flight.wait_until_empty(5)))


def frames_of(broker: MemoryBroker) -> list[Frame]:
    return sorted((decode_frame(r) for r in broker.records(FRAMES.name)), key=lambda f: f.sequence or 0)


def entries_of(broker: MemoryBroker, kind: EntryKind) -> list[LedgerEntry]:
    entries = [decode_ledger_entry(record.value) for record in broker.records(LEDGER.name)]
    return [entry for entry in entries if entry.kind is kind]


def declared(entries: list[LedgerEntry]) -> list[int]:
    return [n for e in entries for span in e.ranges for n in range(span.first, span.last + 1)]


def test_frames_carry_a_dense_sequence_one_epoch_and_the_bytes_as_they_are() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    ended = film(ListSource([shot(n) for n in range(7)]), MemoryProducer(broker), clock)
    frames = frames_of(broker)
    assert [frame.sequence for frame in frames] == list(range(7))
    assert {frame.epoch for frame in frames} == {ended.epoch}
    assert [frame.image for frame in frames] == [f"image {n}".encode() for n in range(7)]
    assert [frame.frame_id for frame in frames] == [
        ingester_frame_id("cam-1", ended.epoch, n) for n in range(7)
    ]
    assert (ended.captured, ended.acknowledged, ended.shed, ended.is_declared) == (7, 7, 0, True)


def test_capture_times_follow_the_rate_without_drift() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    film(ListSource([shot(n) for n in range(31)]), MemoryProducer(broker), clock, fps=30)
    times = [frame.captured_at for frame in frames_of(broker)]
    # 30 intervals of 1/30 s; the fake clock counts whole microseconds.
    assert times[-1] - times[0] == pytest.approx(timedelta(seconds=1), abs=timedelta(milliseconds=1))


def test_captured_frames_are_declared_about_every_second_and_at_the_end() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    film(ListSource([shot(n) for n in range(35)]), MemoryProducer(broker), clock)
    entries = entries_of(broker, EntryKind.CAPTURED)
    assert sorted(declared(entries)) == list(range(35))
    # 3.4 s at 10 frames/s: three entries under way and one at the end.
    assert 3 <= len(entries) <= 5
    assert len({entry.entry_id for entry in entries}) == len(entries)


def test_an_unreadable_image_takes_a_sequence_and_is_declared_shed() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    source = ListSource([shot(0), Unreadable("1.jpg", "Permission denied"), shot(2)])
    ended = film(source, MemoryProducer(broker), clock)
    assert [frame.sequence for frame in frames_of(broker)] == [0, 2]
    (entry,) = entries_of(broker, EntryKind.SHED)
    assert (declared([entry]), entry.reason) == ([1], ShedReason.UNREADABLE_SOURCE)
    assert sorted(declared(entries_of(broker, EntryKind.CAPTURED))) == [0, 1, 2]
    assert ended.shed == 1


def test_frames_that_the_producer_gives_up_or_refuses_are_declared_shed() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    ended = film(ListSource([shot(n) for n in range(6)]), FlakyProducer(broker, {1, 2}, {4}), clock)
    shed = entries_of(broker, EntryKind.SHED)
    assert sorted(declared(shed)) == [1, 2, 4]
    assert {entry.reason for entry in shed} == {ShedReason.BROKER_UNAVAILABLE}
    ids = {i for entry in shed for i in ids_of_ranges("cam-1", ended.epoch, entry.ranges)}
    assert ids.isdisjoint({frame.frame_id for frame in frames_of(broker)})
    assert (ended.captured, ended.acknowledged, ended.shed, ended.is_declared) == (6, 3, 3, True)


def test_a_ledger_entry_that_was_not_taken_is_sent_again() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    # One frame is record 0; its ledger entry is record 1, given up, and 2, refused; 3 arrives.
    ended = film(ListSource([shot(0)]), FlakyProducer(broker, {1}, {2}), clock)
    assert declared(entries_of(broker, EntryKind.CAPTURED)) == [0]
    assert ended.is_declared


def test_a_stop_ends_the_run_and_declares_what_was_captured() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    ended = film(ListSource([shot(n) for n in range(9)], stop_after=4), MemoryProducer(broker), clock)
    assert len(frames_of(broker)) == ended.captured == 4
    assert sorted(declared(entries_of(broker, EntryKind.CAPTURED))) == [0, 1, 2, 3]


def test_the_count_ends_the_run_and_idle_sources_cost_no_sequence() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    ended = film(ListSource([None, shot(0), None, shot(1), shot(2)]), MemoryProducer(broker), clock, count=2)
    assert ended.captured == len(frames_of(broker)) == 2


def test_an_image_above_the_inline_limit_goes_by_claim_check() -> None:
    broker, clock, store = MemoryBroker(), FakeClock(), memory_store()
    large = Shot(bytes(INLINE_LIMIT_BYTES + 1), "image/bmp", "large.bmp")
    Ingester(CameraSpec("cam-1", ListSource([large]), 10), MemoryProducer(broker), clock, store=store).run(
        TurningStop(clock)
    )
    (frame,) = frames_of(broker)
    assert frame.image == b""
    assert frame.dataref is not None
    assert store.get_image(frame.dataref) == large.image


def test_without_a_store_a_large_image_is_declared_shed() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    large = Shot(bytes(INLINE_LIMIT_BYTES + 1), "image/bmp", "large.bmp")
    film(ListSource([large, shot(1)]), MemoryProducer(broker), clock)
    (entry,) = entries_of(broker, EntryKind.SHED)
    assert (declared([entry]), entry.reason) == ([0], ShedReason.STORE_UNAVAILABLE)
    assert [frame.sequence for frame in frames_of(broker)] == [1]


def test_two_runs_of_a_camera_never_share_ids_even_when_the_clock_jumps_back() -> None:
    broker, clock = MemoryBroker(), FakeClock()
    film(ListSource([shot(0)]), MemoryProducer(broker), clock)
    clock.jump(-0.5)
    film(ListSource([shot(0)]), MemoryProducer(broker), clock)
    assert len({frame.frame_id for frame in frames_of(broker)}) == 2


def test_progress_is_told_while_running() -> None:
    told: list[Progress] = []
    broker, clock = MemoryBroker(), FakeClock()
    spec = CameraSpec("cam-1", ListSource([shot(n) for n in range(21)]), 10)
    Ingester(spec, MemoryProducer(broker), clock).run(TurningStop(clock), told.append)
    assert [p.captured for p in told] == sorted(p.captured for p in told)
    assert len(told) > 5
    assert told[-1].acknowledged == 21
    assert told[-2].fps == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("camera", "fps", "count"), [("", 5, None), ("a\nb", 5, None), ("cam", 0, None), ("cam", -1, 2),
                                 ("cam", float("nan"), 1), ("cam", 1e6, None), ("cam", 5, 0)],
)  # fmt: skip
def test_a_camera_that_cannot_be_is_refused(camera: str, fps: float, count: int | None) -> None:
    with pytest.raises(BadRequest):
        CameraSpec(camera, ListSource([]), fps, count=count)


def test_two_cameras_of_one_id_are_refused_before_anything_is_sent() -> None:
    spec = CameraSpec("cam-1", ListSource([]), 5)
    with pytest.raises(BadRequest, match="same id"):
        run_cameras([spec, spec], "127.0.0.1:1", Event())
