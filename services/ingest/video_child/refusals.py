"""What FFmpeg's errors mean for a camera, in sentences (arrow 1).

Never shows FFmpeg's own text: it may hold the address with its password.
"""

from __future__ import annotations

import errno

import av.error

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.ingest.video_child.job import Job

_NO_SUCH_DEVICE = {errno.ENODEV, errno.ENXIO, errno.ENOTTY}


def refusal_of(error: av.error.FFmpegError, job: Job, *, is_open: bool) -> SourceUnavailable:
    """Return what to tell people about an error of opening or, where `is_open`, of reading."""
    state, what = _network(error, is_open=is_open) if job.is_live and job.format is None else _local(error)
    return SourceUnavailable(f"{job.shown} {what}.", state)


def _network(error: av.error.FFmpegError, *, is_open: bool) -> tuple[CameraState, str]:
    """Return state and predicate for cameras with a host."""
    found = _by_class(
        error,
        (av.error.HTTPUnauthorizedError, CameraState.UNAUTHORIZED, "refuses the user or the password"),
        (av.error.HTTPForbiddenError, CameraState.UNAUTHORIZED, "forbids this user to see the pictures"),
        (av.error.HTTPNotFoundError, CameraState.SOURCE_GONE, "does not know this path (404)"),
        (av.error.HTTPError, CameraState.UNREACHABLE, "answers with an error of its own"),
        (av.error.HTTPClientError, CameraState.UNREACHABLE, "refuses the request"),
        (av.error.ConnectionRefusedError, CameraState.UNREACHABLE, "refuses the connection"),
        (av.error.ExitError, CameraState.UNREACHABLE, "does not answer in time"),
        (av.error.TimeoutError, CameraState.UNREACHABLE, "does not answer in time"),
        (av.error.BlockingIOError, CameraState.UNREACHABLE, "does not answer in time"),
        (av.error.EOFError, CameraState.UNREACHABLE, "closed the connection"),
        (av.error.InvalidDataError, CameraState.UNKNOWN_CODEC, "sends something that is no film"),
        (av.error.LookupError, CameraState.UNKNOWN_CODEC, "sends a kind of film that cannot be read"),
        (av.error.PatchWelcomeError, CameraState.UNKNOWN_CODEC, "sends a kind of film that cannot be read"),
    )
    if found:
        return found
    what = "broke off its stream" if is_open else "cannot be reached; check its name and the network"
    return CameraState.UNREACHABLE, what


def _local(error: av.error.FFmpegError) -> tuple[CameraState, str]:
    """Return state and predicate for films and devices."""
    found = _by_class(
        error,
        (av.error.FileNotFoundError, CameraState.SOURCE_GONE, "is not there"),
        (av.error.NotADirectoryError, CameraState.SOURCE_GONE, "is not there"),
        (av.error.IsADirectoryError, CameraState.SOURCE_GONE, "is a folder, not a film"),
        (av.error.PermissionError, CameraState.SOURCE_GONE, "may not be read by this user"),
        (av.error.InvalidDataError, CameraState.UNKNOWN_CODEC, "is no film, or is damaged"),
        (av.error.ArgumentError, CameraState.UNKNOWN_CODEC, "is no film of a known kind"),
        (av.error.LookupError, CameraState.UNKNOWN_CODEC, "is a kind of film that cannot be read"),
        (av.error.PatchWelcomeError, CameraState.UNKNOWN_CODEC, "is a kind of film that cannot be read"),
        (av.error.EOFError, CameraState.UNKNOWN_CODEC, "ends before its first picture"),
        (av.error.ExitError, CameraState.UNREACHABLE, "gives nothing in time"),
        (av.error.TimeoutError, CameraState.UNREACHABLE, "gives nothing in time"),
    )
    if found:
        return found
    if error.errno in _NO_SUCH_DEVICE:
        return CameraState.SOURCE_GONE, "is no camera, or was unplugged"
    if error.errno == errno.EBUSY:
        return CameraState.UNREACHABLE, "is used by another program"
    return CameraState.UNREACHABLE, f"cannot be read (error {error.errno})"


def _by_class(
    error: av.error.FFmpegError, *rows: tuple[type[av.error.FFmpegError], CameraState, str]
) -> tuple[CameraState, str] | None:
    return next(((state, what) for kind, state, what in rows if isinstance(error, kind)), None)
