"""The open-loop load generator: frames of the synthetic line at a rate that does not depend on answers.

Frames are rendered beforehand, numbered per camera and declared on the ledger like any camera's, so
that a lost one is found. What could not be sent in time is counted, never made up later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from threading import Event

import numpy as np

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.domain.errors import BadRequest, LoupeError, RetryLater
from services.domain.frame import Frame, ingester_frame_id
from services.domain.ledger import EntryKind, SequenceRange, ShedReason
from services.domain.topics import MIB
from services.ingest.declarations import entry_of
from services.ingest.in_flight import InFlight, Limits
from services.ingest.synthetic import SyntheticLine
from services.wire.frame import encode_frame, epoch_of
from services.wire.ledger import encode_ledger_entry

_DECLARE_EVERY_S = 1.0
_SETTLE_S = 30.0
# Wide enough that a healthy broker never fills it, small enough for the machine under test.
_LIMITS = Limits(max_in_flight_frames=4000, max_in_flight_bytes=256 * MIB)


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        rate_fps: frames per second of all cameras together; None: as fast as Kafka takes them.
        frames: how many in all.
        cameras: they take turns.
        size_px: (width, height).
        pool_frames: different frames per camera, rendered beforehand, shown in turn.
        project: that is to judge; None lets routes decide.
    """

    rate_fps: float | None
    frames: int
    cameras: int = 1
    size_px: tuple[int, int] = (320, 320)
    pool_frames: int = 100
    anomaly_share: float = 0.05
    seed: int = 0
    project: str | None = None
    camera_prefix: str = "load"

    def __post_init__(self) -> None:
        if self.rate_fps is not None and not 0 < self.rate_fps <= 100_000:
            raise BadRequest(f"A rate is above 0 frames/s, not {self.rate_fps}.")
        if self.frames < 1 or self.cameras < 1 or self.pool_frames < 1:
            raise BadRequest("A load has at least one frame, one camera and one frame in its pool.")


@dataclass(frozen=True)
class Sent:
    """What was sent.

    Attributes:
        epochs: camera -> epoch of its run.
        acknowledged: frames that Kafka took.
        unsent: frames that were due while too much was on its way; they have no number.
        late_p99_ms: how late frames were sent after they were due, 99th percentile.
    """

    epochs: dict[str, str]
    frames: int
    acknowledged: int
    unsent: int
    elapsed_s: float
    size_bytes: int
    late_p99_ms: float
    rate_fps: float | None = None

    @property
    def achieved_fps(self) -> float:
        """Frames per second that were really sent."""
        return self.frames / self.elapsed_s if self.elapsed_s else 0.0


@dataclass
class _Camera:
    name: str
    epoch: str
    images: list[bytes]
    frames: int = 0
    acknowledged: int = 0
    declared: int = 0
    lost: list[int] = field(default_factory=list)


