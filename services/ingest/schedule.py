"""When the next frame is due: an absolute timetable, so that small delays never add up (arrow 1)."""

from __future__ import annotations

# Later than this and missed frames are not made up: a line that stood still does not rush after.
_REBASE_AFTER_S = 1.0


class Schedule:
    """Due times of frames at a fixed rate, in monotonic seconds; without a rate each is due at once."""

    def __init__(self, fps: float | None, start_s: float) -> None:
        """Let frame 0 be due at `start_s`."""
        self._interval_s = 1.0 / fps if fps else 0.0
        self._start_s, self._frames = start_s, 0

    @property
    def due_s(self) -> float:
        """When the next frame is due."""
        return self._start_s + self._frames * self._interval_s

    def advance(self, now_s: float) -> None:
        """Go on to the next frame; after a long delay the timetable begins anew at `now_s`."""
        if now_s - self.due_s > _REBASE_AFTER_S:
            self._start_s, self._frames = now_s, 0
        self._frames += 1
