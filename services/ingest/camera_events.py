"""Tells on `loupe.events` when a camera comes into trouble or out of it (arrow 4).

In order, from a thread of its own; while Kafka is away the newest wait in memory, and the oldest are let go
with a line in the log: the state in the database says what counts. Decides no states.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from services.adapters.broker import Producer
from services.domain.camera import TROUBLED
from services.domain.errors import LoupeError
from services.wire.camera_event import CameraChange, encode_camera_event

logger = logging.getLogger(__name__)

# Every one of 10,000 cameras may fall at once, and some of them twice.
MAX_WAITING_EVENTS = 20_000
_ACKNOWLEDGED_WITHIN_S = 30.0
_RETRY_EVERY_S = 2.0


def is_told(change: CameraChange) -> bool:
    """Tell whether people should hear of a change: into trouble, within it, and out of it."""
    return change.state != change.previous and bool({change.state, change.previous} & TROUBLED)


class CameraEvents:
    """Publishes changes; `tell` never blocks."""

    def __init__(
        self, open_producer: Callable[[], Producer], *, retry_every_s: float = _RETRY_EVERY_S
    ) -> None:
        """Connect with the first event; `open_producer` may raise BrokerUnavailable and is tried again."""
        self._open_producer, self._retry_every_s = open_producer, retry_every_s
        self._producer: Producer | None = None
        self._changed = threading.Condition()
        self._waiting: deque[CameraChange] = deque()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def tell(self, change: CameraChange) -> None:
        """Publish a change that people should hear of; others are left out."""
        if not is_told(change):
            return
        logger.warning(
            "camera %s: %s, before %s. %s", change.camera, change.state, change.previous, change.message
        )
        with self._changed:
            if len(self._waiting) >= MAX_WAITING_EVENTS:
                lost = self._waiting.popleft()
                logger.error("camera %s: Kafka is away, an event of %s is let go", lost.camera, lost.since)
            self._waiting.append(change)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="camera-events")
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Send what waits, as long as that takes at most."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._is_closing)
                if not self._waiting:
                    break
                batch = list(self._waiting)
            sent = self._send(batch)
            with self._changed:
                for change in batch[:sent]:
                    # It may have been let go meanwhile.
                    if self._waiting and self._waiting[0] is change:
                        self._waiting.popleft()
                if sent < len(batch):
                    if self._is_closing:
                        break
                    self._changed.wait_for(lambda: self._is_closing, self._retry_every_s)
        if self._producer:
            self._producer.close()

    def _send(self, batch: list[CameraChange]) -> int:
        """Return how many of these, from the first on, Kafka has acknowledged."""
        sent = 0
        try:
            self._producer = self._producer or self._open_producer()
            deliveries = [self._producer.send(encode_camera_event(change)) for change in batch]
            for delivery in deliveries:
                delivery.result(_ACKNOWLEDGED_WITHIN_S)
                sent += 1
        except LoupeError as error:
            logger.warning("%d camera events wait: %s", len(batch) - sent, error)
        return sent
