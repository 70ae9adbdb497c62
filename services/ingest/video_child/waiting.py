"""Pictures on their way from the reader to the parent: few, and for cameras the newest (arrow 1)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from av.video.frame import VideoFrame

from services.ingest.video_child.messages import Damaged, End

# Decoded 1080p pictures have 3 MB, 4K ones 12 MB.
_MAX_WAITING = 4
# The network delivers pictures in bursts; only what is older gives way to a newer one.
_FRESH_S = 0.1
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture that nobody has asked for yet; see `Picture`."""

    number: int
    position: int
    decoded_s: float
    decoded_monotonic_s: float
    pixels: VideoFrame | bytes


class Waiting:
    """A bounded queue between the reader's thread, the parent's wishes and the sender."""

    def __init__(self, *, is_live: bool) -> None:
        """Begin empty; nothing is wished for yet."""
        self._is_live = is_live
        self._items: deque[Decoded | Damaged] = deque()
        self._end: End | None = None
        self._wished = 0
        self._changed = Condition()

    def wish(self, count: int) -> None:
        """Note that the parent takes so many more."""
        with self._changed:
            self._wished += count
            self._changed.notify_all()

    def put(self, item: Decoded | Damaged, on_wait: Callable[[], None]) -> None:
        """Add one; a film waits for room, a camera lets its oldest picture go.

        Args:
            item: what was read.
            on_wait: called twice a second meanwhile.
        """
        with self._changed:
            while not self._is_live and len(self._items) >= _MAX_WAITING:
                self._changed.wait(_LOOK_EVERY_S)
                on_wait()
            if len(self._items) >= _MAX_WAITING:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()

    def end(self, end: End) -> None:
        """Say that nothing follows."""
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Decoded | Damaged | End | None:
        """Return what to send next; None when there is nothing, or no wish for it, in time."""
        with self._changed:
            self._changed.wait_for(self._is_ready, timeout_s)
            if not self._is_ready():
                return None
            if not self._items:
                return self._end
            if self._is_live:
                self._pass_over_old()
            self._wished -= 1
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def _is_ready(self) -> bool:
        return (self._wished > 0) if self._items else self._end is not None

    def _pass_over_old(self) -> None:
        oldest_monotonic_s = time.monotonic() - _FRESH_S
        while len(self._items) > 1:
            first = self._items[0]
            if isinstance(first, Decoded) and first.decoded_monotonic_s >= oldest_monotonic_s:
                return
            self._items.popleft()
