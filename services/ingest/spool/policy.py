"""What a camera does with the next frame while its part of the spool fills: pure, by policy."""

from __future__ import annotations

from enum import Enum, auto

from services.domain.camera import ShedPolicy
from services.domain.ledger import ShedReason


class Step(Enum):
    """What to do with a frame."""

    KEEP = auto()
    WAIT = auto()
    DROP_OLDEST = auto()  # make room, then keep


def step_of(
    policy: ShedPolicy, *, used_bytes: int, size_bytes: int, share_bytes: int, sequence: int
) -> Step | ShedReason:
    """Return what to do with the frame `sequence` of `size_bytes`, or why it is let go.

    Args:
        policy: of the camera.
        used_bytes: what the camera has in the spool.
        size_bytes: of the frame.
        share_bytes: what the camera may have in the spool; a frame above it is kept if it is alone.
        sequence: by which sampling chooses: evenly, and the same after a restart.
    """
    if used_bytes > 0 and used_bytes + size_bytes > share_bytes:
        match policy:
            case ShedPolicy.BLOCK:
                return Step.WAIT
            case ShedPolicy.DROP_OLDEST:
                return Step.DROP_OLDEST
            case _:
                return ShedReason.DROPPED_NEWEST
    if policy is ShedPolicy.SAMPLE and sequence % _one_in(used_bytes / share_bytes):
        return ShedReason.SAMPLED
    return Step.KEEP


def _one_in(full_ratio: float) -> int:
    """Return of how many frames one is kept: 1 below half full, then 2, 4, 8, ... each half way on.

    Every step gets half of the room that was left, so an outage of unknown length is seen to its end.
    """
    one_in, left_ratio = 1, 1.0 - full_ratio
    while left_ratio <= 0.5 and one_in < 1024:
        one_in, left_ratio = one_in * 2, left_ratio * 2
    return one_in
