"""The whole stream over a broker in memory: nothing is lost, whatever dies when."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from serve.lanes import Bounds
from serve.stream import GROUP, Outside, StreamCore, StreamLimits
from services.adapters.broker import Partition
from services.adapters.broker.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from services.adapters.clock import SystemClock
from services.domain.errors import BrokerUnavailable, ModelUnavailable, PoisonShareExceeded
from services.domain.frame import Frame
from services.domain.hosting import Route, RouteTable
from services.domain.topics import FRAMES
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.unit.serve.fakes import (
    ANOMALOUS,
    BAD,
    CRASHES,
    FakeUnits,
    Fate,
    MortalConsumer,
    MortalProducer,
)
from tests.unit.serve.plant import ROUTING, Plant


def test_every_frame_ends_once_and_its_offset_is_committed() -> None:
    plant = Plant()
    with plant.running():
        good = plant.publish(*[b"good"] * 50, *[ANOMALOUS] * 10)
        bad = plant.publish(*[BAD] * 5, camera="cam-2")
        plant.wait_for_all(good + bad)
    assert Counter(plant.judged()) == Counter(good)
    assert Counter(plant.quarantined()) == Counter(bad)


def test_verdicts_of_a_camera_are_in_its_order_whichever_batch_is_faster() -> None:
    calls = threading.Semaphore(0)

    def first_is_slowest(project: str, frames: Sequence[Frame]) -> None:
        if frames[0].sequence == 0:
            calls.acquire(timeout=10)
        else:
            calls.release()

    plant = Plant(units=FakeUnits(first_is_slowest))
    ids = plant.publish(*[b"good"] * 64)
    with plant.running():
        plant.wait_for_all(ids)
    assert plant.judged() == ids


def test_frames_published_before_the_first_member_are_judged() -> None:
    plant = Plant()
    ids = plant.publish(b"good")
    with plant.running():
        plant.wait_for_all(ids)


def test_frames_wait_while_nothing_is_hosted_and_are_judged_once_something_is() -> None:
    plant = Plant()
    ids = plant.publish(*[b"good"] * 20)
    with plant.running(routing=RouteTable()) as core:
        poll_until(lambda: core._unrouted, deadline_s=10)
        assert plant.ended() == set()
        core.follow(ROUTING)
        plant.wait_for_all(ids)
    assert plant.shed() == []


def test_waiting_for_a_host_takes_bounded_memory() -> None:
    plant = Plant()
    plant.publish(*[b"good"] * 100)
    core = plant.core(StreamLimits(Bounds(frames=16)))
    with plant.running(core, RouteTable()):
        poll_until(lambda: core._is_paused, deadline_s=10)
        assert len(core._unrouted) <= 17  # one more may come with the poll that follows the pause


def test_a_frame_that_nobody_is_to_judge_is_declared_shed() -> None:
    plant = Plant()
    with plant.running(routing=RouteTable([Route("line-*", "plates")], ["plates"])):
        kept = plant.publish(b"good", camera="line-7")
        lost = plant.publish(b"good", b"good", camera="door")
        lost += plant.publish(b"good", camera="line-7", project="not-hosted")
        plant.wait_for_all(kept + lost)
    assert plant.judged() == kept
    assert sorted(plant.shed()) == sorted(lost)


def test_a_project_that_is_no_longer_hosted_gives_its_frames_back() -> None:
    def gone(project: str, frames: Sequence[Frame]) -> None:
        if project == "plates":
            raise ModelUnavailable("no such application")

    plant = Plant(units=FakeUnits(gone))
    ids = plant.publish(*[b"good"] * 30)
    with plant.running() as core:
        poll_until(lambda: plant.units.calls, deadline_s=10)
        core.follow(RouteTable([Route("*", "screws")], ["screws"]))
        plant.wait_for_all(ids)
    assert Counter(plant.judged()) == Counter(ids)


def test_frames_of_equal_id_are_both_judged_and_told_apart_by_the_reader() -> None:
    plant = Plant()
    record = OutRecord(FRAMES.name, b"cam", b"good", (("ce_id", b"1"), ("ce_source", b"cam")))
    producer = MemoryProducer(plant.broker)
    producer.send(record)
    producer.send(record)
    with plant.running():
        poll_until(lambda: len(plant.judged()) == 2, deadline_s=10)
    assert len(set(plant.judged())) == 1


@pytest.mark.parametrize(
    "headers",
    [
        (("ce_time", b"\xff\xfe"), ("ce_sequence", b"-1")),
        (("ce_id", b"x" * 100_000),),
        (("ce_loupeproject", b"\x00"), ("traceparent", b"not one")),
        (("ce_traceparent", b"00-zz"), ("ce_subject", b"%00%0a")),
        (("", b""), ("ce_", b""), ("ce_source", b"%ff%00")),
        (("ce_time", b"9999-12-31T23:59:59Z"),),
        (("ce_dataref", b"file:///etc/passwd"), ("ce_datarefsha256", b"0")),
    ],
)
def test_garbage_in_headers_stops_nothing(headers: tuple[tuple[str, bytes], ...]) -> None:
    plant = Plant()
    MemoryProducer(plant.broker).send(OutRecord(FRAMES.name, b"\xff\x00key", b"good", headers))
    ids = plant.publish(b"good")
    with plant.running():
        plant.wait_for_all(ids)
    assert len(plant.ended()) == 2


def test_a_flood_of_poison_stops_the_stream_with_everything_accounted_for() -> None:
    plant = Plant()
    core = plant.core(StreamLimits(commit_interval_s=0.01, poison_least_frames=50))
    bad = plant.publish(*[BAD] * 60)
    with plant.running(core):
        poll_until(lambda: core.failure, deadline_s=20)
    assert isinstance(core.failure, PoisonShareExceeded)
    letters = plant.quarantined()
    assert len(letters) >= 50
    # What was quarantined is committed, so that the next member does not do it again.
    assert plant.uncommitted() == len(bad) - len(letters)


def test_a_stop_finishes_what_is_in_flight_and_commits_it() -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(project: str, frames: Sequence[Frame]) -> None:
        began.set()
        go_on.wait(10)

    plant = Plant(units=FakeUnits(slow))
    core = plant.core()
    with plant.running(core):
        ids = plant.publish(b"good")
        assert began.wait(10)
        core.stop()
        go_on.set()
    assert plant.judged() == ids
    assert plant.uncommitted() == 0


def test_a_stop_does_not_wait_for_units_that_are_away() -> None:
    def away(project: str, frames: Sequence[Frame]) -> None:
        raise ModelUnavailable("away")

    plant = Plant(units=FakeUnits(away))
    plant.publish(b"good")
    with plant.running():
        poll_until(lambda: plant.units.calls, deadline_s=10)
    assert plant.ended() == set()
    assert plant.uncommitted() == 1


class Closing(MemoryProducer):
    """Knows whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_waits_for_a_broker_that_is_not_there_yet() -> None:
    plant = Plant()
    ids = plant.publish(b"good")
    tries = [0]

    def open_consumer(on_revoked: Callable[[frozenset[Partition]], None]) -> MemoryConsumer:
        tries[0] += 1
        if tries[0] == 1:
            raise BrokerUnavailable("no broker answers")
        return MemoryConsumer(plant.broker, topics=[FRAMES.name], group=GROUP)

    opened: list[Closing] = []

    def open_producer() -> Closing:
        opened.append(Closing(plant.broker))
        return opened[-1]

    outside = Outside(open_consumer, open_producer, plant.units, plant.store, SystemClock())
    with plant.running(StreamCore(outside, StreamLimits(commit_interval_s=0.01))):
        plant.wait_for_all(ids)
        # The first try's producer is not kept beside the second's.
        assert [producer.is_closed for producer in opened] == [True, False]


