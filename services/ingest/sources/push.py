"""Pictures that somebody pushes over HTTP: the hand-over between requests and a camera's thread (arrow 1).

Requests offer, the camera's thread takes; what waits in between is bounded. A request that gives up takes
its picture back unless the camera has it already, so nothing but that one is captured without its sender
being told. Knows no HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event

from services.domain.errors import Overloaded, RetryLater, SourceUnavailable
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.ingest.sources.protocol import Settled, Shot

# What waits for a camera at most: some pictures of usual size, or one of the largest.
MAX_WAITING_SHOTS = 16
MAX_WAITING_BYTES = CLAIM_LIMIT_BYTES
_IDLE_S = 0.4

OnEnd = Callable[[Settled | RetryLater], None]


class Offer:
    """One pushed picture on its way to its camera; ends once, by `on_end`."""

    def __init__(self, shot: Shot, on_end: OnEnd) -> None:
        """Wait to be taken."""
        self._on_end = on_end
        self.shot = replace(shot, on_settled=self.end)
        self._has_ended = threading.Lock()

    def end(self, outcome: Settled | RetryLater) -> None:
        """Tell the request; only the first outcome counts."""
        if self._has_ended.acquire(blocking=False):
            self._on_end(outcome)


class PushSource:
    """See `Source`; `offer` and `withdraw` are called by the door's threads."""

    def __init__(self, camera: str) -> None:
        """Take nothing until `shots` runs."""
        self._camera = camera
        self._changed = threading.Condition()
        self._waiting: deque[Offer] = deque()
        self._waiting_bytes = 0
        self._is_open = False

    def offer(self, offer: Offer) -> None:
        """Hand a picture over; never blocks.

        Raises:
            SourceUnavailable: the camera does not run now.
            Overloaded: as much as may wait is waiting.
        """
        size_bytes = len(offer.shot.image)
        with self._changed:
            if not self._is_open:
                raise SourceUnavailable(f"Camera {self._camera} does not run now.", "starting")
            is_full = len(self._waiting) >= MAX_WAITING_SHOTS
            if is_full or (self._waiting and self._waiting_bytes + size_bytes > MAX_WAITING_BYTES):
                raise Overloaded(f"Camera {self._camera} has {len(self._waiting)} pictures to take first.")
            self._waiting.append(offer)
            self._waiting_bytes += size_bytes
            self._changed.notify()

    def withdraw(self, offer: Offer) -> bool:
        """Take a picture back; False when the camera has it, and may yet capture it."""
        with self._changed:
            if offer not in self._waiting:
                return False
            self._waiting.remove(offer)
            self._waiting_bytes -= len(offer.shot.image)
            return True

    def shots(self, stop: Event) -> Iterator[Shot | None]:
        """See `Source.shots`."""
        with self._changed:
            self._is_open = True
        try:
            while not stop.is_set():
                taken = self._take()
                yield taken.shot if taken else None
        finally:
            self._close()

    def _take(self) -> Offer | None:
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._waiting), _IDLE_S):
                return None
            taken = self._waiting.popleft()
            self._waiting_bytes -= len(taken.shot.image)
            return taken

    def _close(self) -> None:
        """Refuse what still waits: it was not captured, and its sender may send it again."""
        with self._changed:
            self._is_open = False
            refused, self._waiting = list(self._waiting), deque()
            self._waiting_bytes = 0
        for offer in refused:
            offer.end(SourceUnavailable(f"Camera {self._camera} was stopped.", "starting"))
