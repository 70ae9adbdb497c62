"""Pictures on demand: a record on `loupe.triggers` asks a camera for one (arrow 1).

`TriggerFeed` reads the topic once per process, from now on, and hands triggers to the cameras that run
here; `TriggeredSource` answers each with one picture. Pictures that nobody asked for are no captured
frames: they are not declared.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Event

from services.adapters.broker import Consumer
from services.adapters.clock import Clock
from services.domain.errors import BrokerUnavailable, MalformedRecord
from services.domain.trigger import Trigger
from services.ingest.sources.protocol import Shot, Skipped, Source, Taken, Unreadable
from services.wire.record import Record
from services.wire.trigger import decode_trigger

logger = logging.getLogger(__name__)

# The part has left by then: a picture of the next one under its id would be worse than none.
MAX_AGE_S = 10.0
# More than these, and the camera is slower than the line; the newest are dropped, the parts before them stay.
MAX_WAITING = 64
# A trigger without a picture for so long is declared; a source that is only slow gets there.
PICTURE_WITHIN_S = 5.0
# A live camera that is slower than this answers with the newest picture it has.
NEXT_WITHIN_S = 1.0
_POLL_S = 0.25
_MAX_RECORDS = 500
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trigger and when it came, in monotonic seconds."""

    trigger: Trigger
    since_s: float


@dataclass
class FeedCounts:
    """Triggers that got no picture and are in no ledger, since the start."""

    too_old: int = 0
    too_many: int = 0
    malformed: int = 0
    not_here: int = 0


