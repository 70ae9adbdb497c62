"""The ingester: source -> spool, from where the sender brings it to `loupe.frames` (arrows 1, 8).

Steps: recognise what was captured before, wait until due, crop or scale, put what is large into the object
store, accept (on disk, with the next sequence), settle. Decodes nothing itself and knows no routes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TypeVar

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.limits import check_size_limits
from services.adapters.clock import Clock, SystemClock
from services.adapters.object_store.store import FRAMES_BUCKET, ObjectStore
from services.domain.camera import OriginalPolicy, ShedPolicy
from services.domain.errors import BadRequest, Overloaded, StorageFull, StoreUnavailable, UnreadableImage
from services.domain.frame import Frame, ImageReference, ingester_frame_id
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES, FRAMES, INLINE_LIMIT_BYTES
from services.ingest.in_flight import Limits
from services.ingest.schedule import Schedule
from services.ingest.sources import Settled, Shot, Skipped, Taken, Unreadable
from services.ingest.spec import (
    MAX_FPS,
    CameraSpec,
    Progress,
    ProgressCallback,
    ignore_progress,
)
from services.ingest.spool import CameraSpool, Leftover, Sender, Spool
from services.wire.frame import encode_frame

__all__ = ["CameraSpec", "Ingester", "Progress", "ProgressCallback", "run_cameras"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROGRESS_EVERY_S = 0.2
_LOOK_EVERY_S = 1.0
_RATE_WINDOW_S = 5.0
# How long after the last frame that was let go a camera counts as shedding.
_SHEDDING_S = 5.0
# A disk or a store that is asked more often than this has no less trouble.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# A live camera's large frames wait this long for the object store; then its next ones matter more.
_STORE_PATIENCE_S = 10.0
_SAMPLED_ORIGINALS = 100


class _Stopped(Exception):  # not an error: how a wait ends when a stop was asked
    """A stop was asked while a shot waited; it has no sequence and was never captured."""


class Ingester:
    """One camera's run, from `run`'s start to its end; used once, by one thread."""

    def __init__(
        self, spec: CameraSpec, spool: Spool, clock: Clock, *, store: ObjectStore | None = None
    ) -> None:
        """Prepare a run.

        Args:
            spec: what to run.
            spool: where frames go; may be shared by ingesters.
            clock: for capture times and pacing.
            store: takes images above the inline limit; without it they are shed.
        """
        self._spec, self._spool, self._clock, self._store = spec, spool, clock, store
        self._camera: CameraSpool | None = None
        self._captured_s: deque[float] = deque(maxlen=int(MAX_FPS * _RATE_WINDOW_S))
        self._progress = Progress(spec.camera)
        self._told_s = self._looked_s = float("-inf")
        self._stop = Event()
        self._on_progress: ProgressCallback = ignore_progress

    def run(self, stop: Event, on_progress: ProgressCallback = ignore_progress) -> Progress:
        """Capture until the source ends, the count is reached or `stop` is set.

        What was captured is on disk then, not necessarily in Kafka: see `Sender.flush`.

        Raises:
            SourceUnavailable: as the source raised it; another run may go on.
            BadRequest: the source can never be read, or the camera runs already.
        """
        self._stop, self._on_progress = stop, on_progress
        try:
            self._camera = self._patiently(lambda: self._spool.camera(self._spec.camera, self._spec.shed))
            self._capture_all(self._camera)
        except _Stopped:
            logger.info("camera %s: stopped while it waited", self._spec.camera)
        finally:
            if self._camera is not None:
                self._camera.close()
            on_progress(self.progress())
        return self.progress()

    def progress(self) -> Progress:
        """Return how far it is."""
        camera = self._camera
        if camera is None:
            return self._progress
        state, now_s = camera.state(), self._clock.monotonic_s()
        recent = [s for s in self._captured_s if now_s - s <= _RATE_WINDOW_S]
        span_s = now_s - recent[0] if recent else 0.0
        return replace(
            self._progress,
            epoch=camera.epoch,
            captured=camera.next_sequence,
            acknowledged=state.acknowledged,
            shed=sum(state.shed.values()),
            shed_by_reason=state.shed,
            fps=(len(recent) - 1) / span_s if span_s > 0 and len(recent) > 1 else 0.0,
            spooled_frames=state.frames,
            spooled_bytes=state.size_bytes,
            oldest_s=state.oldest_s,
            is_shedding=state.shed_for_s is not None and state.shed_for_s <= _SHEDDING_S,
            is_declared=state.is_settled,
        )

    def _capture_all(self, camera: CameraSpool) -> None:
        schedule = Schedule(self._spec.fps, self._clock.monotonic_s())
        for taken in self._spec.source.shots(self._stop):
            if taken is not None and not self._is_known(taken, camera):
                self._wait_until_due(schedule)
                self._capture(taken, camera)
                schedule.advance(self._clock.monotonic_s())
            self._tick()
            if self._spec.count is not None and camera.next_sequence >= self._spec.count:
                break

    def _is_known(self, taken: Taken, camera: CameraSpool) -> bool:
        """Settle what was captured before: its ingester died before it could say so."""
        if isinstance(taken, Skipped) or taken.receipt is None:
            return False
        receipt = taken.receipt
        settled = self._patiently(lambda: camera.captured_before(receipt))
        if settled is not None:
            taken.on_settled(settled)
        return settled is not None

    def _wait_until_due(self, schedule: Schedule) -> None:
        while (left_s := schedule.due_s - self._clock.monotonic_s()) > 0:
            self._pause(min(left_s, _PROGRESS_EVERY_S))
        if self._stop.is_set():
            raise _Stopped

    def _capture(self, taken: Taken, camera: CameraSpool) -> None:
        match taken:
            case Shot():
                self._settle(taken, self._accept(taken, camera), camera)
            case Unreadable():
                logger.warning("camera %s: %s: %s", self._spec.camera, taken.subject, taken.reason)
                self._settle(taken, self._shed(camera, 1, taken.shed, taken.receipt), camera)
            case Skipped():
                self._shed(camera, taken.count, ShedReason.SKIPPED)
        now_s = self._clock.monotonic_s()
        self._captured_s.append(now_s)

    def _settle(self, taken: Shot | Unreadable, shed: ShedReason | None, camera: CameraSpool) -> None:
        """Tell the source what became of the frame that got the last sequence."""
        frame_id = ingester_frame_id(self._spec.camera, camera.epoch, camera.next_sequence - 1)
        taken.on_settled(Settled(frame_id, shed))

    def _shed(
        self, camera: CameraSpool, count: int, reason: ShedReason, receipt: str | None = None
    ) -> ShedReason:
        self._patiently(lambda: camera.shed(count, reason, receipt=receipt))
        return reason

    def _accept(self, shot: Shot, camera: CameraSpool) -> ShedReason | None:
        """Bring a shot into the spool; return why it was let go instead, if it was."""
        self._look(shot)
        frame = self._frame_of(shot, camera)
        self._progress = replace(self._progress, last_frame_at=frame.captured_at)
        if len(frame.image) > CLAIM_LIMIT_BYTES:
            size_mb = len(frame.image) / 1e6
            logger.warning("camera %s: %s has %.1f MB, too much", self._spec.camera, shot.subject, size_mb)
            return self._shed(camera, 1, ShedReason.TOO_LARGE, shot.receipt)
        try:
            frame = self._with_references(frame, shot)
        except StoreUnavailable as error:
            logger.warning("camera %s: %s is shed: %s", self._spec.camera, shot.subject, error)
            return self._shed(camera, 1, ShedReason.STORE_UNAVAILABLE, shot.receipt)
        record = encode_frame(frame)
        return self._patiently(lambda: camera.accept(record, receipt=shot.receipt))

    def _frame_of(self, shot: Shot, camera: CameraSpool) -> Frame:
        """Return the frame as it will be published, cropped or scaled if the camera is to."""
        frame = Frame(
            frame_id=ingester_frame_id(self._spec.camera, camera.epoch, camera.next_sequence),
            camera=self._spec.camera,
            captured_at=shot.captured_at or self._clock.now(),
            image=shot.image,
            content_type=shot.content_type,
            subject=shot.subject,
            epoch=camera.epoch,
            sequence=camera.next_sequence,
            project=self._spec.project,
            part_id=shot.part_id,
            lot_id=shot.lot_id,
            traceparent=shot.traceparent,
        )
        if self._spec.edge is None:
            return frame
        try:
            reframed = self._spec.edge.apply(shot.image)
        except UnreadableImage as error:
            logger.warning("camera %s: %s goes as it is: %s", self._spec.camera, shot.subject, error)
            return frame
        if reframed is None:
            return frame
        return replace(frame, image=reframed.image, content_type=reframed.content_type, area=reframed.area)

    def _with_references(self, frame: Frame, shot: Shot) -> Frame:
        """Put what does not travel in the record into the object store: large images, kept originals.

        Raises:
            StoreUnavailable: there is none, or it was away for longer than a live camera can wait.
        """
        if frame.image is not shot.image and self._keeps_original(frame.sequence or 0):
            try:
                frame = replace(frame, original=self._put(shot.image, shot.subject))
            except StoreUnavailable as error:
                logger.warning("camera %s: no original of %s: %s", frame.camera, shot.subject, error)
        if len(frame.image) > INLINE_LIMIT_BYTES:
            frame = replace(frame, image=b"", dataref=self._put(frame.image, shot.subject))
        return frame

    def _keeps_original(self, sequence: int) -> bool:
        keep = self._spec.keep_original
        return keep is OriginalPolicy.ALL or (
            keep is OriginalPolicy.SAMPLE and sequence % _SAMPLED_ORIGINALS == 0
        )

    def _put(self, image: bytes, subject: str) -> ImageReference:
        store = self._store
        if store is None:
            raise StoreUnavailable(f"{subject} has {len(image) / 1e6:.1f} MB, and there is no object store.")
        patience_s = None if self._spec.shed is ShedPolicy.BLOCK else _STORE_PATIENCE_S
        return self._patiently(lambda: store.put_image(FRAMES_BUCKET, image), store_patience_s=patience_s)

    def _patiently(self, attempt: Callable[[], T], *, store_patience_s: float | None = None) -> T:
        """Try until it works: while the spool, the disk or the store is away the camera waits.

        Raises:
            _Stopped: a stop was asked meanwhile.
            StoreUnavailable: the store was away for `store_patience_s`.
        """
        pause_s, began_s = _FIRST_PAUSE_S, self._clock.monotonic_s()
        while True:
            try:
                done = attempt()
            except Overloaded:
                # Room is made by the sender; nothing has to be asked for more patience.
                if self._camera is not None:
                    self._camera.wait_for_room(_PROGRESS_EVERY_S)
                self._pause(0.0)
                continue
            except StoreUnavailable as error:
                if store_patience_s is not None and self._clock.monotonic_s() - began_s >= store_patience_s:
                    raise
                logger.warning("camera %s waits: %s", self._spec.camera, error)
            except StorageFull as error:
                if not self._progress.is_disk_full:
                    logger.warning("camera %s waits: %s", self._spec.camera, error)
                self._progress = replace(self._progress, is_disk_full=True)
            else:
                if self._progress.is_disk_full:
                    self._progress = replace(self._progress, is_disk_full=False)
                return done
            self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        """Wait, in steps in which progress is told."""
        end_s = self._clock.monotonic_s() + pause_s
        while not self._stop.is_set():
            self._tick()
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            self._stop.wait(min(left_s, _PROGRESS_EVERY_S))
        raise _Stopped

    def _look(self, shot: Shot) -> None:
        """Let somebody look at a picture, now and then."""
        now_s = self._clock.monotonic_s()
        if self._spec.health is not None and now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            self._progress = replace(self._progress, picture=self._spec.health.look(shot.image, now_s))

    def _tick(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            self._on_progress(self.progress())


def run_cameras(
    specs: Sequence[CameraSpec],
    bootstrap: str,
    stop: Event,
    on_progress: ProgressCallback = ignore_progress,
    *,
    spool_folder: Path,
    store: ObjectStore | None = None,
    limits: Limits | None = None,
    on_leftovers: Callable[[Sequence[Leftover]], None] = lambda _: None,
) -> tuple[Progress, ...]:
    """Run cameras side by side, a thread each, over one spool and one sender; return how each ended.

    Blocks until all have ended and Kafka has what they captured, or `limits.stop_timeout_s` has passed:
    then the rest stays in the spool, and the next run with it begins by sending that.
    An error in one camera stops the others gracefully.

    Args:
        specs: what to run.
        bootstrap: addresses of brokers, comma separated.
        stop: ends the run when set.
        on_progress: called from the cameras' threads.
        spool_folder: where frames wait for Kafka; nobody else's.
        store: takes images above the inline limit.
        limits: of what is on its way.
        on_leftovers: told what an earlier run left, if it left something.

    Raises:
        BadRequest: two cameras of one id.
        BadSettings: the spool is in use by another process.
        BrokerUnavailable: no broker answers at the start.
        SizeLimitsDisagree: the largest frame does not pass Kafka.
    """
    if len({spec.camera for spec in specs}) < len(specs):
        raise BadRequest("Two cameras have the same id; sequences would collide.")
    limits, clock = limits or Limits(), SystemClock()
    with closing(Spool(spool_folder, clock=clock)) as spool:
        # Opened here: a person who named a wrong address is to hear of it at once.
        check_size_limits(bootstrap, [FRAMES])
        producer = KafkaBrokerProducer(bootstrap, delivery_timeout_s=limits.delivery_timeout_s)
        if spool.leftovers:
            on_leftovers(spool.leftovers)
        sender = Sender(spool, lambda: producer, clock, limits=limits)
        sender.start()
        ingesters = [Ingester(spec, spool, clock, store=store) for spec in specs]

        def run_one(ingester: Ingester) -> None:
            try:
                ingester.run(stop, on_progress)
            except BaseException:
                stop.set()
                raise

        try:
            with ThreadPoolExecutor(max(1, len(specs)), thread_name_prefix="camera") as pool:
                list(pool.map(run_one, ingesters))
        finally:
            if not sender.flush(limits.stop_timeout_s):
                logger.warning("Kafka does not have all frames; the rest waits in %s", spool_folder)
            sender.stop()
        ended = tuple(ingester.progress() for ingester in ingesters)
    for progress in ended:
        on_progress(progress)
    return ended
