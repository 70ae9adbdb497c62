"""The ingester: source -> `loupe.frames`, and what was captured or shed -> `loupe.ledger` (arrows 1, 8).

Steps: wait until due, wait for room, give the next sequence, publish, track the acknowledgement,
declare. Does not decode images and knows no routes.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event, Lock

from services.adapters.broker import Producer
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import Clock, SystemClock
from services.adapters.object_store.store import FRAMES_BUCKET, ObjectStore
from services.domain.errors import BadRequest, RetryLater, StoreUnavailable
from services.domain.frame import Frame, ingester_frame_id
from services.domain.ledger import ShedReason
from services.domain.topics import INLINE_LIMIT_BYTES
from services.ingest.declarations import Declarations
from services.ingest.in_flight import InFlight, Limits
from services.ingest.schedule import Schedule
from services.ingest.sources import Shot, Source, Unreadable
from services.wire.frame import encode_frame, epoch_of

logger = logging.getLogger(__name__)

MAX_FPS = 1000.0
# "About every second": what a crash leaves undeclared is then seen on the topic anyway.
_DECLARE_EVERY_S = 1.0
_PROGRESS_EVERY_S = 0.2
_RATE_WINDOW_S = 5.0


@dataclass(frozen=True)
class CameraSpec:
    """One camera to run.

    Attributes:
        camera: its id.
        source: what it sees.
        fps: frames per second.
        project: project that is to judge its frames; None lets routes decide.
        count: stop after so many frames; None: when the source ends.
    """

    camera: str
    source: Source
    fps: float
    project: str | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.camera.strip() or len(self.camera) > 128 or not self.camera.isprintable():
            raise BadRequest("A camera id has 1 to 128 printable characters.")
        if not 0 < self.fps <= MAX_FPS:
            raise BadRequest(f"Frames per second are above 0 and at most {MAX_FPS:g}, not {self.fps:g}.")
        if self.count is not None and self.count < 1:
            raise BadRequest(f"The number of frames is at least 1, not {self.count}.")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a camera's run is.

    Attributes:
        captured: frames that got a sequence.
        acknowledged: of these, taken by Kafka.
        shed: of these, declared shed.
        fps: captured frames per second over the last seconds.
        oldest_s: age of the oldest frame that Kafka has not acknowledged yet; 0 if there is none.
        is_declared: the ledger holds all of the above.
    """

    camera: str
    epoch: str
    captured: int = 0
    acknowledged: int = 0
    shed: int = 0
    fps: float = 0.0
    oldest_s: float = 0.0
    is_declared: bool = False


ProgressCallback = Callable[[Progress], None]


