"""Frames from Kafka to inspections on Kafka (arrows 1-3): poll, route, judge, publish, commit.

One consumer thread polls, routes and commits; worker threads judge batches and publish what came of
them. A record is done when its verdict, dead letter or ledger entry is acknowledged, and only then may
its offset be committed. Does not judge (`serve.inspector`) and decides nothing about models.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from serve.archive import Archive
from serve.commits import OffsetTracker
from serve.judging import LONGEST_PAUSE_S, End, Item, Judge, Refused
from serve.lanes import Batch, Bounds, Lanes
from serve.publishing import PoisonWatch, Publisher
from serve.shadows import Shadows
from serve.units import Units
from services.adapters.broker import Consumer, Partition, Producer
from services.adapters.clock import Clock
from services.adapters.object_store import ObjectStore
from services.domain.errors import BrokerUnavailable, MalformedRecord, RetryLater
from services.domain.frame import Frame, frame_id_of
from services.domain.hosting import ArchivePolicy, RetentionClass, Route, RouteMode, RouteTable
from services.domain.inspection import Inspection
from services.domain.ledger import ShedReason
from services.wire.frame import UNNAMED_CAMERA, decode_frame
from services.wire.record import Record

logger = logging.getLogger(__name__)

GROUP = "loupe-stream"
# A changed route or a stop is noticed within this; records wake the poll at once.
POLL_S = 0.2
# While full, polls only keep up the membership; a batch that ends wakes the thread earlier.
FULL_POLL_S = 0.05
# The lanes bound the work; this only has to be more than that.
_WORKERS = 64
# A stop waits for batches in flight (10 s), a commit and the farewell to the group.
LEAVE_S = 15.0
# Frames that have their end before anybody is asked share a lane.
_NOBODY = Route(camera_pattern="", project="")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of one stream replica.

    Attributes:
        bounds: what may be in flight.
        commit_interval_s: offsets are committed this often.
        drain_s: what a stop waits for the batches in flight.
        poison_window_frames: the share of poison is taken over so many frames.
        poison_least_frames: fewer bad ones never stop the stream.
        poison_share_ratio: share of bad frames (0-1) above which it stops.
    """

    bounds: Bounds = field(default_factory=Bounds)
    commit_interval_s: float = 0.5
    drain_s: float = 10.0
    poison_window_frames: int = 1000
    poison_least_frames: int = 200
    poison_share_ratio: float = 0.5


def routes_of(user_config: Mapping[str, Any]) -> RouteTable:
    """Return who judges what, by the `user_config` that hosting gave the deployment.

    While no project is hosted, frames wait: some in memory, within the bounds, the rest in Kafka.
    """
    routes = (
        Route(
            camera_pattern=route["camera_pattern"],
            project=route["project"],
            mode=RouteMode(route["mode"]),
            archive=ArchivePolicy(route["archive"]),
            deadline_s=route["deadline_s"],
            share_ratio=route["share_ratio"],
            retention=RetentionClass(route["retention"]),
        )
        for route in user_config.get("routes", ())
    )
    return RouteTable(tuple(routes), user_config.get("projects", ()))


@dataclass(frozen=True, slots=True)
class Outside:
    """What the stream works with.

    Attributes:
        open_consumer: joins the group; told what to call when partitions are taken away.
        open_producer: connects; both raise `BrokerUnavailable` while there is no broker.
    """

    open_consumer: Callable[[Callable[[frozenset[Partition]], None]], Consumer]
    open_producer: Callable[[], Producer]
    units: Units
    store: ObjectStore
    clock: Clock


