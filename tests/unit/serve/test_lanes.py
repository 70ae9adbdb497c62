"""Batches, order and bounds of what is in flight."""

from __future__ import annotations

from dataclasses import replace

from serve.judging import Item
from serve.lanes import Bounds, Lanes
from serve.units import MAX_BATCH_FRAMES
from services.domain.frame import ImageReference
from services.domain.hosting import Route
from services.wire.frame import decode_frame
from tests.unit.serve.fakes import frame_record

MIB = 1 << 20


def item(index: int, project: str = "plates", image: bytes = b"good") -> Item:
    record = frame_record(index, image)
    return Item(record, decode_frame(record), Route("*", project))


def lanes_with(count: int, bounds: Bounds | None = None) -> Lanes:
    lanes = Lanes(bounds or Bounds())
    items = [item(index) for index in range(count)]
    lanes.admit(one.record for one in items)
    for one in items:
        lanes.add(one)
    return lanes


def test_a_lonely_frame_does_not_wait_for_company() -> None:
    batch = lanes_with(1).next_batch()
    assert batch is not None
    assert len(batch.items) == 1


def test_batches_are_full_and_in_order_when_much_waits() -> None:
    lanes = lanes_with(40)
    batches = [lanes.next_batch() for _ in range(3)]
    sizes = [len(batch.items) for batch in batches if batch]
    assert sizes == [MAX_BATCH_FRAMES, MAX_BATCH_FRAMES, 40 - 2 * MAX_BATCH_FRAMES]
    offsets = [one.record.offset for batch in batches if batch for one in batch.items]
    assert offsets == list(range(40))


def test_a_batch_publishes_after_the_one_before_it() -> None:
    lanes = lanes_with(2 * MAX_BATCH_FRAMES)
    first, second = lanes.next_batch(), lanes.next_batch()
    assert first is not None
    assert second is not None
    assert first.before.is_set()
    assert not second.before.is_set()
    lanes.finish(first, is_done=True)
    assert second.before.is_set()


def test_calls_are_bounded_per_project_not_over_all() -> None:
    lanes = lanes_with(3 * MAX_BATCH_FRAMES, Bounds(calls_per_project=2))
    assert lanes.next_batch() is not None
    assert lanes.next_batch() is not None
    assert lanes.next_batch() is None
    lanes.add(item(0, "screws"))
    other = lanes.next_batch()
    assert other is not None
    assert other.project == "screws"


def test_room_is_bounded_in_frames() -> None:
    lanes = lanes_with(100, Bounds(frames=128))
    assert lanes.room() == 28


def test_more_than_fits_leaves_no_room() -> None:
    # A rebalance within the poll of a full stream may bring one record more.
    assert lanes_with(17, Bounds(frames=16)).room() == 0


def test_room_is_bounded_in_bytes_by_the_size_of_late_images() -> None:
    lanes = Lanes(Bounds(frames=128, size_bytes=64 * MIB))
    big = [item(index, image=b"x" * (10 * MIB)) for index in range(5)]
    lanes.admit(one.record for one in big)
    # 14 MiB are left, which holds one more of 10 MiB.
    assert lanes.room() == 1
    lanes.admit([item(5, image=b"x" * (20 * MIB)).record])
    assert lanes.room() == 0


def test_frames_that_come_back_stay_counted() -> None:
    lanes = lanes_with(10, Bounds(frames=16))
    batch = lanes.next_batch()
    assert batch is not None
    lanes.finish(batch, is_done=False)
    assert lanes.room() == 6
    for one in batch.items:
        lanes.add(one)
    again = lanes.next_batch()
    assert again is not None
    lanes.finish(again, is_done=True)
    assert lanes.room() == 16


def claim(index: int, size_bytes: int, project: str = "plates") -> Item:
    one = item(index, project, image=b"")
    reference = ImageReference("s3://bucket/key", "0" * 64, size_bytes)
    return replace(one, frame=replace(one.frame, dataref=reference))


def test_claim_checks_that_are_redeemed_at_once_are_bounded_in_bytes() -> None:
    lanes = Lanes(Bounds(size_bytes=64 * MIB))
    for index in range(6):
        lanes.add(claim(index, 20 * MIB))
    first = lanes.next_batch()
    assert first is not None
    assert len(first.items) == 3
    assert lanes.next_batch() is None
    lanes.finish(first, is_done=True)
    second = lanes.next_batch()
    assert second is not None
    assert [one.record.offset for one in second.items] == [3, 4, 5]


def test_a_claim_above_the_bound_goes_alone_and_holds_up_no_other_project() -> None:
    lanes = Lanes(Bounds(size_bytes=64 * MIB))
    for one in (claim(0, 100 * MIB), claim(1, 100 * MIB), item(2), item(3, "screws")):
        lanes.add(one)
    first, other = lanes.next_batch(), lanes.next_batch()
    assert first is not None
    assert other is not None
    assert ([one.record.offset for one in first.items], other.project) == ([0], "screws")
    assert lanes.next_batch() is None
    lanes.finish(first, is_done=True)
    second = lanes.next_batch()
    assert second is not None
    assert [one.record.offset for one in second.items] == [1, 2]