class MortalUnits(FakeUnits):
    """Units called by a process that may die; slow enough for a commit that comes too early."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        super().__init__(self._judge_slowly)

    def _judge_slowly(self, *_: object) -> None:
        self._fate.step()
        enough = self._fate.polls + 3
        poll_until(lambda: self._fate.polls >= enough or self._fate.is_dead, deadline_s=5, every_s=0.001)


def _run_until_dead(plant: Plant, fate: Fate) -> None:
    outside = Outside(
        open_consumer=lambda _: MortalConsumer(plant.broker, fate, GROUP),
        open_producer=lambda: MortalProducer(plant.broker, fate),
        units=MortalUnits(fate),
        store=plant.store,
        clock=SystemClock(),
    )
    core = StreamCore(outside, StreamLimits(Bounds(frames=8), commit_interval_s=0))
    with plant.running(core):
        poll_until(lambda: core.failure or plant.uncommitted() == 0, deadline_s=20, every_s=0.001)


@pytest.mark.parametrize("steps", [*range(1, 20), *range(20, 80, 10)])
def test_killed_at_any_step_and_replayed_no_frame_is_lost(
    steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    plant = Plant(broker=MemoryBroker(partitions=2))
    ids = plant.publish(*[b"good"] * 9, BAD, *[ANOMALOUS] * 4, *[b"good"] * 6)
    ids += plant.publish(b"good", project="nobody", camera="cam-2")
    _run_until_dead(plant, Fate(steps))
    _run_until_dead(plant, Fate(steps * 2))
    with plant.running():
        plant.wait_for_all(ids)
    assert plant.ended() == set(ids)
    # Each frame has one kind of end, however often it was delivered.
    assert not set(plant.judged()) & {*plant.quarantined(), *plant.shed()}


def test_a_frame_that_crashes_the_model_does_not_hold_up_its_partition() -> None:
    plant = Plant()
    with plant.running():
        ids = plant.publish(b"good", CRASHES, b"good")
        plant.wait_for_all(ids)
    assert plant.quarantined() == [ids[1]]
    assert sorted(plant.judged()) == sorted([ids[0], ids[2]])