class StreamCore:
    """One member of the group `loupe-stream`.

    Attributes:
        failure: why it stopped by itself; None while it runs or when it was told to stop.
    """

    # Made by `connect`, before the first step.
    _consumer: Consumer
    _producer: Producer
    _publisher: Publisher

    def __init__(self, outside: Outside, limits: StreamLimits) -> None:
        """Connect nothing yet."""
        self._outside, self._limits = outside, limits
        self._routes = RouteTable()
        self._lanes = Lanes(limits.bounds)
        self._unrouted: deque[Record] = deque()
        self._offsets = OffsetTracker()
        self._poison = PoisonWatch(
            window=limits.poison_window_frames,
            least=limits.poison_least_frames,
            share_ratio=limits.poison_share_ratio,
        )
        self._judge = Judge(outside.units, outside.store, outside.clock, self._pause_for)
        self._archive = Archive(outside.store, self._pause)
        once = Judge(outside.units, outside.store, outside.clock, lambda _project, _seconds: False)
        self._shadows = Shadows(once, self._archive, outside.clock, limits.bounds, self._done)
        self._workers = ThreadPoolExecutor(_WORKERS, "judge")
        self._handing_out = threading.Lock()
        self._stopping = threading.Event()
        self._is_paused = False
        self._commit_after_monotonic_s = 0.0
        self.failure: BaseException | None = None

    def follow(self, routes: RouteTable) -> None:
        """Route by these rules from now on."""
        self._routes = routes

    def run(self) -> None:
        """Consume until told to stop, or until going on makes no sense. Blocks."""
        try:
            if not self.connect():
                return
            try:
                while not self._stopping.is_set():
                    self.step()
                self._drain()
            finally:
                self._consumer.close()
                self._producer.close()
        except BaseException as error:  # noqa: BLE001 - kept for `check_health`, which fails the process
            self._fail(error)
        finally:
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._shadows.close()
            self._archive.close()

    def stop(self) -> None:
        """Have `run` finish the batches in flight, commit, leave the group and return."""
        self._stopping.set()

    def connect(self) -> bool:
        """Connect to the broker and join the group, however long it takes; False when stopped first."""
        while not self._stopping.is_set():
            try:
                self._producer = self._outside.open_producer()
                try:
                    self._consumer = self._outside.open_consumer(self._on_revoked)
                except BrokerUnavailable:
                    self._producer.close()
                    raise
            except BrokerUnavailable as error:
                logger.warning("%s", error.message)
                self._pause(LONGEST_PAUSE_S)
            else:
                self._publisher = Publisher(self._producer, self._outside.clock, self._pause)
                return True
        return False

    def step(self) -> None:
        """Do one round: poll what fits, route it, hand out batches, commit what is done."""
        try:
            polled = self._poll()
        except BrokerUnavailable as error:
            logger.warning("%s", error.message)
            self._pause(LONGEST_PAUSE_S)
            return
        for record in polled:
            self._offsets.begin(_partition_of(record), record.offset)
        self._lanes.admit(polled)
        self._unrouted.extend(polled)
        self._route_waiting()
        self._hand_out()
        self._shadows.give_up_late()
        if self._outside.clock.monotonic_s() >= self._commit_after_monotonic_s:
            self._commit()

    def _poll(self) -> list[Record]:
        """Poll no more than fits; while nothing does, push back to Kafka and only stay a member."""
        room = self._lanes.room()
        if room == 0:
            # Partitions that come with this poll are paused in the next round.
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True
            self._lanes.wait_for_change(FULL_POLL_S)
            return self._consumer.poll(0, 1)
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False
        return self._consumer.poll(POLL_S, room)

    def _route_waiting(self) -> None:
        routes = self._routes
        while routes.projects and self._unrouted:
            self._lanes.add(_item_of(self._unrouted.popleft(), routes))

    def _hand_out(self) -> None:
        with self._handing_out:  # batches of a lane start in their order
            while not self._stopping.is_set() and (batch := self._lanes.next_batch()) is not None:
                self._workers.submit(self._work, batch)

    def _work(self, batch: Batch) -> None:
        """See one batch to its end, on a worker thread."""
        is_done = False
        try:
            is_done = self._see_through(batch)
        except BaseException as error:  # noqa: BLE001 - stops the stream, see `_fail`
            self._fail(error)
        finally:
            self._lanes.finish(batch, is_done=is_done)
            self._hand_out()

    def _see_through(self, batch: Batch) -> bool:
        """Judge and publish; tell whether the frames have their ends."""
        try:
            ends = [item.end for item in batch.items if item.end is not None]
            if not ends:
                ends = self._judge.judge(batch.items)
            ends, keeping = self._archive.begin(batch.items, ends)
            judged_monotonic_s = self._outside.clock.monotonic_s()
            batch.before.wait()
            waited_ms = (self._outside.clock.monotonic_s() - judged_monotonic_s) * 1000
            self._publisher.publish(batch.items, ends, waited_ms)
            keeping.wait()
        except RetryLater:
            if not self._stopping.is_set():  # the project is no longer hosted: route its frames anew
                self._unrouted.extend(item.record for item in batch.items)
            return False
        self._close(batch.items, ends)
        self._poison.note(batch.items, ends)
        return True

    def _close(self, items: Sequence[Item], ends: Sequence[End]) -> None:
        """Let the offsets be committed; where shadows are to look on, once they have, or were given up."""
        for item, end in zip(items, ends, strict=True):
            if item.shadows and isinstance(end, Inspection):
                self._shadows.add(item, self._publisher)
            else:
                self._done(item)

    def _done(self, item: Item) -> None:
        self._offsets.done(_partition_of(item.record), item.record.offset)

    def _commit(self) -> None:
        self._commit_after_monotonic_s = self._outside.clock.monotonic_s() + self._limits.commit_interval_s
        next_offsets = self._offsets.committable()
        if not next_offsets:
            return
        try:
            self._consumer.commit(next_offsets)
        except BrokerUnavailable as error:
            logger.warning("%s", error.message)  # the next round tries again
        else:
            self._offsets.committed(next_offsets)

    def _on_revoked(self, partitions: frozenset[Partition]) -> None:
        """Commit before another member begins to read; what is in flight there is judged twice."""
        self._commit()
        self._offsets.drop(partitions)

    def _drain(self) -> None:
        end_monotonic_s = self._outside.clock.monotonic_s() + self._limits.drain_s
        while self._lanes.calls and self._outside.clock.monotonic_s() < end_monotonic_s:
            self._lanes.wait_for_change(FULL_POLL_S)
        self._shadows.close()
        self._commit()

    def _pause(self, seconds: float) -> bool:
        return not self._stopping.wait(seconds)

    def _pause_for(self, project: str, seconds: float) -> bool:
        return self._pause(seconds) and project in self._routes.projects

    def _fail(self, error: BaseException) -> None:
        """Stop for good; whoever watches over this process starts a new one."""
        if self.failure is None:
            self.failure = error
            logger.critical("the stream stops: %s", error, exc_info=error)
        self._stopping.set()


