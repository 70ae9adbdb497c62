"""The sender: what it sends first, how fast it replays, what it does when Kafka is not there."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from services.adapters.broker import Delivery, Producer
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock, SystemClock
from services.adapters.metrics import Metrics
from services.domain.camera import ShedPolicy
from services.domain.errors import BrokerUnavailable, ImageTooLarge, SizeLimitsDisagree, StopProcess
from services.domain.ledger import EntryKind, ShedReason
from services.domain.topics import FRAMES, MIB
from services.ingest.in_flight import Limits
from services.ingest.pipeline import CameraSpec
from services.ingest.spool import CameraSpool, Sender, Spool
from services.ingest.spool.policy import Step, step_of
from services.ingest.spool.replay import ReplayRate
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.unit.ingest.stage import Line, ListSource, declared, shot


def put(camera: CameraSpool, name: str, count: int, size_bytes: int = 1000) -> None:
    for _ in range(count):
        headers = (("sequence", str(camera.next_sequence).encode()),)
        camera.accept(OutRecord(FRAMES.name, name.encode(), bytes(size_bytes), headers))


def arrived(broker: MemoryBroker, name: str) -> list[int]:
    return [
        int(dict(record.headers)["sequence"])
        for record in broker.records(FRAMES.name)
        if record.key == name.encode()
    ]


class AwayBroker:
    """Opens producers once it is back."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.is_back, self.asked, self._broker = False, 0, broker

    def open(self) -> Producer:
        self.asked += 1
        if not self.is_back:
            raise BrokerUnavailable("No Kafka broker answers.")
        return MemoryProducer(self._broker)


def test_a_backlog_is_read_back_at_a_bounded_rate_while_live_frames_pass_it(tmp_path: Path) -> None:
    clock, broker = FakeClock(), MemoryBroker()
    first = Spool(tmp_path, clock=clock, reserve_bytes=0)
    put(first.camera("old", ShedPolicy.BLOCK), "old", 100, 98_000)
    first.close()
    spool = Spool(tmp_path, clock=clock, reserve_bytes=0)
    sender = Sender(spool, lambda: MemoryProducer(broker), clock, replay_bytes_per_s=1_000_000.0)
    live = spool.camera("live", ShedPolicy.BLOCK)
    counts = []
    for _ in range(5):
        put(live, "live", 3)
        while sender.step():
            assert sender._in_flight.wait_until_empty(5)
        counts.append(len(arrived(broker, "old")))
        clock.advance(1)
    # The first second's worth is there at once; a frame counts 100 KB, and one may overdraw.
    assert counts[0] in (10, 11)
    assert [after - before for before, after in pairwise(counts)] == [10] * 4
    assert arrived(broker, "old") == list(range(counts[-1]))
    assert arrived(broker, "live") == list(range(15))
    sender.stop()
    spool.close()


def test_what_comes_in_meanwhile_does_not_slow_a_replay() -> None:
    rate = ReplayRate(1000.0, now_s=0.0)
    may_send = [rate.may_send]
    rate.spend(1500)
    may_send.append(rate.may_send)
    rate.grow(0.1, accepted_bytes=500)
    # -500 + 0.1 s x 1000 + 500
    may_send.append(rate.may_send)
    # However long nothing was sent, it is one second's worth.
    rate.grow(3600.0, accepted_bytes=10**9)
    rate.spend(1000)
    may_send.append(rate.may_send)
    assert may_send == [True, False, True, False]


def test_frames_wait_until_kafka_is_there_which_is_asked_with_growing_pauses(tmp_path: Path) -> None:
    clock, broker = FakeClock(), MemoryBroker()
    away = AwayBroker(broker)
    spool = Spool(tmp_path, clock=clock, reserve_bytes=0)
    sender = Sender(spool, away.open, clock)
    put(spool.camera("cam", ShedPolicy.BLOCK), "cam", 3)
    for _ in range(600):
        sender.step()
        clock.advance(0.1)
    # A minute: pauses of 0.1 ... 5 s.
    assert away.asked < 20
    away.is_back = True
    clock.advance(5)
    sender.step()
    sender.step()
    sender.step()
    assert arrived(broker, "cam") == [0, 1, 2]
    sender.stop()
    spool.close()


