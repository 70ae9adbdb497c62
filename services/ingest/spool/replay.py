"""How fast a backlog is sent: a bounded rate on top of what comes in meanwhile."""

from __future__ import annotations


class ReplayRate:
    """A budget of bytes that may be read back and sent now.

    It grows with time and with what is accepted into backlogs, so a backlog shrinks by
    `bytes_per_s` however much comes in; it never grows beyond one second's worth.
    """

    def __init__(self, bytes_per_s: float, now_s: float) -> None:
        """Begin with a full second."""
        self._bytes_per_s = self._budget_bytes = bytes_per_s
        self._at_s = now_s

    def grow(self, now_s: float, accepted_bytes: int) -> None:
        """Note the time, and what was accepted into backlogs since the last call."""
        grown_bytes = (now_s - self._at_s) * self._bytes_per_s + accepted_bytes
        self._budget_bytes = min(self._budget_bytes + grown_bytes, self._bytes_per_s)
        self._at_s = now_s

    @property
    def may_send(self) -> bool:
        """Tell whether a frame may be read back now, of whatever size."""
        return self._budget_bytes > 0

    def spend(self, size_bytes: int) -> None:
        """Note a frame that was read back and sent."""
        self._budget_bytes -= size_bytes
