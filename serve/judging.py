"""From a batch of polled frames to an end for each: verdict, rejection, or declared drop (arrows 2, 3).

Waits as long as nobody can judge, because the frames are not to blame for that. A batch on which a
healthy unit fails repeatedly is taken apart, and a frame that fails alone is rejected. Publishes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from serve.units import Units, error_named
from services.adapters.clock import Clock
from services.adapters.object_store import ObjectStore
from services.domain.errors import (
    FrameCrashesModel,
    HashMismatch,
    ImageTooLarge,
    LoupeError,
    Rejected,
    RetryLater,
)
from services.domain.frame import Frame, ImageReference
from services.domain.hosting import Route
from services.domain.inspection import Inspection, Role
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.wire.batch import Outcome, Rejection
from services.wire.record import Record

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A batch is taken apart after this many failures, and a frame alone given up after this many (promise P3).
BATCH_TRIES = 2
FRAME_TRIES = 3
# A unit heals in about 3 s; longer pauses would only add to that.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that will never have a verdict, and how often it was tried."""

    error: LoupeError
    tries: int = 1


End = Inspection | Refused | ShedReason


@dataclass(frozen=True, slots=True)
class Item:
    """A frame on its way through the stream.

    Attributes:
        record: where it came from, whole, for a dead letter.
        route: who judges it.
        end: known already; then nobody is asked.
        shadows: who judges it as well, once it has its end.
    """

    record: Record
    frame: Frame
    route: Route
    end: End | None = None
    shadows: tuple[Route, ...] = ()

    @property
    def claimed_bytes(self) -> int:
        """Bytes that its claim check brings into memory while it is judged; 0 without one.

        A claim that does not tell its size may have any that is judged at all.
        """
        claim = self.frame.dataref
        if claim is None or self.frame.image:
            return 0
        return min(claim.size_bytes or CLAIM_LIMIT_BYTES, CLAIM_LIMIT_BYTES)


class Judge:
    """Finds the end of each frame of a batch; thread-safe."""

    def __init__(
        self, units: Units, store: ObjectStore, clock: Clock, pause: Callable[[str, float], bool]
    ) -> None:
        """Ask `units`.

        Args:
            units: inference units of all projects.
            store: where claim checks are redeemed.
            clock: tells the time.
            pause: waits (project, seconds) before a next try; False when there is to be none,
                because the process stops or the project is no longer hosted.
        """
        self._units, self._store, self._clock, self._pause = units, store, clock, pause

    def judge(self, items: Sequence[Item]) -> list[End]:
        """Return the end of each frame of one project, in order. Blocks, for as long as it takes.

        Raises:
            RetryLater: `pause` said that there is to be no next try; the frames have no end yet.
        """
        ends: dict[int, End] = {}
        frames: dict[int, Frame] = {}
        for index, item in enumerate(items):
            if _is_late(item, self._clock.now()):
                ends[index] = ShedReason.DEADLINE
                continue
            try:
                frames[index] = self._with_pixels(item)
            except Rejected as error:
                ends[index] = Refused(error)
        if frames:
            called_at, called_monotonic_s = self._clock.now(), self._clock.monotonic_s()
            judged = self._ask(items[0].route.project, list(frames.values()))
            round_trip_ms = (self._clock.monotonic_s() - called_monotonic_s) * 1000
            for index, end in zip(frames, judged, strict=True):
                if isinstance(end, Inspection):
                    ends[index] = _completed(end, items[index], called_at, round_trip_ms)
                else:
                    ends[index] = end
        return [ends[index] for index in range(len(items))]

    def _with_pixels(self, item: Item) -> Frame:
        """Redeem a frame's claim check, if it has one."""
        frame, claim = item.frame, item.frame.dataref
        if claim is None or frame.image:
            return frame
        return replace(frame, image=self._patiently(item.route.project, lambda: self._redeem(claim)))

    def _redeem(self, claim: ImageReference) -> bytes:
        """Read what a claim check names; never more than the limit, whatever the claim says of its size."""
        _check_size(claim.uri, claim.size_bytes)
        size_bytes = self._store.entry(claim.uri).size_bytes
        _check_size(claim.uri, size_bytes)
        if claim.size_bytes not in {0, size_bytes}:
            message = f"{claim.uri} has {size_bytes} bytes, its reference says {claim.size_bytes}."
            raise HashMismatch(message, uri=claim.uri)
        return self._store.get_image(claim)

    def _ask(self, project: str, frames: list[Frame]) -> list[End]:
        tries_allowed = BATCH_TRIES if len(frames) > 1 else FRAME_TRIES
        for tries in range(1, tries_allowed + 1):
            try:
                outcomes = self._patiently(project, lambda: self._units.inspect(project, frames))
            except FrameCrashesModel as error:
                logger.warning("%s (try %d of %d)", error.message, tries, tries_allowed)
                failure = error
                if not self._pause(project, FIRST_PAUSE_S * 2**tries):
                    raise RetryLater(error.message) from error
            else:
                return [_end_of(outcome) for outcome in outcomes]
        if len(frames) == 1:
            return [Refused(failure, FRAME_TRIES)]
        return [end for frame in frames for end in self._ask(project, [frame])]

    def _patiently(self, project: str, call: Callable[[], T]) -> T:
        """Call until it is not refused for the moment."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return call()
            except RetryLater as error:
                logger.info("%s; trying again in %.1f s", error.message, pause_s)
                if not self._pause(project, pause_s):
                    raise
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _check_size(uri: str, size_bytes: int) -> None:
    if size_bytes > CLAIM_LIMIT_BYTES:
        message = f"{uri} has {size_bytes} bytes; at most {CLAIM_LIMIT_BYTES} are read."
        raise ImageTooLarge(message, size_bytes=size_bytes, limit_bytes=CLAIM_LIMIT_BYTES)


def _is_late(item: Item, now: datetime) -> bool:
    deadline_s = item.route.deadline_s
    return deadline_s is not None and (now - item.frame.captured_at).total_seconds() > deadline_s


def _end_of(outcome: Outcome) -> End:
    return Refused(error_named(outcome)) if isinstance(outcome, Rejection) else outcome


def _completed(inspection: Inspection, item: Item, called_at: datetime, round_trip_ms: float) -> Inspection:
    """Return the unit's verdict with the route's role and the times before and around the call."""
    recorded_at, unit_ms = item.record.recorded_at, sum(inspection.stage_ms.values())
    stage_ms = {
        # Clocks of cameras and brokers may be ahead of ours; a stage never takes less than nothing.
        "publish": max(0.0, (recorded_at - inspection.captured_at).total_seconds() * 1000),
        "queue": max(0.0, (called_at - recorded_at).total_seconds() * 1000),
        "handle": max(0.0, round_trip_ms - unit_ms),
        **inspection.stage_ms,
    }
    role = Role(item.route.mode.value)
    told = replace(
        inspection, role=role, stage_ms=stage_ms, original=item.frame.original, area=item.frame.area
    )
    # A shadow's verdict is nobody's end: it names no record, and `run` keeps several of them apart.
    return replace(told, run=item.route.project, position=None) if role is Role.SHADOW else told