class Refusing(MemoryProducer):
    """Takes nothing while it is away, as the library does that cannot open a new connection."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.is_away, self.asked = True, 0

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than the memory one
        self.asked += 1
        # A sender that does not stop by itself is to fail here, not to hang.
        assert self.asked < 1000
        if self.is_away:
            raise BrokerUnavailable("Kafka takes no records.")
        return super().send(record)


def test_a_producer_that_takes_nothing_is_left_alone_for_a_while(tmp_path: Path) -> None:
    broker = MemoryBroker()
    producer = Refusing(broker)
    with Line(tmp_path, broker=broker, producer=producer) as line:
        for name in ("left", "middle", "right"):
            put(line.spool.camera(name, ShedPolicy.BLOCK), name, 2)
        asked = []
        for _ in range(3):
            line.sender.step()
            asked.append(producer.asked)
            line.clock.advance(10)
        # Each try may last as long as the library's patience: one, and then a pause for all cameras.
        assert asked == [1, 2, 3]
        producer.is_away = False
        line.drain()
        assert [arrived(broker, name) for name in ("left", "middle", "right")] == [[0, 1]] * 3
        assert declared(line.entries(EntryKind.CAPTURED)) == [0, 1] * 3


class Choosy(MemoryProducer):
    """Refuses records above 100 KB for good."""

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than the memory one
        if len(record.value) > 100_000:
            raise ImageTooLarge("too large")
        return super().send(record)


def test_a_frame_that_kafka_will_never_take_is_shed_and_holds_up_nobody(tmp_path: Path) -> None:
    broker = MemoryBroker()
    with Line(tmp_path, broker=broker, producer=Choosy(broker)) as line:
        camera = line.spool.camera("cam", ShedPolicy.BLOCK)
        put(camera, "cam", 1)
        put(camera, "cam", 1, 200_000)
        put(camera, "cam", 1)
        line.drain()
        assert arrived(broker, "cam") == [0, 2]
        (entry,) = line.entries(EntryKind.SHED)
        assert (declared([entry]), entry.reason) == ([1], ShedReason.TOO_LARGE)
        assert camera.state().shed == {ShedReason.TOO_LARGE: 1}


def test_sizes_ages_and_counts_are_shown_as_metrics(tmp_path: Path) -> None:
    clock, broker, metrics = FakeClock(), MemoryBroker(), Metrics()
    away = AwayBroker(broker)
    spool = Spool(tmp_path, clock=clock, max_bytes=MIB, reserve_bytes=0)
    sender = Sender(spool, away.open, clock, metrics=metrics)
    camera = spool.camera("cam", ShedPolicy.DROP_NEWEST)
    put(camera, "cam", 5, 300_000)
    clock.advance(2)
    sender.step()
    page = metrics.page().decode()
    assert 'loupe_spool_frames{camera="cam"} 3.0' in page
    assert f'loupe_spool_bytes{{camera="cam"}} {3.0 * 302_048}' in page
    assert 'loupe_spool_oldest_seconds{camera="cam"} 2.0' in page
    assert 'loupe_spool_shed_total{camera="cam",reason="dropped-newest"} 2.0' in page
    away.is_back = True
    clock.advance(2)
    poll_until(lambda: not sender.step() and not len(sender._in_flight), deadline_s=5)
    clock.advance(1)
    sender.step()
    page = metrics.page().decode()
    assert 'loupe_sent_total{camera="cam"} 3.0' in page
    assert 'loupe_spool_frames{camera="cam"} 0.0' in page
    camera.close()
    clock.advance(1)
    sender.step()
    page = metrics.page().decode()
    assert not any(f"loupe_spool_{gauge}{{" in page for gauge in ("frames", "bytes", "oldest_seconds"))
    assert 'loupe_sent_total{camera="cam"} 3.0' in page
    sender.stop()
    spool.close()


def test_the_thread_sends_flushes_and_stops(tmp_path: Path) -> None:
    broker, clock = MemoryBroker(), SystemClock()
    spool = Spool(tmp_path, clock=clock, reserve_bytes=0)
    sender = Sender(spool, lambda: MemoryProducer(broker), clock, limits=Limits(max_in_flight_frames=4))
    sender.start()
    camera = spool.camera("cam", ShedPolicy.BLOCK)
    put(camera, "cam", 50)
    poll_until(lambda: camera.state().acknowledged == 50, deadline_s=10)
    assert sender.flush(10)
    assert arrived(broker, "cam") == list(range(50))
    assert camera.state().is_settled
    sender.stop()
    assert not sender._thread.is_alive()
    spool.close()


def test_what_no_patience_mends_ends_the_sender_and_is_told(tmp_path: Path) -> None:
    clock, told = SystemClock(), list[StopProcess]()

    def disagrees() -> Producer:
        raise SizeLimitsDisagree("Images would not pass.")

    spool = Spool(tmp_path, clock=clock, reserve_bytes=0)
    sender = Sender(spool, disagrees, clock)
    sender.start(told.append)
    poll_until(lambda: not sender._thread.is_alive(), deadline_s=10)
    assert [error.message for error in told] == ["Images would not pass."]
    sender.stop()
    spool.close()


def test_the_file_shrinks_after_an_outage(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        put(line.spool.camera("cam", ShedPolicy.BLOCK), "cam", 40, 10 * MIB)
        assert line.spool.file_bytes > 400 * MIB
        line.drain()
        for _ in range(40):
            line.clock.advance(1)
            line.send()
        # What steady traffic uses stays: 256 MiB of free pages, 64 MiB of log.
        assert line.spool.file_bytes < 340 * MIB


@pytest.mark.parametrize(
    ("policy", "used_bytes", "sequence", "step"),
    [
        (ShedPolicy.BLOCK, 90, 0, Step.KEEP),
        (ShedPolicy.BLOCK, 95, 0, Step.WAIT),
        (ShedPolicy.DROP_OLDEST, 95, 0, Step.DROP_OLDEST),
        (ShedPolicy.DROP_NEWEST, 95, 0, ShedReason.DROPPED_NEWEST),
        (ShedPolicy.DROP_NEWEST, 0, 0, Step.KEEP),
        (ShedPolicy.SAMPLE, 49, 1, Step.KEEP),
        (ShedPolicy.SAMPLE, 50, 1, ShedReason.SAMPLED),
        (ShedPolicy.SAMPLE, 50, 2, Step.KEEP),
        (ShedPolicy.SAMPLE, 75, 2, ShedReason.SAMPLED),
        (ShedPolicy.SAMPLE, 75, 4, Step.KEEP),
        (ShedPolicy.SAMPLE, 88, 4, ShedReason.SAMPLED),
        (ShedPolicy.SAMPLE, 88, 8, Step.KEEP),
        (ShedPolicy.SAMPLE, 95, 1024, ShedReason.DROPPED_NEWEST),
    ],
)
def test_what_a_camera_does_with_its_next_frame(
    policy: ShedPolicy, used_bytes: int, sequence: int, step: Step | ShedReason
) -> None:
    found = step_of(policy, used_bytes=used_bytes, size_bytes=10, share_bytes=100, sequence=sequence)
    assert found is step


def test_frames_that_come_while_kafka_is_slow_are_sent_from_memory_in_order(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        ended = line.film(CameraSpec("cam", ListSource([shot(number) for number in range(300)])))
        assert [frame.sequence for frame in line.frames()] == list(range(300))
        assert ended.is_declared
