"""The load generator keeps its rate, and its thresholds can be broken."""

from __future__ import annotations

from threading import Event

import pytest

from loadtest.generator import Generator, Load, Sent
from loadtest.thresholds import Thresholds
from loadtest.verdicts import Quantiles
from services.adapters.broker import Delivery
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.domain.errors import BadRequest
from services.domain.ledger import EntryKind
from services.domain.topics import FRAMES, LEDGER
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from services.wire.record import OutRecord
from tests.unit.ingest.stage import TurningStop

SMALL = (128, 128)
FAST = Quantiles(mean_ms=20, p50_ms=20, p95_ms=30, p99_ms=40)


class SlowProducer(MemoryProducer):
    """Takes 50 ms for a record."""

    def __init__(self, broker: MemoryBroker, clock: FakeClock) -> None:
        super().__init__(broker)
        self._clock = clock

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than the memory one
        self._clock.advance(0.05)
        return super().send(record)


def run(load: Load, *, is_slow: bool = False) -> tuple[Sent, MemoryBroker]:
    broker, clock = MemoryBroker(), FakeClock()
    producer = SlowProducer(broker, clock) if is_slow else MemoryProducer(broker)
    return Generator(load, producer, clock).run(TurningStop(clock)), broker


def test_cameras_take_turns_and_number_their_frames() -> None:
    sent, broker = run(Load(50.0, 21, cameras=2, size_px=SMALL, pool_frames=3))
    frames = [decode_frame(record) for record in broker.records(FRAMES.name)]
    for camera, count in (("load-1", 11), ("load-2", 10)):
        mine = [frame for frame in frames if frame.camera == camera]
        assert [frame.sequence for frame in mine] == list(range(count))
        assert {frame.epoch for frame in mine} == {sent.epochs[camera]}
        assert len({frame.image for frame in mine}) == 3
    assert (sent.frames, sent.acknowledged, sent.unsent) == (21, 21, 0)


def test_all_frames_are_declared_captured() -> None:
    _, broker = run(Load(10.0, 35, cameras=2, size_px=SMALL, pool_frames=1))
    entries = [decode_ledger_entry(record.value) for record in broker.records(LEDGER.name)]
    assert {entry.kind for entry in entries} == {EntryKind.CAPTURED}
    assert sum(len(span) for entry in entries for span in entry.ranges) == 35


def test_an_even_rate_breaks_no_threshold() -> None:
    sent, _ = run(Load(20.0, 60, size_px=SMALL, pool_frames=1))
    assert sent.achieved_fps == pytest.approx(20.0, rel=0.03)
    assert Thresholds().broken_by(sent, 60, FAST) == []


def test_a_slow_server_breaks_the_thresholds() -> None:
    sent, _ = run(Load(100.0, 60, size_px=SMALL, pool_frames=1), is_slow=True)
    broken = " ".join(Thresholds().broken_by(sent, 60, FAST))
    # 50 ms a frame is 20 frames/s, less what ledger entries take.
    assert 18 < sent.achieved_fps < 21
    assert "instead of 100.0" in broken
    assert "late" in broken


@pytest.mark.parametrize(
    ("stored", "latency", "says"),
    [
        (59, FAST, "1 of 60 frames have no verdict"),
        (60, None, "no latency"),
        (60, Quantiles(90, 101, 120, 130), "p50 101"),
        (60, Quantiles(90, 50, 120, 401), "p99 401"),
    ],
)
def test_missing_and_late_verdicts_break_the_thresholds(
    stored: int, latency: Quantiles | None, says: str
) -> None:
    sent, _ = run(Load(20.0, 60, size_px=SMALL, pool_frames=1))
    (broken,) = Thresholds().broken_by(sent, stored, latency)
    assert says in broken


def test_a_flood_is_sent_whole_and_a_stop_ends_a_load() -> None:
    sent, _ = run(Load(None, 50, size_px=SMALL, pool_frames=2))
    assert sent.frames == sent.acknowledged == 50
    stop = Event()
    stop.set()
    broker = MemoryBroker()
    ended = Generator(Load(5.0, 50, size_px=SMALL, pool_frames=1), MemoryProducer(broker), FakeClock()).run(
        stop
    )
    assert ended.frames == 0


def test_a_load_that_cannot_be_is_refused() -> None:
    for load in ((0.0, 10), (10.0, 0), (-1.0, 5)):
        with pytest.raises(BadRequest):
            Load(*load)