class Ingester:
    """One camera's run, from `run`'s start to its end; used once, by one thread."""

    def __init__(
        self,
        spec: CameraSpec,
        producer: Producer,
        clock: Clock,
        *,
        store: ObjectStore | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Prepare a run; its epoch is now.

        Args:
            spec: what to run.
            producer: where to; may be shared by ingesters.
            clock: for capture times and pacing.
            store: takes images above the inline limit; without it they are shed.
            limits: bounds of what is on its way.
        """
        self._spec, self._producer, self._clock, self._store = spec, producer, clock, store
        self._limits = limits or Limits()
        self.epoch = epoch_of(clock.now())
        self._in_flight = InFlight(self._limits)
        self._declarations = Declarations(spec.camera, self.epoch, producer, clock, self._in_flight)
        # Counts that the thread of acknowledgements changes too.
        self._lock = Lock()
        self._captured = self._acknowledged = self._shed = 0
        self._captured_s: deque[float] = deque(maxlen=int(MAX_FPS * _RATE_WINDOW_S))
        self._unacknowledged_s: deque[float] = deque()
        self._declared_s = self._told_s = clock.monotonic_s()

    def run(self, stop: Event, on_progress: ProgressCallback = lambda _: None) -> Progress:
        """Publish until the source ends, the count is reached or `stop` is set; then flush and declare."""
        schedule = Schedule(self._spec.fps, self._clock.monotonic_s())
        try:
            for shot in self._spec.source.shots(stop):
                if shot is not None:
                    if not self._wait_for_turn(schedule, stop, on_progress):
                        break
                    self._capture(shot)
                    schedule.advance(self._clock.monotonic_s())
                self._tick(on_progress)
                if self._captured == self._spec.count:
                    break
        finally:
            self._finish()
            on_progress(self.progress())
        return self.progress()

    def progress(self) -> Progress:
        """Return how far it is."""
        now_s = self._clock.monotonic_s()
        recent = [s for s in self._captured_s if now_s - s <= _RATE_WINDOW_S]
        span_s = now_s - recent[0] if recent else 0.0
        with self._lock:
            return Progress(
                camera=self._spec.camera,
                epoch=self.epoch,
                captured=self._captured,
                acknowledged=self._acknowledged,
                shed=self._shed,
                fps=(len(recent) - 1) / span_s if span_s > 0 and len(recent) > 1 else 0.0,
                oldest_s=now_s - self._unacknowledged_s[0] if self._unacknowledged_s else 0.0,
                is_declared=self._declarations.is_settled,
            )

    def _wait_for_turn(self, schedule: Schedule, stop: Event, on_progress: ProgressCallback) -> bool:
        """Block until the next frame is due and there is room for it; False when stopped meanwhile."""
        while (left_s := schedule.due_s - self._clock.monotonic_s()) > 0:
            if stop.wait(min(left_s, _PROGRESS_EVERY_S)):
                return False
            self._tick(on_progress)
        while not self._in_flight.wait_for_room(_PROGRESS_EVERY_S):
            if stop.is_set():
                return False
            self._tick(on_progress)
        return not stop.is_set()

    def _capture(self, shot: Shot | Unreadable) -> None:
        sequence, captured_s = self._captured, self._clock.monotonic_s()
        self._captured += 1
        self._captured_s.append(captured_s)
        self._declarations.captured(sequence)
        if isinstance(shot, Unreadable):
            self._let_go(sequence, ShedReason.UNREADABLE_SOURCE, f"{shot.subject}: {shot.reason}")
            return
        try:
            record = encode_frame(self._frame_of(sequence, shot))
            delivery = self._producer.send(record)
        except RetryLater as error:
            self._let_go(sequence, _reason_of(error), str(error))
            return
        with self._lock:
            self._unacknowledged_s.append(captured_s)
        self._in_flight.add(delivery, len(record.value), lambda ok: self._end(sequence, is_acknowledged=ok))

    def _frame_of(self, sequence: int, shot: Shot) -> Frame:
        """Return the frame; an image above the inline limit goes to the object store first (claim check)."""
        frame = Frame(
            frame_id=ingester_frame_id(self._spec.camera, self.epoch, sequence),
            camera=self._spec.camera,
            captured_at=self._clock.now(),
            image=shot.image,
            content_type=shot.content_type,
            subject=shot.subject,
            epoch=self.epoch,
            sequence=sequence,
            project=self._spec.project,
            part_id=shot.part_id,
            lot_id=shot.lot_id,
        )
        if len(shot.image) <= INLINE_LIMIT_BYTES:
            return frame
        if self._store is None:
            size_mb = len(shot.image) / 1e6
            message = f"{shot.subject} has {size_mb:.1f} MB, too large for a record, and there is no store."
            raise StoreUnavailable(message)
        return replace(frame, image=b"", dataref=self._store.put_image(FRAMES_BUCKET, shot.image))

    def _end(self, sequence: int, *, is_acknowledged: bool) -> None:
        """Note what became of a frame; called by the thread that waits for acknowledgements."""
        with self._lock:
            self._unacknowledged_s.popleft()
            self._acknowledged += is_acknowledged
        if not is_acknowledged:
            self._let_go(sequence, ShedReason.BROKER_UNAVAILABLE, "Kafka did not take it in time")

    def _let_go(self, sequence: int, reason: ShedReason, why: str) -> None:
        logger.warning("camera %s: frame %d is shed, %s: %s", self._spec.camera, sequence, reason, why)
        with self._lock:
            self._shed += 1
        self._declarations.shed(sequence, reason)

    def _tick(self, on_progress: ProgressCallback) -> None:
        """Declare and tell, each when its time has come."""
        now_s = self._clock.monotonic_s()
        if now_s - self._declared_s >= _DECLARE_EVERY_S:
            self._declared_s = now_s
            self._declarations.declare()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            on_progress(self.progress())

    def _finish(self) -> None:
        """Wait for acknowledgements and declare the rest, as long as a stop may take."""
        end_s = time.monotonic() + self._limits.stop_timeout_s
        while time.monotonic() < end_s:
            self._declarations.declare()
            if self._in_flight.wait_until_empty(0.5) and self._declarations.is_settled:
                break
        else:
            logger.error(
                "camera %s, epoch %s: stopped with %d records not acknowledged; the ledger may not know them",
                self._spec.camera, self.epoch, len(self._in_flight),
            )  # fmt: skip
        self._in_flight.close()


def _reason_of(error: RetryLater) -> ShedReason:
    return (
        ShedReason.STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else ShedReason.BROKER_UNAVAILABLE
    )


def run_cameras(
    specs: Sequence[CameraSpec],
    bootstrap: str,
    stop: Event,
    on_progress: ProgressCallback = lambda _: None,
    *,
    store: ObjectStore | None = None,
    limits: Limits | None = None,
) -> tuple[Progress, ...]:
    """Run cameras side by side, a thread each, over one producer; return how each ended.

    Blocks until all have ended. `on_progress` is called from the cameras' threads. An error in one
    camera stops the others gracefully.

    Raises:
        BadRequest: two cameras of one id.
        BrokerUnavailable: no broker answers at the start.
    """
    if len({spec.camera for spec in specs}) < len(specs):
        raise BadRequest("Two cameras have the same id; sequences would collide.")
    limits = limits or Limits()
    producer = KafkaBrokerProducer(bootstrap, delivery_timeout_s=limits.delivery_timeout_s)
    clock = SystemClock()

    def run_one(spec: CameraSpec) -> Progress:
        try:
            return Ingester(spec, producer, clock, store=store, limits=limits).run(stop, on_progress)
        except BaseException:
            stop.set()
            raise

    try:
        with ThreadPoolExecutor(max(1, len(specs)), thread_name_prefix="camera") as pool:
            return tuple(pool.map(run_one, specs))
    finally:
        producer.close()
