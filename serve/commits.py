"""Which offsets may be committed: contiguous per partition, last done + 1 (arrow 3).

Pure bookkeeping; commits nothing itself. Offsets may have holes, as compacted or transactional topics do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from services.adapters.broker import Partition


@dataclass(slots=True)
class _Progress:
    """One partition: `begun` in order of offset, those of them that are `done`, and where it stands."""

    begun: deque[int] = field(default_factory=deque)
    done: set[int] = field(default_factory=set)
    highest: int = -1
    next_offset: int | None = None
    committed: int | None = None


class OffsetTracker:
    """Offsets begun and done; thread-safe."""

    def __init__(self) -> None:
        """Know no partition yet."""
        self._partitions: dict[Partition, _Progress] = {}
        self._lock = threading.Lock()

    def begin(self, partition: Partition, offset: int) -> None:
        """Note a record that was polled; offsets rise within a partition.

        One that does not was delivered again, so what was known of the partition no longer holds.
        """
        with self._lock:
            progress = self._partitions.get(partition)
            if progress is None or offset <= progress.highest:
                progress = self._partitions[partition] = _Progress()
            progress.begun.append(offset)
            progress.highest = offset

    def done(self, partition: Partition, offset: int) -> None:
        """Note that a record has its end, acknowledged; one that is not begun is ignored."""
        with self._lock:
            progress = self._partitions.get(partition)
            if progress is None or offset not in progress.begun:
                return
            progress.done.add(offset)
            while progress.begun and progress.begun[0] in progress.done:
                finished = progress.begun.popleft()
                progress.done.remove(finished)
                progress.next_offset = finished + 1

    def committable(self) -> dict[Partition, int]:
        """Return the next offset per partition where it moved since `committed`."""
        with self._lock:
            return {
                partition: progress.next_offset
                for partition, progress in self._partitions.items()
                if progress.next_offset is not None and progress.next_offset != progress.committed
            }

    def committed(self, next_offsets: Mapping[Partition, int]) -> None:
        """Note what the broker has taken."""
        with self._lock:
            for partition, offset in next_offsets.items():
                if partition in self._partitions:
                    self._partitions[partition].committed = offset

    def drop(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another member reads now."""
        with self._lock:
            for partition in partitions:
                self._partitions.pop(partition, None)
