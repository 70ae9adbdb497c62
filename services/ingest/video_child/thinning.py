"""Which pictures are wanted when fewer a second are asked for than there are (arrow 1)."""

from __future__ import annotations

import time

# Time stamps are rounded: to a millisecond in Matroska, for one.
_ROUNDING_S = 0.001


class Thinning:
    """Takes the first picture of each interval of 1 / fps seconds."""

    def __init__(self, fps: float | None, rate_fps: float, *, is_live: bool) -> None:
        """Begin with the next picture.

        Args:
            fps: pictures per second wanted at most; None: all.
            rate_fps: of the film, for pictures that name no time.
            is_live: time is the clock's, because cameras' time stamps jump.
        """
        self._fps, self._step_s, self._is_live = fps, 1 / rate_fps, is_live
        self._first_s: float | None = None
        self._time_s = 0.0
        self._interval = -1

    def wants(self, time_s: float | None) -> bool:
        """Tell whether the next picture is taken.

        Args:
            time_s: its time in the film; None or a step back: one picture after the last.
        """
        if self._fps is None:
            return True
        if self._is_live:
            time_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._time_s = time_s or 0.0
        elif time_s is None or time_s <= self._time_s:
            self._time_s += self._step_s
        else:
            self._time_s = time_s
        interval = int((self._time_s - self._first_s + _ROUNDING_S) * self._fps)
        if interval <= self._interval:
            return False
        self._interval = interval
        return True
