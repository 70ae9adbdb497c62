"""The demo's cameras: the real ingester, one camera per film, in the background."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from uuid import UUID

from services.domain.ledger import SequenceRange, ids_of_ranges
from services.embedded.demo.plan import DemoPlan
from services.ingest.pipeline import CameraSpec, Progress, run_cameras
from services.ingest.sources import FileSource


class Filming:
    """Runs all cameras of a plan while the `with` block lasts; leaving it stops them."""

    def __init__(
        self, plan: DemoPlan, bootstrap: str, *, fps: float, project: str, spool_folder: Path
    ) -> None:
        """Prepare the cameras; frames wait in `spool_folder` for Kafka at `bootstrap`, `fps` per camera."""
        self._specs = [
            CameraSpec(
                camera=film.camera,
                source=FileSource([plan.folder / image.name for image in film.images], root=plan.folder),
                fps=fps,
                project=project,
            )
            for film in plan.films
        ]
        self._bootstrap, self._spool_folder = bootstrap, spool_folder
        self._stop = Event()
        self._lock = Lock()
        self._progress: dict[str, Progress] = {}
        self._pool = ThreadPoolExecutor(1, "filming")
        self._running: Future[tuple[Progress, ...]] | None = None
        self._over_monotonic_s: float | None = None

    def __enter__(self) -> Filming:
        """Start the cameras."""
        self._running = self._pool.submit(
            run_cameras,
            self._specs,
            self._bootstrap,
            self._stop,
            self._tell,
            spool_folder=self._spool_folder,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cameras and wait until they have declared what they captured."""
        self._stop.set()
        self._pool.shutdown(wait=True)

    @property
    def epochs(self) -> tuple[str, ...]:
        """Epochs of the cameras that have begun."""
        with self._lock:
            return tuple(progress.epoch for progress in self._progress.values() if progress.epoch)

    def frame_ids(self) -> dict[str, set[UUID]]:
        """Return the ids of the frames captured so far, by camera."""
        with self._lock:
            known = tuple(self._progress.values())
        return {
            one.camera: ids_of_ranges(one.camera, one.epoch, [SequenceRange(0, one.captured - 1)])
            for one in known
            if one.captured
        }

    def captured(self) -> dict[str, int]:
        """Frames captured so far, by camera."""
        with self._lock:
            return {camera: progress.captured for camera, progress in self._progress.items()}

    def shed(self) -> int:
        """Frames that the cameras declared shed."""
        with self._lock:
            return sum(progress.shed for progress in self._progress.values())

    def over_for_s(self) -> float:
        """Seconds since the last camera ended; 0 while one runs.

        Raises:
            LoupeError: what stopped the cameras before their end.
        """
        if self._running is None or not self._running.done():
            return 0.0
        self._running.result()
        if self._over_monotonic_s is None:
            self._over_monotonic_s = time.monotonic()
        return max(time.monotonic() - self._over_monotonic_s, 1e-3)

    def _tell(self, progress: Progress) -> None:
        with self._lock:
            self._progress[progress.camera] = progress
