"""What was sent and not yet acknowledged: bounded in number and bytes (arrow 1).

One thread waits for acknowledgements in the order of sending and says what became of each record.
Never sends anything itself, and keeps nothing that would have to be sent again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services.adapters.broker import Delivery
from services.domain.errors import LoupeError
from services.domain.topics import MIB

logger = logging.getLogger(__name__)

# How long one look at the oldest record takes at most; also how soon `close` is noticed.
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be on its way, and for how long.

    Attributes:
        max_in_flight_frames: at 30 frames/s about four seconds of a slow broker.
        max_in_flight_bytes: several of the largest inline images, and small against a pod's memory.
        delivery_timeout_s: when the producer gives a record up, which is then sent again from the spool:
            longer than a broker's restart, because what it took all the same is then there twice.
        stop_timeout_s: how long a stop waits for acknowledgements; shorter than the pod's grace.
    """

    max_in_flight_frames: int = 128
    max_in_flight_bytes: int = 64 * MIB
    delivery_timeout_s: float = 120.0
    stop_timeout_s: float = 20.0


# Told None once a record is acknowledged, else why it was given up.
OnEnd = Callable[[LoupeError | None], None]


@dataclass(frozen=True, slots=True)
class _Sent:
    delivery: Delivery
    size_bytes: int
    on_end: OnEnd


class InFlight:
    """Records on their way; `add` is called by one thread, ends are told from another."""

    def __init__(self, limits: Limits) -> None:
        """Start the waiting thread."""
        self._limits = limits
        self._sent: deque[_Sent] = deque()
        self._size_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._wait_for_ends, daemon=True, name="acknowledgements")
        self._thread.start()

    def __len__(self) -> int:
        """Return how many records are on their way."""
        return len(self._sent)

    def add(self, delivery: Delivery, size_bytes: int, on_end: OnEnd) -> None:
        """Watch a record; `on_end` is called once it is acknowledged or given up, from another thread."""
        with self._changed:
            self._sent.append(_Sent(delivery, size_bytes, on_end))
            self._size_bytes += size_bytes
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Block until one more frame may be sent; False if not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(self._has_room, timeout_s)

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Block until nothing is on its way; False if not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._sent, timeout_s)

    def close(self) -> None:
        """Stop watching; what is still on its way is nobody's concern any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        limits = self._limits
        return len(self._sent) < limits.max_in_flight_frames and self._size_bytes < limits.max_in_flight_bytes

    def _wait_for_ends(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._sent) or self._is_closed)
                if self._is_closed:
                    return
                oldest = self._sent[0]
            is_over, error = _end_of(oldest.delivery)
            if not is_over:
                continue
            oldest.on_end(error)
            with self._changed:
                # Removed after its end was told: "empty" means that all ends are known.
                self._sent.popleft()
                self._size_bytes -= oldest.size_bytes
                self._changed.notify_all()


def _end_of(delivery: Delivery) -> tuple[bool, LoupeError | None]:
    """Return whether a record's end is known, and why it was given up if it was.

    A delivery that has ended answers at once; one that has not uses up its time. Only the
    producer gives up: while a broker is away it may keep records past its timeout and still
    deliver them, so a clock of our own would send frames again that arrive all the same.
    """
    started_s = time.monotonic()
    try:
        delivery.result(_LOOK_EVERY_S)
    except LoupeError as error:
        if time.monotonic() - started_s > _LOOK_EVERY_S / 2:
            return False, None
        logger.warning("a record was given up: %s", error)
        return True, error
    return True, None
