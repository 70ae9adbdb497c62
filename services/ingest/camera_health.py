"""Which state a running camera is in, from what its ingester counts (arrow 1). Pure: is told the time.

A state that a camera is in has to be over for a while before another is told, so that events do not flap.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.domain.camera import TROUBLED, Camera, CameraState
from services.ingest.spec import Progress

# Longer than any acknowledgement of a healthy broker takes.
SPOOLING_AFTER_S = 5.0
# How long a picture state or a full spool has to be over before the camera is well again.
WELL_AFTER_S = 5.0
# A source that is opened and gives nothing yet: a folder without new files is well.
OPENED_AFTER_S = 2.0
_PICTURES = {
    CameraState.FROZEN: "The picture has not changed for some time.",
    CameraState.DARK: "The picture is black, or nearly so.",
    CameraState.BLURRED: "The picture is out of focus.",
}


@dataclass(frozen=True, slots=True)
class Told:
    """A state and its sentence."""

    state: CameraState
    message: str = ""


class CameraHealth:
    """The state of one run, from `STARTING`, or from the trouble that the last run ended in."""

    def __init__(self, camera: Camera, known: Told, now_s: float) -> None:
        """Begin a run at monotonic `now_s` with what is known of the camera."""
        self._camera = camera
        # A folder, a bucket or a door without pictures is well; a stream or a USB camera is not.
        self._may_be_still = camera.is_triggered or camera.source.startswith(("/", "s3:", "push:"))
        self.told = known if known.state in TROUBLED else Told(CameraState.STARTING)
        self._captured, self._captured_s = 0, now_s
        self._other_since_s: float | None = None

    def see(self, progress: Progress, now_s: float) -> Told:
        """Return the state after a look at monotonic `now_s`."""
        if progress.captured > self._captured:
            self._captured, self._captured_s = progress.captured, now_s
        found = self._found(progress, now_s)
        if found.state is self.told.state:
            self.told, self._other_since_s = found, None
            return self.told
        if self._other_since_s is None:
            self._other_since_s = now_s
        if now_s - self._other_since_s >= self._patience_s(found, progress):
            self.told, self._other_since_s = found, None
        return self.told

    def _patience_s(self, found: Told, progress: Progress) -> float:
        """Return how long another state has to last before it is told."""
        if self.told.state is CameraState.STARTING:
            return 0.0 if progress.captured or found.state in TROUBLED else OPENED_AFTER_S
        return WELL_AFTER_S if self.told.state in TROUBLED else 0.0

    def _found(self, progress: Progress, now_s: float) -> Told:
        if progress.is_disk_full:
            return Told(
                CameraState.DISK_FULL, "The disk of the spool is full; the next frame waits for room."
            )
        if progress.is_shedding:
            return Told(CameraState.SHEDDING, "The spool is full: frames are dropped by policy.")
        limit_s = self._camera.silent_after_s
        if limit_s is not None and now_s - self._captured_s > limit_s:
            return Told(CameraState.SILENT, f"No picture for more than {limit_s:g} s.")
        if progress.picture:
            return Told(progress.picture, _PICTURES.get(progress.picture, ""))
        if not (progress.captured or self._may_be_still):
            return self.told
        if progress.oldest_s > SPOOLING_AFTER_S:
            return Told(CameraState.SPOOLING, "Kafka takes no frames, or too few; they wait on disk.")
        return Told(CameraState.RUNNING)
