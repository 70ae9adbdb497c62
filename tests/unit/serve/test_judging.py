"""From a batch to an end for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from serve.judging import BATCH_TRIES, FRAME_TRIES, End, Item, Judge, Refused
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectEntry, ObjectStore, memory_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.errors import FrameCrashesModel, HashMismatch, ModelUnavailable
from services.domain.frame import Frame, ImageReference
from services.domain.hosting import Route, RouteMode
from services.domain.inspection import STAGES, Inspection, Role
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.wire.frame import decode_frame
from tests.unit.serve.fakes import ANOMALOUS, AT, BAD, CRASHES, FakeUnits, frame_record

ROUTE = Route("*", "plates")


class World:
    """A judge and what it works with; pauses turn the clock."""

    def __init__(self, units: FakeUnits | None = None) -> None:
        self.units = units or FakeUnits()
        self.store = memory_store()
        self.clock = FakeClock()
        self.pauses: list[float] = []
        self.patience = 50
        self.judge = Judge(self.units, self.store, self.clock, self.pause)

    def pause(self, project: str, seconds: float) -> bool:  # noqa: ARG002 - what the judge calls
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        return len(self.pauses) < self.patience


def item(index: int, image: bytes = b"good", route: Route = ROUTE) -> Item:
    record = frame_record(index, image)
    return Item(record, decode_frame(record), route)


def items(*images: bytes) -> list[Item]:
    return [item(index, image) for index, image in enumerate(images)]


def kinds(ends: Sequence[End]) -> list[str]:
    return [end.error.cause if isinstance(end, Refused) else type(end).__name__ for end in ends]


def test_each_frame_gets_its_end_in_order() -> None:
    ends = World().judge.judge(items(b"good", BAD, ANOMALOUS))
    assert kinds(ends) == ["Inspection", "UnreadableImage", "Inspection"]
    assert isinstance(ends[2], Inspection)
    assert ends[2].is_anomalous


@pytest.mark.parametrize("failures", [1, 10, 30])
def test_waits_for_units_however_long_they_are_away(failures: int) -> None:
    left = [failures]

    def away(project: str, frames: Sequence[Frame]) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise ModelUnavailable("loading")

    world = World(FakeUnits(away))
    ends = world.judge.judge(items(b"good", b"good"))
    assert kinds(ends) == ["Inspection"] * 2
    assert len(world.pauses) == failures


def test_a_frame_that_crashes_the_model_is_found_in_its_batch_and_refused() -> None:
    world = World()
    ends = world.judge.judge(items(b"good", CRASHES, b"good", b"good"))
    assert kinds(ends) == ["Inspection", "FrameCrashesModel", "Inspection", "Inspection"]
    refused = ends[1]
    assert isinstance(refused, Refused)
    assert refused.tries == FRAME_TRIES
    # The whole batch first, then every frame alone; the three good ones need one call each.
    assert [count for _, count in world.units.calls] == [4] * BATCH_TRIES + [1] * (3 + FRAME_TRIES)


def test_one_crash_is_chance_and_the_batch_is_tried_again_whole() -> None:
    left = [1]

    def crash_once(project: str, frames: Sequence[Frame]) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise FrameCrashesModel("killed from outside")

    world = World(FakeUnits(crash_once))
    assert kinds(world.judge.judge(items(b"good", b"good"))) == ["Inspection"] * 2
    assert [count for _, count in world.units.calls] == [2, 2]


def test_a_server_that_is_away_never_counts_against_a_frame() -> None:
    calls = [0]

    def away_between_crashes(project: str, frames: Sequence[Frame]) -> None:
        calls[0] += 1
        if calls[0] <= 20:
            raise ModelUnavailable("healing")

    world = World(FakeUnits(away_between_crashes))
    assert kinds(world.judge.judge(items(b"good"))) == ["Inspection"]


def test_gives_the_frames_back_when_there_is_to_be_no_next_try() -> None:
    def away(project: str, frames: Sequence[Frame]) -> None:
        raise ModelUnavailable("gone")

    world = World(FakeUnits(away))
    world.patience = 3
    with pytest.raises(ModelUnavailable):
        world.judge.judge(items(b"good"))


def test_a_deadline_beyond_all_times_is_none() -> None:
    one = item(0, route=replace(ROUTE, deadline_s=1e300))
    assert isinstance(World().judge.judge([one])[0], Inspection)


def test_late_frames_are_shed_and_not_judged() -> None:
    world = World()
    route = replace(ROUTE, deadline_s=5.0)
    early, late = item(0, route=route), item(1, route=route)
    now = world.clock.now()
    early = replace(early, frame=replace(early.frame, captured_at=now - timedelta(seconds=4)))
    late = replace(late, frame=replace(late.frame, captured_at=now - timedelta(seconds=6)))
    ends = world.judge.judge([late, early])
    assert ends[0] is ShedReason.DEADLINE
    assert isinstance(ends[1], Inspection)
    assert world.units.calls == [("plates", 1)]


def test_a_clock_in_the_future_makes_nobody_late_and_no_stage_negative() -> None:
    world = World()
    one = item(0, route=replace(ROUTE, deadline_s=5.0))
    one = replace(one, frame=replace(one.frame, captured_at=world.clock.now() + timedelta(days=900)))
    (end,) = world.judge.judge([one])
    assert isinstance(end, Inspection)
    assert min(end.stage_ms.values()) >= 0


def claimed(index: int, store: ObjectStore, image: bytes, *, sha256: str | None = None) -> Item:
    reference = store.put_image(FRAMES_BUCKET, image)
    one = item(index, b"")
    if sha256 is not None:
        reference = replace(reference, sha256=sha256)
    return replace(one, frame=replace(one.frame, dataref=reference))


def test_a_claim_check_is_redeemed() -> None:
    world = World()
    one = claimed(0, world.store, ANOMALOUS)
    (end,) = world.judge.judge([one])
    assert isinstance(end, Inspection)
    assert end.is_anomalous


def test_a_claim_check_with_other_bytes_is_refused_and_the_others_go_on() -> None:
    world = World()
    ends = world.judge.judge([claimed(0, world.store, b"good", sha256="0" * 64), item(1)])
    assert kinds(ends) == [HashMismatch.__name__, "Inspection"]


def test_a_claim_check_for_nothing_is_refused() -> None:
    reference = ImageReference(f"s3://{FRAMES_BUCKET}/nothing", "0" * 64, 10)
    one = item(0, b"")
    ends = World().judge.judge([replace(one, frame=replace(one.frame, dataref=reference))])
    assert kinds(ends) == ["UnknownObject"]


class LargeStore(ObjectStore):
    """Says that its objects have more bytes than are read; breaks when they are read."""

    def __init__(self) -> None:
        super().__init__(None)

    def entry(self, uri: str) -> ObjectEntry:
        return ObjectEntry(uri, CLAIM_LIMIT_BYTES + 1, AT, "")


@pytest.mark.parametrize("claimed_bytes", [0, 10, 1 << 40])
def test_more_bytes_than_the_limit_are_not_read_whatever_the_claim_says(claimed_bytes: int) -> None:
    world = World()
    reference = ImageReference(f"s3://{FRAMES_BUCKET}/huge", "0" * 64, claimed_bytes)
    one = item(0, b"")
    judge = Judge(world.units, LargeStore(), world.clock, world.pause)
    (end,) = judge.judge([replace(one, frame=replace(one.frame, dataref=reference))])
    assert isinstance(end, Refused)
    assert end.error.cause == "ImageTooLarge"
    assert end.error.details["limit_bytes"] == CLAIM_LIMIT_BYTES


def test_a_claim_of_another_size_is_refused_unread() -> None:
    world = World()
    one = claimed(0, world.store, b"good")
    assert one.frame.dataref is not None
    other = replace(one.frame.dataref, size_bytes=3)
    ends = world.judge.judge([replace(one, frame=replace(one.frame, dataref=other))])
    assert kinds(ends) == ["HashMismatch"]


@pytest.mark.parametrize(("told", "counted"), [(7, 7), (0, CLAIM_LIMIT_BYTES), (1 << 40, CLAIM_LIMIT_BYTES)])
def test_a_claim_counts_as_large_as_it_may_get(told: int, counted: int) -> None:
    one = item(0, b"")
    assert one.claimed_bytes == 0
    reference = ImageReference("s3://bucket/key", "0" * 64, told)
    assert replace(one, frame=replace(one.frame, dataref=reference)).claimed_bytes == counted


def test_a_shadows_verdict_is_no_end_and_is_told_apart_by_its_project() -> None:
    (end,) = World().judge.judge([item(0, route=Route("*", "plates", RouteMode.SHADOW))])
    assert isinstance(end, Inspection)
    assert (end.role, end.run, end.position) == (Role.SHADOW, "plates", None)
    (counting,) = World().judge.judge([item(0, route=Route("*", "plates", RouteMode.CANARY))])
    assert isinstance(counting, Inspection)
    assert (counting.role, counting.run, counting.position) == (Role.CANARY, "", item(0).frame.position)


def test_stages_are_those_of_the_domain_and_the_role_is_the_routes() -> None:
    (end,) = World().judge.judge([item(0, route=replace(ROUTE, mode=RouteMode.SHADOW))])
    assert isinstance(end, Inspection)
    assert end.role is Role.SHADOW
    assert set(end.stage_ms) <= set(STAGES)
    assert {"publish", "queue", "handle", "decode", "infer", "score"} <= set(end.stage_ms)