class Generator:
    """One load on one broker; used once."""

    def __init__(self, load: Load, producer: Producer, clock: Clock) -> None:
        """Render the pool."""
        self._load, self._producer, self._clock = load, producer, clock
        self._in_flight = InFlight(_LIMITS)
        self._cameras = [self._camera(number) for number in range(load.cameras)]

    def _camera(self, number: int) -> _Camera:
        load, name = self._load, f"{self._load.camera_prefix}-{number + 1}"
        # Every camera of the same kind of part: one detector judges them all.
        line = SyntheticLine(load.seed, load.size_px, load.anomaly_share)
        first = number * load.pool_frames
        images = [line.jpeg(first + index) for index in range(min(load.pool_frames, load.frames))]
        epoch = epoch_of(self._clock.now())
        return _Camera(name, epoch, images)

    def run(self, stop: Event) -> Sent:
        """Send everything, wait for acknowledgements, declare; `stop` ends it early."""
        started_s = declared_s = self._clock.monotonic_s()
        late_s: list[float] = []
        unsent = 0
        for number, due_s in enumerate(self._due_times(started_s)):
            if number == self._load.frames or stop.is_set():
                break
            late_s.append(self._wait_until(due_s, stop))
            camera = self._cameras[number % len(self._cameras)]
            unsent += not self._send(camera)
            if self._clock.monotonic_s() - declared_s >= _DECLARE_EVERY_S:
                declared_s = self._clock.monotonic_s()
                self._declare()
        elapsed_s = self._clock.monotonic_s() - started_s
        self._settle()
        return Sent(
            epochs={camera.name: camera.epoch for camera in self._cameras},
            frames=sum(camera.frames for camera in self._cameras),
            acknowledged=sum(camera.acknowledged for camera in self._cameras),
            unsent=unsent,
            elapsed_s=elapsed_s,
            size_bytes=int(np.mean([len(image) for c in self._cameras for image in c.images])),
            late_p99_ms=float(np.percentile(late_s, 99) * 1000) if late_s else 0.0,
            rate_fps=self._load.rate_fps,
        )

    def _due_times(self, started_s: float) -> Iterator[float]:
        rate_fps = self._load.rate_fps
        return (started_s + number / rate_fps if rate_fps else started_s for number in count())

    def _wait_until(self, due_s: float, stop: Event) -> float:
        """Block until a frame is due and return how late that is; a flood is never late."""
        left_s = due_s - self._clock.monotonic_s()
        if left_s > 0:
            stop.wait(left_s)
        return self._clock.monotonic_s() - due_s if self._load.rate_fps else 0.0

    def _send(self, camera: _Camera) -> bool:
        """Send the camera's next frame; False if too much is on its way and the load is open."""
        is_flood = self._load.rate_fps is None
        if not self._in_flight.wait_for_room(60.0 if is_flood else 0.0):
            return False
        sequence = camera.frames
        frame = Frame(
            frame_id=ingester_frame_id(camera.name, camera.epoch, sequence),
            camera=camera.name,
            captured_at=self._clock.now(),
            image=camera.images[sequence % len(camera.images)],
            subject=f"{sequence}.jpg",
            epoch=camera.epoch,
            sequence=sequence,
            project=self._load.project,
        )
        camera.frames += 1
        try:
            delivery = self._producer.send(encode_frame(frame))
        except RetryLater:
            camera.lost.append(sequence)
            return True
        self._in_flight.add(delivery, len(frame.image), lambda error: _end(camera, sequence, error))
        return True

    def _declare(self) -> None:
        """Declare what was captured and what was lost since the last time."""
        for camera in self._cameras:
            end, lost = camera.frames, list(camera.lost)
            if camera.declared < end:
                captured = [SequenceRange(camera.declared, end - 1)]
                if self._send_entry(camera, EntryKind.CAPTURED, captured, None):
                    camera.declared = end
            if lost:
                ranges = [SequenceRange(sequence, sequence) for sequence in lost]
                if self._send_entry(camera, EntryKind.SHED, ranges, ShedReason.BROKER_UNAVAILABLE):
                    del camera.lost[: len(lost)]

    def _send_entry(
        self, camera: _Camera, kind: EntryKind, ranges: list[SequenceRange], reason: ShedReason | None
    ) -> bool:
        """Send an entry; one that is given up later shows: its frames are known by their records only."""
        record = encode_ledger_entry(
            entry_of(camera.name, camera.epoch, kind, ranges, reason, self._clock.now())
        )
        try:
            delivery = self._producer.send(record)
        except RetryLater:
            return False
        self._in_flight.add(delivery, len(record.value), lambda _: None)
        return True

    def _settle(self) -> None:
        self._declare()
        self._in_flight.wait_until_empty(_SETTLE_S)
        self._declare()
        self._in_flight.wait_until_empty(_SETTLE_S)
        self._in_flight.close()


def _end(camera: _Camera, sequence: int, error: LoupeError | None) -> None:
    if error is None:
        camera.acknowledged += 1
    else:
        camera.lost.append(sequence)