def _partition_of(record: Record) -> Partition:
    return Partition(record.topic, record.partition)


def _item_of(record: Record, routes: RouteTable) -> Item:
    """Return a polled record with its route, or with its end where nobody is to judge it."""
    try:
        frame = decode_frame(record)
    except Exception as error:  # noqa: BLE001 - no record may stop a partition, whatever is in it
        refused = Refused(MalformedRecord(f"The record cannot be understood: {error}"))
        return Item(record, _nameless(record), _NOBODY, refused)
    judges = routes.judges_of(frame.frame_id, frame.camera, frame.project)
    if judges.counting is None:
        return Item(record, frame, _NOBODY, ShedReason.NO_ROUTE)
    return Item(record, frame, judges.counting, shadows=judges.shadows)


def _nameless(record: Record) -> Frame:
    """Return what stands for a record that is no frame, in its dead letter."""
    frame_id = frame_id_of(
        source=None, event_id=None, camera=UNNAMED_CAMERA, epoch=None, sequence=None, position=record.position
    )
    return Frame(frame_id, UNNAMED_CAMERA, record.recorded_at, b"", position=record.position)


class Stream:
    """The Serve deployment: each replica is one member of the group, however many there are."""

    def __init__(self, make_core: Callable[[], StreamCore]) -> None:
        """Begin to consume; frames wait until `reconfigure` says who judges them."""
        self._core = make_core()
        self._thread = threading.Thread(target=self._core.run, daemon=True, name="consume")
        self._thread.start()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Follow `{projects, routes}`."""
        self._core.follow(routes_of(user_config))

    def check_health(self) -> None:
        """Ask to be replaced once the stream has stopped.

        Raises:
            LoupeError: what stopped it, or that it is gone.
        """
        if self._core.failure is not None or not self._thread.is_alive():
            raise BrokerUnavailable(f"The stream has stopped: {self._core.failure}")

    def __del__(self) -> None:
        """Stop; Serve calls this when it takes the replica away."""
        self._core.stop()
        self._thread.join(LEAVE_S)
