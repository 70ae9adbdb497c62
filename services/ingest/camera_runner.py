"""Runs a camera as configured: its source, what its edge does to pictures, its ingester (arrow 1).

Asks first what is cheap to ask, so that thousands of cameras that are not there cost next to nothing. Keeps
the hand-overs of push cameras for the door. Called by a thread per camera.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Semaphore
from urllib.parse import urlsplit

from services.adapters.clock import Clock
from services.adapters.object_store import ObjectStore
from services.domain.camera import Camera, CameraState
from services.domain.errors import SourceUnavailable
from services.ingest.camera_rows import StoredCamera
from services.ingest.edge import Edge
from services.ingest.picture_health import PictureHealth
from services.ingest.pipeline import Ingester
from services.ingest.sources import Source
from services.ingest.sources.opening import LIVE, SourceKind, check_source, open_camera
from services.ingest.sources.push import PushSource
from services.ingest.sources.triggers import TriggerFeed
from services.ingest.spec import CameraSpec, Progress
from services.ingest.spool import Spool

# A camera on the same network answers within milliseconds.
_CONNECT_WITHIN_S = 5.0
# Loading Python and FFmpeg takes a third of a second of a core; hundreds at once would all be late.
MAX_OPENINGS = 8
_OPENING_S = 10.0
_SIGN_EVERY_S = 0.4
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


class CameraRunner:
    """What the cameras of one process share; `run` is the supervisor's `RunCamera`."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        feed: TriggerFeed,
        *,
        open_store: Callable[[], ObjectStore],
        secret_of: Callable[[str | None], str | None],
    ) -> None:
        """Prepare.

        Args:
            spool: where frames go.
            clock: for capture times and pacing.
            feed: gives triggers.
            open_store: returns the object store; called once, by the first camera.
            secret_of: returns the secret that a configured one stands for.
        """
        self._spool, self._clock, self._feed, self._secret_of = spool, clock, feed, secret_of
        self._open_store = open_store
        self._lock = Lock()
        self._store: ObjectStore | None = None
        self._pushed: dict[str, PushSource] = {}
        self._openings = Semaphore(MAX_OPENINGS)

    def run(self, stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        """Run a camera until its source ends or `stop` is set.

        Raises:
            SourceUnavailable: it gives no pictures now.
            BadRequest: it cannot run as configured.
        """
        camera = stored.camera
        require_answer(camera.source)
        if not is_read_by_a_process(camera.source):
            return self._run(stored, stop, on_progress)
        with _Opening(self._openings, self._clock) as opening:
            if not opening.wait(stop, lambda: on_progress(Progress(camera.camera))):
                return Progress(camera.camera)

            def see(progress: Progress) -> None:
                opening.see(progress)
                on_progress(progress)

            return self._run(stored, stop, see)

    def _run(self, stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        camera = stored.camera
        store = self._shared_store()
        source = open_camera(
            camera,
            secret=self._secret_of(stored.secret),
            store=store,
            feed=self._feed,
            push=self.pushed_to,
            captured_before=lambda receipt: self._spool.captured_before(camera.camera, receipt),
        )
        spec = spec_of(camera, source)
        return Ingester(spec, self._spool, self._clock, store=store).run(stop, on_progress)

    def pushed_to(self, camera: str) -> PushSource:
        """Return the hand-over of a push camera."""
        with self._lock:
            return self._pushed.setdefault(camera, PushSource(camera))

    def _shared_store(self) -> ObjectStore:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
            return self._store


class _Opening:
    """A camera's turn to start its process: from `wait` to its first picture, for some seconds at most."""

    def __init__(self, openings: Semaphore, clock: Clock) -> None:
        self._openings, self._clock = openings, clock
        self._until_s: float | None = None

    def __enter__(self) -> _Opening:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def wait(self, stop: Event, give_sign: Callable[[], None]) -> bool:
        """Wait for a turn; False when stopped meanwhile."""
        while not self._openings.acquire(timeout=_SIGN_EVERY_S):
            give_sign()
            if stop.is_set():
                return False
        self._until_s = self._clock.monotonic_s() + _OPENING_S
        return True

    def see(self, progress: Progress) -> None:
        """End the turn with the first picture, or when it took long enough."""
        if progress.captured or self._clock.monotonic_s() >= (self._until_s or 0.0):
            self._end()

    def _end(self) -> None:
        if self._until_s is not None:
            self._until_s = None
            self._openings.release()


def is_read_by_a_process(source: str) -> bool:
    """Tell whether a process of its own reads a source: films, streams and USB cameras."""
    return check_source(source) in LIVE | {SourceKind.FILM}


def spec_of(camera: Camera, source: Source) -> CameraSpec:
    """Return what the ingester is asked to do."""
    kind = check_source(camera.source)
    is_reframed = camera.area is not None or camera.longest_side_px is not None
    # Files and pushes may repeat a picture, and the synthetic line is never at fault.
    watches_frozen = kind in LIVE or kind is SourceKind.FILM
    return CameraSpec(
        camera.camera,
        source,
        camera.fps,
        camera.project,
        shed=camera.shed,
        edge=Edge(camera.area, camera.longest_side_px) if is_reframed else None,
        keep_original=camera.keep_original,
        health=None if kind is SourceKind.SYNTHETIC else PictureHealth(watches_frozen=watches_frozen),
    )


def require_answer(source: str) -> None:
    """Ask cheaply whether a source is there: a path exists, a port takes connections.

    Raises:
        SourceUnavailable: it is not; the sentence holds no password.
    """
    if source.startswith("/") and not Path(source).exists():
        raise SourceUnavailable(f"{source} is not there.", CameraState.SOURCE_GONE)
    address = urlsplit(source)
    if address.scheme not in _PORTS or not address.hostname:
        return
    port = address.port or _PORTS[address.scheme]
    try:
        socket.create_connection((address.hostname, port), _CONNECT_WITHIN_S).close()
    except OSError as error:
        why = error.strerror or "no answer"
        raise SourceUnavailable(f"{address.hostname}:{port} does not answer: {why}.") from error
