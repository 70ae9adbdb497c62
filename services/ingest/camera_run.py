"""One camera's thread: opens its source, runs its ingester, and keeps how that ended (arrow 1).

Nothing that happens in it leaves it: the supervisor reads `outcome`. Decides nothing about trying again.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from services.domain.camera import CameraState
from services.domain.errors import BadRequest, LoupeError, RetryLater, SourceUnavailable, StorageFull
from services.ingest.camera_health import Told
from services.ingest.camera_rows import StoredCamera
from services.ingest.spec import Progress

logger = logging.getLogger(__name__)

RunCamera = Callable[[StoredCamera, Event, Callable[[Progress], None]], Progress]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        told: the state and sentence for it; `ENDED` for a source that is through.
        is_final: nothing but a change of its configuration makes another try worth while.
    """

    told: Told
    is_final: bool = False


class CameraRun:
    """A run of one camera, from `start` on."""

    def __init__(self, stored: StoredCamera, run: RunCamera, now_s: Callable[[], float]) -> None:
        """Prepare; `now_s` is a monotonic clock."""
        self.stored, self._run, self._now_s = stored, run, now_s
        self.stop = Event()
        self.started_s = self.seen_s = now_s()
        self.stop_asked_s: float | None = None
        self.progress: Progress | None = None
        self.outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"camera {stored.camera.camera}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask; harmless twice."""
        if self.stop_asked_s is None:
            self.stop_asked_s = self._now_s()
        self.stop.set()

    @property
    def is_over(self) -> bool:
        """Tell whether nothing of it runs any more."""
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _see(self, progress: Progress) -> None:
        self.progress, self.seen_s = progress, self._now_s()

    def _work(self) -> None:
        try:
            self._see(self._run(self.stored, self.stop, self._see))
            self.outcome = Outcome(Told(CameraState.ENDED), is_final=True)
        except LoupeError as error:
            self.outcome = _outcome_of(error)
        except Exception as error:  # noqa: BLE001 - one camera's fault is no other's; it is told and logged
            name = type(error).__name__
            # Messages of libraries may hold the address with its password; types and lines do not.
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("camera %s: unforeseen %s\n%s", self.stored.camera.camera, name, trace)  # noqa: TRY400
            self.outcome = Outcome(Told(CameraState.FAILED, f"An unforeseen fault: {name}."))


def _outcome_of(error: LoupeError) -> Outcome:
    if isinstance(error, SourceUnavailable):
        known = {state.value for state in CameraState}
        state = CameraState(error.state) if error.state in known else CameraState.UNREACHABLE
        return Outcome(Told(state, error.message))
    if isinstance(error, StorageFull):
        return Outcome(Told(CameraState.DISK_FULL, error.message))
    if isinstance(error, RetryLater):
        return Outcome(Told(CameraState.UNREACHABLE, error.message))
    if isinstance(error, BadRequest):
        return Outcome(Told(CameraState.MISCONFIGURED, error.message), is_final=True)
    return Outcome(Told(CameraState.FAILED, f"{error.cause}: {error.message}"))
