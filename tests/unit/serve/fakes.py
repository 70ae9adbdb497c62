"""Written fakes for tests of the stream: units that judge by name, and a world that can be killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from services.adapters.broker import Consumer, Partition, Producer
from services.adapters.broker.memory import MemoryBroker, MemoryConsumer, MemoryDelivery, MemoryProducer
from services.domain.errors import FrameCrashesModel
from services.domain.frame import Frame, RecordPosition
from services.domain.inspection import Inspection
from services.domain.topics import FRAMES
from services.wire.batch import Outcome, Rejection
from services.wire.record import OutRecord, Record

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAD, CRASHES, ANOMALOUS = b"bad", b"crashes", b"anomalous"
MASK = b"a mask"


def verdict(frame: Frame, project: str = "plates") -> Inspection:
    """Return what the fake units say of a frame."""
    return Inspection(
        frame_id=frame.frame_id,
        camera=frame.camera,
        project=project,
        model_version="v1",
        captured_at=frame.captured_at,
        judged_at=AT,
        is_anomalous=frame.image.startswith(ANOMALOUS),
        confidence=0.9,
        score=1.0,
        threshold=5.0,
        sequence=frame.sequence,
        stage_ms={"decode": 1.0, "infer": 2.0, "score": 0.5},
        position=frame.position,
    )


class FakeUnits:
    """Judges by the image's bytes.

    Attributes:
        calls: (project, number of frames) of every call.
        before: called first; raise there to fail.
    """

    def __init__(self, before: Callable[[str, Sequence[Frame]], None] = lambda *_: None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.judged: Counter[UUID] = Counter()
        self.before = before

    def inspect(self, project: str, frames: Sequence[Frame]) -> tuple[Outcome, ...]:
        self.calls.append((project, len(frames)))
        self.before(project, frames)
        if any(frame.image.startswith(CRASHES) for frame in frames):
            raise FrameCrashesModel("the model died")
        self.judged.update(frame.frame_id for frame in frames)
        return tuple(_outcome(frame, project) for frame in frames)

    def inspect_with_mask(self, project: str, frame: Frame) -> tuple[Outcome, bytes]:
        (outcome,) = self.inspect(project, [frame])
        return outcome, MASK


def _outcome(frame: Frame, project: str) -> Outcome:
    if frame.image.startswith(BAD):
        return Rejection("UnreadableImage", "It is bad.")
    return verdict(frame, project)


class KilledError(BaseException):
    """The process is dead; nothing catches this on purpose."""


class Fate:
    """Kills at the `steps`-th call of anything outside, and everything after it."""

    def __init__(self, steps: int) -> None:
        self.polls = 0
        self._left = steps
        self._lock = threading.Lock()

    @property
    def is_dead(self) -> bool:
        return self._left <= 0

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                raise KilledError


class MortalProducer:
    """A producer of a process that may die before or after any record is taken."""

    def __init__(self, broker: MemoryBroker, fate: Fate) -> None:
        self._inner: Producer = MemoryProducer(broker)
        self._fate = fate

    def send(self, record: OutRecord) -> MemoryDelivery:
        self._fate.step()
        delivery = self._inner.send(record)
        assert isinstance(delivery, MemoryDelivery)
        return delivery

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002 - the Protocol's
        self._fate.step()

    def close(self) -> None:
        """Do nothing."""


class MortalConsumer:
    """A consumer of a process that may die before or after any commit."""

    def __init__(self, broker: MemoryBroker, fate: Fate, group: str) -> None:
        self._inner: Consumer = MemoryConsumer(broker, topics=[FRAMES.name], group=group)
        self._fate = fate

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        self._fate.step()
        self._fate.polls += 1
        return self._inner.poll(min(timeout_s, 0.005), max_records)

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        self._fate.step()
        self._inner.commit(next_offsets)
        self._fate.step()

    def assignment(self) -> frozenset[Partition]:
        return self._inner.assignment()

    def pause(self, partitions: Collection[Partition]) -> None:
        self._inner.pause(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._inner.resume(partitions)

    def end_offset(self, partition: Partition) -> int | None:
        return self._inner.end_offset(partition)

    def close(self) -> None:
        """Do nothing: a dead process commits nothing."""


def frame_record(
    index: int, image: bytes = b"good", *, camera: str = "cam-1", offset: int | None = None
) -> Record:
    """Return a polled record of a frame."""
    position = RecordPosition(FRAMES.name, 0, index if offset is None else offset)
    headers = (("ce_source", camera.encode()), ("ce_id", f"run/{index}".encode()))
    return Record(position.topic, 0, position.offset, camera.encode(), image, headers, 1_772_366_400_000)