class TriggerFeed:
    """Reads triggers in a thread of its own, from the first `register` to `close`; thread-safe."""

    def __init__(self, connect: Callable[[], Consumer], clock: Clock) -> None:
        """Prepare.

        Args:
            connect: joins the topic at its end, in a group that no other process is in; may raise
                BrokerUnavailable and is then called again.
            clock: says how old a trigger is.
        """
        self._connect, self._clock = connect, clock
        self._lock = threading.Lock()
        self._queues: dict[str, queue.Queue[Waiting]] = {}
        self._stop = Event()
        self._thread: threading.Thread | None = None
        self.counts = FeedCounts()

    def register(self, camera: str) -> queue.Queue[Waiting]:
        """Return the queue that gets a camera's triggers from now on, in place of one registered before."""
        with self._lock:
            waiting: queue.Queue[Waiting] = queue.Queue(MAX_WAITING)
            self._queues[camera] = waiting
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._work, name="triggers", daemon=True)
                self._thread.start()
        return waiting

    def unregister(self, camera: str, waiting: queue.Queue[Waiting]) -> None:
        """Forget a camera, unless it was registered anew meanwhile."""
        with self._lock:
            if self._queues.get(camera) is waiting:
                del self._queues[camera]

    def close(self) -> None:
        """Stop reading; harmless twice."""
        self._stop.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(10)

    def _work(self) -> None:
        """Read until closed; what goes wrong with Kafka is tried again, from then on."""
        retry_s = _FIRST_RETRY_S
        while not self._stop.is_set():
            try:
                with closing(self._connect()) as consumer:
                    retry_s = _FIRST_RETRY_S
                    self._read(consumer)
            except BrokerUnavailable as error:
                logger.warning("no triggers are read: %s", error)
            except Exception:
                # No camera would get a trigger any more without this thread.
                logger.exception("no triggers are read; they are tried again")
            self._stop.wait(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    def _read(self, consumer: Consumer) -> None:
        while not self._stop.is_set():
            for record in consumer.poll(_POLL_S, _MAX_RECORDS):
                self._hand_over(record)

    def _hand_over(self, record: Record) -> None:
        try:
            trigger = decode_trigger(record)
        except MalformedRecord as error:
            self.counts.malformed += 1
            logger.warning("trigger %s is refused: %s", record.position, error)
            return
        with self._lock:
            waiting = self._queues.get(trigger.camera)
        if waiting is None:
            self.counts.not_here += 1
        elif self._clock.now() - trigger.triggered_at > timedelta(seconds=MAX_AGE_S):
            self.counts.too_old += 1
            logger.warning("camera %s: trigger %s came too late", trigger.camera, trigger.trigger_id)
        else:
            try:
                waiting.put_nowait(Waiting(trigger, time.monotonic()))
            except queue.Full:
                self.counts.too_many += 1
                logger.warning("camera %s: trigger %s is one too many", trigger.camera, trigger.trigger_id)


class TriggeredSource:
    """One picture of another source per trigger, under the trigger's part and lot."""

    def __init__(self, inner: Source, feed: TriggerFeed, camera: str, *, is_live: bool) -> None:
        """Run `inner` for a camera.

        Args:
            inner: what gives pictures.
            feed: what gives triggers.
            camera: whose triggers.
            is_live: pictures pass by unless they are wanted, and the first one after the trigger counts;
                else pictures wait (files, objects, pushes, a film), and each trigger takes the next one.
        """
        self._inner, self._feed, self._camera, self._is_live = inner, feed, camera, is_live

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        """See `Source.shots`."""
        waiting = self._feed.register(self._camera)
        try:
            yield from (self._live if self._is_live else self._next)(waiting, stop)
        finally:
            self._feed.unregister(self._camera, waiting)

    def _next(self, waiting: queue.Queue[Waiting], stop: Event) -> Iterator[Taken | None]:
        """Hold the next picture until a trigger wants it."""
        held: Shot | Unreadable | None = None
        asked: Waiting | None = None
        # The inner source is asked on while nothing is held, so that its troubles are seen without triggers.
        pictures = self._inner.shots(stop)
        while not stop.is_set():
            if held is None:
                found = next(pictures, stop)
                if found is stop:
                    return
                held = found if isinstance(found, Shot | Unreadable) else None
            asked = asked or _take(waiting, _POLL_S if held else 0.0)
            if asked and held:
                yield _answer(asked, held)
                held = asked = None
            elif asked and _age_s(asked) >= PICTURE_WITHIN_S:
                yield _no_picture(asked)
                asked = None
            else:
                yield None

    def _live(self, waiting: queue.Queue[Waiting], stop: Event) -> Iterator[Taken | None]:
        """Look at every picture, and keep the newest in case that none comes in time."""
        newest: Shot | Unreadable | None = None
        newest_s = 0.0
        asked: Waiting | None = None
        for found in self._inner.shots(stop):
            asked = asked or _take(waiting, 0.0)
            if found is not None and not isinstance(found, Skipped):
                newest, newest_s = found, time.monotonic()
            if asked is None:
                yield None
            elif newest and _is_in_time(asked, newest_s):
                yield _answer(asked, newest)
                newest = asked = None
            elif _age_s(asked) >= PICTURE_WITHIN_S:
                yield _no_picture(asked)
                asked = None
            else:
                yield None


def _take(waiting: queue.Queue[Waiting], timeout_s: float) -> Waiting | None:
    try:
        return waiting.get(timeout=timeout_s) if timeout_s else waiting.get_nowait()
    except queue.Empty:
        return None


def _age_s(asked: Waiting) -> float:
    return time.monotonic() - asked.since_s


def _is_in_time(asked: Waiting, picture_s: float) -> bool:
    """Tell whether a live picture answers a trigger: taken after it, or the best that there is by now."""
    is_best = _age_s(asked) >= NEXT_WITHIN_S and asked.since_s - picture_s < PICTURE_WITHIN_S
    return picture_s >= asked.since_s or is_best


def _answer(asked: Waiting, picture: Shot | Unreadable) -> Shot | Unreadable:
    if isinstance(picture, Unreadable):
        return picture
    trigger = asked.trigger
    return replace(
        picture, part_id=trigger.part_id or picture.part_id, lot_id=trigger.lot_id or picture.lot_id
    )


def _no_picture(asked: Waiting) -> Unreadable:
    return Unreadable(asked.trigger.trigger_id, f"There was no picture within {PICTURE_WITHIN_S:g} s.")
