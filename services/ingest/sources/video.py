"""Films, RTSP, HTTP and USB cameras, each read by a process of its own (arrow 1).

The child (`services.ingest.video_child`) decodes; this side starts it, takes its pictures, and ends it
when it falls silent. Reconnecting is the ingester's: a source that cannot be read raises.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Event

from services.domain.camera import CameraState
from services.domain.errors import BadRequest, SourceUnavailable
from services.ingest.settings import environment_of_children
from services.ingest.sources.protocol import Shot, Skipped, Taken, Unreadable
from services.ingest.video_child.job import Job, job_of
from services.ingest.video_child.messages import Beat, Damaged, End, Inbox, Message, Picture

# Names of films; other files in a camera's `source` are not taken for one.
FILM_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mkv", ".mov", ".mjpeg", ".mjpg", ".ts", ".webm", ".m4v", ".h264"}
)
# The child says something every half second; 20 missed beats are no busy machine any more.
HANG_S = 10.0
# Until its first beat it loads Python and FFmpeg: 0.3 s on a quiet machine, minutes of swapping at worst.
START_S = 60.0
# A film's next picture is encoded while this one is published. A camera's is not: it would grow old.
_FILM_AHEAD, _LIVE_AHEAD = 2, 1
_POLL_MS = 400
_REAP_S = 2.0
# A whole picture of 1080p fits, so that the child does not wait in mid-picture.
_PIPE_BYTES = 1 << 20


class VideoSource:
    """A film or a camera as a `Source`."""

    def __init__(
        self,
        address: str,
        *,
        secret: str | None = None,
        fps: float | None = None,
        loop: bool = False,
        hang_s: float = HANG_S,
    ) -> None:
        """Check what can be checked without opening it.

        Args:
            address: path of a film, `rtsp(s)://…`, `http(s)://…` or `usb:/dev/video0`.
            secret: `user:password`.
            fps: pictures per second at most; the others are passed over and declared. None: all.
            loop: begin a film again.
            hang_s: a child silent for so long is ended.

        Raises:
            BadRequest: it can never be read as configured.
        """
        self._job = job_of(address, secret, fps, loop=loop)
        self._hang_s = hang_s
        if find_spec("av") is None:
            raise BadRequest("Films and cameras need FFmpeg: pip install 'loupe-inspect[video]'.")

    def shots(self, stop: Event) -> Generator[Taken | None, None, None]:
        """See `Source.shots`; pictures passed over come as `Skipped` before the next one."""
        child = _Child(self._job, self._hang_s)
        due = 0  # the number that the next picture has if none is passed over
        try:
            child.wish(_LIVE_AHEAD if self._job.is_live else _FILM_AHEAD)
            while not stop.is_set():
                message = child.message()
                if message is None or isinstance(message, Beat):
                    yield None
                    continue
                number = message.count if isinstance(message, End) else message.number
                if number > due:
                    yield Skipped(number - due)
                if isinstance(message, End):
                    if message.state is not None:
                        raise SourceUnavailable(message.message, message.state)
                    return
                due = number + 1
                yield self._taken(message)
                child.wish(1)
        finally:
            child.kill()

    def _taken(self, message: Picture | Damaged) -> Shot | Unreadable:
        subject = f"{self._job.name}:{message.position}"
        if isinstance(message, Damaged):
            return Unreadable(subject, message.reason)
        captured_at = datetime.fromtimestamp(message.decoded_s, UTC) if self._job.is_live else None
        return Shot(message.jpeg, "image/jpeg", subject, captured_at=captured_at)


def is_film(file: Path) -> bool:
    """Tell by its name whether a file is taken for a film."""
    return file.suffix.lower() in FILM_SUFFIXES


class _Child:
    """The process that reads, seen from here."""

    def __init__(self, job: Job, hang_s: float) -> None:
        self._job, self._limit_s, self._hang_s = job, max(START_S, hang_s), hang_s
        self._inbox = Inbox()
        self._process = _start(job)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._wishes, self._pipe = self._process.stdin, self._process.stdout
        # An unprivileged user's pipes together are limited; the smaller one works as well.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # Not select(): it takes no descriptor above 1023, and there may be thousands of cameras.
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._write(replace(job, parent_id=os.getpid()).to_json())
        self._heard_monotonic_s = time.monotonic()

    def wish(self, count: int) -> None:
        """Ask for so many pictures; also the beginning of a wait, before which silence is no fault."""
        self._write(b"\n" * count)
        self._heard_monotonic_s = time.monotonic()

    def message(self) -> Message | None:
        """Return the next message, None after less than half a second without one.

        Raises:
            SourceUnavailable: the child is dead, or silent for too long.
        """
        end_monotonic_s = time.monotonic() + _POLL_MS / 1000
        while True:
            message = self._next()
            left_ms = (end_monotonic_s - time.monotonic()) * 1000
            if message is not None or left_ms <= 0:
                return message
            if self._poll.poll(left_ms):
                self._receive()
            elif time.monotonic() - self._heard_monotonic_s > self._limit_s:
                self.kill()
                name, silent = f"The decoder of {self._job.shown}", f"{self._limit_s:.0f} s"
                text = f"{name} gave no sign of life for {silent} and was ended."
                raise SourceUnavailable(text, CameraState.HANGING)

    def kill(self) -> None:
        """End the child, whatever it does: it holds nothing that could be lost."""
        for stream in (self._wishes, self._pipe):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.kill()
        # One that a driver holds ends later; subprocess reaps it then.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    def _next(self) -> Message | None:
        try:
            return self._inbox.take()
        except ValueError as error:
            raise SourceUnavailable(
                f"The decoder of {self._job.shown} sent {error}.", CameraState.FAILED
            ) from error

    def _receive(self) -> None:
        piece = os.read(self._pipe.fileno(), _PIPE_BYTES)
        if not piece:
            raise SourceUnavailable(self._obituary(), CameraState.FAILED)
        self._inbox.add(piece)
        self._heard_monotonic_s, self._limit_s = time.monotonic(), self._hang_s

    def _obituary(self) -> str:
        """Return how it died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)
        code = self._process.returncode
        if code is not None and code < 0:
            return f"The decoder of {self._job.shown} was ended by {signal.Signals(-code).name}."
        return f"The decoder of {self._job.shown} ended with code {code}."

    def _write(self, data: bytes) -> None:
        """Write to the child; one that is dead already is noticed when reading."""
        with contextlib.suppress(BrokenPipeError):
            self._wishes.write(data)


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Start a child that waits for its job.

    Raises:
        SourceUnavailable: the machine has no room for another process.
    """
    # A session of its own: Ctrl-C is for the ingester, which then ends it. What FFmpeg prints to
    # stderr may hold addresses with passwords, and the environment of this process the passwords themselves.
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "services.ingest.video_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            bufsize=0, start_new_session=True, env=environment_of_children(),
        )  # fmt: skip
    except OSError as error:
        text = f"The decoder of {job.shown} could not be started: {error.strerror}."
        raise SourceUnavailable(text, CameraState.FAILED) from error
