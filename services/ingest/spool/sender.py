"""Sends what the spool holds to Kafka, in order per camera, until Kafka has it (arrows 1, 8). One thread.

Frames that were just accepted go from memory; a backlog is read back at a bounded rate, cameras in turn,
so that others' live frames pass it by. What the producer gives up is sent again: that frame and all of
its camera after it, so some arrive twice, and are recognised by their ids.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.errors import ImageTooLarge, LoupeError, RetryLater, StopProcess, StorageFull
from services.domain.topics import MIB
from services.ingest.in_flight import InFlight, Limits
from services.ingest.spool.lane import Spooled
from services.ingest.spool.outbox import OpenEntry
from services.ingest.spool.replay import ReplayRate
from services.ingest.spool.spool import Spool
from services.ingest.spool.spool_metrics import SpoolMetrics

logger = logging.getLogger(__name__)

# A third of what one disk and one broker take beside live traffic on two cores.
REPLAY_BYTES_PER_S = 48.0 * MIB
# "About every second": how late the ledger hears of a frame at most, while Kafka answers.
_DECLARE_EVERY_S = 1.0
# How long what Kafka has stays on disk: a crash within it sends those frames a second time.
_FLUSH_EVERY_S = 0.1
_MEASURE_EVERY_S = 1.0
_IDLE_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Sender:
    """The way out of one spool.

    A test drives it by `step`; a process by `start`, `flush` and `stop`.
    """

    def __init__(
        self,
        spool: Spool,
        open_producer: Callable[[], Producer],
        clock: Clock,
        *,
        limits: Limits | None = None,
        replay_bytes_per_s: float = REPLAY_BYTES_PER_S,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare to send.

        Args:
            spool: what to send.
            open_producer: called by the sender's thread until it returns; may raise BrokerUnavailable, and
                a `StopProcess` ends the sender.
            clock: for rates and pauses.
            limits: of what is on its way.
            replay_bytes_per_s: by how much backlogs shrink at most.
            metrics: where sizes and counts are shown.
        """
        self._spool, self._feed, self._clock = spool, spool.feed, clock
        self._open_producer = open_producer
        self._producer: Producer | None = None
        self._in_flight = InFlight(limits or Limits())
        now_s = clock.monotonic_s()
        self._replay = ReplayRate(replay_bytes_per_s, now_s)
        self._metrics = SpoolMetrics(spool.feed, metrics) if metrics else None
        self._declared_s = self._flushed_s = self._measured_s = now_s - _DECLARE_EVERY_S
        # After a failure nothing is sent until then; the pause doubles until something arrives.
        self._pause_s, self._resume_s = _FIRST_PAUSE_S, now_s
        self._is_flushing = False
        self._on_stop: Callable[[StopProcess], None] = lambda _: None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sender")

    def start(self, on_stop: Callable[[StopProcess], None] = lambda _: None) -> None:
        """Begin to send; `on_stop` is told, by the sender's thread, what no patience mends."""
        self._on_stop = on_stop
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Block until Kafka has all that the spool holds; False if not within `timeout_s`."""
        self._is_flushing = True
        try:
            return self._spool.wait_until_settled(timeout_s)
        finally:
            self._is_flushing = False

    def stop(self) -> None:
        """End; what is not acknowledged stays in the spool. The spool may be closed after it."""
        self._stopping.set()
        if self._thread.is_alive():
            # The library blocks in `send` until its own timeout while it knows no broker.
            self._thread.join(5.0)
        self._in_flight.close()
        if self._producer is not None:
            self._producer.close()

    def step(self) -> bool:
        """Do all that can be done now; tell whether something was sent."""
        now_s = self._clock.monotonic_s()
        self._keep_house(now_s)
        self._replay.grow(now_s, self._feed.take_deferred_bytes())
        if self._is_backing_off or not self._has_producer():
            return False
        return self._send_entries() | self._send_frames()

    def _send_entries(self) -> bool:
        has_sent = False
        while not self._is_backing_off and (entry := self._feed.take_entry()) is not None:
            has_sent |= self._send_entry(entry)
        return has_sent

    def _send_frames(self) -> bool:
        has_sent = False
        for camera, is_replay in self._feed.waiting():
            if is_replay and not self._replay.may_send:
                continue
            if self._is_backing_off or not self._in_flight.wait_for_room(_IDLE_S):
                break
            has_sent |= self._send_frame(camera)
        return has_sent

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self.step():
                    self._wait()
            except StorageFull as error:
                logger.warning("%s", error)
                self._back_off()
            except StopProcess as error:
                logger.error("nothing is sent any more: %s", error)  # noqa: TRY400 - a sentence for people
                self._on_stop(error)
                return
            except Exception:
                # Nothing is lost by going on, and everything would stand still without this thread.
                logger.exception("the sender failed and goes on")
                self._back_off()

    def _wait(self) -> None:
        if self._is_backing_off:
            self._stopping.wait(_IDLE_S)
        else:
            self._feed.wait_for_work(_IDLE_S)

    def _keep_house(self, now_s: float) -> None:
        if self._is_flushing or now_s - self._declared_s >= _DECLARE_EVERY_S:
            self._declared_s = now_s
            self._feed.declare()
        if now_s - self._flushed_s >= _FLUSH_EVERY_S:
            self._flushed_s = now_s
            self._feed.flush()
        if self._metrics is not None and now_s - self._measured_s >= _MEASURE_EVERY_S:
            self._measured_s = now_s
            self._metrics.show()

    def _has_producer(self) -> bool:
        if self._producer is None:
            try:
                self._producer = self._open_producer()
            except RetryLater as error:
                logger.warning("frames wait on disk: %s", error)
                self._back_off()
        return self._producer is not None

    def _send_frame(self, camera: int) -> bool:
        spooled = self._feed.take(camera)
        if spooled is None or self._producer is None:
            return False
        if spooled.is_replayed:
            self._replay.spend(spooled.size_bytes)
        try:
            delivery = self._producer.send(spooled.record)
        except LoupeError as error:
            self._end_frame(spooled, error)
            return False
        self._in_flight.add(delivery, spooled.size_bytes, lambda error: self._end_frame(spooled, error))
        return True

    def _end_frame(self, spooled: Spooled, error: LoupeError | None) -> None:
        """Note what became of a frame; also called by the thread that waits for acknowledgements."""
        if error is None:
            self._pause_s = _FIRST_PAUSE_S
            self._feed.acknowledge(spooled)
        elif isinstance(error, ImageTooLarge):
            logger.warning("a frame is shed: %s", error)
            self._feed.refuse(spooled)
        else:
            # First the pause: in it what Kafka never takes is crossed out, and so not read back.
            self._back_off()
            self._feed.give_up(spooled)

    def _send_entry(self, entry: OpenEntry) -> bool:
        if self._producer is None:
            return False
        try:
            delivery = self._producer.send(entry.record)
        except LoupeError as error:
            self._end_entry(entry, error)
            return False
        self._in_flight.add(delivery, len(entry.record.value), lambda error: self._end_entry(entry, error))
        return True

    def _end_entry(self, entry: OpenEntry, error: LoupeError | None) -> None:
        if error is None:
            self._feed.acknowledge_entry(entry)
        else:
            self._back_off()
            self._feed.give_up_entry(entry)

    @property
    def _is_backing_off(self) -> bool:
        return self._clock.monotonic_s() < self._resume_s

    def _back_off(self) -> None:
        self._resume_s = self._clock.monotonic_s() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
